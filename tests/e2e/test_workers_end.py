"""Workers and their parent end: by a crash, by a signal, and while they are asked for much."""

import contextlib
import os
import signal
import socket
import threading
import time
from functools import partial
from pathlib import Path

from tests.e2e.daemon import Regd
from tests.e2e.group import GroupTestCase, ask, owner
from tests.e2e.images import noise
from tests.e2e.process import free_port, wait_until
from tests.e2e.rawhttp import Client, digest_of
from tests.e2e.wire import Wire

OCTETS = "application/octet-stream"

#: twistd ends by the signal that it was sent, once it has cleaned up.
ENDED = (0, -signal.SIGTERM)


class _Asker(threading.Thread):
    """
    A client that connects, asks and leaves, over and over.

    :param server: Whom it asks.
    :ivar outcomes: Of each time: ``ok``, ``refused`` when nobody listened, ``lost`` when the connection ended without an answer.
    """

    def __init__(self, server: Regd) -> None:
        super().__init__()
        self.port = server.port
        self.outcomes: list[str] = []
        self.enough = threading.Event()

    def run(self) -> None:
        while not self.enough.is_set():
            try:
                connection = socket.create_connection(("127.0.0.1", self.port), timeout=30)
            except OSError:
                self.outcomes.append("refused")
                continue
            with connection:
                try:
                    connection.sendall(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n")
                    answer = connection.recv(4096)
                except OSError:
                    answer = b""
                self.outcomes.append("ok" if answer.startswith(b"HTTP/1.1 200 ") else "lost")


class OneWorkerTest(GroupTestCase):
    server: Regd

    def replaced(self, before: set[int]) -> bool:
        """
        :param before: The workers that there were.
        :return: Whether one of those that there are is another one.
        """
        return bool(set(self.server.program.children()) - before)

    def under_load(self, number: signal.Signals) -> list[str]:
        """
        Send a signal to three workers, one after the other, while clients come and go.

        :param number: The signal.
        :return: What became of the requests.
        """
        server = self.server
        askers = [_Asker(server) for _ in range(4)]
        for asker in askers:
            asker.start()
        try:
            for _ in range(3):
                # procmon waits before it replaces one that has not lived for a second.
                time.sleep(1.2)
                before = set(server.program.children())
                os.kill(min(before), number)
                wait_until(partial(self.replaced, before), 30, "a worker to be replaced")
            time.sleep(0.5)
        finally:
            for asker in askers:
                asker.enough.set()
            for asker in askers:
                asker.join()
        self.assertFalse("Traceback" in server.program.output(), server.program.tail())
        outcomes = [outcome for asker in askers for outcome in asker.outcomes]
        self.assertGreater(outcomes.count("ok"), 200)
        self.assertEqual(outcomes.count("refused"), 0)
        return outcomes

    def test_killed(self) -> None:
        self.server = self.make(2)
        outcomes = self.under_load(signal.SIGKILL)
        # At most what each client was asking the one that was killed.
        self.assertLessEqual(outcomes.count("lost"), 12)
        self.assertIn("was killed by SIGKILL; another one takes its place", self.server.program.output())

    def test_asked_to_end(self) -> None:
        self.server = self.make(2)
        outcomes = self.under_load(signal.SIGTERM)
        # A connection that comes in the very moment in which its worker is told is closed as one that is idle.
        self.assertLessEqual(outcomes.count("lost"), 12)
        self.assertIn("has ended; another one takes its place", self.server.program.output())

    def test_one_that_leaves_finishes_its_uploads(self) -> None:
        server = self.make(2, {"REGISTRY_HTTP_DRAINTIMEOUT": "20s"})
        location = server.client.begin_upload("a/b")
        wire = self.wire(server)
        wire.head("PATCH", location, {"Content-Length": 100, "Content-Type": OCTETS})
        wire.socket.sendall(b"x" * 50)
        time.sleep(0.3)
        leaving = owner(server, wire)
        os.kill(leaving, signal.SIGTERM)
        time.sleep(0.5)
        # It serves its last request, and gets no other.
        self.assertIn(leaving, server.program.children())
        for _ in range(4):
            self.assertNotEqual(owner(server, self.wire(server)), leaving)
        wire.socket.sendall(b"x" * 50)
        self.assertEqual(wire.answer().status, 202)
        wait_until(lambda: leaving not in server.program.children(), 10, "the worker to end")
        wait_until(lambda: len(server.program.children()) == 2, 10, "another one to take its place")

    def test_what_was_not_taken_goes_to_another(self) -> None:
        """A worker that is stopped takes nothing; what it was given is given to others when it dies."""
        server = self.make(2)
        stuck = server.program.children()[0]
        os.kill(stuck, signal.SIGSTOP)
        wires = [Wire(server.port) for _ in range(20)]
        for wire in wires:
            self.addCleanup(wire.close)
            wire.head("GET", "/v2/")
        time.sleep(0.5)
        os.kill(stuck, signal.SIGKILL)
        for wire in wires:
            self.assertEqual(wire.answer().status, 200)


class FewDescriptorsTest(GroupTestCase):
    def test_more_clients_than_descriptors(self) -> None:
        """Those beyond wait in the kernel's queue, nobody spins, and when others leave they are served."""
        server = self.make(2)
        server.stop()
        server.program.command = ["sh", "-c", 'ulimit -n 64; exec "$0" "$@"', *server.program.command]
        # The start before has said so in the same file.
        server.program.log.unlink()
        server.start()
        self.wait_ready(server, 2)
        wires = [Wire(server.port) for _ in range(250)]
        for wire in wires:
            self.addCleanup(wire.close)
            wire.head("GET", "/v2/")
        time.sleep(1)
        before = server.program.ticks()
        time.sleep(3)
        self.assertLess(server.program.ticks() - before, 15)
        for wire in wires[:200]:
            wire.close()
        for wire in wires[200:]:
            self.assertEqual(wire.answer().status, 200)
        self.assertFalse("Traceback" in server.program.output(), server.program.tail())


class GroupEndTest(GroupTestCase):
    def uploading(self, server: Regd) -> tuple[Wire, str]:
        """
        :param server: Where to.
        :return: A connection that has sent half of a body of 100 bytes, and the upload.
        """
        location = server.client.begin_upload("a/b")
        wire = self.wire(server)
        wire.head("PATCH", location, {"Content-Length": 100, "Content-Type": OCTETS})
        wire.socket.sendall(b"x" * 50)
        time.sleep(0.3)
        return wire, location

    def gone(self, pids: list[int]) -> bool:
        """
        :param pids: Processes.
        :return: Whether all have ended.
        """
        return not any(Path(f"/proc/{pid}").exists() for pid in pids)

    def test_sigterm_waits_for_an_upload(self) -> None:
        port = free_port()
        server = self.make(2, {"REGISTRY_HTTP_DRAINTIMEOUT": "20s", "REGISTRY_HTTP_DEBUG_ADDR": f"127.0.0.1:{port}"})
        operator = Client(port)
        workers = server.program.children()
        wire, location = self.uploading(server)
        self.assertEqual(operator.get("/readyz").status, 200)
        # As systemd does, to all of them.
        for pid in (*workers, server.program.pid):
            os.kill(pid, signal.SIGTERM)
        time.sleep(1)
        self.assertTrue(server.program.is_alive())
        with self.assertRaises(ConnectionRefusedError):
            server.client.get("/v2/")
        # Load balancers hear of it, and nobody restarts it.
        answer = operator.get("/readyz")
        self.assertEqual((answer.status, answer.body), (503, b'{"regd":"stopping"}\n'))
        self.assertEqual(operator.get("/livez").status, 200)
        wire.socket.sendall(b"x" * 50)
        self.assertEqual(wire.answer().status, 202)
        wait_until(lambda: not server.program.is_alive(), 10, "the daemon to end")
        self.assertIn(server.stop(), ENDED)
        self.assertTrue(self.gone(workers))
        output = server.program.output()
        self.assertIn('msg="stopped"', output)
        self.assertFalse("Traceback" in output, output)
        server.start()
        self.assertEqual(server.client.get(location).headers["range"], "0-99")

    def test_sigterm_cuts_off_in_the_end(self) -> None:
        server = self.make(2, {"REGISTRY_HTTP_DRAINTIMEOUT": "1s"})
        wire, location = self.uploading(server)
        begun = time.monotonic()
        self.assertIn(server.stop(), ENDED)
        self.assertGreater(time.monotonic() - begun, 0.9)
        self.assertLess(time.monotonic() - begun, 5)
        self.assertIn("1 connections have 1.0 s to finish", server.program.output())
        with contextlib.suppress(ConnectionResetError):
            self.assertEqual(wire.socket.recv(1), b"")
        server.start()
        self.assertEqual(server.client.get(location).headers["range"], "0-49")

    def test_ctrl_c(self) -> None:
        """A terminal sends SIGINT to all of them."""
        server = self.make(2)
        workers = server.program.children()
        os.killpg(server.program.pid, signal.SIGINT)
        wait_until(lambda: not server.program.is_alive(), 20, "the daemon to end")
        self.assertTrue(self.gone(workers))
        self.assertFalse("Traceback" in server.program.output(), server.program.tail())

    def test_the_parent_is_killed(self) -> None:
        """No orphan stays, and the port is free at once, while a worker still finishes its uploads."""
        server = self.make(2, {"REGISTRY_HTTP_DRAINTIMEOUT": "20s"})
        workers = server.program.children()
        blob = noise(1000)
        server.client.push_blob("a/b", blob)
        wire, _ = self.uploading(server)
        server.kill()
        server.start()
        self.assertEqual(server.client.get(f"/v2/a/b/blobs/{digest_of(blob)}").body, blob)
        self.assertFalse(self.gone(workers))
        wire.socket.sendall(b"x" * 50)
        self.assertEqual(wire.answer().status, 202)
        wait_until(lambda: self.gone(workers), 10, "the workers of the one that was killed to end")

    def test_starting_again_and_again(self) -> None:
        """Also when it is told to end before its workers are there."""
        server = self.make(2)
        for _ in range(2):
            server.stop()
            server.start()
        server.stop()
        server.program.start()
        time.sleep(0.7)
        server.program.stop()
        self.assertFalse("Traceback" in server.program.output(), server.program.tail())
        self.assertEqual(ask_once(server), None)


def ask_once(server: Regd) -> int | None:
    """
    :param server: A daemon that may run.
    :return: The status of an answer, or ``None`` when nobody listens.
    """
    try:
        wire = Wire(server.port)
    except ConnectionRefusedError:
        return None
    status = ask(wire, "GET", "/v2/").status
    wire.close()
    return status
