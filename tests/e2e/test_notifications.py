"""Webhooks are told what happens, in order and all of it, whatever becomes of them and of us meanwhile."""

import json
import os
import signal
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Any

from tests.e2e.daemon import Regd
from tests.e2e.group import GroupTestCase
from tests.e2e.process import free_port, wait_until
from tests.e2e.rawhttp import Client
from tests.e2e.receiver import Receiver
from tests.e2e.test_workers import MANIFEST, manifest


class Pusher(threading.Thread):
    """
    Pushes a blob and a tag, and another blob and another tag, until it is told to stop. Each request has a connection of its own, so that
    each worker has its part in each push. Where it fails it goes on with the next.

    :ivar acknowledged: what the client was told is done, in its order: digests of blobs and names of tags.
    """

    def __init__(self, server: Regd) -> None:
        super().__init__(daemon=True)
        self.acknowledged: list[str] = []
        self._server = server
        self._stopping = threading.Event()

    def run(self) -> None:
        """Push."""
        number = 0
        while not self._stopping.is_set():
            number += 1
            config = b'{"number": %d}' % number
            with suppress(OSError, AssertionError):
                self.acknowledged.append(self._server.client.push_blob("a/b", config))
                self._server.client.push_manifest("a/b", f"t{number}", MANIFEST, manifest(config))
                self.acknowledged.append(f"t{number}")
            time.sleep(0.03)

    def finish(self) -> None:
        """Stop, and wait for that."""
        self._stopping.set()
        self.join()


def subjects(receiver: Receiver) -> list[str]:
    """What was told of, each once, in the order in which it came first."""
    return list(dict.fromkeys(one.event["target"].get("tag") or one.event["target"]["digest"] for one in receiver.taken))


def ids(receiver: Receiver) -> list[str]:
    """The ids of the events that were taken, repetitions included."""
    return [one.event["id"] for one in receiver.taken]


class NotificationsTestCase(GroupTestCase):
    """A daemon and receivers."""

    def receiver(self) -> Receiver:
        found = Receiver()
        self.addCleanup(found.stop)
        found.start()
        return found

    def daemon(self, endpoints: Sequence[dict[str, Any]], workers: int = 2, **more: Any) -> Regd:
        """
        A daemon that tells them; not started.

        :param endpoints: as in the configuration.
        :param more: other keys of ``notifications``.
        """
        server = Regd(self.directory / self._testMethodName, None, {"REGISTRY_HTTP_WORKERS": str(workers)})
        self.addCleanup(server.stop)
        self.configure(server, endpoints, **more)
        return server

    def configure(self, server: Regd, endpoints: Sequence[dict[str, Any]], **more: Any) -> None:
        """Have the file say it."""
        before = server.configuration.read_text(encoding="utf-8").partition("\nnotifications:")[0]
        text = json.dumps({"endpoints": list(endpoints), **more})
        server.configuration.write_text(f"{before}\nnotifications: {text}\n", encoding="utf-8")

    def start(self, server: Regd) -> None:
        """Start it, and come back when all its workers serve."""
        seen = server.program.output().count(" workers\"")
        server.start()
        wait_until(lambda: server.program.output().count(" workers\"") > seen, 60, "the workers to be ready")


class OutageTest(NotificationsTestCase):
    def setUp(self) -> None:
        """Two endpoints, one of which will be in trouble, and somebody who pushes."""
        self.flaky, self.well = self.receiver(), self.receiver()
        self.server = self.daemon(
            [
                {"name": "flaky", "url": self.flaky.url, "timeout": "300ms", "threshold": 2, "backoff": "200ms"},
                {"name": "well", "url": self.well.url, "timeout": "5s"},
            ]
        )
        self.start(self.server)
        self.pusher = Pusher(self.server)
        self.pusher.start()
        self.addCleanup(self.pusher.finish)
        self.goes_on(self.flaky)

    def goes_on(self, receiver: Receiver) -> None:
        """Wait until an endpoint has taken some more."""
        count = len(receiver.taken)
        wait_until(lambda: len(receiver.taken) > count + 5, 30, "events")

    def check(self) -> None:
        """Everything that was acknowledged has arrived at both, in order."""
        self.pusher.finish()
        acknowledged = self.pusher.acknowledged
        for receiver in (self.flaky, self.well):
            self.wait_for(receiver, set(acknowledged))
            self.assertEqual([one for one in subjects(receiver) if one in set(acknowledged)], acknowledged)
        # The same events in the same order. What was pushed and not acknowledged may be among them.
        wait_until(lambda: len(set(ids(self.flaky))) == len(set(ids(self.well))), 30, "the same events")
        order = list(dict.fromkeys(ids(self.well)))
        self.assertEqual(list(dict.fromkeys(ids(self.flaky))), order)
        # Repetitions go back some way, and then on in order: nothing is left out.
        place = {identity: index for index, identity in enumerate(order)}
        for receiver in (self.flaky, self.well):
            told = [place[identity] for identity in ids(receiver)]
            self.assertTrue(all(later <= earlier + 1 for earlier, later in pairwise(told)), told)
        # Nothing was given up.
        self.assertEqual(list(self.server.data.rglob("undelivered*")), [])

    def wait_for(self, receiver: Receiver, wanted: set[str]) -> None:
        """Wait until an endpoint has been told of all of these."""
        wait_until(lambda: wanted <= set(subjects(receiver)), 60, "the rest")

    def test_endpoint_in_trouble(self) -> None:
        """It is down for several back-offs, answers 500, hangs, and comes back each time; the other one hears of everything meanwhile."""
        self.flaky.stop()
        time.sleep(2)
        self.goes_on(self.well)
        self.flaky.start()
        self.goes_on(self.flaky)
        self.flaky.status = 500
        time.sleep(2)
        self.goes_on(self.well)
        self.flaky.status = 200
        self.goes_on(self.flaky)
        self.flaky.status = 0
        time.sleep(2)
        self.goes_on(self.well)
        self.flaky.status = 200
        self.goes_on(self.flaky)
        self.check()
        # Nobody was killed, so nothing was taken twice.
        self.assertEqual(len(ids(self.well)), len(set(ids(self.well))))
        output = self.server.program.output()
        self.assertEqual(output.count("flaky has failed 2 times in a row"), 3)
        self.assertEqual(output.count("flaky takes events again"), 3)

    def test_daemon_ends_meanwhile(self) -> None:
        """An endpoint is down while a worker is killed, the daemon is stopped and started, and killed and started."""
        self.flaky.stop()
        os.kill(self.server.program.children()[0], signal.SIGKILL)
        self.goes_on(self.well)
        self.assertIn(self.server.stop(), (0, -signal.SIGTERM))
        self.start(self.server)
        self.goes_on(self.well)
        self.server.kill()
        self.start(self.server)
        self.goes_on(self.well)
        self.flaky.start()
        self.goes_on(self.flaky)
        self.server.kill()
        self.start(self.server)
        self.goes_on(self.flaky)
        self.check()


