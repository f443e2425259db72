"""The access log: one line for each request, in Apache's combined format, as ``registry:2`` writes it, and its id at the end."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Final, Protocol

from twisted.internet.interfaces import IAddress
from twisted.web.http_headers import Headers

from regd.telemetry.asking import peer
from regd.telemetry.lines import LineStream

__all__ = ["AccessLog", "Answered", "combined"]

#: Control characters, quotes and backslashes, which could end a field, forge a line or steer a terminal.
_ESCAPES: Final = {
    **{code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))},
    **{code: f"\\u{code:04x}" for code in (0x2028, 0x2029)},
    ord('"'): '\\"',
    ord("\\"): "\\\\",
}

_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class Answered(Protocol):
    """What of a request that has ended is said of it; names are those of Twisted's requests."""

    id: str
    method: bytes
    uri: bytes
    clientproto: bytes
    code: int
    sentLength: int  # noqa: N815 - Twisted's name
    requestHeaders: Headers  # noqa: N815 - Twisted's name

    def getClientAddress(self) -> IAddress:  # noqa: N802 - Twisted's name
        """Who was connected."""


class AccessLog:
    """
    Writes lines.

    :param stream: where to; each line is flushed.
    :param clock: seconds since the epoch.
    """

    def __init__(self, stream: LineStream, clock: Callable[[], float] = time.time) -> None:
        self._stream = stream
        self._clock = clock

    def __call__(self, request: Answered) -> None:
        """Write the line of one request."""
        try:
            self._stream.write(combined(request, self._clock()) + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            # A log that cannot be written must not stop what it tells of.
            return


def combined(request: Answered, when: float) -> str:
    """
    The line of a request that is answered, or whose client has gone.

    :param when: seconds since the epoch.
    """
    line = f"{_field(request.method)} {_field(request.uri)} {_field(request.clientproto)}"
    host = peer(request.getClientAddress())[0] or "-"
    said = f'"{_header(request, b"referer")}" "{_header(request, b"user-agent")}"'
    return f'{host} - - [{_stamp(int(when))}] "{line}" {request.code} {request.sentLength} {said} {request.id}'


@functools.lru_cache(maxsize=2)
def _stamp(when: int) -> str:
    now = time.gmtime(when)
    return f"{now.tm_mday:02d}/{_MONTHS[now.tm_mon - 1]}/{now.tm_year}:{now.tm_hour:02d}:{now.tm_min:02d}:{now.tm_sec:02d} +0000"


def _header(request: Answered, name: bytes) -> str:
    values = request.requestHeaders.getRawHeaders(name)
    return _field(values[-1]) if values else "-"


def _field(raw: bytes) -> str:
    text = raw.decode("utf-8", "backslashreplace")
    # What has to be escaped is not printable, but for these two.
    return text if text.isprintable() and '"' not in text and "\\" not in text else text.translate(_ESCAPES)
