"""
``http.draintimeout``: the daemon is told to end while clients push and pull. What was asked is answered, nothing new is taken, nothing that
was acknowledged is lost, and the process ends when it should.
"""

from __future__ import annotations

import http.client
import os
import signal
import threading
import time
from functools import partial

from tests.e2e.daemon import Regd
from tests.e2e.group import GroupTestCase, ask
from tests.e2e.images import MIB, noise
from tests.e2e.ledger import check_blob_files
from tests.e2e.peers import Nginx
from tests.e2e.process import free_port, wait_until
from tests.e2e.rawhttp import Client, digest_of
from tests.e2e.transfers import OCTETS, Pull, Push, Transfer
from tests.e2e.wire import Wire

#: twistd ends by the signal that it was sent, once it has cleaned up.
ENDED = (0, -signal.SIGTERM, -signal.SIGINT)

SIZE = 3 * MIB

#: Of what is pulled: more than the kernel takes from the daemon while a client reads slowly (tcp(7), ``tcp_wmem``).
LARGE = 12 * MIB


class DrainCase(GroupTestCase):
    def daemon(self, workers: int, timeout: str, **environment: str) -> Regd:
        """
        :param workers: How many processes serve.
        :param timeout: ``http.draintimeout``.
        :param environment: Other overrides of the configuration.
        :return: A daemon that runs.
        """
        variables = {"REGISTRY_HTTP_WORKERS": str(workers), "REGISTRY_HTTP_DRAINTIMEOUT": timeout, **environment}
        server = Regd(self.directory / f"{self._testMethodName}-{workers}", None, variables)
        self.addCleanup(server.stop)
        server.start()
        if workers > 1:
            self.wait_ready(server, workers)
        return server

    def begin(self, server: Regd, rate: int) -> tuple[list[Push], list[Pull]]:
        """
        Four pushes, each in another way, and four pulls.

        :param server: Where to.
        :param rate: Of each push, in bytes a second; pulls go four times as fast.
        :return: The pushes and the pulls. Each has moved some bytes, and none has ended.
        """
        client = server.client
        contents = [noise(SIZE) for _ in range(4)]
        chunk, chunked, whole = (client.begin_upload("a/b") for _ in range(3))
        # Some of it is there before.
        self.acknowledged = [MIB, 2 * MIB, 0, 0]
        self.locations = [client.append(chunk, contents[0][:MIB]), client.append(chunked, contents[1][: 2 * MIB]), whole, ""]
        digests = [digest_of(content) for content in contents]
        pushes = [
            Push(server.port, rate, method="PATCH", path=self.locations[0], content=contents[0][MIB:]),
            Push(server.port, rate, method="PATCH", path=self.locations[1], content=contents[1][2 * MIB :], chunked=True),
            Push(server.port, rate, method="PUT", path=f"{whole}&digest={digests[2]}", content=contents[2]),
            Push(server.port, rate, method="POST", path=f"/v2/a/b/blobs/uploads/?digest={digests[3]}", content=contents[3]),
        ]
        pulls = [Pull(server.port, 4 * rate, path=f"/v2/c/d/blobs/{client.push_blob('c/d', noise(LARGE))}") for _ in range(4)]
        self.contents = contents
        transfers: list[Transfer] = [*pushes, *pulls]
        for transfer in transfers:
            transfer.start()
            self.addCleanup(transfer.wait)
        for transfer in transfers:
            wait_until(partial(self.has_moved, transfer), 20, "each to be under way")
        self.assertTrue(all(transfer.under_way for transfer in transfers))
        return pushes, pulls

    def has_moved(self, transfer: Transfer) -> bool:
        """
        :return: Whether some of it has, and what was sent is in the upload.
        """
        return transfer.moved > 300_000 or not transfer.under_way

    def is_refused(self, server: Regd) -> bool:
        """
        :return: Whether nobody listens any more.
        """
        try:
            Wire(server.port).close()
        except ConnectionRefusedError:
            return True
        return False

    def ends(self, server: Regd, seconds: float) -> float:
        """
        :param server: Has been told to end.
        :param seconds: How long it may take.
        :return: How long it takes.
        """
        begun = time.monotonic()
        wait_until(lambda: not server.program.is_alive(), seconds, "the daemon to end")
        self.assertIn(server.stop(), ENDED)
        self.assertFalse("Traceback" in server.program.output(), server.program.tail())
        return time.monotonic() - begun

    def held(self, server: Regd, location: str) -> tuple[int, str]:
        """
        :param location: An upload.
        :return: How many bytes the registry says that it holds, and where it goes on.
        """
        status = server.client.get(location)
        self.assertEqual(status.status, 204, status)
        last = int(status.headers["range"].partition("-")[2])
        return (last + 1 if last else 0), status.headers["location"]

    def finish_uploads(self, server: Regd, numbers: list[int]) -> None:
        """
        Go on with uploads where the registry says that they stand; nothing that was acknowledged is missing.

        :param server: One that has been started again.
        :param numbers: Which.
        """
        for number in numbers:
            content, digest = self.contents[number], digest_of(self.contents[number])
            if self.locations[number]:
                held, goes_on = self.held(server, self.locations[number])
                self.assertGreaterEqual(held, self.acknowledged[number])
                self.assertLessEqual(held, len(content))
                self.assertEqual(server.client.commit(goes_on, digest, content[held:]).status, 201)
            else:
                server.client.push_blob("a/b", content)
            self.assertEqual(server.client.get(f"/v2/a/b/blobs/{digest}").body, content)
        check_blob_files(server.data)


