"""Manifests of a repository: found by tag or digest, validated and stored, deleted."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from regd.errors import DigestInvalid, ManifestInvalid, ManifestTooLarge, ManifestUnknown
from regd.maintenance.gate import Gate
from regd.manifest import LIMIT, Manifest, media_type_of, parse
from regd.names import ALGORITHMS, CANONICAL, Digest, Reference, RepositoryName, Tag
from regd.pace import Breathe, Pace
from regd.registry.blobs import Blob, Blobs
from regd.registry.by_digest import ByDigest
from regd.registry.pages import names_after
from regd.registry.promises import Promises
from regd.registry.rules import ManifestRules, check
from regd.spans import Part
from regd.storage import layout
from regd.storage.damage import Damage
from regd.storage.driver import Driver, Missing
from regd.storage.links import Links

__all__ = ["Manifests", "StoredManifest"]

#: How many tags are asked for at once when all of them are looked at.
_TAGS_AT_ONCE: Final = 1000

#: How much memory manifests that are kept may take, in bytes.
_CACHE_BUDGET: Final = 8 * 1024 * 1024

#: What a manifest takes besides its content: it may be a signature of 600 bytes, and there may be thousands of them.
_CACHE_OVERHEAD: Final = 512


@dataclass(frozen=True, slots=True)
class StoredManifest:
    """A manifest as it was pushed, to the byte."""

    digest: Digest
    media_type: str
    content: bytes


class Manifests:
    """
    The manifests and tags of all repositories.

    :param gate: what changes pass.
    """

    def __init__(
        self,
        driver: Driver,
        links: Links,
        blobs: Blobs,
        damage: Damage,
        gate: Gate,
        promises: Promises,
        rules: ManifestRules,
        breathe: Breathe,
    ) -> None:
        self._driver = driver
        self._links = links
        self._blobs = blobs
        self._damage = damage
        self._gate = gate
        self._promises = promises
        self._rules = rules
        self._breathe = breathe
        self._cache = ByDigest(_CACHE_BUDGET, _weight)

    async def get(self, name: RepositoryName, reference: Reference) -> StoredManifest:
        """
        :raises ManifestUnknown: when this repository does not hold it.
        """
        digest = await self.resolve(name, reference)
        stored = None if digest is None else await self._stored(digest)
        if stored is None:
            raise _unknown(reference)
        return stored

    async def promise(self, name: RepositoryName, reference: Reference) -> StoredManifest:
        """
        What :meth:`get` finds, for a client that relies on it: a collection leaves it there for the time of a push.

        :raises ManifestUnknown: when this repository does not hold it.
        """
        digest = await self.resolve(name, reference)
        blob = None if digest is None else await self._blobs.stored(digest)
        since = self._promises.since()
        if blob is None or (blob.modified < since and not await self._keep(name, reference, blob, since)):
            raise _unknown(reference)
        stored = self._cache.get(blob.digest) or await self._stored(blob.digest)
        if stored is None:
            raise _unknown(reference)
        return stored

    async def resolve(self, name: RepositoryName, reference: Reference) -> Digest | None:
        """The digest of a manifest, if this repository holds it."""
        if isinstance(reference, Tag):
            tagged = await self._links.read(layout.tag_link(name, reference), remember=True)
            if tagged is None:
                return None
            reference = tagged
        target = await self._links.read(layout.revision_link(name, reference), reference, remember=True)
        if target is None:
            # registry:2.1 wrote the links of manifests among those of layers.
            target = await self._links.read(layout.layer_link(name, reference), reference)
            if target is not None and await self._stored(target, quiet=True) is None:
                return None
        return target

    async def put(
        self,
        name: RepositoryName,
        reference: Reference,
        content: bytes,
        content_type: str = "",
        tags: Sequence[Tag] = (),
    ) -> tuple[Digest, Manifest]:
        """
        Check a manifest and store it: its bytes first, then that the repository holds it, then what refers to it.

        :param reference: the tag to give it, or the digest that it has to have.
        :param tags: further tags to give it.
        :raises DigestInvalid: when it has another digest.
        :raises ManifestTooLarge: above :data:`regd.manifest.LIMIT`.
        :raises ManifestInvalid: when it is not a manifest.
        :raises ManifestBlobUnknown: when it refers to what is not there.
        :raises Unavailable: when the gate stays closed.
        """
        if len(content) > LIMIT:
            raise ManifestTooLarge(f"a manifest has at most {LIMIT} bytes")
        asked = reference if isinstance(reference, Digest) else None
        digest = Digest.of(content, asked.algorithm if asked is not None else CANONICAL)
        if asked is not None and digest != asked:
            raise DigestInvalid(
                f"provided digest did not match uploaded content: the manifest has {digest}",
                detail={"digest": asked, "received": digest},
            )
        manifest = parse(content, content_type)
        if isinstance(reference, Tag):
            tags = (reference, *tags)
        with Part("manifest.commit"):
            whole = await self._blobs.whole(digest, len(content))
            async with self._gate.change():
                since = await self._promises.wanted_since()
                await self._check(name, manifest, since)
                await self._store(name, content, digest, manifest, since, tags, whole)
        return digest, manifest

    async def keep(self, name: RepositoryName, content: bytes, digest: Digest, tag: Tag | None = None) -> None:
        """
        Store a manifest that another registry has given. What it refers to need not be here: it is had from there when it is asked for.
        What of it is here is kept from a collection, as when a manifest is pushed.

        :param digest: what ``content`` has been found to have.
        :param tag: what the manifest was asked for by. That counts as :meth:`checked` now; nothing else is done to one that means the same
            already.
        :raises ManifestInvalid: when it is not a manifest; nothing is stored, for a collection could not read it.
        :raises Unavailable: when the gate stays closed.
        """
        manifest = parse(content)
        with Part("manifest.commit"):
            whole = await self._blobs.whole(digest, len(content))
            async with self._gate.change():
                since = await self._promises.wanted_since()
                await self._renew_all(name, manifest, since)
                same = tag is not None and await self._links.read(layout.tag_link(name, tag)) == digest
                await self._store(name, content, digest, manifest, since, () if tag is None or same else (tag,), whole)
                if same and tag is not None:
                    await self.renew(name, tag)

    async def checked(self, name: RepositoryName, tag: Tag) -> float | None:
        """
        When it was last found out what a tag means: pushed, or asked for where it comes from.

        :returns: seconds since the epoch; ``None`` where there is no such tag.
        """
        try:
            return (await self._driver.stat(layout.tag_link(name, tag))).modified
        except Missing:
            return None

    async def renew(self, name: RepositoryName, tag: Tag) -> None:
        """Have a tag count as :meth:`checked` now. One that is gone is none."""
        with suppress(Missing):
            await self._driver.renew(layout.tag_link(name, tag))

    async def _store(
        self, name: RepositoryName, content: bytes, digest: Digest, manifest: Manifest, since: float, tags: Sequence[Tag], whole: bool
    ) -> None:
        """
        Within the gate: bytes, then that the repository holds them, then what refers to that. Links must not come before what they lead to.

        :param whole: whether the bytes have been found to be in the storage.
        """
        # What makes it visible under other names comes last, all at once: nothing points from one of these to another.
        names = []
        if manifest.subject is not None:
            names.append(Links.file(layout.referrer_link(name, manifest.subject.digest, digest), digest))
        for tag in dict.fromkeys(tags):
            names.append(Links.file(layout.tag_index_link(name, tag, digest), digest))
            names.append(Links.file(layout.tag_link(name, tag), digest))
        revision = Links.file(layout.revision_link(name, digest), digest)
        path = layout.blob_data(digest)
        if whole and await self._blobs.kept(digest, since):
            await self._driver.write(revision, names)
        else:
            await self._driver.write((path, content), revision, names)
        self._damage.healed(path)

    async def _check(self, name: RepositoryName, manifest: Manifest, since: float) -> None:
        """
        Within the gate: see whether all that a manifest refers to is there, and that a collection that runs now sees that it is wanted.

        :raises ManifestBlobUnknown: when something is not there.
        :raises ManifestInvalid: as :func:`~regd.registry.rules.check`.
        """
        seen = set()

        async def holds_blob(digest: Digest) -> bool:
            seen.add(digest)
            return await self._renew_blob(name, digest, since)

        async def holds_manifest(digest: Digest) -> bool:
            seen.add(digest)
            return await self._renew_manifest(name, digest, since)

        await check(manifest, self._rules, holds_blob, holds_manifest)
        # What need not be there may be.
        await self._renew_all(name, manifest, since, seen)

    async def _renew_all(self, name: RepositoryName, manifest: Manifest, since: float, but: Collection[Digest] = ()) -> None:
        """Within the gate: have a collection that runs now see that what a manifest refers to, as far as it is here, is wanted."""
        for blob in manifest.blobs:
            if blob.digest not in but:
                await self._renew_blob(name, blob.digest, since)
        for other in (*manifest.manifests, *([manifest.subject] if manifest.subject is not None else ())):
            if other.digest not in but:
                await self._renew_manifest(name, other.digest, since)

    async def _renew_blob(self, name: RepositoryName, digest: Digest, since: float) -> bool:
        """Whether it is here."""
        blob = await self._blobs.find(name, digest)
        return blob is not None and await self._promises.keep(blob.digest, blob.modified, since)

    async def _renew_manifest(self, name: RepositoryName, digest: Digest, since: float) -> bool:
        """Whether it is here."""
        target = await self.resolve(name, digest)
        blob = None if target is None else await self._blobs.stored(target)
        return blob is not None and await self._promises.keep(blob.digest, blob.modified, since)

    async def _keep(self, name: RepositoryName, reference: Reference, blob: Blob, since: float) -> bool:
        """Renew a manifest that this repository holds; whether it is still there."""
        if isinstance(reference, Tag):
            # The tag holds the link.
            return await self._promises.keep(blob.digest, blob.modified, since)
        # registry:2.1 wrote the links of manifests among those of layers.
        for link in (layout.revision_link(name, reference), layout.layer_link(name, reference)):
            if await self._promises.keep(blob.digest, blob.modified, since, link):
                return True
        return False

    async def delete(self, name: RepositoryName, digest: Digest) -> None:
        """
        Take a manifest out of this repository, with every tag that means it. Its bytes stay until they are collected.

        :raises ManifestUnknown: when this repository does not hold it.
        :raises Unavailable: when the gate stays closed; some tags may be gone then.
        """
        target = await self.resolve(name, digest)
        if target is None:
            raise _unknown(digest)
        begun = False
        # Tags first: should this be cut short, no tag points to nothing, and the client can ask again.
        async for tag in self._tags(name):
            if await self._links.read(layout.tag_link(name, tag)) == target:
                # One by one, because looking for them may take long, and the gate cannot be closed meanwhile.
                async with self._gate.change():
                    # Whoever waited may find that it means something else now.
                    if await self._links.read(layout.tag_link(name, tag)) == target:
                        begun = await self._drop_tag(name, tag) or begun
        subject = await self._subject(target)
        async with self._gate.change():
            if subject is not None:
                await self._drop(layout.referrer(name, subject, target))
            # Without a link of its own it stands in registry:2.1's place; registry:2 leaves the directory when it deletes the link.
            own = await self._links.read(layout.revision_link(name, digest), digest)
            gone = await self._drop(layout.layer(name, digest) if own is None else layout.revision(name, digest))
        # Once its tags are gone a collection may take the rest, too.
        if not (gone or begun):
            raise _unknown(digest)

    async def untag(self, name: RepositoryName, tag: Tag) -> None:
        """
        Delete a tag; what it meant stays.

        :raises ManifestUnknown: when there is no such tag.
        :raises Unavailable: when the gate stays closed.
        """
        async with self._gate.change():
            if not await self._drop_tag(name, tag):
                raise _unknown(tag)

    async def read(self, digest: Digest) -> Manifest | None:
        """What a stored manifest says, whichever repository holds it; ``None`` when it is not there or cannot be read."""
        stored = await self._stored(digest)
        if stored is None:
            return None
        try:
            return parse(stored.content)
        except ManifestInvalid as error:
            self._damage.report(layout.blob_data(digest), f"not a valid manifest ({error.message}), passed over")
            return None

    async def _stored(self, digest: Digest, *, quiet: bool = False) -> StoredManifest | None:
        known = self._cache.get(digest)
        if known is not None:
            # Content never changes under its digest, but it may be collected, by another process too.
            return known if await self._driver.exists(layout.blob_data(digest)) else None
        path = layout.blob_data(digest)
        try:
            content = await self._driver.read(path, LIMIT + 1)
        except Missing:
            return None
        if len(content) > LIMIT:
            if not quiet:
                self._damage.report(path, f"cannot be served as a manifest: it has more than {LIMIT} bytes")
            return None
        try:
            if Digest.of(content, digest.algorithm) != digest:
                raise ManifestInvalid("its content has another digest")
            stored = StoredManifest(digest, media_type_of(content), content)
        except ManifestInvalid as error:
            if not quiet:
                self._damage.report(path, f"cannot be served as a manifest: {error.message}")
            return None
        self._cache.put(digest, stored)
        return stored

    async def _subject(self, digest: Digest) -> Digest | None:
        manifest = await self.read(digest)
        return None if manifest is None or manifest.subject is None else manifest.subject.digest

    async def _tags(self, name: RepositoryName) -> AsyncIterator[Tag]:
        """What may be a tag."""
        try:
            async for entry in names_after(self._driver, layout.tags(name), "", _TAGS_AT_ONCE, Pace(self._breathe)):
                yield Tag(entry)
        except Missing:
            return

    async def _drop_tag(self, name: RepositoryName, tag: Tag) -> bool:
        # A tag's directory without a current link is a leftover, not a tag.
        return await self._driver.exists(layout.tag_link(name, tag)) and await self._drop(layout.tag(name, tag))

    async def _drop(self, path: layout.Path) -> bool:
        try:
            await self._driver.delete(path)
        except Missing:
            return False
        return True


def _unknown(reference: Reference) -> ManifestUnknown:
    kind = "digest" if reference.partition(":")[0] in ALGORITHMS else "tag"
    return ManifestUnknown(f"manifest unknown: no {kind} {reference} in this repository", detail={kind: reference})


def _weight(stored: StoredManifest) -> int:
    return len(stored.content) + _CACHE_OVERHEAD
