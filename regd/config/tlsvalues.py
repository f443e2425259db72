"""What a listener that speaks TLS is told: ``http.tls``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from regd.config.addresses import TCPAddress

__all__ = ["HSTS", "TLS", "ClientAuth", "KeyPair", "LetsEncrypt"]

ClientAuth = Literal[
    "request-client-cert", "require-any-client-cert", "verify-client-cert-if-given", "require-and-verify-client-cert"
]


@dataclass(frozen=True)
class KeyPair:
    """A certificate with its chain, and its key: files in PEM."""

    certificate: str
    key: str


@dataclass(frozen=True)
class HSTS:
    """``http.tls.hsts`` (RFC 6797).

    :ivar maxage: seconds for which a browser asks by TLS only; 0 for no such field.
    """

    maxage: float = 0.0
    includesubdomains: bool = False


@dataclass(frozen=True)
class LetsEncrypt:
    """``http.tls.letsencrypt``.

    :ivar cachefile: the directory that the account and certificates are kept in.
    :ivar directoryurl: of an ACME server; empty for that of Let's Encrypt.
    """

    cachefile: str
    hosts: tuple[str, ...]
    email: str = ""
    directoryurl: str = ""


@dataclass(frozen=True)
class TLS:
    """``http.tls``.

    :ivar certificates: the first is for clients that name no server, or one that no certificate is for.
    :ivar clientcas: files in PEM with the authorities that clients' certificates are from.
    :ivar clientauth: ``None`` where clients are not asked for one.
    :ivar ciphersuites: by the names of Go and IANA; empty for those that regd offers by itself. They are about TLS 1.2 only.
    :ivar redirect: where a listener sends clients of plain HTTP to this one.
    """

    certificates: tuple[KeyPair, ...]
    clientcas: tuple[str, ...] = ()
    clientauth: ClientAuth | None = None
    minimumtls: Literal["tls1.2", "tls1.3"] = "tls1.2"
    ciphersuites: tuple[str, ...] = ()
    letsencrypt: LetsEncrypt | None = None
    redirect: TCPAddress | None = None
    hsts: HSTS = HSTS()
