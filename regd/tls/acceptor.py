"""What TLS connections are accepted with, made of ``http.tls`` and its files."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL
from OpenSSL.crypto import X509StoreFlags
from twisted.logger import Logger

from regd.config import TLS, ConfigError
from regd.config.watched import Files, pair_section
from regd.tls.ciphers import cipher_list
from regd.tls.pem import Named, as_file, certificates, check_key, common_name, names_of, not_after

__all__ = ["TLSAcceptor", "Tally"]

#: Not all versions of pyOpenSSL have a name for it: a client has no reason to begin anew on a connection, but to keep us busy.
_NO_RENEGOTIATION: Final[int] = getattr(SSL, "OP_NO_RENEGOTIATION", 1 << 30)

_LEAST: Final = {"tls1.2": SSL.TLS1_2_VERSION, "tls1.3": SSL.TLS1_3_VERSION}

#: HTTP/1.1 (RFC 7301, section 6).
_PROTOCOL: Final = b"http/1.1"

#: What is not to be taken for anybody: it is how rules call those who have no name, and all who have one, and groups.
_NOBODY: Final = frozenset({"", "anonymous", "*"})


@dataclass(slots=True)
class Tally:
    """How many handshakes there have been, whatever the configuration was."""

    complete: int = 0
    failed: int = 0


class TLSAcceptor:
    """
    The certificates of one configuration, chosen by the name that a client asks for (RFC 6066, section 3).

    :param files: those that :func:`regd.config.watched.named_files` says.
    :param tally: goes on counting.
    :ivar expiry: when each certificate expires, in seconds since the epoch, by the path of its file.
    :raises ConfigError: when a file is not what it should be.
    """

    _log = Logger()

    def __init__(self, tls: TLS, files: Files, tally: Tally) -> None:
        self._tally = tally
        self._by_name: dict[str, SSL.Context] = {}
        self._verifies = tls.verifies
        authorities = [Named(f"http.tls.clientcas[{index}]", path, files[path]) for index, path in enumerate(tls.clientcas)]
        for authority in authorities:
            certificates(authority)
        self.expiry: Mapping[str, float] = {}
        expiry = {}
        default: SSL.Context | None = None
        for index, pair in enumerate(tls.pairs):
            section = pair_section(index)
            chain = Named(f"{section}.certificate", pair.certificate, files[pair.certificate])
            key = Named(f"{section}.key", pair.key, files[pair.key])
            found = certificates(chain)
            check_key(key, found[0], pair.certificate)
            context = _context(tls, chain, key, authorities)
            expiry[pair.certificate] = not_after(found[0])
            for name in names_of(found[0]):
                self._by_name.setdefault(name, context)
            default = default or context
        assert default is not None, "the configuration has no TLS without a certificate"
        default.set_tlsext_servername_callback(self._choose)
        self._default = default
        self.expiry = expiry

    def connection(self, connected: socket.socket) -> SSL.Connection:
        """OpenSSL's end of a connection, for a server."""
        made = SSL.Connection(self._default, connected)
        made.set_accept_state()
        return made

    def user(self, connection: SSL.Connection) -> str:
        """
        The common name in the client's certificate; empty where there is none that was verified, or where no rule could mean it.
        """
        if not self._verifies:
            return ""
        shown = connection.get_peer_certificate()
        if shown is None:
            return ""
        try:
            name = common_name(shown.to_cryptography())
        except ValueError as error:
            self._log.warn("a client's certificate cannot be read, and names nobody: {error}", error=error)
            return ""
        if name in _NOBODY or name.startswith("@") or not name.isprintable() or any(letter in name for letter in " :,"):
            self._log.warn("a client's certificate is for {name!r}, which is no name of a user", name=name)
            return ""
        return name

    def accepted(self) -> None:
        """A handshake is complete."""
        self._tally.complete += 1

    def refused(self, peer: object, reason: str) -> None:
        """A handshake has failed. Who scans the network does so all day long, so it is no warning."""
        self._tally.failed += 1
        self._log.info("no TLS with {peer}: {reason}", peer=getattr(peer, "host", "a client"), reason=reason)

    def _choose(self, connection: SSL.Connection) -> None:
        """The client has said whom it wants."""
        asked = (connection.get_servername() or b"").decode("ascii", "replace").lower().rstrip(".")
        context = self._by_name.get(asked)
        if context is None and "." in asked:
            # RFC 6125, section 6.4.3: a star stands for one label, the first.
            context = self._by_name.get(f"*.{asked.partition('.')[2]}")
        if context is not None and context is not self._default:
            connection.set_context(context)


def _context(tls: TLS, chain: Named, key: Named, authorities: Sequence[Named]) -> SSL.Context:
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(_LEAST[tls.minimumtls])
    context.set_options(SSL.OP_NO_COMPRESSION | _NO_RENEGOTIATION)
    # Sessions are the clients' to keep, in tickets; without a name for ours, those of clients with certificates would be refused.
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_session_id(b"regd")
    context.set_alpn_select_callback(_select)
    try:
        context.set_cipher_list(cipher_list(tls.ciphersuites).encode("ascii"))
    except SSL.Error:
        raise ConfigError("http.tls.ciphersuites: found none that OpenSSL on this machine has, allowed: at least one") from None
    try:
        with as_file(chain.data) as path:
            context.use_certificate_chain_file(path)
    except SSL.Error as error:
        raise chain.refuse(f"which OpenSSL does not take ({_why(error)})", "a certificate, and those it is from, in PEM") from None
    try:
        with as_file(key.data) as path:
            context.use_privatekey_file(path)
        context.check_privatekey()
    except SSL.Error as error:
        raise key.refuse(f"which OpenSSL does not take ({_why(error)})", "the certificate's private key in PEM") from None
    if tls.clientauth is not None:
        _ask_clients(context, tls, authorities)
    return context


def _ask_clients(context: SSL.Context, tls: TLS, authorities: Sequence[Named]) -> None:
    mode = SSL.VERIFY_PEER
    if tls.clientauth is not None and tls.clientauth.startswith("require"):
        mode |= SSL.VERIFY_FAIL_IF_NO_PEER_CERT
    if authorities:
        trusted = b"".join(one.public_bytes(Encoding.PEM) for file in authorities for one in certificates(file))
        with as_file(trusted) as path:
            context.load_verify_locations(path)
            context.load_client_ca(path.encode("ascii"))
        # Whoever is listed is trusted, whether somebody else has signed it or not; as Go has it.
        store = context.get_cert_store()
        assert store is not None
        store.set_flags(X509StoreFlags.PARTIAL_CHAIN)
    # Where nothing is verified, whoever shows something is let in, as registry:2 has it: but they have no name.
    context.set_verify(mode, (lambda connection, certificate, error, depth, ok: bool(ok)) if tls.verifies else (lambda *_: True))


def _select(connection: SSL.Connection, offered: list[bytes]) -> Any:
    # RFC 7301, section 3.2, would have us refuse clients that offer only others; Go does not where HTTP/1.1 could be meant, nor does nginx.
    return _PROTOCOL if _PROTOCOL in offered else SSL.NO_OVERLAPPING_PROTOCOLS


def _why(error: SSL.Error) -> str:
    reasons = [entry[-1] for entry in error.args[0]] if error.args and isinstance(error.args[0], list) else []
    return "; ".join(dict.fromkeys(reasons)) or "without a reason"
