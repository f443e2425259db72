"""Requests, counted as they end. This is on the way of every request, so it does no more than it has to: the rest is done for a page."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Final

from regd.telemetry.catalogue import BYTES, SECONDS
from regd.telemetry.samples import Distribution, Samples

__all__ = ["HANDLERS", "OTHER", "RequestMeter", "handler_of"]

#: What ``registry:2`` calls the routes, by the name that they have here.
HANDLERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "alive": "root",
        "base": "base",
        "get_blob": "blob",
        "delete_blob": "blob",
        "start_upload": "blob_upload",
        "upload_status": "blob_upload_chunk",
        "append_upload": "blob_upload_chunk",
        "finish_upload": "blob_upload_chunk",
        "cancel_upload": "blob_upload_chunk",
        "get_manifest": "manifest",
        "put_manifest": "manifest",
        "delete_manifest": "manifest",
        "list_repositories": "catalog",
        "list_tags": "tags",
        "list_referrers": "referrers",
        "proxied": "proxied",
    }
)

#: What stands for everything that is not expected, so that clients cannot make series.
OTHER: Final = "other"

_METHODS: Final = {name.upper().encode(): name for name in ("get", "head", "put", "post", "patch", "delete", "options")}

#: 499 is a client that went away.
_CODES: Final = {code: str(code) for code in (*map(int, HTTPStatus), 499)}


def handler_of(route: str) -> str:
    """What a route is called in metrics."""
    return HANDLERS.get(route, OTHER)


class _Group:
    """What was counted of the requests of one route, method and status."""

    __slots__ = ("received", "received_counts", "seconds", "seconds_counts", "sent", "sent_counts")

    def __init__(self) -> None:
        self.seconds = 0.0
        self.seconds_counts = [0] * (len(SECONDS) + 1)
        self.received = self.sent = 0
        self.received_counts = [0] * (len(BYTES) + 1)
        self.sent_counts = [0] * (len(BYTES) + 1)


class RequestMeter:
    """Counts requests. Few routes, methods and statuses make few groups, whatever clients ask for."""

    def __init__(self) -> None:
        self._groups: dict[tuple[str, bytes, int], _Group] = {}

    def count(self, route: str, method: bytes, status: int, seconds: float, received: int, sent: int) -> None:
        """
        Count a request that has ended.

        :param route: the name of the endpoint; empty where there was none.
        :param received: bytes of its body.
        :param sent: bytes of the body of its answer.
        """
        key = route, method, status
        group = self._groups.get(key)
        if group is None:
            # What is not expected shares a group.
            key = route if route in HANDLERS else "", method if method in _METHODS else b"", status if status in _CODES else 0
            group = self._groups.setdefault(key, _Group())
        group.seconds += seconds
        group.seconds_counts[bisect_left(SECONDS, seconds)] += 1
        group.sent += sent
        # Which power of two from 1 KiB on; those above the last share one bucket.
        group.sent_counts[min(((sent - 1) >> 10).bit_length(), 22) if sent else 0] += 1
        if received:
            group.received += received
            group.received_counts[min(((received - 1) >> 10).bit_length(), 22)] += 1
        else:
            group.received_counts[0] += 1

    def collect(self, samples: Samples) -> None:
        """Add what was counted."""
        received = sent = 0
        for (route, known, status), group in self._groups.items():
            handler, method, code = handler_of(route), _METHODS.get(known, OTHER), _CODES.get(status, OTHER)
            samples.add("registry_http_requests_total", sum(group.seconds_counts), handler, method, code)
            durations = Distribution(group.seconds_counts, group.seconds)
            samples.distribute("registry_http_request_duration_seconds", durations, handler, method, code)
            samples.distribute("registry_http_request_size_bytes", Distribution(group.received_counts, group.received), handler)
            samples.distribute("registry_http_response_size_bytes", Distribution(group.sent_counts, group.sent), handler)
            received += group.received
            sent += group.sent
        samples.add("regd_http_bytes_total", received, "in")
        samples.add("regd_http_bytes_total", sent, "out")
