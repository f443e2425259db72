"""Listen addresses, as Go's ``net.Listen`` writes them: ``:5000``, ``localhost:5000``, ``[::1]:5000``."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

__all__ = ["AddressError", "TCPAddress", "UnixAddress", "parse_tcp_address", "parse_unix_address"]

#: Host names: RFC 1123 section 2.1 labels, and the underscore that container networks use.
_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\Z")
#: What may follow ``%`` in an IPv6 address (RFC 4007 section 11): the name or the number of an interface.
_ZONE = re.compile(r"[A-Za-z0-9._-]{1,15}\Z")
#: ``sun_path`` holds 108 bytes on Linux, the NUL at its end included (unix(7)).
_UNIX_PATH_BYTES = 107


class AddressError(ValueError):
    """A text that is no address; ``str()`` says what is allowed."""


@dataclass(frozen=True)
class TCPAddress:
    """Where to listen.

    :ivar host: a name or an IP address without brackets; empty is every address of the machine.
    :ivar port: 0 to 65535; 0 lets the kernel choose.
    """

    host: str
    port: int

    def __str__(self) -> str:
        """Write the address so that :func:`parse_tcp_address` reads it again."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class UnixAddress:
    """The path of a Unix socket."""

    path: str

    def __str__(self) -> str:
        """Write the path."""
        return self.path


def parse_tcp_address(text: str) -> TCPAddress:
    """Read ``host:port``.

    :raises AddressError: anything else. Names of ports (``:http``) are refused: what they mean depends on the machine.
    """
    host, colon, port = text.rpartition(":")
    if not colon or host.endswith(":"):
        msg = "host:port, such as :5000, localhost:5000 or [::1]:5000"
        raise AddressError(msg)
    if not (port.isascii() and port.isdigit()) or len(port) > 5 or int(port) > 65535:
        msg = "a port that is a number from 0 to 65535 (names of ports are not)"
        raise AddressError(msg)
    return TCPAddress(_host(host), int(port))


def parse_unix_address(text: str) -> UnixAddress:
    """Read the path of a Unix socket.

    :raises AddressError: an empty path, one that does not fit into a socket address, or an abstract one (``@name``).
    """
    if not text or "\0" in text or text.startswith("@"):
        msg = "the path of a socket (abstract sockets, @name, are not supported)"
        raise AddressError(msg)
    if len(os.fsencode(text)) > _UNIX_PATH_BYTES:
        msg = f"the path of a socket of at most {_UNIX_PATH_BYTES} bytes"
        raise AddressError(msg)
    return UnixAddress(text)


def _host(text: str) -> str:
    """Check the part before the port, and take the brackets off an IPv6 address."""
    if text.startswith("[") and text.endswith("]"):
        literal, percent, zone = text[1:-1].partition("%")
        try:
            IPv6Address(literal)
        except ValueError:
            literal = ""
        if not literal or (percent and not _ZONE.match(zone)):
            msg = "an IPv6 address between the brackets, such as [::1]:5000"
            raise AddressError(msg)
        return text[1:-1]
    if ":" in text:
        msg = "an IPv6 address in brackets, such as [::1]:5000"
        raise AddressError(msg)
    if not text:
        return ""
    if re.fullmatch(r"[0-9.]+", text):
        try:
            return str(IPv4Address(text))
        except ValueError:
            msg = "an IPv4 address of four numbers from 0 to 255, such as 127.0.0.1:5000"
            raise AddressError(msg) from None
    if len(text) > 253 or not all(_LABEL.match(label) for label in text.removesuffix(".").split(".")):
        msg = "the name or the address of this machine before the port"
        raise AddressError(msg)
    return text
