"""The head of an upstream's answer."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regd.proxy.answers import CHUNKED, UNTIL_CLOSE, Head, NotHTTP, client_head, parse_head, right_location

PIECES = [b"HTTP/1.1 200 OK", b"\r\n", b"A: b", b"\n", b" ", b"Content-Length: 1"]


class ParseTests(SynchronousTestCase):
    def parse(self, *lines: bytes, method: bytes = b"GET") -> Head:
        return parse_head(b"\r\n".join(lines), method)

    def test_framing(self) -> None:
        ok = b"HTTP/1.1 200 OK"
        for lines, method, length, persistent in (
            ([ok, b"Content-Length: 5"], b"GET", 5, True),
            ([ok, b"content-length: 5", b"Content-Length: 5"], b"GET", 5, True),
            ([ok, b"Content-Length: 5"], b"HEAD", 0, True),
            ([ok, b"Transfer-Encoding: Chunked"], b"GET", CHUNKED, True),
            ([ok], b"GET", UNTIL_CLOSE, False),
            ([ok], b"HEAD", 0, True),
            ([b"HTTP/1.1 204 No Content"], b"GET", 0, True),
            ([b"HTTP/1.1 304 Not Modified", b"Content-Length: 9"], b"GET", 0, True),
            ([b"HTTP/1.1 100 Continue"], b"PUT", 0, True),
            ([ok, b"Content-Length: 0", b"Connection: x, Close"], b"GET", 0, False),
            ([b"HTTP/1.0 200 OK", b"Content-Length: 0"], b"GET", 0, False),
            ([b"HTTP/1.0 200 OK", b"Content-Length: 0", b"Connection: keep-alive"], b"GET", 0, True),
            ([b"HTTP/1.0 200 OK", b"Transfer-Encoding: chunked", b"Connection: keep-alive"], b"GET", CHUNKED, False),
            ([b"HTTP/1.1 200", b"Content-Length: 0"], b"GET", 0, True),
            ([b"HTTP/1.1 599 \xe4", b"Content-Length: 0"], b"GET", 0, True),
        ):
            head = self.parse(*lines, method=method)
            self.assertEqual((head.length, head.persistent), (length, persistent), lines)

    def test_not_http(self) -> None:
        ok = b"HTTP/1.1 200 OK"
        for lines in (
            [b""],
            [b"HTTP/2 200 OK"],
            [b"HTTP/1.1 20 OK"],
            [b"HTTP/1.1  200 OK"],
            [b"HTTP/1.1 200 a\0"],
            [ok, b"no colon"],
            [ok, b" folded: x"],
            [ok, b"a b: c"],
            [ok, b"a: b\rc"],
            [ok, b"a: b\nc: d"],
            [ok, b"Content-Length: 5", b"Content-Length: 6"],
            [ok, b"Content-Length: 5, 5"],
            [ok, b"Content-Length: +5"],
            [ok, b"Content-Length: 5", b"Transfer-Encoding: chunked"],
            [ok, b"Transfer-Encoding: gzip, chunked"],
            [ok, b"Transfer-Encoding: identity"],
            [ok, b"Content-Length: " + b"9" * 30],
        ):
            self.assertTrue(str(self.assertRaises(NotHTTP, self.parse, *lines)), lines)

    @given(st.binary(max_size=60) | st.lists(st.sampled_from(PIECES)).map(b"".join))
    def test_any_bytes(self, block: bytes) -> None:
        try:
            head = parse_head(block, b"GET")
        except NotHTTP:
            return
        made = client_head(head, b"HTTP/1.1", None, None, {}, chunked=False)
        self.assertEqual(made.count(b"\r\n"), made.count(b"\n"))
        self.assertEqual(made.count(b"\r\n\r\n"), 1)


class ClientHeadTests(SynchronousTestCase):
    def test_to_the_letter(self) -> None:
        fields = b"b-B: 1\r\nKeep-Alive: 5\r\nA: 2\r\nb-b: 3\r\nConnection: X-Mine\r\nX-Mine: 4\r\nContent-Length: 7"
        head = parse_head(b"HTTP/1.1 299 Odd Words\r\n" + fields, b"GET")
        configured = {b"a": [b"no"], b"X-New": [b"1", b"2"]}
        self.assertEqual(
            client_head(head, b"HTTP/1.1", b"close", None, configured, chunked=False),
            b"HTTP/1.1 299 Odd Words\r\nb-B: 1\r\nA: 2\r\nb-b: 3\r\nContent-Length: 7\r\nX-New: 1\r\nX-New: 2\r\nConnection: close\r\n\r\n",
        )

    def test_length(self) -> None:
        head = parse_head(b"HTTP/1.1 204 x\r\nContent-Length: 0", b"GET")
        self.assertEqual(client_head(head, b"HTTP/1.1", None, None, {}, chunked=False), b"HTTP/1.1 204 x\r\n\r\n")
        head = parse_head(b"HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\nTrailer: x", b"GET")
        made = client_head(head, b"HTTP/1.1", None, None, {}, chunked=True)
        self.assertEqual(made, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")


class LocationTests(SynchronousTestCase):
    def test_made_right(self) -> None:
        for value, upstream, scheme, wanted in (
            (b"/v2/a", b"10.0.0.1:5000", b"http", b"/v2/a"),
            (b"http://10.0.0.1:5000/v2/a?b#c", b"10.0.0.1:5000", b"https", b"https://hub/v2/a?b#c"),
            (b"HTTP://UP/v2", b"up", b"http", b"http://hub/v2"),
            (b"http://up:80/v2", b"up", b"http", b"http://hub/v2"),
            (b"http://up:5001/v2", b"up", b"http", b"http://up:5001/v2"),
            (b"http://hub/v2", b"up", b"https", b"https://hub/v2"),
            # It is to be reached by https, and says so: not ours to undo.
            (b"https://hub/v2", b"up", b"http", b"https://hub/v2"),
            (b"https://cdn.example/x", b"up", b"http", b"https://cdn.example/x"),
            (b"//up/x", b"up", b"http", b"//up/x"),
            (b"http://[::1]:5000/x", b"[::1]:5000", b"http", b"http://hub/x"),
        ):
            self.assertEqual(right_location(value, upstream, scheme, b"hub"), wanted, value)
