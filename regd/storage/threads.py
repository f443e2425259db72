"""Where blocking work runs: threads of a pool, or right here for storage that never blocks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, Protocol, TypeVar

from twisted.internet.defer import Deferred, execute
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

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

    :param size: the most threads there will be; they are made as they are needed.
    """

    def __init__(self, reactor: IReactorFromThreads, size: int) -> None:
        self._reactor = reactor
        self._pool = ThreadPool(minthreads=0, maxthreads=size, name="regd-storage")

    def start(self) -> None:
        """Let functions run."""
        self._pool.start()

    def stop(self) -> None:
        """Finish what runs and end the threads. Blocks until they have."""
        self._pool.stop()

    def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """See :class:`Threads`."""
        # Any: Twisted declares the reactor of deferToThreadPool as the union of interfaces that its own reactors have.
        reactor: Any = self._reactor
        return deferToThreadPool(reactor, self._pool, function, *args, **kwargs)

    def tell(self, function: Callable[[], object]) -> None:
        """See :class:`Threads`."""
        self._reactor.callFromThread(function)
