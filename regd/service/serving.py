"""What answers requests: the storage, the registry and the site of one process."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final

from twisted.internet.defer import Deferred, TimeoutError  # noqa: A004 - it is not Python's, and the one that is raised
from twisted.internet.task import deferLater
from twisted.web.resource import IResource

from regd.config import Config, ConfigError, NoStorage
from regd.config.watched import WORKERS, Files
from regd.maintenance.gate import Gate
from regd.proxy.cache.core import PullThroughCache, Remotes
from regd.proxy.dialing import CannotUseTLS
from regd.proxy.reverse import ReverseProxy
from regd.registry.core import Registry
from regd.service.absent import absent_of, lists_of
from regd.service.admission import Admission, Admitted, guarded
from regd.service.measuring import Meter, collect_cache, collect_notifications
from regd.service.notifying import Notifying
from regd.service.parts import fields_of, make_driver, manifest_rules, urls_of
from regd.service.requestlog import RequestLog
from regd.service.reread import keep
from regd.storage.damage import Damage
from regd.storage.driver import Driver, StorageError
from regd.storage.filesystem import FilesystemDriver
from regd.telemetry.lines import LineStream
from regd.telemetry.samples import Samples
from regd.telemetry.tracing import OUTCOMES, SPANS, Tracer, check_tracing, make_tracer
from regd.tls.acceptor import Tally, TLSAcceptor
from regd.web.api import Api
from regd.web.blobs import BlobHandlers
from regd.web.dispatch import Dispatcher
from regd.web.factory import StreamingSite
from regd.web.guard import Guard
from regd.web.limits import Limited, UploadSlots
from regd.web.manifests import ManifestHandlers
from regd.web.patience import Patience
from regd.web.rates import RateTable
from regd.web.request import StreamingRequest
from regd.web.site import Closed, Root
from regd.web.state import StateSigner
from regd.web.strict import HeadLimits
from regd.web.tokens import TokenHandlers
from regd.web.traced import Traced, describe, templates_of
from regd.web.uploads import UploadHandlers

__all__ = ["SETTLE", "Serving"]

#: Of a configuration that names none.
_NONE: Final[Files] = MappingProxyType({})

#: How long handlers have to come to an end after their connections have been cut, in seconds.
SETTLE = 10.0

#: How long the last traces have to be exported, in seconds.
LAST_TRACES = 3.0


@dataclass(frozen=True, slots=True)
class _Retired:
    """
    What goes with the requests of an earlier configuration.

    :ivar driver: the storage, if that has changed since.
    :ivar cache: what it fetched for them.
    """

    driver: Driver | None
    cache: PullThroughCache | None


class Serving:
    """
    Storage, registry and site, made of a configuration.

    :param access_stream: where access log lines go.
    :param rates: what :func:`regd.web.rates.make_table` has made, where several processes serve.
    :param reactor: ``Any``: a reactor is typed as the union of what reactors may be.
    :ivar on_recorded: called when this process has put something into the journal of events; in a worker, it is the parent who has to know.
    :ivar site: the factory for connections. It stays the same whatever becomes of the configuration.
    :ivar driver: the storage.
    :ivar config: the configuration that is in effect.
    """

    def __init__(self, config: Config, access_stream: LineStream, reactor: Any, rates: int | None = None) -> None:
        self._reactor = reactor
        self._access_log = RequestLog(config, access_stream, reactor)
        self._meter = Meter(config, reactor)
        self._damage = Damage()
        self.driver = self._make_driver(config)
        #: Those of earlier configurations that still have something to do.
        self._retired: dict[Dispatcher, _Retired] = {}
        self.config = config
        self._gate: Gate | None = None
        self._dispatcher = Dispatcher(fields_of(config), self._meter.storage_failed)
        #: What passes requests on, where routes are configured, from the start on.
        self._proxy: ReverseProxy | None = None
        #: The registries that this one is a cache of, likewise, and the cache.
        self._remotes: Remotes | None = None
        self._cache: PullThroughCache | None = None
        #: What writes down events, where anybody is to be told of them; from the first configuration on that wants that.
        self.notifying: Notifying | None = None
        self.on_recorded: Callable[[], None] = self.recorded
        #: Who stands before the handlers, made of each configuration and its files.
        self._admission = Admission(reactor, RateTable(rates))
        #: Of how many processes that serve this is one.
        self._share = 1
        self._admitted: Admitted | None = None
        #: What accepts connections with TLS, likewise; and what has come of them.
        self._acceptor: TLSAcceptor | None = None
        self._handshakes = Tally()
        #: What answers from storage, unless clients are refused; and why they are, or nothing.
        self._own = Closed(self._dispatcher, "the registry is starting") if guarded(config) else self._root()
        self._refusal = ""
        #: What traces requests, where that is wanted.
        self._tracer: Tracer | None = None
        self._templates: Mapping[str, str] = {}
        self.site = StreamingSite(self._own, self._log_access, reactor)

    def start(self, files: Files = _NONE) -> None:
        """
        Open the storage.

        :param files: those that :func:`regd.config.watched.named_files` says of the configuration.
        :raises StorageError: when it cannot be used.
        :raises ConfigError: when a file that a route or an upstream names cannot be used, or what would trace is not installed.
        """
        check_tracing(self.config.tracing)
        self._admitted = self._admission.admit(self.config, files)
        self._acceptor = self._make_acceptor(self.config, files)
        self._access_log.use(self._access_log.prepare(self.config))
        self._proxy = self._make_proxy(self.config)
        self._remotes = self._make_remotes(self.config)
        self.driver.start()
        self._begin_notifying(self.config)
        self._share = int(files.get(WORKERS, b"1"))
        self._set_resource()
        self._meter.start()

    def trace(self) -> None:
        """
        Begin to trace requests, if that is wanted: for a process that serves, which the parent of several does not.

        :raises ConfigError: when what would trace cannot be used.
        """
        self._tracer = make_tracer(self.config.tracing, self._reactor)
        self._place()

    def configure(self, config: Config, files: Files = _NONE) -> None:
        """
        Serve by another configuration from the next request on; those that have begun are finished by the old one. What cannot change
        while the process runs (addresses, the driver and its parameters) stays as it was.

        :param files: as for :meth:`start`.
        :raises StorageError: when the storage cannot be written to, and it is no longer to be only read. Nothing has changed then.
        :raises ConfigError: when a file that a route or an upstream names cannot be used, likewise.
        """
        config, _ = keep(self.config, config)
        driver = self.driver
        proxy = self._make_proxy(config)
        remotes = self._make_remotes(config)
        admitted = self._admission.admit(config, files)
        acceptor = self._make_acceptor(config, files)
        access = self._access_log.prepare(config)
        if config.storage.maintenance.readonly != self.config.storage.maintenance.readonly and driver.shared:
            # Whether the directory is asked to be writable is decided when a driver starts; so this is another one, on the same files.
            driver = self._make_driver(config)
            try:
                driver.start()
            except StorageError:
                self._access_log.discard(access)
                raise
        self._retire(self._dispatcher, _Retired(None if driver is self.driver else self.driver, self._cache))
        self.config, self.driver, self._dispatcher = config, driver, Dispatcher(fields_of(config), self._meter.storage_failed)
        self._meter.configure(config)
        self._access_log.use(access)
        self._proxy, replaced = proxy, self._proxy
        self._remotes, self._admitted, self._acceptor = remotes, admitted, acceptor
        self._begin_notifying(config)
        self._set_resource()
        if replaced is not None:
            # The requests that it has are answered all the same.
            replaced.close()

    def refuse(self, reason: str) -> None:
        """
        Answer every request from the next one on with 503, but those that a route passes on.

        :param reason: what clients are told; empty to answer as usual again.
        """
        self._refusal = reason
        self._place()

    def reopen(self) -> None:
        """The files that this process writes lines to have been moved away."""
        self._access_log.reopen()

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self.site.open)

    async def finish(self, timeout: float) -> None:
        """
        :meth:`drain` and :meth:`close`.
        """
        await self.drain(timeout)
        await self.close()

    async def drain(self, timeout: float) -> None:
        """
        Let requests end, take no more, and cut off those that do not end.

        :param timeout: how long they have, in seconds.
        """
        if timeout > 0 and self.site.open:
            await _within(self.site.drain(), timeout, self._reactor)
        self.cut_off()

    def cut_off(self) -> None:
        """Let nobody finish any more: also those who wait in :meth:`drain`. May be called again."""
        self.site.abort()

    async def close(self) -> None:
        """Wait for handlers whose clients are gone, and close the storage."""
        self._meter.stop()
        # A handler whose client was cut off still stores what had arrived.
        await _within(Deferred.fromCoroutine(self._settle()), SETTLE, self._reactor)
        self._admission.stop()
        if self._proxy is not None:
            self._proxy.close()
        if self.notifying is not None:
            await self.notifying.finish()
        for driver in (*(retired.driver for retired in self._retired.values()), self.driver):
            if driver is not None:
                driver.stop()
        self._access_log.close()
        if self._tracer is not None:
            await self._tracer.stop(LAST_TRACES)

    def damaged(self, path: str, what: str) -> None:
        """See :meth:`regd.storage.damage.Damage.report`: what has been found here, or on our behalf."""
        self._damage.report(path, what)

    async def refresh(self) -> None:
        """Find out what :meth:`variables` and :meth:`collect` do not know by themselves."""
        if self.notifying is not None:
            await self.notifying.refresh()

    def variables(self) -> dict[str, object]:
        """Numbers about this process."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return {
            "pid": os.getpid(),
            "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 3),
            "peak_memory_bytes": usage.ru_maxrss * 1024,
            "open_connections": self.connections,
            "damaged_files": self._damage.count,
            "refused_changes": 0 if self._gate is None else self._gate.refused,
            **({} if self._proxy is None else {"upstreams": self._proxy.variables()}),
            **({} if self._cache is None else {"cache": self._cache.variables()}),
            **({} if self.notifying is None else {"notifications": self.notifying.variables()}),
        }

    def collect(self, samples: Samples) -> None:
        """Add what this process has counted."""
        self._meter.collect(samples, self.site)
        collect_notifications(samples, {} if self.notifying is None else self.notifying.variables())
        samples.add("regd_tls_handshakes_total", self._handshakes.complete, "complete")
        samples.add("regd_tls_handshakes_total", self._handshakes.failed, "failed")
        samples.add("regd_logins_failed_total", self._admission.failures)
        samples.add("regd_connections_turned_away_total", self.site.turned_away)
        expiry = {} if self._acceptor is None else self._acceptor.expiry
        samples.add("regd_tls_certificate_expiry_timestamp_seconds", min(expiry.values(), default=0.0))
        samples.add("regd_storage_damaged_files_total", self._damage.count)
        samples.add("regd_gate_refused_total", 0 if self._gate is None else self._gate.refused)
        if self._tracer is not None:
            self._tracer.collect(samples)
        else:
            for outcome in OUTCOMES:
                samples.add(SPANS, 0, outcome)
        # Those of earlier configurations still answer those who had asked.
        for cache in (*(retired.cache for retired in self._retired.values()), self._cache):
            if cache is not None:
                collect_cache(samples, cache.variables())

    def _begin_notifying(self, config: Config) -> None:
        if self.notifying is not None:
            self.notifying.configure(config)
        elif config.notifications.active and not isinstance(config.storage.driver, NoStorage):
            self.notifying = Notifying(config, self.driver, self._reactor, self.on_recorded)

    def deliver(self) -> None:
        """Be the one of several processes that tells endpoints of events; for the start, and after each :meth:`configure`."""
        if self.notifying is not None:
            self.notifying.deliver()

    def recorded(self) -> None:
        """Something has been put into the journal of events, here or by a worker."""
        if self.notifying is not None:
            self.notifying.wake()

    def _make_driver(self, config: Config) -> Driver:
        driver = make_driver(config, self._reactor)
        if isinstance(driver, FilesystemDriver):
            driver.timed = self._meter.storage_timed
        return driver

    def _make_proxy(self, config: Config) -> ReverseProxy | None:
        if not config.reverseproxy.routes:
            return None
        try:
            return ReverseProxy(config, self._reactor)
        except CannotUseTLS as error:
            raise ConfigError(str(error)) from None

    def _make_acceptor(self, config: Config, files: Files) -> TLSAcceptor | None:
        return None if config.http.tls is None else TLSAcceptor(config.http.tls, files, self._handshakes)

    def _make_remotes(self, config: Config) -> Remotes | None:
        if not config.proxy.upstreams:
            return None
        try:
            return Remotes(config.proxy.upstreams, self._reactor)
        except CannotUseTLS as error:
            raise ConfigError(f"proxy: {error}") from None

    @property
    def _guard(self) -> Guard | None:
        return None if self._admitted is None else self._admitted.guard

    def _set_resource(self) -> None:
        limits = self.config.http.limits
        self.site.trusts = self.config.reverseproxy.trusts
        self.site.secure = self._acceptor
        self.site.limits = HeadLimits(limits.line, limits.header, limits.fields)
        # Connections are spread evenly.
        self.site.most, self.site.most_of_one = (-(-most // self._share) for most in (limits.connections, limits.perclient))
        timeouts = self.config.http.timeouts
        self.site.wait_for(Patience(timeouts.header, timeouts.idle, timeouts.read, timeouts.write))
        self._own = self._root()
        self._place()

    def _place(self) -> None:
        """Have the right thing answer: nothing is asked about that on the way of a request."""
        answering: IResource = Closed(self._dispatcher, self._refusal) if self._refusal else self._own
        if self._proxy is not None:
            self._proxy.own = None if isinstance(self.config.storage.driver, NoStorage) else answering
            answering = self._proxy
        if self._tracer is not None:
            self._templates = templates_of(Api.app, self.config.http.prefix)
            answering = Traced(answering, self._tracer)
        if self.config.ratelimit.address.requests:
            rates = self._admission.rates(self.config)
            answering = Limited(answering, rates, self.config.reverseproxy.trusts, self._dispatcher)
        self.site.resource = answering

    def _root(self) -> Root:
        config = self.config
        collecting = config.storage.maintenance.garbagecollect
        refused = 0 if self._gate is None else self._gate.refused
        gate = self._gate = Gate(self.driver, self._sleep, collecting.wait, self._seconds, refused)
        # Where nothing can be pushed nothing is promised, and the directory may not be one that can be written to.
        grace = None if config.storage.maintenance.readonly.enabled else collecting.grace
        registry = Registry(self.driver, self._damage, manifest_rules(config), time.time, self._sleep, gate, grace)
        remotes = self._remotes
        cache = self._cache = None if remotes is None else PullThroughCache(remotes, registry, self.driver, self._reactor, time.time)
        source: PullThroughCache | Registry = registry if cache is None else cache
        urls = urls_of(config)
        deletable = config.storage.delete.enabled
        listener = None if self.notifying is None else self.notifying.listener(urls)
        blobs = BlobHandlers(source.blobs, registry.blobs, deletable=deletable, listener=listener)
        manifests = ManifestHandlers(source.manifests, registry.manifests, urls, deletable=deletable, listener=listener)
        lists = lists_of(config, registry, source, urls)
        absent = {} if self._guard is None else absent_of(config, blobs, manifests, lists, urls)
        routes = Api(
            self._dispatcher,
            blobs,
            UploadHandlers(registry, urls, StateSigner(config.http.secret), listener, self._guard),
            manifests,
            lists,
            TokenHandlers(self._guard, None if self._admitted is None else self._admitted.issuer),
            lambda: config.storage.maintenance.readonly.enabled,
            None if cache is None else cache.namespaces,
            self._guard,
            absent,
            UploadSlots(-(-config.http.limits.uploads // self._share)),
        ).resource()
        return Root(self._dispatcher, routes, config.http.prefix)

    def _log_access(self, request: StreamingRequest) -> None:
        self._meter.ended(request)
        if request.span is not None:
            describe(request, request.span, self._templates)
        self._access_log(request)

    def _retire(self, dispatcher: Dispatcher, retired: _Retired) -> None:
        self._retired[dispatcher] = retired

        async def forget() -> None:
            await dispatcher.settle()
            if retired.cache is not None:
                await retired.cache.settle()
                self._meter.remember(retired.cache.variables())
                self._retired[dispatcher] = replace(retired, cache=None)
            if self._retired.pop(dispatcher, None) is not None and retired.driver is not None:
                retired.driver.stop()

        if retired.cache is not None:
            retired.cache.close()
        Deferred.fromCoroutine(forget())

    async def _settle(self) -> None:
        # First of all, because handlers wait for what comes from there.
        caches = [cache for cache in (*(retired.cache for retired in self._retired.values()), self._cache) if cache is not None]
        ended = [Deferred.fromCoroutine(cache.finish()) for cache in caches]
        for dispatcher in (*self._retired, self._dispatcher):
            await dispatcher.settle()
        for one in ended:
            await one

    def _sleep(self, seconds: float) -> Deferred[None]:
        return deferLater(self._reactor, seconds)

    def _seconds(self) -> float:
        return float(self._reactor.seconds())


async def _within(waiting: Deferred[None], seconds: float, reactor: Any) -> None:
    """Wait, but not longer than ``seconds``."""
    with suppress(TimeoutError):
        await waiting.addTimeout(seconds, reactor)
