"""Where a request comes from, by what the trusted proxies in front say. Pure."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address

from regd.proxy.fields import Origin
from regd.web.forwarded import HEADERS, parse_forwarded
from regd.web.request import StreamingRequest

__all__ = ["find_client", "find_origin"]


def find_origin(request: StreamingRequest, peer: str, scheme: str, trusts: Callable[[str], bool]) -> Origin:
    """
    The origin of a request whose peer is trusted.

    :param scheme: what the peer used.
    :param trusts: whether what an address says is believed.
    """
    said = {name: value for name in HEADERS if (value := request.getHeader(name)) is not None}
    chain = ", ".join(request.header_values("X-Forwarded-For"))
    client = find_client(peer, chain, request.getHeader("X-Real-IP") or "", trusts)
    return Origin(peer.encode("ascii"), client.encode("ascii"), (parse_forwarded(said).scheme or scheme).encode("ascii"))


def find_client(peer: str, chain: str, real: str, trusts: Callable[[str], bool]) -> str:
    """
    The address of the client.

    :param chain: ``X-Forwarded-For``: each proxy has added the address of who asked it.
    :param real: ``X-Real-IP``, which counts where there is no chain.
    :returns: the last address in the chain that is not one of the trusted proxies; the peer's where nothing that is said is an address.
    """
    found = peer
    for said in reversed([part.strip() for part in chain.split(",")] if chain else [real.strip()]):
        try:
            ip_address(said)
        except ValueError:
            break
        found = said
        if not trusts(said):
            break
    return found
