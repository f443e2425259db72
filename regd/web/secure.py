"""
Connections that speak TLS: OpenSSL straight on the socket.

``twisted.protocols.tls`` has OpenSSL write into memory, and copies from there to the socket; and nobody but the event loop can read what
arrives. Here a connection is the transport itself, so that what :mod:`regd.web.transport` does for plain ones holds for these: a file is
sent piece by piece as the socket has room, encrypted on the way, and a thread can read, decrypt, hash and store an upload by itself.

A thread and the event loop may both want a connection of OpenSSL's, which is not made for that: each call of it is made under a lock, for
the time that one record takes (16 KiB, some ten microseconds).
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from errno import EAGAIN, EPIPE
from threading import Lock
from typing import Any, Final, Protocol

from OpenSSL import SSL
from twisted.internet import tcp, unix
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.python.failure import Failure
from zope.interface import implementer

from regd.web.transport import Lease, SendingTransport

__all__ = ["Acceptor", "SecureServer", "SecureTransport", "SecureUnixServer"]

#: What a record of TLS holds at most, in bytes (RFC 8446, section 5.1).
RECORD: Final = 16 * 1024

#: How much of a file is read and encrypted before the rest of it is looked at, in bytes; and how much in one turn of the event loop: a
#: millisecond, where a client reads fast.
_PIECE: Final = 64 * 1024
_IN_ONE_TURN: Final = 1024 * 1024

#: How long a client that speaks no TLS has to read that it should, in seconds.
_LINGER: Final = 2.0

#: What such a client is told, in words that it can make something of.
_NOT_TLS: Final = b"This is an HTTPS port, and this was a plain HTTP request. Ask again with https:// in the URL.\n"
_BAD_REQUEST: Final = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(_NOT_TLS), _NOT_TLS)
)

#: Pieces of files on their way, of whichever connection is at it: what the socket has no room for is read again.
_PIECES: Final = bytearray(_PIECE)


class Acceptor(Protocol):
    """What a connection is accepted with."""

    def connection(self, connected: socket.socket) -> SSL.Connection:
        """OpenSSL's end of a connection, for a server."""

    def user(self, connection: SSL.Connection) -> str:
        """The name in the client's certificate; empty where there is none that was verified."""

    def accepted(self) -> None:
        """A handshake is complete."""

    def refused(self, peer: object, reason: str) -> None:
        """A handshake has failed."""


class _SecureLease(Lease):
    """
    As a plain one; what is read has been decrypted.

    :param connection: the transport's own, which closes it under the lock, too.
    """

    def __init__(self, connected: socket.socket, connection: SSL.Connection, lock: Lock) -> None:
        super().__init__(connected)
        self._connection = connection
        self._lock = lock

    def _receive(self, room: memoryview) -> int:
        """As much as has come, and not only one record: who hashes and stores it does so with less ado."""
        received = 0
        try:
            while received < len(room) and not self._stopped:
                with self._lock:
                    received += self._connection.recv_into(room[received : received + RECORD])
        except (SSL.WantReadError, SSL.WantWriteError):
            if not received:
                raise BlockingIOError from None
        except SSL.Error as error:
            if not received:
                raise OSError(EPIPE, str(error)) from None
        return received


