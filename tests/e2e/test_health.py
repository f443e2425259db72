"""Health checks of a daemon with workers: while one fails, none of them serves anybody."""

import json
import os
import signal
import time

from tests.e2e.group import GroupTestCase, ask, owner
from tests.e2e.process import free_port, wait_until
from tests.e2e.rawhttp import Client

SAID = "the health check of {} fails; try again later"


class HealthTest(GroupTestCase):
    def test_a_file(self) -> None:
        port = free_port()
        down = self.directory / "down"
        check = json.dumps([{"file": str(down), "interval": "100ms", "threshold": 2}])
        server = self.make(2, {"REGISTRY_HTTP_DEBUG_ADDR": f"127.0.0.1:{port}", "REGISTRY_HEALTH_FILECHECKERS": check})
        operator = Client(port)
        wires = self.wires(server, 2)
        for wire in wires.values():
            self.assertEqual(ask(wire, "GET", "/v2/").status, 200)
        self.assertEqual((operator.get("/debug/health").status, operator.get("/readyz").status), (200, 200))

        down.touch()
        wait_until(lambda: server.client.get("/v2/").status == 503, 10, "clients to be refused")
        for wire in wires.values():
            wait_until(lambda wire=wire: ask(wire, "GET", "/v2/").status == 503, 10, "all workers to refuse them")  # type: ignore[misc]  # bound now
            answer = ask(wire, "GET", "/v2/some/manifests/latest")
            self.assertEqual((answer.status, answer.codes(), answer.headers["retry-after"]), (503, ["UNAVAILABLE"], "10"))
            self.assertIn(SAID.format(down), answer.body.decode())
        found = operator.get("/debug/health")
        self.assertEqual((found.status, found.json()), (503, {str(down): "file exists"}))
        self.assertEqual((operator.get("/readyz").status, operator.get("/livez").status), (503, 200))
        self.assertIn(f"health check {down} fails", server.program.output())

        # One that is started meanwhile knows it before its first connection.
        victim = next(iter(wires))
        os.kill(victim, signal.SIGKILL)
        self.wait_log(server, "another one takes its place")
        wait_until(
            lambda: operator.get("/debug/vars").status == 200 and len(set(server.program.children()) - set(wires)) == 1, 30, "a worker"
        )
        (newcomer,) = set(server.program.children()) - set(wires)
        deadline = time.monotonic() + 30
        met = False
        while not met:
            self.assertLess(time.monotonic(), deadline, "the new worker to serve")
            found_wires = [self.wire(server) for _ in range(3)]
            for wire in found_wires:
                self.assertEqual(ask(wire, "GET", "/v2/").status, 503)
            met = newcomer in {owner(server, wire) for wire in found_wires}

        down.unlink()
        wait_until(lambda: server.client.get("/v2/").status == 200, 10, "clients to be served")
        for wire in self.wires(server, 2).values():
            wait_until(lambda wire=wire: ask(wire, "GET", "/v2/").status == 200, 10, "all workers to serve them")  # type: ignore[misc]  # bound now
        self.assertEqual(operator.get("/debug/health").json(), {})
        self.assertIn(f"health check {down} is well again", server.program.output())

    def test_the_storage(self) -> None:
        """It goes away, as when a disk is unmounted, and comes back."""
        settings = {
            "REGISTRY_HEALTH_STORAGEDRIVER_ENABLED": "true",
            "REGISTRY_HEALTH_STORAGEDRIVER_INTERVAL": "100ms",
            "REGISTRY_HEALTH_STORAGEDRIVER_THRESHOLD": "3",
        }
        server = self.make(2, settings)
        digest = server.client.push_blob("some/image", b"hello")
        away = server.data.with_name("away")
        server.data.rename(away)
        server.data.mkdir()
        wires = self.wires(server, 2).values()
        for wire in wires:
            wait_until(lambda wire=wire: ask(wire, "GET", "/v2/").status == 503, 10, "clients to be refused")  # type: ignore[misc]  # bound now
            answer = ask(wire, "GET", f"/v2/some/image/blobs/{digest}")
            self.assertEqual((answer.status, answer.codes()), (503, ["UNAVAILABLE"]))
            self.assertIn(SAID.format("storagedriver_filesystem"), answer.body.decode())
            # Where it lies is nobody's business.
            self.assertNotIn(str(server.data), answer.body.decode())
        server.data.rmdir()
        away.rename(server.data)
        for wire in wires:
            wait_until(lambda wire=wire: ask(wire, "GET", "/v2/").status == 200, 10, "clients to be served")  # type: ignore[misc]  # bound now
            self.assertEqual(ask(wire, "GET", f"/v2/some/image/blobs/{digest}").body, b"hello")
