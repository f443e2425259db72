"""
What is done to files and directories where it may block: written, flushed, renamed, removed, read to the end; and how it fails.

:mod:`regd.storage.filesystem` says in which order, and calls it in threads.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Final

from regd.storage.driver import Full, HashState, Missing, StorageError

__all__ = [
    "NO_ROOM",
    "FileSink",
    "Translated",
    "begin",
    "delete",
    "hash_file",
    "in_memory",
    "make_directories",
    "remove_directories",
    "renew",
    "sync",
]

#: How much is read at once where a file is read to its end, in bytes.
_BLOCK: Final = 256 * 1024

#: After so many bytes the kernel is asked to begin writing them to the disk.
_WRITE_BACK: Final = 8 * 1024 * 1024

_IN_MEMORY: Final = frozenset({"tmpfs", "ramfs"})

_IOV_MAX: Final = min(1024, os.sysconf("SC_IOV_MAX"))

#: What the system says when there is no room left.
NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NOTHING_THERE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR})


class Translated:
    """
    For a ``with`` block: the system's errors as the driver's, each with what was tried and where. A class, and not a generator, because
    every look at a file passes here, and a generator costs a microsecond more.

    :param sign: a directory that is there as long as the storage is; where it is given, what is not at ``path`` is missing, unless the sign
        is, too: that is a disk that is not mounted, and telling clients that their images do not exist would be wrong. Without it, for what
        writes, nothing is missing.
    """

    __slots__ = ("_path", "_sign", "_what")

    def __init__(self, what: str, path: str, sign: str = "") -> None:
        self._what = what
        self._path = path
        self._sign = sign

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if not isinstance(error, OSError):
            return
        if self._sign and error.errno in _NOTHING_THERE:
            if not os.path.isdir(self._sign):
                raise StorageError(f"cannot {self._what} {self._path}: {self._sign} is not there any more; is the disk mounted?") from None
            raise Missing(self._path) from None
        told = Full if error.errno in NO_ROOM else StorageError
        raise told(f"cannot {self._what} {self._path}: {error.strerror or error}") from error


class FileSink:
    """A :class:`~regd.storage.appending.Sink` over a locked descriptor."""

    def __init__(self, path: str, fd: int) -> None:
        self._path = path
        self._fd = fd
        self._durable = self._size = self._begun = os.fstat(fd).st_size

    def write(self, chunks: Sequence[bytes | memoryview]) -> None:
        """See :class:`~regd.storage.appending.Sink`."""
        with Translated("append to", self._path):
            rest: list[bytes | memoryview] = list(chunks)
            while rest:
                written = os.writev(self._fd, rest[:_IOV_MAX])
                self._size += written
                while rest and written >= len(rest[0]):
                    written -= len(rest.pop(0))
                if written:
                    rest[0] = memoryview(rest[0])[written:]
        if self._size - self._begun >= _WRITE_BACK:
            # Of a range that is not yet on the disk, this begins the writing and waits for nothing, so that little is left for sync(): for
            # 64 MiB a sixth of the time. What is being written stays in memory. That it is only advice is as well: sync() sees to the rest.
            with suppress(OSError):
                os.posix_fadvise(self._fd, self._begun, self._size - self._begun, os.POSIX_FADV_DONTNEED)
            self._begun = self._size

    def sync(self) -> None:
        """See :class:`~regd.storage.appending.Sink`."""
        with Translated("make durable", self._path):
            try:
                os.fsync(self._fd)
                self._durable = self._size
            except OSError:
                # The kernel forgets what it could not write, and would call the next fsync a success: go back to what is on the disk.
                with suppress(OSError):
                    os.ftruncate(self._fd, self._durable)
                raise

    def close(self) -> None:
        """See :class:`~regd.storage.appending.Sink`."""
        # Whatever closing may complain of, what was to be durable is durable, or its writer has been told.
        with suppress(OSError):
            os.close(self._fd)

    def tell(self) -> int:
        """See :class:`~regd.storage.appending.Sink`."""
        with Translated("look at", self._path):
            return os.fstat(self._fd).st_size


def in_memory(path: str) -> bool:
    """Whether a directory is on a file system that is in memory and nowhere else, so that a flush is nothing to wait for."""
    device = os.stat(path).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
            # proc(5): the device is the third field; the type is the first behind a dash of its own.
            return any(line.split()[2] == wanted and line.partition(" - ")[2].split()[0] in _IN_MEMORY for line in mounts)
    except OSError:
        return False


def begin(path: str, content: bytes) -> int:
    """
    Make a new file, which nobody may look at before it is flushed or has another name.

    :returns: a descriptor, for the caller to flush it and to close.
    :raises OSError: when it cannot be made; nothing is there then.
    """
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(fd, view) :]
    except BaseException:
        os.close(fd)
        with suppress(OSError):
            os.unlink(path)
        raise
    return fd


def sync(path: str) -> None:
    """
    Make durable what is in a file, or which names are in a directory.

    :raises OSError: when that fails.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def renew(path: str, sign: str) -> None:
    """
    Have a file count as last written now, by the kernel's clock, as a write would.

    :raises Missing: when there is nothing at ``path``.
    :raises StorageError: when it cannot be done; to do it takes that one owns the file, or may write to it.
    """
    with Translated("renew", path, sign):
        os.utime(path)
        # Had somebody moved it away before it was renewed, and after it was found under this name, they might have looked at it too soon.
        os.stat(path)


