"""The token service of this daemon: who has shown a password gets a token for what the rules allow, and so does who has none to show."""

from __future__ import annotations

import hmac
import re
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from regd.auth.keys import PublicKey, fits, names_of, to_jwk
from regd.auth.rules import Rules
from regd.auth.users import Action, Grant, User
from regd.config.error import ConfigError
from regd.errors import NameInvalid
from regd.names import RepositoryName

__all__ = ["ISSUER", "MOST_SCOPES", "Issuer", "Signer", "parse_scopes", "token_secret"]

#: Who has made our tokens, and, unless a client asks for another service, who they are for.
ISSUER: Final = "regd"

#: So many scopes are looked at.
MOST_SCOPES: Final = 64

_SCOPE: Final = re.compile(r"(repository|registry)(?:\([a-z0-9]+\))?:([^\s:]+(?::[0-9]+/[^\s:]+)?):([a-z*,]*)")

_REPOSITORY_ACTIONS: Final[tuple[Action, ...]] = ("pull", "push", "delete")


def token_secret(secret: str, made: bytes) -> bytes:
    """
    What tokens are signed with that only we check.

    :param secret: ``http.secret``, so that machines behind one name take each other's tokens; or nothing.
    :param made: random bytes that all processes of this daemon have.
    """
    return hmac.digest(secret.encode(), b"tokens of regd", "sha256") if secret else made


class Signer:
    """
    Signs.

    :param key: the private key, or the bytes of a secret.
    :ivar public: its public half, where it has one.
    :ivar secret: the secret, where it is one.
    """

    def __init__(self, key: Any) -> None:
        self._key = key
        self.secret = key if isinstance(key, bytes) else b""
        self.public: PublicKey | None = None if isinstance(key, bytes) else key.public_key()
        if isinstance(key, rsa.RSAPrivateKey):
            self.algorithm = "RS256"
        elif isinstance(key, ec.EllipticCurvePrivateKey):
            self.algorithm = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}.get(key.curve.name, "")
        else:
            self.algorithm = "HS256" if isinstance(key, bytes) else "EdDSA"

    @classmethod
    def parse(cls, path: str, data: bytes) -> Signer:
        """
        Read a private key.

        :raises ConfigError: when it is none, or one that tokens cannot be signed with.
        """
        allowed = "allowed: a private key in PEM without a password: RSA of 2048 bits or more, EC (P-256, P-384, P-521) or Ed25519"
        try:
            key: Any = load_pem_private_key(data, None)
        except (ValueError, TypeError):
            raise ConfigError(f"auth.issuer.key: {path}: found no such key in it, {allowed}") from None
        if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey):
            raise ConfigError(f"auth.issuer.key: {path}: found a key of another kind, {allowed}")
        made = cls(key)
        if not fits(made.public, made.algorithm):
            raise ConfigError(f"auth.issuer.key: {path}: found a key of another size, {allowed}")
        return made

    def jwks(self) -> dict[str, list[dict[str, str]]]:
        """The public half as a set of keys (RFC 7517, section 5), for others who are to trust it; without a key, an empty one."""
        if self.public is None:
            return {"keys": []}
        return {"keys": [{**to_jwk(self.public), "kid": names_of(self.public)[0], "use": "sig", "alg": self.algorithm}]}

    def sign(self, claims: dict[str, object]) -> str:
        """A token with these claims."""
        headers = None if self.public is None else {"kid": names_of(self.public)[0]}
        return jwt.encode(claims, self._key, algorithm=self.algorithm, headers=headers)


class Issuer:
    """
    Makes tokens.

    :param lifetime: of each, in seconds.
    """

    def __init__(self, signer: Signer, rules: Rules, lifetime: float, now: Callable[[], float] = time.time) -> None:
        self.signer = signer
        self.lifetime = lifetime
        self._rules = rules
        self._now = now

    def issue(self, user: User, scopes: Sequence[Grant], service: str = ISSUER) -> tuple[str, int]:
        """
        A token for as much of what was asked for as the rules allow.

        :returns: the token, and when it was made, in seconds since the epoch.
        """
        now = int(self._now())
        access = [
            {"type": grant.type, "name": grant.name, "actions": actions} for grant in scopes if (actions := self._allowed(user, grant))
        ]
        claims: dict[str, object] = {
            "iss": ISSUER,
            "sub": user.name,
            "aud": service,
            "exp": now + int(self.lifetime),
            "nbf": now,
            "iat": now,
            "jti": str(uuid.uuid4()),
            "access": access,
        }
        return self.signer.sign(claims), now

    def _allowed(self, user: User, grant: Grant) -> list[str]:
        if grant.type == "registry":
            return ["*"] if grant.name == "catalog" and self._rules.allows(user, "", "catalog") else []
        wanted = [action for action in _REPOSITORY_ACTIONS if action in grant.actions or "*" in grant.actions]
        return [action for action in wanted if self._rules.allows(user, grant.name, action)]


def parse_scopes(said: Iterable[str]) -> tuple[Grant, ...]:
    """
    What a client asks for: ``repository:a/b:pull,push`` and ``registry:catalog:*``, several separated by spaces or in several parameters.

    :returns: those that are scopes, :data:`MOST_SCOPES` at most; others are no business of ours.
    """
    found: list[Grant] = []
    for text in said:
        for one in text.split(" ")[: MOST_SCOPES + 1]:
            match = _SCOPE.fullmatch(one)
            if match is None:
                continue
            if match[1] == "repository":
                try:
                    RepositoryName.parse(match[2])
                except NameInvalid:
                    continue
            found.append(Grant(match[1], match[2], frozenset(filter(None, match[3].split(",")))))
    return tuple(found[:MOST_SCOPES])
