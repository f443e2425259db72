"""The listener for operators (``http.debug.addr``): health, and a few numbers. Never reachable by the registry's own address."""

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

from regd.telemetry.health import Health
from regd.web.dispatch import Dispatcher
from regd.web.request import StreamingRequest
from regd.web.response import Response, json_response
from regd.web.routes import Routes

__all__ = ["DebugApi"]


class DebugApi:
    """
    :param variables: numbers to show at ``/debug/vars``, by name.
    """

    app: Any = Klein()

    def __init__(self, dispatcher: Dispatcher, health: Health, variables: Callable[[], Awaitable[dict[str, object]]]) -> None:
        self._dispatcher = dispatcher
        self._health = health
        self._variables = variables

    def resource(self) -> Routes:
        """What serves the routes."""
        return Routes(self.app)

    @app.route("/debug/health", methods=["GET"])
    def health(self, request: StreamingRequest) -> IResource:
        """200 and ``{}`` when all is well, else 503 and what is wrong."""
        return self._dispatcher.answering(self._report_health)

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

    async def _report_variables(self) -> Response:
        return json_response(200, {"pid": os.getpid(), **await self._variables()})
