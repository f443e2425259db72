"""Clients of plain HTTP, sent to where TLS is spoken."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from regd.errors import BadRequest
from regd.web.dispatch import Dispatcher
from regd.web.forwarded import valid_host
from regd.web.leaf import Leaf
from regd.web.request import StreamingRequest
from regd.web.response import Response

__all__ = ["Redirect"]


class Redirect(Leaf):
    """
    Answers every request with where it should have been sent (RFC 9110, section 15.4).

    :param base: says ``http.host``, which is where if it is given.
    :param port: says the port that speaks TLS.
    :param published: what is answered at some paths instead, for whoever looks whether a name is ours (RFC 8555, section 8.3).
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        base: Callable[[], str],
        port: Callable[[], int],
        published: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._dispatcher = dispatcher
        self._base = base
        self._port = port
        self._published = published

    def render(self, request: StreamingRequest) -> object:
        """Answer a request."""

        async def answer() -> Response:
            return self._answer(request)

        return self._dispatcher.answering(answer).render(request)

    def _answer(self, request: StreamingRequest) -> Response:
        found = self._published.get(request.path.decode("latin-1"))
        if found is not None:
            return Response(200, {"Content-Type": "application/octet-stream"}, found.encode("ascii"))
        base = self._base() or self._origin(request)
        target = request.uri.decode("latin-1")
        if not target.startswith("/"):
            # The absolute form, or that of OPTIONS: its path is all that is wanted of it.
            target = request.path.decode("latin-1") if request.path.startswith(b"/") else "/"
        if not (target.isascii() and target.isprintable()):
            raise BadRequest("the target of the request has characters that a URL has not")
        # A client that sends something is to send it there again, and not to ask for it.
        status = 301 if request.method in {b"GET", b"HEAD"} else 308
        return Response(status, {"Location": f"{base}{target}"})

    def _origin(self, request: StreamingRequest) -> str:
        host = request.getHeader("host") or ""
        if not valid_host(host):
            raise BadRequest("this is plain HTTP, which is spoken by TLS here; without a Host field nobody knows where to send you")
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        port = self._port()
        return f"https://{name}" if port == 443 else f"https://{name}:{port}"
