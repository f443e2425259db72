"""The listener for operators (``http.debug.addr``): health, metrics, and a few numbers. Never reachable by the registry's own address."""

# Klein's decorators are typed for functions that take a request and nothing else, so ``app`` is Any and its decorators untyped.
# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any

from klein import Klein
from twisted.python.failure import Failure
from twisted.web.resource import IResource
from werkzeug.exceptions import HTTPException

from regd.errors import Unsupported
from regd.telemetry.exposition import CONTENT_TYPE, page
from regd.telemetry.health import Health
from regd.telemetry.samples import Samples
from regd.web.dispatch import Dispatcher
from regd.web.leaf import Leaf
from regd.web.request import StreamingRequest
from regd.web.response import Response, json_response
from regd.web.routes import Routes

__all__ = ["DebugApi", "MetricsPage"]


class DebugApi:
    """
    :param variables: numbers to show at ``/debug/vars``, by name.
    :param not_ready: why clients should be sent elsewhere, whatever the health; empty when they need not.
    """

    app: Any = Klein()

    def __init__(
        self,
        dispatcher: Dispatcher,
        health: Health,
        variables: Callable[[], Awaitable[dict[str, object]]],
        not_ready: Callable[[], str] = lambda: "",
    ) -> None:
        self._dispatcher = dispatcher
        self._health = health
        self._variables = variables
        self._not_ready = not_ready

    def resource(self) -> Routes:
        """What serves the routes."""
        return Routes(self.app)

    @app.route("/debug/health", methods=["GET"])
    def health(self, request: StreamingRequest) -> IResource:
        """200 and ``{}`` when all is well, else 503 and what is wrong."""
        return self._dispatcher.answering(self._report_health)

    @app.route("/livez", methods=["GET"])
    def alive(self, request: StreamingRequest) -> IResource:
        """200 as long as anything is answered at all: whoever gets no answer here should restart the daemon."""
        return self._dispatcher.answering(self._report_alive)

    @app.route("/readyz", methods=["GET"])
    def ready(self, request: StreamingRequest) -> IResource:
        """200 when clients should be sent here; 503 and why not, while it starts or stops, and when something is wrong."""
        return self._dispatcher.answering(self._report_ready)

    @app.route("/debug/vars", methods=["GET"])
    def variables(self, request: StreamingRequest) -> IResource:
        """Numbers, as JSON."""
        return self._dispatcher.answering(self._report_variables)

    @app.handle_errors(HTTPException)
    def unroutable(self, request: StreamingRequest, failure: Failure) -> IResource:
        """No such path or method."""
        return self._dispatcher.unroutable(request, failure)

    async def _report_health(self) -> Response:
        problems = await self._health.problems()
        return json_response(503 if problems else 200, problems)

    async def _report_alive(self) -> Response:
        return json_response(200, {})

    async def _report_ready(self) -> Response:
        reason = self._not_ready()
        problems = {"regd": reason} if reason else await self._health.problems()
        return json_response(503 if problems else 200, problems)

    async def _report_variables(self) -> Response:
        return json_response(200, {"pid": os.getpid(), **await self._variables()})


class MetricsPage(Leaf):
    """
    The page for Prometheus, in front of the other pages.

    :param path: where it is.
    :param samples: what is on it.
    :param others: answers everything else.
    """

    def __init__(self, dispatcher: Dispatcher, path: str, samples: Callable[[], Awaitable[Samples]], others: Leaf) -> None:
        self._dispatcher = dispatcher
        self._path = path.encode("ascii")
        self._samples = samples
        self._others = others

    def render(self, request: StreamingRequest) -> object:
        """Answer a request."""
        if request.path != self._path:
            return self._others.render(request)
        return self._dispatcher.answering(lambda: self._report(request.method)).render(request)

    async def _report(self, method: bytes) -> Response:
        if method not in {b"GET", b"HEAD"}:
            raise Unsupported("metrics can only be read", headers={"Allow": "GET, HEAD"})
        return Response(200, {"Content-Type": CONTENT_TYPE}, page(await self._samples()))
