"""
What a power cut would leave, worked out from a record of operations: a model of a file system that keeps only what it was asked to keep.

A file's bytes are safe after ``fsync`` of the file; a name in a directory, its removal included, after ``fsync`` of that directory; a
file is found again when every name on the way to it is safe (fsync(2): "Calling fsync() does not necessarily ensure that the entry in the
directory containing the file has also reached disk"). What was not asked for may have reached the disk all the same, in any order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.faulty import Operation

__all__ = ["Disk"]


@dataclass(eq=False)
class _File:
    """``text`` is what is in it, for as long as that is little; ``safe`` is how many of its ``size`` bytes would survive."""

    size: int = 0
    safe: int = 0
    text: str = ""


@dataclass(eq=False)
class _Directory:
    """``entries`` as everybody sees them; ``safe`` as they would survive."""

    entries: dict[str, _File | _Directory] = field(default_factory=dict)
    safe: dict[str, _File | _Directory] = field(default_factory=dict)


class Disk:
    """
    :param root: The directory that is modelled; what is in it now is taken for safe.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._top = self._read(root)

    def _read(self, path: Path) -> _Directory:
        directory = _Directory()
        for entry in path.iterdir():
            if entry.is_dir():
                directory.entries[entry.name] = self._read(entry)
            else:
                size = entry.stat().st_size
                text = entry.read_text(encoding="latin-1") if entry.name == "link" else ""
                directory.entries[entry.name] = _File(size, size, text)
        directory.safe = dict(directory.entries)
        return directory

    def _parts(self, path: str) -> tuple[str, ...]:
        return Path(path).relative_to(self._root).parts

    def _parent(self, path: str) -> tuple[_Directory, str]:
        *above, name = self._parts(path)
        directory = self._top
        for part in above:
            below = directory.entries[part]
            assert isinstance(below, _Directory), path
            directory = below
        return directory, name

    def apply(self, operation: Operation) -> None:
        """
        :param operation: What was done next. What failed changes nothing.
        """
        if operation.outcome != "done":
            return
        if operation.name == "fsync":
            self._sync(operation.path)
            return
        directory, name = self._parent(operation.path)
        match operation.name:
            case "create":
                directory.entries.setdefault(name, _File())
            case "mkdir":
                directory.entries[name] = _Directory()
            case "unlink" | "rmdir":
                del directory.entries[name]
            case "rename":
                moved = directory.entries.pop(name)
                target, new = self._parent(operation.to)
                target.entries[new] = moved
            case "link":
                target, new = self._parent(operation.to)
                target.entries[new] = directory.entries[name]
            case "write" | "writev":
                file = directory.entries[name]
                assert isinstance(file, _File), operation
                file.size += operation.size
                file.text += operation.text
            case "utime":
                # A promise may be lost with the power: clients that were about to use it have to begin again, and ask again.
                pass
            case other:
                raise AssertionError(f"a model of {other} is missing")

    def _sync(self, path: str) -> None:
        found: _File | _Directory | None = self._top
        if self._parts(path):
            directory, name = self._parent(path)
            found = directory.entries.get(name)
        if isinstance(found, _Directory):
            found.safe = dict(found.entries)
        elif found is not None:
            found.safe = found.size

    def is_written(self, path: str) -> bool:
        """
        :param path: A file, or a directory, as everybody sees it.
        :return: Whether all of its bytes are safe, wherever it is found again; those of a directory are all that is in it, by its name.
        """
        directory, name = self._parent(path)
        waiting = [directory.entries[name]]
        for entry in waiting:
            if isinstance(entry, _File):
                if entry.safe != entry.size:
                    return False
            elif any(entry.safe.get(below) is not found for below, found in entry.entries.items()):
                return False
            else:
                waiting += entry.entries.values()
        return True

    def is_safe_elsewhere(self, path: str) -> bool:
        """
        :param path: A file, as everybody sees it.
        :return: Whether it might be found under another path after a power cut.
        """
        directory, name = self._parent(path)
        wanted = directory.entries[name]
        waiting = [(str(self._root), self._top)]
        while waiting:
            above, found = waiting.pop()
            for below, entry in found.safe.items():
                if entry is wanted and f"{above}/{below}" != path:
                    return True
                if isinstance(entry, _Directory):
                    waiting.append((f"{above}/{below}", entry))
        return False

    def text(self, path: str) -> str:
        """
        :param path: A small file, as everybody sees it.
        :return: What is in it.
        """
        directory, name = self._parent(path)
        file = directory.entries[name]
        assert isinstance(file, _File), path
        return file.text

    def safe_size(self, path: str) -> int | None:
        """
        :param path: Of a file.
        :return: How many bytes of it would be there after a power cut; ``None`` when it might not be found.
        """
        found: _File | _Directory | None = self._top
        for part in self._parts(path):
            if not isinstance(found, _Directory):
                return None
            found = found.safe.get(part)
        return found.safe if isinstance(found, _File) else None

    def safe_files(self) -> Iterator[tuple[str, str]]:
        """
        :return: The path of each file that would be found after a power cut, and what is in it, where that is little.
        """
        waiting = [(str(self._root), self._top)]
        while waiting:
            path, directory = waiting.pop()
            for name, entry in directory.safe.items():
                if isinstance(entry, _Directory):
                    waiting.append((f"{path}/{name}", entry))
                else:
                    yield f"{path}/{name}", entry.text
