"""
Locks that the kernel keeps: flock(2) of a file, which other processes on this machine see, and which is let go of when its holder dies,
however it dies. Where the file system is NFS version 4, other machines see it, too.

Each lock has a file opened for itself, so that two in one process are in each other's way as two in different processes are.
"""

from __future__ import annotations

import errno
import fcntl
import os
from typing import Final

from regd.storage.driver import Busy
from regd.storage.files import Translated, make_directories

__all__ = ["FileLock", "take"]

#: How often a lock file is made whose directory somebody else removes at the same time.
_MAKE_TRIES: Final = 3

_NOT_WRITABLE: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


class FileLock:
    """A :class:`~regd.storage.driver.Held` over a descriptor."""

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def close(self) -> None:
        """See :class:`~regd.storage.driver.Held`."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            # Nothing else refers to what was opened here, so the lock goes with it.
            os.close(fd)


def take(path: str, shared: bool, root: str, sign: str) -> FileLock:
    """
    Lock a file now, which is made where it is missing.

    :param shared: whether others may have it as well, if they take it shared.
    :param root: the directory that all paths are below.
    :param sign: a directory that is there as long as the storage is.
    :raises Busy: when others have it in a way that excludes this one.
    :raises StorageError: when it cannot be locked.
    """
    with Translated("lock", path):
        fd = _open(path, shared, root, sign)
        try:
            fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BaseException as error:
            os.close(fd)
            if isinstance(error, BlockingIOError):
                raise Busy(path) from None
            raise
    return FileLock(fd)


def _open(path: str, shared: bool, root: str, sign: str) -> int:
    # On NFS, who locks alone has to be able to write. Elsewhere reading does, so that it is no matter whether an operator's command, run as
    # root, or the daemon was the one to make the file.
    wanted = os.O_RDONLY if shared else os.O_RDWR
    for tries_left in reversed(range(_MAKE_TRIES)):
        try:
            return os.open(path, wanted | os.O_CLOEXEC)
        except OSError as error:
            if error.errno in _NOT_WRITABLE and wanted != os.O_RDONLY:
                wanted = os.O_RDONLY
                continue
            if error.errno != errno.ENOENT or not tries_left:
                raise
            make_directories(path.rpartition("/")[0], root, sign)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666))
    return os.open(path, wanted | os.O_CLOEXEC)
