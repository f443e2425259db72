"""
Certificates that are asked for: ACME (RFC 8555), by certbot's library.

What is kept lies in one directory, in the form that ``registry:2`` (Go's ``autocert``) has: a file for each name, its key first and its
certificates after it, and the key of the account. This is the one module that imports the library, and it is imported only where
certificates are asked for. Everything here waits for servers, so it runs in a thread.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import josepy
from acme import challenges, client, errors, messages
from acme.crypto_util import make_csr
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import NameOID

from regd.config import LetsEncrypt

__all__ = ["CannotObtain", "is_placeholder", "obtain", "place"]

_LETS_ENCRYPT: Final = "https://acme-v02.api.letsencrypt.org/directory"

#: The file of the account's key, as Go's autocert calls it.
_ACCOUNT: Final = "acme_account+key"

#: How long the server may take to look, in seconds.
_PATIENCE: Final = 120

#: For how long a certificate is made that stands in for the first one, which clients do not trust.
_STAND_IN: Final = timedelta(days=30)


class CannotObtain(Exception):
    """There is no certificate to be had now; ``str()`` says why."""


def place(settings: LetsEncrypt) -> None:
    """
    Have a file for each name, so that there is something to serve: where there is none, a certificate that nobody has signed.

    :raises OSError: when the directory cannot be written to.
    """
    Path(settings.cachefile).mkdir(mode=0o700, parents=True, exist_ok=True)
    for host in settings.hosts:
        path = Path(settings.cachefile, host)
        if not path.exists():
            _write(path, _stand_in(host))


def is_placeholder(certificate: x509.Certificate) -> bool:
    """Whether nobody else has signed it."""
    return certificate.issuer == certificate.subject


def obtain(settings: LetsEncrypt, host: str, publish: Callable[[str, str], None]) -> None:
    """
    Get a certificate for a name, and keep it.

    :param publish: called with the path of a URL at which the server is going to look, by plain HTTP at port 80, and with what it has to
        find there.
    :raises CannotObtain: when there is none to be had.
    :raises OSError: when it cannot be kept.
    """
    key = _pem(ec.generate_private_key(ec.SECP256R1()))
    try:
        asking = _asking(settings)
        order = asking.new_order(make_csr(key, [host]))
        for authorization in order.authorizations:
            offered = [one for one in authorization.body.challenges if isinstance(one.chall, challenges.HTTP01)]
            if not offered:
                raise CannotObtain(f"{host}: the server does not offer to look at port 80 (http-01), and regd has no other way")
            response, content = offered[0].response_and_validation(asking.net.key)
            publish(offered[0].chall.path, content)
            asking.answer_challenge(offered[0], response)
        # The library compares it with times that have no zone.
        deadline = datetime.now() + timedelta(seconds=_PATIENCE)  # noqa: DTZ005 - see above
        chain = asking.poll_and_finalize(order, deadline).fullchain_pem.encode("ascii")
    except errors.ValidationError as error:
        raise CannotObtain(f"{host}: {_reasons(error)}") from None
    except CannotObtain:
        raise
    except Exception as error:  # noqa: BLE001 - those of the library, of requests below it, and of what the server says
        raise CannotObtain(f"{host}: {str(error).partition(chr(10))[0] or type(error).__name__}") from None
    _write(Path(settings.cachefile, host), key + chain)


# Any: the library is looked at as if it were not there, for whoever has not installed it.
def _asking(settings: LetsEncrypt) -> Any:
    key = josepy.JWKEC(key=_account(settings))
    network = client.ClientNetwork(key, alg=josepy.ES256, user_agent="regd")
    directory = client.ClientV2.get_directory(settings.directoryurl or _LETS_ENCRYPT, network)
    asking = client.ClientV2(directory, network)
    wanted = messages.NewRegistration.from_data(email=settings.email or None, terms_of_service_agreed=True)
    try:
        asking.new_account(wanted)
    except errors.ConflictError as known:
        asking.query_registration(messages.RegistrationResource(uri=known.location, body=messages.Registration()))
    return asking


def _account(settings: LetsEncrypt) -> ec.EllipticCurvePrivateKey:
    path = Path(settings.cachefile, _ACCOUNT)
    if path.exists():
        found = load_pem_private_key(path.read_bytes(), None)
        if isinstance(found, ec.EllipticCurvePrivateKey) and isinstance(found.curve, ec.SECP256R1):
            return found
        raise CannotObtain(f"{path}: found another key than one of P-256, allowed: such a key, or no file")
    made = ec.generate_private_key(ec.SECP256R1())
    _write(path, _pem(made))
    return made


def _reasons(error: Any) -> str:
    """What the server has found, as it says it."""
    said = [
        str(challenge.error.detail)
        for authorization in error.failed_authzrs
        for challenge in authorization.body.challenges
        if challenge.error is not None
    ]
    return "; ".join(said) or "the server is not convinced"


def _stand_in(host: str) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host[:64])])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + _STAND_IN)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return _pem(key) + made.public_bytes(Encoding.PEM)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())


def _write(path: Path, content: bytes) -> None:
    """Have a file that only we may read, whole or not at all."""
    fd, other = tempfile.mkstemp(prefix=".new-", dir=path.parent)
    try:
        with open(fd, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(fd)
        os.replace(other, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(other)
        raise
