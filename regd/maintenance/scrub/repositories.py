"""The links and manifests of repositories, looked at one by one and against each other."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from regd.errors import DigestInvalid, ManifestInvalid, NameInvalid, TagInvalid
from regd.maintenance.scrub.desk import Desk, key
from regd.maintenance.scrub.findings import Finding, Kind
from regd.maintenance.scrub.mending import Mender
from regd.manifest import FOREIGN_LAYERS, LIMIT, Manifest, parse
from regd.names import CANONICAL, Digest, RepositoryName, Tag
from regd.storage import layout
from regd.storage.driver import Missing
from regd.storage.layout import Path
from regd.storage.links import LIMIT as LINK_LIMIT
from regd.storage.links import BadLink, check_link, parse_link

__all__ = ["Repositories"]

_CACHE: Final = "_cache"
_LAYERS: Final = "_layers"
_MANIFESTS: Final = "_manifests"
_REFERRERS: Final = "_referrers"
_UPLOADS: Final = "_uploads"

_PUSH: Final = "pushing it again mends that, and until then it cannot be pulled"
_MENDABLE: Final = "--repair writes it again"


@dataclass(slots=True)
class _Held:
    """
    What one repository has links to, by :func:`~regd.maintenance.scrub.desk.key`: under a layer link, and under a revision link. And the
    blob that each revision is kept as, in order.
    """

    layers: set[bytes] = field(default_factory=set)
    revisions: set[bytes] = field(default_factory=set)
    manifests: list[tuple[Digest, Digest]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Flaw:
    """Why a link points to nothing: ``what`` is wrong with it."""

    what: str


class Repositories:
    """
    Looks at repositories.

    :param sparse: whether the configuration lets an index name images that are not here.
    :ivar linked: the blobs that any repository links, by :func:`~regd.maintenance.scrub.desk.key`.
    :ivar aliases: what blobs that are kept under another algorithm are linked as, by the blob.
    :ivar cached: the blobs that came from an upstream, and can be had from there again; likewise.
    """

    def __init__(self, desk: Desk, mender: Mender, *, sparse: bool) -> None:
        self.linked: set[bytes] = set()
        self.cached: set[bytes] = set()
        self.aliases: dict[Digest, set[Digest]] = {}
        self._desk = desk
        self._driver = desk.driver
        self._mender = mender
        self._sparse = sparse

    async def walk(self, after: str = "") -> AsyncIterator[RepositoryName]:
        """All repositories, and what is only the beginning of others' names, in the order of their names' components."""
        last = after.split("/")
        async for name in self._below("", [], last if after else []):
            yield name

    async def _below(self, prefix: str, above: list[str], last: list[str]) -> AsyncIterator[RepositoryName]:
        for entry in await self._desk.entries(layout.repository(prefix.rstrip("/"))):
            if entry.startswith("_"):
                continue
            here = [*above, entry]
            if here < last[: len(here)]:
                continue
            try:
                name = RepositoryName.parse(f"{prefix}{entry}")
            except NameInvalid:
                self._desk.strange(layout.repository(f"{prefix}{entry}"), "not the name of a repository, so nobody can pull from it")
                continue
            if here > last:
                yield name
            async for inner in self._below(f"{name}/", here, last):
                yield inner

    async def gather(self, name: RepositoryName) -> None:
        """Learn which blobs a repository links, without looking at more than names; for a scrub that goes on behind it."""
        for algorithm in await self._desk.names(layout.cached_root(name)):
            for entry in await self._desk.names(layout.cached_root(name, algorithm)):
                with suppress(DigestInvalid):
                    self.cached.add(key(Digest.parse(f"{algorithm}:{entry}")))
        for place, link in ((layout.layers, layout.layer_link), (layout.revisions, layout.revision_link)):
            for algorithm in await self._desk.names(place(name)):
                for entry in await self._desk.names(place(name, algorithm)):
                    try:
                        digest = Digest.parse(f"{algorithm}:{entry}")
                    except DigestInvalid:
                        continue
                    self.linked.add(key(digest))
                    if algorithm != CANONICAL:
                        (content,) = await self._driver.read_all([link(name, digest)], LINK_LIMIT)
                        target = _read(content, digest) if isinstance(content, bytes) else digest
                        self._link(digest, digest if isinstance(target, _Flaw) else target)

    async def check(self, name: RepositoryName) -> bool:
        """
        Look at everything in a repository.

        :returns: whether it is one, and not just a part of the names of others.
        """
        desk, held = self._desk, _Held()
        own = [entry for entry in await desk.entries(layout.repository(name)) if entry.startswith("_")]
        if not own:
            return False
        for entry in own:
            if entry not in {_CACHE, _LAYERS, _MANIFESTS, _REFERRERS, _UPLOADS}:
                desk.strange(layout.inside(layout.repository(name), entry), "nothing that is known in a repository")
        await self._marks(name)
        await self._layers(name, held)
        await self._revisions(name, held)
        for revision, target in held.manifests:
            await desk.step()
            await self._manifest(name, revision, target, held)
        await self._tags(name, held)
        await self._referrers(name, held)
        await self._temporary(name)
        return True

    async def _marks(self, name: RepositoryName) -> None:
        """What says that content came from an upstream. The content may be on its way, or have gone: that is no matter."""
        for algorithm in await self._desk.algorithms(layout.cached_root(name)):
            async for digest in self._desk.digests(layout.cached_root(name, algorithm), algorithm):
                await self._desk.breathe()
                self.cached.add(key(digest))

    # Links to content.

    async def _layers(self, name: RepositoryName, held: _Held) -> None:
        for algorithm in await self._desk.algorithms(layout.layers(name)):
            async for digest in self._desk.digests(layout.layers(name, algorithm), algorithm):
                await self._desk.step()
                if await self._desk.leaf(layout.layer(name, digest), "link"):
                    await self._content_link(name, layout.layer_link(name, digest), digest, held.layers)

    async def _revisions(self, name: RepositoryName, held: _Held) -> None:
        for algorithm in await self._desk.algorithms(layout.revisions(name)):
            async for digest in self._desk.digests(layout.revisions(name, algorithm), algorithm):
                await self._desk.step()
                if await self._desk.leaf(layout.revision(name, digest), "link"):
                    target = await self._content_link(name, layout.revision_link(name, digest), digest, held.revisions)
                    if target is not None:
                        held.manifests.append((digest, target))

    async def _content_link(self, name: RepositoryName, path: Path, digest: Digest, held: set[bytes]) -> Digest | None:
        """
        Look at a link that stands under the digest of what it points to.

        :param held: where it is noted that it is there.
        :returns: what it points to, when that is there.
        """
        self._desk.progress.links += 1
        target = digest

        async def look() -> Finding | None:
            nonlocal target
            found = _read(await self._driver.read(path, LINK_LIMIT), digest)
            if isinstance(found, _Flaw):
                there = await self._is_there(digest)
                return Finding(path, found.what, _MENDABLE if there else f"what it stands for is not there either; {_PUSH}")
            target = found
            # What is cached is fetched again when it is asked for.
            if await self._is_there(found) or await self._is_cached(name, digest):
                return None
            return Finding(path, "what it links is not there", _PUSH)

        async def mend(finding: Finding) -> Finding | None:
            return await self._mender.rewrite(finding, path, digest, look)

        fine = await self._desk.examine(path, look, mend)
        held.add(self._link(digest, target))
        return target if fine else None

    def _link(self, digest: Digest, target: Digest) -> bytes:
        own = key(digest)
        self.linked.add(own)
        if target != digest:
            self.linked.add(key(target))
            self.aliases.setdefault(target, set()).add(digest)
        # The very one that is in the set: a repository may link all blobs that there are.
        return own

    async def _is_there(self, digest: Digest) -> bool:
        try:
            found = await self._driver.stat(layout.blob_data(digest))
        except Missing:
            return False
        # What is in it, the blobs' turn will tell.
        return found.size > 0 or digest == Digest.of(b"", digest.algorithm)

    async def _is_cached(self, name: RepositoryName, digest: Digest) -> bool:
        return key(digest) in self.cached and await self._driver.exists(layout.cached(name, digest))

    # Manifests.

    async def _manifest(self, name: RepositoryName, revision: Digest, target: Digest, held: _Held) -> None:
        path = layout.revision_link(name, revision)
        read: list[Manifest] = []

        async def look() -> Finding | None:
            content = await self._driver.read(layout.blob_data(target), LIMIT + 1)
            if len(content) > LIMIT:
                return Finding(path, f"links {len(content)} bytes or more, too many for a manifest", "left alone", Kind.STRANGE)
            if Digest.of(content, target.algorithm) != target:
                # The blobs' turn tells of it.
                return None
            try:
                read.append(parse(content))
            except ManifestInvalid as error:
                kind = Kind.STRANGE if _old(content) else Kind.DAMAGE
                return Finding(path, f"what it links cannot be served as a manifest: {error.message}", "left alone", kind)
            return None

        self._desk.progress.manifests += 1
        await self._desk.examine(path, look)
        for manifest in read:
            await self._refers(name, revision, manifest, held)

    async def _refers(self, name: RepositoryName, revision: Digest, manifest: Manifest, held: _Held) -> None:
        """Look at what a manifest refers to."""
        # One that came from an upstream is there without what nobody has asked for yet, or not for long.
        cached = await self._is_cached(name, revision)
        for blob in () if cached else manifest.blobs:
            if not (blob.media_type in FOREIGN_LAYERS and blob.urls):
                await self._needed(name, blob.digest, held.layers, revision, layout.layer_link(name, blob.digest))
        if not (self._sparse or cached):
            for child in manifest.manifests:
                # registry:2.1 wrote the links of manifests among those of layers.
                if key(child.digest) not in held.layers:
                    await self._needed(name, child.digest, held.revisions, revision, layout.revision_link(name, child.digest))
        if manifest.subject is not None:
            await self._subject(name, manifest.subject.digest, revision)

    async def _needed(self, name: RepositoryName, digest: Digest, held: set[bytes], by: Digest, path: Path) -> None:
        """See to it that the repository holds what a manifest names. That it is there, its own link's turn has told."""
        if key(digest) in held:
            return

        async def look() -> Finding | None:
            if await self._driver.exists(path) or not await self._driver.exists(layout.revision_link(name, by)):
                return None
            what = f"is missing, and manifest {by} of this repository names it"
            return Finding(path, what, "left so, as somebody may have deleted it; pushing the image again mends that")

        # Once for each repository is enough, whatever number of its manifests name it.
        held.add(key(digest))
        await self._desk.examine(path, look)

    async def _subject(self, name: RepositoryName, subject: Digest, digest: Digest) -> None:
        path = layout.referrer_link(name, subject, digest)

        async def look() -> Finding | None:
            if await self._driver.exists(path) or not await self._driver.exists(layout.revision_link(name, digest)):
                return None
            return Finding(path, "is missing, so the manifest is not among the referrers of its subject", _MENDABLE)

        async def mend(finding: Finding) -> Finding | None:
            return await self._mender.rewrite(finding, path, digest, look)

        await self._desk.examine(path, look, mend)

    # Tags.

    async def _tags(self, name: RepositoryName, held: _Held) -> None:
        for entry in await self._desk.entries(layout.tags(name)):
            await self._desk.step()
            try:
                tag = Tag.parse(entry)
            except TagInvalid:
                self._desk.strange(layout.inside(layout.tags(name), entry), "not the name of a tag, so it is in no list")
                continue
            for inner in await self._desk.entries(layout.tag(name, tag)):
                if inner == "current":
                    await self._desk.leaf(layout.above(layout.tag_link(name, tag)), "link")
                elif inner != "index":
                    self._desk.strange(layout.inside(layout.tag(name, tag), inner), "nothing that is known in a tag")
            index = [digest async for digest in self._index(name, tag)]
            await self._current(name, tag, [digest for digest in index if key(digest) in held.revisions])

    async def _index(self, name: RepositoryName, tag: Tag) -> AsyncIterator[Digest]:
        """The manifests that a tag has meant."""
        for algorithm in await self._desk.algorithms(layout.tag_index(name, tag)):
            async for digest in self._desk.digests(layout.tag_index(name, tag, algorithm), algorithm):
                path = layout.tag_index_link(name, tag, digest)
                if await self._desk.leaf(layout.above(path), "link"):
                    self._desk.progress.links += 1
                    await self._memory(path, digest, layout.revision_link(name, digest))
                    yield digest

    async def _memory(self, path: Path, digest: Digest, revision: Path) -> bool:
        """
        Look at a link that only remembers: a tag's index entry, or a referrer. What it is about may have been deleted.

        :returns: whether nothing seems wrong.
        """

        async def look() -> Finding | None:
            found = _read(await self._driver.read(path, LINK_LIMIT), digest)
            if not isinstance(found, _Flaw):
                return None
            if await self._driver.exists(revision):
                return Finding(path, found.what, _MENDABLE)
            return Finding(path, f"{found.what}, for a manifest that is not here any more", "--repair removes it", Kind.LEFTOVER)

        async def mend(finding: Finding) -> Finding | None:
            if finding.kind is Kind.LEFTOVER:
                return await self._mender.drop(finding, layout.above(path), look)
            return await self._mender.rewrite(finding, path, digest, look)

        return await self._desk.examine(path, look, mend)

    async def _current(self, name: RepositoryName, tag: Tag, index: list[Digest]) -> None:
        """
        :param index: the manifests that it has meant and that are here.
        """
        path = layout.tag_link(name, tag)
        self._desk.progress.links += 1

        async def look() -> Finding | None:
            try:
                found = _read(await self._driver.read(path, LINK_LIMIT))
            except Missing:
                if not await self._driver.exists(layout.tag(name, tag)):
                    return None
                found = _Flaw("is missing, so the tag cannot be pulled")
            if isinstance(found, _Flaw):
                if len(index) == 1:
                    return Finding(path, found.what, f"{_MENDABLE}, for {index[0]}, the only manifest that it has meant and that is here")
                several = f"it has meant {len(index)} manifests that are here" if index else "nothing tells what it meant"
                return Finding(path, found.what, f"{several}; push the tag again")
            if await self._driver.exists(layout.revision_link(name, found)) or await self._driver.exists(layout.layer_link(name, found)):
                return None
            return Finding(path, f"means {found}, which is not in this repository", "push the tag again, or delete it")

        async def mend(finding: Finding) -> Finding | None:
            if len(index) != 1 or not finding.remedy.startswith(_MENDABLE):
                return finding
            return await self._mender.rewrite(finding, path, index[0], look)

        await self._desk.examine(path, look, mend)

    # Referrers.

    async def _referrers(self, name: RepositoryName, held: _Held) -> None:
        for algorithm in await self._desk.algorithms(layout.referrers_root(name)):
            async for subject in self._desk.digests(layout.referrers_root(name, algorithm), algorithm):
                for own in await self._desk.algorithms(layout.referrers(name, subject)):
                    async for digest in self._desk.digests(layout.referrers(name, subject, own), own):
                        await self._desk.step()
                        if await self._desk.leaf(layout.referrer(name, subject, digest), "link"):
                            await self._referrer(name, subject, digest, held)

    async def _referrer(self, name: RepositoryName, subject: Digest, digest: Digest, held: _Held) -> None:
        self._desk.progress.links += 1
        path, revision = layout.referrer_link(name, subject, digest), layout.revision_link(name, digest)
        if not await self._memory(path, digest, revision) or key(digest) in held.revisions or key(digest) in held.layers:
            return

        async def look() -> Finding | None:
            if await self._driver.exists(revision) or not await self._driver.exists(path):
                return None
            return Finding(path, "a referrer that is not here any more", "in no list; --repair removes it", Kind.LEFTOVER)

        async def mend(finding: Finding) -> Finding | None:
            return await self._mender.drop(finding, layout.referrer(name, subject, digest), look)

        await self._desk.examine(path, look, mend)

    # Uploads: their bytes are unfinished by nature, and the purge sees to the old ones.

    async def _temporary(self, name: RepositoryName) -> None:
        root = layout.uploads(name)
        for upload in await self._desk.entries(root):
            for entry in await self._desk.entries(layout.inside(root, upload)):
                if entry.endswith(".tmp"):
                    await self._desk.temporary(layout.inside(root, upload, entry))


def _read(content: bytes, under: Digest | None = None) -> Digest | _Flaw:
    """
    What a link points to, or what is wrong with it.

    :param under: the digest that it stands under, if it does.
    """
    try:
        found = parse_link(content)
        check_link(found, under)
    except BadLink as error:
        return _Flaw(str(error))
    return found


def _old(content: bytes) -> bool:
    """Whether this is an image manifest of schema 1, which is what it is, and not damaged."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return False
    return isinstance(document, dict) and document.get("schemaVersion") == 1
