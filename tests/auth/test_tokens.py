"""Tokens: which are good, and all the ways not to be."""

from __future__ import annotations

import base64
import datetime
import hmac
import json
from collections.abc import Mapping
from typing import Any

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regd.auth.authenticator import Refused
from regd.auth.keys import ALGORITHMS, names_of, to_jwk
from regd.auth.tokens import Expectation, Keys, Tokens
from regd.auth.users import Grant, User
from regd.config import ConfigError

NOW = 1_800_000_000.0
RSA = rsa.generate_private_key(65537, 2048)
SMALL = rsa.generate_private_key(65537, 1024)
CURVES = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}
EC = {name: ec.generate_private_key(curve) for name, curve in CURVES.items()}
ED = ed25519.Ed25519PrivateKey.generate()
OTHER = rsa.generate_private_key(65537, 2048)


def key_for(algorithm: str) -> Any:
    return RSA if algorithm[:2] in {"RS", "PS"} else EC.get(algorithm, ED)


def jwks(*keys: Any) -> tuple[str, bytes]:
    return "/jwks", json.dumps({"keys": [to_jwk(key.public_key()) for key in keys]}).encode()


def claims(**changes: object) -> dict[str, object]:
    said = {"iss": "them", "aud": "us", "sub": "alice", "exp": NOW + 60, "nbf": NOW, "iat": NOW, "access": [], **changes}
    return {name: value for name, value in said.items() if value is not None}


def sign(key: Any, algorithm: str, said: Mapping[str, Any] | None = None, **headers: object) -> str:
    kid = {} if isinstance(key, bytes | str) or key is None or "x5c" in headers else {"kid": names_of(key.public_key())[0]}
    return jwt.encode(dict(said or claims()), key, algorithm=algorithm, headers={**kid, **headers})


def certificate(key: Any, issuer_key: Any, subject: str, issuer: str, *, ca: bool = False, days: int = 1) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    begin, end = now - datetime.timedelta(days=2), now + datetime.timedelta(days=days)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .sign(issuer_key, hashes.SHA256())
    )


def chain(*certificates: x509.Certificate) -> list[str]:
    return [base64.b64encode(one.public_bytes(Encoding.DER)).decode() for one in certificates]


class TokensTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.now = NOW
        self.tokens = self.make(Keys.parse(jwks=jwks(RSA, *EC.values(), ED)))

    def make(self, keys: Keys, *, bare: bool = False) -> Tokens:
        expected = Expectation("them", "us", ALGORITHMS, 5.0, bare=bare)
        return Tokens(keys, expected, lambda base: f"{base}/t", now=lambda: self.now)

    def refused(self, token: str, tokens: Tokens | None = None) -> str:
        return str(self.assertRaises(Refused, (tokens or self.tokens).check, token))

    def test_every_algorithm(self) -> None:
        for algorithm in ALGORITHMS:
            self.assertEqual(self.tokens.check(sign(key_for(algorithm), algorithm)), User("alice", frozenset(), ()))

    def test_what_it_lets_do(self) -> None:
        access = [
            {"type": "repository", "name": "a/b", "actions": ["pull", "push"]},
            {"type": "registry", "name": "catalog", "actions": ["*"]},
        ]
        found = self.tokens.check(sign(RSA, "RS256", claims(access=access, groups=["g"])))
        grants = (Grant("repository", "a/b", frozenset({"pull", "push"})), Grant("registry", "catalog", frozenset({"*"})))
        self.assertEqual(found, User("alice", frozenset({"g"}), grants))
        bare = self.make(Keys.parse(jwks=jwks(RSA)), bare=True)
        self.assertIsNone(bare.check(sign(RSA, "RS256", claims(access=None))).grants)
        self.assertEqual(self.tokens.check(sign(RSA, "RS256", claims(access=None))).grants, ())

    def test_claims(self) -> None:
        for changes, reason in (
            ({"iss": "others"}, "another issuer"),
            ({"iss": None}, "another issuer"),
            ({"aud": "others"}, "another service"),
            ({"aud": None}, "another service"),
            ({"aud": ["a", "b"]}, "another service"),
            ({"exp": NOW - 6}, "expired"),
            ({"exp": None}, "expired"),
            ({"exp": "soon"}, "no time"),
            ({"exp": True}, "no time"),
            ({"nbf": NOW + 6}, "not good yet"),
            ({"access": {}}, "access"),
            ({"access": ["a"]}, "access"),
            ({"access": [{"type": "repository", "name": 1, "actions": []}]}, "access"),
            ({"access": [{"type": "repository", "name": "a", "actions": "pull"}]}, "access"),
            ({"sub": "a\nb"}, "subject"),
        ):
            reason_found = self.refused(sign(RSA, "RS256", claims(**changes)))
            self.assertTrue(reason in reason_found or "InvalidS" in reason_found, (changes, reason_found))
        for fine in ({"exp": NOW - 4}, {"nbf": NOW + 4}, {"nbf": None}, {"aud": ["x", "us"]}, {"iat": NOW + 1000}):
            self.tokens.check(sign(RSA, "RS256", claims(**fine)))

    def test_a_remembered_one_expires(self) -> None:
        token = sign(RSA, "RS256")
        self.tokens.check(token)
        self.now += 64
        self.tokens.check(token)
        self.now += 1.1
        self.assertIn("expired", self.refused(token))

    def test_no_signature_and_a_key_that_is_none(self) -> None:
        self.refused(sign(None, "none"))
        self.refused(sign(OTHER, "RS256"))
        self.refused(sign(OTHER, "RS256", kid=names_of(RSA.public_key())[0]))
        self.refused(sign(RSA, "RS256", crit=["exp"]))
        self.refused(sign(RSA, "RS256").rpartition(".")[0] + ".")
        small = self.make(Keys.parse(jwks=jwks(SMALL)))
        self.refused(sign(SMALL, "RS256"), small)

    def test_a_public_key_is_no_secret(self) -> None:
        """The key is known to everybody; as an HMAC's, everybody could sign with it."""
        pem = RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        head = base64.urlsafe_b64encode(json.dumps({"alg": "HS256", "kid": names_of(RSA.public_key())[0]}).encode()).rstrip(b"=")
        body = base64.urlsafe_b64encode(json.dumps(claims()).encode()).rstrip(b"=")
        forged = base64.urlsafe_b64encode(hmac.digest(pem, head + b"." + body, "sha256")).rstrip(b"=")
        self.assertIn("algorithm", self.refused(b".".join((head, body, forged)).decode()))
        # A key of one kind for the algorithm of another.
        for algorithm in ALGORITHMS:
            for kid in (names_of(RSA.public_key())[0], names_of(ED.public_key())[0], names_of(EC["ES384"].public_key())[0]):
                token = sign(key_for(algorithm), algorithm, kid=kid)
                if kid != names_of(key_for(algorithm).public_key())[0]:
                    self.refused(token)

    def test_names_of_keys(self) -> None:
        bundle = certificate(RSA, RSA, "root", "root", ca=True)
        tokens = self.make(Keys.parse(bundle=("/b", bundle.public_bytes(Encoding.PEM))))
        for kid in names_of(RSA.public_key()):
            self.assertEqual(tokens.check(sign(RSA, "RS256", kid=kid)).name, "alice")
        self.assertRegex(names_of(RSA.public_key())[2], r"([A-Z2-7]{4}:){11}[A-Z2-7]{4}")
        named = {"keys": [{**to_jwk(RSA.public_key()), "kid": "mine"}, {"kty": "oct", "k": "AAAA", "kid": "secret"}]}
        tokens = self.make(Keys.parse(jwks=("/j", json.dumps(named).encode())))
        self.assertEqual(tokens.check(sign(RSA, "RS256", kid="mine")).name, "alice")
        self.refused(jwt.encode(claims(), b"\0" * 3, algorithm="HS256", headers={"kid": "secret"}), tokens)

    def test_chains(self) -> None:
        root = certificate(OTHER, OTHER, "root", "root", ca=True)
        middle_key, leaf_key = EC["ES256"], RSA
        middle = certificate(middle_key, OTHER, "middle", "root", ca=True)
        leaf = certificate(leaf_key, middle_key, "leaf", "middle")
        tokens = self.make(Keys.parse(bundle=("/b", b"text\n" + root.public_bytes(Encoding.PEM))))
        self.assertEqual(tokens.check(sign(leaf_key, "RS256", x5c=chain(leaf, middle))).name, "alice")
        self.assertEqual(tokens.check(sign(leaf_key, "RS256", x5c=chain(leaf, middle, root))).name, "alice")
        no_ca = certificate(middle_key, OTHER, "middle", "root")
        own = certificate(leaf_key, leaf_key, "root", "root", ca=True)
        expired = certificate(leaf_key, middle_key, "leaf", "middle", days=-1)
        for wrong in (chain(leaf), chain(leaf, no_ca), chain(own), chain(expired, middle), [], "x", [1], ["%"], chain(leaf, middle) * 5):
            self.refused(sign(leaf_key, "RS256", x5c=wrong), tokens)
        self.refused(sign(OTHER, "RS256", x5c=chain(leaf, middle)), tokens)

    @given(st.text(max_size=200))
    def test_anything(self, text: str) -> None:
        self.refused(text)

    @given(st.data())
    def test_a_changed_one_is_none(self, data: st.DataObject) -> None:
        token = sign(ED, "EdDSA")
        place = data.draw(st.integers(0, len(token) - 1))
        character = data.draw(st.sampled_from("ABCabc019-_.= "))
        changed = token[:place] + character + token[place + 1 :]
        try:
            self.tokens.check(changed)
        except Refused:
            return
        # The last character of base64 has bits that mean nothing.
        self.assertEqual(changed.rpartition(".")[0], token.rpartition(".")[0])

    def test_challenge(self) -> None:
        wanted = [Grant("repository", "a/b", frozenset({"push", "pull"})), Grant("registry", "catalog", frozenset({"*"}))]
        self.assertEqual(
            self.tokens.challenge("https://h/x", wanted, "insufficient_scope"),
            'Bearer realm="https://h/x/t",service="us",scope="repository:a/b:pull,push registry:catalog:*",error="insufficient_scope"',
        )
        self.assertEqual(self.tokens.challenge("http://h", (), ""), 'Bearer realm="http://h/t",service="us"')

    def test_files_that_are_none(self) -> None:
        for file in (b"", b"{", b"[]", b'{"keys": 1}', b'{"keys": [1]}', b'{"keys": []}', b'{"keys": [{"kty": "RSA", "n": "A"}]}', b"\xff"):
            self.assertRaises(ConfigError, Keys.parse, jwks=("/j", file))
        wrong = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
        for file in (b"", wrong):
            self.assertRaises(ConfigError, Keys.parse, bundle=("/b", file))
