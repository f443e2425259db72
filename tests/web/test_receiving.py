"""Uploads that a thread of the storage reads from real sockets: whole, cut off, malformed, followed by more, and never somebody else's."""

# The methods that a request inherits from Twisted have no types.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import socket
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.testing import StringTransport
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from regd.config import TCPAddress, UnixAddress
from regd.storage.appending import BATCH, QueuedAppender
from regd.storage.driver import Lender, StorageError
from regd.storage.threads import PoolThreads
from regd.web.body import BodyAborted, RequestBody, SocketSource
from regd.web.factory import StreamingSite
from regd.web.framing import FixedLength
from regd.web.listen import listen
from regd.web.request import StreamingRequest
from regd.web.transport import Lease, lend
from tests.storage.test_appending import MemorySink
from tests.web.test_request import Resource
from tests.web.wire import chunked, parse_answers, request_bytes

MIB = 1024 * 1024

#: Any: mypy knows the reactor as a module.
LOOP: Any = reactor


class GatedSink(MemorySink):
    """
    A file that can be made to wait, and to fail.

    :ivar gate: writing waits until it is set.
    :ivar writes: how often was written.
    """

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()
        self.writes = 0

    def write(self, chunks: Sequence[bytes | memoryview]) -> None:
        self.writes += 1
        assert self.gate.wait(20)
        super().write(chunks)


class ReceivingCase(TestCase):
    unix = False

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.threads = PoolThreads(LOOP, 4)
        self.streams = PoolThreads(LOOP, 2, patience=0)
        self.sinks: list[GatedSink] = []
        self.appenders: list[QueuedAppender] = []
        self.ended: list[str] = []
        self.bodies: list[RequestBody] = []
        self.lent = 0
        self.sink_made: Callable[[GatedSink], object] = lambda sink: None
        real = RequestBody.lend

        def counted(body: RequestBody) -> SocketSource | None:
            source = real(body)
            self.lent += source is not None
            return source

        self.patch(RequestBody, "lend", counted)
        resource = Resource()
        resource.on_request = lambda request: Deferred.fromCoroutine(self.store(request))
        self.site: Any = StreamingSite(resource, lambda request: None, LOOP)
        address = UnixAddress(f"{directory.name}/socket") if self.unix else TCPAddress("127.0.0.1", 0)
        port = listen(LOOP, address, self.site)
        host = port.getHost()
        self.address: Any = (host.host, host.port) if isinstance(host, IPv4Address) else str(Path(directory.name) / "socket")
        self.before = descriptors()
        self.connected: list[socket.socket] = []
        self.addCleanup(self.end, port)

    async def end(self, port: Any) -> None:
        """Nothing is left of a test: no connection, no descriptor."""
        await port.stopListening()
        self.site.abort()
        await self.until(lambda: not self.site.open and all(sink.closed for sink in self.sinks))
        self.threads.stop()
        self.streams.stop()
        await deferLater(LOOP, 0)
        await self.until(lambda: len(descriptors() - self.before) <= len([c for c in self.connected if c.fileno() >= 0]))

    async def store(self, request: StreamingRequest) -> None:
        """As the registry does with an upload; answers with the length and the digest of what was stored."""
        sink = GatedSink()
        self.sink_made(sink)
        appender = QueuedAppender(sink, 0, hashlib.sha256(), self.threads, self.streams)
        self.sinks.append(sink)
        self.appenders.append(appender)
        self.bodies.append(request.body)
        appender.registerProducer(request.body, True)
        try:
            await request.body.startProducing(appender)
            how = "whole"
        except BodyAborted as error:
            how = str(error)
        appender.unregisterProducer()
        try:
            size = await appender.flush()
            assert appender.hash is not None
            self.assertEqual(appender.hash.digest(), hashlib.sha256(sink.content).digest())
            self.assertEqual((size, appender.size), (len(sink.content), len(sink.content)))
        except StorageError as error:
            how = str(error)
        finally:
            appender.close()
        self.ended.append(how)
        if not request.client_gone:
            answer = b"%d %s" % (len(sink.content), hashlib.sha256(sink.content).hexdigest().encode())
            request.setHeader("Content-Length", str(len(answer)))
            request.write(answer)
            request.finish()

    def unconnected(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX if self.unix else socket.AF_INET)
        self.connected.append(client)
        self.addCleanup(client.close)
        client.settimeout(20)
        return client

    def connect(self) -> socket.socket:
        client = self.unconnected()
        client.connect(self.address)
        return client

    def answers(self, client: socket.socket, count: int) -> list[tuple[int, bytes]]:
        """What comes back; blocks."""
        data = b""
        while len(found := parse_answers(data, ["PUT"] * count)[0]) < count:
            received = client.recv(65536)
            assert received, f"closed after {data!r}"
            data += received
        return [(answer.status, answer.body) for answer in found]

    async def ask(self, *contents: bytes, is_chunked: bool) -> list[tuple[int, bytes]]:
        """Send requests on one connection, one right after the other."""
        sent = b"".join(put(content, is_chunked) for content in contents)

        def work() -> list[tuple[int, bytes]]:
            client = self.connect()
            # Both ways at once: the server may stop to read when it has answers to write.
            sender = threading.Thread(target=client.sendall, args=(sent,))
            sender.start()
            try:
                return self.answers(client, len(contents))
            finally:
                sender.join()
                client.close()

        return await deferToThread(work)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait, for ten seconds at most."""
        for _ in range(2000):
            if condition():
                return
            await deferLater(LOOP, 0.005)
        self.fail("waited in vain")


def descriptors() -> set[str]:
    """The sockets that this process has open."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.add(f"{number} {os.readlink(f'/proc/self/fd/{number}')}")
    return {name for name in found if "socket:" in name}


