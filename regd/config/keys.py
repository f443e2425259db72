"""The keys that regd obeys. With :mod:`regd.config.foreign`, this is the table from which everything else is made:
reading, suggestions for unknown names, environment variables, ``check-config`` and the test of ``docs/configuration.rst``.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

from regd.config import checks
from regd.config.addresses import TCPAddress, UnixAddress, parse_unix_address
from regd.config.auths import ACCESS, GROUPS, HTPASSWD, ISSUER, SILLY, TOKEN
from regd.config.caches import PARTS, maxage, maxsize, remote_url, upstreams
from regd.config.caching import CacheLimits, CacheUpstream
from regd.config.endpoints import endpoints
from regd.config.error import shown
from regd.config.foreign import FOREIGN
from regd.config.healthchecks import file_checks, http_checks, look_interval, tcp_checks
from regd.config.healthvalues import FileCheck, HTTPCheck, StorageCheck, TCPCheck
from regd.config.limitvalues import Limits, Patience, Rate
from regd.config.logs import LEVELS, LogLevel, log_file, log_levels
from regd.config.model import GarbageCollect, Network, Platform, UploadPurging
from regd.config.notifying import Endpoint, Notifications
from regd.config.proxying import Route, Upstream
from regd.config.routes import routes
from regd.config.schema import Key, Row, build
from regd.config.tlskeys import TLS_KEYS
from regd.config.tracing import endpoint, ratio, secret_fields, service_name
from regd.config.values import Parser, boolean, choice, duration, from_text, integer, list_of, record, size, text
from regd.config.window import Window, parse_window

AccessFormatter = Literal["combined", "text", "json", "logstash"]
LogFormatter = Literal["text", "json", "logstash"]
Platforms = Literal["all", "none", "list"]
_FORMATTERS: Parser[LogFormatter] = choice("text", "json", "logstash", empty="text")
_ACCESS_FORMATTERS: Parser[AccessFormatter] = choice("combined", "text", "json", "logstash", empty="combined")
_NETS: Parser[Literal["tcp", "unix"]] = choice("tcp", "unix", empty="tcp")
_PLATFORMS: Parser[Platforms] = choice("all", "none", "list", fold=True, empty="all")
_PATTERNS = list_of(from_text(checks.pattern, shown), "'^https://example\\.com/'")

VERSION = Key("version", text(), "")
LOG_LEVEL: Key[LogLevel] = Key("log.level", LEVELS, "info")
LOG_LEVELS: Key[Mapping[str, LogLevel]] = Key("log.levels", log_levels(), MappingProxyType({}))
LOGLEVEL: Key[LogLevel] = Key("loglevel", checks.deprecated(LEVELS, "log.level"), "info")
LOG_FORMATTER: Key[LogFormatter] = Key("log.formatter", _FORMATTERS, "text")
LOG_FIELDS: Key[Mapping[str, str]] = Key("log.fields", checks.log_fields(), MappingProxyType({}))
ACCESSLOG_DISABLED = Key("log.accesslog.disabled", boolean(), default=False)
ACCESSLOG_FORMATTER: Key[AccessFormatter] = Key("log.accesslog.formatter", _ACCESS_FORMATTERS, "combined")
ACCESSLOG_PATH = Key("log.accesslog.path", from_text(log_file, shown), "")

FILESYSTEM_ROOT = Key("storage.filesystem.rootdirectory", from_text(checks.directory, shown), "/var/lib/registry")
FILESYSTEM_THREADS = Key("storage.filesystem.maxthreads", checks.thread_count(), 100)
INMEMORY = Key("storage.inmemory", checks.empty_section(), None)
DELETE_ENABLED = Key("storage.delete.enabled", boolean(), default=False)
READONLY_ENABLED = Key("storage.maintenance.readonly.enabled", boolean(), default=False)
#: What the sections say where the file says nothing.
_COLLECTING = GarbageCollect(enabled=False)
_PURGING = UploadPurging()
#: ``None`` is as ``storage.delete.enabled``: where nobody deletes, there is little to collect.
COLLECT_ENABLED: Key[bool | None] = Key(
    "storage.maintenance.garbagecollect.enabled", checks.or_as(boolean(), "storage.delete.enabled"), None
)
COLLECT_INTERVAL = Key(
    "storage.maintenance.garbagecollect.interval", checks.interval(duration(minimum=1_000_000_000)), _COLLECTING.interval
)
COLLECT_WINDOW: Key[Window | None] = Key(
    "storage.maintenance.garbagecollect.window", from_text(parse_window, lambda window: str(window or "none")), _COLLECTING.window
)
COLLECT_GRACE = Key("storage.maintenance.garbagecollect.grace", checks.grace(), _COLLECTING.grace)
COLLECT_UNTAGGED = Key("storage.maintenance.garbagecollect.untagged", boolean(), _COLLECTING.untagged)
COLLECT_DRYRUN = Key("storage.maintenance.garbagecollect.dryrun", boolean(), _COLLECTING.dryrun)
COLLECT_MAXRATE = Key("storage.maintenance.garbagecollect.maxrate", integer(minimum=0), _COLLECTING.maxrate)
COLLECT_WAIT = Key("storage.maintenance.garbagecollect.wait", duration(), _COLLECTING.wait)
PURGE_ENABLED = Key("storage.maintenance.uploadpurging.enabled", boolean(), _PURGING.enabled)
PURGE_AGE = Key("storage.maintenance.uploadpurging.age", duration(bare=False), _PURGING.age)
PURGE_INTERVAL = Key(
    "storage.maintenance.uploadpurging.interval", checks.interval(duration(minimum=1_000_000_000, bare=False)), _PURGING.interval
)
PURGE_DRYRUN = Key("storage.maintenance.uploadpurging.dryrun", boolean(), _PURGING.dryrun)
REDIRECT_DISABLE = Key("storage.redirect.disable", boolean(), default=True)
CACHE_DESCRIPTOR = Key("storage.cache.blobdescriptor", checks.cache_kind(), "")
CACHE_LAYERINFO = Key("storage.cache.layerinfo", checks.cache_kind(), "")
CACHE_SIZE = Key("storage.cache.blobdescriptorsize", integer(quoted=True), 0)

NET: Key[Literal["tcp", "unix"]] = Key("http.net", _NETS, "tcp")
ADDR: Key[TCPAddress | UnixAddress] = Key("http.addr", from_text(checks.listen_address), checks.DEFAULT_ADDRESS)
#: The same key, read so where ``http.net`` is ``unix``.
UNIX_ADDR: Key[TCPAddress | UnixAddress] = Key("http.addr", from_text(parse_unix_address), checks.DEFAULT_ADDRESS)
PREFIX = Key("http.prefix", from_text(checks.url_prefix), "/")
HOST = Key("http.host", from_text(checks.url_host, shown), "")
SECRET = Key("http.secret", text(secret=True), "")
RELATIVEURLS = Key("http.relativeurls", boolean(), default=False)
HEADERS: Key[Mapping[str, tuple[str, ...]]] = Key("http.headers", checks.header_fields(), MappingProxyType({}))
DRAINTIMEOUT = Key("http.draintimeout", duration(), 0.0)
WORKERS: Key[int | None] = Key("http.workers", checks.worker_count(), None)
DEBUG_ADDR: Key[TCPAddress | None] = Key("http.debug.addr", from_text(checks.debug_address, lambda addr: str(addr or "none")), None)
PROMETHEUS_ENABLED = Key("http.debug.prometheus.enabled", boolean(), default=False)
PROMETHEUS_PATH = Key("http.debug.prometheus.path", from_text(checks.metrics_path), "/metrics")
#: What is there already, but not its end, counts too; so an upper limit on the limit keeps promise P1.
LIMITS_LINE = Key("http.limits.line", size(1024, 64 * 1024, "16KiB"), Limits().line)
LIMITS_HEADER = Key("http.limits.header", size(1024, 64 * 1024, "16KiB"), Limits().header)
LIMITS_FIELDS = Key("http.limits.fields", checks.bounded(10, 1000), Limits().fields)
LIMITS_CONNECTIONS = Key("http.limits.connections", integer(minimum=0), Limits().connections)
LIMITS_PERCLIENT = Key("http.limits.perclient", integer(minimum=0), Limits().perclient)
LIMITS_UPLOADS = Key("http.limits.uploads", integer(minimum=0), Limits().uploads)
_SECOND = 1_000_000_000
TIMEOUTS_HEADER = Key("http.timeouts.header", duration(minimum=_SECOND), Patience().header)
TIMEOUTS_IDLE = Key("http.timeouts.idle", duration(minimum=_SECOND), Patience().idle)
TIMEOUTS_READ = Key("http.timeouts.read", duration(minimum=_SECOND), Patience().read)
TIMEOUTS_WRITE = Key("http.timeouts.write", duration(minimum=_SECOND), Patience().write)
RATE_USER = Key("ratelimit.user.requests", integer(minimum=0), Rate().requests)
RATE_USER_PER = Key("ratelimit.user.per", duration(minimum=_SECOND), Rate().per)
RATE_ADDRESS = Key("ratelimit.address.requests", integer(minimum=0), Rate().requests)
RATE_ADDRESS_PER = Key("ratelimit.address.per", duration(minimum=_SECOND), Rate().per)
HTTP2_DISABLED = Key("http.http2.disabled", checks.http2_disabled(), default=True)

CATALOG_MAXENTRIES = Key("catalog.maxentries", checks.page_size(default=1000), 1000)
TAGS_MAXTAGS = Key("tags.maxtags", checks.page_size(minimum=0, default=1000), 1000)

VALIDATION_DISABLED = Key("validation.disabled", boolean(), default=False)
VALIDATION_ENABLED = Key("validation.enabled", checks.deprecated(boolean(), "validation.disabled"), default=False)
URLS_ALLOW: Key[tuple[str, ...]] = Key("validation.manifests.urls.allow", _PATTERNS, ())
URLS_DENY: Key[tuple[str, ...]] = Key("validation.manifests.urls.deny", _PATTERNS, ())
INDEX_PLATFORMS: Key[Platforms] = Key("validation.manifests.indexes.platforms", _PLATFORMS, "all")
INDEX_PLATFORMLIST: Key[tuple[Platform, ...]] = Key(
    "validation.manifests.indexes.platformlist",
    list_of(record(Platform, os=text(), architecture=text()), "{os: linux, architecture: amd64}"),
    (),
)

TRUSTED: Key[tuple[Network, ...]] = Key("reverseproxy.trusted", list_of(from_text(checks.network), "10.0.0.0/8"), ())
ROUTES: Key[tuple[Route, ...]] = Key("reverseproxy.routes", routes(), ())

REMOTEURL: Key[Upstream | None] = Key("proxy.remoteurl", from_text(remote_url, lambda found: str(found or "none")), None)
#: The keys that describe the upstream beside ``proxy.remoteurl``, by their last name. ``Any``: they are of many types.
REMOTE: Mapping[str, Key[Any]] = MappingProxyType({name: Key(f"proxy.{name}", *part) for name, part in PARTS.items()})
TTL = Key("proxy.ttl", duration(), 604800.0)
UPSTREAMS: Key[tuple[CacheUpstream, ...]] = Key("proxy.upstreams", upstreams(), ())
CACHE_MAXSIZE: Key[int | None] = Key("proxy.cache.maxsize", maxsize(), None)
CACHE_MAXAGE: Key[float | None] = Key("proxy.cache.maxage", maxage(), None)
CACHE_INTERVAL = Key("proxy.cache.interval", checks.interval(duration(minimum=1_000_000_000)), CacheLimits().interval)

HEALTH_STORAGE_ENABLED = Key("health.storagedriver.enabled", boolean(), default=False)
HEALTH_STORAGE_INTERVAL = Key("health.storagedriver.interval", look_interval(), StorageCheck().interval)
HEALTH_STORAGE_THRESHOLD = Key("health.storagedriver.threshold", integer(minimum=0), StorageCheck().threshold)
HEALTH_FILE: Key[tuple[FileCheck, ...]] = Key("health.file", file_checks(), ())
HEALTH_HTTP: Key[tuple[HTTPCheck, ...]] = Key("health.http", http_checks(), ())
HEALTH_TCP: Key[tuple[TCPCheck, ...]] = Key("health.tcp", tcp_checks(), ())
ENDPOINTS: Key[tuple[Endpoint, ...]] = Key("notifications.endpoints", endpoints(), ())
INCLUDEREFERENCES = Key("notifications.events.includereferences", boolean(), default=False)
NOTIFICATIONS_MAXSIZE = Key("notifications.maxsize", size(8 * 1024 * 1024, 1024**4, "64MiB"), Notifications().maxsize)

TRACING_ENABLED: Key[bool | None] = Key("tracing.enabled", checks.or_as(boolean(), "OTEL_TRACES_EXPORTER"), None)
TRACING_ENDPOINT: Key[str | None] = Key("tracing.endpoint", checks.or_as(endpoint(), "OTEL_EXPORTER_OTLP_ENDPOINT"), None)
TRACING_HEADERS: Key[Mapping[str, tuple[str, ...]]] = Key("tracing.headers", secret_fields(), MappingProxyType({}))
TRACING_SAMPLERATIO: Key[float | None] = Key("tracing.sampleratio", checks.or_as(ratio(), "OTEL_TRACES_SAMPLER"), None)
TRACING_SERVICENAME: Key[str | None] = Key("tracing.servicename", checks.or_as(service_name(), "OTEL_SERVICE_NAME"), None)

#: Every one of them. ``Any``: they are of many types.
OBEYED: tuple[Key[Any], ...] = (
    VERSION,
    LOG_LEVEL,
    LOG_LEVELS,
    LOGLEVEL,
    LOG_FORMATTER,
    LOG_FIELDS,
    ACCESSLOG_DISABLED,
    ACCESSLOG_FORMATTER,
    ACCESSLOG_PATH,
    FILESYSTEM_ROOT,
    FILESYSTEM_THREADS,
    INMEMORY,
    DELETE_ENABLED,
    READONLY_ENABLED,
    COLLECT_ENABLED,
    COLLECT_INTERVAL,
    COLLECT_WINDOW,
    COLLECT_GRACE,
    COLLECT_UNTAGGED,
    COLLECT_DRYRUN,
    COLLECT_MAXRATE,
    COLLECT_WAIT,
    PURGE_ENABLED,
    PURGE_AGE,
    PURGE_INTERVAL,
    PURGE_DRYRUN,
    REDIRECT_DISABLE,
    CACHE_DESCRIPTOR,
    CACHE_LAYERINFO,
    CACHE_SIZE,
    NET,
    ADDR,
    PREFIX,
    HOST,
    SECRET,
    RELATIVEURLS,
    HEADERS,
    DRAINTIMEOUT,
    WORKERS,
    DEBUG_ADDR,
    PROMETHEUS_ENABLED,
    PROMETHEUS_PATH,
    LIMITS_LINE,
    LIMITS_HEADER,
    LIMITS_FIELDS,
    LIMITS_CONNECTIONS,
    LIMITS_PERCLIENT,
    LIMITS_UPLOADS,
    TIMEOUTS_HEADER,
    TIMEOUTS_IDLE,
    TIMEOUTS_READ,
    TIMEOUTS_WRITE,
    RATE_USER,
    RATE_USER_PER,
    RATE_ADDRESS,
    RATE_ADDRESS_PER,
    HTTP2_DISABLED,
    *TLS_KEYS,
    CATALOG_MAXENTRIES,
    TAGS_MAXTAGS,
    VALIDATION_DISABLED,
    VALIDATION_ENABLED,
    URLS_ALLOW,
    URLS_DENY,
    INDEX_PLATFORMS,
    INDEX_PLATFORMLIST,
    TRUSTED,
    ROUTES,
    REMOTEURL,
    *REMOTE.values(),
    TTL,
    UPSTREAMS,
    CACHE_MAXSIZE,
    CACHE_MAXAGE,
    CACHE_INTERVAL,
    HEALTH_STORAGE_ENABLED,
    HEALTH_STORAGE_INTERVAL,
    HEALTH_STORAGE_THRESHOLD,
    HEALTH_FILE,
    HEALTH_HTTP,
    HEALTH_TCP,
    ENDPOINTS,
    INCLUDEREFERENCES,
    NOTIFICATIONS_MAXSIZE,
    TRACING_ENABLED,
    TRACING_ENDPOINT,
    TRACING_HEADERS,
    TRACING_SAMPLERATIO,
    TRACING_SERVICENAME,
    HTPASSWD,
    TOKEN,
    SILLY,
    ISSUER,
    ACCESS,
    GROUPS,
)
#: Those that leave nothing to do. They are read all the same: their values have to be right, and may be worth a warning.
ACCEPTED: tuple[Key[Any], ...] = (INMEMORY, REDIRECT_DISABLE, CACHE_DESCRIPTOR, CACHE_LAYERINFO, CACHE_SIZE, HTTP2_DISABLED)
TABLE: tuple[Row, ...] = (*OBEYED, *FOREIGN)

#: The names of registry:2's Go fields that are not those of the file. Its environment variables go by the fields.
_FIELDS = {
    "compatibility.schema1.signingkeyfile": "TrustKey",
    "health.file": "FileCheckers",
    "health.http": "HTTPCheckers",
    "health.tcp": "TCPCheckers",
    "log.hooks[].options": "MailOptions",
    "notifications.events": "EventConfig",
}

#: The tree of all keys.
ROOT = build(TABLE, _FIELDS, ("storage", "auth"))
