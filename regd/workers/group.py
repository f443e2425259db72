"""The parent's side of it all: several workers as one thing that serves."""

from __future__ import annotations

import math
import os
import socket
import sys
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any, Final

from twisted.internet.defer import Deferred, DeferredList, TimeoutError  # noqa: A004 - it is not Python's, and the one that is raised
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger
from twisted.protocols.amp import RemoteAmpError

from regd.telemetry.samples import Samples
from regd.workers.channel import GivingEnd, Report
from regd.workers.children import ASKED_TO_END, Child, Children, Output
from regd.workers.control import CannotServe
from regd.workers.listening import Listening
from regd.workers.spread import Lane, Spread

__all__ = ["Group"]

#: How long a worker may take to say its numbers, in seconds; one that is starting has none.
PATIENCE: Final = 2.0

#: How long connections that have been accepted may take to get to a worker when we end, in seconds.
HANDING: Final = 2.0


class _Worker:
    """
    What belongs to one process.

    :ivar ready: whether it serves by the newest configuration.
    :ivar asked: whether an answer of its is awaited that says that it turns.
    :ivar samples: the newest that it has given.
    """

    def __init__(self, child: Child) -> None:
        self.child = child
        self.giving: GivingEnd | None = None
        self.ready = False
        self.asked = False
        self.samples = Samples()


