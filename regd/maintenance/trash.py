"""What a collection has taken away, until it is removed: with the registry open, and no faster than is asked for."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Final

from regd.maintenance.steps import Steps
from regd.maintenance.summary import Witness
from regd.storage import layout
from regd.storage.driver import Driver, Missing
from regd.storage.layout import Path

__all__ = ["Trash"]

#: The directory in the trash that runs use. It stays, empty: to make one takes room, and a disk that is full is what needs a collection.
_RUN: Final = "run"


class Trash:
    """
    :ivar path: where things are moved.
    :ivar count: how many have been, since it was last emptied.
    """

    def __init__(self, driver: Driver, steps: Steps, witness: Witness | None) -> None:
        self.path = layout.trash(_RUN)
        self.count = 0
        self._driver = driver
        self._steps = steps
        self._witness = witness
        self._from: set[Path] = set()

    def note(self, directories: Iterable[Path]) -> None:
        """Something has been moved here out of each of these directories."""
        for directory in directories:
            self.count += 1
            self._from.add(directory)

    async def left(self) -> bool:
        """Whether a run that was cut short has left something."""
        for run in await self._names(layout.trash()):
            if await self._names(layout.trash(run)):
                return True
        return False

    async def _names(self, path: Path) -> list[str]:
        try:
            return await self._driver.scan(path)
        except Missing:
            return []

    async def empty(self) -> None:
        """
        Remove all that is in the trash, also what earlier runs have left there.

        :raises Stopped: when the run is to stop; the next one goes on.
        """
        # First for good out of where it was: that half of it comes back after a power cut helps nobody.
        await self._driver.settle([*sorted(self._from), self.path])
        self._from.clear()
        self.count = 0
        things: list[Path] = []
        with suppress(Missing):
            things += [layout.trash(run) for run in await self._driver.scan(layout.trash()) if run != _RUN]
        with suppress(Missing):
            things += [layout.inside(self.path, number) for number in await self._driver.scan(self.path)]
        for done, thing in enumerate(things):
            files = 1
            with suppress(Missing):
                # Most are directories of some dozens.
                files += len(await self._driver.scan(thing))
            with suppress(Missing):
                await self._driver.delete(thing, durable=False)
            await self._steps.take(files)
            if self._witness is not None:
                self._witness.progress("delete", done + 1, len(things))
