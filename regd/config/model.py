"""What regd is told to do: one tree of frozen values, with every default filled in and every value checked.

The names follow the keys of the file (``docs/configuration.rst``). Durations are in seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from types import MappingProxyType
from typing import Literal

from regd.config.addresses import TCPAddress, UnixAddress
from regd.config.authvalues import Auth, Rule
from regd.config.caching import PullThrough
from regd.config.healthvalues import HealthChecks
from regd.config.limitvalues import Limits, Patience, RateLimit
from regd.config.notifying import Notifications
from regd.config.patterns import Pattern
from regd.config.proxying import Route
from regd.config.tlsvalues import TLS
from regd.config.tracingvalues import Tracing
from regd.config.window import Window

__all__ = [
    "HTTP",
    "AccessLog",
    "Catalog",
    "Config",
    "Debug",
    "Delete",
    "FilesystemStorage",
    "GarbageCollect",
    "InMemoryStorage",
    "IndexRules",
    "Loaded",
    "Log",
    "Maintenance",
    "ManifestValidation",
    "Network",
    "NoStorage",
    "Platform",
    "Prometheus",
    "ReadOnly",
    "ReverseProxy",
    "Storage",
    "Tags",
    "URLRules",
    "UploadPurging",
    "Validation",
]

Network = IPv4Network | IPv6Network


@dataclass(frozen=True)
class AccessLog:
    """
    ``log.accesslog``: one line for each request.

    :ivar path: the file that lines go to; empty for standard output.
    """

    disabled: bool
    formatter: Literal["combined", "text", "json", "logstash"] = "combined"
    path: str = ""


@dataclass(frozen=True)
class Log:
    """
    ``log``: how much is logged, in which form, and what every line carries.

    :ivar levels: those of parts that have one of their own.
    """

    level: Literal["error", "warn", "info", "debug"]
    formatter: Literal["text", "json", "logstash"]
    fields: Mapping[str, str]
    accesslog: AccessLog
    levels: Mapping[str, Literal["error", "warn", "info", "debug"]] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True)
class FilesystemStorage:
    """``storage.filesystem``: the tree of files below ``rootdirectory``.

    :ivar maxthreads: at most so many file operations at once, never less than 25.
    """

    rootdirectory: str
    maxthreads: int


@dataclass(frozen=True)
class InMemoryStorage:
    """``storage.inmemory``: everything is gone when the process ends."""


@dataclass(frozen=True)
class NoStorage:
    """No ``storage`` at all: regd is a proxy only."""


@dataclass(frozen=True)
class Delete:
    """``storage.delete``: whether clients may delete."""

    enabled: bool


@dataclass(frozen=True)
class ReadOnly:
    """``storage.maintenance.readonly``: whether every change is refused."""

    enabled: bool


@dataclass(frozen=True)
class GarbageCollect:
    """``storage.maintenance.garbagecollect``: when what nobody can reach is removed by itself, and how.

    :ivar enabled: whether it happens by itself; the command works without.
    :ivar interval: seconds from one run to the next.
    :ivar window: the part of the day in which a run may begin; ``None`` for all of it.
    :ivar grace: seconds for which content is kept that nothing refers to yet.
    :ivar untagged: whether manifests go, too, that no tag, index or subject holds.
    :ivar dryrun: whether a run only says what it would remove.
    :ivar maxrate: files that are looked at or removed in a second; 0 for no limit.
    :ivar wait: seconds that a change waits while the gate is closed, before it is refused with 503.
    """

    enabled: bool
    interval: float = 86400.0
    window: Window | None = None
    grace: float = 3600.0
    untagged: bool = False
    dryrun: bool = False
    maxrate: int = 0
    wait: float = 5.0


@dataclass(frozen=True)
class UploadPurging:
    """``storage.maintenance.uploadpurging``: when uploads are removed that nobody finished.

    :ivar age: seconds since an upload began.
    :ivar interval: seconds from one run to the next.
    :ivar dryrun: whether a run only says what it would remove.
    """

    enabled: bool = True
    age: float = 604800.0
    interval: float = 86400.0
    dryrun: bool = False


@dataclass(frozen=True)
class Maintenance:
    """``storage.maintenance``."""

    readonly: ReadOnly
    garbagecollect: GarbageCollect
    uploadpurging: UploadPurging


@dataclass(frozen=True)
class Storage:
    """``storage``: where the bytes are, and what may be done to them."""

    driver: FilesystemStorage | InMemoryStorage | NoStorage
    delete: Delete
    maintenance: Maintenance


@dataclass(frozen=True)
class Prometheus:
    """``http.debug.prometheus``: the page of metrics.

    :ivar path: where it is; begins with ``/``, and belongs to no other page of the listener.
    """

    enabled: bool = False
    path: str = "/metrics"


@dataclass(frozen=True)
class Debug:
    """``http.debug``: the listener for operators; its address is ``None`` when there is none."""

    addr: TCPAddress | None
    prometheus: Prometheus = field(default_factory=Prometheus)


@dataclass(frozen=True)
class HTTP:
    """``http``: the listener, and how answers name the registry.

    :ivar prefix: starts and ends with ``/``.
    :ivar host: an absolute URL without a slash at its end; empty when the request decides.
    :ivar secret: never shown; empty when none was given.
    :ivar headers: names as the operator wrote them, each with at least one value; checked against RFC 9110 section 5.
    :ivar draintimeout: seconds that requests in flight get when the daemon stops; 0 does not wait.
    :ivar workers: processes that serve; ``None`` for as many as the machine has cores to use, up to 4.
    :ivar tls: ``None`` for plain HTTP.
    """

    addr: TCPAddress | UnixAddress
    prefix: str
    host: str
    secret: str = field(repr=False)
    relativeurls: bool
    headers: Mapping[str, tuple[str, ...]]
    draintimeout: float
    workers: int | None
    debug: Debug
    limits: Limits = field(default_factory=Limits)
    timeouts: Patience = field(default_factory=Patience)
    tls: TLS | None = None


@dataclass(frozen=True)
class Catalog:
    """``catalog``: at most so many repositories in one answer."""

    maxentries: int = 1000


@dataclass(frozen=True)
class Tags:
    """``tags``: at most so many tags in one answer."""

    maxtags: int = 1000


@dataclass(frozen=True)
class URLRules:
    """``validation.manifests.urls``: which URLs a pushed manifest may name for a layer.

    :ivar allow: regular expressions in Go's (RE2) syntax, unanchored.
    :ivar deny: the same.
    """

    allow: tuple[str, ...]
    deny: tuple[str, ...]
    _allow: tuple[Pattern, ...] = field(init=False, repr=False, compare=False)
    _deny: tuple[Pattern, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Compile the rules once; :exc:`regd.config.patterns.PatternError` if one is not an expression."""
        # A frozen dataclass offers no other way to keep a value that is derived from its fields.
        object.__setattr__(self, "_allow", tuple(map(Pattern.parse, self.allow)))
        object.__setattr__(self, "_deny", tuple(map(Pattern.parse, self.deny)))

    def permits(self, url: str) -> bool:
        """Say whether a manifest may name this URL, as registry:2 decides it.

        Without any rule nothing is allowed. With only ``deny`` rules, what they do not match is allowed.
        The time is linear in the length of the URL, whatever the rules are.
        """
        if not self._allow and not self._deny:
            return False
        if self._allow and not any(rule.search(url) for rule in self._allow):
            return False
        return not any(rule.search(url) for rule in self._deny)


