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
    Metric(
        "regd_http_bytes_total",
        "counter",
        "Bytes of the bodies of requests (in) and of answers (out) that have ended.",
        ("direction",),
    ),
    Metric("regd_http_connections", "gauge", "Connections of clients that are open."),
    Metric("regd_tls_handshakes_total", "counter", "Connections with TLS, by whether it came about.", ("outcome",)),
    Metric(
        "regd_tls_certificate_expiry_timestamp_seconds",
        "gauge",
        "When the first of the certificates expires, in seconds since the epoch; 0 without TLS.",
        greatest=True,
    ),
    Metric("regd_connections_turned_away_total", "counter", "Connections that were closed because there were too many."),
    Metric("regd_logins_failed_total", "counter", "Passwords, tokens and other credentials that were wrong."),
    Metric("regd_uploads_in_progress", "gauge", "Requests that are bringing the bytes of an upload."),
    Metric("regd_trace_spans_total", "counter", "Spans that have ended, by what became of them.", ("outcome",)),
    # The storage; the name and the labels of registry:2 first.
    Metric(
        "registry_storage_action_seconds",
        "histogram",
        "How long changes took that a request may wait for.",
        ("driver", "action"),
        SECONDS,
    ),
    Metric("regd_storage_errors_total", "counter", "Requests that failed because of the storage.", ("kind",)),
    Metric("regd_storage_damaged_files_total", "counter", "Files that were found damaged."),
    Metric("regd_gate_refused_total", "counter", "Changes that were refused because the gate was closed for too long."),
    # What is done by itself.
    Metric("regd_gate_closed_seconds_total", "counter", "For how long runs have kept changes out, all together.", ("chore",)),
    Metric(
        "regd_gate_longest_closed_seconds",
        "gauge",
        "For how long the last run that ended kept changes out at one time, at most.",
        ("chore",),
    ),
    Metric("regd_chore_runs_total", "counter", "Runs of chores that have ended.", ("chore", "outcome")),
    Metric("regd_chore_running", "gauge", "Whether a run goes on: 1 or 0.", ("chore",)),
    Metric(
        "regd_chore_last_start_timestamp_seconds",
        "gauge",
        "When the last run that ended had begun, in seconds since the epoch.",
        ("chore",),
    ),
    Metric("regd_chore_last_duration_seconds", "gauge", "How long the last run that ended took.", ("chore",)),
    Metric(
        "regd_chore_last_finished",
        "gauge",
        "Whether the last run came to its end (1), or was stopped or failed before it (0).",
        ("chore",),
    ),
    Metric("regd_chore_removed_total", "counter", "Things that runs have removed.", ("chore", "what")),
    Metric("regd_chore_freed_bytes_total", "counter", "Bytes that runs have freed.", ("chore",)),
    Metric("regd_chore_skipped_files_total", "counter", "Files that runs could not read, and passed over.", ("chore",)),
    Metric("regd_cache_bytes", "gauge", "Bytes that are cached of upstreams, as the last eviction counted them."),
    Metric("regd_cache_blobs", "gauge", "Blobs and manifests that are cached of upstreams, as the last eviction counted them."),
    # The cache in front of other registries; the names of registry:2 first.
    Metric("registry_proxy_requests_total", "counter", "Blobs and manifests of upstreams that clients have asked for.", ("type",)),
    Metric("registry_proxy_hits_total", "counter", "Blobs and manifests of upstreams that were asked for and were here.", ("type",)),
    Metric("registry_proxy_misses_total", "counter", "Blobs and manifests of upstreams that were asked for and were not here.", ("type",)),
    Metric("registry_proxy_pulled_bytes_total", "counter", "Bytes that were fetched from upstreams.", ("type",)),
    Metric("regd_upstream_fetches_total", "counter", "Questions to upstreams, by what became of them.", ("type", "outcome")),
    Metric(
        "regd_upstream_fetches_in_progress",
        "gauge",
        "Blobs that are being fetched, and manifests that upstreams are being asked for.",
        ("type",),
    ),
    # Notifications; the names of registry:2 first.
    Metric(
        "registry_notifications_events_total",
        "counter",
        "Events for an endpoint, and tries to tell it of them, by what became of these.",
        ("type", "endpoint"),
    ),
    Metric("registry_notifications_pending_total", "gauge", "Events that an endpoint has not been told of.", ("endpoint",)),
    Metric("registry_notifications_status_total", "counter", "Answers of an endpoint.", ("code", "endpoint")),
    Metric("regd_notifications_undelivered_total", "counter", "Events that were given up, and are in the file for those.", ("endpoint",)),
    Metric("regd_notifications_lost_total", "counter", "Events that could not be written down.", ("reason",)),
    Metric("regd_notifications_journal_bytes", "gauge", "Room that events take on disk."),
    # The daemon and its processes.
    Metric("regd_health_checks_failing", "gauge", "Health checks that fail, and for which clients are refused."),
    Metric("regd_event_loop_lag_seconds", "histogram", "How late the event loop came to a timer that fires once a second.", (), _LAGS),
    Metric("regd_workers", "gauge", "Processes that serve."),
    Metric("regd_workers_lost_total", "counter", "Workers that have ended while they were wanted, and were replaced."),
    Metric("regd_build_info", "gauge", "Always 1; its label says which version runs.", ("version",)),
    Metric("process_cpu_seconds_total", "counter", "Processor time of all processes, those that have ended included.", told_by_parent=True),
    Metric("process_resident_memory_bytes", "gauge", "Resident memory of all processes; what they share counts for each."),
    Metric("process_virtual_memory_bytes", "gauge", "Address space of all processes."),
    Metric("process_virtual_memory_max_bytes", "gauge", "How much address space each process may have.", greatest=True),
    Metric("process_open_fds", "gauge", "Open file descriptors of the process that has most.", greatest=True),
    Metric("process_max_fds", "gauge", "How many file descriptors each process may have open.", greatest=True),
    Metric("process_start_time_seconds", "gauge", "When the daemon was started, in seconds since the epoch.", greatest=True),
)

CATALOGUE: Final[Mapping[str, Metric]] = MappingProxyType({metric.name: metric for metric in _ALL})
