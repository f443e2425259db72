"""What connections with TLS are accepted with: which certificate, whose, and who is let in. The other end is Python's standard library."""

from __future__ import annotations

import socket
import ssl
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from regd.config import TLS, ConfigError, KeyPair
from regd.tls.acceptor import Tally, TLSAcceptor
from regd.tls.ciphers import DEFAULT, cipher_list
from regd.tls.pem import not_after
from tests.e2e.certificates import Authority, Certificate


def pair(certificate: Certificate) -> KeyPair:
    return KeyPair(str(certificate.certfile), str(certificate.keyfile))


def acceptor(tls: TLS, **other: bytes) -> TLSAcceptor:
    paths = {path for one in tls.pairs for path in (one.certificate, one.key)} | set(tls.clientcas)
    return TLSAcceptor(tls, {path: other.get(Path(path).name) or Path(path).read_bytes() for path in paths}, Tally())


class AcceptorCase(SynchronousTestCase):
    directory: ClassVar[Path]
    authority: ClassVar[Authority]
    issued: ClassVar[dict[str, Certificate]]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        temporary = tempfile.TemporaryDirectory()
        cls.addClassCleanup(temporary.cleanup)
        cls.directory = Path(temporary.name)
        cls.authority = Authority(cls.directory)
        cls.issued = {name: cls.authority.issue(name) for name in ("first.example", "second.example", "*.third.example", "alice")}

    def connect(
        self, accepting: TLSAcceptor, name: str = "first.example", adjust: Callable[[ssl.SSLContext], Any] = lambda context: None
    ) -> tuple[ssl.SSLSocket, SSL.Connection]:
        """
        :return: Both ends, after the client has said something and got it back.
        :raises ssl.SSLError: when the client is not let in, or does not want to be.
        """
        near, far = socket.socketpair()
        self.addCleanup(near.close)
        self.addCleanup(far.close)
        for end in (near, far):
            end.settimeout(10)
        # OpenSSL knows of no time-outs of Python's.
        near.setblocking(True)
        made = accepting.connection(near)

        def serve() -> None:
            try:
                made.do_handshake()
                made.send(made.recv(100))
            except SSL.Error:
                near.close()

        serving = threading.Thread(target=serve, daemon=True)
        serving.start()
        self.addCleanup(serving.join, 10)
        context = ssl.create_default_context(cafile=str(self.authority.cafile))
        adjust(context)
        try:
            client = context.wrap_socket(far, server_hostname=name)
            client.sendall(b"hello")
            if client.recv(100) != b"hello":
                raise ssl.SSLError("the server has closed the connection")
        except OSError as error:
            far.close()
            raise error if isinstance(error, ssl.SSLError) else ssl.SSLError(str(error)) from None
        self.addCleanup(client.close)
        return client, made


class CertificateTests(AcceptorCase):
    def common_name(self, client: ssl.SSLSocket) -> str:
        shown: Any = client.getpeercert()
        return str(dict(entry[0] for entry in shown["subject"])["commonName"])

    def test_the_one_for_the_name(self) -> None:
        made = acceptor(TLS(tuple(pair(self.issued[name]) for name in ("first.example", "second.example", "*.third.example"))))
        for asked, found in (
            ("first.example", "first.example"),
            ("second.example", "second.example"),
            ("SECOND.example", "second.example"),
            ("a.third.example", "*.third.example"),
        ):
            client, _ = self.connect(made, asked)
            self.assertEqual(self.common_name(client), found)

    def test_the_first_where_there_is_none(self) -> None:
        def trusting(context: ssl.SSLContext) -> None:
            context.check_hostname = False

        made = acceptor(TLS(tuple(pair(self.issued[name]) for name in ("first.example", "*.third.example"))))
        for asked in ("other.example", "third.example", "a.b.third.example", "10.0.0.1"):
            client, _ = self.connect(made, asked, trusting)
            self.assertEqual(self.common_name(client), "first.example")

    def test_expiry(self) -> None:
        brief = self.authority.issue("brief.example", days=1)
        made = acceptor(TLS((pair(self.issued["first.example"]), pair(brief))))
        self.assertEqual(len(made.expiry), 2)
        self.assertEqual(min(made.expiry.values()), not_after(brief.certificate))

    def test_versions(self) -> None:
        def at_most(version: ssl.TLSVersion) -> Callable[[ssl.SSLContext], None]:
            def adjust(context: ssl.SSLContext) -> None:
                context.maximum_version = version

            return adjust

        made = acceptor(TLS((pair(self.issued["first.example"]),)))
        self.assertEqual(self.connect(made)[0].version(), "TLSv1.3")
        self.assertEqual(self.connect(made, adjust=at_most(ssl.TLSVersion.TLSv1_2))[0].version(), "TLSv1.2")
        newest = acceptor(TLS((pair(self.issued["first.example"]),), minimumtls="tls1.3"))
        self.assertEqual(self.connect(newest)[0].version(), "TLSv1.3")
        self.assertRaises(ssl.SSLError, self.connect, newest, "first.example", at_most(ssl.TLSVersion.TLSv1_2))

    def test_suites(self) -> None:
        def old(context: ssl.SSLContext) -> None:
            context.maximum_version = ssl.TLSVersion.TLSv1_2

        def without_secrecy(context: ssl.SSLContext) -> None:
            old(context)
            context.set_ciphers("AES128-SHA:AES256-GCM-SHA384:ECDHE-RSA-AES128-SHA")

        one = pair(self.issued["first.example"])
        self.assertRaises(ssl.SSLError, self.connect, acceptor(TLS((one,))), "first.example", without_secrecy)
        chosen = acceptor(TLS((one,), ciphersuites=("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256")))
        cipher = self.connect(chosen, adjust=old)[0].cipher()
        assert cipher is not None
        self.assertEqual(cipher[0], "ECDHE-RSA-AES256-GCM-SHA384")

    def test_only_suites_that_choose_nothing(self) -> None:
        self.assertEqual(cipher_list(("TLS_AES_128_GCM_SHA256",)), DEFAULT)
        self.assertEqual(cipher_list(()), DEFAULT)


