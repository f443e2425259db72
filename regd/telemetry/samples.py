"""Samples: what the metrics of the catalogue are at one moment, in one process or in several; and how they come together."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from regd.telemetry.catalogue import CATALOGUE, Metric

__all__ = ["Distribution", "Samples"]

Labels = tuple[str, ...]


class Distribution:
    """
    The value of a histogram.

    :ivar counts: how many were in each bucket, and not in one before; the last is the infinite one.
    :ivar total: the sum of all that was observed.
    """

    __slots__ = ("counts", "total")

    def __init__(self, counts: Sequence[int], total: float) -> None:
        self.counts = list(counts)
        self.total = total

    def add(self, other: Distribution) -> None:
        """Take in what another one has."""
        self.counts = [ours + theirs for ours, theirs in zip(self.counts, other.counts, strict=True)]
        self.total += other.total


class Samples:
    """Values, by metric and labels."""

    def __init__(self) -> None:
        self._numbers: dict[str, dict[Labels, float]] = {}
        self._distributions: dict[str, dict[Labels, Distribution]] = {}

    def add(self, name: str, value: float, *labels: str) -> None:
        """
        Take in a number: the sum counts, or the greatest where the metric says so.

        :raises KeyError: when there is no such metric.
        :raises ValueError: when it is of another kind, or has other labels.
        """
        metric = _checked(name, labels)
        if metric.buckets:
            raise ValueError(f"{name} is a histogram")
        values = self._numbers.setdefault(name, {})
        before = values.get(labels)
        if before is None:
            values[labels] = value
        else:
            values[labels] = max(before, value) if metric.greatest else before + value

    def distribute(self, name: str, distribution: Distribution, *labels: str) -> None:
        """
        Take in the value of a histogram.

        :raises KeyError: as :meth:`add`.
        :raises ValueError: likewise, or when its buckets are others.
        """
        metric = _checked(name, labels)
        if len(distribution.counts) != len(metric.buckets) + 1:
            raise ValueError(f"{name} has other buckets")
        values = self._distributions.setdefault(name, {})
        if labels in values:
            values[labels].add(distribution)
        else:
            values[labels] = Distribution(distribution.counts, distribution.total)

    def merge(self, other: Samples) -> None:
        """Take in what another process has."""
        for name, numbers in other._numbers.items():
            for labels, value in numbers.items():
                self.add(name, value, *labels)
        for name, distributions in other._distributions.items():
            for labels, distribution in distributions.items():
                self.distribute(name, distribution, *labels)

    def lasting(self) -> Samples:
        """What stays true of a process that is gone: what was counted, and nothing of what was so at the moment."""
        found = Samples()
        for name, values in self._numbers.items():
            if CATALOGUE[name].kind == "counter" and not CATALOGUE[name].told_by_parent:
                found._numbers[name] = dict(values)
        for name, distributions in self._distributions.items():
            for labels, distribution in distributions.items():
                found.distribute(name, distribution, *labels)
        return found

    def numbers(self, name: str) -> Iterator[tuple[Labels, float]]:
        """The values of a counter or a gauge."""
        yield from sorted(self._numbers.get(name, {}).items())

    def distributions(self, name: str) -> Iterator[tuple[Labels, Distribution]]:
        """The values of a histogram."""
        yield from sorted(self._distributions.get(name, {}).items(), key=lambda item: item[0])

    def to_json(self) -> bytes:
        """For another process."""
        numbers = [[name, labels, value] for name, values in self._numbers.items() for labels, value in values.items()]
        distributions = [
            [name, labels, found.counts, found.total] for name, values in self._distributions.items() for labels, found in values.items()
        ]
        return json.dumps([numbers, distributions], separators=(",", ":")).encode()

    @classmethod
    def from_json(cls, text: bytes) -> Samples:
        """
        What :meth:`to_json` wrote, of the same version.

        :raises ValueError: when it is something else.
        """
        found = cls()
        try:
            # Any: what is in JSON. A wrong shape fails in one of the ways below.
            document: Any = json.loads(text)
            numbers, distributions = document
            for name, labels, value in numbers:
                found.add(name, float(value), *labels)
            for name, labels, counts, total in distributions:
                found.distribute(name, Distribution(counts, float(total)), *labels)
        except (TypeError, KeyError, RecursionError) as error:
            raise ValueError(f"these are no samples: {error}") from None
        return found


def _checked(name: str, labels: Labels) -> Metric:
    metric = CATALOGUE[name]
    if len(labels) != len(metric.labels):
        raise ValueError(f"{name} has the labels {', '.join(metric.labels) or 'none'}")
    return metric
