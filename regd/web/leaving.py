"""Listening sockets of a daemon that is about to stop: who has connected is accepted, and nobody is let in to be cut off."""

from __future__ import annotations

import ctypes
import socket
import struct
from contextlib import suppress
from typing import Any, Final

from twisted.python.failure import Failure

__all__ = ["HANDSHAKE", "LeavingPort", "turn_away"]

#: How long whoever is about to be connected takes for that, in seconds: one way there and back, mostly.
HANDSHAKE: Final = 0.1

#: socket(7); Python has no name for it.
_SO_ATTACH_FILTER: Final = 26

#: Drops packets that have SYN set, byte 13 of the header having the flags (RFC 9293, section 3.1), and takes all others. These are
#: instructions of BPF in its classic form, each a code, two jumps and an operand.
_NO_SYN: Final = ((0x30, 0, 0, 13), (0x45, 0, 1, 0x02), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF))


class LeavingPort:
    """
    Mixed into Twisted's ports, for their end. The kernel resets connections that nobody has accepted when their socket is closed, and a
    proxy in front does not ask twice for a change. So they are accepted first.
    """

    #: Whether the socket outlives us, and its queue with it, for whoever serves next.
    queue_stays = False

    def accept_waiting(self: Any) -> None:
        """Accept all who have connected: no more than the queue holds."""
        self.numberAccepts = self.backlog
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
