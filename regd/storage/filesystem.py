"""
Files in a directory of this machine: the embedded default.

What only looks (``stat``, ``open``, reading a link) is done where it is asked for, because it is cheaper than a thread: some 15 µs
against 80. What changes the disk or reads much of it goes to a thread, because a flush may take as long as the disk likes (promises P2
and P4).

How changes become durable is told in :mod:`regd.storage.writing`.
"""

from __future__ import annotations

import fcntl
import functools
import itertools
import os
import resource
import stat as stat_module
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, ParamSpec

from twisted.logger import Logger

from regd.storage import files, locks, sweeping, watch
from regd.storage.appending import QueuedAppender
from regd.storage.directories import Directories
from regd.storage.driver import Busy, Content, File, Growing, HashState, Missing, Stat, StorageError
from regd.storage.files import FileSink, Translated
from regd.storage.layout import Path
from regd.storage.listing import Listings
from regd.storage.threads import Call, Inline, Pool, Threads
from regd.storage.writing import Writer

__all__ = ["FilesystemDriver"]

#: Up to so many bytes are read where one stands; more in a thread.
INLINE_READ: Final = 32 * 1024

#: How long directories are held open after the last change, in seconds: as long, and twice that at most. They keep a file system from
#: being unmounted.
HELD_FOR: Final = 5.0

#: How many directories are held open at most, where that is no more than an eighth of all files that may be open.
_MOST_HELD: Final = 1024

P = ParamSpec("P")

#: A file has a version only when it has been left alone for so many seconds. The clocks of file systems tick every few milliseconds, some
#: every two seconds, and old tools edit links in place.
_SETTLED: Final = 2.0

#: regd's own corner of the root, beside registry:2's tree.
_OWN: Final = "regd"


