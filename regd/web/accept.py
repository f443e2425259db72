"""``Accept`` (RFC 9110, section 12.5.1), as far as choosing between manifests needs it. Pure."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Accept"]


@dataclass(frozen=True, slots=True)
class Accept:
    """
    What a client takes.

    :ivar anything: whether it takes whatever there is: it says nothing, or ``*/*``.
    :ivar types: the media types and ranges (``application/*``) that it names, in lower case.
    """

    anything: bool
    types: frozenset[str] = frozenset()

    @classmethod
    @functools.lru_cache(maxsize=256)
    def of(cls, *headers: str) -> Accept:
        """As :meth:`parse`. Clients of one kind all say the same, at length."""
        return cls.parse(headers)

    @classmethod
    def parse(cls, headers: Iterable[str]) -> Accept:
        """
        Read all ``Accept`` fields of a request. A type with ``q=0`` is one that the client refuses; other weights are not looked at,
        because a manifest has one form, or one alternative at most.
        """
        named: set[str] = set()
        for header in headers:
            for element in header.split(","):
                media_type, *parameters = (text.strip().lower() for text in element.split(";"))
                if media_type and not any(_refuses(parameter) for parameter in parameters):
                    named.add(media_type)
        return cls(not named or "*/*" in named, frozenset(named))

    def allows(self, media_type: str) -> bool:
        """Whether the client takes ``media_type``."""
        return self.anything or media_type in self.types or f"{media_type.partition('/')[0]}/*" in self.types


def _refuses(parameter: str) -> bool:
    name, _, value = parameter.partition("=")
    if name.strip() != "q":
        return False
    try:
        return float(value) == 0
    except ValueError:
        return False
