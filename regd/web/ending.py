"""A channel that can be told that its daemon is about to stop: what has been asked is answered, nothing else is taken, and it closes."""

from __future__ import annotations

from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from regd.web.strict import StrictChannel

__all__ = ["ARRIVING", "EndingChannel"]

#: How long a client that has just connected may then take for its first request, in seconds: a way over slow lines and back. Go's server,
#: that of registry:2, gives them five.
ARRIVING: Final = 2.0


class EndingChannel(StrictChannel):
    """One connection."""

    #: Whether the daemon is about to stop: this connection takes no further request.
    _closing = False
    _leaving: IDelayedCall | None = None
    #: Whether anything has come.
    _spoken = False

    def finish_up(self) -> None:
        """
        Answer what has been asked, then close. What the client has sent already counts, so one turn of the event loop reads that first; and
        who has only just connected is about to ask.
        """
        self._closing = True
        self._plainly = False
        for request in self.requests:
            self._say_close(request)
        if self.requests:
            self.persistent = False
        else:
            waiting = 0 if self._spoken and not self._buffer else ARRIVING
            self._leaving = self.callLater(waiting, self._leave)

    def _leave(self) -> None:
        """No request has come, unless one has: that closes the connection when it is answered."""
        if not self.requests:
            self.loseConnection()

    # Any: the class of requests imports this module.
    def _is_last(self, request: Any) -> bool:
        """Whether a request whose head has come is the last one here. Its client is told so."""
        if self._closing:
            self._say_close(request)
        return self._closing

    @staticmethod
    def _say_close(request: Any) -> None:
        """So that the client does not send its next request into a closed connection."""
        request.responseHeaders.setRawHeaders(b"Connection", [b"close"])

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: N802 - Twisted's name
        """It is gone."""
        if self._leaving is not None and self._leaving.active():
            self._leaving.cancel()
        super().connectionLost(reason)
