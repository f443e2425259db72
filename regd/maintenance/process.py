"""
A chore in a process of its own, seen from the daemon; or, where no other process can see the storage, in the daemon itself.

The process shares neither the event loop nor the interpreter's lock nor the memory of who serves, and can be killed at any moment without
harm. :mod:`regd.maintenance.child` has what is said.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from regd.maintenance.chores import CutShort, Listener, Occupied, Order, Work, begin
from regd.maintenance.service import RunFailed
from regd.pace import Sleep
from regd.processes import Lines, how_it_ended, killed_by
from regd.storage.driver import Driver, StorageError

__all__ = ["Here", "InProcess", "Runner"]

#: How long a run may take to end when it is asked to, in seconds, before it is killed.
PATIENCE: Final = 10.0


class Runner(Protocol):
    """Carries out orders, one at a time."""

    async def run(self, order: Order, listener: Listener) -> dict[str, Any]:
        """
        :returns: the summary, as :meth:`regd.maintenance.chores.Summary.to_json` writes it.
        :raises Occupied: when somebody else does the same.
        :raises CutShort: when :meth:`stop` came before it had begun.
        :raises RunFailed: when it cannot be done.
        """

    def stop(self) -> None:
        """End what runs, soon. Safe to call at any time."""


class Here:
    """
    A :class:`Runner` in this process, by turns with everything else that it does.

    :param driver: the storage as it is now.
    :param now: seconds since the epoch.
    """

    def __init__(self, driver: Callable[[], Driver], sleep: Sleep, now: Callable[[], float]) -> None:
        self._driver = driver
        self._sleep = sleep
        self._now = now
        self._work: Work | None = None

    async def run(self, order: Order, listener: Listener) -> dict[str, Any]:
        """See :class:`Runner`."""
        self._work = begin(order, self._driver(), listener, self._sleep, self._now)
        try:
            summary: dict[str, Any] = json.loads((await self._work.run()).to_json())
            return summary
        except StorageError as error:
            raise RunFailed(str(error)) from None
        finally:
            self._work = None

    def stop(self) -> None:
        """See :class:`Runner`."""
        if self._work is not None:
            self._work.stop()


class InProcess:
    """
    A :class:`Runner` that starts a process for each order.

    :param reactor: ``Any``: a reactor is typed as the union of what reactors may be.
    :param command: the program and its arguments.
    """

    def __init__(self, reactor: Any, command: tuple[str, ...] = ()) -> None:
        self._reactor = reactor
        # -P: what lies in the directory that the daemon was started in is no module of its.
        self._command = command or (sys.executable, "-P", "-m", "regd.maintain")
        self._child: _Child | None = None

    async def run(self, order: Order, listener: Listener) -> dict[str, Any]:
        """See :class:`Runner`."""
        child = _Child(listener, self._reactor)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        try:
            transport = self._reactor.spawnProcess(child, self._command[0], self._command, environment)
        except OSError as error:
            raise RunFailed(f"no process can be started: {error.strerror}") from None
        self._child = child
        transport.write(order.to_json())
        try:
            return await child.done
        finally:
            self._child = None

    def stop(self) -> None:
        """See :class:`Runner`."""
        if self._child is not None:
            self._child.stop()


class _Child(ProcessProtocol):
    """
    The process.

    :ivar done: fires with the summary when it has ended; fails as :meth:`Runner.run`.
    """

    _log = Logger()

    def __init__(self, listener: Listener, reactor: Any) -> None:
        self._listener = listener
        self._reactor = reactor
        self._lines = {1: Lines(self._hear), 2: Lines(self._complain)}
        self._outcome: dict[str, Any] = {}
        self._killing: IDelayedCall | None = None
        self.done: Deferred[dict[str, Any]] = Deferred()

    def stop(self) -> None:
        """Ask it to end, and kill it when it does not."""
        if self._killing is None:
            self._signal("TERM")
            self._killing = self._reactor.callLater(PATIENCE, self._signal, "KILL")

    def childDataReceived(self, childFD: int, data: bytes) -> None:  # noqa: N802, N803 - Twisted's names
        """It has written something."""
        self._lines[childFD].feed(data)

    def processEnded(self, reason: Failure) -> None:  # noqa: N802 - Twisted's name
        """It has ended, and all that it wrote is here."""
        if self._killing is not None and self._killing.active():
            self._killing.cancel()
        for lines in self._lines.values():
            lines.end()
        event = self._outcome.get("event")
        if event == "summary":
            self.done.callback(self._outcome["summary"])
        elif event == "occupied":
            self.done.errback(Occupied())
        elif event == "failed":
            self.done.errback(RunFailed(self._outcome["reason"]))
        elif self._killing is not None and killed_by(reason) == signal.SIGTERM:
            # The interpreter was still starting.
            self.done.errback(CutShort())
        else:
            self.done.errback(RunFailed(f"its process {how_it_ended(reason) or 'ended without a word'}"))

    def _hear(self, line: bytes) -> None:
        try:
            found = json.loads(line)
            match found["event"]:
                case "damaged":
                    self._listener.damaged(str(found["path"]), str(found["what"]))
                case "say":
                    self._listener.say(str(found["level"]), str(found["text"]))
                case "summary":
                    self._outcome = {"event": "summary", "summary": dict(found["summary"])}
                case "occupied" | "failed":
                    self._outcome = {"event": found["event"], "reason": str(found.get("reason"))}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            # A person's line, of a library or of the interpreter itself.
            self._complain(line)

    def _complain(self, line: bytes) -> None:
        self._listener.say("error", line.decode("utf-8", "backslashreplace"))

    def _signal(self, name: str) -> None:
        # Any: Twisted declares no transport for protocols of processes.
        transport: Any = self.transport
        with suppress(ProcessExitedAlready):
            transport.signalProcess(name)
