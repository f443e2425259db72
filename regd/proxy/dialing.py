"""
Connections to upstreams: plain TCP, Unix sockets and TLS, over transports that can relay (:mod:`regd.web.relay`).

``twisted.internet.endpoints`` would do but for those transports; so the connectors are Twisted's, and make ours.
"""

from __future__ import annotations

import os
import socket
from errno import EAGAIN, EINTR, ENOBUFS
from typing import Any, Final

from OpenSSL import __version__ as _openssl
from OpenSSL.crypto import FILETYPE_PEM
from OpenSSL.crypto import Error as CryptoError
from OpenSSL.SSL import Error as SSLError
from service_identity import VerificationError
from twisted.internet import tcp, unix
from twisted.internet._sslverify import IOpenSSLTrustRoot
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.internet.error import VerifyError
from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import ClientFactory, Protocol
from twisted.internet.ssl import Certificate, KeyPair, PrivateCertificate, optionsForClientTLS, platformTrust, trustRootFromCertificates
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from regd.config import TCPAddress, UnixAddress, Upstream, UpstreamTLS
from regd.web.transport import SendingTransport

__all__ = ["CannotConnect", "CannotUseTLS", "Dialer", "explain", "is_late", "system_trust", "tls_options"]

#: What is read at once, in bytes. With what may wait for a client to take it, that stays below what promise P1 allows a connection.
_READ: Final = 128 * 1024

#: The most that is read of a file with certificates, in bytes: all authorities of the web take a quarter of it.
_LARGEST_FILE: Final = 1024 * 1024

#: How long one of several addresses has at least to answer, in seconds.
_LEAST: Final = 2.0

#: With TLS, which has buffers of its own.
_READ_SECURE: Final = 64 * 1024

#: Whether pyOpenSSL takes cryptography's objects. The package for Debian has that of Debian, which is older than what pip installs: Debian
#: 12 has 23.0, which takes none.
_TAKES_CRYPTOGRAPHY: Final = int(_openssl.split(".")[0]) >= 26


class CannotUseTLS(Exception):
    """A file that ``tls`` names cannot be used; ``str()`` says the path of the key, the file, and why, on one line."""


class CannotConnect(Exception):
    """
    An upstream cannot be reached, or is not who it should be; ``str()`` says why.

    :ivar late: whether it took too long.
    """

    def __init__(self, why: str, *, late: bool) -> None:
        super().__init__(why)
        self.late = late


class _Transport(SendingTransport):
    """
    What ours have in common. An upstream may answer before it has read the whole of a request, and close: what it said has to be read, so
    that what cannot be written any more is dropped, and the end of the connection is found by reading.
    """

    bufferSize = _READ  # noqa: N815 - Twisted's name

    def _isSendBufferFull(self: Any) -> bool:  # noqa: N802 - Twisted's name
        """Whoever writes waits as soon as the socket does not take all of it."""
        return bool(self.unsent)

    def writeSomeData(self: Any, data: bytes) -> Any:  # noqa: N802 - Twisted's name
        """Write some of what waits."""
        try:
            return self.socket.send(memoryview(data)[: self.SEND_LIMIT])
        except OSError as error:
            return 0 if error.errno in {EAGAIN, EINTR, ENOBUFS} else len(data)

    def write_failed(self) -> bool:
        """See :meth:`~regd.web.transport.SendingTransport.write_failed`."""
        return True


class _TCPClient(_Transport, tcp.Client):
    """A connection over TCP."""


class _UnixClient(_Transport, unix.Client):
    """A connection to a Unix socket."""

    # Twisted's sends descriptors along, which we have none of.
    writeSomeData = _Transport.writeSomeData  # noqa: N815 - Twisted's name


class _TCPConnector(tcp.Connector):
    def _makeTransport(self) -> tcp.Client:  # noqa: N802 - Twisted's name
        return _TCPClient(self.host, self.port, self.bindAddress, self, self.reactor)


