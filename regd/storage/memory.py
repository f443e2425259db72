"""
Everything in the memory of this process: ``storage: inmemory``, for trying regd out and for tests. Gone when the process ends.
"""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from regd.storage import layout
from regd.storage.appending import QueuedAppender
from regd.storage.driver import Busy, Content, File, Growing, HashState, Missing, Stat, StorageError
from regd.storage.layout import Path
from regd.storage.sorted_names import SortedNames, in_bytes, in_text
from regd.storage.threads import Inline

__all__ = ["MemoryDriver"]


_next_version = itertools.count().__next__


@dataclass(slots=True, eq=False)
class _File:
    content: bytearray
    modified: float
    held: bool = False
    version: int = field(default_factory=_next_version)


@dataclass(slots=True, eq=False)
class _Directory:
    """``order`` is made when it is first asked for, and kept."""

    entries: dict[str, _File | _Directory] = field(default_factory=dict)
    order: SortedNames | None = None

    def put(self, name: str, entry: _File | _Directory) -> None:
        self.entries[name] = entry
        if self.order is not None:
            self.order.add(in_bytes(name))

    def drop(self, name: str) -> None:
        del self.entries[name]
        if self.order is not None:
            self.order.discard(in_bytes(name))


class MemoryDriver:
    """A :class:`~regd.storage.driver.Driver` over a dictionary."""

    name = "inmemory"
    shared = False

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._root = _Directory()
        #: Who holds each lock.
        self._locks: dict[Path, list[_MemoryLock]] = {}
        self._threads = Inline()

    def start(self) -> None:
        """See :class:`~regd.storage.driver.Driver`."""

    def stop(self) -> None:
        """See :class:`~regd.storage.driver.Driver`."""

    async def check(self) -> None:
        """See :class:`~regd.storage.driver.Driver`."""

    async def stat(self, path: Path) -> Stat:
        """See :class:`~regd.storage.driver.Driver`."""
        file = self._file(path)
        return Stat(len(file.content), file.modified, file.version)

    async def exists(self, path: Path) -> bool:
        """See :class:`~regd.storage.driver.Driver`."""
        return self._find(path) is not None

    async def read(self, path: Path, limit: int) -> bytes:
        """See :class:`~regd.storage.driver.Driver`."""
        return bytes(self._file(path).content[:limit])

    async def open(self, path: Path) -> Content:
        """See :class:`~regd.storage.driver.Driver`."""
        return _MemoryContent(self._file(path).content)

    async def follow(self, path: Path) -> Growing:
        """See :class:`~regd.storage.driver.Driver`."""
        return _MemoryGrowing(self._file(path).content)

    async def same(self, growing: Growing, path: Path) -> bool:
        """See :class:`~regd.storage.driver.Driver`."""
        found = self._find(path)
        return isinstance(found, _File) and isinstance(growing, _MemoryGrowing) and growing.reads(found.content)

    async def hash(self, path: Path, algorithm: str) -> HashState:
        """See :class:`~regd.storage.driver.Driver`."""
        return hashlib.new(algorithm, self._file(path).content)

    async def names(self, path: Path, after: str = "", limit: int | None = None) -> Sequence[str]:
        """See :class:`~regd.storage.driver.Driver`."""
        found = self._find(path)
        if not isinstance(found, _Directory):
            raise Missing(path)
        if found.order is None:
            found.order = SortedNames.of(map(in_bytes, found.entries))
        return [in_text(name) for name in found.order.after(in_bytes(after), limit)]

    async def scan(self, path: Path) -> list[str]:
        """See :class:`~regd.storage.driver.Driver`."""
        found = self._find(path)
        if not isinstance(found, _Directory):
            raise Missing(path)
        return list(found.entries)

    async def stat_all(self, paths: Sequence[Path]) -> Sequence[Stat | StorageError | None]:
        """See :class:`~regd.storage.driver.Driver`."""
        found = map(self._find, paths)
        return [Stat(len(file.content), file.modified) if isinstance(file, _File) else None for file in found]

    async def read_all(self, paths: Sequence[Path], limit: int) -> Sequence[bytes | StorageError | None]:
        """See :class:`~regd.storage.driver.Driver`."""
        found = map(self._find, paths)
        return [bytes(file.content[:limit]) if isinstance(file, _File) else None for file in found]

    async def write(self, *files: File | list[File], durable: bool = True) -> None:
        """See :class:`~regd.storage.driver.Driver`."""
        for path, content in itertools.chain.from_iterable(file if isinstance(file, list) else (file,) for file in files):
            self._put(path, _File(bytearray(content), self._clock()))

    async def create(self, *files: File) -> None:
        """See :class:`~regd.storage.driver.Driver`."""
        directory = layout.above(files[0][0])
        if self._find(directory) is not None:
            raise StorageError(f"cannot write {directory}: it is there already")
        await self.write(*files)

    async def adopt(self, source: Path, path: Path, link: File, *, beside: Sequence[Path] = (), flushed: bool = False) -> None:
        """See :class:`~regd.storage.driver.Driver`."""
        # Fails before anything is changed.
        self._parent(link[0])
        self._put(path, self._file(source))
        self._touch(self._file(path))
        directory, name = self._parent(layout.above(source))
        directory.drop(name)
        await self.write(link)

    async def move(self, source: Path, path: Path) -> None:
        """See :class:`~regd.storage.driver.Driver`."""
        self._file(source)
        above, name = self._parent(layout.above(source))
        target, other = self._parent(layout.above(path))
        there = target.entries.get(other)
        if isinstance(there, _File) or (there is not None and there.entries):
            raise StorageError(f"cannot move {source}: something is at {path} already")
        target.put(other, above.entries[name])
        above.drop(name)

    async def secure(self, path: Path) -> None:
        """See :class:`~regd.storage.driver.Driver`."""
        self._file(path)

    async def append(self, path: Path, state: HashState | None = None) -> QueuedAppender:
        """See :class:`~regd.storage.driver.Driver`."""
        file = self._file(path)
        if file.held:
            raise Busy(path)
        file.held = True
        return QueuedAppender(_MemorySink(file, self._clock), len(file.content), state, self._threads)

    async def delete(self, path: Path, *, durable: bool = True) -> None:
        """See :class:`~regd.storage.driver.Driver`."""
        if self._find(path) is None:
            raise Missing(path)
        directory, name = self._parent(path)
        directory.drop(name)

    async def renew(self, path: Path) -> None:
        """See :class:`~regd.storage.driver.Driver`."""
        self._touch(self._file(path))

    async def lock(self, path: Path, *, shared: bool = False) -> _MemoryLock:
        """See :class:`~regd.storage.driver.Driver`."""
        holders = self._locks.setdefault(path, [])
        if holders and not (shared and holders[0].shared):
            raise Busy(path)
        lock = _MemoryLock(holders, shared)
        holders.append(lock)
        return lock

    def _touch(self, file: _File) -> None:
        file.modified, file.version = self._clock(), _next_version()

    async def stage(self, files: Sequence[Path], into: Path) -> Sequence[object]:
        """See :class:`~regd.storage.driver.Driver`."""
        return [None] * len(files)

    async def retire(
        self,
        files: Sequence[Path],
        into: Path,
        before: float,
        guards: Sequence[Path | None] = (),
        staged: Sequence[object] = (),
    ) -> Sequence[Path]:
        """See :class:`~regd.storage.driver.Driver`."""
        taken = []
        for path, guard in zip(files, guards or itertools.repeat(None), strict=False):
            marks = [found for found in (self._find(path), guard and self._find(guard)) if isinstance(found, _File)]
            if isinstance(self._find(path), _File) and all(file.modified < before for file in marks):
                directory, name = self._parent(layout.above(path))
                self._parent(layout.inside(into, "0"))[0].put(str(_next_version()), directory.entries[name])
                directory.drop(name)
                taken.append(path)
        return taken

    async def discard(self, files: Sequence[Path], before: float) -> Sequence[Path]:
        """See :class:`~regd.storage.driver.Driver`."""
        gone = [path for path in files if isinstance(file := self._find(path), _File) and file.modified < before]
        for path in gone:
            directory, name = self._parent(path)
            directory.drop(name)
        return gone

    async def settle(self, directories: Sequence[Path]) -> None:
        """See :class:`~regd.storage.driver.Driver`."""

    async def prune(self, path: Path) -> bool:
        """See :class:`~regd.storage.driver.Driver`."""
        found = self._find(path)
        if found is None:
            return True
        if not _hollow(found):
            return False
        directory, name = self._parent(path)
        directory.drop(name)
        return True

    def _find(self, path: str) -> _File | _Directory | None:
        found: _File | _Directory | None = self._root
        for name in path.split("/"):
            if not isinstance(found, _Directory):
                return None
            found = found.entries.get(name)
        return found

    def _file(self, path: Path) -> _File:
        found = self._find(path)
        if not isinstance(found, _File):
            raise Missing(path)
        return found

    def _parent(self, path: Path) -> tuple[_Directory, str]:
        """The directory that a path is in, made where it is missing, and the path's last component."""
        *above, name = path.split("/")
        directory = self._root
        for component in above:
            entry = directory.entries.get(component)
            if entry is None:
                entry = _Directory()
                directory.put(component, entry)
            elif not isinstance(entry, _Directory):
                raise StorageError(f"cannot write {path}: a file is where a directory has to be")
            directory = entry
        return directory, name

    def _put(self, path: Path, file: _File) -> None:
        directory, name = self._parent(path)
        if isinstance(directory.entries.get(name), _Directory):
            raise StorageError(f"cannot write {path}: it is a directory")
        directory.put(name, file)