class FinishTest(DrainCase):
    def four_and_four(self, workers: int) -> None:
        port = free_port()
        server = self.daemon(workers, "30s", REGISTRY_HTTP_DEBUG_ADDR=f"127.0.0.1:{port}")
        pushes, pulls = self.begin(server, MIB)
        children = server.program.children()
        begun = time.monotonic()
        # As systemd may, to all of them.
        for pid in (*children, server.program.pid):
            os.kill(pid, signal.SIGTERM)
        wait_until(partial(self.is_refused, server), 1, "new connections to be refused")
        self.assertEqual((Client(port).get("/readyz").status, Client(port).get("/livez").status), (503, 200))
        for transfer in (*pushes, *pulls):
            transfer.wait()
        finished = time.monotonic() - begun
        after = self.ends(server, 5)

        self.assertGreater(finished, 1)
        for push in pushes:
            self.assertEqual(push.error, "")
            assert push.answer is not None
            self.assertEqual(push.answer.status, 202 if push.method == "PATCH" else 201, push.answer)
            self.assertEqual(push.answer.headers.get("connection"), "close")
        for pull in pulls:
            self.assertEqual((pull.status, pull.error, pull.moved), (200, "", LARGE))
            self.assertTrue(pull.path.endswith(pull.digest))
        # It did not wait for the whole time.
        self.assertLess(after, 4)
        server.start()
        self.acknowledged[:2] = [SIZE, SIZE]
        self.finish_uploads(server, [0, 1])
        for content in self.contents[2:]:
            self.assertEqual(server.client.get(f"/v2/a/b/blobs/{digest_of(content)}").body, content)

    def test_four_pushes_and_four_pulls(self) -> None:
        self.four_and_four(1)

    def test_four_pushes_and_four_pulls_with_workers(self) -> None:
        self.four_and_four(2)

    def test_what_was_sent_before_is_answered(self) -> None:
        """
        A connection that is kept open, one that is new, and one that has a request under way, each with a request that has reached the
        machine, or reaches it a moment later; and a second one behind that.
        """
        for workers in (1, 2):
            server = self.daemon(workers, "30s")
            location = server.client.begin_upload("a/b")
            kept, new, late, busy, idle = (self.wire(server) if workers > 1 else Wire(server.port) for _ in range(5))
            for wire in (kept, idle):
                self.assertEqual(ask(wire, "GET", "/v2/").status, 200)
            busy.head("PATCH", location, {"Content-Length": 100, "Content-Type": OCTETS})
            busy.socket.sendall(b"x" * 50)
            time.sleep(0.3)
            pids = server.program.children() or [server.program.pid]
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)
            for wire in (kept, new):
                wire.head("GET", "/v2/")
            server.program.send(signal.SIGTERM)
            time.sleep(0.3)
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
            wait_until(partial(self.is_refused, server), 2, "new connections to be refused")
            self.assertEqual(idle.socket.recv(1), b"")
            late.head("GET", "/v2/")
            for wire in (kept, new, late):
                answer = wire.answer()
                self.assertEqual(answer.status, 200)
                # What it reads before it hears the signal it answers as ever, and then closes.
                if wire is late:
                    self.assertEqual(answer.headers.get("connection"), "close")
                self.assertEqual(wire.socket.recv(1), b"")
            # What comes behind a request that is under way is refused: the connection ends with its answer.
            busy.socket.sendall(b"x" * 50)
            busy.head("GET", "/v2/")
            answer = busy.answer("PATCH")
            self.assertEqual((answer.status, answer.headers.get("connection")), (202, "close"))
            self.ends(server, 5)
            for wire in (kept, new, late, busy, idle):
                wire.close()
            server.start()
            self.assertEqual(self.held(server, location)[0], 100)


    def test_behind_a_load_balancer(self) -> None:
        """Two daemons on one directory, and nginx before them: one is restarted, and nobody notices."""
        one = self.daemon(2, "20s")
        other = Regd(self.directory / "other", one.data, {"REGISTRY_HTTP_WORKERS": "2", "REGISTRY_HTTP_DRAINTIMEOUT": "20s"})
        self.addCleanup(other.stop)
        other.start()
        nginx = Nginx(self.directory / "nginx", one.port)
        configuration = self.directory / "nginx" / "nginx.conf"
        text = configuration.read_text(encoding="utf-8")
        both = text.replace(f"server 127.0.0.1:{one.port};", f"server 127.0.0.1:{one.port}; server 127.0.0.1:{other.port};")
        self.assertNotEqual(text, both)
        configuration.write_text(both, encoding="utf-8")
        self.addCleanup(nginx.stop)
        nginx.start()
        enough = threading.Event()
        failed: list[str] = []
        pushed: list[str] = []

        def push() -> None:
            while not enough.is_set():
                try:
                    pushed.append(nginx.client.push_blob("a/b", noise(20_000)))
                except (AssertionError, OSError, http.client.HTTPException) as error:
                    failed.append(repr(error))

        pushing = [threading.Thread(target=push) for _ in range(3)]
        for thread in pushing:
            thread.start()
        try:
            time.sleep(1)
            self.assertIn(one.stop(), ENDED)
            time.sleep(1)
            # nginx comes back to it ten seconds after it was refused; the other one has to be there for so long.
            one.start()
            time.sleep(1)
        finally:
            enough.set()
            for thread in pushing:
                thread.join()
        self.assertEqual(failed[:3], [])
        self.assertGreater(len(pushed), 100)
        for digest in pushed:
            self.assertEqual(one.client.request("HEAD", f"/v2/a/b/blobs/{digest}").status, 200)


