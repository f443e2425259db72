"""``docs/troubleshooting.rst``: a Docker Engine runs into what it lists, and says what it lists."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path
from typing import ClassVar

from tests.e2e.caching import Cache
from tests.e2e.case import E2ETestCase
from tests.e2e.daemon import ROOT, Regd
from tests.e2e.engine import Engine
from tests.e2e.images import MIB, build_context, noise
from tests.e2e.peers import Nginx
from tests.e2e.process import wait_until

SYMPTOMS = (ROOT / "docs" / "troubleshooting.rst").read_text(encoding="utf-8")


class TroubleTest(E2ETestCase):
    engine: ClassVar[Engine]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.engine = Engine(cls.directory / "engine")
        cls.addClassCleanup(cls.engine.stop)
        cls.engine.start()
        cls.engine.run("build", "--quiet", "--tag", "image", str(build_context(cls.directory / "context", [4 * MIB])))

    def regd(self, data: Path | None = None, **environment: str) -> Regd:
        """
        :return: A daemon that runs.
        """
        server = Regd(self.directory / self._testMethodName, data, environment)
        self.addCleanup(server.stop)
        server.start()
        return server

    def push(self, name: str) -> str:
        """
        :return: What docker said of a push that failed.
        """
        self.engine.run("tag", "image", name)
        done = self.engine.try_run("push", name)
        self.assertNotEqual(done.returncode, 0)
        return done.stdout + done.stderr

    def is_listed(self, said: str, *symptom: str) -> None:
        """
        :param said: By docker.
        :param symptom: Parts of it, which the documentation has in one term.
        """
        for part in symptom:
            self.assertIn(part, said)
        terms = [line for line in SYMPTOMS.splitlines() if line and not line.startswith(" ")]
        self.assertTrue([term for term in terms if all(part in term for part in symptom)], symptom)

    def test_no_tls(self) -> None:
        # docker goes by the address: this one is not one of 127.0.0.0/8, and on this machine all the same.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect(("192.0.2.1", 9))
            except OSError:
                self.skipTest("no address but those of the loopback interface")
            address = probe.getsockname()[0]
        server = Regd(self.directory / self._testMethodName)
        text = server.configuration.read_text(encoding="utf-8")
        server.configuration.write_text(text.replace("addr: 127.0.0.1:", f"addr: {address}:"), encoding="utf-8")
        self.addCleanup(server.stop)
        server.program.start()
        wait_until(lambda: " serves " in server.program.output(), 30, "regd to listen")
        self.is_listed(self.push(f"{address}:{server.port}/some/app:1"), "http: server gave HTTP response to HTTPS client")

    def test_nobody_listens(self) -> None:
        server = self.regd()
        server.stop()
        self.is_listed(self.push(f"{server.host}/some/app:1"), "connect: connection refused")

    def test_a_proxy_with_a_limit(self) -> None:
        server = self.regd()
        nginx = Nginx(self.directory / "nginx", server.port)
        configuration = self.directory / "nginx" / "nginx.conf"
        text = configuration.read_text(encoding="utf-8")
        configuration.write_text(text.replace("client_max_body_size 0;", ""), encoding="utf-8")
        self.addCleanup(nginx.stop)
        nginx.start()
        self.is_listed(
            self.push(f"127.0.0.1:{nginx.port}/some/app:1"), "error parsing HTTP 413 response body: ", "Request Entity Too Large"
        )

    def test_read_only(self) -> None:
        server = self.regd(REGISTRY_STORAGE_MAINTENANCE_READONLY_ENABLED="true")
        self.is_listed(self.push(f"{server.host}/some/app:1"), "unsupported: this registry is read-only at the moment")

    def test_manifest_unknown(self) -> None:
        done = self.engine.try_run("pull", f"{self.regd().host}/some/app:nothing")
        self.is_listed(done.stderr, "manifest unknown")

    def test_a_cache(self) -> None:
        # Nobody listens at port 9 of this machine.
        cache = Cache(self.directory / "cache", "  upstreams: [{prefix: hub.test, remoteurl: 'http://127.0.0.1:9'}]\n")
        self.addCleanup(cache.stop)
        cache.start()
        name = f"{cache.host}/hub.test/library/app:1"
        self.is_listed(self.push(name), "unsupported: what is below ", " here is a cache of ")
        self.is_listed(self.engine.try_run("pull", name).stderr, "received unexpected HTTP status: 502 Bad Gateway")
        self.assertRegex(cache.program.output(), r"level=warning msg=.*http://127\.0\.0\.1:9: .*Connection refused")

    def test_a_full_disk(self) -> None:
        data = self.directory / "small"
        data.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "regd-test", str(data)], check=True)
        self.addCleanup(subprocess.run, ["umount", "--lazy", str(data)], check=True)
        server = self.regd(data)
        answer = server.client.request("POST", f"/v2/a/b/blobs/uploads/?digest=sha256:{'0' * 64}", noise(4 * MIB))
        # What docker makes of it after five tries, a minute later: "received unexpected HTTP status".
        self.assertEqual(answer.status, 507)
        self.is_listed("received unexpected HTTP status: 507 Insufficient Storage Space", "507 Insufficient Storage Space")

    def test_several_registries_behind_one_address(self) -> None:
        one = self.regd()
        path = one.client.begin_upload("a/b").partition(one.host)[2]
        for data, code in ((one.data, "BLOB_UPLOAD_INVALID"), (None, "BLOB_UPLOAD_UNKNOWN")):
            other = Regd(self.directory / code.lower(), data, {"REGISTRY_HTTP_SECRET": "anotherone"})
            self.addCleanup(other.stop)
            other.start()
            self.assertEqual(other.client.request("PATCH", path, b"x").codes(), [code])
            # As docker writes them.
            words = code.lower().replace("_", " ")
            self.is_listed(words, words)
