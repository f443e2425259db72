"""
A daemon whose gate another process closes: what goes on, what waits, what is refused, and that the end of that process, however it comes,
opens the gate.
"""

import json
import signal
import threading
import time
from collections.abc import Callable, Mapping

from tests.e2e.case import E2ETestCase
from tests.e2e.closing import Closer
from tests.e2e.daemon import Regd
from tests.e2e.engine import Engine
from tests.e2e.group import GroupTestCase
from tests.e2e.images import MIB, build_context, noise
from tests.e2e.rawhttp import Answer, digest_of
from tests.e2e.test_workers import MANIFEST, manifest

WAIT = "REGISTRY_STORAGE_MAINTENANCE_GARBAGECOLLECT_WAIT"
COLLECT = "REGISTRY_STORAGE_MAINTENANCE_GARBAGECOLLECT_ENABLED"

BLOB, UNWANTED, CONFIG, MORE = b"a blob", b"another", b'{"a": 1}', b'{"more": 1}'


class Asked:
    """
    A request on a thread of its own.

    :ivar seconds: How long its answer took.
    """

    def __init__(self, ask: Callable[[], Answer]) -> None:
        self._ask = ask
        self._answer: Answer | None = None
        self.seconds = 0.0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        began = time.monotonic()
        self._answer = self._ask()
        self.seconds = time.monotonic() - began

    @property
    def waits(self) -> bool:
        """Whether there is no answer yet."""
        return self._thread.is_alive()

    def answer(self) -> Answer:
        """
        :return: The answer, when it has come.
        """
        self._thread.join(60)
        assert self._answer is not None
        return self._answer


class GateCase(GroupTestCase):
    """
    :ivar workers: How many the daemon has; 0 for one process that does everything.
    """

    def started(self, wait: str) -> Regd:
        """
        :param wait: How long a change waits.
        :return: A daemon with something in it.
        """
        server = self.daemon({WAIT: wait, COLLECT: "false"})
        for blob in (BLOB, UNWANTED, CONFIG, MORE):
            server.client.push_blob("a/b", blob)
        for tag, content in (("latest", CONFIG), ("second", CONFIG), ("more", MORE)):
            server.client.push_manifest("a/b", tag, MANIFEST, manifest(content))
        self.location = server.client.append(server.client.begin_upload("new"), b"content")
        self.begun = server.client.begin_upload("new")
        return server

    def daemon(self, environment: Mapping[str, str]) -> Regd:
        """
        :param environment: Overrides of the configuration.
        :return: A daemon.
        """
        return self.make(2, environment)

    def close(self, server: Regd) -> Closer:
        """
        :param server: A daemon.
        :return: Who has closed its gate.
        """
        closer = Closer(server.data)
        self.addCleanup(closer.kill)
        return closer

    def changes(self, server: Regd) -> list[tuple[int, Callable[[], Answer]]]:
        """
        :param server: A daemon.
        :return: Requests that change what is reachable, each with the status that says it is done.
        """
        ask, client = server.client.request, server.client
        return [
            (201, lambda: client.commit(self.location, digest_of(b"content"))),
            (201, lambda: client.commit(self.begun, digest_of(b"more"), b"more")),
            (201, lambda: ask("POST", f"/v2/new/blobs/uploads/?digest={digest_of(b'whole')}", b"whole")),
            (201, lambda: ask("POST", f"/v2/new/blobs/uploads/?mount={digest_of(BLOB)}&from=a/b", b"")),
            (201, lambda: ask("PUT", "/v2/a/b/manifests/new", manifest(CONFIG), Content_Type=MANIFEST)),
            (202, lambda: ask("DELETE", "/v2/a/b/manifests/second")),
            (202, lambda: ask("DELETE", f"/v2/a/b/manifests/{digest_of(manifest(MORE))}")),
            (202, lambda: ask("DELETE", f"/v2/a/b/blobs/{digest_of(UNWANTED)}")),
        ]

    def assert_goes_on(self, server: Regd) -> None:
        """
        Reads and uploads are not disturbed.

        :param server: A daemon whose gate is closed.
        """
        began = time.monotonic()
        client = server.client
        for path in ("", "a/b/tags/list", "a/b/manifests/latest", f"a/b/blobs/{digest_of(BLOB)}", "_catalog"):
            for method in ("GET", "HEAD"):
                self.assertEqual(client.request(method, f"/v2/{path}").status, 200, path)
        location = client.append(client.begin_upload("c/d"), noise(2 * MIB))
        location = client.append(location, b"more")
        self.assertEqual(client.get(location).headers["range"], f"0-{2 * MIB + 3}")
        self.assertEqual(client.request("DELETE", location).status, 204)
        self.assertLess(time.monotonic() - began, 5)


