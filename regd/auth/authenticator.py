"""Who can tell whether somebody is who they say: the seam between the guard of the registry and the ways to show it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from twisted.internet.defer import Deferred

from regd.auth.users import Grant, User

__all__ = ["Authenticator", "Busy", "Refused"]


class Refused(Exception):
    """What was shown shows nothing. The reason is for the log: it holds neither passwords nor tokens."""


class Busy(Exception):
    """So many are being checked that this one has to come again later."""


class Authenticator(Protocol):
    """
    Checks what comes in ``Authorization`` (RFC 9110, section 11).

    :ivar scheme: the one that it understands, in lower case; empty for all.
    :ivar lasting: whether somebody who has shown who they are stays that for as long as the connection lasts.
    """

    @property
    def scheme(self) -> str:
        """See above."""

    @property
    def lasting(self) -> bool:
        """See above."""

    def check(self, credentials: str) -> User | Deferred[User]:
        """
        Who it is that says this.

        :param credentials: what follows the scheme.
        :returns: at once where that costs next to nothing.
        :raises Refused: when it is nobody; the Deferred fails with it, too.
        :raises Busy: when it cannot be checked now.
        """

    def challenge(self, base: str, wanted: Sequence[Grant], problem: str) -> str:
        """
        What ``WWW-Authenticate`` says to somebody who is to come again with a name (RFC 9110, section 11.6.1).

        :param base: the URL that the client knows this registry by, without a slash at its end; empty where that is not known.
        :param wanted: what they wanted to do.
        :param problem: what was wrong with what they have shown: nothing, ``invalid_token`` or ``insufficient_scope``.
        """
