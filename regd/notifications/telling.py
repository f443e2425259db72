"""One endpoint is told of one event after the other, until it has taken each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger

from regd.config.notifying import Endpoint
from regd.notifications.events import envelope, parse
from regd.notifications.journal import Cursor, Journal
from regd.notifications.undelivered import Undelivered

__all__ = ["CannotPost", "Post", "Run", "Tally", "Teller"]

T = TypeVar("T")

#: Answers that speak of this one event and not of the endpoint's state: the same event again will hardly be taken (RFC 9110, section 15.5).
_REFUSED: Final = frozenset({400, 413, 415, 422})

#: How long a failure of our own storage is waited out, in seconds.
_STORAGE_PAUSE: Final = 5.0


class CannotPost(Exception):
    """An endpoint has not answered; the text says why, without secrets."""


class Post(Protocol):
    """Sends one envelope."""

    def __call__(self, content: bytes) -> Deferred[int]:
        """
        :returns: the status of the answer. Can be cancelled.
        :raises CannotPost: there is none, by the error of the Deferred.
        """

    def close(self) -> Deferred[None]:
        """Give connections back; nothing is sent any more."""


class Run(Protocol):
    """Runs what blocks, in a thread."""

    def __call__(self, function: Callable[..., T], *arguments: Any) -> Deferred[T]:
        """As :meth:`regd.storage.threads.Threads.run`. ``Any``: arguments of ``function``."""


@dataclass(frozen=True)
class Tally:
    """
    What has become of the events of one endpoint. It outlives the one who tells, as when the configuration changes.

    :ivar counts: by what became of them; see :meth:`Teller.variables`.
    :ivar statuses: answers, by status.
    """

    counts: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)


class Teller:
    """
    :param key: what the journal calls the endpoint.
    :param cursor: where it has been told up to.
    :param now: seconds since the epoch.
    :ivar cursor: where it has been told up to now; what is before may be removed.
    """

    _log = Logger()

    def __init__(
        self,
        endpoint: Endpoint,
        key: str,
        cursor: Cursor,
        journal: Journal,
        undelivered: Undelivered,
        post: Post,
        run: Run,
        reactor: Any,
        now: Callable[[], float],
        tally: Tally | None = None,
    ) -> None:
        tally = tally or Tally()
        self.endpoint = endpoint
        self.key = key
        self.cursor = cursor
        self._journal = journal
        self._undelivered = undelivered
        self._post = post
        self._run = run
        self._reactor = reactor
        self._now = now
        self._counts = tally.counts
        self._statuses = tally.statuses
        #: Failures in a row, and why the last one was.
        self._failures = 0
        self._why = ""
        self._abandoned = 0
        self._given_up: list[tuple[str, dict[str, Any]]] = []
        self._stopping = False
        self._news = True
        self._idle = False
        # Any: of several types; all that is asked of it is to be cancelled.
        self._waiting: Deferred[Any] | None = None
        self._ended: Deferred[None] | None = None

    def start(self) -> None:
        """Begin to tell."""
        self._ended = Deferred.fromCoroutine(self._tell())

    def wake(self) -> None:
        """There may be something new."""
        self._news = True
        if self._idle and self._waiting is not None:
            self._waiting.cancel()

    def abandon(self, before: int) -> None:
        """Give up what is in segments with a lower number: there is no more room for it."""
        self._abandoned = max(self._abandoned, before)
        if self.cursor.segment < before and self._waiting is not None and not self._idle:
            # It may be a long pause.
            self._waiting.cancel()

    async def stop(self) -> None:
        """End, and remember how far it came. What is being sent may be sent again by the next one."""
        self._stopping = True
        if self._waiting is not None:
            self._waiting.cancel()
        if self._ended is not None:
            await self._ended

    def variables(self) -> dict[str, object]:
        """Counters, and how it is. Tries that are answered with a wrong status are failures, those that are not answered errors."""
        counts = {name: self._counts[name] for name in ("delivered", "ignored", "failures", "errors", "undelivered", "damaged")}
        standing = {"consecutive_failures": self._failures, "last_failure": self._why if self._failures else ""}
        return {**counts, "statuses": dict(self._statuses), **standing}

    async def _tell(self) -> None:
        while not self._stopping:
            try:
                self._news = False
                await self._tell_some()
            except CancelledError:
                # Woken, or told to stop.
                continue
            except Exception as error:  # noqa: BLE001 - whatever it is: the others have to be told all the same, and this one later
                self._log.error("notifications: {name}: {error}; trying again", name=self.endpoint.name, error=error)
                with suppress(CancelledError):
                    await self._interruptible(deferLater(self._reactor, _STORAGE_PAUSE))
        try:
            await self._keep()
        except OSError as error:
            self._log.error("notifications: {name}: {error}; some may be sent again", name=self.endpoint.name, error=error)
        await self._post.close()

    async def _tell_some(self) -> None:
        found = await self._run(self._journal.read, self.cursor)
        self._counts["damaged"] += found.damaged
        if found.end == self.cursor:
            if not self._news:
                self._idle = True
                try:
                    await self._interruptible(Deferred())
                finally:
                    self._idle = False
            return
        if found.end.segment != self.cursor.segment:
            # Only the segment that we are in, now, is in use by us.
            self.cursor = Cursor(found.end.segment)
        try:
            for content, behind in found.records:
                if not await self._settle(content, behind):
                    return
                self.cursor = behind
            self.cursor = found.end
        finally:
            await self._keep()

    async def _settle(self, content: bytes, behind: Cursor) -> bool:
        """
        Tell of one event, or give it up.

        :returns: whether either has been done; not when we are to stop.
        """
        try:
            event = parse(content)
        except ValueError:
            self._counts["damaged"] += 1
            return True
        if not self.endpoint.wants(event["action"], str(event["target"].get("mediaType", ""))):
            self._counts["ignored"] += 1
            return True
        body = envelope(event)
        refusals = 0
        while not self._stopping:
            if behind.segment < self._abandoned:
                self._give_up(event, f"no room for it any more; {self._why}".rstrip("; "))
                return True
            status = await self._try(body)
            if status is not None and 200 <= status < 300:
                self._recovered()
                self._counts["delivered"] += 1
                return True
            if self._is_stopping():
                break
            if self._failures == 1:
                # It may be long until it takes the next one, and those before it need not be sent again if we are killed meanwhile.
                await self._keep()
            refusals = refusals + 1 if status in _REFUSED else 0
            if refusals >= self.endpoint.threshold:
                self._give_up(event, self._why)
                # It answers, so it is no reason to be careful with the next one.
                self._failures = 0
                return True
            if self._failures >= self.endpoint.threshold:
                with suppress(CancelledError):
                    await self._interruptible(deferLater(self._reactor, self.endpoint.backoff))
        return False

    async def _try(self, body: bytes) -> int | None:
        """The status of the answer; ``None`` where there is none."""
        status = None
        try:
            status = await self._interruptible(self._post(body))
            self._statuses[str(status)] += 1
            why = f"it answers {status}"
            if 300 <= status < 400:
                why += ", a redirect, which is not followed: its url has to be where it leads to"
        except CancelledError:
            # There is something else to do; it says nothing of the endpoint.
            return None
        except CannotPost as error:
            why = str(error)
        if status is None or not 200 <= status < 300:
            self._counts["errors" if status is None else "failures"] += 1
            self._failures += 1
            self._why = why
            if self._failures == self.endpoint.threshold:
                self._log.warn(
                    "notifications: {name} has failed {count} times in a row: {why}; its events wait on disk, and it is tried every "
                    "{backoff} s",
                    name=self.endpoint.name,
                    count=self._failures,
                    why=why,
                    backoff=self.endpoint.backoff,
                )
        return status

    def _is_stopping(self) -> bool:
        """Asked anew after each wait."""
        return self._stopping

    def _recovered(self) -> None:
        if self._failures >= self.endpoint.threshold:
            self._log.info("notifications: {name} takes events again", name=self.endpoint.name)
        self._failures = 0

    def _give_up(self, event: dict[str, Any], why: str) -> None:
        self._counts["undelivered"] += 1
        self._given_up.append((why, event))
        self._log.error(
            "notifications: {name} is never told of event {id}: {why}; it is in the file 'undelivered'",
            name=self.endpoint.name,
            id=str(event.get("id", "")),
            why=why,
        )

    async def _keep(self) -> None:
        """Write down what was given up, and then how far we are: in this order, so that nothing is in neither."""
        cursor = self.cursor
        while self._given_up:
            why = self._given_up[0][0]
            events = [event for reason, event in self._given_up if reason == why]
            await self._run(self._undelivered.add, self.endpoint.name, why, events, self._now())
            self._given_up = [one for one in self._given_up if one[0] != why]
        await self._run(self._journal.keep_cursor, self.key, cursor)

    async def _interruptible(self, waiting: Deferred[T]) -> T:
        self._waiting = waiting
        try:
            return await waiting
        finally:
            self._waiting = None
