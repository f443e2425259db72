"""The factory of the channels: what all connections of a listening socket have in common."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.web.resource import IResource
from twisted.web.server import Site

from regd.web.forwarded import network_of
from regd.web.patience import Patience, Watch
from regd.web.request import StreamingChannel, StreamingRequest
from regd.web.secure import Acceptor
from regd.web.strict import HeadLimits

__all__ = ["StreamingSite"]

#: How often it is told that connections are closed because there are too many, in seconds.
_TOLD_EVERY: Final = 60.0


def _network(address: object) -> str:
    """Whom a connection is counted for; empty for Unix sockets."""
    return network_of(str(getattr(address, "host", "")))


class StreamingSite(Site):
    """
    The factory of the channels.

    :param resource: what answers.
    :param log_access: called with each request when it is answered, or lost, for the access log.
    """

    # Twisted wraps its channel to choose between HTTP/1.1 and HTTP/2, and declares the wrapper.
    protocol: Any = StreamingChannel
    _log = Logger()
    # Without a type in Twisted.
    reactor: Any
    displayTracebacks = False  # noqa: N815 - Twisted's name

    def __init__(
        self,
        resource: IResource,
        log_access: Callable[[StreamingRequest], None],
        reactor: IReactorTime | None = None,
    ) -> None:
        super().__init__(resource, requestFactory=StreamingRequest, timeout=Patience().idle, reactor=reactor)
        self._log_access = log_access
        #: Whether what a peer says about requests is believed, by its address.
        self.trusts: Callable[[str], bool] = lambda peer: False
        self.open: set[StreamingChannel] = set()
        #: For the connections that are made from now on.
        self.limits = HeadLimits()
        #: How long clients may take.
        self.patience = Patience()
        self._watch = Watch(lambda: self.open, lambda: self.patience, self.reactor)
        #: How many connections there may be, and how many of one address that is no trusted proxy's; 0 for any number.
        self.most, self.most_of_one = 0, 0
        self._of_one: Counter[str] = Counter()
        #: How many there were too many of, and when that was last told.
        self.turned_away, self._told = 0, float("-inf")
        #: What connections that are made from now on are accepted with; nothing for plain HTTP.
        self.secure: Acceptor | None = None
        #: Called when a connection is over.
        self.on_close: Callable[[], None] = lambda: None
        self._drained: Deferred[None] | None = None

    def wait_for(self, patience: Patience) -> None:
        """Have clients take so long at most; for the connections that are made from now on, where it is about what a channel waits for."""
        self.patience, self.timeOut = patience, patience.idle

    def buildProtocol(self, addr: Any) -> Any:  # noqa: N802 - Twisted's name
        """Somebody has connected: a channel, or nothing for who is one too many, whose connection is closed."""
        host = _network(addr)
        if self.most and len(self.open) >= self.most:
            return self._turn_away(host, "http.limits.connections")
        if self.most_of_one and host and self._of_one[host] >= self.most_of_one and not self.trusts(addr.host.removeprefix("::ffff:")):
            return self._turn_away(host, "http.limits.perclient")
        return super().buildProtocol(addr)

    def _turn_away(self, host: str, limit: str) -> None:
        self.turned_away += 1
        now = self.reactor.seconds()
        if now - self._told >= _TOLD_EVERY:
            self._told = now
            self._log.warn("connections, of {host} now, are closed at once: there are as many as {limit} allows", host=host, limit=limit)

    def startFactory(self) -> None:  # noqa: N802 - Twisted's name
        """Somebody listens. Stock opens a log and notes the time every second for it, also when nobody asks for anything."""

    def stopFactory(self) -> None:  # noqa: N802 - Twisted's name
        """Nobody listens any more."""

    def drain(self) -> Deferred[None]:
        """Let every connection finish the request that it has, and take no other; fires when none is left."""
        self._drained = Deferred()
        for channel in list(self.open):
            channel.finish_up()
        self._fire_drained()
        return self._drained

    def abort(self) -> None:
        """Cut every connection that is left."""
        for channel in list(self.open):
            channel.transport.abortConnection()

    def channel_made(self, channel: StreamingChannel) -> None:
        """There is a connection."""
        self.open.add(channel)
        self._of_one[_network(channel.getPeer())] += 1
        self._watch.begin()

    def channel_lost(self, channel: StreamingChannel) -> None:
        """A connection is gone."""
        self.open.discard(channel)
        host = _network(channel.getPeer())
        self._of_one[host] -= 1
        if self._of_one[host] <= 0:
            del self._of_one[host]
        if not self.open:
            self._watch.stop()
        self.on_close()
        self._fire_drained()

    def _fire_drained(self) -> None:
        if self._drained is not None and not self._drained.called and not self.open:
            self._drained.callback(None)

    def log(self, request: Any) -> None:
        """A request is answered."""
        self._log_access(request)

    def lost(self, request: StreamingRequest) -> None:
        """The client of a request went away: 499 in the log, as nginx has it; nobody is there to be told."""
        request.setResponseCode(499, b"Client Closed Request")
        self._log_access(request)

    def acceptableProtocols(self) -> list[bytes]:  # noqa: N802 - Twisted's name
        """HTTP/1.1 and nothing else: HTTP/2 streams call requests in another order."""
        return [b"http/1.1"]
