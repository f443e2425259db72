"""
Uploads that nobody has finished, removed when they are old: what ``storage.maintenance.uploadpurging`` asks for.

The rules are those of ``registry:2`` (its ``registry/storage/purgeuploads.go``): an upload is old when its ``startedat`` is, whenever it
was last written to, and what has no name of an upload is left alone. regd goes further in this: where ``startedat`` is missing or no
time, the time of the last write is taken, where ``registry:2`` keeps the upload for ever; what has neither ``startedat`` nor ``data`` is
no upload any more, and goes; and nothing is taken away from somebody who appends to it at this moment.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from time import monotonic
from typing import Final

from regd.errors import NameInvalid
from regd.moments import rfc3339
from regd.names import RepositoryName
from regd.pace import Pace, Sleep
from regd.storage import layout, startedat
from regd.storage.damage import Damage
from regd.storage.driver import Busy, Driver, Missing, Stat, StorageError
from regd.storage.layout import UploadId

__all__ = ["Purge", "PurgeOrders", "PurgeSummary", "Say"]

#: Tells the log: the level, as the configuration calls it, and the text.
Say = Callable[[str, str], object]

#: After how many seconds a directory without an upload in it is looked at again, before it is removed: one that is just being made has its
#: files long before.
_SECOND_LOOK: Final = 2.0


@dataclass(frozen=True)
class PurgeOrders:
    """
    What is to be removed.

    :ivar age: the least number of seconds since an upload began.
    :ivar dryrun: nothing is, and the log says what would be.
    """

    age: float
    dryrun: bool = False


@dataclass(frozen=True)
class PurgeSummary:
    """
    What became of a purge.

    :ivar started: RFC 3339, UTC.
    :ivar repositories: those that have a directory for uploads.
    :ivar uploads: all that were found.
    :ivar removed: of those; in a dry run, those that would be.
    :ivar bytes_freed: what had arrived of them.
    :ivar busy: old ones that were left because somebody appends to them.
    :ivar skipped: those that could not be read or removed; the log says why.
    :ivar finished: whether the purge came to its end.
    """

    started: str
    seconds: float = 0.0
    repositories: int = 0
    uploads: int = 0
    removed: int = 0
    bytes_freed: int = 0
    busy: int = 0
    skipped: int = 0
    dryrun: bool = False
    finished: bool = False

    def to_json(self) -> str:
        """One object, on one line."""
        return json.dumps(dataclasses.asdict(self))


class Purge:
    """
    One purge.

    :param damage: hears of what is not what it should be.
    :param say: hears of each upload that is removed.
    :param sleep: gives others a turn, and waits.
    :param now: seconds since the epoch.
    """

    def __init__(
        self, driver: Driver, damage: Damage, orders: PurgeOrders, say: Say, sleep: Sleep, now: Callable[[], float]
    ) -> None:
        self._driver = driver
        self._damage = damage
        self._orders = orders
        self._say = say
        self._sleep = sleep
        self._now = now
        self._pace = Pace(lambda: sleep(0))
        self._counts = dict.fromkeys(("repositories", "uploads", "removed", "bytes_freed", "busy", "skipped"), 0)
        #: Directories in which no upload was found, for a second look.
        self._empty: list[tuple[RepositoryName, UploadId]] = []
        self._stopped = False

    def stop(self) -> None:
        """End soon. What is left is removed by the next purge. From any thread."""
        self._stopped = True

    async def run(self) -> PurgeSummary:
        """
        Look at all uploads, and remove the old ones. The outcome is also stored, but for that of a dry run.

        :raises StorageError: when the storage as a whole cannot be read.
        """
        began, start = self._now(), monotonic()
        limit = began - self._orders.age
        async for name in self._repositories():
            self._counts["repositories"] += 1
            await self._look_at(name, limit)
        await self._look_again()
        summary = PurgeSummary(
            rfc3339(began),
            seconds=round(monotonic() - start, 3),
            dryrun=self._orders.dryrun,
            finished=not self._stopped,
            **self._counts,
        )
        if not self._orders.dryrun:
            await self._driver.write((layout.report("purge"), summary.to_json().encode()), durable=False)
        return summary

    async def _repositories(self) -> AsyncIterator[RepositoryName]:
        """All that have a directory for uploads, in order of their names."""
        left = [""]
        while left and not self._stopped:
            above = left.pop()
            try:
                names = sorted(await self._driver.scan(layout.repository(above)), reverse=True)
            except Missing:
                # A file, or nothing any more.
                continue
            except StorageError as error:
                if not above:
                    raise
                self._skip(layout.repository(above), error)
                continue
            for name in names:
                try:
                    left.append(RepositoryName.parse(f"{above}/{name}" if above else name))
                except NameInvalid:
                    continue
            if above and "_uploads" in names:
                yield RepositoryName(above)
            await self._pace.step()

    async def _look_at(self, name: RepositoryName, limit: float) -> None:
        """All uploads of a repository."""
        try:
            found = sorted(await self._driver.scan(layout.uploads(name)))
        except Missing:
            return
        except StorageError as error:
            self._skip(layout.uploads(name), error)
            return
        removed = 0
        for entry in found:
            if self._stopped:
                return
            try:
                upload = UploadId.parse(entry)
            except ValueError:
                # As registry:2: nobody knows what it is.
                continue
            removed += await self._guarded(name, upload, limit)
            await self._pace.step()
        if removed == len(found):
            await self._tidy(name)

    async def _guarded(self, name: RepositoryName, upload: UploadId, limit: float) -> bool:
        """One upload. An error there is one of no other upload."""
        try:
            return await self._one(name, upload, limit)
        except StorageError as error:
            self._skip(layout.upload(name, upload), error)
            return False

    async def _one(self, name: RepositoryName, upload: UploadId, limit: float) -> bool:
        data = await self._stat(layout.upload_data(name, upload))
        started = await self._started(name, upload, data)
        if started is None:
            self._empty.append((name, upload))
            return False
        self._counts["uploads"] += 1
        if started >= limit:
            return False
        since = rfc3339(started)
        what = f"upload {upload} of {name}, which began at {since} and has {data.size if data else 0} bytes"
        if not await self._remove(name, upload, f"{what},"):
            return False
        self._counts["bytes_freed"] += data.size if data else 0
        return True

    async def _remove(self, name: RepositoryName, upload: UploadId, what: str) -> bool:
        """Whether it is gone, or would be. Nobody can append to it while it goes, and who waits to do so finds it gone."""
        try:
            appender = await self._driver.append(layout.upload_data(name, upload))
        except Busy:
            self._counts["busy"] += 1
            return False
        except Missing:
            appender = None
        try:
            if self._orders.dryrun:
                self._say("info", f"dry run: {what} would be removed")
            else:
                await self._driver.delete(layout.upload(name, upload), durable=False)
                self._say("debug", f"{what} was removed")
        except Missing:
            # Finished, or cancelled, a moment ago.
            return False
        finally:
            if appender is not None:
                appender.close()
        self._counts["removed"] += 1
        return True

    async def _look_again(self) -> None:
        """What had neither ``startedat`` nor ``data`` some time ago and has none now is not being made, either."""
        if not self._empty:
            return
        await self._sleep(_SECOND_LOOK)
        for name, upload in self._empty:
            if self._stopped:
                return
            try:
                for path in (layout.upload_data(name, upload), layout.upload_started(name, upload)):
                    if await self._stat(path) is not None:
                        break
                else:
                    self._counts["uploads"] += 1
                    await self._remove(name, upload, f"what is left of upload {upload} of {name}")
            except StorageError as error:
                self._skip(layout.upload(name, upload), error)
            await self._pace.step()
        for name in dict.fromkeys(name for name, _ in self._empty):
            await self._tidy(name)

    async def _tidy(self, name: RepositoryName) -> None:
        """Remove the directory for a repository's uploads where there is nothing in it; the next upload makes it again."""
        if self._orders.dryrun:
            return
        try:
            if not await self._driver.scan(layout.uploads(name)):
                await self._driver.prune(layout.uploads(name))
        except Missing:
            return
        except StorageError as error:
            self._skip(layout.uploads(name), error)

    async def _started(self, name: RepositoryName, upload: UploadId, data: Stat | None) -> float | None:
        """When an upload began, in seconds since the epoch; ``None`` where there is none."""
        path = layout.upload_started(name, upload)
        try:
            return startedat.parse_time(await self._driver.read(path, startedat.LIMIT)).timestamp()
        except Missing:
            return None if data is None else data.modified
        except ValueError:
            self._damage.report(path, "not a time; that of the last write is taken")
        data = data or await self._stat(path)
        return None if data is None else data.modified

    async def _stat(self, path: layout.Path) -> Stat | None:
        try:
            return await self._driver.stat(path)
        except Missing:
            return None

    def _skip(self, path: str, error: StorageError) -> None:
        self._counts["skipped"] += 1
        self._damage.report(path, f"skipped by the purge of uploads: {error}")
