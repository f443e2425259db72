"""
A chore in a process of its own (:mod:`regd.maintain`), seen from there.

An order comes as one line of JSON on standard input, which then stays open for as long as the parent lives: its end ends the run. What is
found goes to standard output, an event on each line: ``damaged`` with a path, ``say`` for the log, and at the end ``summary``, ``occupied``
or ``failed``. What goes to standard error is no event, and unexpected.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import traceback
from contextlib import suppress
from typing import Any, BinaryIO, Final

from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogBeginner
from twisted.python.failure import Failure
from zope.interface import implementer

from regd.maintenance import blocking
from regd.maintenance.chores import Occupied, Order, Work, begin
from regd.storage.driver import StorageError

__all__ = ["Child", "Observer", "Turns", "main"]

#: How much less of the processors it gets than who serves where there is not enough for all, as in nice(1). Whoever changes something
#: waits while the gate is closed, so not the least.
NICENESS: Final = 5

#: How long a run may take to end when the parent has gone, in seconds.
_PATIENCE: Final = 10.0

#: Levels as the configuration calls them.
_LEVELS: Final = {LogLevel.critical: "error", LogLevel.error: "error", LogLevel.warn: "warn", LogLevel.info: "info"}


class Turns:
    """
    Has the process sleep, and gives those who serve their turns: as long as it has worked since the last one. A run that nobody waits for
    takes twice as long for it, and pulls find a processor free more often.
    """

    def __init__(self) -> None:
        self._worked = time.process_time()

    async def sleep(self, seconds: float) -> None:
        """A :data:`~regd.pace.Sleep`."""
        await blocking.sleep(seconds or time.process_time() - self._worked)
        self._worked = time.process_time()


class Child:
    """
    :param output: takes events.
    """

    def __init__(self, output: BinaryIO) -> None:
        self._output = output
        self._lock = threading.Lock()
        self._work: Work | None = None
        self._stopped = False

    def damaged(self, path: str, what: str) -> None:
        """See :class:`~regd.maintenance.chores.Listener`."""
        self._emit("damaged", path=path, what=what)

    def say(self, level: str, text: str) -> None:
        """See :class:`~regd.maintenance.chores.Listener`."""
        self._emit("say", level=level, text=text)

    def stop(self) -> None:
        """End soon. Safe to call at any time, from signal handlers and threads."""
        self._stopped = True
        if self._work is not None:
            self._work.stop()

    def watch(self, source: BinaryIO) -> None:
        """In a thread: wait until the parent has gone."""
        with suppress(OSError, ValueError):
            while source.read(1):
                pass
        self.stop()
        time.sleep(_PATIENCE)
        # Nothing is lost by that: a run may end anywhere.
        os._exit(1)

    def do(self, line: bytes) -> int:
        """
        Carry out an order.

        :returns: the exit status.
        """
        try:
            order = Order.from_json(line)
            driver = blocking.filesystem(order.root)
            driver.start()
            try:
                self._work = begin(order, driver, self, Turns().sleep, time.time)
                if self._stopped:
                    self._work.stop()
                summary = blocking.run(self._work.run())
            finally:
                driver.stop()
        except Occupied:
            self._emit("occupied")
        except (StorageError, ValueError) as error:
            self._emit("failed", reason=str(error))
            return 1
        except Exception as error:  # noqa: BLE001 - the parent has to hear of whatever it is
            traceback.print_exc()
            self._emit("failed", reason=f"{type(error).__name__}: {error}")
            return 1
        else:
            self._emit("summary", summary=json.loads(summary.to_json()))
        return 0

    def _emit(self, event: str, **fields: Any) -> None:
        line = json.dumps({"event": event, **fields}).encode() + b"\n"
        try:
            with self._lock:
                self._output.write(line)
                self._output.flush()
        except OSError:
            # The parent has gone.
            self.stop()


@implementer(ILogObserver)
class Observer:
    """Takes what the storage logs to the parent's log."""

    def __init__(self, child: Child) -> None:
        self._child = child

    def __call__(self, event: LogEvent) -> None:
        """Pass on an event of regd's own."""
        level = _LEVELS.get(event.get("log_level", LogLevel.info))
        if level is None or not str(event.get("log_namespace", "")).startswith("regd"):
            return
        failure = event.get("log_failure")
        text = formatEvent(event)
        self._child.say(level, f"{text} {failure.getTraceback()}" if isinstance(failure, Failure) else text)


def main() -> int:
    """
    Do what standard input says.

    :returns: the exit status.
    """
    os.nice(NICENESS)
    child = Child(sys.stdout.buffer)
    signal.signal(signal.SIGTERM, lambda number, frame: child.stop())
    # A terminal sends these to all processes of a group, and a supervisor to all of a service; what they mean is the parent's business.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    globalLogBeginner.beginLoggingTo([Observer(child)], discardBuffer=True, redirectStandardIO=False)
    # Without a buffer, because the thread may be in the middle of a read when the process ends.
    source = os.fdopen(os.dup(0), "rb", buffering=0)
    line = b""
    while not line.endswith(b"\n"):
        part = source.read(65536)
        if not part:
            # The parent has gone before it said anything.
            return 1
        line += part
    threading.Thread(target=child.watch, args=(source,), name="regd-parent", daemon=True).start()
    return child.do(line)
