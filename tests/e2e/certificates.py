"""Certificates that a test makes: an authority of its own, servers that it vouches for, and some that are wrong in one way."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

__all__ = ["Authority", "Certificate"]

_NAME = "the test's authority"
_DAY = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Certificate:
    """
    A certificate with its key.

    :ivar certfile: the certificate, in PEM.
    :ivar keyfile: the key, in PEM.
    """

    certificate: x509.Certificate
    key: rsa.RSAPrivateKey
    certfile: Path
    keyfile: Path

    def server(self) -> ssl.SSLContext:
        """
        :return: what a server with this certificate needs.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certfile, self.keyfile)
        return context


class Authority:
    """
    A certificate authority that nobody knows yet.

    :param directory: for its files; made where it is missing.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        key = _new_key()
        builder = _builder(_NAME, key).add_extension(x509.BasicConstraints(True, None), True)
        self.own = self._write("authority", builder.sign(key, hashes.SHA256()), key)

    @property
    def cafile(self) -> Path:
        """Its own certificate, in PEM: what clients are to trust."""
        return self.own.certfile

    def issue(self, *names: str, days: int = 2) -> Certificate:
        """
        :param names: host names and addresses that it is for.
        :param days: for how long; below 0 for one that is over.
        :return: a certificate of this authority.
        """
        key = _new_key()
        alternatives = [_alternative(name) for name in names]
        builder = (
            _builder(names[0], key, days=days)
            .add_extension(x509.BasicConstraints(False, None), True)
            .add_extension(x509.SubjectAlternativeName(alternatives), False)
        )
        return self._write(f"{names[0]}-{days}", builder.sign(self.own.key, hashes.SHA256()), key)

    def _write(self, name: str, certificate: x509.Certificate, key: rsa.RSAPrivateKey) -> Certificate:
        certfile, keyfile = self._directory / f"{name}.pem", self._directory / f"{name}.key"
        certfile.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        keyfile.write_bytes(
            key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption())
        )
        return Certificate(certificate, key, certfile, keyfile)


def _new_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _builder(subject: str, key: rsa.RSAPrivateKey, *, days: int = 2) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, _NAME)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - 3 * _DAY)
        .not_valid_after(now + days * _DAY)
    )
