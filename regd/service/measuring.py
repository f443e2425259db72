"""What the parts of a daemon have to say, as samples of the catalogue."""

from __future__ import annotations

import os
import resource
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Any, Final

from regd.config import Config, FilesystemStorage
from regd.storage.driver import Full, StorageError
from regd.telemetry.catalogue import SECONDS
from regd.telemetry.lag import LoopLag
from regd.telemetry.requests import HANDLERS, OTHER, RequestMeter, handler_of
from regd.telemetry.samples import Distribution, Samples
from regd.web.factory import StreamingSite
from regd.web.request import StreamingRequest

__all__ = ["ChoreState", "Meter", "collect_cache", "collect_chore", "collect_notifications", "collect_process", "counted_together"]

#: What is timed of the storage, see :class:`regd.storage.filesystem.FilesystemDriver`.
_ACTIONS: Final = ("PutContent", "Move", "Delete", "Flush")

#: What brings the bytes of uploads.
_UPLOADS: Final = frozenset({"start_upload", "append_upload", "finish_upload"})

#: What a chore removes, and the field of its summary that says how much.
_COLLECTION: Final = {
    "blobs": "blobs_swept",
    "manifests": "manifests_removed",
    "links": "links_removed",
    "repositories": "repositories_removed",
    "empty_uploads": "uploads_removed",
    "evicted_blobs": "blobs_evicted",
    "evicted_manifests": "manifests_evicted",
    "fetches": "fetches_removed",
}
_REMOVED: Final = {"collection": _COLLECTION, "eviction": _COLLECTION, "purge": {"uploads": "removed"}}

#: What a cache has counted where there is none.
_NO_CACHE: Final[Mapping[str, Any]] = {"manifests": defaultdict(int), "blobs": defaultdict(int)}

_PAGE: Final = resource.getpagesize()


class Meter:
    """
    What one process counts, where ``http.debug.prometheus.enabled`` says so.

    :param reactor: ``Any``: a reactor is typed as the union of what reactors may be.
    """

    def __init__(self, config: Config, reactor: Any) -> None:
        self._requests = RequestMeter()
        self._lag = LoopLag(reactor)
        self._storage_errors = {"full": 0, "other": 0}
        self._storage_actions = {action: Distribution([0] * (len(SECONDS) + 1), 0.0) for action in _ACTIONS}
        #: What caches have counted that are no more.
        self._past = Samples()
        self._started = False
        self._enabled = config.http.debug.prometheus.enabled
        self._timed = isinstance(config.storage.driver, FilesystemStorage)

    def start(self) -> None:
        """Begin; the event loop runs, or is about to."""
        self._started = True
        if self._enabled:
            self._lag.start()

    def stop(self) -> None:
        """Leave no timer behind."""
        self._started = False
        self._lag.stop()

    def configure(self, config: Config) -> None:
        """Do as a newer configuration says."""
        self._enabled = config.http.debug.prometheus.enabled
        if self._enabled and self._started:
            self._lag.start()
        else:
            self._lag.stop()

    def ended(self, request: StreamingRequest) -> None:
        """A request is answered, or lost."""
        if self._enabled:
            seconds = time.perf_counter() - request.began
            self._requests.count(request.route, request.method, request.code, seconds, request.received, request.sentLength)

    def storage_timed(self, action: str, seconds: float) -> None:
        """A change of the storage has ended."""
        found = self._storage_actions[action]
        found.counts[bisect_left(SECONDS, seconds)] += 1
        found.total += seconds

    def storage_failed(self, error: StorageError) -> None:
        """A request has met a failure of the storage."""
        self._storage_errors["full" if isinstance(error, Full) else "other"] += 1

    def remember(self, cache: Mapping[str, Any]) -> None:
        """Keep what a cache has counted that is no more. ``Any``: as of :func:`collect_cache`."""
        found = Samples()
        collect_cache(found, cache)
        self._past.merge(found.lasting())

    def collect(self, samples: Samples, site: StreamingSite) -> None:
        """Add what was counted, and what is so at this moment."""
        self._requests.collect(samples)
        self._lag.collect(samples)
        samples.merge(self._past)
        # So that they are there, with 0.
        collect_cache(samples)
        for handler in (*sorted(set(HANDLERS.values())), OTHER):
            samples.add("registry_http_in_flight_requests", 0, handler)
        uploads = 0
        for channel in site.open:
            for request in channel.requests:
                if request.began:
                    samples.add("registry_http_in_flight_requests", 1, handler_of(request.route))
                    uploads += request.route in _UPLOADS and not request.bodiless and not request.ended
        samples.add("regd_http_connections", len(site.open))
        samples.add("regd_uploads_in_progress", uploads)
        if self._timed:
            for action, distribution in self._storage_actions.items():
                samples.distribute("registry_storage_action_seconds", distribution, "filesystem", action)
        for kind, count in self._storage_errors.items():
            samples.add("regd_storage_errors_total", count, kind)
        collect_process(samples)


