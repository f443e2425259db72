"""Range requests and conditional requests: RFC 9110, sections 13 and 14, for content whose entity tag is its digest. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["ByteRange", "Unsatisfiable", "if_range_allows", "multipart", "none_match", "parse_content_range", "parse_range"]

#: More ranges than this in one request are no client that wants content: the whole is sent instead (RFC 9110, section 14.2 allows it).
_MOST: Final = 16

_RANGE = re.compile(r"(\d*)-(\d*)", re.ASCII)
_CONTENT_RANGE = re.compile(r"(?:bytes[ =])?(\d{1,19})-(\d{1,19})(?:/(?:\d{1,19}|\*))?", re.ASCII)
_ENTITY_TAG = re.compile(r'(?:W/)?"[^"]*"')


class Unsatisfiable(Exception):
    """None of the ranges that were asked for overlaps the content: 416."""


@dataclass(frozen=True, slots=True)
class ByteRange:
    """``length`` bytes from ``start``."""

    start: int
    length: int

    def content_range(self, size: int) -> str:
        """The value of ``Content-Range`` (RFC 9110, section 14.4) for content of ``size`` bytes."""
        return f"bytes {self.start}-{self.start + self.length - 1}/{size}"


def parse_range(header: str | None, size: int) -> tuple[ByteRange, ...] | None:
    """
    The ranges that ``Range`` asks for of content of ``size`` bytes, in the order asked for.

    :returns: ``None`` where the whole content is to be sent: there is no header, or one that must be ignored (another unit, bad syntax, too
        many ranges, or ranges that overlap so much that they would send more than the whole).
    :raises Unsatisfiable: when no range overlaps the content.
    """
    if header is None:
        return None
    unit, equals, given = header.partition("=")
    if not equals or unit.strip().lower() != "bytes":
        return None
    specifications = [text.strip(" \t") for text in given.split(",") if text.strip(" \t")]
    if not 0 < len(specifications) <= _MOST:
        return None
    ranges: list[ByteRange] = []
    for specification in specifications:
        match = _RANGE.fullmatch(specification)
        if match is None or specification == "-" or max(map(len, match.groups())) > 19:
            return None
        first, last = match.groups()
        if not first:
            # The last so many bytes.
            length = min(int(last), size)
            start = size - length
        else:
            start = int(first)
            if last and int(last) < start:
                return None
            length = min(int(last) + 1 if last else size, size) - start
        if length > 0:
            ranges.append(ByteRange(start, length))
    if not ranges:
        raise Unsatisfiable
    if len(ranges) > 1 and sum(part.length for part in ranges) > size:
        return None
    return tuple(ranges)


def multipart(ranges: Sequence[ByteRange], size: int, media_type: str, boundary: str) -> tuple[tuple[tuple[bytes, ByteRange], ...], bytes]:
    """
    The parts of a ``multipart/byteranges`` body (RFC 9110, section 14.6): the text before each range, and the text after the last.
    """
    parts = []
    for index, part in enumerate(ranges):
        text = (
            f"{'' if index == 0 else chr(13) + chr(10)}--{boundary}\r\n"
            f"Content-Type: {media_type}\r\nContent-Range: {part.content_range(size)}\r\n\r\n"
        )
        parts.append((text.encode("ascii"), part))
    return tuple(parts), f"\r\n--{boundary}--\r\n".encode("ascii")


def none_match(header: str | None, etag: str) -> bool:
    """
    Whether ``If-None-Match`` lists ``etag``, so that 304 is the answer. The comparison is weak (RFC 9110, section 13.1.2);
    ``registry:2``'s clients also send the digest without quotes.
    """
    if header is None:
        return False
    if header.strip() in {"*", etag.strip('"')}:
        return True
    return any(found.removeprefix("W/") == etag for found in _ENTITY_TAG.findall(header))


def if_range_allows(header: str | None, etag: str) -> bool:
    """
    Whether ``Range`` counts. ``If-Range`` compares strongly (RFC 9110, section 13.1.5); a date never matches, for content has no date here.
    """
    return header is None or header.strip() == etag


def parse_content_range(header: str) -> tuple[int, int] | None:
    """
    First and last byte of an upload's chunk, from its ``Content-Range``: ``<first>-<last>`` (distribution specification 1.1, "Pushing a
    blob in chunks"), or as HTTP has it, ``bytes <first>-<last>/<size>``. ``None`` when it is neither, or ends before it begins.
    """
    match = _CONTENT_RANGE.fullmatch(header.strip())
    if match is None:
        return None
    first, last = int(match[1]), int(match[2])
    return (first, last) if first <= last else None
