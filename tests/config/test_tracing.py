"""``tracing``, and the variables that say what it does not."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from regd.config.tracing import switched_on
from regd.config.tracingvalues import Tracing
from tests.config.support import MINIMAL, ConfigCase


class TracingTests(ConfigCase):
    def test_off(self) -> None:
        self.assertEqual(self.config().tracing, Tracing())
        for variables in ({"OTEL_TRACES_EXPORTER": "none"}, {"OTEL_TRACES_EXPORTER": ""}, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x:1"}):
            self.assertFalse(self.config(**variables).tracing.enabled, variables)
        self.assertFalse(self.config("tracing: {enabled: false}", OTEL_TRACES_EXPORTER="otlp").tracing.enabled)
        self.assertFalse(self.config(OTEL_TRACES_EXPORTER="otlp", OTEL_SDK_DISABLED="True").tracing.enabled)

    def test_on(self) -> None:
        self.assertTrue(self.config("tracing: {enabled: true}").tracing.enabled)
        self.assertTrue(self.config(OTEL_TRACES_EXPORTER="otlp").tracing.enabled)
        self.assertTrue(self.config(REGISTRY_TRACING_ENABLED="true").tracing.enabled)

    def test_the_sdk_switched_off(self) -> None:
        text = "tracing: {enabled: true}"
        self.assertFalse(self.config(text, OTEL_SDK_DISABLED="true").tracing.enabled)
        (warning,) = self.warnings(text, OTEL_SDK_DISABLED="true")
        self.assertTrue(warning.startswith("tracing.enabled (line 3): "), warning)

    def test_exporters_that_are_not_there(self) -> None:
        (warning,) = self.warnings(OTEL_TRACES_EXPORTER="otlp, zipkin,console")
        self.assertIn("console, zipkin", warning)
        self.assertEqual(switched_on({"OTEL_TRACES_EXPORTER": "console"})[0], False)

    @given(st.text(max_size=30))
    def test_any_exporter(self, value: str) -> None:
        on, warnings = switched_on({"OTEL_TRACES_EXPORTER": value})
        self.assertEqual(on, "otlp" in [name.strip().lower() for name in value.split(",")])
        self.assertLessEqual(len(warnings), 1)

    def test_all_of_it(self) -> None:
        tracing = self.config(
            "tracing: {enabled: yes, endpoint: 'https://otel:4318', headers: {Authorization: [Bearer x]},"
            " sampleratio: 0.25, servicename: hub}"
        ).tracing
        self.assertEqual(tracing, Tracing(True, "https://otel:4318/v1/traces", {"Authorization": ("Bearer x",)}, 0.25, "hub"))
        self.assertNotIn("Bearer", repr(tracing))

    def test_endpoints(self) -> None:
        for given_, wanted in (
            ("http://otel:4318", "http://otel:4318/v1/traces"),
            ("http://otel:4318/", "http://otel:4318/v1/traces"),
            ("https://[::1]:4318/otlp/v1/traces", "https://[::1]:4318/otlp/v1/traces"),
        ):
            self.assertEqual(self.config(f"tracing: {{endpoint: '{given_}'}}").tracing.endpoint, wanted)

    def test_what_is_refused(self) -> None:
        for key, value in (
            ("endpoint", "otel:4318"),
            ("endpoint", "grpc://otel:4317"),
            ("endpoint", "http://user:word@otel:4318"),
            ("endpoint", "'http://otel/?a=b'"),
            ("endpoint", "''"),
            ("sampleratio", "2"),
            ("sampleratio", "-0.5"),
            ("sampleratio", "nan"),
            ("sampleratio", "half"),
            ("servicename", "' '"),
            ("enabled", "maybe"),
        ):
            self.refused(f"tracing: {{{key}: {value}}}", f"tracing.{key} (line 3): found ")

    def test_headers_are_never_shown(self) -> None:
        for headers in ("[sesame]", "{A: sesame}", "{A: ['sesame\\x01']}", "{'A b': [sesame]}"):
            text = "tracing: {headers: " + headers.replace("'sesame\\x01'", '"sesame\\x01"') + "}"
            self.assertNotIn("sesame", self.problem(MINIMAL + text))
