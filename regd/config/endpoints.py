"""``notifications.endpoints``: how it is read."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, Final
from urllib.parse import urlsplit

from regd.config import checks
from regd.config.notifying import BACKOFF, THRESHOLD, TIMEOUT, Endpoint, Ignore
from regd.config.sections import section
from regd.config.values import Parser, Place, boolean, checked, choice, duration, integer, list_of, text

__all__ = ["endpoints"]

_ALLOWED: Final = "http://host[:port]/path or https://host[:port]/path"


def _secret_url() -> Parser[str]:
    """A URL that is never shown, because it may have a password or a token in it."""
    plain = text(secret=True)

    def read(place: Place) -> str:
        found = plain.read(place)
        try:
            parts = urlsplit(found)
            port = parts.port
        except ValueError:
            raise place.refuse(_ALLOWED, hide=True) from None
        readable = found.isascii() and found.isprintable() and " " not in found
        if parts.scheme not in {"http", "https"} or not parts.hostname or port == 0 or not readable:
            raise place.refuse(_ALLOWED, hide=True)
        return found

    return Parser(read, plain.show, plain.inner)


def _or_default(parser: Parser[Any], default: float) -> Parser[Any]:
    """As in registry:2, what is not above 0 means the default. ``Any``: durations and counts."""
    return checked(parser, lambda found: found if found > 0 else default, parser.show)


_TYPES: Final = list_of(text(), "application/octet-stream")
_IGNORE: Final = section(
    Ignore,
    {"mediatypes": (_TYPES, ()), "actions": (list_of(choice("push", "pull", "mount", "delete", fold=True), "pull"), ())},
)


def _each_once(found: tuple[Endpoint, ...]) -> tuple[Endpoint, ...]:
    names = [endpoint.name for endpoint in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        msg = f"each name once; {twice} is there twice"
        raise ValueError(msg)
    return found


def _endpoint(**values: Any) -> Endpoint:
    if not values["name"]:
        msg = "a name that says which endpoint it is, in the log and on disk"
        raise ValueError(msg)
    if not values["url"] and not values["disabled"]:
        msg = "a url to send to, or disabled: true"
        raise ValueError(msg)
    return Endpoint(**values)


def endpoints() -> Parser[tuple[Endpoint, ...]]:
    """``notifications.endpoints``."""
    one = section(
        _endpoint,
        {
            "name": (text(), ""),
            "disabled": (boolean(), False),
            "url": (_secret_url(), ""),
            "headers": (checks.secret_header_fields(), MappingProxyType({})),
            "timeout": (_or_default(duration(), TIMEOUT), TIMEOUT),
            "threshold": (_or_default(integer(), THRESHOLD), THRESHOLD),
            "backoff": (_or_default(duration(), BACKOFF), BACKOFF),
            "ignoredmediatypes": (_TYPES, ()),
            "ignore": (_IGNORE, Ignore()),
        },
        required=("name",),
    )
    found = list_of(one, "{name: alerts, url: 'https://hooks.example.com/registry'}")
    return checked(found, _each_once, found.show)
