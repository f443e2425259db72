"""Coroutines that wait, and those that do not."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from regd.web.at_once import begin


class BeginTest(SynchronousTestCase):
    def test_at_once(self) -> None:
        async def work() -> int:
            return 7

        self.assertEqual(begin(work()), 7)

    def test_fails_at_once(self) -> None:
        async def work() -> int:
            raise KeyError

        self.assertRaises(KeyError, begin, work())

    def test_waits(self) -> None:
        first: Deferred[int] = Deferred()
        second: Deferred[int] = Deferred()

        async def work() -> int:
            try:
                return await first
            except KeyError:
                return await second

        begun: Any = begin(work())
        self.assertNoResult(begun)
        first.errback(KeyError())
        self.assertNoResult(begun)
        second.callback(7)
        self.assertEqual(self.successResultOf(begun), 7)

    def test_cancelled(self) -> None:
        waiting: Deferred[int] = Deferred()

        async def work() -> int:
            return await waiting

        begun: Any = begin(work())
        begun.cancel()
        self.failureResultOf(begun, CancelledError)
        self.assertTrue(waiting.called)
