"""
A disk that gives errors, one operation at a time: the client whose request it was hears of it, nobody else does, and the next request
works.
"""

import errno
import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ClassVar

from tests.e2e.case import E2ETestCase
from tests.e2e.faults import FaultyRegd
from tests.e2e.images import MIB, OCI_MANIFEST, noise
from tests.e2e.ledger import check_blob_files, manifest_of
from tests.e2e.rawhttp import Answer, Client, digest_of

CONFIG = b"{}"
STREAM = {"Content_Type": "application/octet-stream"}


class Bystander(threading.Thread):
    """
    A client that pushes and pulls all the time.

    :param port: The server's.
    """

    def __init__(self, port: int) -> None:
        super().__init__()
        self.rounds = 0
        self.error: BaseException | None = None
        self._client = Client(port)
        self._enough = threading.Event()
        self._turned = threading.Event()

    def run(self) -> None:
        """Push and pull until told to stop."""
        try:
            while not self._enough.is_set():
                content = noise(200_000)
                digest = self._client.push_blob("by/stander", content)
                assert self._client.get(f"/v2/by/stander/blobs/{digest}").body == content
                self.rounds += 1
                self._turned.set()
        # Whatever it is, the test tells it.
        except BaseException as error:  # noqa: BLE001
            self.error = error
        finally:
            self._turned.set()

    def another_round(self) -> None:
        """Come back when it has done one more round."""
        for _ in range(2):
            self._turned.clear()
            if self.is_alive():
                self._turned.wait(20)

    def stop(self) -> None:
        """
        :raises AssertionError: When it was disturbed.
        """
        self.another_round()
        self._enough.set()
        self.join()
        assert self.error is None, f"a bystander was disturbed: {self.error!r}"
        assert self.rounds, "the bystander did nothing"


