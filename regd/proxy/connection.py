"""
One connection to an upstream: requests out, one at a time, and their answers in, both as streams with backpressure.

The body of an answer is a :class:`~regd.web.body.RequestBody`, as that of a client's request is, for it is the same thing from the other
side: whoever wants it starts it and pauses it, has the kernel relay it, or lends its socket to a thread.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IConsumer, IDelayedCall
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.http import _MalformedChunkedDataError
from zope.interface import implementer

from regd.config import Timeouts
from regd.proxy.answers import CHUNKED, LARGEST_HEAD, UNTIL_CLOSE, Head, NotHTTP, parse_head
from regd.web.body import RequestBody
from regd.web.chunked import Chunked
from regd.web.framing import BodyDecoder, FixedLength, Framing
from regd.web.transport import SendingTransport

__all__ = ["Answer", "Lost", "UpstreamConnection"]

#: A connection that nobody uses is closed after so many seconds. Servers close theirs after a minute and more, and a request that goes out
#: in the moment when the other end closes is lost, if it is not one that may be repeated.
IDLE: Final = 30.0

#: How long a client that uploads may be silent, in seconds; as in ``regd/web/request.py``, which cannot see it while the kernel relays.
_CLIENT_SILENT: Final = 900.0

#: How many provisional answers (1xx) may come before the answer.
_MOST_PROVISIONAL: Final = 16


class Lost(Exception):
    """
    There will be no answer, or no more of it; ``str()`` says why, of the upstream.

    :ivar late: whether that is because it took too long.
    :ivar by_client: whether it is the client who took too long.
    """

    def __init__(self, why: str, *, late: bool = False, by_client: bool = False) -> None:
        super().__init__(why)
        self.late = late
        self.by_client = by_client


@dataclass(frozen=True, slots=True)
class Answer:
    """
    :ivar body: fails with :class:`~regd.web.body.BodyAborted` when the upstream breaks off; its :attr:`Answer.head` says how long it is.
    """

    head: Head
    body: RequestBody


class _UntilClose:
    """A :class:`~regd.web.framing.Framing` of a body that ends with its connection (RFC 9112, section 6.3)."""

    malformed: _MalformedChunkedDataError | None = None
    ended = False
    rest = b""

    def wanted(self, room: int) -> int:
        """See :class:`~regd.web.framing.Framing`."""
        return room

    def decode(self, data: bytes | bytearray, end: int) -> list[memoryview]:
        """See :class:`~regd.web.framing.Framing`."""
        return [memoryview(data)[:end]] if end else []


@implementer(IConsumer)
class _Sender:
    """Takes the body of a request and sends it on."""

    def __init__(self, connection: UpstreamConnection, body: RequestBody) -> None:
        self._connection = connection
        self._body = body

    def registerProducer(self, producer: object, streaming: bool) -> None:  # noqa: N802 - IConsumer's name
        """The body is the transport's producer."""

    def unregisterProducer(self) -> None:  # noqa: N802 - IConsumer's name
        """See :meth:`registerProducer`."""

    def write(self, data: bytes) -> None:
        """Part of the body."""
        connection = self._connection
        connection.touch()
        if self._body.length is None:
            connection.transport.write(b"%x\r\n%b\r\n" % (len(data), data))
            return
        connection.transport.write(data)
        self._body.relay_to(connection.transport, connection.touch)


