"""
The access log: one line for each request. In Apache's combined format, as ``registry:2`` writes it, with its id at the end; or in one of
the forms of the log, with the fields of what ``registry:2`` logs when it has answered.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Final, Protocol

from twisted.internet.interfaces import IAddress
from twisted.web.http_headers import Headers

from regd.asked import Asked
from regd.moments import rfc3339
from regd.telemetry.asking import peer, request_fields
from regd.telemetry.lines import LineStream
from regd.telemetry.logs import FORMATTERS, Fields

__all__ = ["AccessLog", "Answered", "combined", "form_of"]

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
    began: float
    method: bytes
    uri: bytes
    clientproto: bytes
    code: int
    sentLength: int  # noqa: N815 - Twisted's name
    user_name: str
    requestHeaders: Headers  # noqa: N815 - Twisted's name

    def getClientAddress(self) -> IAddress:  # noqa: N802 - Twisted's name
        """Who was connected."""


#: A request and the time, in seconds since the epoch, to a line without its end.
Form = Callable[[Answered, float], str]


class AccessLog:
    """
    Writes lines.

    :param stream: where to; each line is flushed.
    :param form: makes a line, without its end, of a request and the time.
    :param clock: seconds since the epoch.
    """

    def __init__(self, stream: LineStream, form: Form | None = None, clock: Callable[[], float] = time.time) -> None:
        self._stream = stream
        self._form = combined if form is None else form
        self._clock = clock

    def __call__(self, request: Answered) -> None:
        """Write the line of one request."""
        try:
            self._stream.write(self._form(request, self._clock()) + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            # A log that cannot be written must not stop what it tells of.
            return


def form_of(name: str, fields: Fields) -> Form:
    """
    How lines look.

    :param name: ``log.accesslog.formatter``: ``combined``, or one of those of the log.
    :param fields: what each line carries besides, but for ``combined``.
    """
    if name == "combined":
        return combined
    formatter = FORMATTERS[name]

    def form(request: Answered, when: float) -> str:
        failed = request.code >= HTTPStatus.BAD_REQUEST
        message = "response completed with error" if failed else "response completed"
        return formatter(rfc3339(when, "microseconds"), "error" if failed else "info", message, {**fields, **_said(request)})

    return form


def _said(request: Answered) -> dict[str, object]:
    """A request and its answer as ``registry:2`` says them when it has answered."""
    seconds = time.perf_counter() - request.began
    asked = Asked(request.id, request.method, request.uri, request.getClientAddress(), request.requestHeaders)
    return {
        **request_fields(asked),
        "http.response.duration": _duration(seconds),
        "http.response.seconds": round(seconds, 6),
        "http.response.status": request.code,
        "http.response.written": request.sentLength,
    }


def _duration(seconds: float) -> str:
    """As Go writes a duration of less than a minute, which may be read as one of more."""
    if seconds >= 1:
        return f"{seconds:.6f}".rstrip("0").rstrip(".") + "s"
    return f"{seconds * 1e3:.6g}ms" if seconds >= 0.001 else f"{seconds * 1e6:.6g}µs"


def combined(request: Answered, when: float) -> str:
    """
    The line of a request that is answered, or whose client has gone.

    :param when: seconds since the epoch.
    """
    return (
        f'{peer(request.getClientAddress())[0] or "-"} - {_field(request.user_name.encode()) or "-"} [{_stamp(int(when))}] '
        f'"{_field(request.method)} {_field(request.uri)} {_field(request.clientproto)}" {request.code} {request.sentLength} '
        f'"{_header(request, b"referer")}" "{_header(request, b"user-agent")}" {request.id}'
    )


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
