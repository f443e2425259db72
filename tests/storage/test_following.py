"""
One who appends to a file and any number who follow it, against a model of bytes: whatever happens in whatever order, who follows reads what
was written, from its beginning, and never anything else. The thread that stores is run by hand, a piece of its work at a time.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any
from unittest.mock import patch

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from twisted.internet import reactor as twisted_reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from regd.storage import files
from regd.storage.appending import BATCH, HIGH_WATER
from regd.storage.driver import Appender, Busy, Driver, Growing, Missing, StorageError
from regd.storage.filesystem import FilesystemDriver
from regd.storage.layout import Path
from regd.storage.memory import MemoryDriver
from regd.storage.threads import Inline
from tests.storage.test_appending import HandThreads
from tests.storage.test_filesystem import FilesystemCase

# Any: mypy knows the reactor as a module.
reactor: Any = twisted_reactor

#: Where the file is while it grows, and where it comes to be.
PLACES = [Path(f"regd/fetching/{number}/data") for number in range(3)]
LINK = (Path("docker/registry/v2/link"), b"link")

SIZES = st.sampled_from([0, 1, 1000, BATCH - 1, BATCH, HIGH_WATER + 1])


class HandPool(HandThreads):
    """Threads run by hand that belong to a storage."""

    def stop(self) -> None:
        """There are none."""

    def later(self, seconds: float, function: Callable[[], object]) -> HandPool:
        """It does not get as late."""
        return self

    def cancel(self) -> None:
        """See :meth:`later`."""


class FollowingMachine(RuleBasedStateMachine):
    """
    :ivar written: all that was written to the appender that there is, or the last one, and is not known to be lost.
    :ivar durable: as much of it as was flushed.
    :ivar failed: whether that appender has failed: then what the file holds is what was written, up to somewhere.
    """

    def __init__(self) -> None:
        super().__init__()
        self.threads = HandPool()
        self.driver: Any = self.make()
        self.place = PLACES[0]
        self.do(self.driver.write((self.place, b"")))
        self.appender: Any = None
        self.written = b""
        self.durable = 0
        self.failed = False
        self.readers: list[Growing] = []
        self.number = 0
        self.open()

    def make(self) -> Driver:
        driver = MemoryDriver()
        driver._threads = self.threads  # type: ignore[assignment]  # as an appender over files has them
        return driver

    def teardown(self) -> None:
        for reader in self.readers:
            reader.close()
        if self.appender is not None:
            self.appender.close()
        self.work_all()

    def do(self, work: Any) -> Any:
        """What a coroutine returns; threads are run for as long as it waits."""
        results: list[Any] = []
        Deferred.fromCoroutine(work).addBoth(results.append)
        while not results:
            self.threads.work()
        (result,) = results
        if isinstance(result, Failure):
            result.raiseException()
        return result

    def work_all(self) -> None:
        while self.threads.waiting:
            self.threads.work()

    def stored(self) -> int:
        """How long the file is, as anybody can see who looks."""
        return int(self.do(self.driver.stat(self.place)).size)

    # Who writes.

    @precondition(lambda self: self.appender is not None)
    @rule(size=SIZES)
    def write(self, size: int) -> None:
        self.number = (self.number + 1) % 251
        data = bytes([self.number]) * size
        self.appender.write(data)
        if not self.failed:
            self.written += data

    @precondition(lambda self: self.appender is not None)
    @rule()
    def store(self) -> None:
        self.appender.store()

    @precondition(lambda self: self.threads.waiting)
    @rule()
    def work(self) -> None:
        self.threads.work()

    @precondition(lambda self: self.appender is not None)
    @rule()
    def store_and_see(self) -> None:
        self.appender.store()
        self.work_all()
        if not self.failed:
            assert self.stored() == len(self.written)
            assert all(reader.grown() == len(self.written) for reader in self.readers)

    @precondition(lambda self: self.appender is not None)
    @rule()
    def flush(self) -> None:
        try:
            size = self.do(self.appender.flush())
        except StorageError:
            assert self.failed
            return
        assert not self.failed
        assert size == self.stored() == len(self.written)
        self.durable = size
        assert self.appender.hash.digest() == hashlib.sha256(self.written).digest()

    @precondition(lambda self: self.appender is not None)
    @rule()
    def leave(self) -> None:
        """Who writes gives up, or dies: what was not stored is lost."""
        self.appender.close()
        self.appender = None

    @precondition(lambda self: self.appender is None)
    @rule()
    def open(self) -> None:
        """Another one goes on, from what is there, once the file has been given back."""
        try:
            self.appender = self.do(self.driver.append(self.place))
        except Busy:
            assert self.threads.waiting
            return
        size = self.appender.size
        assert self.durable <= size <= len(self.written)
        self.appender.hash = self.do(self.driver.hash(self.place, "sha256"))
        assert self.appender.hash.digest() == hashlib.sha256(self.written[:size]).digest()
        self.written, self.failed = self.written[:size], False

    @rule(number=st.integers(0, len(PLACES) - 1))
    def move(self, number: int) -> None:
        """It comes to be somewhere else, which is nothing to who has it open."""
        if PLACES[number] == self.place:
            return
        self.do(self.driver.adopt(self.place, PLACES[number], LINK))
        self.place = PLACES[number]

    # Who reads.

    @precondition(lambda self: len(self.readers) < 4)
    @rule()
    def follow(self) -> None:
        self.readers.append(self.do(self.driver.follow(self.place)))

    @precondition(lambda self: self.readers)
    @rule(data=st.data())
    def unfollow(self, data: st.DataObject) -> None:
        self.readers.pop(data.draw(st.integers(0, len(self.readers) - 1))).close()

    @precondition(lambda self: self.readers)
    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        reader = data.draw(st.sampled_from(self.readers))
        grown = reader.grown()
        offset = data.draw(st.integers(0, grown + 1))
        length = data.draw(st.sampled_from([0, 1, 1000, 1 << 20]))
        found = self.do(reader.read(offset, length))
        assert found == self.written[offset : offset + len(found)]
        # More, where a thread was run for the reading that had something to store as well.
        assert len(found) >= min(length, max(grown - offset, 0))

    @invariant()
    def all_see_the_same(self) -> None:
        size = self.stored()
        assert self.durable <= size <= len(self.written)
        assert all(reader.grown() == size for reader in self.readers)


class Disk:
    """
    Stands in for the module :mod:`os`: a disk that fills, and breaks.

    :ivar room: how many bytes it still takes; ``None`` for any number.
    :ivar flushes: whether it can be flushed.
    :ivar refused: whether it has refused anything.
    """

    def __init__(self) -> None:
        self.room: int | None = None
        self.flushes = True
        self.refused = False

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def writev(self, fd: int, chunks: Sequence[bytes | memoryview]) -> int:
        if self.room is None:
            return os.writev(fd, chunks)
        data = b"".join(chunks)
        if data and not self.room:
            self.refused = True
            raise OSError(errno.ENOSPC, "full")
        # Short, as writes are on a disk that fills.
        written = os.write(fd, data[: self.room])
        self.room -= written
        return written

    def fsync(self, fd: int) -> None:
        if not self.flushes and os.readlink(f"/proc/self/fd/{fd}").endswith("/data"):
            self.refused = True
            raise OSError(errno.EIO, "broken")
        os.fsync(fd)


class FailingFollowingMachine(FollowingMachine):
    """On disk, where writing fails at times."""

    def make(self) -> Driver:
        self.root = tempfile.mkdtemp(prefix="regd-test-")
        self.disk = Disk()
        driver = FilesystemDriver(self.root, self.threads)
        driver.start()
        # What is not appended is not what this is about.
        driver._changes = Inline()
        self.patched = patch.object(files, "os", self.disk)
        self.patched.start()
        return driver

    def teardown(self) -> None:
        super().teardown()
        self.patched.stop()
        self.driver._directories.release()
        shutil.rmtree(self.root)

    @property
    def failed(self) -> bool:
        return self.disk.refused

    @failed.setter
    def failed(self, failed: bool) -> None:
        self.disk.refused = failed

    @rule(room=st.none() | st.sampled_from([0, 1, 10_000]))
    def fill(self, room: int | None) -> None:
        self.disk.room = room

    @rule(flushes=st.booleans())
    def break_flushes(self, flushes: bool) -> None:
        self.disk.flushes = flushes

    @rule(number=st.integers(0, len(PLACES) - 1))
    def move(self, number: int) -> None:
        # That a commit may fail is another matter.
        if self.disk.flushes:
            super().move(number)


FollowingInMemoryTest = FollowingMachine.TestCase
FollowingInMemoryTest.settings = settings(max_examples=60, stateful_step_count=40)

FollowingOnDiskTest = FailingFollowingMachine.TestCase
FollowingOnDiskTest.settings = settings(max_examples=40, stateful_step_count=30)


WRITER = """
import sys
from twisted.internet import reactor
from twisted.internet.task import LoopingCall
from regd.storage.filesystem import FilesystemDriver
from regd.storage.threads import PoolThreads

