"""The sweep: blobs that nothing refers to, moved into the trash with the gate closed, and removed with the gate open."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import Final

from regd.maintenance.closing import Closing
from regd.maintenance.graph import digest_of, raw_name
from regd.maintenance.steps import Skipped, Steps
from regd.maintenance.summary import Witness
from regd.maintenance.tally import Tally
from regd.maintenance.trash import Trash
from regd.names import ALGORITHMS, Digest
from regd.storage import layout
from regd.storage.driver import Driver, Missing, Stat, StorageError
from regd.storage.layout import Path

__all__ = ["Sweep"]

#: How many things are in the trash before it is emptied: a first collection may find millions.
_FULL: Final = 8192


class Sweep:
    """
    :param marks: the digests of all that is referred to, as their bytes.
    :param limit: what was last written at this time or later stays.
    :param closing: ``None`` in a dry run.
    """

    def __init__(
        self,
        driver: Driver,
        skipped: Skipped,
        steps: Steps,
        tally: Tally,
        witness: Witness | None,
        limit: float,
        marks: AbstractSet[bytes],
        closing: Closing | None,
        trash: Trash,
    ) -> None:
        self._driver = driver
        self._skipped = skipped
        self._steps = steps
        self._tally = tally
        self._witness = witness
        self._limit = limit
        self._marks = marks
        self._closing = closing
        self._trash = trash
        #: What can go, with its size in bytes.
        self._waiting: dict[Path, int] = {}

    async def run(self) -> None:
        """
        Sweep all blobs.

        :raises StorageError: when that fails.
        :raises Stopped: when the run is to stop.
        """
        places = []
        for algorithm in ALGORITHMS:
            try:
                names = await self._driver.scan(layout.blobs(algorithm))
            except Missing:
                continue
            places += [(algorithm, name) for name in sorted(names)]
        for done, (algorithm, name) in enumerate(places):
            if self._witness is not None:
                self._witness.progress("sweep", done, len(places))
            await self._place(algorithm, name)
        await self._flush()
        if self._witness is not None:
            self._witness.progress("sweep", len(places), len(places))

    async def these(self, digests: Iterable[bytes]) -> None:
        """
        Sweep some blobs, of which none is referred to.

        :raises StorageError: when that fails.
        :raises Stopped: when the run is to stop.
        """
        waiting = sorted(map(digest_of, digests))
        for start in range(0, len(waiting), self._steps.lot):
            await self._look_at(waiting[start : start + self._steps.lot])
        await self._flush()

    async def _place(self, algorithm: str, start: str) -> None:
        """One of the directories that blobs are spread over."""
        above = layout.blobs(algorithm, start)
        try:
            names = await self._driver.scan(above)
        except Missing:
            return
        marks = self._marks
        unmarked = []
        for name in names:
            known = raw_name(algorithm, name)
            if known is None or not name.startswith(start):
                await self._skipped.report(layout.inside(above, name), "not a blob's directory, passed over")
            elif known not in marks:
                unmarked.append(name)
        await self._steps.take(1 + len(names) // self._steps.lot)
        unmarked.sort()
        for begin in range(0, len(unmarked), self._steps.lot):
            await self._look_at([Digest(f"{algorithm}:{name}") for name in unmarked[begin : begin + self._steps.lot]])

    async def _look_at(self, lot: Sequence[Digest]) -> None:
        looks = await self._driver.stat_all([layout.blob_data(digest) for digest in lot])
        for digest, look in zip(lot, looks, strict=True):
            await self._look(digest, look)
        await self._steps.take(len(lot))
        if self._closing is not None and len(self._waiting) >= self._closing.lot:
            await self._flush()

    async def _look(self, digest: Digest, look: Stat | StorageError | None) -> None:
        if isinstance(look, StorageError):
            await self._skipped.report(layout.blob_data(digest), f"{look}; passed over")
        elif look is None:
            # What is left when a push is cut short, or a crash came in between: a directory with nothing in it, or with a temporary file.
            if self._closing is not None:
                await self._driver.prune(layout.blob(digest))
        elif look.modified >= self._limit:
            self._tally.young += 1
            self._tally.young_bytes += look.size
        else:
            if self._witness is not None:
                self._witness.eligible_blob(digest, look.size)
            if self._closing is None:
                self._tally.blobs_swept += 1
                self._tally.bytes_freed += look.size
            else:
                self._waiting[layout.blob_data(digest)] = look.size

    async def _flush(self) -> None:
        """Move what can go into the trash."""
        closing = self._closing
        while closing is not None and self._waiting:
            lot = list(self._waiting)[: closing.lot]
            sizes = [self._waiting.pop(path) for path in lot]
            total = dict(zip(lot, sizes, strict=True))

            staged = await self._driver.stage(lot, self._trash.path)

            async def retire(lot: list[Path] = lot, staged: Sequence[object] = staged) -> list[Path]:
                return list(await self._driver.retire(lot, self._trash.path, self._limit, staged=staged))

            taken = await closing(retire, len(lot))
            for path in taken:
                # It may have gone with what was in it.
                await self._driver.prune(layout.above(path))
            self._tally.blobs_swept += len(taken)
            self._tally.bytes_freed += sum(total[path] for path in taken)
            # What was renewed in the last moment.
            self._tally.young += len(lot) - len(taken)
            self._tally.young_bytes += sum(sizes) - sum(total[path] for path in taken)
            self._trash.note(layout.above(path, 2) for path in taken)
            await self._steps.take(len(lot))
            if self._trash.count >= _FULL:
                await self._trash.empty()
