"""What a registry is told of who may use it: ``auth``, ``access`` and ``groups``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Auth", "Htpasswd", "Issuer", "Rule", "Silly", "TokenAuth"]


@dataclass(frozen=True)
class Htpasswd:
    """``auth.htpasswd``: passwords in a file, as bcrypt."""

    realm: str
    path: str


@dataclass(frozen=True)
class TokenAuth:
    """``auth.token``: tokens of a service somewhere else.

    :ivar realm: the URL of the service, for the challenge.
    :ivar service: who tokens have to be for.
    :ivar issuer: who has to have made them.
    :ivar rootcertbundle: a file of certificates in PEM: those that sign, or whose chains do; empty for none, as for ``jwks``.
    :ivar jwks: a file of keys (RFC 7517).
    :ivar signingalgorithms: what may be used, by the names of RFC 7518.
    :ivar autoredirect: whether ``realm`` is a path of the host that was asked.
    :ivar leeway: by so many seconds may clocks differ.
    :ivar groups: the claim that holds the groups of a user.
    """

    realm: str
    service: str
    issuer: str
    rootcertbundle: str = ""
    jwks: str = ""
    signingalgorithms: tuple[str, ...] = ()
    autoredirect: bool = False
    autoredirectpath: str = "/auth/token"
    leeway: float = 60.0
    groups: str = "groups"


@dataclass(frozen=True)
class Silly:
    """``auth.silly``: whoever says anything is believed."""

    realm: str
    service: str


@dataclass(frozen=True)
class Issuer:
    """``auth.issuer``: the token service of this daemon.

    :ivar key: a file with the private key in PEM.
    :ivar lifetime: of a token, in seconds.
    """

    key: str
    lifetime: float = 300.0


@dataclass(frozen=True)
class Auth:
    """``auth``; ``None`` for each way that is not configured."""

    htpasswd: Htpasswd | None = None
    token: TokenAuth | None = None
    silly: Silly | None = None
    issuer: Issuer | None = None


@dataclass(frozen=True)
class Rule:
    """One entry of ``access``.

    :ivar who: names of users, ``@`` and the name of a group, ``anonymous`` for everybody, ``*`` for everybody who has a name.
    :ivar repositories: patterns.
    :ivar actions: what is allowed there.
    """

    who: tuple[str, ...]
    repositories: tuple[str, ...]
    actions: tuple[Literal["pull", "push", "delete", "catalog"], ...]
