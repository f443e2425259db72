"""From what happens to records in the journal: several at a time, written in a thread, and durable before a client hears of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from regd.config.notifying import Notifications
from regd.notifications.events import Event, record
from regd.notifications.journal import Full, Journal

__all__ = ["Recorder", "RunInThread"]

#: Runs ``append`` with records somewhere else than on the event loop.
RunInThread = Callable[[Callable[[Sequence[bytes]], None], Sequence[bytes]], Deferred[None]]

#: So many bytes of records wait in memory at most; the next is dropped, and counted.
_MOST_WAITING: Final = 8 * 1024 * 1024


class Recorder:
    """
    What one process has to tell. While a batch is being written, the next one gathers, so that one flush serves all who came meanwhile.

    :param config: who wants what.
    :param written: called when something has been put into the journal.
    :ivar recorded: how many events have been written.
    :ivar events: the same, by endpoint that wants them.
    :ivar dropped: how many have not, because the journal was full.
    :ivar failed: how many have not, because it could not be written.
    """

    _log = Logger()

    def __init__(self, journal: Journal, config: Notifications, run: RunInThread, written: Callable[[], None] = lambda: None) -> None:
        self.config = config
        self.recorded = self.dropped = self.failed = 0
        self.events: Counter[str] = Counter()
        self._journal = journal
        self._run = run
        self._written = written
        #: Records, each with the endpoints that it is for.
        self._waiting: list[tuple[bytes, Sequence[str], Deferred[None]]] = []
        self._bytes = 0
        self._writing = False
        #: Whether the log has been told that something is lost, since it last was not.
        self._told = False

    def wanted(self, action: str, media_type: str) -> bool:
        """Whether anybody wants to know; see :meth:`regd.config.notifying.Endpoint.wants`."""
        return self.config.wanted(action, media_type)

    def take(self, event: Event) -> Deferred[None]:
        """
        Write an event down.

        :returns: fires when it is durable, or is given up. Never fails: what happened has happened, and whoever did it is to hear so.
        """
        line = record(event)
        done: Deferred[None] = Deferred()
        if self._bytes + len(line) > _MOST_WAITING:
            self._lose(1, "too many wait to be written")
            self.dropped += 1
            done.callback(None)
            return done
        self._bytes += len(line)
        names = [one.name for one in self.config.endpoints if one.wants(event.action, event.target.media_type)]
        self._waiting.append((line, names, done))
        if not self._writing:
            self._writing = True
            Deferred.fromCoroutine(self._write())
        return done

    async def settle(self) -> None:
        """Wait until all that was taken is durable or given up."""
        if self._writing:
            # It is written with whatever else waits, after what is being written.
            done: Deferred[None] = Deferred()
            self._waiting.append((b"", (), done))
            await done

    def variables(self) -> dict[str, object]:
        """Counters."""
        return {"recorded": self.recorded, "dropped": self.dropped, "failed": self.failed, "events": dict(self.events)}

    async def _write(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            lines = [line for line, _, _ in batch if line]
            self._bytes -= sum(map(len, lines))
            if lines and await self._append(lines):
                self.events.update(name for _, names, _ in batch for name in names)
            for *_, done in batch:
                done.callback(None)
        self._writing = False

    async def _append(self, lines: list[bytes]) -> bool:
        """Whether they are written."""
        try:
            await self._run(self._journal.append, lines)
        except Full:
            self.dropped += len(lines)
            self._lose(len(lines), "the events that wait for their endpoints take all the room there is (notifications.maxsize)")
        except Exception as error:  # noqa: BLE001 - whatever it is: the change has been made, and its client has to be answered
            self.failed += len(lines)
            self._lose(len(lines), f"they cannot be written: {error}")
        else:
            self.recorded += len(lines)
            self._told = False
            self._written()
            return True
        return False

    def _lose(self, count: int, why: str) -> None:
        if not self._told:
            self._told = True
            self._log.error(
                "notifications: {count} events are lost, and more may be, each counted: {why}", count=count, why=why
            )
