"""What health looks at again and again."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.resource import Resource
from twisted.web.server import Site

from regd.config import FileCheck, HealthChecks, HTTPCheck, StorageCheck, TCPAddress, TCPCheck
from regd.storage.driver import StorageError
from regd.storage.memory import MemoryDriver
from regd.telemetry.checks import Check, make_checks
from regd.telemetry.health import Health
from tests.web.support import failing

LOOP: Any = reactor


class CheckTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.problem = ""
        self.looks = 0

    def check(self, threshold: int) -> Check:
        def look() -> Deferred[str]:
            self.looks += 1
            return succeed(self.problem)

        check = Check("it", look, 10.0, threshold, self.clock)
        check.start()
        self.addCleanup(check.stop)
        return check

    def test_threshold(self) -> None:
        check = self.check(3)
        self.problem = "broken"
        seen = []
        for _ in range(4):
            self.clock.advance(10)
            seen.append(check.problem)
        self.assertEqual(seen, ["", "", "broken", "broken"])
        self.problem = ""
        self.clock.advance(10)
        self.assertEqual(check.problem, "")
        # In a row: it begins anew.
        self.problem = "broken"
        self.clock.advance(10)
        self.assertEqual((check.problem, self.looks), ("", 7))

    def test_without_threshold(self) -> None:
        self.problem = "broken"
        self.assertEqual(self.check(0).problem, "broken")

    def test_stopped(self) -> None:
        check = self.check(1)
        check.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        check.stop()

    def test_stopped_while_it_looks(self) -> None:
        waiting: Deferred[str] = Deferred()
        check = Check("it", lambda: waiting, 10.0, 1, self.clock)
        check.start()
        check.stop()
        waiting.callback("")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_look_that_fails(self) -> None:
        async def look() -> str:
            raise ZeroDivisionError

        check = Check("it", look, 10.0, 1, self.clock)
        check.start()
        self.assertEqual(check.problem, "ZeroDivisionError")
        check.stop()


class MakeTests(SynchronousTestCase):
    def test_storage(self) -> None:
        """Where it is looked at again and again, asking looks no further."""
        driver: Any = failing(lambda: StorageError("on fire"), "check")
        clock = Clock()
        health = Health(driver, make_checks(HealthChecks(StorageCheck(enabled=True, threshold=2)), driver, clock))
        driver.broken = True
        health.start()
        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(health.problems())), {})
        clock.advance(10)
        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(health.problems())), {"storagedriver_inmemory": "on fire"})
        health.stop()
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_file(self) -> None:
        with tempfile.TemporaryDirectory() as directory:
            file = Path(directory) / "down"
            clock = Clock()
            (check,) = make_checks(HealthChecks(file=(FileCheck(str(file)),)), MemoryDriver(), clock)
            check.start()
            self.assertEqual(check.problem, "")
            file.touch()
            clock.advance(10)
            self.assertEqual((check.name, check.problem), (str(file), "file exists"))
            # A place that cannot be looked at is not well either; as with registry:2.
            (strange,) = make_checks(HealthChecks(file=(FileCheck(str(file / "below")),)), MemoryDriver(), clock)
            strange.start()
            self.assertIn("Not a directory", strange.problem)
            strange.stop()
            check.stop()


class NetworkTests(TestCase):
    async def looked(self, checks: HealthChecks) -> Check:
        (check,) = make_checks(checks, MemoryDriver(), LOOP)
        check._running = True
        await check._go()
        check.stop()
        return check

    async def test_tcp(self) -> None:
        factory = Factory.forProtocol(Protocol)
        port = LOOP.listenTCP(0, factory, interface="127.0.0.1")
        address = TCPAddress("127.0.0.1", port.getHost().port)
        found = await self.looked(HealthChecks(tcp=(TCPCheck(address),)))
        self.assertEqual((found.name, found.problem), (str(address), ""))
        await port.stopListening()
        found = await self.looked(HealthChecks(tcp=(TCPCheck(address),)))
        self.assertIn("refused", found.problem)

    async def test_http(self) -> None:
        asked = []

        class Page(Resource):
            isLeaf = True

            def render_HEAD(self, request: Any) -> bytes:
                asked.append((request.method, request.requestHeaders.getRawHeaders(b"X-Key")))
                request.setResponseCode(204)
                return b""

        port = LOOP.listenTCP(0, Site(Page()), interface="127.0.0.1")
        uri = f"http://127.0.0.1:{port.getHost().port}/health"
        found = await self.looked(HealthChecks(http=(HTTPCheck(uri, {"X-Key": ("one",)}, 204),)))
        self.assertEqual((found.name, found.problem), (uri, ""))
        self.assertEqual(asked, [(b"HEAD", [b"one"])])
        found = await self.looked(HealthChecks(http=(HTTPCheck(uri),)))
        self.assertEqual(found.problem, "downstream service returned unexpected status: 204")
        await port.stopListening()
