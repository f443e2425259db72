"""What parent and worker say to each other, over a wire in memory."""

# Protocols, which ours inherit from, have methods without types in Twisted.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from regd.workers.control import CannotServe, ParentControl, WorkerControl


class FakeWorker:
    """
    Answers as a worker.

    :ivar configured: what it was told.
    :ivar failure: raised instead.
    """

    def __init__(self) -> None:
        self.configured: list[tuple[str, bytes]] = []
        self.failure: Exception | None = None
        self.measured = 0
        self.refused: list[str] = []
        self.cut = 0
        self.reopened = 0

    def configure(self, path: str, source: bytes) -> None:
        if self.failure is not None:
            raise self.failure
        self.configured.append((path, source))

    def refuse(self, reason: str) -> None:
        self.refused.append(reason)

    def reopen(self) -> None:
        self.reopened += 1

    def variables(self) -> dict[str, object]:
        return {"pid": 5, "open_connections": 3}

    def samples(self) -> bytes:
        self.measured += 1
        return b"%d" % self.measured * 100_000

    def cut_off(self) -> None:
        self.cut += 1


class ControlTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.worker = FakeWorker()
        self.gone = 0
        self.parents_end = WorkerControl()
        self.workers_end = ParentControl(self.worker, self._gone)
        self.wires = StringTransport(), StringTransport()
        # Any: StringTransport is what these protocols need of a transport.
        ends: Any = (self.parents_end, self.workers_end)
        for end, wire in zip(ends, self.wires, strict=True):
            end.makeConnection(wire)

    def _gone(self) -> None:
        self.gone += 1

    def carry(self) -> None:
        """Carry what is on the wires, until there is nothing."""
        ours, theirs = self.wires
        while ours.value() or theirs.value():
            for wire, end in ((ours, self.workers_end), (theirs, self.parents_end)):
                data = wire.value()
                wire.clear()
                if data:
                    end.dataReceived(data)

    def configure(self, source: bytes) -> Deferred[None]:
        done = Deferred.fromCoroutine(self.parents_end.configure("/etc/é", source))
        self.carry()
        return done

    @settings(max_examples=20, deadline=None)
    @given(st.binary(max_size=200) | st.integers(59_990, 60_010).map(bytes) | st.integers(119_990, 1_000_000).map(bytes))
    def test_a_configuration(self, source: bytes) -> None:
        self.setUp()
        self.successResultOf(self.configure(source))
        self.assertEqual(self.worker.configured, [("/etc/é", source)])

    def test_two_at_once(self) -> None:
        """The parts of one are not mixed with those of the other."""
        sources = [bytes(150_000), b"x" * 150_000]
        done = [Deferred.fromCoroutine(self.parents_end.configure("p", source)) for source in sources]
        self.carry()
        for each in done:
            self.successResultOf(each)
        self.assertEqual([source for _, source in self.worker.configured], sources)

    def test_what_cannot_be(self) -> None:
        self.worker.failure = CannotServe("the disk is on fire")
        failure = self.failureResultOf(self.configure(b"x"), CannotServe)
        self.assertEqual(str(failure.value), "the disk is on fire")
        self.worker.failure = None
        self.successResultOf(self.configure(b"y"))
        self.assertEqual(self.worker.configured, [("/etc/é", b"y")])

    def test_recorded(self) -> None:
        told: list[None] = []
        self.parents_end.on_recorded = lambda: told.append(None)
        self.workers_end.recorded()
        self.carry()
        self.assertEqual(len(told), 1)
        # Nobody waits for an answer, and after the end it is nobody's business.
        self.workers_end.connectionLost(Failure(ConnectionLost()))
        self.workers_end.recorded()
        self.assertEqual(len(told), 1)

    def test_samples_of_any_length(self) -> None:
        """They come in parts, all of one moment, also when two ask at once."""
        asked = [Deferred.fromCoroutine(self.parents_end.samples()) for _ in range(2)]
        self.carry()
        self.assertEqual([self.successResultOf(one) for one in asked], [b"1" * 100_000, b"2" * 100_000])

    def test_samples_of_a_worker_that_goes(self) -> None:
        asked = [Deferred.fromCoroutine(self.parents_end.samples()) for _ in range(2)]
        self.parents_end.connectionLost(Failure(ConnectionLost()))
        for one in asked:
            self.failureResultOf(one)

    def test_refusing(self) -> None:
        for reason in ("the health check of /é fails", ""):
            done = Deferred.fromCoroutine(self.parents_end.refuse(reason))
            self.carry()
            self.successResultOf(done)
            self.assertEqual(self.worker.refused[-1], reason)

    def test_variables(self) -> None:
        done = Deferred.fromCoroutine(self.parents_end.variables())
        self.carry()
        self.assertEqual(self.successResultOf(done), {"pid": 5, "open_connections": 3})

    def test_cut_off(self) -> None:
        done = Deferred.fromCoroutine(self.parents_end.cut_off())
        self.carry()
        self.successResultOf(done)
        self.assertEqual(self.worker.cut, 1)

    def test_a_sign_of_life(self) -> None:
        done = Deferred.fromCoroutine(self.parents_end.ping())
        self.assertNoResult(done)
        self.carry()
        self.successResultOf(done)

    def test_the_end(self) -> None:
        reason = Failure(ConnectionDone())
        done = Deferred.fromCoroutine(self.parents_end.variables())
        self.parents_end.connectionLost(reason)
        self.failureResultOf(done, ConnectionDone)
        self.workers_end.connectionLost(reason)
        self.assertEqual(self.gone, 1)
