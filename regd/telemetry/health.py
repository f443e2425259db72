"""Whether the daemon can do its work."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from regd.storage.driver import Driver, StorageError
from regd.telemetry.checks import Check

__all__ = ["Health"]


class Health:
    """
    Looks at what the registry cannot do without.

    :param checks: what is looked at again and again; where none of them is the storage, that is looked at when somebody asks.
    :param changed: called with :attr:`failing` whenever a check begins to fail, and when it is well again.
    """

    def __init__(
        self, driver: Driver, checks: Sequence[Check] = (), changed: Callable[[Mapping[str, str]], None] = lambda failing: None
    ) -> None:
        self._driver = driver
        self._checks = checks
        self._changed = changed
        self._storage = f"storagedriver_{driver.name}"

    def start(self) -> None:
        """Begin to look."""
        for check in self._checks:
            check.start(lambda: self._changed(self.failing))

    def stop(self) -> None:
        """Look no more."""
        for check in self._checks:
            check.stop()

    @property
    def failing(self) -> dict[str, str]:
        """What the checks have found to be wrong, by their names: that for which clients are refused."""
        return {check.name: check.problem for check in self._checks if check.problem}

    async def problems(self) -> dict[str, str]:
        """What is wrong now, by what it is wrong with, as ``/debug/health`` of ``registry:2`` lists it; empty when all is well."""
        found = self.failing
        if all(check.name != self._storage for check in self._checks):
            try:
                await self._driver.check()
            except StorageError as error:
                found[self._storage] = str(error)
        return found
