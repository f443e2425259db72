"""The channel for connections: packets, and both ends over real sockets, driven by hand."""

from __future__ import annotations

import os
import resource
import socket
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regd.workers import channel
from regd.workers.channel import GivingEnd, Report, TakingEnd, channel_pair

COUNT = st.integers(0, 2**32 - 1)


class FakeReactor:
    """
    An event loop that runs nothing.

    :ivar reading: who wants to know that there is something to read.
    :ivar writing: who wants to know that there is room.
    """

    def __init__(self) -> None:
        self.reading: set[Any] = set()
        self.writing: set[Any] = set()
        self.addReader, self.removeReader = self.reading.add, self.reading.discard
        self.addWriter, self.removeWriter = self.writing.add, self.writing.discard


class ReportTests(SynchronousTestCase):
    @given(COUNT, COUNT, COUNT)
    def test_there_and_back(self, taken: int, refused: int, closed: int) -> None:
        report = Report(taken, refused, closed)
        self.assertEqual(Report.from_bytes(report.to_bytes()), report)

    @given(st.binary(max_size=40))
    def test_any_bytes(self, packet: bytes) -> None:
        if len(packet) == 12:
            self.assertEqual(Report.from_bytes(packet).to_bytes(), packet)
        else:
            self.assertRaises(ValueError, Report.from_bytes, packet)


class ChannelCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = FakeReactor()
        self.reports: list[Report] = []
        self.ended = 0
        self.adopted: list[socket.socket] = []
        ours, theirs = channel_pair()
        self.giving = GivingEnd(ours, self.reports.append, self._end, self.reactor)
        self.theirs = theirs
        self.addCleanup(self.giving.close)
        self.addCleanup(theirs.close)

    def _end(self) -> None:
        self.ended += 1

    def taking(self) -> TakingEnd:
        made = TakingEnd(self.theirs, self._adopt, self.reactor)
        self.addCleanup(made.close)
        return made

    def _adopt(self, connection: socket.socket) -> None:
        self.addCleanup(connection.close)
        self.adopted.append(connection)

    def connection(self) -> tuple[socket.socket, socket.socket]:
        """
        :return: A client's end, and the server's.
        """
        client, server = socket.socketpair()
        self.addCleanup(client.close)
        self.addCleanup(server.close)
        return client, server


class HandingOverTests(ChannelCase):
    def test_a_connection(self) -> None:
        taking = self.taking()
        client, server = self.connection()
        self.assertTrue(self.giving.send(server))
        self.assertEqual(self.adopted, [])
        taking.doRead()
        (adopted,) = self.adopted
        self.assertEqual((adopted.family, adopted.type), (socket.AF_UNIX, socket.SOCK_STREAM))
        self.assertFalse(os.get_inheritable(adopted.fileno()))
        client.sendall(b"hello")
        self.assertEqual(adopted.recv(10), b"hello")
        # It was said before it was adopted.
        self.giving.doRead()
        self.assertEqual(self.reports, [Report(taken=1)])

    def test_families(self) -> None:
        taking = self.taking()
        with socket.socket(socket.AF_INET) as four:
            self.giving.send(four)
        taking.doRead()
        self.assertEqual(self.adopted[0].family, socket.AF_INET)

    def test_many(self) -> None:
        taking = self.taking()
        for _ in range(channel.AT_ONCE + 5):
            self.assertTrue(self.giving.send(self.connection()[1]))
        taking.doRead()
        self.assertEqual(len(self.adopted), channel.AT_ONCE)
        taking.doRead()
        self.assertEqual(len(self.adopted), channel.AT_ONCE + 5)
        self.giving.doRead()
        self.assertEqual(self.reports, [Report(taken=channel.AT_ONCE), Report(taken=5)])

    def test_ends_are_told(self) -> None:
        taking = self.taking()
        taking.connection_closed()
        taking.connection_closed()
        self.giving.doRead()
        self.assertEqual(self.reports, [Report(closed=1), Report(closed=1)])

    def test_a_full_channel(self) -> None:
        server = self.connection()[1]
        sent = 0
        while self.giving.send(server):
            sent += 1
            self.assertLess(sent, 100_000)
        self.assertGreater(sent, 32)
        self.assertEqual(self.ended, 0)

    def test_a_parent_that_is_behind(self) -> None:
        """Nothing is adopted before the parent can be told."""
        taking = self.taking()
        self.assertEqual(self.reactor.reading, {self.giving, taking})
        told = 0
        while not self.reactor.writing:
            taking.connection_closed()
            told += 1
            self.assertLess(told, 100_000)
        self.assertEqual(self.reactor.reading, {self.giving})
        self.giving.send(self.connection()[1])
        taking.doRead()
        self.assertEqual(self.adopted, [])
        self.giving.finish()
        self.assertEqual(sum(report.closed for report in self.reports), told - 1)

    def test_a_parent_that_catches_up(self) -> None:
        taking = self.taking()
        told = 0
        while not self.reactor.writing:
            taking.connection_closed()
            told += 1
        self.giving.send(self.connection()[1])
        for _ in range(100):
            self.giving.doRead()
        taking.doWrite()
        taking.doRead()
        self.giving.doRead()
        self.assertEqual((len(self.adopted), self.reactor.writing), (1, set()))
        self.assertEqual(self.reactor.reading, {self.giving, taking})
        self.assertEqual(sum(report.closed for report in self.reports), told)
        self.assertEqual(sum(report.taken for report in self.reports), 1)

    def test_no_descriptor_is_free(self) -> None:
        taking = self.taking()
        servers = [self.connection()[1] for _ in range(2)]
        for server in servers:
            self.giving.send(server)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        highest = max(int(name) for name in os.listdir("/proc/self/fd"))
        taken = set(map(int, os.listdir("/proc/self/fd")))
        free = [os.open(os.devnull, os.O_RDONLY) for number in range(highest) if number not in taken]
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))), hard))
        try:
            taking.doRead()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for descriptor in free:
                os.close(descriptor)
        taking.doRead()
        self.giving.doRead()
        self.assertEqual(sum(report.taken + report.refused for report in self.reports), 2, self.reports)
        self.assertGreaterEqual(sum(report.refused for report in self.reports), 1, self.reports)


