"""
Every metric that there is. ``docs/metrics.rst`` has the same, which ``tests/telemetry/test_metrics_page.py`` sees to, and nothing else can
be counted: :class:`~regd.telemetry.samples.Samples` takes no other name.

Labels have few values, and never any that a client chooses: a route, a method, a status, a kind of thing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

__all__ = ["BYTES", "CATALOGUE", "SECONDS", "Metric"]

#: The buckets of ``registry:2`` for durations, in seconds, and for sizes, 1 KiB to 2 GiB, in bytes.
SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0)
BYTES: Final = tuple(float(1024 << power) for power in range(22))

#: How late an event loop is, in seconds.
_LAGS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)

Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True)
class Metric:
    """
    What is told about one thing.

    :ivar name: as it is shown; that of a counter ends in ``_total``.
    :ivar text: what it is, for ``# HELP``.
    :ivar labels: what it is told apart by.
    :ivar buckets: upper bounds of a histogram, ascending, without the infinite one.
    :ivar greatest: whether of several processes the greatest counts, and not the sum.
    :ivar told_by_parent: whether the parent knows what it was in a process that has ended.
    """

    name: str
    kind: Kind
    text: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    greatest: bool = False
    told_by_parent: bool = False


_ALL: Final = (
    # Requests; the names, labels and buckets of registry:2, and the code besides.
    Metric("registry_http_requests_total", "counter", "Requests that have ended.", ("handler", "method", "code")),
    Metric(
        "registry_http_request_duration_seconds",
        "histogram",
        "From the head of a request to the last byte of its answer that was handed to the kernel.",
        ("handler", "method", "code"),
        SECONDS,
    ),
    Metric("registry_http_request_size_bytes", "histogram", "Bodies of requests, as far as they came.", ("handler",), BYTES),
    Metric("registry_http_response_size_bytes", "histogram", "Bodies of answers, as far as they were sent.", ("handler",), BYTES),
    Metric("registry_http_in_flight_requests", "gauge", "Requests that are being answered.", ("handler",)),
    Metric("regd_http_bytes_total", "counter", "Bodies of requests (in) and answers (out) that have ended.", ("direction",)),
    Metric("regd_http_connections", "gauge", "Connections of clients that are open."),
    Metric("regd_uploads_in_progress", "gauge", "Requests that bring the bytes of an upload at this moment."),
    # The storage.
    Metric("regd_storage_errors_total", "counter", "Requests that failed because of the storage.", ("kind",)),
    Metric("regd_storage_damaged_files_total", "counter", "Files that were found damaged."),
    Metric("regd_gate_refused_total", "counter", "Changes that were refused because the gate was closed for too long."),
    # What is done by itself.
    Metric("regd_gate_closed_seconds_total", "counter", "For how long runs kept changes out.", ("chore",)),
    Metric("regd_gate_longest_closed_seconds", "gauge", "The longest that the last run kept changes out at once.", ("chore",)),
    Metric("regd_chore_runs_total", "counter", "Runs that have ended.", ("chore", "outcome")),
    Metric("regd_chore_running", "gauge", "1 while a run goes on.", ("chore",)),
    Metric("regd_chore_last_start_timestamp_seconds", "gauge", "When the last run that ended had begun.", ("chore",)),
    Metric("regd_chore_last_duration_seconds", "gauge", "How long it took.", ("chore",)),
    Metric("regd_chore_last_finished", "gauge", "1 if it came to its end.", ("chore",)),
    Metric("regd_chore_removed_total", "counter", "What runs have removed.", ("chore", "what")),
    Metric("regd_chore_freed_bytes_total", "counter", "Bytes that runs have freed.", ("chore",)),
    Metric("regd_chore_skipped_files_total", "counter", "Files that runs could not read.", ("chore",)),
    Metric("regd_cache_bytes", "gauge", "What is cached of upstreams, as the last eviction counted it."),
    Metric("regd_cache_blobs", "gauge", "How many blobs and manifests that is."),
    # The cache in front of other registries; the names of registry:2 first.
    Metric("registry_proxy_requests_total", "counter", "Blobs and manifests of upstreams that were asked for.", ("type",)),
    Metric("registry_proxy_hits_total", "counter", "Of these, those that were here.", ("type",)),
    Metric("registry_proxy_misses_total", "counter", "Of these, those that were not.", ("type",)),
    Metric("registry_proxy_pulled_bytes_total", "counter", "Bytes of blobs that were fetched.", ("type",)),
    Metric("regd_upstream_fetches_total", "counter", "What became of questions to upstreams.", ("type", "outcome")),
    Metric("regd_upstream_fetches_in_progress", "gauge", "What is being fetched or asked.", ("type",)),
    # Processes.
    Metric("regd_event_loop_lag_seconds", "histogram", "How late the event loop comes to a timer, looked at once a second.", (), _LAGS),
    Metric("regd_workers", "gauge", "Processes that serve."),
    Metric("regd_build_info", "gauge", "1, and what runs.", ("version",)),
    Metric("process_cpu_seconds_total", "counter", "Processor time of all processes, those that have ended included.", told_by_parent=True),
    Metric("process_resident_memory_bytes", "gauge", "Memory of all processes."),
    Metric("process_open_fds", "gauge", "Open files of the process that has most.", greatest=True),
    Metric("process_max_fds", "gauge", "How many each process may have.", greatest=True),
    Metric("process_start_time_seconds", "gauge", "When the daemon was started, since the epoch.", greatest=True),
)

CATALOGUE: Final[Mapping[str, Metric]] = MappingProxyType({metric.name: metric for metric in _ALL})
