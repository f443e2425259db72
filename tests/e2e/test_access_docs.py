"""Each configuration of ``docs/access.rst`` works as it stands there, but for the places of files and ports, which are the test's."""

from __future__ import annotations

import json
import re
import ssl
import textwrap
from pathlib import Path
from typing import Any

import yaml
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from regd.auth.keys import to_jwk
from tests.e2e.case import E2ETestCase
from tests.e2e.certificates import Authority
from tests.e2e.daemon import ROOT, Regd
from tests.e2e.process import free_port, wait_until
from tests.e2e.test_passwords import entry
from tests.e2e.wire import Wire

PAGE = ROOT / "docs" / "access.rst"


def sections() -> dict[str, dict[str, Any]]:
    """
    :return: The configurations, by the heading that they are under; a second one under the same has a number.
    """
    found: dict[str, dict[str, Any]] = {}
    text = PAGE.read_text(encoding="utf-8")
    parts = re.split(r"(?m)^(.+)\n-{5,}$", text)
    for heading, body in zip(parts[1::2], parts[2::2], strict=True):
        for number, block in enumerate(body.split(".. code-block:: yaml\n")[1:]):
            configuration = yaml.safe_load(textwrap.dedent(re.split(r"(?m)^(?=\S)", block)[0]))
            found[heading if not number else f"{heading} {number + 1}"] = configuration
    return found


class AccessPageTest(E2ETestCase):
    def files(self) -> dict[str, Path]:
        """
        :return: What the page has the reader make, by its name there.
        """
        authority = Authority(self.directory / "authority")
        certificate = authority.issue("localhost")
        key = ec.generate_private_key(ec.SECP256R1())
        token = self.directory / "token.pem"
        token.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()))
        passwords = self.directory / "htpasswd"
        passwords.write_text(entry("alice", "hunter2"), encoding="ascii")
        jwks = self.directory / "jwks.json"
        jwks.write_text(json.dumps({"keys": [{**to_jwk(key.public_key()), "kid": "one"}]}), encoding="ascii")
        return {
            "/etc/regd/htpasswd": passwords,
            "/etc/regd/token.pem": token,
            "/etc/regd/jwks.json": jwks,
            "/etc/regd/login.example.com.json": jwks,
            "/etc/regd/tls/fullchain.pem": certificate.certfile,
            "/etc/regd/tls/privkey.pem": certificate.keyfile,
            "/etc/regd/tls/clients.pem": authority.cafile,
        }

    def test_each(self) -> None:
        files = self.files()
        found = sections()
        self.assertGreaterEqual(len(found), 9)
        for number, (heading, configuration) in enumerate(found.items()):
            with self.subTest(heading):
                self.check(self.directory / str(number), configuration, files)

    def check(self, directory: Path, configuration: dict[str, Any], files: dict[str, Path]) -> None:
        server = Regd(directory)
        self.addCleanup(server.stop)
        configuration["storage"]["filesystem"]["rootdirectory"] = str(server.data)
        configuration["http"]["addr"] = f"127.0.0.1:{server.port}"
        secure = "tls" in configuration["http"]
        if "redirect" in configuration["http"].get("tls", {}):
            configuration["http"]["tls"]["redirect"] = f"127.0.0.1:{free_port()}"
        text = yaml.safe_dump(configuration)
        for name, path in files.items():
            text = re.sub(rf"{re.escape(name)}\b", str(path), text)
        self.assertNotIn("/etc/regd", text)
        server.configuration.write_text(text, encoding="utf-8")
        server.program.start()
        wait_until(lambda: "serves http" in server.program.output() or not server.program.is_alive(), 30, "the registry")
        self.assertIn("serves https://" if secure else "serves http://", server.program.output())
        expected = 401 if "auth" in configuration else 200
        self.assertEqual(self.status(server.port, secure=secure), expected)
        server.stop()

    @staticmethod
    def status(port: int, *, secure: bool) -> int:
        wire = Wire(port)
        try:
            if secure:
                context = ssl.create_default_context()
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
                wire.socket = context.wrap_socket(wire.socket, server_hostname="localhost")
            wire.head("GET", "/v2/")
            return wire.answer().status
        finally:
            wire.close()
