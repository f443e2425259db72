"""Long loops on the event loop, cut so that others get their turn (promise P4)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Final

__all__ = ["TURN", "Breathe", "Pace", "Sleep", "naps"]

#: Gives the event loop a turn.
Breathe = Callable[[], Awaitable[object]]

#: Waits for so many seconds, while others have their turn.
Sleep = Callable[[float], Awaitable[object]]

#: How long a loop works before it gives the others a turn, in seconds. A turn costs some 50 µs. By time, and not by the number of steps,
#: because one step reads a link that the kernel has at hand, and another a manifest from a disk.
TURN: Final = 0.001

#: The longest that one sleeps without looking whether one is to stop, in seconds.
_NAP: Final = 0.2


async def naps(seconds: float, sleep: Sleep, check: Callable[[], object]) -> None:
    """
    Wait, and look at times whether one is to stop.

    :param check: raises what ends the wait.
    """
    check()
    await sleep(min(seconds, _NAP))
    check()
    while (seconds := seconds - _NAP) > 0:
        await sleep(min(seconds, _NAP))
        check()


class Pace:
    """
    The turns of one loop, or of several that work for one request.

    :param breathe: gives the event loop a turn.
    """

    __slots__ = ("_begun", "_breathe")

    def __init__(self, breathe: Breathe) -> None:
        self._breathe = breathe
        self._begun = monotonic()

    async def step(self) -> None:
        """Between two steps of the loop: others have their turn when this has worked for :data:`TURN`."""
        if monotonic() - self._begun >= TURN:
            await self._breathe()
            self._begun = monotonic()
