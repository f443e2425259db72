"""
Requests that are handled when their headers are in, and the channel and site that make them.

``twisted.web`` has no public way to see a request before its body (26.10 included), so this leans on names of ``HTTPChannel`` that are
not public: ``_command``, ``_path``, ``_version``, ``_send100Continue``, ``_respondToBadRequestAndDisconnect``,
``_transferDecoder``, ``_finishRequestBody``, and ``_disconnected`` of ``Request``.
``tests/web/test_twisted_private.py`` pins them and says what each is needed for.

How a request runs, beside the stock order::

    headers in     allHeadersReceived   -> body made, request processed: a handler runs
                                           (stock: 100-continue is sent, nothing else happens)
    body arrives   handleContentChunk   -> body.feed                      (stock: into a file)
                   or a thread reads it -> _body_returned
    body ended     allContentReceived   -> requestReceived -> body.end    (stock: request processed)
    answered       requestDone          -> the next request, if the body has ended; else the rest of the body is read and dropped

A handler may answer before the body has come. A rest of up to :data:`DRAIN_LIMIT` bytes is read so that the connection can go on; where
more is to come, or nobody knows how much, the answer says ``Connection: close`` and the connection is closed when the client has had the
time to read it (RFC 9112, section 9.6).
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any, AnyStr, Final
from urllib.parse import parse_qs

from twisted.internet.interfaces import IAddress, IDelayedCall
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.server import NOT_DONE_YET

from regd.asked import ASKED, FIELD, Asked, make_id
from regd.errors import Unknown
from regd.spans import Span
from regd.web.body import RequestBody
from regd.web.chunked import Chunked
from regd.web.framing import BodyDecoder, FixedLength
from regd.web.prepared import PreparedRequest
from regd.web.strict import envelope_bytes
from regd.web.waiting import WaitingChannel

__all__ = ["DRAIN_LIMIT", "StreamingChannel", "StreamingRequest"]

#: How much of an unwanted body is read, in bytes, to save the connection.
DRAIN_LIMIT: Final = 1024 * 1024

#: How long a client that was refused may go on sending, in seconds, before the connection is cut.
LINGER: Final = 5

#: How a connection begins whose client wants TLS (RFC 8446, section 5.1).
_TLS_HANDSHAKE: Final = 0x16

#: A request target in absolute form: the authority, and the rest.
_ABSOLUTE: Final = re.compile(rb"https?://([^/?]+)(.*)", re.IGNORECASE)


def _arguments(query: bytes) -> dict[bytes, list[bytes]]:
    """The parameters of a query, percent-decoded. ``parse_qs`` itself refuses bytes that are not ASCII, so it is given characters."""
    found = parse_qs(query.decode("latin-1"), keep_blank_values=True, encoding="latin-1")
    return {name.encode("latin-1"): [value.encode("latin-1") for value in values] for name, values in found.items()}


class StreamingRequest(PreparedRequest):
    """
    A request whose body is :attr:`body`, not ``content``, which stays ``None``.

    :ivar begun: whether its head is in.
    :ivar began: when its head was in, in seconds of a clock that only goes on.
    :ivar id: what it is called in logs, in its answer, and by servers that are asked for its sake; see :mod:`regd.asked`.
    :ivar route: the name of the endpoint that answers, as the routes call it; empty where none does.
    :ivar span: what traces it; ``None`` where nothing is traced.
    :ivar user_name: that of who asks, once they have shown it; empty before, and for those who have none.
    """

    site: Any

    #: The body, if there is one or somebody has asked for it; and its length, -1 while the headers are not in.
    _body: RequestBody | None = None
    _length: int | None = -1
    begun = False
    began = 0.0
    route = ""
    span: Span | None = None
    user_name = ""
    _log = Logger()

    #: Called when the connection was lost before the answer was complete; for one who answers.
    on_lost: Callable[[], None] = staticmethod(lambda: None)

    @property
    def body(self) -> RequestBody:
        """The body as a stream; of length 0 where there is none."""
        if self._body is None:
            # Who asks for a body that is none gets one that has ended. Few do.
            self._body = RequestBody(0, self.transport, self._send_continue)
            self._body.end()
        return self._body

    @property
    def bodiless(self) -> bool:
        """Whether it has no body, or, as long as its headers are not in, none yet."""
        return self._length in {0, -1}

    @property
    def received(self) -> int:
        """How many bytes of the body have come."""
        return 0 if self._body is None else self._body.received

    @property
    def ended(self) -> bool:
        """Whether all of the body has come."""
        return self._length == 0 or (self._body is not None and self._body.ended)

    @property
    def client_gone(self) -> bool:
        """Whether the connection was lost before the answer was complete."""
        return bool(self._disconnected)

    def gotLength(self, length: int | None) -> None:  # noqa: N802 - Twisted's name
        """The headers are in. Nothing is kept of what ``twisted.web`` would keep a body in."""
        self._length = length
        if length != 0:
            self._body = RequestBody(length, self.transport, self._send_continue)

    def handleContentChunk(self, data: bytes) -> None:  # noqa: N802 - Twisted's name
        """Part of the body has come."""
        self.body.feed(data)

    def begin(self, command: bytes, path: bytes, version: bytes) -> None:
        """Handle the request: what ``requestReceived`` does, without looking for form fields in a body."""
        self.begun = True
        self.began = time.perf_counter()
        self.channel.head_since = None
        self.method, self.uri, self.clientproto = command, path, version
        absolute = None if path.startswith(b"/") else _ABSOLUTE.match(path)
        if absolute is not None:
            # RFC 9112, section 3.2.2: a server takes this form too, and then the Host field does not count.
            self.requestHeaders.setRawHeaders(b"Host", [absolute[1]])
            path = absolute[2] or b"/"
        if path == b"*" and command != b"OPTIONS":
            # RFC 9112, section 3.2.4: only OPTIONS is asked of the server as a whole. So this is a path, of nothing.
            path = b"/*"
        self.path, _, query = path.partition(b"?")
        self.args = _arguments(query) if query else {}
        said = self.requestHeaders._rawHeaders.get(FIELD)
        self.id = make_id() if said is None else self.said_id(said) or make_id()
        before = ASKED.set(Asked(self.id, command, self.uri, self.client, self.requestHeaders))
        try:
            self.process()
        finally:
            ASKED.reset(before)

    def process(self) -> None:
        """Have the request answered: what ``twisted.web`` does, for a site of one resource that answers everything."""
        self.site = self.channel.site
        if self.path == b"*":
            self._handleStar()
            return
        try:
            if self.site.resource.render(self) is not NOT_DONE_YET:
                raise TypeError("the resource of the site does not answer by itself")
        except Exception:  # noqa: BLE001 - whatever it is, the client is answered
            self.processingFailed(Failure())

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:  # noqa: N802 - Twisted's name
        """The whole of the request is in."""
        if not self.begun:
            self.begin(command, path, version)
        else:
            self.body.end()

    def processingFailed(self, reason: Failure) -> None:  # noqa: N802 - Twisted's name
        """A fault of regd's own, outside of any handler. Stock would answer in HTML."""
        self._log.failure("a request could not be processed", failure=reason)
        if self.startedWriting:
            self.loseConnection()
            return
        self.unprepare()
        body = envelope_bytes(Unknown())
        self.setResponseCode(500)
        self.setHeader("Content-Type", "application/json")
        self.setHeader("Content-Length", str(len(body)))
        self.write(body)
        self.finish()

    def connectionLost(self, reason: Failure) -> None:  # noqa: N802 - Twisted's name
        """The client is gone."""
        site, refused = self.site, not self.finished and self.channel.refused
        super().connectionLost(reason)
        if self._body is not None:
            self._body.fail(reason)
        self.on_lost()
        if self.begun and site is not None and not self.finished:
            if refused and not self.startedWriting:
                # With 400: its body was not what it should be.
                site.log(self)
            else:
                site.lost(self)

    def header_values(self, name: str) -> list[str]:
        """All values of a header field, in order; what is not UTF-8 in them is replaced, and so matches no grammar."""
        values = self.requestHeaders.getRawHeaders(name.encode("ascii"))
        return [value.decode("utf-8", "replace") for value in values] if values else []

    def getHeader(self, key: AnyStr) -> AnyStr | None:  # noqa: N802 - Twisted's name
        """The last value of a header field. ``twisted.web`` fails on one that is not UTF-8."""
        if isinstance(key, bytes):
            return super().getHeader(key)
        values = self.header_values(key)
        return values[-1] if values else None

    def getRequestHostname(self) -> bytes:  # noqa: N802 - Twisted's name
        """
        A name that routing can live with. Routes do not look at the host, and the router fails on one that is not a proper domain name,
        which a client may well send.
        """
        return b"localhost"

    def _send_continue(self) -> None:
        if self.channel is not None:
            self.channel.send_continue()