def put(content: bytes, is_chunked: bool) -> bytes:
    """A request with a body, chunked as docker does it."""
    if not is_chunked:
        return request_bytes("PUT", "/", [], content)
    pieces = [content[at : at + 32 * 1024] for at in range(0, len(content), 32 * 1024)]
    return request_bytes("PUT", "/", [("Transfer-Encoding", "chunked")], chunked(*pieces))


def said(content: bytes) -> tuple[int, bytes]:
    """The answer to a body that was stored whole."""
    return 200, b"%d %s" % (len(content), hashlib.sha256(content).hexdigest().encode())


CONTENT = random.Random(3).randbytes(6 * MIB + 11)


class WholeTests(ReceivingCase):
    async def test_fixed(self) -> None:
        self.assertEqual(await self.ask(CONTENT, is_chunked=False), [said(CONTENT)])
        self.assertGreater(self.lent, 0)
        self.assertEqual((self.ended, self.bodies[0].received), (["whole"], len(CONTENT)))

    async def test_chunked(self) -> None:
        self.assertEqual(await self.ask(CONTENT, is_chunked=True), [said(CONTENT)])
        self.assertGreater(self.lent, 0)
        self.assertEqual((self.ended, self.bodies[0].received), (["whole"], len(CONTENT)))

    async def test_sizes(self) -> None:
        """Around a batch, and what one read brings."""
        for size in (1, BATCH - 1, BATCH, BATCH + 1, 192 * 1024, 512 * 1024, 512 * 1024 + 1):
            for is_chunked in (False, True):
                self.assertEqual(await self.ask(CONTENT[:size], is_chunked=is_chunked), [said(CONTENT[:size])])

    async def test_small_ones_stay_on_the_loop(self) -> None:
        await self.ask(CONTENT[: BATCH - 1], is_chunked=False)
        self.assertEqual((self.lent, self.sinks[0].writes, self.sinks[0].syncs), (0, 1, 1))

    async def test_one_after_the_other(self) -> None:
        """What was read past a body is the next request."""
        contents = [CONTENT[: 300_000 * number + 1] for number in range(8)]
        for is_chunked in (False, True):
            self.assertEqual(await self.ask(*contents, is_chunked=is_chunked), [said(content) for content in contents])

    async def test_side_by_side(self) -> None:
        """More of them than threads, and each has its turn."""
        contents = [CONTENT[number:] for number in range(6)]
        asked = [Deferred.fromCoroutine(self.ask(content, is_chunked=bool(number % 2))) for number, content in enumerate(contents)]
        for content, answer in zip(contents, asked, strict=True):
            self.assertEqual(await answer, [said(content)])

    async def test_a_client_that_stops_and_goes(self) -> None:
        """While it is silent no thread waits for it."""
        client = await deferToThread(self.connect)
        sent = put(CONTENT, is_chunked=True)
        for begin in range(0, len(sent), MIB):
            await deferToThread(client.sendall, sent[begin : begin + MIB])
            # All but what is framing, or waits for more.
            stored = min(begin, len(CONTENT)) - 2 * BATCH
            await self.until(lambda least=stored: bool(self.sinks) and len(self.sinks[0].content) > least)  # type: ignore[misc]  # bound now
            await self.until(lambda: self.streams._awake == 0)
        self.assertEqual(await deferToThread(self.answers, client, 1), [said(CONTENT)])
        self.assertGreater(self.lent, 0)


