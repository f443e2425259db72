"""A disk that fills up under a running daemon, for real: a small tmpfs."""

import subprocess

from tests.e2e.case import E2ETestCase
from tests.e2e.daemon import Regd
from tests.e2e.images import MIB, OCI_MANIFEST, noise
from tests.e2e.ledger import check_blob_files, manifest_of
from tests.e2e.process import need, need_root
from tests.e2e.rawhttp import Answer, digest_of
from tests.e2e.wire import Wire

CONFIG = b"{}"
SIZE = 16 * MIB
STREAM = {"Content-Type": "application/octet-stream"}


class FullDiskTest(E2ETestCase):
    def setUp(self) -> None:
        need("mount", "umount")
        need_root()
        self.data = self.directory / self._testMethodName / "data"
        self.data.mkdir(parents=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "regd-test", str(self.data)], check=True)
        self.addCleanup(subprocess.run, ["umount", "--lazy", str(self.data)], check=True)
        self.server = Regd(self.data.parent, self.data)
        self.addCleanup(self.server.stop)
        self.server.start()
        self.client = self.server.client
        self.layer = noise(MIB)
        for blob in (CONFIG, self.layer):
            self.client.push_blob("a/b", blob)
        self.manifest = manifest_of(CONFIG, self.layer)
        self.client.push_manifest("a/b", "latest", OCI_MANIFEST, self.manifest)

    def fill(self, size: int | None = None) -> None:
        """
        :param size: How many bytes somebody else's file takes; without it, all that there are.
        """
        with (self.data / "somebody-elses").open("wb", buffering=0) as other:
            try:
                while size is None or other.tell() < size:
                    other.write(bytes(64 * 1024))
            except OSError:
                if size is not None:
                    raise

    def make_room(self) -> None:
        """Remove that file."""
        (self.data / "somebody-elses").unlink()

    def assert_full(self, answer: Answer) -> None:
        """
        :param answer: To the client for whose bytes there was no room.
        """
        self.assertEqual((answer.status, answer.codes()), (507, ["UNAVAILABLE"]), answer)
        self.assertIn("retry-after", answer.headers)

    def assert_serves(self) -> None:
        """What was there before is served, and nothing half is."""
        self.assertEqual(self.client.get(f"/v2/a/b/blobs/{digest_of(self.layer)}").body, self.layer)
        self.assertEqual(self.client.get("/v2/a/b/manifests/latest", Accept=OCI_MANIFEST).body, self.manifest)
        self.assertEqual(self.client.get("/v2/a/b/tags/list").json(), {"name": "a/b", "tags": ["latest"]})
        check_blob_files(self.data)

    def send(self, method: str, target: str, body: bytes) -> Answer:
        """
        :param method: The method.
        :param target: Where to.
        :param body: More than there is room for.
        :return: The answer, which has to be readable although not all of the body was taken.
        """
        return Wire(self.server.port).answer_while_sending(method, target, body, STREAM)

    def test_an_upload_is_resumed_when_there_is_room(self) -> None:
        content = noise(12 * MIB)
        self.fill(8 * MIB)
        location = self.client.begin_upload("a/b")
        self.assert_full(self.send("PATCH", location, content))
        self.assert_serves()
        # Those who push meanwhile hear the same, those who pull hear nothing of it.
        self.assert_full(self.client.request("POST", f"/v2/c/d/blobs/uploads/?digest={digest_of(content[:MIB])}", content[:MIB]))
        self.assert_serves()
        status = self.client.get(location)
        self.assertEqual(status.status, 204)
        held = int(status.headers["range"].partition("-")[2]) + 1
        self.assertLess(held, len(content))

        self.make_room()
        self.assertEqual(self.client.commit(status.headers["location"], digest_of(content), content[held:]).status, 201)
        self.assertEqual(self.client.get(f"/v2/a/b/blobs/{digest_of(content)}").body, content)
        self.assert_serves()

    def test_an_upload_is_cancelled(self) -> None:
        content = noise(12 * MIB)
        self.fill(8 * MIB)
        location = self.client.begin_upload("a/b")
        self.assert_full(self.send("PUT", f"{location}&digest={digest_of(content)}", content))
        self.assert_serves()
        # Whether the failed request left the upload or not, its room can be had back without anybody's help.
        self.assertIn(self.client.request("DELETE", location).status, (204, 404))
        small = noise(2 * MIB)
        self.assertEqual(self.client.get(f"/v2/a/b/blobs/{self.client.push_blob('a/b', small)}").body, small)
        self.assertEqual(self.client.get(f"/v2/a/b/blobs/{digest_of(content)}").status, 404)
        self.assert_serves()

    def test_a_push_in_one_request_leaves_nothing(self) -> None:
        content = noise(20 * MIB)
        for _ in range(3):
            self.assert_full(self.send("POST", f"/v2/a/b/blobs/uploads/?digest={digest_of(content)}", content))
        # Nobody knows the uploads that these were, so they may not take any room.
        small = noise(8 * MIB)
        self.assertEqual(self.client.get(f"/v2/a/b/blobs/{self.client.push_blob('a/b', small)}").body, small)
        self.assert_serves()

    def test_manifests_and_deletions_on_a_full_disk(self) -> None:
        self.fill()
        other = manifest_of(self.layer, CONFIG)
        put = self.client.request("PUT", "/v2/a/b/manifests/other", other, Content_Type=OCI_MANIFEST)
        self.assert_full(put)
        overwrite = self.client.request("PUT", "/v2/a/b/manifests/latest", other, Content_Type=OCI_MANIFEST)
        self.assert_full(overwrite)
        begun = self.client.request("POST", "/v2/a/b/blobs/uploads/", b"")
        if begun.status == 202:
            # An upload that shares the file that says when it began takes no room yet.
            begun = self.client.request("PATCH", begun.headers["location"], noise(5000), Content_Type="application/octet-stream")
        self.assert_full(begun)
        self.assert_serves()
        # Deleting takes no room.
        self.assertEqual(self.client.request("DELETE", "/v2/a/b/manifests/latest").status, 202)
        self.make_room()
        self.client.push_manifest("a/b", "latest", OCI_MANIFEST, self.manifest)
        self.assert_serves()

    def test_no_inode_left(self) -> None:
        subprocess.run(["mount", "-o", "remount,nr_inodes=100", str(self.data)], check=True)
        others = self.data / "somebody-elses-many"
        others.mkdir()
        number = 0
        try:
            while True:
                (others / str(number)).touch()
                number += 1
        except OSError:
            pass
        self.assert_full(self.client.request("POST", "/v2/a/b/blobs/uploads/", b""))
        self.assert_serves()
        for other in others.iterdir():
            other.unlink()
        self.client.push_blob("a/b", b"again")
        self.assert_serves()

    def test_a_start_on_a_full_disk_is_clear(self) -> None:
        self.server.stop()
        self.fill()
        # It may serve what it has, or say that it cannot start; either way in one line that says why, and where.
        try:
            self.server.start()
        except AssertionError:
            self.assertNotEqual(self.server.stop(), 0)
        else:
            self.assert_serves()
        said = [line for line in self.server.program.output().splitlines() if "No space left on device" in line]
        self.assertTrue(said)
        self.assertIn(str(self.data), said[-1])
        self.assertFalse("Traceback" in self.server.program.output())
