"""
Referrers: the manifests whose ``subject`` is a given one (specification 1.1, "Listing Referrers").

Each is linked from its subject when it is pushed, so a page reads the manifests that it shows and no others. Clients of registries without
this API wrote an index under a tag made from the subject's digest instead; what that index lists, and the repository holds, is merged in.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import Final

from regd.errors import DigestInvalid, ManifestInvalid, ManifestUnknown
from regd.manifest import Descriptor, Manifest, parse
from regd.names import ALGORITHMS, Digest, RepositoryName, Tag
from regd.pace import Breathe, Pace
from regd.registry.by_digest import ByDigest
from regd.registry.manifests import Manifests
from regd.registry.pages import Page, names_after
from regd.storage import layout
from regd.storage.driver import Driver, Missing

__all__ = ["PAGE_BYTES", "Referrers", "fallback_tag"]

#: How long the entries of a page may be together, in bytes of JSON. Clients take indexes up to 4 MiB; annotations may be as long as that in
#: each entry. A page has one entry, however long it is.
PAGE_BYTES: Final = 1024 * 1024

#: How many manifests are read for a page that shows only those of one type. What is found by then is a page, and may be none.
_LOOKED_AT: Final = 4096

#: How many digests are remembered of fallback tags' indexes; about 130 bytes each.
_REMEMBERED: Final = 10_000


def fallback_tag(subject: Digest) -> Tag:
    """The tag of specification 1.1, "Referrers Tag Schema": a ``-`` for the colon, the encoded part cut to 64 characters."""
    return Tag(f"{subject.algorithm}-{subject.hex[:64]}")


class Referrers:
    """Lists referrers in the order of their digests."""

    def __init__(self, driver: Driver, manifests: Manifests, breathe: Breathe) -> None:
        self._driver = driver
        self._manifests = manifests
        self._breathe = breathe
        #: What fallback tags' indexes list, by the digest of the index. That is checked against the repository on use, so it does no harm
        #: that the index itself may be gone.
        self._fallbacks = ByDigest(_REMEMBERED, _weight)

    async def page(
        self, name: RepositoryName, subject: Digest, limit: int, last: str = "", artifact_type: str | None = None
    ) -> Page[Descriptor]:
        """
        Up to ``limit`` referrers after the digest ``last``; none at all for a subject, or a repository, that nobody knows. Fewer where they
        are long (:data:`PAGE_BYTES`), or hard to find: with ``artifact_type`` a page may be empty and not the last.

        :param artifact_type: only those of this type.
        """
        found: list[Descriptor] = []
        size = looked_at = 0
        async for digest in self._digests(name, subject, last, limit + 1):
            descriptor = await self._descriptor(name, subject, digest)
            looked_at += 1
            if descriptor is not None and (artifact_type is None or descriptor.artifact_type == artifact_type):
                size += len(json.dumps(descriptor.to_json()))
                if len(found) == limit or (found and size > PAGE_BYTES):
                    return Page(tuple(found), found[-1].digest if found else "")
                found.append(descriptor)
            if looked_at >= limit + _LOOKED_AT:
                return Page(tuple(found), digest)
        return Page(tuple(found))

    async def _digests(self, name: RepositoryName, subject: Digest, last: str, expected: int) -> AsyncIterator[Digest]:
        """What may be a referrer, after ``last``, in order: links and the fallback tag's index, merged as they are needed."""
        listed = await self._fallback(name, subject)
        waiting = deque(listed[bisect_right(listed, last) :])
        pace = Pace(self._breathe)
        for algorithm in ALGORITHMS:
            async for digest in self._linked(name, subject, algorithm, last, expected, pace):
                while waiting and waiting[0] < digest:
                    yield waiting.popleft()
                    await pace.step()
                if waiting and waiting[0] == digest:
                    waiting.popleft()
                yield digest
        while waiting:
            yield waiting.popleft()
            await pace.step()

    async def _linked(
        self, name: RepositoryName, subject: Digest, algorithm: str, last: str, expected: int, pace: Pace
    ) -> AsyncIterator[Digest]:
        """Those of one algorithm that are linked from their subject, after ``last``."""
        prefix = f"{algorithm}:"
        begin = last.removeprefix(prefix)
        if begin == last:
            if last > prefix:
                return
            begin = ""
        try:
            async for entry in names_after(self._driver, layout.referrers(name, subject, algorithm), begin, expected, pace):
                try:
                    yield Digest.parse(prefix + entry)
                except DigestInvalid:
                    continue
        except Missing:
            return

    async def _fallback(self, name: RepositoryName, subject: Digest) -> Sequence[Digest]:
        """What the index under the fallback tag lists, in order."""
        index = await self._manifests.resolve(name, fallback_tag(subject))
        if index is None:
            return ()
        known = self._fallbacks.get(index)
        if known is not None:
            return known
        manifest = await self._manifests.read(index)
        if manifest is None:
            return ()
        listed = tuple(sorted({child.digest for child in manifest.manifests}))
        if len(listed) <= _REMEMBERED:
            self._fallbacks.put(index, listed)
        return listed

    async def _descriptor(self, name: RepositoryName, subject: Digest, digest: Digest) -> Descriptor | None:
        """What the listing says of a referrer; ``None`` when the repository does not hold it, or it is about something else."""
        try:
            stored = await self._manifests.get(name, digest)
        except ManifestUnknown:
            return None
        manifest: Manifest | None
        try:
            manifest = parse(stored.content)
        except ManifestInvalid:
            # Reports the damage.
            manifest = await self._manifests.read(digest)
        if manifest is None or manifest.subject is None or manifest.subject.digest != subject:
            return None
        return Descriptor(
            media_type=manifest.media_type,
            digest=digest,
            size=len(stored.content),
            artifact_type=manifest.artifact_type,
            annotations=manifest.annotations,
        )


def _weight(listed: tuple[Digest, ...]) -> int:
    # One for the index itself, so that there is an end to empty ones, too.
    return len(listed) + 1
