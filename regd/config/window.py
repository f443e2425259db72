"""A part of every day, in local time: ``02:00-05:00``, or ``23:00-04:00`` over midnight."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["Window", "WindowError", "parse_window"]

_WINDOW = re.compile(r"([01]?[0-9]|2[0-3]):([0-5][0-9])\s*-\s*(?:([01]?[0-9]|2[0-3]):([0-5][0-9])|24:00)", re.ASCII)
_ALLOWED = "none, or two times of the day, from 00:00 to 23:59, such as 02:00-05:00 or, over midnight, 23:00-04:00"


class WindowError(ValueError):
    """A text that is no window; ``str()`` says what is allowed."""


@dataclass(frozen=True)
class Window:
    """
    From ``start`` to just before ``end``, each in minutes after midnight, from 0 to 1439. Where ``end`` is not after ``start``, it is that
    of the next day; they are never equal.
    """

    start: int
    end: int

    def __str__(self) -> str:
        """Write the window so that :func:`parse_window` reads it again."""
        return f"{_time(self.start)}-{_time(self.end)}"


def parse_window(text: str) -> Window | None:
    """Read ``start-end``. Empty and ``none`` are no window, which is ``None``. ``24:00`` may end one, and is midnight.

    :raises WindowError: anything else.
    """
    if text in {"", "none"}:
        return None
    found = _WINDOW.fullmatch(text)
    if found is None:
        raise WindowError(_ALLOWED)
    start = int(found[1]) * 60 + int(found[2])
    end = int(found[3] or 0) * 60 + int(found[4] or 0)
    if start == end:
        msg = "a window that ends at another time than it begins; none stands for the whole day"
        raise WindowError(msg)
    return Window(start, end)


def _time(minutes: int) -> str:
    return f"{minutes // 60:02}:{minutes % 60:02}"
