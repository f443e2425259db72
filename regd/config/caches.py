"""``proxy``: how it is read, in both its forms."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_address
from typing import Any, Final

from regd.config.addresses import TCPAddress
from regd.config.caching import CacheUpstream, parse_remote
from regd.config.document import Scalar
from regd.config.error import shown
from regd.config.proxying import Upstream, UpstreamTLS
from regd.config.sections import file_path, host_name, section, timeouts_section, tls_section
from regd.config.sizes import LARGEST
from regd.config.values import Parser, Place, checked, duration, from_text, list_of, size_within, text
from regd.errors import NameInvalid
from regd.names import RepositoryName

__all__ = ["PARTS", "in_plain_text", "make_upstream", "maxage", "maxsize", "remote_url", "upstreams"]

#: RFC 7617 section 2: neither part of the credentials has control characters, and the user has no colon.
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_DEFAULT: Final = CacheUpstream("", Upstream("https", TCPAddress("", 443), ""))


def remote_url(found: str) -> Upstream | None:
    """``proxy.remoteurl``; empty is none, as in registry:2."""
    return parse_remote(found) if found else None


def maxsize() -> Parser[int | None]:
    """``proxy.cache.maxsize``: ``none``, or a size of at least a byte."""
    some = size_within(1, LARGEST, "none, or a size above 0, such as 50GiB")
    return from_text(lambda found: None if found == "none" else some(found), lambda size: "none" if size is None else str(size))


def maxage() -> Parser[float | None]:
    """``proxy.cache.maxage``: ``none`` (or a duration of 0, as with ``proxy.ttl``) is for ever."""
    some = duration()

    def read(place: Place) -> float | None:
        if isinstance(place.node, Scalar) and place.node.text == "none":
            return None
        return some.read(place) or None

    return Parser(read, lambda value: "none" if value is None else some.show(value), some.inner)


def _prefix(found: str) -> str:
    try:
        return RepositoryName.parse(found)
    except NameInvalid:
        msg = "what the names of repositories begin with here, itself such a name, such as docker.io; without a slash at its end"
        raise ValueError(msg) from None


def _credential(parser: Parser[str], forbidden: str, allowed: str) -> Parser[str]:
    """A part of the credentials, which is never shown."""

    def read(place: Place) -> str:
        found = parser.read(place)
        if _CONTROL.search(found) or any(char in found for char in forbidden):
            raise place.refuse(allowed, hide=True)
        return found

    return Parser(read, parser.show, parser.inner)


#: The keys that describe an upstream, beside ``remoteurl``; for each its parser, and what it is when it is not given.
#: ``Any``: they have different types.
PARTS: Final[Mapping[str, tuple[Parser[Any], Any]]] = {
    "username": (_credential(text(secret=True), ":", "a user without colons and control characters (RFC 7617)"), ""),
    "password": (_credential(text(secret=True), "", "a password without control characters (RFC 7617)"), ""),
    "tagttl": (duration(), _DEFAULT.tagttl),
    "stale": (duration(), _DEFAULT.stale),
    "cafile": (from_text(file_path, shown), ""),
    "tls": (tls_section(), _DEFAULT.tls),
    "timeouts": (timeouts_section(_DEFAULT.timeouts), _DEFAULT.timeouts),
    "tokenhosts": (list_of(from_text(host_name), "auth.example.com"), ()),
}


def make_upstream(remoteurl: Upstream, prefix: str = "", cafile: str = "", **values: Any) -> CacheUpstream:
    """Put an upstream together.

    :param cafile: the short form of ``tls: {cafile: ...}``.
    :param values: those of :data:`PARTS`. ``Any``: each has its own type.
    :raises ValueError: two of them do not go together; the message says what is allowed.
    """
    upstream = CacheUpstream(prefix, remoteurl, **values)
    if bool(upstream.username) != bool(upstream.password):
        msg = "username and password, or neither"
        raise ValueError(msg)
    if cafile:
        if upstream.tls.cafile:
            msg = "cafile or tls.cafile, which are the same, and not both"
            raise ValueError(msg)
        upstream = replace(upstream, tls=replace(upstream.tls, cafile=cafile))
    if upstream.tls != UpstreamTLS() and remoteurl.scheme != "https":
        msg = "a remoteurl with https:// beside tls and cafile, which say nothing about others"
        raise ValueError(msg)
    return upstream


def in_plain_text(upstream: CacheUpstream) -> bool:
    """Whether the password goes through a network that others may listen to."""
    host = upstream.remote.address.host if isinstance(upstream.remote.address, TCPAddress) else ""
    try:
        local = ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        local = host == "localhost"
    return bool(upstream.password) and upstream.remote.scheme == "http" and not local


def _each_once(found: tuple[CacheUpstream, ...]) -> tuple[CacheUpstream, ...]:
    prefixes = [upstream.prefix for upstream in found]
    twice = next((prefix for prefix in prefixes if prefixes.count(prefix) > 1), None)
    if twice is not None:
        msg = f"each prefix once; {twice} is there twice"
        raise ValueError(msg)
    return found


def upstreams() -> Parser[tuple[CacheUpstream, ...]]:
    """``proxy.upstreams``."""
    one = section(
        make_upstream,
        {"prefix": (from_text(_prefix), ""), "remoteurl": (from_text(parse_remote), None), **PARTS},
        required=("prefix", "remoteurl"),
    )
    found = list_of(one, "{prefix: docker.io, remoteurl: 'https://registry-1.docker.io'}")
    return checked(found, _each_once, found.show)
