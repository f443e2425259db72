"""One request, passed on: to whom, what becomes of its body and of the answer, and what the client is told where there is none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from twisted.internet.interfaces import IConsumer
from twisted.logger import Logger
from zope.interface import implementer

from regd.errors import BadGateway, GatewayTimeout, RegistryError, Unavailable
from regd.proxy.answers import CHUNKED, UNTIL_CLOSE, client_head, right_location
from regd.proxy.balance import Balancer
from regd.proxy.connection import Answer, Lost, UpstreamConnection
from regd.proxy.dialing import CannotConnect
from regd.proxy.fields import Origin, Passed, request_head, with_trace
from regd.proxy.upstream import UpstreamServer, upstream_span
from regd.spans import Span
from regd.web.body import BodyAborted, RequestBody
from regd.web.request import StreamingRequest

__all__ = ["Forwarding"]

#: Methods that may be repeated when nobody knows whether the first request was received (RFC 9110, section 9.2.2).
_IDEMPOTENT: Final = frozenset({b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"})

#: How long a client is asked to wait when no upstream is well, in seconds.
_RETRY_AFTER: Final = {"Retry-After": "5"}


@dataclass(frozen=True)
class Forwarding:
    """
    What requests of one route have in common.

    :ivar balancer: the upstreams.
    :ivar configured: ``http.headers``, for answers that do not have such fields.
    :ivar refuse: answers a request with an error.
    """

    balancer: Balancer
    configured: Mapping[bytes, Sequence[bytes]]
    refuse: Callable[[StreamingRequest, RegistryError], None]

    _log = Logger()

    async def forward(self, request: StreamingRequest, target: bytes, passed: Passed, origin: Origin) -> None:
        """
        Answer a request with what an upstream says.

        :param target: in origin form, as the client sent it.
        """
        body = None if request.bodiless else request.body
        try:
            server, connection, answer, span = await self._ask(request, target, passed, origin, body)
        except Lost as error:
            self._fail(request, error)
            return
        except BodyAborted:
            # The client has gone; the access log says so.
            return
        try:
            await self._answer(request, answer, connection, server, passed, origin)
        except BodyAborted as error:
            if not _gone(request):
                # The client must see that this is not all of it.
                why = connection.why or error
                self._log.warn("upstream {upstream} broke off its answer: {why}", upstream=str(server.upstream), why=why)
                request.channel.loseConnection()
        finally:
            server.busy -= 1
            request.on_lost = _nothing
            span.end("" if answer.body.ended else "BodyAborted")
            # Where it has ended, the connection may have the next request of this very client already.
            if not answer.body.ended:
                connection.abort()

    async def _ask(
        self, request: StreamingRequest, target: bytes, passed: Passed, origin: Origin, body: RequestBody | None
    ) -> tuple[UpstreamServer, UpstreamConnection, Answer, Span]:
        """
        :returns: one who answers, which counts as busy; and the span of this request.
        :raises Lost: when nobody does.
        :raises BodyAborted: when the client has gone.
        """
        tried: set[UpstreamServer] = set()
        problem = None
        while (server := self.balancer.choose(tried)) is not None:
            server.busy += 1
            connection: UpstreamConnection | None = None
            # Each attempt is a request of its own, to whoever looks at the traces of both ends.
            span = upstream_span(server.upstream, request.method, target)
            try:
                connection = server.at_hand()
                reused = connection is not None
                if connection is None:
                    connection = await server.connect()
                if _gone(request):
                    connection.release()
                    raise BodyAborted
                request.on_lost = connection.abort
                chunked = body is not None and body.length is None
                told = with_trace(passed, span.fields())
                head = request_head(request.method, target, told, origin, request.id, server.authority, chunked=chunked)
                answer = await connection.ask(request.method, head, body)
            except (CannotConnect, Lost) as error:
                server.busy -= 1
                span.end(type(error).__name__)
                request.on_lost = _nothing
                if _gone(request):
                    raise BodyAborted from None
                by_client = isinstance(error, Lost) and error.by_client
                sent = isinstance(error, Lost)
                if sent and reused and not error.late and _may_repeat(request, body):
                    # The other end closed a connection that it had left open for long enough: no fault of its own. Once more, on a new one.
                    continue
                problem = error if isinstance(error, Lost) else Lost(str(error), late=error.late)
                if not by_client:
                    server.failed(error)
                    tried.add(server)
                if by_client or (sent and not _may_repeat(request, body)):
                    raise problem from None
            except BaseException as error:
                server.busy -= 1
                span.end(type(error).__name__)
                if connection is not None and not connection.ended:
                    connection.abort()
                raise
            else:
                server.succeeded()
                span.tell({"http.response.status_code": answer.head.status})
                return server, connection, answer, span
        raise problem or _NobodyIsWell("none of its servers is well")

    async def _answer(
        self,
        request: StreamingRequest,
        answer: Answer,
        connection: UpstreamConnection,
        server: UpstreamServer,
        passed: Passed,
        origin: Origin,
    ) -> None:
        """
        :raises BodyAborted: when the upstream breaks off.
        """
        if _gone(request):
            return
        head = answer.head
        chunked = head.length in {CHUNKED, UNTIL_CLOSE} and request.clientproto == b"HTTP/1.1"
        location = head.get(b"location")
        if location is not None and passed.host is not None:
            location = right_location(location, server.authority, origin.scheme, passed.host)

        def make_head() -> bytes:
            said = request.responseHeaders.getRawHeaders(b"Connection")
            connection_field = said[0] if said else None
            return client_head(head, request.clientproto, connection_field, location, self.configured, chunked=chunked)

        request.prepare(head.status, make_head)
        whole = answer.body.take_whole()
        if whole is not None:
            if chunked:
                whole = b"%x\r\n%b\r\n0\r\n\r\n" % (len(whole), whole) if whole else b"0\r\n\r\n"
            request.write(whole)
        else:
            client = _Client(request, answer.body, connection, chunked)
            request.on_lost = client.lost
            request.registerProducer(answer.body, True)
            try:
                await answer.body.startProducing(client)
            finally:
                if not _gone(request):
                    client.count()
                    request.unregisterProducer()
            if _gone(request):
                return
            if chunked:
                request.write(b"0\r\n\r\n")
        request.finish()

    def _fail(self, request: StreamingRequest, error: Lost) -> None:
        if _gone(request):
            return
        if error.by_client:
            request.channel.loseConnection()
        elif isinstance(error, _NobodyIsWell):
            self.refuse(request, Unavailable("the registry behind this one is not well at the moment", headers=_RETRY_AFTER))
        elif error.late:
            self.refuse(request, GatewayTimeout())
        else:
            self.refuse(request, BadGateway())


class _NobodyIsWell(Lost):
    """No upstream is left that could be asked."""


@implementer(IConsumer)
class _Client:
    """Takes the body of an answer and sends it to the client."""

    def __init__(self, request: StreamingRequest, body: RequestBody, connection: UpstreamConnection, chunked: bool) -> None:
        self._request = request
        self._body = body
        self._connection = connection
        self._chunked = chunked

    def registerProducer(self, producer: object, streaming: bool) -> None:  # noqa: N802 - IConsumer's name
        """The body is the request's producer."""

    def unregisterProducer(self) -> None:  # noqa: N802 - IConsumer's name
        """See :meth:`registerProducer`."""

    def count(self) -> None:
        """For the access log: what the kernel has relayed, nobody else has counted."""
        if not self._chunked:
            self._request.sentLength = self._body.received

    def lost(self) -> None:
        """The client has gone."""
        self.count()
        self._connection.abort()

    def write(self, data: bytes) -> None:
        """Part of the body."""
        request = self._request
        if _gone(request):
            return
        if self._chunked:
            request.write(b"%x\r\n%b\r\n" % (len(data), data))
            return
        request.write(data)
        if request.method != b"HEAD":
            self._body.relay_to(request.channel.transport, self._connection.touch)


def _may_repeat(request: StreamingRequest, body: RequestBody | None) -> bool:
    """Whether a request that may have been received may be sent again: nothing of its body has gone out, and its method allows it."""
    return request.method in _IDEMPOTENT and (body is None or not body.started)


def _gone(request: StreamingRequest) -> bool:
    """Whether the client has; its transport knows before the request is told."""
    return request.client_gone or bool(request.channel.transport.disconnected)


def _nothing() -> None:
    """Nobody waits for an answer."""
