"""Several clients at the same thing at once, with a disk that is made to take its time just where it matters."""

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar

from tests.e2e.case import E2ETestCase
from tests.e2e.faults import FaultyRegd
from tests.e2e.images import MIB, OCI_MANIFEST, noise
from tests.e2e.ledger import check_blob_files, manifest_of
from tests.e2e.process import wait_until
from tests.e2e.rawhttp import Answer, digest_of
from tests.e2e.wire import Wire

CONFIG = b"{}"
STREAM = {"Content_Type": "application/octet-stream"}


class InBackground(threading.Thread):
    """
    Something that is done meanwhile.

    :param act: Does it.
    """

    def __init__(self, act: Callable[[], Answer | None]) -> None:
        super().__init__()
        self._act = act
        self._answer: Answer | None = None
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        """Do it."""
        try:
            self._answer = self._act()
        # Whatever it is, whoever asks for the result hears it.
        except BaseException as error:  # noqa: BLE001
            self._error = error

    def result(self) -> Answer:
        """
        :return: What came of it, when it is done.
        :raises AssertionError: When it failed.
        """
        self.join()
        if self._error is not None:
            raise AssertionError(f"failed in the background: {self._error!r}") from self._error
        assert self._answer is not None
        return self._answer


class ConcurrentTest(E2ETestCase):
    server: ClassVar[FaultyRegd]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.server = FaultyRegd(cls.directory / "server")
        cls.run_for_all(cls.server)

    def setUp(self) -> None:
        self.client = self.server.client
        self.name = f"many/{self._testMethodName.removeprefix('test_')}"
        self.addCleanup(self.server.disarm)
        self.addCleanup(lambda: self.assertFalse("Traceback" in self.server.program.output(), "a traceback is in the log"))

    def hold(self, operation: str, path: str) -> None:
        """
        :param operation: The first of these is made to wait.
        :param path: Where its path matches this regular expression.
        """
        self.server.forget()
        self.server.arm("hold", operation, path=path, last=1)

    def wait_held(self) -> None:
        """Wait until it waits."""
        wait_until(lambda: any(operation.outcome == "held" for operation in self.server.operations()), 20, "it to be held")

    def commit(self, name: str, location: str, content: bytes) -> Answer:
        """
        :param name: The repository.
        :param location: An upload of it, all sent.
        :param content: What was sent.
        :return: The answer to closing it.
        """
        answer = self.client.commit(location, digest_of(content))
        if answer.status == 201:
            assert self.client.get(f"/v2/{name}/blobs/{digest_of(content)}").body == content
        return answer

    def test_one_blob_pushed_twice(self) -> None:
        for operation, path in (
            ("create", "{first}/_layers/"),
            ("unlink", "{upload}/startedat$"),
            ("rename", "{upload}$"),
            ("fsync", "/blobs/sha256/{short}$"),
            ("fsync", "{first}/_uploads$"),
            ("rename", "{first}/_layers/"),
            ("fsync", "{first}/_layers/.*/{encoded}$"),
        ):
            with self.subTest(operation=operation, path=path):
                content = noise(20_000)
                encoded = digest_of(content)[7:]
                first, second = (f"{self.name}/{encoded[:8]}/{which}" for which in ("first", "second"))
                location = self.client.append(self.client.begin_upload(first), content)
                upload = location.rpartition("/")[2].partition("?")[0]
                self.hold(operation, path.format(upload=upload, short=encoded[:2], encoded=encoded, first=first))
                pushing = InBackground(partial(self.commit, first, location, content))
                self.wait_held()
                self.client.push_blob(second, content)
                self.assertEqual(self.client.get(f"/v2/{second}/blobs/{digest_of(content)}").body, content)
                self.server.disarm()
                self.assertEqual(pushing.result().status, 201)
                check_blob_files(self.server.data)

    def test_one_blob_pushed_by_many(self) -> None:
        contents = [noise(300_000) for _ in range(3)]

        def push(number: int) -> None:
            for content in contents:
                # Two of them always in one repository.
                self.client.push_blob(f"{self.name}/{number // 2}", content)

        self.all_at_once([partial(push, number) for number in range(8)])
        for number in range(4):
            for content in contents:
                self.assertEqual(self.client.get(f"/v2/{self.name}/{number}/blobs/{digest_of(content)}").body, content)
        check_blob_files(self.server.data)

    def all_at_once(self, acts: Sequence[Callable[[], object]]) -> None:
        """
        :param acts: What is done, each by a thread. None may fail.
        """

        def done(act: Callable[[], object]) -> Answer:
            act()
            return Answer(200, {}, b"")

        for thread in [InBackground(partial(done, act)) for act in acts]:
            thread.result()

    def test_a_second_writer(self) -> None:
        content = noise(500_000)
        location = self.client.append(self.client.begin_upload(self.name), content[:100_000])
        self.hold("writev", f"{self.name}/_uploads/.*/data$")
        first = InBackground(lambda: self.client.request("PATCH", location, content[100_000:], **STREAM))
        self.wait_held()
        for method, target, body in (
            ("PATCH", location, b"intruder"),
            ("PATCH", location.partition("?")[0], b"intruder"),
            ("PUT", f"{location}&digest={digest_of(content)}", content[100_000:]),
            ("PUT", f"{location}&digest={digest_of(content)}", b""),
        ):
            answer = self.client.request(method, target, body, **STREAM)
            self.assertEqual((answer.status, answer.codes()), (416, ["RANGE_INVALID"]), answer)
            self.assertTrue(answer.headers["range"].startswith("0-"))
            self.assertIn("docker-upload-uuid", answer.headers)
            self.assertIn("location", answer.headers)
        self.server.disarm()
        answer = first.result()
        self.assertEqual((answer.status, answer.headers["range"]), (202, f"0-{len(content) - 1}"))
        self.assertEqual(self.commit(self.name, answer.headers["location"], content).status, 201)

    def test_an_upload_closed_twice(self) -> None:
        for operation, path in (("create", "_layers/"), ("unlink", "_uploads/.*/startedat$"), ("rename", "_uploads/[^/]*$")):
            content = noise(50_000)
            location = self.client.append(self.client.begin_upload(self.name), content)
            self.hold(operation, f"{self.name}/{path}")
            first = InBackground(partial(self.commit, self.name, location, content))
            self.wait_held()
            self.assertEqual(self.client.commit(location, digest_of(content)).status, 416)
            self.server.disarm()
            self.assertEqual(first.result().status, 201)
            self.assertEqual(self.client.commit(location, digest_of(content)).status, 404)

    def test_an_upload_cancelled_under_its_writer(self) -> None:
        content = noise(200_000)
        location = self.client.begin_upload(self.name)
        wire = Wire(self.server.port)
        self.addCleanup(wire.close)
        wire.head("PATCH", location, {"Content-Length": len(content), "Content-Type": "application/octet-stream"})
        wire.socket.sendall(content[:100_000])
        wait_until(lambda: self.client.request("PATCH", location, b"x", **STREAM).status == 416, 10, "the upload to be held")
        cancelled = self.client.request("DELETE", location).status
        self.assertIn(cancelled, (204, 416))
        wire.socket.sendall(content[100_000:])
        answer = wire.answer("PATCH")
        # Whoever was first, the two have to agree.
        self.assertEqual(answer.status, 404 if cancelled == 204 else 202, answer)
        self.assertEqual(self.client.get(location).status, 404 if cancelled == 204 else 204)

    def test_a_tag_that_is_overwritten_all_the_time(self) -> None:
        layers = [noise(100) for _ in range(3)]
        for blob in (CONFIG, *layers):
            self.client.push_blob(self.name, blob)
        manifests = [manifest_of(CONFIG, layer) for layer in layers]
        self.client.push_manifest(self.name, "latest", OCI_MANIFEST, manifests[0])
        stop = threading.Event()

        def overwrite(manifest: bytes) -> None:
            for _ in range(40):
                self.client.push_manifest(self.name, "latest", OCI_MANIFEST, manifest)

        def read() -> Answer:
            reads = 0
            while not stop.is_set() or not reads:
                answer = self.client.get(f"/v2/{self.name}/manifests/latest", Accept=OCI_MANIFEST)
                assert answer.status == 200, answer
                assert answer.body in manifests
                assert answer.headers["docker-content-digest"] == digest_of(answer.body)
                listed = self.client.get(f"/v2/{self.name}/tags/list").json()
                assert listed == {"name": self.name, "tags": ["latest"]}, listed
                reads += 1
            return answer

        reader = InBackground(read)
        try:
            self.all_at_once([partial(overwrite, manifest) for manifest in manifests])
        finally:
            stop.set()
        reader.result()

    def test_pushes_against_deletions(self) -> None:
        layer = noise(1000)
        digest = digest_of(layer)
        manifest = manifest_of(CONFIG, layer)
        self.client.push_blob(self.name, CONFIG)

        def push() -> None:
            for _ in range(30):
                self.client.push_blob(self.name, layer)
                answer = self.client.request("PUT", f"/v2/{self.name}/manifests/latest", manifest, Content_Type=OCI_MANIFEST)
                # The layer may have been deleted again by then.
                assert answer.status == 201 or answer.codes() == ["MANIFEST_BLOB_UNKNOWN"], answer

        def delete(path: str) -> None:
            for _ in range(60):
                answer = self.client.request("DELETE", f"/v2/{self.name}/{path}")
                assert answer.status in (202, 404), answer

        def read() -> None:
            for _ in range(60):
                blob = self.client.get(f"/v2/{self.name}/blobs/{digest}")
                assert (blob.status, blob.body) == (200, layer) or blob.status == 404, blob
                tag = self.client.get(f"/v2/{self.name}/manifests/latest", Accept=OCI_MANIFEST)
                assert (tag.status, tag.body) == (200, manifest) or tag.status == 404, tag

        paths = (f"blobs/{digest}", "manifests/latest", f"manifests/{digest_of(manifest)}")
        self.all_at_once([push, push, read, *[partial(delete, path) for path in paths]])
        # After the storm everything works.
        self.client.push_blob(self.name, layer)
        self.client.push_manifest(self.name, "latest", OCI_MANIFEST, manifest)
        self.assertEqual(self.client.get(f"/v2/{self.name}/blobs/{digest}").body, layer)
        self.assertEqual(self.client.get(f"/v2/{self.name}/manifests/latest", Accept=OCI_MANIFEST).body, manifest)
        check_blob_files(self.server.data)

    def test_uploads_side_by_side(self) -> None:
        contents = [noise(2 * MIB) for _ in range(8)]

        def push(content: bytes) -> None:
            location = self.client.begin_upload(self.name)
            for offset in range(0, len(content), 300_000):
                location = self.client.append(location, content[offset : offset + 300_000])
            assert self.commit(self.name, location, content).status == 201

        self.all_at_once([partial(push, content) for content in contents])
