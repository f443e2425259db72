"""The sweep: blobs that nothing refers to, moved into the trash with the gate closed, and removed with the gate open."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Final

from regd.maintenance.closing import Closing
from regd.maintenance.graph import digest_of, raw_name
from regd.maintenance.steps import Skipped, Steps
from regd.maintenance.summary import Witness
from regd.maintenance.tally import Tally
from regd.maintenance.trash import Trash
from regd.names import ALGORITHMS
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
                names = await self._driver.scan(Path(f"{layout.blobs()}/{algorithm}"))
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

    async def _place(self, algorithm: str, start: str) -> None:
        """One of the directories that blobs are spread over."""
        above = f"{layout.blobs()}/{algorithm}/{start}"
        try:
            names = await self._driver.scan(Path(above))
        except Missing:
            return
        marks = self._marks
        unmarked = []
        for name in names:
            digest = raw_name(algorithm, name)
            if digest is None or not name.startswith(start):
                await self._skipped.report(f"{above}/{name}", "not a blob's directory, passed over")
            elif digest not in marks:
                unmarked.append(name)
        await self._steps.take(1 + len(names) // self._steps.lot)
        unmarked.sort()
        for begin in range(0, len(unmarked), self._steps.lot):
            lot = [Path(f"{above}/{name}/data") for name in unmarked[begin : begin + self._steps.lot]]
            for path, look in zip(lot, await self._driver.stat_all(lot), strict=True):
                await self._look(path, look)
            await self._steps.take(len(lot))
            if self._closing is not None and len(self._waiting) >= self._closing.lot:
                await self._flush()

    async def _look(self, path: Path, look: Stat | StorageError | None) -> None:
        if isinstance(look, StorageError):
            await self._skipped.report(path, f"{look}; passed over")
        elif look is None:
            # What is left when a push is cut short, or a crash came in between: a directory with nothing in it, or with a temporary file.
            if self._closing is not None:
                await self._driver.prune(_above(path))
        elif look.modified >= self._limit:
            self._tally.young += 1
            self._tally.young_bytes += look.size
        else:
            if self._witness is not None:
                algorithm, _, name = _above(path).rsplit("/", 2)
                digest = raw_name(algorithm.rpartition("/")[2], name)
                assert digest is not None
                self._witness.eligible_blob(digest_of(digest), look.size)
            if self._closing is None:
                self._tally.blobs_swept += 1
                self._tally.bytes_freed += look.size
            else:
                self._waiting[path] = look.size

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
                await self._driver.prune(_above(path))
            self._tally.blobs_swept += len(taken)
            self._tally.bytes_freed += sum(total[path] for path in taken)
            # What was renewed in the last moment.
            self._tally.young += len(lot) - len(taken)
            self._tally.young_bytes += sum(sizes) - sum(total[path] for path in taken)
            self._trash.note(_above(_above(path)) for path in taken)
            await self._steps.take(len(lot))
            if self._trash.count >= _FULL:
                await self._trash.empty()


def _above(path: Path) -> Path:
    return Path(path.rpartition("/")[0])
