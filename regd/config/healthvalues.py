"""``health``: the values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from regd.config.addresses import TCPAddress

__all__ = ["FileCheck", "HTTPCheck", "HealthChecks", "StorageCheck", "TCPCheck"]


@dataclass(frozen=True)
class StorageCheck:
    """``health.storagedriver``.

    :ivar interval: seconds from one look to the next; as in the classes below.
    :ivar threshold: how many looks in a row have to fail before it counts; 0 is as 1. As in the classes below.
    """

    enabled: bool = False
    interval: float = 10.0
    threshold: int = 0


@dataclass(frozen=True)
class FileCheck:
    """One of ``health.file``: a file that says by being there that something is wrong."""

    file: str
    interval: float = 10.0
    threshold: int = 0


@dataclass(frozen=True)
class HTTPCheck:
    """One of ``health.http``: a URL that has to answer HEAD.

    :ivar headers: sent with each request; not shown, because they may hold secrets.
    :ivar timeout: seconds for an answer.
    """

    uri: str
    headers: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    statuscode: int = 200
    timeout: float = 10.0
    interval: float = 10.0
    threshold: int = 0


@dataclass(frozen=True)
class TCPCheck:
    """One of ``health.tcp``: an address that has to take connections.

    :ivar timeout: seconds to connect.
    """

    addr: TCPAddress
    timeout: float = 10.0
    interval: float = 10.0
    threshold: int = 0


@dataclass(frozen=True)
class HealthChecks:
    """``health``."""

    storagedriver: StorageCheck = field(default_factory=StorageCheck)
    file: tuple[FileCheck, ...] = ()
    http: tuple[HTTPCheck, ...] = ()
    tcp: tuple[TCPCheck, ...] = ()
