"""While a health check fails, clients are refused, as with registry:2: who is, what they are told, and when that ends."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred

from regd.config import load
from regd.service.refusing import refusal
from regd.storage.driver import StorageError
from tests.service.test_worker import WorkerCase
from tests.web.support import MINIMAL, OCTETS, ApiCase, failing
from tests.web.wire import Client, request_bytes

REASON = "the health check of storagedriver_inmemory fails; try again later"


class RefusingTests(ApiCase):
    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.down = Path(temporary.name) / "down"
        self.config = MINIMAL + f"health: {{file: [{{file: {self.down}, interval: 10s, threshold: 2}}]}}\n"
        super().setUp()
        self.start()

    def start(self) -> None:
        self.service._health.start()
        self.addCleanup(self.service._health.stop)

    def page(self, path: str = "/debug/health") -> tuple[int, Any]:
        answer = Client(self.service.debug_site, self.clock).ask("GET", path)
        return answer.status, json.loads(answer.body)

    def test_a_file(self) -> None:
        digest = self.push_blob("a", b"hello")
        self.down.touch()
        self.clock.advance(10)
        # Not yet: it has to be so twice.
        self.assertEqual(self.ask("GET", "/v2/").status, 200)
        self.clock.advance(10)
        for method, target in (
            ("GET", "/v2/"),
            ("GET", "/"),
            ("GET", f"/v2/a/blobs/{digest}"),
            ("PUT", "/v2/a/manifests/latest"),
            ("GET", "/nowhere"),
        ):
            answer = self.ask(method, target)
            self.refused(answer, 503, "UNAVAILABLE")
            self.assertEqual(json.loads(answer.body)["errors"][0]["message"], f"the health check of {self.down} fails; try again later")
            self.assertEqual(answer["Retry-After"], "10")
        self.assertEqual((self.ask("HEAD", "/v2/").status, self.ask("HEAD", "/v2/").body), (503, b""))
        self.assertEqual(self.page(), (503, {str(self.down): "file exists"}))
        self.down.unlink()
        self.clock.advance(10)
        self.assertEqual(self.ask("GET", f"/v2/a/blobs/{digest}").body, b"hello")
        self.assertEqual(self.page(), (200, {}))

    def test_requests_that_have_begun_are_finished(self) -> None:
        upload = self.begin("a")
        client = self.client()
        client.send(request_bytes("PATCH", upload, [OCTETS, ("Content-Length", "2")]) + b"x")
        self.fail_now()
        self.assertEqual(self.ask("GET", upload).status, 503)
        client.send(b"y")
        self.assertEqual(client.statuses, [202])

    def fail_now(self) -> None:
        self.down.touch()
        self.clock.advance(10)
        self.clock.advance(10)

    def test_a_body_that_nobody_wants(self) -> None:
        """Whoever waits for "100 Continue" hears 503 instead."""
        self.fail_now()
        client = self.client()
        fields = [OCTETS, ("Content-Length", "100000000"), ("Expect", "100-continue")]
        client.send(request_bytes("POST", f"/v2/a/blobs/uploads/?digest=sha256:{'0' * 64}", fields))
        self.assertEqual(client.statuses, [503])

    def test_another_configuration(self) -> None:
        """Checks that stay as they are go on, and so does what they have found; others begin anew."""
        self.fail_now()
        for text, status in ((self.config + "http: {relativeurls: true}\n", 503), (MINIMAL, 200)):
            with tempfile.NamedTemporaryFile("w", suffix=".yml", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                self.service._path = file.name
                self.service._reread()
            self.assertEqual(self.ask("GET", "/v2/").status, status)

    def test_the_storage(self) -> None:
        driver: Any = failing(lambda: StorageError("/srv/registry: on fire"), "check")
        self.build(MINIMAL + "health: {storagedriver: {enabled: true}}\n", driver)
        self.start()
        driver.broken = True
        self.clock.advance(10)
        answer = self.ask("GET", "/v2/")
        self.refused(answer, 503, "UNAVAILABLE")
        # What is wrong with it is for operators.
        self.assertEqual(json.loads(answer.body)["errors"][0]["message"], REASON)
        self.assertEqual(self.page(), (503, {"storagedriver_inmemory": "/srv/registry: on fire"}))
        driver.broken = False
        self.clock.advance(10)
        self.assertEqual(self.ask("GET", "/v2/").status, 200)

    def test_storage_that_is_only_looked_at_when_somebody_asks(self) -> None:
        driver: Any = failing(lambda: StorageError("on fire"), "check")
        self.build(MINIMAL, driver)
        self.start()
        driver.broken = True
        self.assertEqual(self.page()[0], 503)
        self.assertEqual(self.ask("GET", "/v2/").status, 200)

    def test_the_log(self) -> None:
        (check,) = self.service._health._checks
        with patch.object(check, "_log") as log:
            self.fail_now()
            self.clock.advance(10)
            log.error.assert_called_once()
            log.info.assert_not_called()
            self.down.unlink()
            self.clock.advance(10)
            log.info.assert_called_once()

    def test_what_routes_pass_on(self) -> None:
        text = self.config + "reverseproxy: {routes: [{path: /, status: 204}]}\n"
        with tempfile.NamedTemporaryFile("w", suffix=".yml", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            config = load(file.name, {}).config
        self.service.serving._proxy = self.service.serving._make_proxy(config)
        self.fail_now()
        peer = IPv4Address("TCP", "127.0.0.1", 1)
        self.assertEqual(self.client(peer).ask("GET", "/", [("Host", "a")]).status, 204)
        self.assertEqual(self.client(peer).ask("GET", "/v2/", [("Host", "a")]).status, 503)

    def test_what_clients_are_told(self) -> None:
        self.assertEqual(refusal({}), "")
        self.assertEqual(refusal({"http://a/b?key=hunter2": "no"}), "the health check of http://a/b fails; try again later")
        many = refusal({f"{number}:{'x' * 1000}": "no" for number in range(9)})
        self.assertIn(" and 4 more fails", many)
        self.assertLess(len(many), 1200)

    def test_the_samples(self) -> None:
        self.fail_now()
        found = self.successResultOf(Deferred.fromCoroutine(self.service._samples()))
        self.assertEqual(list(found.numbers("regd_health_checks_failing")), [((), 1)])


class WorkerTests(WorkerCase):
    def test_it_may_be_told_before_it_serves(self) -> None:
        self.worker.refuse("no")
        self.configure()
        self.assertIn(b" 503 ", self.ask())
        self.worker.refuse("")
        self.assertIn(b" 200 ", self.ask())
        self.worker.refuse("no")
        self.assertIn(b'"message":"no"', self.ask().replace(b": ", b":"))

    def ask(self) -> bytes:
        client = self.connect()
        client.sendall(b"GET /v2/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        for _ in range(6):
            self.reactor.turn()
        return client.recv(4096)
