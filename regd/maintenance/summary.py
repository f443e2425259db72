"""What a collection is to do, who is told about it while it runs, and what became of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Protocol

from regd.names import Digest

__all__ = ["Orders", "Running", "Stopped", "Summary", "Witness"]


class Running(Exception):
    """Another collection runs on this directory."""


class Stopped(Exception):
    """The collection is to stop."""


@dataclass(frozen=True, slots=True)
class Orders:
    """
    What a collection is to do.

    :ivar grace: how long what nothing refers to is kept after it was last pushed or asked for, in seconds.
    :ivar untagged: whether manifests go that no tag, no index and no living subject holds.
    :ivar dryrun: whether nothing is to be removed, and nothing else changed.
    :ivar maxrate: how many files are looked at or removed a second, 0 for no limit.
    :ivar garbage: whether what nothing refers to goes; else only what is cached, and has to make room.
    :ivar prefixes: which repositories are cached, by what their names begin with; an empty one stands for all.
    :ivar maxsize: how many bytes of cached content may stay; ``None`` for no limit.
    :ivar maxage: for how long cached content may stay that is not used, in seconds; ``None`` for ever.
    """

    grace: float
    untagged: bool = False
    dryrun: bool = False
    maxrate: int = 0
    garbage: bool = True
    prefixes: Sequence[str] = ()
    maxsize: int | None = None
    maxage: float | None = None

    @property
    def evicting(self) -> bool:
        """Whether cached content may have to go."""
        return bool(self.prefixes) and (self.maxsize is not None or self.maxage is not None)


class Witness(Protocol):
    """Is told what a collection finds: what it marks, in ``registry:2``'s order, then what may go."""

    def repository(self, name: str) -> None:
        """The repository that is marked next."""

    def manifest(self, name: str, digest: Digest) -> None:
        """A manifest that stays."""

    def blob(self, name: str, digest: Digest) -> None:
        """What that manifest names; told for each that names it."""

    def eligible_manifest(self, name: str, digest: Digest) -> None:
        """A manifest that is removed, or would be."""

    def eligible_blob(self, digest: Digest, size: int) -> None:
        """A blob that is removed, or would be. ``size`` in bytes. It may yet turn out to be wanted."""

    def progress(self, stage: str, done: int, total: int | None) -> None:
        """How far it is: ``mark`` counts repositories, ``sweep`` directories of blobs, ``delete`` files taken away."""


@dataclass(frozen=True, slots=True)
class Summary:
    """
    What became of a collection. In a dry run, what would have.

    :ivar started: RFC 3339, UTC.
    :ivar seconds: how long it took.
    :ivar seconds_open: of these, how long changes could be made.
    :ivar milliseconds_closed: and how long not, all together.
    :ivar longest_closed_milliseconds: the longest that the gate was closed at once.
    :ivar repositories: looked at.
    :ivar manifests: that stay.
    :ivar blobs: that something refers to, manifests among them.
    :ivar blobs_swept: taken away.
    :ivar bytes_freed: the size of these.
    :ivar manifests_removed: untagged ones.
    :ivar links_removed: links of repositories to blobs that none of their manifests names.
    :ivar repositories_removed: those with nothing in them.
    :ivar uploads_removed: directories of uploads with nothing in them.
    :ivar young: blobs that nothing refers to, and that are kept because of the grace period.
    :ivar young_bytes: the size of these.
    :ivar blobs_cached: blobs and manifests of upstreams that stay, where they are limited.
    :ivar bytes_cached: the size of these.
    :ivar blobs_evicted: those that were taken away, on top of ``blobs_swept``.
    :ivar bytes_evicted: the size of these.
    :ivar manifests_evicted: how many manifests repositories have lost by that.
    :ivar fetches_removed: what was left of fetches that nobody went on with.
    :ivar skipped: files that are not what they should be.
    :ivar finished: whether it came to its end.
    :ivar error: why it did not, unless it was stopped.
    """

    started: str = ""
    seconds: float = 0.0
    seconds_open: float = 0.0
    milliseconds_closed: float = 0.0
    longest_closed_milliseconds: float = 0.0
    repositories: int = 0
    manifests: int = 0
    blobs: int = 0
    blobs_swept: int = 0
    bytes_freed: int = 0
    manifests_removed: int = 0
    links_removed: int = 0
    repositories_removed: int = 0
    uploads_removed: int = 0
    young: int = 0
    young_bytes: int = 0
    blobs_cached: int = 0
    bytes_cached: int = 0
    blobs_evicted: int = 0
    bytes_evicted: int = 0
    manifests_evicted: int = 0
    fetches_removed: int = 0
    skipped: int = 0
    dryrun: bool = False
    untagged: bool = False
    finished: bool = False
    error: str = ""

    def to_json(self) -> str:
        """One object, on one line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> Summary:
        """
        What :meth:`to_json` wrote, of whichever version: what it does not know is passed over, what is not there is as at the beginning.

        :raises ValueError: when it is something else.
        """
        try:
            document = json.loads(text)
        except RecursionError:
            raise ValueError("nests too deep") from None
        if not isinstance(document, dict):
            raise ValueError("not an object")
        found: dict[str, object] = {}
        for field in fields(cls):
            value = document.get(field.name, field.default)
            wanted = type(field.default)
            if wanted is float and type(value) is int:
                value = float(value)
            if type(value) is not wanted:
                raise ValueError(f"{field.name}: has to be a {wanted.__name__}")
            found[field.name] = value
        # Each was compared with the type of its default, which mypy cannot follow.
        return cls(**found)  # type: ignore[arg-type]
