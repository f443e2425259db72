"""
The head of a request as it is passed on. Pure.

Fields go on as they came: in their order, in the client's spelling, with their duplicates. Left out are those that are about one connection
(RFC 9110, section 7.6.1), and those that say where the request comes from and what it is called, which are made anew.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

__all__ = ["ABOUT_CONNECTION", "Origin", "Passed", "pass_on", "request_head", "split_fields", "tokens", "with_trace"]

#: Fields that are about one connection, and what announces trailers, which are dropped (RFC 9110, section 6.5.1).
ABOUT_CONNECTION: Final = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade"}
)
#: Not passed on as they are. ``Expect`` is answered here, as nginx does it.
_LEFT_OUT: Final = ABOUT_CONNECTION | {
    b"expect",
    b"proxy-authorization",
    b"x-real-ip",
    b"x-forwarded-for",
    b"x-forwarded-proto",
    b"x-request-id",
}

#: What a ``Connection`` field cannot take away: without these a request is another one.
_STAYS: Final = frozenset({b"host", b"content-length"})

#: What nearly every client sends again and again is remembered; larger heads are not, nor many.
_REMEMBERED: Final = 2048

_LINE: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\0\r\n]*?)[ \t]*")

#: Lines of the fields of W3C Trace Context.
_TRACE: Final = re.compile(rb"^trace(?:parent|state):[^\n]*\n", re.IGNORECASE | re.MULTILINE)

Field = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Passed:
    """
    The fields of a request.

    :ivar lines: those that go on as they are, each with its line break.
    :ivar host: ``Host``, or ``None`` where there is none.
    :ivar forwarded_for: the values of ``X-Forwarded-For``, joined with commas.
    """

    lines: bytes
    host: bytes | None
    forwarded_for: bytes


@dataclass(frozen=True, slots=True)
class Origin:
    """
    Where a request comes from.

    :ivar peer: the address of who is connected.
    :ivar client: that of the client, which is another one behind a trusted proxy.
    :ivar scheme: ``http`` or ``https``, as the client used it.
    """

    peer: bytes
    client: bytes
    scheme: bytes


def split_fields(block: bytes) -> Iterator[Field]:
    """
    The fields of a head.

    :param block: lines with line breaks between them, and none behind the last.
    :raises ValueError: for a line that is no field.
    """
    if block:
        for line in block.split(b"\r\n"):
            found = _LINE.fullmatch(line)
            if found is None:
                raise ValueError(line)
            yield found[1], found[2]


def tokens(value: bytes) -> list[bytes]:
    """The elements of a comma-separated list, in lower case."""
    return [token.strip(b" \t").lower() for token in value.split(b",")]


def pass_on(block: bytes, authority: bytes | None) -> Passed:
    """
    What goes on of a request's fields.

    :param block: as :func:`split_fields` takes it.
    :param authority: what the request is for, if its target says so, and ``Host`` does not count (RFC 9112, section 3.2.2).
    :raises ValueError: for a line that is no field.
    """
    if authority is None and len(block) <= _REMEMBERED:
        return _remembered(block)
    return _pass_on(block, authority)


def _pass_on(block: bytes, authority: bytes | None) -> Passed:
    fields = list(split_fields(block))
    left_out = set(_LEFT_OUT)
    for name, value in fields:
        if name.lower() == b"connection":
            left_out.update(tokens(value))
    left_out -= _STAYS
    lines, forwarded, host = [], [], None
    for name, value in fields:
        folded = name.lower()
        if folded == b"x-forwarded-for":
            forwarded.append(value)
        elif folded == b"host":
            host = value if authority is None else authority
            lines.append(b"%s: %s\r\n" % (name, host))
        # As nginx: what has an underscore could pass for another field with whoever turns fields into variables (CGI).
        elif folded not in left_out and b"_" not in folded:
            lines.append(b"%s: %s\r\n" % (name, value))
    if host is None and authority is not None:
        host = authority
        lines.insert(0, b"Host: %s\r\n" % host)
    return Passed(b"".join(lines), host, b", ".join(filter(None, forwarded)))


_remembered = functools.lru_cache(maxsize=256)(lambda block: _pass_on(block, None))


def with_trace(passed: Passed, fields: Mapping[str, str]) -> Passed:
    """
    What goes on of a request that is traced here: this daemon is then between the client's part of the trace and the upstream's (W3C Trace
    Context, section 3.4). Where it is not, the client's fields go on as any others.

    :param fields: in place of the client's ``traceparent`` and ``tracestate``; empty where nothing is traced.
    """
    if not fields:
        return passed
    ours = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return replace(passed, lines=_TRACE.sub(b"", passed.lines) + ours.encode("ascii"))


def request_head(
    method: bytes, target: bytes, passed: Passed, origin: Origin, request_id: str, upstream: bytes, *, chunked: bool
) -> bytes:
    """
    The head of the request that is passed on, the empty line included.

    :param target: in origin form.
    :param request_id: see :mod:`regd.asked`.
    :param upstream: for ``Host``, where the client, who speaks HTTP/1.0, sent none.
    :param chunked: whether a body follows whose length nobody knows.
    """
    forwarded = b"%s, %s" % (passed.forwarded_for, origin.peer) if passed.forwarded_for else origin.peer
    return b"%s %s HTTP/1.1\r\n%s%sX-Real-IP: %s\r\nX-Forwarded-For: %s\r\nX-Forwarded-Proto: %s\r\nX-Request-Id: %s\r\n%s\r\n" % (
        method,
        target,
        b"Host: %s\r\n" % upstream if passed.host is None else b"",
        passed.lines,
        origin.client,
        forwarded,
        origin.scheme,
        request_id.encode("ascii"),
        b"Transfer-Encoding: chunked\r\n" if chunked else b"",
    )
