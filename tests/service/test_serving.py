"""Another configuration while requests run: what they find, what they keep, and what becomes of the storage."""

from __future__ import annotations

import tempfile
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from regd.config import Config, parse
from regd.service import serving
from regd.service.parts import make_driver
from regd.storage.driver import StorageError
from regd.storage.memory import MemoryDriver
from tests.web.support import MINIMAL, OCTETS, ApiCase, path_of
from tests.web.wire import request_bytes


def config(text: str) -> Config:
    return parse(text.encode(), "config.yml", {}).config


class Shared(MemoryDriver):
    """
    A driver whose files others see, too.

    :ivar stopped: whether it has been stopped.
    """

    shared = True
    stopped = False
    failure: StorageError | None = None

    def start(self) -> None:
        if self.failure is not None:
            raise self.failure

    def stop(self) -> None:
        self.stopped = True


READ_ONLY = MINIMAL.replace("delete: {enabled: true}", "delete: {enabled: true}, maintenance: {readonly: {enabled: true}}")


class ConfigureTests(ApiCase):
    def configure(self, text: str) -> None:
        self.service.serving.configure(config(text))

    def test_the_next_request_finds_it(self) -> None:
        client = self.client()
        self.assertEqual(client.ask("GET", "/v2/").status, 200)
        self.configure(MINIMAL + "http: {prefix: /x/, headers: {A: [b]}}\nlog: {accesslog: {disabled: true}}\n")
        # On the same connection.
        self.assertEqual(client.ask("GET", "/v2/").status, 404)
        answer = client.ask("GET", "/x/v2/")
        self.assertEqual((answer.status, answer["A"]), (200, "b"))
        self.assertEqual(self.access.getvalue().count("\n"), 1)
        self.configure(MINIMAL)
        answer = client.ask("GET", "/v2/")
        self.assertEqual((answer.status, answer.get("A")), (200, None))
        self.assertEqual(self.access.getvalue().count("\n"), 2)

    def test_what_is_there_stays(self) -> None:
        digest = self.push_blob("a", b"hello")
        self.configure(READ_ONLY)
        self.assertEqual(self.ask("GET", f"/v2/a/blobs/{digest}").body, b"hello")
        self.refused(self.ask("DELETE", f"/v2/a/blobs/{digest}"), 405, "UNSUPPORTED")
        self.configure(MINIMAL)
        self.assertEqual(self.ask("DELETE", f"/v2/a/blobs/{digest}").status, 202)

    def test_requests_that_run(self) -> None:
        """They end by the old one; the old driver is stopped when the last has."""
        old, new = Shared(), Shared()
        self.build(MINIMAL, old)
        self.patch(serving, "make_driver", lambda found, reactor: new)
        upload = self.begin("a")
        client = self.client()
        client.send(request_bytes("PATCH", upload, [("Content-Length", "2")]) + b"x")
        self.configure(READ_ONLY)
        self.assertIs(self.service.serving.driver, new)
        self.refused(self.ask("POST", "/v2/a/blobs/uploads/", body=b""), 405, "UNSUPPORTED")
        self.assertEqual((old.stopped, new.stopped), (False, False))
        client.send(b"y")
        self.assertEqual((client.statuses, old.stopped, new.stopped), ([202], True, False))

    def test_the_end_while_requests_of_the_old_one_run(self) -> None:
        old, new = Shared(), Shared()
        self.build(MINIMAL, old)
        self.patch(serving, "make_driver", lambda found, reactor: new)
        client = self.client()
        client.send(request_bytes("PATCH", self.begin("a"), [("Content-Length", "2")]) + b"x")
        self.configure(READ_ONLY)
        done: Deferred[None] = self.service.stopService()
        client.settle()
        self.successResultOf(done)
        self.assertEqual((client.wire.aborted, old.stopped, new.stopped), (True, True, True))

    def test_a_storage_that_cannot_be_written_to(self) -> None:
        """Then nothing changes."""
        old, new = Shared(), Shared()
        self.build(READ_ONLY, old)
        new.failure = StorageError("a read-only disk")
        self.patch(serving, "make_driver", lambda found, reactor: new)
        self.assertRaises(StorageError, self.configure, MINIMAL)
        self.assertIs(self.service.serving.driver, old)
        self.refused(self.ask("POST", "/v2/a/blobs/uploads/", body=b""), 405, "UNSUPPORTED")
        self.assertFalse(old.stopped)

    def test_what_was_counted_counts(self) -> None:
        serving: Any = self.service.serving
        serving._gate.refused = 3
        self.configure(READ_ONLY)
        self.configure(MINIMAL)
        self.assertEqual(serving.variables()["refused_changes"], 3)

    def test_uploads_go_on(self) -> None:
        upload = self.begin("a")
        self.configure(MINIMAL + "http: {relativeurls: true}\n")
        answer = self.ask("PATCH", upload, [OCTETS], b"xyz")
        self.assertEqual((answer.status, answer["Location"][:4]), (202, "/v2/"))
        self.assertEqual(self.ask("GET", path_of(answer["Location"]))["Range"], "0-2")


class DriverTests(SynchronousTestCase):
    def test_the_directory_stays(self) -> None:
        """Also when the driver is made anew, and also the second time."""
        with tempfile.TemporaryDirectory() as root:
            made: list[Any] = []
            real = make_driver

            def make(found: Config, reactor: Any) -> Any:
                made.append(real(found, reactor))
                return made[-1]

            self.patch(serving, "make_driver", make)
            text = "version: 0.1\nstorage: {filesystem: {rootdirectory: %s}, maintenance: {readonly: {enabled: %s}}}\n"
            one: Any = serving.Serving(config(text % (root, "false")), None, None)  # type: ignore[arg-type]  # nothing is served
            for wanted in ("true", "false"):
                one.configure(config(text % (f"{root}/elsewhere", wanted)))
            self.assertEqual([driver.root for driver in made], [root] * 3)
            self.assertEqual(one.config.storage.driver.rootdirectory, root)
