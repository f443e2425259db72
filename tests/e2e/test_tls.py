"""A registry that speaks TLS by itself, with an authority that nobody knows: real clients, and certificates that are replaced."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import bcrypt

from tests.e2e.case import E2ETestCase, Tool
from tests.e2e.certificates import Authority, Certificate
from tests.e2e.containers import Containerd
from tests.e2e.daemon import Regd
from tests.e2e.engine import Engine
from tests.e2e.images import MIB, build_context, noise, one_file_tar
from tests.e2e.process import SEARCH_PATH, free_port, need, need_root, wait_until

RULES = [
    {"who": "anonymous", "repositories": "public/**", "actions": ["pull"]},
    {"who": ["ci", "robot"], "repositories": "**", "actions": ["pull", "push"]},
]


def entry(name: str, password: str) -> str:
    return f"{name}:{bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()}\n"


class SecureRegd(Regd):
    """
    As :class:`~tests.e2e.daemon.Regd`, with TLS.

    :ivar certificate: of 127.0.0.1, at paths at which another may be put.
    """

    def __init__(self, directory: Path, authority: Authority, tls: dict[str, object] | None = None, **settings: str) -> None:
        directory.mkdir(parents=True)
        self.authority = authority
        self.certfile, self.keyfile = directory / "cert.pem", directory / "key.pem"
        self.install(authority.issue("127.0.0.1"))
        section = {"certificate": str(self.certfile), "key": str(self.keyfile), **(tls or {})}
        super().__init__(directory, environment={"REGISTRY_HTTP_TLS": json.dumps(section), **settings})

    def install(self, certificate: Certificate) -> None:
        """Have another certificate where the configuration says."""
        for source, target in ((certificate.certfile, self.certfile), (certificate.keyfile, self.keyfile)):
            other = target.with_suffix(".new")
            shutil.copy(source, other)
            os.replace(other, target)

    def context(self) -> ssl.SSLContext:
        """What a client of it needs."""
        return ssl.create_default_context(cafile=str(self.authority.cafile))

    def connect(self, context: ssl.SSLContext | None = None) -> ssl.SSLSocket:
        """A connection."""
        return (context or self.context()).wrap_socket(
            socket.create_connection(("127.0.0.1", self.port), timeout=60), server_hostname="127.0.0.1"
        )

    def _answers(self) -> bool:
        try:
            with self.connect():
                return True
        except (OSError, ssl.SSLError) as error:
            # One that wants a certificate says so.
            return "CERTIFICATE" in str(error).upper()

    def serial(self) -> str:
        """The number of the certificate that it shows."""
        with self.connect() as connection:
            shown = connection.getpeercert()
            assert shown is not None
            return str(shown["serialNumber"])


class TLSCase(E2ETestCase):
    authority: ClassVar[Authority]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.authority = Authority(cls.directory / "authority")

    def trusted_by_docker(self, server: Regd) -> Path:
        """
        :return: The directory that docker, podman and containers look into for what is to be known of a registry.
        """
        need_root()
        directory = Path("/etc/docker/certs.d") / server.host
        directory.mkdir(parents=True)
        self.addCleanup(shutil.rmtree, directory)
        shutil.copy(self.authority.cafile, directory / "ca.crt")
        return directory


class ClientsTest(TLSCase):
    server: ClassVar[SecureRegd]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        passwords = cls.directory / "htpasswd"
        passwords.write_text(entry("ci", "hunter2"), encoding="ascii")
        cls.server = SecureRegd(
            cls.directory / "server",
            cls.authority,
            {"clientcas": [str(cls.authority.cafile)], "clientauth": "verify-client-cert-if-given"},
            REGISTRY_AUTH=json.dumps({"htpasswd": {"realm": "the team", "path": str(passwords)}}),
            REGISTRY_ACCESS=json.dumps(RULES),
            REGISTRY_HTTP_WORKERS="2",
        )
        cls.run_for_all(cls.server)

    def push(self, name: str) -> str:
        """
        :return: The image, pushed by skopeo as ci.
        """
        image = f"{self.server.host}/{name}:latest"
        home = self.directory / f"skopeo-{name.replace('/', '-')}"
        home.mkdir()
        certificates = home / "certs"
        certificates.mkdir()
        shutil.copy(self.authority.cafile, certificates / "ca.crt")
        skopeo = Tool(home, "skopeo")
        archive = home / "archive.tar"
        archive.write_bytes(one_file_tar("content", noise(MIB)))
        podman = self.podman(home)
        podman.run("import", "--quiet", str(archive), "localhost/image")
        podman.run("push", "--quiet", "--remove-signatures", "localhost/image", f"dir:{home / 'image'}")
        skopeo.run("copy", "--dest-cert-dir", str(certificates), "--dest-creds=ci:hunter2", f"dir:{home / 'image'}", f"docker://{image}")
        return image

    def podman(self, home: Path) -> Tool:
        podman = Tool(
            home,
            *("podman", "--root", str(home / "root"), "--runroot", str(home / "run"), "--tmpdir", str(home / "tmp")),
            *("--storage-driver=vfs", "--events-backend=none", "--cgroup-manager=cgroupfs"),
        )
        self.addCleanup(podman.try_run, "system", "reset", "--force")
        return podman

    def test_docker(self) -> None:
        self.trusted_by_docker(self.server)
        engine = Engine(self.directory / "engine")
        self.addCleanup(engine.stop)
        engine.start()
        context = build_context(self.directory / "context", (12 * MIB, MIB))
        image = f"{self.server.host}/public/docker:latest"
        engine.run("build", "--quiet", "--tag", image, str(context))
        self.assertIn("denied: requested access", engine.try_run("push", image).stderr)
        self.assertIn("Login Succeeded", engine.run("login", "--username", "ci", "--password-stdin", self.server.host, stdin=b"hunter2"))
        engine.run("push", image)
        identity = engine.inspect(image, ".Id")
        engine.run("logout", self.server.host)
        engine.run("rmi", image)
        engine.run("pull", image)
        self.assertEqual(engine.inspect(image, ".Id"), identity)
        self.assertIn("denied: requested access", engine.try_run("push", image).stderr)
        self.assertNotIn("hunter2", self.server.program.output())

    def test_skopeo_that_does_not_know_the_authority(self) -> None:
        home = self.directory / "wrong"
        home.mkdir()
        skopeo = Tool(home, "skopeo")
        image = self.push("public/wrong")
        done = skopeo.try_run("inspect", f"docker://{image}")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn(b"certificate signed by unknown authority", done.stderr)
        stranger = home / "stranger"
        stranger.mkdir()
        shutil.copy(Authority(home / "other").cafile, stranger / "ca.crt")
        done = skopeo.try_run("inspect", "--cert-dir", str(stranger), f"docker://{image}")
        self.assertIn(b"certificate signed by unknown authority", done.stderr)
        wait_until(lambda: "no TLS with 127.0.0.1: " in self.server.program.output(), 10, "a line in the log")

    def test_podman_with_a_certificate(self) -> None:
        home = self.directory / "podman"
        certificates = home / "certs"
        certificates.mkdir(parents=True)
        robot = self.authority.issue("robot")
        shutil.copy(self.authority.cafile, certificates / "ca.crt")
        podman = self.podman(home)
        image = f"{self.server.host}/team/podman:latest"
        podman.run("import", "--quiet", "-", image, stdin=one_file_tar("content", noise(3 * MIB)))
        plain = podman.try_run("push", "--cert-dir", str(certificates), image)
        self.assertNotEqual(plain.returncode, 0)
        self.assertIn(b"denied: requested access", plain.stderr)
        shutil.copy(robot.certfile, certificates / "client.cert")
        shutil.copy(robot.keyfile, certificates / "client.key")
        podman.run("push", "--cert-dir", str(certificates), image)
        podman.run("rmi", image)
        podman.run("pull", "--quiet", "--cert-dir", str(certificates), image)
        self.assertIn(" - robot [", self.server.program.output())

    def test_containerd(self) -> None:
        image = self.push("public/containerd")
        containerd = Containerd(self.directory / "containerd")
        self.addCleanup(containerd.stop)
        containerd.start()
        containerd.write_hosts(
            self.server.host,
            f'server = "https://{self.server.host}"\n[host."https://{self.server.host}"]\n  ca = "{self.authority.cafile}"\n',
        )
        containerd.pull(image)
        other = f"{self.server.host}/team/containerd:latest"
        containerd.run("images", "tag", image, other)
        hosts = ("--hosts-dir", str(containerd.hosts))
        self.assertNotEqual(containerd.try_run("images", "push", *hosts, other).returncode, 0)
        containerd.run("images", "push", *hosts, "--user", "ci:hunter2", other)
        containerd.run("images", "rm", image, other)
        self.assertNotEqual(containerd.try_run("images", "pull", "--snapshotter", "native", *hosts, other).returncode, 0)
        containerd.run("images", "pull", "--snapshotter", "native", *hosts, "--user", "ci:hunter2", other)


class ReplacedTest(TLSCase):
    SIZE = 200 * MIB

    def test_during_a_pull_and_a_push(self) -> None:
        """Neither notices; the next connection sees the new certificate, and the new password."""
        passwords = self.directory / "htpasswd"
        passwords.write_text(entry("ci", "old"), encoding="ascii")
        server = SecureRegd(
            self.directory / "server",
            self.authority,
            REGISTRY_AUTH=json.dumps({"htpasswd": {"realm": "the team", "path": str(passwords)}}),
            REGISTRY_HTTP_WORKERS="2",
        )
        self.run_for_all(server)
        before = server.serial()
        content = noise(self.SIZE)
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        blob = self.directory / "blob"
        blob.write_bytes(content)

        def curl(*arguments: str, password: str = "old") -> list[str]:
            need("curl")
            return ["curl", "--silent", "--cacert", str(self.authority.cafile), "--user", f"ci:{password}", *arguments]

        def begin(password: str) -> str:
            said = subprocess.run(
                curl("--head", "--request", "POST", f"https://{server.host}/v2/a/blobs/uploads/", password=password),
                capture_output=True,
                check=True,
                encoding="ascii",
            ).stdout
            (location,) = (line.partition(":")[2].strip() for line in said.splitlines() if line.lower().startswith("location:"))
            return location

        def push(location: str, *limit: str) -> subprocess.Popen[str]:
            return subprocess.Popen(
                curl(
                    *limit,
                    "--upload-file",
                    str(blob),
                    "--header",
                    "Content-Type: application/octet-stream",
                    "--write-out",
                    "%{http_code}",
                    f"{location}{'&' if '?' in location else '?'}digest={digest}",
                ),
                stdout=subprocess.PIPE,
                encoding="ascii",
            )

        self.assertEqual(push(begin("old")).communicate(timeout=120)[0], "201")
        limit = ("--limit-rate", "16M")
        pushing = push(begin("old"), *limit)
        pulled = self.directory / "pulled"
        pulling = subprocess.Popen(curl(*limit, "--output", str(pulled), f"https://{server.host}/v2/a/blobs/{digest}"))
        time.sleep(2)
        server.install(self.authority.issue("127.0.0.1", days=3))
        passwords.write_text(entry("ci", "new"), encoding="ascii")
        for _ in range(4):
            wait_until(lambda: server.serial() != before, 20, "the new certificate in every worker")
        wait_until(lambda: self.status(server, curl("--output", os.devnull, password="new")) == "200", 20, "the new password")
        self.assertEqual(self.status(server, curl("--output", os.devnull)), "401")
        self.assertIsNone(pushing.poll())
        self.assertIsNone(pulling.poll())
        self.assertEqual((pushing.communicate(timeout=120)[0], pulling.wait(timeout=120)), ("201", 0))
        with pulled.open("rb") as file:
            self.assertEqual(f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}", digest)

        # One that is broken changes nothing.
        now = server.serial()
        server.certfile.write_text("nothing\n", encoding="ascii")
        wait_until(lambda: "has no BEGIN CERTIFICATE" in server.program.output(), 20, "a refusal")
        self.assertEqual(server.serial(), now)

    def status(self, server: SecureRegd, curl: list[str]) -> str:
        done = subprocess.run([*curl, "--write-out", "%{http_code}", f"https://{server.host}/v2/"], capture_output=True, check=True)
        return done.stdout.decode("ascii")


class OfferedTest(TLSCase):
    """What ``testssl.sh`` would look for, by openssl."""

    server: ClassVar[SecureRegd]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.redirect = free_port()
        cls.server = SecureRegd(
            cls.directory / "server",
            cls.authority,
            {"redirect": f"127.0.0.1:{cls.redirect}", "hsts": {"maxage": "24h"}},
            REGISTRY_HTTP_WORKERS="1",
        )
        cls.run_for_all(cls.server)

    redirect: ClassVar[int]

    def client(self, *arguments: str, said: bytes = b"Q\n") -> tuple[bool, str]:
        """
        :return: Whether the handshake was complete, and what openssl says of it.
        """
        need("openssl")
        done = subprocess.run(
            ["openssl", "s_client", "-connect", self.server.host, "-CAfile", str(self.authority.cafile), *arguments],
            input=said,
            capture_output=True,
            check=False,
            timeout=30,
            env={**os.environ, "PATH": SEARCH_PATH},
        )
        text = (done.stdout + done.stderr).decode(errors="replace")
        return "Cipher is (NONE)" not in text and "New, TLS" in text, text

    def test_protocols(self) -> None:
        # Debian's openssl does not offer the old ones at its usual security level.
        weak = ("-cipher", "ALL:@SECLEVEL=0")
        for version, offered in (("-tls1", False), ("-tls1_1", False), ("-tls1_2", True), ("-tls1_3", True)):
            self.assertEqual(self.client(version, *weak)[0], offered, version)

    def test_ciphers(self) -> None:
        listed = subprocess.run(
            ["openssl", "ciphers", "-s", "-tls1_2", "ALL:COMPLEMENTOFALL:@SECLEVEL=0"], capture_output=True, check=True, encoding="ascii"
        ).stdout.strip()
        names = [name for name in listed.split(":") if not name.startswith("TLS_")]
        offered = {name for name in names if self.client("-tls1_2", "-cipher", f"{name}:@SECLEVEL=0")[0]}
        # Its key is RSA.
        self.assertEqual(offered, {"ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-RSA-CHACHA20-POLY1305"}, len(names))

    def test_what_else_there_is(self) -> None:
        complete, text = self.client("-alpn", "h2,http/1.1")
        self.assertTrue(complete)
        self.assertIn("ALPN protocol: http/1.1", text)
        self.assertIn("Verify return code: 0 (ok)", text)
        _, text = self.client("-tls1_2")
        self.assertIn("Secure Renegotiation IS supported", text)
        self.assertIn("Compression: NONE", text)
        # A client that begins anew on its connection is told that it cannot.
        _, text = self.client("-tls1_2", said=b"R\n")
        self.assertRegex(text, "no renegotiation|no_renegotiation|unexpected message|handshake failure|write:errno")

    def test_resumption(self) -> None:
        context = self.server.context()
        with self.server.connect(context) as connection:
            connection.sendall(b"GET /v2/ HTTP/1.1\r\nHost: a\r\n\r\n")
            connection.recv(1000)
            session = connection.session
        plain = socket.create_connection(("127.0.0.1", self.server.port), timeout=10)
        with context.wrap_socket(plain, server_hostname="127.0.0.1", session=session) as connection:
            self.assertTrue(connection.session_reused)

    def test_plain_http(self) -> None:
        need("curl")

        def curl(url: str) -> str:
            return subprocess.run(["curl", "--silent", "--include", url], capture_output=True, check=True, encoding="ascii").stdout

        said = curl(f"http://{self.server.host}/v2/")
        self.assertTrue(said.startswith("HTTP/1.1 400 "), said)
        self.assertIn("https://", said)
        said = curl(f"http://127.0.0.1:{self.redirect}/v2/a/tags/list?n=1")
        self.assertTrue(said.startswith("HTTP/1.1 301 "), said)
        self.assertIn(f"Location: https://{self.server.host}/v2/a/tags/list?n=1\n", said.replace("\r", ""))

    def test_hsts(self) -> None:
        with self.server.connect() as connection:
            connection.sendall(b"GET /v2/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            said = b"".join(iter(lambda: connection.recv(65536), b""))
        self.assertIn(b"Strict-Transport-Security: max-age=86400\r\n", said)
        self.assertIn(f"serves https://{self.server.host}/", self.server.program.output())

    def test_hundred_handshakes_at_once(self) -> None:
        """With some that never go on among them."""
        idle = [socket.create_connection(("127.0.0.1", self.server.port)) for _ in range(100)]
        for one in idle:
            self.addCleanup(one.close)
            one.sendall(b"\x16\x03\x01")
        served: list[bool] = []

        def ask() -> None:
            with self.server.connect() as connection:
                connection.sendall(b"GET /v2/ HTTP/1.1\r\nHost: a\r\n\r\n")
                served.append(connection.recv(20).startswith(b"HTTP/1.1 200"))

        self.together(ask, 100)
        self.assertEqual(served, [True] * 100)

    @staticmethod
    def together(act: Callable[[], None], count: int) -> None:
        threads = [threading.Thread(target=act) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
