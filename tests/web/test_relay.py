"""Bytes that the kernel moves between two sockets of this machine, by :mod:`regd.web.relay`."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from typing import Any

from twisted.internet import reactor as installed
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Protocol
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from regd.web import relay as relays
from regd.web.ports import adopt
from regd.web.relay import WORTHWHILE
from regd.web.transport import relay

# Any: a reactor is typed as the union of what reactors may be.
reactor: Any = installed

MIB = 1 << 20


class End(Protocol):
    """One of regd's connections."""

    def __init__(self) -> None:
        self.received = b""
        self.lost: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008 - Twisted's default
        self.lost.callback(None)


class RelayTests(TestCase):
    unix = False

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        # The reactor has descriptors of its own when it runs.
        await deferLater(reactor, 0)
        self.ends: list[End] = []
        self.far: list[socket.socket] = []
        for _ in range(2):
            near, far = self.pair()
            end = End()

            class Factory:
                def buildProtocol(self, address: object, end: End = end) -> End:
                    return end

            adopt(near, Factory(), reactor)
            self.ends.append(end)
            self.far.append(far)
            self.addCleanup(self.end, end, far)
        self.finished: list[bool] = []
        self.progress = 0

    def pair(self) -> tuple[socket.socket, socket.socket]:
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            listening.listen()
            far = socket.create_connection(listening.getsockname())
            near, _ = listening.accept()
        far.settimeout(20)
        return near, far

    async def end(self, end: End, far: socket.socket) -> None:
        far.close()
        if not end.lost.called:
            end.transport.abortConnection()  # type: ignore[union-attr]  # it is connected
        await end.lost

    def moved(self) -> None:
        self.progress += 1

    def begin(self, length: int) -> Any:
        self.descriptors = len(os.listdir("/proc/self/fd")) - 2 * len(relays._pipes)
        return relay(self.ends[0].transport, self.ends[1].transport, length, self.moved, self.end_relay)

    def end_relay(self, complete: bool) -> None:
        self.finished.append(complete)
        self.ends[0].transport.resumeProducing()  # type: ignore[union-attr]  # it is connected

    async def until(self, condition: Any) -> None:
        for _ in range(2000):
            if condition():
                return
            await deferLater(reactor, 0.01)
        self.fail("it did not come to that")

    def take(self, size: int) -> bytes:
        """All of it, or what there is until the end."""
        found = bytearray()
        while len(found) < size:
            more = self.far[1].recv(min(MIB, size - len(found)))
            if not more:
                break
            found += more
        return bytes(found)

    def assert_no_pipe_left(self) -> None:
        self.assertLessEqual(len(os.listdir("/proc/self/fd")) - 2 * len(relays._pipes), self.descriptors)

    async def test_all_of_it_and_no_more(self) -> None:
        content = os.urandom(5 * MIB)
        self.ends[1].transport.write(b"before:")  # type: ignore[union-attr]  # it is connected
        made = self.begin(len(content))
        sending = deferToThread(self.far[0].sendall, content + b"after")
        found = await deferToThread(self.take, 7 + len(content))
        await sending
        self.assertTrue(found == b"before:" + content)
        await self.until(lambda: self.finished)
        self.assertEqual((self.finished, made.received, made.sent), ([True], len(content), len(content)))
        self.assertGreater(self.progress, 1)
        # What follows is the protocol's again, in both directions.
        await self.until(lambda: self.ends[0].received == b"after")
        self.ends[1].transport.write(b"more")  # type: ignore[union-attr]  # it is connected
        self.assertEqual(await deferToThread(self.take, 4), b"more")
        self.assert_no_pipe_left()

    async def test_a_slow_reader_holds_the_writer_up(self) -> None:
        made = self.begin(64 * MIB)
        self.far[0].setblocking(False)
        sent = 0

        async def stuck() -> bool:
            nonlocal sent
            before = sent
            for _ in range(20):
                try:
                    sent += self.far[0].send(bytes(MIB))
                except BlockingIOError:
                    await deferLater(reactor, 0.01)
            return sent == before

        while not await stuck():
            pass
        self.assertTrue(made.waits_for_sink)
        self.assertLess(made.received - made.sent, 2 * MIB)
        self.assertLess(sent, 40 * MIB)
        self.assertEqual(self.finished, [])
        self.far[0].setblocking(True)
        sending = deferToThread(self.far[0].sendall, bytes(64 * MIB - sent))
        self.assertEqual(len(await deferToThread(self.take, 64 * MIB)), 64 * MIB)
        await sending
        await self.until(lambda: self.finished == [True])

    async def test_the_source_ends_early(self) -> None:
        self.begin(4 * MIB)
        await deferToThread(self.far[0].sendall, bytes(300_000))
        self.assertEqual(len(await deferToThread(self.take, 300_000)), 300_000)
        self.far[0].close()
        await self.until(lambda: self.ends[0].lost.called)
        await self.until(lambda: self.finished == [False])
        self.assert_no_pipe_left()

    async def test_the_sink_goes_away(self) -> None:
        made = self.begin(64 * MIB)
        self.far[1].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        await deferToThread(self.far[0].sendall, bytes(300_000))
        await self.until(lambda: made.received)
        self.far[1].close()
        self.far[0].setblocking(False)
        while not self.finished:
            with contextlib.suppress(BlockingIOError):
                self.far[0].send(bytes(MIB))
            await deferLater(reactor, 0.01)
        self.assertEqual(self.finished, [False])
        self.assert_no_pipe_left()
        # The source is its protocol's again.
        await self.until(lambda: self.ends[1].lost.called)

    async def test_stopped(self) -> None:
        made = self.begin(64 * MIB)
        await deferToThread(self.far[0].sendall, bytes(300_000))
        self.assertEqual(len(await deferToThread(self.take, 300_000)), 300_000)
        await self.until(lambda: made.sent == 300_000)
        made.stop()
        made.stop()
        self.assertEqual(self.finished, [])
        self.far[0].sendall(b"for the protocol")
        self.ends[0].transport.resumeProducing()  # type: ignore[union-attr]  # it is connected
        await self.until(lambda: self.ends[0].received == b"for the protocol")
        self.assert_no_pipe_left()

    async def test_not_worthwhile_or_not_possible(self) -> None:
        self.assertIsNone(self.begin(WORTHWHILE - 1))
        self.assertIsNone(relay(object(), self.ends[1].transport, MIB, self.moved, self.finished.append))
        made = self.begin(MIB)
        self.assertIsNone(self.begin(MIB))
        made.stop()

    async def test_without_a_descriptor(self) -> None:
        def none_left(flags: int) -> tuple[int, int]:
            raise OSError(24, "Too many open files")

        self.patch(relays, "_pipes", [])
        self.patch(os, "pipe2", none_left)
        self.assertIsNone(self.begin(MIB))

    async def test_with_a_small_pipe(self) -> None:
        """A user's pipes may take so much together, and no more."""
        real = fcntl.fcntl

        def refuse(descriptor: Any, command: int, argument: int = 0) -> int:
            if command == fcntl.F_SETPIPE_SZ:
                raise PermissionError
            return real(descriptor, command, argument)

        self.patch(relays, "_pipes", [])
        self.patch(fcntl, "fcntl", refuse)
        content = os.urandom(2 * MIB)
        self.begin(len(content))
        sending = deferToThread(self.far[0].sendall, content)
        self.assertTrue(await deferToThread(self.take, len(content)) == content)
        await sending


class UnixRelayTests(RelayTests):
    """The same between Unix sockets."""

    def pair(self) -> tuple[socket.socket, socket.socket]:
        near, far = socket.socketpair()
        far.settimeout(20)
        return near, far
