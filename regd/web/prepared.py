"""A request whose answer leaves in one piece: a head that was made as bytes, and as much of the body as is at hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Any, Final

from twisted.web.http import NO_BODY_CODES, datetimeToString
from twisted.web.http_headers import Headers
from twisted.web.server import Request

from regd.asked import FIELD, valid_id

__all__ = ["PreparedRequest"]

_ID: Final = FIELD + b": "


class PreparedRequest(Request):
    """
    What is answered with :meth:`prepare` passes by ``twisted.web``'s making of heads; its own answers do not. Both say the id.

    :ivar id: of the request; see :mod:`regd.asked`.
    """

    # Names without a type in Twisted.
    channel: Any
    transport: Any

    #: The header fields as they came, one a line, without the line break after the last.
    field_lines = b""

    defaultContentType = None  # noqa: N815 - Twisted's name

    id = ""

    #: The head of the answer, until it is sent with the first write.
    _head = b""

    # What stays as it is, for nearly every request, stands with the class: CPython keeps the attributes of an instance ten times as small,
    # and makes them faster, as long as all instances together have no more than 30 (tests/web/test_request_id.py).
    queued: object = False
    _parsePOSTFormSubmission = False  # noqa: N815 - Twisted's name
    # There are no cookies.
    received_cookies: Any = MappingProxyType({})
    cookies: Any = ()

    # It does what those of the base classes do, in one call instead of four.
    def __init__(self, channel: Any, queued: object = False) -> None:
        self.channel = channel
        self.client, self.host = channel.getPeer(), channel.getHost()
        self.transport = channel.transport
        self.requestHeaders, self.responseHeaders = Headers(), Headers()
        self.notifications = []
        if queued:
            self.queued = queued
        self._adapterCache: dict[object, object] = {}

    def said_id(self, said: Sequence[bytes]) -> str:
        """
        The id that a trusted proxy in front gives the request; empty where there is none.

        :param said: all that is said.
        """
        if len(said) != 1 or not valid_id(said[0]):
            return ""
        host = getattr(self.client, "host", None)
        trusted = isinstance(host, str) and self.channel.site.trusts(host.removeprefix("::ffff:"))
        return said[0].decode("ascii") if trusted else ""

    def prepare(self, status: int, head: Callable[[], bytes]) -> None:
        """
        Settle the head of the answer, which leaves with the first :meth:`write`, in the same piece.

        :param head: makes it, the empty line at its end included, when it is settled whether the connection goes on.
        """
        self.setResponseCode(status)
        if self.channel is not None:
            self.channel.answering(self)
        self._head = head()

    def write(self, data: bytes) -> None:
        """As ``twisted.web``, for an answer that was not prepared; the first write settles whether the connection can go on."""
        if self.startedWriting:
            if self.code not in NO_BODY_CODES and self.method != b"HEAD":
                super().write(data)
        elif not self._head:
            self._prepare_bare()
            super().write(data)
        elif not self._disconnected:
            self.startedWriting = 1
            if self.code in NO_BODY_CODES or self.method == b"HEAD":
                data = b""
            self.sentLength += len(data)
            # The id is said here, so that whoever answers need not think of it.
            self.channel.transport.write(b"".join((self._head[:-2], _ID, self.id.encode("ascii"), b"\r\n\r\n", data)))

    def unprepare(self) -> None:
        """Something else is to be answered; nothing has been sent yet."""
        self._head = b""

    def _prepare_bare(self) -> None:
        """For the answers that Twisted gives by itself."""
        if self.channel is not None:
            self.channel.answering(self)
        self.setHeader(FIELD, self.id)
        self.setHeader(b"Docker-Distribution-Api-Version", b"registry/2.0")
        self.setHeader(b"Server", b"regd")
        self.setHeader(b"Date", datetimeToString())
