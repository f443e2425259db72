"""
Where a request's body ends, and which of the bytes that arrive are its content: by length, or by the chunked coding
(:mod:`regd.web.chunked`).

Nothing here reads or waits. What arrives is cut where it lies, without a copy, so that the same code serves the event loop, which is handed
``bytes``, and a thread that reads the socket into a buffer of its own (:mod:`regd.web.body`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted.web.http import _MalformedChunkedDataError

__all__ = ["BodyDecoder", "FixedLength", "Framing"]


class Framing(Protocol):
    """
    How one body is delimited. One thread at a time may use it.

    :ivar ended: whether the last byte of the body has come.
    :ivar rest: what came after it.
    :ivar malformed: why what came cannot be a body; nothing after that is looked at.
    """

    ended: bool
    rest: bytes
    malformed: _MalformedChunkedDataError | None

    def wanted(self, room: int) -> int:
        """How many bytes may be read at once into ``room`` bytes: never so many that they reach past an end that is known."""

    def decode(self, data: bytes | bytearray, end: int) -> list[memoryview]:
        """
        Part of the body has come: the first ``end`` bytes of ``data``.

        :returns: the content among them, in order, none of it empty; it lies in ``data``.
        """


class FixedLength:
    """
    A body with ``Content-Length`` (RFC 9112, section 6.3).

    :param length: in bytes.
    """

    malformed: _MalformedChunkedDataError | None = None

    def __init__(self, length: int) -> None:
        self.ended = not length
        self.rest = b""
        self._left = length

    @property
    def left(self) -> int:
        """Bytes that are still to come."""
        return self._left

    def skip(self, count: int) -> None:
        """Somebody else has read so many bytes of the content."""
        self._left -= count
        self.ended = not self._left

    def wanted(self, room: int) -> int:
        """See :class:`Framing`."""
        return min(room, self._left)

    def decode(self, data: bytes | bytearray, end: int) -> list[memoryview]:
        """See :class:`Framing`."""
        view = memoryview(data)[:end]
        content, self.rest = view[: self._left], bytes(view[self._left :])
        self._left -= len(content)
        self.ended = not self._left
        return [content] if content else []


class BodyDecoder:
    """
    What ``twisted.web``'s channel calls a transfer decoder.

    :param framing: how the body is delimited. While it is lent to a thread, nothing is fed here; what the thread came to (the end of the
        body, or something that is none) is told when it has been given back and :meth:`dataReceived` is called, with nothing.
    :param deliver: called with the content of each read, if it has any.
    :param finish: called after the body, with what was read past its end.
    """

    def __init__(self, framing: Framing, deliver: Callable[[bytes], None], finish: Callable[[bytes], None]) -> None:
        self.framing = framing
        self._deliver = deliver
        self._finish = finish

    def dataReceived(self, data: bytes) -> None:  # noqa: N802 - Twisted's name
        """
        Part of the body.

        :raises twisted.web.http._MalformedChunkedDataError: when it is none; what came before is delivered.
        """
        framing = self.framing
        content: list[memoryview] = []
        if data and not framing.ended and framing.malformed is None:
            content = framing.decode(data, len(data))
        # Whoever gets the content may lend the framing to a thread at once.
        ended, malformed, rest = framing.ended, framing.malformed, framing.rest
        if content:
            self._deliver(data if len(content[0]) == len(data) else b"".join(content))
        if malformed is not None:
            raise malformed
        if ended:
            self._finish(rest)

    def noMoreData(self) -> None:  # noqa: N802 - Twisted's name
        """Clients of HTTP are told so at the end of a connection; a server's channel never calls it."""
