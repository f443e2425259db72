"""The servers that one remote registry leads to: its own, and those that it redirects to."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, Final

from twisted.internet.ssl import optionsForClientTLS

from regd.config import TCPAddress, Upstream
from regd.config.caching import CacheUpstream
from regd.proxy.dialing import system_trust, tls_options
from regd.proxy.remote.rest import Rest
from regd.proxy.remote.urls import URL, Origin
from regd.proxy.upstream import UpstreamServer

__all__ = ["Peer", "Peers"]

#: How many other servers are remembered. A registry has one or two; one that makes up a name for each blob shall not fill the memory.
_MOST: Final = 16


class Peer:
    """
    One server.

    :ivar server: its connections.
    :ivar rest: whether it may be asked.
    """

    def __init__(self, server: UpstreamServer, rest: Rest) -> None:
        self.server = server
        self.rest = rest

    @property
    def unused(self) -> bool:
        """Whether forgetting it would lose nothing."""
        return not self.server.busy and not self.server.connections and not self.rest.left


class Peers:
    """
    :param reactor: ``Any``: a reactor is typed as the union of what reactors may be.
    :raises regd.proxy.dialing.CannotUseTLS: when a file for TLS cannot be used.
    :ivar own: the registry itself.
    """

    def __init__(self, upstream: CacheUpstream, reactor: Any) -> None:
        self._upstream = upstream
        self._reactor = reactor
        self._own_options = tls_options(upstream.remote, upstream.tls)
        self._trust = system_trust(upstream.tls.cafile)
        self._options: OrderedDict[str, Any] = OrderedDict()
        self._others: OrderedDict[Origin, Peer] = OrderedDict()
        self._origin = URL(upstream.remote, "/").origin
        self._closed = False
        self.own = self._peer(upstream.remote, self._own_options)

    def __iter__(self) -> Iterator[Peer]:
        """All of them."""
        return iter([self.own, *self._others.values()])

    def is_own(self, url: URL) -> bool:
        """Whether a URL is the registry's own."""
        return url.origin == self._origin

    def of(self, url: URL) -> Peer:
        """Who is to be asked for a URL."""
        origin = url.origin
        if origin == self._origin:
            return self.own
        found = self._others.get(origin)
        if found is None:
            self._forget()
            found = self._others[origin] = self._peer(url.server, self.options(url))
        self._others.move_to_end(origin)
        return found

    def options(self, url: URL) -> Any:
        """
        How the server of a URL has to prove who it is: the registry itself as is configured, others with a chain to what the system trusts,
        or the registry's own file of certificates; and those learn no certificate of ours.

        :returns: what ``twisted.protocols.tls`` takes; ``None`` without TLS.
        """
        if url.origin == self._origin:
            return self._own_options
        if url.server.scheme != "https":
            return None
        assert isinstance(url.server.address, TCPAddress)
        host = url.server.address.host
        found = self._options.get(host)
        if found is None:
            found = self._options[host] = optionsForClientTLS(host, self._trust, acceptableProtocols=[b"http/1.1"])
            if len(self._options) > _MOST:
                self._options.popitem(last=False)
        self._options.move_to_end(host)
        return found

    def close(self) -> None:
        """Keep no connection for later."""
        self._closed = True
        for peer in self:
            peer.server.close()

    def abort(self) -> None:
        """Cut all connections."""
        self._closed = True
        for peer in self:
            peer.server.abort()

    def _peer(self, server: Upstream, options: Any) -> Peer:
        made = UpstreamServer(server, options, self._upstream.timeouts, self._reactor)
        if self._closed:
            made.close()
        return Peer(made, Rest(str(server), self._reactor.seconds))

    def _forget(self) -> None:
        """The oldest of those that nobody uses."""
        for origin in [origin for origin, peer in self._others.items() if peer.unused][: max(len(self._others) - _MOST + 1, 0)]:
            self._others.pop(origin).server.close()
