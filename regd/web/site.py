"""What stands between the HTTP channel and the routes: the prefix, and requests that no router should see."""

from __future__ import annotations

from typing import Final
from urllib.parse import unquote_to_bytes

from regd.errors import BadRequest, NotFound, RegistryError, Unavailable
from regd.web.dispatch import Dispatcher
from regd.web.leaf import Leaf
from regd.web.request import StreamingRequest
from regd.web.response import Response, error_response
from regd.web.routes import Routes

__all__ = ["Closed", "Root"]

#: When a client may ask again, in seconds: how often health checks look, unless something else is configured.
_RETRY_AFTER: Final = {"Retry-After": "10"}


class Root(Leaf):
    """
    :param prefix: ``http.prefix``; begins and ends with ``/``.
    """

    def __init__(self, dispatcher: Dispatcher, routes: Routes, prefix: str = "/") -> None:
        self._dispatcher = dispatcher
        self._routes = routes
        self._prefix = prefix.encode("ascii")
        # Paths of routes begin with the slash that the prefix ends with.
        self._offset = len(prefix) - 1

    def render(self, request: StreamingRequest) -> object:
        """Hand a request to the routes, its path without the prefix."""
        raw = request.path
        if b"%" not in raw and raw.isascii() and raw.startswith(self._prefix):
            answer = self._routes.answer(request, raw[self._offset :].decode("ascii"))
            if answer is not None:
                return answer.render(request)
        return self._render_slowly(request)

    def _render_slowly(self, request: StreamingRequest) -> object:
        path = unquote_to_bytes(request.path)
        problem: RegistryError | None = None
        if not path.startswith(self._prefix):
            problem = NotFound(f"no such endpoint: this registry is below {self._prefix.decode('ascii')}")
        elif path.startswith(b"/", len(self._prefix)):
            # The router drops slashes at the beginning, and this would be the path without them.
            problem = NotFound()
        elif request.method != request.method.upper():
            # RFC 9110, section 9.1: "get" is not GET. The router would not tell them apart, and the rest of the daemon does.
            problem = BadRequest(f"no method is called {request.method[:32].decode('ascii', 'replace')}: methods are in capitals")
        try:
            path.decode("utf-8")
            request.method.decode("ascii")
        except UnicodeDecodeError:
            problem = BadRequest("the path is not UTF-8, or the method not ASCII")
        if problem is not None:
            answer = error_response(problem)

            async def refuse() -> Response:
                return answer

            return self._dispatcher.answering(refuse).render(request)
        found = self._routes.find(request.method, path[self._offset :].decode("utf-8"))
        if found is not None:
            # Klein calls the same endpoint, and does not say so.
            request.route = found[0]
        request.prepath, request.postpath = [], path[len(self._prefix) :].split(b"/")
        return self._routes.render(request)


class Closed(Leaf):
    """
    Stands where :class:`Root` does while the registry is not well, and answers every request with 503, as ``registry:2`` does. Requests
    that have begun are finished.

    :param reason: what clients are told.
    """

    def __init__(self, dispatcher: Dispatcher, reason: str) -> None:
        self._dispatcher = dispatcher
        self._reason = reason

    def render(self, request: StreamingRequest) -> object:
        """Refuse a request."""
        return self._dispatcher.answering(self._refuse).render(request)

    async def _refuse(self) -> Response:
        raise Unavailable(self._reason, headers=_RETRY_AFTER)
