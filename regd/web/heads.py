"""
The head of a request, read in one go where it has come whole: its line, and its fields by their names.

``twisted.web`` reads it line by line, with half a dozen calls for each. What stands here takes only heads about which there can be no two
opinions: a request in HTTP/1.1 without a body, every line in the plain form of RFC 9112. It knows no errors. Whatever it does not take,
whatever the reason, is for Twisted's parser, from the first byte, so that what is refused, and how, is decided in one place.
``tests/web/test_heads.py`` compares the two on any bytes.
"""

from __future__ import annotations

import functools
import re
from typing import Final

from twisted.web.http_headers import Headers

__all__ = ["Heads"]

#: RFC 9112, section 3, with a target of visible ASCII.
_LINE: Final = re.compile(rb"([A-Z]{1,16}) ([!-~]+) HTTP/1\.1\r\n")

#: RFC 9110, section 5.6.2.
_TOKEN: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")

#: The longest head that is taken, in bytes, and the most fields; Twisted's limits are above these.
_LONGEST: Final = 8192
_MOST: Final = 100

#: Fields that say where the request ends, or that the client waits for something: never decided here.
_NOT_HERE: Final = frozenset({b"Content-Length", b"Transfer-Encoding", b"Expect", b"Upgrade"})

Fields = dict[bytes, list[bytes]]


class Heads:
    """
    Reads the heads of the requests of one connection. A client says the same in each, nearly always, but for the first line, so the fields
    of the last one are remembered by their bytes.

    :param longest: the longest head that is taken, in bytes, where that is less than usual.
    :param most: the most fields, likewise.
    """

    __slots__ = ("_block", "_fields", "_longest", "_most")

    def __init__(self, longest: int = _LONGEST, most: int = _MOST) -> None:
        self._longest = min(longest, _LONGEST)
        self._most = min(most, _MOST)
        self._block = b""
        self._fields: Fields = {}

    @property
    def block(self) -> bytes:
        """The field lines of the last head, as they came, without the line break after the last."""
        return self._block

    def take(self, data: bytes) -> tuple[bytes, bytes, Fields, int] | None:
        """
        The head that ``data`` begins with.

        :returns: method, target, the values of each field by its name as Twisted writes it, and where the head ends in ``data``; ``None``
            where it is not complete, or not for this parser. The lists may not be changed.
        """
        line = _LINE.match(data)
        if line is None:
            return None
        begin = line.end()
        # From the end of the line on, since there may be no fields.
        end = data.find(b"\r\n\r\n", begin - 2, self._longest)
        if end < 0:
            return None
        block = data[begin:end]
        if block != self._block:
            fields = _parse(block, self._most)
            if fields is None:
                return None
            self._block, self._fields = block, fields
        return line[1], line[2], self._fields.copy(), end + 4


def _parse(block: bytes, most: int) -> Fields | None:
    if not block:
        return {}
    lines = block.split(b"\r\n")
    # A carriage return or line feed by itself, or NUL, may not be in a value (RFC 9110, section 5.5).
    if len(lines) > most or not len(lines) - 1 == block.count(b"\r") == block.count(b"\n") or b"\0" in block:
        return None
    fields: Fields = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        canonical = _canonical(name)
        if not colon or canonical is None or canonical in _NOT_HERE:
            return None
        value = value.strip(b" \t")
        if canonical == b"Connection" and value != b"keep-alive":
            return None
        fields.setdefault(canonical, []).append(value)
    if len(fields.get(b"Host", ())) > 1:
        return None
    return fields


@functools.lru_cache(maxsize=1000)
def _canonical(name: bytes) -> bytes | None:
    """A field's name as Twisted keeps it, which is where its parser's names and ours meet; ``None`` for what is no name."""
    if _TOKEN.fullmatch(name) is None:
        return None
    (found,) = Headers({name: [b""]}).getAllRawHeaders()
    return found[0]
