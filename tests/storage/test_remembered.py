"""What is remembered of small files, and what makes it count no more."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path as FilePath
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase, TestCase

from regd.names import Digest
from regd.storage import filesystem, watch
from regd.storage.damage import Damage
from regd.storage.driver import Missing
from regd.storage.filesystem import FilesystemDriver
from regd.storage.layout import Path
from regd.storage.links import Links
from regd.storage.memory import MemoryDriver
from regd.storage.remembered import Remembered
from regd.storage.threads import PoolThreads

A, B = Path("a"), Path("b")
ONE, TWO = Digest.of(b"1"), Digest.of(b"2")


class RememberedTests(SynchronousTestCase):
    def test_a_version(self) -> None:
        known: Remembered[str] = Remembered(10)
        known.put(A, 1, "x")
        self.assertEqual((known.get(A, 1), known.get(A, 1), known.get(B, 1)), ("x", "x", None))
        self.assertIsNone(known.get(A, 2))
        # It is not what it was for a while and then again.
        self.assertIsNone(known.get(A, 1))

    def test_no_version(self) -> None:
        known: Remembered[str] = Remembered(10)
        known.put(A, None, "x")
        self.assertNotIn(A, known)
        known.put(A, 1, "x")
        self.assertIsNone(known.get(A, None))
        self.assertNotIn(A, known)

    @given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(1, 12), st.booleans()), max_size=40))
    def test_the_budget(self, steps: list[tuple[str, int, bool]]) -> None:
        """Never more than the budget; the ones that were used last are there."""
        known: Remembered[int] = Remembered(10)
        order: dict[str, int] = {}
        for name, weight, look in steps:
            path = Path(name)
            if look:
                if known.get(path, 0) is not None:
                    order[name] = order.pop(name)
                continue
            known.put(path, 0, weight, weight)
            order.pop(name, None)
            if weight <= 10:
                order[name] = weight
                while sum(order.values()) > 10:
                    del order[next(iter(order))]
            self.assertEqual({found for found in "abcdefgh" if Path(found) in known}, set(order))


class FilesTests(TestCase):
    """On a file system, as it is after a while."""

    def setUp(self) -> None:
        self.root = FilePath(tempfile.mkdtemp(prefix="regd-test-"))
        self.addCleanup(shutil.rmtree, self.root)
        # Any: mypy knows the reactor as a module.
        loop: Any = reactor
        self.driver = FilesystemDriver(str(self.root), PoolThreads(loop, 2))
        self.driver.start()
        self.addCleanup(self.driver.stop)
        self.later = 10.0
        self.patch(filesystem, "time", SimpleNamespace(time=lambda: time.time() + self.later, perf_counter=time.perf_counter))
        self.reads: list[Path] = []
        read = self.driver.read

        async def counted(path: Path, limit: int) -> bytes:
            self.reads.append(path)
            return await read(path, limit)

        self.patch(self.driver, "read", counted)
        self.links = Links(self.driver, Damage())

    async def follow(self) -> Digest | None:
        return await self.links.read(A, remember=True)

    async def test_versions(self) -> None:
        await self.driver.write((A, b"1"))
        first = (await self.driver.stat(A)).version
        self.assertIsNotNone(first)
        self.assertEqual((await self.driver.stat(A)).version, first)
        seen = {first}
        for change in (
            lambda: (self.root / "a").write_bytes(b"2"),
            lambda: (self.root / "a").chmod(0o600),
            # The time of the last write may be set to anything.
            lambda: os.utime(self.root / "a", (1, 1)),
            lambda: self._replace(b"2"),
        ):
            await self._tick()
            change()
            seen.add((await self.driver.stat(A)).version)
        self.assertEqual(len(seen), 5)

    async def test_none_yet(self) -> None:
        await self.driver.write((A, b"1"))
        for self.later, has in ((0.0, False), (1.5, False), (2.5, True), (-10.0, False)):
            self.assertEqual((await self.driver.stat(A)).version is not None, has)

    async def test_file_systems_of_others(self) -> None:
        """Over NFS a look may be minutes old; so every link is opened there."""
        self.patch(watch, "_LOCAL", frozenset())
        self.driver.start()
        await self.driver.write(Links.file(A, ONE))
        self.assertIsNone((await self.driver.stat(A)).version)
        self.assertEqual([await self.follow() for _ in range(2)], [ONE] * 2)
        self.assertEqual(self.reads, [A, A])
        self.assertFalse(watch.looks_are_true("/nowhere"))

    async def test_links(self) -> None:
        await self.driver.write(Links.file(A, ONE))
        self.assertEqual([await self.follow() for _ in range(3)], [ONE] * 3)
        self.assertEqual(self.reads, [A])
        for change, found in (
            # By this process, by another one, in place by an old tool, and away.
            (lambda: Deferred.fromCoroutine(self.driver.write(Links.file(A, TWO))), TWO),
            (lambda: (self.root / "a").write_text(ONE), ONE),
            (lambda: (self.root / "a").write_text(TWO), TWO),
            (lambda: (self.root / "a").write_text("damaged"), None),
            (lambda: (self.root / "a").write_text(ONE), ONE),
            ((self.root / "a").unlink, None),
            (lambda: (self.root / "a").write_text(TWO), TWO),
        ):
            await self._tick()
            done = change()
            if isinstance(done, Deferred):
                await done
            self.assertEqual([await self.follow() for _ in range(2)], [found] * 2)

    async def test_a_link_that_may_change_yet(self) -> None:
        """Written twice within one tick of the clock, it looks the same; so it is read each time at first."""
        self.later = 0.0
        for digest in (ONE, TWO, ONE):
            (self.root / "a").write_text(digest)
            self.assertEqual([await self.follow() for _ in range(2)], [digest] * 2)
        self.assertEqual(len(self.reads), 6)

    async def test_under_a_digest(self) -> None:
        await self.driver.write(Links.file(A, ONE))
        for under, found in ((ONE, ONE), (TWO, None), (ONE, ONE)):
            self.assertEqual(await self.links.read(A, under, remember=True), found)

    async def test_what_is_read_once_is_not_remembered(self) -> None:
        await self.driver.write(Links.file(A, ONE))
        for _ in range(2):
            self.assertEqual(await self.links.read(A), ONE)
        self.assertEqual(self.reads, [A, A])

    def _replace(self, content: bytes) -> None:
        (self.root / "b").write_bytes(content)
        (self.root / "b").rename(self.root / "a")

    async def _tick(self) -> None:
        """Let the clock of the file system move on."""
        probe = self.root / "probe"
        probe.write_bytes(b"")
        before = probe.stat().st_ctime_ns
        while probe.stat().st_ctime_ns == before:
            probe.write_bytes(b"")


class MemoryTests(TestCase):
    async def test_versions(self) -> None:
        driver = MemoryDriver(lambda: 0.0)
        await driver.write((A, b"1"), (B, b"1"))
        seen = {(await driver.stat(A)).version, (await driver.stat(B)).version}
        await driver.write((A, b"1"))
        seen.add((await driver.stat(A)).version)
        appender = await driver.append(A)
        appender.write(b"x")
        await appender.flush()
        seen.add((await driver.stat(A)).version)
        self.assertEqual(len(seen), 4)
        self.assertNotIn(None, seen)
        self.assertIn((await driver.stat(A)).version, seen)

    async def test_a_link_that_goes(self) -> None:
        driver = MemoryDriver()
        links = Links(driver, Damage())
        await driver.write(Links.file(A, ONE))
        self.assertEqual(await links.read(A, remember=True), ONE)
        await driver.delete(A)
        self.assertIsNone(await links.read(A, remember=True))
        with self.assertRaises(Missing):
            await driver.stat(A)