class _MemoryLock:
    """A :class:`~regd.storage.driver.Held`. Those who hold one together are all shared."""

    def __init__(self, holders: list[_MemoryLock], shared: bool) -> None:
        self.shared = shared
        self._holders = holders

    def close(self) -> None:
        """See :class:`~regd.storage.driver.Held`."""
        if self in self._holders:
            self._holders.remove(self)


def _hollow(entry: _File | _Directory) -> bool:
    """Whether there is no file in it."""
    return isinstance(entry, _Directory) and all(map(_hollow, entry.entries.values()))


class _MemoryContent:
    """A :class:`~regd.storage.driver.Content`. A file is only ever replaced, or grows at its end, so the size at opening bounds it."""

    def __init__(self, content: bytearray) -> None:
        self.size = len(content)
        self._content = content

    def fileno(self) -> int | None:
        """See :class:`~regd.storage.driver.Content`."""
        return None

    async def reach(self, offset: int) -> int:
        """See :class:`~regd.storage.driver.Content`."""
        return self.size

    async def read(self, offset: int, length: int) -> bytes:
        """See :class:`~regd.storage.driver.Content`."""
        return bytes(self._content[offset : min(offset + length, self.size)])

    def close(self) -> None:
        """See :class:`~regd.storage.driver.Content`."""


