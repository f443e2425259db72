"""The daemon ends, by a signal or by a crash, and is started again."""

import signal
import socket

from tests.e2e.case import E2ETestCase
from tests.e2e.daemon import server
from tests.e2e.images import MIB, noise
from tests.e2e.process import wait_until
from tests.e2e.rawhttp import digest_of


class RestartTest(E2ETestCase):
    def setUp(self) -> None:
        self.server = server(self.directory / self._testMethodName)
        self.addCleanup(self.server.stop)
        self.server.start()
        self.client = self.server.client

    def skip_elsewhere(self) -> None:
        """Skip what ``docker-registry`` 2.8 cannot do."""
        if self.server.name != "regd":
            self.skipTest("docker-registry 2.8 cancels an upload that was cut off")

    def finish(self, location: str, content: bytes, offset: int) -> None:
        """
        :param location: An upload that a server has forgotten nothing of.
        :param content: All of the blob.
        :param offset: How much of it the upload holds.
        """
        status = self.client.get(location)
        self.assertEqual((status.status, status.headers["range"]), (204, f"0-{offset - 1}"))
        location = self.client.append(status.headers["location"], content[offset : offset + 1000])
        self.assertEqual(self.client.commit(location, digest_of(content), content[offset + 1000 :]).status, 201)
        self.assertEqual(self.client.get(f"/v2/a/b/blobs/{digest_of(content)}").body, content)

    def test_uploads_survive_sigterm(self) -> None:
        content = noise(MIB)
        location = self.client.append(self.client.begin_upload("a/b"), content[:400_000])
        # twistd ends by the signal that it was sent, once it has cleaned up.
        self.assertIn(self.server.stop(), (0, -signal.SIGTERM))
        self.server.start()
        self.finish(location, content, 400_000)

    def test_uploads_survive_kill(self) -> None:
        content = noise(MIB)
        location = self.client.append(self.client.begin_upload("a/b"), content[:400_000])
        self.server.kill()
        self.server.start()
        self.finish(location, content, 400_000)

    def test_an_upload_without_a_byte_survives(self) -> None:
        location = self.client.begin_upload("a/b")
        self.server.kill()
        self.server.start()
        self.assertEqual(self.client.commit(location, digest_of(b"all"), b"all").status, 201)

    def test_what_was_acknowledged_survives_kill(self) -> None:
        blobs = [noise(100_000) for _ in range(5)]
        for blob in blobs:
            self.client.push_blob("a/b", blob)
        self.server.kill()
        self.server.start()
        for blob in blobs:
            self.assertEqual(self.client.get(f"/v2/a/b/blobs/{digest_of(blob)}").body, blob)

    def test_resume_where_a_crash_cut_it_off(self) -> None:
        self.skip_elsewhere()
        content = noise(8 * MIB)
        location = self.client.begin_upload("a/b")
        data = next(self.server.data.rglob("_uploads/*/data"))
        path = location[location.index("/v2/") :]
        with socket.create_connection(("127.0.0.1", self.server.port), timeout=30) as connection:
            head = f"PATCH {path} HTTP/1.1\r\nHost: {self.server.host}\r\nContent-Length: {len(content)}\r\n\r\n"
            connection.sendall(head.encode("ascii") + content[: 5 * MIB])
            wait_until(lambda: data.stat().st_size > MIB, 30, "the first MiB to be in the file")
            self.server.kill()
        self.server.start()
        status = self.client.get(path)
        self.assertEqual(status.status, 204)
        held = int(status.headers["range"].partition("-")[2]) + 1
        self.assertGreater(held, MIB)
        self.finish(path, content, held)

    def test_a_client_that_goes_away_can_resume(self) -> None:
        self.skip_elsewhere()
        content = noise(4 * MIB)
        location = self.client.begin_upload("a/b")
        path = location[location.index("/v2/") :]
        with socket.create_connection(("127.0.0.1", self.server.port), timeout=30) as connection:
            head = f"PATCH {path} HTTP/1.1\r\nHost: {self.server.host}\r\nTransfer-Encoding: chunked\r\n\r\n"
            connection.sendall(head.encode("ascii") + b"%x\r\n" % len(content) + content[: 3 * MIB])

        def is_held() -> bool:
            return self.client.get(path).headers["range"] == f"0-{3 * MIB - 1}"

        wait_until(is_held, 30, "all that was sent to be in the upload")
        self.finish(path, content, 3 * MIB)
