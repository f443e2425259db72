"""
The head of an upstream's answer: how it is read, where its body ends, and how it is passed on. Pure.

Nothing is guessed: what is not an answer of HTTP/1, or could be read in two ways, is none (RFC 9112, section 6.3; a client may share its
connection with others).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from twisted.web.http import RESPONSES

from regd.proxy.fields import ABOUT_CONNECTION, Field, split_fields, tokens

__all__ = ["CHUNKED", "LARGEST_HEAD", "UNTIL_CLOSE", "Head", "NotHTTP", "client_head", "parse_head", "right_location"]

#: The largest head of an answer that is taken, in bytes.
LARGEST_HEAD: Final = 64 * 1024

_STATUS: Final = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: ([\t -~\x80-\xff]*))?")
_DIGITS: Final = re.compile(rb"[0-9]{1,18}")
_URL: Final = re.compile(rb"(https?)://([^/?#]*)(.*)", re.IGNORECASE | re.DOTALL)
_PORTS: Final = {b"http": b":80", b"https": b":443"}

#: What :attr:`Head.length` is where it is not a number.
CHUNKED: Final = -1
UNTIL_CLOSE: Final = -2

#: Not passed on of an answer, besides what its ``Connection`` names.
# The id is ours: that which the upstream was asked with, if it knows what to do with one.
_LEFT_OUT: Final = ABOUT_CONNECTION | {b"proxy-authenticate", b"x-request-id"}


class NotHTTP(Exception):
    """What an upstream sent is no answer; ``str()`` says why."""


@dataclass(frozen=True, slots=True)
class Head:
    """
    :ivar fields: as they came.
    :ivar length: bytes of the body, :data:`CHUNKED` or :data:`UNTIL_CLOSE`; 0 for an answer that can have none.
    :ivar persistent: whether the connection can be used again when the answer has ended.
    """

    status: int
    reason: bytes
    fields: tuple[Field, ...]
    length: int
    persistent: bool

    def get(self, name: bytes) -> bytes | None:
        """The first field of a name in lower case."""
        return next((value for found, value in self.fields if found.lower() == name), None)


def parse_head(block: bytes, method: bytes) -> Head:
    """
    Read a head.

    :param block: all of it, but for the last two line breaks.
    :param method: of the request, for HEAD has no body.
    :raises NotHTTP: when it is none.
    """
    line, _, rest = block.partition(b"\r\n")
    found = _STATUS.fullmatch(line)
    if found is None:
        raise NotHTTP(f"its status line is {_shown(line)}")
    try:
        fields = tuple(split_fields(rest))
    except ValueError as error:
        raise NotHTTP(f"a line of its header is {_shown(error.args[0])}") from None
    status = int(found[2])
    codings: list[bytes] = []
    lengths: set[bytes] = set()
    connection: list[bytes] = []
    for name, value in fields:
        folded = name.lower()
        if folded == b"transfer-encoding":
            codings += tokens(value)
        elif folded == b"content-length":
            lengths.add(value)
        elif folded == b"connection":
            connection += tokens(value)
    length = _length(codings, lengths)
    if method == b"HEAD" or status < 200 or status in {204, 304}:
        length = 0
    persistent = b"close" not in connection and (found[1] == b"1" or b"keep-alive" in connection)
    if codings and found[1] == b"0":
        # RFC 9112, section 6.1: whoever passed it on may not have understood where it ends.
        persistent = False
    return Head(status, found[3] or b"", fields, length, persistent and length != UNTIL_CLOSE)


def _length(codings: Sequence[bytes], lengths: set[bytes]) -> int:
    if codings:
        if codings != [b"chunked"] or lengths:
            also = " and Content-Length" if lengths else ""
            raise NotHTTP(f"its length is said by Transfer-Encoding {_shown(b', '.join(codings))}{also}")
        return CHUNKED
    if not lengths:
        return UNTIL_CLOSE
    if len(lengths) > 1 or not all(map(_DIGITS.fullmatch, lengths)):
        raise NotHTTP(f"its Content-Length is {_shown(b' and '.join(sorted(lengths)))}")
    return int(lengths.pop())


def client_head(
    head: Head,
    version: bytes,
    connection: bytes | None,
    location: bytes | None,
    configured: Mapping[bytes, Sequence[bytes]],
    *,
    chunked: bool,
) -> bytes:
    """
    The head as the client gets it, the empty line included.

    :param version: what the client speaks.
    :param connection: what our connection with the client has to say.
    :param location: ``Location``, if it is there and is to be another one.
    :param configured: ``http.headers``, names in lower case; those that the upstream does not have itself are added.
    :param chunked: whether the body is sent in chunks.
    """
    left_out = set(_LEFT_OUT)
    for name, value in head.fields:
        if name.lower() == b"connection":
            left_out.update(tokens(value))
    left_out -= {b"content-length"}
    if head.status == 204:
        # RFC 9110, section 8.6.
        left_out.add(b"content-length")
    lines = [b"%s %d %s\r\n" % (version, head.status, head.reason or RESPONSES.get(head.status, b""))]
    there, lengths = set(), 0
    for name, value in head.fields:
        folded = name.lower()
        if folded in left_out:
            continue
        if folded == b"content-length":
            lengths += 1
            if lengths > 1:
                continue
        there.add(folded)
        lines.append(b"%s: %s\r\n" % (name, location if folded == b"location" and location is not None else value))
    for name, values in configured.items():
        if name.lower() not in there:
            lines += [b"%s: %s\r\n" % (name, value) for value in values]
    if chunked:
        lines.append(b"Transfer-Encoding: chunked\r\n")
    if connection is not None:
        lines.append(b"Connection: %s\r\n" % connection)
    lines.append(b"\r\n")
    return b"".join(lines)


def right_location(value: bytes, upstream: bytes, scheme: bytes, host: bytes) -> bytes:
    """
    A ``Location`` as the client can use it, where the upstream does not know its public name: one that is at the upstream's own address is
    at the client's ``Host``; one that is at this host with ``http``, where the client used ``https``, gets that.

    :param upstream: the host and perhaps the port by which the upstream is reached.
    :param scheme: as the client used it, as ``host``.
    """
    found = _URL.match(value)
    if found is None:
        return value
    said, authority = found[1].lower(), found[2].lower()
    here = {_with_port(upstream.lower(), default) for default in _PORTS}
    is_upstream = _with_port(authority, said) in here
    is_downgrade = scheme == b"https" and said == b"http" and authority == host.lower()
    return b"%s://%s%s" % (scheme, host, found[3]) if is_upstream or is_downgrade else value


def _with_port(authority: bytes, scheme: bytes) -> bytes:
    return authority if re.search(rb":[0-9]+\Z", authority.rpartition(b"]")[2]) else authority + _PORTS[scheme]


def _shown(raw: bytes) -> str:
    return repr(raw[:100].decode("latin-1"))
