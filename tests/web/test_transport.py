"""Files on real sockets of this machine, sent by the kernel: after headers, in parts, to slow readers, and to those who leave."""

# The methods that a request inherits from Twisted have no types.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import tempfile
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.task import deferLater
from twisted.internet.testing import StringTransport
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from regd.config import TCPAddress, UnixAddress
from regd.storage.driver import Content
from regd.web.factory import StreamingSite
from regd.web.listen import listen
from regd.web.ranges import ByteRange, multipart
from regd.web.request import StreamingRequest
from regd.web.response import ContentBody, Response, send
from regd.web.transport import SEND_AT_ONCE, hold, send_file
from tests.web.test_request import Resource
from tests.web.wire import parse_answers

MIB = 1024 * 1024


class FileContent:
    """A :class:`~regd.storage.driver.Content` with a descriptor."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self.size = path.stat().st_size
        self.closed = False

    def fileno(self) -> int | None:
        return self._file.fileno()

    async def reach(self, offset: int) -> int:
        return self.size

    async def read(self, offset: int, length: int) -> bytes:
        return os.pread(self._file.fileno(), length, offset)

    def close(self) -> None:
        self.closed = True
        self._file.close()


class TransportCase(TestCase):
    unix = False

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)
        self.file = self.directory / "file"
        self.data = bytes(range(256)) * (8 * MIB // 256)
        self.file.write_bytes(self.data)
        self.contents: list[FileContent] = []
        self.logged: list[int] = []
        self.answered: list[Deferred[None]] = []
        self.respond: Callable[[StreamingRequest, Content], Awaitable[None]] = self.whole
        resource = Resource()
        resource.on_request = self.on_request
        self.site: Any = StreamingSite(resource, lambda request: self.logged.append(request.code), reactor)
        address = UnixAddress(str(self.directory / "socket")) if self.unix else TCPAddress("127.0.0.1", 0)
        port = listen(reactor, address, self.site)
        self.addCleanup(self.end, port)
        host = port.getHost()
        self.address: Any = (host.host, host.port) if isinstance(host, IPv4Address) else str(self.directory / "socket")

    async def end(self, port: Any) -> None:
        """Nothing is left of a test: no connection, no open file."""
        await port.stopListening()
        self.site.abort()
        while self.site.open:
            await deferLater(reactor, 0.01)
        self.assertTrue(all(content.closed for content in self.contents))

    def on_request(self, request: StreamingRequest) -> None:
        content = FileContent(self.file)
        self.contents.append(content)
        self.answered.append(ensureDeferred(self.respond(request, content)))  # type: ignore[arg-type]  # it is a coroutine

    async def whole(self, request: StreamingRequest, content: Content) -> None:
        await send(request, Response(200, {}, ContentBody(content, ((b"", ByteRange(0, content.size)),))))

    def connect(self, receive_buffer: int = 0) -> socket.socket:
        client = socket.socket(socket.AF_UNIX if self.unix else socket.AF_INET)
        self.addCleanup(client.close)
        client.settimeout(20)
        if receive_buffer:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        client.connect(self.address)
        return client

    def read_answer(self, client: socket.socket) -> bytes:
        """The body of one answer; blocks."""
        data = b""
        while True:
            answers, rest = parse_answers(data, ["GET"])
            if answers:
                assert not rest
                return answers[0].body
            received = client.recv(4 * MIB)
            assert received, f"closed after {len(data)} bytes"
            data += received

    async def all_that_comes(self, client: socket.socket) -> int:
        """How many bytes come until the connection ends, one way or another."""

        def read() -> int:
            total = 0
            with contextlib.suppress(ConnectionResetError):
                while data := client.recv(65536):
                    total += len(data)
            return total

        return await deferToThread(read)

    async def get(self) -> bytes:
        """What a client gets that reads as fast as it can."""

        def ask() -> bytes:
            client = self.connect()
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            return self.read_answer(client)

        return await deferToThread(ask)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait, for ten seconds at most."""
        for _ in range(1000):
            if condition():
                return
            await deferLater(reactor, 0.01)
        self.fail("waited in vain")


