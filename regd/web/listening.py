"""Who wants to know what happens: the seam to notifications."""

from __future__ import annotations

from typing import Protocol

from regd.manifest import Manifest
from regd.names import Digest, RepositoryName, Tag
from regd.registry.manifests import StoredManifest
from regd.web.request import StreamingRequest

__all__ = ["Listener"]


class Listener(Protocol):
    """
    Is told by the handlers what they have done, before they answer. Where nobody listens there is none, so that it costs nothing.

    What has changed is waited for, so that the client is told of it only when the event is safe; what was read is not. Nothing here fails.
    """

    def wants(self, action: str) -> bool:
        """Whether any such event could be of interest: those that need a look at the storage are asked about first."""

    def blob_pulled(self, request: StreamingRequest, name: RepositoryName, digest: Digest, size: int) -> None:
        """A blob, or part of it, is about to be sent, or a client has asked whether it is there."""

    def manifest_pulled(self, request: StreamingRequest, name: RepositoryName, stored: StoredManifest, tag: Tag | None) -> None:
        """
        As :meth:`blob_pulled`.

        :param tag: what it was asked for by, if that was a tag.
        """

    async def blob_pushed(self, request: StreamingRequest, name: RepositoryName, digest: Digest, size: int) -> None:
        """A blob is in this repository."""

    async def blob_mounted(
        self, request: StreamingRequest, name: RepositoryName, digest: Digest, size: int, source: RepositoryName | None
    ) -> None:
        """
        A blob that was there already is in this repository, too.

        :param source: where the client says that it is; ``None`` where it does not say.
        """

    async def blob_deleted(self, request: StreamingRequest, name: RepositoryName, digest: Digest) -> None:
        """A blob is no longer in this repository."""

    async def manifest_pushed(
        self, request: StreamingRequest, name: RepositoryName, digest: Digest, manifest: Manifest, size: int, tags: tuple[Tag, ...]
    ) -> None:
        """
        A manifest is in this repository.

        :param tags: those that mean it since this push.
        """

    async def manifest_deleted(self, request: StreamingRequest, name: RepositoryName, digest: Digest) -> None:
        """A manifest is no longer in this repository."""

    async def tag_deleted(self, request: StreamingRequest, name: RepositoryName, tag: Tag) -> None:
        """A tag means nothing any more."""
