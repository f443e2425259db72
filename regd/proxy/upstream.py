"""One upstream as a process sees it: its connections, how many requests it has, and whether it is worth asking."""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from twisted.logger import Logger

from regd.config import TCPAddress, Timeouts, Upstream
from regd.proxy.connection import UpstreamConnection
from regd.proxy.dialing import Dialer
from regd.spans import CURRENT, NOTHING, Attribute, Span, method_of

__all__ = ["UpstreamServer", "upstream_span"]

#: An upstream that could not be reached, or broke off, is left alone for so many seconds while others are there; as nginx has it.
PENALTY: Final = 10.0

#: How many connections without a request are kept.
_MOST_IDLE: Final = 64


class UpstreamServer:
    """
    :param options: see :class:`~regd.proxy.dialing.Dialer`.
    :param reactor: ``Any``: a reactor is typed as the union of what reactors may be.
    :ivar busy: requests that it has from this process.
    :ivar connections: all that are open, by this process.
    :ivar healthy: what the health check says.
    """

    _log = Logger()

    def __init__(self, upstream: Upstream, options: Any, timeouts: Timeouts, reactor: Any) -> None:
        self.upstream = upstream
        self.authority = upstream.authority.encode("ascii")
        self.timeouts = timeouts
        self.busy = 0
        self.healthy = True
        self.connections: set[UpstreamConnection] = set()
        self._dialer = Dialer(upstream, options, reactor)
        self._reactor = reactor
        self._idle: deque[UpstreamConnection] = deque()
        self._penalty_until = 0.0
        self._closed = False

    @property
    def idle(self) -> int:
        """How many connections wait for a request."""
        return len(self._idle)

    @property
    def penalized(self) -> float:
        """Until when it is to be left alone, in the reactor's seconds; 0 when it is not."""
        return self._penalty_until if self._penalty_until > self._reactor.seconds() else 0.0

    def failed(self, why: object) -> None:
        """It could not be asked, or did not answer."""
        self._log.warn("upstream {upstream}: {why}", upstream=str(self.upstream), why=why)
        self._penalty_until = self._reactor.seconds() + PENALTY

    def succeeded(self) -> None:
        """It has answered."""
        self._penalty_until = 0.0

    def at_hand(self) -> UpstreamConnection | None:
        """A connection that is there, the one that was used last; ``None`` when a new one has to be made."""
        while self._idle:
            connection = self._idle.pop()
            if connection.is_alive():
                return connection
            connection.close()
        return None

    async def connect(self) -> UpstreamConnection:
        """
        A new connection.

        :raises regd.proxy.dialing.CannotConnect: when there is none to be had.
        """
        connection = UpstreamConnection(self.timeouts, self._reactor, self._put_back, self._gone)
        await self._dialer.dial(connection, self.timeouts.connect)
        self.connections.add(connection)
        return connection

    def close(self) -> None:
        """No more requests; connections close when those that they have are answered."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()

    def abort(self) -> None:
        """Cut all connections."""
        self.close()
        for connection in list(self.connections):
            connection.abort()

    def _put_back(self, connection: UpstreamConnection) -> None:
        if self._closed or len(self._idle) >= _MOST_IDLE:
            connection.close()
        else:
            self._idle.append(connection)
            connection.touch()

    def _gone(self, connection: UpstreamConnection) -> None:
        self.connections.discard(connection)
        try:
            self._idle.remove(connection)
        except ValueError:
            # It was not idle.
            return


def upstream_span(upstream: Upstream, method: bytes, target: bytes) -> Span:
    """
    Begin a request to an upstream, as part of what is being done.

    :param target: in origin form; of its query, which may be a signature, nothing is told.
    :returns: one that has no consequences where nothing is traced.
    """
    around = CURRENT.get()
    if around is None:
        return NOTHING
    name, known = method_of(method)
    path = target.partition(b"?")[0].decode("ascii", "backslashreplace")
    address = upstream.address
    attributes: dict[str, Attribute] = {"http.request.method": known, "url.full": f"{upstream}{path}"}
    if isinstance(address, TCPAddress):
        attributes |= {"server.address": address.host, "server.port": address.port}
    else:
        attributes["server.address"] = address.path
    return around.child(name, attributes, client=True)
