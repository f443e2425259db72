"""``reverseproxy.routes``: how they are read."""

from __future__ import annotations

import re
from typing import Any, Final

from regd.config.proxying import HealthCheck, Route, Timeouts, UpstreamTLS, parse_upstream
from regd.config.sections import MILLISECOND, host_name, section, timeouts_section, tls_section
from regd.config.values import Parser, duration, from_text, integer, list_of

__all__ = ["routes"]

#: RFC 3986 section 3.3: what a path may be made of, percent signs aside; it is compared with decoded paths.
_PATH: Final = re.compile(r"/[A-Za-z0-9._~!$&'()*+,;=:@/-]*")
_TARGET: Final = re.compile(r"/[!-~]*")


def _path(found: str) -> str:
    if not _PATH.fullmatch(found) or {".", ".."} & set(found.split("/")) or "//" in found:
        msg = "what paths begin with, itself beginning with /, such as /v2/; without percent signs, //, . and .."
        raise ValueError(msg)
    return found


def _status(found: str) -> int:
    status = int(found) if re.fullmatch(r"[0-9]{3}", found) else 0
    if status not in {200, 204} and not 400 <= status <= 599:
        msg = "200, 204, or a status from 400 to 599"
        raise ValueError(msg)
    return status


def _target(found: str) -> str:
    if not _TARGET.fullmatch(found) or "#" in found:
        msg = "a path, perhaps with a query, such as /v2/"
        raise ValueError(msg)
    return found


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


_HEALTHCHECK: Final = section(
    HealthCheck,
    {
        "path": (from_text(_target), ""),
        "interval": (duration(minimum=100 * MILLISECOND), HealthCheck("").interval),
        "threshold": (integer(minimum=1), HealthCheck("").threshold),
    },
    required=("path",),
)
_UPSTREAMS: Final = list_of(from_text(parse_upstream), "http://127.0.0.1:5001")


def routes() -> Parser[tuple[Route, ...]]:
    """``reverseproxy.routes``."""
    route = section(
        _route,
        {
            "path": (from_text(_path), ""),
            "host": (from_text(host_name), ""),
            "status": (from_text(_status), 0),
            "upstreams": (_UPSTREAMS, ()),
            "tls": (tls_section(), UpstreamTLS()),
            "healthcheck": (_HEALTHCHECK, None),
            "timeouts": (timeouts_section(Timeouts()), Timeouts()),
        },
        required=("path",),
    )
    return list_of(route, "{path: /v2/, upstreams: ['http://127.0.0.1:5001']}")
