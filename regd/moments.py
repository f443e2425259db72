"""Moments as they are written: in files, in logs, and for people."""

from __future__ import annotations

from datetime import UTC, datetime

__all__ = ["rfc3339"]


def rfc3339(seconds: float, timespec: str = "seconds") -> str:
    """
    Write a moment (RFC 3339, section 5.6), in UTC, as ``2006-01-02T15:04:05Z``.

    :param seconds: since the epoch; what is finer than ``timespec`` is cut off.
    :param timespec: ``seconds`` or ``microseconds``.
    """
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec=timespec).removesuffix("+00:00") + "Z"
