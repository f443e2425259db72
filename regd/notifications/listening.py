"""What handlers of requests say, as events."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from typing import Any, Final

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import gatherResults

from regd.errors import ManifestInvalid
from regd.manifest import Descriptor, Manifest, parse
from regd.names import Digest, RepositoryName, Tag
from regd.notifications.events import Action, Actor, Event, Request, Source, Target
from regd.notifications.recorder import Recorder
from regd.registry.manifests import StoredManifest
from regd.web.request import StreamingRequest
from regd.web.urls import Urls

__all__ = ["RequestListener"]

#: What registry:2 says of every blob, for nobody has told it more.
_BLOB: Final = "application/octet-stream"


class RequestListener:
    """
    A :class:`~regd.web.listening.Listener`.

    :param now: seconds since the epoch.
    """

    def __init__(
        self,
        recorder: Recorder,
        urls: Urls,
        source: Source,
        now: Callable[[], float],
    ) -> None:
        self._recorder = recorder
        self._urls = urls
        self._source = source
        self._now = now

    def wants(self, action: str) -> bool:
        """See :class:`~regd.web.listening.Listener`."""
        return any(action not in endpoint.ignore.actions for endpoint in self._recorder.config.active)

    def blob_pulled(self, request: StreamingRequest, name: RepositoryName, digest: Digest, size: int) -> None:
        """See :class:`~regd.web.listening.Listener`."""
        if self._recorder.wanted("pull", _BLOB):
            self._recorder.take(self._event(request, "pull", self._blob(request, name, digest, size)))

    def manifest_pulled(self, request: StreamingRequest, name: RepositoryName, stored: StoredManifest, tag: Tag | None) -> None:
        """See :class:`~regd.web.listening.Listener`."""
        if not self._recorder.wanted("pull", stored.media_type):
            return
        references: tuple[Mapping[str, Any], ...] = ()
        if self._recorder.config.events.includereferences:
            try:
                references = _references(parse(stored.content, stored.media_type))
            except ManifestInvalid:
                # It was pushed to something that is less strict, and is served all the same.
                references = ()
        url = self._urls.manifest(request, name, stored.digest)
        target = Target(name, stored.media_type, len(stored.content), stored.digest, url=url, tag=tag or "", references=references)
        self._recorder.take(self._event(request, "pull", target))

    async def blob_pushed(self, request: StreamingRequest, name: RepositoryName, digest: Digest, size: int) -> None:
        """See :class:`~regd.web.listening.Listener`."""
        if self._recorder.wanted("push", _BLOB):
            await self._recorder.take(self._event(request, "push", self._blob(request, name, digest, size)))

    async def blob_mounted(
        self, request: StreamingRequest, name: RepositoryName, digest: Digest, size: int, source: RepositoryName | None
    ) -> None:
        """See :class:`~regd.web.listening.Listener`."""
        if self._recorder.wanted("mount", _BLOB):
            target = self._blob(request, name, digest, size, source or "")
            await self._recorder.take(self._event(request, "mount", target))

    async def blob_deleted(self, request: StreamingRequest, name: RepositoryName, digest: Digest) -> None:
        """See :class:`~regd.web.listening.Listener`."""
        await self._deleted(request, Target(name, digest=digest))

    async def manifest_pushed(
        self, request: StreamingRequest, name: RepositoryName, digest: Digest, manifest: Manifest, size: int, tags: tuple[Tag, ...]
    ) -> None:
        """See :class:`~regd.web.listening.Listener`. Each tag has an event, as it has where each is pushed by itself."""
        if not self._recorder.wanted("push", manifest.media_type):
            return
        references = _references(manifest) if self._recorder.config.events.includereferences else ()
        url = self._urls.manifest(request, name, digest)
        events = [
            self._event(request, "push", Target(name, manifest.media_type, size, digest, url=url, tag=tag, references=references))
            for tag in tags or ("",)
        ]
        await gatherResults([self._recorder.take(event) for event in events])

    async def manifest_deleted(self, request: StreamingRequest, name: RepositoryName, digest: Digest) -> None:
        """See :class:`~regd.web.listening.Listener`."""
        await self._deleted(request, Target(name, digest=digest))

    async def tag_deleted(self, request: StreamingRequest, name: RepositoryName, tag: Tag) -> None:
        """See :class:`~regd.web.listening.Listener`."""
        await self._deleted(request, Target(name, tag=tag))

    async def _deleted(self, request: StreamingRequest, target: Target) -> None:
        # registry:2 says no media type of what is deleted.
        if self._recorder.wanted("delete", ""):
            await self._recorder.take(self._event(request, "delete", target))

    def _blob(self, request: StreamingRequest, name: RepositoryName, digest: Digest, size: int, from_repository: str = "") -> Target:
        url = self._urls.blob(request, name, digest)
        return Target(name, _BLOB, size, digest, from_repository=from_repository, url=url)

    def _event(self, request: StreamingRequest, action: Action, target: Target) -> Event:
        asked = Request(
            request.id,
            self._client(request),
            request.getHeader("host") or "",
            request.method.decode("ascii", "backslashreplace"),
            request.getHeader("user-agent") or "",
        )
        return Event(str(uuid.uuid4()), self._now(), action, target, asked, Actor(request.user_name), self._source)

    def _client(self, request: StreamingRequest) -> str:
        """The client's address: what a trusted proxy says that it is, else that of the connection."""
        peer = request.getClientAddress()
        if not isinstance(peer, IPv4Address | IPv6Address):
            return ""
        said = (request.getHeader("x-forwarded-for") or "").partition(",")[0].strip()
        if said and self._urls.trusts(peer.host):
            return said
        host = peer.host.removeprefix("::ffff:")
        return f"[{host}]:{peer.port}" if ":" in host else f"{host}:{peer.port}"


def _references(manifest: Manifest) -> tuple[Mapping[str, Any], ...]:
    """What a manifest refers to, in its order: of an index its manifests, else the configuration and the layers."""
    return tuple(_reference(descriptor) for descriptor in (*manifest.blobs, *manifest.manifests))


def _reference(descriptor: Descriptor) -> Mapping[str, Any]:
    """The fields of registry:2's descriptors, in its order."""
    found = {"mediaType": descriptor.media_type, "size": descriptor.size, "digest": descriptor.digest}
    more = {"urls": list(descriptor.urls), "annotations": dict(sorted(descriptor.annotations.items()))}
    return {**found, **{name: value for name, value in more.items() if value}}
