"""Samples, how they come together, and the page that is made of them."""

from __future__ import annotations

import contextlib
import json

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from regd.telemetry.catalogue import BYTES, CATALOGUE, SECONDS
from regd.telemetry.exposition import page
from regd.telemetry.lag import LoopLag
from regd.telemetry.requests import HANDLERS, RequestMeter
from regd.telemetry.samples import Distribution, Samples

REQUESTS = "registry_http_requests_total"
DURATIONS = "registry_http_request_duration_seconds"

Shown = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def shown(samples: Samples) -> Shown:
    """The page, read as Prometheus would."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page(samples).decode())
        for sample in family.samples
    }


class SamplesTests(SynchronousTestCase):
    def test_only_what_is_in_the_catalogue(self) -> None:
        samples = Samples()
        self.assertRaises(KeyError, samples.add, "regd_nothing", 1)
        self.assertRaises(ValueError, samples.add, REQUESTS, 1, "blob")
        self.assertRaises(ValueError, samples.add, DURATIONS, 1, "blob", "get", "200")
        self.assertRaises(ValueError, samples.distribute, DURATIONS, Distribution([1], 1.0), "blob", "get", "200")

    def test_together(self) -> None:
        ours, theirs = Samples(), Samples()
        for samples, count in ((ours, 3), (theirs, 4)):
            samples.add(REQUESTS, count, "blob", "get", "200")
            samples.add("process_open_fds", count)
            samples.add("regd_http_connections", count)
            samples.distribute(DURATIONS, Distribution([count] * 14, count), "blob", "get", "200")
        ours.merge(Samples.from_json(theirs.to_json()))
        self.assertEqual(list(ours.numbers(REQUESTS)), [(("blob", "get", "200"), 7)])
        self.assertEqual(list(ours.numbers("process_open_fds")), [((), 4)])
        self.assertEqual(list(ours.numbers("regd_http_connections")), [((), 7)])
        (_, found), *_ = ours.distributions(DURATIONS)
        self.assertEqual((found.counts, found.total), ([7] * 14, 7))
        # What was merged is not shared.
        (_, before), *_ = theirs.distributions(DURATIONS)
        self.assertEqual(before.counts, [4] * 14)

    def test_what_stays_of_a_process(self) -> None:
        samples = Samples()
        samples.add(REQUESTS, 3, "blob", "get", "200")
        samples.add("regd_http_connections", 3)
        # Its parent hears of that from the system.
        samples.add("process_cpu_seconds_total", 3)
        samples.distribute(DURATIONS, Distribution([1] * 14, 2.0), "blob", "get", "200")
        parts = {f"{DURATIONS}_{part}" for part in ("bucket", "sum", "count")}
        self.assertEqual({name for name, _ in shown(samples.lasting())}, {REQUESTS, *parts})

    def test_what_are_no_samples(self) -> None:
        wrong = b'[[["regd_nothing",[],1]],[]]', b'[[["regd_workers",[],null]],[]]'
        for text in (b"", b"[]", b"{}", b"[[],[[]]]", *wrong, b"[" * 100_000, b"\xff"):
            self.assertRaises(ValueError, Samples.from_json, text)

    @given(st.recursive(st.none() | st.integers() | st.text(), st.lists))
    def test_any_json(self, document: object) -> None:
        with contextlib.suppress(ValueError):
            Samples.from_json(json.dumps(document).encode())


class RequestMeterTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.meter = RequestMeter()

    def collect(self) -> Shown:
        samples = Samples()
        self.meter.collect(samples)
        return shown(samples)

    def test_a_request(self) -> None:
        self.meter.count("get_blob", b"GET", 200, 0.3, 0, 5000)
        self.meter.count("get_blob", b"GET", 200, 0.001, 0, 10)
        found = self.collect()
        labels = (("code", "200"), ("handler", "blob"), ("method", "get"))
        self.assertEqual(found[REQUESTS, labels], 2)
        self.assertEqual(found[f"{DURATIONS}_count", labels], 2)
        self.assertAlmostEqual(found[f"{DURATIONS}_sum", labels], 0.301)
        buckets = {dict(key)["le"]: value for (name, key), value in found.items() if name == f"{DURATIONS}_bucket"}
        self.assertEqual((buckets["0.005"], buckets["0.25"], buckets["0.5"], buckets["+Inf"]), (1, 1, 2, 2))
        self.assertEqual(found["regd_http_bytes_total", (("direction", "out"),)], 5010)
        self.assertEqual(found["regd_http_bytes_total", (("direction", "in"),)], 0)

    @given(st.integers(0, 1 << 40) | st.sampled_from([int(bound) + more for bound in BYTES for more in (-1, 0, 1)]))
    def test_sizes_are_in_the_right_bucket(self, size: int) -> None:
        meter = RequestMeter()
        meter.count("finish_upload", b"PUT", 201, 0.0, size, size)
        samples = Samples()
        meter.collect(samples)
        for name in ("registry_http_request_size_bytes", "registry_http_response_size_bytes"):
            (_, found), *_ = samples.distributions(name)
            expected = next((index for index, bound in enumerate(BYTES) if size <= bound), len(BYTES))
            self.assertEqual(found.counts.index(1), expected)

    @given(st.lists(st.tuples(st.text(), st.binary(), st.integers(0, 100_000)), max_size=50))
    def test_clients_make_no_series(self, requests: list[tuple[str, bytes, int]]) -> None:
        meter = RequestMeter()
        for route, method, status in requests:
            meter.count(route, method, status, 0.0, 0, 0)
        samples = Samples()
        meter.collect(samples)
        for (handler, verb, code), _ in samples.numbers(REQUESTS):
            self.assertIn(handler, {*HANDLERS.values(), "other"})
            self.assertRegex(verb, "^(get|head|put|post|patch|delete|options|other)$")
            self.assertRegex(code, "^([1-5][0-9][0-9]|other)$")
        self.assertEqual(sum(value for _, value in samples.numbers(REQUESTS)), len(requests))

    def test_all_of_them_are_few(self) -> None:
        for route in (*HANDLERS, "", "x"):
            for method in (b"GET", b"HEAD", b"PUT", b"POST", b"PATCH", b"DELETE", b"OPTIONS", b"BREW"):
                for status in range(1000):
                    self.meter.count(route, method, status, 0.0, 0, 0)
        samples = Samples()
        self.meter.collect(samples)
        self.assertLess(len(list(samples.numbers(REQUESTS))), 7000)


class LoopLagTests(SynchronousTestCase):
    def test_it_looks_once_a_second(self) -> None:
        clock = Clock()
        lag = LoopLag(clock)
        lag.start()
        lag.start()
        clock.advance(1.0)
        clock.advance(1.3)
        lag.stop()
        self.assertEqual(clock.getDelayedCalls(), [])
        samples = Samples()
        lag.collect(samples)
        (_, found), *_ = samples.distributions("regd_event_loop_lag_seconds")
        self.assertEqual(sum(found.counts), 2)
        self.assertAlmostEqual(found.total, 0.3)
        lag.stop()


class PageTests(SynchronousTestCase):
    def test_every_metric_can_be_shown(self) -> None:
        samples = Samples()
        for metric in CATALOGUE.values():
            labels = ["x"] * len(metric.labels)
            if metric.buckets:
                samples.distribute(metric.name, Distribution([1] * (len(metric.buckets) + 1), 1.0), *labels)
            else:
                samples.add(metric.name, 1, *labels)
        families = {family.name: family for family in text_string_to_metric_families(page(samples).decode())}
        for metric in CATALOGUE.values():
            family = families[metric.name.removesuffix("_total") if metric.kind == "counter" else metric.name]
            self.assertEqual((family.type, family.documentation), (metric.kind, metric.text))
        self.assertEqual(len(SECONDS), 13)

    def test_what_has_no_value_is_there(self) -> None:
        """So that whoever looks for a name finds it, and what it means."""
        lines = page(Samples()).decode().splitlines()
        self.assertEqual({line.split()[2] for line in lines}, set(CATALOGUE))
        self.assertTrue(all(line.startswith(("# HELP ", "# TYPE ")) for line in lines))
