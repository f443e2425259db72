"""Who is let in: credentials of a request to a user, and a user and a repository to yes, no, or a challenge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from regd.auth.authenticator import Authenticator, Busy, Refused
from regd.auth.rules import Rules
from regd.auth.users import ANONYMOUS, Action, Grant, User, granted
from regd.errors import Denied, TooManyRequests, Unauthorized
from regd.names import RepositoryName
from regd.telemetry.asking import peer
from regd.web.door import Door
from regd.web.limits import Rates
from regd.web.request import StreamingRequest
from regd.web.urls import Urls

__all__ = ["Guard"]

#: When a client may come again whose password could not be checked, in seconds.
_AGAIN: Final = {"Retry-After": "1"}

#: What a client needs to be granted for each action: who pushes looks, too.
_WANTED: Final = {"pull": frozenset({"pull"}), "push": frozenset({"pull", "push"}), "delete": frozenset({"delete"})}

_CATALOG: Final = Grant("registry", "catalog", frozenset({"*"}))


class Guard:
    """
    Stands before the handlers.

    :param authenticators: the ways to log in; where there are none, nobody has a name but by a certificate. The first one challenges.
    :param rates: how often each may ask.
    :param door: slows down who comes with a wrong password again and again.
    :param certificates: whether a client's certificate says who it is, where it says nothing else.
    """

    _log = Logger()

    def __init__(
        self,
        rules: Rules,
        authenticators: Sequence[Authenticator],
        urls: Urls,
        *,
        certificates: bool = False,
        rates: Rates | None = None,
        door: Door | None = None,
    ) -> None:
        self._rules = rules
        self._urls = urls
        self._authenticators = {one.scheme: one for one in authenticators}
        self._certificates = certificates
        self._rates = rates
        self._door = door
        self._first = authenticators[0] if authenticators else None
        #: Whether it is any use to ask for a name.
        self._asks = self._first is not None and rules.name_helps

    async def identify(self, request: StreamingRequest, *wanted: Grant) -> User:
        """
        Who asks. A client says it with each request; on one connection it is found out once for the same words.

        :param wanted: what for; a client whose token is not good any more gets another one for that.
        :raises Unauthorized: when somebody says who they are and does not show it: also where nobody need say anything, because who has
            mistyped a password wants to know.
        :raises TooManyRequests: when it cannot be checked now.
        """
        said = request.requestHeaders._rawHeaders.get(b"Authorization")
        if said is None or self._first is None:
            name = request.channel.certified if self._certificates else ""
            self._count(request, name)
            return User(name) if name else ANONYMOUS
        known = request.channel.known
        if known is not None and known[0] is self and known[1] == said:
            user: User = known[2]
        else:
            user = await self._check(request, said, wanted)
        self._count(request, user.name)
        return user

    def _count(self, request: StreamingRequest, name: str) -> None:
        # Some requests ask twice who it is.
        if self._rates is not None and name and not request.user_name:
            self._rates.ask_as(name)
        request.user_name = name

    async def identify_by_password(self, request: StreamingRequest) -> User:
        """
        As :meth:`identify`, for who wants a token: one is not to be had for another.

        :raises Unauthorized: with a challenge that asks for a password.
        """
        basic = self._authenticators.get("basic")
        said = request.requestHeaders._rawHeaders.get(b"Authorization")
        challenge = "" if basic is None else basic.challenge("", (), "")
        if said is not None and not said[0].lower().startswith(b"basic"):
            raise Unauthorized("a password is needed here", headers={"WWW-Authenticate": challenge})
        try:
            return await self.identify(request)
        except Unauthorized:
            raise Unauthorized(headers={"WWW-Authenticate": challenge}) from None

    async def admit(self, request: StreamingRequest, name: RepositoryName, action: Action) -> bool:
        """
        Whether somebody may do this.

        :returns: no only for one who has to be told what a registry says that has no such repository.
        :raises Unauthorized: when they may not, and could if they said who they are, or had a token for it.
        :raises Denied: when they may not.
        """
        wanted = Grant("repository", name, _WANTED[action])
        user = await self.identify(request, wanted)
        if granted(user, "repository", name, action):
            if self._rules.allows(user, name, action):
                return True
            if user.name or not self._asks:
                if action == "pull" and request.method in {b"GET", b"HEAD"}:
                    return False
                raise Denied(detail=_detail("repository", name, action))
        raise self._unauthorized(request, user, wanted)

    async def admit_to_catalog(self, request: StreamingRequest) -> Callable[[RepositoryName], bool]:
        """
        Which repositories somebody may see in the list of all: those that the rules let them pull from.

        :raises Unauthorized: as :meth:`admit`, as for :exc:`Denied`.
        """
        user = await self.identify(request, _CATALOG)
        if granted(user, "registry", "catalog", "*"):
            if self._rules.allows(user, "", "catalog"):
                return lambda name: self._rules.allows(user, name, "pull")
            if user.name or not self._asks:
                raise Denied(detail=_detail("registry", "catalog", "*"))
        raise self._unauthorized(request, user, _CATALOG)

    async def admit_to_base(self, request: StreamingRequest) -> None:
        """
        ``/v2/`` is where clients learn whether there is a way to log in, docker only there; so who has no name is asked for one wherever a
        name could be of use.

        :raises Unauthorized: likewise.
        """
        user = await self.identify(request)
        if user is ANONYMOUS and self._asks:
            raise self._unauthorized(request, user)

    async def may_pull(self, request: StreamingRequest, name: RepositoryName) -> bool:
        """Whether who asks may read another repository than that of the request."""
        user = await self.identify(request)
        return granted(user, "repository", name, "pull") and self._rules.allows(user, name, "pull")

    async def _check(self, request: StreamingRequest, said: Sequence[bytes], wanted: Sequence[Grant]) -> User:
        scheme, _, credentials = said[0].decode("latin-1").strip().partition(" ")
        authenticator = self._authenticators.get(scheme.lower()) or self._authenticators.get("")
        try:
            if authenticator is None or len(said) != 1:
                raise Refused(f"there is no way to log in by {scheme[:32]!r}" if len(said) == 1 else "Authorization is there twice")
            found = authenticator.check(credentials) if self._door is None else self._door.check(request, authenticator, credentials)
            user = await found if isinstance(found, Deferred) else found
        except Refused as error:
            if self._door is not None:
                self._door.failed(request)
            self._log.warn("{address} is not let in: {reason}", address=peer(request.getClientAddress())[0] or "-", reason=str(error))
            problem = "invalid_token" if scheme.lower() == "bearer" else ""
            raise Unauthorized(headers=self._challenge(request, wanted, problem)) from None
        except Busy:
            raise TooManyRequests("too many passwords are being checked, try again", headers=_AGAIN) from None
        if authenticator.lasting and request.channel is not None:
            request.channel.known = self, said, user
        return user

    def _unauthorized(self, request: StreamingRequest, user: User, *wanted: Grant) -> Unauthorized:
        problem = "" if user.grants is None else "insufficient_scope"
        detail = [entry for grant in wanted for action in sorted(grant.actions) for entry in _detail(grant.type, grant.name, action)]
        return Unauthorized(detail=detail or None, headers=self._challenge(request, wanted, problem))

    def _challenge(self, request: StreamingRequest, wanted: Sequence[Grant], problem: str) -> dict[str, str]:
        assert self._first is not None, "nobody is asked for what nobody could check"
        return {"WWW-Authenticate": self._first.challenge(self._urls.base(request), wanted, problem)}


def _detail(kind: str, name: str, action: str) -> list[dict[str, str]]:
    """What was wanted, as registry:2 says it."""
    return [{"Type": kind, "Class": "", "Name": name, "Action": action}]
