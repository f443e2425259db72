"""From a matched route to an answer on the wire: what every handler has in common, and the one place where failures become answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure
from twisted.web.resource import IResource
from twisted.web.server import NOT_DONE_YET
from werkzeug.exceptions import HTTPException, MethodNotAllowed
from werkzeug.exceptions import NotFound as NoRoute
from werkzeug.routing import RequestRedirect

from regd.errors import BadRequest, NotFound, OutOfSpace, RegistryError, Unavailable, Unknown, Unsupported
from regd.storage.driver import Full, StorageError
from regd.web.at_once import begin
from regd.web.body import BodyAborted
from regd.web.fields import CommonFields
from regd.web.leaf import Leaf
from regd.web.request import StreamingRequest
from regd.web.response import Response, error_response, send_at_once, send_rest

__all__ = ["Dispatcher"]

#: How long a client is asked to wait when the storage fails, in seconds.
_RETRY_AFTER: Final = {"Retry-After": "5"}


class Dispatcher:
    """
    Runs handlers.

    :param headers: ``http.headers``: fields of every answer, each with its values.
    :param storage_failed: called with each failure of the storage that a request has met.
    """

    _log = Logger()

    def __init__(self, headers: Mapping[str, tuple[str, ...]], storage_failed: Callable[[StorageError], None] = lambda error: None) -> None:
        self._common = CommonFields(headers)
        self._tell_storage_failed = storage_failed
        self._running: set[Deferred[None]] = set()

    def answering(self, handler: Callable[[], Awaitable[Response]]) -> IResource:
        """What a Klein endpoint returns so that the request is answered with what ``handler`` returns or raises."""
        return _Answering(self, handler)

    def unroutable(self, request: StreamingRequest, failure: Failure) -> IResource:
        """The same for a request that no route matches, or whose path a converter refused."""

        async def explain() -> Response:
            problem = failure.value
            assert problem is not None
            if isinstance(problem, HTTPException):
                return _no_route(request, problem)
            raise problem

        return self.answering(explain)

    def start(self, request: StreamingRequest, handler: Callable[[], Awaitable[Response]]) -> None:
        """
        Answer a request with what ``handler`` returns or raises. When the client goes away, the handler runs on all the same: what it has
        begun, a commit say, is to be finished and not cut in two.
        """
        # Most handlers wait for nothing.
        going_on = begin(self._run(request, handler))
        if going_on is not None and not going_on.called:
            self._running.add(going_on)
            going_on.addBoth(lambda _: self._running.discard(going_on))

    async def settle(self) -> None:
        """Wait until no handler runs."""
        while self._running:
            await DeferredList(self._running)

    async def _run(self, request: StreamingRequest, handler: Callable[[], Awaitable[Response]]) -> None:
        try:
            try:
                response = await handler()
            except RegistryError as error:
                response = error_response(error)
            except BodyAborted:
                # Nobody is there to be answered; the access log says so.
                if not request.client_gone:
                    request.loseConnection()
                return
            except StorageError as error:
                response = error_response(self._storage_failed(request, error))
            if not send_at_once(request, response, self._common):
                await send_rest(request, response)
        except StorageError as error:
            self._break_off(request, self._storage_failed(request, error))
        except Exception:  # noqa: BLE001 - the last resort: a fault of regd's own must not leave the client waiting
            self._log.failure("{method} {uri} failed", level=LogLevel.error, method=_text(request.method), uri=_text(request.uri))
            self._break_off(request, Unknown())

    def _break_off(self, request: StreamingRequest, error: RegistryError) -> None:
        """An answer has failed on its way: say so, or, where part of it has been sent, end the connection before the length promised."""
        if not request.startedWriting:
            send_at_once(request, error_response(error), self._common)
        elif not request.client_gone:
            request.loseConnection()

    def _storage_failed(self, request: StreamingRequest, error: StorageError) -> RegistryError:
        self._tell_storage_failed(error)
        self._log.error("{method} {uri}: {error}", method=_text(request.method), uri=_text(request.uri), error=error)
        if isinstance(error, Full):
            return OutOfSpace(headers=_RETRY_AFTER)
        return Unavailable("the storage of the registry does not work at the moment, try again later", headers=_RETRY_AFTER)


class _Answering(Leaf):
    """
    Klein renders a resource that an endpoint returns and then leaves the request alone; a Deferred it would cancel when the client goes
    away.
    """

    def __init__(self, dispatcher: Dispatcher, handler: Callable[[], Awaitable[Response]]) -> None:
        self._dispatcher = dispatcher
        self._handler = handler

    def render(self, request: StreamingRequest) -> int:
        """Begin to answer."""
        self._dispatcher.start(request, self._handler)
        return NOT_DONE_YET


def _no_route(request: StreamingRequest, problem: HTTPException) -> Response:
    if isinstance(problem, RequestRedirect):
        # The only redirect that the routes make is to the same path with a slash at its end.
        path, question, query = _text(request.uri).partition("?")
        return Response(301, {"Location": f"{path}/{question}{query}"})
    if isinstance(problem, MethodNotAllowed):
        allowed = {"Allow": ", ".join(sorted(problem.valid_methods or ()))}
        if request.method == b"OPTIONS":
            return Response(200, allowed)
        return error_response(Unsupported(f"{_text(request.method)} is not supported here", headers=allowed))
    if isinstance(problem, NoRoute):
        return error_response(NotFound(f"no such endpoint: {_text(request.path)[:200]}"))
    return error_response(BadRequest())


def _text(raw: bytes) -> str:
    return raw.decode("ascii", "backslashreplace")
