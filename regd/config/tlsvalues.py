"""What a listener that speaks TLS is told: ``http.tls``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

from regd.config.addresses import TCPAddress

__all__ = ["HSTS", "MODES", "TLS", "ClientAuth", "KeyPair", "LetsEncrypt", "MinimumTLS"]

ClientAuth = Literal["request-client-cert", "require-any-client-cert", "verify-client-cert-if-given", "require-and-verify-client-cert"]
MinimumTLS = Literal["tls1.2", "tls1.3"]

#: All of :data:`ClientAuth`.
MODES: Final[tuple[ClientAuth, ...]] = get_args(ClientAuth)


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

    :ivar cachefile: the directory that the account and the certificates are kept in, as ``registry:2`` keeps them.
    :ivar hosts: each gets a certificate of its own.
    :ivar directoryurl: of an ACME server; empty for that of Let's Encrypt.
    """

    cachefile: str
    hosts: tuple[str, ...]
    email: str = ""
    directoryurl: str = ""

    def pairs(self) -> tuple[KeyPair, ...]:
        """The files of the certificates, each with its key in it."""
        return tuple(KeyPair(f"{self.cachefile}/{host}", f"{self.cachefile}/{host}") for host in self.hosts)


@dataclass(frozen=True)
class TLS:
    """``http.tls``.

    :ivar letsencrypt: where the pairs come from, if nobody puts them there.
    :ivar pairs: the first is for clients that name no server, or one that no certificate is for.
    :ivar clientcas: files in PEM with the authorities that clients' certificates are from.
    :ivar clientauth: ``None`` where clients are not asked for one.
    :ivar ciphersuites: by the names of Go and IANA; empty for those that regd offers by itself. They are about TLS 1.2 only.
    :ivar redirect: where a listener sends clients of plain HTTP to this one.
    """

    pairs: tuple[KeyPair, ...]
    clientcas: tuple[str, ...] = ()
    clientauth: ClientAuth | None = None
    minimumtls: MinimumTLS = "tls1.2"
    ciphersuites: tuple[str, ...] = ()
    redirect: TCPAddress | None = None
    hsts: HSTS = HSTS()
    letsencrypt: LetsEncrypt | None = None

    @property
    def certificate(self) -> str:
        """That of the first pair."""
        return self.pairs[0].certificate

    @property
    def key(self) -> str:
        """That of the first pair."""
        return self.pairs[0].key

    @property
    def certificates(self) -> tuple[KeyPair, ...]:
        """The other pairs."""
        return self.pairs[1:]

    @property
    def verifies(self) -> bool:
        """Whether clients' certificates are verified, so that they say who a client is."""
        return self.clientauth is not None and "verify" in self.clientauth
