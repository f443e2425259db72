"""What a remote registry answers, as values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from regd.names import Digest
from regd.web.body import RequestBody

__all__ = ["RemoteBlob", "RemoteManifest", "TagPage"]


@dataclass(frozen=True, slots=True)
class RemoteManifest:
    """
    :ivar content: as it came, at most 4 MiB.
    :ivar media_type: what the ``Content-Type`` says, in lower case and without parameters; empty where there is none.
    :ivar digest: of ``content``.
    """

    content: bytes
    media_type: str
    digest: Digest


@dataclass(frozen=True, slots=True)
class RemoteBlob:
    """
    The bytes of a blob, on their way. Nobody has looked at their digest.

    :ivar start: where in the blob the body begins: where that was asked for, or before it; 0 where the remote registry sends all of it,
        whatever was asked for.
    :ivar size: bytes of the whole blob; ``None`` where nobody says.
    :ivar body: to be started once, or never; it may end later than was asked for, and earlier. It fails with
        :class:`~regd.web.body.BodyAborted` when the other end breaks off or stalls, and :attr:`why` says why.
    :ivar close: to be called always, and at any time: what has not come of the body will not come, and its connection is cut; one whose
        body has ended is kept for the next request. May be called again.
    :ivar why: why the body broke off, for the log; empty while nobody knows.
    """

    start: int
    size: int | None
    body: RequestBody
    close: Callable[[], None]
    why: Callable[[], str]


@dataclass(frozen=True, slots=True)
class TagPage:
    """
    :ivar last: what to ask for tags after; ``None`` when these were the last.
    """

    tags: tuple[str, ...]
    last: str | None
