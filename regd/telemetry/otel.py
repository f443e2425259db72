"""
Spans by the SDK of OpenTelemetry, exported by OTLP over HTTP.

Only :func:`~regd.telemetry.tracing.make_tracer` imports this, because the SDK need not be installed. Its
``BatchSpanProcessor`` exports in a thread of its own. The event loop only appends to its queue, which is bounded: what does not fit is
dropped here, and counted.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from twisted.internet.defer import Deferred, TimeoutError  # noqa: A004 - it is not Python's, and the one that is raised
from twisted.logger import Logger

from regd import __version__
from regd.config import ConfigError, Tracing
from regd.spans import Attribute, Span
from regd.telemetry.samples import Samples
from regd.telemetry.tracing import OUTCOMES, SPANS

__all__ = ["OpenTelemetry"]

#: How many spans may wait to be exported, where ``OTEL_BSP_MAX_QUEUE_SIZE`` does not say: the default of the specification.
_QUEUE: Final = 2048

#: What a daemon is called whose name nobody has said; the SDK would call it ``unknown_service``.
_NAME: Final = "regd"

_CONTEXT: Final = TraceContextTextMapPropagator()


class OpenTelemetry:
    """
    :param reactor: ``Any``: a reactor is typed as the union of what reactors may be.
    :param exporter: what takes spans in place of a collector; ``Any``: the SDK's types are not seen where it is not installed.
    :raises ConfigError: when what ``OTEL_*`` say cannot be so.
    """

    _log = Logger()

    def __init__(self, tracing: Tracing, reactor: Any, exporter: Any = None) -> None:
        self._reactor = reactor
        self._said = _Said()
        #: Written to by the event loop alone; what the other thread writes to is the exporter's.
        self._submitted = self._dropped = 0
        self._failing = False
        try:
            self._room = int(os.environ.get("OTEL_BSP_MAX_QUEUE_SIZE") or _QUEUE)
            self._exporter = _Counting(exporter or _make_exporter(tracing), self._told)
            self._provider = TracerProvider(
                # Without one, the SDK looks at OTEL_TRACES_SAMPLER.
                sampler=None if tracing.sampleratio is None else ParentBased(TraceIdRatioBased(tracing.sampleratio)),
                resource=_make_resource(tracing),
                shutdown_on_exit=False,
            )
            self._provider.add_span_processor(BatchSpanProcessor(self._exporter, max_queue_size=self._room))
        except Exception as error:  # noqa: BLE001 - whatever the SDK raises at variables that it does not understand
            raise ConfigError(f"tracing: the SDK of OpenTelemetry does not start with what OTEL_* variables say: {error}") from None
        self._tracer = self._provider.get_tracer("regd", __version__)

    def begin(self, method: str, parents: Sequence[str], states: Sequence[str]) -> Span:
        """See :class:`~regd.telemetry.tracing.Tracer`."""
        context = Context()
        # Of several, none can be believed.
        if len(parents) == 1:
            context = _CONTEXT.extract({"traceparent": [parents[0]], "tracestate": list(states)}, context)
        return _Span(self, self._tracer.start_span(method, context, SpanKind.SERVER))

    def start(self, name: str, context: Any, attributes: Mapping[str, Attribute] | None, *, client: bool) -> Span:
        """
        Begin a part of a span.

        :param context: the SDK's, with that span in it; ``Any``, as of the constructor.
        """
        kind = SpanKind.CLIENT if client else SpanKind.INTERNAL
        return _Span(self, self._tracer.start_span(name, context, kind, attributes))

    def may_end(self) -> bool:
        """Whether there is room for a span; it is counted either way."""
        if self._submitted - self._exporter.done >= self._room:
            self._dropped += 1
            return False
        self._submitted += 1
        return True

    def collect(self, samples: Samples) -> None:
        """See :class:`~regd.telemetry.tracing.Tracer`."""
        for outcome, count in zip(OUTCOMES, (self._exporter.exported, self._exporter.failed, self._dropped), strict=True):
            samples.add(SPANS, count, outcome)

    def stop(self, patience: float) -> Deferred[None]:
        """See :class:`~regd.telemetry.tracing.Tracer`."""
        done: Deferred[None] = Deferred()

        def shut_down() -> None:
            self._provider.shutdown()
            self._reactor.callFromThread(finish)

        def finish() -> None:
            if not done.called:
                done.callback(None)

        # Not one of the reactor's threads: the process would wait for those to end, and a collector may take its time.
        threading.Thread(target=shut_down, name="regd-last-traces", daemon=True).start()
        done.addTimeout(patience, self._reactor)
        done.addErrback(self._given_up)
        return done.addCallback(lambda _: self._said.close())

    def _given_up(self, failure: Any) -> None:
        failure.trap(TimeoutError)
        left = self._submitted - self._exporter.done
        self._log.warn("the last {left} spans could not be exported in time, and are lost", left=left)

    def _told(self, ok: bool, count: int) -> None:
        """In the thread that exports: what became of a batch."""
        why = self._said.last or "it does not say why"
        self._reactor.callFromThread(self._tell, ok, count, why)

    def _tell(self, ok: bool, count: int, why: str) -> None:
        """One line when it begins to fail, and one when it works again."""
        if ok == (not self._failing):
            return
        self._failing = not ok
        if ok:
            self._log.info("traces are exported again; {failed} spans were lost until now", failed=self._exporter.failed)
        else:
            self._log.warn(
                "{count} spans could not be exported: {why}; does a collector listen where tracing.endpoint says? "
                "This is said once until it works again",
                count=count,
                why=why,
            )


class _Span:
    """See :class:`~regd.spans.Span`. ``Any``: spans and contexts of the SDK."""

    __slots__ = ("_context", "_ended", "_owner", "_span", "recording", "trace_id")

    def __init__(self, owner: OpenTelemetry, span: Any) -> None:
        self._owner = owner
        self._span = span
        self._context: Any = None
        self._ended = False
        self.recording: bool = span.is_recording()
        self.trace_id = f"{span.get_span_context().trace_id:032x}"

    def child(self, name: str, attributes: Mapping[str, Attribute] | None = None, *, client: bool = False) -> Span:
        """See :class:`~regd.spans.Span`."""
        return self._owner.start(name, self._in_context(), attributes, client=client)

    def fields(self) -> Mapping[str, str]:
        """See :class:`~regd.spans.Span`."""
        found: dict[str, str] = {}
        _CONTEXT.inject(found, self._in_context())
        return found

    def tell(self, attributes: Mapping[str, Attribute]) -> None:
        """See :class:`~regd.spans.Span`."""
        self._span.set_attributes(attributes)

    def rename(self, name: str) -> None:
        """See :class:`~regd.spans.Span`."""
        self._span.update_name(name)

    def end(self, problem: str = "") -> None:
        """See :class:`~regd.spans.Span`."""
        if self._ended:
            return
        self._ended = True
        # One that is not sampled goes nowhere, and needs no room.
        if self.recording and self._owner.may_end():
            if problem:
                self._span.set_attribute("error.type", problem)
                self._span.set_status(Status(StatusCode.ERROR))
            self._span.end()

    def _in_context(self) -> Any:
        if self._context is None:
            self._context = set_span_in_context(self._span, Context())
        return self._context


class _Counting:
    """
    An exporter that counts.

    :param exporter: the one that works.
    :param tell: called in the thread that exports with whether a batch has arrived, and how many spans it had.
    :ivar exported: spans that arrived; as the following, written by that thread alone.
    :ivar failed: spans that did not.
    :ivar done: all that came by.
    """

    def __init__(self, exporter: Any, tell: Any) -> None:
        self._exporter = exporter
        self._tell = tell
        self.exported = self.failed = self.done = 0

    def export(self, spans: Sequence[Any]) -> Any:
        """See ``SpanExporter``, as for the following."""
        result = SpanExportResult.FAILURE
        try:
            result = self._exporter.export(spans)
        finally:
            ok = result is SpanExportResult.SUCCESS
            if ok:
                self.exported += len(spans)
            else:
                self.failed += len(spans)
            self.done += len(spans)
            self._tell(ok, len(spans))
        return result

    def shutdown(self) -> None:
        """No more will come."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Nothing waits here."""
        return bool(self._exporter.force_flush(timeout_millis))


