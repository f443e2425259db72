"""What is in an upload's ``startedat``."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

__all__ = ["LIMIT", "parse_time"]

#: What the file may hold at most, in bytes.
LIMIT: Final = 64


def parse_time(content: bytes) -> datetime:
    """
    Read a time as ``registry:2`` writes it (RFC 3339, section 5.6).

    :returns: the same time in UTC.
    :raises ValueError: when it is none.
    """
    try:
        return datetime.fromisoformat(content.decode("ascii", "replace").strip()).astimezone(UTC)
    except OverflowError:
        # A time of the year 1 or 9999 that is in another year in UTC.
        raise ValueError("not a time that has a place in UTC") from None
