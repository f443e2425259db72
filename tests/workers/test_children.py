"""Worker processes as procmon starts, watches and replaces them; with processes that are not there, and a clock."""

# Protocols, which ours inherit from, have methods without types in Twisted.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Mapping
from typing import Any

from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from regd.workers.children import CHANNEL, CONTROL, LOCK, Child, Children, Output


class FakeProcess:
    """
    A process.

    :ivar signals: what it was sent.
    """

    def __init__(self, pid: int, child: Child, descriptors: Mapping[int, int | str]) -> None:
        self.pid = pid
        self.child = child
        self.descriptors = dict(descriptors)
        self.signals: list[str] = []
        #: The worker's ends, which the parent closes when it has started it.
        self.ends = [socket.socket(fileno=os.dup(end)) for fd in (CHANNEL, CONTROL) if isinstance(end := descriptors[fd], int)]
        made: Any = self
        child.makeConnection(made)

    def signalProcess(self, name: str) -> None:
        self.signals.append(name)

    def end(self, reason: Exception) -> None:
        for end in self.ends:
            end.close()
        self.child.processEnded(Failure(reason))


class FakeReactor(Clock):
    """
    Starts processes that are not there.

    :ivar processes: all that it has started.
    :ivar failure: raised instead.
    """

    def __init__(self) -> None:
        super().__init__()
        self.processes: list[FakeProcess] = []
        self.failure: OSError | None = None
        self.lost = 0

    def adoptStreamConnection(self, descriptor: int, family: int, factory: Any) -> Any:
        assert family == socket.AF_UNIX
        assert factory.buildProtocol(None) is not None
        reactor = self

        class Connection:
            def loseConnection(self) -> None:
                reactor.lost += 1

        return Connection()

    def spawnProcess(self, child: Child, executable: str, args: Any, env: Any, childFDs: Any, **options: Any) -> FakeProcess:
        if self.failure is not None:
            raise self.failure
        self.processes.append(FakeProcess(len(self.processes) + 100, child, childFDs))
        return self.processes[-1]