class _Said(logging.Handler):
    """
    Keeps the last of what the SDK tells of itself, which would else go to standard error as it is.

    :ivar last: its words.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.last = ""
        self._logger = logging.getLogger("opentelemetry")
        self._logger.addHandler(self)
        self._propagated, self._logger.propagate = self._logger.propagate, False

    def emit(self, record: logging.LogRecord) -> None:
        """Whatever thread it comes from."""
        # What is said of header fields are clients' words.
        if not record.name.startswith(("opentelemetry.exporter", "opentelemetry.sdk")):
            return
        text = record.getMessage()
        # "Failed ... due to timeout" comes last, and says less than what was told of each attempt.
        if not self.last or "due to timeout" not in text:
            self.last = text

    def close(self) -> None:
        """Leave the SDK's log as it was."""
        self._logger.removeHandler(self)
        self._logger.propagate = self._propagated
        super().close()


def _make_exporter(tracing: Tracing) -> Any:
    headers = {name: ",".join(values) for name, values in tracing.headers.items()}
    # What is not given, it takes from OTEL_EXPORTER_OTLP_*.
    return OTLPSpanExporter(endpoint=tracing.endpoint, headers=headers or None)


def _make_resource(tracing: Tracing) -> Any:
    """What is said once of all the spans of a process; OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME are in it."""
    ours: dict[str, Attribute] = {
        "service.version": __version__,
        "service.instance.id": str(uuid.uuid4()),
        "host.name": socket.gethostname(),
        "process.pid": os.getpid(),
    }
    resource = Resource.create(ours)
    if tracing.servicename is not None:
        return resource.merge(Resource({"service.name": tracing.servicename}))
    if str(resource.attributes.get("service.name", "")).startswith("unknown_service"):
        return resource.merge(Resource({"service.name": _NAME}))
    return resource
