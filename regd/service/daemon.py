"""What ``twistd`` runs: listening sockets, the log, signals, and whoever serves."""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import deferLater
from twisted.logger import ILogObserver, Logger
from twisted.python.components import Componentized

from regd import __version__
from regd.config import Config, ConfigError, FilesystemStorage, InMemoryStorage, Loaded, NoStorage, load
from regd.config.watched import TOKEN_SECRET, WORKERS, Files, NamedFile, named_files, pack, read_files
from regd.service.advice import advice
from regd.service.following import Following
from regd.service.limits import raise_file_limit
from regd.service.loglines import configure, make_observer
from regd.service.measuring import counted_together
from regd.service.notifying import add_recorded
from regd.service.orders import EndingOrders
from regd.service.ports import CannotListen, Ports
from regd.service.refusing import refusal
from regd.service.renewing import Renewing
from regd.service.reread import keep
from regd.service.serving import SETTLE, Serving
from regd.service.systemd import Manager
from regd.service.upkeep import Upkeep
from regd.storage.driver import StorageError
from regd.telemetry.checks import make_checks
from regd.telemetry.health import Health
from regd.telemetry.lines import LineStream
from regd.telemetry.logs import LineObserver
from regd.telemetry.samples import Samples
from regd.web.debug import DebugApi, MetricsPage
from regd.web.dispatch import Dispatcher
from regd.web.factory import StreamingSite
from regd.web.leaf import Leaf
from regd.web.leaving import HANDSHAKE, turn_away
from regd.web.listen import url_of
from regd.web.rates import make_table
from regd.web.redirect import Redirect
from regd.web.request import StreamingRequest
from regd.web.site import Root
from regd.workers.children import Output
from regd.workers.group import Group

__all__ = ["CannotStart", "RegistryService", "Streams"]

#: How long a worker may take to end, beyond what its requests and handlers may, before it is killed, in seconds.
_MARGIN = 5.0

#: How long all the rest of our end may take at most: a chore that is told to stop, workers that are killed, in seconds.
_LAST = 30.0


