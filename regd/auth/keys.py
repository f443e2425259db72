"""Public keys: how they are written down (RFC 7517), what they are called, and which algorithms (RFC 7518) they are for."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

__all__ = ["ALGORITHMS", "PublicKey", "fits", "from_jwk", "names_of", "to_jwk"]

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | ed448.Ed448PublicKey

#: All that a token may be signed with. Those with a shared secret are not among them: who can check such a token can make one.
ALGORITHMS: Final = ("EdDSA", "RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512")

_CURVES: Final = {"ES256": "secp256r1", "ES384": "secp384r1", "ES512": "secp521r1"}
_CURVE_NAMES: Final = {"secp256r1": ("P-256", 32), "secp384r1": ("P-384", 48), "secp521r1": ("P-521", 66)}

#: Shorter RSA keys can be broken, in bits.
_SHORTEST: Final = 2048


def fits(key: object, algorithm: str) -> bool:
    """Whether a key is one of an algorithm's. What a token says of itself decides nothing: a public key is no shared secret."""
    if algorithm.startswith(("RS", "PS")):
        return isinstance(key, rsa.RSAPublicKey) and key.key_size >= _SHORTEST
    if algorithm.startswith("ES"):
        return isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name == _CURVES.get(algorithm)
    return algorithm == "EdDSA" and isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey)


def from_jwk(said: Mapping[str, Any]) -> PublicKey | None:
    """
    The key that a JWK is.

    :param said: ``Any``: it is JSON.
    :returns: ``None`` for kinds of keys that no algorithm here is for; a private key becomes its public half.
    :raises ValueError: when it is not what its kind says.
    """
    kinds: dict[str, Any] = {"RSA": RSAAlgorithm, "EC": ECAlgorithm, "OKP": OKPAlgorithm}
    kind = kinds.get(str(said.get("kty")))
    if kind is None:
        return None
    try:
        key = kind.from_jwk(json.dumps({name: value for name, value in said.items() if name in {"kty", "n", "e", "crv", "x", "y"}}))
    except Exception as error:  # noqa: BLE001 - the library has many, and all of them mean this
        raise ValueError(str(error) or type(error).__name__) from None
    public: PublicKey = key
    return public


def to_jwk(key: PublicKey) -> dict[str, str]:
    """A key as a JWK, with what identifies it and nothing else (RFC 7638, section 3.2)."""
    if isinstance(key, rsa.RSAPublicKey):
        numbers = key.public_numbers()
        return {"e": _integer(numbers.e), "kty": "RSA", "n": _integer(numbers.n)}
    if isinstance(key, ec.EllipticCurvePublicKey):
        point = key.public_numbers()
        name, length = _CURVE_NAMES[key.curve.name]
        return {"crv": name, "kty": "EC", "x": _text(point.x.to_bytes(length, "big")), "y": _text(point.y.to_bytes(length, "big"))}
    name = "Ed25519" if isinstance(key, ed25519.Ed25519PublicKey) else "Ed448"
    return {"crv": name, "kty": "OKP", "x": _text(key.public_bytes(Encoding.Raw, PublicFormat.Raw))}


def names_of(key: PublicKey) -> tuple[str, ...]:
    """
    What a token may call a key that has no name: its thumbprint (RFC 7638), in base64url and, as CNCF distribution 3 has it, in
    hexadecimal; and what the libtrust of older versions makes of it.
    """
    names = []
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name in _CURVE_NAMES:
        digest = hashlib.sha256(json.dumps(to_jwk(key), separators=(",", ":")).encode()).digest()
        names += [_text(digest), digest.hex()]
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    trusted = base64.b32encode(hashlib.sha256(der).digest()[:30]).decode("ascii")
    return (*names, ":".join(trusted[start : start + 4] for start in range(0, len(trusted), 4)))


def _integer(number: int) -> str:
    return _text(number.to_bytes((number.bit_length() + 7) // 8, "big"))


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")
