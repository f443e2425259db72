"""Answers on the wire where the kernel cannot send by itself: in memory, and, later, over TLS. The consumer sets the pace."""

# The methods that a request inherits from Twisted have no types.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from regd.errors import BlobUnknown, DigestInvalid, RegistryError
from regd.storage.driver import StorageError
from regd.web.ranges import ByteRange, multipart
from regd.web.request import StreamingRequest
from regd.web.response import ContentBody, Response, error_response, json_response, send
from tests.web.test_request import SiteCase
from tests.web.wire import Client, Wire, request_bytes

MIB = 1024 * 1024


class MemoryContent:
    """
    A :class:`~regd.storage.driver.Content` without a descriptor. Each read may wait for the test.

    :ivar reads: what was read, in order.
    """

    def __init__(self, data: bytes, size: int | None = None) -> None:
        self.data = data
        self.size = len(data) if size is None else size
        self.closed = 0
        self.reads: list[tuple[int, int]] = []
        self.waiting: Deferred[None] | None = None
        self.error: Exception | None = None

    def fileno(self) -> int | None:
        return None

    async def reach(self, offset: int) -> int:
        return self.size

    async def read(self, offset: int, length: int) -> bytes:
        """As a driver may, it does not always return as much as it was asked for."""
        assert not self.closed
        if len(self.reads) % 3 == 1:
            length = (length + 1) // 2
        self.reads.append((offset, length))
        if self.waiting is not None:
            await self.waiting
        if self.error is not None:
            raise self.error
        return self.data[offset : offset + length]

    def close(self) -> None:
        self.closed += 1


class SlowWire(Wire):
    """A transport that is full after so many bytes, and says so, as sockets do."""

    room = 64 * 1024

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.full = False
        # Any: StringTransport declares it as nothing.
        self.producer: Any = None

    def write(self, data: bytes) -> None:
        super().write(data)
        self.room -= len(data)
        if self.room < 0 and not self.full and self.producer is not None:
            self.full = True
            self.producer.pauseProducing()

    def drain(self, room: int = 64 * 1024) -> None:
        """The client has read something."""
        self.room = room
        if self.full:
            self.full = False
            self.producer.resumeProducing()


class ResponseCase(SiteCase):
    def setUp(self) -> None:
        super().setUp()
        self.sent: list[Deferred[None]] = []
        self.response = Response(200)
        self.resource.on_request = self.respond

    def respond(self, request: StreamingRequest) -> None:
        self.sent.append(Deferred.fromCoroutine(send(request, self.response)))

    def content(self, data: bytes, *ranges: ByteRange, size: int | None = None, status: int = 200) -> MemoryContent:
        """Answer with (parts of) this from now on."""
        content = MemoryContent(data, size)
        parts = tuple((b"", part) for part in ranges) or ((b"", ByteRange(0, content.size)),)
        self.response = Response(status, {}, ContentBody(content, parts))
        return content

    def slow(self, method: str = "GET") -> tuple[Client, SlowWire]:
        """A client that reads nothing yet, and that has asked for something."""
        client = self.client()
        wire = SlowWire(self.clock)
        client.wire.end = lambda reason: None  # type: ignore[method-assign]  # the connection that it came with is not used
        client.wire, client.channel = wire, self.site.buildProtocol(wire.getPeer())
        wire.protocol = client.channel
        client.channel.makeConnection(wire)
        client.asked.append(method)
        client.send(request_bytes(method, "/"))
        return client, wire