class SendTests(TransportCase):
    async def test_whole(self) -> None:
        self.assertEqual(await self.get(), self.data)
        await self.until(lambda: self.logged == [200])

    async def test_sizes(self) -> None:
        """Around what goes with the headers, what one call sends, and nothing."""
        for size in (0, 1, 32 * 1024, 32 * 1024 + 1, MIB - 1, MIB, MIB + 1):
            self.file.write_bytes(self.data[:size])
            self.assertEqual(await self.get(), self.data[:size])

    async def test_ranges(self) -> None:
        wanted: list[ByteRange] = []

        async def part(request: StreamingRequest, content: Content) -> None:
            await send(request, Response(206, {}, ContentBody(content, ((b"", wanted[-1]),))))

        self.respond = part
        for start, length in ((0, 100_000), (1, 100_000), (5 * MIB + 7, 3 * MIB - 7), (8 * MIB - 1, 1)):
            wanted.append(ByteRange(start, length))
            self.assertEqual(await self.get(), self.data[start : start + length])

    async def test_several_parts(self) -> None:
        """Texts and files by turns, large and small."""
        ranges = (ByteRange(0, 2 * MIB), ByteRange(7, 10), ByteRange(3 * MIB, 100_000))
        parts, tail = multipart(ranges, 8 * MIB, "a/b", "x")

        async def several(request: StreamingRequest, content: Content) -> None:
            await send(request, Response(206, {}, ContentBody(content, parts, tail)))

        self.respond = several
        expected = b"".join(text + self.data[part.start : part.start + part.length] for text, part in parts) + tail
        self.assertEqual(await self.get(), expected)

    async def test_one_connection(self) -> None:
        """An answer after the other, asked for at once."""

        def ask() -> list[bytes]:
            client = self.connect()
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 3)
            data = b""
            while True:
                answers, _ = parse_answers(data, ["GET"] * 3)
                if len(answers) == 3:
                    return [answer.body for answer in answers]
                data += client.recv(4 * MIB)

        for body in await deferToThread(ask):
            self.assertEqual(body, self.data)

    async def test_what_was_written_before_goes_before(self) -> None:
        """Also when it is more than the socket takes."""
        before = b"x" * (4 * MIB)

        async def late(request: StreamingRequest, content: Content) -> None:
            await send(request, Response(200, {}, ContentBody(content, ((before, ByteRange(0, content.size)),))))

        self.respond = late
        self.assertEqual(await self.get(), before + self.data)

    async def test_writes_leave_in_order(self) -> None:
        """Those that are sent at once, those that have to wait, and the file behind them."""
        pieces = [bytes([number]) * (1 + 40_000 * (number % 7)) for number in range(100)]

        async def many(request: StreamingRequest, content: Content) -> None:
            request.setHeader("Content-Length", str(sum(map(len, pieces)) + content.size))
            for piece in pieces:
                request.write(piece)
            fd = content.fileno()
            assert fd is not None
            sending = send_file(request.channel.transport, fd, 0, content.size)
            assert sending is not None
            await sending
            content.close()
            request.finish()

        self.respond = many
        self.assertEqual(await self.get(), b"".join(pieces) + self.data)

    async def test_what_there_is_room_for_is_sent_at_once(self) -> None:
        """Without another turn of the event loop."""
        buffered: list[bool] = []

        async def small(request: StreamingRequest, content: Content) -> None:
            content.close()
            request.setHeader("Content-Length", "5")
            request.write(b"hello")
            transport = request.channel.transport
            buffered.append(bool(transport.dataBuffer or transport._tempDataBuffer))
            request.finish()

        self.respond = small
        self.assertEqual(await self.get(), b"hello")
        self.assertEqual(buffered, [False])

    async def test_two_at_once(self) -> None:
        first, second = self.get(), self.get()
        one, two = ensureDeferred(first), ensureDeferred(second)
        self.assertEqual(await one, self.data)
        self.assertEqual(await two, self.data)

    async def test_a_slow_reader_disturbs_nobody(self) -> None:
        slow = await deferToThread(self.connect, 4096)
        slow.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await self.until(lambda: len(self.contents) == 1)
        self.assertEqual(await self.get(), self.data)
        self.assertFalse(self.answered[0].called)

        def read() -> bytes:
            digest, left, data = hashlib.sha256(), len(self.data), b""
            while b"\r\n\r\n" not in data:
                data += slow.recv(1000)
            data = data.partition(b"\r\n\r\n")[2]
            while left > 0:
                digest.update(data)
                left -= len(data)
                data = slow.recv(30_000) if left else b""
            return digest.digest()

        self.assertEqual(await deferToThread(read), hashlib.sha256(self.data).digest())
        await self.until(lambda: self.logged == [200, 200])

    async def test_a_file_costs_no_memory(self) -> None:
        """Nothing of it is held for a client that does not read."""
        client = await deferToThread(self.connect, 4096)
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await self.until(lambda: len(self.contents) == 1)
        await deferLater(reactor, 0.1)
        (channel,) = self.site.open
        transport: Any = channel.transport
        self.assertLess(len(transport.dataBuffer) + sum(map(len, transport._tempDataBuffer)), 65536)