class _UnixConnector(unix.Connector):
    def _makeTransport(self) -> Any:  # noqa: N802 - Twisted's name
        return _UnixClient(self.address, self, self.reactor, False)


class _Once(ClientFactory[Protocol]):
    """Makes one protocol, and tells when there will be none."""

    noisy = False

    def __init__(self, protocol: Protocol, failed: Deferred[Any]) -> None:
        self._protocol = protocol
        self._failed = failed

    def buildProtocol(self, addr: object) -> Protocol:  # noqa: N802 - Twisted's name
        """The connection is there."""
        return self._protocol

    def clientConnectionFailed(self, connector: object, reason: Failure) -> None:  # noqa: N802 - Twisted's name
        """There is none."""
        if not self._failed.called:
            self._failed.errback(reason)


@implementer(IHandshakeListener)
class _Dialled(Protocol):
    """
    Holds the place of the protocol until the connection can be used: until it is there, or, with TLS, until the other end has proved who
    it is. An HTTP server has nothing to say before that.
    """

    def __init__(self, secure: bool, done: Deferred[Any]) -> None:
        self._secure = secure
        self._done = done
        self.wanted: Protocol | None = None

    def connectionMade(self) -> None:  # noqa: N802 - Twisted's name
        """The connection is there."""
        if not self._secure:
            self._hand_over()

    def handshakeCompleted(self) -> None:  # noqa: N802 - Twisted's name
        """The other end is who it should be."""
        self._hand_over()

    def dataReceived(self, data: bytes) -> None:  # noqa: N802 - Twisted's name
        """It speaks."""
        if self.wanted is not None:
            self.wanted.dataReceived(data)

    def connectionLost(self, reason: Failure = Failure(ConnectionError())) -> None:  # noqa: N802, B008 - Twisted's name and default
        """It is gone."""
        if self.wanted is not None:
            self.wanted.connectionLost(reason)
        elif not self._done.called:
            self._done.errback(reason)

    def _hand_over(self) -> None:
        if not self._done.called:
            self._done.callback(self)


class Dialer:
    """
    Makes connections to one upstream.

    :param options: what :func:`tls_options` made, for ``https``.
    :param reactor: ``Any``: a reactor is typed as the union of what reactors may be.
    """

    def __init__(self, upstream: Upstream, options: Any, reactor: Any) -> None:
        self.upstream = upstream
        self._options = options
        self._reactor = reactor

    async def dial(self, protocol: Protocol, timeout: float) -> None:
        """
        Connect ``protocol``.

        :param timeout: for all of it, in seconds.
        :raises CannotConnect: when that cannot be done.
        """
        deadline = self._reactor.seconds() + timeout
        problem: Exception = OSError("nobody knows an address of this name")
        try:
            hosts = await self._addresses(timeout)
        except Exception as error:  # noqa: BLE001 - whatever a resolver raises
            raise CannotConnect(f"its name cannot be resolved: {explain(error)}", late=is_late(error)) from None
        for number, host in enumerate(hosts):
            left = deadline - self._reactor.seconds()
            if left <= 0:
                problem = DeferredTimeout()
                break
            # An address that swallows what it is sent leaves time for the others, as in Go.
            share = min(left, max(left / (len(hosts) - number), _LEAST))
            try:
                await self._dial(host, protocol, share)
            except Exception as error:  # noqa: BLE001 - whatever it is, the next address may do; the last one's error is told
                problem = error
            else:
                return
        raise CannotConnect(explain(problem), late=is_late(problem))

    async def _addresses(self, timeout: float) -> list[str]:
        """Where it may be: a name can have several addresses, and others tomorrow."""
        address = self.upstream.address
        if isinstance(address, UnixAddress):
            return [address.path]
        if _is_literal(address.host):
            return [address.host]
        found: Deferred[list[str]] = Deferred()
        receiver = _Addresses(found)
        self._reactor.nameResolver.resolveHostName(receiver, address.host, address.port)
        return await found.addTimeout(timeout, self._reactor)

    async def _dial(self, host: str, protocol: Protocol, timeout: float) -> None:
        done: Deferred[_Dialled] = Deferred()
        secure = self.upstream.scheme == "https"
        dialled = _Dialled(secure, done)
        wrapped: Any = _Once(dialled, done)
        if secure:
            wrapped = TLSMemoryBIOFactory(self._options, True, wrapped)
            wrapped.noisy = False
        address = self.upstream.address
        connector: Any
        if isinstance(address, TCPAddress):
            connector = _TCPConnector(host, address.port, wrapped, timeout, None, self._reactor)
        else:
            connector = _UnixConnector(os.fsencode(host), wrapped, timeout, self._reactor, False)
        connector.connect()
        if secure:
            connector.transport.bufferSize = _READ_SECURE
        try:
            await done.addTimeout(timeout, self._reactor)
        except BaseException:
            if connector.state == "connecting":
                connector.stopConnecting()
            elif connector.state == "connected":
                connector.transport.abortConnection()
            raise
        transport: Any = dialled.transport
        if isinstance(address, TCPAddress):
            transport.setTcpNoDelay(True)
            transport.setTcpKeepAlive(True)
        if not secure:
            transport.protocol = protocol
        dialled.wanted = protocol
        protocol.makeConnection(transport)


