"""Work that is done once: who waits for it, for how long, and what they get."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from regd.proxy.cache.sharing import Late, Sharing


class Expected(Exception):
    """What the work may fail with."""


class SharingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.sharing: Sharing[str, int] = Sharing(self.clock, (Expected,))
        self.begun: list[Deferred[int]] = []

    async def work(self) -> int:
        waiting: Deferred[int] = Deferred()
        self.begun.append(waiting)
        return await waiting

    def ask(self, key: str = "a", patience: float | None = None) -> Deferred[int]:
        return Deferred.fromCoroutine(self.sharing.outcome(key, self.work, patience))

    def timers(self) -> list[Any]:
        """What is still going to happen, besides at once."""
        self.clock.advance(0)
        return list(self.clock.getDelayedCalls())

    def test_once(self) -> None:
        asked = [self.ask(), self.ask(), self.ask("b")]
        self.assertEqual((len(self.begun), len(self.sharing)), (2, 2))
        self.begun[0].callback(1)
        self.assertEqual([self.successResultOf(one) for one in asked[:2]], [1, 1])
        self.assertNoResult(asked[2])
        self.begun[1].callback(2)
        self.assertEqual((self.successResultOf(asked[2]), len(self.sharing)), (2, 0))

    def test_again(self) -> None:
        for value in (1, 2):
            asked = self.ask()
            self.begun[-1].callback(value)
            self.assertEqual(self.successResultOf(asked), value)
        self.assertEqual(len(self.begun), 2)

    def test_again_by_who_was_waiting(self) -> None:
        async def twice() -> list[int]:
            return [await self.sharing.outcome("a", self.work) for _ in range(2)]

        asked = Deferred.fromCoroutine(twice())
        self.begun[0].callback(1)
        self.begun[1].callback(2)
        self.assertEqual(self.successResultOf(asked), [1, 2])
        self.assertEqual(len(self.sharing), 0)

    def test_what_waits_for_nothing(self) -> None:
        async def at_once() -> int:
            return 5

        asked = Deferred.fromCoroutine(self.sharing.outcome("a", at_once, 3))
        self.assertEqual((self.successResultOf(asked), len(self.sharing), self.timers()), (5, 0, []))

    def test_all_hear_of_a_failure(self) -> None:
        asked = [self.ask(), self.ask(patience=5)]
        self.begun[0].errback(Expected())
        for one in asked:
            self.failureResultOf(one, Expected)
        self.assertEqual(self.timers(), [])
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_a_fault_is_logged(self) -> None:
        """Also where nobody waits any more."""
        asked = self.ask()
        asked.cancel()
        self.failureResultOf(asked)
        self.begun[0].errback(ZeroDivisionError())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_patience(self) -> None:
        patient, impatient = self.ask(), self.ask(patience=3)
        self.clock.advance(2.9)
        self.assertNoResult(impatient)
        self.clock.advance(0.1)
        self.failureResultOf(impatient, Late)
        # Counted from when it began: nobody waits who knows that it takes its time.
        self.failureResultOf(self.ask(patience=3), Late)
        self.assertNoResult(patient)
        self.begun[0].callback(1)
        self.assertEqual(self.successResultOf(patient), 1)
        self.assertEqual((len(self.begun), self.timers()), (1, []))

    def test_in_time(self) -> None:
        asked = self.ask(patience=3)
        self.clock.advance(2)
        self.begun[0].callback(1)
        self.assertEqual(self.successResultOf(asked), 1)
        self.assertEqual(self.timers(), [])

    def test_one_that_leaves(self) -> None:
        stays, leaves = self.ask(), self.ask(patience=3)
        leaves.cancel()
        self.failureResultOf(leaves)
        self.assertEqual(self.timers(), [])
        self.begun[0].callback(1)
        self.assertEqual(self.successResultOf(stays), 1)

    def test_settling(self) -> None:
        self.ask().addErrback(lambda _: None)
        self.ask("b")
        settled: Deferred[Any] = Deferred.fromCoroutine(self.sharing.settle())
        self.begun[0].errback(Expected())
        self.assertNoResult(settled)
        self.begun[1].callback(1)
        self.clock.advance(0)
        self.successResultOf(settled)
        self.successResultOf(Deferred.fromCoroutine(self.sharing.settle()))
