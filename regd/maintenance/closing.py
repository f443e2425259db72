"""What a collection does with the gate closed: little at a time, and the gate open for longer between two of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Final, TypeVar

from regd.maintenance.gate import Gate
from regd.maintenance.steps import Steps

__all__ = ["Closing"]

#: For how long the gate is to be closed at a time, in seconds.
_AT_MOST: Final = 0.008

#: The gate is open for so many times as long as it was closed.
_OPEN: Final = 4

#: How many files are moved the first time, and always: closing costs as much as moving a few.
_FIRST: Final = 200
_LEAST: Final = 16

T = TypeVar("T")


class Closing:
    """
    :ivar lot: how many files can be moved in one go.
    :ivar longest: the longest that the gate was closed, in seconds.
    """

    def __init__(self, gate: Gate, steps: Steps) -> None:
        self.lot = _FIRST
        self.longest = 0.0
        self._gate = gate
        self._steps = steps
        self._before = gate.closed
        self._rest_until = 0.0

    @property
    def closed(self) -> float:
        """For how long the gate was closed, in seconds, all together."""
        return self._gate.closed - self._before

    async def __call__(self, work: Callable[[], Awaitable[T]], files: int) -> T:
        """
        Run ``work`` with the gate closed.

        :param files: how many files it moves.
        :raises Stopped: when the run is to stop, also while it waits for the gate; before anything is done.
        """
        wait = self._rest_until - monotonic()
        if wait > 0:
            await self._steps.rest(wait)
        self._steps.check()
        before = self._gate.closed
        try:
            async with self._gate.alone(self._steps.rest):
                began = monotonic()
                result = await work()
                worked = monotonic() - began
        finally:
            lasted = self._gate.closed - before
            self.longest = max(self.longest, lasted)
            self._rest_until = monotonic() + _OPEN * lasted
        if files:
            # Whatever disk this is, and however busy.
            fitting = int(_AT_MOST * files / max(worked, 1e-6))
            self.lot = max(_LEAST, min(fitting, 2 * self.lot))
        return result
