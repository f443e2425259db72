"""``notifications``: who is told what happens in the registry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

__all__ = ["Endpoint", "Events", "Ignore", "Notifications"]

#: registry:2's, for values that are not above 0.
TIMEOUT = 1.0
THRESHOLD = 10
BACKOFF = 1.0


@dataclass(frozen=True)
class Ignore:
    """``ignore`` of an endpoint: what it is not told.

    :ivar mediatypes: of what it happened to.
    :ivar actions: ``push``, ``pull``, ``mount``, ``delete``.
    """

    mediatypes: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Endpoint:
    """One of ``notifications.endpoints``.

    :ivar name: what the log and the files of the queue call it.
    :ivar url: where envelopes are sent to; never shown whole, for it may have a password or a token in it.
    :ivar headers: sent with each of them; never shown.
    :ivar timeout: seconds that one try may take.
    :ivar threshold: after so many failures in a row it is left alone for the time of ``backoff`` before each further try.
    :ivar backoff: seconds.
    :ivar ignoredmediatypes: the older form of ``ignore.mediatypes``.
    """

    name: str
    url: str = field(repr=False)
    disabled: bool = False
    headers: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    timeout: float = TIMEOUT
    threshold: int = THRESHOLD
    backoff: float = BACKOFF
    ignoredmediatypes: tuple[str, ...] = ()
    ignore: Ignore = Ignore()

    def wants(self, action: str, media_type: str) -> bool:
        """Whether it is to be told of an event.

        :param media_type: of what it happened to; empty where that is not known, as of what was deleted.
        """
        if self.disabled or action in self.ignore.actions:
            return False
        return media_type not in self.ignoredmediatypes and media_type not in self.ignore.mediatypes


@dataclass(frozen=True)
class Events:
    """``notifications.events``.

    :ivar includereferences: whether events about manifests list what these refer to.
    """

    includereferences: bool = False


@dataclass(frozen=True)
class Notifications:
    """``notifications``.

    :ivar maxsize: bytes that events may take on disk that have not been delivered.
    """

    endpoints: tuple[Endpoint, ...] = ()
    events: Events = Events()
    maxsize: int = 64 * 1024 * 1024

    @property
    def active(self) -> tuple[Endpoint, ...]:
        """The endpoints that are not switched off."""
        return tuple(endpoint for endpoint in self.endpoints if not endpoint.disabled)

    def wanted(self, action: str, media_type: str) -> bool:
        """Whether any endpoint is to be told of an event; see :meth:`Endpoint.wants`."""
        return any(endpoint.wants(action, media_type) for endpoint in self.endpoints)