class UpstreamConnection(Protocol):
    """
    :param timeouts: how long what may take.
    :param clock: ``Any``: a reactor is typed as the union of what reactors may be.
    :param free: called when the connection can take another request.
    :param gone: called when it is lost.
    """

    # A Twisted transport has methods that its interface lacks.
    transport: Any

    def __init__(
        self,
        timeouts: Timeouts,
        clock: Any,
        free: Callable[[UpstreamConnection], None],
        gone: Callable[[UpstreamConnection], None],
    ) -> None:
        self._timeouts = timeouts
        self._clock = clock
        self._free = free
        self._gone = gone
        self._timer: IDelayedCall | None = None
        self._touched = 0.0
        #: Of the request under way: its method, who waits for the answer, its body while that is being sent.
        self._method = b""
        self._answered: Deferred[Answer] | None = None
        self._sending: RequestBody | None = None
        #: Of the answer: what has come of its head, and its body, until that has ended.
        self._buffer = b""
        self._provisional = 0
        self._body: RequestBody | None = None
        self._decoder: BodyDecoder | None = None
        self._busy = False
        self._reusable = True
        #: Whether less than all of the request was sent.
        self._cut = False
        self._period = min(timeouts.read, timeouts.write, IDLE)
        self._why: Lost | None = None

    @property
    def ended(self) -> bool:
        """Whether it has no request."""
        return not self._busy

    @property
    def why(self) -> Lost | None:
        """Why it was aborted, if it was."""
        return self._why

    # What the pool wants to know and to have

    def is_alive(self) -> bool:
        """Whether an idle connection can take a request, as far as anybody here can know."""
        raw = self._raw()
        if self._busy or raw.disconnected or raw.disconnecting:
            return False
        try:
            # TLS has things to say of its own; plain HTTP has not.
            return bool(raw.socket.recv(1, socket.MSG_PEEK)) and raw is not self.transport
        except BlockingIOError:
            return True
        except OSError:
            return False

    def release(self) -> None:
        """It is not needed after all."""
        self._free(self)

    def close(self) -> None:
        """End a connection without a request."""
        if self._raw() is self.transport:
            self.transport.loseConnection()
        else:
            # Good manners of TLS would have us wait until the other end says good-bye, too.
            self.transport.abortConnection()

    def abort(self, why: Lost | None = None) -> None:
        """End it at once, in the midst of whatever. May be called again."""
        self._why = self._why or why
        self.transport.abortConnection()

    # A request

    def ask(self, method: bytes, head: bytes, body: RequestBody | None) -> Deferred[Answer]:
        """
        Send a request.

        :param head: all of it; it says how long the body is.
        :param body: sent in chunks where its length is not known; ``None`` where there is none.
        :returns: fires when the head of the answer is there, maybe before all of the request has been sent; fails with :class:`Lost`.
        """
        assert not self._busy, "one request at a time"
        self._busy, self._reusable, self._method = True, True, method
        self._buffer, self._provisional = b"", 0
        answered = self._answered = Deferred()
        self.touch()
        self.transport.write(head)
        if body is not None:
            self._send(body)
        return answered

    def touch(self) -> None:
        """Something has moved."""
        self._touched = self._clock.seconds()
        if self._timer is None:
            self._timer = self._clock.callLater(self._period, self._check)

    def _send(self, body: RequestBody) -> None:
        self._sending = body
        self.transport.registerProducer(body, True)
        sent = body.startProducing(_Sender(self, body))
        sent.addCallbacks(lambda _: self._sent(body), lambda _: self._stopped(body))

    def _sent(self, body: RequestBody) -> None:
        self._end_sending()
        if body.length is None:
            self.transport.write(b"0\r\n\r\n")
        self.touch()
        self._settle()

    def _stopped(self, body: RequestBody) -> None:
        """The rest of the body will not come, or is not taken; an answer may still come."""
        self._end_sending()
        self._cut = True
        self._settle()

    def _end_sending(self) -> None:
        self._sending = None
        if not self._raw().disconnected:
            self.transport.unregisterProducer()

    # The answer

    def dataReceived(self, data: bytes) -> None:  # noqa: N802 - Twisted's name
        """Bytes from the upstream."""
        self._touched = self._clock.seconds()
        if self._decoder is not None:
            self._decode(data)
        elif self._answered is None:
            # Nobody has asked for anything.
            self.abort()
        else:
            self._buffer = self._buffer + data if self._buffer else data
            try:
                self._read_head()
            except NotHTTP as error:
                self.abort(Lost(f"what it sent is no answer: {error}"))

    def _read_head(self) -> None:
        """
        :raises NotHTTP: when what has come is no answer.
        """
        while True:
            begin = self._buffer[:7]
            if begin != b"HTTP/1."[: len(begin)]:
                raise NotHTTP(f"it begins with {begin!r}")
            end = self._buffer.find(b"\r\n\r\n", 0, LARGEST_HEAD)
            if end < 0:
                if len(self._buffer) >= LARGEST_HEAD:
                    raise NotHTTP(f"its header is larger than {LARGEST_HEAD} bytes")
                return
            head = parse_head(self._buffer[:end], self._method)
            rest, self._buffer = self._buffer[end + 4 :], b""
            if head.status >= 200:
                break
            self._provisional += 1
            if head.status == 101 or self._provisional > _MOST_PROVISIONAL:
                raise NotHTTP(f"{self._provisional} provisional answers, the last one with {head.status}")
            if not rest:
                return
            self._buffer = rest
        self._begin(head, rest)

    def _begin(self, head: Head, rest: bytes) -> None:
        length = None if head.length in {CHUNKED, UNTIL_CLOSE} else head.length
        self._reusable = self._reusable and head.persistent
        framing: Framing = Chunked()
        if head.length != CHUNKED:
            framing = _UntilClose() if length is None else FixedLength(length)
        body = self._body = RequestBody(length, self.transport, _nothing, "the upstream")
        decoder = self._decoder = BodyDecoder(framing, body.feed, self._ended)
        body.may_lend(framing, lambda: self._decode(b"") if self._decoder is decoder else None)
        if rest and framing.ended:
            # There is no body, and this is none.
            self._reusable = False
        self._decode(rest)
        if self._sending is not None and head.status >= 300:
            # It has made up its mind, and the rest would be sent for nothing.
            self._sending.stopProducing()
        answered, self._answered = self._answered, None
        # First, so that whoever gets a whole answer finds the connection at rest.
        self._settle()
        if answered is not None:
            answered.callback(Answer(head, body))

    def _decode(self, data: bytes) -> None:
        assert self._decoder is not None
        try:
            self._decoder.dataReceived(data)
        except _MalformedChunkedDataError as error:
            self.abort(Lost(f"what it sent is not chunked as it says: {error}"))

    def _ended(self, rest: bytes) -> None:
        """The last byte of the answer has come."""
        if rest:
            # More than it said that there would be: nobody gets that.
            self._reusable = False
        self._decoder = None
        body, self._body = self._body, None
        assert body is not None
        if self._sending is not None:
            self._sending.stopProducing()
        self.touch()
        body.end()
        self._settle()

    def _settle(self) -> None:
        """Whether request and answer have ended."""
        if not self._busy or self._sending is not None or self._answered is not None or self._body is not None or self._decoder is not None:
            return
        self._busy = False
        if self._cut:
            self.transport.abortConnection()
            return
        if not self._reusable:
            self.close()
            return
        # The body may have paused it with its last bytes.
        self.transport.resumeProducing()
        self._free(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: N802 - Twisted's name
        """It is gone."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._gone(self)
        self._busy = False
        self._reusable = False
        body, self._body, decoder, self._decoder = self._body, None, self._decoder, None
        if body is not None and decoder is not None:
            if isinstance(decoder.framing, _UntilClose) and reason.check(ConnectionDone) is not None and self._why is None:
                body.end()
            else:
                body.fail(Failure(self._why) if self._why is not None else reason)
        answered, self._answered = self._answered, None
        if self._sending is not None:
            self._sending.stopProducing()
        if answered is not None:
            answered.errback(self._why or Lost(f"it closed the connection without an answer ({reason.getErrorMessage()})"))

    # Time

    def _check(self) -> None:
        self._timer = None
        limit, lost = self._limit()
        left = self._touched + limit - self._clock.seconds()
        if self._body is not None and self._body.lent:
            # A thread reads, and gives it back as soon as nothing comes.
            self.touch()
        elif left > 0:
            # Whatever it waits for then, that is noticed soon enough.
            self._timer = self._clock.callLater(min(left, self._period), self._check)
        elif self._busy:
            self.abort(lost)
        else:
            self.close()

    def _limit(self) -> tuple[float, Lost]:
        """How long nothing may move now, in seconds, and what it means when nothing does."""
        if not self._busy:
            return IDLE, Lost("nobody used it")
        body, sending, timeouts = self._body, self._sending, self._timeouts
        if body is not None and (body.relay.waits_for_sink if body.relay is not None else body.paused):
            return timeouts.write, Lost(f"the client took nothing of its answer for {timeouts.write:g} s", late=True, by_client=True)
        if sending is not None:
            if sending.relay.waits_for_sink if sending.relay is not None else self._raw().unsent:
                return timeouts.write, Lost(f"it took nothing for {timeouts.write:g} s", late=True)
            return _CLIENT_SILENT, Lost(f"the client sent nothing for {_CLIENT_SILENT:g} s", late=True, by_client=True)
        return timeouts.read, Lost(f"it said nothing for {timeouts.read:g} s", late=True)

    def _raw(self) -> Any:
        """The transport that has the socket: this one, or that below TLS."""
        return self.transport if isinstance(self.transport, SendingTransport) else self.transport.transport


def _nothing() -> None:
    """Nobody waits for "100 Continue"."""
