"""The gate: changes together, a collection alone, and nobody kept out for long. Over storage in memory and over files."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from regd.errors import Unavailable
from regd.maintenance.gate import CLOSING, OPEN_AGAIN, Gate
from regd.storage import layout
from regd.storage.driver import Busy, Driver, StorageError
from regd.storage.filesystem import FilesystemDriver
from regd.storage.memory import MemoryDriver
from regd.storage.threads import PoolThreads

if TYPE_CHECKING:
    Base = TestCase
else:
    Base = object

#: Another process that closes the gate, says so, and keeps it closed until it is told to go.
CLOSER = """
import sys
from regd.storage import layout
from regd.storage.locks import take

lock = take(f"{sys.argv[1]}/{layout.gate()}", False, sys.argv[1], sys.argv[1])
print("closed", flush=True)
sys.stdin.read()
"""

#: Another process that is in the middle of a change.
CHANGER = CLOSER.replace("False", "True")


class Visitor:
    """
    Somebody at the gate.

    :ivar inside: whether they are through.
    """

    def __init__(self, way: Callable[[], Any]) -> None:
        self.inside = False
        self._leave: Deferred[None] = Deferred()
        self.done: Deferred[None] = Deferred.fromCoroutine(self._visit(way))
        self.error: BaseException | None = None
        self.done.addErrback(self._failed)

    async def _visit(self, way: Callable[[], Any]) -> None:
        async with way():
            self.inside = True
            try:
                await self._leave
            finally:
                self.inside = False

    def _failed(self, failure: Any) -> None:
        self.error = failure.value

    def leave(self) -> None:
        self._leave.callback(None)

    @property
    def waiting(self) -> bool:
        return not self.inside and not self.done.called


class GateSuite(Base):
    """
    :ivar driver: started, with nothing in it; ``setUp`` of the inheriting class sets it.
    """

    if TYPE_CHECKING:

        @property
        def driver(self) -> Driver: ...

    def begin(self, patience: float = 5.0) -> None:
        self.clock = Clock()
        self.gate = self.make(patience)

    def make(self, patience: float = 5.0) -> Gate:
        """A gate as another process on the same storage has it."""
        return Gate(self.driver, lambda seconds: deferLater(self.clock, seconds), patience, self.clock.seconds)

    def run_for(self, seconds: float, step: float = 0.0005) -> None:
        self.clock.pump([step] * round(seconds / step))

    @staticmethod
    async def pass_by(way: Callable[[], Any], inside: Callable[[], object] = lambda: None) -> None:
        async with way():
            inside()

    def assert_free(self) -> None:
        """Nobody holds anything."""
        for path in (layout.gate_queue(), layout.gate()):
            taken: list[Any] = []
            Deferred.fromCoroutine(self.driver.lock(path)).addBoth(taken.append)
            taken[0].close()

    async def test_changes_pass_together(self) -> None:
        self.begin()
        visitors = [Visitor(gate.change) for gate in (self.gate, self.make()) for _ in range(3)]
        self.assertTrue(all(visitor.inside for visitor in visitors))
        for visitor in visitors:
            visitor.leave()
        self.assert_free()

    async def test_an_open_gate_waits_for_nothing(self) -> None:
        self.begin(patience=0)
        async with self.gate.change():
            pass
        async with self.gate.alone():
            pass
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assert_free()

    async def test_a_change_waits_until_the_gate_opens(self) -> None:
        self.begin()
        for gate in (self.gate, self.make()):
            collector = Visitor(self.gate.alone)
            self.assertTrue(collector.inside)
            changes = [Visitor(gate.change) for _ in range(3)]
            self.run_for(1)
            self.assertTrue(all(change.waiting for change in changes))
            collector.leave()
            # One that has waited for long looks again this often.
            self.run_for(0.06)
            self.assertTrue(all(change.inside for change in changes))
            for change in changes:
                change.leave()
            self.assert_free()

    async def test_a_short_wait_is_not_made_long(self) -> None:
        self.begin()
        collector = Visitor(self.gate.alone)
        change = Visitor(self.gate.change)
        self.run_for(0.01)
        collector.leave()
        self.run_for(0.002)
        self.assertTrue(change.inside)
        change.leave()

    async def test_a_change_waits_only_so_long(self) -> None:
        for patience in (5.0, 0.5, 0.0):
            self.begin(patience)
            collector = Visitor(self.gate.alone)
            change = Visitor(self.gate.change)
            self.run_for(max(0, patience - 0.001))
            self.assertEqual(change.waiting, patience > 0)
            self.run_for(0.002)
            assert isinstance(change.error, Unavailable)
            self.assertEqual((change.error.status, change.error.code), (503, "UNAVAILABLE"))
            self.assertEqual(change.error.headers, {"Retry-After": "5"})
            self.assertIn("try again", change.error.message)
            self.assertEqual(self.gate.refused, 1)
            self.assertTrue(collector.inside)
            self.assertEqual(self.clock.getDelayedCalls(), [])
            collector.leave()
            self.assert_free()

    async def test_closing_waits_for_the_changes_under_way(self) -> None:
        self.begin()
        changes = [Visitor(self.gate.change), Visitor(self.make().change)]
        collector = Visitor(self.gate.alone)
        late = Visitor(self.gate.change)
        self.run_for(0.5)
        self.assertTrue(collector.waiting)
        # No new one begins meanwhile.
        self.assertTrue(late.waiting)
        changes[0].leave()
        self.run_for(0.5)
        self.assertTrue(collector.waiting)
        changes[1].leave()
        self.run_for(0.06)
        self.assertTrue(collector.inside)
        self.assertTrue(late.waiting)
        collector.leave()
        self.run_for(0.2)
        self.assertTrue(late.inside)
        late.leave()
        self.assert_free()

    async def test_one_closes_at_a_time(self) -> None:
        self.begin()
        first, second = Visitor(self.gate.alone), Visitor(self.make().alone)
        self.run_for(1)
        self.assertTrue(first.inside)
        self.assertTrue(second.waiting)
        first.leave()
        self.run_for(0.06)
        self.assertTrue(second.inside)
        second.leave()
        self.assert_free()

    async def test_a_slow_change_does_not_keep_the_others_out(self) -> None:
        for patience, closing in ((5.0, CLOSING), (1.0, 0.5), (0.0, 0.1)):
            self.begin(patience)
            slow = Visitor(self.gate.change)
            collector = Visitor(self.gate.alone)
            self.run_for(closing + 0.06)
            # It has given up for now.
            for _ in range(5):
                change = Visitor(self.gate.change)
                self.assertTrue(change.inside)
                change.leave()
            self.assertEqual((self.gate.closings, collector.waiting), (0, True))
            self.assertLess(abs(self.gate.closed - closing), 0.06)
            slow.leave()
            self.run_for(OPEN_AGAIN + 0.06, step=0.01)
            self.assertTrue(collector.inside)
            collector.leave()
            self.assertEqual(self.gate.closings, 1)
            self.assert_free()

    async def test_changes_that_always_overlap_do_not_keep_the_gate_open(self) -> None:
        self.begin()
        changes = [Visitor(self.gate.change)]
        collector = Visitor(self.make().alone)
        for _ in range(100):
            # The next one is there before the last one leaves.
            changes.append(Visitor(self.gate.change))
            changes.pop(0).leave()
            self.run_for(0.005)
            if collector.inside:
                break
        self.assertTrue(collector.inside)
        self.assertLess(self.clock.seconds(), 0.1)
        collector.leave()
        self.run_for(0.1)
        self.assertTrue(all(change.inside for change in changes))
        for change in changes:
            change.leave()

    async def test_closing_again_and_again_does_not_keep_changes_out(self) -> None:
        for lasts in (0.001, 0.010, 0.100):
            self.begin()
            gate = self.make()
            going_on = [True]

            async def collect(gate: Gate = gate, lasts: float = lasts, going_on: list[bool] = going_on) -> None:
                while going_on:
                    async with gate.alone():
                        await deferLater(self.clock, lasts)

            done = Deferred.fromCoroutine(collect())
            passed = 0
            crowd: list[Visitor] = []
            for _ in range(400):
                crowd.append(Visitor(self.gate.change))
                self.run_for(0.005)
                for change in [change for change in crowd if change.inside]:
                    change.leave()
                    crowd.remove(change)
                    passed += 1
            self.assertEqual(self.gate.refused, 0)
            # And nobody waits for more than a few closings.
            self.assertGreater(passed, 400 - 5 - 4 * lasts / 0.005)
            self.assertGreater(gate.closings, 10)
            going_on.clear()
            self.run_for(1)
            for change in crowd:
                change.leave()
            await done
            self.assert_free()

    async def test_whoever_gives_up_waiting_leaves_nothing_behind(self) -> None:
        self.begin()
        inside = Visitor(self.gate.alone)
        at_the_gate = [Visitor(self.gate.change), Visitor(self.gate.alone)]
        self.run_for(0.1)
        for visitor in at_the_gate:
            self.assertTrue(visitor.waiting)
            visitor.done.cancel()
            self.assertIsInstance(visitor.error, CancelledError)
        inside.leave()
        self.assert_free()
        change = Visitor(self.gate.change)
        closing, kept_out = Visitor(self.gate.alone), Visitor(self.gate.change)
        self.run_for(0.1)
        for visitor in (kept_out, closing):
            self.assertTrue(visitor.waiting)
            visitor.done.cancel()
            self.assertIsInstance(visitor.error, CancelledError)
        change.leave()
        self.assert_free()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    async def test_whoever_is_cut_short_inside_leaves_nothing_behind(self) -> None:
        self.begin()
        for way in (self.gate.change, self.gate.alone):
            visitor = Visitor(way)
            self.assertTrue(visitor.inside)
            visitor.done.cancel()
            self.assertIsInstance(visitor.error, CancelledError)
            self.assert_free()
            with self.assertRaises(ZeroDivisionError):
                await self.pass_by(way, lambda: 1 // 0)
            self.assert_free()

    async def test_a_sleep_that_raises_ends_the_wait(self) -> None:
        # As when a collection is told to stop.
        class Stopped(Exception):
            pass

        async def sleep(seconds: float) -> None:
            raise Stopped

        self.begin()
        gate = Gate(self.driver, sleep)
        change = Visitor(self.gate.change)
        with self.assertRaises(Stopped):
            await self.pass_by(gate.alone)
        change.leave()
        self.assert_free()
        collector = Visitor(self.gate.alone)
        with self.assertRaises(Stopped):
            await self.pass_by(gate.change)
        collector.leave()
        self.assert_free()

    async def test_whoever_closes_may_wait_in_their_own_way(self) -> None:
        slept: list[float] = []

        async def sleep(seconds: float) -> None:
            slept.append(seconds)
            await deferLater(self.clock, seconds)

        self.begin()
        change = Visitor(self.gate.change)
        collector = Visitor(lambda: self.gate.alone(sleep))
        self.run_for(0.1)
        self.assertTrue(collector.waiting)
        self.assertGreater(sum(slept), 0.1)
        change.leave()
        self.run_for(0.06)
        self.assertTrue(collector.inside)
        # A change waits as before.
        slept.clear()
        late = Visitor(self.gate.change)
        self.run_for(0.1)
        self.assertTrue(late.waiting)
        self.assertEqual(slept, [])
        collector.leave()
        self.run_for(0.06)
        self.assertTrue(late.inside)
        late.leave()
        self.assert_free()

    async def test_what_is_counted(self) -> None:
        self.begin()
        self.assertEqual((self.gate.closings, self.gate.closed, self.gate.longest, self.gate.refused), (0, 0, 0, 0))
        for seconds in (0.010, 0.030, 0.020):
            collector = Visitor(self.gate.alone)
            self.run_for(seconds)
            collector.leave()
        self.assertEqual(self.gate.closings, 3)
        self.assertAlmostEqual(self.gate.closed, 0.060)
        self.assertAlmostEqual(self.gate.longest, 0.030)
        # Those that waited for a change to end were kept out as well.
        change = Visitor(self.gate.change)
        collector = Visitor(self.gate.alone)
        self.run_for(0.5)
        change.leave()
        self.run_for(0.06)
        collector.leave()
        self.assertGreater(self.gate.longest, 0.5)

    async def test_a_storage_that_fails(self) -> None:
        self.begin()

        async def fail(*path: Any, shared: bool = False) -> None:
            raise StorageError("cannot lock it")

        self.patch(self.driver, "lock", fail)
        for way in (self.gate.change, self.gate.alone):
            with self.assertRaises(StorageError):
                await self.pass_by(way)


class GateInMemoryTest(GateSuite, TestCase):
    driver: Driver

    def setUp(self) -> None:
        self.driver = MemoryDriver()


class GateInFilesTest(GateSuite, TestCase):
    driver: Driver

    def setUp(self) -> None:
        self.root = tempfile.mkdtemp(prefix="regd-test-")
        self.addCleanup(shutil.rmtree, self.root, ignore_errors=True)
        # Any: mypy knows the reactor as a module.
        loop: Any = reactor
        driver = FilesystemDriver(self.root, PoolThreads(loop, 1))
        self.addCleanup(driver.stop)
        driver.start()
        self.driver = driver

    async def test_descriptors_are_given_back(self) -> None:
        self.begin(patience=0.01)
        async with self.gate.change():
            pass
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(10):
            async with self.gate.change():
                pass
            collector = Visitor(self.gate.alone)
            change = Visitor(self.gate.change)
            self.run_for(0.1)
            self.assertIsInstance(change.error, Unavailable)
            collector.leave()
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)


class OtherProcessesTest(TestCase):
    """Several processes and a kernel, with the time that it is."""

    def setUp(self) -> None:
        self.root = tempfile.mkdtemp(prefix="regd-test-")
        self.addCleanup(shutil.rmtree, self.root, ignore_errors=True)
        # Any: mypy knows the reactor as a module.
        loop: Any = reactor
        driver = FilesystemDriver(self.root, PoolThreads(loop, 1))
        self.addCleanup(driver.stop)
        driver.start()
        self.gate = Gate(driver, lambda seconds: deferLater(loop, seconds), 30)

    def start(self, program: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", program, self.root], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

        def end() -> None:
            process.kill()
            process.communicate()

        self.addCleanup(end)
        assert process.stdout is not None
        self.assertEqual(process.stdout.readline(), "closed\n")
        return process

    async def shows(self, visitor: Visitor, seconds: float) -> bool:
        """Whether somebody gets in within so many seconds."""
        for _ in range(round(seconds / 0.01)):
            if visitor.inside:
                return True
            await deferLater(reactor, 0.01)
        return visitor.inside

    async def assert_kept_out_until_killed(self, process: subprocess.Popen[str], way: Callable[[], Any]) -> None:
        visitor = Visitor(way)
        self.assertFalse(await self.shows(visitor, 0.2))
        process.send_signal(signal.SIGKILL)
        process.wait()
        self.assertTrue(await self.shows(visitor, 10))
        visitor.leave()

    async def test_whoever_closes_is_killed(self) -> None:
        await self.assert_kept_out_until_killed(self.start(CLOSER), self.gate.change)

    async def test_whoever_changes_is_killed(self) -> None:
        process = self.start(CHANGER)
        other = Visitor(self.gate.change)
        self.assertTrue(other.inside)
        other.leave()
        await self.assert_kept_out_until_killed(process, self.gate.alone)


class Machine(RuleBasedStateMachine):
    """Any order of coming, leaving, giving up and waiting, by two processes."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.driver = MemoryDriver()
        self.gates = [Gate(self.driver, lambda seconds: deferLater(self.clock, seconds), 5.0, self.clock.seconds) for _ in range(2)]
        self.changes: list[Visitor] = []
        self.closers: list[Visitor] = []
        #: When each came.
        self.came: dict[Visitor, float] = {}

    @rule(process=st.integers(0, 1))
    def change(self, process: int) -> None:
        visitor = Visitor(self.gates[process].change)
        self.changes.append(visitor)
        self.came[visitor] = self.clock.seconds()

    @precondition(lambda self: len(self.closers) < 3)
    @rule(process=st.integers(0, 1))
    def close(self, process: int) -> None:
        self.closers.append(Visitor(self.gates[process].alone))

    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        inside = [visitor for visitor in (*self.changes, *self.closers) if visitor.inside]
        if inside:
            data.draw(st.sampled_from(inside)).leave()

    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        everybody = [*self.changes, *self.closers]
        if everybody:
            data.draw(st.sampled_from(everybody)).done.cancel()

    @rule(seconds=st.sampled_from([0.001, 0.01, 0.1, 1.0]))
    def wait(self, seconds: float) -> None:
        self.clock.pump([seconds / 20] * 20)

    @invariant()
    def whoever_is_alone_is_alone(self) -> None:
        self.changes = [visitor for visitor in self.changes if not visitor.done.called]
        self.closers = [visitor for visitor in self.closers if not visitor.done.called]
        changing = sum(visitor.inside for visitor in self.changes)
        closing = sum(visitor.inside for visitor in self.closers)
        assert closing <= 1
        assert not (closing and changing)

    @invariant()
    def nobody_waits_for_longer_than_they_would(self) -> None:
        for visitor in self.changes:
            assert not visitor.waiting or self.clock.seconds() - self.came[visitor] <= 5.1

    @invariant()
    def nobody_waits_at_an_open_gate(self) -> None:
        if not self.closers:
            self.clock.pump([0.05, 0.05])
            assert not any(visitor.waiting for visitor in self.changes)

    def teardown(self) -> None:
        for visitor in (*self.changes, *self.closers):
            visitor.done.cancel()
        assert not self.clock.getDelayedCalls()
        for path in (layout.gate_queue(), layout.gate()):
            # It never suspends.
            try:
                self.driver.lock(path).send(None)
            except Busy:
                raise AssertionError(f"{path} is still held") from None
            except StopIteration:
                pass


class StatefulTest(SynchronousTestCase):
    def test_any_order(self) -> None:
        run_state_machine_as_test(Machine)


