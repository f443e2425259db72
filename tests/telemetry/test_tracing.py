"""Spans by the SDK: whose trace they belong to, what is passed on, what becomes of those that nobody takes; and what is done without it."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
import threading
import unittest.mock

from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import Logger, LogPublisher, capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from regd.config import ConfigError, Tracing
from regd.spans import CURRENT, NOTHING, Part, method_of, trace_fields
from regd.telemetry import tracing
from regd.telemetry.logs import LineObserver
from regd.telemetry.samples import Samples
from regd.telemetry.tracing import SPANS, check_tracing, make_tracer
from tests.telemetry.tracing import PARENT, TRACE, Slow, Traces, needs_otel


class WithoutTests(SynchronousTestCase):
    """Where nothing is traced."""

    def test_nothing_is_imported(self) -> None:
        """Neither for the daemon nor for a worker."""
        program = (
            "import sys\nimport regd.service.daemon, regd.service.worker\n"
            "print([name for name in sys.modules if name.partition('.')[0] in ('opentelemetry', 'requests', 'google')])"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
        self.assertEqual(done.stdout.strip(), "[]")

    def test_off(self) -> None:
        self.patch(tracing, "_NEEDED", ("no_such_package.module",))
        check_tracing(Tracing())
        self.assertIsNone(make_tracer(Tracing(), None))

    def test_not_installed(self) -> None:
        for module in ("no_such_package.module", "regd.no_such_module"):
            self.patch(tracing, "_NEEDED", (module,))
            error = self.assertRaises(ConfigError, make_tracer, Tracing(enabled=True), None)
            self.assertIn("tracing.enabled", str(error))
            self.assertIn("pip install 'regd[otel]'", str(error))

    def test_parts(self) -> None:
        with Part("anything"):
            self.assertIsNone(CURRENT.get())
        self.assertEqual(trace_fields(), {})

    def test_no_consequences(self) -> None:
        child = NOTHING.child("a", {"b": 1}, client=True)
        child.tell({"c": 2})
        child.rename("d")
        child.end("E")
        self.assertEqual((child.fields(), child.recording), ({}, False))

    @given(st.binary(max_size=20))
    def test_methods(self, method: bytes) -> None:
        """Clients make no names of spans."""
        name, known = method_of(method)
        self.assertIn(name, {"HTTP", "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE"})
        self.assertEqual(known == "_OTHER", name == "HTTP")


@needs_otel
class ContextTests(SynchronousTestCase):
    traces: Traces

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.traces = Traces(sampleratio=1.0)
        cls.addClassCleanup(cls.traces.close)

    def test_a_trace_goes_on(self) -> None:
        span = self.traces.begin(PARENT, states=("congo=t61rcWkgMzE", "rojo=1"))
        self.assertEqual(span.trace_id, TRACE)
        fields = span.fields()
        version, trace, own, flags = fields["traceparent"].split("-")
        self.assertEqual((version, trace, flags), ("00", TRACE, "01"))
        self.assertNotEqual(own, "b7ad6b7169203331")
        self.assertEqual(fields["tracestate"], "congo=t61rcWkgMzE,rojo=1")
        span.end()
        (found,) = self.traces.take()
        self.assertEqual(f"{found.parent.span_id:016x}", "b7ad6b7169203331")

    def test_another_begins(self) -> None:
        for wrong in (
            (),
            ("",),
            (PARENT, PARENT),
            (PARENT.upper(),),
            (PARENT[:-1],),
            (f"{PARENT}-00",),
            (f"ff{PARENT[2:]}",),
            (f"00-{'0' * 32}-b7ad6b7169203331-01",),
            (f"00-{TRACE}-{'0' * 16}-01",),
        ):
            span = self.traces.begin(*wrong)
            self.assertNotEqual(span.trace_id, TRACE, wrong)
            self.assertTrue(span.recording)
            self.assertNotIn("tracestate", span.fields())

    def test_not_sampled(self) -> None:
        """That is what the client says; it is passed on, and nothing is exported."""
        span = self.traces.begin(f"{PARENT[:-1]}0")
        self.assertFalse(span.recording)
        child = span.child("a")
        self.assertEqual(child.fields()["traceparent"].split("-")[1::2], [TRACE, "00"])
        child.end()
        span.end()
        self.assertEqual(self.traces.take(), [])

    @given(st.lists(st.text(max_size=80), max_size=3), st.lists(st.text(max_size=80), max_size=3))
    def test_any_text(self, parents: list[str], states: list[str]) -> None:
        self.hold(parents, states)

    @given(st.lists(st.from_regex(r"[0-9a-z*/@=,_ -]{0,300}", fullmatch=True), max_size=40))
    def test_any_state(self, states: list[str]) -> None:
        self.hold([PARENT], states)

    def hold(self, parents: list[str], states: list[str]) -> None:
        """Nothing fails, and what is passed on is what a head may hold."""
        span = self.traces.tracer.begin("GET", parents, states)
        for name, value in span.fields().items():
            self.assertIn(name, {"traceparent", "tracestate"})
            self.assertTrue(value.isascii() and value.isprintable(), value)

    def test_parts(self) -> None:
        span = self.traces.begin()
        token = CURRENT.set(span)
        try:
            with Part("outer"):
                with Part("inner"):
                    self.assertEqual(trace_fields(), {"trace_id": span.trace_id})
                try:
                    with Part("failing"):
                        raise KeyError
                except KeyError:
                    pass
            self.assertIs(CURRENT.get(), span)
        finally:
            CURRENT.reset(token)
        span.end()
        span.end()
        inner, failing, outer, root = self.traces.take()
        self.assertEqual([one.name for one in (inner, failing, outer, root)], ["inner", "failing", "outer", "GET"])
        self.assertEqual(inner.parent.span_id, outer.context.span_id)
        self.assertEqual(outer.parent.span_id, root.context.span_id)
        self.assertEqual(dict(failing.attributes), {"error.type": "KeyError"})
        self.assertEqual((failing.status.status_code.name, inner.status.status_code.name), ("ERROR", "UNSET"))

    def test_lines_of_the_log(self) -> None:
        stream = io.StringIO()
        log = Logger(namespace="regd.test", observer=LogPublisher(LineObserver(stream, "info", "text", {})))
        span = self.traces.begin(PARENT)
        token = CURRENT.set(span)
        log.info("within")
        CURRENT.reset(token)
        log.info("without")
        within, without = stream.getvalue().splitlines()
        self.assertIn(f"trace_id={TRACE}", within)
        self.assertNotIn("trace_id", without)

    def test_resource(self) -> None:
        traces = Traces(servicename="hub")
        self.addCleanup(traces.close)
        found = traces.tracer._provider.resource.attributes
        self.assertEqual(found["service.name"], "hub")
        self.assertLessEqual({"service.version", "service.instance.id", "process.pid", "host.name"}, set(found))
        self.assertEqual(self.traces.tracer._provider.resource.attributes["service.name"], "regd")


@needs_otel
class ExportTests(SynchronousTestCase):
    def make(self, exporter: Slow, **environment: str) -> Traces:
        for name, value in environment.items():
            self.patch_environment(name, value)
        traces = Traces(exporter)
        self.addCleanup(traces.close)
        return traces

    def patch_environment(self, name: str, value: str) -> None:
        """The SDK reads it where it is."""
        patched = unittest.mock.patch.dict(os.environ, {name: value})
        patched.start()
        self.addCleanup(patched.stop)

    def counts(self, traces: Traces) -> dict[str, float]:
        samples = Samples()
        traces.tracer.collect(samples)
        return {outcome: value for (outcome,), value in samples.numbers(SPANS)}

    def test_what_does_not_fit_is_dropped(self) -> None:
        exporter = Slow()
        exporter.gate = threading.Event()
        self.addCleanup(exporter.gate.set)
        traces = self.make(exporter, OTEL_BSP_MAX_QUEUE_SIZE="5", OTEL_BSP_MAX_EXPORT_BATCH_SIZE="2")
        for _ in range(12):
            traces.begin().end()
        self.assertEqual(self.counts(traces)["dropped"], 7)
        exporter.gate.set()
        traces.flush()
        self.assertEqual(self.counts(traces), {"exported": 5, "failed": 0, "dropped": 7})
        traces.begin().end()
        traces.flush()
        self.assertEqual(self.counts(traces), {"exported": 6, "failed": 0, "dropped": 7})

    def test_one_line_when_it_fails_and_one_when_it_works(self) -> None:
        exporter = Slow()
        traces = self.make(exporter)
        with capturedLogs() as events:
            for result in (True, False, False, True, True):
                exporter.result = result
                traces.begin().end()
                logging.getLogger("opentelemetry.exporter.x").error("code: 503, reason: no room")
                logging.getLogger("opentelemetry.trace.span").warning("what a client has sent")
                traces.flush()
        said = [event["log_format"].format(**event) for event in events]
        self.assertEqual(len(said), 2, said)
        self.assertIn("code: 503, reason: no room", said[0])
        self.assertIn("2 spans were lost", said[1])
        self.assertEqual(self.counts(traces), {"exported": 3, "failed": 2, "dropped": 0})

    def test_the_end_waits_no_longer_than_it_may(self) -> None:
        exporter = Slow()
        exporter.gate = threading.Event()
        self.addCleanup(exporter.gate.set)
        traces = self.make(exporter)
        traces.begin().end()
        stopped = traces.tracer.stop(3.0)
        traces.loop.advance(2.9)
        self.assertNoResult(stopped)
        traces.loop.advance(0.2)
        self.successResultOf(stopped)
        exporter.gate.set()
        for thread in threading.enumerate():
            if thread.name == "regd-last-traces":
                thread.join(10)
        # Too late, and nobody minds.
        traces.loop.turn()
        self.assertEqual(exporter.taken, 1)

    def test_the_end_exports_what_is_left(self) -> None:
        exporter = Slow()
        traces = self.make(exporter)
        traces.begin().end()
        stopped = traces.tracer.stop(3.0)
        for thread in threading.enumerate():
            if thread.name == "regd-last-traces":
                thread.join(10)
        traces.loop.turn()
        self.successResultOf(stopped)
        self.assertEqual(exporter.taken, 1)
        self.assertFalse(traces.loop.getDelayedCalls())

    def test_variables_that_cannot_be(self) -> None:
        for name, value in (("OTEL_BSP_MAX_QUEUE_SIZE", "many"), ("OTEL_BSP_MAX_QUEUE_SIZE", "-1"), ("OTEL_BSP_MAX_QUEUE_SIZE", "9")):
            error = self.assertRaises(ConfigError, self.make, Slow(), **{name: value})
            self.assertIn("OTEL_", str(error))
