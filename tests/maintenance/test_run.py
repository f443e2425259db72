"""How a run begins, ends, is cut short, and goes on."""

from __future__ import annotations

import errno
import os
import time
from typing import Any

from regd.maintenance import blocking, closing, steps, sweep
from regd.maintenance.collector import Collector, Orders, Running, Stopped, Summary
from regd.maintenance.gate import Gate
from regd.names import Digest
from regd.storage import layout
from regd.storage.damage import Damage
from regd.storage.driver import Full, StorageError
from regd.storage.filesystem import FilesystemDriver
from regd.storage.layout import Path
from tests.maintenance.case import GRACE, Acting, CollectionSuite
from tests.registry.case import LAYER, OnFilesystem, OnMemory, image_manifest, index_manifest, name
from tests.storage.test_filesystem import AM_ROOT


class Suite(CollectionSuite):
    async def something_to_do(self) -> None:
        """Three repositories: of one everything stays, of one something, of one nothing; old."""
        await self.push_image("a", "v1", LAYER)
        await self.push_image("b", "v1", LAYER)
        await self.push_image("b", "v2", LAYER, b"2")
        await self.push("c", b"alone")
        await self.untag("b", "v2")
        for number in range(5):
            await self.put_file(layout.blob_data(Digest.of(b"%d" % number)), b"%d" % number)
        await self.age()

    async def done(self) -> list[Path]:
        """What is to be left."""
        kept = [path for path in await self.files() if "/a/" in path]
        await self.pull("a", "v1")
        await self.pull("b", "v1")
        return kept

    async def finished(self) -> None:
        """See that nothing is left to do, and nothing left behind."""
        summary = await self.collect(untagged=True)
        self.assertEqual(
            (summary.blobs_swept, summary.links_removed, summary.manifests_removed, summary.repositories_removed), (0, 0, 0, 0)
        )
        self.assertEqual((summary.repositories, summary.blobs, summary.skipped), (2, 3, 0))
        await self.pull("a", "v1")
        await self.pull("b", "v1")
        self.assertFalse(await self.driver.exists(layout.repository("c")))
        beside = {one for one in await self.driver.scan(Path("regd")) if "twin" not in one}
        self.assertLessEqual(beside, {"gate", "gate.queue", "collector", "trash", "collection.json"})

    async def test_the_summary_is_kept(self) -> None:
        await self.something_to_do()
        summary = await self.collect(untagged=True)
        self.assertEqual((summary.repositories, summary.manifests, summary.blobs, summary.blobs_swept), (3, 2, 3, 7))
        self.assertEqual((summary.manifests_removed, summary.links_removed, summary.repositories_removed), (1, 2, 1))
        self.assertGreater(summary.milliseconds_closed, 0)
        self.assertGreaterEqual(summary.milliseconds_closed, summary.longest_closed_milliseconds)
        self.assertRegex(summary.started, r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")
        self.assertEqual(Summary.from_json(await self.read(layout.report("collection"))), summary)
        self.assertEqual(self.notes.repositories, ["a", "b", "c"])
        self.assertEqual([one for one, _ in self.notes.stages["mark"]], [1, 2, 3])
        for stage in ("sweep", "delete"):
            done, total = self.notes.stages[stage][-1]
            self.assertEqual(done, total)
        await self.finished()

    async def test_one_at_a_time(self) -> None:
        await self.something_to_do()
        held = await self.driver.lock(layout.collector())
        for orders in ({}, {"dryrun": True}):
            with self.assertRaises(Running):
                await self.collector_of(**orders).run()
        held.close()
        self.assertTrue(await self.there(Digest.of(b"alone")))
        self.assertFalse(await self.driver.exists(layout.report("collection")))
        await self.collect(untagged=True)
        # And the lock is let go of.
        await self.finished()

    async def test_stopped_anywhere(self) -> None:
        await self.something_to_do()
        calls = 0

        async def count(method: str, args: tuple[Any, ...]) -> None:
            nonlocal calls
            calls += 1

        await self.collector_of(Acting(self.driver, count), dryrun=True).run()
        for last in [*range(0, calls, 5), *range(calls, 2 * calls)]:
            left = last

            async def stop(method: str, args: tuple[Any, ...]) -> None:
                nonlocal left
                left -= 1
                if left == 0:
                    self.collector.stop()

            collector = self.collector_of(Acting(self.driver, stop), untagged=True)
            summary = await collector.run()
            self.assertEqual(summary.error, "")
            await self.done()
            self.assertFalse(await self.driver.exists(layout.collecting()))
            self.assertEqual(Summary.from_json(await self.read(layout.report("collection"))).finished, summary.finished)
            if summary.finished:
                break
        await self.collect(untagged=True)
        await self.finished()

    async def test_stopped_at_the_gate(self) -> None:
        await self.something_to_do()
        change = await self.driver.lock(layout.gate(), shared=True)

        async def sleep(seconds: float) -> None:
            raise Stopped

        summary = await self.collector_of(sleep=sleep).run()
        self.assertEqual((summary.finished, summary.error, summary.blobs_swept), (False, "", 0))
        change.close()
        await self.collect(untagged=True)
        await self.finished()

    async def test_told_to_stop_at_the_gate(self) -> None:
        await self.something_to_do()
        change = await self.driver.lock(layout.gate(), shared=True)
        slept: list[float] = []

        async def sleep(seconds: float) -> None:
            slept.append(seconds)
            if sum(slept) > 4:
                # In the middle of the time for which the gate is left open.
                self.collector.stop()

        summary = await self.collector_of(sleep=sleep).run()
        self.assertEqual((summary.finished, summary.error, summary.blobs_swept), (False, "", 0))
        self.assertLess(sum(slept), 4.5)
        change.close()
        await self.collect(untagged=True)
        await self.finished()

    async def test_killed_anywhere(self) -> None:
        """What happens after the end of a process does not happen: neither locks nor files are cleaned up by it."""

        class Killed(BaseException):
            pass

        last = 0
        while True:
            last += 1
            self.setUp()
            await self.something_to_do()
            left = last

            async def kill(method: str, args: tuple[Any, ...]) -> None:
                nonlocal left
                left -= 1
                if left <= 0:
                    raise Killed

            try:
                await self.collector_of(Acting(self.driver, kill), untagged=True).run()
            except Killed:
                await self.done()
                await self.collect(untagged=True)
                await self.finished()
            else:
                break
        self.assertGreater(last, 50)

    async def test_what_fails_is_told_and_the_next_run_goes_on(self) -> None:
        for method in ("write", "stat", "scan", "read_all", "stat_all", "retire", "settle", "prune", "delete", "lock"):
            self.setUp()
            await self.something_to_do()
            for error in (StorageError("Input/output error"), Full("No space left on device")):

                async def fail(called: str, args: tuple[Any, ...], method: str = method, error: StorageError = error) -> None:
                    if called == method:
                        raise error

                summary = await self.collector_of(Acting(self.driver, fail), untagged=True).run()
                if method == "delete" and not summary.error:
                    continue
                self.assertEqual((summary.finished, summary.error), (False, str(error)), method)
                await self.done()
            await self.collect(untagged=True)
            await self.finished()

    async def test_trash_of_an_earlier_run(self) -> None:
        await self.something_to_do()
        for path in ("run/0/1/data", "run/0/2/data", "run/7/link", "run/file", "another/1/data", "file"):
            await self.driver.write((Path(f"{layout.trash()}/{path}"), b"x"))
        await self.driver.write((layout.collecting(), b""))
        await self.collect(untagged=True)
        await self.finished()
        self.assertEqual(await self.driver.scan(layout.trash()), ["run"])

    async def test_maxrate(self) -> None:
        await self.something_to_do()
        slept = 0.0

        async def sleep(seconds: float = 0) -> None:
            nonlocal slept
            slept += seconds

        # Time stands still, so each file is paid for in full.
        self.patch(steps, "monotonic", lambda: slept)
        summary = await self.collector_of(sleep=sleep, untagged=True, maxrate=5).run()
        self.assertTrue(summary.finished)
        looked_at = 3 + 3 + 3 + 7
        self.assertGreater(slept, looked_at / 5)
        self.assertLess(slept, 40)
        await self.finished()

    async def test_many_blobs_in_many_lots(self) -> None:
        """More than one lot, more than one shelf of the trash, and the trash emptied in between."""
        self.patch(closing, "_FIRST", 7)
        self.patch(closing, "_LEAST", 7)
        self.patch(closing, "_AT_MOST", 0)
        self.patch(sweep, "_FULL", 50)
        blobs = [b"%d" % number for number in range(200)]
        await self.driver.write(*((layout.blob_data(Digest.of(blob)), blob) for blob in blobs), durable=False)
        await self.age()
        summary = await self.collect()
        self.assertEqual((summary.blobs_swept, summary.bytes_freed), (200, sum(map(len, blobs))))
        self.assertEqual(await self.files(), [])
        self.assertGreaterEqual(self.gate.closings, 200 // 7)

    async def test_many_untagged_manifests(self) -> None:
        self.patch(closing, "_FIRST", 4)
        self.patch(closing, "_LEAST", 4)
        self.patch(closing, "_AT_MOST", 0)
        await self.push_image("a", "v1", LAYER)
        images = []
        for number in range(10):
            await self.push("a", b"%d" % number)
            images.append(image_manifest(b"%d" % number))
            await self.put("a", None, images[-1])
        await self.put("a", None, index_manifest(*images[:5]))
        await self.put("a", None, index_manifest(*images[3:]))
        await self.age()
        summary = await self.collect(untagged=True)
        self.assertEqual((summary.manifests_removed, summary.links_removed, summary.blobs_swept), (12, 10, 22))
        self.assertEqual(len(self.notes.eligible_manifests), 12)
        await self.pull("a", "v1")


class InMemoryTest(Suite, OnMemory):
    """In memory."""


class OnDiskTest(Suite, OnFilesystem):
    """On disk, and what is only there."""

    async def test_dry_run_on_a_directory_that_cannot_be_written_to(self) -> None:
        await self.something_to_do()
        if not AM_ROOT:
            for directory, _, _ in os.walk(self.root):
                os.chmod(directory, 0o555)
        driver = blocking.filesystem(self.root, writable=False)
        driver.start()
        self.addCleanup(driver.stop)
        before = self.on_disk_now()
        summary = await self.collect(driver, dryrun=True, untagged=True)
        if not AM_ROOT:
            for directory, _, _ in os.walk(self.root):
                os.chmod(directory, 0o755)
        self.assertEqual((summary.blobs_swept, summary.manifests_removed), (7, 1))
        self.assertEqual(self.on_disk_now(), before)

    def on_disk_now(self) -> list[tuple[str, float]]:
        return [
            (path, os.stat(path).st_mtime)
            for directory, below, files in os.walk(self.root)
            for path in (directory, *(f"{directory}/{one}" for one in (*below, *files)))
        ]

    def blocking_driver(self) -> FilesystemDriver:
        driver = blocking.filesystem(self.root)
        driver.start()
        self.addCleanup(driver.stop)
        return driver

    async def test_without_an_event_loop(self) -> None:
        await self.something_to_do()
        driver = self.blocking_driver()
        gate = Gate(driver, blocking.sleep)
        orders = Orders(GRACE, untagged=True)
        summary = blocking.run(Collector(driver, gate, Damage(), orders, None, blocking.sleep, time.time).run())
        self.assertEqual((summary.blobs_swept, summary.manifests_removed, summary.finished), (7, 1, True))
        await self.finished()

    async def test_a_full_disk_with_a_trash_from_before(self) -> None:
        """Nothing is made there, but a file without content."""
        await self.something_to_do()
        await self.collect()
        await self.put_file(layout.blob_data(Digest.of(b"more")), b"more")
        def mkdir(path: str, *args: Any, **kwargs: Any) -> None:
            if os.path.exists(path):
                raise FileExistsError(errno.EEXIST, "File exists")
            raise OSError(errno.ENOSPC, "No space left on device")

        self.patch(os, "mkdir", mkdir)
        self.assertEqual((await self.collect()).blobs_swept, 1)

    async def test_readers_keep_what_they_have_open(self) -> None:
        digest = await self.push("a", b"alone")
        content = await self.registry.blobs.open(name("a"), digest)
        await self.age()
        self.assertEqual((await self.collect()).blobs_swept, 1)
        self.assertEqual(await content.read(0, 100), b"alone")
        content.close()