def make_directories(path: str, root: str, sign: str) -> bool:
    """
    Make a directory, and what is missing above it, below ``root``. Their names are the caller's to make durable.

    :param sign: a directory that is there as long as the storage is: below a mount point that has nothing mounted on it, data would be
        hidden.
    :returns: whether it was not there.
    :raises StorageError: when the sign is missing.
    :raises OSError: when a directory cannot be made; :class:`FileNotFoundError` when somebody removes them meanwhile.
    """
    if path == root:
        return False
    above = path.rpartition("/")[0]
    # Looked at where it matters: a storage that is not there has nothing below its root.
    if above == root and not os.path.isdir(sign):
        raise StorageError(f"cannot write {path}: {sign} is not there any more; is the disk mounted?")
    try:
        os.mkdir(path, 0o777)
    except FileExistsError:
        return False
    except FileNotFoundError:
        make_directories(above, root, sign)
        try:
            os.mkdir(path, 0o777)
        except FileExistsError:
            return False
    return True


def delete(path: str, sign: str, durable: bool) -> None:
    """
    Remove a file or a directory with all that is in it. What others write there meanwhile may stay.

    :raises Missing: when there is nothing at ``path``.
    :raises StorageError: when it cannot be removed.
    """
    with Translated("delete", path, sign):
        _remove(path)
        if durable:
            # Where the directory is gone as well, whoever removed that makes it durable.
            with suppress(FileNotFoundError):
                sync(os.path.dirname(path))


def _remove(path: str) -> None:
    if stat.S_ISDIR(os.lstat(path).st_mode):
        _remove_directory(path)
    else:
        os.unlink(path)


def _remove_directory(path: str) -> None:
    with os.scandir(path) as entries:
        # Sorted, so that what makes a thing visible goes first: a tag's "current" before its "index".
        found = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries)
    for name, is_directory in found:
        with suppress(FileNotFoundError):
            (_remove_directory if is_directory else os.unlink)(f"{path}/{name}")
    try:
        os.rmdir(path)
    except OSError as error:
        # Somebody wrote here meanwhile: their write comes after this delete, and stays.
        if error.errno not in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT}:
            raise


def remove_directories(path: str) -> None:
    """
    Remove the directories in a directory, with all that is in them.

    :raises OSError: when that fails.
    """
    with os.scandir(path) as entries:
        found = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    for directory in found:
        with suppress(FileNotFoundError):
            _remove_directory(directory)


def hash_file(path: str, sign: str, algorithm: str) -> HashState:
    """
    Read a file to its end.

    :raises Missing: when there is no file at ``path``.
    :raises StorageError: when it cannot be read.
    """
    state = hashlib.new(algorithm)
    with Translated("read", path, sign):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            block = memoryview(bytearray(_BLOCK))
            while count := os.readv(fd, [block]):
                state.update(block[:count])
        finally:
            os.close(fd)
    return state
