"""Where a request comes from, by what the trusted proxies in front say. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import ip_address
from typing import Final

from regd.proxy.fields import Origin
from regd.web.forwarded import HEADERS, forwarded_for, parse_forwarded
from regd.web.request import StreamingRequest

__all__ = ["find_client", "find_origin"]

#: An IPv6 address in brackets, with a port perhaps; or an IPv4 address with a port.
_NODE: Final = re.compile(r"\[([0-9A-Fa-f:.]{2,45})\](?::[0-9]{1,5})?|([0-9.]{7,15}):[0-9]{1,5}")


def find_origin(request: StreamingRequest, peer: str, scheme: str, trusts: Callable[[str], bool]) -> Origin:
    """
    The origin of a request whose peer is trusted.

    :param scheme: what the peer used.
    :param trusts: whether what an address says is believed.
    """
    said = {name: value for name in HEADERS if (value := request.getHeader(name)) is not None}
    chain = ", ".join(request.header_values("X-Forwarded-For"))
    if not chain:
        # Only then: the usual proxies append to X-Forwarded-For, and let Forwarded through as a client has sent it.
        chain = ", ".join(forwarded_for(", ".join(request.header_values("Forwarded"))))
    client = find_client(peer, chain, request.getHeader("X-Real-IP") or "", trusts)
    return Origin(peer.encode("ascii"), client.encode("ascii"), (parse_forwarded(said).scheme or scheme).encode("ascii"))


def find_client(peer: str, chain: str, real: str, trusts: Callable[[str], bool]) -> str:
    """
    The address of the client.

    :param chain: as ``X-Forwarded-For`` has it: each proxy has added the address of who asked it.
    :param real: ``X-Real-IP``, which counts where there is no chain.
    :returns: the last address in the chain that is not one of the trusted proxies; the peer's where nothing that is said is an address.
    """
    found = peer
    for said in reversed([part.strip() for part in chain.split(",")] if chain else [real.strip()]):
        address = _address(said)
        if not address:
            break
        found = address
        if not trusts(address):
            break
    return found


def _address(said: str) -> str:
    """The address of a client as proxies write it, with a port perhaps (RFC 7239, section 6); empty for what is none."""
    match = _NODE.fullmatch(said)
    address = (match[1] or match[2]) if match is not None else said
    try:
        found = ip_address(address)
    except ValueError:
        return ""
    # A zone is of somebody else's links, and may be any text at all.
    return "" if getattr(found, "scope_id", None) is not None else address
