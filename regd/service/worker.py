"""What a worker process does: it serves connections that its parent hands over, by configurations that its parent has read."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import LogBeginner, Logger, globalLogBeginner
from twisted.python.failure import Failure

from regd.config import ConfigError, parse
from regd.config.watched import unpack
from regd.service.loglines import configure, make_observer
from regd.service.serving import Serving
from regd.storage.driver import StorageError
from regd.telemetry.lines import Lines, LineStream
from regd.telemetry.logs import LineObserver
from regd.telemetry.samples import Samples
from regd.web.ports import adopt
from regd.workers.channel import TakingEnd
from regd.workers.children import CHANNEL, CONTROL, LOCK, RATES, Given
from regd.workers.control import CannotServe, ParentControl

__all__ = ["Worker", "run"]


class Worker:
    """
    Serves.

    :param channel: where connections come from.
    :param rates: a descriptor of what all processes know of how often has been asked.
    :param reactor: ``Any``: a reactor is typed as the union of what reactors may be.
    :ivar on_recorded: called when something has been put into the journal of events.
    :ivar status: what the process ends with.
    """

    _log = Logger()

    def __init__(
        self,
        channel: socket.socket,
        log_stream: LineStream,
        access_stream: LineStream,
        beginner: LogBeginner,
        reactor: Any,
        rates: int | None = None,
    ) -> None:
        self._channel = channel
        self._log_stream = log_stream
        self._access_stream = access_stream
        self._beginner = beginner
        self._reactor = reactor
        self._rates = rates
        self._observer: LineObserver | None = None
        self._serving: Serving | None = None
        self._taking: TakingEnd | None = None
        self._leaving = False
        self._refusal = ""
        self.on_recorded: Callable[[], None] = lambda: None
        self.status = 0

    def configure(self, path: str, source: bytes) -> None:
        """
        See :class:`~regd.workers.control.Asked`. The first time, start to serve.

        :param source: what :func:`regd.config.watched.pack` has made of the configuration and its files.
        :raises CannotServe: when the storage cannot be used.
        """
        try:
            text, files = unpack(source)
            config = parse(text, path, os.environ).config
            if self._observer is None:
                self._observer = make_observer(self._log_stream, config.log)
                self._beginner.beginLoggingTo([self._observer])
            if self._serving is None:
                serving = Serving(config, self._access_stream, self._reactor, self._rates)
                serving.on_recorded = self.on_recorded
                serving.start(files)
                serving.refuse(self._refusal)
                serving.trace()
                self._serving = serving
                self._taking = TakingEnd(self._channel, self._adopt, self._reactor)
                serving.site.on_close = self._taking.connection_closed
            else:
                self._serving.configure(config, files)
                configure(self._observer, config.log)
        except (ConfigError, StorageError) as error:
            if self._serving is None:
                self.status = 1
                self._reactor.callLater(0, self.leave)
            raise CannotServe(str(error)) from None

    def refuse(self, reason: str) -> None:
        """See :class:`~regd.workers.control.Asked`."""
        self._refusal = reason
        if self._serving is not None:
            self._serving.refuse(reason)

    def reopen(self) -> None:
        """See :class:`~regd.workers.control.Asked`."""
        if self._serving is not None:
            self._serving.reopen()

    def variables(self) -> dict[str, object]:
        """See :class:`~regd.workers.control.Asked`."""
        return {"pid": os.getpid()} if self._serving is None else self._serving.variables()

    def samples(self) -> bytes:
        """See :class:`~regd.workers.control.Asked`."""
        found = Samples()
        if self._serving is not None:
            self._serving.collect(found)
        return found.to_json()

    def leave(self) -> None:
        """Take no more connections, finish those that are here, and end. May be called again."""
        if self._leaving:
            return
        self._leaving = True
        if self._taking is not None:
            self._taking.close()
        Deferred.fromCoroutine(self._finish()).addErrback(self._failed).addBoth(lambda _: self._reactor.stop())

    def cut_off(self) -> None:
        """See :class:`~regd.workers.control.CutOff`."""
        self.leave()
        if self._serving is not None:
            self._serving.cut_off()

    async def _finish(self) -> None:
        if self._serving is not None:
            await self._serving.finish(self._serving.config.http.draintimeout)

    def _failed(self, failure: Failure) -> None:
        self._log.failure("a worker could not end as it should", failure=failure)
        self.status = 1

    def _adopt(self, connection: socket.socket) -> None:
        assert self._serving is not None
        assert self._taking is not None
        try:
            adopt(connection, self._serving.site, self._reactor)
        except OSError:
            # It has been reset on the way.
            connection.close()
            self._taking.connection_closed()


def run(*, share_log: bool) -> int:
    """
    Be a worker.

    :param share_log: whether other processes write to standard output and standard error as well.
    :returns: the exit status.
    """
    # Not at the top: see regd.worker.
    from twisted.internet import reactor as installed  # noqa: PLC0415 - see above

    reactor: Any = installed
    lock = LOCK if share_log else None
    channel = socket.socket(fileno=CHANNEL)
    worker = Worker(channel, Lines(2, lock), Lines(1, lock), globalLogBeginner, reactor, RATES)
    signal.signal(signal.SIGTERM, lambda number, frame: reactor.callFromThread(worker.leave))
    control = ParentControl(worker, worker.leave)
    worker.on_recorded = control.recorded
    with socket.socket(fileno=CONTROL) as said:
        said.setblocking(False)
        reactor.adoptStreamConnection(said.fileno(), socket.AF_UNIX, Given(control))
    # Signals are ours: Twisted's own handler for SIGTERM takes the second one for a mistake, and both systemd and the parent send one.
    reactor.run(installSignalHandlers=False)
    return worker.status
