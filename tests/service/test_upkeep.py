"""What the daemon does by itself, and what it says of that."""

from __future__ import annotations

import io
import json
import time
from typing import Any
from unittest.mock import patch

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import formatEvent
from twisted.trial.unittest import SynchronousTestCase

from regd.config import Config, parse
from regd.maintenance.chores import CutShort, Listener, Occupied, Order
from regd.maintenance.process import Here, InProcess
from regd.maintenance.service import RunFailed
from regd.names import Digest
from regd.service.serving import Serving
from regd.service.upkeep import Upkeep
from regd.storage import layout
from regd.telemetry.samples import Samples

PURGED = {
    "started": "2026-11-23T02:00:00Z", "seconds": 0.5, "repositories": 2, "uploads": 5, "removed": 3, "bytes_freed": 100, "busy": 1,
    "skipped": 0, "dryrun": False, "finished": True,
}  # fmt: skip


COLLECTED = {
    "started": "2026-11-23T02:00:00Z", "seconds": 1.5, "seconds_open": 1.48, "milliseconds_closed": 20.5,
    "longest_closed_milliseconds": 8.1, "repositories": 3,
    "manifests": 12, "blobs": 40, "blobs_swept": 5, "bytes_freed": 5000, "manifests_removed": 0, "links_removed": 5,
    "repositories_removed": 0, "uploads_removed": 0, "young": 2, "young_bytes": 7, "skipped": 1, "dryrun": False, "untagged": False,
    "finished": True, "error": "",
}  # fmt: skip


#: What a collection is told where the configuration says nothing.
ORDERS = {
    "grace": 3600.0, "untagged": False, "dryrun": False, "maxrate": 0, "garbage": True, "prefixes": (), "maxsize": None, "maxage": None,
}  # fmt: skip

EVICTED = {
    **COLLECTED, "blobs_cached": 9, "bytes_cached": 900, "blobs_evicted": 4, "bytes_evicted": 400, "manifests_evicted": 1,
    "fetches_removed": 2,
}  # fmt: skip


def config(maintenance: str = "", storage: str = "inmemory: ", *, delete: bool = False, proxy: str = "") -> Config:
    source = f"version: 0.1\nstorage: {{{storage}, delete: {{enabled: {delete}}}, maintenance: {{{maintenance}}}}}\nproxy: {{{proxy}}}\n"
    return parse(source.encode(), "config.yml", {}).config


class FakeRunner:
    """What a test ends as it likes."""

    def __init__(self) -> None:
        self.orders: list[Order] = []
        self.listener: Listener | None = None
        self.stops = 0
        self.done: Deferred[dict[str, Any]] = Deferred()

    async def run(self, order: Order, listener: Listener) -> dict[str, Any]:
        self.orders.append(order)
        self.listener = listener
        self.done = Deferred()
        return await self.done

    def stop(self) -> None:
        self.stops += 1


class UpkeepTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.collection = FakeRunner()
        self.purge = FakeRunner()
        self.eviction = FakeRunner()

    def build(self, maintenance: str = "", *, delete: bool = False, proxy: str = "") -> Upkeep:
        self.serving = Serving(config(maintenance, delete=delete, proxy=proxy), io.StringIO(), self.clock)
        with (
            patch.object(Upkeep, "_runner", side_effect=[self.collection, self.purge, self.eviction]),
            patch("time.time", self.clock.seconds),
        ):
            made = Upkeep(self.serving, self.clock, lambda: 0.5)
        made.configure()
        return made

    def change(self, upkeep: Upkeep, maintenance: str) -> None:
        self.serving.configure(config(maintenance))
        upkeep.configure()

    def variables(self, upkeep: Upkeep, key: str) -> dict[str, Any]:
        found: Any = self.successResultOf(Deferred.fromCoroutine(upkeep.variables()))
        shown: dict[str, Any] = found[key]
        return shown

    def test_where_it_runs(self) -> None:
        made = Upkeep(Serving(config(), io.StringIO(), self.clock), self.clock)
        self.assertIsInstance(made._runner(), Here)
        shared = Serving(config(storage="filesystem: {rootdirectory: /nowhere}"), io.StringIO(), self.clock)
        self.assertIsInstance(Upkeep(shared, self.clock)._runner(), InProcess)

    def test_the_first_purge_begins_within_the_hour(self) -> None:
        upkeep = self.build()
        self.assertEqual(self.variables(upkeep, "uploadpurging")["next"], "1970-01-01T00:30:00Z")
        self.clock.advance(1800)
        self.assertEqual([(order.kind, order.details) for order in self.purge.orders], [("purge", {"age": 604800.0, "dryrun": False})])
        self.assertEqual(self.variables(upkeep, "uploadpurging"), {"running": True, "next": None, "runs": 0, "failures": 0, "last": None})

    def test_its_values(self) -> None:
        upkeep = self.build("uploadpurging: {age: 10m, interval: 10m, dryrun: true}")
        self.assertEqual(self.variables(upkeep, "uploadpurging")["next"], "1970-01-01T00:05:00Z")
        self.clock.advance(300)
        self.assertEqual(self.purge.orders[0].details, {"age": 600.0, "dryrun": True})

    def test_collections_follow_deletes(self) -> None:
        for maintenance, delete, planned in (
            ("", False, None),
            ("", True, "1970-01-01T12:00:00Z"),
            ("garbagecollect: {enabled: false}", True, None),
            ("garbagecollect: {enabled: true, interval: 2h}", False, "1970-01-01T01:00:00Z"),
            ("readonly: {enabled: true}", True, None),
        ):
            upkeep = self.build(maintenance, delete=delete)
            self.assertEqual(self.variables(upkeep, "garbagecollect")["next"], planned)
            self.successResultOf(Deferred.fromCoroutine(upkeep.stop()))

    def test_samples(self) -> None:
        upkeep = self.build("garbagecollect: {enabled: true, interval: 1h}, uploadpurging: {enabled: false}")
        for _ in range(2):
            self.clock.advance(3600)
            self.collection.done.callback(dict(COLLECTED))
        samples = Samples()
        self.successResultOf(Deferred.fromCoroutine(upkeep.collect(samples)))
        for name, labels, value in (
            ("regd_chore_runs_total", ("collection", "done"), 2),
            ("regd_chore_runs_total", ("collection", "failed"), 0),
            ("regd_chore_removed_total", ("collection", "blobs"), 10),
            ("regd_chore_removed_total", ("collection", "links"), 10),
            ("regd_chore_freed_bytes_total", ("collection",), 10_000),
            ("regd_chore_skipped_files_total", ("collection",), 2),
            ("regd_gate_closed_seconds_total", ("collection",), 0.041),
            ("regd_gate_longest_closed_seconds", ("collection",), 0.0081),
            ("regd_chore_last_duration_seconds", ("collection",), 1.5),
            ("regd_chore_last_finished", ("collection",), 1),
            ("regd_chore_last_start_timestamp_seconds", ("collection",), 1_795_399_200),
            ("regd_chore_running", ("collection",), 0),
            ("regd_chore_removed_total", ("purge", "uploads"), 0),
        ):
            self.assertAlmostEqual(dict(samples.numbers(name))[labels], value, 6, name)

    def test_a_dry_run_removes_nothing(self) -> None:
        upkeep = self.build("garbagecollect: {enabled: true, interval: 1h, dryrun: true}, uploadpurging: {enabled: false}")
        self.clock.advance(3600)
        self.collection.done.callback({**COLLECTED, "dryrun": True})
        samples = Samples()
        self.successResultOf(Deferred.fromCoroutine(upkeep.collect(samples)))
        self.assertEqual(dict(samples.numbers("regd_chore_removed_total"))["collection", "blobs"], 0)
        self.assertEqual(dict(samples.numbers("regd_chore_skipped_files_total"))["collection",], 1)

    def test_the_window(self) -> None:
        with patch("regd.maintenance.schedule.time.localtime", time.gmtime):
            upkeep = self.build("garbagecollect: {enabled: true, window: 02:00-05:00}, uploadpurging: {enabled: false}")
        self.assertEqual(upkeep._collecting[1]._wanted, 43_200)
        self.assertGreater(upkeep._collecting[1]._due, 43_200)

    def test_a_collection(self) -> None:
        keys = "enabled: true, interval: 1h, grace: 5m, untagged: true, dryrun: false, maxrate: 100, wait: 2s"
        upkeep = self.build(f"garbagecollect: {{{keys}}}, uploadpurging: {{enabled: false}}")
        self.clock.advance(1800)
        (order,) = self.collection.orders
        self.assertEqual(order, Order("collection", {**ORDERS, "grace": 300.0, "untagged": True, "maxrate": 100}, "", 2.0))
        self.assertTrue(self.variables(upkeep, "garbagecollect")["running"])
        with patch.object(upkeep._collecting[0], "_log") as log:
            self.collection.done.callback(COLLECTED)
        (text,), fields = log.info.call_args
        self.assertEqual(
            text.format(**fields),
            "garbage collection: 3 repositories, 12 manifests, 40 blobs marked; 5 blobs swept, 5000 bytes freed; "
            "2 blobs kept by grace, 1 bad files skipped; open 1.48 s, closed 20.5 ms",
        )
        self.assertEqual(fields["fields"], COLLECTED)
        self.assertEqual(self.variables(upkeep, "garbagecollect")["last"], COLLECTED)
        self.assertEqual(self.variables(upkeep, "garbagecollect")["next"], "1970-01-01T01:30:00Z")

    def test_a_shorter_grace_comes_later(self) -> None:
        """What was promised by the longer one was not renewed by the shorter."""
        text = "garbagecollect: {enabled: true, interval: 2m, grace: %s}, uploadpurging: {enabled: false}"
        upkeep = self.build(text % "1h")
        self.clock.advance(30)
        self.change(upkeep, text % "10m")
        self.change(upkeep, text % "5m")
        for when in range(60, 60 + 120 * 6, 120):
            self.clock.advance(when - self.clock.seconds())
            self.collection.done.callback(COLLECTED)
        self.assertEqual([order.details["grace"] for order in self.collection.orders], [3600, 3600, 3600, 300, 300, 300])
        self.change(upkeep, text % "2h")
        self.clock.advance(120)
        self.assertEqual(self.collection.orders[-1].details["grace"], 7200)
        self.collection.done.callback(COLLECTED)
        self.successResultOf(Deferred.fromCoroutine(upkeep.stop()))

    def test_storage_in_memory_is_collected_here(self) -> None:
        serving = Serving(config("garbagecollect: {grace: 0s}", delete=True), io.StringIO(), self.clock)
        garbage = layout.blob_data(Digest.of(b"garbage"))
        self.successResultOf(Deferred.fromCoroutine(serving.driver.write((garbage, b"garbage"))))
        upkeep = Upkeep(serving, self.clock, lambda: 0.0)
        upkeep.configure()
        for _ in range(20):
            self.clock.advance(0.001)
        self.assertFalse(self.successResultOf(Deferred.fromCoroutine(serving.driver.exists(garbage))))
        self.assertEqual(self.variables(upkeep, "garbagecollect")["last"]["blobs_swept"], 1)
        self.successResultOf(Deferred.fromCoroutine(upkeep.stop()))

    def test_the_line(self) -> None:
        upkeep = self.build()
        self.clock.advance(1800)
        with patch.object(upkeep._purging[0], "_log") as log:
            self.purge.done.callback(PURGED)
        (text,), fields = log.info.call_args
        self.assertEqual(
            text.format(**fields),
            "purge of uploads: 3 of 5 uploads in 2 repositories removed, 100 bytes freed, 1 left that are in use, "
            "0 skipped that cannot be read, in 0.5 s",
        )
        self.assertEqual(fields["fields"], PURGED)
        self.assertEqual(
            self.variables(upkeep, "uploadpurging"),
            {"running": False, "next": "1970-01-02T00:30:00Z", "runs": 1, "failures": 0, "last": PURGED},
        )

    def test_a_dry_run_that_was_stopped(self) -> None:
        upkeep = self.build()
        self.clock.advance(1800)
        with patch.object(upkeep._purging[0], "_log") as log:
            self.purge.done.callback({**PURGED, "dryrun": True, "finished": False})
        text = log.info.call_args.args[0]
        self.assertTrue(text.startswith("{name}: dry run: ") and text.endswith("(stopped before its end; the next one goes on)"), text)

    def test_an_error_in_the_summary(self) -> None:
        upkeep = self.build()
        self.clock.advance(1800)
        self.purge.done.callback({**PURGED, "finished": False, "error": "no room"})
        self.assertEqual(self.variables(upkeep, "uploadpurging")["failures"], 1)

    def test_a_failure(self) -> None:
        upkeep = self.build()
        self.clock.advance(1800)
        self.purge.done.errback(RunFailed("killed"))
        shown = self.variables(upkeep, "uploadpurging")
        self.assertEqual((shown["runs"], shown["failures"], shown["next"]), (1, 1, "1970-01-01T00:31:00Z"))

    def test_runs_that_come_to_nothing(self) -> None:
        for error, said in ((Occupied(), "another one is under way"), (CutShort(), "stopped before it began")):
            upkeep = self.build()
            self.clock.advance(1800)
            with patch.object(upkeep._purging[0], "_log") as log:
                self.purge.done.errback(error)
            log.info.assert_called_once()
            self.assertIn(said, log.info.call_args.args[0])
            self.assertEqual(self.variables(upkeep, "uploadpurging")["failures"], 0)
            self.successResultOf(Deferred.fromCoroutine(upkeep.stop()))

    def test_what_is_found(self) -> None:
        upkeep = self.build()
        self.clock.advance(1800)
        assert self.purge.listener is not None
        before = self.serving.variables()["damaged_files"]
        self.purge.listener.damaged("a/link", "empty")
        self.purge.listener.damaged("a/link", "empty")
        self.assertEqual((before, self.serving.variables()["damaged_files"]), (0, 1))
        with patch.object(upkeep._purging[0], "_log") as log:
            for level in ("error", "warn", "info", "debug", "other"):
                self.purge.listener.say(level, "x")
        self.assertEqual([call[0] for call in log.method_calls], ["error", "warn", "info", "debug", "info"])

    def test_the_newest_summary_is_shown(self) -> None:
        upkeep = self.build()
        report = layout.report("purge")
        for started, shown in (("2026-11-23T01:00:00Z", PURGED), ("2026-11-23T03:00:00Z", {**PURGED, "started": "2026-11-23T03:00:00Z"})):
            upkeep._purging[0].last = PURGED
            stored = json.dumps({**PURGED, "started": started}).encode()
            self.successResultOf(Deferred.fromCoroutine(self.serving.driver.write((report, stored))))
            self.assertEqual(self.variables(upkeep, "uploadpurging")["last"], shown)
        upkeep._purging[0].last = {}
        for broken in (b"", b"[]", b"\xff", b"{", b"[" * 10_000):
            self.successResultOf(Deferred.fromCoroutine(self.serving.driver.write((report, broken))))
            self.assertIsNone(self.variables(upkeep, "uploadpurging")["last"])

    def test_an_eviction(self) -> None:
        cached = "cache: {maxsize: 1KiB, maxage: 2h, interval: 1h}"
        proxy = f"upstreams: [{{prefix: hub, remoteurl: 'http://localhost'}}], {cached}"
        upkeep = self.build("garbagecollect: {enabled: true, dryrun: true}, uploadpurging: {enabled: false}", proxy=proxy)
        limits = {"prefixes": ("hub",), "maxsize": 1024, "maxage": 7200.0}
        self.assertEqual(upkeep._collection_order().details, {**ORDERS, **limits, "dryrun": True})
        # Soon after the start, and then at its time.
        self.clock.advance(150)
        (order,) = self.eviction.orders
        self.assertEqual(order, Order("collection", {**ORDERS, **limits, "garbage": False}, "", 5.0))
        with patch.object(upkeep._evicting[0], "_log") as log:
            self.eviction.done.callback(EVICTED)
        text = formatEvent({"log_format": log.info.call_args.args[0], **log.info.call_args.kwargs})
        self.assertEqual(
            text,
            "eviction: 4 blobs evicted, 400 bytes freed; 9 of 900 bytes are cached; 2 abandoned fetches removed, 1 bad files skipped; "
            "open 1.48 s, closed 20.5 ms",
        )
        self.assertEqual(self.variables(upkeep, "eviction")["last"], EVICTED)
        self.assertEqual(self.variables(upkeep, "eviction")["next"], "1970-01-01T01:02:30Z")

    def test_without_a_cache_nothing_is_evicted(self) -> None:
        upkeep = self.build("uploadpurging: {enabled: false}")
        self.assertIsNone(self.variables(upkeep, "eviction")["next"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_switched_off_and_on(self) -> None:
        upkeep = self.build("uploadpurging: {enabled: false}")
        self.assertEqual((self.variables(upkeep, "uploadpurging")["next"], self.clock.getDelayedCalls()), (None, []))
        self.change(upkeep, "")
        self.assertEqual(self.variables(upkeep, "uploadpurging")["next"], "1970-01-01T00:30:00Z")

    def test_read_only(self) -> None:
        upkeep = self.build()
        self.clock.advance(1800)
        with patch.object(upkeep, "_log") as log:
            for _ in range(2):
                self.change(upkeep, "readonly: {enabled: true}")
        log.debug.assert_called_once()
        self.assertEqual(self.purge.stops, 2)
        self.purge.done.callback(PURGED)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.change(upkeep, "")
        self.assertEqual(self.variables(upkeep, "uploadpurging")["next"], "1970-01-01T01:00:00Z")

    def test_stop(self) -> None:
        upkeep = self.build()
        self.clock.advance(1800)
        stopping = Deferred.fromCoroutine(upkeep.stop())
        self.assertNoResult(stopping)
        self.purge.done.callback(PURGED)
        self.successResultOf(stopping)
        self.assertEqual(self.clock.getDelayedCalls(), [])
