"""
The body of a blob, from an upstream to the end of a file: begun where the file ends, and begun again, where it had come to, when it breaks
off or stalls.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IDelayedCall
from twisted.internet.task import LoopingCall
from zope.interface import implementer

from regd.names import Digest
from regd.proxy.cache.origins import BlobOrigin
from regd.proxy.remote.errors import Limited, RemoteError, Unreachable, Wrong
from regd.proxy.remote.values import RemoteBlob
from regd.storage.driver import Appender
from regd.web.body import BodyAborted

__all__ = ["Download", "Pauses", "Stopped"]

#: How often an upstream may break off in a row with less than this sent in between, in bytes, once it has begun to answer.
_TRIES: Final = 5
_PROGRESS: Final = 64 * 1024

#: How long to wait before it is asked again, in seconds: at first, doubled each time, and at most. One that says that it is to be left
#: alone is asked when that is over, if it is soon enough.
_PAUSE: Final = 0.25
_LONGEST_PAUSE: Final = 15.0

#: How often what has come is sent on its way to the file, where there is too little to be worth a thread; in seconds.
_STORE: Final = 0.02


class Stopped(Exception):
    """It is to end, because this process does, or because nobody is interested any more."""


class Pauses:
    """
    Waiting that can be cut short.

    :param clock: ``Any``: a reactor is typed as the union of what reactors may be.
    :ivar stopped: whether it has been.
    """

    def __init__(self, clock: Any) -> None:
        self.clock = clock
        self.stopped = False
        self._waiting: Deferred[None] | None = None
        self._call: IDelayedCall | None = None

    async def pause(self, seconds: float) -> None:
        """
        :raises Stopped: when, or as soon as, it is to end.
        """
        self.go_on()
        self._waiting = Deferred()
        self._call = self.clock.callLater(seconds, self._wake)
        await self._waiting
        self.go_on()

    def go_on(self) -> None:
        """
        :raises Stopped: when it is to end.
        """
        if self.stopped:
            raise Stopped

    def stop(self) -> None:
        """It is to end. May be called again."""
        self.stopped = True
        if self._call is not None:
            self._call.cancel()
            self._wake()

    def _wake(self) -> None:
        waiting, self._waiting, self._call = self._waiting, None, None
        if waiting is not None:
            waiting.callback(None)


class Download:
    """
    :param appender: the end of the file, which may have been begun; its hash has been fed all that is there.
    :param size: bytes of the whole blob, where they are known; then all has to be as long.
    :param answered: called, and waited for, each time that the upstream has begun to answer, before anything is stored; it is given the
        size of the blob, or ``None``.
    :param needed: whether anybody still has a use for it.
    :ivar size: what the upstream has said, or was known before.
    """

    def __init__(
        self,
        origin: BlobOrigin,
        digest: Digest,
        appender: Appender,
        size: int | None,
        pauses: Pauses,
        answered: Callable[[int | None], Awaitable[None]],
        needed: Callable[[], bool],
    ) -> None:
        self.size = size
        self._origin = origin
        self._digest = digest
        self._appender = appender
        self._pauses = pauses
        self._answered = answered
        self._needed = needed
        self._blob: RemoteBlob | None = None
        #: Whether it is known that the upstream has the blob, and lets us have it.
        self._begun = size is not None

    async def run(self) -> None:
        """
        Have all of it stored, and durable.

        :raises RemoteError: when the upstream does not give it; all that has come is stored.
        :raises Wrong: when it is longer or shorter than it was said to be.
        :raises StorageError: when it cannot be stored.
        :raises Stopped: when it is to end; all that has come is stored.
        """
        failures, before = 0, self._appender.size
        while True:
            broken: RemoteError | None
            try:
                broken = await self._once()
            except (Unreachable, Limited) as error:
                # Its connections may have been cut because this is to end.
                self._pauses.go_on()
                if not self._begun:
                    # Whoever waits gets a clear answer at once, and can try again.
                    raise
                broken = error
            if broken is None:
                return
            failures += 1
            if self._appender.size - before >= _PROGRESS:
                failures, before = 1, self._appender.size
            pause = max(min(_PAUSE * 2.0 ** (failures - 1), _LONGEST_PAUSE), self._origin.remote.resting)
            if isinstance(broken, Limited):
                pause = max(pause, broken.retry_after)
            if failures >= _TRIES or pause > _LONGEST_PAUSE:
                raise broken
            await self._pauses.pause(pause)

    def stop(self) -> None:
        """End what is under way; :meth:`run` raises :class:`Stopped`. May be called at any time, after its ``pauses`` were."""
        if self._blob is not None:
            self._blob.close()

    async def _once(self) -> Unreachable | None:
        """
        :returns: what went wrong; ``None`` when all has come.
        """
        start = self._appender.size
        blob = await self._origin.remote.blob(self._origin.name, self._digest, start)
        self._blob = blob
        try:
            self._pauses.go_on()
            if blob.start > start:
                raise Unreachable(f"{self._origin.url} sent bytes from {blob.start}, when it was asked for those from {start}")
            if blob.size is not None:
                if self.size not in {None, blob.size} or blob.size < start:
                    raise Wrong(f"{self._origin.url} has {blob.size} bytes of {self._digest} now, and had {self.size or start} before")
                self.size = blob.size
            await self._answered(self.size)
            self._begun = True
            why = await self._receive(blob, start - blob.start)
        finally:
            self._blob = None
            blob.close()
        self._pauses.go_on()
        size = self._appender.size
        if self.size is not None and size > self.size:
            raise Wrong(f"{self._origin.url} sent more of {self._digest} than the {self.size} bytes that it has")
        if why is None and (self.size is None or size == self.size):
            return None
        told = why or f"it ended after {size} bytes"
        return Unreachable(f"{self._origin.url} broke off sending {self._digest}: {told}", late=False)

    async def _receive(self, blob: RemoteBlob, skip: int) -> str | None:
        """
        :param skip: how many bytes of the body are there already.
        :returns: why the body ended before its end, if it did.
        """
        appender = self._appender
        watching = LoopingCall(self._watch, blob)
        watching.clock = self._pauses.clock
        watching.start(_STORE, now=False)
        appender.registerProducer(blob.body, True)
        try:
            await blob.body.startProducing(_Tail(appender, skip))
        except BodyAborted as error:
            return blob.why() or str(error)
        finally:
            watching.stop()
            appender.unregisterProducer()
            # Also when the body broke off: what has come is kept, and the file then says how much that is.
            await appender.flush()
        return None

    def _watch(self, blob: RemoteBlob) -> None:
        """Every few milliseconds while the body comes."""
        self._appender.store()
        if not self._needed():
            self._pauses.stop()
        if self._pauses.stopped or (self.size is not None and self._appender.size > self.size):
            blob.close()


@implementer(IConsumer)
class _Tail:
    """
    What is new of a body that may begin before the end of the file.

    :param skip: how many bytes are not new.
    """

    def __init__(self, appender: Appender, skip: int) -> None:
        self._appender = appender
        self._skip = skip
        self._first = True

    def registerProducer(self, producer: object, streaming: bool) -> None:  # noqa: N802 - IConsumer's name
        """The appender has been told of it."""

    def unregisterProducer(self) -> None:  # noqa: N802 - IConsumer's name
        """See :meth:`registerProducer`."""

    def write(self, data: bytes) -> None:
        """Part of the body."""
        if self._skip:
            skipped, data = len(data), data[self._skip :]
            self._skip -= skipped - len(data)
            if not data:
                return
        self._appender.write(data)
        if self._first:
            # Those who wait are to have the first bytes as soon as they are here.
            self._first = False
            self._appender.store()
