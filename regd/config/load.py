"""The file and the environment to a :class:`~regd.config.model.Config`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from regd.config import keys
from regd.config.auths import read_access, read_auth, read_groups
from regd.config.caches import in_plain_text, make_upstream
from regd.config.caching import CacheLimits, CacheUpstream, PullThrough
from regd.config.credentials import read_credentials, read_secret_files
from regd.config.document import ListNode, MapNode, Node, is_null, parse_document
from regd.config.environment import CONFIGURATION_PATH, override
from regd.config.error import ConfigError, one_line, shown
from regd.config.healthvalues import HealthChecks, StorageCheck
from regd.config.limitvalues import Limits, Patience, Rate, RateLimit
from regd.config.model import (
    HTTP,
    AccessLog,
    Catalog,
    Config,
    Debug,
    Delete,
    FilesystemStorage,
    GarbageCollect,
    IndexRules,
    InMemoryStorage,
    Loaded,
    Log,
    Maintenance,
    ManifestValidation,
    NoStorage,
    Prometheus,
    ReadOnly,
    ReverseProxy,
    Storage,
    Tags,
    UploadPurging,
    URLRules,
    Validation,
)
from regd.config.notifying import Events, Notifications
from regd.config.schema import Key, Refused, as_section
from regd.config.survey import survey
from regd.config.tlskeys import read_tls
from regd.config.tracing import sdk_disabled, switched_on
from regd.config.tracingvalues import Tracing
from regd.config.values import Place

__all__ = ["DEFAULT_PATH", "default_path", "load", "parse"]

T = TypeVar("T")
_Driver = FilesystemStorage | InMemoryStorage | NoStorage

DEFAULT_PATH = "/etc/regd/config.yml"
#: A configuration is a few KiB; a wrong file (an image, a log) should not be read to its end.
_LARGEST_FILE = 1024 * 1024
#: The drivers that there are, by the name of their section.
_DRIVERS = ("filesystem", "inmemory")


def default_path(argument: str | None, environ: Mapping[str, str]) -> str:
    """The file to read: the argument, else ``$REGISTRY_CONFIGURATION_PATH``, else ``/etc/regd/config.yml``.

    Empty ones count as not given.
    """
    return argument or environ.get(CONFIGURATION_PATH) or DEFAULT_PATH


def load(path: str | None, environ: Mapping[str, str]) -> Loaded:
    """Read a configuration.

    :param path: the file; ``None`` for :func:`default_path`.
    :param environ: the environment; of it ``REGISTRY_*`` is read.
    :raises ConfigError: there is no such file, it is no YAML, or a key in it must not be so. ``problems`` has all that were found.
    """
    path = default_path(path, environ)
    return parse(_contents(path), path, environ)


def parse(source: bytes, path: str, environ: Mapping[str, str]) -> Loaded:
    """Read a configuration that somebody has read from its file already.

    :param source: what is in the file.
    :param path: the file, for messages.
    :param environ: see :func:`load`; the credentials that it points to come before the variables in it.
    :raises ConfigError: see :func:`load`.
    """
    document, more = parse_document(source, path)
    warnings = [f"{path}: another YAML document follows the first and is not read"] if more else []
    if is_null(document):
        document = MapNode({}, document.origin)
    if not isinstance(document, MapNode):
        msg = f"{path}: found no keys at the top of the file, allowed: a map that begins with version: 0.1"
        raise ConfigError(msg)
    _check_version(document)
    files = read_secret_files(environ)
    plain = {name: value for name, value in environ.items() if name.removesuffix("_FILE") not in files}
    tree, unknown = override(document, {**plain, **files, **read_credentials(environ)}, keys.ROOT)
    found = survey(tree, keys.ROOT)
    reading = _Reading(tree, environ, found.errors)
    config = _config(reading)
    if reading.errors:
        raise ConfigError.joined(reading.errors)
    warnings += [*unknown, *found.warnings, *reading.warnings]
    return Loaded(config, tuple(map(one_line, warnings)), path, source)


def _contents(path: str) -> bytes:
    """The bytes of the file."""
    try:
        with open(path, "rb") as file:
            data = file.read(_LARGEST_FILE + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "this cannot be the path of a file"
        msg = f"{path}: found no configuration to read ({reason}), allowed: the path of a file that regd may read"
        raise ConfigError(msg) from None
    if len(data) > _LARGEST_FILE:
        msg = f"{path}: found more than {_LARGEST_FILE} bytes, allowed: less; this is hardly a configuration"
        raise ConfigError(msg)
    return data


def _check_version(document: MapNode) -> None:
    """The version says how to read all the rest, so a wrong one is the only problem to report."""
    node = document.entries.get(keys.VERSION.path)
    if node is None or is_null(node):
        msg = "version: found nothing, allowed: 0.1 (it is required)"
        raise ConfigError(msg)
    place = Place(keys.VERSION.path, node)
    if keys.VERSION.parser.read(place) != "0.1":
        raise ConfigError(f"{place.refuse('0.1')}; unsupported version")


@dataclass
class _Reading:
    """Reads keys and goes on after an error, so that one run reports all of them."""

    tree: MapNode
    environ: Mapping[str, str]
    errors: list[ConfigError]
    warnings: list[str] = field(default_factory=list)
    #: By the identity of the key: one that is asked for twice is read, and complained about, once. ``Any``: keys are of many types.
    _known: dict[int, Any] = field(default_factory=dict)

    def node(self, path: str) -> Node | None:
        """What stands at a path; ``None`` if nothing does, or if a section above it is no map (the survey has said so)."""
        node: Node | None = self.tree
        level = keys.ROOT
        for part in path.split("."):
            node = as_section(node, level) if node is not None else None
            node = node.entries.get(part) if isinstance(node, MapNode) else None
            level = level.children[part]
        return as_section(node, level) if node is not None and level.children else node

    def given(self, key: Key[T]) -> bool:
        """Say whether a key has a value."""
        node = self.node(key.path)
        return node is not None and not is_null(node)

    def get(self, key: Key[T]) -> T:
        """The value of a key, or its default; the default also after an error, which is kept."""
        if id(key) not in self._known:
            self._known[id(key)] = self._read(key)
        found: T = self._known[id(key)]
        return found

    def _read(self, key: Key[T]) -> T:
        node = self.node(key.path)
        if node is None or is_null(node):
            return key.default
        try:
            return key.parser.read(Place(key.path, node, self.warnings))
        except ConfigError as error:
            self.errors.append(error)
            return key.default


def _config(reading: _Reading) -> Config:
    get = reading.get
    for key in keys.ACCEPTED:
        get(key)
    http = _http(reading)
    driver, maintenance = _driver(reading), _maintenance(reading)
    if isinstance(driver, NoStorage):
        # There is nothing to look after.
        maintenance = replace(maintenance, uploadpurging=UploadPurging(enabled=False))
    auth, groups = read_auth(reading), read_groups(reading)
    return Config(
        version=get(keys.VERSION),
        log=_log(reading),
        storage=Storage(
            driver=driver,
            delete=Delete(get(keys.DELETE_ENABLED)),
            maintenance=maintenance,
        ),
        http=http,
        catalog=Catalog(get(keys.CATALOG_MAXENTRIES)),
        tags=Tags(get(keys.TAGS_MAXTAGS)),
        validation=_validation(reading),
        reverseproxy=_reverseproxy(reading, http.prefix),
        proxy=_proxy(reading, driver, maintenance),
        health=_health(reading),
        notifications=_notifications(reading, driver),
        tracing=_tracing(reading),
        auth=auth,
        access=read_access(reading, auth, groups, certified=http.tls is not None and http.tls.verifies),
        groups=groups,
        ratelimit=RateLimit(
            Rate(get(keys.RATE_USER), get(keys.RATE_USER_PER)), Rate(get(keys.RATE_ADDRESS), get(keys.RATE_ADDRESS_PER))
        ),
    )


def _health(reading: _Reading) -> HealthChecks:
    get = reading.get
    return HealthChecks(
        StorageCheck(get(keys.HEALTH_STORAGE_ENABLED), get(keys.HEALTH_STORAGE_INTERVAL), get(keys.HEALTH_STORAGE_THRESHOLD)),
        get(keys.HEALTH_FILE),
        get(keys.HEALTH_HTTP),
        get(keys.HEALTH_TCP),
    )


def _tracing(reading: _Reading) -> Tracing:
    get = reading.get
    enabled = get(keys.TRACING_ENABLED)
    if enabled is None:
        enabled, warnings = switched_on(reading.environ)
        reading.warnings += warnings
    elif enabled and sdk_disabled(reading.environ):
        key = keys.TRACING_ENABLED
        reading.warnings.append(f"{key.path} ({_origin(reading, key)}): nothing is traced, because OTEL_SDK_DISABLED is true")
        enabled = False
    return Tracing(
        enabled, get(keys.TRACING_ENDPOINT), get(keys.TRACING_HEADERS), get(keys.TRACING_SAMPLERATIO), get(keys.TRACING_SERVICENAME)
    )


def _log(reading: _Reading) -> Log:
    get = reading.get
    old, new = get(keys.LOGLEVEL), get(keys.LOG_LEVEL)
    return Log(
        level=new if reading.given(keys.LOG_LEVEL) else old,
        formatter=get(keys.LOG_FORMATTER),
        fields=get(keys.LOG_FIELDS),
        accesslog=AccessLog(get(keys.ACCESSLOG_DISABLED), get(keys.ACCESSLOG_FORMATTER), get(keys.ACCESSLOG_PATH)),
        levels=get(keys.LOG_LEVELS),
    )


def _driver(reading: _Reading) -> _Driver:
    """The one driver that is named. As in registry:2, the name is enough: ``inmemory:`` without a value chooses it."""
    section = reading.node("storage")
    entries = section.entries if isinstance(section, MapNode) else {}
    named = [name for name in _DRIVERS if name in entries]
    children = keys.ROOT.children["storage"].children
    refused = any(isinstance(children[name].row, Refused) for name in entries if name in children)
    if len(named) > 1:
        found = " and ".join(f"{name} ({entries[name].origin})" for name in named)
        allowed = "exactly one driver; REGISTRY_STORAGE='{inmemory: {}}' would replace the whole section of the file"
        reading.errors.append(ConfigError(f"storage: found {found}, allowed: {allowed}"))
    elif section is None and _has_routes(reading):
        return NoStorage()
    # A refused driver, or a section that is no map, has been reported already.
    elif not named and not refused and (section is None or isinstance(section, MapNode)):
        reading.errors.append(ConfigError(f"storage: found no driver, allowed: one of {', '.join(_DRIVERS)}"))
    filesystem = FilesystemStorage(reading.get(keys.FILESYSTEM_ROOT), reading.get(keys.FILESYSTEM_THREADS))
    return InMemoryStorage() if named == ["inmemory"] else filesystem


def _maintenance(reading: _Reading) -> Maintenance:
    get = reading.get
    enabled = get(keys.COLLECT_ENABLED)
    return Maintenance(
        readonly=ReadOnly(get(keys.READONLY_ENABLED)),
        garbagecollect=GarbageCollect(
            enabled=get(keys.DELETE_ENABLED) if enabled is None else enabled,
            interval=get(keys.COLLECT_INTERVAL),
            window=get(keys.COLLECT_WINDOW),
            grace=get(keys.COLLECT_GRACE),
            untagged=get(keys.COLLECT_UNTAGGED),
            dryrun=get(keys.COLLECT_DRYRUN),
            maxrate=get(keys.COLLECT_MAXRATE),
            wait=get(keys.COLLECT_WAIT),
        ),
        uploadpurging=_uploadpurging(reading),
    )


def _uploadpurging(reading: _Reading) -> UploadPurging:
    """As registry:2: the defaults are those of the section as a whole. One that is given has to be complete, or switched off."""
    above = reading.node("storage.maintenance")
    section = above.entries.get("uploadpurging") if isinstance(above, MapNode) else None
    if not isinstance(section, MapNode):
        return UploadPurging()
    if not reading.get(keys.PURGE_ENABLED):
        # registry:2 looks at nothing else then, whatever it is.
        return UploadPurging(enabled=False)
    purging = UploadPurging(
        age=reading.get(keys.PURGE_AGE), interval=reading.get(keys.PURGE_INTERVAL), dryrun=reading.get(keys.PURGE_DRYRUN)
    )
    needed: tuple[tuple[Key[Any], str], ...] = ((keys.PURGE_AGE, "168h"), (keys.PURGE_INTERVAL, "24h"), (keys.PURGE_DRYRUN, "false"))
    for key, example in needed:
        if not reading.given(key):
            allowed = f"a value, such as {example}; where uploadpurging is given and not switched off by enabled: false, it is required"
            reading.errors.append(ConfigError(f"{key.path} ({section.origin}): found nothing, allowed: {allowed}"))
    return purging


def _http(reading: _Reading) -> HTTP:
    get = reading.get
    unix = get(keys.NET) == "unix"
    if unix and not reading.given(keys.ADDR):
        reading.errors.append(ConfigError("http.addr: found nothing, allowed: the path of a socket, because http.net is unix"))
    addr = get(keys.UNIX_ADDR if unix else keys.ADDR)
    return HTTP(
        addr=addr,
        prefix=get(keys.PREFIX),
        host=get(keys.HOST),
        secret=get(keys.SECRET),
        relativeurls=get(keys.RELATIVEURLS),
        headers=get(keys.HEADERS),
        draintimeout=get(keys.DRAINTIMEOUT),
        workers=get(keys.WORKERS),
        debug=_debug(reading),
        limits=Limits(
            get(keys.LIMITS_LINE),
            get(keys.LIMITS_HEADER),
            get(keys.LIMITS_FIELDS),
            get(keys.LIMITS_CONNECTIONS),
            get(keys.LIMITS_PERCLIENT),
            get(keys.LIMITS_UPLOADS),
        ),
        timeouts=Patience(
            get(keys.TIMEOUTS_HEADER), get(keys.TIMEOUTS_IDLE), get(keys.TIMEOUTS_READ), get(keys.TIMEOUTS_WRITE)
        ),
        tls=read_tls(reading, addr),
    )


def _debug(reading: _Reading) -> Debug:
    addr, prometheus = reading.get(keys.DEBUG_ADDR), Prometheus(reading.get(keys.PROMETHEUS_ENABLED), reading.get(keys.PROMETHEUS_PATH))
    if addr is None and prometheus.enabled:
        key = keys.PROMETHEUS_ENABLED
        reading.warnings.append(f"{key.path} ({_origin(reading, key)}): nothing to do without http.debug.addr, which serves the page")
    return Debug(addr, prometheus)


def _has_routes(reading: _Reading) -> bool:
    node = reading.node(keys.ROUTES.path)
    return node is not None and not is_null(node) and not (isinstance(node, ListNode) and not node.items)


def _reverseproxy(reading: _Reading, prefix: str) -> ReverseProxy:
    found = ReverseProxy(reading.get(keys.TRUSTED), reading.get(keys.ROUTES))
    own = f"{prefix}v2/"
    if reading.node("storage") is not None:
        for index, route in enumerate(found.routes):
            # Own storage comes first, so nothing would ever go this way; and who wrote it believes that it does.
            if not route.host and route.path.startswith(own):
                path = f"{keys.ROUTES.path}[{index}].path"
                allowed = f"a path that is not below {own}, which the storage of this registry answers; or a host beside it; or no storage"
                reading.errors.append(ConfigError(f"{path}: found {shown(route.path)}, allowed: {allowed}"))
    return found


def _validation(reading: _Reading) -> Validation:
    get = reading.get
    # As in registry:2: the old key, when it is true, wins; when it is false it says nothing.
    enabled, disabled = get(keys.VALIDATION_ENABLED), get(keys.VALIDATION_DISABLED)
    return Validation(
        disabled=disabled and not enabled,
        manifests=ManifestValidation(
            urls=URLRules(get(keys.URLS_ALLOW), get(keys.URLS_DENY)),
            indexes=IndexRules(get(keys.INDEX_PLATFORMS), get(keys.INDEX_PLATFORMLIST)),
        ),
    )


def _proxy(reading: _Reading, driver: _Driver, maintenance: Maintenance) -> PullThrough:
    """The cache, in whichever of its two forms; and what does not go together with one."""
    remote, listed = reading.get(keys.REMOTEURL), reading.get(keys.UPSTREAMS)
    parts = {name: reading.get(key) for name, key in keys.REMOTE.items()}
    ttl, limits = reading.get(keys.TTL), _cache_limits(reading)
    if remote is None:
        _say_useless(reading, (*keys.REMOTE.values(), keys.TTL), "nothing to do without proxy.remoteurl")
    elif listed:
        found = f"proxy.upstreams ({_origin(reading, keys.UPSTREAMS)}): found it beside proxy.remoteurl"
        reading.errors.append(ConfigError(f"{found}, allowed: one of them; with remoteurl all of this registry is a cache"))
    else:
        try:
            listed = (make_upstream(remote, **parts),)
        except ValueError as error:
            # What was found are secrets, or paths whose names say enough.
            reading.errors.append(ConfigError(f"proxy.remoteurl ({_origin(reading, keys.REMOTEURL)}): allowed is {error}"))
        if not reading.given(keys.CACHE_MAXAGE):
            limits = replace(limits, maxage=ttl or None)
    if not listed:
        useless = (keys.CACHE_MAXSIZE, keys.CACHE_MAXAGE, keys.CACHE_INTERVAL)
        _say_useless(reading, useless, "nothing to do without proxy.remoteurl or proxy.upstreams")
        return PullThrough()
    _check_surroundings(reading, listed, driver, maintenance)
    return PullThrough(listed, limits)


def _notifications(reading: _Reading, driver: _Driver) -> Notifications:
    get = reading.get
    found = Notifications(get(keys.ENDPOINTS), Events(get(keys.INCLUDEREFERENCES)), get(keys.NOTIFICATIONS_MAXSIZE))
    if not found.active:
        _say_useless(reading, (keys.INCLUDEREFERENCES, keys.NOTIFICATIONS_MAXSIZE), "nothing to do without notifications.endpoints")
    elif isinstance(driver, NoStorage):
        where = f"{keys.ENDPOINTS.path} ({_origin(reading, keys.ENDPOINTS)})"
        reading.warnings.append(f"{where}: without storage nothing happens here that could be told of")
    return found


def _cache_limits(reading: _Reading) -> CacheLimits:
    get = reading.get
    return CacheLimits(get(keys.CACHE_MAXSIZE), get(keys.CACHE_MAXAGE), get(keys.CACHE_INTERVAL))


def _check_surroundings(reading: _Reading, upstreams: tuple[CacheUpstream, ...], driver: _Driver, maintenance: Maintenance) -> None:
    """A cache has to store what it fetches; and passwords want to be secret on their way, too."""
    key = keys.UPSTREAMS if reading.given(keys.UPSTREAMS) else keys.REMOTEURL
    if isinstance(driver, NoStorage):
        found = f"{key.path} ({_origin(reading, key)}): found it without storage"
        reading.errors.append(ConfigError(f"{found}, allowed: storage beside it, where the cache keeps what it fetches"))
    if maintenance.readonly.enabled:
        found = f"{key.path} ({_origin(reading, key)}): found it beside {keys.READONLY_ENABLED.path}: true"
        reading.errors.append(ConfigError(f"{found}, allowed: one of them; a cache stores what it fetches, and takes no pushes anyway"))
    for upstream in filter(in_plain_text, upstreams):
        where = f"{key.path} ({_origin(reading, key)})"
        reading.warnings.append(f"{where}: the password for {upstream.remote} goes there in plain text; https:// would hide it")


def _say_useless(reading: _Reading, useless: tuple[Key[Any], ...], why: str) -> None:
    """One warning for those of some keys that ask for something."""
    given = [key for key in useless if reading.given(key) and reading.get(key) != key.default]
    if given:
        reading.warnings.append(f"{', '.join(f'{key.path} ({_origin(reading, key)})' for key in given)}: {why}")


def _origin(reading: _Reading, key: Key[Any]) -> str:
    """Where a key stands."""
    node = reading.node(key.path)
    return node.origin if node is not None else "not given"
