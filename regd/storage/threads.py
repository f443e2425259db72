"""Where blocking work runs: threads of a pool, or right here for storage that never blocks."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
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

    It is the standard library's. Handing work to Twisted's costs the event loop three times as much, which was a seventh of all that a push
    of a small image costs.

    :param size: the most threads there will be; they are made as they are needed.
    """

    def __init__(self, reactor: IReactorFromThreads, size: int) -> None:
        self._reactor = reactor
        self._pool = ThreadPoolExecutor(size, thread_name_prefix="regd-storage")

    def stop(self) -> None:
        """Finish what runs and end the threads. Blocks until they have."""
        self._pool.shutdown()

    def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """See :class:`Threads`."""
        done: Deferred[T] = Deferred()
        self._pool.submit(self._call, done, function, args, kwargs)
        return done

    def tell(self, function: Callable[[], object]) -> None:
        """See :class:`Threads`."""
        self._reactor.callFromThread(function)

    # Any: the arguments are checked where they are handed to run().
    def _call(self, done: Deferred[T], function: Callable[..., T], args: Any, kwargs: Any) -> None:
        try:
            result = function(*args, **kwargs)
        except BaseException:  # noqa: BLE001 - whatever it is, it belongs to whoever waits for the Deferred
            self._reactor.callFromThread(done.errback, Failure())
        else:
            self._reactor.callFromThread(done.callback, result)
