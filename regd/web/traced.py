"""One span for each request: how it begins, in the context that the client gives (W3C Trace Context), and what is said of it at its end."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.web.resource import IResource

from regd.spans import CURRENT, Attribute, Span, method_of
from regd.telemetry.tracing import Tracer
from regd.web.leaf import Leaf
from regd.web.request import StreamingRequest

__all__ = ["Traced", "describe", "templates_of"]

#: The variables of a route: ``<name:name>``, ``<upload>``.
_VARIABLE: Final = re.compile(r"<(?:\w+:)?(\w+)>")

#: The name in a path that a route with a name has matched; it may itself have parts that are called so.
_REPOSITORY: Final = re.compile(rb"v2/([^?]+)/(?:blobs|manifests|tags|referrers)/(?:uploads/?)?[^/]*\Z")


class Traced(Leaf):
    """
    What a site answers by where requests are traced: the same as without, in the context of a span.

    :param inner: what answers.
    """

    def __init__(self, inner: IResource, tracer: Tracer) -> None:
        self._inner = inner
        self._tracer = tracer

    def render(self, request: StreamingRequest) -> object:
        """Begin a span, and have the request answered; whoever is told that it has ended calls :func:`describe`."""
        name, _ = method_of(request.method)
        span = self._tracer.begin(name, request.header_values("traceparent"), request.header_values("tracestate"))
        request.span = span
        # It is in the context of the coroutines that are begun here, and nobody else's.
        before = CURRENT.set(span)
        try:
            return self._inner.render(request)
        finally:
            CURRENT.reset(before)


def templates_of(app: Any, prefix: str) -> Mapping[str, str]:
    """
    Each route as it is written in documents, ``/v2/{name}/tags/list``, by the name of its endpoint.

    :param app: Klein's routes; ``Any``: its class has no attribute of that type.
    :param prefix: what comes before them; it begins and ends with ``/``.
    """
    return {rule.endpoint: prefix.rstrip("/") + _VARIABLE.sub(r"{\1}", rule.rule) for rule in app.url_map.iter_rules()}


def describe(request: StreamingRequest, span: Span, templates: Mapping[str, str]) -> None:
    """
    End the span of a request that is answered or lost, with what the semantic conventions of HTTP say of a server's. Nothing is said of
    the query: it may hold the state of an upload, which is signed, and to be known to its client only.

    :param templates: see :func:`templates_of`.
    """
    if span.recording:
        name, method = method_of(request.method)
        template = templates.get(request.route, "")
        span.rename(f"{name} {template}" if template else name)
        span.tell({"http.request.method": method, **_attributes(request, template)})
    span.end(str(request.code) if request.code >= 500 else "")


def _attributes(request: StreamingRequest, template: str) -> dict[str, Attribute]:
    found: dict[str, Attribute] = {
        "url.scheme": "https" if request.isSecure() else "http",
        "url.path": _text(request.path),
        "network.protocol.version": _text(request.clientproto).removeprefix("HTTP/"),
        "http.response.status_code": request.code,
        "http.request.body.size": request.received,
        "http.response.body.size": request.sentLength,
        "regd.request.id": request.id,
    }
    if template:
        found["http.route"] = template
    if "{name}" in template and (repository := _REPOSITORY.search(request.path)) is not None:
        found["regd.repository.name"] = _text(repository[1])
    if agent := request.getHeader("User-Agent"):
        found["user_agent.original"] = agent
    if host := request.getHeader("Host"):
        found["server.address"] = host
    peer = request.getClientAddress()
    if isinstance(peer, IPv4Address | IPv6Address):
        found["client.address"] = peer.host.removeprefix("::ffff:")
    return found


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")
