"""Whose turn it is to ask."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import SynchronousTestCase

from regd.proxy.cache.turns import Turns
from regd.storage.driver import Held, StorageError
from regd.storage.memory import MemoryDriver


class TurnsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock: Any = Clock()
        self.driver: Any = MemoryDriver()

    def turns(self) -> Turns:
        """Those of one process."""
        return Turns(self.driver, lambda seconds: deferLater(self.clock, seconds), self.clock.seconds)

    def take(self, key: str = "a", patience: float = 60) -> Deferred[Held | None]:
        return Deferred.fromCoroutine(self.turns().take(key, patience))

    def pass_time(self, seconds: float) -> None:
        self.clock.pump([0.01] * round(seconds * 100))

    def test_one_after_the_other(self) -> None:
        first = self.successResultOf(self.take())
        assert first is not None
        second = self.take()
        self.pass_time(1)
        self.assertNoResult(second)
        self.assertIsNotNone(self.successResultOf(self.take("another thing")))
        first.close()
        self.pass_time(0.2)
        held = self.successResultOf(second)
        assert held is not None
        held.close()

    def test_patience(self) -> None:
        self.successResultOf(self.take())
        second = self.take(patience=2)
        self.pass_time(1.9)
        self.assertNoResult(second)
        self.pass_time(0.2)
        self.assertIsNone(self.successResultOf(second))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_looking_costs_little(self) -> None:
        self.successResultOf(self.take())
        looks: list[str] = []
        real = self.driver.lock

        async def lock(path: str) -> Held:
            looks.append(path)
            return await real(path)  # type: ignore[no-any-return]  # the driver is typed as Any

        self.driver.lock = lock
        self.take(patience=10)
        self.pass_time(10.5)
        self.assertLess(len(looks), 120)

    def test_a_storage_without_locks(self) -> None:
        async def lock(path: str) -> Held:
            raise StorageError("read-only")

        self.driver.lock = lock
        self.assertIsNone(self.successResultOf(self.take()))
