"""
Many large bodies at once, up and down: the memory of the process stays flat (promise P1), and a client that dawdles neither disturbs the
others nor is cut off. ``python -m benchmarks.streaming`` does the same with 1 GiB each and prints the figures.
"""

import hashlib
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.e2e.case import ServerTestCase
from tests.e2e.daemon import Regd
from tests.e2e.images import MIB, noise
from tests.e2e.rawhttp import digest_of

STREAMS = 8
SIZE = 64 * MIB

# What the process may grow by.
GROWTH = 64 * MIB


class StreamingTest(ServerTestCase):
    def connect(self, receive_buffer: int | None = None) -> socket.socket:
        """
        :param receive_buffer: The size of the receive buffer in bytes; the kernel's choice without.
        :return: A connection to the server, closed at the end of the test.
        """
        connection = socket.socket()
        self.addCleanup(connection.close)
        connection.settimeout(120)
        if receive_buffer is not None:
            # Before connecting, so that the window is small from the start.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.connect(("127.0.0.1", self.server.port))
        return connection

    def send_head(self, connection: socket.socket, line: str, *fields: str) -> None:
        """
        :param connection: Where to.
        :param line: The method and the target.
        :param fields: Lines besides Host.
        """
        connection.sendall("\r\n".join((f"{line} HTTP/1.1", f"Host: {self.server.host}", *fields, "", "")).encode("ascii"))

    def path_of(self, location: str) -> str:
        """
        :param location: A location, absolute or not.
        :return: Its path and query.
        """
        return location[location.index("/v2/") :]

    def accepted(self, connection: socket.socket) -> str:
        """
        :param connection: One on which a PATCH has been sent.
        :return: Where the upload goes on, as the answer says.
        """
        head = b""
        while b"\r\n\r\n" not in head:
            part = connection.recv(65536)
            self.assertTrue(part, "the connection ended before the answer")
            head += part
        self.assertTrue(head.startswith(b"HTTP/1.1 202 "), head)
        location = re.search(r"(?mi)^location: (\S+)", head.decode("latin-1"))
        assert location is not None, head
        return location[1]

    def at_once(self, client: Callable[[int], None]) -> None:
        """
        Run a client in :data:`STREAMS` threads, to the end.

        :param client: Called with its number.
        """
        errors: list[BaseException] = []

        def guarded(number: int) -> None:
            try:
                client(number)
            # What goes wrong in a thread is told to the test.
            except BaseException as error:  # noqa: BLE001
                errors.append(error)

        threads = [threading.Thread(target=guarded, args=(number,)) for number in range(STREAMS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(errors, [])

    @contextmanager
    def in_background(self, client: Callable[[threading.Event], None]) -> Iterator[None]:
        """
        :param client: Runs in a thread until the event that it is given is set, and then comes to its end.
        """
        stop = threading.Event()
        errors: list[BaseException] = []

        def guarded() -> None:
            try:
                client(stop)
            # What goes wrong in a thread is told to the test.
            except BaseException as error:  # noqa: BLE001
                errors.append(error)

        thread = threading.Thread(target=guarded)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
        self.assertEqual(errors, [])


    def test_eight_streams_up_and_down(self) -> None:
        piece = noise(MIB)
        common = hashlib.sha256(piece * (SIZE // MIB - 1))
        blobs = []
        for number in range(STREAMS):
            last, whole = bytes([number]) * MIB, common.copy()
            whole.update(last)
            blobs.append((last, f"sha256:{whole.hexdigest()}"))
        before = self.server.memory()

        def push(number: int) -> None:
            last, digest = blobs[number]
            pieces = [*[piece] * (SIZE // MIB - 1), last]
            path = self.path_of(self.server.client.begin_upload("eight/streams"))
            if number % 2:
                # With its length; given as pieces, a body goes out chunked, as docker sends it.
                connection = self.connect()
                self.send_head(connection, f"PATCH {path}", f"Content-Length: {SIZE}", "Connection: close")
                for part in pieces:
                    connection.sendall(part)
                location = self.accepted(connection)
            else:
                answer = self.server.client.request("PATCH", path, iter(pieces), Content_Type="application/octet-stream")
                self.assertEqual(answer.status, 202)
                location = answer.headers["location"]
            self.assertEqual(self.server.client.commit(location, digest).status, 201)

        def pull(number: int) -> None:
            connection = self.connect()
            self.send_head(connection, f"GET /v2/eight/streams/blobs/{blobs[number][1]}", "Connection: close")
            found = hashlib.sha256()
            head = b""
            while b"\r\n\r\n" not in head:
                head += connection.recv(65536)
            found.update(head.partition(b"\r\n\r\n")[2])
            while part := connection.recv(MIB):
                found.update(part)
            self.assertEqual(f"sha256:{found.hexdigest()}", blobs[number][1])

        self.at_once(push)
        self.assert_flat(before.resident)
        self.at_once(pull)
        self.assert_flat(before.resident)

    def assert_flat(self, before: int) -> None:
        """
        :param before: What the process held before the streams, in bytes.
        """
        # Others hold bodies whole by habit; what is asked of regd is not asked of them.
        if isinstance(self.server, Regd):
            self.assertLess(self.server.memory().peak - before, GROWTH)

    def test_those_who_dawdle_beside_those_who_do_not(self) -> None:
        content = noise(8 * MIB)
        digest = self.server.client.push_blob("dawdle/here", content)
        sent = 0

        def send_slowly(stop: threading.Event) -> None:
            nonlocal sent
            path = self.path_of(self.server.client.begin_upload("dawdle/here"))
            connection = self.connect()
            self.send_head(connection, f"PATCH {path}", "Transfer-Encoding: chunked", "Connection: close")
            while not sent or not stop.wait(0.2):
                connection.sendall(b"1\r\nx\r\n")
                sent += 1
            connection.sendall(b"0\r\n\r\n")
            location = self.accepted(connection)
            committed = self.server.client.commit(location, digest_of(b"x" * sent))
            self.assertEqual(committed.status, 201, committed)

        def read_slowly(stop: threading.Event) -> None:
            connection = self.connect(receive_buffer=4096)
            self.send_head(connection, f"GET /v2/dawdle/here/blobs/{digest}", "Connection: close")
            begun = b""
            while not stop.wait(0.2):
                begun += connection.recv(1024)
            # It may take its time, and gets everything nevertheless.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, MIB)
            whole = (begun + b"".join(iter(lambda: connection.recv(MIB), b""))).partition(b"\r\n\r\n")[2]
            self.assertEqual(hashlib.sha256(whole).hexdigest(), hashlib.sha256(content).hexdigest())

        def others(number: int) -> None:
            for turn in range(3):
                begun = time.monotonic()
                self.server.client.push_blob(f"dawdle/{number}", bytes([number, turn]) * MIB)
                self.assertEqual(self.server.client.get(f"/v2/dawdle/here/blobs/{digest}").body, content)
                # Not a speed: far less than it takes when one waits for the other.
                self.assertLess(time.monotonic() - begun, 20)

        with self.in_background(send_slowly), self.in_background(read_slowly):
            self.at_once(others)
            time.sleep(1)
        self.assertGreater(sent, 3)
