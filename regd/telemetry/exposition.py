"""Samples as a page for Prometheus."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from regd.telemetry.catalogue import CATALOGUE, Metric
from regd.telemetry.samples import Distribution, Samples

__all__ = ["CONTENT_TYPE", "page"]

#: The text format 0.0.4, which every Prometheus reads.
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class _Shown(Collector):
    """What the library asks for families."""

    def __init__(self, samples: Samples) -> None:
        self._samples = samples

    def collect(self) -> Iterable[Family]:
        """All metrics, also those that there are no values of."""
        for metric in CATALOGUE.values():
            if metric.kind == "histogram":
                yield _histogram(metric, self._samples)
            else:
                yield _numbers(metric, self._samples)


def page(samples: Samples) -> bytes:
    """The page; see https://prometheus.io/docs/instrumenting/exposition_formats/."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Shown(samples))
    return generate_latest(registry)


def _numbers(metric: Metric, samples: Samples) -> Family:
    family: CounterMetricFamily | GaugeMetricFamily
    if metric.kind == "counter":
        family = CounterMetricFamily(metric.name.removesuffix("_total"), metric.text, labels=metric.labels)
    else:
        family = GaugeMetricFamily(metric.name, metric.text, labels=metric.labels)
    for labels, value in samples.numbers(metric.name):
        family.add_metric(labels, value)
    return family


def _histogram(metric: Metric, samples: Samples) -> Family:
    family = HistogramMetricFamily(metric.name, metric.text, labels=metric.labels)
    for labels, distribution in samples.distributions(metric.name):
        family.add_metric(labels, _buckets(metric, distribution), distribution.total)
    return family


def _buckets(metric: Metric, distribution: Distribution) -> list[tuple[str, float]]:
    """For each upper bound, how many were not above it."""
    found, count = [], 0
    for bound, more in zip([*map(_bound, metric.buckets), "+Inf"], distribution.counts, strict=True):
        count += more
        found.append((bound, float(count)))
    return found


def _bound(value: float) -> str:
    return repr(value)
