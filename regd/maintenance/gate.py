"""
The gate between changes and a collection: changes to what is reachable pass it together, a collection has it alone.

It is two locks of the storage, so all processes on one directory pass the same gate, and what a process held is free when it dies. Who
makes a change takes the *queue* shared, then the *gate* shared, and lets go of the queue. Who closes takes the queue alone, so that no
further change comes in, then the gate alone, when the changes under way have ended, and lets go of the queue. So neither side can starve
the other:

* Changes that always overlap do not keep the gate open: none begins while somebody who closes has the queue.
* Closing again and again does not keep changes out: those that wait at the gate hold the queue, so it cannot be taken alone before each of
  them has passed.

On a file system an open gate costs a change 12 µs of processor time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Final

from regd.errors import Unavailable
from regd.pace import Sleep
from regd.spans import Part
from regd.storage import layout
from regd.storage.driver import Busy, Driver, Held
from regd.storage.layout import Path

__all__ = ["CLOSING", "OPEN_AGAIN", "PATIENCE", "Gate"]

#: How long a change waits at a closed gate, in seconds, where nobody says otherwise.
PATIENCE: Final = 5.0

#: For how long closing waits for the changes under way, in seconds, or for half of what a change would wait, where that is less: nobody
#: else gets in meanwhile, and nobody is to be refused because another one is slow.
CLOSING: Final = 2.0
_CLOSING_AT_LEAST: Final = 0.1

#: How long the gate is left open before closing is tried again, when a change took longer than that; in seconds.
OPEN_AGAIN: Final = 10.0

#: How long one waits before one looks again, in seconds: at first, and at most. In between it is an eighth of what one has waited, so that
#: a short wait is not made much longer, and a crowd that waits long costs little.
_LOOK: Final = 0.001
_LOOK_AT_MOST: Final = 0.05

#: What a client that has waited in vain is told, in seconds.
_RETRY_AFTER: Final = {"Retry-After": "5"}


class Gate:
    """
    :param driver: keeps the locks.
    :param sleep: waits.
    :param patience: how long a change waits at a closed gate, in seconds.
    :param now: seconds, of the clock that ``sleep`` goes by.
    :param refused: how many changes have waited in vain at a gate that this one takes the place of.
    :ivar closings: how often the gate has been closed from here.
    :ivar closed: for how long it was, in seconds, all together: as long as no change could begin.
    :ivar longest: the longest of them.
    :ivar refused: how many changes have waited in vain here.
    """

    def __init__(
        self,
        driver: Driver,
        sleep: Sleep,
        patience: float = PATIENCE,
        now: Callable[[], float] = time.monotonic,
        refused: int = 0,
    ) -> None:
        self.patience = patience
        self.closings = 0
        self.closed = 0.0
        self.longest = 0.0
        self.refused = refused
        self._driver = driver
        self._sleep = sleep
        self._now = now
        self._closing = min(CLOSING, max(_CLOSING_AT_LEAST, patience / 2))

    def change(self) -> _Change:
        """
        For an ``async with`` block that changes what is reachable. It should be short: what closes the gate waits for it.

        :raises Unavailable: when the gate stays closed for :attr:`patience` (on entering).
        """
        return _Change(self)

    def alone(self, sleep: Sleep | None = None) -> _Alone:
        """
        For an ``async with`` block that no change runs beside. It should be shorter still: all changes wait for it.

        Entering waits until the changes under way have ended, as long as that takes, with :meth:`change` kept out for no more than
        :data:`CLOSING` at a time. To give it up, let ``sleep`` raise, or cancel it.

        :param sleep: waits in place of the gate's own.
        """
        return _Alone(self, sleep or self._sleep)

    async def enter(self) -> Held:
        """
        Pass the gate for a change; see :meth:`change`, which takes care of leaving.

        :raises Unavailable: when the gate stays closed.
        """
        began = self._now()
        until = began + self.patience
        try:
            queue = await self._take(layout.gate_queue(), True, until, self._sleep)
            try:
                return await self._take(layout.gate(), True, until, self._sleep)
            finally:
                queue.close()
        except Busy:
            self.refused += 1
            raise Unavailable(
                "the registry does not take changes at this moment, because unused data is being removed: try again in a few seconds",
                headers=_RETRY_AFTER,
            ) from None

    async def close(self, sleep: Sleep) -> tuple[Held, float]:
        """
        Close the gate; see :meth:`alone`, which takes care of opening it.

        :returns: the gate, and since when no change has begun.
        """
        while True:
            queue = await self._take(layout.gate_queue(), False, None, sleep)
            began = self._now()
            try:
                return await self._take(layout.gate(), False, began + self._closing, sleep), began
            except Busy:
                pass
            except BaseException:
                self.count(began, 0)
                raise
            finally:
                queue.close()
            self.count(began, 0)
            await sleep(OPEN_AGAIN)

    def count(self, began: float, closings: int = 1) -> None:
        """Note that no change could begin from ``began`` until now."""
        lasted = self._now() - began
        self.closings += closings
        self.closed += lasted
        self.longest = max(self.longest, lasted)

    async def _take(self, path: Path, shared: bool, until: float | None, sleep: Sleep) -> Held:
        """
        :param until: when to give up.
        :raises Busy: then.
        """
        try:
            # What nearly always happens.
            return await self._driver.lock(path, shared=shared)
        except Busy:
            began = self._now()
        with Part("gate.wait"):
            return await self._take_later(path, shared, began, until, sleep)

    async def _take_later(self, path: Path, shared: bool, began: float, until: float | None, sleep: Sleep) -> Held:
        """
        :param began: since when it is waited for.
        :raises Busy: as :meth:`_take` does.
        """
        while True:
            now = self._now()
            if until is not None and now >= until:
                raise Busy(path)
            pause = min(max(_LOOK, (now - began) / 8), _LOOK_AT_MOST)
            await sleep(pause if until is None else min(pause, until - now))
            try:
                return await self._driver.lock(path, shared=shared)
            except Busy:
                continue


class _Change:
    """See :meth:`Gate.change`. A class, and not a generator, because every push passes here several times."""

    __slots__ = ("_gate", "_held")

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._held: Held | None = None

    async def __aenter__(self) -> None:
        self._held = await self._gate.enter()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._held is not None:
            self._held.close()


class _Alone:
    """See :meth:`Gate.alone`."""

    __slots__ = ("_began", "_gate", "_held", "_sleep")

    def __init__(self, gate: Gate, sleep: Sleep) -> None:
        self._gate = gate
        self._sleep = sleep
        self._held: Held | None = None
        self._began = 0.0

    async def __aenter__(self) -> None:
        self._held, self._began = await self._gate.close(self._sleep)

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._held is not None:
            self._held.close()
            self._gate.count(self._began)
