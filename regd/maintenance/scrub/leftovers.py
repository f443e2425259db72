"""What lies in regd's own corner and belongs to nobody any more."""

from __future__ import annotations

from typing import Final

from regd.errors import DigestInvalid
from regd.maintenance.scrub.desk import Desk
from regd.maintenance.scrub.findings import Finding, Kind
from regd.names import Digest
from regd.storage import layout
from regd.storage.driver import Busy
from regd.storage.layout import Path

__all__ = ["Leftovers"]

#: How the names of files begin that a process makes links to; it knows when it has no more need of them.
_TWIN: Final = "twin."


class Leftovers:
    """Looks for temporary files, the trash of collections that were cut short, and damaged blobs that are whole again."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._driver = desk.driver

    async def check(self) -> None:
        """Look at all of it."""
        for entry in await self._desk.entries(layout.own()):
            if entry.endswith(".tmp") and not entry.startswith(_TWIN):
                await self._desk.temporary(layout.inside(layout.own(), entry))
        for path, what in ((layout.trash(), "the trash"), (layout.collecting(), "the mark")):
            if await self._driver.exists(path):
                await self._run(path, f"{what} of a collection that was cut short")
        await self._healed()
        await self._desk.confirm()

    async def _run(self, path: Path, what: str) -> None:
        """Look at what belongs to a collection, which is no leftover while one runs."""

        async def look() -> Finding | None:
            try:
                held = await self._driver.lock(layout.collector())
            except Busy:
                return None
            try:
                # The directory of a run stays, with nothing in it.
                runs = await self._driver.scan(path) if path == layout.trash() else ()
                empty = path == layout.trash() and not any([await self._desk.names(layout.trash(run)) for run in runs])
            finally:
                held.close()
            return None if empty else Finding(path, what, "the next collection removes it, and so does --repair", Kind.LEFTOVER)

        async def mend(finding: Finding) -> Finding | None:
            try:
                # No collection begins meanwhile.
                held = await self._driver.lock(layout.collector())
            except Busy:
                return None
            try:
                return await self._desk.remove(finding)
            finally:
                held.close()

        await self._desk.examine(path, look, mend)

    async def _healed(self) -> None:
        for algorithm in await self._desk.names(layout.damaged_blobs()):
            for name in await self._desk.names(layout.damaged_blobs(algorithm)):
                try:
                    digest = Digest.parse(f"{algorithm}:{name}")
                except DigestInvalid:
                    continue
                await self._desk.breathe()
                await self._copy(digest)

    async def _copy(self, digest: Digest) -> None:
        path = layout.above(layout.damaged(digest))

        async def look() -> Finding | None:
            # A damaged one would have been moved here, just before, in its place.
            if not await self._driver.exists(layout.blob_data(digest)):
                return None
            what = "a damaged copy, moved aside, of a blob that has been pushed again"
            return Finding(path, what, "--repair removes it", Kind.LEFTOVER)

        await self._desk.examine(path, look, self._desk.remove)
