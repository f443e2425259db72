"""URLs that a remote registry sends us to, and whom one trusts with what. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final
from urllib.parse import urljoin

from regd.config import TCPAddress, Upstream
from regd.config.proxying import parse_upstream

__all__ = ["URL", "BadURL", "Origin", "join", "parse_url", "same_owner"]

_URL: Final = re.compile(r"(https?)://([^/?#\\]+)([/?][^#]*)?(?:#.*)?", re.IGNORECASE)
_VISIBLE: Final = re.compile(r"[!-~]{1,8192}")

#: Scheme, host and port, in one spelling (RFC 6454, section 4).
Origin = tuple[str, str, int]


class BadURL(ValueError):
    """What should be a URL that can be asked is none; ``str()`` repeats nothing of it that could be a secret."""


@dataclass(frozen=True, slots=True, repr=False)
class URL:
    """
    :ivar server: who is to be asked.
    :ivar target: path and query, as a request has them.
    """

    server: Upstream
    target: str

    def __str__(self) -> str:
        """For logs: without the query, which may be a signature."""
        return f"{self.server}{self.target.partition('?')[0]}"

    __repr__ = __str__

    @property
    def origin(self) -> Origin:
        """Whose it is."""
        address = self.server.address
        if isinstance(address, TCPAddress):
            return self.server.scheme, address.host.lower().rstrip("."), address.port
        return self.server.scheme, str(address), 0

    @property
    def text(self) -> str:
        """All of it."""
        return f"{self.server.scheme}://{self.server.authority}{self.target}"


def parse_url(text: str) -> URL:
    """
    Read an absolute URL; a fragment is left out.

    :raises BadURL: for anything but ``http`` and ``https``, and for one with a user or a password in it.
    """
    found = _URL.fullmatch(text) if _VISIBLE.fullmatch(text) is not None else None
    if found is None:
        raise BadURL("it is no URL with http or https and a host")
    if "@" in found[2]:
        raise BadURL("there is a user in it")
    try:
        server = parse_upstream(f"{found[1]}://{found[2]}")
    except ValueError:
        raise BadURL("its host or port is none") from None
    target = found[3] or "/"
    return URL(server, target if target.startswith("/") else f"/{target}")


def join(base: URL, reference: str) -> URL:
    """
    What a ``Location`` or a ``Link`` means, that may be relative (RFC 3986, section 5).

    :raises BadURL: as :func:`parse_url` does.
    """
    try:
        joined = parse_url(urljoin(base.text, reference.strip(" \t")))
    except BadURL:
        raise
    except ValueError:
        # What urljoin thinks of brackets.
        raise BadURL("it is no URL") from None
    if (joined.server.scheme, joined.server.authority) == (base.server.scheme, base.server.authority):
        # Also where that is a Unix socket, which no URL can say.
        return URL(base.server, joined.target)
    return joined


def same_owner(host: str, other: str) -> bool:
    """
    Whether two hosts are as good as one: the same name, or names below the same registered domain.

    Which part of a name one can register, only a list could say (https://publicsuffix.org). Here it is the last two labels, and the last
    three where the second last has three letters or fewer: it might be ``co.uk``. So it is rather no than yes.
    """
    host, other = host.lower().rstrip("."), other.lower().rstrip(".")
    return host == other or (_registered(host) is not None and _registered(host) == _registered(other))


def _registered(host: str) -> str | None:
    try:
        ip_address(host.partition("%")[0])
    except ValueError:
        labels = host.split(".")
        count = 3 if len(labels) > 1 and len(labels[-2]) <= 3 else 2
        return ".".join(labels[-count:]) if len(labels) >= count and all(labels) else None
    return None
