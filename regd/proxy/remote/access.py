"""How a remote registry wants to be asked, learned from its answers: without credentials, with user and password, or with a token."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from regd.config.caching import CacheUpstream
from regd.proxy.remote.challenges import Challenge
from regd.proxy.remote.errors import Denied, RemoteError
from regd.proxy.remote.tokens import Realm, Tokens, basic

__all__ = ["BASIC", "Access", "Grant", "Way"]


class _Basic:
    """The scheme ``Basic``."""


#: What :data:`Way` is where user and password are sent.
BASIC: Final = _Basic()

#: How a request for one repository proves itself.
Way = Realm | _Basic

#: How many repositories whose scope is not the usual one are remembered.
_MOST: Final = 1000


@dataclass(frozen=True, slots=True, repr=False)
class Grant:
    """
    :ivar authorization: the field ``Authorization``.
    :ivar fresh: whether there is no better one to be had.
    """

    authorization: str
    fresh: bool


class Access:
    """What is known about one remote registry."""

    def __init__(self, upstream: CacheUpstream, tokens: Tokens) -> None:
        self._upstream = upstream
        self._tokens = tokens
        self._usual: Way | None = None
        self._scopes: OrderedDict[str, Realm] = OrderedDict()

    def way(self, name: str) -> Way | None:
        """
        What a request for this repository probably needs, by what others needed.

        :returns: ``None`` for nothing.
        """
        found = self._scopes.get(name)
        if found is not None:
            return found
        if isinstance(self._usual, Realm):
            return Realm(self._usual.url, self._usual.service, _scope(name))
        return self._usual

    def learn(self, name: str, challenges: Sequence[Challenge], what: str) -> Way:
        """
        The registry has asked for credentials.

        :param challenges: as it did. Who understands tokens and has them asked for, prefers them, as all clients do.
        :param what: was asked, for messages.
        :raises Denied: when we have none that it would take.
        """
        for challenge in challenges:
            url = challenge.parameters.get("realm", "")
            if challenge.scheme == "bearer" and url:
                realm = Realm(url, challenge.parameters.get("service", ""), challenge.parameters.get("scope", "") or _scope(name))
                self._remember(name, realm)
                return realm
        if not any(challenge.scheme == "basic" for challenge in challenges):
            asked = ", ".join(dict.fromkeys(challenge.scheme[:20] for challenge in challenges)) or "nothing that can be read"
            raise Denied(f"{what}: it answers 401 and asks for {asked}, where Bearer and Basic are understood")
        if not self._upstream.username:
            raise Denied(f"{what}: it answers 401 and wants a user and a password, and none is configured")
        self._usual = BASIC
        return BASIC

    async def grant(self, way: Way) -> Grant:
        """
        :raises RemoteError: when there is no token to be had. What was known of this registry is forgotten then: what it asked for once may
            not be what it asks for now, and it is heard again with the next request.
        """
        if isinstance(way, _Basic):
            return Grant(basic(self._upstream.username, self._upstream.password), fresh=True)
        token = self._tokens.at_hand(way)
        if token is not None:
            return Grant(f"Bearer {token}", fresh=False)
        try:
            return Grant(f"Bearer {await self._tokens.new(way)}", fresh=True)
        except RemoteError:
            self._usual = None
            self._scopes.clear()
            raise

    def drop(self, way: Way, grant: Grant) -> None:
        """The registry did not take this."""
        if isinstance(way, Realm):
            self._tokens.drop(way, grant.authorization.removeprefix("Bearer "))

    def _remember(self, name: str, realm: Realm) -> None:
        self._usual = realm
        self._scopes.pop(name, None)
        if realm.scope != _scope(name):
            self._scopes[name] = realm
            if len(self._scopes) > _MOST:
                self._scopes.popitem(last=False)


def _scope(name: str) -> str:
    """What pulling from a repository needs (token scope documentation of the distribution project)."""
    return f"repository:{name}:pull"
