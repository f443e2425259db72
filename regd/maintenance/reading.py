"""
What one repository holds, read from the storage for a collection: its tags, its manifests, its links to blobs.

What cannot be read might refer to anything that the repository holds, so then all of that counts as referred to: :attr:`Found.damaged`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from typing import Final

from regd.errors import ManifestInvalid
from regd.maintenance.graph import Node, digest_of, raw, raw_name
from regd.maintenance.steps import Skipped, Steps
from regd.maintenance.survey import is_below
from regd.manifest import LIMIT, parse
from regd.names import ALGORITHMS, CANONICAL, Digest, RepositoryName, Tag
from regd.storage import layout
from regd.storage.driver import Driver, Missing, Stat, StorageError
from regd.storage.layout import Path
from regd.storage.links import LIMIT as LINK_LIMIT
from regd.storage.links import BadLink, check_link, parse_link

__all__ = ["Found", "Reader", "lots"]

#: Nearly all manifests are smaller than this, in bytes; a lot of them is held at once.
_USUAL: Final = 32 * 1024

_SHA256: Final = 32


@dataclass(slots=True, eq=False)
class Found:
    """
    What a repository holds.

    :ivar tags: what each tag means.
    :ivar revisions: what each link to a manifest holds, under the digest that it stands under.
    :ivar layers: the digests that links to blobs stand under.
    :ivar targets: what those of these links hold that do not hold the digest that they stand under.
    :ivar tagged: the names of all directories of tags.
    :ivar stray: directories that may have been left empty.
    :ivar uploads: the names of the directories of uploads.
    :ivar cached: the digests of what came from an upstream.
    :ivar damaged: whether something here could not be read.
    :ivar doubtful: what such a thing seems to refer to.
    """

    name: RepositoryName
    tags: dict[str, bytes] = field(default_factory=dict)
    revisions: dict[bytes, bytes] = field(default_factory=dict)
    layers: set[bytes] = field(default_factory=set)
    targets: dict[bytes, bytes] = field(default_factory=dict)
    tagged: list[str] = field(default_factory=list)
    stray: list[Path] = field(default_factory=list)
    uploads: list[str] = field(default_factory=list)
    cached: set[bytes] = field(default_factory=set)
    damaged: bool = False
    doubtful: set[bytes] = field(default_factory=set)

    def target(self, layer: bytes) -> bytes:
        """Where the bytes are of a blob that this repository links."""
        return self.targets.get(layer, layer)


def lots(things: Sequence[bytes], size: int) -> Iterator[Sequence[bytes]]:
    """``things``, so many at a time."""
    return (things[start : start + size] for start in range(0, len(things), size))


class Reader:
    """
    Reads repositories, one after the other.

    :param prefixes: which of them are cached; see :class:`~regd.maintenance.summary.Orders`.
    """

    def __init__(self, driver: Driver, skipped: Skipped, steps: Steps, prefixes: Sequence[str] = ()) -> None:
        self._driver = driver
        self._prefixes = prefixes
        self._skipped = skipped
        self._steps = steps

    async def repository(self, name: str, entries: Iterable[str]) -> Found:
        """
        All that there is to know without reading a manifest.

        :param entries: the names in its directory.
        :raises StorageError: when a directory cannot be listed: it might hold anything.
        """
        found = Found(RepositoryName(name))
        if not RepositoryName.fits(name):
            await self.broken(found, layout.repository(name), "not a repository's name")
        if "_manifests" in entries:
            await self._tags(found)
            await self._revisions(found)
            if not (found.tagged or found.revisions):
                await self._scan(found, layout.manifests(found.name))
        if "_layers" in entries:
            await self._layers(found)
        # What was cached once under a name that is local by now is like anything else that is local.
        if "_cache" in entries and is_below(name, self._prefixes):
            async for _, digests in self._digests(found, partial(layout.cached_root, found.name)):
                found.cached.update(digests)
        if "_uploads" in entries:
            found.uploads = await self._scan(found, layout.uploads(found.name))
        return found

    async def manifests(self, found: Found, digests: Iterable[bytes]) -> AsyncIterator[tuple[bytes, Node | None]]:
        """
        Read manifests.

        :returns: each with its digest, and ``None`` for one whose bytes are missing. One that cannot be read is left out, and the
            repository is damaged.
        """
        for lot in lots(list(digests), self._steps.lot):
            paths = [layout.blob_data(digest_of(digest)) for digest in lot]
            contents = await self._driver.read_all(paths, _USUAL)
            await self._steps.take(len(lot))
            for digest, path, content in zip(lot, paths, contents, strict=True):
                if isinstance(content, bytes) and len(content) == _USUAL:
                    [content] = await self._driver.read_all([path], LIMIT + 1)  # noqa: PLW2901 - the same, whole
                try:
                    yield digest, _node(digest, content)
                except ManifestInvalid as error:
                    await self.broken(found, path, f"cannot be read as a manifest: {error.message}")

    async def subjects(self, digests: Sequence[bytes]) -> AsyncIterator[tuple[bytes, bytes]]:
        """Which of these manifests are about others, each with that. One that cannot be read is passed over."""
        for lot in lots(digests, self._steps.lot):
            contents = await self._driver.read_all([layout.blob_data(digest_of(digest)) for digest in lot], LIMIT + 1)
            await self._steps.take(len(lot))
            for digest, content in zip(lot, contents, strict=True):
                with suppress(ManifestInvalid):
                    node = _node(digest, content)
                    if node is not None and node.subject is not None:
                        yield digest, node.subject

    async def links(self, found: Found, layers: Iterable[bytes]) -> list[bytes]:
        """
        Read links to blobs, and note in ``found`` which of them hold another digest than they stand under.

        :returns: those that are there. Where one is bad, the repository is damaged.
        """
        present = []
        for lot in lots(list(layers), self._steps.lot):
            paths = [layout.layer_link(found.name, digest_of(layer)) for layer in lot]
            contents = await self._driver.read_all(paths, LINK_LIMIT)
            await self._steps.take(len(lot))
            for layer, path, content in zip(lot, paths, contents, strict=True):
                if content is None:
                    await self._stray(found, layout.above(path))
                    continue
                target = await self._target(found, path, content, layer)
                if target is not None:
                    present.append(layer)
                    if target != layer:
                        found.targets[layer] = target
        return present

    async def manifests_among(self, found: Found, layers: Sequence[bytes]) -> list[tuple[bytes, Node]]:
        """Which of these blobs are manifests: ``registry:2.1`` linked those with the layers."""
        able: list[bytes] = []
        for lot in lots(layers, self._steps.lot):
            # No manifest begins with anything else, and most layers do.
            begins = await self._driver.read_all([layout.blob_data(digest_of(found.target(layer))) for layer in lot], 1)
            able += [found.target(layer) for layer, begin in zip(lot, begins, strict=True) if begin == b"{"]
            await self._steps.take(len(lot))
        manifests = []
        for digest in able:
            [content] = await self._driver.read_all([layout.blob_data(digest_of(digest))], LIMIT + 1)
            await self._steps.take(1)
            with suppress(ManifestInvalid):
                if (node := _node(digest, content)) is not None:
                    manifests.append((digest, node))
        return manifests

    async def signatures(self, found: Found) -> AsyncIterator[bytes]:
        """The blobs that ``registry:2.0`` linked below manifests that nobody can read any more: signatures of schema 1."""
        for revision in found.revisions:
            below = partial(layout.signatures, found.name, digest_of(revision))
            for algorithm in await self._scan(found, below()):
                for entry in await self._scan(found, below(algorithm)):
                    digest = raw_name(algorithm, entry)
                    if digest is not None:
                        yield digest

    async def stat(self, found: Found, paths: Sequence[Path]) -> list[Stat | None]:
        """Look at files of a repository. One that cannot be looked at damages it, and counts as missing."""
        looks: list[Stat | None] = []
        for start in range(0, len(paths), self._steps.lot):
            lot = paths[start : start + self._steps.lot]
            for path, look in zip(lot, await self._driver.stat_all(lot), strict=True):
                if isinstance(look, StorageError):
                    await self.broken(found, path, str(look))
                looks.append(look if isinstance(look, Stat) else None)
            await self._steps.take(len(lot))
        return looks

    async def _tags(self, found: Found) -> None:
        names = found.tagged = sorted(await self._scan(found, layout.tags(found.name)))
        for start in range(0, len(names), self._steps.lot):
            lot = names[start : start + self._steps.lot]
            # Whether it is a tag's name is no matter: what it refers to stays.
            paths = [layout.tag_link(found.name, Tag(name)) for name in lot]
            contents = await self._driver.read_all(paths, LINK_LIMIT)
            await self._steps.take(len(lot))
            for name, path, content in zip(lot, paths, contents, strict=True):
                if content is None:
                    # What a delete or a push has left that was cut short: it means nothing.
                    await self._scan(found, layout.above(path))
                elif (target := await self._target(found, path, content)) is not None:
                    found.tags[name] = target

    async def _revisions(self, found: Found) -> None:
        async for algorithm, digests in self._digests(found, partial(layout.revisions, found.name)):
            for lot in lots(digests, self._steps.lot):
                paths = [layout.revision_link(found.name, Digest(f"{algorithm}:{digest.hex()}")) for digest in lot]
                contents = await self._driver.read_all(paths, LINK_LIMIT)
                await self._steps.take(len(lot))
                for digest, path, content in zip(lot, paths, contents, strict=True):
                    if content is None:
                        # registry:2 leaves the directory when it deletes the link.
                        await self._stray(found, layout.above(path))
                    elif (target := await self._target(found, path, content, digest)) is not None:
                        found.revisions[digest] = target
                    else:
                        # It stands for what it stands under, at least.
                        found.revisions[digest] = digest

    async def _layers(self, found: Found) -> None:
        async for algorithm, digests in self._digests(found, partial(layout.layers, found.name)):
            found.layers.update(digests)
            if algorithm != CANONICAL:
                # Where these are is said in their links only.
                await self.links(found, digests)

    async def _digests(self, found: Found, place: Callable[..., Path]) -> AsyncIterator[tuple[str, list[bytes]]]:
        """
        What the directories of algorithms in one hold, in order.

        :param place: makes the path of that directory, and with the name of an algorithm that of what it has.
        """
        for algorithm in sorted(await self._scan(found, place())):
            below = place(algorithm)
            names = await self._scan(found, below)
            await self._steps.take(1 + len(names) // self._steps.lot)
            if algorithm not in ALGORITHMS:
                if names:
                    await self.broken(found, below, "of an unknown digest algorithm")
                continue
            digests = []
            for name in sorted(names):
                digest = raw_name(algorithm, name)
                if digest is None:
                    await self._skipped.report(layout.inside(below, name), "not a digest, passed over")
                else:
                    digests.append(digest)
            yield algorithm, digests

    async def _scan(self, found: Found, path: Path) -> list[str]:
        """The names in a directory; none where there is no directory."""
        for _ in range(2):
            try:
                return await self._driver.scan(path)
            except Missing:
                if not await self._driver.exists(path):
                    return []
            # Something is there, and it may be a directory that somebody has made at this very moment.
        await self.broken(found, path, "a file where a directory has to be")
        return []

    async def _target(self, found: Found, path: Path, content: bytes | StorageError, under: bytes | None = None) -> bytes | None:
        """What a link holds; ``None`` where nobody can tell, and the repository is damaged."""
        if isinstance(content, StorageError):
            await self.broken(found, path, str(content))
            return None
        try:
            target = parse_link(content)
            check_link(target, None if under is None else digest_of(under))
        except BadLink as error:
            if error.found is not None:
                found.doubtful.add(raw(error.found))
            await self.broken(found, path, str(error))
            return None
        return raw(target)

    async def _stray(self, found: Found, directory: Path) -> None:
        # Lists nothing; where it is no directory, that is told.
        await self._scan(found, directory)
        found.stray.append(directory)

    async def broken(self, found: Found, path: str, what: str) -> None:
        """Something that might refer to anything that its repository holds."""
        found.damaged = True
        await self._skipped.report(path, f"{what}; all that {found.name} holds is kept")


def _node(digest: bytes, content: bytes | StorageError | None) -> Node | None:
    """
    :raises ManifestInvalid: when it is none.
    """
    if content is None:
        return None
    if isinstance(content, StorageError):
        raise ManifestInvalid(str(content))
    if len(content) > LIMIT:
        raise ManifestInvalid(f"it has more than {LIMIT} bytes")
    if (sha256(content).digest() if len(digest) == _SHA256 else raw(Digest.of(content, digest_of(digest).algorithm))) != digest:
        raise ManifestInvalid("its content has another digest")
    return Node.of(parse(content))
