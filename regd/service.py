"""
Where everything is put together: a configuration in, a Twisted service out. The only module that knows all the others.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from contextlib import suppress
from typing import Any, NoReturn, TextIO

from twisted.application.service import MultiService
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, TimeoutError, maybeDeferred  # noqa: A004 - it is not Python's, and the one that is raised
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.internet.task import deferLater
from twisted.logger import ILogObserver, Logger
from twisted.python.components import Componentized
from twisted.python.logfile import LogFile
from twisted.python.usage import Options as UsageOptions

from regd import __version__
from regd.config import Config, ConfigError, FilesystemStorage, Loaded, TCPAddress, UnixAddress, default_path, load
from regd.manifest import Platform
from regd.registry.core import Registry
from regd.registry.rules import ManifestRules
from regd.storage.damage import Damage
from regd.storage.driver import Driver, StorageError
from regd.storage.filesystem import FilesystemDriver
from regd.storage.memory import MemoryDriver
from regd.storage.threads import PoolThreads
from regd.telemetry.access import AccessLog
from regd.telemetry.health import Health
from regd.telemetry.logs import LineObserver
from regd.web.api import Api
from regd.web.blobs import BlobHandlers
from regd.web.debug import DebugApi
from regd.web.dispatch import Dispatcher
from regd.web.listen import listen, url_of
from regd.web.lists import ListHandlers
from regd.web.manifests import ManifestHandlers
from regd.web.request import StreamingRequest, StreamingSite
from regd.web.site import Root
from regd.web.state import StateSigner
from regd.web.uploads import UploadHandlers
from regd.web.urls import Urls

__all__ = ["CannotStart", "Options", "RegistryService", "makeService"]

#: Fewer open files than this are worth a warning: a connection takes two while a blob is on its way.
_FEW_FILES = 4096

#: How long handlers have to come to an end after their connections have been cut, in seconds.
_SETTLE = 10.0

# Any: a reactor is typed as the union of what reactors may be.
reactor: Any = _reactor


class Options(UsageOptions):
    """What ``twistd regd`` takes."""

    synopsis = "[--config FILE]"
    longdesc = "A container registry daemon: what registry:2 and the nginx in front of it do, in one process."
    optParameters = [  # noqa: N815 - Twisted's name
        ["config", "c", None, "The configuration, in registry:2's format. [default: $REGISTRY_CONFIGURATION_PATH or /etc/regd/config.yml]"],
    ]
    loaded: Loaded

    def opt_version(self) -> NoReturn:
        """Print regd's version and end."""
        print(f"regd {__version__}")  # noqa: T201 - the answer to a person's question
        raise SystemExit(0)

    def postOptions(self) -> None:  # noqa: N802 - Twisted's name
        """Read the configuration, so that a mistake in it is told before anything else happens."""
        path = default_path(self["config"], os.environ)
        try:
            self.loaded = load(path, os.environ)
        except ConfigError as error:
            sys.stderr.write(f"regd: {error}\n")
            raise SystemExit(1) from None