class CannotStart(SystemExit, Exception):
    """
    Ends the process with status 1 and without a traceback, the reason being in the log. It is an :class:`Exception` besides, because a
    ``twistd`` that goes to the background only tells the shell of those.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.code = 1


@dataclass(frozen=True)
class Streams:
    """
    Where lines go.

    :ivar log: log lines; ``None`` leaves the log to ``twistd``.
    :ivar access: access log lines.
    :ivar workers: where the standard output (1) and standard error (2) of workers go; nothing where there are none.
    :ivar reopen: has whatever file of ours they go to opened by its name again.
    :ivar lock: see :func:`regd.telemetry.lines.make_lock`; ``None`` where the workers' lines come by us.
    """

    log: LineStream | None
    access: LineStream
    workers: Mapping[int, Output] = field(default_factory=dict)
    lock: int | None = None
    reopen: Callable[[], None] = lambda: None


class RegistryService(MultiService):
    """
    The daemon. It serves by itself, or it is the parent of those who do.

    :param loaded: the configuration and what is to be said of it.
    :param count: how many workers serve; 1 for none besides this process.
    :param reactor: ``Any``: a reactor is typed as the union of what reactors may be.
    :param manager: who has started us; nobody who wants to know of us, if not given.
    :ivar serving: in the parent of several workers it serves nobody; it is there because a storage that cannot be used has to be noticed
        before anything is started, and for ``/debug/health``.
    """

    _log = Logger()

    def __init__(self, loaded: Loaded, streams: Streams, count: int, reactor: Any, manager: Manager | None = None) -> None:
        super().__init__()
        self._loaded = loaded
        # twistd may change the directory.
        self._path = os.path.abspath(loaded.path)
        self._streams = streams
        self._count = count
        self._reactor = reactor
        self._manager = Manager() if manager is None else manager
        self._observer: LineObserver | None = None
        self.serving = Serving(loaded.config, streams.access, reactor)
        self.upkeep = Upkeep(self.serving, reactor)
        self._stopping = False
        self._orders = EndingOrders(reactor)
        self.group: Group | None = None
        self._health = self._make_health()
        self.debug_site = StreamingSite(self._debug_root(), _silent, reactor)
        self.ports = Ports(reactor)
        self._renewing = Renewing(self._reread, reactor)
        redirect = Redirect(
            Dispatcher({}), lambda: self.serving.config.http.host, lambda: self.ports.port, self._renewing.published
        )
        self._redirect_site = StreamingSite(redirect, _silent, reactor)
        self._following = Following(self._file_changed, reactor)
        #: The configuration and its files, for workers.
        self._packed = b""
        self._token_secret = os.urandom(32)
        self._status = ""
        self._started = time.monotonic()
        self._began = time.time()
        # Any: what signal.getsignal() says.
        self._signals_before: dict[signal.Signals, Any] = {}

    def setServiceParent(self, parent: Any) -> None:  # noqa: N802 - Twisted's name
        """``twistd`` takes its log observer from the application, which is the parent."""
        if self._streams.log is not None and isinstance(parent, Componentized):
            self._observer = make_observer(self._streams.log, self._loaded.config.log)
            parent.setComponent(ILogObserver, self._observer)
        super().setServiceParent(parent)

    def startService(self) -> None:  # noqa: N802 - Twisted's name
        """
        Open the storage and listen.

        :raises CannotStart: with the reason in the log, when either cannot be done.
        """
        super().startService()
        config = self.serving.config
        self._tell_warnings(self._loaded)
        raise_file_limit(self._log)
        if self._count > 1 and isinstance(config.storage.driver, InMemoryStorage):
            say = self._log.info if config.http.workers is None else self._log.warn
            say("one process serves, and not {count}: no other could see what is in storage.inmemory", count=self._count)
            self._count = 1
        try:
            self._renewing.prepare(config)
            self._following.follow(self._followed(config))
            files = self._read_files(config)
            self.serving.start(files)
            self._packed = pack(self._loaded.source, files)
        except (ConfigError, StorageError) as error:
            self._give_up(f"{error}")
        self._advise(config, files)
        # Before anybody writes: whom there is to tell, and from where on.
        self.serving.deliver()
        count = self._count
        if count > 1:
            self.group = self._make_group(count)
        if self.group is None:
            self._trace()
        try:
            self.ports.open(self._manager, config, self.serving.site, self.debug_site, self._redirect_site, self.group)
        except CannotListen as error:
            self._give_up(f"{error}")
        self._health.start()
        self._renewing.begin()
        for number, handler in ((signal.SIGHUP, self._reread), (signal.SIGUSR1, self._reopen)):
            self._signals_before[number] = self._on_signal(number, handler)
        # Twisted has its handlers of signals by then.
        self._reactor.callWhenRunning(self._orders.hear_once)
        self.upkeep.configure()
        if self.group is None:
            self._tell_ready("in one process")
        else:
            self.group.ready.addCallback(lambda _: self._tell_ready(f"with {count} workers"))
            self.group.start()

    # Any: what signal.getsignal() says.
    def _on_signal(self, number: signal.Signals, handler: Callable[[], None]) -> Any:
        return signal.signal(number, lambda received, frame: self._reactor.callFromThread(handler))

    def _reopen(self) -> None:
        """SIGUSR1: files of lines have been moved away."""
        try:
            self._streams.reopen()
        except OSError as error:
            self._log.error("the log file cannot be opened again: {error}; its directory has to be there and writable", error=error)
        self.serving.reopen()
        if self.group is not None:
            self.group.reopen()

    def _trace(self) -> None:
        try:
            self.serving.trace()
        except ConfigError as error:
            self._give_up(f"{error}")

    def _make_group(self, count: int) -> Group:
        arguments = [type(self._reactor).__module__, "own" if self._streams.lock is None else "shared"]
        loaded = self._loaded
        return Group(
            "regd.worker",
            arguments,
            count,
            self._streams.workers,
            self._streams.lock,
            loaded.path,
            self._packed,
            self._reactor,
            self.serving.recorded,
            make_table(),
        )

    def _tell_ready(self, how: str) -> None:
        config = self.serving.config
        scheme = "http" if config.http.tls is None else "https"
        urls = ", ".join(url_of(port, config.http.prefix, scheme) for port in self.ports.serving)
        self._status = f"serves {urls} from {_storage_text(config)} {how}"
        self._log.info("regd {version} {status}", version=__version__, status=self._status)
        self._manager.ready(self._status)
        self._manager.start_watchdog(self._reactor, self._workers_turn)

    def _workers_turn(self) -> bool:
        silent = [] if self.group is None else self.group.silent()
        for pid in silent:
            self._log.error("worker {pid} does not answer: its event loop hangs, and the service manager will restart us", pid=pid)
        return not silent

    def _tell_warnings(self, loaded: Loaded) -> None:
        for warning in loaded.warnings:
            self._log.warn("{path}: {warning}", path=loaded.path, warning=warning)

    def _followed(self, config: Config) -> tuple[NamedFile, ...]:
        return (NamedFile("the configuration", self._path), *named_files(config))

    def _read_files(self, config: Config) -> Files:
        return {**read_files(config), TOKEN_SECRET: self._token_secret, WORKERS: str(self._count).encode("ascii")}

    def _advise(self, config: Config, files: Files) -> None:
        for line in advice(config, files, time.time()):
            self._log.warn("{path}: {advice}", path=self._path, advice=line)

    def _file_changed(self, path: str) -> None:
        self._log.info("{path} has changed", path=path)
        self._reread()

    def _reread(self) -> None:
        """SIGHUP: read the configuration again."""
        if self._stopping:
            return
        watched = self.serving.config.health, self.serving.driver
        self._manager.reloading()
        try:
            self._following.follow(self._followed(self.serving.config))
            loaded = load(self._path, os.environ)
            config, stays = keep(self.serving.config, loaded.config)
            self._renewing.prepare(config)
            self._following.follow(self._followed(config))
            files = self._read_files(config)
            self.serving.configure(config, files)
        except ConfigError as error:
            self._tell_not_reread(*error.problems)
            return
        except StorageError as error:
            self._tell_not_reread(str(error))
            return
        self._tell_warnings(loaded)
        self._advise(config, files)
        for key in stays:
            self._log.warn("{path}: {key} has changed, which needs a restart; what it was stays in effect", path=loaded.path, key=key)
        if self._observer is not None:
            configure(self._observer, config.log)
        if (config.health, self.serving.driver) != watched:
            # What is not watched any more refuses nobody. Else the checks go on, and so does what they have found.
            self._health.stop()
            self._health = self._make_health()
            self._refuse({})
            self._health.start()
        self.debug_site.resource = self._debug_root()
        self.upkeep.configure()
        self._renewing.begin()
        self.serving.deliver()
        if self.group is None:
            self._tell_reread("")
        else:
            changed = Deferred.fromCoroutine(self.group.configure(pack(loaded.source, files)))
            changed.addCallback(lambda count: self._tell_reread(f" in {count} workers"))

    def _tell_not_reread(self, *problems: str) -> None:
        for problem in problems:
            self._log.error("the configuration is not changed: {problem}", problem=problem)
        self._manager.reloaded(f"{self._status}; a change of the configuration was refused: {problems[0]}")

    def _tell_reread(self, where: str) -> None:
        self._manager.reloaded(self._status)
        self._log.info("{path} was read again, and is in effect{where}", path=self._path, where=where)

    async def _stop(self) -> None:
        timeout = self.serving.config.http.draintimeout
        self._manager.stopping(f"requests have {timeout:g} s to finish", timeout + SETTLE + _LAST)
        tidied = Deferred.fromCoroutine(self.upkeep.stop())
        if timeout > 0 and self.ports.serving:
            for port in self.ports.serving:
                turn_away(port)
            await deferLater(self._reactor, HANDSHAKE)
        for port in self.ports.serving:
            await maybeDeferred(port.stopListening)
        count = self.serving.connections if self.group is None else self.group.connections
        if timeout > 0 and count:
            self._log.info("stopping: {count} connections have {timeout} s to finish", count=count, timeout=timeout)
        if self.group is not None:
            await self.group.finish(timeout + SETTLE + _MARGIN)
        # A chore may need longer than the requests. These end meanwhile, and nobody gets in another one.
        await self.serving.drain(timeout)
        await tidied
        await self.serving.close()
        self._health.stop()
        # Until now the one for operators has said that this daemon is not ready.
        for beside, site in ((self.ports.debug, self.debug_site), (self.ports.redirect, self._redirect_site)):
            if beside is not None:
                await maybeDeferred(beside.stopListening)
            site.abort()
        self._orders.forget()
        self._log.info("stopped")

    def _cut_off(self) -> None:
        self._log.warn("told to stop again: requests that have not finished are cut off")
        if self.group is not None:
            self.group.cut_off(SETTLE + _MARGIN)
        self.serving.cut_off()

    def stopService(self) -> Deferred[None]:  # noqa: N802 - Twisted's name
        """Take no more connections, let requests finish for as long as ``http.draintimeout`` allows, and close the storage."""
        super().stopService()
        self._stopping = True
        self._following.stop()
        self._renewing.stop()
        for number, handler in self._signals_before.items():
            signal.signal(number, handler)
        self._signals_before.clear()
        self._orders.hear_again(self._cut_off)
        return Deferred.fromCoroutine(self._stop())

    def _make_health(self) -> Health:
        driver = self.serving.driver
        return Health(driver, make_checks(self.serving.config.health, driver, self._reactor), self._refuse)

    def _refuse(self, failing: Mapping[str, str]) -> None:
        """Refuse clients while anything fails, as ``registry:2`` does. What exactly is wrong is for operators."""
        reason = refusal(failing)
        self.serving.refuse(reason)
        if self.group is not None:
            self.group.refuse(reason)

    def _debug_root(self) -> Leaf:
        config = self.serving.config
        dispatcher = Dispatcher(config.http.headers)
        root = Root(dispatcher, DebugApi(dispatcher, self._health, self._variables, self._not_ready).resource())
        prometheus = config.http.debug.prometheus
        return MetricsPage(dispatcher, prometheus.path, self._samples, root) if prometheus.enabled else root

    def _not_ready(self) -> str:
        """Why clients should go elsewhere."""
        if self._stopping:
            return "stopping"
        if not self.running or (self.group is not None and not self.group.ready.called):
            return "starting"
        return ""

    async def _samples(self) -> Samples:
        """What all processes have counted."""
        found = Samples()
        await self.serving.refresh()
        self.serving.collect(found)
        found.add("regd_workers", 1 if self.group is None else self.group.count)
        found.add("regd_workers_lost_total", 0 if self.group is None else self.group.lost)
        if self.group is not None:
            found.merge(await self.group.samples())
        await self.upkeep.collect(found)
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        found.add("process_cpu_seconds_total", ended.ru_utime + ended.ru_stime)
        found.add("process_start_time_seconds", self._began)
        found.add("regd_health_checks_failing", len(self._health.failing))
        found.add("regd_build_info", 1, __version__)
        return found

    async def _variables(self) -> dict[str, object]:
        await self.serving.refresh()
        # Any: numbers, among other things.
        uptime = round(time.monotonic() - self._started, 3)
        found: dict[str, Any] = {"version": __version__, "uptime_seconds": uptime, **self.serving.variables()}
        workers: list[dict[str, Any]] = [self.serving.variables()]
        if self.group is not None:
            workers = await self.group.variables()
            for key in ("cpu_seconds", "peak_memory_bytes", "open_connections", "damaged_files", "refused_changes"):
                found[key] += sum(worker.get(key, 0) for worker in workers)
            if "notifications" in found:
                add_recorded(found["notifications"], [worker.get("notifications", {}) for worker in workers])
            if "cache" in found:
                found["cache"] = counted_together([worker["cache"] for worker in workers if "cache" in worker])
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        # Of workers that have been replaced, and of chores that have been done.
        found["cpu_seconds"] = round(found["cpu_seconds"] + ended.ru_utime + ended.ru_stime, 3)
        return {**found, **await self.upkeep.variables(), "workers": workers}

    def _give_up(self, reason: str) -> NoReturn:
        self._log.error("cannot start: {reason}", reason=reason)
        raise CannotStart(reason)


def _storage_text(config: Config) -> str:
    storage = config.storage.driver
    if isinstance(storage, NoStorage):
        return "upstreams"
    return storage.rootdirectory if isinstance(storage, FilesystemStorage) else "memory (everything is lost when it stops)"


def _silent(request: StreamingRequest) -> None:
    """No access log."""
