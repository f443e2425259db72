"""Traces as a collector gets them: of workers, of a push and a pull, through a cache and through a reverse proxy."""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.caching import Cache
from tests.e2e.case import E2ETestCase
from tests.e2e.daemon import Regd
from tests.e2e.images import noise
from tests.e2e.origin import Origin
from tests.e2e.process import free_port, wait_until
from tests.e2e.proxying import Exchange, Proxy, Upstream, ask_raw
from tests.e2e.rawhttp import Client, digest_of
from tests.telemetry.tracing import PARENT, TRACE, needs_otel

# Where it is not installed, the tests below skip.
with contextlib.suppress(ImportError):
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

#: Soon, so that a test does not wait long.
SOON = {"OTEL_BSP_SCHEDULE_DELAY": "200"}


@dataclass(frozen=True)
class Span:
    """
    What a collector knows of a span.

    :ivar pid: The process that it comes from.
    """

    name: str
    trace: str
    id: str
    parent: str
    pid: int
    service: str
    kind: int
    error: bool
    attributes: dict[str, str | int]


class Collector:
    """
    What takes spans, by OTLP over HTTP.

    :ivar status: What it answers with.
    """

    def __init__(self) -> None:
        self.status = "200 OK"
        self.requests: list[Exchange] = []
        self._spans: list[Span] = []
        self._lock = threading.Lock()
        self.upstream = Upstream(self._answer)
        self.close = self.upstream.close
        self.variables = {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_ENDPOINT": self.upstream.url, **SOON}

    def spans(self) -> list[Span]:
        """
        :return: All that have come.
        """
        with self._lock:
            return list(self._spans)

    def named(self, name: str) -> list[Span]:
        return [span for span in self.spans() if span.name == name]

    def of(self, trace: str) -> list[Span]:
        return [span for span in self.spans() if span.trace == trace]

    def wait(self, name: str, count: int = 1) -> list[Span]:
        wait_until(lambda: len(self.named(name)) >= count, 15, f"{count} spans {name} in {self.spans()}")
        return self.named(name)

    def _answer(self, exchange: Exchange) -> bool:
        body = exchange.read_body()
        if self.status.startswith("200"):
            with self._lock:
                self.requests.append(exchange)
                self._take(body)
        exchange.send(f"HTTP/1.1 {self.status}\r\nContent-Length: 0\r\n\r\n".encode())
        return True

    def _take(self, body: bytes) -> None:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            told = {pair.key: pair.value for pair in resource.resource.attributes}
            for scope in resource.scope_spans:
                for span in scope.spans:
                    self._spans.append(
                        Span(
                            span.name,
                            span.trace_id.hex(),
                            span.span_id.hex(),
                            span.parent_span_id.hex(),
                            told["process.pid"].int_value,
                            told["service.name"].string_value,
                            span.kind,
                            span.status.code == 2,
                            {pair.key: pair.value.string_value or pair.value.int_value for pair in span.attributes},
                        )
                    )


@needs_otel
class TracingTest(E2ETestCase):
    def setUp(self) -> None:
        self.collector = Collector()
        self.addCleanup(self.collector.close)

    def place(self) -> Path:
        return self.directory / self._testMethodName

    def test_a_push_and_a_pull_over_two_workers(self) -> None:
        server = Regd(self.place(), None, {**self.collector.variables, "REGISTRY_HTTP_WORKERS": "2", "OTEL_SERVICE_NAME": "hub"})
        self.addCleanup(server.stop)
        server.start()
        wait_until(lambda: "with 2 workers" in server.program.output(), 60, "the workers to be ready")
        content = noise(300_000)
        digest = digest_of(content)
        begun = server.client.request("POST", "/v2/a/b/blobs/uploads/", traceparent=PARENT)
        location = begun.headers["location"].partition(f":{server.port}")[2]
        done = server.client.request("PUT", f"{location}&digest={digest}", body=content, traceparent=PARENT)
        self.assertEqual(done.status, 201, done)
        # Each on a connection of its own, which go to the workers in turn.
        for _ in range(6):
            self.assertEqual(Client(server.port).get(f"/v2/a/b/blobs/{digest}").status, 200)
        pulls = self.collector.wait("GET /v2/{name}/blobs/{digest}", 6)
        (put,) = self.collector.wait("PUT /v2/{name}/blobs/uploads/{upload}")
        self.assertEqual({span.service for span in self.collector.spans()}, {"hub"})
        self.assertEqual({span.pid for span in pulls}, set(server.program.children()))
        self.assertEqual(len({span.trace for span in pulls}), 6)
        self.assertEqual({span.parent for span in pulls}, {""})
        self.assertEqual(pulls[0].attributes["regd.repository.name"], "a/b")
        self.assertEqual(pulls[0].attributes["http.response.body.size"], 300_000)
        self.assertEqual((put.trace, put.parent, put.kind), (TRACE, PARENT.split("-")[2], 2))
        parts = {span.name for span in self.collector.of(TRACE) if span.parent == put.id}
        self.assertEqual(parts, {"upload.flush", "blob.commit"})
        # What is still there at the end arrives before the processes have ended.
        count = len(self.collector.named("GET /v2/"))
        self.assertEqual(server.client.get("/v2/").status, 200)
        server.stop()
        self.assertEqual(len(self.collector.named("GET /v2/")), count + 1)

    def test_through_a_cache(self) -> None:
        origin = Origin()
        self.addCleanup(origin.close)
        image = origin.put_image("library/alpine", "1", [noise(100_000)])
        cache = Cache(self.place(), f"  remoteurl: '{origin.url}'\n", workers=2, environment=self.collector.variables)
        self.addCleanup(cache.stop)
        cache.start()
        for path in ("manifests/1", f"blobs/{image.layers[0]}"):
            origin.asked.clear()
            self.assertEqual(cache.client.get(f"/v2/library/alpine/{path}", traceparent=PARENT, tracestate="a=b").status, 200)
            for asked in origin.asked:
                if path.partition("/")[0] in asked.path:
                    version, trace, parent, flags = asked.fields["traceparent"].split("-")
                    self.assertEqual((version, trace, flags, asked.fields["tracestate"]), ("00", TRACE, "01", "a=b"))
                    self.wait_for_span(parent)
        self.collector.wait("GET /v2/{name}/blobs/{digest}")
        spans = {span.id: span for span in self.collector.of(TRACE)}
        asked_for = [span for span in spans.values() if span.kind == 3]
        for span in asked_for:
            self.assertEqual(span.attributes["server.port"], origin.port)
            self.assertEqual(span.attributes["http.response.status_code"], 200)
            self.assertFalse(span.error, span)
            # However far down, it belongs to a request of the client's.
            above = span
            while above.kind != 2:
                above = spans[above.parent]
            self.assertEqual(above.parent, PARENT.split("-")[2])
        self.assertGreaterEqual(len(asked_for), 2)
        self.assertTrue([span for span in spans.values() if span.name == "blob.commit"])

    def wait_for_span(self, wanted: str) -> None:
        wait_until(lambda: wanted in {span.id for span in self.collector.spans()}, 15, f"the span {wanted}")

    def proxy(self, upstream: Upstream, environment: dict[str, str]) -> Proxy:
        routes = f"  routes:\n    - {{path: /, upstreams: ['{upstream.url}']}}\n"
        proxy = Proxy(self.place(), routes, environment=environment)
        self.addCleanup(proxy.stop)
        proxy.start()
        return proxy

    def ask(self, proxy: Proxy) -> None:
        head = f"GET /v2/a?b=secret HTTP/1.1\r\nHost: hub.example\r\nTraceparent: {PARENT}\r\nTraceState: a=b\r\nConnection: close\r\n\r\n"
        self.assertIn(b"200 OK", ask_raw(proxy.port, head.encode()))

    def test_through_a_reverse_proxy(self) -> None:
        upstream = Upstream()
        self.addCleanup(upstream.close)
        proxy = self.proxy(upstream, {**self.collector.variables, "OTEL_EXPORTER_OTLP_HEADERS": "x-key=sesame"})
        self.ask(proxy)
        (exchange,) = upstream.seen
        (parent,) = exchange.all("traceparent")
        self.assertEqual(exchange.all("tracestate"), ["a=b"])
        wait_until(lambda: len(self.collector.of(TRACE)) == 2, 15, "both spans")
        (server,) = [span for span in self.collector.of(TRACE) if span.kind == 2]
        (client,) = [span for span in self.collector.of(TRACE) if span.kind == 3]
        self.assertEqual(parent, f"00-{TRACE}-{client.id}-01")
        self.assertEqual((client.parent, server.parent), (server.id, PARENT.split("-")[2]))
        self.assertEqual((server.name, client.name), ("GET", "GET"))
        self.assertEqual(client.attributes["url.full"], f"{upstream.url}/v2/a")
        self.assertNotIn("secret", repr(self.collector.spans()))
        self.assertEqual(self.collector.requests[0].all("x-key"), ["sesame"])
        self.assertNotIn("sesame", proxy.program.output())

    def test_a_reverse_proxy_that_does_not_trace(self) -> None:
        upstream = Upstream()
        self.addCleanup(upstream.close)
        self.ask(self.proxy(upstream, {}))
        (exchange,) = upstream.seen
        trace = [(name, value) for name, value in exchange.fields if name.lower().startswith("trace")]
        self.assertEqual(trace, [("Traceparent", PARENT), ("TraceState", "a=b")])

    def test_nobody_listens(self) -> None:
        """Requests are answered as ever, one line says so, and the end does not wait for it."""
        variables = {**self.collector.variables, "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{free_port()}"}
        server = Regd(self.place(), None, {**variables, "OTEL_EXPORTER_OTLP_TIMEOUT": "1", "REGISTRY_HTTP_WORKERS": "1"})
        self.addCleanup(server.stop)
        server.start()
        wait_until(lambda: server.client.get("/v2/").status == 200 and "could not be exported" in server.program.output(), 30, "a line")
        for _ in range(5):
            self.assertEqual(server.client.get("/v2/").status, 200)
            time.sleep(0.3)
        began = time.monotonic()
        server.stop()
        self.assertLess(time.monotonic() - began, 10)
        said = [line for line in server.program.output().splitlines() if "could not be exported" in line]
        self.assertEqual(len(said), 1, said)
        self.assertNotIn("Traceback", server.program.output())
        for line in server.program.output().splitlines():
            # Nothing goes there as it is.
            self.assertTrue(line.startswith(("time=", "127.0.0.1 - - ")), line)