class ChildrenTests(SynchronousTestCase):
    def make(self, outputs: Mapping[int, Output] | None = None, lock: int | None = 9) -> Children:
        self.reactor = FakeReactor()
        self.started: list[Child] = []
        self.ended: list[tuple[int, str]] = []
        made = Children(
            self.reactor,
            ["python", "-m", "regd.worker"],
            {},
            2,
            {1: 1, 2: 2} if outputs is None else outputs,
            lock,
            self.start,
            lambda child, how: self.ended.append((child.pid, how)),
        )
        made.startService()
        self.addCleanup(self.close)
        return made

    def start(self, child: Child) -> None:
        self.started.append(child)
        self.addCleanup(child.channel.close)

    def close(self) -> None:
        for process in self.reactor.processes:
            for end in process.ends:
                end.close()

    def test_descriptors(self) -> None:
        self.make()
        process = self.reactor.processes[0]
        self.assertEqual(set(process.descriptors), {0, 1, 2, CHANNEL, CONTROL, LOCK})
        self.assertEqual([process.descriptors[fd] for fd in (1, 2, LOCK)], [1, 2, 9])
        # Connections come by the one that it was given.
        child = self.started[0]
        process.ends[0].send(b"report")
        self.assertEqual(child.channel.recv(10), b"report")
        self.assertEqual([child.pid for child in self.started], [100, 101])

    def test_nothing_is_left_open(self) -> None:
        self.make()
        self.reactor.advance(5)
        before = len(os.listdir("/proc/self/fd"))
        self.reactor.failure = OSError(11, "no more processes")
        self.reactor.processes[0].end(ProcessDone(0))
        self.started[0].channel.close()
        self.reactor.advance(0)
        # The fake's two ends, and the parent's, are closed.
        self.assertEqual(len(os.listdir("/proc/self/fd")), before - 3)
        self.assertEqual((len(self.reactor.processes), self.reactor.lost), (2, 1))
        self.reactor.failure = None
        self.reactor.advance(2)
        self.assertEqual(len(self.reactor.processes), 3)

    def test_one_that_ends_is_replaced(self) -> None:
        self.make()
        self.reactor.advance(5)
        self.reactor.processes[0].end(ProcessTerminated(None, signal.SIGKILL, None))
        self.reactor.processes[1].end(ProcessTerminated(3, None, None))
        self.assertEqual(self.ended, [(100, "was killed by SIGKILL"), (101, "ended with status 3")])
        self.reactor.advance(0)
        self.assertEqual([child.pid for child in self.started], [100, 101, 102, 103])
        self.reactor.advance(5)
        self.reactor.processes[2].end(ProcessDone(0))
        self.assertEqual(self.ended[2:], [(102, "")])

    def test_one_that_ends_at_once(self) -> None:
        """The time until the next try doubles, up to a minute."""
        self.make()
        waits = []
        for _ in range(9):
            self.reactor.processes[-1].end(ProcessTerminated(1, None, None))
            count = len(self.reactor.processes)
            began = self.reactor.seconds()
            while len(self.reactor.processes) == count:
                self.reactor.advance(1)
            waits.append(round(self.reactor.seconds() - began))
        self.assertEqual(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60])

    def test_the_end(self) -> None:
        made = self.make()
        made.killTime = 30
        made.stopService()
        one, other = self.reactor.processes
        self.assertEqual((one.signals, other.signals), (["TERM"], ["TERM"]))
        other.end(ProcessDone(0))
        self.reactor.advance(30)
        self.assertEqual((one.signals, other.signals), (["TERM", "KILL"], ["TERM"]))
        one.end(ProcessTerminated(None, signal.SIGKILL, None))
        self.reactor.advance(100)
        self.assertEqual((len(self.reactor.processes), self.reactor.getDelayedCalls()), (2, []))

    def test_an_end_in_a_hurry(self) -> None:
        made = self.make()
        made.killTime = 30
        made.stopService()
        one, other = self.reactor.processes
        other.end(ProcessDone(0))
        made.hurry(5)
        self.reactor.advance(4)
        self.assertEqual(one.signals, ["TERM"])
        self.reactor.advance(1)
        self.assertEqual((one.signals, other.signals), (["TERM", "KILL"], ["TERM"]))
        made.hurry(5)
        one.end(ProcessTerminated(None, signal.SIGKILL, None))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_one_that_is_asked_to_end(self) -> None:
        self.make()
        self.started[0].end()
        self.assertEqual(self.reactor.processes[0].signals, ["TERM"])

    def test_output(self) -> None:
        """Where only we can write the log, lines come by us, whole."""
        out: list[str] = []
        errors: list[str] = []
        self.make({1: out.append, 2: errors.append}, lock=None)
        process, other = self.reactor.processes
        self.assertEqual((process.descriptors[1], process.descriptors[2]), ("r", "r"))
        self.assertNotIn(LOCK, process.descriptors)
        process.child.childDataReceived(1, b"one\ntw")
        other.child.childDataReceived(1, b"other\n")
        process.child.childDataReceived(2, b"\xff\n")
        process.child.childDataReceived(1, b"o\nthree\nfo")
        self.assertEqual((out, errors), (["one\n", "other\n", "two\n", "three\n"], ["\\xff\n"]))
        process.end(ProcessDone(0))
        self.assertEqual(out[4:], ["fo\n"])

    def test_output_without_end(self) -> None:
        out: list[str] = []
        self.make({1: out.append, 2: 2})
        process = self.reactor.processes[0]
        for _ in range(40):
            process.child.childDataReceived(1, b"x" * 64 * 1024)
        self.assertEqual(len(out), 2)
        process.end(ProcessDone(0))
        self.assertLess(len(out[2]), 1024 * 1024)
