"""What a proxy in front says of the request that it passes on: ``Forwarded`` (RFC 7239) and ``X-Forwarded-*``. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Final

__all__ = ["HEADERS", "Forwarded", "find_client", "forwarded_for", "network_of", "parse_forwarded", "said_chain", "valid_host"]

#: The fields that are looked at.
HEADERS: Final = ("Forwarded", "X-Forwarded-Proto", "X-Forwarded-Host")

#: An IPv6 address in brackets, with a port perhaps; or an IPv4 address with a port.
_NODE: Final = re.compile(r"\[([0-9A-Fa-f:.]{2,45})\](?::[0-9]{1,5})?|([0-9.]{7,15}):[0-9]{1,5}")

_HOST = re.compile(r"(?:[A-Za-z0-9._~%-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?", re.ASCII)
_PAIR = re.compile(r'\s*([!#$%&\'*+.^_`|~0-9A-Za-z-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;,"]*))\s*')


@dataclass(frozen=True, slots=True)
class Forwarded:
    """``scheme`` and ``host`` as the client used them; empty where nobody says."""

    scheme: str = ""
    host: str = ""


def valid_host(text: str) -> bool:
    """Whether ``text`` may stand in a URL as its authority (RFC 9110, section 7.2): a name or address, and perhaps a port."""
    return _HOST.fullmatch(text) is not None


def parse_forwarded(headers: Mapping[str, str]) -> Forwarded:
    """
    Read the fields of a trusted peer. ``Forwarded`` wins over the others where it says something; of a list, the first element counts,
    which is the proxy that is nearest to the client.

    :param headers: the values by name, as in :data:`HEADERS`; a name may be absent.
    """
    elements = next(_elements(headers.get("Forwarded", "")))
    scheme = elements.get("proto") or headers.get("X-Forwarded-Proto", "").partition(",")[0].strip()
    host = elements.get("host") or headers.get("X-Forwarded-Host", "").partition(",")[0].strip()
    scheme = scheme.lower()
    return Forwarded(scheme if scheme in {"http", "https"} else "", host if valid_host(host) else "")


def forwarded_for(header: str) -> list[str]:
    """
    Who asked each proxy, the nearest to the client first, as ``Forwarded`` has it: addresses, with ports perhaps, and names that hide them
    (RFC 7239, section 6). An element that does not say has an empty text.
    """
    return [element.get("for", "") for element in _elements(header)]


def network_of(address: str) -> str:
    """Whom an address stands for: an IPv6 address for its /64, which is one customer's mostly."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if not isinstance(found, IPv6Address):
        return address
    return str(found.ipv4_mapped or IPv6Address(int(found) >> 64 << 64))


def said_chain(values: Callable[[str], Sequence[str]]) -> str:
    """
    Who asked whom, as ``X-Forwarded-For`` has it, or ``Forwarded``.

    :param values: those of a header field, by its name.
    """
    chain = ", ".join(values("X-Forwarded-For"))
    # Only then: the usual proxies append to X-Forwarded-For, and let Forwarded through as a client has sent it.
    return chain or ", ".join(forwarded_for(", ".join(values("Forwarded"))))


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


def _elements(header: str) -> Iterator[dict[str, str]]:
    """The elements of ``Forwarded``, at least one, up to the first that is none."""
    found: dict[str, str] = {}
    position = 0
    while (match := _PAIR.match(header, position)) is not None:
        name, quoted, token = match.groups()
        found.setdefault(name.lower(), re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else token)
        position = match.end()
        separator = header[position : position + 1]
        if separator == ",":
            yield found
            found = {}
        elif separator != ";":
            break
        position += 1
    yield found
