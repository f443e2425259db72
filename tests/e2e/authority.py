"""Upstreams that ask who is there: Debian's docker-registry with htpasswd or with tokens, and a server of such tokens."""

from __future__ import annotations

import base64
import json
import secrets
import time
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding

from tests.e2e.certificates import Authority, Certificate
from tests.e2e.daemon import Peer
from tests.e2e.proxying import Exchange, Upstream

__all__ = ["BASIC", "PASSWORD", "SERVICE", "USERNAME", "GuardedPeer", "TokenServer", "with_htpasswd", "with_tokens"]

# Not to be found in any log, answer or listing of regd.
USERNAME, PASSWORD = "canary-user", "canary-password-7Kq"

# What ``htpasswd -nbB`` makes of them.
HTPASSWD = f"{USERNAME}:$2b$05$abcdefghijklmnopqrstuuVunw4Eqi2dseGj0kn.B1proLP55.rnm\n"

#: The value of Authorization that belongs to them (RFC 7617).
BASIC = "Basic " + base64.b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode()

SERVICE = "the test's registry"


class TokenServer:
    """
    Gives out tokens as Docker's token specification describes: JSON web tokens that docker-registry believes (RFC 7519, RS256, ``x5c``).

    :param directory: for its certificate.
    :ivar issued: all tokens so far.
    :ivar asked: the request lines so far, with the value of Authorization that came with each.
    :ivar lifetime: of the next tokens, in seconds.
    :ivar grants: the actions that are granted to who asks for them.
    :ivar anonymous: whether those without credentials get tokens that count, too.
    """

    def __init__(self, directory: Path) -> None:
        authority = Authority(directory)
        self._signer: Certificate = authority.issue("the token server")
        self.bundle = authority.cafile
        self.issued: list[str] = []
        self.asked: list[tuple[str, str]] = []
        self.lifetime = 300
        self.grants = {"pull"}
        self.anonymous = False
        self.upstream = Upstream(self._answer)

    @property
    def realm(self) -> str:
        return f"{self.upstream.url}/token"

    def challenge(self, exchange: Exchange) -> str:
        """
        The guard of an origin that believes these tokens.

        :return: the challenge for whoever has none for this repository.
        """
        path = exchange.line.split(" ")[1]
        name = path.removeprefix("/v2/").partition("/manifests/")[0].partition("/blobs/")[0].partition("/tags/")[0]
        given = (exchange.all("authorization") or [""])[0].removeprefix("Bearer ")
        if given in self.issued and (path == "/v2/" or f"repository:{name}:pull" in self._scopes(given)):
            return ""
        scope = "" if path == "/v2/" else f',scope="repository:{name}:pull"'
        return f'Bearer realm="{self.realm}",service="{SERVICE}"{scope}'

    def close(self) -> None:
        """End it."""
        self.upstream.close()

    @staticmethod
    def _scopes(token: str) -> str:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return " ".join(f"{access['type']}:{access['name']}:{','.join(access['actions'])}" for access in claims["access"])

    def _answer(self, exchange: Exchange) -> bool:
        target = exchange.line.split(" ")[1]
        authorization = (exchange.all("authorization") or [""])[0]
        self.asked.append((exchange.line, authorization))
        query = parse_qs(urlsplit(target).query)
        if authorization not in {BASIC, ""} or (not authorization and not self.anonymous):
            exchange.send(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")
            return True
        token = self._token(query.get("service", [""])[0], query.get("scope", []))
        self.issued.append(token)
        content = json.dumps({"token": token, "expires_in": self.lifetime}).encode()
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(content) + content)
        return True

    def _token(self, service: str, scopes: list[str]) -> str:
        now = int(time.time())
        access = []
        for scope in " ".join(scopes).split():
            kind, _, rest = scope.partition(":")
            name, _, actions = rest.rpartition(":")
            access.append({"type": kind, "name": name, "actions": [action for action in actions.split(",") if action in self.grants]})
        claims = {
            "iss": "the test",
            "sub": "anybody",
            "aud": service,
            "exp": now + self.lifetime,
            "nbf": now - 10,
            "iat": now,
            "jti": secrets.token_hex(8),
            "access": access,
        }
        certificate = self._signer.certificate.public_bytes(serialization.Encoding.DER)
        header = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(certificate).decode()]}
        signed = f"{_encoded(json.dumps(header).encode())}.{_encoded(json.dumps(claims).encode())}"
        return f"{signed}.{_encoded(self._signer.key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


def _encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


class GuardedPeer(Peer):
    """Debian's docker-registry, which is ready as soon as it asks who is there."""

    def _answers(self) -> bool:
        try:
            return self.client.get("/v2/").status == 401
        except OSError:
            return False


def with_htpasswd(directory: Path, data: Path) -> GuardedPeer:
    """
    :param data: the root directory of its storage, with what has been pushed there before.
    :return: a docker-registry that knows one user.
    """
    peer = GuardedPeer(directory, data)
    path = directory / "htpasswd"
    path.write_text(HTPASSWD, encoding="ascii")
    _add(peer, f"auth:\n  htpasswd:\n    realm: somewhere\n    path: {path}\n")
    return peer


def with_tokens(directory: Path, data: Path, tokens: TokenServer) -> GuardedPeer:
    """
    :param data: as in :func:`with_htpasswd`.
    :return: a docker-registry that wants tokens.
    """
    peer = GuardedPeer(directory, data)
    told = f"    realm: {tokens.realm}\n    service: {SERVICE}\n    issuer: the test\n    rootcertbundle: {tokens.bundle}\n"
    _add(peer, f"auth:\n  token:\n{told}")
    return peer


def _add(peer: Peer, section: str) -> None:
    peer.configuration.write_text(peer.configuration.read_text(encoding="utf-8") + section, encoding="utf-8")
