"""Uploads that nobody has finished, and which of them are removed."""

from __future__ import annotations

import json
import os
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from regd.maintenance import blocking
from regd.maintenance.purge import Purge, PurgeOrders, PurgeSummary
from regd.moments import rfc3339
from regd.names import RepositoryName
from regd.storage import layout
from regd.storage.damage import Damage
from regd.storage.driver import Driver, StorageError
from regd.storage.layout import UploadId
from regd.storage.memory import MemoryDriver
from regd.storage.startedat import parse_time

APP, DEEP = RepositoryName("app"), RepositoryName("team/app/deep")
NOW = 1_800_000_000.0
AGE = 3600.0
OLD, YOUNG = NOW - AGE - 1, NOW - AGE + 1


class PurgeTests(SynchronousTestCase):
    """Over storage in memory."""

    def setUp(self) -> None:
        self.time = NOW
        self.driver: Driver = self.make_driver()
        self.damage = Damage()
        self.said: list[tuple[str, str]] = []
        self.slept: list[float] = []
        self.while_asleep: list[Any] = []

    def make_driver(self) -> Driver:
        return MemoryDriver(lambda: self.time)

    def do(self, work: Any) -> Any:
        outcome: list[Any] = []
        Deferred.fromCoroutine(work).addBoth(outcome.append)
        (found,) = outcome
        if isinstance(found, Failure):
            found.raiseException()
        return found

    def write(self, path: str, content: bytes, modified: float = NOW) -> None:
        before, self.time = self.time, modified
        self.do(self.driver.write((layout.Path(path), content)))
        self.time = before

    def upload(self, name: RepositoryName, started: float | bytes | None, modified: float = NOW, data: bytes | None = b"12345") -> UploadId:
        """
        :param started: When it began, or what is in its file, if there is one.
        :param data: What has arrived, if there is a file.
        """
        upload = UploadId.new()
        if started is not None:
            text = started if isinstance(started, bytes) else rfc3339(started).encode()
            self.write(layout.upload_started(name, upload), text, modified)
        if data is not None:
            self.write(layout.upload_data(name, upload), data, modified)
        return upload

    def purge(self, *, age: float = AGE, dryrun: bool = False) -> PurgeSummary:
        async def sleep(seconds: float) -> None:
            if seconds:
                self.slept.append(seconds)
                for act in self.while_asleep:
                    act()

        self.work = Purge(self.driver, self.damage, PurgeOrders(age, dryrun), lambda *said: self.said.append(said), sleep, lambda: NOW)
        found: PurgeSummary = self.do(self.work.run())
        return found

    def there(self, path: str) -> bool:
        found: bool = self.do(self.driver.exists(layout.Path(path)))
        return found

    def left(self, name: RepositoryName) -> set[str]:
        return set(self.do(self.driver.scan(layout.uploads(name))))

    def test_nothing(self) -> None:
        summary = self.purge()
        self.assertEqual((summary.finished, summary.repositories, summary.uploads, summary.removed), (True, 0, 0, 0))
        self.assertEqual(summary.started, "2027-01-15T08:00:00Z")

    def test_the_old_ones_go(self) -> None:
        young = {name: self.upload(name, YOUNG, modified=NOW) for name in (APP, DEEP)}
        old = {name: self.upload(name, OLD, modified=NOW) for name in (APP, DEEP)}
        summary = self.purge()
        self.assertEqual((summary.repositories, summary.uploads, summary.removed, summary.bytes_freed), (2, 4, 2, 10))
        for name in (APP, DEEP):
            self.assertEqual(self.left(name), {young[name]})
        self.assertEqual([level for level, _ in self.said], ["debug"] * 2)
        self.assertIn(f"upload {old[APP]} of app, which began at 2027-01-15T06:59:59Z and has 5 bytes, was removed", self.said[0][1])
        self.assertEqual(self.slept, [])

    def test_what_is_exactly_as_old_stays(self) -> None:
        """``startedAt.Before(olderThan)``."""
        self.upload(APP, NOW - AGE)
        self.assertEqual(self.purge().removed, 0)

    def test_the_last_write_does_not_matter(self) -> None:
        self.upload(APP, OLD, modified=NOW - 5)
        self.assertEqual(self.purge().removed, 1)

    def test_without_a_time_the_last_write_is_taken(self) -> None:
        for content in (None, b"", b"yesterday", b"\xff", b"0001-01-01T00:00:00+23:59"):
            stays = self.upload(APP, content, modified=YOUNG)
            self.upload(APP, content, modified=OLD)
            self.assertEqual(self.purge().removed, 1, content)
            self.assertEqual(self.left(APP), {stays})
            self.do(self.driver.delete(layout.uploads(APP)))
        # A file that is not there is no damage.
        self.assertEqual(self.damage.count, 8)

    def test_without_data(self) -> None:
        stays = self.upload(APP, YOUNG, data=None)
        self.upload(APP, OLD, data=None)
        self.upload(APP, b"no time", modified=OLD, data=None)
        summary = self.purge()
        self.assertEqual((summary.removed, summary.bytes_freed), (2, 0))
        self.assertEqual(self.left(APP), {stays})

    def test_one_that_somebody_appends_to(self) -> None:
        upload = self.upload(APP, OLD)
        appender = self.do(self.driver.append(layout.upload_data(APP, upload)))
        summary = self.purge()
        self.assertEqual((summary.uploads, summary.removed, summary.busy), (1, 0, 1))
        self.assertEqual(self.left(APP), {upload})
        appender.close()
        self.assertEqual(self.purge().removed, 1)

    def test_orphans_get_a_second_look(self) -> None:
        orphan, coming = UploadId.new(), UploadId.new()
        for upload in (orphan, coming):
            self.write(f"{layout.upload(APP, upload)}/hashstates/sha256/100", b"x")
        self.while_asleep.append(lambda: self.write(layout.upload_started(APP, coming), b"2027-01-15T07:00:00Z"))
        summary = self.purge()
        self.assertEqual((self.slept, summary.uploads, summary.removed), ([2.0], 1, 1))
        self.assertEqual(self.left(APP), {coming})

    def test_an_orphan_that_is_alone(self) -> None:
        self.write(f"{layout.upload(APP, UploadId.new())}/hashstates/sha256/100", b"x")
        self.assertEqual(self.purge(dryrun=True).removed, 1)
        self.assertTrue(self.there(layout.uploads(APP)))
        self.assertEqual(self.purge().removed, 1)
        self.assertFalse(self.there(layout.uploads(APP)))

    def test_what_is_no_upload_stays(self) -> None:
        for name in ("notes", "_uploads", UploadId.new().upper()):
            self.write(f"{layout.uploads(APP)}/{name}/startedat", b"2000-01-01T00:00:00Z")
        self.write("docker/registry/v2/repositories/UPPER/_uploads/" + UploadId.new() + "/startedat", b"2000-01-01T00:00:00Z")
        self.write("docker/registry/v2/repositories/file", b"2000-01-01T00:00:00Z")
        summary = self.purge()
        self.assertEqual((summary.repositories, summary.uploads), (1, 0))
        self.assertEqual(len(self.left(APP)), 3)

    def test_empty_directories_go(self) -> None:
        self.upload(APP, OLD)
        self.write(layout.manifests(APP) + "/tags/x/current/link", b"sha256:x")
        self.purge()
        self.assertFalse(self.there(layout.uploads(APP)))
        self.assertTrue(self.there(layout.manifests(APP)))

    def test_dry_run(self) -> None:
        upload = self.upload(APP, OLD)
        summary = self.purge(dryrun=True)
        self.assertEqual((summary.removed, summary.bytes_freed, summary.dryrun), (1, 5, True))
        self.assertEqual(self.left(APP), {upload})
        ((level, text),) = self.said
        self.assertEqual(level, "info")
        self.assertTrue(text.startswith(f"dry run: upload {upload} of app") and text.endswith("would be removed"), text)
        self.assertFalse(self.there(layout.report("purge")))

    def test_the_report(self) -> None:
        self.upload(APP, OLD)
        summary = self.purge()
        stored = self.do(self.driver.read(layout.report("purge"), 4096))
        self.assertEqual(stored.decode(), summary.to_json())
        self.assertEqual(json.loads(stored)["bytes_freed"], 5)

    def test_stop(self) -> None:
        for _ in range(3):
            self.upload(APP, OLD)
        self.upload(DEEP, OLD)

        with patch.object(Damage, "report"):
            self.said = Stopping(self)
            summary = self.purge()
        self.assertEqual((summary.finished, summary.removed), (False, 1))
        self.assertEqual(len(self.left(APP)), 2)

    def test_one_that_cannot_be_removed(self) -> None:
        for _ in range(3):
            self.upload(APP, OLD)
        delete, failures = self.driver.delete, [StorageError("a bad disk")]

        async def failing(path: layout.Path, *, durable: bool = True) -> None:
            if failures:
                raise failures.pop()
            await delete(path, durable=durable)

        with patch.object(self.driver, "delete", failing):
            summary = self.purge()
        self.assertEqual((summary.removed, summary.skipped, self.damage.count), (2, 1, 1))

    def test_the_storage_is_not_there(self) -> None:
        async def failing(path: layout.Path) -> list[str]:
            raise StorageError("not there")

        with patch.object(self.driver, "scan", failing):
            self.assertRaises(StorageError, self.purge)


