"""Those who try one password after the other: each address that has failed a few times has to wait for its turn."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from regd.auth.authenticator import Authenticator, Busy
from regd.auth.users import User
from regd.web.forwarded import network_of
from regd.web.limits import client_of
from regd.web.rates import Rate, RateTable
from regd.web.request import StreamingRequest

__all__ = ["Door"]

#: So many failures of an address are nobody's business; after that, each turn comes two seconds after the one before.
_FAILURES: Final = Rate(2.0, 10)

#: Who would have to wait longer than so many seconds is told to come again.
_LONGEST: Final = 10.0


class Door:
    """
    Checks credentials, not too many wrong ones in a row.

    Who is known already, from this connection or a check before, does not come by here twice; so a robot with an old password slows down
    only those behind its address who log in anew.

    :param table: what has been tried, by all processes.
    :param trusts: whether what a peer says of who asks is believed.
    :param reactor: ``Any``: a reactor is typed as the union of what reactors may be.
    :ivar failures: how many times somebody was not who they said.
    """

    def __init__(self, table: RateTable, trusts: Callable[[str], bool], reactor: Any) -> None:
        self._table = table
        self._trusts = trusts
        self._reactor = reactor
        self.failures = 0

    def check(self, request: StreamingRequest, authenticator: Authenticator, credentials: str) -> User | Deferred[User]:
        """
        As :meth:`~regd.auth.authenticator.Authenticator.check`, when it is the client's turn.

        :raises Busy: when that would take too long.
        """
        wait = self._table.line_up(self._key(request), _FAILURES, time.monotonic())
        if not wait:
            return authenticator.check(credentials)
        if wait > _LONGEST:
            raise Busy
        # Any: what a Deferred is called back with may be a Deferred, which no type says.
        waiting: Any = deferLater(self._reactor, wait)
        waiting.addCallback(lambda _: authenticator.check(credentials))
        found: Deferred[User] = waiting
        return found

    def failed(self, request: StreamingRequest) -> None:
        """What was shown showed nothing."""
        self.failures += 1
        self._table.add(self._key(request), _FAILURES, time.monotonic())

    def _key(self, request: StreamingRequest) -> str:
        return f"login {network_of(client_of(request, self._trusts))}"
