"""``health``: what is looked at again and again, as ``registry:2`` has it; how it is read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import urlsplit

from regd.config.addresses import parse_tcp_address
from regd.config.checks import header_fields
from regd.config.error import shown
from regd.config.healthvalues import FileCheck, HTTPCheck, TCPCheck
from regd.config.sections import MILLISECOND, file_path, section
from regd.config.values import Parser, duration, from_text, integer, list_of

__all__ = ["file_checks", "http_checks", "look_interval", "tcp_checks"]


_VISIBLE: Final = re.compile(r"[!-~]+")


def look_interval() -> Parser[float]:
    """How often something is looked at; the shortest keeps a slip of units from making a busy loop."""
    return duration(minimum=10 * MILLISECOND)


def _uri(found: str) -> str:
    msg = "a URL with http or https and a host, without a user, such as http://localhost:8080/health"
    try:
        url = urlsplit(found)
        port = url.port
    except ValueError:
        raise ValueError(msg) from None
    if url.scheme not in {"http", "https"} or not url.hostname or port == 0 or "@" in url.netloc or not _VISIBLE.fullmatch(found):
        raise ValueError(msg)
    return found


def _status(found: str) -> int:
    if not (found.isascii() and found.isdigit() and len(found) == 3 and found >= "100"):
        msg = "a status of three digits, such as 200"
        raise ValueError(msg)
    return int(found)


#: ``Any``: parts are of many types.
_TIMES: Final[Mapping[str, tuple[Parser[Any], Any]]] = {"interval": (look_interval(), 10.0), "threshold": (integer(minimum=0), 0)}
_TIMEOUT: Final = (look_interval(), 10.0)


def file_checks() -> Parser[tuple[FileCheck, ...]]:
    """``health.file``."""
    one = section(FileCheck, {"file": (from_text(file_path, shown), ""), **_TIMES}, required=("file",))
    return list_of(one, "{file: /var/lib/regd/down}")


def http_checks() -> Parser[tuple[HTTPCheck, ...]]:
    """``health.http``."""
    parts: dict[str, tuple[Parser[Any], Any]] = {
        "uri": (from_text(_uri), ""),
        # They are not shown, because they may hold secrets.
        "headers": (replace(header_fields(), show=lambda value: "set"), MappingProxyType({})),
        "statuscode": (from_text(_status), 200),
        "timeout": _TIMEOUT,
        **_TIMES,
    }
    return list_of(section(HTTPCheck, parts, required=("uri",)), "{uri: http://localhost:8080/health}")


def tcp_checks() -> Parser[tuple[TCPCheck, ...]]:
    """``health.tcp``."""
    one = section(TCPCheck, {"addr": (from_text(parse_tcp_address), None), "timeout": _TIMEOUT, **_TIMES}, required=("addr",))
    return list_of(one, "{addr: redis.example.com:6379}")
