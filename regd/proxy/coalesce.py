"""Work that several want at once and that is done once."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

__all__ = ["Coalesced"]

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class Coalesced(Generic[K, T]):
    """
    Work under way, by key. Whoever joins gets its result, or its failure. One who is cancelled leaves, and the work goes on, for the others
    and for the next.
    """

    def __init__(self) -> None:
        self._waiting: dict[K, list[Deferred[T]]] = {}
        self._running: dict[K, Deferred[Any]] = {}

    def __len__(self) -> int:
        """How many pieces of work are under way."""
        return len(self._waiting)

    def __contains__(self, key: K) -> bool:
        """Whether this is under way."""
        return key in self._waiting

    def join(self, key: K, begin: Callable[[], Coroutine[Any, Any, T]]) -> Deferred[T]:
        """
        :param begin: called where nobody has begun yet.
        :returns: the result; the caller's own Deferred.
        """
        mine: Deferred[T] = Deferred(lambda cancelled: self._leave(key, cancelled))
        waiting = self._waiting.get(key)
        if waiting is not None:
            waiting.append(mine)
            return mine
        waiting = self._waiting[key] = [mine]

        def tell(result: T | Failure) -> None:
            del self._waiting[key]
            self._running.pop(key, None)
            for one in waiting:
                if isinstance(result, Failure):
                    one.errback(result)
                else:
                    one.callback(result)
            waiting.clear()

        running = Deferred.fromCoroutine(begin())
        running.addBoth(tell)
        if not running.called:
            self._running[key] = running
        return mine

    def cancel(self) -> None:
        """Cancel all that is under way: those who wait get what comes of that."""
        for running in list(self._running.values()):
            running.cancel()

    def _leave(self, key: K, cancelled: Deferred[T]) -> None:
        waiting = self._waiting.get(key, [])
        if cancelled in waiting:
            waiting.remove(cancelled)
