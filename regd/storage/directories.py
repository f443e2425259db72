"""
Directories whose own names are durable, remembered so that a write below one need not make every name on the way to it durable again.

Other processes work in the same tree, so a path is no proof: a directory may have been deleted and made anew, by a process that was killed
before it flushed anything. Nor is an inode's number, which a file system likes to give to the next directory. So each directory that is
remembered is held open: as long as it is, its number is its own, and one look at the path tells whether the directory there is that very
one. The descriptor is also what is flushed, which saves opening it each time.

A held directory keeps its file system from being unmounted, so the holder lets go of them all (:meth:`Directories.release`) when nothing
has been written for a while.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass

__all__ = ["Directories"]

_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@dataclass(slots=True, eq=False)
class _Held:
    """An open directory. ``users`` are the threads that flush it now; the last of them closes it when it is no longer ``kept``."""

    fd: int
    identity: tuple[int, int]
    users: int = 1
    kept: bool = False


class Directories:
    """
    Flushes directories, in threads.

    :param root: the path whose own name is taken for durable.
    :ivar limit: how many directories are held open at most.
    """

    def __init__(self, root: str, limit: int = 0) -> None:
        self.limit = limit
        self._root = root
        self._lock = threading.Lock()
        self._held: OrderedDict[str, _Held] = OrderedDict()

    def __len__(self) -> int:
        return len(self._held)

    def knows(self, path: str) -> bool:
        """
        Whether the name of the directory that is at ``path`` now is known to be durable.

        :raises OSError: when nothing is there.
        """
        return path == self._root or (path in self._held and self._held_at(path) is not None)

    def flush(self, path: str) -> None:
        """
        Make durable which names are in a directory, and the directory's own name, as far as it is not known to be. To be called *after* the
        change: a directory that is known now, and held since before, was there throughout.

        :raises OSError: when that fails; :class:`FileNotFoundError` when the directory is gone.
        """
        held = self._borrow(path)
        try:
            os.fsync(held.fd)
            if held.kept:
                return
            if path != self._root:
                # Who finds a directory there cannot know whether who made it has come to that, or was killed before.
                self.flush(path.rpartition("/")[0])
            self._keep(path, held)
        finally:
            self._give_back(held)

    @staticmethod
    def flush_once(path: str) -> None:
        """
        Make durable which names are in a directory that nobody is likely to flush again; its own name is the caller's to see to.

        :raises OSError: as :meth:`flush`.
        """
        fd = os.open(path, _FLAGS)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def release(self) -> None:
        """Forget all directories, and close them. Safe to call at any time."""
        with self._lock:
            while self._held:
                self._drop(self._held.popitem()[1])

    def _held_at(self, path: str) -> _Held | None:
        found = os.stat(path)
        with self._lock:
            held = self._held.get(path)
            if held is None:
                return None
            if held.identity != (found.st_dev, found.st_ino):
                del self._held[path]
                self._drop(held)
                return None
            self._held.move_to_end(path)
            return held

    def _borrow(self, path: str) -> _Held:
        if path in self._held:
            # Counted and checked in this order, it cannot be closed in between.
            with self._lock:
                held = self._held.get(path)
                if held is not None:
                    held.users += 1
            if held is not None:
                try:
                    if self._held_at(path) is held:
                        return held
                except BaseException:
                    self._give_back(held)
                    raise
                self._give_back(held)
        fd = os.open(path, _FLAGS)
        try:
            found = os.fstat(fd)
        except BaseException:
            os.close(fd)
            raise
        return _Held(fd, (found.st_dev, found.st_ino))

    def _give_back(self, held: _Held) -> None:
        with self._lock:
            held.users -= 1
            if held.users or held.kept:
                return
        _close(held.fd)

    def _keep(self, path: str, held: _Held) -> None:
        with self._lock:
            before = self._held.pop(path, None)
            if before is not None:
                self._drop(before)
            held.kept = True
            self._held[path] = held
            while len(self._held) > self.limit:
                self._drop(self._held.popitem(last=False)[1])

    @staticmethod
    def _drop(held: _Held) -> None:
        """With the lock, and out of the memory: close it, or leave that to whoever flushes it now."""
        held.kept = False
        if not held.users:
            _close(held.fd)


def _close(fd: int) -> None:
    # It was only read, so there is nothing that closing could lose.
    with suppress(OSError):
        os.close(fd)
