"""Header fields of answers that only a client of registries reads. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

__all__ = ["LONGEST_REST", "ContentRange", "next_link", "parse_content_range", "parse_media_type", "parse_retry_after"]

#: No ``Retry-After`` is followed for longer, in seconds. It is the window of the longest limit that a public registry is known to have; a
#: number that is larger is rather a mistake than a wish.
LONGEST_REST: Final = 6 * 3600.0

_DIGITS: Final = re.compile(r"[0-9]{1,18}")
_RANGE: Final = re.compile(r"bytes[ \t]+([0-9]{1,18})-([0-9]{1,18})/(?:([0-9]{1,18})|\*)", re.IGNORECASE)
_WORD: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_QUOTED: Final = r'"[^"\\]*(?:\\.[^"\\]*)*"'
_LINK: Final = re.compile(rf"<([^<>]*)>((?:[ \t]*;[ \t]*{_WORD}(?:[ \t]*=[ \t]*(?:{_WORD}|{_QUOTED}))?)*)")
_LINK_PARAMETER: Final = re.compile(rf";[ \t]*({_WORD})(?:[ \t]*=[ \t]*({_WORD}|{_QUOTED}))?[ \t]*")


@dataclass(frozen=True, slots=True)
class ContentRange:
    """
    ``Content-Range`` of an answer with 206 (RFC 9110, section 14.4).

    :ivar first: the first byte, as ``last`` the last one.
    :ivar size: of the whole; ``None`` where it is not said.
    """

    first: int
    last: int
    size: int | None


def parse_content_range(value: str) -> ContentRange | None:
    """
    :returns: ``None`` for what is none, or cannot be.
    """
    found = _RANGE.fullmatch(value.strip(" \t"))
    if found is None:
        return None
    first, last = int(found[1]), int(found[2])
    size = None if found[3] is None else int(found[3])
    return ContentRange(first, last, size) if first <= last and (size is None or last < size) else None


def parse_retry_after(value: str, now: float) -> float | None:
    """
    ``Retry-After`` (RFC 9110, section 10.2.3): seconds, or a date.

    :param now: seconds since the epoch.
    :returns: how long to wait, in seconds: from 0 to :data:`LONGEST_REST`; ``None`` for what is neither.
    """
    value = value.strip(" \t")
    if _DIGITS.fullmatch(value) is not None:
        return min(float(value), LONGEST_REST)
    try:
        when = parsedate_to_datetime(value)
        # Dates of HTTP are in GMT, and the oldest form does not say so.
        moment = (when if when.tzinfo is not None else when.replace(tzinfo=UTC)).timestamp()
    # What the standard library says of bytes that are no date differs from one version to the next.
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return min(max(moment - now, 0.0), LONGEST_REST)


def next_link(values: Iterable[str]) -> str | None:
    """
    Where the next page is (RFC 8288, section 3; OCI distribution specification 1.1, "Content Discovery").

    :returns: as it stands there, perhaps relative; ``None`` when there is none.
    """
    for value in values:
        for found in _LINK.finditer(value):
            for parameter in _LINK_PARAMETER.finditer(found[2]):
                if parameter[1].lower() == "rel" and "next" in (parameter[2] or "").strip('"').lower().split():
                    return found[1]
    return None


def parse_media_type(value: str) -> str:
    """The type of a ``Content-Type``, in lower case, without parameters."""
    return value.partition(";")[0].strip(" \t").lower()
