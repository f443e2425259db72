"""The files that a configuration names for TLS: what is said of those that cannot be used."""

from __future__ import annotations

import contextlib
import io
import shutil
import tempfile
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from twisted.trial.unittest import SynchronousTestCase

from regd.cli import main
from regd.config import load
from regd.service.files import unusable_files
from regd.telemetry import tracing
from tests.e2e.certificates import Authority

HEAD = 'version: 0.1\nhttp: {addr: ":5000"}\n'


class FilesTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="regd-test-"))
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)
        self.first = Authority(self.directory / "first").own
        self.second = Authority(self.directory / "second").own

    def file(self, name: str, content: bytes) -> Path:
        path = self.directory / name
        path.write_bytes(content)
        return path

    def config(self, text: str) -> str:
        return str(self.file("config.yml", f"{HEAD}{text}".encode()))

    def route(self, tls: str) -> str:
        """The second route is the one that has ``tls``; its first upstream has no use for it."""
        upstreams = '["http://127.0.0.1:1", "https://127.0.0.1:2"]'
        return f"reverseproxy:\n  routes:\n    - {{path: /v1/, status: 404}}\n    - {{path: /, upstreams: {upstreams}, tls: {tls}}}\n"

    def problems(self, text: str) -> list[str]:
        return unusable_files(load(self.config(text), {}).config)

    def test_what_can_be_used(self) -> None:
        both = self.file("both.pem", b"some words\n" + self.first.certfile.read_bytes() + b"\n\n" + self.second.certfile.read_bytes())
        first = self.first
        for tls in (
            "{}",
            f"{{cafile: {both}}}",
            f"{{cafile: {both}, clientcertificate: {first.certfile}, clientkey: {first.keyfile}, servername: hub.internal}}",
            # Its first certificate is that of the key.
            f"{{clientcertificate: {both}, clientkey: {first.keyfile}}}",
        ):
            self.assertEqual(self.problems(self.route(tls)), [], tls)
        self.assertEqual(self.problems("storage: inmemory\n"), [])

    def test_what_is_not_installed(self) -> None:
        text = "storage: inmemory\ntracing: {enabled: true}\n"
        self.patch(tracing, "_NEEDED", ("sys",))
        self.assertEqual(self.problems(text), [])
        self.patch(tracing, "_NEEDED", ("no_such_package.module",))
        (problem,) = self.problems(text)
        self.assertIn("pip install 'regd[otel]'", problem)

    def test_what_cannot(self) -> None:
        certificate, key = self.first.certfile, self.first.keyfile
        spoilt = self.file("spoilt.pem", certificate.read_bytes() + b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        half = self.file("half.pem", certificate.read_bytes()[:200])
        words = self.file("words.pem", b"no certificate")
        encrypted = self.file(
            "encrypted.pem",
            self.first.key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"secret")
            ),
        )
        for tls, key_path, why in (
            (f"{{cafile: {self.directory}/none}}", "cafile", "which cannot be read (No such file or directory)"),
            (f"{{cafile: {self.directory}}}", "cafile", "which cannot be read (Is a directory)"),
            (f"{{cafile: {words}}}", "cafile", "which has no BEGIN CERTIFICATE"),
            (f"{{cafile: {key}}}", "cafile", "which has no BEGIN CERTIFICATE"),
            (f"{{cafile: {half}}}", "cafile", "which is damaged"),
            (f"{{cafile: {spoilt}}}", "cafile", "of which number 2 is damaged"),
            (f"{{clientcertificate: {words}, clientkey: {key}}}", "clientcertificate", "which has no BEGIN CERTIFICATE"),
            (f"{{clientcertificate: {certificate}, clientkey: {self.directory}/none}}", "clientkey", "which cannot be read"),
            (f"{{clientcertificate: {certificate}, clientkey: {words}}}", "clientkey", "which has no key that could be read"),
            (f"{{clientcertificate: {certificate}, clientkey: {encrypted}}}", "clientkey", "which is encrypted"),
            (f"{{clientcertificate: {certificate}, clientkey: {self.second.keyfile}}}", "clientkey", "which is not the key of"),
        ):
            [problem] = self.problems(self.route(tls))
            self.assertTrue(problem.startswith(f'reverseproxy.routes[1].tls.{key_path}: found "{self.directory}'), problem)
            self.assertIn(why, problem)

    def test_caches(self) -> None:
        storage = "storage: {filesystem: {rootdirectory: /var/lib/registry}}\n"
        [problem] = self.problems(f'{storage}proxy: {{remoteurl: "https://hub.example", cafile: /nowhere}}\n')
        self.assertTrue(problem.startswith('proxy.tls.cafile: found "/nowhere"'), problem)
        good = '{prefix: a.example, remoteurl: "https://a.example"}'
        bad = '{prefix: b.example, remoteurl: "https://b.example", tls: {cafile: /nowhere}}'
        [problem] = self.problems(f"{storage}proxy: {{upstreams: [{good}, {bad}]}}\n")
        self.assertTrue(problem.startswith('proxy.upstreams[1].tls.cafile: found "/nowhere"'), problem)

    def test_check_config(self) -> None:
        for tls, status in (("{cafile: /nowhere}", 1), (f"{{cafile: {self.first.certfile}}}", 0)):
            path = self.config(self.route(tls))
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                self.assertEqual(main(["check-config", path]), status)
            lines = out.getvalue().splitlines()
            if status:
                self.assertTrue(lines[0].startswith('error: reverseproxy.routes[1].tls.cafile: found "/nowhere"'), lines[0])
                self.assertEqual(lines[1:], [f"{path}: regd does not start with this configuration"])
            else:
                self.assertEqual(lines[0], f"{path}: regd starts with this configuration. In effect:")