class ClientTests(AcceptorCase):
    def with_mode(self, mode: Any) -> TLSAcceptor:
        verifies = "verify" in mode
        return acceptor(TLS((pair(self.issued["first.example"]),), (str(self.authority.cafile),) if verifies else (), mode))

    def showing(self, certificate: Certificate) -> Callable[[ssl.SSLContext], None]:
        return lambda context: context.load_cert_chain(certificate.certfile, certificate.keyfile)

    def user(self, accepting: TLSAcceptor, certificate: Certificate | None) -> str:
        """
        :return: Who the client is; ``refused`` where it is not let in.
        """
        try:
            _, made = self.connect(accepting, adjust=(lambda context: None) if certificate is None else self.showing(certificate))
        except ssl.SSLError:
            return "refused"
        return accepting.user(made)

    def test_four_modes(self) -> None:
        stranger = Authority(self.directory / "elsewhere").issue("mallory")
        expired = self.authority.issue("alice", days=-1)
        good = self.issued["alice"]
        for mode, none, ours, late, theirs in (
            ("request-client-cert", "", "", "", ""),
            ("require-any-client-cert", "refused", "", "", ""),
            ("verify-client-cert-if-given", "", "alice", "refused", "refused"),
            ("require-and-verify-client-cert", "refused", "alice", "refused", "refused"),
        ):
            made = self.with_mode(mode)
            found = tuple(self.user(made, one) for one in (None, good, expired, stranger))
            self.assertEqual(found, (none, ours, late, theirs), mode)

    def test_names_that_name_nobody(self) -> None:
        made = self.with_mode("require-and-verify-client-cert")
        for name in ("anonymous", "*", "@admins", "with space", "a,b", "a:b"):
            self.assertEqual(self.user(made, self.authority.issue(name)), "", name)


class FileTests(AcceptorCase):
    def refused(self, start: str, other: dict[str, bytes], tls: TLS | None = None) -> None:
        error = self.assertRaises(ConfigError, acceptor, tls or TLS((pair(self.issued["first.example"]),)), **other)
        self.assertTrue(str(error).startswith(start), str(error))
        self.assertNotIn("\n", str(error))

    def test_what_files_may_be_wrong_with(self) -> None:
        one = self.issued["first.example"]
        certificate, key = one.certfile.name, one.keyfile.name
        good = one.certfile.read_bytes()
        here = f'http.tls.certificate: found "{one.certfile}", '
        there = f'http.tls.key: found "{one.keyfile}", '
        self.refused(f"{here}which has no BEGIN CERTIFICATE", {certificate: b"nothing"})
        self.refused(f"{here}which is damaged", {certificate: good[:200] + b"AAAA" + good[200:]})
        self.refused(f"{here}of which number 2 is damaged", {certificate: good + good[:200] + b"AAAA" + good[200:]})
        self.refused(f"{there}which has no key that could be read", {key: b"nothing"})
        self.refused(f"{there}which is encrypted", {key: b"-----BEGIN ENCRYPTED PRIVATE KEY-----"})
        other = self.issued["second.example"].keyfile.read_bytes()
        self.refused(f"{there}which is not the key of the first certificate in {one.certfile}", {key: other})

    def test_which_of_several(self) -> None:
        first, second = pair(self.issued["first.example"]), pair(self.issued["second.example"])
        name = self.issued["second.example"].keyfile.name
        self.refused(f'http.tls.certificates[0].key: found "{second.key}", ', {name: b"nothing"}, TLS((first, second)))

    def test_authorities(self) -> None:
        tls = TLS((pair(self.issued["first.example"]),), (str(self.authority.cafile),), "require-and-verify-client-cert")
        self.refused("http.tls.clientcas[0]: found ", {self.authority.cafile.name: b"nothing"}, tls)
