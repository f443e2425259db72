"""What the tests of traces share: spans that are kept in memory, where OpenTelemetry is installed."""

from __future__ import annotations

import unittest
from typing import Any

from twisted.internet.task import Clock

from regd.config import Tracing
from regd.spans import Span

try:
    from opentelemetry.sdk.trace.export import SpanExportResult
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from regd.telemetry.otel import OpenTelemetry
except ImportError:
    INSTALLED = False
else:
    INSTALLED = True

__all__ = ["INSTALLED", "PARENT", "TRACE", "Loop", "Slow", "Traces", "needs_otel"]

needs_otel = unittest.skipUnless(INSTALLED, "OpenTelemetry is not installed; the extra otel brings it")

#: A trace, and the span of a client in it that is sampled.
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


class Loop(Clock):
    """An event loop as far as what traces needs one; what threads want of it is kept for :meth:`turn`."""

    def __init__(self) -> None:
        super().__init__()
        self.called: list[tuple[Any, tuple[Any, ...]]] = []

    def callFromThread(self, function: Any, *arguments: Any) -> None:
        self.called.append((function, arguments))

    def turn(self) -> None:
        """Do what threads have asked for."""
        called, self.called = self.called, []
        for function, arguments in called:
            function(*arguments)


class Slow:
    """
    An exporter that does as it is told.

    :ivar result: whether it succeeds.
    :ivar gate: what it waits for; any object with ``wait()``, or nothing.
    """

    def __init__(self) -> None:
        self.result = True
        self.gate: Any = None
        self.taken = 0

    def export(self, spans: Any) -> Any:
        if self.gate is not None:
            self.gate.wait(10)
        self.taken += len(spans)
        return SpanExportResult.SUCCESS if self.result else SpanExportResult.FAILURE

    def shutdown(self) -> None:
        return

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        return True


class Traces:
    """
    :param settings: of the section ``tracing``.
    :param exporter: in place of one that keeps all spans.
    :ivar tracer: makes spans.
    """

    def __init__(self, exporter: Any = None, **settings: Any) -> None:
        self.loop = Loop()
        self._exporter = exporter or InMemorySpanExporter()
        self.tracer = OpenTelemetry(Tracing(enabled=True, **settings), self.loop, self._exporter)

    def begin(self, *parents: str, states: tuple[str, ...] = ()) -> Span:
        return self.tracer.begin("GET", parents, states)

    def flush(self) -> None:
        """Export all that has ended."""
        self.tracer._provider.force_flush()
        self.loop.turn()

    def take(self) -> list[Any]:
        """
        :return: All spans that have ended since the last time, in that order.
        """
        self.flush()
        found = list(self._exporter.get_finished_spans())
        self._exporter.clear()
        return found

    def close(self) -> None:
        """End the thread, and leave the SDK's log alone."""
        self.tracer._provider.shutdown()
        self.tracer._said.close()
