"""Part of a blob that is not here, passed on as it comes from the upstream; nothing of it is kept."""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IPushProducer
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from regd.names import Digest
from regd.proxy.cache.origins import BlobOrigin
from regd.proxy.remote.errors import RemoteError, Unreachable
from regd.proxy.remote.values import RemoteBlob
from regd.storage.driver import Interrupted

__all__ = ["NotInParts", "RemoteSpan"]

#: The upstream waits while so many bytes wait for the client. With one more read of its socket, of up to 192 KiB, this stays below what
#: promise P1 allows.
_HIGH_WATER: Final = 32 * 1024

#: How often an upstream that breaks off is asked for the rest.
_TRIES: Final = 3

#: How far a reader may jump ahead without the upstream being asked anew, in bytes.
_SKIP: Final = 64 * 1024


class NotInParts(Exception):
    """The upstream sends all of the blob, whatever part of it is asked for."""


@implementer(IConsumer)
class _Held:
    """What has come of a body, and not yet been read."""

    def __init__(self, blob: RemoteBlob) -> None:
        self.offset = blob.start
        self.ended = False
        self.failed = False
        self.chunks: deque[bytes] = deque()
        self.size = 0
        self._blob = blob
        self._producer: IPushProducer = blob.body
        self._paused = False
        self._waiting: Deferred[None] | None = None

    def start(self) -> None:
        """Have the body come."""
        Deferred.fromCoroutine(_awaited(self._blob.body.startProducing(self))).addCallbacks(self._end, self._fail)

    def registerProducer(self, producer: object, streaming: bool) -> None:  # noqa: N802 - IConsumer's name
        """It is the body."""

    def unregisterProducer(self) -> None:  # noqa: N802 - IConsumer's name
        """See :meth:`registerProducer`."""

    def write(self, data: bytes) -> None:
        """Part of the body."""
        self.chunks.append(data)
        self.size += len(data)
        if self.size >= _HIGH_WATER and not self._paused:
            self._paused = True
            self._producer.pauseProducing()
        self._wake()

    def take(self, length: int) -> bytes:
        """Up to ``length`` bytes of what is there."""
        chunk = self.chunks.popleft()
        if len(chunk) > length:
            self.chunks.appendleft(chunk[length:])
            chunk = chunk[:length]
        self.offset += len(chunk)
        self.size -= len(chunk)
        if self._paused and self.size < _HIGH_WATER:
            self._paused = False
            self._producer.resumeProducing()
        return chunk

    def why(self) -> str:
        """Why the body broke off."""
        return self._blob.why()

    def news(self) -> Deferred[None]:
        """Fires when something has come, or nothing more will. One waits at a time."""
        waiting = self._waiting = Deferred(self._forget)
        return waiting

    def close(self) -> None:
        """Nothing more is wanted."""
        self.chunks.clear()
        self._blob.close()

    def _end(self, _: None) -> None:
        self.ended = True
        self._wake()

    def _fail(self, _: Failure) -> None:
        self.ended = self.failed = True
        self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)

    def _forget(self, waiting: Deferred[None]) -> None:
        if self._waiting is waiting:
            self._waiting = None


class RemoteSpan:
    """
    A :class:`~regd.storage.driver.Content` over a part of a blob that its upstream has. It is read from its beginning to its end, mostly;
    who reads elsewhere has the upstream asked anew.

    :param end: the byte after the last one that will be read.
    :ivar size: bytes of the whole blob.
    """

    _log = Logger()

    def __init__(self, origin: BlobOrigin, digest: Digest, size: int, end: int) -> None:
        self.size = size
        self._origin = origin
        self._digest = digest
        self._end = min(end, size)
        self._held: _Held | None = None
        self._closed = False

    async def begin(self, offset: int) -> None:
        """
        Ask the upstream for what is from ``offset`` on.

        :raises RemoteError: when it does not give it.
        :raises NotInParts: when it gives all of the blob, and what is wanted is not near its beginning.
        """
        self._drop()
        blob = await self._origin.remote.blob(self._origin.name, self._digest, offset, self._end)
        held = _Held(blob)
        if self._closed or not 0 <= offset - blob.start <= _SKIP or blob.size not in {None, self.size}:
            held.close()
            if self._closed:
                raise Unreachable("nobody wants it any more")
            if blob.start == 0:
                raise NotInParts
            raise Unreachable(f"{self._origin.url} sent another part of {self._digest} than it was asked for")
        self._held = held
        held.start()

    def fileno(self) -> int | None:
        """See :class:`~regd.storage.driver.Content`."""
        return None

    async def reach(self, offset: int) -> int:
        """See :class:`~regd.storage.driver.Content`."""
        if offset >= self._end:
            return self.size
        for tries_left in reversed(range(_TRIES)):
            held = await self._at(offset)
            if held is not None:
                return min(self._end, held.offset + held.size)
            if not tries_left or self._closed:
                break
            try:
                await self.begin(offset)
            except (RemoteError, NotInParts) as error:
                self._broke_off(str(error) or "it sends all of it now")
        raise Interrupted(f"{self._origin.url} broke off")

    async def read(self, offset: int, length: int) -> bytes:
        """See :class:`~regd.storage.driver.Content`."""
        end = await self.reach(offset)
        held = self._held
        if held is None or offset >= self._end or end <= offset:
            return b""
        return held.take(min(length, end - offset))

    def close(self) -> None:
        """See :class:`~regd.storage.driver.Content`."""
        self._closed = True
        self._drop()

    async def _at(self, offset: int) -> _Held | None:
        """What holds at least a byte at ``offset``, and that first; ``None`` when the upstream has to be asked."""
        held = self._held
        if held is None or not 0 <= offset - held.offset <= held.size + _SKIP:
            return None
        while True:
            while held.offset < offset and held.chunks:
                held.take(offset - held.offset)
            if held.chunks:
                return held
            if held.ended:
                if held.failed:
                    self._broke_off(held.why())
                return None
            await held.news()
            if self._held is not held:
                return None

    def _broke_off(self, why: str) -> None:
        if not self._closed:
            self._log.warn("{upstream} broke off sending part of {digest}: {why}", upstream=self._origin.url, digest=self._digest, why=why)

    def _drop(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            held.close()


async def _awaited(waiting: Any) -> None:
    await waiting
