"""Blobs of a repository: found, opened, linked from another repository, committed, deleted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from regd.errors import BlobUnknown
from regd.maintenance.gate import Gate
from regd.names import Digest, RepositoryName
from regd.registry.promises import Promises
from regd.spans import Part
from regd.storage import layout
from regd.storage.damage import Damage
from regd.storage.driver import Content, Driver, Missing
from regd.storage.layout import Path
from regd.storage.links import Links
from regd.storage.remembered import Remembered

__all__ = ["Blob", "Blobs"]

_EMPTY: Final = {Digest.of(b""), Digest.of(b"", "sha512")}

#: Up to so many bytes a blob is read rather than opened, and remembered as long as its file does not change: what a client reads of a layer
#: goes past this process, but configurations and the like are small, many, and asked for by everybody.
_SMALL: Final = 16 * 1024

#: How many bytes of small blobs are remembered, and what each costs besides.
_BUDGET: Final = 4 * 1024 * 1024
_OVERHEAD: Final = 512


@dataclass(frozen=True, slots=True)
class Blob:
    """
    A blob that is there. ``digest`` is what it is stored under, ``size`` in bytes, ``modified`` when its file was last written, in seconds
    since the epoch, ``version`` that of its file.
    """

    digest: Digest
    size: int
    modified: float = field(default=0.0, compare=False)
    version: object = field(default=None, compare=False, repr=False)


class Blobs:
    """
    The blobs of all repositories: bytes by digest, and links that say which repository holds which.

    :param gate: what changes pass.
    """

    def __init__(self, driver: Driver, links: Links, damage: Damage, gate: Gate, promises: Promises) -> None:
        self._driver = driver
        self._links = links
        self._damage = damage
        self._gate = gate
        self._promises = promises
        self._known: Remembered[bytes] = Remembered(_BUDGET)

    async def find(self, name: RepositoryName, digest: Digest) -> Blob | None:
        """The blob, if this repository holds it and its bytes are there."""
        # registry:2 keeps a sha512 blob under its sha256 digest and says so in the sha512 link, so what the link holds decides.
        target = await self._links.read(layout.layer_link(name, digest), digest, remember=True)
        return None if target is None else await self.stored(target)

    async def stored(self, digest: Digest) -> Blob | None:
        """The blob, if its bytes are in the storage, whichever repository holds it."""
        path = layout.blob_data(digest)
        try:
            found = await self._driver.stat(path)
        except Missing:
            return None
        if found.size == 0 and digest not in _EMPTY:
            self._damage.report(path, "an empty file that should not be, treated as absent; pushing the blob again mends it")
            return None
        return Blob(digest, found.size, found.modified, found.version)

    async def stat(self, name: RepositoryName, digest: Digest) -> Blob:
        """
        :raises BlobUnknown: when this repository does not hold it.
        """
        blob = await self.find(name, digest)
        if blob is None:
            raise BlobUnknown(detail={"digest": digest})
        return blob

    async def promise(self, name: RepositoryName, digest: Digest) -> Blob:
        """
        What :meth:`stat` finds, for a client that relies on it: a collection leaves it there for the time of a push.

        :raises BlobUnknown: when this repository does not hold it.
        """
        blob = await self.stat(name, digest)
        since = self._promises.since()
        if blob.modified < since and not await self._promises.keep(blob.digest, blob.modified, since, layout.layer_link(name, digest)):
            raise BlobUnknown(detail={"digest": digest})
        return blob

    async def open(self, name: RepositoryName, digest: Digest, start: int = 0, end: int | None = None) -> Content:
        """
        :param start: what is going to be read of it, which makes no difference here; likewise ``end``.
        :returns: the bytes of a blob, which the caller closes.
        :raises BlobUnknown: when this repository does not hold it.
        """
        return await self._open(await self.stat(name, digest), digest)

    async def fetch(self, name: RepositoryName, digest: Digest) -> tuple[Blob, Content | bytes]:
        """
        :returns: the blob, and its bytes where they are few, else the file, which the caller closes.
        :raises BlobUnknown: when this repository does not hold it.
        """
        blob = await self.stat(name, digest)
        if blob.size > _SMALL:
            return blob, await self._open(blob, digest)
        path = layout.blob_data(blob.digest)
        content = self._known.get(path, blob.version)
        if content is None:
            try:
                content = await self._driver.read(path, blob.size)
            except Missing:
                raise BlobUnknown(detail={"digest": digest}) from None
            if len(content) < blob.size:
                # It has become shorter meanwhile, which no blob does: the client has to notice.
                return blob, await self._open(blob, digest)
            self._known.put(path, blob.version, content, _OVERHEAD + len(content))
        return blob, content

    async def _open(self, blob: Blob, digest: Digest) -> Content:
        try:
            return await self._driver.open(layout.blob_data(blob.digest))
        except Missing:
            raise BlobUnknown(detail={"digest": digest}) from None

    async def delete(self, name: RepositoryName, digest: Digest) -> None:
        """
        Take the blob out of this repository. Its bytes stay until they are collected.

        :raises BlobUnknown: when this repository does not hold it.
        :raises Unavailable: when the gate stays closed.
        """
        await self.stat(name, digest)
        try:
            async with self._gate.change():
                await self._driver.delete(layout.layer(name, digest))
        except Missing:
            raise BlobUnknown(detail={"digest": digest}) from None

    async def mount(self, name: RepositoryName, digest: Digest, source: RepositoryName) -> Blob | None:
        """
        Link a blob of ``source`` into ``name``; ``None`` when ``source`` does not hold it.

        :raises Unavailable: when the gate stays closed.
        """
        if await self.find(source, digest) is None:
            # So that a walk over repositories passes the gate once.
            return None
        async with self._gate.change():
            blob = await self.find(source, digest)
            if blob is None or not await self._promises.keep(blob.digest, blob.modified, await self._promises.wanted_since()):
                return None
            await self._driver.write(Links.file(layout.layer_link(name, digest), blob.digest))
        return blob

    async def link(self, name: RepositoryName, digest: Digest) -> Blob | None:
        """
        Link bytes that are in the storage into a repository that may hold them, whichever others do.

        :returns: ``None`` when they are not there.
        :raises Unavailable: when the gate stays closed.
        """
        async with self._gate.change():
            if not await self.kept(digest, await self._promises.wanted_since()):
                return None
            await self._driver.write(Links.file(layout.layer_link(name, digest), digest))
            return await self.stored(digest)

    async def commit(
        self, name: RepositoryName, source: Path, digest: Digest, size: int, *, beside: Sequence[Path] = (), flushed: bool = False
    ) -> bool:
        """
        Make a verified file the blob ``digest`` of this repository: the bytes durable first, the link to them after.

        Bytes that are there already, and right, are kept as they are, and ``source`` is left to the caller; a damaged file is replaced.

        :param source: a file whose digest has been found to be ``digest``.
        :param size: its size in bytes.
        :param beside: files that may be where ``source`` is, and that go with its directory.
        :param flushed: whether ``source`` is known to be durable.
        :returns: whether ``source``, and its directory, are gone.
        :raises Missing: when there is no file at ``source``, and its bytes are not there already.
        :raises Unavailable: when the gate stays closed; ``source`` is as it was.
        """
        path = layout.blob_data(digest)
        link = Links.file(layout.layer_link(name, digest), digest)
        with Part("blob.commit"):
            whole = await self.whole(digest, size)
            async with self._gate.change():
                if whole and await self.kept(digest, await self._promises.wanted_since()):
                    await self._driver.write(link)
                    return False
                await self._driver.adopt(source, path, link, beside=beside, flushed=flushed)
        self._damage.healed(path)
        return True

    async def kept(self, digest: Digest, since: float) -> bool:
        """
        Within the gate: whether bytes that have been found whole are still there, durable now and not older than ``since``.
        """
        blob = await self.stored(digest)
        if blob is None or not await self._promises.keep(digest, blob.modified, since):
            return False
        # Whoever put it there a moment ago may not have made it durable yet, and no link must come first.
        await self._driver.secure(layout.blob_data(digest))
        return True

    async def whole(self, digest: Digest, size: int) -> bool:
        """Whether the bytes of ``digest`` are in the storage and are right, which means reading them."""
        path = layout.blob_data(digest)
        try:
            found = await self._driver.stat(path)
            if found.size == size and Digest.from_hash(await self._driver.hash(path, digest.algorithm)) == digest:
                return True
        except Missing:
            return False
        self._damage.report(path, "does not have the digest that it is stored under; replaced")
        return False
