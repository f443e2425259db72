"""
Directory listings, sorted, and those of large directories remembered for as long as the directory has not changed.

A page of a hundred tags out of a hundred thousand must not read and sort a hundred thousand names each time. What is remembered is checked
against the directory's own time stamp on each use, so that changes by any process count (promise P7).
"""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

__all__ = ["Listings", "read"]

#: A directory of fewer names is read anew each time: that costs less than remembering it is worth.
_SMALL: Final = 256

#: How many names are remembered in all; about 100 bytes each.
_BUDGET: Final = 150_000

#: A listing counts only when the directory had been left alone for so many seconds before it was read: two changes within one tick of the
#: file system's clock look like one.
_SETTLED: Final = 2.0


def read(path: str) -> tuple[str, ...]:
    """
    The names in a directory, in the order of their bytes. Blocks.

    :raises OSError: when the directory cannot be read.
    """
    return tuple(sorted(os.listdir(path), key=os.fsencode))


class Listings:
    """Remembers listings of large directories, the most recently used first, up to a number of names."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._known: OrderedDict[str, tuple[tuple[int, int], tuple[str, ...]]] = OrderedDict()
        self._names = 0

    def get(self, path: str, now: os.stat_result) -> Sequence[str] | None:
        """The listing of a directory that looks like ``now``, if it is remembered and has not changed."""
        entry = self._known.get(path)
        if entry is None:
            return None
        if entry[0] != (now.st_ino, now.st_mtime_ns):
            self._forget(path)
            return None
        self._known.move_to_end(path)
        return entry[1]

    def put(self, path: str, before: os.stat_result, names: tuple[str, ...]) -> None:
        """Remember a listing that was read after the directory looked like ``before``."""
        self._forget(path)
        if not _SMALL <= len(names) <= _BUDGET or self._clock() - before.st_mtime < _SETTLED:
            return
        self._known[path] = ((before.st_ino, before.st_mtime_ns), names)
        self._names += len(names)
        while self._names > _BUDGET:
            self._forget(next(iter(self._known)))

    def _forget(self, path: str) -> None:
        entry = self._known.pop(path, None)
        if entry is not None:
            self._names -= len(entry[1])
