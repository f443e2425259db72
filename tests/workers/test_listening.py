"""The parent's listening socket: what it accepts, when it does not, and what it does when descriptors run out."""

from __future__ import annotations

import errno
import os
import socket
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import maybeDeferred
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from regd.config import TCPAddress, UnixAddress
from regd.workers import listening
from regd.workers.listening import Listening


class FakeSocket:
    """
    A listening socket.

    :ivar outcomes: what becomes of each call of ``accept``: a connection, or an error.
    """

    def __init__(self, *outcomes: object) -> None:
        self.outcomes = list(outcomes)

    def accept(self) -> tuple[object, object]:
        outcome = self.outcomes.pop(0) if self.outcomes else BlockingIOError()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome, None


class FakePort:
    """
    A port.

    :ivar reading: whether the event loop is to say when somebody connects.
    """

    connected = True

    def __init__(self) -> None:
        self.reading = True

    def startReading(self) -> None:
        self.reading = True

    def stopReading(self) -> None:
        self.reading = False


class AcceptTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.accepted: list[Any] = []
        self.listening = Listening(self.accepted.append, self.clock)
        self.port = FakePort()
        self.listening._ports = [self.port]
        self.listening.pause(paused=False)

    def accept(self, *outcomes: object) -> list[object]:
        """
        :return: What has not been asked for.
        """
        source: Any = FakeSocket(*outcomes)
        self.listening.accept(source)
        left: list[object] = source.outcomes
        return left

    def test_all_that_wait(self) -> None:
        self.accept("one", "two")
        self.assertEqual(self.accepted, ["one", "two"])

    def test_in_turns(self) -> None:
        left = self.accept(*range(listening.AT_ONCE + 3))
        self.assertEqual((len(self.accepted), len(left)), (listening.AT_ONCE, 3))

    def test_at_the_end(self) -> None:
        """Nobody is left in the queue, unless there is nobody to take them."""
        source: Any = FakeSocket(*range(listening.AT_ONCE + 3))
        self.listening.accept_all(source, 1024)
        self.assertEqual(len(self.accepted), listening.AT_ONCE + 3)
        source.outcomes[:] = ["one more"]
        self.listening.pause(paused=True)
        self.listening.accept_all(source, 1024)
        self.assertEqual(source.outcomes, ["one more"])

    def test_until_nobody_can_take_more(self) -> None:
        self.listening._accepted = lambda connection: self.listening.pause(paused=True)
        self.assertEqual(self.accept("one", "two"), ["two"])
        self.assertFalse(self.port.reading)

    def test_those_who_have_gone(self) -> None:
        self.accept(OSError(errno.ECONNABORTED, "gone"), "two")
        self.assertEqual(self.accepted, ["two"])

    def test_out_of_descriptors(self) -> None:
        """It rests, and does not ask over and over."""
        for error in (errno.EMFILE, errno.ENFILE):
            self.assertEqual(self.accept(OSError(error, "none left"), "two"), ["two"])
            self.assertFalse(self.port.reading)
            # Nor does room elsewhere begin it again.
            self.listening.pause(paused=True)
            self.listening.pause(paused=False)
            self.assertFalse(self.port.reading)
            self.clock.advance(listening.EXHAUSTED)
            self.assertTrue(self.port.reading)

    def test_the_end_while_it_rests(self) -> None:
        self.accept(OSError(errno.EMFILE, "none left"))
        self.listening.stopFactory()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.listening.pause(paused=False)


class SocketTests(TestCase):
    """On real sockets of this machine."""

    def setUp(self) -> None:
        self.accepted: list[socket.socket] = []
        self.listening = Listening(self.accepted.append, reactor)

    async def served(self, address: TCPAddress | UnixAddress) -> None:
        port = self.listening.listen(address)
        where: Any = port.getHost()
        family, target = (socket.AF_UNIX, address.path) if isinstance(address, UnixAddress) else (socket.AF_INET, (where.host, where.port))
        with socket.socket(family) as client:
            client.connect(target)
            await deferLater(reactor, 0.05)
            # Nobody can take it yet.
            self.assertEqual(self.accepted, [])
            self.listening.pause(paused=False)
            await deferLater(reactor, 0.05)
            (connection,) = self.accepted
            with connection:
                client.sendall(b"hello")
                self.assertEqual(connection.recv(10), b"hello")
                self.assertEqual(connection.family, family)
        await maybeDeferred(port.stopListening)

    async def test_tcp(self) -> None:
        await self.served(TCPAddress("127.0.0.1", 0))

    async def test_unix(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        path = Path(directory.name) / "socket"
        await self.served(UnixAddress(os.fspath(path)))
        self.assertFalse(path.exists())