class EndTests(ChannelCase):
    def test_the_worker_goes(self) -> None:
        """All that it said is heard first; connections that it has not read are still ours."""
        for count in (1, 2):
            self.theirs.send(Report(taken=count).to_bytes())
        self.giving.send(self.connection()[1])
        self.theirs.close()
        self.giving.doRead()
        self.assertEqual((self.reports, self.ended), ([Report(taken=1), Report(taken=2)], 1))
        self.assertFalse(self.giving.send(self.connection()[1]))
        self.giving.doRead()
        self.giving.connectionLost(None)  # type: ignore[arg-type]  # whatever the reason
        self.assertEqual((self.ended, self.reactor.reading, self.giving.fileno()), (1, set(), -1))

    def test_sending_to_one_that_has_gone(self) -> None:
        self.theirs.send(Report(taken=1).to_bytes())
        self.theirs.close()
        self.assertFalse(self.giving.send(self.connection()[1]))
        self.assertEqual((self.reports, self.ended), ([], 0))
        self.giving.finish()
        self.assertEqual((self.reports, self.ended), ([Report(taken=1)], 1))

    def test_nonsense(self) -> None:
        self.theirs.send(b"nonsense")
        self.giving.doRead()
        self.assertEqual(self.ended, 1)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_the_parent_goes(self) -> None:
        taking = self.taking()
        self.giving.close()
        taking.doRead()
        self.assertEqual((self.reactor.reading, taking.fileno()), (set(), -1))
        taking.connection_closed()

    def test_the_parent_goes_while_it_is_told(self) -> None:
        taking = self.taking()
        self.giving.close()
        taking.connection_closed()
        self.assertEqual(taking.fileno(), -1)

    def test_leaving(self) -> None:
        """What is in the channel stays the parent's."""
        taking = self.taking()
        client, server = self.connection()
        self.giving.send(server)
        taking.close()
        taking.close()
        self.giving.doRead()
        self.assertEqual((self.ended, self.reports, self.adopted), (1, [], []))
        client.sendall(b"still")
        self.assertEqual(server.recv(10), b"still")

    def test_what_the_event_loop_asks(self) -> None:
        taking = self.taking()
        self.assertEqual((taking.logPrefix(), self.giving.logPrefix()), ("regd", "regd"))
        taking.connectionLost(None)  # type: ignore[arg-type]  # whatever the reason
        self.assertEqual(taking.fileno(), -1)
