"""What the tests of the cache share: an upstream that answers as a test says, and several processes over one storage."""

from __future__ import annotations

import os
import time
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater

from regd.manifest import OCI_IMAGE, OCI_INDEX, media_type_of
from regd.names import Digest, Reference, RepositoryName, Tag, parse_reference
from regd.proxy.cache.manifests import CachedManifests, ManifestOrigin
from regd.proxy.cache.turns import Turns
from regd.proxy.cache.uses import Uses
from regd.proxy.remote.errors import NotThere
from regd.proxy.remote.values import RemoteManifest, TagPage
from regd.registry.core import Registry
from regd.storage import layout
from regd.storage.driver import Missing
from tests.registry.case import RegistrySuite

__all__ = ["CACHED", "STALE", "TTL", "CacheSuite", "FakeRemote"]

#: A repository of an upstream, and what it is called there.
CACHED = RepositoryName("hub/library/alpine")
REMOTE = "library/alpine"

TTL, STALE = 60.0, 86400.0


class FakeRemote:
    """
    A remote registry that answers at once, unless a test holds it up.

    :ivar asked: what it was asked, in order.
    :ivar failure: raised instead of every answer.
    :ivar held: where it is a list, what is asked waits there.
    :ivar silent: whether it does not say digests to HEAD.
    """

    def __init__(self) -> None:
        self.manifests: dict[str, bytes] = {}
        self.media_types: dict[str, str] = {}
        self.lists: dict[str, list[str]] = {}
        self.index: bytes | None = None
        self.asked: list[tuple[Any, ...]] = []
        self.failure: Exception | None = None
        self.held: list[Deferred[None]] | None = None
        self.silent = False
        self.resting = 0.0

    def put(self, reference: str | None, content: bytes) -> Digest:
        """Have a manifest, by its digest and perhaps by a tag."""
        digest = Digest.of(content)
        self.manifests[digest] = content
        if reference is not None:
            self.manifests[reference] = content
        return digest

    async def manifest_digest(self, name: str, reference: Reference, known: Digest | None) -> Digest | None:
        content = await self._answer("HEAD", name, reference)
        return None if self.silent else Digest.of(content)

    async def manifest(self, name: str, reference: Reference) -> RemoteManifest:
        content = await self._answer("GET", name, reference)
        return RemoteManifest(content, self.media_types.get(reference, OCI_IMAGE), Digest.of(content))

    async def tags(self, name: str, n: int | None, last: str) -> TagPage:
        await self._listen("TAGS", name, n, last)
        if name not in self.lists:
            raise NotThere("404")
        rest = [tag for tag in self.lists[name] if tag > last]
        return TagPage(tuple(rest[:n]), rest[n - 1] if n and len(rest) > n else None)

    async def referrers(self, name: str, digest: Digest, artifact_type: str | None) -> RemoteManifest:
        await self._listen("REFERRERS", name, digest, artifact_type)
        if self.index is None:
            raise NotThere("404")
        return RemoteManifest(self.index, OCI_INDEX, Digest.of(self.index))

    async def _answer(self, method: str, name: str, reference: Reference) -> bytes:
        await self._listen(method, name, str(reference))
        if name != REMOTE or reference not in self.manifests:
            raise NotThere(f"{method} {reference}: 404")
        return self.manifests[reference]

    async def _listen(self, *asked: Any) -> None:
        self.asked.append(asked)
        if self.held is not None:
            waiting: Deferred[None] = Deferred()
            self.held.append(waiting)
            await waiting
        if self.failure is not None:
            raise self.failure

    def hold(self) -> None:
        """Answer nothing from now on."""
        self.held = []

    def answer(self) -> None:
        """Answer what has been asked, and all that is asked from now on."""
        held, self.held = self.held or [], None
        for one in held:
            one.callback(None)

    def methods(self) -> list[str]:
        """
        :return: What it was asked since the last time, without whom it was asked about.
        """
        asked, self.asked = self.asked, []
        return [f"{one[0]} {one[2]}" for one in asked]


class CacheSuite(RegistrySuite):
    """
    A registry of which the repositories below ``hub/`` are an upstream's.

    :ivar clock: the time that waiting goes by.
    """

    def setUp(self) -> None:
        super().setUp()
        self.clock: Any = Clock()
        self.remote = FakeRemote()
        self.later = 0.0
        self.uses = Uses(self.driver, self.time)
        self.cache = self.process()

    def time(self) -> float:
        """Seconds since the epoch."""
        return time.time() + self.later

    def origin(self, name: RepositoryName) -> ManifestOrigin | None:
        if not name.startswith("hub/"):
            return None
        return ManifestOrigin(self.remote, name.removeprefix("hub/"), "https://hub.example", TTL, STALE, 60.0)

    def process(self, registry: Registry | None = None, driver: Any = None) -> CachedManifests:
        """A cache that remembers nothing, as after a restart, or in another process."""
        driver = driver or self.driver
        turns = Turns(driver, lambda seconds: deferLater(self.clock, seconds), self.clock.seconds)
        return CachedManifests(registry or self.restarted(), self.origin, Uses(driver, self.time), turns, self.clock, self.time)

    async def pull(self, reference: str, cache: CachedManifests | None = None, name: RepositoryName = CACHED) -> bytes:
        stored = await (cache or self.cache).get(name, parse_reference(reference))
        self.assertEqual(stored.digest, Digest.of(stored.content))
        self.assertEqual(stored.media_type, media_type_of(stored.content))
        return stored.content

    async def wait(self, *waiting: Deferred[Any], seconds: float = 0.0) -> None:
        """Let time pass: until all of this has happened, or for so long."""
        until = self.clock.seconds() + (seconds or 120)
        while self.clock.seconds() < until and not (waiting and all(one.called for one in waiting)):
            await deferLater(reactor, 0.0005)
            self.clock.advance(0.02)

    async def age(self, tag: str, seconds: float, name: RepositoryName = CACHED) -> None:
        """Have the upstream been asked for a tag so long ago."""
        path = layout.tag_link(name, Tag(tag))
        then = self.time() - seconds
        if self.on_disk:
            os.utime(f"{self.root}/{path}", (then, then))
        else:
            self.driver._file(path).modified = then

    async def checked(self, tag: str = "latest") -> float:
        """
        :return: How long ago the upstream was asked for a tag, in seconds.
        """
        return float(self.time() - (await self.driver.stat(layout.tag_link(CACHED, Tag(tag)))).modified)

    async def is_marked(self, digest: str, name: RepositoryName = CACHED) -> bool:
        try:
            await self.driver.stat(layout.cached(name, Digest(digest)))
        except Missing:
            return False
        return True
