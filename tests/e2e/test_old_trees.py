"""
Data directories with the damage that years of ``registry:2`` leave: one bad
file never takes down more than itself, and the log names it.
"""

import json
import shutil
from pathlib import Path

from tests.e2e.case import E2ETestCase
from tests.e2e.daemon import Regd
from tests.e2e.images import OCI_MANIFEST, noise
from tests.e2e.rawhttp import digest_of
from tests.e2e.test_drop_in import CONFIG, image

LAYER = noise(1000, seed=1)
NAME = "old/tree"


class OldTreesTest(E2ETestCase):
    def setUp(self) -> None:
        self.server = Regd(self.directory / self._testMethodName)
        self.addCleanup(self.server.stop)
        self.server.start()
        self.client = self.server.client
        for blob in (CONFIG, LAYER):
            self.client.push_blob(NAME, blob)
        self.manifest = image([LAYER], OCI_MANIFEST)
        self.digest = digest_of(self.manifest)
        for tag in ("bad", "good"):
            self.client.push_manifest(NAME, tag, OCI_MANIFEST, self.manifest)
        self.root = self.server.data / "docker" / "registry" / "v2"
        self.repository = self.root / "repositories" / NAME
        # Nothing may depend on what the process that wrote it remembers.
        self.server.stop()

    def tag_link(self, tag: str) -> Path:
        """
        :param tag: A tag.
        :return: The file that says which manifest it stands for.
        """
        return self.repository / "_manifests" / "tags" / tag / "current" / "link"

    def layer_link(self, digest: str) -> Path:
        """
        :param digest: Of a blob.
        :return: The file that says that the repository holds it.
        """
        return self.repository / "_layers" / digest.replace(":", "/") / "link"

    def blob_file(self, digest: str) -> Path:
        """
        :param digest: Of a blob.
        :return: The file with its bytes.
        """
        algorithm, _, encoded = digest.partition(":")
        return self.root / "blobs" / algorithm / encoded[:2] / encoded / "data"

    def assert_serves(self, path: str, content: bytes) -> None:
        """
        :param path: Of a manifest or blob below the repository.
        :param content: What it has to answer with.
        """
        answer = self.client.get(f"/v2/{NAME}/{path}", Accept=OCI_MANIFEST)
        self.assertEqual((answer.status, answer.body), (200, content), path)

    def assert_unknown(self, path: str, code: str) -> None:
        """
        :param path: Of a manifest or blob below the repository.
        :param code: Of the error that it has to answer with.
        """
        answer = self.client.get(f"/v2/{NAME}/{path}", Accept=OCI_MANIFEST)
        self.assertEqual((answer.status, answer.codes()), (404, [code]), path)

    def test_an_empty_tag_link(self) -> None:
        self.tag_link("bad").write_bytes(b"")
        self.server.start()
        self.assert_unknown("manifests/bad", "MANIFEST_UNKNOWN")
        self.assert_serves("manifests/good", self.manifest)
        self.assertEqual(self.client.get(f"/v2/{NAME}/tags/list").status, 200)
        self.assertIn(str(Path("tags/bad/current/link")), self.server.program.output())
        # A push mends it.
        self.client.push_manifest(NAME, "bad", OCI_MANIFEST, self.manifest)
        self.assert_serves("manifests/bad", self.manifest)

    def test_an_empty_layer_link(self) -> None:
        self.layer_link(digest_of(LAYER)).write_bytes(b"")
        self.server.start()
        self.assert_unknown(f"blobs/{digest_of(LAYER)}", "BLOB_UNKNOWN")
        self.assert_serves(f"blobs/{digest_of(CONFIG)}", CONFIG)
        self.client.push_blob(NAME, LAYER)
        self.assert_serves(f"blobs/{digest_of(LAYER)}", LAYER)

    def test_a_manifest_that_does_not_parse(self) -> None:
        self.blob_file(self.digest).write_bytes(b"")
        self.server.start()
        answer = self.client.get(f"/v2/{NAME}/manifests/good", Accept=OCI_MANIFEST)
        self.assertIn(answer.status, (404, 500))
        self.assertEqual(len(answer.codes()), 1)
        self.assertEqual(json.loads(self.client.get(f"/v2/{NAME}/tags/list").body)["tags"], ["bad", "good"])
        # A push of the same manifest replaces what is damaged.
        self.client.push_manifest(NAME, "good", OCI_MANIFEST, self.manifest)
        self.assert_serves("manifests/good", self.manifest)

    def test_a_blob_that_is_gone(self) -> None:
        shutil.rmtree(self.blob_file(digest_of(LAYER)).parent)
        self.server.start()
        self.assert_unknown(f"blobs/{digest_of(LAYER)}", "BLOB_UNKNOWN")
        self.client.push_blob(NAME, LAYER)
        self.assert_serves(f"blobs/{digest_of(LAYER)}", LAYER)

    def test_a_damaged_blob_is_replaced_by_a_push(self) -> None:
        self.blob_file(digest_of(LAYER)).write_bytes(b"damaged")
        self.server.start()
        self.client.push_blob(NAME, LAYER)
        self.assert_serves(f"blobs/{digest_of(LAYER)}", LAYER)

    def test_missing_directories(self) -> None:
        shutil.rmtree(self.repository / "_layers")
        shutil.rmtree(self.repository / "_manifests" / "tags")
        (self.root / "repositories" / "empty" / "_manifests").mkdir(parents=True)
        self.server.start()
        self.assert_serves(f"manifests/{self.digest}", self.manifest)
        tags = self.client.get(f"/v2/{NAME}/tags/list")
        self.assertEqual((tags.status, json.loads(tags.body)), (200, {"name": NAME, "tags": []}))
        self.assertEqual(json.loads(self.client.get("/v2/_catalog").body)["repositories"], ["empty", NAME])

    def test_leftovers(self) -> None:
        link = self.tag_link("good")
        link.with_name(f"link.{'0' * 8}-0000-4000-8000-{'0' * 12}.tmp").write_bytes(b"sha256:")
        (self.repository / "_manifests" / "tags" / "leftover.tmp").write_bytes(b"")
        (self.repository / "_manifests" / "tags" / "no-current").mkdir()
        (self.root / "repositories" / "a-file").write_bytes(b"")
        self.server.start()
        self.assert_serves("manifests/good", self.manifest)
        self.assertEqual(self.client.get(f"/v2/{NAME}/tags/list").status, 200)
        self.assert_unknown("manifests/no-current", "MANIFEST_UNKNOWN")
        self.assertEqual(json.loads(self.client.get("/v2/_catalog").body)["repositories"], [NAME])

    def test_manifest_links_of_2_1(self) -> None:
        # registry:2.1 kept them among the layers.
        revision = self.repository / "_manifests" / "revisions" / self.digest.replace(":", "/")
        old = self.layer_link(self.digest)
        old.parent.mkdir(parents=True)
        (revision / "link").rename(old)
        revision.rmdir()
        self.server.start()
        self.assert_serves("manifests/good", self.manifest)
        self.assert_serves(f"manifests/{self.digest}", self.manifest)
