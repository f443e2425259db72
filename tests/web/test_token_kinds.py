"""Each endpoint by each kind of token of somebody else's service, good and bad: status, challenge and body."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from twisted.internet.defer import Deferred

from regd.auth.keys import to_jwk
from tests.web.support import OCTETS
from tests.web.test_access import AccessCase, login
from tests.web.wire import Answer

KEY: Final = rsa.generate_private_key(65537, 2048)
OTHER: Final = rsa.generate_private_key(65537, 2048)
JWKS: Final = json.dumps({"keys": [{**to_jwk(KEY.public_key()), "kid": "one"}]}).encode()
REALM: Final = 'Bearer realm="https://t.example/token",service="here"'

CONFIG: Final = """
version: 0.1
storage: {inmemory: {}, delete: {enabled: true}}
auth: {token: {realm: "https://t.example/token", service: here, issuer: them, jwks: /jwks}}
"""

ALL: Final = ("pull", "push", "delete")
#: The kinds whose signature is good, with what they grant.
GRANTING: Final[dict[str, tuple[str, ...]]] = {"pull": ("pull",), "push": ("pull", "push"), "delete": ("delete",), "admin": ALL}
#: Those that are good and grant something else, or nothing.
ELSEWHERE: Final = ("another repository", "a longer name", "another type", "no access")
BAD: Final = (
    *("expired", "not yet", "another issuer", "another service", "another key", "no key of that name"),
    *("alg=none", "alg=None", "key confusion", "no signature", "half of it", "nothing", "garbage"),
)


def encoded(value: Any) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def claims_of(kind: str, name: str) -> dict[str, Any]:
    """
    :return: What a token of a kind says.
    """
    now = int(time.time())
    elsewhere = {"another repository": f"{name}x", "a longer name": f"{name}/b"}
    kind_of_thing = "plugin" if kind == "another type" else "repository"
    access = [{"type": kind_of_thing, "name": elsewhere.get(kind, name), "actions": list(GRANTING.get(kind, ALL))}]
    claims = {"iss": "them", "aud": "here", "sub": "somebody", "nbf": now - 9, "exp": now + 99, "access": access}
    other: dict[str, dict[str, Any]] = {
        "expired": {"exp": now - 3600},
        "not yet": {"nbf": now + 3600},
        "another issuer": {"iss": "others"},
        "another service": {"aud": "there"},
    }
    claims |= other.get(kind, {})
    if kind == "no access":
        del claims["access"]
    return claims


def token(kind: str, name: str) -> str:
    """
    :return: One of a kind, for a repository.
    """
    key = OTHER if kind in {"another key", "no key of that name"} else KEY
    header = {"kid": "two" if kind == "no key of that name" else "one"}
    signed = jwt.encode(claims_of(kind, name), key, "RS256", headers=header)
    head, payload, signature = signed.split(".")
    # Signed by the public key as a secret that two share, which everybody knows.
    public = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    confused = f"{encoded({'alg': 'HS256', 'typ': 'JWT', 'kid': 'one'})}.{payload}"
    forged = {
        "alg=none": f"{encoded({'alg': 'none', 'typ': 'JWT', 'kid': 'one'})}.{payload}.",
        "alg=None": f"{encoded({'alg': 'None', 'typ': 'JWT', 'kid': 'one'})}.{payload}.",
        "key confusion": f"{confused}.{encoded(hmac.digest(public, confused.encode(), hashlib.sha256))}",
        "no signature": f"{head}.{payload}.",
        "half of it": f"{head}.{payload}.{signature[:20]}",
        "nothing": "",
        "garbage": "e30.e30.e30",
    }
    return forged.get(kind, signed)


class KindsTests(AccessCase):
    config = CONFIG

    def start(self) -> None:
        self.service.serving.start({"/jwks": JWKS})
        self.addCleanup(lambda: Deferred.fromCoroutine(self.service.serving.close()))

    def administrator(self, target: str) -> list[tuple[str, str]]:
        """Their token is for the repository of the path."""
        name = target.removeprefix("/v2/").partition("/blobs/")[0].partition("/manifests/")[0]
        return [("Authorization", f"Bearer {token('admin', name)}")]

    def by_kind(self, kind: str, name: str, method: str, target: str, body: bytes | None) -> Answer:
        fields = [OCTETS] if body is not None else []
        if kind == "a password":
            fields += login("admin")
        elif kind != "none":
            fields.append(("Authorization", f"Bearer {token(kind, name)}"))
        return self.ask(method, target, fields, body)

    def test_each_by_each(self) -> None:
        for name in ("team/a", "team/no"):
            for method, target, body, action, statuses in self.endpoints(name):
                scope = f',scope="repository:{name}:{"pull,push" if action == "push" else action}"'
                for kind in ("none", "a password", *GRANTING, *ELSEWHERE, *BAD):
                    answer = self.by_kind(kind, name, method, target, body)
                    case = (kind, method, target, answer)
                    if action in GRANTING.get(kind, ()):
                        self.assertIn(answer.status, statuses, case)
                        self.assertIsNone(answer.get("WWW-Authenticate"), case)
                        continue
                    error = ""
                    if kind in GRANTING or kind in ELSEWHERE:
                        error = ',error="insufficient_scope"'
                    elif kind in BAD:
                        error = ',error="invalid_token"'
                    self.assertEqual((answer.status, answer.get("WWW-Authenticate")), (401, f"{REALM}{scope}{error}"), case)
                    if method != "HEAD":
                        (problem,) = json.loads(answer.body)["errors"]
                        self.assertEqual(problem["code"], "UNAUTHORIZED", case)

    def test_the_base_and_the_catalog(self) -> None:
        for kind in ("none", *GRANTING, *ELSEWHERE, *BAD):
            base, catalog = (self.by_kind(kind, "team/a", "GET", target, None) for target in ("/v2/", "/v2/_catalog"))
            self.assertEqual(base.status, 200 if kind in GRANTING or kind in ELSEWHERE else 401, kind)
            self.assertEqual(catalog.status, 401, kind)
            self.assertIn('scope="registry:catalog:*"', catalog["WWW-Authenticate"])
