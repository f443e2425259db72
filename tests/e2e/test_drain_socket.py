"""A daemon on a socket that is passed to it, as systemd does, is restarted again and again while clients push: none sees an error."""

from __future__ import annotations

import fcntl
import http.client
import os
import signal
import socket
import sys
import threading
import time
from functools import partial

from tests.e2e.case import E2ETestCase
from tests.e2e.daemon import Regd
from tests.e2e.images import OCI_MANIFEST, noise
from tests.e2e.ledger import manifest_of
from tests.e2e.process import wait_until
from tests.e2e.rawhttp import Client
from tests.e2e.test_systemd import START


class PassedSocketTest(E2ETestCase):
    def restarts(self, workers: int) -> None:
        """
        :param workers: How many processes serve.
        """
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            listening.listen(1024)
            port = listening.getsockname()[1]
            # Out of the way of 3.
            passed = fcntl.fcntl(listening, fcntl.F_DUPFD, 200)
        self.addCleanup(os.close, passed)
        variables = {"REGISTRY_HTTP_WORKERS": str(workers), "REGISTRY_HTTP_DRAINTIMEOUT": "20s"}
        server = Regd(self.directory / f"regd-{workers}", environment=variables)
        self.addCleanup(server.stop)
        program = server.program
        program.command = [sys.executable, "-c", START, str(passed), *program.command]
        program.passed = (passed,)
        client = Client(port)
        enough = threading.Event()
        failed: list[str] = []
        pushed: list[tuple[str, str]] = []

        def push(name: str) -> None:
            """Images, one after the other; each of their requests on a connection of its own."""
            while not enough.is_set():
                try:
                    config, layer = noise(100), noise(50_000)
                    for content in (config, layer):
                        client.push_blob(name, content)
                    tag = f"v{len(pushed)}"
                    pushed.append((name, client.push_manifest(name, tag, OCI_MANIFEST, manifest_of(config, layer))))
                except (AssertionError, OSError, http.client.HTTPException) as error:
                    failed.append(repr(error))

        pushing = [threading.Thread(target=push, args=(f"some/app{number}",)) for number in range(4)]
        for thread in pushing:
            thread.start()
        try:
            for turn in range(4):
                program.start()
                wait_until(partial(self.has_started, server, turn + 1), 60, "it to serve")
                enough_of_them = len(pushed) + 5
                wait_until(partial(self.are, pushed, enough_of_them), 30, "clients to push")
                time.sleep(0.1 * turn)
                if turn < 3:
                    self.assertIn(server.stop(), (0, -signal.SIGTERM))
        finally:
            enough.set()
            for thread in pushing:
                thread.join()
        self.assertEqual(failed, [])
        self.assertFalse("Traceback" in program.output(), program.tail())
        for name, digest in pushed:
            self.assertEqual(client.get(f"/v2/{name}/manifests/{digest}", Accept=OCI_MANIFEST).status, 200)
        sys.stdout.write(f"\n{len(pushed)} images were pushed during three restarts\n")

    def has_started(self, server: Regd, times: int) -> bool:
        """
        :return: Whether it has, so often.
        """
        return server.program.output().count(" serves ") >= times

    def are(self, found: list[tuple[str, str]], count: int) -> bool:
        """
        :return: Whether there are so many.
        """
        return len(found) >= count

    def test_one_process(self) -> None:
        self.restarts(1)

    def test_workers(self) -> None:
        self.restarts(2)