class _Addresses:
    """Collects what the resolver says, IPv4 first, as Go has it."""

    def __init__(self, found: Deferred[list[str]]) -> None:
        self._found = found
        self._hosts: list[str] = []

    def resolutionBegan(self, resolution: object) -> None:  # noqa: N802 - IResolutionReceiver's name
        """It looks."""

    def addressResolved(self, address: Any) -> None:  # noqa: N802 - IResolutionReceiver's name
        """One of them."""
        if address.host not in self._hosts:
            self._hosts.append(address.host)

    def resolutionComplete(self) -> None:  # noqa: N802 - IResolutionReceiver's name
        """That was all."""
        if self._found.called:
            return
        self._found.callback(sorted(self._hosts, key=lambda host: ":" in host))


def tls_options(upstream: Upstream, tls: UpstreamTLS, section: str = "tls") -> Any:
    """
    How an upstream has to prove who it is: a chain to a certificate that is trusted, and the name, which Twisted checks with
    ``service_identity``.

    :param section: the path of ``tls`` in the configuration, for messages.
    :returns: what ``twisted.protocols.tls`` takes; ``None`` for an upstream without TLS.
    :raises CannotUseTLS: when a file cannot be used.
    """
    if upstream.scheme != "https":
        return None
    assert isinstance(upstream.address, TCPAddress)
    trust = trustRootFromCertificates(_authorities(tls.cafile, section)) if tls.cafile else None
    client = _client(tls, section) if tls.clientcertificate else {}
    name = tls.servername or upstream.address.host
    return optionsForClientTLS(name, trust, acceptableProtocols=[b"http/1.1"], extraCertificateOptions=client)


@implementer(IOpenSSLTrustRoot)
class _SystemAnd:
    """
    The certificates that the system trusts, and some more; Twisted has only one or the other. Its interface is private, and a test pins
    what it asks for.
    """

    def __init__(self, certificates: list[Certificate]) -> None:
        self._roots = [platformTrust(), trustRootFromCertificates(certificates)]

    def _addCACertsToContext(self, context: object) -> None:  # noqa: N802 - IOpenSSLTrustRoot's name
        for root in self._roots:
            root._addCACertsToContext(context)


def system_trust(cafile: str, section: str = "tls") -> Any:
    """
    Whom to trust of servers that nobody has configured.

    :param cafile: further certificates, in PEM; empty for none.
    :param section: as :func:`tls_options`.
    :returns: what ``optionsForClientTLS`` takes.
    :raises CannotUseTLS: when the file cannot be used.
    """
    return _SystemAnd(_authorities(cafile, section)) if cafile else platformTrust()


