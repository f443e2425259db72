"""A worker, without its process: what it is told, what it does then, and how it ends. Its sockets are real, its clock is not."""

from __future__ import annotations

import contextlib
import io
import json
import socket
import struct
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import LogBeginner
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from regd.config.watched import pack
from regd.service.worker import Worker
from regd.workers.channel import GivingEnd, Report, channel_pair
from regd.workers.control import CannotServe
from tests.web.support import MINIMAL

#: A push of which the last bytes are missing.
UPLOAD = b"POST /v2/a/blobs/uploads/?digest=sha256:%b HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab" % (b"0" * 64)


class FakeReactor(Clock):
    """
    An event loop that a test drives by hand.

    :ivar reading: who wants to know that there is something to read.
    :ivar writing: who wants to know that there is room.
    :ivar stopped: how often it was stopped.
    """

    def __init__(self) -> None:
        super().__init__()
        self.reading: list[Any] = []
        self.writing: list[Any] = []
        self.stopped = 0

    def addReader(self, reader: Any) -> None:
        if reader not in self.reading:
            self.reading.append(reader)

    def removeReader(self, reader: Any) -> None:
        if reader in self.reading:
            self.reading.remove(reader)

    def addWriter(self, writer: Any) -> None:
        if writer not in self.writing:
            self.writing.append(writer)

    def removeWriter(self, writer: Any) -> None:
        if writer in self.writing:
            self.writing.remove(writer)

    def stop(self) -> None:
        self.stopped += 1

    def turn(self) -> None:
        """Let everybody read and write who wants to, a few times."""
        for _ in range(3):
            for each, act in [(reader, reader.doRead) for reader in self.reading] + [(writer, writer.doWrite) for writer in self.writing]:
                result = act() if each.fileno() != -1 else None
                if result is not None:
                    self.removeReader(each)
                    self.removeWriter(each)
                    each.connectionLost(Failure(result))


class FakeBeginner:
    """
    Takes the observers of the log.

    :ivar observers: whoever was to observe.
    """

    def __init__(self) -> None:
        self.observers: list[Any] = []

    def beginLoggingTo(self, observers: list[Any]) -> None:
        self.observers += observers


class WorkerCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = FakeReactor()
        self.beginner = FakeBeginner()
        self.log, self.access = io.StringIO(), io.StringIO()
        self.reports: list[Report] = []
        self.gone = 0
        ours, theirs = channel_pair()
        beginner: LogBeginner | Any = self.beginner
        self.worker = Worker(theirs, self.log, self.access, beginner, self.reactor)
        self.giving = GivingEnd(ours, self.reports.append, self._gone, self.reactor)
        self.addCleanup(self.giving.close)
        self.addCleanup(theirs.close)

    def _gone(self) -> None:
        self.gone += 1

    def configure(self, text: str = MINIMAL) -> None:
        self.worker.configure("/etc/config.yml", pack(text.encode(), {}))

    def connect(self) -> socket.socket:
        """
        :return: A client whose connection has been handed over.
        """
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            listening.listen()
            client = socket.socket()
            self.addCleanup(client.close)
            client.settimeout(5)
            client.connect(listening.getsockname())
            accepted, _ = listening.accept()
            with accepted:
                self.assertTrue(self.giving.send(accepted))
        return client


