"""What ``twistd`` runs: listening sockets, the log, signals, and whoever serves."""

from __future__ import annotations

import resource
import time
from typing import Any, NoReturn, TextIO

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.logger import ILogObserver, Logger
from twisted.python.components import Componentized

from regd import __version__
from regd.config import Config, FilesystemStorage, Loaded, TCPAddress, UnixAddress
from regd.service.serving import Serving
from regd.storage.driver import StorageError
from regd.telemetry.health import Health
from regd.telemetry.logs import LineObserver
from regd.web.debug import DebugApi
from regd.web.dispatch import Dispatcher
from regd.web.listen import listen, url_of
from regd.web.request import StreamingRequest, StreamingSite
from regd.web.site import Root

__all__ = ["CannotStart", "RegistryService"]

#: Fewer open files than this are worth a warning: a connection takes two while a blob is on its way.
_FEW_FILES = 4096


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
    :param reactor: ``Any``: a reactor is typed as the union of what reactors may be.
    """

    _log = Logger()

    def __init__(self, loaded: Loaded, log_stream: TextIO | None, access_stream: TextIO, reactor: Any) -> None:
        super().__init__()
        self.config = loaded.config
        self._loaded = loaded
        self._log_stream = log_stream
        self._reactor = reactor
        self.serving = Serving(self.config, access_stream, reactor)
        dispatcher = Dispatcher(self.config.http.headers)
        debug = DebugApi(dispatcher, Health(self.serving.driver), self._variables).resource()
        self.debug_site = StreamingSite(Root(dispatcher, debug), _silent, reactor)
        self.ports: list[IListeningPort] = []
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
            self.serving.start()
        except StorageError as error:
            self._give_up(f"{error}")
        self._listen("http.addr", self.config.http.addr, self.serving.site)
        if self.config.http.debug.addr is not None:
            self._listen("http.debug.addr", self.config.http.debug.addr, self.debug_site)
        self._log.info(
            "regd {version} serves {url} from {storage}",
            version=__version__,
            url=url_of(self.ports[0], self.config.http.prefix),
            storage=_storage_text(self.config),
        )

    def _listen(self, key: str, address: TCPAddress | UnixAddress, site: StreamingSite) -> None:
        try:
            self.ports.append(listen(self._reactor, address, site))
        except CannotListenError as error:
            self._give_up(f"{key}: cannot listen on {address}: {error.socketError}; is something else there?")

    async def _stop(self) -> None:
        for port in self.ports:
            await maybeDeferred(port.stopListening)
        timeout = self.config.http.draintimeout
        if timeout > 0 and self.serving.connections:
            self._log.info("stopping: {count} connections have {timeout} s to finish", count=self.serving.connections, timeout=timeout)
        await self.serving.finish(timeout)
        self._log.info("stopped")

    def stopService(self) -> Deferred[None]:  # noqa: N802 - Twisted's name
        """Take no more connections, let requests finish for as long as ``http.draintimeout`` allows, and close the storage."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    def _variables(self) -> dict[str, object]:
        return {"version": __version__, "uptime_seconds": round(time.monotonic() - self._started, 3), **self.serving.variables()}

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


def _storage_text(config: Config) -> str:
    storage = config.storage.driver
    return storage.rootdirectory if isinstance(storage, FilesystemStorage) else "memory (everything is lost when it stops)"


def _silent(request: StreamingRequest) -> None:
    """No access log."""
