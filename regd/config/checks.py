"""What the values of single keys have to be, beyond their type."""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import ip_network
from types import MappingProxyType
from typing import TypeVar
from urllib.parse import urlsplit

from regd.config.addresses import TCPAddress, parse_tcp_address
from regd.config.document import ListNode, MapNode, Node, Scalar
from regd.config.error import ConfigError, shown
from regd.config.model import Network
from regd.config.patterns import Pattern
from regd.config.values import Parser, Place, boolean, checked, duration, from_text, integer, list_of, mapping_of, text

__all__ = [
    "DEFAULT_ADDRESS",
    "bounded",
    "cache_kind",
    "debug_address",
    "deprecated",
    "directory",
    "empty_section",
    "grace",
    "header_fields",
    "http2_disabled",
    "interval",
    "listen_address",
    "log_fields",
    "network",
    "or_as",
    "page_size",
    "pattern",
    "thread_count",
    "url_host",
    "url_prefix",
    "worker_count",
]

T = TypeVar("T")

#: registry:2's images listen here; without ``http.addr`` registry:2 itself takes any free port, which nobody finds.
DEFAULT_ADDRESS = TCPAddress("", 5000)

#: RFC 9110 section 5.1 and 5.6.2.
_FIELD_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
#: RFC 9110 section 5.5, without the bytes above 127 that it calls obsolete.
_FIELD_VALUE = re.compile(r"(?:[!-~](?:[\t -~]*[!-~])?)?")
#: Fields that say where a message ends and what becomes of the connection (RFC 9110 section 7.6.1, RFC 9112 section 6).
_FRAMING = frozenset({"connection", "content-length", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"})
_PREFIX = re.compile(r"/(?:[A-Za-z0-9._~-]+/)*")
_VISIBLE = re.compile(r"[!-~]+")
_HOST = re.compile(r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]")
#: More processes than this are a mistake: each takes some 50 MB.
_MOST_WORKERS = 128
_MINUTE = 60.0
#: registry:2 takes fewer for this many.
_FEWEST_THREADS = 25


def directory(found: str) -> str:
    """The path of a directory."""
    if not found or "\0" in found:
        msg = "the path of a directory"
        raise ValueError(msg)
    return found


def url_prefix(found: str) -> str:
    """``http.prefix``: the path before ``v2/``."""
    if not found:
        return "/"
    if not _PREFIX.fullmatch(found) or {".", ".."} & set(found.split("/")):
        msg = "a path that starts and ends with /, of letters, digits and . _ ~ -, such as /my/registry/"
        raise ValueError(msg)
    return found


def url_host(found: str) -> str:
    """``http.host``: the URL under which clients reach the registry, without a slash at its end."""
    if not found:
        return ""
    msg = "an absolute URL with http or https and a host, without user, query and fragment, such as https://registry.example.com"
    # urlsplit() drops line breaks and tabs, and takes what it is left with.
    if not _VISIBLE.fullmatch(found):
        raise ValueError(msg)
    try:
        url = urlsplit(found)
        port = url.port
    except ValueError:
        raise ValueError(msg) from None
    netloc = url.netloc.removesuffix(f":{port}")
    path = url.path.rstrip("/")
    if url.scheme not in {"http", "https"} or not _HOST.fullmatch(netloc) or any(mark in found for mark in "?#"):
        raise ValueError(msg)
    url_prefix(path + "/")
    return f"{url.scheme}://{url.netloc}{path}"


def debug_address(found: str) -> TCPAddress | None:
    """``http.debug.addr``; empty is none."""
    return parse_tcp_address(found) if found else None


def metrics_path(found: str) -> str:
    """``http.debug.prometheus.path``; empty is the default."""
    if not found:
        return "/metrics"
    own = found.startswith("/debug/") or found in {"/livez", "/readyz"}
    if not _PREFIX.fullmatch(f"{found}/") or {".", ".."} & set(found.split("/")) or own:
        msg = "a path that starts with / and does not end with it, of letters, digits and . _ ~ -, no other page's, such as /metrics"
        raise ValueError(msg)
    return found


def listen_address(found: str) -> TCPAddress:
    """``http.addr``; empty is the default."""
    return parse_tcp_address(found) if found else DEFAULT_ADDRESS


def _headers(found: Mapping[str, tuple[str, ...]]) -> Mapping[str, tuple[str, ...]]:
    """Check names and values; spellings of one name that differ in case come together under the first."""
    spelled: dict[str, str] = {}
    headers: dict[str, tuple[str, ...]] = {}
    for name, values in found.items():
        if not _FIELD_NAME.fullmatch(name):
            msg = "names of header fields (RFC 9110 section 5.1): letters, digits and !#$%&'*+-.^_`|~"
            raise ValueError(msg)
        if name.lower() in _FRAMING:
            msg = f"header fields other than those that frame messages ({', '.join(sorted(_FRAMING))})"
            raise ValueError(msg)
        first = spelled.setdefault(name.lower(), name)
        if values:
            headers[first] = headers.get(first, ()) + values
    return MappingProxyType(headers)


def _field_value(found: str) -> str:
    if not _FIELD_VALUE.fullmatch(found):
        msg = "visible ASCII characters, with spaces and tabs only between them (RFC 9110 section 5.5)"
        raise ValueError(msg)
    return found


def pattern(found: str) -> str:
    """A regular expression in Go's syntax."""
    try:
        return Pattern.parse(found).text
    except ValueError as error:
        msg = f"a regular expression in Go's syntax; {error}"
        raise ValueError(msg) from None


def network(found: str) -> Network:
    """An IP network, or one address."""
    try:
        return ip_network(found)
    except ValueError:
        msg = "an IP address, or a network whose host bits are 0, such as 10.0.0.0/8"
        raise ValueError(msg) from None


def thread_count() -> Parser[int]:
    """``storage.filesystem.maxthreads``."""
    number = integer(quoted=True)

    def read(place: Place) -> int:
        found = number.read(place)
        if found < _FEWEST_THREADS:
            place.warn(f"{found} is too few; {_FEWEST_THREADS} are used, as registry:2 does")
        return max(found, _FEWEST_THREADS)

    return Parser(read, number.show, number.inner)


def bounded(least: int, most: int) -> Parser[int]:
    """A whole number in a range."""

    def check(found: int) -> int:
        if not least <= found <= most:
            msg = f"a whole number from {least} to {most}"
            raise ValueError(msg)
        return found

    return checked(integer(), check, str)


def worker_count() -> Parser[int | None]:
    """``http.workers``: a number of processes, or ``auto``, which is ``None``."""
    allowed = f"auto, or a whole number from 1 to {_MOST_WORKERS}"
    number = integer()

    def read(place: Place) -> int | None:
        if isinstance(place.node, Scalar) and place.node.text == "auto":
            return None
        try:
            found = number.read(place)
        except ConfigError:
            found = 0
        if not 1 <= found <= _MOST_WORKERS:
            raise place.refuse(allowed)
        return found

    return Parser(read, lambda value: "auto" if value is None else str(value), number.inner)


def cache_kind() -> Parser[str]:
    """The kind of registry:2's cache of blob descriptors; regd answers from the file system, which has a cache of its own."""
    word = text()

    def read(place: Place) -> str:
        found = word.read(place)
        if found == "redis":
            place.warn("redis is not used; regd needs no cache of blob descriptors")
        elif found not in {"", "inmemory"}:
            place.warn("such a cache is not known (inmemory and redis are) and not used; regd needs none")
        return found

    return Parser(read, word.show, word.inner)


def deprecated(parser: Parser[T], better: str) -> Parser[T]:
    """The same parser with a warning."""

    def read(place: Place) -> T:
        place.warn(f"obeyed, but deprecated since registry 2.0; write {better}")
        return parser.read(place)

    return Parser(read, parser.show, parser.inner)


def header_fields() -> Parser[Mapping[str, tuple[str, ...]]]:
    """``http.headers``: names, each with a list of values."""
    values = list_of(from_text(_field_value, shown), "nosniff", takes_null=True)
    found = mapping_of(values, "X-Content-Type-Options: [nosniff]", joiner="-")
    fields = checked(found, _headers, found.show)

    def read(place: Place) -> Mapping[str, tuple[str, ...]]:
        read_fields = fields.read(place)
        mine = {name: values for name, values in read_fields.items() if name.lower() != "x-request-id"}
        if len(mine) < len(read_fields):
            place.warn("X-Request-Id is not taken from here: each answer has the id of its own request")
        return MappingProxyType(mine)

    return Parser(read, fields.show, fields.inner, fields.takes_null)


def secret_header_fields() -> Parser[Mapping[str, tuple[str, ...]]]:
    """As :func:`header_fields`, of which only the names are ever shown: they say who we are."""
    plain = header_fields()

    def read(place: Place) -> Mapping[str, tuple[str, ...]]:
        return plain.read(Place(place.path, place.node, place.warnings, secret=True))

    return Parser(read, lambda found: f"{{{', '.join(f'{name}: set' for name in found)}}}", plain.inner)


def http2_disabled() -> Parser[bool]:
    """``http.http2.disabled``: regd speaks HTTP/1.1, so ``true`` is obeyed."""
    switch = boolean()

    def read(place: Place) -> bool:
        disabled = switch.read(place)
        if not disabled:
            place.warn("regd speaks HTTP/1.1; HTTP/2 is not there to be enabled")
        return disabled

    return Parser(read, switch.show, switch.inner)


def log_fields() -> Parser[Mapping[str, str]]:
    """``log.fields``: registry:2 also writes lists and maps into its lines, so they become text."""
    values = text(takes_null=True)

    def read(place: Place) -> str:
        return values.read(place) if isinstance(place.node, Scalar) else _written(place.node)

    item = Parser(read, values.show, values.inner, values.takes_null)
    return mapping_of(item, "service: registry", joiner="_")


def _written(node: Node) -> str:
    """A value on one line, as YAML's flow style writes it."""
    match node:
        case Scalar():
            return node.text
        case ListNode():
            return f"[{', '.join(map(_written, node.items))}]"
        case MapNode():
            return f"{{{', '.join(f'{name}: {_written(below)}' for name, below in node.entries.items())}}}"


def or_as(parser: Parser[T], other: str) -> Parser[T | None]:
    """A parser of a value whose default is that of another key."""
    return Parser(parser.read, lambda value: f"as {other}" if value is None else parser.show(value), parser.inner)


def interval(parser: Parser[float]) -> Parser[float]:
    """The time from one run of the maintenance to the next, in seconds."""
    return _warned(parser, "a run less than a minute after the last one finds little to do, and keeps the disk busy")


def grace() -> Parser[float]:
    """``storage.maintenance.garbagecollect.grace``, in seconds."""
    return _warned(duration(), "less than a minute: the layers of a push that takes longer may be removed before its manifest comes")


def _warned(parser: Parser[float], what: str) -> Parser[float]:
    """The same parser with a warning about less than a minute."""

    def read(place: Place) -> float:
        found = parser.read(place)
        if found < _MINUTE:
            place.warn(what)
        return found

    return Parser(read, parser.show, parser.inner)


def page_size(*, minimum: int | None = None, default: int) -> Parser[int]:
    """The most entries of one answer; what is not above 0 and not refused is the default."""
    return checked(integer(minimum=minimum), lambda found: found if found > 0 else default, str)


def empty_section() -> Parser[None]:
    """A section without keys, such as ``storage.inmemory``."""

    def read(place: Place) -> None:
        if not isinstance(place.node, MapNode):
            raise place.refuse("nothing, or a map")

    return Parser(read, lambda _: "{}", ())
