"""One span for each request: its name, what is said of it, and the parts in it; and that no header field makes a fault."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regd.service import serving
from regd.storage import layout
from regd.web.api import Api
from regd.web.traced import templates_of
from tests.telemetry.tracing import PARENT, TRACE, Traces, needs_otel
from tests.web.support import OCTETS, ApiCase, digest_of
from tests.web.wire import request_bytes

#: What a head may hold.
VALUE = st.binary(max_size=60).map(lambda raw: raw.translate(None, b"\r\n\0"))


class TemplateTests(SynchronousTestCase):
    def test_as_in_documents(self) -> None:
        found = templates_of(Api.app, "/x/")
        self.assertEqual(found["base"], "/x/v2/")
        self.assertEqual(found["get_blob"], "/x/v2/{name}/blobs/{digest}")
        self.assertEqual(found["append_upload"], "/x/v2/{name}/blobs/uploads/{upload}")


@needs_otel
class TracedTests(ApiCase):
    def setUp(self) -> None:
        super().setUp()
        self.traces = Traces()
        self.addCleanup(self.traces.close)
        self.patch(serving, "make_tracer", lambda tracing, reactor: self.traces.tracer)
        self.service.serving.trace()

    def one(self) -> Any:
        (span,) = self.traces.take()
        return span

    def test_a_push_and_a_pull(self) -> None:
        digest = self.push_blob("a/blobs/b", b"hello")
        spans = self.traces.take()
        names = [span.name for span in spans]
        self.assertEqual(names[0], "POST /v2/{name}/blobs/uploads/")
        self.assertEqual(names[-1], "PUT /v2/{name}/blobs/uploads/{upload}")
        self.assertEqual(sorted(names[1:-1]), ["blob.commit", "upload.flush"])
        put = spans[-1]
        for span in spans[1:-1]:
            self.assertEqual(span.parent.span_id, put.context.span_id)
        self.assertEqual(put.attributes["regd.repository.name"], "a/blobs/b")
        self.assertEqual((put.attributes["http.request.body.size"], put.attributes["http.response.status_code"]), (5, 201))
        answer = self.ask("GET", f"/v2/a/blobs/b/blobs/{digest}", [("User-Agent", "docker/1"), ("Host", "hub:5000")])
        self.assertEqual(answer.body, b"hello")
        span = self.one()
        self.assertEqual(
            dict(span.attributes),
            {
                "http.request.method": "GET",
                "url.scheme": "http",
                "url.path": f"/v2/a/blobs/b/blobs/{digest}",
                "network.protocol.version": "1.1",
                "http.response.status_code": 200,
                "http.request.body.size": 0,
                "http.response.body.size": 5,
                "regd.request.id": answer["X-Request-Id"],
                "http.route": "/v2/{name}/blobs/{digest}",
                "regd.repository.name": "a/blobs/b",
                "user_agent.original": "docker/1",
                "server.address": "hub:5000",
                "client.address": "192.0.2.7",
            },
        )
        self.assertEqual((span.name, span.kind.name, span.status.status_code.name), ("GET /v2/{name}/blobs/{digest}", "SERVER", "UNSET"))

    def test_the_client_s_trace(self) -> None:
        self.ask("GET", "/v2/", [("Traceparent", PARENT)])
        self.assertEqual(f"{self.one().context.trace_id:032x}", TRACE)

    def test_several_on_one_connection(self) -> None:
        client = self.client()
        for _ in range(3):
            self.assertEqual(client.ask("GET", "/v2/").status, 200)
        spans = self.traces.take()
        self.assertEqual(len({span.context.trace_id for span in spans}), 3)
        self.assertEqual({span.parent for span in spans}, {None})

    def test_what_is_not_there(self) -> None:
        self.ask("GET", "/v2/a/manifests/latest?x=secret")
        span = self.one()
        self.assertEqual((span.name, span.attributes["http.response.status_code"]), ("GET /v2/{name}/manifests/{reference}", 404))
        self.assertEqual(span.status.status_code.name, "UNSET")
        self.assertNotIn("secret", str(span.to_json()))
        self.ask("BREW", "/nowhere")
        span = self.one()
        self.assertEqual((span.name, span.attributes["http.request.method"]), ("HTTP", "_OTHER"))
        self.assertNotIn("http.route", span.attributes)

    def test_a_wait_at_the_gate(self) -> None:
        upload = self.begin("a")
        self.traces.take()
        held: Any = None
        try:
            self.driver.lock(layout.gate()).send(None)
        except StopIteration as end:
            held = end.value
        client = self.client()
        digest = digest_of(b"hello")
        separator = "&" if "?" in upload else "?"
        client.send(request_bytes("PUT", f"{upload}{separator}digest={digest}", [OCTETS, ("Content-Length", "5")]) + b"hello")
        self.clock.pump([0.01] * 20)
        # Another request meanwhile has nothing to do with it.
        self.ask("GET", "/v2/")
        (other,) = [span for span in self.traces.take() if span.name == "GET /v2/"]
        self.assertIsNone(other.parent)
        held.close()
        self.clock.pump([0.05] * 4)
        spans = {span.name: span for span in self.traces.take()}
        self.assertEqual(spans["gate.wait"].parent.span_id, spans["blob.commit"].context.span_id)
        self.assertEqual(spans["blob.commit"].parent.span_id, spans["PUT /v2/{name}/blobs/uploads/{upload}"].context.span_id)

    def test_faults(self) -> None:
        self.patch(type(self.driver), "stat", lambda *arguments: 1 / 0)
        self.patch(type(self.driver), "read", lambda *arguments: 1 / 0)
        self.assertEqual(self.ask("GET", f"/v2/a/blobs/{digest_of(b'')}").status, 500)
        self.flushLoggedErrors(ZeroDivisionError)
        span = self.one()
        self.assertEqual((span.status.status_code.name, span.attributes["error.type"]), ("ERROR", "500"))

    def test_another_configuration(self) -> None:
        self.service.serving.configure(self.service.serving.config)
        self.ask("GET", "/v2/")
        self.assertEqual(self.one().name, "GET /v2/")

    @given(st.lists(st.tuples(st.sampled_from(["traceparent", "Tracestate"]), VALUE), max_size=4))
    def test_any_field(self, fields: list[tuple[str, str | bytes]]) -> None:
        self.assertEqual(self.client().ask("GET", "/v2/", fields).status, 200)
        self.assertEqual(self.client().ask("POST", "/v2/a/blobs/uploads/", fields, b"").status, 202)


