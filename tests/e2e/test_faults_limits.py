"""A daemon that may open few files: those beyond wait or are told, it lives, and it recovers."""

import contextlib

from tests.e2e.case import E2ETestCase
from tests.e2e.faults import FaultyRegd
from tests.e2e.images import MIB, noise
from tests.e2e.process import wait_until
from tests.e2e.rawhttp import Answer
from tests.e2e.wire import Wire

LIMIT = 64


class DescriptorLimitTest(E2ETestCase):
    def setUp(self) -> None:
        self.server = FaultyRegd(self.directory / self._testMethodName, under=("sh", "-c", f'ulimit -n {LIMIT}; exec "$0" "$@"'))
        self.addCleanup(self.server.stop)
        self.server.start()
        self.client = self.server.client
        self.content = noise(4 * MIB)
        self.digest = self.client.push_blob("a/b", self.content)

    def connect(self, count: int, receive_buffer: int | None = None) -> list[Wire]:
        """
        :param count: How many connections to make.
        :param receive_buffer: As :class:`~tests.e2e.wire.Wire` has it.
        :return: They, closed at the end of the test.
        """
        wires = [Wire(self.server.port, receive_buffer) for _ in range(count)]
        for wire in wires:
            self.addCleanup(wire.close)
        return wires

    def ask(self, wire: Wire, target: str) -> Answer | None:
        """
        :param wire: One of many connections.
        :param target: What to get over it.
        :return: The answer, or ``None`` when the connection was ended without one.
        """
        try:
            wire.head("GET", target)
            return wire.answer()
        except (ConnectionError, EOFError):
            return None

    def recovers(self) -> None:
        """Wait until a push and a pull work again; the daemon is the same process."""
        pid = self.server.program.pid

        def works() -> bool:
            with contextlib.suppress(OSError, AssertionError):
                more = noise(100_000)
                return self.client.get(f"/v2/a/b/blobs/{self.client.push_blob('a/b', more)}").body == more
            return False

        wait_until(works, 20, "pushes and pulls to work again")
        self.assertTrue(self.server.program.is_alive())
        self.assertEqual(self.server.program.pid, pid)
        self.assertEqual(self.client.get(f"/v2/a/b/blobs/{self.digest}").body, self.content)

    def test_the_limit_is_told_at_the_start(self) -> None:
        self.assertIn(f"only {LIMIT} files may be open at once", self.server.program.output())

    def test_many_silent_clients(self) -> None:
        wires = self.connect(2 * LIMIT)
        # One who comes now may have to wait, or is sent away; and everybody who hears something hears sense.
        answer = None
        with contextlib.suppress(OSError):
            answer = self.client.get("/v2/")
        self.assertIn(None if answer is None else answer.status, (None, 200, 503))
        for wire in wires:
            wire.close()
        self.recovers()

    def test_many_who_read_slowly(self) -> None:
        wires = self.connect(2 * LIMIT, receive_buffer=4096)
        for wire in wires:
            # Each answer takes a second descriptor for as long as it is not read.
            with contextlib.suppress(OSError):
                wire.head("GET", f"/v2/a/b/blobs/{self.digest}")
        statuses = set()
        for wire in wires:
            wire.socket.settimeout(0.02)
            with contextlib.suppress(OSError):
                statuses.add(wire.socket.recv(12))
        # Some get the blob, some are told that it does not work now, some are sent away or wait; nobody hears of a fault.
        self.assertLessEqual(statuses, {b"HTTP/1.1 200", b"HTTP/1.1 503", b""})
        self.assertTrue(statuses)
        for wire in wires:
            wire.reset()
        self.recovers()
        self.assertFalse("Traceback" in self.server.program.output())

    def test_many_uploads(self) -> None:
        locations = [self.client.begin_upload("a/b") for _ in range(LIMIT)]
        wires = self.connect(LIMIT)
        for wire, location in zip(wires, locations, strict=True):
            with contextlib.suppress(OSError):
                wire.head("PATCH", location, {"Content-Length": 200_000, "Content-Type": "application/octet-stream"})
                wire.socket.sendall(bytes(100_000))
        for wire in wires:
            wire.close()
        self.recovers()
        # What has arrived of each is either there or not, and each can be gone on with.
        for location in locations:
            status = self.client.get(location)
            self.assertEqual(status.status, 204)
        self.assertFalse("Traceback" in self.server.program.output())