class StreamingChannel(WaitingChannel):
    """One connection, speaking HTTP/1.1."""

    # Names without a type in Twisted, or with one that says less than is so here.
    transport: Any
    factory: Any

    requestFactory: Any = StreamingRequest  # noqa: N815 - Twisted's name
    abortTimeout = LINGER  # noqa: N815 - Twisted's name

    _host: IAddress
    _peer: IAddress
    #: Whether the client waits for "100 Continue" before it sends the body.
    _continue_awaited = False
    #: The request whose body is dropped because it has been answered, and how much of it had come by then.
    _draining: StreamingRequest | None = None
    _drained_from = 0
    _lingering: IDelayedCall | None = None
    #: Who has shown who they are on this connection, for the guard: itself, what was said, and the user.
    known: Any = None

    def connectionMade(self) -> None:  # noqa: N802 - Twisted's name
        """A client has connected."""
        super().connectionMade()
        self._host, self._peer = self.transport.getHost(), self.transport.getPeer()
        self.limit(self.factory.limits)
        self.factory.channel_made(self)

    def getHost(self) -> IAddress:  # noqa: N802 - Twisted's name
        """Our end, asked of the system once; each request wants it twice."""
        return self._host

    def getPeer(self) -> IAddress:  # noqa: N802 - Twisted's name
        """The client's end, likewise."""
        return self._peer

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: N802 - Twisted's name
        """It is gone."""
        if self._lingering is not None and self._lingering.active():
            self._lingering.cancel()
        super().connectionLost(reason)
        self.factory.channel_lost(self)

    def dataReceived(self, data: bytes) -> None:  # noqa: N802 - Twisted's name
        """Bytes from the client."""
        if not self._spoken:
            self._spoken = True
            if data[0] == _TLS_HANDSHAKE:
                # docker, podman and skopeo try TLS first where plain HTTP is allowed. Waiting for a line that never ends would cost each
                # command their time-out for handshakes, ten seconds.
                self._respondToBadRequestAndDisconnect()
        super().dataReceived(data)

    def allHeadersReceived(self) -> None:  # noqa: N802 - Twisted's name
        """Hand the request over now, where there is a body to wait for."""
        request = self.requests[-1]
        if not self.take_fields(request):
            return
        self.persistent = self.checkPersistence(request, self._version) and not self._is_last(request)
        request.gotLength(self.length)
        if self.length == 0:
            return
        framing = Chunked() if self.length is None else FixedLength(self.length)
        decoder = BodyDecoder(framing, request.handleContentChunk, self._finishRequestBody)
        self._transferDecoder = decoder
        request.body.may_lend(framing, lambda: self._body_returned(decoder))
        expect = request.requestHeaders.getRawHeaders(b"Expect")
        self._continue_awaited = bool(expect) and expect[0].lower() == b"100-continue" and self._version == b"HTTP/1.1"
        self.setTimeout(self.factory.patience.read)
        request.begin(self._command, self._path, self._version)

    @property
    def certified(self) -> str:
        """Who the client's certificate says it is; empty without one that was verified."""
        return str(getattr(self.transport, "certified", ""))

    def send_continue(self) -> None:
        """Somebody wants the body."""
        if self._continue_awaited:
            self._continue_awaited = False
            self._send100Continue()

    def answering(self, request: StreamingRequest) -> None:
        """The answer to a request begins, maybe before its body has ended: say so when the connection cannot outlive it."""
        if request.ended:
            return
        body = request.body
        left = None if body.length is None else body.length - body.received
        if left is None or left > DRAIN_LIMIT or self._continue_awaited:
            # A client that waited for "100 Continue" may send the body now or never; the next bytes could be either.
            self.persistent = False
            request.responseHeaders.setRawHeaders(b"Connection", [b"close"])

    def requestDone(self, request: StreamingRequest) -> None:  # noqa: N802 - Twisted's name
        """A request is answered."""
        if request.ended:
            super().requestDone(request)
            return
        self._draining, self._drained_from = request, request.body.received
        request.body.discard()
        if not self.persistent:
            # Closing now, with bytes of the client's unread, would reset the connection and could take the answer with it.
            self.transport.loseWriteConnection()
            self._lingering = self.callLater(LINGER, self.transport.abortConnection)

    def allContentReceived(self) -> None:  # noqa: N802 - Twisted's name
        """The last byte of a request has come."""
        if self._refused:
            return
        request = self.requests[-1]
        if not request.bodiless:
            self.setTimeout(self.factory.timeOut)
        super().allContentReceived()
        if self._draining is request:
            self._draining = None
            super().requestDone(request)

    def rawDataReceived(self, data: bytes) -> None:  # noqa: N802 - Twisted's name
        """Part of a body; of one that nobody wants, up to a limit."""
        if self._draining is not None and self._draining.body.received - self._drained_from > DRAIN_LIMIT:
            self.transport.abortConnection()
            return
        super().rawDataReceived(data)

    def _body_returned(self, decoder: BodyDecoder) -> None:
        """A thread has read part of a body: as if that had been read here, go on from where it came to."""
        if self._transferDecoder is decoder and not self._refused:
            self.rawDataReceived(b"")

    def timeoutConnection(self) -> None:  # noqa: N802 - Twisted's name
        """Nothing came for too long; unless it is we who did not read."""
        request: StreamingRequest | None = self.requests[-1] if self.requests else None
        # One whose headers are not complete has no body yet.
        if request is not None and not request.bodiless and self._draining is None and request.body.paused:
            self.setTimeout(self.factory.patience.read)
            return
        super().timeoutConnection()
