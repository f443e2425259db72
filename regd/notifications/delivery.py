"""Who tells the endpoints: one process of all those that share a storage."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from regd.config.notifying import Endpoint, Notifications
from regd.notifications.journal import Journal
from regd.notifications.telling import Post, Run, Tally, Teller
from regd.notifications.undelivered import Undelivered

__all__ = ["Delivery", "Held", "key_of"]

#: How often it is looked whether there is room, and for what other daemons on the same storage have written, in seconds; no channel leads
#: to them. It is a listing of a small directory in a thread, some 100 µs, and only where there are endpoints. What this daemon and its
#: workers write is told at once.
_LOOK: Final = 2.0

#: Of the room that the journal has, so much may be taken before the oldest segments are given up, so that there is some for what is new.
_CROWDED: Final = 0.75


class Held(Protocol):
    """A lock that has been taken."""

    def close(self) -> None:
        """Let go of it."""


def key_of(endpoint: Endpoint) -> str:
    """What files of an endpoint are called: a name may have any letters in it."""
    return hashlib.sha256(endpoint.name.encode()).hexdigest()[:16]


class Delivery:
    """
    Tells all endpoints, while it holds the lock of the sender.

    :param make_post: makes what sends to an endpoint.
    :param lock: takes the lock, or says with ``None`` that another process has it.
    :param now: seconds since the epoch.
    """

    _log = Logger()

    def __init__(
        self,
        journal: Journal,
        undelivered: Undelivered,
        make_post: Callable[[Endpoint], Post],
        lock: Callable[[], Held | None],
        run: Run,
        reactor: Any,
        now: Callable[[], float],
    ) -> None:
        self._journal = journal
        self._undelivered = undelivered
        self._make_post = make_post
        self._lock = lock
        self._run = run
        self._reactor = reactor
        self._now = now
        self._config = Notifications()
        self._held: Held | None = None
        self._tellers: dict[str, Teller] = {}
        self._leaving: dict[str, Deferred[None]] = {}
        self._stopping = False
        self._seen = (0, 0)
        self._size = 0
        self._tallies: dict[str, Tally] = {}
        self._pending: dict[str, int] = {}
        self._looking = LoopingCall(self._look)
        self._looking.clock = reactor

    def configure(self, config: Notifications) -> None:
        """
        Tell these from now on. One that is new is told of what is written after this.
        Small files are read and written here: this is for the start, and for a new configuration.
        """
        self._config = config
        if config.active or self._held is not None:
            self._begin()
        if config.active and not self._looking.running:
            self._looking.start(_LOOK, now=False).addErrback(self._failed)
        elif not config.active and self._looking.running:
            self._looking.stop()

    async def stop(self) -> None:
        """End, and remember how far each endpoint has been told."""
        if self._looking.running:
            self._looking.stop()
        self._stopping = True
        self._retire(dict(self._tellers))
        for ended in list(self._leaving.values()):
            await ended
        if self._held is not None:
            self._held.close()
            self._held = None

    def wake(self) -> None:
        """Something has been written."""
        for teller in self._tellers.values():
            teller.wake()

    async def refresh(self) -> None:
        """Count what waits, for :meth:`variables`."""
        try:
            self._pending = {key: await self._run(self._journal.count, teller.cursor) for key, teller in list(self._tellers.items())}
            self._size = await self._run(self._journal.size)
        except OSError as error:
            self._log.error("notifications: {error}", error=error)

    def variables(self) -> dict[str, object]:
        """Counters."""
        endpoints = {
            teller.endpoint.name: {**teller.variables(), "pending": self._pending.get(key, 0)} for key, teller in self._tellers.items()
        }
        return {"sending": self._held is not None, "journal_bytes": self._size, "endpoints": endpoints}

    def _begin(self) -> None:
        """Have a teller for each endpoint, if we are the ones to tell."""
        if self._held is None:
            self._held = self._lock()
            if self._held is None:
                return
        wanted = {key_of(endpoint): endpoint for endpoint in self._config.active}
        ending = {key: teller for key, teller in self._tellers.items() if wanted.get(key) != teller.endpoint}
        self._retire(ending)
        for key in self._journal.keys():  # noqa: SIM118 - this is no mapping
            if key not in wanted and key not in self._leaving:
                self._log.info("notifications: an endpoint is no longer told; what it was not told of is not kept for it")
                self._journal.forget(key)
        for key, endpoint in wanted.items():
            # One that is ending has to write down first how far it came.
            if key not in self._tellers and key not in self._leaving:
                self._start(key, endpoint)

    def _retire(self, ending: dict[str, Teller]) -> None:
        """End some. Whoever follows one under the same name goes on where it ends."""
        for key in ending:
            del self._tellers[key]
            self._leaving[key] = Deferred()
        for key, teller in ending.items():
            Deferred.fromCoroutine(teller.stop()).addErrback(self._failed).addCallback(self._gone, key)

    def _gone(self, _: object, key: str) -> None:
        self._leaving.pop(key).callback(None)
        if self._held is not None and not self._stopping:
            self._begin()

    def _start(self, key: str, endpoint: Endpoint) -> None:
        cursor = self._journal.cursor(key)
        if cursor is None:
            cursor = self._journal.end()
            self._journal.keep_cursor(key, cursor)
        post = self._make_post(endpoint)
        tally = self._tallies.setdefault(key, Tally())
        teller = Teller(endpoint, key, cursor, self._journal, self._undelivered, post, self._run, self._reactor, self._now, tally)
        self._tellers[key] = teller
        teller.start()

    async def _look(self) -> None:
        try:
            if self._held is None:
                self._begin()
                return
            newest = await self._run(self._journal.newest)
            if newest != self._seen:
                self._seen = newest
                self.wake()
            await self._make_room()
        except OSError as error:
            self._log.error("notifications: {error}", error=error)

    async def _make_room(self) -> None:
        if not self._tellers:
            return
        oldest = min(teller.cursor.segment for teller in self._tellers.values())
        await self._run(self._journal.trim, oldest)
        self._size = await self._run(self._journal.size)
        if self._size > self._journal.limit * _CROWDED:
            for teller in self._tellers.values():
                if teller.cursor.segment <= oldest:
                    teller.abandon(oldest + 1)

    def _failed(self, failure: Failure) -> None:
        self._log.failure("notifications: not looked for any more", failure=failure)