class SecureTransport(SendingTransport):
    """Mixed into Twisted's stream transports, as what it is made from, whose ``Any`` it has for the same reason."""

    #: The kernel cannot encrypt what it moves.
    relays = False

    #: Who the client's certificate says it is.
    certified = ""

    # Any: Twisted's transports begin to read before they are told of TLS.
    _tls: Any = None
    _acceptor: Any = None
    #: Whether the handshake is complete; and whether the client is being told that there has to be one.
    _shaken = False
    _turned_away = False
    #: Whether OpenSSL has to write before it can read on.
    _crossed = False
    #: Whether the protocol wants to read; and the turn in which it is going to, without any more from the socket.
    _reads = False
    _soon: Any = None
    #: When who speaks no TLS is cut off.
    _cutting: Any = None

    def accept_tls(self: Any, acceptor: Acceptor) -> None:
        """Speak TLS from the first byte on."""
        self._acceptor = acceptor
        self._lock = Lock()
        self._tls = acceptor.connection(self.socket)

    @property
    def shaking(self) -> bool:
        """Whether the handshake is still to be made."""
        return not self._shaken and not self._turned_away

    def getPeerCertificate(self: Any) -> Any:  # noqa: N802 - ISSLTransport's name
        """That of the client, verified or not; or ``None``."""
        return self._tls.get_peer_certificate()

    # Reading.

    def startReading(self: Any) -> None:  # noqa: N802 - Twisted's name
        """What OpenSSL holds already makes no socket readable, so look."""
        super().startReading()
        if self._lease is None and not self._reads:
            self._reads = True
            if self._shaken and self._tls.pending():
                self._read_soon()

    def stopReading(self: Any) -> None:  # noqa: N802 - Twisted's name
        """Read no more for now."""
        self._reads = False
        super().stopReading()  # type: ignore[misc]  # that of a transport

    def doRead(self: Any) -> Any:  # noqa: N802 - Twisted's name
        """There is something to read."""
        if self._lease is not None:
            return None
        if self._turned_away:
            return self._read_plain()
        return self._receive() if self._shaken else self._shake()

    def _receive(self: Any) -> Any:
        chunks = []
        size = 0
        ended: Any = None
        while size < self.bufferSize and ended is None:
            try:
                with self._lock:
                    chunk = self._tls.recv(RECORD)
            except SSL.WantReadError:
                break
            except SSL.WantWriteError:
                self._crossed = True
                self.startWriting()
                break
            except SSL.ZeroReturnError:
                ended = CONNECTION_DONE
            except SSL.Error:
                ended = CONNECTION_LOST
            else:
                chunks.append(chunk)
                size += len(chunk)
        if not chunks:
            return ended
        result = self._dataReceived(b"".join(chunks))
        if self._reads and (ended is not None or size >= self.bufferSize):
            # What the client said comes first; its good-bye, or what follows, may make the socket readable no more.
            self._read_soon()
        return result

    def _read_soon(self: Any) -> None:
        if self._soon is None:
            self._soon = self.reactor.callLater(0, self._read_now)

    def _read_now(self: Any) -> None:
        self._soon = None
        if self.connected and self._reads:
            why = self.doRead()
            if why is not None:
                self.connectionLost(Failure(why))

    # The handshake.

    def _shake(self: Any) -> Any:
        try:
            self._tls.do_handshake()
        except SSL.WantReadError:
            return None
        except SSL.WantWriteError:
            self.startWriting()
            return None
        except SSL.Error as error:
            return self._refuse(error)
        self._shaken = True
        self.certified = self._acceptor.user(self._tls)
        self._acceptor.accepted()
        if self.unsent or self.disconnecting:
            self.startWriting()
        return self._receive()

    def _refuse(self: Any, error: SSL.Error) -> Any:
        reasons = [entry[-1] for entry in error.args[0]] if error.args and isinstance(error.args[0], list) else []
        if "http request" not in reasons:
            self._acceptor.refused(self.getPeer(), "; ".join(dict.fromkeys(reasons)) or "the client has gone")
            return CONNECTION_LOST
        self._acceptor.refused(self.getPeer(), "the client speaks plain HTTP")
        # As with any answer: to close with bytes of the client's unread would take it away again.
        self._turned_away = True
        with suppress(OSError):
            self.socket.send(_BAD_REQUEST)
            self.socket.shutdown(socket.SHUT_WR)
        self._cutting = self.reactor.callLater(_LINGER, self._cut)
        return self._read_plain()

    def _read_plain(self: Any) -> Any:
        try:
            return None if self.socket.recv(self.bufferSize) else CONNECTION_DONE
        except OSError as error:
            return None if error.errno == EAGAIN else CONNECTION_LOST

    def _cut(self: Any) -> None:
        self._cutting = None
        self.abortConnection()

    # Writing.

    def doWrite(self: Any) -> Any:  # noqa: N802 - Twisted's name
        """The socket has room."""
        if not self._shaken:
            self.stopWriting()
            return CONNECTION_DONE if self.disconnecting or self._turned_away else self._shake()
        if self._crossed:
            self._crossed = False
            why = self._receive()
            if why is not None:
                return why
        return super().doWrite()

    def writeSomeData(self: Any, data: bytes) -> Any:  # noqa: N802 - Twisted's name
        """Write some of what waits."""
        try:
            return self._encrypt(data)
        except OSError:
            return CONNECTION_LOST

    def _send_at_once(self: Any, data: bytes) -> int:
        return self._encrypt(data)  # type: ignore[no-any-return]  # self is Any

    def _send_from(self: Any, fd: int, offset: int, count: int) -> int:
        sent = 0
        count = min(count, _IN_ONE_TURN)
        while sent < count:
            # What the socket had no room for is read again, and is the same: the stored files do not change.
            length = os.preadv(fd, [memoryview(_PIECES)[: count - sent]], offset + sent)
            taken: int = self._encrypt(memoryview(_PIECES)[:length])
            sent += taken
            if taken < length:
                break
            if not length:
                # The file has become shorter than it was; what calls this knows what to do when there is nothing.
                return sent
        if not sent:
            raise BlockingIOError(EAGAIN, "no room")
        return sent

    def _encrypt(self: Any, data: bytes | memoryview) -> int:
        """
        Send as much as the socket has room for. Bytes that were not taken have to come again: OpenSSL may have encrypted some of them.

        :returns: how many bytes were taken.
        :raises OSError: when the connection is gone.
        """
        sent = 0
        if not self._shaken or self._turned_away:
            return 0
        view = memoryview(data)
        try:
            while sent < len(view):
                with self._lock:
                    sent += self._tls.send(view[sent:])
        except (SSL.WantWriteError, SSL.WantReadError):
            pass
        except SSL.Error:
            if not sent:
                raise OSError(EPIPE, "the connection is gone") from None
        return sent

    # Lending.

    def _make_lease(self: Any) -> Lease:
        return _SecureLease(self.socket, self._tls, self._lock)

    # The end.

    def _closeWriteConnection(self: Any) -> None:  # noqa: N802 - Twisted's name
        self._say_goodbye()
        super()._closeWriteConnection()  # type: ignore[misc]  # that of a transport

    def _closeSocket(self: Any, orderly: bool) -> None:  # noqa: N802 - Twisted's name
        """A thread may be about to read from the descriptor that is closed here; its own stays open, but OpenSSL's is this one."""
        if orderly:
            self._say_goodbye()
        with self._lock:
            if self._lease is not None:
                self._lease.stop()
            super()._closeSocket(orderly)  # type: ignore[misc]  # that of a transport

    def _say_goodbye(self: Any) -> None:
        """``close_notify`` (RFC 8446, section 6.1)."""
        if self._shaken:
            with self._lock, suppress(SSL.Error):
                self._tls.shutdown()

    def connectionLost(self: Any, reason: Failure) -> None:  # noqa: N802 - Twisted's name
        """The client is gone."""
        for call in (self._soon, self._cutting):
            if call is not None:
                call.cancel()
        self._soon = self._cutting = None
        super().connectionLost(reason)


@implementer(ISSLTransport)
class SecureServer(SecureTransport, tcp.Server):
    """An accepted TCP connection."""


@implementer(ISSLTransport)
class SecureUnixServer(SecureTransport, unix.Server):
    """An accepted connection of a Unix socket."""
