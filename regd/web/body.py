"""
A request's body as a stream.

``twisted.web`` gathers a body before anybody sees the request. Here a handler is called when the headers are in, and asks for the body when
it wants it; until then, and whenever its consumer is behind, the socket is not read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IPushProducer
from twisted.python.failure import Failure
from twisted.web.iweb import IBodyProducer
from zope.interface import implementer

from regd.web.framing import FixedLength, Framing
from regd.web.relay import Relay
from regd.web.transport import Lease, lend, relay, take_back

__all__ = ["BodyAborted", "BodyTooLarge", "Pausable", "RequestBody", "collect"]


class BodyAborted(Exception):
    """The body ended before its end: the client went away, or its consumer gave up."""


class BodyTooLarge(Exception):
    """More than was to be collected."""


class Pausable(Protocol):
    """What a body needs of a socket."""

    def pauseProducing(self) -> None:  # noqa: N802 - IPushProducer's name
        """Read no more for now."""

    def resumeProducing(self) -> None:  # noqa: N802 - IPushProducer's name
        """Read on."""


class SocketSource:
    """
    The rest of a body, read by a thread; a :class:`~regd.storage.driver.Source`.

    :ivar received: bytes of content that were read.
    """

    def __init__(self, lease: Lease, framing: Framing) -> None:
        self.lease = lease
        self.received = 0
        self._framing = framing

    def read(self, buffer: bytearray) -> Sequence[memoryview]:
        """See :class:`~regd.storage.driver.Source`."""
        framing = self._framing
        room = memoryview(buffer)
        while not framing.ended and framing.malformed is None:
            count = self.lease.receive_into(room[: framing.wanted(len(room))])
            if not count:
                break
            content = framing.decode(buffer, count)
            if content:
                self.received += sum(map(len, content))
                return content
        return ()


@implementer(IBodyProducer, IPushProducer)
class RequestBody:
    """
    The body of one request. The channel feeds it; a handler starts it, once, or leaves it.

    :ivar length: bytes to come by ``Content-Length``, or ``None`` for a chunked body.
    :ivar received: bytes that have come from the socket.
    :ivar ended: whether all of it has.
    :param source: the socket.
    :param on_start: called when somebody wants the body, before the first byte is asked for: the time to say ``100 Continue``.
    :param whose: who sends it, for messages.
    """

    def __init__(self, length: int | None, source: Pausable, on_start: Callable[[], None], whose: str = "the client") -> None:
        self._whose = whose
        self.length = length
        self.received = 0
        self.ended = False
        self.started = False
        self._source = source
        self._on_start = on_start
        self._held: deque[bytes] = deque()
        self._consumer: IConsumer | None = None
        self._done: Deferred[None] | None = None
        self._paused = False
        self._discarding = False
        self._failure: Failure | None = None
        self._framing: Framing | None = None
        self._returned: Callable[[], None] = lambda: None
        self._lent: SocketSource | None = None
        self._relay: Relay | None = None

    # The handler's side.

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:  # noqa: N802 - IBodyProducer's name
        """
        Feed ``consumer`` the whole body.

        :returns: fires with ``None`` at the end; fails with :class:`BodyAborted` when the client goes away or :meth:`stopProducing` is
            called, and with whatever ``consumer`` raises.
        """
        assert not self.started, "a body can be had once"
        self.started = True
        self._consumer = consumer
        done = self._done = Deferred()
        if self._failure is not None:
            self.fail(self._failure)
        else:
            if not self.ended:
                self._on_start()
            self.resumeProducing()
        return done

    def pauseProducing(self) -> None:  # noqa: N802 - IPushProducer's name
        """Feed nothing until resumed; the client feels it."""
        if not self._paused and not self._discarding:
            self._paused = True
            self._pause_source()

    def resumeProducing(self) -> None:  # noqa: N802 - IPushProducer's name
        """Go on."""
        self._paused = False
        while self._held and not self._paused:
            self._deliver(self._held.popleft())
        if self._paused or self._done is None:
            return
        if self.ended:
            self._finish(None)
        else:
            self._source.resumeProducing()

    def stopProducing(self) -> None:  # noqa: N802 - IBodyProducer's name
        """Feed nothing any more; what still comes is dropped."""
        if self._done is not None:
            self._finish(Failure(BodyAborted("its consumer gave up")))

    def lend(self) -> SocketSource | None:
        """
        See :class:`~regd.storage.driver.Lender`: let a thread read the socket from where this body stands. ``None`` when the bytes that
        follow have come already, or nobody wants them, or the transport cannot.
        """
        framing = self._framing
        if framing is None or framing.ended or framing.malformed is not None or not self._may_part():
            return None
        lease = lend(self._source)
        if lease is not None:
            self._lent = SocketSource(lease, framing)
        return self._lent

    def take_back(self, source: SocketSource) -> None:
        """See :class:`~regd.storage.driver.Lender`."""
        self._lent = None
        self.received += source.received
        take_back(self._source, source.lease)
        self._returned()
        # Also when all of it has come: so that a client that leaves before it is answered is noticed.
        self._source.resumeProducing()

    def relay_to(self, sink: object, progress: Callable[[], None]) -> int:
        """
        Let the kernel move the rest of a body whose length is known, from where this body stands, to another transport; what has been
        delivered has to have been written there. The Deferred of :meth:`startProducing` fires when all of it has been taken, and fails with
        :class:`BodyAborted` when the sink takes no more.

        :param sink: a transport.
        :param progress: called whenever something has moved.
        :returns: how many bytes that will be; 0 where that is not possible, or not worthwhile, and this body goes on to be delivered.
        """
        framing = self._framing
        if not isinstance(framing, FixedLength) or not self._may_part():
            return 0
        length = framing.left
        self._relay = relay(self._source, sink, length, progress, self._relayed)
        return length if self._relay is not None else 0

    @property
    def lent(self) -> bool:
        """Whether a thread reads it."""
        return self._lent is not None

    def take_whole(self) -> bytes | None:
        """All of a body that has ended and that nobody has started: without a consumer, at once. ``None`` for others."""
        if not self.ended or self.started:
            return None
        self.started = True
        held, self._held = self._held, deque()
        return held[0] if len(held) == 1 else b"".join(held)

    @property
    def relay(self) -> Relay | None:
        """What moves the rest of this body, if somebody does."""
        return self._relay

    def _may_part(self) -> bool:
        """Whether somebody else may read the socket from here on."""
        if self._lent is not None or self._relay is not None or self._held:
            return False
        return not (self._paused or self._discarding or self._done is None)

    def _relayed(self, complete: bool) -> None:
        moved = self._end_relay()
        if not complete:
            self._finish(Failure(BodyAborted("nobody takes the rest of it")))
        if moved:
            self._returned()
        self._source.resumeProducing()

    def _end_relay(self) -> int:
        """
        :returns: how many bytes have been moved.
        """
        relaying, self._relay = self._relay, None
        if relaying is None:
            return 0
        relaying.stop()
        self.received += relaying.received
        assert isinstance(self._framing, FixedLength)
        self._framing.skip(relaying.received)
        return relaying.received

    # The channel's side.

    def may_lend(self, framing: Framing, returned: Callable[[], None]) -> None:
        """
        :param framing: how the body is delimited; whoever reads the socket feeds it.
        :param returned: called when a thread has given the socket back, to deal with what it came to.
        """
        self._framing = framing
        self._returned = returned

    @property
    def paused(self) -> bool:
        """Whether the event loop does not read the socket, because this body's consumer is behind or reads it by itself."""
        if self._lent is not None or self._relay is not None:
            return True
        return not self._discarding and not self.ended and (self._paused or not self.started)

    def feed(self, data: bytes) -> None:
        """Bytes from the socket. They may also come while paused: one read was under way."""
        self.received += len(data)
        if self._discarding:
            return
        if self.started and not self._paused and not self._held:
            self._deliver(data)
        else:
            self._held.append(data)
            # Again, although it may be paused: the channel resumes its transport when the answer before this one has drained.
            self._pause_source()

    def end(self) -> None:
        """The last byte has been fed."""
        self.ended = True
        if self._done is not None and not self._paused and not self._held:
            self._finish(None)

    def fail(self, reason: Failure) -> None:
        """The connection is lost."""
        if not self.ended:
            self._failure = self._failure or Failure(BodyAborted(f"{self._whose} went away: {reason.getErrorMessage()}"))
            # What has arrived is the consumer's, however far behind it is: an upload goes on from there.
            while self._held and self._consumer is not None:
                self._deliver(self._held.popleft())
            if self._done is not None:
                self._finish(self._failure)

    def discard(self) -> None:
        """The request is answered: read what is left of the body, and drop it."""
        self._discarding = True
        self._held.clear()
        if self._lent is not None:
            self._lent.lease.stop()
        if self._relay is not None and self._end_relay():
            self._returned()
        if not self.ended:
            self._source.resumeProducing()

    def _pause_source(self) -> None:
        # A socket that is not read does not show that its peer has gone, but its buffer does hold at most a few hundred kilobytes.
        if not self.ended:
            self._source.pauseProducing()

    def _deliver(self, data: bytes) -> None:
        if self._consumer is None:
            return
        try:
            self._consumer.write(data)
        except Exception:  # noqa: BLE001 - whatever a consumer raises is its handler's to know, by way of the Deferred
            self._finish(Failure())

    def _finish(self, failure: Failure | None) -> None:
        done, self._done, self._consumer = self._done, None, None
        if failure is not None:
            self.discard()
        if done is not None:
            if failure is None:
                done.callback(None)
            else:
                done.errback(failure)


@implementer(IConsumer)
class _Collector:
    """Keeps what it is fed, up to a limit."""

    def __init__(self, limit: int) -> None:
        self._room = limit
        self.chunks: list[bytes] = []

    def registerProducer(self, producer: object, streaming: bool) -> None:  # noqa: N802 - IConsumer's name
        """There is no need to pause anybody: the limit is small."""

    def unregisterProducer(self) -> None:  # noqa: N802 - IConsumer's name
        """See :meth:`registerProducer`."""

    def write(self, data: bytes) -> None:
        """
        :raises BodyTooLarge: above the limit.
        """
        self._room -= len(data)
        if self._room < 0:
            raise BodyTooLarge
        self.chunks.append(data)


async def collect(body: RequestBody, limit: int) -> bytes:
    """
    A small body, whole. Not for blobs.

    :param limit: the most bytes that are taken.
    :raises BodyTooLarge: above it, before any of the body is read where its length is known.
    :raises BodyAborted: when the client goes away.
    """
    if body.length is not None and body.length > limit:
        raise BodyTooLarge
    collector = _Collector(limit)
    await body.startProducing(collector)
    return b"".join(collector.chunks)
