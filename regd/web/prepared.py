"""A request whose answer leaves in one piece: a head that was made as bytes, and as much of the body as is at hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.web.http import NO_BODY_CODES, datetimeToString
from twisted.web.http_headers import Headers
from twisted.web.server import Request

from regd.asked import FIELD, valid_id

__all__ = ["PreparedRequest"]


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

    # It does what those of the base classes do, in one call instead of four.
    def __init__(self, channel: Any, queued: object = False) -> None:
        self.channel = channel
        self.client, self.host = channel.getPeer(), channel.getHost()
        self.transport = channel.transport
        self.requestHeaders, self.responseHeaders = Headers(), Headers()
        self.notifications = []
        self.received_cookies = {}
        self.cookies = []
        self.queued = queued
        self._parsePOSTFormSubmission = False
        self._adapterCache: dict[object, object] = {}

    def said_id(self) -> str:
        """The id that a trusted proxy in front gives the request; empty where there is none."""
        said = self.requestHeaders.getRawHeaders(FIELD)
        if said is None or len(said) != 1 or not valid_id(said[0]):
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
        # Here, so that whoever answers need not think of it.
        self._head = b"%bX-Request-Id: %b\r\n\r\n" % (head()[:-2], self.id.encode("ascii"))

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
            self.channel.transport.write(self._head + data)

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
