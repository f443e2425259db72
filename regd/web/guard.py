"""Who is let in: credentials of a request to a user, and a user and a repository to yes, no, or a challenge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from regd.auth.authenticator import Authenticator, Busy, Refused
from regd.auth.rules import Rules
from regd.auth.users import ANONYMOUS, Action, User
from regd.errors import Denied, TooManyRequests, Unauthorized
from regd.names import RepositoryName
from regd.telemetry.asking import peer
from regd.web.request import StreamingRequest

__all__ = ["Guard"]

#: When a client may come again whose password could not be checked, in seconds.
_AGAIN: Final = {"Retry-After": "1"}


class Guard:
    """
    Stands before the handlers.

    :param authenticators: the ways to log in; where there are none, nobody has a name.
    """

    _log = Logger()

    def __init__(self, rules: Rules, authenticators: Sequence[Authenticator] = ()) -> None:
        self._rules = rules
        self._authenticators = {one.scheme: one for one in authenticators}
        #: Whether it is any use to ask for a name.
        self._asks = bool(authenticators) and rules.name_helps

    async def identify(self, request: StreamingRequest) -> User:
        """
        Who asks. A client says it with each request; on one connection it is found out once for the same words.

        :raises Unauthorized: when somebody says who they are and does not show it: also where nobody need say anything, because who has
            mistyped a password wants to know.
        :raises TooManyRequests: when it cannot be checked now.
        """
        said = request.requestHeaders._rawHeaders.get(b"Authorization")
        if said is None or not self._authenticators:
            return ANONYMOUS
        known = request.channel.known
        if known is not None and known[0] is self and known[1] == said:
            user: User = known[2]
        else:
            user = await self._check(request, said)
            if request.channel is not None:
                request.channel.known = self, said, user
        request.user_name = user.name
        return user

    async def admit(self, request: StreamingRequest, name: RepositoryName, action: Action) -> bool:
        """
        Whether somebody may do this.

        :returns: no only for one who has to be told what a registry says that has no such repository.
        :raises Unauthorized: when they may not, and could if they said who they are.
        :raises Denied: when they may not.
        """
        user = await self.identify(request)
        if self._rules.allows(user, name, action):
            return True
        if user is ANONYMOUS and self._asks:
            raise self._unauthorized({"Type": "repository", "Class": "", "Name": name, "Action": action})
        if action == "pull" and request.method in {b"GET", b"HEAD"}:
            return False
        raise Denied(detail=[{"Type": "repository", "Class": "", "Name": name, "Action": action}])

    async def admit_to_catalog(self, request: StreamingRequest) -> Callable[[RepositoryName], bool]:
        """
        Which repositories somebody may see in the list of all.

        :raises Unauthorized: as :meth:`admit`, as for :exc:`Denied`.
        """
        user = await self.identify(request)
        what = {"Type": "registry", "Class": "", "Name": "catalog", "Action": "*"}
        if not self._rules.allows(user, "", "catalog"):
            if user is ANONYMOUS and self._asks:
                raise self._unauthorized(what)
            raise Denied(detail=[what])
        return lambda name: self._rules.allows(user, name, "pull")

    async def admit_to_base(self, request: StreamingRequest) -> None:
        """
        ``/v2/`` is where clients learn whether there is a way to log in, docker only there; so who has no name is asked for one wherever a
        name could be of use.

        :raises Unauthorized: likewise.
        """
        if await self.identify(request) is ANONYMOUS and self._asks:
            raise self._unauthorized()

    async def may_pull(self, request: StreamingRequest, name: RepositoryName) -> bool:
        """Whether who asks may read another repository than that of the request."""
        return self._rules.allows(await self.identify(request), name, "pull")

    async def _check(self, request: StreamingRequest, said: Sequence[bytes]) -> User:
        scheme, _, credentials = said[0].decode("latin-1").strip().partition(" ")
        authenticator = self._authenticators.get(scheme.lower())
        try:
            if authenticator is None or len(said) != 1:
                raise Refused(f"there is no way to log in by {scheme[:32]!r}" if len(said) == 1 else "Authorization is there twice")
            found = authenticator.check(credentials)
            return await found if isinstance(found, Deferred) else found
        except Refused as error:
            self._log.warn("{address} is not let in: {reason}", address=peer(request.getClientAddress())[0], reason=str(error))
            raise self._unauthorized() from None
        except Busy:
            raise TooManyRequests("too many passwords are being checked, try again", headers=_AGAIN) from None

    def _unauthorized(self, *what: object) -> Unauthorized:
        challenges = ", ".join(one.challenge() for one in self._authenticators.values())
        return Unauthorized(detail=list(what) or None, headers={"WWW-Authenticate": challenges})
