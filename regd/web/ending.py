"""
Channels and ports that can be told that their daemon is about to stop. Who has connected is accepted; what has been asked is answered,
nothing else is taken, and the connection closes.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from contextlib import suppress
from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from regd.web.strict import StrictChannel

__all__ = ["ARRIVING", "HANDSHAKE", "EndingChannel", "LeavingPort", "turn_away"]

#: How long a client that has just connected may then take for its first request, in seconds: a way over slow lines and back. Go's server,
#: that of registry:2, gives them five.
ARRIVING: Final = 2.0

#: How long whoever is about to be connected takes for that, in seconds: one way there and back, mostly.
HANDSHAKE: Final = 0.1

#: socket(7); Python has no name for it.
_SO_ATTACH_FILTER: Final = 26

#: Drops packets that have SYN set, byte 13 of the header having the flags (RFC 9293, section 3.1), and takes all others. These are
#: instructions of BPF in its classic form, each a code, two jumps and an operand.
_NO_SYN: Final = ((0x30, 0, 0, 13), (0x45, 0, 1, 0x02), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF))

#: How many may wait to be accepted, or more.
_MOST_WAITING: Final = 1024


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


class LeavingPort:
    """
    Mixed into Twisted's ports, for their end. The kernel resets connections that nobody has accepted when their socket is closed, and a
    proxy in front does not ask twice for a change. So they are accepted first.
    """

    #: Whether the socket outlives us, and its queue with it, for whoever serves next.
    queue_stays = False

    def accept_waiting(self: Any) -> None:
        """Accept all who have connected."""
        self.numberAccepts = _MOST_WAITING
        self.doRead()

    def connectionLost(self: Any, reason: Failure) -> None:  # noqa: N802 - Twisted's name
        """Close the socket."""
        if not self.queue_stays:
            self.accept_waiting()
        super().connectionLost(reason)  # type: ignore[misc] # that of a port


# Any: a listening port of Twisted.
def turn_away(port: Any) -> None:
    """
    Let nobody connect any more who has not begun to. A socket that is simply closed resets whoever connects in that very moment, when they
    may have sent a request already. So their first packets are dropped, those who have begun are given :data:`HANDSHAKE`, and are accepted;
    then the socket can be closed. Who was dropped tries again, a second later, and is refused.
    """
    # The queue of a socket that stays is served by whoever comes next; and one of this machine's own connects in one go.
    if port.queue_stays or port.socket.family == socket.AF_UNIX:
        return
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *instruction) for instruction in _NO_SYN))
    # Where it cannot be had, it is a matter of luck, as ever.
    with suppress(OSError):
        port.socket.setsockopt(
            socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(_NO_SYN), ctypes.addressof(program))
        )