class Group:
    """
    Several workers.

    :param module: the module that is a worker's program.
    :param arguments: of that program.
    :param count: how many workers.
    :param outputs: see :class:`~regd.workers.children.Children`.
    :param lock: see there.
    :param rates: see there.
    :param path: the file of the configuration.
    :param source: what the parent has read from it.
    :param on_recorded: called when a worker has put something into the journal of events.
    :ivar ready: fires when all workers serve for the first time.
    :ivar lost: how many workers have ended while they were wanted, each replaced by another.
    """

    _log = Logger()

    # Any: a reactor is typed as the union of what reactors may be.
    def __init__(
        self,
        module: str,
        arguments: list[str],
        count: int,
        outputs: Mapping[int, Output],
        lock: int | None,
        path: str,
        source: bytes,
        reactor: Any,
        on_recorded: Callable[[], None] = lambda: None,
        rates: int | None = None,
    ) -> None:
        self._reactor = reactor
        self._on_recorded = on_recorded
        self._count = count
        self._path = path
        # What a worker has to be told to be where the others are: what cannot change is as the first one says.
        self._first = self._newest = source
        self._spread = Spread(reactor, self._pause)
        self._listening = Listening(self._spread.offer, reactor)
        self._workers: list[_Worker] = []
        #: What workers had counted that have ended since, as far as they had said.
        self._past = Samples()
        self._stopping = False
        self._refusal = ""
        self.lost = 0
        self._all_ended: Deferred[None] = Deferred()
        self.ready: Deferred[None] = Deferred()
        # -P: what lies in the directory that the daemon was started in is no module of its.
        command = [sys.executable, "-P", "-m", module, *arguments]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self._children = Children(reactor, command, environment, count, outputs, lock, self._started, self._ended, rates)

    def listen(self, address: Any) -> IListeningPort:
        """
        Listen on an address, for all workers.

        :param address: as :func:`regd.web.listen.listen` has it.
        :raises CannotListenError: see there.
        """
        return self._listening.listen(address)

    def listen_on(self, listening: socket.socket) -> IListeningPort:
        """As :meth:`listen`, see :func:`regd.web.listen.listen_on`."""
        return self._listening.listen_on(listening)

    def start(self) -> None:
        """Start the workers."""
        self._children.startService()

    @property
    def connections(self) -> int:
        """How many there are."""
        return self._spread.connections

    async def configure(self, source: bytes) -> int:
        """
        Put another configuration into effect in all workers, those that come later included.

        :returns: how many workers have it now. What became of the others is in the log.
        """
        self._newest = source
        asked = [Deferred.fromCoroutine(self._bring_up(worker)) for worker in self._workers if worker.ready]
        outcomes = await DeferredList(asked, consumeErrors=True)
        return sum(1 for fine, in_effect in outcomes if fine and in_effect)

    def refuse(self, reason: str) -> None:
        """
        Have all workers, those that come later included, answer every request with 503.

        :param reason: what clients are told; empty to have them answer as usual.
        """
        self._refusal = reason
        for worker in self._workers:
            Deferred.fromCoroutine(_heard(worker.child.control.refuse(self._refusal)))

    def reopen(self) -> None:
        """Have all workers open the files again that they write lines to."""
        for worker in self._workers:
            Deferred.fromCoroutine(_heard(worker.child.control.reopen()))

    async def variables(self) -> list[dict[str, Any]]:
        """The numbers of each worker; of one that does not answer, its process id alone."""
        asked = [Deferred.fromCoroutine(self._variables_of(worker)) for worker in self._workers]
        return [found for fine, found in await DeferredList(asked, consumeErrors=True) if fine]

    @property
    def count(self) -> int:
        """How many workers serve."""
        return sum(worker.ready for worker in self._workers)

    async def samples(self) -> Samples:
        """
        What all workers have counted, those that have ended included; so a counter never goes back. Of one that does not answer, and of one
        that has ended, what it said last.
        """
        await DeferredList([Deferred.fromCoroutine(self._measure(worker)) for worker in self._workers], consumeErrors=True)
        found = Samples()
        found.merge(self._past)
        for worker in self._workers:
            found.merge(worker.samples)
        return found

    def silent(self) -> list[int]:
        """
        Ask all workers that serve for a sign of life.

        :returns: the process ids of those that have not given one since this was last called: their event loops hang.
        """
        serving = [worker for worker in self._workers if worker.ready]
        hanging = [worker for worker in serving if worker.asked]
        for worker in serving:
            if not worker.asked:
                worker.asked = True
                Deferred.fromCoroutine(self._ping(worker))
        return [worker.child.pid for worker in hanging]

    async def finish(self, timeout: float) -> None:
        """
        Let the workers end, and wait for that.

        :param timeout: how long they may take, in seconds, before they are killed.
        """
        self._stopping = True
        # Who has been accepted is about to ask for something, and is answered as those are whom a worker has.
        with suppress(TimeoutError):
            await self._spread.settle().addTimeout(HANDING, self._reactor)
        self._spread.close()
        self._children.killTime = math.ceil(timeout)
        self._children.stopService()
        if self._workers:
            await self._all_ended

    def cut_off(self, timeout: float) -> None:
        """
        While :meth:`finish` waits: have the workers end without waiting for their requests.

        :param timeout: how long they may take, in seconds, before they are killed.
        """
        for worker in self._workers:
            # One that does not hear it has gone, or is killed.
            Deferred.fromCoroutine(worker.child.control.cut_off()).addErrback(lambda _: None)
        self._children.hurry(timeout)

    def _pause(self, paused: bool) -> None:
        self._listening.pause(paused)

    def _started(self, child: Child) -> None:
        worker = _Worker(child)
        child.control.on_recorded = self._on_recorded
        self._workers.append(worker)
        if self._refusal:
            # What is said first is heard first: it serves nobody before it knows.
            Deferred.fromCoroutine(_heard(worker.child.control.refuse(self._refusal)))
        Deferred.fromCoroutine(self._bring_up(worker))

    async def _ping(self, worker: _Worker) -> None:
        # One that has closed its end is about to end, and does not hang.
        with suppress(Exception):
            await worker.child.control.ping()
        worker.asked = False

    async def _bring_up(self, worker: _Worker) -> bool:
        """
        Tell a worker what it has to know, and give it connections when it knows it.

        :returns: whether it has the newest configuration.
        """
        sources = [self._newest] if worker.ready or self._first is self._newest else [self._first, self._newest]
        try:
            for source in sources:
                await worker.child.control.configure(self._path, source)
        except (CannotServe, RemoteAmpError) as error:
            self._log.error("worker {pid} cannot do what the configuration says: {reason}", pid=worker.child.pid, reason=error)
            if not worker.ready:
                # Another one is tried later.
                worker.child.end()
            return False
        except Exception:  # noqa: BLE001 - the connection is lost in one of many ways; the end of the process is told elsewhere
            return False
        if sources[-1] is not self._newest:
            # It has changed meanwhile.
            return await self._bring_up(worker)
        if not worker.ready:
            worker.ready = True
            self._open_lane(worker)
            if not self.ready.called and sum(one.ready for one in self._workers) == self._count:
                self.ready.callback(None)
        return True

    def _open_lane(self, worker: _Worker) -> None:
        def reported(report: Report) -> None:
            self._spread.reported(lane, report)

        worker.giving = GivingEnd(worker.child.channel, reported, lambda: self._spread.remove(lane), self._reactor)
        lane = Lane(worker.giving.send)
        self._spread.add(lane)

    def _ended(self, child: Child, how: str) -> None:
        worker = next(one for one in self._workers if one.child is child)
        if worker.giving is not None:
            worker.giving.finish()
        else:
            child.channel.close()
        self._workers.remove(worker)
        self._past.merge(worker.samples.lasting())
        if not self._stopping:
            self.lost += 1
            say = self._log.error if how else self._log.info
            say("worker {pid} {how}; another one takes its place", pid=child.pid, how=how or "has ended")
        elif how and how != ASKED_TO_END:
            self._log.warn("worker {pid} {how}", pid=child.pid, how=how)
        if self._stopping and not self._workers and not self._all_ended.called:
            self._all_ended.callback(None)

    async def _variables_of(self, worker: _Worker) -> dict[str, Any]:
        try:
            asked = Deferred.fromCoroutine(worker.child.control.variables())
            return await asked.addTimeout(PATIENCE, self._reactor)
        except (TimeoutError, Exception):  # noqa: BLE001 - it starts, or ends, or is stuck; what is known of it is that it is there
            return {"pid": worker.child.pid}

    async def _measure(self, worker: _Worker) -> None:
        try:
            asked = Deferred.fromCoroutine(worker.child.control.samples())
            worker.samples = Samples.from_json(await asked.addTimeout(PATIENCE, self._reactor))
        except (TimeoutError, Exception):  # noqa: BLE001 - as above; what it has said before counts
            return


async def _heard(saying: Coroutine[Any, Any, None]) -> None:
    """Say something to a worker that may be about to end."""
    try:
        await saying
    except Exception:  # noqa: BLE001 - the connection is lost in one of many ways; the end of the process is told elsewhere
        return
