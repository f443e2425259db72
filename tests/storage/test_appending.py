"""The road from the event loop to the end of a file: in order, bounded, paused and resumed, and stopped when the file fails."""

from __future__ import annotations

import hashlib
import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import Deferred, execute
from twisted.internet.interfaces import IPushProducer
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from regd.storage.appending import BATCH, HIGH_WATER, LOW_WATER, TURN, QueuedAppender
from regd.storage.driver import Full, StorageError
from regd.storage.threads import Inline, PoolThreads
from regd.web.transport import SendingServer

#: What one read of a socket brings at most, in bytes.
READ = SendingServer.bufferSize


class HandThreads:
    """Threads that a test runs by hand, one function at a time, so that everything that happens meanwhile is known."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Deferred[Any], Callable[[], Any]]] = []
        self.told: list[Callable[[], object]] = []
        #: Whether somebody else waits for a thread.
        self.others = False

    def run(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Deferred[Any]:
        done: Deferred[Any] = Deferred()
        self.waiting.append((done, lambda: function(*args, **kwargs)))
        return done

    def tell(self, function: Callable[[], object]) -> None:
        self.told.append(function)

    def crowded(self) -> bool:
        return self.others

    def work(self) -> None:
        """Run what waits, and then bring its news to the event loop."""
        done, function = self.waiting.pop(0)
        result = execute(function)
        self.listen()
        result.chainDeferred(done)

    def listen(self) -> None:
        """Call what the event loop was told to call."""
        while self.told:
            self.told.pop(0)()


class MemorySink:
    """
    A file that remembers how it was used.

    :ivar failing: raised by the next write, sync or both.
    :ivar meanwhile: called during each write, as if on the event loop.
    """

    def __init__(self) -> None:
        self.content = bytearray()
        self.batches: list[int] = []
        self.syncs = 0
        self.closed = 0
        self.failing: dict[str, StorageError] = {}
        self.meanwhile: Callable[[], None] = lambda: None

    def write(self, chunks: Sequence[bytes | memoryview]) -> None:
        if "write" in self.failing:
            # As a full disk does: some of it is there.
            self.content += b"".join(chunks)[:3]
            raise self.failing["write"]
        self.content += b"".join(chunks)
        self.batches.append(sum(map(len, chunks)))
        self.meanwhile()

    def sync(self) -> None:
        self.syncs += 1
        if "sync" in self.failing:
            raise self.failing["sync"]

    def close(self) -> None:
        self.closed += 1

    def tell(self) -> int:
        return len(self.content)


@implementer(IPushProducer)
class Producer:
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def pauseProducing(self) -> None:
        self.told.append("pause")

    def resumeProducing(self) -> None:
        self.told.append("resume")

    def stopProducing(self) -> None:
        self.told.append("stop")


class QueuedAppenderTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.threads = HandThreads()
        self.sink = MemorySink()
        self.producer = Producer()
        self.appender = self.make()
        self.appender.registerProducer(self.producer, True)

    def make(self) -> QueuedAppender:
        return QueuedAppender(self.sink, 0, hashlib.sha256(), self.threads)

    def flush(self) -> Deferred[int]:
        flushed = Deferred.fromCoroutine(self.appender.flush())
        while self.threads.waiting:
            self.threads.work()
        return flushed

    def test_pull_producers_are_refused(self) -> None:
        self.assertRaises(ValueError, self.make().registerProducer, self.producer, False)

    def test_what_waits_for_more_never_holds_the_producer_up(self) -> None:
        # A paused producer sends nothing that could complete a batch, so what is left without one must let it go on.
        self.assertLessEqual(BATCH, LOW_WATER)
        self.assertLess(LOW_WATER, HIGH_WATER)
        for size in range(1, HIGH_WATER + READ, 7001):
            self.setUp()
            late = [b"y" * size]
            self.sink.meanwhile = lambda late=late: self.appender.write(late.pop()) if late else None  # type: ignore[misc]  # bound now
            self.appender.write(b"x" * (HIGH_WATER + 1))
            while self.threads.waiting:
                self.threads.work()
            self.assertEqual(self.producer.told[-1], "resume", size)

    def test_little_waits_for_more(self) -> None:
        self.appender.write(b"x" * (BATCH - 1))
        self.assertEqual(self.threads.waiting, [])
        self.appender.write(b"y")
        self.assertEqual(len(self.threads.waiting), 1)
        self.threads.work()
        self.assertEqual((self.sink.batches, self.sink.syncs), ([BATCH], 0))

    def test_a_small_chunk_costs_one_thread(self) -> None:
        self.appender.write(b"small")
        flushed = Deferred.fromCoroutine(self.appender.flush())
        self.assertEqual(len(self.threads.waiting), 1)
        self.threads.work()
        self.assertEqual(self.successResultOf(flushed), 5)
        self.assertEqual((bytes(self.sink.content), self.sink.syncs), (b"small", 1))

    def test_what_is_too_little_to_be_stored_does_not_keep_the_producer_paused(self) -> None:
        """Nobody would ever resume it."""
        self.assertLessEqual(BATCH, LOW_WATER)
        self.assertLess(LOW_WATER, HIGH_WATER)

    def test_one_thread_at_a_time(self) -> None:
        for _ in range(10):
            self.appender.write(b"x" * BATCH)
        self.assertEqual(len(self.threads.waiting), 1)
        self.threads.work()
        self.assertEqual(self.threads.waiting, [])
        self.assertEqual(self.sink.batches, [10 * BATCH])

    def test_pause_above_the_high_mark_and_resume_below_the_low_one(self) -> None:
        while not self.producer.told:
            self.appender.write(b"x" * 10_000)
        self.assertEqual(self.producer.told, ["pause"])
        self.assertTrue(HIGH_WATER < self.appender.size <= HIGH_WATER + 10_000)
        # One read that was under way.
        self.appender.write(b"x" * 10_000)
        self.assertEqual(self.producer.told, ["pause"])
        self.threads.work()
        self.assertEqual(self.producer.told, ["pause", "resume"])
        self.appender.write(b"x" * (HIGH_WATER + 1))
        self.assertEqual(self.producer.told, ["pause", "resume", "pause"])

    def test_no_resume_while_more_than_the_low_mark_waits(self) -> None:
        late = [b"y" * (LOW_WATER + 1)]

        def meanwhile() -> None:
            if late:
                self.appender.write(late.pop())
                self.threads.listen()
                self.assertEqual(self.producer.told, ["pause"])

        self.sink.meanwhile = meanwhile
        self.appender.write(b"x" * (HIGH_WATER + 1))
        self.threads.work()
        self.assertEqual(self.producer.told, ["pause", "resume"])
        self.assertEqual(self.sink.batches, [HIGH_WATER + 1, LOW_WATER + 1])

    def test_a_resume_that_comes_when_the_queue_is_full_again_is_no_resume(self) -> None:
        self.appender.write(b"x" * (HIGH_WATER + 1))
        _, work = self.threads.waiting.pop()
        work()
        self.appender.write(b"y" * (HIGH_WATER + 1))
        self.threads.listen()
        self.assertEqual(self.producer.told, ["pause"])
        self.threads.work()
        self.assertEqual(self.producer.told, ["pause", "resume"])

    def test_what_is_in_flight_is_bounded(self) -> None:
        most = 0
        sent = 0
        while sent < 5_000_000:
            if self.producer.told[-1:] == ["pause"]:
                self.threads.work()
            self.appender.write(b"x" * READ)
            sent += READ
            most = max(most, sent - len(self.sink.content))
        self.assertLessEqual(most, HIGH_WATER + READ)
        self.assertLess(HIGH_WATER + READ, 256 * 1024)

    def test_no_producer_is_told_anything_once_it_is_unregistered(self) -> None:
        self.appender.write(b"x" * (HIGH_WATER + 1))
        self.appender.unregisterProducer()
        self.flush()
        self.assertEqual(self.producer.told, ["pause"])

    def test_stored_soon(self) -> None:
        self.appender.store()
        self.assertEqual(self.threads.waiting, [])
        self.appender.write(b"few")
        self.assertEqual(self.threads.waiting, [])
        self.appender.store()
        self.appender.store()
        self.assertEqual(len(self.threads.waiting), 1)
        self.appender.write(b"more")
        self.threads.work()
        self.assertEqual((self.sink.batches, self.sink.syncs), ([7], 0))
        # Nothing waits, so there is nothing to be done.
        self.appender.store()
        self.assertEqual(self.threads.waiting, [])
        # It holds for what was there, and not for what comes later.
        self.appender.write(b"x")
        self.assertEqual(self.threads.waiting, [])
        self.assertEqual(self.successResultOf(self.flush()), 8)

    def test_stored_soon_while_a_thread_stores(self) -> None:
        late = [b"late"]

        def meanwhile() -> None:
            if late:
                self.appender.write(late.pop())
                self.appender.store()

        self.sink.meanwhile = meanwhile
        self.appender.write(b"x" * BATCH)
        self.threads.work()
        self.assertEqual((self.sink.batches, self.threads.waiting), ([BATCH, 4], []))

    def test_stored_soon_and_then_all(self) -> None:
        self.appender.write(b"few")
        self.appender.store()
        flushed = Deferred.fromCoroutine(self.appender.flush())
        self.assertEqual(len(self.threads.waiting), 1)
        self.threads.work()
        self.assertEqual((self.successResultOf(flushed), self.sink.syncs), (3, 1))

    def test_nothing_is_stored_soon_after_a_failure_or_the_end(self) -> None:
        self.sink.failing["write"] = Full("cannot append to f: full")
        self.appender.write(b"few")
        self.appender.store()
        self.threads.work()
        self.assertEqual(self.producer.told, ["stop"])
        self.appender.write(b"more")
        self.appender.store()
        self.assertEqual(self.threads.waiting, [])
        self.failureResultOf(self.flush(), Full)
        self.appender.close()
        self.appender.store()
        self.assertEqual((self.threads.waiting, self.sink.closed), ([], 1))

    def test_closed_while_it_is_stored_soon(self) -> None:
        self.appender.write(b"few")
        self.appender.store()
        self.appender.close()
        self.assertEqual(self.sink.closed, 0)
        self.threads.work()
        self.assertEqual((self.sink.closed, self.sink.batches), (1, []))

    def test_a_failing_write_stops_the_producer_and_fails_the_flush(self) -> None:
        self.sink.failing["write"] = Full("cannot append to f: full")
        self.appender.write(b"x" * (HIGH_WATER + 1))
        self.threads.work()
        self.assertEqual(self.producer.told, ["pause", "stop"])
        self.assertIsNone(self.appender.hash)
        # What comes after is dropped: there would be a hole before it.
        del self.sink.failing["write"]
        self.appender.write(b"y" * (HIGH_WATER + 1))
        self.assertEqual(self.threads.waiting, [])
        self.failureResultOf(self.flush(), Full)
        self.assertEqual((bytes(self.sink.content), self.appender.size, self.sink.syncs), (b"xxx", 3, 0))
        self.failureResultOf(self.flush(), Full)

    def test_a_write_that_fails_only_in_the_flush(self) -> None:
        self.sink.failing["write"] = Full("cannot append to f: full")
        self.appender.write(b"small")
        self.failureResultOf(self.flush(), Full)
        self.assertEqual((self.appender.size, self.appender.hash), (3, None))

    def test_a_failing_sync(self) -> None:
        self.sink.failing["sync"] = StorageError("cannot make f durable")
        self.appender.write(b"small")
        self.failureResultOf(self.flush(), StorageError)
        self.assertEqual((self.appender.size, self.appender.hash), (5, None))
        del self.sink.failing["sync"]
        self.failureResultOf(self.flush(), StorageError)
        self.assertEqual(self.sink.syncs, 1)

    def test_flush_waits_for_what_is_being_stored(self) -> None:
        self.appender.write(b"x" * BATCH)
        flushed = Deferred.fromCoroutine(self.appender.flush())
        self.assertNoResult(flushed)
        self.assertEqual(len(self.threads.waiting), 1)
        self.threads.work()
        self.assertEqual(self.successResultOf(flushed), BATCH)
        self.assertEqual(self.sink.syncs, 1)

    def test_flush_stores_what_came_while_the_last_batch_was_stored(self) -> None:
        late = [b"late"]
        self.sink.meanwhile = lambda: self.appender.write(late.pop()) if late else None
        self.appender.write(b"x" * BATCH)
        self.assertEqual(self.successResultOf(self.flush()), BATCH + 4)
        self.assertEqual(self.sink.content[-4:], b"late")

    def test_close(self) -> None:
        self.appender.write(b"not flushed")
        self.appender.close()
        self.appender.close()
        self.assertEqual((self.sink.closed, self.sink.batches), (1, []))

    def test_a_file_is_not_given_back_under_the_thread_that_writes_to_it(self) -> None:
        # Its descriptor would be another file's by then.
        during = []

        def meanwhile() -> None:
            self.appender.close()
            during.append(self.sink.closed)

        self.sink.meanwhile = meanwhile
        self.appender.write(b"x" * BATCH)
        self.appender.write(b"x" * BATCH)
        self.threads.work()
        self.assertEqual((during, self.sink.closed), ([0], 1))
        self.appender.close()
        self.assertEqual(self.sink.closed, 1)

    @given(st.lists(st.sampled_from([0, 1, 100, 1000, BATCH - 1, BATCH, HIGH_WATER]) | st.sampled_from([-1, -2]), max_size=12))
    def test_any_mix_of_writes_and_flushes(self, steps: list[int]) -> None:
        self.setUp()
        expected = b""
        for number, step in enumerate(steps):
            if step == -2:
                self.appender.store()
            elif step < 0:
                self.assertEqual(self.successResultOf(self.flush()), len(expected))
                self.assertEqual(bytes(self.sink.content), expected)
            else:
                chunk = bytes([number]) * step
                expected += chunk
                self.appender.write(chunk)
            self.assertEqual(self.appender.size, len(expected))
        self.assertEqual(self.successResultOf(self.flush()), len(expected))
        self.assertEqual(bytes(self.sink.content), expected)
        assert self.appender.hash is not None
        self.assertEqual(self.appender.hash.hexdigest(), hashlib.sha256(expected).hexdigest())
        told = self.producer.told
        self.assertEqual(told, ["pause", "resume"] * (len(told) // 2))


class Well:
    """A source: gives what it holds, a part at a time, each cut in two."""

    def __init__(self, *parts: bytes) -> None:
        self.parts = list(parts)
        self.meanwhile: Callable[[], None] = lambda: None

    def read(self, buffer: bytearray) -> Sequence[memoryview]:
        self.meanwhile()
        if not self.parts:
            return ()
        part = self.parts.pop(0)
        buffer[: len(part)] = part
        view, middle = memoryview(buffer)[: len(part)], len(part) // 2
        return [view[:middle], view[middle:]] if middle else [view]


class LendingProducer(Producer):
    """
    :ivar well: what is lent next, or ``None``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.well: Well | None = None

    def lend(self) -> Well | None:
        if self.well is not None:
            self.told.append("lend")
        return self.well

    def take_back(self, source: Well) -> None:
        assert source is self.well
        self.well = None
        self.told.append("back")