class TroubleTests(TransportCase):
    async def test_a_client_that_leaves(self) -> None:
        def leave() -> None:
            client = self.connect(4096)
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            client.recv(1000)
            client.close()

        await deferToThread(leave)
        await self.until(lambda: bool(self.answered) and self.answered[0].called)
        await self.answered[0]
        self.assertTrue(self.contents[0].closed)
        self.assertEqual(self.logged, [499])
        self.assertEqual(await self.get(), self.data)

    async def test_a_file_that_shrinks(self) -> None:
        """What was promised cannot be kept: the client sees the connection end, before the length that it was told."""
        client = await deferToThread(self.connect, 4096)
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await self.until(lambda: len(self.contents) == 1)
        os.truncate(self.file, MIB)
        self.assertLess(await self.all_that_comes(client), 8 * MIB)
        await self.until(lambda: self.logged == [499])
        self.assertTrue(self.contents[0].closed)

    async def test_a_file_that_cannot_be_read(self) -> None:
        async def unreadable(request: StreamingRequest, content: Content) -> None:
            fd = os.open(self.directory, os.O_RDONLY)
            self.addCleanup(os.close, fd)
            self.patch(content, "fileno", lambda: fd)
            await self.whole(request, content)

        self.respond = unreadable

        def ask() -> bytes:
            client = self.connect()
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            return b"".join(iter(lambda: client.recv(65536), b""))

        self.assertTrue((await deferToThread(ask)).endswith(b"\r\n\r\n"))
        await self.until(lambda: self.logged == [499])

    async def test_a_connection_that_is_gone(self) -> None:
        failures: list[Exception] = []

        async def late(request: StreamingRequest, content: Content) -> None:
            transport = request.channel.transport
            if failures:
                transport.abortConnection()
            else:
                transport.loseConnection()
            sending = send_file(transport, content.fileno() or 0, 0, content.size)
            assert sending is not None
            try:
                await sending
            except (ConnectionDone, ConnectionAborted) as error:
                failures.append(error)
            content.close()

        self.respond = late

        def ask() -> None:
            client = self.connect()
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            try:
                client.recv(1)
            except ConnectionResetError:
                return

        for count in (1, 2):
            await deferToThread(ask)
            await self.until(lambda expected=count: len(failures) == expected)  # type: ignore[misc]  # a default is no argument

    async def test_many_who_leave(self) -> None:
        """No descriptor is left open."""
        before = len(os.listdir("/proc/self/fd"))

        def leave() -> None:
            for _ in range(20):
                client = self.connect(4096)
                client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                client.recv(1)
                client.close()

        worker = threading.Thread(target=leave)
        worker.start()
        await self.until(lambda: len(self.logged) == 20)
        worker.join()
        await self.until(lambda: not self.site.open)
        self.assertLessEqual(len(os.listdir("/proc/self/fd")), before + 2)


class UnixSendTests(SendTests):
    """The same on Unix sockets."""

    unix = True


class UnixTroubleTests(TroubleTests):
    """The same on Unix sockets."""

    unix = True


