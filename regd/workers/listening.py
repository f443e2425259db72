"""Listening sockets of the parent: they accept, and leave what to do with a connection to somebody else."""

from __future__ import annotations

import socket
from collections.abc import Callable
from errno import EMFILE, ENFILE, ENOBUFS, ENOMEM
from typing import Any, Final

from twisted.internet import tcp, unix
from twisted.internet.interfaces import IDelayedCall, IListeningPort
from twisted.internet.protocol import Factory
from twisted.logger import Logger

from regd.web.leaving import LeavingPort
from regd.web.listen import listen, listen_on

__all__ = ["Listening"]

#: How many connections are accepted in one turn of the event loop.
AT_ONCE: Final = 64

#: How long nothing is accepted when the process or the machine is out of file descriptors or memory, in seconds.
EXHAUSTED: Final = 1.0

#: How often that is told while it goes on, in seconds.
TOLD_EVERY: Final = 60.0

_OUT_OF = frozenset({EMFILE, ENFILE, ENOBUFS, ENOMEM})


class _Accepts(LeavingPort):
    """Mixed into Twisted's ports, for their making and their end. Nothing of Twisted's is made for a connection."""

    def doRead(self: Any) -> None:  # noqa: N802 - Twisted's name
        """Somebody connects."""
        self.factory.accept(self.socket)

    def accept_waiting(self: Any) -> None:
        """All who have connected."""
        self.factory.accept_all(self.socket, self.backlog)


class _Port(_Accepts, tcp.Port):
    """A listening TCP socket."""


class _UnixPort(_Accepts, unix.Port):
    """A listening Unix socket."""


class Listening(Factory):
    """
    The parent's listening sockets.

    :param accepted: called with each connection.
    """

    _log = Logger()

    # Any: a reactor is typed as the union of what reactors may be.
    def __init__(self, accepted: Callable[[socket.socket], None], reactor: Any) -> None:
        self._accepted = accepted
        self._reactor = reactor
        # Any: pausing is no part of the interface of ports.
        self._ports: list[Any] = []
        self._paused = True
        self._exhausted: IDelayedCall | None = None
        #: When that was last told.
        self._told: float | None = None

    def listen(self, address: Any) -> IListeningPort:
        """
        Listen; nothing is accepted before :meth:`pause` is called with ``False``.

        :param address: as :func:`regd.web.listen.listen` has it.
        :raises CannotListenError: see there.
        """
        return self._add(listen(self._reactor, address, self, _Port, _UnixPort))

    def listen_on(self, listening: socket.socket) -> IListeningPort:
        """As :meth:`listen`, see :func:`regd.web.listen.listen_on`."""
        return self._add(listen_on(self._reactor, listening, self, _Port, _UnixPort))

    def pause(self, paused: bool) -> None:
        """Leave those who connect in the kernel's queue, or take them out of it."""
        self._paused = paused
        self._read_or_not()

    def accept(self, listening: socket.socket, limit: int = AT_ONCE) -> None:
        """
        Accept who has connected.

        :param limit: how many at most.
        """
        for _ in range(limit):
            try:
                connection, _ = listening.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _OUT_OF:
                    self._rest(error)
                    return
                # The client has gone already (ECONNABORTED), or its network has a fault (accept(2)).
                continue
            self._accepted(connection)
            if self._paused:
                return

    def accept_all(self, listening: socket.socket, limit: int) -> None:
        """
        Accept all who have connected, if anybody can be accepted now.

        :param limit: how many the queue holds.
        """
        if not self._paused and self._exhausted is None:
            self.accept(listening, limit)

    def stopFactory(self) -> None:  # noqa: N802 - Twisted's name
        """It listens no longer."""
        self._ports = []
        if self._exhausted is not None:
            self._exhausted.cancel()
            self._exhausted = None

    def _add(self, port: IListeningPort) -> IListeningPort:
        self._ports.append(port)
        self._read_or_not()
        return port

    def _rest(self, error: OSError) -> None:
        now = self._reactor.seconds()
        if self._told is None or now - self._told > TOLD_EVERY:
            self._told = now
            self._log.error("cannot accept connections for a moment: {reason}", reason=error.strerror)
        # With several ports, another one may have said so in the same turn.
        if self._exhausted is None:
            self._exhausted = self._reactor.callLater(EXHAUSTED, self._try_again)
        self._read_or_not()

    def _try_again(self) -> None:
        self._exhausted = None
        self._read_or_not()

    def _read_or_not(self) -> None:
        for port in self._ports:
            if not port.connected:
                continue
            if self._paused or self._exhausted is not None:
                port.stopReading()
            else:
                port.startReading()
