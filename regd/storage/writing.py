"""
How files come to be, in threads: every change that has to survive a power cut, in as few flushes as that takes.

A file becomes visible by ``rename`` and nothing is edited in place, uploads in progress aside. A call makes all its directories and
writes all its bytes under temporary names first, and flushes them together: a file system that keeps a journal writes it once for all of
them. What is left for each name is its ``rename`` and one flush of its directory, in the order given.
"""

from __future__ import annotations

import errno
import itertools
import os
import threading
import uuid
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from regd.storage import files
from regd.storage.directories import Directories
from regd.storage.driver import Missing
from regd.storage.files import Translated

__all__ = ["Writer"]

#: How often a directory that somebody else removes is made again before the write gives up. A delete may take it away level by level.
_MAKE_TRIES: Final = 50

#: How many temporary files of one call stay open until all are written, to be flushed together.
_OPEN_TOGETHER: Final = 32


#: How names of twins begin.
_TWIN: Final = "twin."

#: What a directory without directories in it has: its name, and the "." in it.
_LINKS: Final = 2

#: What the system says of a directory that has something in it and cannot be replaced.
_NOT_EMPTY: Final = frozenset({errno.ENOTEMPTY, errno.EEXIST})


@dataclass(slots=True, eq=False)
class _File:
    """
    A file on its way.

    :ivar directory: where it will be.
    :ivar temporary: its name until then; nothing when it has not been written, or is in place.
    :ivar fd: a descriptor of what is not flushed yet, or -1.
    :ivar made: whether its directory was made for it.
    """

    path: str
    directory: str
    content: bytes
    temporary: str = ""
    fd: int = -1
    made: bool = False