class FilesystemDriver:
    """
    A :class:`~regd.storage.driver.Driver` over a directory.

    :param root: ``storage.filesystem.rootdirectory``; made when it is missing.
    :param threads: where blocking work runs.
    :param streams: where threads read what fast clients upload; ``None`` leaves the reading to the event loop.
    :param writable: whether the registry takes changes; without, the directory is not asked to.
    :param watched: whether the kernel is asked to note what changes in large directories, which pays where they are listed again and again.
    :ivar timed: told how long each change took that a request may wait for, in seconds, by what ``registry:2`` calls it, and ``Flush``.
    """

    name = "filesystem"
    shared = True
    _log = Logger()

    def __init__(self, root: str, threads: Pool, streams: Pool | None = None, *, writable: bool = True, watched: bool = True) -> None:
        self.root = os.path.abspath(root)
        self._threads = threads
        self._streams = streams
        #: Where changes are made that write little: in threads, because of the flushes.
        self._changes: Threads = threads
        self._writable = writable
        #: Whether a look at a file can be compared with an earlier one.
        self._versions = False
        notes = watch.Watch()
        if not watched:
            notes.close()
        self._listings = Listings(threads, notes)
        #: A directory that is there as long as the storage is. An empty mount point is there as well, but not what start() made below it.
        self._sign = self.root
        self._directories = Directories(self.root)
        self._writer = Writer(self.root, self._directories, lambda: self._sign)
        #: For names in the trash: one driver at a time puts things there.
        self._numbers = itertools.count()
        # The event loop's own: whether something has changed since it was last asked, and when that will be.
        self._changed = False
        self._letting_go: Call | None = None
        self.timed: Callable[[str, float], None] = lambda action, seconds: None

    def start(self) -> None:
        """See :class:`~regd.storage.driver.Driver`."""
        where = f"storage.filesystem.rootdirectory {self.root}"
        try:
            if self._writable:
                with suppress(FileExistsError):
                    os.makedirs(self.root)
            if not os.path.isdir(self.root):
                raise StorageError(f"{where} is not a directory: make it, or name another one")
            os.listdir(self.root)
            self._versions = watch.looks_are_true(self.root)
            if files.in_memory(self.root):
                # Nothing is flushed there, and handing such a change to a thread costs more than the change.
                self._changes = Inline()
            self._directories.limit = held_at_most()
            if self._writable:
                self._begin()
        except OSError as error:
            who = f"user {os.geteuid()}, group {os.getegid()}"
            raise StorageError(
                f"{where} cannot be {'used' if self._writable else 'read'} by {who}: {error.strerror}; "
                "give it to that user, or free space, or name another directory"
            ) from None

    def stop(self) -> None:
        """See :class:`~regd.storage.driver.Driver`."""
        if self._letting_go is not None:
            self._letting_go.cancel()
            self._letting_go = None
        self._threads.stop()
        self._writer.close()
        if self._streams is not None:
            self._streams.stop()
        self._listings.close()
        self._directories.release()

    async def check(self) -> None:
        """See :class:`~regd.storage.driver.Driver`."""
        with Translated("use", self.root):
            await self._threads.run(self._probe if self._writable else functools.partial(os.listdir, self.root))

    async def stat(self, path: Path) -> Stat:
        """See :class:`~regd.storage.driver.Driver`."""
        full = f"{self.root}/{path}"
        with Translated("look at", full, self._sign):
            found = os.stat(full)
        if not stat_module.S_ISREG(found.st_mode):
            raise Missing(full)
        # The time of the last change of any kind, which no tool can set back, as it can the time of the last write.
        settled = self._versions and time.time() - found.st_ctime > _SETTLED
        return Stat(found.st_size, found.st_mtime, (found.st_ino, found.st_ctime_ns, found.st_size) if settled else None)

    async def exists(self, path: Path) -> bool:
        """See :class:`~regd.storage.driver.Driver`."""
        full = self._full(path)
        try:
            with Translated("look at", full, self._sign):
                os.stat(full)
        except Missing:
            return False
        return True

    async def read(self, path: Path, limit: int) -> bytes:
        """See :class:`~regd.storage.driver.Driver`."""
        content = self._open(path)
        try:
            wanted = min(limit, content.size)
            data = await content.read(0, wanted)
            # The system may hand out less at once than it is asked for.
            while len(data) < wanted and (more := await content.read(len(data), wanted - len(data))):
                data += more
            return data
        finally:
            content.close()

    async def open(self, path: Path) -> Content:
        """See :class:`~regd.storage.driver.Driver`."""
        return self._open(path)

    async def follow(self, path: Path) -> Growing:
        """See :class:`~regd.storage.driver.Driver`."""
        return self._open(path)

    async def same(self, growing: Growing, path: Path) -> bool:
        """See :class:`~regd.storage.driver.Driver`."""
        descriptor = growing.fileno()
        if descriptor is None:
            return False
        full = self._full(path)
        try:
            with Translated("look at", full, self._sign):
                # As long as it is open, no other file gets its number.
                opened, there = os.fstat(descriptor), os.stat(full)
        except Missing:
            return False
        return (opened.st_dev, opened.st_ino) == (there.st_dev, there.st_ino)

    async def hash(self, path: Path, algorithm: str) -> HashState:
        """See :class:`~regd.storage.driver.Driver`."""
        return await self._threads.run(files.hash_file, self._full(path), self._sign, algorithm)

    async def names(self, path: Path, after: str = "", limit: int | None = None) -> Sequence[str]:
        """See :class:`~regd.storage.driver.Driver`."""
        full = self._full(path)
        with Translated("list", full, self._sign):
            return await self._listings.names(full, after, limit)

    async def scan(self, path: Path) -> list[str]:
        """See :class:`~regd.storage.driver.Driver`."""
        return await self._threads.run(sweeping.scan, self._full(path), self._sign)

    async def stat_all(self, paths: Sequence[Path]) -> Sequence[Stat | StorageError | None]:
        """See :class:`~regd.storage.driver.Driver`."""
        return await self._threads.run(sweeping.stat_all, self.root, paths, self._sign)

    async def read_all(self, paths: Sequence[Path], limit: int) -> Sequence[bytes | StorageError | None]:
        """See :class:`~regd.storage.driver.Driver`."""
        return await self._threads.run(sweeping.read_all, self.root, paths, limit, self._sign)

    async def write(self, *files: File | list[File], durable: bool = True) -> None:
        """See :class:`~regd.storage.driver.Driver`."""
        stages = [[(self._full(path), content) for path, content in (one if isinstance(one, list) else (one,))] for one in files]
        await self._change("PutContent", self._writer.write, stages, durable)

    async def create(self, *files: File) -> None:
        """See :class:`~regd.storage.driver.Driver`."""
        await self._change("PutContent", self._writer.create, [(self._full(path), content) for path, content in files])

    async def adopt(self, source: Path, path: Path, link: File, *, beside: Sequence[Path] = (), flushed: bool = False) -> None:
        """See :class:`~regd.storage.driver.Driver`."""
        others = [self._full(other) for other in beside]
        last = (self._full(link[0]), link[1])
        await self._change("Move", self._writer.adopt, self._full(source), self._full(path), others, last, flushed)

    async def move(self, source: Path, path: Path) -> None:
        """See :class:`~regd.storage.driver.Driver`."""
        await self._change("Move", self._writer.move, self._full(source), self._full(path))

    async def secure(self, path: Path) -> None:
        """See :class:`~regd.storage.driver.Driver`."""
        await self._change("Flush", self._writer.secure, self._full(path))

    async def append(self, path: Path, state: HashState | None = None) -> QueuedAppender:
        """See :class:`~regd.storage.driver.Driver`."""
        full = self._full(path)
        with Translated("open", full, self._sign):
            fd = os.open(full, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        try:
            with Translated("lock", full, self._sign):
                try:
                    # The kernel lets go of it when the process dies, and knows of other processes on this machine.
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise Busy(full) from None
                held, there = os.fstat(fd), os.stat(full)
            if (held.st_dev, held.st_ino) != (there.st_dev, there.st_ino):
                # Committed or cancelled, and begun anew, between the opening and the locking.
                raise Missing(full)
        except BaseException:
            os.close(fd)
            raise
        return QueuedAppender(
            FileSink(full, fd), held.st_size, state, self._threads, self._streams, lambda seconds: self.timed("Flush", seconds)
        )

    async def delete(self, path: Path, *, durable: bool = True) -> None:
        """See :class:`~regd.storage.driver.Driver`."""
        await self._time("Delete", files.delete, self._full(path), self._sign, durable)

    async def renew(self, path: Path) -> None:
        """See :class:`~regd.storage.driver.Driver`."""
        # In a thread where there is a disk: a journal that is being written may keep it waiting.
        await self._changes.run(files.renew, self._full(path), self._sign)

    async def lock(self, path: Path, *, shared: bool = False) -> locks.FileLock:
        """See :class:`~regd.storage.driver.Driver`."""
        return locks.take(self._full(path), shared, self.root, self._sign)

    async def stage(self, files: Sequence[Path], into: Path) -> Sequence[sweeping.Staged | None]:
        """See :class:`~regd.storage.driver.Driver`."""
        return await self._changes.run(self._stage, files, self._full(into))

    async def retire(
        self,
        files: Sequence[Path],
        into: Path,
        before: float,
        guards: Sequence[Path | None] = (),
        staged: Sequence[object] = (),
    ) -> Sequence[Path]:
        """See :class:`~regd.storage.driver.Driver`."""
        return await self._changes.run(self._retire, files, self._full(into), before, guards, staged)

    async def discard(self, files: Sequence[Path], before: float) -> Sequence[Path]:
        """See :class:`~regd.storage.driver.Driver`."""
        return await self._changes.run(sweeping.discard, self.root, files, before)

    async def settle(self, directories: Sequence[Path]) -> None:
        """See :class:`~regd.storage.driver.Driver`."""
        await self._changes.run(sweeping.settle, self.root, directories)

    async def prune(self, path: Path) -> bool:
        """See :class:`~regd.storage.driver.Driver`."""
        return await self._changes.run(sweeping.prune, self._full(path))

    async def _change(self, action: str, function: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        self._changed = True
        if self._letting_go is None:
            self._letting_go = self._threads.later(HELD_FOR, self._let_go)
        await self._time(action, function, *args, **kwargs)

    async def _time(self, action: str, function: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        """Make a change, and tell how long it took, also when it fails."""
        began = time.perf_counter()
        try:
            await self._changes.run(function, *args, **kwargs)
        finally:
            self.timed(action, time.perf_counter() - began)

    def _full(self, path: Path) -> str:
        return f"{self.root}/{path}"

    def _open(self, path: Path) -> _FileContent:
        full = self._full(path)
        with Translated("open", full, self._sign):
            fd = os.open(full, os.O_RDONLY | os.O_CLOEXEC)
            try:
                found = os.fstat(fd)
            except BaseException:
                os.close(fd)
                raise
        if not stat_module.S_ISREG(found.st_mode):
            os.close(fd)
            raise Missing(full)
        return _FileContent(full, fd, found.st_size, self._threads)

    # What follows runs in threads, but for the beginning.

    def _begin(self) -> None:
        try:
            self._probe()
            self._writer.clean(self._sign)
        except OSError as error:
            if error.errno not in files.NO_ROOM:
                raise
            # Pulls need no room, and deletes make some.
            self._log.warn("{root} is full ({reason}): pushes are refused until there is room", root=self.root, reason=error.strerror)
            if os.path.isdir(f"{self.root}/{_OWN}"):
                self._sign = f"{self.root}/{_OWN}"

    def _probe(self) -> None:
        """Write a file and remove it: the one proof that writing works, quotas and read-only mounts included."""
        own = f"{self.root}/{_OWN}"
        if self._sign != own:
            # The first time that there is room for it.
            with suppress(FileExistsError):
                os.mkdir(own)
        probe = f"{own}/probe.{uuid.uuid4()}.tmp"
        try:
            os.close(files.begin(probe, b"regd"))
        finally:
            with suppress(FileNotFoundError):
                os.unlink(probe)
        self._sign = own

    def _stage(self, paths: Sequence[Path], into: str) -> list[sweeping.Staged | None]:
        with Translated("make", into):
            files.make_directories(into, self.root, self._sign)
        return sweeping.stage(self.root, paths, into, self._numbers)

    def _retire(
        self, paths: Sequence[Path], into: str, before: float, guards: Sequence[Path | None], staged: Sequence[object]
    ) -> list[Path]:
        with Translated("make", into):
            files.make_directories(into, self.root, self._sign)
        return sweeping.retire(self.root, paths, guards, staged, into, before, self._numbers)

    def _let_go(self) -> None:
        """Some time after the last change: close the directories that are held, so that they are in nobody's way."""
        self._letting_go = None
        if self._changed:
            self._changed = False
            self._letting_go = self._threads.later(HELD_FOR, self._let_go)
        else:
            self._directories.release()


def held_at_most() -> int:
    """How many directories may be held open, so that connections and blobs find descriptors left."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return _MOST_HELD if limit == resource.RLIM_INFINITY else min(_MOST_HELD, limit // 8)


class _FileContent:
    """A :class:`~regd.storage.driver.Content`, and a :class:`~regd.storage.driver.Growing`, over a descriptor."""

    def __init__(self, path: str, fd: int, size: int, threads: Threads) -> None:
        self.size = size
        self._path = path
        self._fd = fd
        self._threads = threads

    def fileno(self) -> int | None:
        """See :class:`~regd.storage.driver.Content`."""
        return self._fd

    async def reach(self, offset: int) -> int:
        """See :class:`~regd.storage.driver.Content`."""
        return self.size

    def grown(self) -> int:
        """See :class:`~regd.storage.driver.Growing`."""
        with Translated("look at", self._path):
            return os.fstat(self._fd).st_size

    async def read(self, offset: int, length: int) -> bytes:
        """See :class:`~regd.storage.driver.Content`."""
        if length <= INLINE_READ:
            return self._read(offset, length)
        return await self._threads.run(self._read, offset, length)

    def _read(self, offset: int, length: int) -> bytes:
        with Translated("read", self._path):
            return os.pread(self._fd, length, offset)

    def close(self) -> None:
        """See :class:`~regd.storage.driver.Content`."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)