class WorkerTests(WorkerCase):
    def test_it_serves(self) -> None:
        client = self.connect()
        # Nothing is taken before it knows how to serve.
        self.reactor.turn()
        self.assertEqual(self.reports, [])
        self.configure()
        client.sendall(b"GET /v2/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        for _ in range(4):
            self.reactor.turn()
        self.assertTrue(client.recv(4096).startswith(b"HTTP/1.1 200 OK\r\n"))
        self.assertEqual(self.reports[0], Report(taken=1))
        self.assertIn("GET /v2/", self.access.getvalue())
        client.close()
        self.reactor.turn()
        self.reactor.turn()
        self.assertEqual(self.reports[1:], [Report(closed=1)])
        self.assertEqual(self.worker.variables()["open_connections"], 0)

    def test_the_log(self) -> None:
        self.configure(MINIMAL + "log: {level: warn, formatter: json}\n")
        self.configure(MINIMAL + "log: {level: info, formatter: json}\n")
        (observer,) = self.beginner.observers
        observer({"log_format": "hello", "log_time": 0.0, "log_namespace": "regd.x"})
        self.assertEqual(json.loads(self.log.getvalue())["msg"], "hello")

    def test_variables(self) -> None:
        self.assertEqual(set(self.worker.variables()), {"pid"})
        self.configure()
        self.assertEqual(self.worker.variables()["damaged_files"], 0)

    def test_a_connection_that_has_been_reset(self) -> None:
        self.configure()
        client = self.connect()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        self.reactor.turn()
        self.reactor.turn()
        self.assertEqual(self.reports, [Report(taken=1), Report(closed=1)])

    def test_what_it_cannot_do(self) -> None:
        error = self.assertRaises(CannotServe, self.configure, "version: 0.1\nstorage: {filesystem: {rootdirectory: /dev/null/x}}\n")
        self.assertIn("/dev/null/x", str(error))
        self.reactor.advance(0)
        self.assertEqual((self.worker.status, self.reactor.stopped), (1, 1))

    def test_what_it_cannot_change(self) -> None:
        """It goes on as before."""
        self.configure()
        self.assertRaises(CannotServe, self.configure, "version: 0.1\nstorage: {nothing: {}}\n")
        self.reactor.advance(10)
        self.assertEqual((self.worker.status, self.reactor.stopped), (0, 0))
        self.connect()
        self.reactor.turn()
        self.assertEqual(self.reports, [Report(taken=1)])


class LeaveTests(WorkerCase):
    def test_cut_off(self) -> None:
        """Whether it was leaving already, or not."""
        for leaving in (True, False):
            with self.subTest(leaving=leaving):
                self.setUp()
                self.configure(MINIMAL + "http: {draintimeout: 30s}\n")
                client = self.connect()
                client.sendall(UPLOAD)
                for _ in range(3):
                    self.reactor.turn()
                if leaving:
                    self.worker.leave()
                self.reactor.advance(1)
                self.assertEqual(self.reactor.stopped, 0)
                self.worker.cut_off()
                self.giving.finish()
                for _ in range(3):
                    self.reactor.advance(0)
                    self.reactor.turn()
                self.assertEqual(self.reactor.stopped, 1)
                # All that was sent has been read, so that it ends in the orderly way or by a reset.
                with contextlib.suppress(ConnectionResetError):
                    self.assertEqual(client.recv(1), b"")

    def test_cut_off_before_it_serves(self) -> None:
        self.worker.cut_off()
        self.assertEqual(self.reactor.stopped, 1)

    def test_before_it_serves(self) -> None:
        self.worker.leave()
        self.worker.leave()
        self.assertEqual((self.reactor.stopped, self.worker.status), (1, 0))

    def test_idle(self) -> None:
        self.configure()
        self.worker.leave()
        self.giving.doRead()
        self.assertEqual((self.gone, self.reactor.stopped), (1, 1))

    def test_what_is_in_the_channel_is_left_there(self) -> None:
        self.configure()
        self.connect()
        self.worker.leave()
        self.giving.finish()
        self.assertEqual((self.reports, self.gone), ([], 1))

    def test_requests_have_time(self) -> None:
        self.configure(MINIMAL + "http: {draintimeout: 30s}\n")
        client = self.connect()
        client.sendall(UPLOAD)
        for _ in range(3):
            self.reactor.turn()
        self.worker.leave()
        self.giving.finish()
        self.assertEqual((self.gone, self.reports[0]), (1, Report(taken=1)))
        self.reactor.advance(29)
        self.assertLessEqual(self.reactor.stopped, 1)
        self.reactor.advance(1)
        for _ in range(3):
            self.reactor.advance(10)
        self.assertEqual(self.reactor.stopped, 1)