def collect_process(samples: Samples) -> None:
    """Add what the system says of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    samples.add("process_cpu_seconds_total", usage.ru_utime + usage.ru_stime)
    samples.add("process_max_fds", resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    space = resource.getrlimit(resource.RLIMIT_AS)[0]
    # Without a limit it is the largest number, as with registry:2.
    samples.add("process_virtual_memory_max_bytes", float(2**64 - 1 if space == resource.RLIM_INFINITY else space))
    try:
        samples.add("process_open_fds", len(os.listdir("/proc/self/fd")) - 1)
        with open("/proc/self/statm", encoding="ascii") as file:
            size, resident = map(int, file.read().split()[:2])
        samples.add("process_virtual_memory_bytes", size * _PAGE)
        samples.add("process_resident_memory_bytes", resident * _PAGE)
    except OSError:
        # Without /proc, or with no descriptor left, the page has the rest.
        return


def collect_cache(samples: Samples, found: Mapping[str, Any] = _NO_CACHE) -> None:
    """
    Add what a cache has counted.

    :param found: see :meth:`regd.proxy.cache.core.PullThroughCache.variables`. ``Any``: numbers, in maps.
    """
    manifests, blobs = found["manifests"], found["blobs"]
    hits = {"blob": blobs["hits"], "manifest": manifests["hits"] + manifests["confirmed"] + manifests["stale"]}
    misses = {"blob": blobs["misses"], "manifest": manifests["fetched"]}
    for kind in ("blob", "manifest"):
        samples.add("registry_proxy_hits_total", hits[kind], kind)
        samples.add("registry_proxy_misses_total", misses[kind], kind)
        samples.add("registry_proxy_requests_total", hits[kind] + misses[kind], kind)
    samples.add("registry_proxy_pulled_bytes_total", blobs["fetched_bytes"], "blob")
    for outcome in ("fetched", "confirmed", "stale", "failed"):
        samples.add("regd_upstream_fetches_total", manifests[outcome], "manifest", outcome)
    for outcome, key in (
        ("fetched", "fetched_blobs"),
        ("followed", "followed_blobs"),
        ("resumed", "resumed_fetches"),
        ("failed", "failed_fetches"),
    ):
        samples.add("regd_upstream_fetches_total", blobs[key], "blob", outcome)
    samples.add("regd_upstream_fetches_in_progress", blobs["fetches"], "blob")
    samples.add("regd_upstream_fetches_in_progress", manifests["asking"], "manifest")


def collect_notifications(samples: Samples, found: Mapping[str, Any]) -> None:
    """
    Add what has become of events.

    :param found: see :meth:`regd.service.notifying.Notifying.variables`; empty where there are none. ``Any``: numbers, in maps.
    """
    samples.add("regd_notifications_lost_total", found.get("dropped", 0), "full")
    samples.add("regd_notifications_lost_total", found.get("failed", 0), "failed")
    samples.add("regd_notifications_journal_bytes", found.get("journal_bytes", 0))
    for endpoint, count in found.get("events", {}).items():
        samples.add("registry_notifications_events_total", count, "Events", endpoint)
    for endpoint, told in found.get("endpoints", {}).items():
        samples.add("registry_notifications_events_total", 0, "Events", endpoint)
        for kind, key in (("Successes", "delivered"), ("Failures", "failures"), ("Errors", "errors")):
            samples.add("registry_notifications_events_total", told[key], kind, endpoint)
        samples.add("registry_notifications_pending_total", told["pending"], endpoint)
        samples.add("regd_notifications_undelivered_total", told["undelivered"], endpoint)
        for status, count in told["statuses"].items():
            samples.add("registry_notifications_status_total", count, _status(status), endpoint)


def _status(code: str) -> str:
    """As ``registry:2`` says it: ``200 OK``. One that an endpoint has made up is ``other``."""
    try:
        return f"{code} {HTTPStatus(int(code)).phrase}"
    except ValueError:
        return "other"


@dataclass(frozen=True)
class ChoreState:
    """
    What is known of a chore.

    :ivar totals: what its runs add up to, by field of the summary.
    :ivar last: the summary of the last run, that of a command included. ``Any``: of each field another.
    """

    running: bool
    runs: int
    failures: int
    totals: Mapping[str, float]
    last: Mapping[str, Any] | None


def collect_chore(samples: Samples, chore: str, state: ChoreState) -> None:
    """
    Add what a chore has done.

    :param chore: ``collection``, ``purge`` or ``eviction``.
    """
    totals, last = state.totals, state.last
    samples.add("regd_chore_running", state.running, chore)
    samples.add("regd_chore_runs_total", state.runs - state.failures, chore, "done")
    samples.add("regd_chore_runs_total", state.failures, chore, "failed")
    samples.add("regd_gate_closed_seconds_total", totals.get("milliseconds_closed", 0) / 1000, chore)
    samples.add("regd_chore_freed_bytes_total", totals.get("bytes_freed", 0) + totals.get("bytes_evicted", 0), chore)
    samples.add("regd_chore_skipped_files_total", totals.get("skipped", 0), chore)
    for what, key in _REMOVED[chore].items():
        samples.add("regd_chore_removed_total", totals.get(key, 0), chore, what)
    if last is None:
        return
    # That of another version may say it otherwise.
    with suppress(ValueError):
        samples.add("regd_chore_last_start_timestamp_seconds", datetime.fromisoformat(str(last.get("started"))).timestamp(), chore)
    samples.add("regd_chore_last_duration_seconds", _number(last, "seconds"), chore)
    samples.add("regd_chore_last_finished", bool(last.get("finished")), chore)
    samples.add("regd_gate_longest_closed_seconds", _number(last, "longest_closed_milliseconds") / 1000, chore)
    if chore == "eviction":
        samples.add("regd_cache_bytes", _number(last, "bytes_cached"))
        samples.add("regd_cache_blobs", _number(last, "blobs_cached"))


def _number(summary: Mapping[str, Any], key: str) -> float:
    """A field of a summary that another version may have written."""
    value = summary.get(key)
    return float(value) if isinstance(value, int | float) else 0.0


def counted_together(caches: list[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """What the caches of several workers have counted. How each of them sees the upstreams stands with the worker."""
    found: dict[str, dict[str, int]] = {"manifests": {}, "blobs": {}}
    for cache in caches:
        for part, counts in found.items():
            for key, count in cache[part].items():
                counts[key] = counts.get(key, 0) + count
    return found
