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
from zope.interface import implementer

from regd.errors import BadRequest, NotFound, OutOfSpace, RegistryError, Unavailable, Unknown, Unsupported
from regd.storage.driver import Full, StorageError
from regd.web.body import BodyAborted
from regd.web.request import StreamingRequest
from regd.web.response import Response, error_response, send

__all__ = ["Dispatcher", "Leaf"]

_API_VERSION: Final = ("Docker-Distribution-Api-Version", "registry/2.0")

#: How long a client is asked to wait when the storage fails, in seconds.
_RETRY_AFTER: Final = {"Retry-After": "5"}


class Dispatcher:
    """
    Runs handlers.

    :param headers: ``http.headers``: fields of every answer, each with its values.
    """

    _log = Logger()

    def __init__(self, headers: Mapping[str, tuple[str, ...]]) -> None:
        self._headers = dict(headers)
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
        running = Deferred.fromCoroutine(self._run(request, handler))
        if not running.called:
            self._running.add(running)
            running.addBoth(lambda _: self._running.discard(running))

    async def settle(self) -> None:
        """Wait until no handler runs."""
        while self._running:
            await DeferredList(self._running)

    async def _answer(self, request: StreamingRequest, response: Response) -> None:
        if not request.client_gone:
            request.setHeader("Server", "regd")
            request.setHeader(*_API_VERSION)
            for name, values in self._headers.items():
                request.responseHeaders.setRawHeaders(name, values)
        await send(request, response)

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
            await self._answer(request, response)
        except StorageError as error:
            await self._break_off(request, self._storage_failed(request, error))
        except Exception:  # noqa: BLE001 - the last resort: a fault of regd's own must not leave the client waiting
            self._log.failure("{method} {uri} failed", level=LogLevel.error, method=_text(request.method), uri=_text(request.uri))
            await self._break_off(request, Unknown())

    async def _break_off(self, request: StreamingRequest, error: RegistryError) -> None:
        """An answer has failed on its way: say so, or, where part of it has been sent, end the connection before the length promised."""
        if not request.startedWriting:
            for name, _ in list(request.responseHeaders.getAllRawHeaders()):
                # What was said of the content is not so of the error, least of all for how long it may be kept.
                if name != b"Date":
                    request.responseHeaders.removeHeader(name)
            await self._answer(request, error_response(error))
        elif not request.client_gone:
            request.loseConnection()

    def _storage_failed(self, request: StreamingRequest, error: StorageError) -> RegistryError:
        self._log.error("{method} {uri}: {error}", method=_text(request.method), uri=_text(request.uri), error=error)
        if isinstance(error, Full):
            return OutOfSpace(headers=_RETRY_AFTER)
        return Unavailable("the storage of the registry does not work at the moment, try again later", headers=_RETRY_AFTER)


@implementer(IResource)
class Leaf:
    """What a resource without children has to have for the sake of the interface."""

    isLeaf = True  # noqa: N815 - IResource's name

    def render(self, request: StreamingRequest) -> object:
        """Answer a request."""
        raise TypeError(f"{type(self).__name__} does not say how")

    def getChildWithDefault(self, name: bytes, request: StreamingRequest) -> IResource:  # noqa: N802 - IResource's name
        """A leaf has no children, so nobody asks."""
        raise KeyError(name)

    def putChild(self, path: bytes, child: IResource) -> None:  # noqa: N802 - IResource's name
        """A leaf has no children."""
        raise TypeError("a leaf takes no children")


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
