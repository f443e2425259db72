"""Listening sockets whose connections can send files."""

from __future__ import annotations

import os
import socket
import stat
from contextlib import suppress
from typing import Any, Protocol

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.internet.tcp import Port
from twisted.internet.unix import Port as UnixPort

from regd.web.ports import SendingPort, SendingUnixPort

__all__ = ["listen", "listen_on", "url_of"]

#: How many connections may wait to be accepted.
_BACKLOG = 1024

#: Everybody on the machine may use a Unix socket of ours; who may reach it is decided by its directory.
_SOCKET_MODE = 0o666


class _TCP(Protocol):
    @property
    def host(self) -> str: ...

    @property
    def port(self) -> int: ...


class _Unix(Protocol):
    @property
    def path(self) -> str: ...


# Any: a reactor is typed as the union of what reactors may be.
def listen(
    reactor: Any,
    address: _TCP | _Unix,
    site: Any,
    tcp: type[Port] = SendingPort,
    unix: type[UnixPort] = SendingUnixPort,
) -> IListeningPort:
    """
    Listen on an address.

    :param site: the factory; ``Any``: Twisted's are generic in protocols that know them.
    :param tcp: what listens on it, if it is one of TCP.
    :param unix: if it is the path of a socket.
    :raises CannotListenError: when somebody else does, or it is not ours to have.
    """
    # Twisted writes a line at each start and stop of a noisy factory.
    site.noisy = False
    if hasattr(address, "path"):
        _remove_stale(address.path)
        port: Any = unix(os.fsencode(address.path), site, _BACKLOG, _SOCKET_MODE, reactor)
    else:
        port = tcp(address.port, site, _BACKLOG, _interface(address.host), reactor)
    port.startListening()
    if not hasattr(address, "path"):
        _keep_alive(port.socket)
    listening: IListeningPort = port
    return listening


def listen_on(
    reactor: Any,
    listening: socket.socket,
    site: Any,
    tcp: type[Port] = SendingPort,
    unix: type[UnixPort] = SendingUnixPort,
) -> IListeningPort:
    """
    Listen on a socket that somebody has bound for us and keeps, too: systemd. Parameters are those of :func:`listen`.

    :param listening: ours from now on.
    """
    site.noisy = False
    with listening:
        # Any: what makes a port of a socket is not declared, and the public adoptStreamPort() makes a plain one. It copies the descriptor.
        port: Any = unix if listening.family == socket.AF_UNIX else tcp
        if listening.family == socket.AF_UNIX:
            port = port._fromListeningDescriptor(reactor, listening.fileno(), site)
            # The file and its mode are the business of whoever made it. Of an abstract name there is no file to see to.
            port._bindPath = b"\0"
            # Connections would be refused while we restart, by a socket that is there to keep them.
            port._shouldShutdown = False
        else:
            port = port._fromListeningDescriptor(reactor, listening.fileno(), listening.family, site)
            _keep_alive(listening)
        port.queue_stays = True
    port.startListening()
    made: IListeningPort = port
    return made


def url_of(port: IListeningPort, path: str, scheme: str = "http") -> str:
    """A listening socket as a person would type it, ``path`` beginning with ``/``."""
    address = port.getHost()
    if isinstance(address, UNIXAddress):
        return f"unix:{os.fsdecode(address.name or b'')}"
    assert isinstance(address, IPv4Address | IPv6Address)
    host = f"[{address.host}]" if ":" in address.host else address.host
    return f"{scheme}://{host}:{address.port}{path}"


def _keep_alive(listening: socket.socket) -> None:
    """
    Notice clients that vanish without a word while we wait for them or send to them, and send the last bytes of an answer when they are
    written, not when the client has acknowledged those before them. Accepted connections inherit this.
    """
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60)
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15)
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)


def _interface(host: str) -> str:
    """All addresses are those of IPv4 and IPv6, where the machine has both."""
    if host:
        return host if _is_address(host) else _resolved(host)
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::", 0))
    except OSError:
        return ""
    return "::"


def _resolved(host: str) -> str:
    """
    The address of a name; the IPv4 one where it has both, as Go has it.

    :raises CannotListenError: when nobody knows the name.
    """
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise CannotListenError(host, 0, error) from None
    found.sort(key=lambda entry: entry[0] != socket.AF_INET)
    return str(found[0][4][0])


def _is_address(host: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        with suppress(OSError):
            socket.inet_pton(family, host.partition("%")[0])
            return True
    return False


def _remove_stale(path: str) -> None:
    """Remove the socket of a daemon that was killed; one that answers is left, and listening fails."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(path)
    except ConnectionRefusedError:
        with suppress(OSError):
            os.unlink(path)
    except OSError:
        return