class TwoWorkersTest(GateCase):
    def test_changes_wait_until_it_opens(self) -> None:
        server = self.started("60s")
        closer = self.close(server)
        asked = [(status, Asked(change)) for status, change in self.changes(server)]
        time.sleep(1.5)
        self.assert_goes_on(server)
        self.assertTrue(all(request.waits for _, request in asked))
        began = time.monotonic()
        closer.open()
        for status, request in asked:
            answer = request.answer()
            self.assertEqual(answer.status, status, answer)
            self.assertGreater(request.seconds, 1.4)
        self.assertLess(time.monotonic() - began, 5)

    def test_changes_are_refused_and_can_be_asked_for_again(self) -> None:
        server = self.started("1s")
        closer = self.close(server)
        changes = self.changes(server)
        for _, request in [(status, Asked(change)) for status, change in changes]:
            answer = request.answer()
            self.assertEqual((answer.status, answer.codes()), (503, ["UNAVAILABLE"]), answer)
            self.assertEqual(answer.headers["retry-after"], "5")
            self.assertIn("try again", json.loads(answer.body)["errors"][0]["message"])
            self.assertGreater(request.seconds, 0.9)
            self.assertLess(request.seconds, 10)
        self.assert_goes_on(server)
        # The uploads that clients know of are there, and no others.
        self.assertEqual(len(list(server.data.glob("docker/registry/v2/repositories/new/_uploads/*"))), 2)
        closer.open()
        for status, change in changes:
            answer = change()
            self.assertEqual(answer.status, status, answer)
        for content in (b"content", b"more", b"whole"):
            self.assertEqual(server.client.get(f"/v2/new/blobs/{digest_of(content)}").body, content)

    def test_whoever_closed_it_is_killed(self) -> None:
        server = self.started("60s")
        closer = self.close(server)
        asked = [(status, Asked(change)) for status, change in self.changes(server)]
        time.sleep(1)
        self.assertTrue(all(request.waits for _, request in asked))
        closer.kill()
        for status, request in asked:
            answer = request.answer()
            self.assertEqual(answer.status, status, answer)
            self.assertLess(request.seconds, 10)

    def test_nothing_is_held_by_those_who_have_passed(self) -> None:
        server = self.started("60s")
        for _, change in self.changes(server):
            change()
        self.close(server).open()


class OneProcessTest(TwoWorkersTest):
    """The same for one process."""

    def daemon(self, environment: Mapping[str, str]) -> Regd:
        """
        :param environment: Overrides of the configuration.
        :return: A daemon.
        """
        server = Regd(self.directory / self._testMethodName, None, environment)
        self.addCleanup(server.stop)
        server.start()
        return server

    def test_read_only_by_signal(self) -> None:
        """The permanent form is another thing: 405 at once, switched by an edit and SIGHUP."""
        server = self.started("60s")
        self.close(server)
        switch = "readonly:\n      enabled: "
        self.set(server, switch + "false", switch + "true")
        server.program.send(signal.SIGHUP)
        self.wait_log(server, "was read again, and is in effect")
        for _, change in self.changes(server):
            began = time.monotonic()
            answer = change()
            self.assertEqual((answer.status, answer.codes()), (405, ["UNSUPPORTED"]))
            self.assertLess(time.monotonic() - began, 5)
        self.assertEqual(server.client.get("/v2/a/b/manifests/latest").status, 200)
        self.set(server, switch + "true", switch + "false")
        server.program.send(signal.SIGHUP)
        self.wait_log(server, "was read again, and is in effect", 2)
        self.assertEqual(server.client.request("POST", "/v2/a/b/blobs/uploads/", b"").status, 202)


class ReadOnlyTest(E2ETestCase):
    def test_each_spelling(self) -> None:
        for number, (name, value) in enumerate(
            {
                "REGISTRY_STORAGE_MAINTENANCE_READONLY_ENABLED": "true",
                "REGISTRY_STORAGE_MAINTENANCE_READONLY": '{"enabled": true}',
                "REGISTRY_STORAGE_MAINTENANCE": "{readonly: {enabled: true}}",
            }.items()
        ):
            server = Regd(self.directory / str(number), None, {name: value})
            self.addCleanup(server.stop)
            server.start()
            self.assertEqual(server.client.get("/v2/_catalog").status, 200)
            answer = server.client.request("POST", "/v2/a/b/blobs/uploads/", b"")
            self.assertEqual((answer.status, answer.codes(), answer.headers["allow"]), (405, ["UNSUPPORTED"], "GET, HEAD"), name)
            server.stop()


class DockerTest(GateCase):
    def test_docker_pushes_while_the_gate_closes_again_and_again(self) -> None:
        server = self.make(2, {COLLECT: "false"})
        engine = Engine(self.directory / "engine")
        self.addCleanup(engine.stop)
        engine.start()
        context = build_context(self.directory / "context", [MIB] * 8, runnable=False)
        images = []
        for number in range(4):
            (context / "layer-7").write_bytes(noise(MIB))
            image = f"{server.host}/busy/image{number}:latest"
            engine.run("build", "--quiet", "--tag", image, str(context))
            images.append(image)
        closer = Closer(server.data, closed=1, open_for=2)
        self.addCleanup(closer.kill)
        began = time.monotonic()
        pushes = 0
        while time.monotonic() - began < 10 or pushes < len(images):
            # The second time round they are there, and looked for.
            engine.run("push", images[pushes % len(images)])
            pushes += 1
        self.assertGreaterEqual(closer.open(), 3)
        for image in images:
            engine.run("rmi", image)
            engine.run("pull", image)
        self.assertNotIn("Traceback", server.program.output())
