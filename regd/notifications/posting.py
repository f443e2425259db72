"""Envelopes over HTTP, by treq."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import unquote, urlsplit

from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred, TimeoutError, succeed  # noqa: A004 - it is not Python's, and the one that is raised
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.interfaces import IConsumer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import Agent, HTTPConnectionPool, ResponseFailed
from twisted.web.http_headers import Headers
from twisted.web.iweb import IBodyProducer
from zope.interface import implementer

from regd.config.notifying import Endpoint
from regd.notifications.events import MEDIA_TYPE
from regd.notifications.telling import CannotPost

__all__ = ["Poster"]

#: So much of an answer is read, in bytes; nobody looks at it, but the other end may want to get rid of it.
_LARGEST: Final = 64 * 1024


class _Rest(Protocol):
    """
    Takes what follows the head of an answer.

    :ivar ended: fires when that has ended, in whatever way: the status has come, and it is what counts. To cancel it closes the connection.
    """

    def __init__(self) -> None:
        self.ended: Deferred[None] = Deferred(lambda _: self._close())
        self._length = 0

    def dataReceived(self, data: bytes) -> None:  # noqa: N802 - Twisted's name
        """Part of a body has come."""
        self._length += len(data)
        if self._length > _LARGEST:
            self._close()

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: N802 - Twisted's name
        """The body is at its end, or cut off."""
        if not self.ended.called:
            self.ended.callback(None)

    def _close(self) -> None:
        if self.transport is not None:
            self.transport.loseConnection()


@implementer(IBodyProducer)
class _Content:
    """An envelope as a body. It is written in one piece, at once: it is small, and the library's own would take turns of the event loop."""

    def __init__(self, content: bytes) -> None:
        self.length = len(content)
        self._content = content

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:  # noqa: N802 - Twisted's name
        """Write all of it."""
        consumer.write(self._content)
        return succeed(None)

    def pauseProducing(self) -> None:  # noqa: N802 - Twisted's name
        """It is written already."""

    def resumeProducing(self) -> None:  # noqa: N802 - Twisted's name
        """It is written already."""

    def stopProducing(self) -> None:  # noqa: N802 - Twisted's name
        """It is written already."""


class Poster:
    """
    A :class:`~regd.notifications.telling.Post` for one endpoint.

    :param reactor: ``Any``: a reactor is typed as the union of what reactors may be.
    """

    def __init__(self, endpoint: Endpoint, reactor: Any) -> None:
        parts = urlsplit(endpoint.url)
        # As Go's client: what stands before the host is for Basic authentication (RFC 7617), and never part of what is asked for.
        self._auth = (unquote(parts.username or ""), unquote(parts.password or "")) if parts.username is not None else None
        self._url = parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="").geturl()
        self._timeout = endpoint.timeout
        self._headers = Headers({"Content-Type": [MEDIA_TYPE], "User-Agent": ["regd"]})
        for name, values in endpoint.headers.items():
            self._headers.setRawHeaders(name, list(values))
        self._reactor = reactor
        # One connection each time, as in registry:2: one that the other end closes while it is idle would make a failure of what follows.
        self._pool = HTTPConnectionPool(reactor, persistent=False)
        self._agent = Agent(reactor, pool=self._pool)

    def __call__(self, content: bytes) -> Deferred[int]:
        """See :class:`~regd.notifications.telling.Post`."""
        sent = Deferred.fromCoroutine(self._send(content))
        # Whatever the client makes of its being cancelled, it was cancelled: for its time, or by who has asked.
        sent.addErrback(_cancelled)
        sent.addTimeout(self._timeout, self._reactor)
        sent.addErrback(self._explain)
        return sent

    def close(self) -> Deferred[None]:
        """Close the connection."""
        closed: Deferred[None] = self._pool.closeCachedConnections()
        return closed

    async def _send(self, content: bytes) -> int:
        # A new client each time: nobody is to keep cookies.
        response = await HTTPClient(self._agent).post(
            self._url,
            data=_Content(content),
            headers=self._headers,
            auth=self._auth,
            allow_redirects=False,
            unbuffered=True,
            reactor=self._reactor,
        )
        rest = _Rest()
        response.deliverBody(rest)
        await rest.ended
        return int(response.code)

    def _explain(self, failure: Any) -> int:
        """``Any``: a Failure is of whatever has been raised."""
        error = failure.value
        if isinstance(error, CancelledError):
            raise error
        if isinstance(error, TimeoutError):
            raise CannotPost(f"no answer within {self._timeout} s") from None
        if isinstance(error, ResponseFailed):
            error = error.reasons[0].value if error.reasons else error
        # The texts of connection errors name addresses at most; never the URL.
        raise CannotPost(f"{type(error).__name__}: {error}"[:300]) from None


def _cancelled(failure: Any) -> int:
    """``Any``: as of :meth:`Poster._explain`."""
    reasons = failure.value.reasons if isinstance(failure.value, ResponseFailed) else [failure]
    if any(reason.check(CancelledError, ConnectingCancelledError) for reason in reasons):
        raise CancelledError
    failure.raiseException()
    raise AssertionError("it is raised")
