"""Where blocking work runs: threads of a pool, or right here for storage that never blocks."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Final, ParamSpec, Protocol, TypeVar

from twisted.internet.defer import Deferred, execute
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

__all__ = ["EAGER", "PATIENCE", "Call", "Inline", "Pool", "PoolThreads", "Streams", "Threads"]

#: So many threads are woken as soon as there is work for them.
EAGER: Final = 4

#: How long work waits, in seconds, before one more than these is woken for it.
PATIENCE: Final = 0.001

P = ParamSpec("P")
T = TypeVar("T")


class Threads(Protocol):
    """Runs blocking functions, and brings news back to the event loop."""

    def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """Call ``function`` off the event loop; its result or exception comes back on it."""

    def tell(self, function: Callable[[], object]) -> None:
        """From off the event loop: call ``function`` on it, soon."""


class Streams(Threads, Protocol):
    """Threads that several long works share by turns."""

    def crowded(self) -> bool:
        """From any thread: whether work waits for one."""


class Call(Protocol):
    """Something that will happen."""

    def cancel(self) -> object:
        """It will not."""


class Pool(Streams, Protocol):
    """Threads that belong to one storage."""

    def stop(self) -> None:
        """Finish what runs and what waits, and end the threads. Blocks until they have. Safe to call at any time."""

    def later(self, seconds: float, function: Callable[[], object]) -> Call:
        """On the event loop: call ``function`` on it in so many seconds, unless that is cancelled."""


class Inline:
    """For storage in memory, and for tests: everything happens at once."""

    def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """See :class:`Threads`."""
        return execute(function, *args, **kwargs)

    def tell(self, function: Callable[[], object]) -> None:
        """See :class:`Threads`."""
        function()


class PoolThreads:
    """
    A pool of its own, so that storage neither waits for nor holds up anything else that the process does in threads.

    Few threads run at once: up to :data:`EAGER` as soon as there is work for them, and another whenever a piece of work has waited for
    :data:`PATIENCE`. Work on a disk waits for flushes, and then several threads wait better than one. Between them it is a row of short
    system calls, each of which gives up the interpreter's lock and has to win it back; there many threads are slower than few.

    It is written here because no pool of a library starts its threads by how long work waits; and because with the standard library's a
    twentieth of what the event loop does for a push of a small image was the handing over, with Twisted's three times that.

    :param reactor: the event loop.
    :param size: the most threads there will be; they are made as they are needed.
    :param patience: how long work waits before another thread is woken for it, in seconds.
    :param niceness: how much less of the processors its threads get than the event loop where there is not enough for all, as in nice(1).
    """

    def __init__(self, reactor: Any, size: int, patience: float = PATIENCE, niceness: int = 0) -> None:
        self._reactor = reactor
        self._niceness = niceness
        self._size = size
        self._patience = patience
        self._threads: list[threading.Thread] = []
        #: What idle threads wait for: to be woken, or to end.
        self._calls: SimpleQueue[bool] = SimpleQueue()
        # Shared by the event loop and the threads, under the lock.
        self._lock = threading.Lock()
        self._waiting: deque[_Job] = deque()
        self._awake = 0
        # The event loop's own.
        self._look_again: IDelayedCall | None = None
        self._stopped = False

    def stop(self) -> None:
        """See :class:`Pool`."""
        self._stopped = True
        self._calm()
        for _ in self._threads:
            self._calls.put(False)
        while self._threads:
            self._threads.pop().join()

    def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """
        See :class:`Threads`.

        :raises RuntimeError: after :meth:`stop`.
        """
        if self._stopped:
            raise RuntimeError("the threads of the storage have been stopped")
        done: Deferred[T] = Deferred()
        with self._lock:
            self._waiting.append((time.monotonic(), done, function, args, kwargs))
            wanted = self._awake == 0 or (not self._patience and self._awake < self._size)
        if wanted:
            self._wake()
        elif self._patience and self._look_again is None:
            self._look_again = self._reactor.callLater(self._patience, self._look)
        return done

    def crowded(self) -> bool:
        """See :class:`Streams`."""
        return bool(self._waiting)

    def tell(self, function: Callable[[], object]) -> None:
        """See :class:`Threads`."""
        self._reactor.callFromThread(function)

    def later(self, seconds: float, function: Callable[[], object]) -> Call:
        """See :class:`Pool`."""
        call: Call = self._reactor.callLater(seconds, function)
        return call

    def _wake(self) -> None:
        with self._lock:
            self._awake += 1
            awake = self._awake
        if awake <= len(self._threads):
            self._calls.put(True)
            return
        # A daemon: where nobody stops the pool, as when the process fails to start, it does not hold up the end.
        thread = threading.Thread(target=self._live, name=f"regd-storage-{len(self._threads)}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _look(self) -> None:
        """Wake another thread when work has waited too long."""
        self._look_again = None
        with self._lock:
            if not self._waiting:
                return
            overdue = time.monotonic() - self._waiting[0][0] >= self._patience
            awake = self._awake
        if overdue and awake < self._size:
            self._wake()
        self._look_again = self._reactor.callLater(self._patience, self._look)

    def _calm(self) -> None:
        if self._look_again is not None:
            self._look_again.cancel()
            self._look_again = None

    def _live(self) -> None:
        """In each thread."""
        if self._niceness:
            # Linux keeps it for each thread (setpriority(2), "C library/kernel differences").
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), os.getpriority(os.PRIO_PROCESS, 0) + self._niceness)
        called = True
        while called:
            while (job := self._next()) is not None:
                _, done, function, args, kwargs = job
                try:
                    outcome: object = function(*args, **kwargs)
                except BaseException:  # noqa: BLE001 - whatever it is, it belongs to whoever waits for the Deferred
                    outcome = Failure()
                self._reactor.callFromThread(self._come_back, done, outcome)
                # Waiting for the next job, a thread holds on to nothing of this one.
                del job, done, function, args, kwargs, outcome
            called = self._calls.get()

    def _next(self) -> _Job | None:
        """What has waited longest; nothing, and this thread goes to sleep, when nothing waits."""
        with self._lock:
            if self._waiting:
                return self._waiting.popleft()
            self._awake -= 1
            return None

    def _come_back(self, done: Deferred[Any], outcome: object) -> None:
        if not self._waiting:
            self._calm()
        # A failure given to callback() is an errback.
        done.callback(outcome)


#: When it was handed over, what to fire with the outcome, and what to call. Any: the arguments are checked where they are handed to run().
_Job = tuple[float, Deferred[Any], Callable[..., Any], Any, Any]
