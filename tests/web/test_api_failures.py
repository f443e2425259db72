"""What clients see when the storage fails, or regd itself: an answer of the protocol, and nobody else is disturbed."""

from __future__ import annotations

import json

from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from regd.storage.driver import Full, StorageError
from regd.web.blobs import BlobHandlers
from tests.web.support import MINIMAL, OCTETS, ApiCase, Row, digest_of, failing
from tests.web.wire import Client, request_bytes

CONTENT = b"0123456789"
DIGEST = digest_of(CONTENT)
SECRET = "/srv/secret/docker/registry"


def broken() -> StorageError:
    return StorageError(f"cannot read {SECRET}: Input/output error")


def full() -> Full:
    return Full(f"cannot write {SECRET}: No space left on device")


@implementer(ILogObserver)
class Log:
    """What is logged while a test runs."""

    def __init__(self, case: SynchronousTestCase) -> None:
        self.lines: list[str] = []
        globalLogPublisher.addObserver(self)
        case.addCleanup(globalLogPublisher.removeObserver, self)

    def __call__(self, event: LogEvent) -> None:
        if str(event.get("log_namespace")).startswith("regd"):
            self.lines.append(formatEvent(event))


class StorageFailureTests(ApiCase):
    def fails(self, error: type[StorageError] | None = None, *methods: str) -> None:
        """From now on, these methods of the storage fail."""
        make = full if error is Full else broken
        self.driver = failing(make, *methods)
        self.build(MINIMAL, self.driver)

    def test_reading(self) -> None:
        self.fails(None, "stat", "read", "open", "names", "exists")
        self.push_image("a", "v1")
        blob = self.push_blob("a", CONTENT)
        upload = self.begin("a")
        self.driver.broken = True
        later = {"Retry-After": "5"}
        log = Log(self)
        self.table(
            [
                Row("GET", f"/v2/a/blobs/{blob}", 503, "UNAVAILABLE", later),
                Row("HEAD", f"/v2/a/blobs/{blob}", 503, want=later),
                Row("GET", "/v2/a/manifests/v1", 503, "UNAVAILABLE", later),
                Row("GET", "/v2/a/tags/list", 503, "UNAVAILABLE", later),
                Row("GET", "/v2/_catalog", 503, "UNAVAILABLE", later),
                Row("GET", f"/v2/a/referrers/{blob}", 503, "UNAVAILABLE", later),
                Row("GET", upload, 503, "UNAVAILABLE", later),
                Row("DELETE", f"/v2/a/blobs/{blob}", 503, "UNAVAILABLE", later),
                Row("DELETE", "/v2/a/manifests/v1", 503, "UNAVAILABLE", later),
                # What needs no storage.
                Row("GET", "/v2/", 200, b"{}"),
                Row("GET", "/v2/A/tags/list", 400, "NAME_INVALID"),
            ]
        )
        self.assertEqual(len(log.lines), 9)
        self.assertIn(f"GET /v2/a/blobs/{blob}: cannot read {SECRET}: Input/output error", log.lines[0])
        self.assertNotIn(SECRET.encode(), self.ask("GET", f"/v2/a/blobs/{blob}").body)
        # And when it works again, all is well without a restart.
        self.driver.broken = False
        self.table([Row("GET", f"/v2/a/blobs/{blob}", 200, CONTENT), Row("GET", upload, 204)])

    def test_writing(self) -> None:
        for error, status, message in ((StorageError, 503, "try again later"), (Full, 507, "no space left")):
            self.fails(error, "write", "create", "adopt", "append", "delete")
            manifest = self.image("a")
            digest = self.push_blob("a", CONTENT)
            upload = self.begin("a")
            self.driver.broken = True
            for method, target, body in (
                ("POST", "/v2/a/blobs/uploads/", b""),
                ("POST", f"/v2/a/blobs/uploads/?digest={DIGEST}", CONTENT),
                ("POST", f"/v2/b/blobs/uploads/?mount={digest}&from=a", b""),
                ("PATCH", upload, CONTENT),
                ("PUT", f"{upload}?digest={DIGEST}", CONTENT),
                ("PUT", "/v2/a/manifests/v1", manifest),
            ):
                answer = self.ask(method, target, [("Content-Type", OCTETS[1] if "blobs" in target else "")], body)
                error_of = self.refused(answer, status, "UNAVAILABLE")
                self.assertIn(message, error_of["message"])
                self.assertNotIn(SECRET, json.dumps(error_of))
                self.assertEqual(answer["Retry-After"], "5")
            self.driver.broken = False
            self.table(
                [
                    Row("PUT", f"{upload}?digest={DIGEST}", 201, headers=[OCTETS], sent=CONTENT),
                    Row("PUT", "/v2/a/manifests/v1", 201, sent=manifest),
                ]
            )

    def test_others_are_not_disturbed(self) -> None:
        self.fails(Full, "append")
        digest = self.push_blob("a", CONTENT)
        mine = self.client()
        upload = self.begin("a")
        mine.asked.append("PATCH")
        mine.send(request_bytes("PATCH", upload, [OCTETS, ("Content-Length", "10")]) + CONTENT[:5])
        self.driver.broken = True
        self.assertEqual(self.ask("PATCH", self.begin("b"), [OCTETS], CONTENT).status, 507)
        self.table([Row("GET", f"/v2/a/blobs/{digest}", 200, CONTENT)])
        mine.send(CONTENT[5:])
        self.assertEqual(mine.statuses, [202])

    def test_a_large_upload_is_told_at_once(self) -> None:
        """The rest of the body is not waited for."""
        self.fails(Full, "append")
        upload = self.begin("a")
        self.driver.broken = True
        client = self.client()
        client.send(request_bytes("PATCH", upload, [OCTETS, ("Content-Length", "1000000000")]) + CONTENT)
        self.assertEqual(client.statuses, [507])
        self.assertEqual(client.answers[0]["Connection"], "close")


