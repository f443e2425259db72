"""Answers whose bytes are still on their way: sent as they come, cut off where they do not, given up when the client leaves."""

# The methods that a request inherits from Twisted have no types.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import os
import socket
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from regd.storage.driver import Interrupted
from regd.web.ranges import ByteRange, multipart
from regd.web.request import StreamingRequest
from regd.web.response import ContentBody, Response
from tests.web.test_response import MIB, ResponseCase
from tests.web.test_transport import FileContent, TransportCase
from tests.web.wire import Client, request_bytes


class ComingContent:
    """
    A :class:`~regd.storage.driver.Content` whose bytes come when the test says so.

    :ivar waiting: who waits for more, each with the offset.
    """

    def __init__(self, data: bytes, there: int = 0) -> None:
        self.data = data
        self.size = len(data)
        self.there = there
        self.broken = False
        self.closed = 0
        self.waiting: list[tuple[int, Deferred[None]]] = []

    def come(self, there: int) -> None:
        self.there = there
        self._wake()

    def break_off(self) -> None:
        self.broken = True
        self._wake()

    def _wake(self) -> None:
        waiting, self.waiting = self.waiting, []
        for _, one in waiting:
            one.callback(None)

    def fileno(self) -> int | None:
        return None

    async def reach(self, offset: int) -> int:
        assert 0 <= offset < self.size
        while self.there <= offset:
            if self.broken:
                raise Interrupted
            waiting: Deferred[None] = Deferred()
            self.waiting.append((offset, waiting))
            await waiting
        return self.there

    async def read(self, offset: int, length: int) -> bytes:
        assert offset + length <= self.there, "more than has come"
        return self.data[offset : offset + length]

    def close(self) -> None:
        self.closed += 1