class ValueTests(ResponseCase):
    def test_lengths(self) -> None:
        parts = ((b"abc", ByteRange(0, 10)), (b"de", ByteRange(5, 20)))
        for response, length in (
            (Response(200), 0),
            (Response(200, {}, b"abc"), 3),
            (Response(200, {}, 12345), 12345),
            (Response(200, {}, ContentBody(MemoryContent(b"x"), parts, b"tail")), 39),
        ):
            self.assertEqual(response.length, length)

    def test_json(self) -> None:
        response = json_response(201, {"a": [1, None]}, {"X": "y"})
        self.assertEqual((response.status, response.body), (201, b'{"a":[1,null]}\n'))
        self.assertEqual(response.headers, {"Content-Type": "application/json", "X": "y"})
        self.assertEqual(json_response(200, {}, {"Content-Type": "a/b"}).headers["Content-Type"], "a/b")

    def test_json_of_any_text(self) -> None:
        """Also of half a surrogate pair, which JSON can say and UTF-8 cannot."""
        for text in ("é", "\ud800", "\U0001f600", "\u2028", "\x00"):
            body = json_response(200, {"k": text}).body
            assert isinstance(body, bytes)
            self.assertEqual(json.loads(body.decode("utf-8")), {"k": text})

    def test_errors(self) -> None:
        others = (DigestInvalid(detail=1),)
        response = error_response(BlobUnknown("no", detail={"digest": "x"}, headers={"Retry-After": "5"}, others=others))
        self.assertEqual(response.status, 404)
        self.assertEqual(response.headers, {"Content-Type": "application/json", "Retry-After": "5"})
        assert isinstance(response.body, bytes)
        self.assertEqual(
            json.loads(response.body),
            {
                "errors": [
                    {"code": "BLOB_UNKNOWN", "message": "no", "detail": {"digest": "x"}},
                    {"code": "DIGEST_INVALID", "message": DigestInvalid.default_message, "detail": 1},
                ]
            },
        )
        self.assertEqual(error_response(RegistryError()).status, 500)

    def test_close(self) -> None:
        content = self.content(b"x")
        self.response.close()
        self.assertEqual(content.closed, 1)
        Response(200, {}, b"x").close()


