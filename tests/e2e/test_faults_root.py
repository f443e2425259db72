"""A root directory that cannot be used, at the start or from some moment on, and comes back."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.e2e.case import E2ETestCase
from tests.e2e.faults import FaultyRegd
from tests.e2e.images import OCI_MANIFEST, noise
from tests.e2e.ledger import manifest_of
from tests.e2e.process import need, need_root
from tests.e2e.rawhttp import digest_of

CONFIG = b"{}"


def without_override() -> Sequence[str]:
    """
    :return: What starts a program so that permissions apply to it, which they do not to root. Root without these capabilities still owns
        the interpreter and the sources, wherever they are; another user might not reach them.
    """
    if os.geteuid() != 0:
        return ()
    need("setpriv")
    return ("setpriv", "--bounding-set", "-dac_override,-dac_read_search", "--inh-caps", "-dac_override,-dac_read_search")


class RootTest(E2ETestCase):
    def setUp(self) -> None:
        self.layer = noise(50_000)
        self.manifest = manifest_of(CONFIG, self.layer)

    def make(self, **environment: str) -> FaultyRegd:
        """
        :param environment: Overrides of the configuration.
        :return: A daemon that permissions apply to, not yet started.
        """
        server = FaultyRegd(self.directory / self._testMethodName, None, environment, without_override())
        self.addCleanup(server.stop)
        return server

    def push(self, server: FaultyRegd) -> None:
        """
        :param server: To be given an image.
        """
        for blob in (CONFIG, self.layer):
            server.client.push_blob("a/b", blob)
        server.client.push_manifest("a/b", "latest", OCI_MANIFEST, self.manifest)

    def assert_serves(self, server: FaultyRegd) -> None:
        """
        :param server: It has to serve that image.
        """
        answer = server.client.get("/v2/a/b/manifests/latest", Accept=OCI_MANIFEST)
        self.assertEqual((answer.status, answer.body), (200, self.manifest))
        answer = server.client.get(f"/v2/a/b/blobs/{digest_of(self.layer)}")
        self.assertEqual((answer.status, answer.body), (200, self.layer))

    def assert_trouble(self, server: FaultyRegd, method: str, path: str, body: bytes = b"", **headers: str) -> None:
        """
        :param server: It has to say that it has trouble with its storage, and when to try again.
        :param method: The method.
        :param path: Where to.
        :param body: The body.
        :param headers: Header fields.
        """
        answer = server.client.request(method, path, body if method != "GET" else None, **headers)
        self.assertEqual((answer.status, answer.codes()), (503, ["UNAVAILABLE"]), (method, path, answer))
        self.assertIn("retry-after", answer.headers)

    def mode(self, path: Path, mode: int) -> None:
        """
        :param path: A directory; what it was is put back at the end.
        :param mode: Its permissions from now on.
        """
        self.addCleanup(path.chmod, 0o755)
        path.chmod(mode)

    def refused(self, server: FaultyRegd, reason: str) -> None:
        """
        :param server: It must not start: the exit status says so, and one line says why.
        :param reason: What the line has to contain.
        """
        with self.assertRaises(AssertionError):
            server.start()
        self.assertNotEqual(server.stop(), 0)
        said = server.program.output()
        self.assertFalse("Traceback" in said, said)
        lines = [line for line in said.splitlines() if str(server.data) in line]
        self.assertEqual(len(lines), 1, said)
        self.assertIn("storage.filesystem.rootdirectory", lines[0])
        self.assertIn(reason, lines[0])

    def test_a_start_where_nothing_may_be_written(self) -> None:
        server = self.make()
        self.mode(server.data, 0o555)
        self.refused(server, "Permission denied")
        server.data.chmod(0o755)
        server.start()
        self.push(server)
        self.assert_serves(server)

    def test_a_start_where_nothing_may_be_read(self) -> None:
        server = self.make()
        self.mode(server.data, 0)
        self.refused(server, "Permission denied")

    def test_a_start_where_the_root_may_not_be_made(self) -> None:
        server = self.make()
        server.data.rmdir()
        above = server.data.parent / "above"
        above.mkdir()
        server.data = above / "data"
        text = server.configuration.read_text(encoding="utf-8")
        server.configuration.write_text(text.replace(str(above.parent / "data"), str(server.data)), encoding="utf-8")
        self.mode(above, 0o555)
        self.refused(server, "Permission denied")

    def test_read_only_needs_no_writing(self) -> None:
        server = self.make()
        server.start()
        self.push(server)
        server.stop()
        self.mode(server.data, 0o555)
        server = self.make(REGISTRY_STORAGE_MAINTENANCE_READONLY_ENABLED="true")
        server.start()
        self.assert_serves(server)
        self.assertEqual(server.client.request("POST", "/v2/a/b/blobs/uploads/", b"").status, 405)

    def test_directories_that_lose_their_permissions(self) -> None:
        server = self.make()
        server.start()
        self.push(server)
        upload = server.client.begin_upload("a/b")
        repositories = server.data / "docker/registry/v2/repositories"
        self.mode(repositories, 0o555)
        self.assert_trouble(server, "POST", "/v2/new/blobs/uploads/")
        self.assert_serves(server)
        self.assertIn("Permission denied", server.program.tail())
        self.mode(repositories / "a", 0)
        self.assert_trouble(server, "GET", "/v2/a/b/manifests/latest")
        self.assert_trouble(server, "PATCH", upload, b"x" * 100, Content_Type="application/octet-stream")
        self.assertEqual(server.client.get("/v2/").status, 200)
        for path in (repositories, repositories / "a"):
            path.chmod(0o755)
        self.assert_serves(server)
        self.assertEqual(server.client.commit(upload, digest_of(b"late"), b"late").status, 201)
        server.client.push_blob("new", b"new")
        self.assertFalse("Traceback" in server.program.output())

    def test_the_root_goes_away_and_comes_back(self) -> None:
        server = self.make()
        server.start()
        self.push(server)
        upload = server.client.append(server.client.begin_upload("a/b"), b"first ")
        away = server.data.with_name("away")
        server.data.rename(away)

        for method, path in (
            ("GET", "/v2/a/b/manifests/latest"),
            ("GET", f"/v2/a/b/manifests/{digest_of(self.manifest)}"),
            ("GET", f"/v2/a/b/blobs/{digest_of(self.layer)}"),
            ("GET", "/v2/a/b/tags/list"),
            ("GET", "/v2/_catalog"),
            ("POST", "/v2/a/b/blobs/uploads/"),
            ("POST", f"/v2/a/b/blobs/uploads/?digest={digest_of(b'x')}"),
            ("PUT", "/v2/a/b/manifests/latest"),
            ("PATCH", upload),
            ("PUT", f"{upload}&digest={digest_of(b'first second')}"),
            ("DELETE", "/v2/a/b/manifests/latest"),
        ):
            with self.subTest(method=method, path=path):
                body = self.manifest if "manifests" in path else b"x"
                media_type = OCI_MANIFEST if "manifests" in path else "application/octet-stream"
                self.assert_trouble(server, method, path, body, Content_Type=media_type)
        # What is written where a disk is to be mounted would be hidden by it.
        self.assertFalse(server.data.exists())
        self.assertIn(str(server.data), server.program.tail())

        away.rename(server.data)
        self.assert_serves(server)
        self.assertEqual(server.client.commit(upload, digest_of(b"first second"), b"second").status, 201)
        self.assertFalse("Traceback" in server.program.output())

    def test_a_disk_that_becomes_read_only(self) -> None:
        # As ext4 does by itself after an error.
        need("mount", "umount")
        need_root()
        server = self.make()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "regd-test", str(server.data)], check=True)
        self.addCleanup(subprocess.run, ["umount", "--lazy", str(server.data)], check=True)
        server.start()
        self.push(server)
        upload = server.client.append(server.client.begin_upload("a/b"), b"first ")
        subprocess.run(["mount", "-o", "remount,ro", str(server.data)], check=True)
        self.assert_trouble(server, "POST", "/v2/a/b/blobs/uploads/")
        self.assert_trouble(server, "PATCH", upload, b"second", Content_Type="application/octet-stream")
        self.assert_trouble(server, "DELETE", "/v2/a/b/manifests/latest")
        self.assert_serves(server)
        self.assertIn("Read-only file system", server.program.tail())
        subprocess.run(["mount", "-o", "remount,rw", str(server.data)], check=True)
        self.assertEqual(server.client.commit(upload, digest_of(b"first second"), b"second").status, 201)
        self.assert_serves(server)

    def test_a_disk_that_is_unmounted(self) -> None:
        need("mount", "umount")
        need_root()
        server = self.make()
        disk = server.data.with_name("disk")
        disk.mkdir()
        subprocess.run(["mount", "--bind", str(disk), str(server.data)], check=True)
        server.start()
        self.push(server)
        subprocess.run(["umount", "--lazy", str(server.data)], check=True)
        self.assert_trouble(server, "GET", "/v2/a/b/manifests/latest")
        self.assert_trouble(server, "POST", "/v2/a/b/blobs/uploads/")
        # What is written below the mount point now would be hidden later.
        self.assertEqual(list(server.data.iterdir()), [])
        subprocess.run(["mount", "--bind", str(disk), str(server.data)], check=True)
        self.addCleanup(subprocess.run, ["umount", "--lazy", str(server.data)], check=True)
        self.assert_serves(server)
