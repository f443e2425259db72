"""Reading files to their ends: no faster than allowed, and out of the way of what others read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from time import monotonic
from typing import Final

from regd.names import Digest
from regd.pace import Sleep
from regd.storage.driver import Content, Driver
from regd.storage.layout import Path

__all__ = ["Hasher", "Stopped"]

#: How much is read and hashed at once, in bytes. Twice what the kernel reads ahead, so that the disk and the hash keep each other busy.
_BLOCK: Final = 1024 * 1024

#: After so many bytes the kernel is told to forget them, and as many before them: it keeps pages by groups, and forgets a group only where
#: it is named whole.
_SPARE: Final = 8 * 1024 * 1024

#: The longest that a limit of the rate keeps a block waiting without looking whether to stop, in seconds.
_NAP: Final = 0.1

#: How much is made up for of a time in which less than allowed was read, in seconds' worth.
_CREDIT: Final = 0.5


class Stopped(Exception):
    """Somebody has asked to stop."""


class Hasher:
    """
    Hashes files.

    It reads with one thread. A second one would do twice as much where files come from memory; but what a scrub reads comes from a disk,
    one core hashes as fast as most disks read, and the others are there for whoever pulls.

    :param maxrate: bytes a second; 0 for no limit.
    :param stopping: asked between blocks.
    :param passed: told how many bytes were read, after each block.
    """

    def __init__(
        self,
        driver: Driver,
        sleep: Sleep,
        maxrate: int = 0,
        stopping: Callable[[], bool] = lambda: False,
        passed: Callable[[int], object] = lambda count: None,
    ) -> None:
        self._driver = driver
        self._sleep = sleep
        self._maxrate = maxrate
        self._stopping = stopping
        self._passed = passed
        #: When what has been read so far may have been read at the earliest.
        self._due = monotonic()

    async def digests(self, path: Path, algorithms: Iterable[str]) -> tuple[int, dict[str, Digest]]:
        """
        :returns: the size of a file in bytes, and its digest of each algorithm.
        :raises Missing: when there is no file at ``path``.
        :raises StorageError: when it cannot be read.
        :raises Stopped: when it was asked to, before the end.
        """
        states = [hashlib.new(algorithm) for algorithm in algorithms]
        content = await self._driver.open(path)
        spare = not _wanted(content)
        offset = 0
        try:
            # What is in a blob's file does not change, so there is no need to ask for more than it had.
            while data := await content.read(offset, min(_BLOCK, content.size - offset)):
                for state in states:
                    state.update(data)
                offset += len(data)
                if spare and not offset % _SPARE:
                    _forget(content, offset)
                self._passed(len(data))
                await self._pause(len(data))
                if self._stopping():
                    raise Stopped
        finally:
            if spare:
                _forget(content)
            content.close()
        return offset, {state.name: Digest.from_hash(state) for state in states}

    async def right(self, digest: Digest, path: Path) -> bool:
        """Whether a file has this digest; as :meth:`digests`."""
        _, found = await self.digests(path, (digest.algorithm,))
        return found[digest.algorithm] == digest

    async def _pause(self, count: int) -> None:
        if not self._maxrate:
            return
        self._due = max(self._due, monotonic() - _CREDIT) + count / self._maxrate
        while (left := self._due - monotonic()) > 0 and not self._stopping():
            await self._sleep(min(left, _NAP))


def _wanted(content: Content) -> bool:
    """
    Whether the end of a file is in the page cache: then somebody is reading it, for whoever only begins to has not come there yet, nor has
    what the kernel reads ahead. What is wanted stays where it is.
    """
    fd = content.fileno()
    if fd is None or not content.size:
        return False
    with suppress(OSError):
        # Waits for nothing: what is not at hand is an error.
        return os.preadv(fd, [bytearray(1)], content.size - 1, os.RWF_NOWAIT) == 1
    return False


def _forget(content: Content, before: int = 0) -> None:
    """
    Tell the kernel that these bytes will not be asked for again, so that a scrub of terabytes leaves the page cache to the pulls.

    :param before: the last of them that were read before this offset; 0 for the whole file.
    """
    fd = content.fileno()
    if fd is not None:
        begin = max(0, before - 2 * _SPARE)
        with suppress(OSError):
            os.posix_fadvise(fd, begin, before - begin, os.POSIX_FADV_DONTNEED)
