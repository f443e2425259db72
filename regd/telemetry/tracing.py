"""
Traces: whether there are any, and who makes them. Nothing of OpenTelemetry is imported before somebody wants it, which takes a third of a
second and some 20 MB: that is in :mod:`regd.telemetry.otel`.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred

from regd.config import ConfigError, Tracing
from regd.spans import Span
from regd.telemetry.samples import Samples

__all__ = ["OUTCOMES", "SPANS", "Tracer", "check_tracing", "make_tracer"]

#: What becomes of spans, counted.
SPANS: Final = "regd_trace_spans_total"
OUTCOMES: Final = ("exported", "failed", "dropped")

#: What the extra brings, by the modules that are needed of it.
_NEEDED: Final = ("opentelemetry.sdk.trace.export", "opentelemetry.exporter.otlp.proto.http.trace_exporter")


class Tracer(Protocol):
    """Who makes traces."""

    def begin(self, method: str, parents: Sequence[str], states: Sequence[str]) -> Span:
        """
        Begin the span of a request.

        :param parents: the values of ``traceparent`` that came with it. If there is one, and it is right, its trace goes on
            (W3C Trace Context, section 3.2); else another begins.
        :param states: those of ``tracestate``.
        """

    def collect(self, samples: Samples) -> None:
        """Add what became of spans."""

    def stop(self, patience: float) -> Deferred[None]:
        """
        Export what is left.

        :param patience: for how long at most, in seconds; then the rest is lost.
        :returns: fires when that is done, or given up. Never fails.
        """


def check_tracing(tracing: Tracing) -> None:
    """
    See whether traces can be made, if they are wanted.

    :raises ConfigError: when they are, and what makes them is not installed.
    """
    if tracing.enabled and not all(map(_is_there, _NEEDED)):
        raise ConfigError(
            "tracing.enabled: found true (in the file or by OTEL_TRACES_EXPORTER), but OpenTelemetry is not installed beside regd: "
            "pip install 'regd[otel]' (docs/operations, Traces, has the command for the Debian package), or switch tracing off"
        )


def make_tracer(tracing: Tracing, reactor: Any) -> Tracer | None:
    """
    Who makes traces in this process. A thread is started with it, so it is for processes that serve.

    :param reactor: ``Any``: a reactor is typed as the union of what reactors may be.
    :returns: ``None`` where nobody wants any.
    :raises ConfigError: when they are wanted, and cannot be made.
    """
    check_tracing(tracing)
    if not tracing.enabled:
        return None
    from regd.telemetry.otel import OpenTelemetry  # noqa: PLC0415 - only where it is wanted: see above

    return OpenTelemetry(tracing, reactor)


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ImportError:
        # A package above it is not there.
        return False