class InternalFaultTests(ApiCase):
    def break_blobs(self) -> None:
        async def fail(*arguments: object) -> None:
            raise ZeroDivisionError("secret detail")

        self.patch(BlobHandlers, "get", fail)

    def test_a_bug(self) -> None:
        self.break_blobs()
        log = Log(self)
        target = f"/v2/a/blobs/{DIGEST}"
        answer = self.ask("GET", target)
        self.assertEqual(answer.status, 500)
        self.assertEqual(answer.body, b'{"errors":[{"code":"UNKNOWN","message":"unknown error"}]}\n')
        (failure,) = self.flushLoggedErrors(ZeroDivisionError)
        self.assertIn("secret detail", failure.getTraceback())
        self.assertEqual(log.lines, [f"GET {target} failed"])
        self.table([Row("GET", "/v2/", 200, b"{}")])
        self.assertIn('" 500 ', self.access.getvalue())

    def test_a_bug_and_a_client_that_has_gone(self) -> None:
        async def fail(*arguments: object) -> None:
            client.wire.end(broken())
            raise ZeroDivisionError

        self.patch(BlobHandlers, "get", fail)
        client: Client = self.client()
        client.send(request_bytes("GET", f"/v2/a/blobs/{DIGEST}"))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.access.getvalue().count('" 499 '), 1)
        self.assertEqual(self.access.getvalue().count("\n"), 1)

    def test_what_is_logged_of_a_request_is_one_line(self) -> None:
        self.break_blobs()
        log = Log(self)
        self.ask("GET", f"/v2/a%0aforged/blobs/{DIGEST}")
        self.ask("GET", f"/v2/a/blobs/{DIGEST}?x={{y}}%0a")
        self.flushLoggedErrors(ZeroDivisionError)
        self.assertFalse(any("\n" in line for line in log.lines))