class CannotStart(SystemExit, Exception):
    """
    Ends the process with status 1 and without a traceback, the reason being in the log. It is an :class:`Exception` besides, because a
    ``twistd`` that goes to the background only tells the shell of those.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.code = 1


class RegistryService(MultiService):
    """
    The daemon.

    :param loaded: the configuration and what is to be said of it.
    :param log_stream: where log lines go; ``None`` leaves the log to ``twistd``.
    :param access_stream: where access log lines go.
    """

    _log = Logger()

    def __init__(self, loaded: Loaded, log_stream: TextIO | None, access_stream: TextIO) -> None:
        super().__init__()
        self.config = loaded.config
        self._loaded = loaded
        self._log_stream = log_stream
        self._damage = Damage()
        self._driver = make_driver(self.config)
        self._access_log = _silent if self.config.log.accesslog.disabled else AccessLog(access_stream)
        self._dispatcher = Dispatcher(self.config.http.headers)
        self._site = StreamingSite(Root(self._dispatcher, self._api(), self.config.http.prefix), self._access_log, reactor)
        self._debug_site = StreamingSite(Root(self._dispatcher, self._debug_api()), _silent, reactor)
        self._ports: list[IListeningPort] = []
        self._started = time.monotonic()

    def setServiceParent(self, parent: Any) -> None:  # noqa: N802 - Twisted's name
        """``twistd`` takes its log observer from the application, which is the parent."""
        if self._log_stream is not None and isinstance(parent, Componentized):
            log = self.config.log
            parent.setComponent(ILogObserver, LineObserver(self._log_stream, log.level, log.formatter, log.fields))
        super().setServiceParent(parent)

    def startService(self) -> None:  # noqa: N802 - Twisted's name
        """
        Open the storage and listen.

        :raises CannotStart: with the reason in the log, when either cannot be done.
        """
        super().startService()
        for warning in self._loaded.warnings:
            self._log.warn("{path}: {warning}", path=self._loaded.path, warning=warning)
        self._raise_file_limit()
        try:
            self._driver.start()
        except StorageError as error:
            self._give_up(f"{error}")
        self._listen("http.addr", self.config.http.addr, self._site)
        if self.config.http.debug.addr is not None:
            self._listen("http.debug.addr", self.config.http.debug.addr, self._debug_site)
        self._log.info(
            "regd {version} serves {url} from {storage}",
            version=__version__,
            url=url_of(self._ports[0], self.config.http.prefix),
            storage=_storage_text(self.config),
        )

    def _listen(self, key: str, address: TCPAddress | UnixAddress, site: StreamingSite) -> None:
        try:
            self._ports.append(listen(reactor, address, site))
        except CannotListenError as error:
            self._give_up(f"{key}: cannot listen on {address}: {error.socketError}; is something else there?")

    async def _stop(self) -> None:
        for port in self._ports:
            await maybeDeferred(port.stopListening)
        timeout = self.config.http.draintimeout
        if timeout > 0 and self._site.open:
            self._log.info("stopping: {count} connections have {timeout} s to finish", count=len(self._site.open), timeout=timeout)
            await _within(self._site.drain(), timeout)
        self._site.abort()
        # A handler whose client was cut off still stores what had arrived.
        await _within(Deferred.fromCoroutine(self._dispatcher.settle()), _SETTLE)
        self._driver.stop()
        self._log.info("stopped")

    def stopService(self) -> Deferred[None]:  # noqa: N802 - Twisted's name
        """Take no more connections, let requests finish for as long as ``http.draintimeout`` allows, and close the storage."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    def _api(self) -> Any:
        config = self.config
        registry = Registry(self._driver, self._damage, manifest_rules(config), time.time, _breathe)
        urls = Urls(config.http.host, config.http.prefix, config.http.relativeurls, config.reverseproxy.trusts)
        deletable = config.storage.delete.enabled
        return Api(
            self._dispatcher,
            BlobHandlers(registry.blobs, deletable=deletable),
            UploadHandlers(registry, urls, StateSigner(config.http.secret)),
            ManifestHandlers(registry.manifests, urls, deletable=deletable),
            ListHandlers(registry, urls, catalog_limit=config.catalog.maxentries, tags_limit=config.tags.maxtags),
            lambda: config.storage.maintenance.readonly.enabled,
        ).resource()

    def _debug_api(self) -> Any:
        return DebugApi(self._dispatcher, Health(self._driver), self._variables).resource()

    def _variables(self) -> dict[str, object]:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return {
            "version": __version__,
            "uptime_seconds": round(time.monotonic() - self._started, 3),
            "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 3),
            "peak_memory_bytes": usage.ru_maxrss * 1024,
            "open_connections": len(self._site.open),
            "damaged_files": self._damage.count,
        }

    def _raise_file_limit(self) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != hard:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        if hard < _FEW_FILES:
            self._log.warn(
                "only {count} files may be open at once, which is enough for about {half} clients: raise the limit "
                "(ulimit -n, or LimitNOFILE= in a systemd unit)",
                count=hard,
                half=hard // 2,
            )

    def _give_up(self, reason: str) -> NoReturn:
        self._log.error("cannot start: {reason}", reason=reason)
        raise CannotStart(reason)


def make_driver(config: Config) -> Driver:
    """The storage that is configured, not yet started."""
    storage = config.storage.driver
    if isinstance(storage, FilesystemStorage):
        threads = PoolThreads(reactor, storage.maxthreads)
        return FilesystemDriver(storage.rootdirectory, threads, writable=not config.storage.maintenance.readonly.enabled)
    return MemoryDriver()


def manifest_rules(config: Config) -> ManifestRules:
    """``validation`` as the registry's rules."""
    validation = config.validation
    if validation.disabled:
        return ManifestRules(url_permitted=lambda url: True)
    indexes = validation.manifests.indexes
    wanted = {"all": None, "none": (), "list": indexes.platformlist}[indexes.platforms]
    return ManifestRules(
        url_permitted=validation.manifests.urls.permits,
        platforms=None if wanted is None else frozenset(Platform(entry.os, entry.architecture) for entry in wanted),
    )


def makeService(options: Options) -> RegistryService:  # noqa: N802 - the name that Twisted's ServiceMaker looks for
    """What ``twistd regd`` runs."""
    log_stream, access_stream = _streams(options)
    return RegistryService(options.loaded, log_stream, access_stream)


def _streams(options: Options) -> tuple[TextIO | None, TextIO]:
    """
    Where the log and the access log go: as registry:2, to standard error and standard output; to ``twistd``'s log file where it has one.
    """
    # Any: the options of twistd, or nothing where the service is made without it.
    twistd: Any = options.parent or {}
    if twistd.get("syslog") or twistd.get("logger"):
        return None, sys.stdout
    name = twistd.get("logfile")
    if name == "-" or (not name and twistd.get("nodaemon", True)):
        return sys.stderr, sys.stdout
    stream: Any = LogFile.fromFullPath(name or "twistd.log")
    return stream, stream


def _storage_text(config: Config) -> str:
    storage = config.storage.driver
    return storage.rootdirectory if isinstance(storage, FilesystemStorage) else "memory (everything is lost when it stops)"


def _breathe() -> Deferred[None]:
    return deferLater(reactor, 0)


async def _within(waiting: Deferred[None], seconds: float) -> None:
    """Wait, but not longer than ``seconds``."""
    with suppress(TimeoutError):
        await waiting.addTimeout(seconds, reactor)


def _silent(request: StreamingRequest) -> None:
    """No access log."""