class CutOffTest(DrainCase):
    def resumed(self, server: Regd, pushes: list[Push], pulls: list[Pull]) -> None:
        """
        Each transfer was cut off; all of them go on after a start.
        """
        for transfer in (*pushes, *pulls):
            transfer.wait()
        self.assertEqual([push.answer for push in pushes], [None] * 4)
        self.assertEqual([pull.path for pull in pulls if pull.moved == LARGE], [])
        server.start()
        for number, push in enumerate(pushes[:3]):
            held, _ = self.held(server, self.locations[number])
            # What had been sent a moment before may be on its way still.
            self.assertGreaterEqual(held, self.acknowledged[number] + min(push.moved, len(push.content)) - MIB // 2)
        self.finish_uploads(server, [0, 1, 2, 3])
        for pull in pulls:
            rest = server.client.get(pull.path, Range=f"bytes={pull.moved}-")
            self.assertEqual((rest.status, len(rest.body)), (206, LARGE - pull.moved))

    def test_the_time_is_over(self) -> None:
        for workers in (1, 2):
            server = self.daemon(workers, "1s")
            pushes, pulls = self.begin(server, MIB // 4)
            server.program.send(signal.SIGTERM)
            taken = self.ends(server, 10)
            self.assertGreater(taken, 0.8)
            self.assertLess(taken, 4)
            self.resumed(server, pushes, pulls)

    def test_no_time(self) -> None:
        for workers in (1, 2):
            server = self.daemon(workers, "0s")
            pushes, pulls = self.begin(server, MIB // 4)
            server.program.send(signal.SIGTERM)
            self.assertLess(self.ends(server, 10), 3)
            self.resumed(server, pushes, pulls)

    def test_told_twice(self) -> None:
        for workers, number in ((1, signal.SIGTERM), (2, signal.SIGTERM), (2, signal.SIGINT)):
            with self.subTest(workers=workers, number=number):
                server = self.daemon(workers, "60s")
                pushes, pulls = self.begin(server, MIB // 8)
                # Whoever says it to each process, or says it twice in one breath, has said it once.
                for pid in (server.program.pid, *server.program.children(), server.program.pid):
                    os.kill(pid, number)
                time.sleep(1.5)
                self.assertTrue(server.program.is_alive())
                self.assertTrue(all(transfer.under_way for transfer in (*pushes, *pulls)))
                server.program.send(number)
                self.assertLess(self.ends(server, 10), 3)
                self.assertIn("told to stop again: requests that have not finished are cut off", server.program.output())
                self.resumed(server, pushes, pulls)
                server.stop()
                server.program.log.unlink()
