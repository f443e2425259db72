"""A storage that is full, missing or not writable: a clear line at start, an error to the client, recovery without a restart."""

import os
import subprocess
from pathlib import Path

from tests.e2e.case import E2ETestCase
from tests.e2e.daemon import Regd
from tests.e2e.images import MIB, noise
from tests.e2e.process import need, need_root
from tests.e2e.rawhttp import digest_of


class FullDiskTest(E2ETestCase):
    def setUp(self) -> None:
        need("mount", "umount")
        need_root()
        data = self.directory / self._testMethodName / "small"
        data.mkdir(parents=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "regd-test", str(data)], check=True)
        self.addCleanup(subprocess.run, ["umount", "--lazy", str(data)], check=True)
        self.server = Regd(data.parent, data)
        self.addCleanup(self.server.stop)
        self.server.start()
        self.client = self.server.client

    def test_a_full_disk_and_room_again(self) -> None:
        small = noise(MIB)
        digest = self.client.push_blob("a/b", small)
        large = noise(32 * MIB)
        try:
            location = self.client.begin_upload("a/b")
            answer = self.client.commit(location, digest_of(large), large)
            self.assertIn(answer.status, (503, 507), answer)
            self.assertEqual(len(answer.codes()), 1)
        except (ConnectionError, BrokenPipeError):
            # The answer came while the client still sent, and the rest of its body was not waited for.
            pass

        # Everybody else is served.
        self.assertEqual(self.client.get(f"/v2/a/b/blobs/{digest}").body, small)
        self.assertEqual(self.client.get(f"/v2/a/b/blobs/{digest_of(large)}").status, 404)
        self.assertEqual(self.client.get("/v2/_catalog").status, 200)

        # The client gives up, and there is room again.
        self.client.request("DELETE", location)
        again = noise(2 * MIB)
        self.assertEqual(self.client.get(f"/v2/a/b/blobs/{self.client.push_blob('a/b', again)}").body, again)


class UnusableRootTest(E2ETestCase):
    def refused(self, root: Path) -> str:
        """
        :param root: A root directory that cannot be used.
        :return: What a daemon says that is to start on it. It has to end with a failure, and without a traceback.
        """
        server = Regd(self.directory / self._testMethodName)
        self.addCleanup(server.stop)
        text = server.configuration.read_text(encoding="utf-8")
        server.configuration.write_text(text.replace(str(server.data), str(root)), encoding="utf-8")
        with self.assertRaises(AssertionError):
            server.start()
        self.assertNotEqual(server.stop(), 0)
        said = server.program.output()
        self.assertNotIn("Traceback", said)
        return said

    def test_a_root_that_is_a_file(self) -> None:
        root = self.directory / "a-file"
        root.write_bytes(b"")
        self.assertIn(str(root), self.refused(root))

    def test_a_root_below_a_file(self) -> None:
        root = self.directory / "another-file" / "data"
        root.parent.write_bytes(b"")
        self.assertIn(str(root), self.refused(root))

    def test_a_root_that_is_missing_is_made(self) -> None:
        server = Regd(self.directory / self._testMethodName)
        os.rmdir(server.data)
        self.addCleanup(server.stop)
        server.start()
        self.assertEqual(server.client.get(f"/v2/a/b/blobs/{server.client.push_blob('a/b', b'x')}").body, b"x")
