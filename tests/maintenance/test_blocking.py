"""Maintenance without an event loop."""

from __future__ import annotations

import os
import shutil
import tempfile

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from regd.maintenance import blocking
from regd.storage import listing, watch
from regd.storage.driver import Missing
from regd.storage.filesystem import FilesystemDriver
from tests.storage.contract import DIRECTORY, FILE, OTHER


class RunTest(SynchronousTestCase):
    def test_it_returns_and_raises_what_the_coroutine_does(self) -> None:
        async def add(one: int, two: int) -> int:
            await blocking.sleep(0)
            return one + two

        async def fail() -> None:
            raise Missing("there")

        self.assertEqual(blocking.run(add(1, 2)), 3)
        self.assertRaises(Missing, blocking.run, fail())

    def test_what_would_wait_for_ever_is_told(self) -> None:
        async def wait() -> None:
            await Deferred[None]()

        self.assertRaisesRegex(RuntimeError, "no(ne|thing)|event loop", blocking.run, wait())


class FilesystemTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.root = tempfile.mkdtemp(prefix="regd-test-")
        self.addCleanup(shutil.rmtree, self.root, ignore_errors=True)

    def make(self) -> FilesystemDriver:
        driver = blocking.filesystem(self.root)
        driver.start()
        self.addCleanup(driver.stop)
        return driver

    def test_everything_happens_at_once(self) -> None:
        driver = self.make()

        async def work() -> None:
            data = os.urandom(300_000)
            await driver.write((FILE, data), [(OTHER, b"other")])
            assert await driver.read(FILE, 1 << 20) == data
            assert (await driver.hash(FILE, "sha256")).name == "sha256"
            assert await driver.scan(DIRECTORY) == ["file"]
            await driver.check()
            await driver.delete(OTHER)

        blocking.run(work())
        # Changed, and nobody there to let go of the directories but the end.
        driver.stop()

    def test_nothing_is_watched(self) -> None:
        driver = self.make()
        asked: list[int | None] = []
        real = watch.Watch.add

        def add(watch: watch.Watch, path: str) -> int | None:
            asked.append(real(watch, path))
            return asked[-1]

        self.patch(watch.Watch, "add", add)
        self.patch(listing, "INLINE_DIRECTORY", 0)
        blocking.run(driver.write((FILE, b"")))
        self.assertEqual(blocking.run(driver.names(DIRECTORY)), ["file"])
        self.assertEqual(asked, [None])
