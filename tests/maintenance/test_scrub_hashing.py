"""How a scrub reads: to the end, no faster than it may, and without driving out of memory what others read."""

from __future__ import annotations

import hashlib
import os
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase, TestCase

from regd.maintenance.scrub import hashing
from regd.maintenance.scrub.hashing import Hasher, Stopped
from regd.names import Digest
from regd.storage.driver import Missing
from regd.storage.files import in_memory
from regd.storage.layout import Path
from regd.storage.memory import MemoryDriver
from tests.registry.case import OnFilesystem
from tests.support import no_sleep

FILE = Path("docker/registry/v2/some/data")
MIB = 1 << 20


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.naps: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.now += seconds


class HasherTest(SynchronousTestCase):
    def hasher(self, content: bytes, maxrate: int = 0) -> tuple[Hasher, Time]:
        driver = MemoryDriver()
        self.successResultOf(Deferred.fromCoroutine(driver.write((FILE, content))))
        clock = Time()
        self.passed: list[int] = []
        self.stopped = False
        with mock.patch.object(hashing, "monotonic", clock):
            hasher = Hasher(driver, clock.sleep, maxrate, stopping=lambda: self.stopped, passed=self.passed.append)
        return hasher, clock

    @given(st.binary(max_size=50), st.integers(1, 10), st.sets(st.sampled_from(["sha256", "sha512"]), min_size=1))
    def test_every_algorithm(self, content: bytes, block: int, algorithms: set[str]) -> None:
        hasher, _ = self.hasher(content)
        with mock.patch.object(hashing, "_BLOCK", block):
            size, found = self.successResultOf(Deferred.fromCoroutine(hasher.digests(FILE, sorted(algorithms))))
        self.assertEqual((size, sum(self.passed)), (len(content), len(content)))
        self.assertEqual(found, {one: f"{one}:{hashlib.new(one, content).hexdigest()}" for one in algorithms})

    def test_right(self) -> None:
        hasher, _ = self.hasher(b"content")
        for content in (b"content", b"other"):
            self.assertIs(self.successResultOf(Deferred.fromCoroutine(hasher.right(Digest.of(content), FILE))), content == b"content")
        self.failureResultOf(Deferred.fromCoroutine(hasher.right(Digest.of(b""), Path("docker/none"))), Missing)

    def test_a_limit_of_the_rate(self) -> None:
        """Over a while it is kept to the byte, however the blocks fall."""
        hasher, clock = self.hasher(bytes(5 * MIB), MIB)
        with mock.patch.object(hashing, "monotonic", clock):
            self.successResultOf(Deferred.fromCoroutine(hasher.digests(FILE, ["sha256"])))
            self.assertAlmostEqual(clock.now, 1005)
            # So it is stopped soon, also where the limit is low.
            self.assertLessEqual(max(clock.naps), 0.1)
            # What was not used is not saved up, but for half a second of it.
            clock.now += 100
            begun = clock.now
            self.successResultOf(Deferred.fromCoroutine(hasher.digests(FILE, ["sha256"])))
            self.assertAlmostEqual(clock.now - begun, 4.5)

    def test_stopping(self) -> None:
        hasher, clock = self.hasher(bytes(5 * MIB), MIB)

        async def stop(seconds: float) -> None:
            clock.now += seconds
            self.stopped = True

        hasher._sleep = stop
        with mock.patch.object(hashing, "monotonic", clock):
            self.failureResultOf(Deferred.fromCoroutine(hasher.digests(FILE, ["sha256"])), Stopped)
        self.assertEqual(self.passed, [MIB])


class PageCacheTest(OnFilesystem, TestCase):
    """What is in the page cache, which only a file system on a disk has."""

    async def test_what_nobody_reads_is_forgotten_and_what_somebody_does_stays(self) -> None:
        driver = self.make_driver()
        if in_memory(self.root):
            return
        content = os.urandom(9 * MIB)
        await driver.write((FILE, content))
        fd = os.open(f"{self.root}/{FILE}", os.O_RDONLY)
        self.addCleanup(os.close, fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        try:
            cold = not at_hand(fd)
        except OSError:
            # The file system does not say.
            return
        if cold:
            # It may be that it was being read meanwhile, by the looking alone.
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        hasher = Hasher(driver, no_sleep)
        self.assertTrue(await hasher.right(Digest.of(content), FILE))
        if cold:
            self.assertFalse(at_hand(fd))
        self.assertEqual(os.pread(fd, len(content), 0), content)
        self.assertTrue(await hasher.right(Digest.of(content), FILE))
        self.assertTrue(at_hand(fd))


def at_hand(fd: int) -> bool:
    """
    :return: whether the middle of a file is in the page cache.
    """
    try:
        return os.preadv(fd, [bytearray(1)], 4 * MIB, os.RWF_NOWAIT) == 1
    except BlockingIOError:
        return False


