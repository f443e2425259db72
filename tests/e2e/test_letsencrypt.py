"""A certificate that regd asks for itself, of a real ACME server: Let's Encrypt's own for tests."""

from __future__ import annotations

import json
import ssl
from typing import ClassVar

from tests.e2e.case import E2ETestCase
from tests.e2e.certificates import Authority
from tests.e2e.daemon import Regd, clean_environment
from tests.e2e.process import Program, free_port, need, wait_until
from tests.e2e.wire import Wire

HOST = "hub.example"


class LetsEncryptTest(E2ETestCase):
    directory_url: ClassVar[str]
    environment: ClassVar[dict[str, str]]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        need("pebble", "pebble-challtestsrv")
        authority = Authority(cls.directory / "authority")
        own = authority.issue("127.0.0.1")
        server, management, names, cls.plain = (free_port() for _ in range(4))
        settings = {
            "pebble": {
                "listenAddress": f"127.0.0.1:{server}",
                "managementListenAddress": f"127.0.0.1:{management}",
                "certificate": str(own.certfile),
                "privateKey": str(own.keyfile),
                "httpPort": cls.plain,
                "tlsPort": free_port(),
                "ocspResponderURL": "",
            }
        }
        configuration = cls.directory / "pebble.json"
        configuration.write_text(json.dumps(settings), encoding="ascii")
        base = clean_environment(cls.directory)
        # Every name is this machine.
        listening = ("-http01", "", "-https01", "", "-tlsalpn01", "", "-management", f"127.0.0.1:{free_port()}")
        resolver = Program(
            ["pebble-challtestsrv", "-dns01", f"127.0.0.1:{names}", "-defaultIPv4", "127.0.0.1", "-defaultIPv6", "", *listening],
            cls.directory / "names.log",
            base,
            cls.directory,
        )
        pebble = Program(
            ["pebble", "-config", str(configuration), "-dnsserver", f"127.0.0.1:{names}"],
            cls.directory / "pebble.log",
            {**base, "PEBBLE_VA_NOSLEEP": "1"},
            cls.directory,
        )
        for program in (resolver, pebble):
            cls.addClassCleanup(program.stop)
            program.start()
        wait_until(lambda: "Starting management server" in resolver.output(), 20, "the resolver")
        wait_until(lambda: "Listening on: 127.0.0.1:" in pebble.output(), 20, "the ACME server")
        cls.directory_url = f"https://127.0.0.1:{server}/dir"
        cls.environment = {"REQUESTS_CA_BUNDLE": str(authority.cafile)}

    plain: ClassVar[int]

    def issuer(self, server: Regd) -> str:
        """
        :return: Whose certificate is shown for the name.
        """
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        wire = Wire(server.port)
        try:
            with context.wrap_socket(wire.socket, server_hostname=HOST) as secure:
                return (secure.getpeercert(binary_form=True) or b"").decode("latin-1")
        finally:
            wire.close()

    def test_the_first_certificate(self) -> None:
        cache = self.directory / "cache"
        letsencrypt = {"cachefile": str(cache), "hosts": [HOST], "email": "me@example.com", "directoryurl": self.directory_url}
        server = Regd(
            self.directory / "server",
            environment={
                **self.environment,
                "REGISTRY_HTTP_TLS": json.dumps({"letsencrypt": letsencrypt, "redirect": f"127.0.0.1:{self.plain}"}),
                "REGISTRY_HTTP_WORKERS": "2",
            },
        )
        self.addCleanup(server.stop)
        server.program.start()
        wait_until(lambda: "serves https://" in server.program.output(), 20, "the registry")
        wait_until(lambda: f"there is a certificate for {HOST}" in server.program.output(), 60, "a certificate")
        for _ in range(4):
            wait_until(lambda: "Pebble Intermediate CA" in self.issuer(server), 20, "it to be shown by all workers")
        self.assertEqual(sorted(path.name for path in cache.iterdir()), ["acme_account+key", HOST])
        self.assertEqual({path.stat().st_mode & 0o777 for path in cache.iterdir()}, {0o600})
        text = (cache / HOST).read_text(encoding="ascii")
        self.assertTrue(text.startswith("-----BEGIN EC PRIVATE KEY-----"))
        log = server.program.output()
        self.assertNotIn("Traceback", log)
        self.assertNotIn("PRIVATE KEY", log)
        # The next start has it, and asks for nothing.
        server.stop()
        server.program.start()
        wait_until(lambda: server.program.output().count("serves https://") == 2, 20, "the registry")
        self.assertIn("Pebble Intermediate CA", self.issuer(server))
        self.assertEqual((cache / HOST).read_text(encoding="ascii"), text)

    def test_a_server_that_cannot_be_reached(self) -> None:
        """Regd serves all the same, with a certificate that nobody has signed, and says what is wrong."""
        letsencrypt = {"cachefile": str(self.directory / "other"), "hosts": [HOST], "directoryurl": f"https://127.0.0.1:{free_port()}/dir"}
        server = Regd(
            self.directory / "unreached",
            environment={
                "REGISTRY_HTTP_TLS": json.dumps({"letsencrypt": letsencrypt, "redirect": f"127.0.0.1:{free_port()}"}),
                "REGISTRY_HTTP_WORKERS": "1",
            },
        )
        self.addCleanup(server.stop)
        server.program.start()
        wait_until(lambda: f"no certificate: {HOST}: " in server.program.output(), 30, "a line in the log")
        self.assertIn(HOST, self.issuer(server))
        self.assertNotIn("Traceback", server.program.output())
