"""Sections with fixed names, and those that the reverse proxy and the cache have in common: ``tls`` and ``timeouts`` of an upstream."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from regd.config.checks import directory
from regd.config.document import MapNode, is_null
from regd.config.error import ConfigError, shown
from regd.config.nearest import nearest
from regd.config.proxying import Timeouts, UpstreamTLS
from regd.config.values import Inner, Parser, Place, duration, from_text, read_part

__all__ = ["MILLISECOND", "file_path", "host_name", "section", "timeouts_section", "tls_section"]

T = TypeVar("T")

#: In nanoseconds.
MILLISECOND: Final = 1_000_000

_HOST: Final = re.compile(r"(?:[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?|\[[0-9A-Fa-f:.]+\])")
_NAME: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?")


def section(make: Callable[..., T], parts: Mapping[str, tuple[Parser[Any], Any]], required: tuple[str, ...] = ()) -> Parser[T]:
    """A map with fixed names, most of which may be left out.

    :param make: called with the values by name; a :exc:`ValueError` of it says what is allowed.
    :param parts: for each name its parser, and what it is when it is not given. ``Any``: they have different types. A part that the value
        has under no such name is one that another was made of, and is not shown.
    """

    def read(place: Place) -> T:
        node = place.node
        missing = [name for name in required if not isinstance(node, MapNode) or name not in node.entries]
        if not isinstance(node, MapNode) or missing:
            with_them = f" with {' and '.join(required)}" if required else ""
            raise place.refuse(f"a map{with_them}; its keys are {', '.join(parts)}")
        for name, below in node.entries.items():
            if name not in parts:
                # `password:abc` in braces is one name; the rest of it is nobody's business.
                word, colon, _ = name.partition(":")
                meant = nearest(word, parts)
                known = f"the nearest is {meant}" if meant else f"the keys here are {', '.join(parts)}"
                hint = "; after the colon a space is missing" if colon else ""
                raise ConfigError(f"{place.path}.{word} ({below.origin}): there is no such key; {known}{hint}")
        values = {
            name: default if _left_out(node, name, required) else read_part(parser, place.below(f".{name}", node.entries[name]))
            for name, (parser, default) in parts.items()
        }
        try:
            return make(**values)
        except ValueError as error:
            raise place.refuse(str(error)) from None

    def show(value: T) -> str:
        found = ((name, getattr(value, name, default), default, parser) for name, (parser, default) in parts.items())
        said = ((name, value, parser) for name, value, default, parser in found if value != default)
        return f"{{{', '.join(f'{name}: {parser.show(found)}' for name, found, parser in said)}}}"

    levels = (level._replace(suffix=f".{name}{level.suffix}") for name, (parser, _) in parts.items() for level in parser.inner)
    return Parser(read, show, (Inner(""), *levels))


def _left_out(node: MapNode, name: str, required: tuple[str, ...]) -> bool:
    """Whether a part has its default: it is not there, or nothing stands behind it."""
    return name not in node.entries or (name not in required and is_null(node.entries[name]))


def host_name(found: str) -> str:
    """The name or address of a server, in lower case."""
    if not _HOST.fullmatch(found) or len(found) > 253:
        msg = "the name or address that clients use, without scheme and port, such as hub.example.com"
        raise ValueError(msg)
    return found.lower().rstrip(".")


def _server_name(found: str) -> str:
    if not _NAME.fullmatch(found) or len(found) > 253:
        msg = "the name in the certificate of the upstream, such as registry.internal"
        raise ValueError(msg)
    return found


def file_path(found: str) -> str:
    """The path of a file."""
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


_FILE: Final = (from_text(file_path, shown), "")
_TLS: Final = section(
    _tls,
    {"cafile": _FILE, "servername": (from_text(_server_name), ""), "clientcertificate": _FILE, "clientkey": _FILE},
)


def tls_section() -> Parser[UpstreamTLS]:
    """``tls``: how an upstream proves who it is, and we to it."""
    return _TLS


def timeouts_section(default: Timeouts) -> Parser[Timeouts]:
    """``timeouts``.

    :param default: what those are that are not given.
    """
    return section(Timeouts, {name: (duration(minimum=10 * MILLISECOND), getattr(default, name)) for name in ("connect", "read", "write")})
