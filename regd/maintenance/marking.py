"""
Marking: what the repositories refer to, one repository after the other, with the registry open.

What changes meanwhile needs no second look, because whoever makes something reachable renews it, and the sweep compares: see
``docs/architecture.rst``.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from regd.maintenance.keeping import Keeping, Means
from regd.maintenance.reading import Found
from regd.maintenance.removing import Removing
from regd.maintenance.steps import Steps
from regd.maintenance.walking import OWN, longer_names
from regd.names import ALGORITHMS, Tag
from regd.storage import layout
from regd.storage.driver import Driver, Missing
from regd.storage.layout import UploadId

__all__ = ["Marking"]

#: The directory of the links from subjects to what refers to them.
_REFERRERS: Final = "_referrers"


class Marking:
    """
    Walks over all repositories, and leaves no directory behind that has nothing in it.

    :param stale: takes out what leads to manifests that a run took out which was cut short; ``None`` where there is nothing of that.
    """

    def __init__(self, driver: Driver, steps: Steps, means: Means, *, stale: Removing | None) -> None:
        self._driver = driver
        self._steps = steps
        self._means = means
        self._stale = stale
        #: Directories that may have nothing in them.
        self._bare: set[str] = set()

    async def run(self) -> None:
        """
        Mark all repositories.

        :raises StorageError: when something could not be read that might hold anything.
        :raises Stopped: when the run is to stop.
        """
        waiting: list[tuple[str, bool]] = [("", True)]
        while waiting:
            name, entering = waiting.pop()
            if not entering:
                await self._leave(name)
                continue
            try:
                entries = await self._driver.scan(layout.repository(name))
            except Missing:
                # A file, or removed meanwhile.
                continue
            await self._steps.take(1)
            waiting.append((name, False))
            own = [entry for entry in entries if entry.startswith(OWN)]
            if name and own:
                await self._repository(name, own)
            elif name:
                self._bare.add(name)
            waiting += [(longer, True) for longer in longer_names(name, entries)]

    async def _repository(self, name: str, own: list[str]) -> None:
        means = self._means
        if means.witness is not None:
            means.witness.repository(name)
        found = await means.reader.repository(name, own)
        if await Keeping(means, found).run():
            self._bare.add(name)
        if self._stale is not None and not found.damaged:
            await self._stale.stale(found)
        if means.removing is not None and not found.damaged:
            await self._clean(found)
            if _REFERRERS in own:
                await self._clean_referrers(found)
        means.tally.repositories += 1
        if means.witness is not None:
            means.witness.progress("mark", means.tally.repositories, None)

    async def _clean(self, found: Found) -> None:
        """Remove what deletes, and uploads that have ended, leave of a directory. What somebody needs at this moment is made again."""
        for directory in found.stray:
            await self._driver.prune(directory)
        for tag in found.tagged:
            # Without a meaning, nor anything that it ever meant.
            if tag not in found.tags:
                await self._driver.prune(layout.tag(found.name, Tag(tag)))
        for upload in found.uploads:
            if await self._driver.prune(layout.upload(found.name, UploadId(upload))):
                self._means.tally.uploads_removed += 1
        await self._steps.take(len(found.stray) + len(found.uploads))

    async def _clean_referrers(self, found: Found) -> None:
        """Remove what is left where nothing refers to a subject any more: a delete removes the link alone."""
        for algorithm in ALGORITHMS:
            directory = layout.referrers_root(found.name, algorithm)
            with suppress(Missing):
                for subject in await self._driver.scan(directory):
                    await self._driver.prune(layout.inside(directory, subject))
                    await self._steps.take(1)
                await self._driver.prune(directory)
        await self._driver.prune(layout.referrers_root(found.name))

    async def _leave(self, name: str) -> None:
        """All that is below has been visited: remove the directory, if there is nothing in it."""
        if self._means.removing is None or name not in self._bare:
            return
        self._bare.discard(name)
        path = layout.repository(name)
        try:
            entries = await self._driver.scan(path)
        except Missing:
            return
        own = [entry for entry in entries if entry.startswith(OWN)]
        gone = [await self._driver.prune(layout.inside(path, entry)) for entry in own]
        if own and all(gone):
            self._means.tally.repositories_removed += 1
        if all(gone) and len(own) == len(entries):
            await self._driver.prune(path)
