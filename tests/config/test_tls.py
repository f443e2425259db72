"""``http.tls``."""

from __future__ import annotations

from regd.config import HSTS, TLS, KeyPair, LetsEncrypt, TCPAddress
from regd.config.tlskeys import TLS_KEYS
from tests.config.support import ConfigCase

PAIR = "certificate: /c, key: /k"


class TLSTests(ConfigCase):
    def tls(self, text: str, **environ: str) -> TLS | None:
        return self.config(f"http: {{tls: {{{text}}}}}", **environ).http.tls

    def test_none(self) -> None:
        for text in ("", "http: {tls: }", "http: {tls: {}}", "http: {tls: {certificate: '', key: '', clientcas: [], clientauth: ''}}"):
            self.assertIsNone(self.config(text).http.tls)
            self.assertEqual(self.warnings(text), ())

    def test_a_pair(self) -> None:
        self.assertEqual(self.tls(PAIR), TLS((KeyPair("/c", "/k"),)))

    def test_by_variables(self) -> None:
        found = self.tls("", REGISTRY_HTTP_TLS_CERTIFICATE="/c", REGISTRY_HTTP_TLS_KEY="/k", REGISTRY_HTTP_TLS_MINIMUMTLS="tls1.3")
        self.assertEqual(found, TLS((KeyPair("/c", "/k"),), minimumtls="tls1.3"))

    def test_everything(self) -> None:
        found = self.tls(
            f"{PAIR}, certificates: [{{certificate: /d, key: /l}}], clientcas: [/a, /b], clientauth: verify-client-cert-if-given,"
            " minimumtls: tls1.2, ciphersuites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256], redirect: ':80',"
            " hsts: {maxage: 24h, includesubdomains: true}",
        )
        self.assertEqual(
            found,
            TLS(
                (KeyPair("/c", "/k"), KeyPair("/d", "/l")),
                ("/a", "/b"),
                "verify-client-cert-if-given",
                "tls1.2",
                ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",),
                TCPAddress("", 80),
                HSTS(86400.0, True),
            ),
        )
        assert found is not None
        self.assertEqual((found.certificate, found.key, found.certificates), ("/c", "/k", (KeyPair("/d", "/l"),)))

    def test_letsencrypt(self) -> None:
        found = self.tls("letsencrypt: {cachefile: /var/lib/c/, hosts: [A.example, b.example], email: me@example.com}")
        expected = LetsEncrypt("/var/lib/c", ("a.example", "b.example"), "me@example.com")
        assert found is not None
        self.assertEqual((found.letsencrypt, found.redirect), (expected, TCPAddress("", 80)))
        self.assertEqual(found.certificate, "/var/lib/c/a.example")
        for text, start in (
            ("letsencrypt: {hosts: [a.example]}", "http.tls.letsencrypt.cachefile: found nothing"),
            ("letsencrypt: {cachefile: /c}", "http.tls.letsencrypt.hosts: found nothing"),
            (f"{PAIR}, letsencrypt: {{cachefile: /c, hosts: [a.example]}}", "http.tls.letsencrypt.cachefile: found it beside http.tls.cer"),
            ("letsencrypt: {cachefile: /c, hosts: [a.example], directoryurl: x}", "http.tls.letsencrypt.directoryurl (line 3): found"),
        ):
            self.refused(f"http: {{tls: {{{text}}}}}", start)

    def test_a_list_is_enough(self) -> None:
        self.assertEqual(self.tls("certificates: [{certificate: /d, key: /l}]"), TLS((KeyPair("/d", "/l"),)))

    def test_authorities_without_a_mode(self) -> None:
        """As in registry:2."""
        found = self.tls(f"{PAIR}, clientcas: [/a]")
        assert found is not None
        self.assertEqual(found.clientauth, "require-and-verify-client-cert")
        self.assertTrue(found.verifies)

    def test_who_is_not_verified(self) -> None:
        for mode in ("request-client-cert", "require-any-client-cert"):
            found = self.tls(f"{PAIR}, clientauth: {mode}")
            assert found is not None
            self.assertFalse(found.verifies)

    def test_what_is_wrong(self) -> None:
        for text, start in (
            ("certificate: /c", "http.tls.key: found nothing beside http.tls.certificate, allowed: both"),
            ("key: /k", "http.tls.certificate: found nothing beside http.tls.key, allowed: both"),
            (f"{PAIR}, certificates: [{{certificate: /d}}]", "http.tls.certificates[0] (line 3): found a map, allowed: a map with "),
            (f"{PAIR}, clientauth: verify", 'http.tls.clientauth (line 3): found "verify", allowed: one of request-client-cert, '),
            (f"{PAIR}, clientauth: require-and-verify-client-cert", "http.tls.clientcas: found nothing beside http.tls.clientauth"),
            (f"{PAIR}, minimumtls: tls1.0", 'http.tls.minimumtls (line 3): found "tls1.0", allowed: one of tls1.2, tls1.3'),
            (f"{PAIR}, ciphersuites: [TLS_RSA_WITH_RC4_128_SHA]", 'http.tls.ciphersuites[0] (line 3): found "TLS_RSA_WITH_RC4_128_SHA", '),
            (f"{PAIR}, redirect: http", 'http.tls.redirect (line 3): found "http", allowed: host:port'),
            (f"{PAIR}, hsts: {{maxage: soon}}", 'http.tls.hsts.maxage (line 3): found "soon", allowed: '),
        ):
            self.refused(f"http: {{tls: {{{text}}}}}", start)
        self.refused("http: {tls: /c}", 'http.tls (line 3): found "/c", allowed: a map')
        self.refused(
            f"http: {{net: unix, addr: /run/s, tls: {{{PAIR}, redirect: ':80'}}}}", "http.tls.redirect: found :80, allowed: nothing"
        )

    def test_tls_must_not_be_left_out_silently(self) -> None:
        for text in ("clientcas: [/c]", "clientauth: request-client-cert", "redirect: ':80'", "hsts: {maxage: 1h}"):
            self.refused(f"http: {{tls: {{{text}}}}}", "http.tls.")
        (warning,) = self.warnings("http: {tls: {minimumtls: tls1.3}}")
        self.assertEqual(warning, "http.tls.minimumtls: nothing to do without http.tls.certificate")

    def test_suites_that_choose_nothing(self) -> None:
        (warning,) = self.warnings(f"http: {{tls: {{{PAIR}, minimumtls: tls1.3, ciphersuites: [TLS_AES_128_GCM_SHA256]}}}}")
        self.assertIn("http.tls.ciphersuites: nothing to do", warning)

    def test_every_key_has_its_section(self) -> None:
        self.assertTrue(all(key.path.startswith("http.tls.") for key in TLS_KEYS))

    def test_rules_for_whoever_has_a_certificate(self) -> None:
        rules = "access: [{who: alice, repositories: '**', actions: [pull]}]\n"
        self.assertIn("nobody can be alice", self.warnings(rules)[0])
        self.assertEqual(self.warnings(f"{rules}http: {{tls: {{{PAIR}, clientcas: [/a]}}}}"), ())
