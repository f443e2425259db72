"""What a proxy in front says of the request that it passes on: ``Forwarded`` (RFC 7239) and ``X-Forwarded-*``. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

__all__ = ["HEADERS", "Forwarded", "forwarded_for", "parse_forwarded", "valid_host"]

#: The fields that are looked at.
HEADERS: Final = ("Forwarded", "X-Forwarded-Proto", "X-Forwarded-Host")

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
