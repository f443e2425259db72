"""How much of a registry one client, or all of them, may have: connections, uploads, requests."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.logger import Logger
from twisted.web.resource import IResource

from regd.errors import TooManyRequests
from regd.web.dispatch import Dispatcher
from regd.web.forwarded import find_client, network_of, said_chain
from regd.web.leaf import Leaf
from regd.web.rates import Rate, RateTable
from regd.web.request import StreamingRequest
from regd.web.response import Response

__all__ = ["Limited", "Rates", "UploadSlots", "client_of"]

_Handler = Callable[..., Awaitable[Response]]

#: When to come again who wants to upload beside too many others, in seconds.
_AGAIN: Final = {"Retry-After": "5"}

#: How often it is told that somebody asks too often, in seconds: each time would be one more thing to flood.
_TOLD_EVERY: Final = 60.0


def client_of(request: StreamingRequest, trusts: Callable[[str], bool]) -> str:
    """The address of the client, which is that of the peer unless that is a trusted proxy; empty for a Unix socket."""
    found = request.getClientAddress()
    if not isinstance(found, IPv4Address | IPv6Address):
        return ""
    peer = found.host.removeprefix("::ffff:")
    if not trusts(peer):
        return peer
    return find_client(peer, said_chain(request.header_values), request.getHeader("X-Real-IP") or "", trusts)


@dataclass(frozen=True)
class Rates:
    """
    How often each user, and each address, may ask.

    :ivar user: ``None`` for no limit, as is ``address``.
    """

    table: RateTable
    user: Rate | None
    address: Rate | None

    def ask_as(self, name: str) -> None:
        """
        One request more of a user.

        :raises TooManyRequests: when that is too many.
        """
        if self.user is not None and name:
            _refuse_late(self.table.take(f"user {name}", self.user, time.monotonic()))

    def ask_from(self, address: str) -> None:
        """
        One request more of an address.

        :raises TooManyRequests: when that is too many.
        """
        if self.address is not None and address:
            _refuse_late(self.table.take(f"address {network_of(address)}", self.address, time.monotonic()))


def _refuse_late(late: float) -> None:
    if late:
        raise TooManyRequests("you ask more often than this registry allows", headers={"Retry-After": str(math.ceil(late))})


class Limited(Leaf):
    """
    Stands before all that answers, where addresses have a limit.

    :param behind: what answers who may ask.
    """

    _log = Logger()

    def __init__(self, behind: IResource, rates: Rates, trusts: Callable[[str], bool], dispatcher: Dispatcher) -> None:
        self._behind = behind
        self._rates = rates
        self._trusts = trusts
        self._dispatcher = dispatcher
        self._told = -_TOLD_EVERY

    def render(self, request: StreamingRequest) -> object:
        """Answer a request, or refuse it."""
        address = client_of(request, self._trusts)
        try:
            self._rates.ask_from(address)
        except TooManyRequests as error:
            refused = error
            self._tell(address)
        else:
            return self._behind.render(request)

        async def refuse() -> Response:
            raise refused

        return self._dispatcher.answering(refuse).render(request)

    def _tell(self, address: str) -> None:
        now = time.monotonic()
        if now - self._told >= _TOLD_EVERY:
            self._told = now
            self._log.warn("{address} asks more often than ratelimit.address allows, and is told so", address=address)


class UploadSlots:
    """
    :param most: how many requests at once may bring something; 0 for any number.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken = 0

    def limited(self, handler: _Handler) -> _Handler:
        """A handler that refuses what would be one too many."""
        if not self._most:
            return handler

        # Any: handlers have arguments of their own.
        async def run(*arguments: Any) -> Response:
            if self._taken >= self._most:
                raise TooManyRequests("too many uploads are under way, try again", headers=_AGAIN)
            self._taken += 1
            try:
                return await handler(*arguments)
            finally:
                self._taken -= 1

        return run
