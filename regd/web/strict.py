"""
A channel that refuses what two servers in a row could read in two ways: request smuggling lives on such bytes.

Twisted's parser is strict already about names, lengths and chunks. What it takes and others read otherwise is refused here, with 400 and
the end of the connection, whether the request is answered here or passed on.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

from twisted.web.http import RESPONSES

from regd.asked import make_id
from regd.errors import BadRequest, RegistryError
from regd.web.heads import Heads
from regd.web.plain import PlainChannel

__all__ = ["HeadLimits", "StrictChannel", "envelope_bytes"]


@dataclass(frozen=True)
class HeadLimits:
    """
    What the head of a request may be.

    :ivar line: bytes of the request line, and of one header field.
    :ivar header: bytes of all of it.
    :ivar fields: how many header fields.
    """

    line: int = 16384
    header: int = 16384
    fields: int = 500


def envelope_bytes(error: RegistryError) -> bytes:
    """The body of an answer that tells of an error."""
    return json.dumps(error.envelope()).encode() + b"\n"


class StrictChannel(PlainChannel):
    """One connection."""

    #: Whether what came was not HTTP; nothing that comes after it can be.
    _refused = False
    _version: bytes

    # Without a type in Twisted.
    factory: Any

    def __init__(self) -> None:
        super().__init__()
        #: The header fields that have come of the request that is being read.
        self._field_lines: list[bytes] = []

    def limit(self, limits: HeadLimits) -> None:
        """Take no heads beyond these limits."""
        self.MAX_LENGTH, self.totalHeadersSize, self.maxHeaders = limits.line, limits.header, limits.fields
        self._heads = Heads(min(limits.line, limits.header), limits.fields)

    def dataReceived(self, data: bytes) -> None:  # noqa: N802 - Twisted's name
        """Bytes from the client."""
        if self._refused:
            return
        super().dataReceived(data)
        if self.line_mode and b"\n" in self._buffer and b"\r\n" not in self._buffer and not self._refused:
            # Half a line break: Twisted would wait for a whole one.
            self._respondToBadRequestAndDisconnect()

    def lineReceived(self, line: bytes) -> None:  # noqa: N802 - Twisted's name
        """
        A line of a head has come. Two servers in a row must never see two different requests in the same bytes, so what they could read in
        two ways is not taken from anybody: a line that goes on in the next one (RFC 9112, section 5.2), and half a line break.
        """
        if self._refused:
            return
        if line[:1] in {b" ", b"\t"} or b"\n" in line or b"\r" in line:
            self._respondToBadRequestAndDisconnect()
            return
        super().lineReceived(line)

    def allContentReceived(self) -> None:  # noqa: N802 - Twisted's name
        """The last byte of a request has come, unless it was none; Twisted goes on to here after a head that was refused."""
        if not self._refused:
            super().allContentReceived()

    def rawDataReceived(self, data: bytes) -> None:  # noqa: N802 - Twisted's name
        """Part of a body, likewise."""
        if not self._refused:
            super().rawDataReceived(data)

    def take_fields(self, request: Any) -> bool:
        """
        The head of a request is complete.

        :returns: whether it is one; where not, the client has been told.
        """
        request.field_lines, self._field_lines = b"\r\n".join(self._field_lines), []
        if self._is_unambiguous(request):
            return True
        self._respondToBadRequestAndDisconnect()
        return False

    def headerReceived(self, line: bytes) -> bool:  # noqa: N802 - Twisted's name
        """A header field has come."""
        self._field_lines.append(line)
        try:
            return bool(super().headerReceived(line))
        except ValueError:
            # A Content-Length of more digits than Python makes a number of.
            self._respondToBadRequestAndDisconnect()
            return False

    def lineLengthExceeded(self, line: bytes) -> None:  # noqa: N802 - Twisted's name
        """A request line or field is too long. Stock would close without a word."""
        self._respondToBadRequestAndDisconnect()

    def _respondToBadRequestAndDisconnect(self) -> None:  # noqa: N802 - Twisted's name
        """What came is not HTTP."""
        if self._refused:
            return
        self._refused = True
        if self.requests and self.requests[0].startedWriting:
            # The body of a request that is being answered: a second answer would come out in the midst of the first.
            self.loseConnection()
            return
        # Of a request whose body is wrong, or of none that has got as far.
        self.refuse(BadRequest(), (self.requests[-1].id if self.requests else "") or make_id())

    def refuse(self, error: RegistryError, request_id: str) -> None:
        """Answer with an error whatever is being read, and close."""
        self._refused = True
        body = envelope_bytes(error)
        self.transport.write(
            b"HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nDocker-Distribution-Api-Version: registry/2.0\r\n"
            b"Connection: close\r\nContent-Length: %d\r\nX-Request-Id: %s\r\n\r\n%s"
            % (error.status, RESPONSES[error.status], len(body), request_id.encode("ascii"), body)
        )
        self._tell_refused(error.status, request_id, len(body))
        self.loseConnection()

    @property
    def refused(self) -> bool:
        """Whether what came was not HTTP."""
        return self._refused

    def _tell_refused(self, status: int, request_id: str, sent: int) -> None:
        """
        For the access log: what came was answered with 400 or 408. It stands there with as much of a request as there was.

        :param sent: bytes of the body of that answer.
        """
        request = self.requests[-1] if self.requests else self.requestFactory(self)
        request.setResponseCode(status)
        request.sentLength = sent
        if not request.begun:
            # One that has is logged when the connection is lost, which is now.
            request.id, request.began = request_id, time.perf_counter()
            request.method, request.uri = getattr(self, "_command", b"-"), getattr(self, "_path", b"-")
            request.clientproto = getattr(self, "_version", b"-")
            self.factory.log(request)

    def _is_unambiguous(self, request: Any) -> bool:
        """Whether it is for one host at most, and ends where everybody says (RFC 9112, sections 3.2 and 6.1)."""
        codings = request.requestHeaders.getRawHeaders(b"Transfer-Encoding", ())
        if len(request.requestHeaders.getRawHeaders(b"Host", ())) > 1 or len(codings) > 1:
            return False
        return not codings or (self._version == b"HTTP/1.1" and codings[0].lower() == b"chunked")