class Stopping(list[tuple[str, str]]):
    """Ends the purge at the first thing that is said."""

    def __init__(self, case: PurgeTests) -> None:
        super().__init__()
        self._case = case

    def append(self, said: tuple[str, str]) -> None:
        super().append(said)
        self._case.work.stop()


class FilesystemPurgeTests(PurgeTests):
    """Over files, without a reactor, as in a process of its own."""

    def make_driver(self) -> Driver:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.root = Path(directory.name)
        driver = blocking.filesystem(str(self.root))
        driver.start()
        self.addCleanup(driver.stop)
        return driver

    def do(self, work: Any) -> Any:
        return blocking.run(work)

    def write(self, path: str, content: bytes, modified: float = NOW) -> None:
        super().write(path, content)
        os.utime(self.root / path, (modified, modified))

    def test_an_empty_directory_of_an_upload(self) -> None:
        (self.root / layout.upload(APP, UploadId.new())).mkdir(parents=True)
        self.assertEqual(self.purge().removed, 1)
        self.assertFalse(self.there(layout.uploads(APP)))

    def test_many(self) -> None:
        """What it costs: some 100 µs an upload."""
        for number in range(200):
            self.upload(RepositoryName(f"r{number % 7}"), OLD if number % 2 else YOUNG)
        start = time.process_time()
        self.assertEqual(self.purge().removed, 100)
        self.assertLess(time.process_time() - start, 1)


class StartedAtTests(SynchronousTestCase):
    @given(st.datetimes(timezones=st.just(UTC)).map(lambda found: found.replace(microsecond=0)))
    def test_what_is_written_is_read(self, moment: datetime) -> None:
        self.assertEqual(parse_time(rfc3339(moment.timestamp()).encode()), moment)

    @given(st.binary(max_size=64))
    def test_any_bytes_are_a_time_or_refused(self, content: bytes) -> None:
        try:
            self.assertIs(parse_time(content).tzinfo, UTC)
        except ValueError:
            return

    def test_other_zones(self) -> None:
        self.assertEqual(parse_time(b" 2026-01-02T03:04:05+02:00\n"), datetime(2026, 1, 2, 1, 4, 5, tzinfo=UTC))
