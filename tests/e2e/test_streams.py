"""Bytes that come and go slowly, all at once, in vain or in great numbers, over real sockets."""

import hashlib
import re
import socket
import ssl
import threading
import time

from tests.e2e.case import ServerTestCase
from tests.e2e.images import MIB, noise
from tests.e2e.rawhttp import digest_of


class StreamsTest(ServerTestCase):
    def path_of(self, location: str) -> str:
        """
        :param location: A location, absolute or not.
        :return: Its path and query.
        """
        return location[location.index("/v2/") :]

    def connect(self) -> socket.socket:
        """
        :return: A connection to the server, closed at the end of the test.
        """
        connection = socket.create_connection(("127.0.0.1", self.server.port), timeout=30)
        self.addCleanup(connection.close)
        return connection

    def send_head(self, connection: socket.socket, line: str, *fields: str) -> None:
        """
        :param connection: Where to.
        :param line: The method and the target.
        :param fields: Lines besides Host.
        """
        lines = (f"{line} HTTP/1.1", f"Host: {self.server.host}", *fields, "", "")
        connection.sendall("\r\n".join(lines).encode("ascii"))

    def test_memory_does_not_grow_with_the_blob(self) -> None:
        piece = noise(MIB)
        digest = hashlib.sha256(piece * 256).hexdigest()
        before = self.server.memory().peak
        location = self.server.client.begin_upload("big/blob")
        joint = "&" if "?" in location else "?"
        target = f"{location}{joint}digest=sha256:{digest}"
        answer = self.server.client.request("PUT", target, (piece for _ in range(256)))
        self.assertEqual(answer.status, 201, answer)

        connection = self.connect()
        self.send_head(connection, f"GET /v2/big/blob/blobs/sha256:{digest}", "Connection: close")
        received = 0
        while chunk := connection.recv(MIB):
            received += len(chunk)
        self.assertGreater(received, 256 * MIB)
        self.assertLess(self.server.memory().peak - before, 32 * MIB)

    def test_continue_comes_before_the_body(self) -> None:
        content = noise(10_000)
        path = self.path_of(self.server.client.begin_upload("expect/it"))
        connection = self.connect()
        joint = "&" if "?" in path else "?"
        self.send_head(
            connection, f"PUT {path}{joint}digest={digest_of(content)}", f"Content-Length: {len(content)}", "Expect: 100-continue"
        )
        self.assertTrue(connection.recv(4096).startswith(b"HTTP/1.1 100 "))
        connection.sendall(content)
        self.assertTrue(connection.recv(4096).startswith(b"HTTP/1.1 201 "))

    def test_a_refusal_comes_before_the_body(self) -> None:
        for line in (
            "PATCH /v2/expect/it/blobs/uploads/00000000-0000-4000-8000-000000000000",
            "PUT /v2/expect/it/manifests/latest",
            "PUT /v2/NOT_A_NAME/manifests/latest",
        ):
            connection = self.connect()
            self.send_head(connection, line, f"Content-Length: {1 << 40}", "Content-Type: application/octet-stream")
            status = connection.recv(4096).split(b" ")[1]
            self.assertIn(status, (b"400", b"404", b"413"), line)

    def test_slow_clients_disturb_nobody(self) -> None:
        content = noise(4 * MIB)
        digest = self.server.client.push_blob("slow/clients", content)
        stop = threading.Event()

        # One that sends a byte at a time, and some that read a KiB at a time.
        path = self.path_of(self.server.client.begin_upload("slow/clients"))
        sender = self.connect()
        self.send_head(sender, f"PATCH {path}", "Content-Length: 1000", "Content-Type: application/octet-stream")
        readers = [self.connect() for _ in range(8)]
        for reader in readers:
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            self.send_head(reader, f"GET /v2/slow/clients/blobs/{digest}")

        def dawdle() -> None:
            while not stop.wait(0.1):
                sender.sendall(b"x")
                for reader in readers:
                    reader.recv(1024)

        thread = threading.Thread(target=dawdle)
        thread.start()
        try:
            slowest = 0.0
            for _ in range(20):
                begun = time.monotonic()
                self.assertEqual(self.server.client.get(f"/v2/slow/clients/blobs/{digest}").body, content)
                slowest = max(slowest, time.monotonic() - begun)
        finally:
            stop.set()
            thread.join()
        self.assertLess(slowest, 2)

    def test_one_blob_pushed_by_many_at_once(self) -> None:
        content = noise(2 * MIB)
        errors: list[BaseException] = []

        def push(name: str) -> None:
            try:
                self.server.client.push_blob(name, content)
            # What goes wrong in a thread is told to the test.
            except BaseException as error:  # noqa: BLE001
                errors.append(error)

        names = [f"at-once/{number % 2}" for number in range(6)]
        threads = [threading.Thread(target=push, args=(name,)) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(errors, [])
        for name in set(names):
            self.assertEqual(self.server.client.get(f"/v2/{name}/blobs/{digest_of(content)}").body, content)

    def test_a_second_writer_is_refused(self) -> None:
        path = self.path_of(self.server.client.begin_upload("two/writers"))
        first = self.connect()
        self.send_head(first, f"PATCH {path}", "Content-Length: 10", "Content-Type: application/octet-stream")
        first.sendall(b"01234")
        self.server.client.get("/v2/")
        time.sleep(0.2)
        answer = self.server.client.request("PATCH", path, b"intruder", Content_Type="application/octet-stream")
        self.assertEqual(answer.status, 416, answer)
        first.sendall(b"56789")
        answer_head = first.recv(4096).decode("latin-1")
        self.assertTrue(answer_head.startswith("HTTP/1.1 202 "), answer_head)
        location = re.search(r"(?mi)^location: (\S+)", answer_head)
        assert location is not None, answer_head
        self.assertEqual(self.server.client.commit(location[1], digest_of(b"0123456789")).status, 201)

    def test_downloads_that_end_early(self) -> None:
        digest = self.server.client.push_blob("end/early", noise(8 * MIB))
        for _ in range(30):
            connection = self.connect()
            self.send_head(connection, f"GET /v2/end/early/blobs/{digest}")
            connection.recv(1000)
            connection.close()
        self.assertEqual(self.server.client.request("HEAD", f"/v2/end/early/blobs/{digest}").status, 200)
        self.assertNotIn("Traceback", self.server.program.output())

    def test_requests_one_after_another_on_one_connection(self) -> None:
        connection = self.connect()
        # All of them before the first answer.
        for _ in range(19):
            self.send_head(connection, "GET /v2/")
        self.send_head(connection, "GET /v2/", "Connection: close")
        received = b"".join(iter(lambda: connection.recv(65536), b""))
        self.assertEqual(received.count(b"HTTP/1.1 200 "), 20)

    def test_a_chunk_that_is_out_of_order(self) -> None:
        location = self.server.client.append(self.server.client.begin_upload("out/of-order"), b"0123456789")
        joint = "&" if "?" in location else "?"
        for method, target in (("PATCH", location), ("PUT", f"{location}{joint}digest={digest_of(b'x')}")):
            answer = self.server.client.request(
                method, target, b"x" * 10, Content_Range="20-29", Content_Type="application/octet-stream"
            )
            self.assertEqual((answer.status, answer.headers.get("range")), (416, "0-9"), answer)
        self.assertEqual(self.server.client.commit(location, digest_of(b"0123456789")).status, 201)

    def test_tls_to_the_plain_port_is_refused_at_once(self) -> None:
        # docker, podman and skopeo try https first with a registry that they may use without it, and wait
        # ten seconds for a server that says neither yes nor no.
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        connection = self.connect()
        begun = time.monotonic()
        with self.assertRaises((ssl.SSLError, ConnectionError)):
            context.wrap_socket(connection)
        self.assertLess(time.monotonic() - begun, 2)

    def test_ranges(self) -> None:
        content = noise(200_000)
        digest = self.server.client.push_blob("some/ranges", content)

        def get(value: str) -> tuple[int, bytes, str | None]:
            answer = self.server.client.get(f"/v2/some/ranges/blobs/{digest}", Range=value)
            return answer.status, answer.body, answer.headers.get("content-range")

        self.assertEqual(get("bytes=0-99"), (206, content[:100], "bytes 0-99/200000"))
        self.assertEqual(get("bytes=100000-"), (206, content[100_000:], "bytes 100000-199999/200000"))
        self.assertEqual(get("bytes=-5"), (206, content[-5:], "bytes 199995-199999/200000"))
        self.assertEqual(get("bytes=200000-")[::2], (416, "bytes */200000"))
        status, body, _ = get("bytes=0-9,50000-150000")
        self.assertEqual(status, 206)
        self.assertIn(content[50_000:150_001], body)

