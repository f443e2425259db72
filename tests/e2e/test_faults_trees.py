"""
Data directories as years of ``registry:2``, crashes and copies leave them, written file by file: what is whole is served, what is not is
passed over, and the log names each damaged file once.
"""

import json
from pathlib import Path
from typing import ClassVar

from tests.e2e.case import E2ETestCase
from tests.e2e.faults import FaultyRegd
from tests.e2e.images import OCI_MANIFEST, noise
from tests.e2e.ledger import blob_file, manifest_of
from tests.e2e.rawhttp import Answer, digest_of
from tests.e2e.test_faults_root import without_override

CONFIG = b'{"architecture":"amd64","os":"linux"}'
UUID = "0190b1f7-6c3e-7d0a-9b5f-1a2b3c4d5e6f"


class Tree:
    """
    Writes files as ``registry:2`` names them.

    :param data: The root directory of a storage.
    """

    def __init__(self, data: Path) -> None:
        self.data = data
        self.repositories = data / "docker/registry/v2/repositories"

    def file(self, path: str, content: bytes) -> Path:
        """
        :param path: Below the directory of repositories.
        :param content: What it is to hold.
        :return: The file.
        """
        full = self.repositories / path
        full.parent.mkdir(parents=True, exist_ok=True)
        full.write_bytes(content)
        return full

    def blob(self, content: bytes, digest: str = "") -> str:
        """
        :param content: What the file holds.
        :param digest: What it is stored under, if that is not what it has.
        :return: That digest.
        """
        digest = digest or digest_of(content)
        path = blob_file(self.data, digest)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return digest

    def layer(self, name: str, digest: str) -> Path:
        """
        :param name: A repository.
        :param digest: Of a blob that it is to hold.
        :return: The link.
        """
        return self.file(f"{name}/_layers/{digest.replace(':', '/')}/link", digest.encode())

    def revision(self, name: str, digest: str) -> Path:
        """
        :param name: A repository.
        :param digest: Of a manifest that it is to hold.
        :return: The link.
        """
        return self.file(f"{name}/_manifests/revisions/{digest.replace(':', '/')}/link", digest.encode())

    def tag(self, name: str, tag: str, content: bytes) -> Path:
        """
        :param name: A repository.
        :param tag: A tag.
        :param content: What its link holds.
        :return: The link.
        """
        return self.file(f"{name}/_manifests/tags/{tag}/current/link", content)

    def image(self, name: str, tag: str, layer: bytes) -> bytes:
        """
        :param name: A repository.
        :param tag: A tag.
        :param layer: The only layer.
        :return: The manifest of an image that is there, whole.
        """
        manifest = manifest_of(CONFIG, layer)
        for blob in (CONFIG, layer):
            self.layer(name, self.blob(blob))
        self.revision(name, self.blob(manifest))
        self.tag(name, tag, digest_of(manifest).encode())
        self.file(f"{name}/_manifests/tags/{tag}/index/{digest_of(manifest).replace(':', '/')}/link", digest_of(manifest).encode())
        return manifest