def _authorities(cafile: str, section: str) -> list[Certificate]:
    return _certificates(cafile, f"{section}.cafile")


def _read(path: str, key: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(_LARGEST_FILE)
    except OSError as error:
        why = error.strerror or error
        raise CannotUseTLS(f'{key}: found "{path}", which cannot be read ({why}), allowed: a file that regd may read') from None


def _certificates(path: str, key: str) -> list[Certificate]:
    """The certificates of a PEM file, at least one. There may be other things between them."""
    begin, end = b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----"
    parts = _read(path, key).split(begin)[1:]
    found = []
    for number, part in enumerate(parts, 1):
        try:
            found.append(Certificate.loadPEM(begin + part.partition(end)[0] + end + b"\n"))
        except (CryptoError, ValueError):
            where = f"of which number {number} is damaged" if len(parts) > 1 else "which is damaged"
            raise CannotUseTLS(f'{key}: found "{path}", {where}, allowed: certificates in PEM') from None
    if not found:
        raise CannotUseTLS(f'{key}: found "{path}", which has no BEGIN CERTIFICATE, allowed: certificates in PEM')
    return found


def _client(tls: UpstreamTLS, section: str) -> dict[str, object]:
    """
    What ``CertificateOptions`` takes for a certificate of our own: all as cryptography's objects, because pyOpenSSL is going to take no
    others, and warns where it gets its own; or as those, where pyOpenSSL is one that takes nothing else.
    """
    chain = _certificates(tls.clientcertificate, f"{section}.clientcertificate")
    pem = _read(tls.clientkey, f"{section}.clientkey")
    what = f'{section}.clientkey: found "{tls.clientkey}", which'
    if b"ENCRYPTED" in pem:
        # OpenSSL would ask the terminal for the passphrase.
        raise CannotUseTLS(f"{what} is encrypted, allowed: a private key in PEM without a passphrase, which nobody could type in here")
    try:
        pair = KeyPair.load(pem, format=FILETYPE_PEM)
        PrivateCertificate.fromCertificateAndKeyPair(chain[0], pair)
        key = pair.original.to_cryptography_key()
    except VerifyError:
        raise CannotUseTLS(f"{what} is not the key of the first certificate in clientcertificate") from None
    except Exception:  # noqa: BLE001 - OpenSSL's errors and cryptography's, which are of several kinds
        raise CannotUseTLS(f"{what} has no key that could be read, allowed: a private key in PEM") from None
    try:
        converted = [one.original.to_cryptography() for one in chain]
    except ValueError as error:
        # It is stricter than OpenSSL.
        what = f'{section}.clientcertificate: found "{tls.clientcertificate}", which'
        raise CannotUseTLS(f"{what} cannot be read ({error}), allowed: certificates in PEM") from None
    if not _TAKES_CRYPTOGRAPHY:
        originals = [one.original for one in chain]
        return {"privateKey": pair.original, "certificate": originals[0], "extraCertChain": originals[1:]}
    return {"privateKey": key, "certificate": converted[0], "extraCertChain": converted[1:]}


def _is_literal(host: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host.partition("%")[0])
        except OSError:
            continue
        return True
    return False


def is_late(error: Exception) -> bool:
    """Whether an error of whatever library says that it took too long."""
    return isinstance(error, DeferredTimeout | ConnectTimeout | TimeoutError)


def explain(error: Exception) -> str:
    """An error of whatever library as an operator can use it."""
    if isinstance(error, VerificationError):
        wanted = ", ".join(str(getattr(one, "mismatched_id", one)) for one in error.errors)
        return f"its certificate is not for the name that was asked for ({wanted})"
    if isinstance(error, SSLError):
        words = "; ".join(dict.fromkeys(part[-1] for part in (error.args[0] if error.args else ()) if part))
        return f"TLS failed: {words or 'the other end closed the connection'}"
    if is_late(error):
        return "it took too long"
    return str(error) or type(error).__name__
