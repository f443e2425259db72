"""What the parts of a scrub share: looking at directories, looking twice at what seems wrong, and telling of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final, Protocol

from regd.errors import DigestInvalid
from regd.maintenance.scrub.findings import Finding, Kind, Progress
from regd.maintenance.scrub.hashing import Stopped
from regd.names import ALGORITHMS, Digest
from regd.pace import Pace, Sleep
from regd.storage import layout
from regd.storage.driver import Driver, Missing, StorageError
from regd.storage.layout import Path

__all__ = ["Desk", "Look", "Mend", "Witness", "key"]

#: Sees whether something is wrong; ``None`` when it is not, or is not there any more.
Look = Callable[[], Awaitable[Finding | None]]

#: Mends what was found; returns what is to be told of it, or ``None`` when it was right after all.
Mend = Callable[[Finding], Awaitable[Finding | None]]

#: How long a second look waits for a change that may be under way, in seconds.
_MOMENT: Final = 0.05

#: So many doubts are looked into together, so that few moments are waited for.
_TOGETHER: Final = 1000

#: How old a temporary file has to be to be a leftover, in seconds. Writes take milliseconds, and minutes on a disk that is ill.
TEMPORARY: Final = 3600.0

#: Names that writes have until they are whole.
_TMP: Final = ".tmp"


class Witness(Protocol):
    """Who is told what a scrub does while it does it."""

    def finding(self, finding: Finding) -> None:
        """Something is not as it should be."""

    def begins(self, progress: Progress) -> None:
        """It begins, or goes on from here: what was found before is in ``progress``."""

    def expects(self, blobs: int, size: int) -> None:
        """So many blobs will be read, of so many bytes together; told when that was asked for."""

    def progress(self, progress: Progress) -> None:
        """It has come a little further; told very often."""


def key(digest: Digest) -> bytes:
    """What a digest is remembered by: half of it, or a quarter, which tells blobs apart as well as the whole and takes less memory."""
    return bytes.fromhex(digest.hex[:32])


class Desk:
    """
    :param progress: what is counted, and told with the findings.
    :param now: seconds since the epoch.
    :param repair: whether what can be mended is.
    :param stopping: whether somebody has asked to stop.
    """

    def __init__(
        self,
        driver: Driver,
        witness: Witness,
        progress: Progress,
        sleep: Sleep,
        now: Callable[[], float],
        *,
        repair: bool,
        stopping: Callable[[], bool],
    ) -> None:
        self.driver = driver
        self.progress = progress
        self._witness = witness
        self._sleep = sleep
        self._now = now
        self._repair = repair
        self._stopping = stopping
        self._doubts: list[tuple[str, Look, Mend | None]] = []
        # A worker that scrubs a storage in memory serves as well.
        self._pace = Pace(lambda: sleep(0))

    async def step(self) -> None:
        """
        Between two things that are looked at.

        :raises Stopped: when somebody has asked for it.
        """
        await self.breathe()
        self._witness.progress(self.progress)

    async def breathe(self) -> None:
        """As :meth:`step`, where nothing has been looked at."""
        if self._stopping():
            raise Stopped
        await self._pace.step()

    @property
    def settled(self) -> bool:
        """Whether there is nothing that has to be looked at again."""
        return not self._doubts

    def tell(self, finding: Finding) -> None:
        """Count a finding and tell of it."""
        self.progress.add(finding)
        self._witness.finding(finding)

    def strange(self, path: str, what: str, remedy: str = "left alone") -> None:
        """Tell of something that is not known here."""
        self.tell(Finding(path, what, remedy, Kind.STRANGE))

    async def entries(self, path: Path) -> Sequence[str]:
        """The names in a directory, sorted; none where there is none, or it cannot be read, which is told."""
        try:
            return sorted(await self.driver.scan(path))
        except Missing:
            return ()
        except StorageError as error:
            await self.driver.check()
            self.tell(Finding(path, f"a directory that cannot be read ({error})", "see to the disk, or to whose it is"))
            return ()

    async def names(self, path: Path) -> Sequence[str]:
        """As :meth:`entries`, unsorted, for what is only looked at besides: nothing is told."""
        try:
            return await self.driver.scan(path)
        except Missing:
            return ()
        except StorageError:
            await self.driver.check()
            return ()

    async def digests(self, path: Path, algorithm: str, prefix: str = "") -> AsyncIterator[Digest]:
        """
        What the names in a directory say in which each is the hexadecimal part of a digest; others are told. One after the other, and each
        is let go of, because one directory may have all that there is.

        :param prefix: what all of them have to begin with.
        """
        names = list(reversed(await self.entries(path)))
        while names:
            name = names.pop()
            try:
                if not name.startswith(prefix):
                    raise DigestInvalid(name)
                digest = Digest.parse(f"{algorithm}:{name}")
            except DigestInvalid:
                await self._stray(layout.inside(path, name), f"not a name that the {algorithm} digest of something has here")
            else:
                yield digest

    async def algorithms(self, path: Path) -> Sequence[str]:
        """The names in a directory in which each is that of a digest algorithm; others are told."""
        found = []
        for name in await self.entries(path):
            if name in ALGORITHMS:
                found.append(name)
            else:
                await self._stray(layout.inside(path, name), "not the name of a digest algorithm that is known here")
        return found

    async def leaf(self, path: Path, wanted: str) -> bool:
        """
        See what is in a directory that is made for one file.

        :returns: whether that file is there. An empty directory is counted: deletions of ``registry:2`` leave them.
        """
        there = False
        names = await self.entries(path)
        for name in names:
            if name == wanted:
                there = True
            else:
                await self._stray(layout.inside(path, name), "nothing that belongs here")
        if not names:
            self.progress.empty += 1
        return there

    async def _stray(self, path: Path, what: str) -> None:
        if path.endswith(_TMP):
            await self.temporary(path)
        else:
            self.strange(path, what)

    async def temporary(self, path: Path) -> None:
        """Tell of a temporary file that has been left, and remove it; nothing is told of one that may be being written."""

        async def look() -> Finding | None:
            found = await self.driver.stat(path)
            if self._now() - found.modified < TEMPORARY:
                return None
            return Finding(path, "a write that did not finish", "--repair removes it", Kind.LEFTOVER)

        await self.examine(path, look, self.remove)

    async def remove(self, finding: Finding) -> Finding | None:
        """
        Remove a leftover. The gate is not passed: nothing refers to it, so what is reachable does not change, and whoever made it has
        not touched it for an hour, or is known not to be there.
        """
        try:
            await self.driver.delete(Path(finding.path), durable=False)
        except Missing:
            return None
        return Finding(finding.path, finding.what, "removed", finding.kind, mended=True)

    async def examine(self, path: str, look: Look, mend: Mend | None = None) -> bool:
        """
        Look at something. What seems wrong is looked at again a moment later, by :meth:`confirm`, because a push or a collection may be
        in the middle of changing it; what is still wrong then is told, or mended and told.

        :param path: for a look that fails.
        :returns: whether nothing seems wrong.
        """
        if await self._look(path, look) is None:
            return True
        self._doubts.append((path, look, mend))
        if len(self._doubts) >= _TOGETHER:
            await self.confirm()
        return False

    async def confirm(self) -> None:
        """Look again at all that seemed wrong."""
        if not self._doubts:
            return
        await self._sleep(_MOMENT)
        doubts, self._doubts = self._doubts, []
        for path, look, mend in doubts:
            finding = await self._look(path, look)
            if finding is not None and mend is not None and self._repair:
                finding = await self._mend(finding, mend)
            if finding is not None:
                self.tell(finding)

    async def _look(self, path: str, look: Look) -> Finding | None:
        try:
            return await look()
        except Missing:
            return None
        except StorageError as error:
            # One file that cannot be read is damage; a storage that is not there is none.
            await self.driver.check()
            return Finding(path, f"cannot be read ({error})", "see to the disk, or to whose it is; nothing was changed")

    async def _mend(self, finding: Finding, mend: Mend) -> Finding | None:
        try:
            return await mend(finding)
        except StorageError as error:
            await self.driver.check()
            return Finding(finding.path, finding.what, f"could not be mended ({error})", finding.kind)
