"""Health: what is wrong, by what it is wrong with."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from regd.storage.driver import StorageError
from regd.storage.memory import MemoryDriver
from regd.telemetry.health import Health
from tests.web.support import failing


class HealthTests(SynchronousTestCase):
    def problems(self, driver: MemoryDriver) -> dict[str, str]:
        return self.successResultOf(Deferred.fromCoroutine(Health(driver).problems()))

    def test_well(self) -> None:
        self.assertEqual(self.problems(MemoryDriver()), {})

    def test_ill_and_well_again(self) -> None:
        driver = failing(lambda: StorageError("cannot write: Read-only file system"), "check")
        driver.broken = True  # type: ignore[attr-defined]  # of the class that failing() makes
        self.assertEqual(self.problems(driver), {"storagedriver_inmemory": "cannot write: Read-only file system"})
        driver.broken = False  # type: ignore[attr-defined]  # as above
        self.assertEqual(self.problems(driver), {})

    def test_a_bug_is_not_hidden(self) -> None:
        driver = failing(ZeroDivisionError, "check")
        driver.broken = True  # type: ignore[attr-defined]  # as above
        self.failureResultOf(Deferred.fromCoroutine(Health(driver).problems()), ZeroDivisionError)
