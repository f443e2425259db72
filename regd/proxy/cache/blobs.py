"""
The blobs of all repositories, those of cached ones included: what is not here is fetched from its upstream, once, and kept.

======================  ======================================================  ========================================================
a client asks with      the blob is here                                        it is not
======================  ======================================================  ========================================================
``HEAD``                said so                                                 the upstream is asked likewise; nothing is fetched
``GET``                 sent                                                    fetched, and sent as it comes
``GET`` with ``Range``  sent                                                    that part is passed on, and not kept; where a fetch has
                                                                                come that far, it is read from there
======================  ======================================================  ========================================================

*Here* means bytes in the storage and a link in the repository, as for any blob. Bytes that only other repositories hold are not given to
one whose upstream might not have them, or not give them: it is asked first, without a download.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from twisted.internet.defer import Deferred, DeferredList

from regd.errors import BlobUnknown, RegistryError, Unavailable
from regd.names import Digest, RepositoryName
from regd.proxy.cache.fetch import Fetch, Keeping, stopping
from regd.proxy.cache.origins import BlobOrigin, BlobRemote, Origins
from regd.proxy.cache.refusals import refusal
from regd.proxy.cache.spans import NotInParts, RemoteSpan
from regd.proxy.coalesce import Coalesced
from regd.proxy.remote.errors import RemoteError, Wrong
from regd.registry.blobs import Blob
from regd.storage.driver import Content

__all__ = ["CachedBlobs"]

#: How often a request looks again, when what it had found is gone, or what it waited for was wanted for another repository.
_TRIES: Final = 5

#: Of how many blobs that are not here a process remembers how long they are, in between a request for the size and one for a part.
_REMEMBERED: Final = 1024


class CachedBlobs:
    """
    A :class:`~regd.registry.sources.BlobSource` that has the registry's own blobs, and those of its upstreams.

    :param origins: where a repository comes from.
    """

    def __init__(self, keeping: Keeping, origins: Origins[BlobRemote]) -> None:
        self._keeping = keeping
        self._blobs = keeping.blobs
        self._uses = keeping.uses
        self._origins = origins
        self._fetches: dict[Digest, Fetch] = {}
        self._running: set[Deferred[None]] = set()
        self._sizes: Coalesced[tuple[RepositoryName, Digest], int | None] = Coalesced()
        #: How long blobs are, as their upstreams have said.
        self._known: OrderedDict[Digest, int] = OrderedDict()
        self._closing = False
        self._stopped = False

    # What clients ask for

    async def stat(self, name: RepositoryName, digest: Digest) -> Blob:
        """
        See :class:`~regd.registry.sources.BlobSource`.

        :raises BlobUnknown: when neither this repository holds it nor its upstream.
        :raises RegistryError: when the upstream does not say.
        """
        origin = self._origins(name)
        if origin is None:
            return await self._blobs.stat(name, digest)
        return await self._blobs.find(name, digest) or await self._remote_stat(name, digest, origin)

    async def promise(self, name: RepositoryName, digest: Digest) -> Blob:
        """
        As :meth:`stat`. Of what is here it is promised that it stays; what is not can be had again, as long as the upstream has it.
        """
        origin = self._origins(name)
        try:
            return await self._blobs.promise(name, digest)
        except BlobUnknown:
            if origin is None:
                raise
            return await self._remote_stat(name, digest, origin)

    async def fetch(self, name: RepositoryName, digest: Digest) -> tuple[Blob, Content | bytes]:
        """
        See :class:`~regd.registry.sources.BlobSource`: the whole blob; its bytes may still be on their way.

        :raises BlobUnknown: when neither this repository holds it nor its upstream.
        :raises RegistryError: when the upstream does not give it.
        """
        origin = self._origins(name)
        if origin is None:
            return await self._blobs.fetch(name, digest)
        for _ in range(_TRIES):
            if await self._blobs.find(name, digest) is not None:
                self._uses.note(name, digest)
                try:
                    found = await self._blobs.fetch(name, digest)
                except BlobUnknown:
                    # Evicted at this very moment.
                    continue
                self._keeping.tally.hits += 1
                return found
            if await self._linked(name, digest, origin):
                continue
            self._keeping.tally.misses += 1
            content = await self._come(name, digest, origin)
            if content is not None:
                return Blob(digest, content.size), content
        raise _restless(digest)

    async def open(self, name: RepositoryName, digest: Digest, start: int, end: int) -> Content:
        """
        See :class:`~regd.registry.sources.BlobSource`: part of a blob, for who knows its size.

        :param end: the byte after the last one.
        :raises BlobUnknown: when neither this repository holds it nor its upstream.
        :raises RegistryError: when the upstream does not give it.
        """
        origin = self._origins(name)
        if origin is None:
            return await self._blobs.open(name, digest, start, end)
        content = await self._open(name, digest, origin, start, end)
        if content.size < end:
            # The upstream has said that it is longer, and the client may have been told.
            content.close()
            raise self._refusal(Wrong(""), digest, origin)
        return content

    async def _open(self, name: RepositoryName, digest: Digest, origin: BlobOrigin, start: int, end: int) -> Content:
        """As :meth:`open`, of a cached repository."""
        for _ in range(_TRIES):
            if await self._blobs.find(name, digest) is not None:
                self._uses.note(name, digest)
                try:
                    part = await self._blobs.open(name, digest, start, end)
                except BlobUnknown:
                    # Evicted at this very moment.
                    continue
                self._keeping.tally.hits += 1
                return part
            self._keeping.tally.misses += 1
            fetch = self._under_way(digest)
            if fetch is None or name not in fetch.names or not fetch.has(start):
                try:
                    return await self._part(name, digest, origin, start, end)
                except NotInParts:
                    # All of it comes anyway.
                    pass
            content = await self._come(name, digest, origin)
            if content is not None:
                return content
        raise _restless(digest)

    # What others want to know and to have

    def variables(self) -> dict[str, int]:
        """Numbers about fetches, in this process."""
        tally = self._keeping.tally
        return {
            "fetches": len(self._fetches),
            "readers": sum(fetch.growth.readers for fetch in self._fetches.values() if fetch.growth is not None),
            "fetched_blobs": tally.fetched,
            "followed_blobs": tally.followed,
            "resumed_fetches": tally.resumed,
            "failed_fetches": tally.failed,
            "fetched_bytes": tally.received,
            "hits": tally.hits,
            "misses": tally.misses,
        }

    def close(self) -> None:
        """No more requests come. Fetches that somebody waits for go on until nobody does; what the others have got stays."""
        self._closing = True
        for fetch in self._fetches.values():
            fetch.closing = True

    def stop(self) -> None:
        """End all fetches; what they have got stays. Those that wait for an answer of an upstream end with that."""
        self.close()
        self._stopped = True
        for fetch in list(self._fetches.values()):
            fetch.stop()

    async def finish(self) -> None:
        """Wait until no fetch is under way, after :meth:`close` or :meth:`stop`."""
        while self._running:
            await DeferredList(self._running)

    # Asking upstream

    async def _remote_stat(self, name: RepositoryName, digest: Digest, origin: BlobOrigin) -> Blob:
        fetch = self._under_way(digest)
        if fetch is not None and name in fetch.names and fetch.growth is not None:
            return Blob(digest, fetch.growth.size)
        size = await self._remote_size(name, digest, origin)
        if size is not None:
            self._known[digest] = size
            self._known.move_to_end(digest)
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
            return Blob(digest, size)
        # It does not say: there is no other way to know.
        blob, content = await self.fetch(name, digest)
        if not isinstance(content, bytes):
            content.close()
        return blob

    async def _remote_size(self, name: RepositoryName, digest: Digest, origin: BlobOrigin) -> int | None:
        """
        :returns: ``None`` where the upstream has it and does not say how long it is.
        """
        try:
            return await self._sizes.join((name, digest), lambda: origin.remote.blob_size(origin.name, digest))
        except RemoteError as error:
            raise self._refusal(error, digest, origin) from None

    async def _linked(self, name: RepositoryName, digest: Digest, origin: BlobOrigin) -> bool:
        """Whether the bytes were here, for other repositories, and this one holds them now as well."""
        if await self._blobs.stored(digest) is None:
            return False
        await self._remote_size(name, digest, origin)
        await self._uses.mark(name, digest)
        return await self._blobs.link(name, digest) is not None

    async def _part(self, name: RepositoryName, digest: Digest, origin: BlobOrigin, start: int, end: int) -> Content:
        """
        :raises NotInParts: when the upstream gives all or nothing, or this is all.
        """
        # Who asks for a part has asked how long the blob is. That does not change; whether its upstream gives it is what the part shows.
        size = self._known.pop(digest, None) or (await self._remote_stat(name, digest, origin)).size
        if start == 0 and end >= size:
            raise NotInParts
        span = RemoteSpan(origin, digest, size, end)
        try:
            await span.begin(start)
        except RemoteError as error:
            raise self._refusal(error, digest, origin) from None
        return span

    async def _come(self, name: RepositoryName, digest: Digest, origin: BlobOrigin) -> Content | None:
        """
        Join the fetch that is under way here, or begin one.

        :returns: ``None`` when the blob is here, or it is worth looking again.
        """
        if self._stopped:
            raise stopping()
        fetch = self._under_way(digest)
        if fetch is not None and name not in fetch.names:
            await self._remote_size(name, digest, origin)
            if fetch.over:
                return None
            fetch.names.add(name)
        if fetch is None:
            fetch = self._begin(name, digest, origin)
        try:
            return await fetch.content()
        except RegistryError:
            if fetch.name == name:
                raise
            # It was fetched from another upstream, or from another place there.
            return None

    def _under_way(self, digest: Digest) -> Fetch | None:
        fetch = self._fetches.get(digest)
        # Those who are told that one has failed may begin another before it is gone from here.
        return None if fetch is None or fetch.over else fetch

    def _begin(self, name: RepositoryName, digest: Digest, origin: BlobOrigin) -> Fetch:
        fetch = self._fetches[digest] = Fetch(self._keeping, digest, name, origin)
        fetch.closing = self._closing
        running = Deferred.fromCoroutine(fetch.run())

        def ended(_: None) -> None:
            if self._fetches.get(digest) is fetch:
                del self._fetches[digest]
            self._running.discard(running)

        if not running.called:
            self._running.add(running)
        running.addCallback(ended)
        return fetch

    def _refusal(self, error: RemoteError, digest: Digest, origin: BlobOrigin) -> RegistryError:
        return refusal(error, origin.url, BlobUnknown(detail={"digest": digest}))


def _restless(digest: Digest) -> Unavailable:
    return Unavailable(f"{digest} came and went several times while it was asked for, try again", headers={"Retry-After": "1"})
