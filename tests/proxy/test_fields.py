"""The head of a request as it is passed on."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regd.proxy.fields import Origin, pass_on, request_head, split_fields, with_trace
from regd.proxy.origin import find_client

ORIGIN = Origin(b"192.0.2.1", b"192.0.2.1", b"http")

TOKEN = st.from_regex(rb"[!#$%&'*+.^`|~0-9A-Za-z-]{1,12}", fullmatch=True)
VALUE = st.from_regex(rb"(?:[!-~\x80-\xff](?:[ \t!-~\x80-\xff]{0,20}[!-~\x80-\xff])?)?", fullmatch=True)
HOP = [
    *[b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"expect"],
    b"proxy-authorization",
]
PIECES = [b"A: b", b"\r\n", b"\n", b" ", b":", b"Host: x", b"\0", b"Connection: a"]


class PassOnTests(SynchronousTestCase):
    def lines(self, *fields: bytes, authority: bytes | None = None) -> list[bytes]:
        return pass_on(b"\r\n".join(fields), authority).lines.split(b"\r\n")[:-1]

    def test_to_the_letter(self) -> None:
        fields = [b"b-B: 1", b"HOST: x", b"a: 2", b"b-b: 3", b"A: ", b"Z: \xe9 \t c"]
        self.assertEqual(self.lines(*fields), fields)

    def test_about_one_connection(self) -> None:
        for name in HOP:
            self.assertEqual(self.lines(b"Host: x", name.title() + b": y"), [b"Host: x"])

    def test_what_connection_names(self) -> None:
        fields = [b"Host: x", b"Connection: close, X-Secret", b"x-secret: 1", b"Connection: Host, Content-Length, y"]
        self.assertEqual(self.lines(*fields, b"Content-Length: 1", b"Y: 2"), [b"Host: x", b"Content-Length: 1"])

    def test_underscores(self) -> None:
        self.assertEqual(self.lines(b"Host: x", b"X_Real_IP: 1"), [b"Host: x"])

    def test_authority(self) -> None:
        self.assertEqual(self.lines(b"A: b", b"hOst: x", authority=b"y"), [b"A: b", b"hOst: y"])
        self.assertEqual(self.lines(b"A: b", authority=b"y"), [b"Host: y", b"A: b"])

    def test_where_it_comes_from(self) -> None:
        said = [b"X-Forwarded-For: 1.1.1.1", b"X-Real-IP: 9.9.9.9", b"x-forwarded-for: 2.2.2.2", b"X-Forwarded-Proto: https"]
        said.append(b"X-Request-ID: of the client")
        passed = pass_on(b"\r\n".join([b"Host: x", *said]), None)
        head = request_head(b"GET", b"/p?q", passed, Origin(b"3.3.3.3", b"1.1.1.1", b"https"), "0f-1", b"up", chunked=False)
        self.assertEqual(
            head,
            b"GET /p?q HTTP/1.1\r\nHost: x\r\nX-Real-IP: 1.1.1.1\r\n"
            b"X-Forwarded-For: 1.1.1.1, 2.2.2.2, 3.3.3.3\r\nX-Forwarded-Proto: https\r\nX-Request-Id: 0f-1\r\n\r\n",
        )

    def test_a_trace_that_nobody_here_takes_part_in(self) -> None:
        fields = [b"Host: x", b"traceparent: 00-1", b"TraceState: a=b", b"tracestate: c=d"]
        passed = pass_on(b"\r\n".join(fields), None)
        self.assertEqual(with_trace(passed, {}).lines.split(b"\r\n")[:-1], fields)

    def test_a_trace(self) -> None:
        ours = {"traceparent": "00-2", "tracestate": "a=b"}
        others = [b"Host: x", b"x-traceparent: y"]
        for fields in ([b"Traceparent: 00-1", *others, b"tracestate: c=d", b"TRACESTATE:"], others):
            passed = with_trace(pass_on(b"\r\n".join(fields), None), ours)
            self.assertEqual(passed.lines.split(b"\r\n")[:-1], [*others, b"traceparent: 00-2", b"tracestate: a=b"], fields)

    @given(st.lists(st.tuples(TOKEN | st.sampled_from([b"traceparent", b"TraceState"]), VALUE), max_size=8))
    def test_nothing_but_the_trace_changes(self, fields: list[tuple[bytes, bytes]]) -> None:
        passed = pass_on(b"\r\n".join(b"%b: %b" % field for field in fields), None)
        trace = {b"traceparent", b"tracestate"}
        before = [field for field in split_fields(passed.lines.removesuffix(b"\r\n")) if field[0].lower() not in trace]
        after = with_trace(passed, {"traceparent": "1"})
        self.assertEqual(list(split_fields(after.lines.removesuffix(b"\r\n"))), [*before, (b"traceparent", b"1")])

    def test_without_host(self) -> None:
        head = request_head(b"PUT", b"/", pass_on(b"", None), ORIGIN, "0f-1", b"up:1", chunked=True)
        self.assertTrue(head.startswith(b"PUT / HTTP/1.1\r\nHost: up:1\r\nX-Real-IP: "), head)
        self.assertTrue(head.endswith(b"\r\nTransfer-Encoding: chunked\r\n\r\n"), head)

    @given(st.lists(st.tuples(TOKEN, VALUE), max_size=8))
    def test_nothing_else_changes(self, fields: list[tuple[bytes, bytes]]) -> None:
        special = {b"host", b"x-real-ip", b"x-forwarded-for", b"x-forwarded-proto", b"x-request-id", *HOP}
        fields = [field for field in fields if field[0].lower() not in special]
        passed = pass_on(b"\r\n".join(b"%b: %b" % field for field in fields), None)
        self.assertEqual(list(split_fields(passed.lines.removesuffix(b"\r\n"))), fields)

    @given(st.binary(max_size=80) | st.lists(st.sampled_from(PIECES)).map(b"".join))
    def test_any_bytes(self, block: bytes) -> None:
        try:
            passed = pass_on(block, None)
        except ValueError:
            return
        # What comes out are lines with a name each, whatever went in.
        self.assertTrue(all(name for name, _ in split_fields(passed.lines.removesuffix(b"\r\n"))))


class ClientTests(SynchronousTestCase):
    def test_the_last_that_is_not_trusted(self) -> None:
        def trusts(address: str) -> bool:
            return address.startswith("10.")

        for peer, chain, real, client in (
            ("10.0.0.1", "", "", "10.0.0.1"),
            ("10.0.0.1", "", "203.0.113.5", "203.0.113.5"),
            ("10.0.0.1", "", "nonsense\r\n", "10.0.0.1"),
            ("10.0.0.1", "203.0.113.5", "1.1.1.1", "203.0.113.5"),
            ("10.0.0.1", "6.6.6.6, 203.0.113.5, 10.0.0.2", "", "203.0.113.5"),
            ("10.0.0.1", "10.0.0.3, 10.0.0.2", "", "10.0.0.3"),
            ("10.0.0.1", "6.6.6.6, unknown, 10.0.0.2", "", "10.0.0.2"),
            ("10.0.0.1", "2001:db8::1", "", "2001:db8::1"),
            ("10.0.0.1", "6.6.6.6, [2001:db8::1]:4711", "", "2001:db8::1"),
            ("10.0.0.1", "6.6.6.6, [2001:db8::1]", "", "2001:db8::1"),
            ("10.0.0.1", "6.6.6.6, 203.0.113.5:80, 10.0.0.2:81", "", "203.0.113.5"),
            ("10.0.0.1", "6.6.6.6, 203.0.113.5:http", "", "10.0.0.1"),
            ("10.0.0.1", "6.6.6.6, [203.0.113.5", "", "10.0.0.1"),
            ("10.0.0.1", "fe80::1%any text", "", "10.0.0.1"),
        ):
            self.assertEqual(find_client(peer, chain, real, trusts), client, chain)

    @given(st.text(max_size=40), st.text(max_size=20))
    def test_any_text(self, chain: str, real: str) -> None:
        find_client("10.0.0.1", chain, real, lambda address: True).encode("ascii")