class LendingTest(SynchronousTestCase):
    """A thread that takes the bytes from where they arrive."""

    def setUp(self) -> None:
        self.threads, self.streams = HandThreads(), HandThreads()
        # What the event loop is told, it is told in one order.
        self.streams.told = self.threads.told
        self.sink = MemorySink()
        self.producer = LendingProducer()
        self.appender = QueuedAppender(self.sink, 0, hashlib.sha256(), self.threads, self.streams)
        self.appender.registerProducer(self.producer, True)

    def flush(self) -> Deferred[int]:
        flushed = Deferred.fromCoroutine(self.appender.flush())
        while self.threads.waiting or self.streams.waiting:
            (self.streams if self.streams.waiting else self.threads).work()
        return flushed

    def test_after_what_has_gathered(self) -> None:
        self.producer.well = Well(b"first", b"y", b"z" * 100_000)
        self.appender.write(b"little")
        self.assertEqual(self.producer.told, [])
        self.appender.write(b"x" * HIGH_WATER)
        # The socket is not read, so there is no need to pause.
        self.assertEqual((self.producer.told, self.threads.waiting), (["lend"], []))
        self.streams.work()
        self.assertEqual(self.producer.told, ["lend", "back"])
        expected = b"little" + b"x" * HIGH_WATER + b"firsty" + b"z" * 100_000
        self.assertEqual((bytes(self.sink.content), self.appender.size), (expected, len(expected)))
        self.appender.write(b"after")
        self.assertEqual(self.successResultOf(self.flush()), len(expected) + 5)
        assert self.appender.hash is not None
        self.assertEqual(self.appender.hash.digest(), hashlib.sha256(expected + b"after").digest())
        self.assertEqual(self.sink.syncs, 1)

    def test_what_is_not_lent_comes_by_the_loop(self) -> None:
        self.appender.write(b"x" * (HIGH_WATER + 1))
        self.assertEqual((self.producer.told, self.streams.waiting), (["pause"], []))
        self.threads.work()
        self.producer.well = Well(b"y")
        self.appender.write(b"x" * BATCH)
        self.assertEqual(self.producer.told, ["pause", "resume", "lend"])

    def test_nobody_is_asked_without_threads_for_it(self) -> None:
        self.producer.well = Well(b"y")
        appender = QueuedAppender(self.sink, 0, None, self.threads)
        appender.registerProducer(self.producer, True)
        appender.write(b"x" * BATCH)
        self.assertEqual((self.producer.told, len(self.threads.waiting)), ([], 1))

    def test_others_have_their_turn(self) -> None:
        parts = [bytes([number]) * 500_000 for number in range(40)]
        self.producer.well = Well(*parts)
        self.streams.others = True
        self.appender.write(b"x" * BATCH)
        self.streams.work()
        self.assertEqual((self.producer.told, len(self.streams.waiting)), (["lend"], 1))
        self.assertTrue(TURN <= len(self.sink.content) - BATCH < TURN + 500_000)
        flushed = Deferred.fromCoroutine(self.appender.flush())
        self.streams.others = False
        # Whoever asks for all to be stored wants what was lent back, even if more would come.
        self.streams.work()
        self.assertEqual(self.producer.told, ["lend", "back"])
        self.assertEqual(self.successResultOf(flushed), len(self.sink.content))
        self.assertEqual(bytes(self.sink.content[BATCH:]), b"".join(parts)[: len(self.sink.content) - BATCH])

    def test_a_flush_while_it_is_read_ends_the_reading(self) -> None:
        """The connection is lost: what came is stored."""
        self.producer.well = Well(b"a", b"b", b"c")
        flushed: list[Deferred[int]] = []

        def meanwhile() -> None:
            if len(self.sink.content) > BATCH and not flushed:
                self.appender.unregisterProducer()
                flushed.append(Deferred.fromCoroutine(self.appender.flush()))

        self.producer.well.meanwhile = meanwhile
        self.appender.write(b"x" * BATCH)
        self.streams.work()
        self.assertEqual(self.successResultOf(flushed[0]), BATCH + 2)
        self.assertEqual((self.producer.told, self.sink.syncs), (["lend", "back"], 1))

    def test_a_failing_write(self) -> None:
        """Given back before it is stopped: then it reads the rest by itself."""
        self.producer.well = Well(b"abcdef", b"ghi")
        self.sink.meanwhile = lambda: self.sink.failing.update(write=Full("full"))
        self.appender.write(b"x" * BATCH)
        self.streams.work()
        self.assertEqual(self.producer.told, ["lend", "back", "stop"])
        self.assertIsNone(self.appender.hash)
        self.failureResultOf(self.flush(), Full)
        self.assertEqual((bytes(self.sink.content[BATCH:]), self.appender.size), (b"abc", BATCH + 3))

    def test_given_back_whatever_happens(self) -> None:
        """A fault of the program's own must not leave the client with a connection that nobody reads."""
        self.producer.well = Well(b"a")
        nothing: dict[str, None] = {}
        self.sink.meanwhile = lambda: nothing["a fault"]
        self.appender.write(b"x" * BATCH)
        worker = self.appender._worker
        assert worker is not None
        self.streams.work()
        self.failureResultOf(worker, KeyError)
        self.assertEqual(self.producer.told, ["lend", "back"])

    def test_asked_to_store_soon_while_it_is_read(self) -> None:
        """What is taken from the source is stored at once, so there is nothing to do."""
        self.producer.well = Well(b"a", b"b")
        self.producer.well.meanwhile = self.appender.store
        self.appender.write(b"x" * BATCH)
        self.streams.work()
        self.assertEqual((self.producer.told, self.threads.waiting), (["lend", "back"], []))
        self.assertEqual(bytes(self.sink.content[BATCH:]), b"ab")

    def test_lent_again_after_something_was_stored_soon(self) -> None:
        self.producer.well = Well(b"a")
        self.appender.write(b"x")
        self.appender.store()
        self.threads.work()
        self.assertEqual((self.producer.told, bytes(self.sink.content)), ([], b"x"))
        self.appender.write(b"x" * BATCH)
        self.assertEqual(self.producer.told, ["lend"])
        self.streams.work()
        self.assertEqual(self.successResultOf(self.flush()), BATCH + 2)

    def test_closed_meanwhile(self) -> None:
        self.producer.well = Well(b"a", b"b")
        self.producer.well.meanwhile = self.appender.close
        self.appender.write(b"x" * BATCH)
        self.streams.work()
        self.assertEqual((self.sink.closed, self.producer.told), (1, ["lend", "back"]))


