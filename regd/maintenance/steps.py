"""What all stages of a collection share: its pace, its stop, and what it says of files that are not what they should be."""

from __future__ import annotations

from functools import partial
from time import monotonic
from typing import Final

from regd.maintenance.summary import Stopped
from regd.pace import Pace, Sleep, naps
from regd.storage import layout
from regd.storage.damage import Damage
from regd.storage.driver import Driver

__all__ = ["Skipped", "Steps"]

#: How many files are looked at in one go, where nothing limits the rate.
_LOT: Final = 64


class Steps:
    """
    The pace of a run.

    :param maxrate: how many files a second, 0 for no limit.
    :ivar lot: how many files are to be looked at in one go.
    """

    def __init__(self, maxrate: int, sleep: Sleep) -> None:
        self.lot = max(1, min(_LOT, maxrate // 10)) if maxrate else _LOT
        self._maxrate = maxrate
        self._sleep = sleep
        self._pace = Pace(partial(sleep, 0))
        self._due = monotonic()
        self._stopped = False

    def stop(self) -> None:
        """The next step is the last. May be called from a signal handler."""
        self._stopped = True

    def check(self) -> None:
        """
        :raises Stopped: when the run is to stop.
        """
        if self._stopped:
            raise Stopped

    async def take(self, files: int) -> None:
        """
        So many files have been looked at or removed: let others have their turn, and wait as long as the rate asks for.

        :raises Stopped: when the run is to stop.
        """
        self.check()
        if not self._maxrate:
            await self._pace.step()
            return
        now = monotonic()
        # What was not used is not saved up.
        self._due = max(self._due, now) + files / self._maxrate
        while (ahead := self._due - monotonic()) > 0:
            await self.rest(ahead)

    async def rest(self, seconds: float) -> None:
        """
        Wait.

        :raises Stopped: when the run is to stop, soon after it was told so.
        """
        await naps(seconds, self._sleep, self.check)


class Skipped:
    """
    The files that a run passes over, each told once.

    :ivar count: how many.
    """

    def __init__(self, driver: Driver, damage: Damage) -> None:
        self._driver = driver
        self._damage = damage
        self._said: set[str] = set()

    @property
    def count(self) -> int:
        """How many files."""
        return len(self._said)

    async def report(self, path: str, what: str) -> None:
        """
        Tell of a file.

        :raises StorageError: when it is the whole storage that cannot be used.
        """
        if path not in self._said:
            # Of a disk that has gone nothing can be said, least of all that something on it is not needed.
            await self._driver.exists(layout.blobs())
            self._said.add(path)
            self._damage.report(path, what)
