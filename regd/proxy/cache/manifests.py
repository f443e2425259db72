"""
Manifests and tags of cached repositories.

What is asked for by its digest is asked of an upstream once: it cannot change. What a tag means there is asked again when that was last
done longer ago than ``tagttl``: a HEAD, and when the digest is another one, the manifest by that digest. When it was last done is the time
of the tag's link, so every process sees it and a restart forgets nothing.

An upstream that takes its time, does not answer, or wants to be left alone holds nobody up who can be served what the tag meant when it was
last asked, for as long as that is younger than ``stale``. Its answer counts all the same when it comes.

::

    by digest   here                                    served
                else                                    asked for, kept
    by tag      here, asked within tagttl               served
                here                                    HEAD:
                    the same digest                     renewed, served
                    another                             asked for by that digest, kept
                    none said                           asked for by tag, kept
                    404, and it came from the upstream  the tag is removed; 404
                    404, and it was pushed here         renewed, served
                    401, 403                            403
                    else, or not within three seconds   served while younger than stale; else 502, 504, 429
                else                                    asked for by tag, kept
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any, Final, Protocol

from twisted.logger import Logger

from regd.errors import ManifestInvalid, ManifestUnknown, RegistryError, Unavailable
from regd.manifest import SCHEMA_1, Manifest, media_type_of
from regd.names import Digest, Reference, RepositoryName, Tag
from regd.proxy.cache.origins import Origin
from regd.proxy.cache.refusals import refusal
from regd.proxy.cache.sharing import Late, Sharing
from regd.proxy.cache.turns import Turns
from regd.proxy.cache.uses import Uses
from regd.proxy.remote.errors import Limited, NotThere, RemoteError, Unreachable, Wrong
from regd.proxy.remote.values import RemoteManifest
from regd.registry.core import Registry
from regd.registry.manifests import StoredManifest
from regd.storage.driver import StorageError

__all__ = ["PATIENCE", "CachedManifests", "ManifestOrigin", "ManifestRemote"]

#: How long a client waits for an upstream when what the tag meant before can be served instead, in seconds.
PATIENCE: Final = 3.0

#: How deep indexes may list indexes when what they refer to is marked.
_DEPTH: Final = 3


class ManifestRemote(Protocol):
    """
    What :class:`regd.proxy.remote.Remote` does, as far as manifests go. Every method may raise
    :class:`~regd.proxy.remote.errors.RemoteError`.
    """

    @property
    def resting(self) -> float:
        """For how many seconds it does not want to be asked; what is asked meanwhile fails at once."""

    async def manifest_digest(self, name: str, reference: Reference, known: Digest | None) -> Digest | None:
        """HEAD; ``None`` where it does not say."""

    async def manifest(self, name: str, reference: Reference) -> RemoteManifest:
        """GET."""


@dataclass(frozen=True, slots=True)
class ManifestOrigin(Origin[ManifestRemote]):
    """
    :ivar tagttl: see :class:`regd.config.CacheUpstream`; likewise ``stale``.
    :ivar patience: how long to wait for others who ask the same, in seconds.
    """

    tagttl: float
    stale: float
    patience: float


@dataclass(slots=True)
class _Counts:
    """
    :ivar hits: served without asking.
    :ivar confirmed: tags of which an upstream has said that they mean the same.
    :ivar fetched: manifests that came from an upstream.
    :ivar stale: served because an upstream did not answer, or not in time.
    :ivar failed: what an upstream was asked for and did not give.
    """

    hits: int = 0
    confirmed: int = 0
    fetched: int = 0
    stale: int = 0
    failed: int = 0


_Local = Callable[[RepositoryName, Reference], Awaitable[StoredManifest]]


class CachedManifests:
    """
    A :class:`~regd.registry.sources.ManifestSource`: those of local repositories as they are, those of others by way of their upstreams.

    :param registry: what is here.
    :param origins: where a repository comes from; ``None`` for a local one.
    :param clock: ``Any``: a reactor is typed as the union of what reactors may be.
    :param now: seconds since the epoch, by the clock that files go by.
    """

    _log = Logger()

    def __init__(
        self,
        registry: Registry,
        origins: Callable[[RepositoryName], ManifestOrigin | None],
        uses: Uses,
        turns: Turns,
        clock: Any,
        now: Callable[[], float],
    ) -> None:
        self._local = registry.manifests
        self._blobs = registry.blobs
        self._origins = origins
        self._uses = uses
        self._turns = turns
        self._now = now
        self._sharing: Sharing[tuple[RepositoryName, Reference], StoredManifest] = Sharing(
            clock, (RemoteError, RegistryError, StorageError)
        )
        self._counts = _Counts()

    async def get(self, name: RepositoryName, reference: Reference) -> StoredManifest:
        """
        :raises ManifestUnknown: when neither this registry nor the upstream has it.
        :raises RegistryError: when the upstream cannot be asked, or does not let us have it.
        """
        return await self._find(name, reference, self._local.get)

    async def promise(self, name: RepositoryName, reference: Reference) -> StoredManifest:
        """As :meth:`get`, for a client that relies on it; see :meth:`regd.registry.manifests.Manifests.promise`."""
        return await self._find(name, reference, self._local.promise)

    async def read(self, digest: Digest) -> Manifest | None:
        """See :meth:`regd.registry.manifests.Manifests.read`."""
        return await self._local.read(digest)

    async def settle(self) -> None:
        """Wait until no upstream is being asked."""
        await self._sharing.settle()

    def variables(self) -> dict[str, int]:
        """Numbers about this process."""
        return {**asdict(self._counts), "asking": len(self._sharing)}

    async def _find(self, name: RepositoryName, reference: Reference, local: _Local) -> StoredManifest:
        origin = self._origins(name)
        if origin is None:
            return await local(name, reference)
        if isinstance(reference, Tag):
            found = await self._tagged(origin, name, reference, local)
        else:
            found = await self._exact(origin, name, reference, local)
        self._uses.note(name, found.digest)
        return found

    async def _exact(self, origin: ManifestOrigin, name: RepositoryName, digest: Digest, local: _Local) -> StoredManifest:
        try:
            found = await local(name, digest)
        except ManifestUnknown as error:
            unknown = error
        else:
            self._counts.hits += 1
            return found
        try:
            return await self._sharing.outcome((name, digest), lambda: self._ask_for(origin, name, digest))
        except RemoteError as error:
            raise refusal(error, origin.url, unknown) from None

    async def _tagged(self, origin: ManifestOrigin, name: RepositoryName, tag: Tag, local: _Local) -> StoredManifest:
        # Before what it means, which then was not asked for earlier than this.
        age = await self._age(name, tag)
        servable: StoredManifest | None = None
        unknown = ManifestUnknown(f"manifest unknown: no tag {tag} in this repository", detail={"tag": tag})
        if age is not None and age < max(origin.tagttl, origin.stale):
            try:
                servable = await local(name, tag)
            except ManifestUnknown as error:
                unknown = error
        if servable is not None and age is not None:
            if _is_fresh(age, origin):
                self._counts.hits += 1
                return servable
            if age >= origin.stale:
                servable = None
            elif origin.remote.resting > 0:
                self._counts.stale += 1
                return servable
        patience = None if servable is None else PATIENCE
        try:
            return await self._sharing.outcome((name, tag), lambda: self._ask_again(origin, name, tag), patience)
        except Late:
            self._log.info("{url} takes its time over {name}:{tag}, which is served as it was", url=origin.url, name=name, tag=tag)
        except RemoteError as error:
            if servable is None or not isinstance(error, Limited | Unreachable | Wrong):
                raise refusal(error, origin.url, unknown) from None
        assert servable is not None
        self._counts.stale += 1
        return servable

    async def _ask_for(self, origin: ManifestOrigin, name: RepositoryName, digest: Digest) -> StoredManifest:
        """
        What is behind a digest, which is not here.

        :raises RemoteError: when the upstream does not give it.
        """
        async with self._turn(origin, name, digest):
            try:
                return await self._local.get(name, digest)
            except ManifestUnknown:
                return await self._keep(origin, name, await origin.remote.manifest(origin.name, digest))

    async def _ask_again(self, origin: ManifestOrigin, name: RepositoryName, tag: Tag) -> StoredManifest:
        """
        What a tag means now.

        :raises RemoteError: when the upstream does not say.
        """
        async with self._turn(origin, name, tag):
            age = await self._age(name, tag)
            known = None if age is None else await self._known(name, tag)
            if known is not None and age is not None and _is_fresh(age, origin):
                # Whoever had the turn before has asked.
                return known
            try:
                return await self._compare(origin, name, tag, known)
            except NotThere:
                own = await self._forget(name, tag)
                if own is None:
                    raise
                return own

    async def _compare(self, origin: ManifestOrigin, name: RepositoryName, tag: Tag, known: StoredManifest | None) -> StoredManifest:
        """
        :param known: what the tag has meant; ``None`` where nobody knows.
        :raises RemoteError: when the upstream does not say what it means.
        """
        if known is not None:
            digest = await origin.remote.manifest_digest(origin.name, tag, known.digest)
            if digest == known.digest:
                await self._confirm(name, tag, known)
                return known
            if digest is not None:
                try:
                    return await self._keep(origin, name, await origin.remote.manifest(origin.name, digest), tag)
                except NotThere:
                    # It means something else again.
                    self._log.debug("{url} has no {name}@{digest} any more", url=origin.url, name=origin.name, digest=digest)
        return await self._keep(origin, name, await origin.remote.manifest(origin.name, tag), tag)

    async def _keep(self, origin: ManifestOrigin, name: RepositoryName, fetched: RemoteManifest, tag: Tag | None = None) -> StoredManifest:
        """
        :raises Wrong: when it is no manifest.
        :raises ManifestUnknown: when it is of a kind that no client takes any more.
        """
        try:
            stored = StoredManifest(fetched.digest, media_type_of(fetched.content), fetched.content)
        except ManifestInvalid as error:
            if fetched.media_type in SCHEMA_1:
                raise ManifestUnknown(f"what {origin.url} has there cannot be served: {error.message}") from None
            raise Wrong(f"{origin.url}: what it has as a manifest of {origin.name} is none: {error.message}") from None
        self._counts.fetched += 1
        try:
            await self._uses.mark(name, stored.digest)
            await self._local.keep(name, stored.content, stored.digest, tag)
        except (ManifestInvalid, StorageError, Unavailable) as error:
            # The client has nothing to do with that; and what is odd about it, it may know better.
            self._log.warn("{name}@{digest} is passed on, but not kept: {error}", name=name, digest=stored.digest, error=error)
        return stored

    async def _confirm(self, name: RepositoryName, tag: Tag, known: StoredManifest) -> None:
        """The upstream says that a tag means the same as before."""
        self._counts.confirmed += 1
        try:
            if not await self._uses.marked(name, known.digest):
                await self._adopt(name, known.digest, _DEPTH)
            await self._local.renew(name, tag)
        except StorageError as error:
            self._log.warn("it is not noted that {name}:{tag} was asked for: {error}", name=name, tag=tag, error=error)

    async def _adopt(self, name: RepositoryName, digest: Digest, depth: int) -> None:
        """
        Mark a manifest that was here before anybody knew where it is from, with what it refers to and is here: it can all be had again.
        """
        manifest = await self._local.read(digest)
        if manifest is not None:
            for blob in manifest.blobs:
                if await self._blobs.find(name, blob.digest) is not None:
                    await self._uses.mark(name, blob.digest)
            for child in manifest.manifests if depth else ():
                if await self._local.resolve(name, child.digest) is not None:
                    await self._adopt(name, child.digest, depth - 1)
        # Last: while it has no mark, all this is done again.
        await self._uses.mark(name, digest)

    async def _forget(self, name: RepositoryName, tag: Tag) -> StoredManifest | None:
        """
        The upstream has no such tag: what came from there goes.

        :returns: what the tag means here, where it was pushed.
        """
        digest = await self._local.resolve(name, tag)
        if digest is None:
            return None
        try:
            if await self._uses.marked(name, digest):
                await self._local.untag(name, tag)
                return None
            await self._local.renew(name, tag)
        except ManifestUnknown:
            return None
        except (StorageError, Unavailable) as error:
            self._log.warn("{name}:{tag} is gone from where it came from, and stays here: {error}", name=name, tag=tag, error=error)
            return None
        return await self._known(name, tag)

    async def _known(self, name: RepositoryName, tag: Tag) -> StoredManifest | None:
        try:
            return await self._local.get(name, tag)
        except ManifestUnknown:
            # The tag may be there, and what it means damaged.
            return None

    async def _age(self, name: RepositoryName, tag: Tag) -> float | None:
        """How long ago the upstream was asked, in seconds; ``None`` where there is no such tag here."""
        checked = await self._local.checked(name, tag)
        return None if checked is None else self._now() - checked

    @asynccontextmanager
    async def _turn(self, origin: ManifestOrigin, name: RepositoryName, reference: Reference) -> AsyncIterator[None]:
        """Ask for something beside nobody who asks for the same. That it was in vain is counted and logged."""
        # Who is not going to be asked needs no turn.
        rests = origin.remote.resting > 0
        held = None if rests else await self._turns.take(f"{name} {reference}", origin.patience)
        try:
            yield
        except RemoteError as error:
            self._counts.failed += 1
            if not rests and not isinstance(error, NotThere):
                self._log.warn("what {name} ({reference}) means could not be asked: {error}", name=name, reference=reference, error=error)
            raise
        finally:
            if held is not None:
                held.close()


def _is_fresh(age: float, origin: ManifestOrigin) -> bool:
    # A time that is ahead comes from a clock that was set back since.
    return abs(age) < origin.tagttl
