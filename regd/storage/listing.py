"""
Directory listings: read in order, and those of large directories remembered and kept up to date.

A page of a hundred tags out of a hundred thousand must not read and sort a hundred thousand names, and must show what was pushed a moment
ago. So a large directory is read once, in a thread, while the kernel notes what changes in it (:mod:`regd.storage.watch`). Each page then
first makes those changes, whichever process they came from, and looks at the directory's inode and time stamp besides (promise P7): a
listing whose directory is another one, or has changed without a note, is read anew.

Where changes cannot be noted (network file systems; no inotify left for this user), a listing counts for as long as the directory's time
stamp stays the same, and a page after a change reads the directory.
"""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from operator import attrgetter
from typing import Final

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from regd.storage.sorted_names import SortedNames, in_bytes, in_text, merged
from regd.storage.threads import Threads
from regd.storage.watch import Change, Watch

__all__ = ["Listings", "read", "select"]

#: A directory of this many bytes itself holds a few hundred names on most file systems, and is listed where one stands ...
INLINE_DIRECTORY: Final = 16 * 1024

#: ... if it does not turn out to have more names than this, which takes about half a millisecond.
INLINE_NAMES: Final = 1024

#: How much memory listings may take together, in bytes: 100,000 digests, or 800,000 short names.
_BUDGET: Final = 10 * 1024 * 1024

#: How many listings are remembered; each is watched, and a user may watch 8192 directories on a small machine, by default.
_MOST: Final = 512

#: How many names are read and sorted at once, in a thread, which takes about a millisecond.
_RUN: Final = 2048

#: A listing that is not watched counts only when the directory had been left alone for so many seconds before it was read: two changes
#: within one tick of the file system's clock look like one.
_SETTLED: Final = 2.0

_name: Callable[[os.DirEntry[bytes]], bytes] = attrgetter("name")


def _runs(path: str) -> Iterator[list[bytes]]:
    """The names in a directory, some thousands at a time; each lot in order. The event loop has its turn between them."""
    rest = _Rests()
    with os.scandir(os.fsencode(path)) as entries:
        while names := sorted({*islice(map(_name, entries), _RUN)}):
            yield names
            rest()


def read(path: str, budget: int = _BUDGET) -> SortedNames | None:
    """
    The names in a directory; ``None`` when they would take more than ``budget`` bytes. Blocks.

    :raises OSError: when the directory cannot be read.
    """
    parts: list[SortedNames] = []
    for names in _runs(path):
        part = SortedNames()
        part.extend(names)
        parts.append(part)
        if sum(part.size for part in parts) > budget:
            return None
    return merged(parts, _Rests()) if parts else SortedNames()


def select(path: str, after: bytes, limit: int | None) -> list[bytes]:
    """
    Up to ``limit`` names of a directory that come after ``after``, or all of them; holding no more of them than that. Blocks.

    :raises OSError: when the directory cannot be read.
    """
    found: list[bytes] = []
    for names in _runs(path):
        later = (name for name in names if name > after and (len(found) != limit or name < found[-1]))
        found = sorted({*found, *later})[:limit]
    return found


class _Rests:
    """
    Sleeps as long as it has worked. A thread that computes gives the interpreter's lock to the event loop only when it is made to, after
    5 ms; this gives it away after one.
    """

    def __init__(self) -> None:
        self._begun = time.perf_counter()

    def __call__(self) -> None:
        worked = time.perf_counter() - self._begun
        if worked > 0.0005:
            time.sleep(min(worked, 0.005))
            self._begun = time.perf_counter()


@dataclass(slots=True, eq=False)
class _Listing:
    """
    What is remembered of a directory.

    :ivar path: where it is.
    :ivar watch: the number of its watch, ``None`` where it has none, or has lost it.
    :ivar looks: its device, its inode and its time stamp when last seen.
    :ivar names: ``None`` as long as it is read.
    :ivar lost: whether changes may have been missed.
    :ivar changed: whether there were changes since ``looks`` was taken.
    :ivar early: changes that were made while it was read.
    """

    path: str
    watch: int | None
    looks: tuple[int, int, int] = (0, 0, 0)
    names: SortedNames | None = None
    lost: bool = False
    changed: bool = False
    early: list[Change] = field(default_factory=list)

    def change(self, change: Change) -> None:
        self.changed = True
        if not change.name:
            self.lost = True
        elif self.names is None:
            self.early.append(change)
        elif change.there:
            self.names.add(change.name)
        else:
            self.names.discard(change.name)

    def complete(self, names: SortedNames) -> None:
        """It was read. What changed meanwhile may be in ``names`` or not, and is after this."""
        self.names = names
        early, self.early = self.early, []
        for change in early:
            self.change(change)


