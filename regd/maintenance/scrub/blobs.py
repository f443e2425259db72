"""The blobs, each read to its end and compared with its digest."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Final

from regd.maintenance.scrub.desk import Desk, key
from regd.maintenance.scrub.findings import Finding
from regd.maintenance.scrub.hashing import Hasher
from regd.maintenance.scrub.mending import Mender
from regd.names import Digest
from regd.storage import layout
from regd.storage.driver import Stat

__all__ = ["Blobs"]

#: How often a blob is hashed again that changes while it is hashed.
_TRIES: Final = 3

#: How many characters of a digest are the name of the directory that its blob's directory is in.
_PREFIX: Final = 2


#: What is said of a damaged blob, and of one that has been moved aside, by who has it.
_DAMAGED: Final = {
    "linked": "--repair moves it aside, so that a push mends it",
    "cached": "--repair moves it aside, so that it is fetched again",
    "": "no repository has it; --repair moves it aside",
}
_ASIDE: Final = {
    "linked": "pushing it again mends that",
    "cached": "it is fetched again when it is asked for",
    "": "no repository has it",
}


class Blobs:
    """
    :param linked: the blobs that repositories link, by :func:`~regd.maintenance.scrub.desk.key`.
    :param aliases: under which other digests repositories have a blob.
    :param cached: the blobs that can be had from an upstream again, likewise.
    """

    def __init__(
        self,
        desk: Desk,
        hasher: Hasher,
        mender: Mender,
        linked: AbstractSet[bytes],
        aliases: Mapping[Digest, AbstractSet[Digest]],
        cached: AbstractSet[bytes],
    ) -> None:
        self._desk = desk
        self._driver = desk.driver
        self._hasher = hasher
        self._mender = mender
        self._linked = linked
        self._aliases = aliases
        self._cached = cached

    async def measure(self) -> tuple[int, int]:
        """How many blobs there are, and their bytes; for whoever wants to know how long it will take."""
        count = size = 0
        for algorithm in await self._desk.names(layout.blobs()):
            for prefix in await self._desk.names(layout.blobs(algorithm)):
                await self._desk.breathe()
                above = layout.blobs(algorithm, prefix)
                names = await self._desk.names(above)
                for found in await self._driver.stat_all([layout.inside(above, name, "data") for name in names]):
                    if isinstance(found, Stat):
                        count += 1
                        size += found.size
        return count, size

    async def check(self, after: str) -> AsyncIterator[str]:
        """
        Look at all blobs, in order.

        :param after: only at those that come after this digest.
        :returns: each that was looked at; an empty text when all doubts about those before have been looked into.
        """
        for algorithm in await self._desk.algorithms(layout.blobs()):
            for prefix in await self._desk.entries(layout.blobs(algorithm)):
                if f"{algorithm}:{prefix}" < after[: len(algorithm) + 1 + _PREFIX]:
                    continue
                if len(prefix) != _PREFIX:
                    self._desk.strange(layout.blobs(algorithm, prefix), "not the beginning of a digest")
                    continue
                async for digest in self._desk.digests(layout.blobs(algorithm, prefix), algorithm, prefix):
                    if digest > after:
                        await self._desk.step()
                        await self._blob(digest)
                        yield digest
                await self._desk.confirm()
                yield ""

    async def _blob(self, digest: Digest) -> None:
        path = layout.blob_data(digest)
        if not await self._desk.leaf(layout.blob(digest), "data"):
            return
        linked = key(digest) in self._linked
        home = "cached" if key(digest) in self._cached else "linked" if linked else ""
        aliases = self._aliases.get(digest, frozenset())
        seen = Stat(0, 0)
        size = 0

        async def look() -> Finding | None:
            nonlocal seen, size
            seen = await self._driver.stat(path)
            wanted = {digest.algorithm, *(alias.algorithm for alias in aliases)}
            size, found = await self._hasher.digests(path, sorted(wanted))
            if found[digest.algorithm] != digest:
                what = "is empty" if not size else f"has the digest {found[digest.algorithm]}"
                return Finding(path, what, _DAMAGED[home])
            wrong = sorted(alias for alias in aliases if found[alias.algorithm] != alias)
            if wrong:
                return Finding(path, f"is linked as {wrong[0]}, which is not its digest", "left alone; push that again")
            return None

        async def mend(finding: Finding) -> Finding | None:
            if not finding.what.startswith(("is empty", "has the digest")):
                return finding
            for _ in range(_TRIES):
                if await self._mender.aside(digest, seen):
                    where = f"moved aside to {layout.damaged(digest)}"
                    # Where nobody misses it, or it comes by itself, that was all there was to do.
                    return Finding(path, finding.what, f"{where}; {_ASIDE[home]}", mended=home != "linked")
                again = await look()
                if again is None:
                    return None
            return finding

        await self._desk.examine(path, look, mend)
        self._desk.progress.blobs += 1
        if not linked:
            self._desk.progress.orphans += 1
            self._desk.progress.orphan_bytes += size
