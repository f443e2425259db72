"""Registries that have to prove who they are, and whom else one believes on the way."""

from __future__ import annotations

import json
import ssl
import tempfile
import warnings
from pathlib import Path
from typing import ClassVar

from OpenSSL import SSL
from twisted.internet import reactor

from regd.config import UpstreamTLS
from regd.config.caching import CacheUpstream
from regd.config.proxying import parse_upstream
from regd.names import Tag
from regd.proxy import dialing
from regd.proxy.dialing import CannotUseTLS, system_trust
from regd.proxy.remote import Remote, Unreachable
from regd.proxy.remote.tokens import basic
from tests.e2e.certificates import Authority, Certificate
from tests.e2e.proxying import Exchange, Upstream
from tests.proxy.remote.support import DIGEST, MANIFEST, NAME, RemoteCase, answers, reply

LATEST = Tag("latest")


class TLSTests(RemoteCase):
    directory: ClassVar[Path]
    ours: ClassVar[Authority]
    theirs: ClassVar[Authority]
    good: ClassVar[Certificate]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        directory = tempfile.TemporaryDirectory()
        cls.addClassCleanup(directory.cleanup)
        cls.directory = Path(directory.name)
        cls.ours, cls.theirs = Authority(cls.directory / "ours"), Authority(cls.directory / "theirs")
        cls.good = cls.ours.issue("127.0.0.1", "localhost", "registry.internal")

    def tls(self, **more: str) -> UpstreamTLS:
        return UpstreamTLS(cafile=str(self.ours.cafile), **more)

    async def test_verified(self) -> None:
        content = bytes(3_000_000)
        upstream = self.upstream(answers(content), context=self.good.server())
        for tls in (self.tls(), self.tls(servername="registry.internal")):
            remote = self.remote(upstream.url, tls=tls)
            for _ in range(2):
                self.assertEqual(await self.content(await remote.blob(NAME, DIGEST)), content)
            self.assertEqual(remote.variables()["idle"], 1)

    async def test_refused(self) -> None:
        for certificate, tls, why in (
            (self.ours.issue("else.example"), self.tls(), "its certificate is not for the name that was asked for"),
            (self.good, self.tls(servername="wrong.internal"), "its certificate is not for the name"),
            (self.theirs.issue("127.0.0.1"), self.tls(), "certificate verify failed"),
            (self.ours.issue("127.0.0.1", days=-1), self.tls(), "certificate verify failed"),
            (self.good, UpstreamTLS(), "certificate verify failed"),
        ):
            upstream = self.upstream(answers(MANIFEST), context=certificate.server())
            remote = self.remote(upstream.url, tls=tls)
            await self.refused(Unreachable, remote.manifest(NAME, LATEST), upstream.url, why)
            self.assertEqual(upstream.seen, [])
            self.assertEqual(remote.variables()["connections"], 0)

    async def test_no_tls_there(self) -> None:
        upstream = self.upstream(answers(MANIFEST))
        await self.refused(Unreachable, self.remote(f"https://127.0.0.1:{upstream.port}", connect=1).manifest(NAME, LATEST))

    def test_files_that_are_none(self) -> None:
        with self.assertRaises(CannotUseTLS):
            Remote(CacheUpstream("", parse_upstream("http://x"), tls=UpstreamTLS(cafile="/nowhere")), reactor)

    async def test_never_down_to_http(self) -> None:
        plain = self.upstream(answers(b"x"))
        upstream = self.upstream(answers(b"", "307 x", f"Location: {plain.url}/x?s1gnature"), context=self.good.server())
        await self.refused(Unreachable, self.remote(upstream.url, tls=self.tls()).blob(NAME, DIGEST), "leads from https to http")
        self.assertEqual(plain.seen, [])

    async def test_redirected(self) -> None:
        """The other server proves who it is by its own name, and gets no certificate of ours."""
        client = self.ours.issue("regd")
        seen: list[object] = []

        def peer(exchange: Exchange) -> None:
            assert isinstance(exchange.socket, ssl.SSLSocket)
            seen.append(bool(exchange.socket.getpeercert(binary_form=True)))

        def serve(exchange: Exchange) -> bool:
            peer(exchange)
            return reply(exchange, b"x")

        def redirect(exchange: Exchange) -> bool:
            peer(exchange)
            return reply(exchange, b"", "307 x", f"Location: https://localhost:{cdn.port}/x")

        cdn = self.upstream(serve, context=self.asking(self.good))
        upstream = self.upstream(redirect, context=self.asking(self.good))
        tls = self.tls(servername="registry.internal", clientcertificate=str(client.certfile), clientkey=str(client.keyfile))
        self.assertEqual(await self.content(await self.remote(upstream.url, tls=tls).blob(NAME, DIGEST)), b"x")
        self.assertEqual(seen, [True, False])

    async def test_a_certificate_of_our_own_with_the_pyopenssl_of_debian(self) -> None:
        """Which takes its own objects alone. Newer ones warn of these, and still take them."""
        self.patch(dialing, "_TAKES_CRYPTOGRAPHY", False)
        client = self.ours.issue("client.internal")
        seen: list[bool] = []

        def serve(exchange: Exchange) -> bool:
            assert isinstance(exchange.socket, ssl.SSLSocket)
            seen.append(bool(exchange.socket.getpeercert(binary_form=True)))
            return reply(exchange, b"x")

        upstream = self.upstream(serve, context=self.asking(self.good))
        tls = self.tls(clientcertificate=str(client.certfile), clientkey=str(client.keyfile))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            self.assertEqual(await self.content(await self.remote(upstream.url, tls=tls).blob(NAME, DIGEST)), b"x")
        self.assertEqual(seen, [True])

    def asking(self, certificate: Certificate) -> ssl.SSLContext:
        """A server that would like to know who asks."""
        context = certificate.server()
        context.verify_mode = ssl.CERT_OPTIONAL
        context.load_verify_locations(self.ours.cafile)
        return context

    def with_tokens(self, certificate: Certificate) -> tuple[Upstream, Upstream]:
        """A registry, and its realm."""
        realm = self.upstream(answers(json.dumps({"token": "t0ken"}).encode()), context=certificate.server())

        def serve(exchange: Exchange) -> bool:
            if exchange.all("authorization") == ["Bearer t0ken"]:
                return reply(exchange, MANIFEST)
            return reply(exchange, b"", "401 x", f'WWW-Authenticate: Bearer realm="{realm.url.replace("127.0.0.1", host)}/t"')

        host = "localhost"
        return self.upstream(serve, context=self.good.server()), realm

    async def test_realm(self) -> None:
        upstream, realm = self.with_tokens(self.good)
        remote = self.remote(upstream.url, tls=self.tls(), username="alice", password="s3cret", tokenhosts=("localhost",))
        await remote.manifest(NAME, LATEST)
        self.assertEqual([one.all("authorization") for one in realm.seen], [[basic("alice", "s3cret")]])
        await self.until(lambda: not realm.open, "no connection to the realm")

    async def test_realm_that_is_somebody_else(self) -> None:
        for certificate, why in (
            (self.ours.issue("else.example"), "its certificate is not for the name that was asked for"),
            (self.theirs.issue("localhost"), "certificate verify failed"),
        ):
            upstream, realm = self.with_tokens(certificate)
            remote = self.remote(upstream.url, tls=self.tls(), username="alice", password="s3cret", tokenhosts=("localhost",))
            await self.refused(Unreachable, remote.manifest(NAME, LATEST), "https://localhost", why)
            self.assertEqual(realm.seen, [])

    async def test_no_credentials_without_tls(self) -> None:
        realm = self.upstream(answers(json.dumps({"token": "t0ken"}).encode()))

        def serve(exchange: Exchange) -> bool:
            if exchange.all("authorization") == ["Bearer t0ken"]:
                return reply(exchange, MANIFEST)
            return reply(exchange, b"", "401 x", f'WWW-Authenticate: Bearer realm="{realm.url}/t"')

        upstream = self.upstream(serve, context=self.good.server())
        remote = self.remote(upstream.url, tls=self.tls(), username="alice", password="s3cret", tokenhosts=("127.0.0.1",))
        await remote.manifest(NAME, LATEST)
        self.assertEqual([one.all("authorization") for one in realm.seen], [[]])
        self.assertTrue([line for line in self.logged if "it would have to be https" in line])

    def test_both_are_trusted(self) -> None:
        """What of Twisted's is not public: see ``system_trust``."""
        context = SSL.Context(SSL.TLS_METHOD)
        defaults: list[int] = []
        context.set_default_verify_paths = lambda: defaults.append(1)  # type: ignore[method-assign] # to see that it is called
        system_trust(str(self.ours.cafile))._addCACertsToContext(context)
        self.assertEqual(defaults, [1])
