"""
What walks over everything do to files and directories: looked at and read many at a time, moved out of the way, removed where empty.

:mod:`regd.storage.filesystem` calls it in threads, many files at a time: handing over one would cost more than what is done to it.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import repeat
from typing import Final, NamedTuple, TypeVar

from regd.storage.directories import Directories
from regd.storage.driver import Missing, Stat, StorageError
from regd.storage.files import NO_ROOM, Translated
from regd.storage.layout import Path

__all__ = ["Staged", "discard", "prune", "read_all", "retire", "scan", "settle", "stage", "stat_all"]

#: Opened for what is in it; nothing is read.
_DIRECTORY: Final = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC

#: How many things are in one directory of the trash.
_SHELF: Final = 50

#: What the system says of a directory that has something in it.
_NOT_EMPTY: Final = frozenset({errno.ENOTEMPTY, errno.EEXIST})

T = TypeVar("T")


def scan(path: str, sign: str) -> list[str]:
    """
    The names in a directory, in no order.

    :raises Missing: when there is no directory at ``path``.
    :raises StorageError: when it cannot be read.
    """
    with Translated("list", path, sign):
        return os.listdir(path)


def read_all(root: str, paths: Sequence[Path], limit: int, sign: str) -> list[bytes | StorageError | None]:
    """See :meth:`regd.storage.driver.Driver.read_all`."""

    def read(path: str) -> bytes:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            data = os.read(fd, limit)
            # The system may hand out less at once than it is asked for.
            while len(data) < limit and (more := os.read(fd, limit - len(data))):
                data += more
            return data
        finally:
            os.close(fd)

    return _each("read", root, paths, read, sign)


def stat_all(root: str, paths: Sequence[Path], sign: str) -> list[Stat | StorageError | None]:
    """See :meth:`regd.storage.driver.Driver.stat_all`."""

    def look(path: str) -> Stat:
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode):
            raise FileNotFoundError
        return Stat(found.st_size, found.st_mtime)

    return _each("look at", root, paths, look, sign)


def _each(what: str, root: str, paths: Sequence[Path], function: Callable[[str], T], sign: str) -> list[T | StorageError | None]:
    found: list[T | StorageError | None] = []
    missing = ""
    for path in paths:
        full = f"{root}/{path}"
        try:
            found.append(function(full))
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            missing = full
            found.append(None)
        except OSError as error:
            found.append(StorageError(f"cannot {what} {full}: {error.strerror or error}"))
    if missing:
        # Of a disk that is not mounted everything is missing.
        with suppress(Missing), Translated(what, missing, sign):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    return found


class Staged(NamedTuple):
    """
    A file that has another name in the trash.

    :ivar name: that name, relative to the directory that was staged into.
    """

    name: str
    inode: int


def stage(root: str, paths: Sequence[Path], into: str, numbers: Iterator[int]) -> list[Staged | None]:
    """
    See :meth:`regd.storage.driver.Driver.stage`. A file with two names is taken away by the removal of one, which costs ext4 half of what
    the move of a directory does, and put back by a link.

    :param into: a directory that is there.
    :param numbers: for names in it that are not used yet.
    """
    staged: list[Staged | None] = []
    shelf, room = "", 0
    trash = os.open(into, _DIRECTORY)
    try:
        for path in paths:
            ready = None
            # Not every file system has links, and not every file may be linked to: such a one is moved.
            with suppress(OSError):
                if not room:
                    shelf, room = _shelf(trash, next(numbers)), _SHELF
                name = f"{shelf}/{next(numbers)}"
                os.link(f"{root}/{path}", name, dst_dir_fd=trash, follow_symlinks=False)
                room -= 1
                ready = Staged(name, os.stat(name, dir_fd=trash).st_ino)
            staged.append(ready)
    finally:
        os.close(trash)
    return staged


def retire(
    root: str,
    paths: Sequence[Path],
    guards: Sequence[Path | None],
    staged: Sequence[object],
    into: str,
    before: float,
    numbers: Iterator[int],
) -> list[Path]:
    """
    See :meth:`regd.storage.driver.Driver.retire`. Changes wait while this runs, so it does as little as can be: all names are relative to
    open directories, and the trash has many small ones, because a name costs ext4 twice as much in one of thousands.

    :param into: a directory that is there.
    :param numbers: for names in it that are not used yet.
    """
    taken = []
    look, rename = os.stat, os.rename
    parent, above, shelf, room = "", "", "", 0
    fd = trash = -1
    try:
        trash = os.open(into, _DIRECTORY)
        for path, guard, ready in zip(paths, guards or repeat(None), staged or repeat(None), strict=False):
            parent, entry, name = path.rsplit("/", 2)
            if not room and not isinstance(ready, Staged):
                shelf, room = _shelf(trash, next(numbers)), _SHELF
            try:
                if parent != above:
                    fd, above = _closed(fd), ""
                    fd, above = os.open(f"{root}/{parent}", _DIRECTORY), parent
                within = f"{entry}/{name}"
                found = look(within, dir_fd=fd)
                if found.st_mtime >= before or (guard is not None and _fresh(f"{root}/{guard}", before)):
                    continue
                if isinstance(ready, Staged):
                    # Another file by now has been written since.
                    if found.st_ino == ready.inode and _take(within, fd, ready.name, trash, before):
                        taken.append(path)
                    continue
                moved = f"{shelf}/{next(numbers)}"
                rename(entry, moved, src_dir_fd=fd, dst_dir_fd=trash)
            except (FileNotFoundError, NotADirectoryError):
                continue
            room -= 1
            # Whoever renewed it found it under its old name, and so before it was moved: that can be seen now.
            if _fresh(f"{moved}/{name}", before, trash) or (guard is not None and _fresh(f"{root}/{guard}", before)):
                # Another one may have been put there meanwhile: that is as good.
                with suppress(OSError):
                    rename(moved, entry, src_dir_fd=trash, dst_dir_fd=fd)
                    continue
            taken.append(path)
    except OSError as error:
        raise StorageError(f"cannot move what is in {root}/{parent} to {into}: {error.strerror or error}") from error
    finally:
        _closed(fd)
        _closed(trash)
    return taken


def discard(root: str, paths: Sequence[Path], before: float) -> list[Path]:
    """
    See :meth:`regd.storage.driver.Driver.discard`.

    :raises StorageError: when a file cannot be removed.
    """
    gone = []
    for path in paths:
        full = f"{root}/{path}"
        with Translated("remove", full), suppress(FileNotFoundError, NotADirectoryError):
            found = os.stat(full)
            if stat.S_ISREG(found.st_mode) and found.st_mtime < before:
                os.unlink(full)
                gone.append(path)
    return gone


def _shelf(trash: int, number: int) -> str:
    try:
        os.mkdir(str(number), dir_fd=trash)
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        # What is to make room must not need any.
        return "."
    return str(number)


def _take(path: str, fd: int, other: str, trash: int, before: float) -> bool:
    """
    Take away a file that has another name, and put it back where it turns out to be fresh.

    :param path: relative to ``fd``.
    :param other: the other name, relative to ``trash``.
    :returns: whether it is gone.
    :raises OSError: when that fails.
    """
    os.unlink(path, dir_fd=fd)
    if _fresh(other, before, trash):
        with suppress(OSError):
            os.link(other, path, src_dir_fd=trash, dst_dir_fd=fd)
            return False
    return True


def _closed(fd: int) -> int:
    if fd >= 0:
        os.close(fd)
    return -1


def _fresh(path: str, before: float, fd: int | None = None) -> bool:
    """Whether a file was written since, or may have been."""
    try:
        return os.stat(path, dir_fd=fd).st_mtime >= before
    except OSError as error:
        return error.errno not in {errno.ENOENT, errno.ENOTDIR}


def settle(root: str, directories: Sequence[Path]) -> None:
    """
    See :meth:`regd.storage.driver.Driver.settle`.

    :raises StorageError: when a flush fails.
    """
    for path in directories:
        full = f"{root}/{path}"
        with Translated("make durable", full), suppress(FileNotFoundError, NotADirectoryError):
            Directories.flush_once(full)


def prune(path: str) -> bool:
    """
    See :meth:`regd.storage.driver.Driver.prune`.

    :raises StorageError: when what is empty cannot be removed.
    """
    with Translated("remove", path):
        return _prune(path)


def _prune(path: str) -> bool:
    # What is empty, which is nearly all that this is asked for, takes one call.
    for _ in range(2):
        try:
            os.rmdir(path)
        except FileNotFoundError:
            return True
        except NotADirectoryError:
            return False
        except OSError as error:
            if error.errno not in _NOT_EMPTY:
                raise
        else:
            return True
        try:
            with os.scandir(path) as entries:
                found = list(entries)
        except FileNotFoundError:
            return True
        if not (all(entry.is_dir(follow_symlinks=False) for entry in found) and all(_prune(entry.path) for entry in found)):
            return False
    # Somebody makes things here at this very moment.
    return False

