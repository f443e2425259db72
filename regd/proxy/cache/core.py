"""The pull-through cache: its parts, put together over one registry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.task import deferLater

from regd.config import CacheUpstream
from regd.names import RepositoryName
from regd.proxy.cache.blobs import CachedBlobs
from regd.proxy.cache.fetch import Keeping
from regd.proxy.cache.lists import CachedReferrers, CachedTags
from regd.proxy.cache.manifests import CachedManifests, ManifestOrigin
from regd.proxy.cache.origins import Origin
from regd.proxy.cache.turns import Turns
from regd.proxy.cache.upstreams import Upstreams
from regd.proxy.cache.uses import Uses
from regd.proxy.remote.client import Remote
from regd.registry.core import Registry
from regd.storage.driver import Driver

__all__ = ["PullThroughCache", "Remotes"]


class Remotes:
    """
    The upstreams that are configured, as this process sees them. None is asked before somebody wants something.

    :param reactor: ``Any``: a reactor is typed as the union of what reactors may be.
    :raises regd.proxy.dialing.CannotUseTLS: when a file for TLS cannot be used.
    """

    def __init__(self, upstreams: tuple[CacheUpstream, ...], reactor: Any) -> None:
        self.names = Upstreams(upstreams)
        self._remotes = {upstream.prefix: Remote(upstream, reactor) for upstream in upstreams}

    def find(self, name: RepositoryName) -> tuple[CacheUpstream, Remote, str] | None:
        """
        :returns: where a repository comes from, and what it is called there; ``None`` for a local one.
        """
        found = self.names.find(name)
        return None if found is None else (found.upstream, self._remotes[found.upstream.prefix], found.remote_name)

    def close(self) -> None:
        """Keep no connections for later; what is under way goes on."""
        for remote in self._remotes.values():
            remote.close()

    def abort(self) -> None:
        """Cut all connections; what is under way fails."""
        for remote in self._remotes.values():
            remote.abort()

    def variables(self) -> dict[str, object]:
        """Numbers about each."""
        return {f"{upstream.prefix} {upstream.remote}".lstrip(): self._remotes[upstream.prefix].variables() for upstream in self.names}


class PullThroughCache:
    """
    What clients read where some repositories, or all, are those of other registries.

    :param registry: what is here, over ``driver``.
    :param reactor: as of :class:`Remotes`.
    :param now: seconds since the epoch.
    :ivar blobs: a :class:`~regd.registry.sources.BlobSource`; the others likewise.
    :ivar namespaces: what names in requests mean.
    """

    def __init__(self, remotes: Remotes, registry: Registry, driver: Driver, reactor: Any, now: Callable[[], float]) -> None:
        self._remotes = remotes
        uses = Uses(driver, now)
        turns = Turns(driver, lambda seconds: deferLater(reactor, seconds), reactor.seconds)
        self.namespaces = remotes.names
        self.blobs = CachedBlobs(Keeping(driver, registry.blobs, uses, reactor), self._origin)
        self.manifests = CachedManifests(registry, self._manifest_origin, uses, turns, reactor, now)
        self.tags = CachedTags(registry.tags, self._origin, driver)
        self.referrers = CachedReferrers(registry.referrers, self._origin)

    def close(self) -> None:
        """No more requests come. What is under way goes on, as long as somebody wants it."""
        self.blobs.close()
        self._remotes.close()

    async def settle(self) -> None:
        """Wait until nothing is under way."""
        await self.manifests.settle()
        await self.blobs.finish()

    async def finish(self) -> None:
        """Break off what is under way, and wait until it has ended. What has come of a blob stays, for the next time."""
        self.blobs.stop()
        self._remotes.abort()
        await self.settle()

    def variables(self) -> dict[str, object]:
        """Numbers about this process."""
        return {"manifests": self.manifests.variables(), "blobs": self.blobs.variables(), "upstreams": self._remotes.variables()}

    def _origin(self, name: RepositoryName) -> Origin[Remote] | None:
        found = self._remotes.find(name)
        if found is None:
            return None
        upstream, remote, remote_name = found
        return Origin(remote, remote_name, str(upstream.remote))

    def _manifest_origin(self, name: RepositoryName) -> ManifestOrigin | None:
        found = self._remotes.find(name)
        if found is None:
            return None
        upstream, remote, remote_name = found
        url = str(upstream.remote)
        return ManifestOrigin(remote, remote_name, url, upstream.tagttl, upstream.stale, upstream.timeouts.read)
