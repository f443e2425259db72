"""A chore that is done again and again by itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from unittest.mock import patch

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from regd.maintenance.schedule import Plan
from regd.maintenance.service import RunFailed, Timed

DAY = 86400.0
HOUR = 3600.0


@dataclass(frozen=True)
class Part:
    start: int
    end: int


class FakeChore:
    """
    What a test ends as it likes.

    :ivar begun: when runs began.
    :ivar stops: how often a run was asked to end.
    """

    name = "sweeping the floor"

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.begun: list[float] = []
        self.stops = 0
        self.run_time: Deferred[None] | None = None

    async def run(self) -> None:
        assert self.run_time is None, "two at once"
        self.begun.append(self._now())
        self.run_time = Deferred()
        await self.run_time

    def stop(self) -> None:
        self.stops += 1

    def end(self, error: Exception | None = None) -> None:
        assert self.run_time is not None
        ending, self.run_time = self.run_time, None
        if error is None:
            ending.callback(None)
        else:
            ending.errback(error)


class TimedTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        # Sets the wall clock off, which the waiting does not go by.
        self.set_off = 0.0
        self.chore = FakeChore(self.now)
        self.timed = Timed(self.chore, self.clock, self.now, lambda: 0.25, time.gmtime)

    def now(self) -> float:
        return self.clock.seconds() + self.set_off

    def advance(self, seconds: float) -> None:
        """Let time go by, so that each call comes at its own time."""
        end = self.clock.seconds() + seconds
        while (calls := self.clock.getDelayedCalls()) and (first := min(call.getTime() for call in calls)) <= end:
            self.clock.advance(first - self.clock.seconds())
        self.clock.advance(end - self.clock.seconds())

    def finish(self, after: float = 0.0, error: Exception | None = None) -> None:
        self.advance(after)
        self.chore.end(error)

    def test_nothing_is_done_without_a_plan(self) -> None:
        self.advance(2 * DAY)
        self.assertEqual((self.chore.begun, self.timed.next, self.clock.getDelayedCalls()), ([], None, []))

    def test_the_first_run_comes_after_a_random_part(self) -> None:
        self.timed.configure(Plan(DAY, DAY))
        self.assertEqual(self.timed.next, DAY / 4)
        self.advance(DAY / 4 - 1)
        self.assertEqual(self.chore.begun, [])
        self.advance(1)
        self.assertEqual(self.chore.begun, [DAY / 4])
        self.assertEqual((self.timed.running, self.timed.next, self.timed.runs), (True, None, 0))

    def test_the_next_one_an_interval_after_its_beginning(self) -> None:
        self.timed.configure(Plan(DAY, HOUR))
        self.advance(HOUR / 4)
        self.finish(500)
        self.assertEqual((self.timed.running, self.timed.runs, self.timed.failures), (False, 1, 0))
        self.assertEqual(self.timed.next, HOUR / 4 + DAY)
        self.advance(DAY)
        self.assertEqual(self.chore.begun, [HOUR / 4, HOUR / 4 + DAY])

    def test_a_long_run_is_never_joined_by_another(self) -> None:
        self.timed.configure(Plan(60.0, 0.0))
        self.advance(0)
        self.advance(1000)
        self.assertEqual(self.chore.begun, [0.0])
        self.chore.end()
        self.clock.advance(0)
        self.assertEqual(self.chore.begun, [0.0, 1000.0])

    def test_the_window(self) -> None:
        """Between 02:00 and 05:00; it begins at midnight."""
        self.timed.configure(Plan(DAY, DAY, Part(120, 300)))
        # Six o'clock, were there no window.
        self.assertEqual(self.timed.next, DAY + 2 * HOUR)
        self.advance(DAY + 2 * HOUR)
        self.finish(4 * HOUR)
        self.assertEqual(self.timed.next, 2 * DAY + 2 * HOUR)

    def test_a_failure_is_tried_again_ever_later(self) -> None:
        self.timed.configure(Plan(1000.0, 0.0))
        with patch.object(Timed, "_log") as log:
            for count, delay in ((1, 60), (2, 120), (3, 240), (4, 480), (5, 960), (6, 1000), (7, 1000)):
                self.advance(0)
                self.finish(10, RunFailed("no broom") if count % 2 else ZeroDivisionError())
                self.assertEqual((self.timed.runs, self.timed.failures), (count, count))
                self.assertEqual(self.timed.next, self.now() + delay)
                self.advance(delay)
            self.assertEqual(log.failure.call_count, 3)
            self.assertEqual(log.error.call_args_list[0].args, ("{name} failed: {error}",))
            self.assertEqual(len(log.error.call_args_list), 4 + 7)
        begun = self.now()
        self.finish(10)
        self.assertEqual(self.timed.next, begun + 1000)
        self.advance(990)
        with patch.object(Timed, "_log"):
            self.finish(0, RunFailed("again"))
        self.assertEqual(self.timed.next, self.now() + 60)

    def test_a_failure_at_the_end_of_the_window(self) -> None:
        self.timed.configure(Plan(DAY, 4 * 4.999 * HOUR, Part(120, 300)))
        self.advance(4.999 * HOUR)
        with patch.object(Timed, "_log"):
            self.finish(30, RunFailed("no broom"))
        self.assertEqual(self.timed.next, DAY + 2 * HOUR)

    def test_another_plan_keeps_the_date_where_the_interval_stays(self) -> None:
        self.timed.configure(Plan(DAY, DAY))
        self.advance(HOUR)
        self.timed.configure(Plan(DAY, DAY))
        self.assertEqual(self.timed.next, 6 * HOUR)
        self.timed.configure(Plan(DAY, DAY, Part(420, 480)))
        self.assertEqual(self.timed.next, 7 * HOUR)
        self.timed.configure(Plan(DAY, DAY))
        self.assertEqual(self.timed.next, 6 * HOUR)
        self.advance(5 * HOUR)
        self.assertEqual(self.chore.begun, [6 * HOUR])

    def test_another_interval(self) -> None:
        self.timed.configure(Plan(DAY, DAY))
        self.advance(HOUR)
        self.timed.configure(Plan(4 * HOUR, 4 * HOUR))
        self.assertEqual(self.timed.next, 2 * HOUR)
        self.advance(HOUR)
        self.finish(60)
        self.advance(HOUR)
        self.timed.configure(Plan(2 * HOUR, 2 * HOUR))
        self.assertEqual(self.timed.next, 4 * HOUR)
        self.timed.configure(Plan(HOUR / 2, HOUR / 2))
        self.assertEqual(self.timed.next, self.now())
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)

    def test_another_plan_during_a_run(self) -> None:
        self.timed.configure(Plan(DAY, 0.0))
        self.advance(0)
        self.timed.configure(Plan(HOUR, 0.0))
        self.assertEqual((self.timed.running, self.chore.stops), (True, 0))
        self.finish(60)
        self.assertEqual(self.timed.next, HOUR)

    def test_off_and_on(self) -> None:
        self.timed.configure(Plan(DAY, DAY))
        self.timed.configure(None)
        self.assertEqual((self.timed.next, self.clock.getDelayedCalls()), (None, []))
        self.advance(DAY)
        self.timed.configure(Plan(DAY, DAY))
        self.assertEqual(self.timed.next, DAY + DAY / 4)

    def test_off_during_a_run_ends_it(self) -> None:
        self.timed.configure(Plan(DAY, 0.0))
        self.advance(0)
        self.timed.configure(None)
        self.assertEqual((self.chore.stops, self.timed.running), (1, True))
        self.finish()
        self.assertEqual((self.timed.running, self.timed.next, self.clock.getDelayedCalls()), (False, None, []))

    def test_off_and_on_during_a_run(self) -> None:
        self.timed.configure(Plan(DAY, 0.0))
        self.advance(0)
        self.timed.configure(None)
        self.timed.configure(Plan(DAY, 0.0))
        self.finish(60)
        self.assertEqual((self.timed.next, len(self.chore.begun)), (DAY, 1))

    def test_stop(self) -> None:
        self.timed.configure(Plan(DAY, 0.0))
        self.successResultOf(Deferred.fromCoroutine(self.timed.stop()))
        self.timed.configure(Plan(DAY, 0.0))
        self.advance(0)
        stopping = [Deferred.fromCoroutine(self.timed.stop()) for _ in range(2)]
        for one in stopping:
            self.assertNoResult(one)
        self.finish()
        for one in stopping:
            self.successResultOf(one)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_clock_that_is_set_forward(self) -> None:
        """As after a start without a battery: the run comes within the hour."""
        self.timed.configure(Plan(30 * DAY, 30 * DAY))
        self.set_off = 365 * DAY
        self.advance(HOUR)
        self.assertEqual(len(self.chore.begun), 1)

    def test_a_clock_that_is_set_back(self) -> None:
        self.set_off = 365 * DAY
        self.timed.configure(Plan(DAY, DAY))
        self.set_off = 0
        self.advance(HOUR)
        self.assertEqual(self.timed.next, HOUR + DAY)

    def test_a_clock_that_is_set_back_during_a_run(self) -> None:
        self.set_off = 365 * DAY
        self.timed.configure(Plan(DAY, 0.0))
        self.advance(0)
        self.set_off = 0
        self.finish(60)
        self.assertEqual(self.timed.next, 60 + DAY)