@dataclass(frozen=True)
class Platform:
    """One entry of ``validation.manifests.indexes.platformlist``."""

    os: str
    architecture: str


@dataclass(frozen=True)
class IndexRules:
    """``validation.manifests.indexes``: which images of a pushed index have to be here already.

    :ivar platformlist: what ``platforms == "list"`` asks for; empty otherwise has no meaning.
    """

    platforms: Literal["all", "none", "list"]
    platformlist: tuple[Platform, ...]


@dataclass(frozen=True)
class ManifestValidation:
    """``validation.manifests``."""

    urls: URLRules
    indexes: IndexRules


@dataclass(frozen=True)
class Validation:
    """``validation``: what is checked in pushed manifests; ``disabled`` switches all of it off."""

    disabled: bool
    manifests: ManifestValidation


@dataclass(frozen=True)
class ReverseProxy:
    """``reverseproxy``.

    :ivar trusted: the peers whose ``Forwarded`` and ``X-Forwarded-*`` headers are believed.
    :ivar routes: the first that matches a request says where it goes.
    """

    trusted: tuple[Network, ...] = ()
    routes: tuple[Route, ...] = ()

    def trusts(self, peer: str) -> bool:
        """Say whether a peer is one of the trusted proxies.

        :param peer: an IP address; anything else (the peer of a Unix socket has none) is not trusted.
        """
        try:
            address = ip_address(peer.partition("%")[0])
        except ValueError:
            return False
        # A socket that takes IPv4 and IPv6 reports an IPv4 peer as ::ffff:a.b.c.d.
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(address in network for network in self.trusted)


@dataclass(frozen=True)
class Config:
    """All of it.

    :ivar access: what who may do; ``None`` where nothing is said: whoever is known may do everything.
    :ivar groups: the names of users by the name of their group.
    """

    version: str
    log: Log
    storage: Storage
    http: HTTP
    catalog: Catalog
    tags: Tags
    validation: Validation
    reverseproxy: ReverseProxy
    proxy: PullThrough = field(default_factory=PullThrough)
    health: HealthChecks = field(default_factory=HealthChecks)
    notifications: Notifications = field(default_factory=Notifications)
    tracing: Tracing = field(default_factory=Tracing)
    auth: Auth = field(default_factory=Auth)
    access: tuple[Rule, ...] | None = None
    ratelimit: RateLimit = field(default_factory=RateLimit)
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True)
class Loaded:
    """A configuration, and what its reader has to tell the operator.

    :ivar warnings: one line each.
    :ivar path: the file that was read.
    :ivar source: what was in it; never shown, as it may hold secrets.
    """

    config: Config
    warnings: tuple[str, ...]
    path: str
    source: bytes = field(repr=False)
