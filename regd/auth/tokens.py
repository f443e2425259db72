"""
Tokens: who has one, signed by somebody who is trusted, is who it says, and may do what it says (RFC 7519, and Docker's token
specification).

A token names the key that it is signed with, or brings a certificate of it. Both only choose among the keys that the configuration trusts,
or that an authority does which it trusts.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import jwt
from cryptography import x509
from OpenSSL import crypto

from regd.auth.authenticator import Refused
from regd.auth.keys import PublicKey, fits, from_jwk, names_of
from regd.auth.users import Grant, User
from regd.config.error import ConfigError

__all__ = ["Expectation", "Keys", "Tokens", "bearer", "scope_of"]

#: A token is not longer, in characters; a head of a request hardly is.
_LONGEST: Final = 32 * 1024

#: So many tokens are remembered until they expire.
_REMEMBERED: Final = 1024

#: A chain of certificates has no more.
_LONGEST_CHAIN: Final = 8

#: A token names no more repositories.
_MOST_GRANTS: Final = 256

#: In this order actions stand in a scope; registry:2 has the same.
_ORDER: Final = {"pull": 0, "push": 1, "delete": 2}


@dataclass(frozen=True)
class Keys:
    """
    What is trusted.

    :ivar named: keys by all that they are called.
    :ivar roots: certificates that chains have to end at.
    """

    named: Mapping[str, PublicKey]
    roots: tuple[x509.Certificate, ...] = ()

    @classmethod
    def parse(cls, *, bundle: tuple[str, bytes] | None = None, jwks: tuple[str, bytes] | None = None) -> Keys:
        """
        Read files.

        :param bundle: the path and the content of ``rootcertbundle``: certificates in PEM.
        :param jwks: those of ``jwks``: a set of keys (RFC 7517, section 5).
        :raises ConfigError: when one holds something else, or nothing that is of use.
        """
        named: dict[str, PublicKey] = {}
        roots: tuple[x509.Certificate, ...] = ()
        if bundle is not None:
            roots = _certificates(*bundle)
            for root in roots:
                key: Any = root.public_key()
                named.update(dict.fromkeys(names_of(key), key))
        if jwks is not None:
            named.update(_jwks(*jwks))
        return cls(named, roots)


def _certificates(path: str, data: bytes) -> tuple[x509.Certificate, ...]:
    end = b"-----END CERTIFICATE-----"
    found = []
    for part in data.split(end)[:-1]:
        try:
            found.append(x509.load_pem_x509_certificate(part[max(part.rfind(b"-----BEGIN"), 0) :] + end + b"\n"))
        except ValueError:
            which = f"certificate {len(found) + 1}"
            raise ConfigError(f"auth.token.rootcertbundle: {path}: {which} cannot be read; allowed: certificates in PEM") from None
    if not found:
        raise ConfigError(f"auth.token.rootcertbundle: {path}: found no certificate in it, allowed: one or more, in PEM")
    return tuple(found)


def _jwks(path: str, data: bytes) -> dict[str, PublicKey]:
    where = f"auth.token.jwks: {path}"
    try:
        listed = json.loads(data)["keys"]
        entries = [(number, dict(entry)) for number, entry in enumerate(listed)]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ConfigError(f'{where}: found no set of keys in it, allowed: {{"keys": [...]}} as in RFC 7517') from None
    found: dict[str, PublicKey] = {}
    for number, entry in entries:
        try:
            key = from_jwk(entry)
        except ValueError:
            raise ConfigError(f"{where}: keys[{number}] is not the key that its kty says") from None
        if key is None or entry.get("use", "sig") != "sig":
            continue
        found.update(dict.fromkeys(names_of(key), key))
        if isinstance(entry.get("kid"), str):
            found[entry["kid"]] = key
    if not found:
        raise ConfigError(f"{where}: found no public key for signatures in it: kty RSA, EC or OKP")
    return found


@dataclass(frozen=True)
class Expectation:
    """
    What a token has to say.

    :ivar algorithms: what it may be signed with.
    :ivar leeway: by so many seconds may clocks differ.
    :ivar groups: the claim that holds the groups of a user.
    :ivar bare: whether one without ``access`` is good for whatever the rules allow; else it is good for nothing.
    """

    issuer: str
    service: str
    algorithms: tuple[str, ...]
    leeway: float = 60.0
    groups: str = "groups"
    bare: bool = False


class Tokens:
    """
    The way in for who has a token (RFC 6750).

    :param realm: where tokens are to be had, for a request that came by this URL of the registry, without a slash at its end.
    :param secret: what tokens of ours are signed with that nobody else checks; instead of keys.
    """

    scheme = "bearer"
    #: A token expires.
    lasting = False

    def __init__(
        self,
        keys: Keys,
        expected: Expectation,
        realm: Callable[[str], str],
        secret: bytes = b"",
        now: Callable[[], float] = time.time,
    ) -> None:
        self._keys = keys
        self._expected = expected
        self._realm = realm
        self._secret = secret
        self._now = now
        self._known: OrderedDict[bytes, tuple[User, float]] = OrderedDict()

    def challenge(self, base: str, wanted: Sequence[Grant], problem: str) -> str:
        """See :class:`~regd.auth.authenticator.Authenticator`."""
        return bearer(self._realm(base), self._expected.service, wanted, problem)

    def check(self, credentials: str) -> User:
        """See :class:`~regd.auth.authenticator.Authenticator`. The signature of a new token takes some 100 µs."""
        if len(credentials) > _LONGEST:
            raise Refused("the token is too long")
        key = hashlib.sha256(credentials.encode("latin-1", "replace")).digest()
        known = self._known.get(key)
        if known is not None:
            if self._now() < known[1]:
                self._known.move_to_end(key)
                return known[0]
            del self._known[key]
        user, expires = self._verify(credentials.strip())
        self._known[key] = user, expires
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return user

    def _verify(self, token: str) -> tuple[User, float]:
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.InvalidTokenError, ValueError, TypeError, RecursionError):
            raise Refused("what came is not a token (RFC 7519)") from None
        algorithm = header.get("alg")
        if not isinstance(algorithm, str) or algorithm not in self._expected.algorithms:
            raise Refused("the token is signed with an algorithm that is not allowed")
        if "crit" in header:
            raise Refused("the token has extensions that have to be understood, and are not")
        key: Any = self._secret or self._key(header)
        if not self._secret and not fits(key, algorithm):
            raise Refused("the key of the token is not one for its algorithm")
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                options={"verify_signature": True, "verify_exp": False, "verify_nbf": False, "verify_iat": False, "verify_aud": False},
            )
        except (jwt.InvalidTokenError, ValueError, TypeError, RecursionError) as error:
            raise Refused(f"the token is not good: {type(error).__name__}") from None
        return self._user(claims)

    def _key(self, header: Mapping[str, Any]) -> PublicKey:
        chain = header.get("x5c")
        if chain is not None:
            return self._chained(chain)
        kid = header.get("kid")
        if kid is None and len(set(map(id, self._keys.named.values()))) == 1:
            return next(iter(self._keys.named.values()))
        key = self._keys.named.get(kid) if isinstance(kid, str) else None
        if key is None:
            raise Refused("the key of the token is none that is trusted")
        return key

    def _chained(self, chain: object) -> PublicKey:
        """The key of the first certificate of a chain that ends at a root (RFC 7515, section 4.1.6)."""
        if not isinstance(chain, list) or not 0 < len(chain) <= _LONGEST_CHAIN or not self._keys.roots:
            raise Refused("the chain of certificates of the token is none that could be trusted")
        try:
            found = [x509.load_der_x509_certificate(base64.b64decode(str(one), validate=True)) for one in chain]
            store = crypto.X509Store()
            for root in self._keys.roots:
                store.add_cert(crypto.X509.from_cryptography(root))
            others = [crypto.X509.from_cryptography(one) for one in found[1:]]
            crypto.X509StoreContext(store, crypto.X509.from_cryptography(found[0]), others).verify_certificate()
            key: Any = found[0].public_key()
        except (ValueError, binascii.Error, crypto.Error, crypto.X509StoreContextError):
            raise Refused("the chain of certificates of the token is not good, or ends at none that is trusted") from None
        public: PublicKey = key
        return public

    def _user(self, claims: Mapping[str, Any]) -> tuple[User, float]:
        expected, now = self._expected, self._now()
        audience = claims.get("aud")
        if claims.get("iss") != expected.issuer:
            raise Refused("the token is of another issuer")
        if audience != expected.service and not (isinstance(audience, list) and expected.service in audience):
            raise Refused("the token is for another service")
        expires = _moment(claims, "exp")
        if expires is None or now >= expires + expected.leeway:
            raise Refused("the token has expired")
        begins = _moment(claims, "nbf")
        if begins is not None and now < begins - expected.leeway:
            raise Refused("the token is not good yet")
        name = claims.get("sub", "")
        if not isinstance(name, str) or not name.isprintable() or len(name) > 256:
            raise Refused("the token has a subject that cannot be a name")
        groups = claims.get(expected.groups, [])
        if not isinstance(groups, list) or not all(isinstance(group, str) for group in groups):
            groups = []
        grants = _grants(claims["access"]) if claims.get("access") is not None else None
        if grants is None and not expected.bare:
            grants = ()
        return User(name, frozenset(groups), grants), expires + expected.leeway


def _moment(claims: Mapping[str, Any], name: str) -> float | None:
    """
    A NumericDate (RFC 7519, section 2).

    :raises Refused: when it is none.
    """
    found = claims.get(name)
    if found is None:
        return None
    if isinstance(found, bool) or not isinstance(found, int | float) or not -1e12 < found < 1e12:
        raise Refused(f"the token has an {name} that is no time")
    return float(found)


def _grants(said: object) -> tuple[Grant, ...]:
    """
    ``access``.

    :raises Refused: when it is not what Docker's specification says.
    """
    if not isinstance(said, list) or len(said) > _MOST_GRANTS:
        raise Refused("the token has an access that is no list, or a long one")
    found = []
    for entry in said:
        kind = entry.get("type") if isinstance(entry, dict) else None
        name, actions = (entry.get("name"), entry.get("actions")) if isinstance(entry, dict) else (None, None)
        if not isinstance(kind, str) or not isinstance(name, str) or not isinstance(actions, list | None):
            raise Refused("the token has an access with an entry that is none")
        found.append(Grant(kind, name, frozenset(action for action in actions or () if isinstance(action, str))))
    return tuple(found)


def scope_of(grant: Grant) -> str:
    """What a client has to ask for to get this: ``repository:a:pull,push``."""
    actions = sorted(grant.actions, key=lambda action: (_ORDER.get(action, 9), action))
    return f"{grant.type}:{grant.name}:{','.join(actions)}"


def bearer(realm: str, service: str, wanted: Sequence[Grant], problem: str) -> str:
    """The challenge of Docker's token specification (RFC 6750, section 3)."""
    parts = {"realm": realm, "service": service, "scope": " ".join(map(scope_of, wanted)), "error": problem}
    return "Bearer " + ",".join(f'{name}="{_quoted(value)}"' for name, value in parts.items() if value)


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')
