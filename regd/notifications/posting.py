"""Envelopes over HTTP, by treq."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import unquote, urlsplit

import treq
from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred, TimeoutError  # noqa: A004 - it is not Python's, and the one that is raised
from twisted.web.client import Agent, HTTPConnectionPool, ResponseFailed
from twisted.web.http_headers import Headers

from regd.config.notifying import Endpoint
from regd.notifications.events import MEDIA_TYPE
from regd.notifications.telling import CannotPost

__all__ = ["Poster"]

#: So much of an answer is read, in bytes; nobody looks at it, but the other end may want to get rid of it.
_LARGEST: Final = 64 * 1024


class _TooLarge(Exception):
    """The answer."""


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
            data=content,
            headers=self._headers,
            auth=self._auth,
            allow_redirects=False,
            unbuffered=True,
            reactor=self._reactor,
        )
        length = 0

        def take(data: bytes) -> None:
            nonlocal length
            length += len(data)
            if length > _LARGEST:
                raise _TooLarge

        try:
            await treq.collect(response, take)
        except CancelledError:
            raise
        except Exception:  # noqa: BLE001 - the status has come, and it is what counts
            return int(response.code)
        return int(response.code)

    def _explain(self, failure: Any) -> int:
        """``Any``: a Failure is of whatever has been raised."""
        error = failure.value
        if isinstance(error, CancelledError):
            failure.raiseException()
        if isinstance(error, TimeoutError):
            raise CannotPost(f"no answer within {self._timeout} s") from None
        if isinstance(error, ResponseFailed):
            error = error.reasons[0].value if error.reasons else error
        # The texts of connection errors name addresses at most; never the URL.
        raise CannotPost(f"{type(error).__name__}: {error}"[:300]) from None
