"""The head of an answer as bytes: its status line, the fields that every answer has, and its own."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from twisted.web.http import RESPONSES, datetimeToString
from twisted.web.http_headers import Headers

__all__ = ["CommonFields"]

_SERVER: Final = b"regd"
_API_VERSION: Final = (b"Docker-Distribution-Api-Version", b"registry/2.0")


class CommonFields:
    """
    What every answer says, made once; ``Date`` once a second, when somebody asks.

    :param configured: ``http.headers``: further fields, each with its values.
    :param clock: seconds since the epoch.
    :param registry: whether it is a registry that answers.
    """

    def __init__(
        self,
        configured: Mapping[str, Sequence[str]] | None = None,
        clock: Callable[[], float] = time.time,
        *,
        registry: bool = True,
    ) -> None:
        self._clock = clock
        api = {_API_VERSION[0]: [_API_VERSION[1]]} if registry else {}
        self._fields: dict[bytes, list[bytes]] = {**api, b"Server": [_SERVER], b"Date": []}
        fields = Headers()
        for name, values in (configured or {}).items():
            fields.setRawHeaders(name, values)
        self._dated = not fields.hasHeader(b"Date")
        self._fields.update((name, list(values)) for name, values in fields.getAllRawHeaders())
        self._names = frozenset(name.decode("latin-1") for name in self._fields)
        self._second = -1
        self._made = b""

    def head(
        self,
        version: bytes,
        status: int,
        earlier: Iterable[tuple[bytes, Sequence[bytes]]],
        own: Mapping[str, str | tuple[str, ...]],
        length: int | None,
    ) -> bytes:
        """
        The head of an answer, up to and with the empty line.

        :param version: ``HTTP/1.1`` or ``HTTP/1.0``.
        :param earlier: what the connection has to say.
        :param own: the fields of this answer, which win against those that every answer has.
        :param length: for ``Content-Length``; ``None`` where there is to be none.
        """
        first = "" if length is None else f"Content-Length: {length}\r\n"
        lines = 0 if length is None else 1
        written = ""
        names = []
        for name, value in own.items():
            names.append(canonical := _canonical(name))
            if isinstance(value, str):
                written += f"{canonical}: {value}\r\n"
                lines += 1
                continue
            for text in value:
                written += f"{canonical}: {text}\r\n"
                lines += 1
        fields = f"{written}{first}".encode()
        if fields.count(b"\n") != lines or fields.count(b"\r") != lines:
            # A value that would be read as two fields.
            fields = _encoded((name, _values(value)) for name, value in own.items()) + first.encode("ascii")
        begin = _status_line(version, status)
        for name_said, values in earlier:
            if name_said not in self._fields:
                begin += _encoded([(name_said, values)])
        return b"%s%s%s\r\n" % (begin, self._common(names), fields)

    def _common(self, names: Iterable[str]) -> bytes:
        now = int(self._clock())
        if now != self._second:
            self._second = now
            if self._dated:
                self._fields[b"Date"] = [datetimeToString(now)]
            self._made = _encoded(self._fields.items())
        if self._names.isdisjoint(names):
            return self._made
        unwanted = frozenset(name.encode("latin-1") for name in names)
        return _encoded((name, values) for name, values in self._fields.items() if name not in unwanted)


@functools.lru_cache(maxsize=1000)
def _canonical(name: str) -> str:
    """A field's name in the form that all answers use."""
    (found,) = Headers({name: [""]}).getAllRawHeaders()
    return found[0].decode("latin-1")


@functools.lru_cache(maxsize=200)
def _status_line(version: bytes, status: int) -> bytes:
    return b"%s %d %s\r\n" % (version, status, RESPONSES.get(status, b"Unknown Status"))


def _values(value: str | tuple[str, ...]) -> list[bytes]:
    return [text.encode("utf-8") for text in ((value,) if isinstance(value, str) else value)]


def _encoded(fields: Iterable[tuple[str | bytes, Sequence[bytes]]]) -> bytes:
    """Fields as lines; what ends a line in a value becomes a space."""
    checked = Headers()
    for name, values in fields:
        checked.setRawHeaders(name, values)
    return b"".join(b"%s: %s\r\n" % (name, value) for name, values in checked.getAllRawHeaders() for value in values)
