"""Work that several want at once."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from regd.proxy.coalesce import Coalesced


class CoalescedTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.begun: list[Deferred[int]] = []
        self.work: Coalesced[str, int] = Coalesced()

    async def do(self) -> int:
        self.begun.append(Deferred())
        return await self.begun[-1]

    def test_once(self) -> None:
        found = [self.work.join("a", self.do) for _ in range(3)]
        other = self.work.join("b", self.do)
        self.assertEqual((len(self.begun), len(self.work), "a" in self.work), (2, 2, True))
        self.begun[0].callback(7)
        self.assertEqual([self.successResultOf(one) for one in found], [7, 7, 7])
        self.assertNoResult(other)
        again = self.work.join("a", self.do)
        self.assertEqual(len(self.begun), 3)
        self.assertNoResult(again)

    def test_at_once(self) -> None:
        async def seven() -> int:
            return 7

        self.assertEqual(self.successResultOf(self.work.join("a", seven)), 7)
        self.assertEqual(len(self.work), 0)

    def test_failure(self) -> None:
        found = [self.work.join("a", self.do) for _ in range(2)]
        self.begun[0].errback(ValueError())
        for one in found:
            self.failureResultOf(one, ValueError)
        self.assertEqual(len(self.work), 0)

    def test_one_leaves(self) -> None:
        found = [self.work.join("a", self.do) for _ in range(2)]
        found[0].cancel()
        self.failureResultOf(found[0], CancelledError)
        self.begun[0].callback(7)
        self.assertEqual(self.successResultOf(found[1]), 7)

    def test_all_leave(self) -> None:
        found = self.work.join("a", self.do)
        found.cancel()
        self.failureResultOf(found, CancelledError)
        # It goes on, and the next one finds it.
        found = self.work.join("a", self.do)
        self.begun[0].callback(7)
        self.assertEqual((len(self.begun), self.successResultOf(found)), (1, 7))

    def test_cancelled(self) -> None:
        found = [self.work.join("a", self.do) for _ in range(2)]
        self.work.cancel()
        for one in found:
            self.failureResultOf(one, CancelledError)
        self.assertEqual(len(self.work), 0)

    def test_another_joins_from_within(self) -> None:
        """Whoever asks again when the answer is there begins anew."""
        again: list[Deferred[int]] = []
        found = self.work.join("a", self.do)
        found.addCallback(lambda _: again.append(self.work.join("a", self.do)))
        self.begun[0].callback(7)
        self.assertEqual(len(self.begun), 2)
        self.assertNoResult(again[0])
        self.begun[1].callback(8)
        self.assertEqual(self.successResultOf(again[0]), 8)
