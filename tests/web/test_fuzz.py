"""Whatever a client sends, it gets an answer of the protocol: never a fault of the server's, never HTML, never silence."""

from __future__ import annotations

import json

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock

from tests.web.support import MINIMAL, OCTETS, ApiCase, digest_of, late
from tests.web.wire import chunked, request_bytes

#: What may stand in a path without ending the request line.
SEGMENTS = st.one_of(
    st.sampled_from(b"v2 . .. a a.b _catalog blobs uploads manifests tags list referrers latest * {} <x>".split()),
    st.sampled_from(b"%2F %2e%2e %00 % %zz \xff %ff \xc3\xa9 sha1:00 6330d93d-2e45-4235-b304-5a2206b959f7".split()),
    st.sampled_from([b"", b"a" * 300, b"sha256:" + b"0" * 64, b"sha512:" + b"f" * 128]),
    st.binary(max_size=12).map(lambda raw: raw.translate(None, b" \r\n\t?#")),
)
NAMES = st.sampled_from(b"n last digest mount from _state tag artifactType digest-algorithm x".split())
VALUES = st.one_of(
    st.sampled_from(b"0 -1 1e3 sha512: %ff \xff %00 \xe2\x80\xa8 a AAAA".split()),
    st.sampled_from([b"", b"9" * 30, b"sha256:" + b"0" * 64]),
    st.binary(max_size=20).map(lambda raw: raw.translate(None, b" \r\n\t#")),
)
HEADERS = st.sampled_from(
    ["Range", "If-Range", "Accept", "If-None-Match", "Content-Type", "Content-Range", "Forwarded", "Expect", "Connection"]
)
HEADER_VALUES = st.one_of(
    st.sampled_from(b'bytes=0-1 bytes=-5 bytes=5-1,3- bytes=, W/"x" * 0-4 proto=https a/b;q=\xff 100-continue \xff close for="'.split()),
    st.sampled_from([b"bytes 0-4/5", b"bytes=" + b"9" * 25 + b"-"]),
    st.binary(max_size=20).map(lambda raw: raw.translate(None, b"\r\n\x00")),
)


#: Requests that a registry can answer one by one: method, path, body, whether it is chunked, whether the client asks before it sends it.
PIPELINED = st.lists(
    st.tuples(
        st.sampled_from(
            [
                ("GET", "/v2/"),
                ("GET", "/v2/a/manifests/latest"),
                ("HEAD", "/v2/a/manifests/latest"),
                ("GET", f"/v2/a/blobs/{digest_of(b'layer')}"),
                ("GET", "/v2/a/tags/list"),
                ("GET", "/nowhere"),
                ("PUT", "/v2/a/manifests/bad"),
                ("POST", "/v2/a/blobs/uploads/"),
                ("POST", f"/v2/a/blobs/uploads/?digest={digest_of(b'x' * 100)}"),
                ("PATCH", "/v2/a/blobs/uploads/none"),
                ("PATCH", "UPLOAD"),
                ("DELETE", "/v2/a/manifests/none"),
            ]
        ),
        st.sampled_from([None, b"", b"x", b"x" * 100, b"x" * 70_000]),
        st.booleans(),
        st.booleans(),
    ),
    min_size=1,
    max_size=5,
)


