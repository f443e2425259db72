"""Tokens of our own."""

from __future__ import annotations

import jwt
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regd.auth.issuing import MOST_SCOPES, Issuer, Signer, parse_scopes, token_secret
from regd.auth.keys import from_jwk
from regd.auth.rules import Rules
from regd.auth.users import ANONYMOUS, User
from regd.config import ConfigError, Rule

RULES = Rules([Rule(("anonymous",), ("public/**",), ("pull",)), Rule(("bob",), ("**",), ("pull", "push", "catalog"))], {})


def pem(key: object, password: bytes = b"") -> bytes:
    how = BestAvailableEncryption(password) if password else NoEncryption()
    found: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how)  # type: ignore[attr-defined]  # all keys have it
    return found


class ScopeTests(SynchronousTestCase):
    def test_table(self) -> None:
        for said, expected in (
            (["repository:a/b:pull,push"], [("repository", "a/b", {"pull", "push"})]),
            (["repository(plugin):a:pull"], [("repository", "a", {"pull"})]),
            (
                ["repository:a:pull repository:b:*", "registry:catalog:*"],
                [("repository", "a", {"pull"}), ("repository", "b", {"*"}), ("registry", "catalog", {"*"})],
            ),
            (["", "x", "repository:A:pull", "repository::pull", "repository:a", "other:a:pull", "repository:a:pull:x"], []),
        ):
            self.assertEqual([(grant.type, grant.name, set(grant.actions)) for grant in parse_scopes(said)], expected)
        self.assertEqual(len(parse_scopes([" ".join(["repository:a:pull"] * 1000)] * 3)), MOST_SCOPES)

    @given(st.lists(st.text(max_size=50), max_size=5))
    def test_anything(self, said: list[str]) -> None:
        parse_scopes(said)


class IssuerTests(SynchronousTestCase):
    def test_as_much_as_the_rules_allow(self) -> None:
        issuer = Issuer(Signer(b"x" * 32), RULES, 300.0, lambda: 1e9)
        scopes = parse_scopes(["repository:public/a:pull,push,delete registry:catalog:* repository:b:*"])
        for user, expected in (
            (ANONYMOUS, [("public/a", ["pull"])]),
            (User("bob"), [("public/a", ["pull", "push"]), ("catalog", ["*"]), ("b", ["pull", "push"])]),
        ):
            token, made = issuer.issue(user, scopes)
            self.assertEqual(made, 10**9)
            said = jwt.decode(token, b"x" * 32, algorithms=["HS256"], options={"verify_exp": False, "verify_aud": False})
            self.assertEqual([(entry["name"], entry["actions"]) for entry in said["access"]], expected)
            self.assertEqual((said["sub"], said["iss"], said["aud"], said["exp"] - said["iat"]), (user.name, "regd", "regd", 300))

    def test_keys(self) -> None:
        for key, algorithm in (
            (rsa.generate_private_key(65537, 2048), "RS256"),
            (ec.generate_private_key(ec.SECP256R1()), "ES256"),
            (ec.generate_private_key(ec.SECP521R1()), "ES512"),
            (ed25519.Ed25519PrivateKey.generate(), "EdDSA"),
        ):
            signer = Signer.parse("/k", pem(key))
            (entry,) = signer.jwks()["keys"]
            self.assertEqual(entry["alg"], algorithm)
            self.assertEqual(set(entry) & {"d", "p", "q", "k"}, set())
            public = from_jwk(entry)
            assert public is not None
            token = signer.sign({"a": 1})
            self.assertEqual(jwt.decode(token, public, algorithms=[algorithm]), {"a": 1})
            self.assertEqual(jwt.get_unverified_header(token)["kid"], entry["kid"])

    def test_files_that_are_none(self) -> None:
        good = ec.generate_private_key(ec.SECP256R1())
        for data in (
            b"",
            b"canary",
            pem(good, b"password"),
            pem(rsa.generate_private_key(65537, 1024)),
            pem(ec.generate_private_key(ec.SECP256K1())),
            pem(dsa.generate_private_key(1024)),
        ):
            error = self.assertRaises(ConfigError, Signer.parse, "/k", data)
            self.assertIn("auth.issuer.key: /k: found", str(error))
            self.assertNotIn("canary", str(error))

    def test_the_secret(self) -> None:
        self.assertEqual(token_secret("", b"made"), b"made")
        self.assertEqual(token_secret("s", b"made"), token_secret("s", b"other"))
        self.assertNotEqual(token_secret("s", b""), token_secret("t", b""))