class RefusedTest(NotificationsTestCase):
    def test_counted_and_put_aside(self) -> None:
        """
        What an endpoint refuses again and again goes to a file, and does not hold up the rest; an endpoint that is added is told from then
        on; and the counters of all workers are one.
        """
        port = free_port()
        picky, late = self.receiver(), self.receiver()
        picky.status = 400
        endpoints = [{"name": "picky", "url": picky.url, "threshold": 2, "backoff": "100ms", "ignore": {"actions": ["pull"]}}]
        server = self.daemon(endpoints)
        text = server.configuration.read_text(encoding="utf-8")
        debug = f"http:\n  debug: {{addr: '127.0.0.1:{port}', prometheus: {{enabled: true}}}}\n"
        server.configuration.write_text(text.replace("http:\n", debug, 1), encoding="utf-8")
        self.start(server)
        operator = Client(port)
        for number in range(4):
            digest = server.client.push_blob("a/b", b"blob %d" % number)
            self.assertEqual(server.client.get(f"/v2/a/b/blobs/{digest}").status, 200)

        def told() -> dict[str, Any]:
            found: dict[str, Any] = json.loads(operator.get("/debug/vars").body)["notifications"]
            return found

        wait_until(lambda: told()["endpoints"]["picky"]["undelivered"] == 4, 30, "what is refused to be put aside")
        (path,) = server.data.rglob("undelivered")
        lines = [json.loads(line) for line in path.read_bytes().splitlines()]
        self.assertEqual([line["event"]["id"] for line in lines], list(dict.fromkeys(one.event["id"] for one in picky.requests)))
        self.assertEqual({(line["endpoint"], line["reason"]) for line in lines}, {("picky", "it answers 400")})
        picky.status = 200
        self.configure(server, [*endpoints, {"name": "late", "url": late.url}])
        server.program.send(signal.SIGHUP)
        wait_until(lambda: "late" in told()["endpoints"], 30, "the configuration to be read")
        wait_until(lambda: server.program.output().count("in 2 workers") >= 1, 30, "the workers to have read it")
        digest = server.client.push_blob("a/b", b"another")
        server.client.get(f"/v2/a/b/blobs/{digest}")
        wait_until(lambda: len(picky.taken) == 1 and len(late.taken) == 2, 30, "the last events")
        self.assertEqual([one.event["action"] for one in late.taken], ["push", "pull"])

        found = told()
        self.assertEqual((found["events"], found["recorded"], found["dropped"]), ({"picky": 5, "late": 2}, 6, 0))
        one = found["endpoints"]["picky"]
        self.assertEqual([one[key] for key in ("delivered", "failures", "undelivered", "pending")], [1, 8, 4, 0])
        page = operator.get("/metrics").body.decode()
        for line in (
            'registry_notifications_events_total{endpoint="picky",type="Events"} 5.0',
            'registry_notifications_events_total{endpoint="picky",type="Successes"} 1.0',
            'registry_notifications_events_total{endpoint="picky",type="Failures"} 8.0',
            'registry_notifications_events_total{endpoint="late",type="Events"} 2.0',
            'registry_notifications_status_total{code="400 Bad Request",endpoint="picky"} 8.0',
            'registry_notifications_pending_total{endpoint="picky"} 0.0',
            'regd_notifications_undelivered_total{endpoint="picky"} 4.0',
        ):
            self.assertIn(line, page)

    def test_idle(self) -> None:
        """To look whether there is room costs next to nothing where nothing happens."""
        server = self.daemon([{"name": "hook", "url": self.receiver().url}])
        self.start(server)
        server.client.push_blob("a/b", b"x")
        time.sleep(1)
        before = server.program.ticks()
        time.sleep(6)
        self.assertLessEqual(server.program.ticks() - before, 2)