class SendTests(ResponseCase):
    def get(self, method: str = "GET") -> tuple[Mapping[str, str], bytes]:
        answer = self.client().ask(method, "/")
        self.successResultOf(self.sent.pop())
        return dict(answer.headers), answer.body

    def test_bytes(self) -> None:
        self.response = Response(200, {"X": "y", "Z": ("1", "2")}, b"abc")
        answer = self.client().ask("GET", "/")
        self.assertEqual((answer["Content-Length"], answer["X"], answer.all("Z"), answer.body), ("3", "y", ["1", "2"], b"abc"))

    def test_head(self) -> None:
        for body in (b"abc", 3):
            self.response = Response(200, {}, body)
            headers, got = self.get("HEAD")
            self.assertEqual((headers["Content-Length"], got), ("3", b""))
        content = self.content(b"x" * MIB)
        headers, got = self.get("HEAD")
        self.assertEqual((headers["Content-Length"], got, content.reads, content.closed), (str(MIB), b"", [], 1))

    def test_no_length(self) -> None:
        """RFC 9110, section 8.6."""
        for status in (204, 304):
            self.response = Response(status, {"ETag": '"x"'})
            headers, body = self.get()
            self.assertNotIn("Content-Length", headers)
            self.assertNotIn("Transfer-Encoding", headers)
            self.assertEqual(body, b"")

    def test_contents(self) -> None:
        for size in (0, 1, 32 * 1024, 32 * 1024 + 1, MIB):
            data = bytes(range(256)) * (size // 256) + bytes(size % 256)
            content = self.content(data)
            headers, body = self.get()
            self.assertEqual((headers["Content-Length"], body, content.closed), (str(size), data, 1))

    def test_ranges(self) -> None:
        data = bytes(range(256)) * 1024
        for part in (ByteRange(0, 1), ByteRange(100, 100_000), ByteRange(len(data) - 1, 1)):
            self.content(data, part, status=206)
            self.assertEqual(self.get()[1], data[part.start : part.start + part.length])

    def test_several_parts(self) -> None:
        data = bytes(range(256)) * 1024
        ranges = (ByteRange(0, 100_000), ByteRange(7, 3), ByteRange(150_000, 100_000))
        parts, tail = multipart(ranges, len(data), "a/b", "x")
        content = MemoryContent(data)
        self.response = Response(206, {}, ContentBody(content, parts, tail))
        expected = b"".join(text + data[part.start : part.start + part.length] for text, part in parts) + tail
        headers, body = self.get()
        self.assertEqual((headers["Content-Length"], body, content.closed), (str(len(expected)), expected, 1))
        self.assertEqual(self.logged, [(b"/", 206)])


class PaceTests(ResponseCase):
    """Promise P1: no more is read than the client takes."""

    def test_paused_and_resumed(self) -> None:
        data = bytes(range(256)) * (2 * MIB // 256)
        content = self.content(data)
        client, wire = self.slow()
        for _ in range(100):
            if client.statuses:
                break
            self.assertLess(sum(length for _, length in content.reads) - len(client.unread), 256 * 1024)
            self.assertTrue(wire.full)
            self.assertNoResult(self.sent[0])
            wire.drain()
            client.settle()
        self.successResultOf(self.sent[0])
        self.assertEqual((client.answers[0].body, content.closed), (data, 1))
        self.assertEqual(self.logged, [(b"/", 200)])
        self.assertIsNone(client.channel._requestProducer)

    def test_another_answer_follows(self) -> None:
        self.content(b"x" * MIB)
        client, wire = self.slow()
        wire.drain(2 * MIB)
        client.settle()
        self.response = Response(200, {}, b"next")
        self.assertEqual(client.ask("GET", "/").body, b"next")

    def test_paused_while_it_reads(self) -> None:
        content = self.content(b"x" * MIB)
        content.waiting = Deferred()
        client, wire = self.slow()
        client.channel.pauseProducing()
        waiting, content.waiting = content.waiting, None
        waiting.callback(None)
        # What was read is written; no more is.
        self.assertEqual(len(content.reads), 1)
        wire.room = 2 * MIB
        client.channel.resumeProducing()
        client.settle()
        self.assertEqual(client.statuses, [200])

    def gone(self, client: Client, content: MemoryContent) -> None:
        self.successResultOf(self.sent[0])
        self.assertEqual((self.logged, content.closed, client.statuses), ([(b"/", 499)], 1, []))
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_a_client_that_leaves_while_it_is_full(self) -> None:
        content = self.content(b"x" * MIB)
        client, _ = self.slow()
        client.leave()
        self.gone(client, content)

    def test_a_client_that_leaves_between_parts(self) -> None:
        content = MemoryContent(b"x" * MIB)
        parts, tail = multipart((ByteRange(0, 500_000), ByteRange(500_000, 500_000)), MIB, "a/b", "x")
        self.response = Response(206, {}, ContentBody(content, parts, tail))
        client, _ = self.slow()
        client.leave()
        self.gone(client, content)

    def test_a_client_that_leaves_while_it_is_read(self) -> None:
        content = self.content(b"x" * MIB)
        waiting = content.waiting = Deferred()
        client, _ = self.slow()
        client.leave()
        waiting.callback(None)
        self.gone(client, content)

    def test_a_client_that_leaves_while_a_small_part_is_read(self) -> None:
        content = self.content(b"x" * 1000)
        waiting = content.waiting = Deferred()
        client, _ = self.slow()
        client.leave()
        waiting.callback(None)
        self.gone(client, content)

    def test_a_client_that_leaves_while_a_small_part_before_a_large_one_is_read(self) -> None:
        content = self.content(b"x" * MIB, ByteRange(0, 10), ByteRange(10, 500_000))
        waiting = content.waiting = Deferred()
        client, _ = self.slow()
        client.leave()
        waiting.callback(None)
        self.gone(client, content)

    def test_a_client_that_has_left_before(self) -> None:
        content = self.content(b"x" * MIB)
        self.resource.on_request = lambda request: None
        client = self.client()
        client.send(request_bytes("GET", "/"))
        client.leave()
        self.respond(self.requests[0])
        self.gone(client, content)
        self.assertEqual(content.reads, [])


class TroubleTests(ResponseCase):
    def test_content_that_is_shorter_than_it_was(self) -> None:
        """The client must notice: the connection ends before the length that it was told."""
        for size in (100, MIB):
            content = self.content(b"x" * (size // 2), size=size)
            client = self.client()
            client.send(request_bytes("GET", "/"))
            self.successResultOf(self.sent.pop())
            self.assertEqual((client.statuses, client.wire.aborted, content.closed), ([], True, 1))
            self.assertEqual(self.logged.pop(), (b"/", 499))

    def test_content_that_cannot_be_read(self) -> None:
        """Whoever sends decides what to do: nothing can be told to the client any more."""
        for size in (100, MIB):
            content = self.content(b"x" * size)
            content.error = StorageError("Input/output error")
            client = self.client()
            client.send(request_bytes("GET", "/"))
            self.failureResultOf(self.sent.pop(), StorageError)
            self.assertEqual(content.closed, 1)
            self.assertIsNone(client.channel._requestProducer)
            client.leave()