class InlineTest(SynchronousTestCase):
    def test_everything_at_once(self) -> None:
        sink, producer = MemorySink(), Producer()
        appender = QueuedAppender(sink, 0, None, Inline())
        appender.registerProducer(producer, True)
        for _ in range(10):
            appender.write(b"x" * READ)
        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(appender.flush())), 10 * READ)
        self.assertEqual(len(sink.content), 10 * READ)
        self.assertEqual(producer.told, ["pause", "resume"] * (len(producer.told) // 2))


class SlowSink(MemorySink):
    """A disk that takes its time, and sees to it that nobody else writes at once."""

    def __init__(self) -> None:
        super().__init__()
        self._busy = threading.Lock()
        self.most = 0

    def write(self, chunks: Sequence[bytes | memoryview]) -> None:
        assert self._busy.acquire(blocking=False), "two threads at once"
        self.most = max(self.most, sum(map(len, chunks)))
        time.sleep(random.choice((0, 0, 0.0005)))
        super().write(chunks)
        self._busy.release()


class RealThreadsTest(TestCase):
    async def test_many_uploads_side_by_side_keep_their_order(self) -> None:
        # Any: mypy knows the reactor as a module.
        loop: Any = reactor
        threads = PoolThreads(loop, 4)
        self.addCleanup(threads.stop)

        async def upload(seed: int) -> None:
            source = random.Random(seed)
            sink, producer = SlowSink(), Producer()
            appender = QueuedAppender(sink, 0, hashlib.sha256(), threads)
            appender.registerProducer(producer, True)
            expected = hashlib.sha256()
            for _ in range(150):
                chunk = source.randbytes(source.choice((1, 1000, 20_000, READ)))
                expected.update(chunk)
                appender.write(chunk)
                while producer.told[-1:] == ["pause"]:
                    await deferLater(loop, 0)
                if source.random() < 0.02:
                    self.assertEqual(await appender.flush(), appender.size)
            size = await appender.flush()
            appender.close()
            self.assertEqual(len(sink.content), size)
            self.assertEqual(hashlib.sha256(sink.content).digest(), expected.digest())
            assert appender.hash is not None
            self.assertEqual(appender.hash.digest(), expected.digest())
            self.assertLessEqual(sink.most, HIGH_WATER + READ)

        for done in [Deferred.fromCoroutine(upload(seed)) for seed in range(8)]:
            await done