async def begin():
    driver = FilesystemDriver(sys.argv[1], PoolThreads(reactor, 2))
    driver.start()
    appender = await driver.append(sys.argv[2])

    def more():
        appender.write(bytes([appender.size % 251]) * 1000)
        appender.store()

    LoopingCall(more).start(0.001)

reactor.callWhenRunning(lambda: begin().send(None))
reactor.run()
"""


class OtherProcessTest(FilesystemCase):
    async def test_a_writer_that_dies_and_another_that_goes_on(self) -> None:
        place = PLACES[0]
        await self.driver.write((place, b""))
        growing = await self.driver.follow(place)
        self.addCleanup(growing.close)

        def expected(size: int) -> bytes:
            return b"".join(bytes([start % 251]) * 1000 for start in range(0, size, 1000))[:size]

        size = 0
        for _ in range(2):
            process = subprocess.Popen([sys.executable, "-c", WRITER, str(self.root), place])
            try:
                while growing.grown() < size + 50_000:
                    await deferLater(reactor, 0.005)
                    self.assertIsNone(process.poll())
                with self.assertRaises(Busy):
                    await self.driver.append(place)
            finally:
                process.kill()
                process.wait()
            # What was stored is there, in any case up to where somebody has seen it; the next one goes on there.
            size = growing.grown()
            self.assertEqual(await growing.read(0, size), expected(size))
            appender: Appender = await self.driver.append(place)
            self.assertEqual(appender.size, size)
            appender.write(expected(size + 1500)[size:])
            size = await appender.flush()
            appender.close()
            self.assertEqual(growing.grown(), size)
            # So that the next one begins where the first would have.
            appender = await self.driver.append(place)
            appender.write(expected(-(-size // 1000) * 1000)[size:])
            size = await appender.flush()
            appender.close()
        self.assertEqual(await growing.read(0, size), expected(size))

    async def test_there_is_nothing_to_follow_once_it_is_gone(self) -> None:
        await self.driver.write((PLACES[0], b"x"))
        growing = await self.driver.follow(PLACES[0])
        await self.driver.delete(Path(PLACES[0].rpartition("/")[0]))
        with self.assertRaises(Missing):
            await self.driver.follow(PLACES[0])
        self.assertEqual(await growing.read(0, 10), b"x")
        growing.close()

    async def test_a_descriptor_that_cannot_be_looked_at(self) -> None:
        await self.driver.write((PLACES[0], b"x"))
        growing = await self.driver.follow(PLACES[0])

        def fstat(fd: int) -> None:
            raise OSError(errno.EIO, "broken")

        patched = self.patch(os, "fstat", fstat)
        self.assertRaises(StorageError, growing.grown)
        patched.restore()
        growing.close()
