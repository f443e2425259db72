"""When a chore is due: intervals, and a part of the day in local time; pure."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

__all__ = ["LocalTime", "Plan", "Window", "back_off", "opening"]

#: Local time of seconds since the epoch, as :func:`time.localtime`.
LocalTime = Callable[[float], time.struct_time]

_MINUTE: Final = 60
#: A window that a change of clocks takes away comes back the next day; where a zone skips a whole day, the day after that.
_LOOK_AHEAD: Final = 4 * 24 * 60

#: How long after a failure it is tried again for the first time, in seconds; each further one doubles it.
_BACK_OFF: Final = 60.0


class Window(Protocol):
    """
    A part of each day, from ``start`` to just before ``end``, in minutes after midnight. Where ``end`` is not after ``start``, it is that
    of the next day.
    """

    @property
    def start(self) -> int: ...  # noqa: D102 - an attribute, documented above

    @property
    def end(self) -> int: ...  # noqa: D102 - an attribute, documented above


@dataclass(frozen=True)
class Plan:
    """
    When a chore is done.

    :ivar interval: seconds from the beginning of one run to that of the next.
    :ivar first: the first run begins after a random part of so many seconds.
    :ivar window: the part of the day in which a run may begin; ``None`` for all of it.
    """

    interval: float
    first: float
    window: Window | None = None


def opening(earliest: float, window: Window | None, local: LocalTime = time.localtime) -> float:
    """
    The first moment in a window.

    Each minute is looked at, which takes a millisecond for a day, because that is right also on days when clocks change: a window that
    such a day does not have waits for the next day, and one that it has twice opens twice.

    :param earliest: seconds since the epoch; not before that.
    """
    if window is None or _is_open(earliest, window, local):
        return earliest
    minute = earliest - earliest % _MINUTE
    for step in range(1, _LOOK_AHEAD):
        moment = minute + step * _MINUTE
        if _is_open(moment, window, local):
            return moment
    raise AssertionError("every window has a minute, and every zone has that minute")


def back_off(failures: int, interval: float) -> float:
    """
    How long to wait after a failure.

    :param failures: how many there have been in a row, at least 1.
    :param interval: the longest wait, in seconds.
    """
    return min(interval, _BACK_OFF * (1 << min(failures - 1, 20)))


def _is_open(moment: float, window: Window, local: LocalTime) -> bool:
    found = local(moment)
    minute = found.tm_hour * 60 + found.tm_min
    if window.start < window.end:
        return window.start <= minute < window.end
    return minute >= window.start or minute < window.end
