"""Certificates and keys in PEM (RFC 7468), as files have them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509.oid import ExtensionOID, NameOID

from regd.config import ConfigError

__all__ = ["Named", "as_file", "certificates", "check_key", "common_name", "names_of", "not_after", "not_before"]

_CERTIFICATE: Final = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


class Named:
    """
    What is in a file, and where its name stands, for messages.

    :param key: the key of the configuration.
    """

    def __init__(self, key: str, path: str, data: bytes) -> None:
        self.key = key
        self.path = path
        self.data = data

    def refuse(self, what: str, allowed: str) -> ConfigError:
        """The error that says what it is and should be."""
        return ConfigError(f'{self.key}: found "{self.path}", {what}, allowed: {allowed}')


def certificates(file: Named) -> list[x509.Certificate]:
    """
    The certificates of a file, at least one. There may be other things between them.

    :raises ConfigError: when there is none, or one is damaged.
    """
    blocks = _CERTIFICATE.findall(file.data)
    if not blocks:
        raise file.refuse("which has no BEGIN CERTIFICATE", "certificates in PEM")
    found = []
    for number, block in enumerate(blocks, 1):
        try:
            found.append(x509.load_pem_x509_certificate(block))
        except ValueError as error:
            where = f"of which number {number} is damaged" if len(blocks) > 1 else "which is damaged"
            raise file.refuse(f"{where} ({str(error).partition(chr(10))[0]})", "certificates in PEM") from None
    return found


def check_key(file: Named, certificate: x509.Certificate, whose: str) -> None:
    """
    Whether a file has the key of a certificate.

    :param whose: the path of the certificate's file.
    :raises ConfigError: when it has none, or that of another.
    """
    if b"ENCRYPTED" in file.data:
        # OpenSSL would ask the terminal for the passphrase.
        raise file.refuse("which is encrypted", "a private key in PEM without a passphrase, which nobody could type in here")
    try:
        pair = load_pem_private_key(file.data, None).public_key(), certificate.public_key()
        ours, theirs = (one.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) for one in pair)
    except Exception:  # noqa: BLE001 - cryptography's errors, which are of several kinds
        raise file.refuse("which has no key that could be read", "a private key in PEM") from None
    if ours != theirs:
        raise file.refuse(f"which is not the key of the first certificate in {whose}", "the key that it was issued for")


def names_of(certificate: x509.Certificate) -> tuple[str, ...]:
    """
    The names and addresses that a server's certificate is for, in lower case (RFC 6125, section 6.4): those of ``subjectAltName``, or
    the common name where there are none.
    """
    try:
        found = certificate.extensions.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME).value
        assert isinstance(found, x509.SubjectAlternativeName)
        addresses = [str(address) for address in found.get_values_for_type(x509.IPAddress)]
        names = [str(name).lower() for name in found.get_values_for_type(x509.DNSName)]
    except (x509.ExtensionNotFound, ValueError):
        common = common_name(certificate)
        return (common.lower(),) if common else ()
    return (*names, *addresses)


def common_name(certificate: x509.Certificate) -> str:
    """The common name of a subject, if it has exactly one; otherwise nothing."""
    found = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if len(found) == 1 else ""


def not_after(certificate: x509.Certificate) -> float:
    """When it expires, in seconds since the epoch."""
    return _moment(certificate, "not_valid_after")


def not_before(certificate: x509.Certificate) -> float:
    """When it begins to be valid, in seconds since the epoch."""
    return _moment(certificate, "not_valid_before")


def _moment(certificate: x509.Certificate, name: str) -> float:
    # Older versions of the library have no times with a zone; newer ones warn of those without.
    with_zone: datetime | None = getattr(certificate, f"{name}_utc", None)
    found: datetime = getattr(certificate, name).replace(tzinfo=UTC) if with_zone is None else with_zone
    return found.timestamp()


@contextmanager
def as_file(data: bytes) -> Iterator[str]:
    """The path of a file in memory, for a library that wants one: what is in it was read once, by who may read it."""
    fd = os.memfd_create("regd", os.MFD_CLOEXEC)
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(data)
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)