class Listings:
    """
    Lists directories, and remembers the large ones, the most recently used first, up to a number of bytes.

    :param threads: where directories are read that are not small.
    :param watch: notes changes.
    :param clock: seconds since the epoch.
    """

    def __init__(self, threads: Threads, watch: Watch | None = None, clock: Callable[[], float] = time.time) -> None:
        self._threads = threads
        self._watch = watch or Watch()
        self._clock = clock
        self._known: OrderedDict[str, _Listing] = OrderedDict()
        self._watched: dict[int, _Listing] = {}
        self._reading: dict[str, _Reading] = {}
        #: How much memory the listings take together, in bytes.
        self.size = 0

    def close(self) -> None:
        """Forget everything; nothing is listed afterwards. May be called again."""
        self._watch.close()
        self._known.clear()
        self._watched.clear()

    async def names(self, path: str, after: str = "", limit: int | None = None) -> list[str]:
        """
        Up to ``limit`` names in a directory that come after ``after``, or all of them, in the order of their bytes.

        :raises OSError: when the directory cannot be read.
        """
        begin = in_bytes(after)
        known = await self._current(path)
        if known is None:
            few = _few(path)
            if few is not None:
                return [in_text(name) for name in sorted(name for name in few if name > begin)[:limit]]
            known = await self._read(path)
        if known is None:
            found = await self._threads.run(select, path, begin, limit)
        else:
            found = known.after(begin, limit)
        return [in_text(name) for name in found]

    async def _current(self, path: str) -> SortedNames | None:
        """The listing of a directory, if it is remembered, as the directory is now."""
        if path not in self._known:
            return None
        await self._catch_up()
        looks = _looks(path)
        listing = self._known.get(path)
        if listing is None:
            return None
        if looks != listing.looks and listing.watch is not None and not listing.changed:
            # Changed between the reading of the queue and the look at the directory?
            await self._catch_up()
        same = listing.looks[:2] == looks[:2] if listing.changed else listing.looks == looks
        if not same or self._known.get(path) is not listing:
            self._forget(path)
            return None
        listing.looks, listing.changed = looks, False
        self._known.move_to_end(path)
        return listing.names

    async def _catch_up(self) -> None:
        """Make the changes that have been noted; with turns for the event loop, where there are many."""
        more = True
        while more:
            changes, more = self._watch.changes()
            if changes is None:
                self._lose_all()
                return
            for change in changes:
                listing = self._watched.get(change.watch)
                if listing is not None:
                    self._change(listing, change)
            self._shrink()
            if more:
                await self._threads.run(_nothing)

    def _change(self, listing: _Listing, change: Change) -> None:
        if self._known.get(listing.path) is not listing:
            # It is being read.
            listing.change(change)
        elif change.name and listing.names is not None:
            self.size -= listing.names.size
            listing.change(change)
            self.size += listing.names.size
        else:
            self._forget(listing.path)

    async def _read(self, path: str) -> SortedNames | None:
        """
        Read a directory, once for all who ask at the same time.

        :returns: ``None`` when it is too large to be remembered.
        """
        earlier = self._reading.get(path)
        if earlier is not None:
            # It has begun before this was asked, and may have missed what was there by then: good if changes to it are noted.
            await earlier.end()
            known = await self._current(path)
            if known is not None:
                return known
            later = self._reading.get(path)
            if later is not None and later is not earlier:
                return await later.result()
        reading = self._reading[path] = _Reading()
        try:
            names = await self._read_now(path)
        except BaseException:
            del self._reading[path]
            reading.fail(Failure())
            raise
        del self._reading[path]
        reading.succeed(names)
        return names

    async def _read_now(self, path: str) -> SortedNames | None:
        self._forget(path)
        # Watched first: what changes from now on is noted, so the reading may see it or not.
        number = self._watch.add(path)
        listing = _Listing(path, number)
        if number is not None:
            self._watched[number] = listing
        try:
            listing.looks = looks = _looks(path)
            names = await self._threads.run(read, path)
        except BaseException:
            self._unwatch(listing)
            raise
        if names is None:
            self._unwatch(listing)
            return None
        listing.complete(names)
        await self._catch_up()
        settled = self._clock() - looks[2] / 1e9 >= _SETTLED
        if listing.lost or not (number is not None or settled) or self._known.get(path) is not None:
            self._unwatch(listing)
            return names
        self._known[path] = listing
        self.size += names.size
        self._shrink()
        return names

    def _shrink(self) -> None:
        while self.size > _BUDGET or len(self._known) > _MOST:
            self._forget(next(iter(self._known)))

    def _forget(self, path: str) -> None:
        listing = self._known.pop(path, None)
        if listing is not None:
            self.size -= 0 if listing.names is None else listing.names.size
            self._unwatch(listing)

    def _unwatch(self, listing: _Listing) -> None:
        if listing.watch is not None and self._watched.pop(listing.watch, None) is not None:
            self._watch.remove(listing.watch)

    def _lose_all(self) -> None:
        """Changes were missed, and whatever was watched is not watched any more."""
        for listing in self._watched.values():
            listing.lost = True
        self._watched.clear()
        for path in [path for path, listing in self._known.items() if listing.lost]:
            self._forget(path)


class _Reading:
    """A directory is being read; several may wait for it."""

    def __init__(self) -> None:
        self._waiting: list[Deferred[SortedNames | None]] = []

    def result(self) -> Deferred[SortedNames | None]:
        """What is read, or the error."""
        waiting: Deferred[SortedNames | None] = Deferred()
        self._waiting.append(waiting)
        return waiting

    def end(self) -> Deferred[None]:
        """That it is over, one way or the other."""
        return self.result().addBoth(lambda _: None)

    def succeed(self, names: SortedNames | None) -> None:
        for waiting in self._waiting:
            waiting.callback(names)

    def fail(self, failure: Failure) -> None:
        for waiting in self._waiting:
            waiting.errback(failure)


def _few(path: str) -> list[bytes] | None:
    """
    The names in a small directory; ``None`` for one that may be large.

    :raises OSError: when the directory cannot be read.
    """
    if os.stat(path).st_size > INLINE_DIRECTORY:
        return None
    with os.scandir(os.fsencode(path)) as entries:
        found = list(islice(map(_name, entries), INLINE_NAMES + 1))
    return found if len(found) <= INLINE_NAMES else None


def _looks(path: str) -> tuple[int, int, int]:
    found = os.stat(path)
    return found.st_dev, found.st_ino, found.st_mtime_ns


def _nothing() -> None:
    """Called in a thread to give the event loop a turn."""