class GrowingTests(ResponseCase):
    def coming(self, data: bytes, *ranges: ByteRange, there: int = 0) -> ComingContent:
        content = ComingContent(data, there)
        parts = tuple((b"", part) for part in ranges) or ((b"", ByteRange(0, content.size)),)
        self.response = Response(200, {}, ContentBody(content, parts))
        return content

    def asked(self) -> Client:
        client = self.client()
        client.send(request_bytes("GET", "/"))
        return client

    def body(self, client: Client) -> bytes:
        """What has come of the answer's body."""
        return bytes(client.unread).partition(b"\r\n\r\n")[2]

    def test_sent_as_it_comes(self) -> None:
        for size in (10, 100_000, MIB):
            data = os.urandom(size)
            content = self.coming(data)
            client = self.asked()
            self.assertEqual(bytes(client.unread), b"")
            for there in (1, size // 3, size - 1):
                content.come(there)
                client.settle()
                self.assertEqual(self.body(client), data[:there])
            self.assertNoResult(self.sent[-1])
            content.come(size)
            client.settle()
            self.successResultOf(self.sent[-1])
            self.assertEqual((client.answers[0].body, content.closed), (data, 1))
            self.assertIsNone(client.channel._requestProducer)

    def test_a_small_part_that_is_there_goes_in_one_piece(self) -> None:
        content = self.coming(b"0123456789", ByteRange(2, 5), there=7)
        client = self.asked()
        self.assertEqual((client.answers[0].body, content.closed), (b"23456", 1))

    def test_an_empty_part_waits_for_nothing(self) -> None:
        content = self.coming(b"", there=0)
        self.assertEqual((self.asked().answers[0].body, content.closed), (b"", 1))

    def test_several_parts(self) -> None:
        data = os.urandom(300_000)
        content = ComingContent(data)
        ranges = (ByteRange(200_000, 100), ByteRange(5, 100_000), ByteRange(299_999, 1))
        parts, tail = multipart(ranges, len(data), "a/b", "x")
        self.response = Response(206, {}, ContentBody(content, parts, tail))
        client = self.asked()
        for there in (3, 100_000, 200_050, 299_999, 300_000):
            content.come(there)
            client.settle()
        expected = b"".join([*(text + data[part.start : part.start + part.length] for text, part in parts), tail])
        self.assertEqual((client.answers[0].body, content.closed), (expected, 1))

    def test_the_rest_does_not_come(self) -> None:
        """The connection ends before the length that was promised."""
        for size, there in ((10, 0), (10, 3), (MIB, 0), (MIB, 100_000)):
            content = self.coming(b"x" * size)
            client = self.asked()
            if there:
                content.come(there)
            client.settle()
            content.break_off()
            client.settle()
            self.successResultOf(self.sent.pop())
            self.assertEqual((client.wire.aborted, content.closed, client.statuses), (True, 1, []))
            self.assertEqual(self.logged.pop(), (b"/", 499))
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_a_client_that_leaves_is_waited_for_no_longer(self) -> None:
        """What is open at an upstream for it can be closed at once."""
        for size, there in ((10, 0), (10, 3), (MIB, 0), (MIB, 100_000)):
            content = self.coming(b"x" * size)
            client = self.asked()
            if there:
                content.come(there)
            client.settle()
            self.assertNoResult(self.sent[-1])
            ((_, waiting),) = content.waiting
            client.leave()
            self.successResultOf(self.sent.pop())
            self.assertEqual((waiting.called, content.closed), (True, 1))
            self.assertEqual(self.logged.pop(), (b"/", 499))
            content.come(size)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_what_comes_as_the_client_leaves(self) -> None:
        content = self.coming(b"x" * MIB)
        client = self.asked()
        content.come(100_000)
        client.leave()
        content.come(MIB)
        self.successResultOf(self.sent[0])
        self.assertEqual(content.closed, 1)

    def test_no_more_is_read_than_the_client_takes(self) -> None:
        content = self.coming(b"x" * MIB)
        client, wire = self.slow()
        content.come(MIB // 2)
        self.assertTrue(wire.full)
        self.assertLess(len(client.unread), 256 * 1024)
        content.come(MIB)
        for _ in range(100):
            if client.statuses:
                break
            wire.drain()
            client.settle()
        self.assertEqual((len(client.answers[0].body), content.closed), (MIB, 1))

    @given(st.data(), st.integers(1, 200_000))
    def test_any_range_of_anything_that_comes_anyhow(self, data: st.DataObject, size: int) -> None:
        self.setUp()
        start = data.draw(st.integers(0, size - 1))
        length = data.draw(st.integers(1, size - start))
        steps = sorted(data.draw(st.lists(st.integers(0, size), max_size=6)))
        whole = os.urandom(size)
        content = self.coming(whole, ByteRange(start, length))
        client = self.asked()
        for there in steps:
            content.come(there)
            client.settle()
            self.assertEqual(client.answers[0].body if client.statuses else self.body(client), whole[start : min(start + length, there)])
        content.come(size)
        client.settle()
        self.assertEqual((client.answers[0].body, content.closed), (whole[start : start + length], 1))


class ComingFile(FileContent):
    """The same with a descriptor."""

    def __init__(self, path: Path, size: int) -> None:
        super().__init__(path)
        self.size = size
        self.waiting: Deferred[None] | None = None
        self.broken = False

    def wake(self) -> None:
        waiting, self.waiting = self.waiting, None
        if waiting is not None:
            waiting.callback(None)

    async def reach(self, offset: int) -> int:
        while (there := os.fstat(self._file.fileno()).st_size) <= offset:
            if self.broken:
                raise Interrupted
            self.waiting = Deferred()
            await self.waiting
        return there


class GrowingFileTests(TransportCase):
    """By the kernel, on real sockets."""

    def setUp(self) -> None:
        super().setUp()
        self.file.write_bytes(b"")

    def on_request(self, request: StreamingRequest) -> None:
        self.content = ComingFile(self.file, len(self.data))
        self.contents.append(self.content)
        self.answered.append(Deferred.fromCoroutine(self.whole(request, self.content)))

    def append(self, data: bytes) -> None:
        with self.file.open("ab") as file:
            file.write(data)
        self.content.wake()

    async def asked(self) -> socket.socket:
        client = self.connect()
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await self.until(lambda: bool(self.contents) and self.content.waiting is not None)
        return client

    async def test_sent_as_it_comes(self) -> None:
        client = await self.asked()
        steps = [1, 2, 40_000, MIB, 3 * MIB + 5, len(self.data)]
        before, received = 0, b""
        for step in steps:
            self.append(self.data[before:step])
            before = step

            def read(so_far: bytes = received, step: int = step) -> bytes:
                while len(so_far.partition(b"\r\n\r\n")[2]) < step:
                    so_far += client.recv(MIB)
                return so_far

            received = await deferToThread(read)
        self.assertEqual(received.partition(b"\r\n\r\n")[2], self.data)
        await self.until(lambda: self.logged == [200])

    async def test_the_rest_does_not_come(self) -> None:
        client = await self.asked()
        self.append(self.data[:100_000])
        await self.until(lambda: self.content.waiting is not None)
        self.content.broken = True
        self.content.wake()
        self.assertLess(await self.all_that_comes(client), len(self.data))
        await self.until(lambda: self.logged == [499] and self.content.closed)

    async def test_a_client_that_leaves(self) -> None:
        client = await self.asked()
        self.append(self.data[:100_000])
        await self.until(lambda: self.content.waiting is not None)
        client.close()
        await self.until(lambda: self.logged == [499] and self.content.closed)