class TroubleTests(ReceivingCase):
    async def half(self, data: bytes = b"") -> socket.socket:
        """A client that has sent half of its body, or ``data``, and is being read by a thread that cannot go on writing."""
        gates: list[GatedSink] = []

        def shut(sink: GatedSink) -> None:
            sink.gate.clear()
            gates.append(sink)

        self.sink_made = shut
        client = await deferToThread(self.connect)
        await deferToThread(client.sendall, data or put(CONTENT, is_chunked=False)[:200_000])
        await self.until(lambda: bool(gates) and gates[0].writes == 1)
        self.assertEqual(self.lent, 1)
        self.sink_made = lambda sink: None
        return client

    async def test_what_had_come_of_one_who_leaves_is_kept(self) -> None:
        for is_chunked in (False, True):
            client = await deferToThread(self.connect)
            await deferToThread(client.sendall, put(CONTENT, is_chunked)[: 3 * MIB])
            client.close()
            await self.until(lambda: len(self.ended) == 1)
            self.assertIn("the client went away", self.ended.pop())
            content = bytes(self.sinks[-1].content)
            self.assertEqual(content, CONTENT[: len(content)])
            self.assertGreater(len(content), 2.9 * MIB)
            self.assertEqual(self.sinks[-1].syncs, 1)

    async def test_malformed(self) -> None:
        """400, the connection is closed, and what came before is kept."""
        good = put(CONTENT, is_chunked=True)[: 2 * MIB]
        broken = good + b"\r\nthis is no chunk\r\n" * 30_000

        def work() -> bytes:
            client = self.connect()
            data = b""
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                client.sendall(broken)
            with contextlib.suppress(ConnectionResetError):
                while received := client.recv(65536):
                    data += received
            client.close()
            return data

        await deferToThread(work)
        await self.until(lambda: len(self.ended) == 1)
        content = bytes(self.sinks[0].content)
        # The chunk that the text falls into is longer than what was sent of it.
        self.assertEqual(content[: 2 * MIB - 65536], CONTENT[: 2 * MIB - 65536])
        self.assertIn("the client went away", self.ended[0])

    async def test_a_malformed_chunk_is_answered(self) -> None:
        head, _, _ = put(b"x", is_chunked=True).partition(b"\r\n\r\n")
        size = 300_000
        client = await self.half(head + b"\r\n\r\n%x\r\n" % size + CONTENT[:size] + b"\r\nnonsense\r\n")
        self.sinks[0].gate.set()
        self.assertEqual((await deferToThread(self.answers, client, 1))[0][0], 400)
        client.close()
        await self.until(lambda: len(self.ended) == 1)
        self.assertEqual(bytes(self.sinks[0].content), CONTENT[:size])

    async def test_storage_that_fails_in_the_thread(self) -> None:
        """The rest of the body is read and dropped, and the connection goes on."""
        content = CONTENT[: MIB + MIB // 2]

        def failing(sink: GatedSink) -> None:
            def meanwhile() -> None:
                if len(sink.content) > MIB:
                    sink.failing["write"] = StorageError("broken")

            sink.meanwhile = meanwhile

        self.sink_made = failing
        first, _ = await self.ask(content, b"next", is_chunked=False)
        self.assertEqual(first[0], 200)
        self.assertEqual(self.ended[0], "broken")
        self.assertGreater(len(self.sinks[0].content), MIB)
        self.assertEqual(self.ended[1], "whole")
        self.assertEqual(self.bodies[0].received, len(content))

    async def test_cut_by_the_server(self) -> None:
        """The thread ends soon, and then the client sees the end although it had a descriptor of the connection."""
        client = await self.half()
        self.site.abort()
        await self.until(lambda: not self.site.open)
        self.assertEqual(self.ended, [])
        self.sinks[0].gate.set()
        await self.until(lambda: len(self.ended) == 1)
        self.assertIn("the client went away", self.ended[0])

        def outcome() -> object:
            try:
                return client.recv(1)
            except ConnectionResetError:
                return b""

        self.assertEqual(await deferToThread(outcome), b"")
        content = bytes(self.sinks[0].content)
        self.assertEqual(content, CONTENT[: len(content)])

    async def test_closed_by_the_server(self) -> None:
        """At once, although a thread still has the connection."""
        client = await self.half()
        (channel,) = self.site.open
        channel.transport.loseConnection()
        self.assertEqual(await deferToThread(client.recv, 1), b"")
        self.sinks[0].gate.set()
        await self.until(lambda: len(self.ended) == 1)

    async def test_nobody_elses_bytes(self) -> None:
        """The connection is cut while a thread reads it, and its number is the next connection's: none of whose bytes the thread gets."""
        await self.half()
        (channel,) = self.site.open
        number = channel.transport.fileno()
        # Before the number is free, so that they do not take it.
        clients = [self.unconnected() for _ in range(5)]
        self.site.abort()
        await self.until(lambda: not self.site.open)
        other = CONTENT[::-1]
        sent = put(other, is_chunked=False)
        for client in clients:
            client.connect(self.address)
        await self.until(lambda: len(self.site.open) == len(clients))
        self.assertIn(number, [channel.transport.fileno() for channel in self.site.open])
        self.sinks[0].gate.set()
        for client in clients:
            await deferToThread(client.sendall, sent)
            self.assertEqual(await deferToThread(self.answers, client, 1), [said(other)])
        await self.until(lambda: len(self.ended) == 6)
        content = bytes(self.sinks[0].content)
        self.assertEqual(content, CONTENT[: len(content)])

    async def test_the_loop_does_not_read_what_is_lent(self) -> None:
        """Whoever resumes the transport: the channel does, when an answer before has drained."""
        client = await self.half()
        (channel,) = self.site.open
        channel.transport.resumeProducing()
        channel.resumeProducing()
        channel.transport.doRead()
        await deferToThread(client.sendall, put(CONTENT, is_chunked=False)[200_000:400_000])
        await deferLater(LOOP, 0.02)
        self.assertIsNone(lend(channel.transport))
        self.sinks[0].gate.set()
        await deferToThread(client.sendall, put(CONTENT, is_chunked=False)[400_000:])
        self.assertEqual(await deferToThread(self.answers, client, 1), [said(CONTENT)])

    async def test_no_time_out_while_a_thread_reads(self) -> None:
        client = await self.half()
        (channel,) = self.site.open
        channel.timeoutConnection()
        self.sinks[0].gate.set()
        await deferToThread(client.sendall, put(CONTENT, is_chunked=False)[200_000:])
        self.assertEqual(await deferToThread(self.answers, client, 1), [said(CONTENT)])

    async def test_no_descriptor_left(self) -> None:
        """Then the loop reads, as it does where it cannot lend."""

        def none(connected: socket.socket) -> Lease:
            raise OSError

        self.patch(socket.socket, "dup", none)
        self.assertEqual(await self.ask(CONTENT, is_chunked=False), [said(CONTENT)])
        self.assertEqual(self.lent, 0)


class UnixWholeTests(WholeTests):
    """The same on Unix sockets."""

    unix = True


class UnixTroubleTests(TroubleTests):
    """The same on Unix sockets."""

    unix = True


class LeaseTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.ours.setblocking(False)
        self.lease = Lease(self.ours)
        self.room = memoryview(bytearray(100))
        self.addCleanup(self.ours.close)
        self.addCleanup(self.theirs.close)
        self.addCleanup(self.lease.close)

    def receive(self) -> bytes:
        return bytes(self.room[: self.lease.receive_into(self.room)])

    def test_what_there_is(self) -> None:
        self.theirs.send(b"abc")
        self.assertEqual(self.receive(), b"abc")
        self.assertEqual(self.receive(), b"")

    def test_it_waits_a_little(self) -> None:
        sender = threading.Timer(0.0005, self.theirs.send, [b"late"])
        sender.start()
        while not (received := self.receive()):
            pass
        self.assertEqual(received, b"late")

    def test_the_end_is_still_there_for_the_loop(self) -> None:
        self.theirs.close()
        self.assertEqual(self.receive(), b"")
        self.assertEqual(self.ours.recv(1), b"")

    def test_stopped(self) -> None:
        self.theirs.send(b"abc")
        self.lease.stop()
        self.assertEqual(self.receive(), b"")

    def test_a_number_that_is_used_again(self) -> None:
        """What another connection receives under the number of one that was closed stays its own."""
        number = self.ours.fileno()
        self.ours.close()
        other, sender = socket.socketpair()
        self.addCleanup(other.close)
        self.addCleanup(sender.close)
        if other.fileno() != number:
            os.dup2(other.fileno(), number)
            self.addCleanup(os.close, number)
        sender.send(b"secret")
        self.assertEqual(self.receive(), b"")
        self.theirs.send(b"mine")
        self.assertEqual(self.receive(), b"mine")
        self.assertEqual(os.read(number, 100), b"secret")


class BodyTests(SynchronousTestCase):
    def test_a_body_can_lend(self) -> None:
        self.assertIsInstance(RequestBody(None, StringTransport(), lambda: None), Lender)

    def test_not_from_a_transport_that_cannot(self) -> None:
        """TLS, tests: the storage is fed by the loop."""
        body = RequestBody(100, StringTransport(), lambda: None)
        self.assertIsNone(body.lend())
        body.may_lend(FixedLength(100), lambda: None)
        self.assertIsNone(body.lend())
        body.startProducing(QueuedAppender(MemorySink(), 0, None, PoolThreads(LOOP, 1)))
        self.assertIsNone(body.lend())