class DiskErrorTest(E2ETestCase):
    server: ClassVar[FaultyRegd]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.server = FaultyRegd(cls.directory / "server")
        cls.run_for_all(cls.server)

    def setUp(self) -> None:
        self.client = self.server.client
        self.name = f"victim/{self._testMethodName}"
        self.data = f"{self.name}/_uploads/.*/data$"
        self.addCleanup(self.server.disarm)

    @contextmanager
    def bystander(self) -> Iterator[None]:
        """Somebody else's pushes and pulls go on meanwhile, undisturbed."""
        other = Bystander(self.server.port)
        other.start()
        try:
            other.another_round()
            yield
        finally:
            other.stop()

    def fails(
        self,
        request: Callable[[], Answer],
        operation: str,
        path: str = "",
        error: int = errno.EIO,
        status: int = 503,
    ) -> Answer:
        """
        :param request: What is to be disturbed.
        :param operation: At which operation.
        :param path: On which path, a regular expression; the repository's without one.
        :param error: By which error.
        :param status: What the client has to be told.
        :return: The answer, which has to say that the registry has trouble, and when to try again.
        """
        self.server.arm("fail", operation, path=path or self.name, error=error)
        try:
            answer = request()
        finally:
            self.server.disarm()
        self.assertEqual((answer.status, answer.codes()), (status, ["UNAVAILABLE"]), (operation, path, answer))
        self.assertGreater(int(answer.headers["retry-after"]), 0)
        # What the disk said, and where, is for the log only.
        self.assertFalse(str(self.server.data).encode() in answer.body, answer)
        return answer

    def begin(self) -> Answer:
        """
        :return: The answer to a request to upload something.
        """
        return self.client.request("POST", f"/v2/{self.name}/blobs/uploads/", b"")

    def test_beginning_an_upload(self) -> None:
        with self.bystander():
            # Not "write": of the uploads of one second the first alone writes something, when it began.
            for operation in ("create", "fsync", "mkdir"):
                self.fails(self.begin, operation)
                self.fails(self.begin, operation, error=errno.EMFILE)
                self.fails(self.begin, operation, error=errno.ENOSPC, status=507)
                self.assertEqual(self.begin().status, 202, operation)

    def test_appending(self) -> None:
        content = noise(300_000)
        location = self.client.append(self.client.begin_upload(self.name), content[:100_000])

        def append() -> Answer:
            return self.client.request("PATCH", location, content[100_000:200_000], **STREAM)

        with self.bystander():
            self.fails(append, "open", path=self.data)
            self.fails(append, "open", path=self.data, error=errno.EMFILE)
            self.fails(append, "writev")
            self.fails(append, "writev", error=errno.ENOSPC, status=507)
        # Nothing was written, so the client may send it again, to the same URL.
        answer = append()
        self.assertEqual((answer.status, answer.headers["range"]), (202, "0-199999"), answer)
        self.assertEqual(self.client.commit(answer.headers["location"], digest_of(content), content[200_000:]).status, 201)

    def test_appending_in_several_batches(self) -> None:
        content = noise(4 * MIB)
        location = self.client.begin_upload(self.name)
        self.server.arm("fail", "writev", path=self.name, first=3, error=errno.EIO)
        # The server may answer before it has read everything.
        try:
            answer = self.client.request("PATCH", location, content, **STREAM)
            self.assertEqual((answer.status, answer.codes()), (503, ["UNAVAILABLE"]))
        except ConnectionError:
            pass
        self.server.disarm()
        status = self.client.get(location)
        held = int(status.headers["range"].partition("-")[2]) + 1
        self.assertGreater(held, 1)
        self.assertLess(held, len(content))
        self.assertEqual(self.client.commit(status.headers["location"], digest_of(content), content[held:]).status, 201)

    def test_bytes_that_could_not_be_made_durable(self) -> None:
        content = noise(300_000)
        location = self.client.append(self.client.begin_upload(self.name), content[:100_000])

        def append() -> Answer:
            return self.client.request("PATCH", location, content[100_000:200_000], **STREAM)

        with self.bystander():
            self.fails(append, "fsync", path=self.data)
        # The client can go on from where the server says that it stands.
        status = self.client.get(location)
        held = int(status.headers["range"].partition("-")[2]) + 1
        self.assertIn(held, (100_000, 200_000))
        self.assertEqual(self.client.commit(status.headers["location"], digest_of(content), content[held:]).status, 201)

    def test_bytes_that_could_not_be_made_durable_are_not_relied_on(self) -> None:
        content = noise(300_000)
        location = self.client.append(self.client.begin_upload(self.name), content[:100_000])
        self.fails(lambda: self.client.request("PATCH", location, content[100_000:200_000], **STREAM), "fsync", path=self.data)
        self.assertEqual(self.client.get(location).headers["range"], "0-99999")

    def test_a_note_that_cannot_be_kept(self) -> None:
        content = noise(2 * MIB)
        location = self.client.begin_upload(self.name)
        self.server.arm("fail", "mkdir", "create", path=f"{self.name}/_uploads/.*/digests", error=errno.EIO)
        answer = self.client.request("PATCH", location, content, **STREAM)
        self.assertTrue(any(operation.outcome == "failed" and "/digests" in operation.path for operation in self.server.operations()))
        self.assertEqual(answer.status, 202)
        self.assertEqual(self.client.commit(answer.headers["location"], digest_of(content)).status, 201)

    def test_closing(self) -> None:
        upload, link = "{name}/_uploads/[^/]*", "{name}/_layers"
        with self.bystander():
            for number, (operation, path) in enumerate(
                (
                    ("open", f"{upload}/data$"),
                    ("unlink", f"{upload}/startedat$"),
                    ("rename", f"{upload}$"),
                    ("fsync", "/blobs/sha256/{short}$"),
                    ("fsync", "{name}/_uploads$"),
                    ("mkdir", link),
                    ("create", link),
                    ("write", link),
                    ("fsync", link),
                    ("rename", link),
                )
            ):
                with self.subTest(operation=operation, path=path):
                    self.close_fails(f"{self.name}/{number}", operation, path)

    def close_fails(self, name: str, operation: str, path: str) -> None:
        """
        :param name: A new repository.
        :param operation: Where closing an upload is to fail.
        :param path: And on which path.
        """
        content = noise(50_000)
        encoded = digest_of(content)[7:]
        target = f"/v2/{name}/blobs/{digest_of(content)}"
        location = self.client.append(self.client.begin_upload(name), content)
        where = path.format(name=name, short=encoded[:2], encoded=encoded)
        self.fails(lambda: self.client.commit(location, digest_of(content)), operation, where)
        check_blob_files(self.server.data)
        self.assertEqual(self.client.get(target).status, 404)
        # The client asks again, or begins anew where the bytes have become a blob.
        again = self.client.commit(location, digest_of(content))
        self.assertIn(again.status, (201, 404), again)
        if again.status == 404:
            self.assertEqual(again.codes(), ["BLOB_UPLOAD_UNKNOWN"])
            self.client.push_blob(name, content)
        self.assertEqual(self.client.get(target).body, content)

    def test_reading(self) -> None:
        content, large = noise(20_000), noise(MIB)
        layer = self.client.push_blob(self.name, content)
        big = self.client.push_blob(self.name, large)
        self.client.push_blob(self.name, CONFIG)
        manifest = manifest_of(CONFIG, content)
        digest = self.client.push_manifest(self.name, "latest", OCI_MANIFEST, manifest)
        link = f"{self.name}/_layers/"
        with self.bystander():
            for path, operation, where in (
                (f"blobs/{layer}", "open", layer[7:]),
                (f"blobs/{layer}", "open", link),
                (f"blobs/{layer}", "read", link),
                (f"blobs/{layer}", "stat", layer[7:]),
                (f"blobs/{big}", "open", f"{big[7:]}/data"),
                (f"manifests/{digest}", "read", f"{self.name}/_manifests"),
                ("manifests/latest", "open", f"{self.name}/_manifests"),
                ("tags/list", "list", f"{self.name}/_manifests"),
                (f"referrers/{digest}", "stat", f"{self.name}/_manifests"),
            ):
                with self.subTest(path=path, operation=operation, where=where):
                    target = f"/v2/{self.name}/{path}"
                    for error in (errno.EIO, errno.EMFILE):
                        # What has changed a moment ago is opened and read again, and not remembered.
                        for file in self.server.data.rglob(f"{self.name}/_*/**/link"):
                            file.touch()
                        self.fails(functools.partial(self.client.get, target, Accept=OCI_MANIFEST), operation, where, error)
                    self.assertEqual(self.client.get(target, Accept=OCI_MANIFEST).status, 200)

    def test_reading_what_has_been_opened(self) -> None:
        layer = self.client.push_blob(self.name, noise(20_000))
        answer = self.fails(lambda: self.client.get(f"/v2/{self.name}/blobs/{layer}"), "read", f"{layer[7:]}/data")
        self.assertNotIn("etag", answer.headers)

    def test_manifests(self) -> None:
        layer = noise(1000)
        for blob in (CONFIG, layer):
            self.client.push_blob(self.name, blob)
        manifest = manifest_of(CONFIG, layer)

        def put() -> Answer:
            return self.client.request("PUT", f"/v2/{self.name}/manifests/latest", manifest, Content_Type=OCI_MANIFEST)

        encoded = digest_of(manifest)[7:]
        with self.bystander():
            for operation in ("mkdir", "create", "write", "fsync", "rename"):
                self.fails(put, operation, path=f"/blobs/sha256/{encoded[:2]}/{encoded}")
                self.assertEqual(self.client.get(f"/v2/{self.name}/manifests/latest").status, 404)
            for operation in ("create", "write", "fsync", "rename"):
                self.fails(put, operation, path="/_manifests/tags/latest/current")
                self.assertEqual(self.client.get(f"/v2/{self.name}/manifests/latest").status, 404)
                check_blob_files(self.server.data)
            self.assertEqual(put().status, 201)
            for operation in ("unlink", "rmdir", "fsync"):
                with self.subTest(deleting=operation):
                    self.fails(lambda: self.client.request("DELETE", f"/v2/{self.name}/manifests/latest"), operation)
                    # It is said that it failed, so asking again is right, and works whether or not some of it had been done.
                    self.assertIn(self.client.request("DELETE", f"/v2/{self.name}/manifests/latest").status, (202, 404))
                    self.assertEqual(self.client.get(f"/v2/{self.name}/manifests/latest").status, 404)
                    self.assertEqual(put().status, 201)
        self.assertEqual(self.client.get(f"/v2/{self.name}/manifests/latest", Accept=OCI_MANIFEST).body, manifest)

    def test_short_writes(self) -> None:
        content = noise(2 * MIB)
        self.server.arm("short", "write", "writev")
        digest = self.client.push_blob(self.name, content)
        self.client.push_blob(self.name, CONFIG)
        manifest = manifest_of(CONFIG, content)
        self.client.push_manifest(self.name, "latest", OCI_MANIFEST, manifest)
        self.server.disarm()
        self.assertEqual(self.client.get(f"/v2/{self.name}/blobs/{digest}").body, content)
        self.assertEqual(self.client.get(f"/v2/{self.name}/manifests/latest", Accept=OCI_MANIFEST).body, manifest)

    def test_a_disk_that_is_slow_for_one(self) -> None:
        slow = noise(50_000)
        location = self.client.append(self.client.begin_upload(self.name), slow)
        self.server.arm("hold", "fsync", "writev", path=self.name)
        answers: list[Answer] = []
        thread = threading.Thread(target=lambda: answers.append(self.client.commit(location, digest_of(slow))))
        thread.start()
        with self.bystander():
            pass
        self.assertEqual(answers, [])
        self.server.disarm()
        thread.join()
        self.assertEqual([answer.status for answer in answers], [201])

    def test_the_log_says_what_failed_and_where(self) -> None:
        self.fails(self.begin, "fsync")
        line = next(line for line in reversed(self.server.program.output().splitlines()) if "Input/output error" in line)
        self.assertIn(f"{self.server.data}/docker/registry/v2/repositories/{self.name}", line)
        self.assertIn("level=error", line)
        self.assertFalse(any("Traceback" in line for line in self.server.program.output().splitlines() if self.name in line))
