"""``reverseproxy.routes`` and ``http.limits``: how they are read."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from regd.config.checks import directory
from regd.config.document import MapNode
from regd.config.error import ConfigError, shown
from regd.config.nearest import nearest
from regd.config.proxying import HealthCheck, Route, Timeouts, UpstreamTLS, parse_upstream
from regd.config.values import Inner, Parser, Place, duration, from_text, integer, list_of, read_part

__all__ = ["routes", "size"]

T = TypeVar("T")

#: RFC 3986 section 3.3: what a path may be made of, percent signs aside; it is compared with decoded paths.
_PATH: Final = re.compile(r"/[A-Za-z0-9._~!$&'()*+,;=:@/-]*")
_HOST: Final = re.compile(r"(?:[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?|\[[0-9A-Fa-f:.]+\])")
_NAME: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?")
_SIZE: Final = re.compile(r"([0-9]{1,12})\s*(|[KMGT]i?B?|B)", re.IGNORECASE)
_UNITS: Final = {"": 0, "b": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_TARGET: Final = re.compile(r"/[!-~]*")


def size(minimum: int, maximum: int) -> Parser[int]:
    """A number of bytes: ``16384``, ``16KiB``, ``1MiB``. As nginx and docker have it, ``k``, ``kB`` and ``KiB`` are all 1024."""
    allowed = f"a size, such as 16KiB, of {minimum} to {maximum} bytes"

    def read(found: str) -> int:
        match = _SIZE.fullmatch(found)
        value = int(match[1]) * 1024 ** _UNITS[match[2][:1].lower()] if match else -1
        if not minimum <= value <= maximum:
            raise ValueError(allowed)
        return value

    return from_text(read, str)


def _section(make: Callable[..., T], parts: Mapping[str, tuple[Parser[Any], Any]], required: tuple[str, ...] = ()) -> Parser[T]:
    """A map with fixed names, most of which may be left out.

    :param make: called with the values by name; a :exc:`ValueError` of it says what is allowed.
    :param parts: for each name its parser, and what it is when it is not given. ``Any``: they have different types.
    """

    def read(place: Place) -> T:
        node = place.node
        missing = [name for name in required if not isinstance(node, MapNode) or name not in node.entries]
        if not isinstance(node, MapNode) or missing:
            with_them = f" with {' and '.join(required)}" if required else ""
            raise place.refuse(f"a map{with_them}; its keys are {', '.join(parts)}")
        for name, below in node.entries.items():
            if name not in parts:
                meant = nearest(name, parts)
                known = f"the nearest is {meant}" if meant else f"the keys here are {', '.join(parts)}"
                raise ConfigError(f"{place.path}.{name} ({below.origin}): there is no such key; {known}")
        values = {
            name: read_part(parser, place.below(f".{name}", node.entries[name])) if name in node.entries else default
            for name, (parser, default) in parts.items()
        }
        try:
            return make(**values)
        except ValueError as error:
            raise place.refuse(str(error)) from None

    def show(value: T) -> str:
        said = ((name, getattr(value, name), parser) for name, (parser, default) in parts.items() if getattr(value, name) != default)
        return f"{{{', '.join(f'{name}: {parser.show(found)}' for name, found, parser in said)}}}"

    levels = (level._replace(suffix=f".{name}{level.suffix}") for name, (parser, _) in parts.items() for level in parser.inner)
    return Parser(read, show, (Inner(""), *levels))


def _path(found: str) -> str:
    if not _PATH.fullmatch(found) or {".", ".."} & set(found.split("/")) or "//" in found:
        msg = "what paths begin with, itself beginning with /, such as /v2/; without percent signs, //, . and .."
        raise ValueError(msg)
    return found


def _host(found: str) -> str:
    if not _HOST.fullmatch(found) or len(found) > 253:
        msg = "the name or address that clients use, without scheme and port, such as hub.example.com"
        raise ValueError(msg)
    return found.lower().rstrip(".")


def _status(found: str) -> int:
    status = int(found) if re.fullmatch(r"[0-9]{3}", found) else 0
    if status not in {200, 204} and not 400 <= status <= 599:
        msg = "200, 204, or a status from 400 to 599"
        raise ValueError(msg)
    return status


def _server_name(found: str) -> str:
    if not _NAME.fullmatch(found) or len(found) > 253:
        msg = "the name in the certificate of the upstream, such as registry.internal"
        raise ValueError(msg)
    return found


def _target(found: str) -> str:
    if not _TARGET.fullmatch(found) or "#" in found:
        msg = "a path, perhaps with a query, such as /v2/"
        raise ValueError(msg)
    return found


def _file(found: str) -> str:
    try:
        return directory(found)
    except ValueError:
        msg = "the path of a file"
        raise ValueError(msg) from None


def _tls(**values: str) -> UpstreamTLS:
    if bool(values["clientcertificate"]) != bool(values["clientkey"]):
        msg = "clientcertificate and clientkey, or neither"
        raise ValueError(msg)
    return UpstreamTLS(**values)


# Any: the values of the parts, each of its own type.
def _route(**values: Any) -> Route:
    if bool(values["upstreams"]) == bool(values["status"]):
        msg = "either status or upstreams, with at least one URL"
        raise ValueError(msg)
    route = Route(**values)
    if not route.upstreams:
        default = Route("/")
        for name in ("tls", "healthcheck", "timeouts"):
            if getattr(route, name) != getattr(default, name):
                msg = f"upstreams beside {name}, which says nothing about a status"
                raise ValueError(msg)
    if route.tls != UpstreamTLS() and not any(upstream.scheme == "https" for upstream in route.upstreams):
        msg = "an upstream with https:// beside tls, which says nothing about others"
        raise ValueError(msg)
    if len(set(map(str, route.upstreams))) < len(route.upstreams):
        msg = "each upstream once"
        raise ValueError(msg)
    return route


_MILLISECOND: Final = 1_000_000

_FILE: Final = (from_text(_file, shown), "")
_TLS: Final = _section(
    _tls,
    {"cafile": _FILE, "servername": (from_text(_server_name), ""), "clientcertificate": _FILE, "clientkey": _FILE},
)
_HEALTHCHECK: Final = _section(
    HealthCheck,
    {
        "path": (from_text(_target), ""),
        "interval": (duration(minimum=100 * _MILLISECOND), HealthCheck("").interval),
        "threshold": (integer(minimum=1), HealthCheck("").threshold),
    },
    required=("path",),
)
_TIMEOUTS: Final = _section(
    Timeouts,
    {name: (duration(minimum=10 * _MILLISECOND), getattr(Timeouts(), name)) for name in ("connect", "read", "write")},
)
_UPSTREAMS: Final = list_of(from_text(parse_upstream), "http://127.0.0.1:5001")


def routes() -> Parser[tuple[Route, ...]]:
    """``reverseproxy.routes``."""
    route = _section(
        _route,
        {
            "path": (from_text(_path), ""),
            "host": (from_text(_host), ""),
            "status": (from_text(_status), 0),
            "upstreams": (_UPSTREAMS, ()),
            "tls": (_TLS, UpstreamTLS()),
            "healthcheck": (_HEALTHCHECK, None),
            "timeouts": (_TIMEOUTS, Timeouts()),
        },
        required=("path",),
    )
    return list_of(route, "{path: /v2/, upstreams: ['http://127.0.0.1:5001']}")
