"""
A power cut at any moment, by the record of what the daemon asked the disk to keep: bytes before their name, what a link points to before
the link, everything before the answer. ``kill -9`` cannot show this: the kernel keeps what a dead process wrote.
"""

import re
import threading
from pathlib import Path

from tests.e2e.case import E2ETestCase
from tests.e2e.faults import FaultyRegd
from tests.e2e.faulty import Operation
from tests.e2e.images import noise
from tests.e2e.ledger import Ledger, Upload, blob_file, manifest_of
from tests.e2e.powercut import Disk
from tests.e2e.process import wait_until
from tests.e2e.rawhttp import digest_of

CONFIG = b"{}"

#: A tag's current link, and which tag.
CURRENT = re.compile(r"/_manifests/tags/([^/]+)/current/link$")


class PowerCutTest(E2ETestCase):
    def setUp(self) -> None:
        self.server = FaultyRegd(self.directory / self._testMethodName)
        self.addCleanup(self.server.stop)
        self.server.start()
        self.server.forget()
        self.disk = Disk(self.server.data)
        self.replayed = 0
        self.repositories = self.server.data / "docker/registry/v2/repositories"
        self.ledger = Ledger(self.server.client, self.server.data, "a/b")
        self.ledger.answered = self.replay

    def replay(self) -> None:
        """Bring the model up to date, and see at each step that a power cut there would do no harm."""
        operations = self.server.operations()
        for operation in operations[self.replayed :]:
            if operation.outcome == "done" and operation.name == "rename":
                self.check_rename(operation)
            if operation.outcome == "done" and operation.name == "unlink" and "/_manifests/revisions/" in operation.path:
                self.check_removal(operation)
            self.disk.apply(operation)
        self.replayed = len(operations)

    def check_rename(self, operation: Operation) -> None:
        """
        :param operation: A file becomes visible. All of it has to be safe, and what it points to as well.
        """
        if "/digests/" in operation.to:
            # It only saves work, and is checked when it is read.
            return
        self.assertTrue(self.disk.is_written(operation.path), f"{operation.to} becomes visible before its bytes are safe")
        if not operation.to.endswith("/link"):
            return
        digest = self.disk.text(operation.path)
        self.assert_safe(blob_file(self.server.data, digest), f"{operation.to} is written before what it points to is safe")
        if "/_layers/" not in operation.to and "/revisions/" not in operation.to:
            repository, name = operation.to.split("/_manifests/" if "/_manifests/" in operation.to else "/_referrers/")[0], digest
            revision = f"{repository}/_manifests/revisions/{name.replace(':', '/')}/link"
            self.assert_safe(Path(revision), f"{operation.to} is written before the manifest is the repository's")

    def check_removal(self, operation: Operation) -> None:
        """
        :param operation: A repository gives up a manifest. No tag may come back to point to it.
        """
        digest = ":".join(Path(operation.path).parts[-3:-1])
        for path, text in self.disk.safe_files():
            if CURRENT.search(path) and path.split("/_manifests/")[0] == operation.path.split("/_manifests/")[0]:
                self.assertNotEqual(text, digest, f"{path} could come back after {operation.path} has gone")

    def assert_safe(self, path: Path, why: str, size: int = 1) -> None:
        """
        :param path: A file.
        :param why: What it means when it is not safe.
        :param size: How many bytes of it have to be safe.
        """
        self.assertGreaterEqual(self.disk.safe_size(str(path)) or -1, size, f"{why}: {path}")

    def assert_linked(self, kind: str, digest: str, name: str = "a/b") -> None:
        """
        :param kind: ``_layers`` or ``_manifests/revisions``.
        :param digest: What has to be safe in that repository, and its bytes with it.
        :param name: The repository.
        """
        self.assert_safe(blob_file(self.server.data, digest), "acknowledged, and not safe")
        self.assert_safe(self.repositories / name / kind / digest.replace(":", "/") / "link", "acknowledged, and not safe", 71)

    def assert_tagged(self, tag: str, digest: str) -> None:
        """
        :param tag: A tag that has been acknowledged.
        :param digest: What it has to mean after a power cut.
        """
        path = self.repositories / "a/b/_manifests/tags" / tag / "current/link"
        self.assert_safe(path, "acknowledged, and not safe", 71)
        self.assertIn((str(path), digest), set(self.disk.safe_files()))

    def assert_gone(self, path: str) -> None:
        """
        :param path: Below the repository; it must not come back.
        """
        below = f"{self.repositories}/a/b/{path}"
        self.assertEqual([found for found, _ in self.disk.safe_files() if found.startswith(below)], [])

    def assert_held(self, upload: Upload) -> None:
        """
        :param upload: An upload of which some has been acknowledged.
        """
        place = self.repositories / "a/b/_uploads" / re.split(r"[/?]", upload.path)[6]
        size = self.disk.safe_size(str(place / "data"))
        self.assertIsNotNone(size, f"the name of an acknowledged upload is not safe: {place}")
        self.assertGreaterEqual(size or 0, upload.acknowledged, "acknowledged bytes are not safe")
        self.assert_safe(place / "startedat", "an acknowledged upload may lose its beginning")

    def test_push_in_pieces(self) -> None:
        upload = self.ledger.begin(noise(3000))
        self.assert_held(upload)
        for _ in range(2):
            self.ledger.append(upload, 1000)
            self.assert_held(upload)
        self.ledger.close(upload)
        self.assert_linked("_layers", digest_of(upload.content))

    def test_a_piece_of_several_batches(self) -> None:
        upload = self.ledger.begin(noise(3_000_000))
        self.ledger.append(upload, 2_500_000)
        self.assert_held(upload)
        self.ledger.close(upload)
        self.assert_linked("_layers", digest_of(upload.content))

    def test_push_in_one_request(self) -> None:
        content = noise(3000)
        self.ledger.push(content)
        self.assert_linked("_layers", digest_of(content))

    def test_mount(self) -> None:
        content = noise(3000)
        self.server.client.push_blob("from/here", content)
        self.ledger.mount(content, "from/here")
        self.assert_linked("_layers", digest_of(content))

    def test_manifests(self) -> None:
        layers = noise(300), noise(300)
        for blob in (CONFIG, *layers):
            self.ledger.push(blob)
        old, new = (manifest_of(CONFIG, layer) for layer in layers)
        about = manifest_of(CONFIG, layers[0], old)
        self.ledger.put("latest", old)
        self.assert_linked("_manifests/revisions", digest_of(old))
        self.assert_tagged("latest", digest_of(old))
        self.ledger.put("latest", new)
        self.assert_tagged("latest", digest_of(new))
        self.ledger.put("signature", about)
        place = f"{digest_of(old)}/{digest_of(about)}".replace(":", "/")
        self.assert_safe(self.repositories / "a/b/_referrers" / place / "link", "a referrer is not safe", 71)

        self.ledger.put("second", new)
        self.ledger.untag("second")
        self.assert_gone("_manifests/tags/second/")
        self.ledger.delete(new)
        self.assert_gone("_manifests/tags/latest/current/")
        self.assert_gone(f"_manifests/revisions/{digest_of(new).replace(':', '/')}/")
        self.ledger.delete(about)
        self.assert_gone("_referrers/" + place)

    def test_blob_delete(self) -> None:
        content = noise(3000)
        self.ledger.push(content)
        self.assertEqual(self.server.client.request("DELETE", f"/v2/a/b/blobs/{digest_of(content)}").status, 202)
        self.replay()
        self.assert_gone(f"_layers/{digest_of(content).replace(':', '/')}/")

    def held(self, content: bytes, name: str, path: str) -> threading.Thread:
        """
        Push a blob, and let the disk take its time over making something durable.

        :param content: The blob.
        :param name: The repository.
        :param path: A regular expression for the path of the first ``fsync`` that takes long.
        :return: What pushes, and goes on after ``disarm``.
        """
        self.server.arm("hold", "fsync", path=path, last=1)
        thread = threading.Thread(target=self.server.client.push_blob, args=(name, content))
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(self.server.disarm)
        wait_until(lambda: any(operation.outcome == "held" for operation in self.server.operations()), 10, "the fsync to be held")
        return thread

    def test_a_blob_that_another_push_is_making_durable(self) -> None:
        content = noise(3000)
        self.ledger.push(noise(3000))
        encoded = digest_of(content).partition(":")[2]
        thread = self.held(content, "other", f"/blobs/sha256/{encoded[:2]}$")
        self.ledger.push(content)
        self.assert_linked("_layers", digest_of(content))
        self.server.disarm()
        thread.join()
        self.replay()
        self.assert_linked("_layers", digest_of(content), "other")

    def test_a_directory_that_another_push_is_making_durable(self) -> None:
        self.server.client.push_blob("other", b"the directories at the top")
        thread = self.held(noise(3000), "a/b", "/v2/repositories$")
        upload = self.ledger.begin(noise(3000))
        self.assert_held(upload)
        self.server.disarm()
        thread.join()
