"""How late the event loop is."""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from regd.telemetry.catalogue import CATALOGUE
from regd.telemetry.samples import Distribution, Samples

__all__ = ["LoopLag"]

_NAME: Final = "regd_event_loop_lag_seconds"

#: How often it is looked at, in seconds.
_EVERY: Final = 1.0


class LoopLag:
    """
    Looks once a second, as long as it runs: a daemon without metrics has no such timer.

    :param clock: the event loop's.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._buckets = CATALOGUE[_NAME].buckets
        self._found = Distribution([0] * (len(self._buckets) + 1), 0.0)
        self._due = 0.0
        self._timer: IDelayedCall | None = None

    def start(self) -> None:
        """Begin; nothing, if it has."""
        if self._timer is None:
            self._wait()

    def stop(self) -> None:
        """End; what was found stays."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def collect(self, samples: Samples) -> None:
        """Add what was found."""
        samples.distribute(_NAME, self._found)

    def _wait(self) -> None:
        self._due = self._clock.seconds() + _EVERY
        self._timer = self._clock.callLater(_EVERY, self._look)

    def _look(self) -> None:
        late = max(0.0, self._clock.seconds() - self._due)
        self._found.counts[bisect_left(self._buckets, late)] += 1
        self._found.total += late
        self._wait()
