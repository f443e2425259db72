"""The pace of a run, and its end."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import TestCase

from regd.maintenance import closing, steps
from regd.maintenance.closing import Closing
from regd.maintenance.gate import Gate
from regd.maintenance.steps import Steps
from regd.maintenance.summary import Stopped
from regd.storage.memory import MemoryDriver


class Clock:
    """Time that passes only in sleep."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


class StepsTest(TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.patch(steps, "monotonic", self.clock)
        self.patch(closing, "monotonic", self.clock)

    async def test_no_faster_than_asked_for(self) -> None:
        pace = Steps(100, self.clock.sleep)
        self.assertEqual(pace.lot, 10)
        for _ in range(50):
            await pace.take(10)
        self.assertAlmostEqual(self.clock.now, 1005, delta=0.2)
        # A minute in which nothing was done is not made up for.
        self.clock.now += 60
        before = self.clock.now
        await pace.take(100)
        self.assertAlmostEqual(self.clock.now - before, 1, delta=0.2)

    async def test_a_rate_of_one(self) -> None:
        pace = Steps(1, self.clock.sleep)
        self.assertEqual(pace.lot, 1)
        await pace.take(3)
        self.assertAlmostEqual(self.clock.now, 1003, delta=0.2)
        self.assertLessEqual(max(self.clock.slept), 0.2)

    async def test_no_limit(self) -> None:
        pace = Steps(0, self.clock.sleep)
        await pace.take(1_000_000)
        self.assertEqual(self.clock.now, 1000)

    async def test_stop(self) -> None:
        for pace in (Steps(0, self.clock.sleep), Steps(5, self.clock.sleep)):
            pace.stop()
            pace.stop()
            for work in (pace.take(1), pace.rest(1)):
                with self.assertRaises(Stopped):
                    await work
            self.assertRaises(Stopped, pace.check)

    async def test_stop_while_it_waits(self) -> None:
        async def sleep(seconds: float) -> None:
            await self.clock.sleep(seconds)
            pace.stop()

        pace = Steps(1, sleep)
        with self.assertRaises(Stopped):
            await pace.take(1000)
        self.assertLessEqual(self.clock.now, 1001)

    async def test_stop_while_it_rests(self) -> None:
        async def sleep(seconds: float) -> None:
            await self.clock.sleep(seconds)
            if self.clock.now > 1001:
                pace.stop()

        pace = Steps(0, sleep)
        await pace.rest(0.5)
        self.assertAlmostEqual(self.clock.now, 1000.5)
        with self.assertRaises(Stopped):
            await pace.rest(1000)
        self.assertLess(self.clock.now, 1001.5)

    async def test_the_gate_is_open_for_longer_than_it_was_closed(self) -> None:
        pace = Steps(0, self.clock.sleep)
        gate = Gate(MemoryDriver(), self.clock.sleep, now=self.clock)
        closed = Closing(gate, pace)

        async def work(seconds: float) -> Any:
            self.clock.now += seconds
            return seconds

        self.assertEqual(await closed(lambda: work(0.02), 100), 0.02)
        self.assertEqual((self.clock.now, closed.lot), (1000.02, 40))
        await closed(lambda: work(0.001), 40)
        self.assertAlmostEqual(self.clock.now, 1000.02 + 0.08 + 0.001)
        # What was slow once may be fast again.
        self.assertEqual(closed.lot, 80)
        self.assertAlmostEqual(closed.longest, 0.02)
        self.assertAlmostEqual(closed.closed, 0.021)
        await closed(lambda: work(5), 80)
        self.assertEqual(closed.lot, 16)
        pace.stop()
        with self.assertRaises(Stopped):
            await closed(lambda: work(0.001), 1)
        self.assertEqual(gate.closings, 3)
