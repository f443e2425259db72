"""Listening sockets of those who serve, and the transports of what they accept: with TLS where the site says so, plain where not."""

from __future__ import annotations

import errno
import socket
from typing import Any

from twisted.internet import tcp, unix
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress

from regd.web.leaving import LeavingPort
from regd.web.secure import SecureServer, SecureUnixServer
from regd.web.transport import SendingServer, SendingUnixServer

__all__ = ["SendingPort", "SendingUnixPort", "adopt"]


class SendingPort(LeavingPort, tcp.Port):
    """A listening TCP socket."""

    # Any: Twisted calls this as it calls a class of transports, with untyped things of its own.
    def transport(self, *made_of: Any) -> Any:  # type: ignore[override]  # it is a class there, or what makes one
        """What serves a connection."""
        return _made(SendingServer, SecureServer, self.factory, *made_of)


class SendingUnixPort(LeavingPort, unix.Port):
    """A listening Unix socket."""

    # Any: as above.
    def transport(self, *made_of: Any) -> Any:  # type: ignore[override]  # it is a class there, or what makes one
        """What serves a connection."""
        return _made(SendingUnixServer, SecureUnixServer, self.factory, *made_of)


def adopt(connection: socket.socket, factory: Any, reactor: Any) -> None:
    """
    Serve a connection that another process has accepted, as a port of ours would.

    :param connection: ours from now on.
    :param factory: ``Any``: Twisted's factories are generic in protocols that know them.
    :raises OSError: when it has been reset since, or is one too many; closing it is left to the caller.
    """
    connection.setblocking(False)
    peer: Any = connection.getpeername()
    # Any: Twisted's transports take whatever address fits their family.
    kinds: tuple[Any, Any] = SendingServer, SecureServer
    address: IAddress
    if connection.family == socket.AF_UNIX:
        kinds, address = (SendingUnixServer, SecureUnixServer), UNIXAddress(peer or None)
    elif connection.family == socket.AF_INET6:
        # With the scope of a link-local address, as Twisted's port has it.
        host, _ = socket.getnameinfo(peer, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)
        peer = (host, *peer[1:])
        address = IPv6Address("TCP", *peer)
    else:
        address = IPv4Address("TCP", *peer)
    protocol = factory.buildProtocol(address)
    if protocol is None:
        # It is one too many.
        raise ConnectionRefusedError(errno.ECONNREFUSED, "there are too many connections")
    transport = _made(*kinds, factory, connection, protocol, peer, None, 0, reactor)
    transport.repstr = f"<{type(protocol).__name__}, adopted>"
    protocol.makeConnection(transport)


# Any: what Twisted makes transports of has no types.
def _made(plain: Any, secure: Any, factory: Any, *made_of: Any) -> Any:
    acceptor = getattr(factory, "secure", None)
    if acceptor is None:
        return plain(*made_of)
    transport = secure(*made_of)
    transport.accept_tls(acceptor)
    return transport
