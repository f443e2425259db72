"""What lines say of a request, under the names that ``registry:2`` gives it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from twisted.internet.address import IPv4Address, IPv6Address

from regd.asked import Asked

__all__ = ["peer", "request_fields"]

#: Fields of the head that are said where they are there, and what they are called.
_HEAD: Final[Mapping[str, bytes]] = {
    "http.request.contenttype": b"Content-Type",
    "http.request.host": b"Host",
    "http.request.referer": b"Referer",
    "http.request.useragent": b"User-Agent",
}


def request_fields(asked: Asked) -> dict[str, object]:
    """A request, for lines of the log that are about it."""
    found: dict[str, object] = {"http.request.id": asked.id, "http.request.method": _text(asked.method)}
    host, port = peer(asked.peer)
    if host:
        found["http.request.remoteaddr"] = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    found["http.request.uri"] = _text(asked.uri)
    for name, field in _HEAD.items():
        values = asked.headers.getRawHeaders(field)
        if values:
            found[name] = _text(values[-1])
    return found


def peer(address: object) -> tuple[str, int]:
    """The host and port of who is connected; an empty text and 0 for a Unix socket."""
    if not isinstance(address, IPv4Address | IPv6Address):
        return "", 0
    # A socket that takes both has IPv4 peers as ::ffff:a.b.c.d.
    return address.host.removeprefix("::ffff:"), address.port


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")
