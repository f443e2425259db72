"""
Where what clients read comes from: the registry's own parts, or something that has them and more, as a cache of other registries does.

What :mod:`regd.web` reads, it reads by these; what it writes, it writes to the registry. Every method may raise
:class:`~regd.errors.RegistryError` besides, where what is asked for has to be asked of somebody else first.
"""

from __future__ import annotations

from typing import Protocol

from regd.manifest import Descriptor, Manifest
from regd.names import Digest, Reference, RepositoryName, Tag
from regd.registry.blobs import Blob
from regd.registry.manifests import StoredManifest
from regd.registry.pages import Page
from regd.storage.driver import Content

__all__ = ["BlobSource", "ManifestSource", "ReferrerSource", "TagSource"]


class BlobSource(Protocol):
    """Blobs, as :class:`~regd.registry.blobs.Blobs` has them."""

    async def stat(self, name: RepositoryName, digest: Digest) -> Blob:
        """
        :raises BlobUnknown: when this repository does not hold it.
        """

    async def promise(self, name: RepositoryName, digest: Digest) -> Blob:
        """
        What :meth:`stat` finds, for a client that relies on it.

        :raises BlobUnknown: when this repository does not hold it.
        """

    async def fetch(self, name: RepositoryName, digest: Digest) -> tuple[Blob, Content | bytes]:
        """
        All of a blob. Bytes that come from elsewhere have begun to come when this returns, and may then be
        :class:`~regd.storage.driver.Interrupted`.

        :returns: the blob, and its bytes where they are few, else the content, which the caller closes.
        :raises BlobUnknown: when this repository does not hold it.
        """

    async def open(self, name: RepositoryName, digest: Digest, start: int, end: int) -> Content:
        """
        Some of the bytes of a blob, for who knows from :meth:`stat` how many there are. Of content that comes from elsewhere no others may
        be asked for.

        :param start: the first byte that is going to be read.
        :param end: the one after the last.
        :returns: the content, which the caller closes. Offsets are those in the whole blob.
        :raises BlobUnknown: when this repository does not hold it.
        """


class ManifestSource(Protocol):
    """Manifests and tags, as :class:`~regd.registry.manifests.Manifests` has them."""

    async def get(self, name: RepositoryName, reference: Reference) -> StoredManifest:
        """
        :raises ManifestUnknown: when this repository does not hold it.
        """

    async def promise(self, name: RepositoryName, reference: Reference) -> StoredManifest:
        """
        What :meth:`get` finds, for a client that relies on it.

        :raises ManifestUnknown: when this repository does not hold it.
        """

    async def read(self, digest: Digest) -> Manifest | None:
        """What a stored manifest says, which :meth:`get` has found; ``None`` when it is not there any more or cannot be read."""


class TagSource(Protocol):
    """Lists of tags, as :class:`~regd.registry.tags.Tags` makes them."""

    async def page(self, name: RepositoryName, limit: int, last: str = "") -> Page[Tag]:
        """
        Up to ``limit`` tags after ``last``, which need not be one.

        :raises NameUnknown: when there is no such repository.
        """


class ReferrerSource(Protocol):
    """Lists of manifests that are about another one, as :class:`~regd.registry.referrers.Referrers` makes them."""

    async def page(
        self, name: RepositoryName, subject: Digest, limit: int, last: str = "", artifact_type: str | None = None
    ) -> Page[Descriptor]:
        """
        Up to ``limit`` referrers after the digest ``last``; none for a subject that nobody knows.

        :param artifact_type: only those of this type.
        """
