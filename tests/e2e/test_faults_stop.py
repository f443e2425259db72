"""The daemon ends in the middle of work: by a crash, by a signal, with and without time to finish."""

import signal
import socket
import threading
import time
from functools import partial
from pathlib import Path

from tests.e2e.case import E2ETestCase
from tests.e2e.faults import FaultyRegd
from tests.e2e.images import MIB, noise
from tests.e2e.ledger import check_blob_files
from tests.e2e.process import wait_until
from tests.e2e.rawhttp import digest_of
from tests.e2e.wire import Wire

OCTETS = "application/octet-stream"

#: twistd ends by the signal that it was sent, once it has cleaned up.
ENDED = (0, -signal.SIGTERM)


class StopTest(E2ETestCase):
    def make(self, **environment: str) -> FaultyRegd:
        """
        :param environment: Overrides of the configuration.
        :return: A daemon that runs.
        """
        server = FaultyRegd(self.directory / self._testMethodName, None, environment)
        self.addCleanup(server.stop)
        self.addCleanup(server.disarm)
        server.start()
        return server

    def wire(self, server: FaultyRegd, receive_buffer: int | None = None) -> Wire:
        """
        :param server: Where to.
        :param receive_buffer: As :class:`~tests.e2e.wire.Wire` has it.
        :return: A connection, closed at the end of the test.
        """
        wire = Wire(server.port, receive_buffer)
        self.addCleanup(wire.close)
        return wire

    def end(self, server: FaultyRegd) -> float:
        """
        :param server: Has been told to end.
        :return: How many seconds it takes.
        """
        begun = time.monotonic()
        wait_until(lambda: not server.program.is_alive(), 30, "the daemon to end")
        self.assertIn(server.stop(), ENDED)
        self.assertFalse("Traceback" in server.program.output(), server.program.tail())
        return time.monotonic() - begun

    def held(self, server: FaultyRegd, location: str) -> tuple[int, str]:
        """
        :param server: A daemon that has been started again.
        :param location: An upload that the one before it had.
        :return: How many bytes it holds, and where it goes on.
        """
        status = server.client.get(location)
        self.assertEqual(status.status, 204, status)
        last = int(status.headers["range"].partition("-")[2])
        return (last + 1 if last else 0), status.headers["location"]

    def has_grown(self, path: Path, size: int) -> bool:
        """
        :param path: A file.
        :param size: A number of bytes.
        :return: Whether there are more than that in it.
        """
        return path.stat().st_size > size

    def test_kill_during_four_uploads(self) -> None:
        server = self.make()
        contents = [noise(6 * MIB) for _ in range(4)]
        acknowledged = [MIB, 2 * MIB, 0, 3 * MIB]
        locations = []
        for content, size in zip(contents, acknowledged, strict=True):
            location = server.client.begin_upload("a/b")
            locations.append(server.client.append(location, content[:size]) if size else location)
        files = {path.parent.name: path for path in (server.data / "docker/registry/v2/repositories/a/b/_uploads").glob("*/data")}

        def growing(content: bytes, location: str, size: int) -> None:
            wire = Wire(server.port)
            wire.head("PATCH", location, {"Content-Length": len(content) - size, "Content-Type": OCTETS})
            try:
                for offset in range(size, len(content), 100_000):
                    wire.socket.sendall(content[offset : offset + 100_000])
                    time.sleep(0.02)
            except OSError:
                # That is what the test is about.
                wire.socket.close()

        threads = [
            threading.Thread(target=partial(growing, *each)) for each in zip(contents, locations, acknowledged, strict=True)
        ]
        for thread in threads:
            thread.start()
        for location, size in zip(locations, acknowledged, strict=True):
            path = files[location.rpartition("/")[2].partition("?")[0]]
            wait_until(partial(self.has_grown, path, size + 300_000), 20, "each to be under way")
        server.kill()
        for thread in threads:
            thread.join()

        server.start()
        for content, location, size in zip(contents, locations, acknowledged, strict=True):
            held, goes_on = self.held(server, location)
            self.assertGreaterEqual(held, size)
            self.assertLess(held, len(content))
            goes_on = server.client.append(goes_on, content[held : held + 500_000])
            answer = server.client.commit(goes_on, digest_of(content), content[held + 500_000 :])
            self.assertEqual(answer.status, 201, answer)
            self.assertEqual(server.client.get(f"/v2/a/b/blobs/{digest_of(content)}").body, content)
        check_blob_files(server.data)

    def test_a_push_and_a_pull_finish(self) -> None:
        server = self.make(REGISTRY_HTTP_DRAINTIMEOUT="20s")
        large = noise(16 * MIB)
        digest = server.client.push_blob("a/b", large)
        content = noise(200_000)
        location = server.client.begin_upload("a/b")

        push, pull = self.wire(server), self.wire(server, 4096)
        push.head("PUT", f"{location}&digest={digest_of(content)}", {"Content-Length": len(content), "Content-Type": OCTETS})
        push.socket.sendall(content[:100_000])
        pull.head("GET", f"/v2/a/b/blobs/{digest}")
        self.assertTrue(pull.socket.recv(10, socket.MSG_PEEK))
        idle = self.wire(server)
        idle.head("GET", "/v2/")
        idle.answer()
        server.program.send(signal.SIGTERM)

        def refused() -> bool:
            try:
                Wire(server.port).close()
            except ConnectionRefusedError:
                return True
            return False

        wait_until(refused, 5, "new connections to be refused")
        # Whoever asks nothing is not waited for.
        self.assertEqual(idle.socket.recv(1), b"")
        time.sleep(0.3)
        self.assertTrue(server.program.is_alive())
        push.socket.sendall(content[100_000:])
        answer = push.answer("PUT")
        self.assertEqual(answer.status, 201)
        self.assertEqual(answer.headers.get("connection"), "close")
        self.assertEqual(pull.answer().body, large)
        self.assertLess(self.end(server), 5)

        server.start()
        self.assertEqual(server.client.get(f"/v2/a/b/blobs/{digest_of(content)}").body, content)

    def test_the_time_to_finish_is_limited(self) -> None:
        server = self.make(REGISTRY_HTTP_DRAINTIMEOUT="1s")
        content = noise(200_000)
        location = server.client.begin_upload("a/b")
        push = self.wire(server)
        push.head("PATCH", location, {"Content-Length": len(content), "Content-Type": OCTETS})
        push.socket.sendall(content[:150_000])
        data = next(server.data.rglob("_uploads/*/data"))
        wait_until(lambda: data.stat().st_size >= 64 * 1024, 10, "some of it to be in the file")
        # The rest waits in memory: too little to be worth a write.
        time.sleep(0.5)
        server.program.send(signal.SIGTERM)
        took = self.end(server)
        self.assertGreater(took, 0.8)
        self.assertLess(took, 5)

        server.start()
        held, goes_on = self.held(server, location)
        # What had arrived was stored before the end.
        self.assertEqual(held, 150_000)
        self.assertEqual(server.client.commit(goes_on, digest_of(content), content[held:]).status, 201)

    def test_without_that_time_it_ends_at_once(self) -> None:
        server = self.make()
        large = noise(16 * MIB)
        digest = server.client.push_blob("a/b", large)
        content = noise(200_000)
        location = server.client.begin_upload("a/b")
        push, pull = self.wire(server), self.wire(server, 4096)
        push.head("PATCH", location, {"Content-Length": len(content), "Content-Type": OCTETS})
        push.socket.sendall(content[:150_000])
        pull.head("GET", f"/v2/a/b/blobs/{digest}")
        self.assertTrue(pull.socket.recv(10, socket.MSG_PEEK))
        data = next(server.data.rglob("_uploads/*/data"))
        wait_until(lambda: data.stat().st_size >= 64 * 1024, 10, "some of it to be in the file")
        # The rest waits in memory: too little to be worth a write.
        time.sleep(0.5)
        server.program.send(signal.SIGTERM)
        self.assertLess(self.end(server), 2)

        server.start()
        held, goes_on = self.held(server, location)
        self.assertEqual(held, 150_000)
        self.assertEqual(server.client.commit(goes_on, digest_of(content), content[held:]).status, 201)
        self.assertEqual(server.client.get(f"/v2/a/b/blobs/{digest}").body, large)

    def hold_commit(self, server: FaultyRegd, content: bytes) -> str:
        """
        :param content: All of an upload; its commit has begun, and does not go on before the server is disarmed.
        :return: The location of the upload.
        """
        location = server.client.append(server.client.begin_upload("a/b"), content)
        server.arm("hold", "rename", path="a/b/_uploads/[^/]*$", last=1)
        push = self.wire(server)
        push.head("PUT", f"{location}&digest={digest_of(content)}", {"Content-Length": 0})
        wait_until(lambda: any(operation.outcome == "held" for operation in server.operations()), 10, "the commit to be held")
        return location

    def test_a_signal_during_a_commit(self) -> None:
        server = self.make()
        content = noise(50_000)
        self.hold_commit(server, content)
        server.program.send(signal.SIGTERM)
        time.sleep(0.3)
        # What has begun is finished, not cut in two, although nobody is there any more to be told.
        self.assertTrue(server.program.is_alive())
        server.disarm()
        self.assertLess(self.end(server), 5)
        server.start()
        self.assertEqual(server.client.get(f"/v2/a/b/blobs/{digest_of(content)}").body, content)
        check_blob_files(server.data)

    def test_a_kill_while_the_disk_does_not_answer(self) -> None:
        server = self.make()
        content = noise(50_000)
        location = self.hold_commit(server, content)
        # Other people's requests are answered, however long that takes.
        for _ in range(20):
            self.assertEqual(server.client.get("/v2/").status, 200)
        # The end of such a process is the operator's affair: nothing that was acknowledged is lost by it.
        server.kill()
        server.disarm()
        server.start()
        held, goes_on = self.held(server, location)
        self.assertEqual(held, len(content))
        self.assertEqual(server.client.commit(goes_on, digest_of(content)).status, 201)
