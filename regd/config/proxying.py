"""What a reverse proxy is told: routes, the upstreams that they lead to, and how to talk to those."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from regd.config.addresses import TCPAddress, UnixAddress, parse_tcp_address, parse_unix_address

__all__ = ["HealthCheck", "Route", "Timeouts", "Upstream", "UpstreamTLS", "parse_upstream"]

_URL = re.compile(r"(https?)://([^/?#\s]+)(/?)\Z", re.IGNORECASE)
_PORTS = {"http": 80, "https": 443}
_ALLOWED = "http://host[:port], https://host[:port] or unix:/path/of/socket, without user, path, query and fragment"


@dataclass(frozen=True)
class Upstream:
    """One server that requests are passed on to.

    :ivar scheme: how it is spoken to; a Unix socket is always ``http``.
    :ivar authority: the host and perhaps the port, as the operator wrote them; ``localhost`` for a Unix socket.
    """

    scheme: Literal["http", "https"]
    address: TCPAddress | UnixAddress
    authority: str

    def __str__(self) -> str:
        """Write it so that :func:`parse_upstream` reads it again."""
        return f"unix:{self.address}" if isinstance(self.address, UnixAddress) else f"{self.scheme}://{self.authority}"


def parse_upstream(text: str) -> Upstream:
    """Read the URL of an upstream.

    :raises ValueError: anything else; the message says what is allowed. A path is refused, because requests are passed on under the path
        that the client asked for.
    """
    if text.startswith("unix:/"):
        return Upstream("http", parse_unix_address(text.removeprefix("unix:")), "localhost")
    found = _URL.match(text)
    if found is None or "@" in found[2]:
        raise ValueError(_ALLOWED)
    if not found[2].isascii():
        msg = f"{_ALLOWED}; a name that is not in ASCII in the form that DNS has, xn--..."
        raise ValueError(msg)
    scheme: Literal["http", "https"] = "https" if found[1].lower() == "https" else "http"
    authority = found[2]
    named = re.search(r":[0-9]*\Z", authority.rpartition("]")[2]) is not None
    address = parse_tcp_address(authority if named else f"{authority}:{_PORTS[scheme]}")
    if not address.host or not address.port:
        raise ValueError(_ALLOWED)
    return Upstream(scheme, address, authority)


@dataclass(frozen=True)
class UpstreamTLS:
    """``tls`` of a route: how its upstreams prove who they are, and we to them.

    :ivar cafile: the certificates that are trusted, in PEM; empty for those that the system trusts.
    :ivar servername: the name that is asked for and that has to be in the certificate; empty for the host of the upstream's URL.
    :ivar clientcertificate: a certificate chain in PEM, or empty.
    :ivar clientkey: its key; given if and only if ``clientcertificate`` is.
    """

    cafile: str = ""
    servername: str = ""
    clientcertificate: str = ""
    clientkey: str = ""


@dataclass(frozen=True)
class HealthCheck:
    """``healthcheck`` of a route.

    :ivar path: what is asked for with GET; every status below 500 is healthy.
    :ivar interval: seconds between two checks of one upstream.
    :ivar threshold: after so many failures in a row an upstream gets no requests, until it answers again.
    """

    path: str
    interval: float = 10.0
    threshold: int = 3


@dataclass(frozen=True)
class Timeouts:
    """``timeouts`` of a route, in seconds.

    :ivar connect: for a connection, a TLS handshake included.
    :ivar read: between two reads from an upstream that has its request, and until it begins to answer.
    :ivar write: between two writes, to an upstream that takes nothing, or to a client that takes nothing of the answer.
    """

    connect: float = 10.0
    read: float = 900.0
    write: float = 60.0


@dataclass(frozen=True)
class Route:
    """Which requests go where.

    :ivar path: what the path of a request begins with; itself beginning with ``/``.
    :ivar host: the host that a request has to be for, in lower case; empty for any.
    :ivar status: what is answered where there are no ``upstreams``; 0 where there are.
    """

    path: str
    host: str = ""
    status: int = 0
    upstreams: tuple[Upstream, ...] = ()
    tls: UpstreamTLS = UpstreamTLS()
    healthcheck: HealthCheck | None = None
    timeouts: Timeouts = field(default_factory=Timeouts)
