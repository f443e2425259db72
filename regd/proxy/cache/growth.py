"""
A file that grows while others read it: as far as it has come, and by how much it has to have grown before they are told.

However many read it in this process, it is open once, and one timer looks at its size, only while somebody waits. Who fetches it may be
this process or another one: what is read here comes from the file in either case.
"""

from __future__ import annotations

from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from regd.storage.driver import Growing, Interrupted, StorageError

__all__ = ["Followed", "Growth"]

#: How often the size is looked at while somebody waits, in seconds: as long as it grows, and when it has not grown for :data:`_SILENT`.
LOOK: Final = 0.005
_LOOK_SILENT: Final = 0.02
_SILENT: Final = 0.25

#: Who waits is told of so many bytes at least, or of fewer after so many seconds: telling each of fifty readers costs the event loop some
#: 50 µs, and what reaches a client in larger pieces reaches it no later.
_ENOUGH: Final = 256 * 1024
_PATIENCE: Final = 0.02


class Growth:
    """
    :param growing: the file, which is this object's to close: once it is complete, or has failed, and nobody reads it any more.
    :param size: bytes that it is going to have; at least 1.
    :param clock: ``Any``: a reactor is typed as the union of what reactors may be.
    :ivar size: the same.
    :ivar seen: bytes that it had at the last look.
    :ivar given: up to where readers were let.
    :ivar readers: how many there are.
    """

    def __init__(self, growing: Growing, size: int, clock: Any) -> None:
        self.size = size
        self.seen = 0
        self.given = 0
        self.readers = 0
        self.growing = growing
        self._clock = clock
        self._complete = False
        self._why: str | None = None
        self._closed = False
        self._waiting: list[Deferred[None]] = []
        self._call: IDelayedCall | None = None
        self._told = 0
        self._told_at = self._grew_at = self._looked_at = float(clock.seconds())

    @property
    def visible(self) -> int:
        """
        Up to where there is something to read. The last byte is held back until all of it has been found right, so that nobody ever gets a
        wrong blob whole.
        """
        return self.size if self._complete else min(self.seen, self.size - 1)

    @property
    def silent(self) -> float:
        """For how long it has not grown, in seconds, as far as anybody has looked."""
        return float(self._clock.seconds()) - self._grew_at

    def look(self) -> int:
        """
        :returns: how many bytes there are now.
        :raises StorageError: when that cannot be told.
        """
        seen = self.growing.grown()
        self._looked_at = float(self._clock.seconds())
        if seen > self.seen:
            self._grew_at = self._looked_at
        elif seen < self.given:
            # A flush has failed. Nobody can promise that what takes the place of what was read is the same.
            self.fail("the file has become shorter than what was read of it")
        self.seen = seen
        return seen

    async def reach(self, offset: int) -> int:
        """See :meth:`regd.storage.driver.Content.reach`."""
        while True:
            if self._why is not None:
                raise Interrupted(self._why)
            visible = self.visible
            if visible > offset or offset >= self.size:
                self.given = max(self.given, visible)
                return visible
            await self._news()

    def complete(self) -> None:
        """All of it has come, and is right."""
        self._complete = True
        self._end()

    def fail(self, why: str) -> None:
        """No more will come. Nobody is given any more of what is there: it may be wrong. After :meth:`complete` it does nothing."""
        if not self._complete and self._why is None:
            self._why = why
            self._end()

    def enter(self) -> None:
        """Another one reads it."""
        self.readers += 1

    def leave(self) -> None:
        """One reads it no more."""
        self.readers -= 1
        self._close_if_unused()

    def _end(self) -> None:
        if self._call is not None:
            self._call.cancel()
            self._call = None
        self._tell()
        self._close_if_unused()

    def _close_if_unused(self) -> None:
        if not self.readers and not self._closed and (self._complete or self._why is not None):
            self._closed = True
            self.growing.close()

    def _news(self) -> Deferred[None]:
        waiting: Deferred[None] = Deferred(self._forget)
        self._waiting.append(waiting)
        if self._call is None:
            # Soon after the last look, however many ask: who has just been told comes back at once.
            self._call = self._clock.callLater(max(0.0, self._looked_at + LOOK - self._clock.seconds()), self._tick)
        return waiting

    def _tick(self) -> None:
        self._call = None
        try:
            self.look()
        except StorageError as error:
            self.fail(str(error))
        if self._why is not None:
            return
        news = self.visible - self._told
        if news > 0 and (not self._told or news >= _ENOUGH or self.seen >= self.size or self._looked_at - self._told_at >= _PATIENCE):
            self._tell()
        if self._waiting and self._call is None:
            self._call = self._clock.callLater(_LOOK_SILENT if self.silent > _SILENT else LOOK, self._tick)

    def _tell(self) -> None:
        self._told, self._told_at = self.visible, self._looked_at
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            # What one does with the news may be to cancel another.
            if not one.called:
                one.callback(None)

    def _forget(self, waiting: Deferred[None]) -> None:
        if waiting in self._waiting:
            self._waiting.remove(waiting)


class Followed:
    """
    A :class:`~regd.storage.driver.Content` whose bytes come as the file grows.

    :ivar size: bytes of the whole blob.
    """

    def __init__(self, growth: Growth) -> None:
        self.size = growth.size
        self._growth = growth
        self._closed = False
        growth.enter()

    def fileno(self) -> int | None:
        """See :class:`~regd.storage.driver.Content`."""
        return self._growth.growing.fileno()

    async def reach(self, offset: int) -> int:
        """See :class:`~regd.storage.driver.Content`."""
        return await self._growth.reach(offset)

    async def read(self, offset: int, length: int) -> bytes:
        """See :class:`~regd.storage.driver.Content`."""
        end = await self._growth.reach(offset)
        return await self._growth.growing.read(offset, max(0, min(length, end - offset)))

    def close(self) -> None:
        """See :class:`~regd.storage.driver.Content`."""
        if not self._closed:
            self._closed = True
            self._growth.leave()
