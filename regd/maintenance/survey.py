"""
What is cached: the content of repositories that came from an upstream, how much it takes, and when it was last used.

Each such manifest or blob has a mark in its repository (:func:`regd.storage.layout.cached`), an empty file that was last written when the
content was last used.
"""

from __future__ import annotations

from array import array
from collections.abc import AsyncIterator, Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final

from regd.maintenance.graph import digest_of, raw_name
from regd.maintenance.steps import Steps
from regd.maintenance.walking import longer_names
from regd.names import ALGORITHMS, RepositoryName
from regd.storage import layout
from regd.storage.driver import Driver, Missing, Stat

__all__ = ["Mark", "Survey", "is_below", "marks_of", "repositories"]

_CACHE: Final = "_cache"


def is_below(name: str, prefixes: Iterable[str]) -> bool:
    """Whether a repository is one of those that are cached. An empty prefix stands for all."""
    return any(not prefix or name.startswith(f"{prefix}/") for prefix in prefixes)


@dataclass(frozen=True, slots=True)
class Mark:
    """
    What says that content of a repository came from an upstream.

    :ivar digest: its bytes.
    :ivar used: when the content was last used, in seconds since the epoch.
    """

    digest: bytes
    used: float


async def repositories(driver: Driver, steps: Steps, prefixes: Iterable[str]) -> AsyncIterator[RepositoryName]:
    """
    The repositories below some prefixes that have marks.

    :raises Stopped: when the run is to stop.
    """
    # Below a prefix there may be another one: each is visited once.
    waiting = sorted({prefix for prefix in prefixes if not any(is_below(prefix, [other]) for other in prefixes if other != prefix)})
    while waiting:
        name = waiting.pop()
        try:
            entries = await driver.scan(layout.repository(name))
        except Missing:
            continue
        await steps.take(1)
        if _CACHE in entries and is_below(name, prefixes):
            yield RepositoryName(name)
        waiting += longer_names(name, entries)


async def marks_of(driver: Driver, steps: Steps, name: RepositoryName) -> AsyncIterator[Mark]:
    """
    The marks of a repository. What is none is passed over.

    :raises Stopped: when the run is to stop.
    """
    for algorithm in ALGORITHMS:
        try:
            entries = await driver.scan(layout.cached_root(name, algorithm))
        except Missing:
            continue
        digests = sorted(digest for entry in entries if (digest := raw_name(algorithm, entry)) is not None)
        for start in range(0, len(digests), steps.lot):
            lot = digests[start : start + steps.lot]
            looks = await driver.stat_all([layout.cached(name, digest_of(digest)) for digest in lot])
            await steps.take(len(lot))
            for digest, look in zip(lot, looks, strict=True):
                if isinstance(look, Stat):
                    yield Mark(digest, look.modified)


class Survey:
    """
    All marks together, each digest once: some 150 bytes of memory for each.

    :ivar count: how many digests there are.
    """

    def __init__(self, driver: Driver, steps: Steps) -> None:
        self._driver = driver
        self._steps = steps
        self._places: dict[bytes, int] = {}
        self._used = array("d")
        self._sizes = array("q")

    @property
    def count(self) -> int:
        """How many digests there are."""
        return len(self._places)

    def used(self, digest: bytes) -> float:
        """When content was last used, whichever repository that was in; in seconds since the epoch."""
        return self._used[self._places[digest]]

    def size(self, digest: bytes) -> int:
        """Its size in bytes; 0 where there is none, or where it came later."""
        place = self._places.get(digest)
        return 0 if place is None else self._sizes[place]

    async def add(self, name: RepositoryName) -> None:
        """
        Take a repository's marks in.

        :raises Stopped: when the run is to stop.
        """
        new: list[bytes] = []
        async for mark in marks_of(self._driver, self._steps, name):
            place = self._places.setdefault(mark.digest, len(self._used))
            if place == len(self._used):
                self._used.append(mark.used)
                self._sizes.append(0)
                new.append(mark.digest)
            else:
                self._used[place] = max(self._used[place], mark.used)
        for start in range(0, len(new), self._steps.lot):
            lot = new[start : start + self._steps.lot]
            looks = await self._driver.stat_all([layout.blob_data(digest_of(digest)) for digest in lot])
            await self._steps.take(len(lot))
            for digest, look in zip(lot, looks, strict=True):
                self._sizes[self._places[digest]] = look.size if isinstance(look, Stat) else 0

    def among(self, digests: AbstractSet[bytes]) -> set[bytes]:
        """What of it is in a set."""
        return {digest for digest in self._places if digest in digests}

    def total(self, besides: AbstractSet[bytes] = frozenset()) -> int:
        """How many bytes all of it takes, but for some."""
        return sum(self._sizes[place] for digest, place in self._places.items() if digest not in besides)

    def oldest(self) -> float:
        """When what was not used for longest was last used; infinity where there is nothing."""
        return min(self._used, default=float("inf"))

    def going(self, maxsize: int | None, before: float, spared: AbstractSet[bytes] = frozenset()) -> set[bytes]:
        """
        What has to go: first what was not used since a time, then what was not used for longest, until the rest is not more than a size.

        :param maxsize: bytes; ``None`` for no limit.
        :param before: seconds since the epoch.
        :param spared: what stays, and does not count.
        """
        going = {digest for digest, place in self._places.items() if self._used[place] < before and digest not in spared}
        if maxsize is None:
            return going
        rest = [(self._used[place], digest) for digest, place in self._places.items() if digest not in spared and digest not in going]
        total = sum(self.size(digest) for _, digest in rest)
        # Of two that were used at once, as the layers of one image, the larger goes, so that fewer have to.
        for _, digest in sorted(rest, key=lambda one: (one[0], -self.size(one[1]))) if total > maxsize else ():
            if total <= maxsize:
                break
            if self.size(digest):
                going.add(digest)
                total -= self.size(digest)
        return going