class PipelineTests(ApiCase):
    @settings(max_examples=150)
    @given(PIPELINED, st.sampled_from([1, 7, 100, 5000, 65536]), st.booleans())
    def test_as_one_by_one(
        self, wanted: list[tuple[tuple[str, str], bytes | None, bool, bool]], size: int, slow_storage: bool
    ) -> None:
        """However requests are cut into pieces and however late the storage is, each gets the answer that it gets by itself."""
        self.clock = Clock()
        self.build(MINIMAL, late(self.clock) if slow_storage else None)
        self.push_image("a", "latest")
        upload = self.begin("a")
        client, data = self.client(), b""
        expected: list[int] = []
        for (method, target), content, is_chunked, asks in wanted:
            headers, body = [OCTETS], content
            if content is not None and is_chunked:
                headers.append(("Transfer-Encoding", "chunked"))
                body = chunked(content[:30], content[30:])
            if body and asks:
                headers.append(("Expect", "100-continue"))
            expected.append(self.ask(method, target.replace("UPLOAD", self.begin("a")), headers, body).status)
            client.asked.append(method)
            data += request_bytes(method, target.replace("UPLOAD", upload), headers, body)
        client.send(data, max(size, len(data) // 2000))
        statuses = [status for status in client.statuses if status != 100]
        if len(statuses) < len(expected):
            # An answer before the end of a body of unknown length, or that the client may not send at all, ends the connection.
            self.assertEqual(client.answers[-1].get("Connection"), "close")
        self.assertEqual(statuses, expected[: len(statuses)])
        self.assertEqual(client.unread, b"")


class FuzzTests(ApiCase):
    def setUp(self) -> None:
        super().setUp()
        self.push_image("a", "latest")

    @settings(max_examples=250)
    @given(
        st.sampled_from(["GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW", "get"]),
        st.lists(SEGMENTS, max_size=6),
        st.lists(st.tuples(NAMES, VALUES), max_size=3),
        st.lists(st.tuples(HEADERS, HEADER_VALUES), max_size=3),
        st.one_of(st.none(), st.binary(max_size=20)),
    )
    @example("GET", [b"v2", b"a", b"manifests", b"latest"], [], [("Accept", b"\xff")], None)
    @example("GET", [b"v2", b"a", b"tags", b"list"], [(b"n", b"\xff")], [], None)
    @example("GET", [b"v2", b"_catalog"], [(b"last", b"%ed%a0%80")], [], None)
    @example("BREW\xff", [b"v2", b""], [], [], None)
    def test_requests(
        self, method: str, segments: list[bytes], query: list[tuple[bytes, bytes]], headers: list[tuple[str, bytes]], body: bytes | None
    ) -> None:
        target = b"/" + b"/".join(segments)
        if query:
            target += b"?" + b"&".join(b"=".join(pair) for pair in query)
        client = self.client()
        client.asked.append(method)
        client.send(request_bytes(method, target, headers, body))
        if client.statuses == [100]:
            client.settle()
        final = [answer for answer in client.answers if answer.status >= 200]
        self.assertEqual(len(final), 1, (client.answers, client.unread))
        self.assertLess(final[0].status, 500)
        self.check(final[0], method)

    @settings(max_examples=150)
    @given(st.binary(min_size=1, max_size=200), st.integers(1, 50))
    @example(b"GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", 1)
    @example(b"* * HTTP/1.1\r\n\r\n", 7)
    def test_bytes(self, data: bytes, size: int) -> None:
        """What is no request at all gets 400, in the envelope, or, as long as it may become one, nothing."""
        client = self.client()
        client.send(data + b"\r\n\r\n\r\n\r\n", size)
        self.assertEqual(client.unread, b"")
        for answer in client.answers:
            self.assertLess(answer.status, 500)
            self.check(answer)

    @settings(max_examples=100)
    @given(st.lists(st.binary(min_size=1, max_size=40), max_size=5), st.integers(1, 80), st.binary(max_size=10), st.integers(0, 200))
    def test_chunked_bodies(self, chunks: list[bytes], size: int, noise: bytes, where: int) -> None:
        """A chunked body that something has been put into gives an upload, or an error of the client's."""
        body = chunked(*chunks)
        client = self.client()
        location = self.begin("a")
        client.asked.append("PATCH")
        head = request_bytes("PATCH", location, [OCTETS, ("Transfer-Encoding", "chunked")])
        client.send(head + body[:where] + noise + body[where:], size)
        if not noise:
            self.assertEqual(client.statuses, [202])
        for answer in client.answers:
            self.assertLess(answer.status, 500)
            if answer.status >= 400:
                self.assertTrue(json.loads(answer.body)["errors"])
        if not client.wire.lost:
            client.leave()
        status = self.ask("GET", location)
        self.assertEqual(status.status, 204)
