"""Where blocking work runs: threads of a pool, or right here for storage that never blocks."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, ParamSpec, Protocol, TypeVar

from twisted.internet.defer import Deferred, execute
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure

__all__ = ["Inline", "PoolThreads", "Threads"]

P = ParamSpec("P")
T = TypeVar("T")


class Threads(Protocol):
    """Runs blocking functions, and brings news back to the event loop."""

    def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """Call ``function`` off the event loop; its result or exception comes back on it."""

    def tell(self, function: Callable[[], object]) -> None:
        """From off the event loop: call ``function`` on it, soon."""


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

    It is as little as it can be: a push of a small image hands over ten pieces of work, and with the standard library's pool a twentieth of
    what the event loop does for it was the handing over, with Twisted's three times that.

    :param size: the most threads there will be; they are made as they are needed.
    """

    def __init__(self, reactor: IReactorFromThreads, size: int) -> None:
        self._reactor = reactor
        self._size = size
        self._threads: list[threading.Thread] = []
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        #: Known to the event loop only: how much has been handed over and has not come back.
        self._under_way = 0
        self._stopped = False

    def stop(self) -> None:
        """Finish what runs and end the threads. Blocks until they have. Safe to call at any time."""
        self._stopped = True
        for _ in self._threads:
            self._jobs.put(None)
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
        self._under_way += 1
        if self._under_way > len(self._threads) < self._size:
            # A daemon: where nobody stops the pool, as when the process fails to start, it does not hold up the end.
            thread = threading.Thread(target=self._work, name=f"regd-storage-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()
        self._jobs.put((done, function, args, kwargs))
        return done

    def tell(self, function: Callable[[], object]) -> None:
        """See :class:`Threads`."""
        self._reactor.callFromThread(function)

    def _work(self) -> None:
        """In each thread."""
        while (job := self._jobs.get()) is not None:
            done, function, args, kwargs = job
            try:
                outcome: object = function(*args, **kwargs)
            except BaseException:  # noqa: BLE001 - whatever it is, it belongs to whoever waits for the Deferred
                outcome = Failure()
            self._reactor.callFromThread(self._come_back, done, outcome)
            # Waiting for the next job, a thread holds on to nothing of this one.
            del job, done, function, args, kwargs, outcome

    def _come_back(self, done: Deferred[Any], outcome: object) -> None:
        self._under_way -= 1
        # A failure given to callback() is an errback.
        done.callback(outcome)


#: What to fire with the outcome, and what to call. Any: the arguments are checked where they are handed to run().
_Job = tuple[Deferred[Any], Callable[..., Any], Any, Any]
