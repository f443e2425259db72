"""
regd under a manager of services, played by the test as systemd does it:
listening sockets passed as descriptors, states told to a socket.
"""

import fcntl
import os
import signal
import socket
import sys
import threading
import time

from tests.e2e.case import E2ETestCase
from tests.e2e.daemon import Regd
from tests.e2e.images import noise
from tests.e2e.process import wait_until
from tests.e2e.rawhttp import Client

# Puts the sockets where sd_listen_fds(3) has them, and becomes the daemon.
START = """
import os, sys
passed = [int(fd) for fd in sys.argv[1].split(",")]
for number, fd in enumerate(passed):
    os.dup2(fd, 3 + number)
os.environ["LISTEN_PID"] = str(os.getpid())
os.environ["LISTEN_FDS"] = str(len(passed))
os.environ["LISTEN_FDNAMES"] = ":".join(["regd.socket"] * len(passed))
os.execv(sys.argv[2], sys.argv[2:])
"""


class SystemdTest(E2ETestCase):
    def setUp(self) -> None:
        super().setUp()
        sockets = [self.listening(), self.listening()]
        self.ports = [one.getsockname()[1] for one in sockets]
        self.manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(self.manager.close)
        path = self.directory / "notify"
        self.manager.bind(str(path))
        self.heard: list[str] = []
        threading.Thread(target=self.hear, daemon=True).start()
        variables = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "400000", "REGISTRY_HTTP_WORKERS": "2"}
        self.server = Regd(self.directory / "regd", environment=variables)
        self.addCleanup(self.server.stop)
        # Numbers that are out of the way of 3 and 4.
        passed = tuple(fcntl.fcntl(one, fcntl.F_DUPFD, 200) for one in sockets)
        for fd in passed:
            self.addCleanup(os.close, fd)
        program = self.server.program
        program.command = [sys.executable, "-c", START, ",".join(map(str, passed)), *program.command]
        program.passed = passed

    def listening(self) -> socket.socket:
        made = socket.socket()
        self.addCleanup(made.close)
        made.bind(("127.0.0.1", 0))
        made.listen()
        return made

    def hear(self) -> None:
        while message := self.manager.recv(4096).decode():
            self.heard.append(message)

    def wait_for(self, message: str) -> None:
        try:
            wait_until(lambda: any(one.startswith(message) for one in self.heard), 30, message)
        except TimeoutError:
            self.fail(f"not heard: {message}; but: {self.heard}; it says:\n{self.server.program.tail()}")

    def test_socket_activation(self) -> None:
        # They connect before anybody is there, and are answered when somebody is.
        early = [socket.create_connection(("127.0.0.1", port)) for port in self.ports]
        for client in early:
            self.addCleanup(client.close)
            client.sendall(b"GET /v2/ HTTP/1.1\r\nHost: here\r\n\r\n")
        self.server.program.start()
        one, two = self.ports
        self.wait_for(f"READY=1\nSTATUS=serves http://127.0.0.1:{one}/, http://127.0.0.1:{two}/")
        for client in early:
            client.settimeout(30)
            self.assertTrue(client.recv(4096).startswith(b"HTTP/1.1 200 "))
        content = noise(1000, seed=1)
        digest = Client(self.ports[0]).push_blob("one/two", content)
        self.assertEqual(Client(self.ports[1]).get(f"/v2/one/two/blobs/{digest}").body, content)
        with self.assertRaises(OSError):
            self.server.client.get("/v2/")
        self.assertIn("http.addr, ", self.server.program.output())

        self.server.program.send(signal.SIGHUP)
        self.wait_for("RELOADING=1\nMONOTONIC_USEC=")
        self.wait_for("WATCHDOG=1")
        wait_until(lambda: sum(one.startswith("READY=1") for one in self.heard) == 2, 30, "the end of the change")

        # A worker that hangs is as bad as a parent that hangs.
        worker = self.server.program.children()[0]
        os.kill(worker, signal.SIGSTOP)
        try:
            wait_until(lambda: f"worker {worker} does not answer" in self.server.program.output(), 30, "a line about the worker")
            count = self.heard.count("WATCHDOG=1")
            time.sleep(0.5)
            self.assertEqual(self.heard.count("WATCHDOG=1"), count)
        finally:
            os.kill(worker, signal.SIGCONT)
        wait_until(lambda: self.heard.count("WATCHDOG=1") > count + 1, 30, "a sign of life")

        # A client that comes while it restarts waits, and is not refused.
        self.server.stop()
        self.wait_for("STOPPING=1")
        between = socket.create_connection(("127.0.0.1", self.ports[0]))
        self.addCleanup(between.close)
        between.sendall(b"GET /v2/ HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
        self.server.program.start()
        between.settimeout(30)
        self.assertTrue(between.recv(4096).startswith(b"HTTP/1.1 200 "))
