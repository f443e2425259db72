"""Work that is done once, however many want it, and that nobody has to wait for until it ends."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger

from regd.proxy.coalesce import Coalesced

__all__ = ["Late", "Sharing"]

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class Late(Exception):
    """It takes longer than somebody wanted to wait. It goes on all the same."""


class Sharing(Generic[K, T]):
    """
    Pieces of work, by what they are about.

    :param clock: ``Any``: a reactor is typed as the union of what reactors may be.
    :param expected: what they may fail with; all else is a fault, and logged also where nobody waits any more.
    """

    _log = Logger()

    def __init__(self, clock: Any, expected: tuple[type[Exception], ...] = ()) -> None:
        self._clock = clock
        self._expected = expected
        self._coalesced: Coalesced[K, T] = Coalesced()
        #: When those that are under way began.
        self._began: dict[K, float] = {}
        self._settling: list[Deferred[None]] = []

    def __len__(self) -> int:
        """How many are under way."""
        return len(self._began)

    async def outcome(self, key: K, work: Callable[[], Coroutine[Any, Any, T]], patience: float | None = None) -> T:
        """
        What comes of the work that is under way about ``key``; else it is begun.

        :param patience: how long it may take, in seconds from when it began; ``None`` for as long as it takes.
        :raises Late: when it takes longer.
        :raises Exception: what it has failed with.
        """
        now = self._clock.seconds()
        left = None if patience is None else self._began.get(key, now) + patience - now
        if left is not None and left <= 0:
            raise Late
        mine = self._coalesced.join(key, lambda: self._run(key, work))
        if left is None or mine.called:
            return await mine
        timer = self._clock.callLater(left, mine.cancel)
        try:
            return await mine
        except CancelledError:
            if timer.active():
                raise
            raise Late from None
        finally:
            if timer.active():
                timer.cancel()

    async def settle(self) -> None:
        """Wait until nothing is under way."""
        while self._began:
            waiting: Deferred[None] = Deferred()
            self._settling.append(waiting)
            await waiting

    async def _run(self, key: K, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        self._began[key] = self._clock.seconds()
        try:
            return await work()
        except Exception as error:
            if not isinstance(error, self._expected):
                self._log.failure("what several may wait for has failed")
            raise
        finally:
            del self._began[key]
            if not self._began:
                # When the storage has nothing more to do for it, and those who wait have heard.
                self._clock.callLater(0, self._settled)

    def _settled(self) -> None:
        settling, self._settling = self._settling, []
        for one in settling:
            one.callback(None)
