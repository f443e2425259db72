"""Many names in order, in little memory. Pure; no I/O."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

__all__ = ["SortedNames", "in_bytes", "in_text", "merged"]

#: How long a block is when it is made, in bytes; when it has grown to twice that, it is cut in two.
_BLOCK: Final = 4096

#: What a block costs besides its bytes: two objects, and their places in two lists.
_OVERHEAD: Final = 120

#: How many blocks' worth of names are merged at once.
_STEP: Final = 8


def in_bytes(text: str) -> bytes:
    """
    What decides where a name stands: its bytes, as they are on disk. ``text`` may also be a client's, half of a surrogate pair included,
    which is no name.
    """
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def in_text(name: bytes) -> str:
    """A name as a driver gives it out; what is not UTF-8 in it is kept, as :func:`os.fsdecode` does."""
    return name.decode("utf-8", "surrogateescape")


class SortedNames:
    """
    A set of names, none of which is empty or has a zero byte, in the order of their bytes.

    As a list, a hundred thousand names of ten letters take 5 MiB, and a change moves half of it. Here they are kept in blocks, each some
    names joined by zero bytes: they take little more than their letters, and a page or a change touches a block or two.

    :ivar size: about how much memory it takes, in bytes.
    """

    def __init__(self) -> None:
        self.size = 0
        self._blocks: list[bytes] = []
        #: The first name of each block.
        self._firsts: list[bytes] = []

    @classmethod
    def of(cls, names: Iterable[bytes]) -> SortedNames:
        """
        :param names: in any order.
        """
        made = cls()
        made.extend(sorted(set(names)))
        return made

    def extend(self, names: Sequence[bytes]) -> None:
        """
        :param names: in order, and all after those that are there.
        """
        for block in _cut(names):
            self._insert(len(self._blocks), block)

    def add(self, name: bytes) -> None:
        """Have ``name`` among them, if it is not yet."""
        if not self._blocks:
            self._insert(0, [name])
            return
        index, names = self._around(name)
        if not _has(names, name):
            insort(names, name)
            self._replace(index, names)

    def discard(self, name: bytes) -> None:
        """Have ``name`` no longer among them."""
        if self._blocks:
            index, names = self._around(name)
            if _has(names, name):
                names.remove(name)
                self._replace(index, names)

    def after(self, last: bytes, limit: int | None = None) -> list[bytes]:
        """
        Up to ``limit`` names that come after ``last``, or all of them.

        :param last: need not be a name; empty for the first ones.
        """
        found: list[bytes] = []
        for index in range(max(bisect_right(self._firsts, last) - 1, 0), len(self._blocks)):
            names = self._blocks[index].split(b"\0")
            found += names[bisect_right(names, last) :] if not found else names
            if limit is not None and len(found) >= limit:
                return found[:limit]
        return found

    def _around(self, name: bytes) -> tuple[int, list[bytes]]:
        """Where the block is that ``name`` belongs to, and what it holds."""
        index = max(bisect_right(self._firsts, name) - 1, 0)
        return index, self._blocks[index].split(b"\0")

    def _replace(self, index: int, names: list[bytes]) -> None:
        self.size -= len(self._blocks[index]) + len(self._firsts[index]) + _OVERHEAD
        del self._blocks[index], self._firsts[index]
        if sum(map(len, names)) + len(names) < 2 * _BLOCK:
            self._insert(index, names)
        else:
            middle = len(names) // 2
            self._insert(index, names[middle:])
            self._insert(index, names[:middle])

    def _insert(self, index: int, names: Sequence[bytes]) -> None:
        if names:
            block = b"\0".join(names)
            self._blocks.insert(index, block)
            self._firsts.insert(index, names[0])
            self.size += len(block) + len(names[0]) + _OVERHEAD

    def take(self) -> tuple[list[bytes], list[bytes]]:
        """Give all names away: the blocks, each names joined by zero bytes, and the first name of each. None are left."""
        blocks, self._blocks = self._blocks, []
        firsts, self._firsts = self._firsts, []
        self.size = 0
        return blocks, firsts


def merged(parts: Sequence[SortedNames], rest: Callable[[], object]) -> SortedNames:
    """
    All names of several sets, which are used up. A range of names at a time, so that no more than a few thousand names are objects at once,
    and no step takes long.

    :param rest: called between two steps.
    """
    if len(parts) == 1:
        return parts[0]
    taken = [part.take() for part in parts]
    bounds = sorted(first for _, firsts in taken for first in firsts)[_STEP::_STEP]
    runs = [_Run(deque(blocks)) for blocks, _ in taken]
    # Each block is given back when it has been merged, so that all of this takes little more memory than its result.
    del taken
    whole = SortedNames()
    for bound in (*bounds, None):
        names: list[bytes] = []
        for run in runs:
            names += run.below(bound)
        # What is in order already is merged rather than sorted. A directory that changes while it is read may show a name twice.
        names.sort()
        whole.extend(tuple(dict.fromkeys(names)))
        rest()
    return whole


class _Run:
    """A set of names as it is used up, block by block."""

    def __init__(self, blocks: deque[bytes]) -> None:
        self._blocks = blocks
        self._names: list[bytes] = []

    def below(self, bound: bytes | None) -> list[bytes]:
        """What is left that comes before ``bound``; with ``None``, all."""
        taken: list[bytes] = []
        while self._names or self._blocks:
            if not self._names:
                self._names = self._blocks.popleft().split(b"\0")
            end = len(self._names) if bound is None else bisect_left(self._names, bound)
            taken += self._names[:end]
            del self._names[:end]
            if self._names:
                break
        return taken


def _cut(names: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """Pieces of about a block each."""
    begin = size = 0
    for index, name in enumerate(names):
        size += len(name) + 1
        if size >= _BLOCK:
            yield names[begin : index + 1]
            begin, size = index + 1, 0
    yield names[begin:]


def _has(names: Sequence[bytes], name: bytes) -> bool:
    at = bisect_left(names, name)
    return at < len(names) and names[at] == name