class OldTreeTest(E2ETestCase):
    server: ClassVar[FaultyRegd]
    tree: ClassVar[Tree]
    manifest: ClassVar[bytes]

    LAYER = noise(1000, seed=1)
    NAME = "old/damaged"

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.server = FaultyRegd(cls.directory / "server", under=without_override())
        cls.addClassCleanup(cls.server.stop)
        cls.tree = Tree(cls.server.data)
        cls.manifest = cls.tree.image(cls.NAME, "good", cls.LAYER)
        cls.server.start()

    def setUp(self) -> None:
        self.client = self.server.client
        self.digest = digest_of(self.manifest)
        self.addCleanup(lambda: self.assertFalse("Traceback" in self.server.program.output(), "a traceback is in the log"))

    def manifest_answer(self, reference: str, name: str = NAME) -> Answer:
        """
        :param reference: A tag or a digest.
        :param name: The repository.
        :return: The answer to a pull.
        """
        return self.client.get(f"/v2/{name}/manifests/{reference}", Accept=OCI_MANIFEST)

    def tags(self, name: str = NAME) -> list[str]:
        """
        :param name: A repository.
        :return: The tags that are listed.
        """
        answer = self.client.get(f"/v2/{name}/tags/list")
        self.assertEqual(answer.status, 200, answer)
        document = answer.json()
        assert isinstance(document, dict)
        return list(document["tags"])

    def assert_served(self, name: str = NAME, reference: str = "good") -> None:
        """
        :param name: A repository.
        :param reference: A tag or a digest of the image, which has to be whole.
        """
        answer = self.manifest_answer(reference, name)
        self.assertEqual((answer.status, answer.body), (200, self.manifest), answer)
        self.assertEqual(answer.headers["docker-content-digest"], self.digest)

    def assert_unknown(self, answer: Answer, code: str) -> None:
        """
        :param answer: To a question for something that is damaged.
        :param code: What it has to say.
        """
        self.assertEqual((answer.status, answer.codes()), (404, [code]), answer)

    def assert_reported(self, path: Path) -> None:
        """
        :param path: Something damaged that has been met more than once: the log has to name it in one line.
        """
        relative = str(path.relative_to(self.server.data))
        lines = [line for line in self.server.program.output().splitlines() if relative in line and "level=warning" in line]
        self.assertEqual(len(lines), 1, f"{relative}: {lines}")

    def test_links_that_are_none(self) -> None:
        for tag, content in (
            ("empty", b""),
            ("torn", self.digest[:30].encode()),
            ("torn-in-the-algorithm", b"sha2"),
            ("zeros", bytes(71)),
            ("noise", noise(71, seed=2)),
            ("long", self.digest.encode() * 1000),
        ):
            link = self.tree.tag(self.NAME, tag, content)
            with self.subTest(tag=tag):
                for _ in range(2):
                    self.assert_unknown(self.manifest_answer(tag), "MANIFEST_UNKNOWN")
                    self.assertNotIn(tag, self.tags())
                self.assert_reported(link)
                self.assert_served()
                self.client.push_manifest(self.NAME, tag, OCI_MANIFEST, self.manifest)
                self.assert_served(reference=tag)

    def test_a_link_that_ends_in_a_newline(self) -> None:
        self.tree.tag(self.NAME, "newline", f"{self.digest}\n".encode())
        self.assert_served(reference="newline")
        self.assertIn("newline", self.tags())

    def test_a_tag_without_a_current_link(self) -> None:
        directory = self.tree.file(f"{self.NAME}/_manifests/tags/no-current/index/{self.digest.replace(':', '/')}/link", b"x").parents[3]
        for _ in range(2):
            self.assert_unknown(self.manifest_answer("no-current"), "MANIFEST_UNKNOWN")
            self.assertNotIn("no-current", self.tags())
        self.assert_reported(directory)
        self.assert_unknown(self.client.request("DELETE", f"/v2/{self.NAME}/manifests/no-current"), "MANIFEST_UNKNOWN")

    def test_leftovers_among_the_tags(self) -> None:
        tags = self.tree.repositories / self.NAME / "_manifests" / "tags"
        (tags / f"link.{UUID}.tmp").write_bytes(b"sha256:")
        (tags / ".nfs0000").write_bytes(b"")
        (tags / "lost+found").mkdir()
        self.tree.file(f"{self.NAME}/_manifests/tags/good/current/link.{UUID}.tmp", b"sha256:")
        for _ in range(2):
            self.assertEqual([tag for tag in self.tags() if "tmp" in tag or "nfs" in tag or "lost" in tag], [])
        for leftover in (f"link.{UUID}.tmp", ".nfs0000", "lost+found"):
            self.assert_reported(tags / leftover)
        self.assert_served()

    def test_a_tag_whose_manifest_is_gone(self) -> None:
        self.tree.tag(self.NAME, "dangling", digest_of(b"gone").encode())
        self.assert_unknown(self.manifest_answer("dangling"), "MANIFEST_UNKNOWN")
        self.tree.revision(self.NAME, digest_of(b"gone"))
        self.assert_unknown(self.manifest_answer("dangling"), "MANIFEST_UNKNOWN")
        self.assert_unknown(self.manifest_answer(digest_of(b"gone")), "MANIFEST_UNKNOWN")
        self.assert_served()
        # It can be got rid of.
        self.assertEqual(self.client.request("DELETE", f"/v2/{self.NAME}/manifests/dangling").status, 202)
        self.assertNotIn("dangling", self.tags())

    def test_manifests_that_cannot_be_read(self) -> None:
        for number, content in enumerate((b"", b"{", noise(500, seed=3), self.manifest[:-10], self.manifest + b" ", b"[]")):
            name = f"old/bad/{number}"
            whole = manifest_of(CONFIG, noise(10, seed=number))
            digest = self.tree.blob(content, digest_of(whole))
            self.tree.revision(name, digest)
            self.tree.tag(name, "bad", digest.encode())
            self.tree.image(name, "good", self.LAYER)
            with self.subTest(content=content[:20]):
                for _ in range(2):
                    self.assert_unknown(self.manifest_answer("bad", name), "MANIFEST_UNKNOWN")
                    self.assert_unknown(self.manifest_answer(digest, name), "MANIFEST_UNKNOWN")
                self.assert_reported(blob_file(self.server.data, digest))
                self.assert_served(name)
                referrers = self.client.get(f"/v2/{name}/referrers/{digest}")
                self.assertEqual(referrers.status, 200)
                # A push mends it.
                for blob in (CONFIG, noise(10, seed=number)):
                    self.client.push_blob(name, blob)
                self.client.push_manifest(name, "bad", OCI_MANIFEST, whole)
                self.assertEqual(self.manifest_answer("bad", name).body, whole)

    def test_blobs_of_no_bytes(self) -> None:
        content = noise(100, seed=4)
        digest = self.tree.blob(b"", digest_of(content))
        self.tree.layer(self.NAME, digest)
        path = f"/v2/{self.NAME}/blobs/{digest}"
        for _ in range(2):
            self.assert_unknown(self.client.get(path), "BLOB_UNKNOWN")
            self.assertEqual(self.client.request("HEAD", path).status, 404)
        self.assert_reported(blob_file(self.server.data, digest))
        # So a client that asks first pushes it again, which mends it.
        self.client.push_blob(self.NAME, content)
        self.assertEqual(self.client.get(path).body, content)

    def test_the_blob_that_has_no_bytes(self) -> None:
        digest = self.tree.blob(b"")
        self.tree.layer(self.NAME, digest)
        answer = self.client.get(f"/v2/{self.NAME}/blobs/{digest}")
        self.assertEqual((answer.status, answer.body), (200, b""))

    def test_layer_links_that_are_none(self) -> None:
        for number, content in enumerate((b"", b"sha256:12", bytes(71))):
            blob = noise(100, seed=10 + number)
            link = self.tree.layer(self.NAME, self.tree.blob(blob))
            link.write_bytes(content)
            path = f"/v2/{self.NAME}/blobs/{digest_of(blob)}"
            for _ in range(2):
                self.assert_unknown(self.client.get(path), "BLOB_UNKNOWN")
            self.assert_reported(link)
            self.client.push_blob(self.NAME, blob)
            self.assertEqual(self.client.get(path).body, blob)
        digest = digest_of(b"a blob that is gone")
        self.tree.layer(self.NAME, digest)
        self.assert_unknown(self.client.get(f"/v2/{self.NAME}/blobs/{digest}"), "BLOB_UNKNOWN")

    def test_missing_directories(self) -> None:
        self.tree.image("old/no-layers", "good", self.LAYER)
        (self.tree.repositories / "old/no-layers/_layers").rename(self.directory / "layers")
        self.assert_served("old/no-layers")
        self.assertEqual(self.tags("old/no-layers"), ["good"])

        self.tree.image("old/no-tags", "good", self.LAYER)
        (self.tree.repositories / "old/no-tags/_manifests/tags").rename(self.directory / "tags")
        self.assert_served("old/no-tags", self.digest)
        self.assertEqual(self.tags("old/no-tags"), [])

        self.tree.image("old/no-revisions", "good", self.LAYER)
        (self.tree.repositories / "old/no-revisions/_manifests/revisions").rename(self.directory / "revisions")
        self.assert_unknown(self.manifest_answer("good", "old/no-revisions"), "MANIFEST_UNKNOWN")

        (self.tree.repositories / "old/nothing").mkdir()
        self.assert_unknown(self.client.get("/v2/old/nothing/tags/list"), "NAME_UNKNOWN")
        (self.tree.repositories / "old/no-manifests/_layers").mkdir(parents=True)
        self.tree.file("old/a-file", b"")
        self.tree.file("old/UPPER CASE/_manifests/x", b"")
        catalog = self.client.get("/v2/_catalog?n=1000")
        document = catalog.json()
        assert isinstance(document, dict), catalog
        self.assertLessEqual({"old/no-layers", "old/no-tags", "old/no-revisions", self.NAME}, set(document["repositories"]))
        self.assertLessEqual({"old/nothing", "old/no-manifests", "old/a-file", "old/UPPER CASE"} & set(document["repositories"]), set())
        # Each takes a push.
        for name in ("old/no-layers", "old/no-tags", "old/no-revisions", "old/nothing"):
            for blob in (CONFIG, self.LAYER):
                self.client.push_blob(name, blob)
            self.client.push_manifest(name, "good", OCI_MANIFEST, self.manifest)
            self.assert_served(name)

    def test_manifest_links_of_2_1(self) -> None:
        name = "old/two-point-one"
        self.tree.image(name, "good", self.LAYER)
        (self.tree.repositories / name / "_manifests/revisions").rename(self.directory / "two-point-one")
        self.tree.layer(name, self.digest)
        for reference in ("good", self.digest):
            self.assert_served(name, reference)
        self.assertEqual(self.tags(name), ["good"])
        self.assertEqual(self.client.request("DELETE", f"/v2/{name}/manifests/{self.digest}").status, 202)
        for reference in ("good", self.digest):
            self.assert_unknown(self.manifest_answer(reference, name), "MANIFEST_UNKNOWN")

    def test_directories_in_the_place_of_files(self) -> None:
        digest = digest_of(b"a directory")
        blob_file(self.server.data, digest).mkdir(parents=True)
        self.tree.layer(self.NAME, digest)
        self.tree.revision(self.NAME, digest)
        self.tree.tag(self.NAME, "directory", digest.encode())
        self.assert_unknown(self.client.get(f"/v2/{self.NAME}/blobs/{digest}"), "BLOB_UNKNOWN")
        self.assert_unknown(self.manifest_answer("directory"), "MANIFEST_UNKNOWN")
        (self.tree.repositories / self.NAME / "_manifests/tags/directories/current/link").mkdir(parents=True)
        self.assert_unknown(self.manifest_answer("directories"), "MANIFEST_UNKNOWN")
        self.assertEqual(self.client.get(f"/v2/{self.NAME}/tags/list").status, 200)
        self.assert_served()

    def test_a_leftover_beside_a_blob(self) -> None:
        path = blob_file(self.server.data, digest_of(self.LAYER))
        path.with_name(f"data.{UUID}.tmp").write_bytes(self.LAYER[:100])
        self.assertEqual(self.client.get(f"/v2/{self.NAME}/blobs/{digest_of(self.LAYER)}").body, self.LAYER)

    def test_uploads_of_another_registry(self) -> None:
        content = noise(3000, seed=5)
        for number, started in enumerate((b"2016-05-01T12:00:00Z", b"2016-05-01T12:00:00Z\n", b"", b"yesterday", None)):
            upload = f"{UUID[:-1]}{number}"
            place = f"{self.NAME}/_uploads/{upload}"
            self.tree.file(f"{place}/data", content[:1000])
            self.tree.file(f"{place}/hashstates/sha256/0", noise(100))
            self.tree.file(f"{place}/hashstates/sha256/1000", noise(100))
            # Somebody else's bad news about the first thousand bytes.
            if started is not None:
                self.tree.file(f"{place}/startedat", started)
            status = self.client.get(f"/v2/{self.NAME}/blobs/uploads/{upload}")
            self.assertEqual((status.status, status.headers["range"]), (204, "0-999"), started)
            location = self.client.append(status.headers["location"], content[1000:2000])
            self.assertEqual(self.client.commit(location, digest_of(content), content[2000:]).status, 201)
            self.assertEqual(self.client.get(f"/v2/{self.NAME}/blobs/{digest_of(content)}").body, content)
        # One that has nothing but its beginning is none.
        self.tree.file(f"{self.NAME}/_uploads/{UUID}/startedat", b"2016-05-01T12:00:00Z")
        answer = self.client.get(f"/v2/{self.NAME}/blobs/uploads/{UUID}")
        self.assert_unknown(answer, "BLOB_UPLOAD_UNKNOWN")

    def close_with_note(self, number: int, note: bytes) -> None:
        """
        Close an upload beside which there is a digest of what it holds: regd's own note, which only saves time.

        :param number: Makes the upload another than those before.
        :param note: What the note says.
        """
        content = noise(1000, seed=6)
        upload = f"{UUID[:-2]}1{number}"
        self.tree.file(f"{self.NAME}/_uploads/{upload}/data", content)
        self.tree.file(f"{self.NAME}/_uploads/{upload}/digests/sha256/1000", note)
        answer = self.client.request("PUT", f"/v2/{self.NAME}/blobs/uploads/{upload}?digest={digest_of(content)}", b"")
        self.assertEqual(answer.status, 201, answer)
        path = f"/v2/{self.NAME}/blobs/{digest_of(content)}"
        self.assertEqual(self.client.get(path).body, content)
        self.client.request("DELETE", path)

    def test_a_digest_so_far_that_is_not_one(self) -> None:
        for number, note in enumerate((b"", b"12", b"g" * 64, bytes(64))):
            with self.subTest(note=note):
                self.close_with_note(number, note)

    def test_a_digest_so_far_that_is_another(self) -> None:
        self.close_with_note(9, digest_of(b"something else")[7:].encode())

    def test_files_that_may_not_be_read(self) -> None:
        name = "old/forbidden"
        manifest = self.tree.image(name, "bad", noise(10, seed=7))
        self.tree.image(name, "good", self.LAYER)
        path = blob_file(self.server.data, digest_of(manifest))
        path.chmod(0)
        self.addCleanup(path.chmod, 0o644)
        answer = self.manifest_answer("bad", name)
        self.assertEqual((answer.status, answer.codes()), (503, ["UNAVAILABLE"]))
        self.assert_served(name)
        self.assertEqual(self.tags(name), ["bad", "good"])
        self.assertIn("Permission denied", self.server.program.tail())

    def test_referrers_of_which_one_is_damaged(self) -> None:
        name = "old/referrers"
        subject = self.tree.image(name, "good", self.LAYER)
        good, bad, gone = (manifest_of(CONFIG, noise(10, seed=20 + number), subject) for number in range(3))
        place = f"{name}/_referrers/{digest_of(subject).replace(':', '/')}"
        for referrer in (good, bad, gone):
            self.tree.file(f"{place}/{digest_of(referrer).replace(':', '/')}/link", digest_of(referrer).encode())
            if referrer is not gone:
                self.tree.revision(name, self.tree.blob(referrer))
        blob_file(self.server.data, digest_of(bad)).write_bytes(b"")
        (self.tree.repositories / place / "sha256" / "not-a-digest").mkdir()
        for _ in range(2):
            document = self.client.get(f"/v2/{name}/referrers/{digest_of(subject)}").json()
            assert isinstance(document, dict)
            self.assertEqual([entry["digest"] for entry in document["manifests"]], [digest_of(good)])
        self.assert_reported(blob_file(self.server.data, digest_of(bad)))

    def test_an_index_under_the_fallback_tag_that_is_damaged(self) -> None:
        name = "old/fallback"
        subject = self.tree.image(name, "good", self.LAYER)
        tag = digest_of(subject).replace(":", "-")
        index = json.dumps({"schemaVersion": 2, "manifests": "none"}).encode()
        self.tree.revision(name, self.tree.blob(index))
        link = self.tree.tag(name, tag, digest_of(index).encode())
        for content in (digest_of(index).encode(), b"", b"sha256:1"):
            link.write_bytes(content)
            answer = self.client.get(f"/v2/{name}/referrers/{digest_of(subject)}")
            document = answer.json()
            assert isinstance(document, dict)
            self.assertEqual((answer.status, document["manifests"]), (200, []))
