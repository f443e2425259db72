"""Limits that all workers keep together, and clients that keep connections and do nothing with them."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor

from tests.e2e.case import E2ETestCase
from tests.e2e.daemon import Regd
from tests.e2e.process import wait_until
from tests.e2e.rawhttp import Client


class RateTest(E2ETestCase):
    def test_workers_count_together(self) -> None:
        server = Regd(
            self.directory / "server",
            environment={
                "REGISTRY_HTTP_WORKERS": "3",
                "REGISTRY_RATELIMIT": json.dumps({"address": {"requests": 60, "per": "1h"}}),
            },
        )
        self.run_for_all(server)

        def ask(_: int) -> int:
            return Client(server.port).get("/v2/").status

        with ThreadPoolExecutor(8) as pool:
            statuses = list(pool.map(ask, range(120)))
        # Whether it was ready has been asked at least once; and two processes may look at the same moment.
        self.assertTrue(50 <= statuses.count(200) <= 66, statuses.count(200))
        self.assertEqual(statuses.count(200) + statuses.count(429), 120)
        answer = server.client.get("/v2/")
        self.assertEqual((answer.status, answer.codes()), (429, ["TOOMANYREQUESTS"]))
        self.assertTrue(1 <= int(answer.headers["retry-after"]) <= 3600)
        self.assertIn("127.0.0.1 asks more often than ratelimit.address allows", server.program.output())


class SlowTest(E2ETestCase):
    COUNT = 1000

    def test_a_thousand_heads_that_do_not_end(self) -> None:
        """Others are served, and these are cut off, each told why."""
        server = Regd(
            self.directory / "server",
            environment={"REGISTRY_HTTP_WORKERS": "2", "REGISTRY_HTTP_TIMEOUTS": json.dumps({"header": "4s"})},
        )
        self.run_for_all(server)
        slow = []
        for _ in range(self.COUNT):
            one = socket.create_connection(("127.0.0.1", server.port), timeout=30)
            self.addCleanup(one.close)
            one.sendall(b"GET /v2/ HTTP/1.1\r\nHost:")
            slow.append(one)
        begun = time.monotonic()
        served = 0
        while time.monotonic() - begun < 3:
            self.assertEqual(Client(server.port).get("/v2/").status, 200)
            served += 1
            for one in slow[served % 10 :: 10]:
                with contextlib.suppress(OSError):
                    one.sendall(b"x")
        self.assertGreater(served, 3)
        told = 0
        for one in slow:
            with contextlib.suppress(OSError):
                told += one.recv(1000).startswith(b"HTTP/1.1 408 ")
        self.assertGreater(told, self.COUNT * 0.9)
        self.assertEqual(Client(server.port).get("/v2/").status, 200)


class CrowdTest(E2ETestCase):
    def test_no_more_connections_than_that(self) -> None:
        server = Regd(
            self.directory / "server",
            environment={"REGISTRY_HTTP_WORKERS": "1", "REGISTRY_HTTP_LIMITS": json.dumps({"connections": 5})},
        )
        self.run_for_all(server)

        def connect() -> socket.socket:
            made = socket.create_connection(("127.0.0.1", server.port), timeout=10)
            self.addCleanup(made.close)
            with contextlib.suppress(OSError):
                made.sendall(b"GET /v2/ HTTP/1.1\r\nHost: a\r\n\r\n")
            return made

        def is_served(connection: socket.socket) -> bool:
            with contextlib.suppress(OSError):
                return connection.recv(1000).startswith(b"HTTP/1.1 200 ")
            return False

        wait_until(lambda: is_served(connect()), 10, "a connection")
        open_ones = [connection for connection in (connect() for _ in range(12)) if is_served(connection)]
        self.assertTrue(3 <= len(open_ones) <= 5, len(open_ones))
        open_ones.pop().close()
        wait_until(lambda: is_served(connect()), 10, "a connection again")
        self.assertIn("there are as many as http.limits.connections allows", server.program.output())
