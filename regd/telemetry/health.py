"""Whether the daemon can do its work."""

from __future__ import annotations

from regd.storage.driver import Driver, StorageError

__all__ = ["Health"]


class Health:
    """Looks at what the registry cannot do without."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    async def problems(self) -> dict[str, str]:
        """What is wrong now, by what it is wrong with, as ``/debug/health`` of ``registry:2`` lists it; empty when all is well."""
        try:
            await self._driver.check()
        except StorageError as error:
            return {f"storagedriver_{self._driver.name}": str(error)}
        return {}