class WritingTests(TransportCase):
    """What is written goes out at once where it can."""

    async def peer(self) -> tuple[Any, socket.socket]:
        client = await deferToThread(self.connect, 4096)
        await self.until(lambda: len(self.site.open) == 1)
        (channel,) = self.site.open
        return channel.transport, client

    async def test_at_once(self) -> None:
        """Without a turn of the reactor."""
        transport, client = await self.peer()
        transport.write(b"now")
        self.assertEqual(client.recv(10), b"now")
        transport.write(b"")
        transport.writeSequence([b"la", b"ter"])
        self.assertEqual(client.recv(10), b"later")

    async def test_in_order_when_the_socket_is_full(self) -> None:
        transport, client = await self.peer()
        pieces = [bytes([number % 251]) * 60_000 for number in range(200)]
        for piece in pieces:
            transport.write(piece)
        transport.protocol.loseConnection()

        def read() -> bytes:
            data = b""
            while received := client.recv(MIB):
                data += received
            return data

        self.assertEqual(await deferToThread(read), b"".join(pieces))

    async def test_not_to_a_connection_that_is_cut(self) -> None:
        transport, client = await self.peer()
        transport.abortConnection()
        transport.write(b"late")

        def read() -> bytes:
            try:
                return client.recv(10)
            except ConnectionResetError:
                return b""

        self.assertEqual(await deferToThread(read), b"")

    async def test_to_one_who_has_gone(self) -> None:
        """The reactor finds out, and nothing is raised where it was written."""
        transport, client = await self.peer()
        client.close()
        for _ in range(3):
            transport.write(b"into the void")
        await self.until(lambda: not self.site.open)

    async def test_a_head_waits_for_its_file(self) -> None:
        transport, client = await self.peer()
        sent: list[bytes] = []
        self.patch(transport, "socket", Flags(transport.socket, sent))
        content = FileContent(self.file)
        self.addCleanup(content.close)
        hold(transport)
        transport.write(b"head")
        self.assertEqual(sent, [])
        done = send_file(transport, content.fileno() or 0, 0, 50_000)
        assert done is not None
        self.assertEqual(sent, [b"more: head"])

        def read() -> bytes:
            data = b""
            while len(data) < 50_004:
                data += client.recv(MIB)
            return data

        self.assertEqual(await deferToThread(read), b"head" + self.data[:50_000])
        await done
        transport.write(b"next")
        self.assertEqual(await deferToThread(client.recv, 10), b"next")

    async def test_many_senders_share_a_turn(self) -> None:
        """The more send, the less each hands over at once."""
        asked: list[int] = []
        real = os.sendfile

        def counted(out: int, source: int, offset: int, count: int) -> int:
            asked.append(count)
            return real(out, source, offset, count)

        self.patch(os, "sendfile", counted)
        slow = [await deferToThread(self.connect, 4096) for _ in range(40)]
        for number, client in enumerate(slow):
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            await self.until(lambda expected=number: len(self.contents) == expected + 1)  # type: ignore[misc]  # a default is no argument
        self.assertEqual(asked[0], SEND_AT_ONCE)
        self.assertLess(asked[-1], SEND_AT_ONCE // 10)
        self.assertGreater(asked[-1], 0)
        for client in slow:
            client.close()
        await self.until(lambda: len(self.logged) == 40)
        asked.clear()
        self.assertEqual(await self.get(), self.data)
        self.assertEqual(asked[0], SEND_AT_ONCE)


class UnixWritingTests(WritingTests):
    """The same on Unix sockets."""

    unix = True


class Flags:
    """A socket that tells what is sent, and whether more was said to follow."""

    def __init__(self, real: socket.socket, sent: list[bytes]) -> None:
        self._real = real
        self._sent = sent

    def send(self, data: bytes, flags: int = 0) -> int:
        self._sent.append((b"more: " if flags & socket.MSG_MORE else b"") + bytes(data))
        return self._real.send(data, flags)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


class OtherTransportTests(TestCase):
    def test_those_that_cannot(self) -> None:
        self.assertIsNone(send_file(StringTransport(), 0, 0, 1))
