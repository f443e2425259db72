"""The reverse proxy: which route a request takes, and the resource that sees to it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.web.http import RESPONSES
from twisted.web.resource import IResource
from twisted.web.server import NOT_DONE_YET

from regd.config import Config, Route
from regd.errors import BadRequest, NotFound, RegistryError, Unavailable, Unknown, Unsupported
from regd.proxy.balance import Balancer
from regd.proxy.dialing import tls_options
from regd.proxy.fields import Origin, pass_on
from regd.proxy.forwarding import Forwarding
from regd.proxy.origin import find_origin
from regd.proxy.upstream import UpstreamServer
from regd.web.fields import CommonFields
from regd.web.leaf import Leaf
from regd.web.request import StreamingRequest
from regd.web.response import Response, error_response, send_at_once

__all__ = ["ReverseProxy", "plain_path"]

#: RFC 9110, section 7.2, and what container networks call their hosts.
_HOST: Final = re.compile(rb"([A-Za-z0-9._~%!$&'()*+,;=-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")

#: Answered by nobody behind us: a tunnel is not what a registry offers, and TRACE tells scripts what they should not see; as nginx has it.
_REFUSED_METHODS: Final = frozenset({b"CONNECT", b"TRACE"})

_REGISTRY: Final = b"/v2/"


@dataclass(frozen=True)
class _Way:
    """
    A route, ready for use.

    :ivar forwarding: ``None`` for one that only has a status.
    """

    host: bytes
    path: bytes
    status: int
    forwarding: Forwarding | None


def plain_path(path: bytes) -> bytes | None:
    """
    A path as whoever resolves it understands it: percent signs decoded, ``//``, ``.`` and ``..`` resolved (RFC 3986, section 6.2.2).

    :returns: ``None`` for one that leads above the root, or is none.
    """
    if b"%" not in path and b"//" not in path and b"/." not in path:
        return path if path.startswith(b"/") else None
    segments: list[bytes] = []
    parts = unquote_to_bytes(path).split(b"/")
    if parts[0]:
        return None
    for part in parts[1:]:
        if part == b"..":
            if not segments:
                return None
            segments.pop()
        elif part not in {b"", b"."}:
            segments.append(part)
    ends = parts[-1] in {b"", b".", b".."} and segments
    return b"/" + b"/".join(segments) + (b"/" if ends else b"")


class ReverseProxy(Leaf):
    """
    Answers everything: what a route takes, by that; what is the registry's own, by that.

    :param reactor: ``Any``: a reactor is typed as the union of what reactors may be.
    :raises CannotUseTLS: when a file for TLS cannot be used.
    :ivar own: what answers from storage; ``None`` for a proxy only.
    """

    _log = Logger()

    def __init__(self, config: Config, reactor: Any) -> None:
        self.own: IResource | None = None
        self._own_path = f"{config.http.prefix}v2/".encode("ascii")
        self._trusts = config.reverseproxy.trusts if config.reverseproxy.trusted else None
        self._common = CommonFields(config.http.headers)
        self._plain = CommonFields(config.http.headers, registry=False)
        self._configured = {name.encode(): [value.encode() for value in values] for name, values in config.http.headers.items()}
        routes = enumerate(config.reverseproxy.routes)
        self._ways = [self._way(route, f"reverseproxy.routes[{index}].tls", reactor) for index, route in routes]

    def close(self) -> None:
        """No more requests will come."""
        for way in self._ways:
            if way.forwarding is not None:
                way.forwarding.balancer.close()

    def variables(self) -> dict[str, object]:
        """Numbers about each upstream."""
        found: dict[str, object] = {}
        for way in self._ways:
            for server in way.forwarding.balancer.servers if way.forwarding is not None else ():
                counts = {"healthy": server.healthy, "requests": server.busy, "connections": len(server.connections), "idle": server.idle}
                found[f"{way.host.decode()}{way.path.decode()} {server.upstream}"] = counts
        return found

    def render(self, request: StreamingRequest) -> object:
        """Find out who answers, and have it do so."""
        hosts = request.requestHeaders.getRawHeaders(b"Host", ())
        host = hosts[0] if hosts else None
        path = plain_path(request.path)
        way = None if path is None else self._find(host, path)
        if way is None:
            if self.own is not None:
                return self.own.render(request)
            self._refuse(request, NotFound("nothing is served here") if path is not None else BadRequest("the path leads nowhere"))
        elif way.path != path and path is not None and not path.startswith(way.path):
            self._redirect(request, way)
        elif way.forwarding is None:
            self._answer_status(request, way.status)
        elif request.method in _REFUSED_METHODS:
            self._refuse(request, Unsupported(f"{request.method.decode('ascii')} is not passed on"))
        elif (host is None and request.clientproto != b"HTTP/1.0") or (host is not None and _HOST.fullmatch(host) is None):
            # RFC 9112, section 3.2.
            request.channel.persistent = False
            request.responseHeaders.setRawHeaders(b"Connection", [b"close"])
            self._refuse(request, BadRequest("a request needs a Host, which is a name or an address and perhaps a port"))
        else:
            self._forward(request, way.forwarding)
        return NOT_DONE_YET

    def _find(self, host: bytes | None, path: bytes) -> _Way | None:
        """The first route that matches; also one that would if the path ended with a slash."""
        name: bytes | None = None
        own = self.own is not None and (path.startswith(self._own_path) or path + b"/" == self._own_path)
        for way in self._ways:
            if way.host:
                if name is None:
                    found = _HOST.fullmatch(host) if host is not None else None
                    name = found[1].lower().rstrip(b".") if found is not None else b""
                if name != way.host:
                    continue
            elif own:
                continue
            if path.startswith(way.path) or (path + b"/" == way.path and way.forwarding is not None):
                return way
        return None

    def _forward(self, request: StreamingRequest, forwarding: Forwarding) -> None:
        request.route = "proxied"
        target, authority = request.uri, None
        if not target.startswith(b"/"):
            # In absolute form: what it names counts, and not Host (RFC 9112, section 3.2.2).
            authority = request.requestHeaders.getRawHeaders(b"Host", [b""])[0]
            _, _, query = target.partition(b"?")
            target = request.path + (b"?" + query if query else b"")
        try:
            passed = pass_on(request.field_lines, authority)
        except ValueError:
            self._refuse(request, BadRequest())
            return
        running = Deferred.fromCoroutine(forwarding.forward(request, target, passed, self._origin(request)))
        if not running.called or running.result is not None:
            running.addErrback(lambda failure: self._failed(request, failure))

    def _origin(self, request: StreamingRequest) -> Origin:
        address = request.getClientAddress()
        # As nginx calls the peer of a Unix socket, and as a socket that takes both has IPv4 peers.
        peer = address.host.removeprefix("::ffff:") if isinstance(address, IPv4Address | IPv6Address) else "unix:"
        scheme = "https" if request.isSecure() else "http"
        if self._trusts is not None and self._trusts(peer):
            return find_origin(request, peer, scheme, self._trusts)
        return Origin(peer.encode("ascii"), peer.encode("ascii"), scheme.encode("ascii"))

    def _failed(self, request: StreamingRequest, failure: Any) -> None:
        self._log.failure("{method} {uri} could not be passed on", failure, method=request.method, uri=request.uri)
        if not request.startedWriting:
            self._refuse(request, Unknown())
        elif not request.client_gone:
            request.channel.loseConnection()

    def _refuse(self, request: StreamingRequest, error: RegistryError) -> None:
        """The registry's envelope for those who talk to a registry, plain text for others."""
        request.unprepare()
        if request.path.startswith((_REGISTRY, self._own_path)):
            send_at_once(request, error_response(error), self._common)
        else:
            headers = {"Content-Type": "text/plain; charset=utf-8", **error.headers}
            send_at_once(request, Response(error.status, headers, error.message.encode() + b"\n"), self._plain)

    def _answer_status(self, request: StreamingRequest, status: int) -> None:
        if status in {200, 204}:
            send_at_once(request, Response(status, {}, b""), self._plain)
        else:
            self._refuse(request, _said(status))

    def _redirect(self, request: StreamingRequest, way: _Way) -> None:
        _, question, query = request.uri.partition(b"?")
        send_at_once(request, Response(301, {"Location": (way.path + question + query).decode("latin-1")}), self._plain)

    def _way(self, route: Route, section: str, reactor: Any) -> _Way:
        forwarding = None
        if route.upstreams:
            servers = [UpstreamServer(one, tls_options(one, route.tls, section), route.timeouts, reactor) for one in route.upstreams]
            forwarding = Forwarding(Balancer(servers, route.healthcheck, reactor), self._configured, self._refuse)
        return _Way(route.host.encode("ascii"), route.path.encode("ascii"), route.status, forwarding)


def _said(status: int) -> RegistryError:
    """What a route says, as an error."""
    phrase = RESPONSES.get(status, b"").decode("ascii") or f"status {status}"
    code = {404: NotFound.code, 405: Unsupported.code, 503: Unavailable.code}.get(status, Unknown.code)
    said: RegistryError = type("Said", (RegistryError,), {"status": status, "code": code})(phrase)
    return said
