"""What clients may use of a registry: ``http.limits``, ``http.timeouts`` and ``ratelimit``."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Limits", "Patience", "Rate", "RateLimit"]


@dataclass(frozen=True)
class Limits:
    """``http.limits``: what the head of a request may be, and how many there may be of what.

    :ivar line: bytes of the request line, and of one header field.
    :ivar header: bytes of all of it.
    :ivar fields: how many header fields.
    :ivar connections: how many at once; 0 for as many as there are descriptors for.
    :ivar perclient: how many of them from one address, proxies that are trusted apart; 0 for any number.
    :ivar uploads: how many requests at once may bring something to be stored; 0 for any number.
    """

    line: int = 16384
    header: int = 16384
    fields: int = 500
    connections: int = 0
    perclient: int = 0
    uploads: int = 0


@dataclass(frozen=True)
class Patience:
    """``http.timeouts``, in seconds.

    :ivar header: for a TLS handshake, and for the head of a request from its first byte to its last.
    :ivar idle: for a connection on which nothing is asked.
    :ivar read: for a body of which nothing comes.
    :ivar write: for an answer of which the client takes nothing.
    """

    header: float = 60.0
    idle: float = 180.0
    read: float = 900.0
    write: float = 900.0


@dataclass(frozen=True)
class Rate:
    """So many requests in so many seconds, any number of them at once.

    :ivar requests: 0 for no limit.
    """

    requests: int = 0
    per: float = 1.0


@dataclass(frozen=True)
class RateLimit:
    """``ratelimit``: of each user, and of each address."""

    user: Rate = field(default_factory=Rate)
    address: Rate = field(default_factory=Rate)
