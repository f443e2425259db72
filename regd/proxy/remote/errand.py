"""Requests to a remote registry, without a body: sent, redirected, and answered with a stream. Nothing of what is sent is logged."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from twisted.internet.defer import Deferred, TimeoutError  # noqa: A004 - it is not Python's, and the one that is raised

from regd import __version__
from regd.asked import current_id
from regd.proxy.connection import Answer, Lost, UpstreamConnection
from regd.proxy.dialing import CannotConnect
from regd.proxy.remote.errors import Unreachable
from regd.proxy.remote.fields import parse_retry_after
from regd.proxy.remote.peers import Peer, Peers
from regd.proxy.remote.urls import URL, BadURL, join
from regd.proxy.upstream import upstream_span
from regd.spans import Span
from regd.web.body import BodyAborted, BodyTooLarge, collect

__all__ = ["AGENT", "Errand", "Reply", "ending"]

T = TypeVar("T")

#: What we call ourselves.
AGENT: Final = f"regd/{__version__}"

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTS: Final = 5

#: How much of a body that nobody wants is read, so that its connection can be used again, in bytes, and for how long, in seconds.
_DRAINED: Final = 64 * 1024
_DRAINING: Final = 5.0


@dataclass(slots=True, eq=False)
class Reply:
    """
    The head of an answer, and its body on the way. Ends with :meth:`close`, whatever happens.

    :ivar url: who has answered, at last.
    :ivar what: method and URL, for messages.
    :ivar own: whether everybody who was asked on the way is the registry itself, so that the answer is about our credentials.
    :ivar span: that of the request.
    """

    url: URL
    what: str
    own: bool
    peer: Peer
    connection: UpstreamConnection
    answer: Answer
    clock: Any
    patience: float
    span: Span
    _open: bool = True

    @property
    def status(self) -> int:
        """The status."""
        return self.answer.head.status

    def field(self, name: str) -> str | None:
        """The first field of a name in lower case."""
        found = self.answer.head.get(name.encode("ascii"))
        return None if found is None else found.decode("latin-1")

    def fields(self, name: str) -> list[str]:
        """All fields of a name in lower case."""
        wanted = name.encode("ascii")
        return [value.decode("latin-1") for found, value in self.answer.head.fields if found.lower() == wanted]

    async def read(self, limit: int) -> bytes:
        """
        The whole body, if it is small; and close.

        :raises Unreachable: when it is larger than ``limit`` bytes, breaks off, or takes longer than a read may.
        """
        body = self.answer.body
        try:
            whole = body.take_whole()
            if whole is None:
                whole = await Deferred.fromCoroutine(collect(body, limit)).addTimeout(self.patience, self.clock)
        except BodyTooLarge:
            whole = None
        except TimeoutError:
            raise Unreachable(f"{self.what}: its body took longer than {self.patience:g} s", late=True) from None
        except BodyAborted as error:
            late = self.connection.why is not None and self.connection.why.late
            raise Unreachable(f"{self.what}: {self.why() or error}", late=late) from None
        finally:
            self.close()
        if whole is None or len(whole) > limit:
            raise Unreachable(f"{self.what}: its body is larger than {limit} bytes")
        return whole

    async def drain(self) -> None:
        """Nobody wants the body."""
        self.patience = min(self.patience, _DRAINING)
        with suppress(Unreachable):
            await self.read(_DRAINED)

    def why(self) -> str:
        """Why the connection was cut, if it was."""
        return "" if self.connection.why is None else str(self.connection.why)

    def close(self) -> None:
        """Nothing more is wanted. May be called again."""
        if self._open:
            self._open = False
            self.peer.server.busy -= 1
            self.span.end("" if self.answer.body.ended else "BodyAborted")
            # Where it has ended, the connection may have another request already.
            if not self.answer.body.ended:
                self.connection.abort()


class Errand:
    """
    :param patience: how long the head of an answer may take, and a small body, in seconds.
    :param clock: ``Any``: a reactor is typed as the union of what reactors may be.
    """

    def __init__(self, peers: Peers, patience: float, clock: Any) -> None:
        self._peers = peers
        self._patience = patience
        self._clock = clock
        self._aborted = False

    def abort(self) -> None:
        """Send nothing any more."""
        self._aborted = True

    async def run(self, method: str, url: URL, fields: Mapping[str, str], authorization: str | None) -> Reply:
        """
        Send a request, and follow where it is redirected to: five times at most, never from ``https`` to ``http``, and without
        ``authorization`` from where another server is asked for the first time.

        :param method: ``GET`` or ``HEAD``.
        :returns: an answer that is no redirect, nor a wish to be asked later. The caller closes it.
        :raises Limited: when that is the answer, or was a moment ago.
        :raises Unreachable: when there is none.
        """
        own = True
        for _ in range(_MOST_REDIRECTS + 1):
            own = own and self._peers.is_own(url)
            sent = {**fields, "Authorization": authorization} if own and authorization is not None else fields
            reply = await self._ask(method, url, sent, own)
            if reply.status in _REDIRECTS:
                url = await self._follow(reply)
            else:
                await self._check(reply)
                return reply
        raise Unreachable(f"{method} {url}: more than {_MOST_REDIRECTS} redirects")

    async def _ask(self, method: str, url: URL, fields: Mapping[str, str], own: bool) -> Reply:
        """
        :raises Limited: when it wants to be asked later.
        :raises Unreachable: when there is no answer.
        """
        if self._aborted:
            raise Unreachable(f"{method} {url}: we are stopping")
        peer = self._peers.of(url)
        peer.rest.check()
        server, what = peer.server, f"{method} {url}"
        span = upstream_span(url.server, method.encode("ascii"), url.target.encode("latin-1"))
        if own:
            # Those that it redirects to, to storage mostly, need not know what else was done for whom.
            fields = {**fields, **span.fields()}
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        request_id = current_id()
        if request_id:
            lines += f"X-Request-Id: {request_id}\r\n"
        host = server.authority.decode("ascii")
        head = f"{method} {url.target} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {AGENT}\r\nAccept-Encoding: identity\r\n{lines}\r\n"
        server.busy += 1
        try:
            connection, answer = await ending(span, self._send(peer, method.encode("ascii"), head.encode("latin-1")))
        except CannotConnect as error:
            server.busy -= 1
            raise peer.rest.failed(f"{server.upstream}: {error}", late=error.late) from None
        except Lost as error:
            server.busy -= 1
            if error.late:
                raise peer.rest.failed(f"{what}: {error}", late=True) from None
            raise Unreachable(f"{what}: {error}") from None
        except BaseException:
            server.busy -= 1
            raise
        peer.rest.succeeded()
        span.tell({"http.response.status_code": answer.head.status})
        return Reply(url, what, own, peer, connection, answer, self._clock, self._patience, span)

    async def _send(self, peer: Peer, method: bytes, head: bytes) -> tuple[UpstreamConnection, Answer]:
        """
        :raises CannotConnect: when there is no connection to be had.
        :raises Lost: when there is no answer.
        """
        connection = peer.server.at_hand()
        if connection is not None:
            try:
                return connection, await self._wait(connection, method, head)
            except Lost as error:
                # The other end closed a connection that it had left open for long enough: no fault of its own. Once more, on a new one.
                if error.late:
                    raise
        connection = await peer.server.connect()
        return connection, await self._wait(connection, method, head)

    async def _wait(self, connection: UpstreamConnection, method: bytes, head: bytes) -> Answer:
        """
        :raises Lost: when there is no answer.
        """
        try:
            if self._aborted:
                raise Lost("we are stopping")
            return await connection.ask(method, head, None).addTimeout(self._patience, self._clock)
        except TimeoutError:
            connection.abort()
            raise Lost(f"it did not answer within {self._patience:g} s", late=True) from None
        except BaseException:
            connection.abort()
            raise

    async def _follow(self, reply: Reply) -> URL:
        """
        :raises Unreachable: when it leads nowhere, or where one does not go.
        """
        location = reply.field("location")
        await reply.drain()
        try:
            url = join(reply.url, location or "")
        except BadURL as error:
            raise Unreachable(f"{reply.what}: its redirect leads nowhere: {error}") from None
        if location is None:
            raise Unreachable(f"{reply.what}: it answers {reply.status} without a Location")
        if reply.url.server.scheme == "https" and url.server.scheme == "http":
            raise Unreachable(f"{reply.what}: its redirect to {url} leads from https to http, and is not followed")
        return url

    async def _check(self, reply: Reply) -> None:
        """
        :raises Limited: when it wants to be asked later.
        """
        said = reply.field("retry-after")
        retry_after = None if said is None else parse_retry_after(said, self._clock.seconds())
        if reply.status == 429 or (reply.status == 503 and retry_after is not None):
            await reply.drain()
            raise reply.peer.rest.limited(f"{reply.what}: it answers {reply.status}", retry_after)


async def ending(span: Span, asking: Awaitable[T]) -> T:
    """Wait for an answer; a span whose request has none ends with the reason."""
    try:
        return await asking
    except BaseException as error:
        span.end(type(error).__name__)
        raise
