"""
Referrers: the manifests whose ``subject`` is a given one (specification 1.1, "Listing Referrers").

Each is linked from its subject when it is pushed, so a page reads the manifests that it shows and no others. Clients of registries without
this API wrote an index under a tag made from the subject's digest instead; what that index lists, and the repository holds, is merged in.
"""

from __future__ import annotations

from collections.abc import Sequence

from regd.errors import DigestInvalid, ManifestUnknown
from regd.manifest import Descriptor
from regd.names import ALGORITHMS, Digest, RepositoryName, Tag
from regd.registry.manifests import Manifests
from regd.registry.pace import Breathe, paced
from regd.registry.pages import Page
from regd.storage import layout
from regd.storage.driver import Driver, Missing

__all__ = ["Referrers", "fallback_tag"]


def fallback_tag(subject: Digest) -> Tag:
    """The tag of specification 1.1, "Referrers Tag Schema": a ``-`` for the colon, the encoded part cut to 64 characters."""
    return Tag(f"{subject.algorithm}-{subject.hex[:64]}")


class Referrers:
    """Lists referrers in the order of their digests."""

    def __init__(self, driver: Driver, manifests: Manifests, breathe: Breathe) -> None:
        self._driver = driver
        self._manifests = manifests
        self._breathe = breathe

    async def page(
        self, name: RepositoryName, subject: Digest, limit: int, last: str = "", artifact_type: str | None = None
    ) -> Page[Descriptor]:
        """
        Up to ``limit`` referrers after the digest ``last``; none at all for a subject, or a repository, that nobody knows.

        :param artifact_type: only those of this type.
        """
        found: list[Descriptor] = []
        async for digest in paced(await self._digests(name, subject), self._breathe):
            if digest <= last:
                continue
            descriptor = await self._descriptor(name, subject, digest)
            if descriptor is None or (artifact_type is not None and descriptor.artifact_type != artifact_type):
                continue
            if len(found) == limit:
                return Page(tuple(found), found[-1].digest if found else "")
            found.append(descriptor)
        return Page(tuple(found))

    async def _digests(self, name: RepositoryName, subject: Digest) -> Sequence[Digest]:
        digests = {child.digest for child in await self._fallback(name, subject)}
        for algorithm in ALGORITHMS:
            try:
                entries = await self._driver.names(layout.referrers(name, subject, algorithm))
            except Missing:
                continue
            for entry in entries:
                try:
                    digests.add(Digest.parse(f"{algorithm}:{entry}"))
                except DigestInvalid:
                    continue
        return sorted(digests)

    async def _fallback(self, name: RepositoryName, subject: Digest) -> Sequence[Descriptor]:
        index = await self._manifests.resolve(name, fallback_tag(subject))
        manifest = None if index is None else await self._manifests.read(index)
        return () if manifest is None else manifest.manifests

    async def _descriptor(self, name: RepositoryName, subject: Digest, digest: Digest) -> Descriptor | None:
        """What the listing says of a referrer; ``None`` when the repository does not hold it, or it is about something else."""
        try:
            stored = await self._manifests.get(name, digest)
        except ManifestUnknown:
            return None
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