class _Twin:
    """
    A small file that others are made links to, as long as they are to have its content. The time at which an upload began is the same for
    all uploads of a second; a link to a file that is durable takes neither an inode nor a flush. Nobody edits such a file in place.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._content = b""
        self._path = ""

    def link(self, path: str, content: bytes, new: str) -> bool:
        """
        Make ``path`` a file with this content, which is durable.

        :param new: where to make a twin, if there is none with this content.
        :returns: whether that was possible; if not, nothing is there, and whoever writes the file finds out why.
        """
        with suppress(OSError):
            with self._lock:
                if content != self._content:
                    self._renew(content, new)
                twin = self._path
            os.link(twin, path)
            return True
        return False

    def _renew(self, content: bytes, path: str) -> None:
        self._drop()
        fd = files.begin(path, content)
        try:
            os.fsync(fd)
        except BaseException:
            _remove(os.unlink, path)
            raise
        finally:
            os.close(fd)
        self._path, self._content = path, content

    def _drop(self) -> None:
        if self._path:
            _remove(os.unlink, self._path)
        self._path, self._content = "", b""

    def close(self) -> None:
        """Leave nothing behind. Safe to call at any time."""
        with self._lock:
            self._drop()


class Writer:
    """
    :param root: the directory that all paths are below.
    :param directories: those whose names are durable.
    :param sign: says which directory is there as long as the storage is.
    """

    def __init__(self, root: str, directories: Directories, sign: Callable[[], str]) -> None:
        self._root = root
        self._directories = directories
        self._sign = sign
        #: Temporary names are this writer's own, whatever processes there are and were.
        self._own = uuid.uuid4().hex[:16]
        self._numbers = itertools.count()
        self._twin = _Twin()

    def close(self) -> None:
        """Remove what is the writer's alone. Safe to call at any time."""
        self._twin.close()

    @staticmethod
    def clean(corner: str) -> None:
        """
        Remove what writers that were killed have left. One that lives, in another process, finds its twin gone, and makes another.

        :raises OSError: when that fails.
        """
        for name in os.listdir(corner):
            if name.startswith(_TWIN):
                _remove(os.unlink, f"{corner}/{name}")

    def write(self, stages: Sequence[Sequence[tuple[str, bytes]]], durable: bool) -> None:
        """See :meth:`regd.storage.driver.Driver.write`: each stage is visible and durable before the next is visible."""
        plan = [[_file(path, content) for path, content in stage] for stage in stages]
        wanted = list(itertools.chain.from_iterable(plan))
        try:
            self._prepare(wanted, durable)
            self._show(plan, durable)
        finally:
            self._abandon(wanted)

    def create(self, wanted: Sequence[tuple[str, bytes]]) -> None:
        """
        See :meth:`regd.storage.driver.Driver.create`. Nobody looks into the directory before this is done, so its files need no other
        names first.
        """
        directory = _directory(wanted[0][0])
        with Translated("write", directory):
            for tries_left in reversed(range(_MAKE_TRIES)):
                try:
                    self._create(directory, wanted)
                except FileNotFoundError:
                    # Somebody has removed a directory above it.
                    if not tries_left:
                        raise
                else:
                    return

    def _create(self, directory: str, wanted: Sequence[tuple[str, bytes]]) -> None:
        if not self._make(directory):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), directory)
        fds: list[int] = []
        try:
            for path, content in wanted:
                if not (content and self._twin.link(path, content, f"{self._sign()}/{_TWIN}{self._temporary()}")):
                    fds.append(files.begin(path, content))
            for fd in fds:
                os.fsync(fd)
            self._directories.flush_once(directory)
            self._directories.flush(_directory(directory))
        except BaseException:
            for path, _ in wanted:
                _remove(os.unlink, path)
            _remove(os.rmdir, directory)
            raise
        finally:
            for fd in fds:
                os.close(fd)

    def adopt(self, source: str, path: str, beside: Sequence[str], link: tuple[str, bytes], flushed: bool) -> None:
        """See :meth:`regd.storage.driver.Driver.adopt`."""
        wanted = [_file(*link)]
        try:
            # As old as its last byte, which may have been long ago. It becomes durable with what is flushed after it.
            with Translated("renew", source, self._sign()):
                os.utime(source)
            if not flushed:
                with Translated("make durable", source, self._sign()):
                    files.sync(source)
            self._prepare(wanted, durable=True, flush=False)
            with Translated("move", source):
                moved = self._move(source, path, beside)
            self._flush(wanted, moved)
            self._show([wanted], durable=True)
        finally:
            self._abandon(wanted)

    def secure(self, path: str) -> None:
        """See :meth:`regd.storage.driver.Driver.secure`."""
        with Translated("make durable", path, self._sign()):
            files.sync(path)
            self._directories.flush_once(_directory(path))
            self._directories.flush(_directory(_directory(path)))

    # Writing: everything under temporary names, then all names.

    def _prepare(self, wanted: Iterable[_File], durable: bool, *, flush: bool = True) -> None:
        """Make the directories and write the temporary files, and flush them and the names of the directories."""
        still_open = 0
        for file in wanted:
            with Translated("write", file.path):
                self._write(file)
                if not durable or still_open >= _OPEN_TOGETHER:
                    _close(file, durable)
                still_open += file.fd >= 0
        if durable and flush:
            self._flush(wanted, ())

    def _write(self, file: _File) -> None:
        """
        Write the temporary file, making its directory where it is missing; again when somebody removes that in between.

        :raises OSError: when that fails.
        """
        for tries_left in reversed(range(_MAKE_TRIES)):
            try:
                file.made = self._make(file.directory) or file.made
                file.temporary = f"{file.path}.{self._temporary()}"
                file.fd = files.begin(file.temporary, file.content)
            except FileNotFoundError:
                if not tries_left:
                    raise
            else:
                return

    def _temporary(self) -> str:
        return f"{self._own}-{next(self._numbers)}.tmp"

    def _flush(self, wanted: Iterable[_File], changed: Iterable[str]) -> None:
        """Flush what is written, the directories that have been changed, and the names of the directories that files will be in."""
        for file in wanted:
            with Translated("make durable", file.path):
                _close(file, durable=True)
        for directory in dict.fromkeys([*changed, *self._unnamed(wanted)]):
            # Gone again already: a delete has come after this write.
            with Translated("make durable", directory), suppress(FileNotFoundError):
                self._directories.flush(directory)

    def _unnamed(self, wanted: Iterable[_File]) -> Iterable[str]:
        """The directories above those that files will be in and that are not known to be durable."""
        for file in wanted:
            with Translated("look at", file.directory), suppress(FileNotFoundError):
                if file.made or not self._directories.knows(file.directory):
                    yield _directory(file.directory)

    def _show(self, plan: Iterable[Sequence[_File]], durable: bool) -> None:
        for stage in plan:
            for file in stage:
                with Translated("write", file.path):
                    self._rename(file, durable)
            if durable:
                for directory, made in {file.directory: file.made for file in stage}.items():
                    # Gone again already: a delete has come after this write.
                    with Translated("make durable", directory), suppress(FileNotFoundError):
                        (self._directories.flush_once if made else self._directories.flush)(directory)

    def _rename(self, file: _File, durable: bool) -> None:
        for tries_left in reversed(range(_MAKE_TRIES)):
            try:
                os.rename(file.temporary, file.path)
            except FileNotFoundError:
                # Somebody has removed the directory with the temporary file in it: a delete, which this write comes after.
                if not tries_left:
                    raise
                self._prepare([file], durable)
            else:
                file.temporary = ""
                return

    @staticmethod
    def _abandon(wanted: Iterable[_File]) -> None:
        """Remove what has not come into its place, because something before it failed."""
        for file in wanted:
            if file.fd >= 0:
                os.close(file.fd)
            if file.temporary:
                _remove(os.unlink, file.temporary)
                if file.made:
                    _remove(os.rmdir, file.directory)

    # Moving.

    def _move(self, source: str, path: str, beside: Sequence[str]) -> tuple[str, ...]:
        """
        Make the directory of ``source`` that of ``path``, which takes one directory less to make, one less to remove, and one flush less
        than moving the file alone; or the file alone, where there is something already.

        :returns: the directories that have to be made durable now.
        :raises OSError: when that fails.
        """
        old, new = _directory(source), _directory(path)
        try:
            for other in beside:
                with suppress(FileNotFoundError):
                    os.unlink(other)
            # Each directory in it adds a link. A file system that does not count them says 1.
            if os.stat(old).st_nlink != _LINKS:
                files.remove_directories(old)
            whole = self._rename_to(source, path)
        except FileNotFoundError:
            raise Missing(source) from None
        if not whole:
            _remove(os.rmdir, old)
            return (new,)
        if not os.path.exists(path):
            # Somebody has dropped it at this very moment.
            _remove(os.rmdir, new)
            raise Missing(source)
        # The old name has to be gone for good: a file system without a journal could come back with both.
        return _directory(new), _directory(old)

    def move(self, source: str, path: str) -> None:
        """See :meth:`regd.storage.driver.Driver.move`."""
        old, new = _directory(source), _directory(path)
        with Translated("move", source):
            for tries_left in reversed(range(_MAKE_TRIES)):
                if not os.path.isfile(source):
                    raise Missing(source)
                try:
                    os.rename(old, new)
                except FileNotFoundError:
                    if not tries_left:
                        raise
                    self._make(_directory(new))
                else:
                    return

    def _rename_to(self, source: str, path: str) -> bool:
        """
        :returns: whether the directory of ``source`` is that of ``path`` now, and not just the file.
        """
        old, new = _directory(source), _directory(path)
        alone = source[len(old) :] != path[len(new) :]
        for tries_left in reversed(range(_MAKE_TRIES)):
            try:
                os.rename(*((source, path) if alone else (old, new)))
            except FileNotFoundError:
                if not (tries_left and os.path.exists(source)):
                    raise
                # Of a file its directory has to be there; of a directory the one above, and it itself may well be.
                self._make(new if alone else _directory(new))
            except OSError as error:
                if alone or error.errno not in _NOT_EMPTY:
                    raise
                alone = True
            else:
                break
        return not alone

    def _make(self, directory: str) -> bool:
        """
        Make a directory, and what is missing above it.

        :returns: whether it was not there.
        """
        return files.make_directories(directory, self._root, self._sign())


def _file(path: str, content: bytes) -> _File:
    return _File(path, _directory(path), content)


def _directory(path: str) -> str:
    return path.rpartition("/")[0]


def _close(file: _File, durable: bool) -> None:
    if file.fd < 0:
        return
    try:
        if durable:
            os.fsync(file.fd)
    finally:
        fd, file.fd = file.fd, -1
        os.close(fd)


def _remove(how: Callable[[str], None], path: str) -> None:
    with suppress(OSError):
        how(path)
