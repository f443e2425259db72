"""
Where a cached repository comes from. What of the client of a remote registry it takes says whoever asks there; for blobs, that is here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeAlias, TypeVar

from regd.names import Digest, RepositoryName
from regd.proxy.remote.values import RemoteBlob

__all__ = ["BlobOrigin", "BlobRemote", "Origin", "Origins"]

#: What is asked there, as far as whoever asks goes.
RemoteT_co = TypeVar("RemoteT_co", covariant=True)


class BlobRemote(Protocol):
    """
    What the client of a remote registry does, as far as blobs go. Every method may raise
    :class:`~regd.proxy.remote.errors.RemoteError`.
    """

    @property
    def resting(self) -> float:
        """For how many seconds it does not want to be asked; what is asked meanwhile fails at once."""

    async def blob_size(self, name: str, digest: Digest) -> int | None:
        """HEAD; ``None`` where it does not say how long the blob is."""

    async def blob(self, name: str, digest: Digest, start: int = 0, end: int | None = None) -> RemoteBlob:
        """GET, with ``Range`` where ``start`` or ``end`` is given."""


@dataclass(frozen=True, slots=True)
class Origin(Generic[RemoteT_co]):
    """
    :ivar remote: the registry that a repository comes from.
    :ivar name: what the repository is called there.
    :ivar url: that registry, as the operator wrote it, for messages.
    """

    remote: RemoteT_co
    name: str
    url: str


#: Where a repository comes from; ``None`` for a local one.
Origins = Callable[[RepositoryName], Origin[RemoteT_co] | None]

#: For annotations: an :class:`Origin` is made by its own name.
BlobOrigin: TypeAlias = Origin[BlobRemote]
