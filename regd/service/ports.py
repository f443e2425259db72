"""Where the daemon listens."""

from __future__ import annotations

from typing import Any

from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger

from regd.config import Config, TCPAddress, UnixAddress
from regd.service.systemd import BadSocket, Manager
from regd.web.listen import listen, listen_on
from regd.workers.group import Group

__all__ = ["CannotListen", "Ports"]


class CannotListen(Exception):
    """The reason is for the operator."""


class Ports:
    """
    The listening sockets of the daemon: those that were passed, and those of the configuration where there are none.

    :param reactor: ``Any``: a reactor is typed as the union of what reactors may be.
    :ivar serving: those of the registry.
    :ivar debug: that of ``/debug``, if there is one.
    :ivar redirect: that of plain HTTP beside TLS, if there is one.
    """

    _log = Logger()

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self.serving: list[IListeningPort] = []
        self.debug: IListeningPort | None = None
        self.redirect: IListeningPort | None = None

    # Any: Twisted's factories are generic in protocols that know them.
    def open(self, manager: Manager, config: Config, site: Any, debug_site: Any, redirect_site: Any, group: Group | None) -> None:
        """
        Listen.

        :param group: who accepts for the registry; if nobody is given, ``site`` does.
        :raises CannotListen: what is open then stays so.
        """
        try:
            passed = manager.take_sockets()
        except BadSocket as error:
            raise CannotListen(f"a socket that was passed is of no use: {error}") from None
        for one in passed.serving:
            self.serving.append(listen_on(self._reactor, one, site) if group is None else group.listen_on(one))
        if passed.serving:
            self._log.info("listening on sockets that were passed; http.addr, {address}, has no effect", address=config.http.addr)
        else:
            self.serving.append(self._listen("http.addr", config.http.addr, site, group))
        if passed.debug is not None:
            self.debug = listen_on(self._reactor, passed.debug, debug_site)
        elif config.http.debug.addr is not None:
            self.debug = self._listen("http.debug.addr", config.http.debug.addr, debug_site, None)
        if config.http.tls is not None and config.http.tls.redirect is not None:
            self.redirect = self._listen("http.tls.redirect", config.http.tls.redirect, redirect_site, None)

    @property
    def port(self) -> int:
        """The number of that of the registry."""
        return int(getattr(self.serving[0].getHost(), "port", 0))

    def _listen(self, key: str, address: TCPAddress | UnixAddress, site: Any, group: Group | None) -> IListeningPort:
        try:
            return listen(self._reactor, address, site) if group is None else group.listen(address)
        except CannotListenError as error:
            raise CannotListen(f"{key}: cannot listen on {address}: {error.socketError}; is something else there?") from None
