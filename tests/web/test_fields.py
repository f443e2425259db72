"""Heads of answers: what ``twisted.web`` would have sent, field by field."""

# The methods that a request inherits from Twisted have no types.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from regd.web.fields import CommonFields
from regd.web.request import StreamingRequest
from regd.web.response import Response, send_at_once
from tests.web.test_request import SiteCase
from tests.web.wire import parse_answers, request_bytes

#: Each in one spelling: a name that is in a mapping twice is a fault of whoever made it.
NAMES = st.sampled_from(["etag", "Docker-Content-Digest", "OCI-Subject", "Cache-Control", "Content-Type", "Server", "X-A", "Date"])
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=9)
VALUES = st.one_of(st.sampled_from(["a", "a/b", "x\r\nX-Forged: y", "x\n", "\r", ""]), TEXT)
FIELDS = st.dictionaries(NAMES, st.one_of(VALUES, st.lists(VALUES, min_size=1, max_size=2).map(tuple)), max_size=4)
CONFIGURED = st.dictionaries(NAMES, st.lists(VALUES, min_size=1, max_size=2).map(tuple), max_size=3)
STATUSES = st.sampled_from([200, 201, 202, 204, 206, 301, 304, 404, 416, 499, 507])
WHEN = 1795428000.9


class HeadTests(SynchronousTestCase):
    @given(CONFIGURED, FIELDS, STATUSES, st.one_of(st.none(), st.integers(0, 10**12)), st.booleans())
    def test_as_twisted(
        self, configured: dict[str, tuple[str, ...]], own: dict[str, str | tuple[str, ...]], status: int, length: int | None, close: bool
    ) -> None:
        """The fields are those of ``Headers`` after each has been set in turn, so that the later wins; no value makes a second one."""
        expected = Headers()
        said = Headers({b"Connection": [b"close"]}) if close else Headers()
        for name, values in (
            *said.getAllRawHeaders(),
            (b"Docker-Distribution-Api-Version", (b"registry/2.0",)),
            (b"Server", (b"regd",)),
            (b"Date", (b"Mon, 23 Nov 2026 10:00:00 GMT",)),
        ):
            expected.setRawHeaders(name, values)
        for configured_name, texts in configured.items():
            expected.setRawHeaders(configured_name, texts)
        for own_name, value in own.items():
            expected.setRawHeaders(own_name, (value,) if isinstance(value, str) else value)
        if length is not None:
            expected.setRawHeaders("Content-Length", [str(length)])
        common = CommonFields(configured, lambda: WHEN)
        for _ in range(2):
            head = common.head(b"HTTP/1.1", status, said.getAllRawHeaders(), own, length)
            self.assertEqual((head[:13], head[-4:]), (b"HTTP/1.1 %d " % status, b"\r\n\r\n"))
            lines = head[:-4].split(b"\r\n")[1:]
            wanted = [b"%s: %s" % (name, value) for name, values in expected.getAllRawHeaders() for value in values]
            self.assertEqual(sorted(lines), sorted(wanted))

    def test_order(self) -> None:
        common = CommonFields({"X-A": ("1", "2")}, lambda: WHEN)
        head = common.head(b"HTTP/1.0", 200, [(b"Connection", [b"close"])], {"OCI-Subject": "é"}, 5)
        self.assertEqual(
            head.decode().split("\r\n"),
            [
                "HTTP/1.0 200 OK",
                "Connection: close",
                "Docker-Distribution-Api-Version: registry/2.0",
                "Server: regd",
                "Date: Mon, 23 Nov 2026 10:00:00 GMT",
                "X-A: 1",
                "X-A: 2",
                "Oci-Subject: é",
                "Content-Length: 5",
                "",
                "",
            ],
        )

    def test_the_date_moves(self) -> None:
        now = [WHEN]
        common = CommonFields({}, lambda: now[0])
        for when, date in ((0.0, b"10:00:00"), (0.05, b"10:00:00"), (0.1, b"10:00:01"), (3600, b"11:00:00"), (0, b"10:00:00")):
            now[0] = WHEN + when
            self.assertIn(date, common.head(b"HTTP/1.1", 200, (), {}, 0))

    def test_statuses_without_a_name(self) -> None:
        self.assertTrue(CommonFields().head(b"HTTP/1.1", 299, (), {}, 0).startswith(b"HTTP/1.1 299 Unknown Status\r\n"))


class WrittenTests(SiteCase):
    """The same answer by way of Twisted's own ``write``."""

    def respond(self, response: Response, by_twisted: bool, method: str, version: str, close: bool) -> tuple[object, ...]:
        def answer(request: StreamingRequest) -> None:
            if not by_twisted:
                self.assertTrue(send_at_once(request, response, CommonFields({"X-Configured": ("a", "b")})))
                return
            request.setResponseCode(response.status)
            request.responseHeaders.setRawHeaders("X-Configured", ["a", "b"])
            for name, value in response.headers.items():
                request.responseHeaders.setRawHeaders(name, (value,) if isinstance(value, str) else value)
            if response.status not in {204, 304}:
                request.setHeader("Content-Length", str(response.length))
            request.write(response.body if isinstance(response.body, bytes) else b"")
            request.finish()

        self.resource.on_request = answer
        client = self.client()
        client.asked.append(method)
        logged: list[int] = []
        self.patch(self.site, "_log_access", lambda request: logged.append(request.sentLength))
        client.wire.inbox += request_bytes(method, "/x", [("Connection", "close")] if close else [], version=version)
        client.wire.deliver()
        written = client.wire.value()
        client.settle()
        (found,), rest = parse_answers(written, [method])
        fields = sorted((name, value) for name, value in found.headers if name not in {"Date", "X-Request-Id"})
        return written[: written.index(b"\r\n")], fields, len(found.all("Date")), found.body, rest, client.wire.lost, logged

    def test_as_twisted(self) -> None:
        for response in (
            Response(200, {"Content-Type": "a/b", "ETag": '"x"'}, b"body"),
            Response(200, {"Content-Type": "a/b"}, 12345),
            Response(200, {"Cache-Control": "no-cache"}),
            Response(304, {"ETag": '"x"'}),
            Response(204, {"Range": "0-1"}),
            Response(404, {"Content-Type": "application/json", "Oci-Tag": ("a", "b")}, b"{}"),
        ):
            for method in ("GET", "HEAD"):
                if isinstance(response.body, int) and method == "GET":
                    continue
                for version in ("HTTP/1.1", "HTTP/1.0"):
                    for close in (False, True):
                        ours, twisted = (self.respond(response, by_twisted, method, version, close) for by_twisted in (False, True))
                        self.assertEqual(ours, twisted)

    def test_one_write(self) -> None:
        """Head and body leave together."""
        self.resource.on_request = lambda request: send_at_once(request, Response(200, {"Content-Type": "a/b"}, b"body"))
        client = self.client()
        writes: list[bytes] = []
        self.patch(client.wire, "write", writes.append)
        client.send(request_bytes("GET", "/"))
        self.assertEqual(len(writes), 1)
        self.assertTrue(writes[0].endswith(b"\r\n\r\nbody"))
