"""
Bytes from the event loop to the end of a file, in batches, stored and hashed off the loop.

The network hands in chunks as they arrive. When :data:`BATCH` bytes have gathered, or no more will come, or somebody waits for them to be
stored, a thread stores them, and whatever has gathered meanwhile after them. When more than :data:`HIGH_WATER` bytes wait, the producer is
paused, which closes the client's TCP window; so an upload costs this much memory whatever its size, and no thread while its client is
silent.

Where the producer is a :class:`~regd.storage.driver.Lender`, as a socket's is, the thread then takes what follows from there itself, into a
buffer of its own, until the client pauses: no byte passes the event loop, nothing is handed over, and uploads of one process run side by
side. A slow client stays on the first road.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IProducer, IPushProducer
from zope.interface import implementer

from regd.storage.driver import HashState, Lender, Source, StorageError
from regd.storage.threads import Streams, Threads

__all__ = ["BATCH", "BUFFER", "HIGH_WATER", "LOW_WATER", "TURN", "QueuedAppender", "Sink"]

#: Fewer bytes than this are not worth a thread yet. A small blob so costs one, which stores it, hashes it and makes it durable.
BATCH: Final = 48 * 1024

#: Pause the producer above so many bytes in flight. With one more read of the socket, of up to 192 KiB (:mod:`regd.web.transport`), this
#: stays below the 256 KiB that promise P1 allows.
HIGH_WATER: Final = 56 * 1024

#: Resume it at so many. No fewer than a batch: what is too little to be stored yet must not keep the producer paused.
LOW_WATER: Final = BATCH


#: What a thread reads at once from where bytes arrive, in bytes. Each thread that does so has one buffer, and there are few of them. Half
#: of it costs a tenth more, a quarter of it a third more; twice as much gains nothing.
BUFFER: Final = 512 * 1024

#: After so many bytes a thread lets another upload have its turn, if one waits.
TURN: Final = 8 * 1024 * 1024


class Sink(Protocol):
    """The blocking end: a file held for appending. Each method raises :class:`StorageError` when it fails."""

    def write(self, chunks: Sequence[bytes | memoryview]) -> None:
        """Store all of ``chunks``, in order."""

    def sync(self) -> None:
        """Make what was stored durable."""

    def close(self) -> None:
        """Give the file back."""

    def tell(self) -> int:
        """The size of the file now, in bytes."""


class _Buffers(threading.local):
    """A buffer for each thread that asks for one."""

    def __init__(self) -> None:
        self.buffer = bytearray(BUFFER)


_buffers = _Buffers()


@implementer(IConsumer)
class QueuedAppender:
    """
    An :class:`~regd.storage.driver.Appender` over a :class:`Sink`.

    The event loop owns everything but ``_queue``, ``_waiting``, ``_working``, ``_soon``, ``_last``, ``_failure`` and ``_closed``, which it
    shares with the one thread that works at a time, under ``_lock``. While that thread has a source, ``size`` is the thread's: the event
    loop writes nothing then.

    :param threads: where what has gathered is stored.
    :param streams: where sources are read, or ``None`` to leave that to the event loop.
    :param flushed: told how long each flush took, in seconds.
    """

    def __init__(
        self,
        sink: Sink,
        size: int,
        state: HashState | None,
        threads: Threads,
        streams: Streams | None = None,
        flushed: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        self.size = size
        self.hash = state
        self._sink = sink
        self._threads = threads
        self._streams = streams
        self._flushed = flushed
        self._lock = threading.Lock()
        self._queue: list[bytes] = []
        self._waiting = 0
        self._working = False
        self._soon = False
        self._last = False
        self._failure: StorageError | None = None
        self._producer: IPushProducer | None = None
        self._lender: Lender | None = None
        self._paused = False
        self._worker: Deferred[None] | None = None
        self._closed = False

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:  # noqa: N802 - IConsumer's name
        """
        :raises ValueError: for a pull producer: what comes from a socket comes when it comes.
        """
        if not streaming:
            raise ValueError("only push producers write to the end of a file")
        self._producer = IPushProducer(producer)
        if self._streams is not None and isinstance(producer, Lender):
            self._lender = producer

    def unregisterProducer(self) -> None:  # noqa: N802 - IConsumer's name
        """See :class:`~regd.storage.driver.Appender`."""
        self._producer = self._lender = None
        self._paused = False

    def write(self, data: bytes) -> None:
        """See :class:`~regd.storage.driver.Appender`."""
        with self._lock:
            if self._failure is not None:
                return
            self._queue.append(data)
            self._waiting += len(data)
            full = self._waiting > HIGH_WATER
            start = not self._working and self._waiting >= BATCH
            self._working = self._working or start
        self.size += len(data)
        if start and self._stream():
            return
        if full and not self._paused and self._producer is not None:
            self._paused = True
            self._producer.pauseProducing()
        if start:
            self._worker = self._threads.run(self._work)

    def store(self) -> None:
        """See :class:`~regd.storage.driver.Appender`."""
        with self._lock:
            if not self._queue or self._closed:
                return
            self._soon = True
            start, self._working = not self._working, True
        if start:
            self._worker = self._threads.run(self._work)

    async def flush(self) -> int:
        """See :class:`~regd.storage.driver.Appender`."""
        began = time.perf_counter()
        with self._lock:
            self._last = True
            start, self._working = not self._working, True
        if start:
            self._worker = self._threads.run(self._work)
        waited: Deferred[None] | None = None
        while self._worker is not None and self._worker is not waited:
            # A thread that lets another upload have its turn leaves its work to the next.
            waited = self._worker
            await waited
        self._flushed(time.perf_counter() - began)
        if self._failure is not None:
            self.size = self._sink.tell()
            raise self._failure
        return self.size

    def close(self) -> None:
        """See :class:`~regd.storage.driver.Appender`."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            # Only without a flush, or after one that failed, is there anything here.
            self._queue.clear()
            if self._working:
                # The thread gives the file back when it is done: until then its descriptor must not become another file's.
                return
        self._sink.close()

    def _stream(self) -> bool:
        """Whether a thread takes over from here."""
        lender = self._lender
        source = None if lender is None else lender.lend()
        if lender is None or source is None:
            return False
        self._go_on(lender, source)
        return True

    def _go_on(self, lender: Lender, source: Source) -> None:
        assert self._streams is not None, "without it there is no lender"
        self._worker = self._streams.run(self._read, lender, source)

    def _give_back(self, lender: Lender, source: Source) -> None:
        lender.take_back(source)

    # Off the loop, in one thread at a time.

    def _read(self, lender: Lender, source: Source) -> None:
        """Store what has gathered, and then what comes, for as long as it comes."""
        more, failure = False, None
        try:
            more = self._stored_and_read(source)
        except StorageError as error:
            failure = error
            self._fail(error)
        finally:
            # Before a producer is stopped, for then it reads the rest of what comes by itself.
            self._threads.tell(partial(self._go_on if more else self._give_back, lender, source))
        if failure is not None:
            self._threads.tell(self._stop_producer)
        elif not more:
            self._work()

    def _stored_and_read(self, source: Source) -> bool:
        """Whether more comes, but somebody else is to have a turn first."""
        while batch := self._gathered():
            self._store(batch)
        buffer, read = _buffers.buffer, 0
        assert self._streams is not None, "without it there is no source"
        while not (self._last or self._closed):
            content = source.read(buffer)
            if not content:
                break
            self._sink.write(content)
            if self.hash is not None:
                for part in content:
                    self.hash.update(part)
            size = sum(map(len, content))
            self.size += size
            read += size
            if read >= TURN and self._streams.crowded():
                return True
        return False

    def _gathered(self) -> list[bytes]:
        with self._lock:
            batch, self._queue = self._queue, []
        return batch

    def _work(self) -> None:
        """Store batches until none is left, and after the last one make everything durable."""
        try:
            while batch := self._next_batch():
                self._store(batch)
        except StorageError as error:
            self._fail(error)
            self._threads.tell(self._stop_producer)

    def _fail(self, error: StorageError) -> None:
        with self._lock:
            # How much of the batch is in the file is not known here, so the hash no longer speaks for it.
            self._failure, self.hash = error, None
            self._queue.clear()
            self._waiting = 0
            self._rest()

    def _rest(self) -> None:
        """With the lock: this thread's work is done."""
        self._working = self._soon = self._last = False
        if self._closed:
            self._sink.close()

    def _next_batch(self) -> list[bytes]:
        """What has gathered; nothing when this thread's work is done."""
        with self._lock:
            if self._failure is None and self._queue and (self._waiting >= BATCH or self._soon or self._last):
                batch, self._queue = self._queue, []
                self._soon = False
                return batch
            if not self._last or self._closed:
                self._rest()
                return []
        if self._failure is None:
            self._sink.sync()
        with self._lock:
            self._rest()
        return []

    def _store(self, batch: list[bytes]) -> None:
        self._sink.write(batch)
        if self.hash is not None:
            for chunk in batch:
                self.hash.update(chunk)
        size = sum(map(len, batch))
        with self._lock:
            before, self._waiting = self._waiting, self._waiting - size
            drained = self._waiting <= LOW_WATER < before
        if drained:
            self._threads.tell(self._resume_producer)

    def _resume_producer(self) -> None:
        with self._lock:
            drained = self._waiting <= LOW_WATER
        if drained and self._paused and self._producer is not None:
            self._paused = False
            self._producer.resumeProducing()

    def _stop_producer(self) -> None:
        if self._producer is not None:
            self._producer.stopProducing()
