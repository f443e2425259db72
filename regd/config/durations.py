"""Durations as Go's ``time.ParseDuration`` and ``Duration.String`` write them: ``1h30m``, ``1.5s``, ``10ms``."""

from __future__ import annotations

import re

__all__ = ["DurationError", "format_duration", "parse_duration"]

#: Nanoseconds in one unit. The micro sign (U+00B5) and the Greek letter mu (U+03BC) mean the same.
_UNITS = {
    "ns": 1,
    "us": 1_000,
    "\u00b5s": 1_000,
    "\u03bcs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_TERM = re.compile(r"([0-9]*)(?:(\.)([0-9]*))?(ns|us|\u00b5s|\u03bcs|ms|s|m|h)")
#: A Go duration is a signed number of 64 bits, in nanoseconds: 290 years.
_LIMIT = 2**63 - 1
#: Longer texts are no durations, and ``int()`` of a text of megabytes is slow.
_LONGEST = 256


class DurationError(ValueError):
    """A text that is no duration; ``str()`` says what is allowed."""


def parse_duration(text: str) -> int:
    """Read a duration.

    :returns: nanoseconds; parts of a nanosecond are cut off, as Go does it.
    :raises DurationError: a text that Go would refuse; also a number without a unit, ``0`` aside.
    """
    negative = text.startswith("-")
    rest = text[1:] if text[:1] in {"-", "+"} else text
    if rest == "0":
        return 0
    if not rest or len(rest) > _LONGEST:
        raise DurationError(_ALLOWED)
    total = 0
    while rest:
        term = _TERM.match(rest)
        if term is None or not (term[1] or term[3]):
            raise DurationError(_ALLOWED)
        unit = _UNITS[term[4]]
        total += int(term[1] or "0") * unit
        if term[3]:
            total += int(term[3]) * unit // 10 ** len(term[3])
        rest = rest[term.end() :]
    if total > _LIMIT + negative:
        msg = "a duration of at most 290 years"
        raise DurationError(msg)
    return -total if negative else total


def format_duration(nanoseconds: int) -> str:
    """Write a duration so that :func:`parse_duration` reads the same number of nanoseconds: ``1h30m0s``, ``1.5ms``."""
    if nanoseconds == 0:
        return "0s"
    sign, rest = ("-", -nanoseconds) if nanoseconds < 0 else ("", nanoseconds)
    for unit in ("ns", "\u00b5s", "ms"):
        if rest < _UNITS[unit] * 1_000:
            return f"{sign}{_decimal(rest, _UNITS[unit])}{unit}"
    minutes, rest = divmod(rest, _UNITS["m"])
    hours, minutes = divmod(minutes, 60)
    seconds = f"{_decimal(rest, _UNITS['s'])}s"
    if hours:
        return f"{sign}{hours}h{minutes}m{seconds}"
    return f"{sign}{minutes}m{seconds}" if minutes else f"{sign}{seconds}"


def _decimal(nanoseconds: int, unit: int) -> str:
    """Write a number of nanoseconds in a unit, without zeros at the end."""
    whole, part = divmod(nanoseconds, unit)
    if not part:
        return str(whole)
    digits = len(str(unit)) - 1
    return f"{whole}.{part:0{digits}}".rstrip("0")


_ALLOWED = "a duration with units, such as 90s, 10ms or 1h30m"
