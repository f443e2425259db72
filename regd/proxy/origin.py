"""Where a request comes from, by what the trusted proxies in front say. Pure."""

from __future__ import annotations

from collections.abc import Callable

from regd.proxy.fields import Origin
from regd.web.forwarded import HEADERS, find_client, parse_forwarded, said_chain
from regd.web.request import StreamingRequest

__all__ = ["find_client", "find_origin"]

def find_origin(request: StreamingRequest, peer: str, scheme: str, trusts: Callable[[str], bool]) -> Origin:
    """
    The origin of a request whose peer is trusted.

    :param scheme: what the peer used.
    :param trusts: whether what an address says is believed.
    """
    said = {name: value for name in HEADERS if (value := request.getHeader(name)) is not None}
    chain = said_chain(request.header_values)
    client = find_client(peer, chain, request.getHeader("X-Real-IP") or "", trusts)
    return Origin(peer.encode("ascii"), client.encode("ascii"), (parse_forwarded(said).scheme or scheme).encode("ascii"))
