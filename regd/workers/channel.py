"""
The channel between the parent and one worker, over which connections go one way and counts the other: a pair of ``SOCK_SEQPACKET`` sockets.

To the worker, a packet is one connection: one byte, the family of the socket, and the socket itself (unix(7), ``SCM_RIGHTS``). From the
worker, a packet is a :class:`Report`. A worker says that it has a connection before it reads a byte of it, so one that nobody says that he
has can be given to somebody else.
"""

from __future__ import annotations

import socket
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from twisted.internet.interfaces import IReadDescriptor, IReadWriteDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

__all__ = ["GivingEnd", "Report", "TakingEnd", "channel_pair"]

#: How many packets are read in one turn of the event loop.
AT_ONCE: Final = 32

_REPORT = struct.Struct("!III")
_DESCRIPTOR = struct.Struct("=i")

#: The room for one, in a message's ancillary data.
_ONE_DESCRIPTOR = socket.CMSG_LEN(_DESCRIPTOR.size)


class Report(NamedTuple):
    """
    What a worker says, about the connections that it was given, in the order in which it was given them.

    :ivar taken: it has so many more.
    :ivar refused: so many that follow could not be taken: no file descriptor was free.
    :ivar closed: so many have ended.
    """

    taken: int = 0
    refused: int = 0
    closed: int = 0

    def to_bytes(self) -> bytes:
        """A packet."""
        return _REPORT.pack(*self)

    @classmethod
    def from_bytes(cls, packet: bytes) -> Report:
        """
        :raises ValueError: when this is none.
        """
        if len(packet) != _REPORT.size:
            raise ValueError(f"a report of {len(packet)} bytes")
        return cls(*_REPORT.unpack(packet))


def channel_pair() -> tuple[socket.socket, socket.socket]:
    """
    :returns: the parent's end, and the worker's.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    theirs.setblocking(False)
    return ours, theirs


class _End(ABC):
    """
    What the event loop wants of either end.

    :param channel: this end, which is read from now on.
    """

    # Any: a reactor is typed as the union of what reactors may be.
    def __init__(self, channel: socket.socket, reactor: Any) -> None:
        self._socket = channel
        self._reactor = reactor
        self._closed = False
        reactor.addReader(self)

    @abstractmethod
    def close(self) -> None:
        """It is over. May be called again."""

    def connectionLost(self, reason: Failure) -> None:  # noqa: N802 - Twisted's name
        """The event loop has noticed that it is over."""
        self.close()

    def fileno(self) -> int:
        """For the event loop; -1 when it is closed."""
        return self._socket.fileno()

    def logPrefix(self) -> str:  # noqa: N802 - Twisted's name
        """For the event loop."""
        return "regd"


@implementer(IReadDescriptor)
class GivingEnd(_End):
    """
    The parent's end.

    :param reported: called with each report; may raise :exc:`ValueError`, which ends it.
    :param ended: called once, when the worker's end is closed, by the worker or by its death, and all that it said has been heard.
    """

    _log = Logger()

    def __init__(self, channel: socket.socket, reported: Callable[[Report], None], ended: Callable[[], None], reactor: Any) -> None:
        self._reported = reported
        self._ended = ended
        super().__init__(channel, reactor)

    def send(self, connection: Any) -> bool:
        """
        Hand a connection over; our copy stays open.

        :param connection: a socket.
        :returns: ``False`` when that is not possible now, or never again.
        """
        if self._closed:
            return False
        try:
            socket.send_fds(self._socket, [bytes((connection.family,))], [connection.fileno()])
        except OSError:
            # Full (EAGAIN), or the kernel will not have more descriptors on their way (ETOOMANYREFS). Or the other end is gone; what it
            # said before it went is still to be heard, so that is left to doRead().
            return False
        return True

    def doRead(self) -> None:  # noqa: N802 - Twisted's name
        """There are reports."""
        for _ in range(AT_ONCE):
            if not self._hear():
                return

    def finish(self) -> None:
        """The worker has ended: hear what is left to be heard, and close."""
        while self._hear():
            pass
        self.close()

    def _hear(self) -> bool:
        """
        :returns: whether there may be more.
        """
        try:
            packet = b"" if self._closed else self._socket.recv(_REPORT.size + 1)
            if packet:
                self._reported(Report.from_bytes(packet))
                return True
        except BlockingIOError:
            return False
        except ConnectionResetError:
            # It went with connections unread. That is told once, and before what it has said.
            return True
        except OSError:
            pass
        except ValueError:
            self._log.failure("a worker makes no sense, and gets no more connections")
        self.close()
        return False

    def close(self) -> None:
        """No more is given. May be called again."""
        if not self._closed:
            self._closed = True
            self._reactor.removeReader(self)
            self._socket.close()
            self._ended()


@implementer(IReadWriteDescriptor)
class TakingEnd(_End):
    """
    The worker's end.

    :param adopt: called with each connection, when the parent has been told that it is here. When it is over, :meth:`connection_closed` has
        to be called.
    """

    def __init__(self, channel: socket.socket, adopt: Callable[[socket.socket], None], reactor: Any) -> None:
        self._adopt = adopt
        self._taken: list[socket.socket] = []
        self._refused = 0
        self._ended = 0
        super().__init__(channel, reactor)

    def connection_closed(self) -> None:
        """One that was adopted is over."""
        self._ended += 1
        self._tell()

    def doRead(self) -> None:  # noqa: N802 - Twisted's name
        """There are connections."""
        try:
            for _ in range(AT_ONCE):
                # Not socket.recv_fds(), which makes nothing of its flags (Python 3.11 to 3.13).
                packet, passed, _, _ = self._socket.recvmsg(1, _ONE_DESCRIPTOR, socket.MSG_CMSG_CLOEXEC)
                if not packet:
                    self.close()
                    return
                if passed:
                    (descriptor,) = _DESCRIPTOR.unpack(passed[0][2])
                    self._taken.append(socket.socket(packet[0], socket.SOCK_STREAM, fileno=descriptor))
                else:
                    # No descriptor was free, and the kernel has closed the connection's.
                    self._refused += 1
                    break
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        self._tell()

    def doWrite(self) -> None:  # noqa: N802 - Twisted's name
        """The parent has heard what was said before."""
        self._reactor.removeWriter(self)
        self._reactor.addReader(self)
        self._tell()

    def close(self) -> None:
        """Take no more: what has not been taken is somebody else's. May be called again."""
        if not self._closed:
            self._closed = True
            self._reactor.removeReader(self)
            self._reactor.removeWriter(self)
            self._socket.close()
            for connection in self._taken:
                connection.close()
            self._taken.clear()

    def _tell(self) -> None:
        report = Report(len(self._taken), self._refused, self._ended)
        if self._closed or not any(report):
            return
        try:
            self._socket.send(report.to_bytes())
        except BlockingIOError:
            # The parent is behind. Nothing more is taken before it knows what has been.
            self._reactor.removeReader(self)
            self._reactor.addWriter(self)
            return
        except OSError:
            self.close()
            return
        taken, self._taken, self._refused, self._ended = self._taken, [], 0, 0
        for connection in taken:
            self._adopt(connection)
