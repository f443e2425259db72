"""
A channel that handles plain requests, those without a body whose head comes in one piece, in one go.

What ``twisted.web`` does for each request is done here as well, but for what it would only undo when the answer is there, which is at once,
mostly: the time-out is switched off and on, the mode of the line receiver changed and changed back, the transport resumed. All other
requests, and all that is no request, go Twisted's way from their first byte.
"""

from __future__ import annotations

from typing import Any

from twisted.web.http import HTTPChannel

from regd.web.heads import Heads

__all__ = ["PlainChannel"]


class PlainChannel(HTTPChannel):
    """One connection."""

    # Names without a type in Twisted, or with one that says less than is so here.
    transport: Any
    requestFactory: Any  # noqa: N815 - Twisted's name
    _HTTPChannel__first_line: int

    #: Whether requests are handled in one go here: the next one may be the last on its connection, and Twisted's way sees to that.
    _plainly = True
    #: Whether a request is being handled in the very call that its last byte came with.
    _at_once = False
    #: The request whose answer the client has not read, and that has to be read before the next one is handled.
    _unread: Any = None

    def __init__(self) -> None:
        super().__init__()
        self._heads = Heads()

    def dataReceived(self, data: bytes) -> None:  # noqa: N802 - Twisted's name
        """Bytes from the client."""
        # Between two requests, and with nothing left over, a head may begin here.
        may_begin = self._HTTPChannel__first_line == 1 and self.line_mode and self.persistent and not self._buffer
        if may_begin and self._plainly and not self._busyReceiving:
            self.resetTimeout()
            data = self._handle_plain(data)
            if not data:
                return
        super().dataReceived(data)

    def _handle_plain(self, data: bytes) -> bytes:
        """
        Handle the requests that ``data`` begins with.

        :returns: what is left: what is for Twisted's parser, or, while a request is being handled, for later.
        """
        while (head := self._heads.take(data)) is not None:
            method, target, fields, end = head
            data = data[end:]
            request = self.requestFactory(self)
            request.requestHeaders._rawHeaders = fields
            request.field_lines = self._heads.block
            self.requests.append(request)
            request.gotLength(0)
            self._handlingRequest = self._at_once = True
            try:
                request.requestReceived(method, target, b"HTTP/1.1")
            finally:
                self._at_once = False
            if self._handlingRequest:
                # As in allContentReceived: what comes meanwhile is kept for later, and the client is not hurried.
                if self.timeOut:
                    self._savedTimeOut = self.setTimeout(None)
                self.setRawMode()
                break
            if not data or self.transport.disconnecting:
                break
        return data

    def requestDone(self, request: Any) -> None:  # noqa: N802 - Twisted's name
        """A request is answered."""
        if self._waitingForTransport and self.persistent:
            # The client asks faster than it reads. Twisted would go on, and keep all the answers.
            self._unread = request
            self._networkProducer.pauseProducing()
        elif self._at_once and self.persistent:
            # Nothing was changed that would have to be changed back.
            self._handlingRequest = False
            self.requests.remove(request)
        else:
            super().requestDone(request)

    def resumeProducing(self) -> None:  # noqa: N802 - Twisted's name
        """What was written has been sent."""
        super().resumeProducing()
        request, self._unread = self._unread, None
        if request is not None:
            self.requestDone(request)