class _MemoryGrowing:
    """A :class:`~regd.storage.driver.Growing`. Who appends to a file does so in place."""

    def __init__(self, content: bytearray) -> None:
        self._content = content

    def reads(self, content: bytearray) -> bool:
        """Whether these are the bytes that are read, and not just equal ones."""
        return self._content is content

    def grown(self) -> int:
        """See :class:`~regd.storage.driver.Growing`."""
        return len(self._content)

    def fileno(self) -> int | None:
        """See :class:`~regd.storage.driver.Growing`."""
        return None

    async def read(self, offset: int, length: int) -> bytes:
        """See :class:`~regd.storage.driver.Growing`."""
        return bytes(self._content[offset : offset + length])

    def close(self) -> None:
        """See :class:`~regd.storage.driver.Growing`."""


class _MemorySink:
    """A :class:`~regd.storage.appending.Sink`."""

    def __init__(self, file: _File, clock: Callable[[], float]) -> None:
        self._file = file
        self._clock = clock

    def write(self, chunks: Sequence[bytes | memoryview]) -> None:
        """See :class:`~regd.storage.appending.Sink`."""
        for chunk in chunks:
            self._file.content += chunk
        self._file.modified, self._file.version = self._clock(), _next_version()

    def sync(self) -> None:
        """See :class:`~regd.storage.appending.Sink`."""

    def close(self) -> None:
        """See :class:`~regd.storage.appending.Sink`."""
        self._file.held = False

    def tell(self) -> int:
        """See :class:`~regd.storage.appending.Sink`."""
        return len(self._file.content)
