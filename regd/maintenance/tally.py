"""The numbers of a run, as they come to be."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Tally"]


@dataclass(slots=True)
class Tally:
    """See :class:`~regd.maintenance.summary.Summary`, whose names these are."""

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
