"""A closed gate, as clients see it; and the promises of a HEAD."""

from __future__ import annotations

import json
import time
from typing import Any

from regd.manifest import OCI_IMAGE
from regd.names import Digest, RepositoryName
from regd.storage import layout
from regd.storage.driver import Held
from tests.web.support import MINIMAL, OCTETS, ApiCase, digest_of, path_of
from tests.web.wire import Answer, Client, request_bytes

LAYER = b"layer"
MANIFEST = ("Content-Type", OCI_IMAGE)

A = RepositoryName("a")


class GateTests(ApiCase):
    #: How long a change waits, in seconds.
    wait = 5.0

    def close(self) -> Held:
        held: list[Any] = []
        try:
            self.driver.lock(layout.gate()).send(None)
        except StopIteration as stop:
            held.append(stop.value)
        lock: Held = held[0]
        return lock

    def waiting(self, method: str, target: str, headers: Any = (), body: bytes | None = None) -> Client:
        """A connection whose request waits."""
        client = self.client()
        client.asked.append(method)
        client.send(request_bytes(method, target, headers, body))
        self.assertEqual(client.answers, [])
        return client

    def answer(self, client: Client, after: float) -> Answer:
        self.clock.pump([0.01] * round(after / 0.01))
        client.settle()
        (answer,) = client.answers
        return answer

    def changes(self, upload: str) -> list[tuple[int, str, str, Any, bytes | None]]:
        manifest = json.dumps({"schemaVersion": 2, "mediaType": OCI_IMAGE, "config": _of(b"{}"), "layers": []}).encode()
        return [
            (201, "PUT", f"{upload}?digest={digest_of(b'new')}", [OCTETS], b"new"),
            (201, "POST", f"/v2/b/blobs/uploads/?digest={digest_of(b'whole')}", [OCTETS], b"whole"),
            (201, "POST", f"/v2/b/blobs/uploads/?mount={digest_of(LAYER)}&from=a", (), b""),
            (201, "PUT", "/v2/a/manifests/new", [MANIFEST], manifest),
            (202, "DELETE", "/v2/a/manifests/second", (), None),
            (202, "DELETE", f"/v2/a/manifests/{self.digest}", (), None),
            (202, "DELETE", f"/v2/a/blobs/{digest_of(LAYER)}", (), None),
        ]

    def prepare(self) -> str:
        self.digest, _ = self.push_image("a", "latest", "second", layer=LAYER)
        return self.begin("b")

    def test_changes_wait(self) -> None:
        changes = self.changes(self.prepare())
        held = self.close()
        clients = [(status, self.waiting(*change)) for status, *change in changes]
        self.clock.pump([0.01] * 300)
        held.close()
        for (status, client), (_, *change) in zip(clients, changes, strict=True):
            self.assertEqual(self.answer(client, 0.06).status, status, change)

    def test_changes_are_refused(self) -> None:
        upload = self.prepare()
        changes = self.changes(upload)
        before = self.uploads("b")
        held = self.close()
        clients = [self.waiting(*change) for _, *change in changes]
        for client in clients:
            answer = self.answer(client, self.wait + 0.1 if client is clients[0] else 0.0)
            error = self.refused(answer, 503, "UNAVAILABLE")
            self.assertEqual(answer["Retry-After"], "5")
            # What a person can do about it.
            self.assertIn("try again in a few seconds", error["message"])
            # The connection goes on.
            self.assertIsNone(answer.get("Connection"))
            self.assertEqual(client.ask("GET", "/v2/").status, 200)
        self.assertEqual(self.service.serving.variables()["refused_changes"], len(changes))
        # The upload that the client knows is there, and nothing besides.
        self.assertEqual(self.uploads("b"), before)
        self.assertEqual(self.ask("GET", upload)["Range"], "0-2")
        held.close()
        for status, *change in changes:
            self.assertEqual(self.ask(*change).status, status, change)
        self.assertEqual(self.uploads("b"), [])

    def uploads(self, name: str) -> list[str]:
        try:
            self.driver.names(layout.uploads(RepositoryName(name))).send(None)
        except StopIteration as stop:
            return list(stop.value)
        raise AssertionError

    def test_the_rest_goes_on(self) -> None:
        self.prepare()
        held = self.close()
        for target in (
            "/v2/",
            "/v2/_catalog",
            "/v2/a/tags/list",
            "/v2/a/manifests/latest",
            f"/v2/a/blobs/{digest_of(LAYER)}",
            f"/v2/a/referrers/{self.digest}",
        ):
            for method in ("GET", "HEAD"):
                self.assertEqual(self.ask(method, target).status, 200, target)
        upload = self.begin("c")
        answer = self.ask("PATCH", upload, [OCTETS], b"one")
        self.assertEqual(answer.status, 202)
        self.assertEqual(self.ask("GET", path_of(answer["Location"])).status, 204)
        self.assertEqual(self.ask("DELETE", path_of(answer["Location"])).status, 204)
        held.close()

    def test_a_body_is_stored_before_the_wait(self) -> None:
        upload = self.begin("a")
        held = self.close()
        client = self.waiting("PUT", f"{upload}?digest={digest_of(b'x' * 100_000)}", [OCTETS], b"x" * 100_000)
        self.assertEqual(self.ask("GET", upload)["Range"], "0-99999")
        held.close()
        self.assertEqual(self.answer(client, 0.06).status, 201)

    def test_the_same_again(self) -> None:
        """With the state in its URL, too, which says that nothing has arrived."""
        for config in (MINIMAL, MINIMAL + "http: {secret: s}\n"):
            for again in (b"new", b""):
                for fresh in (False, True):
                    self.build(config)
                    upload = self.begin("a")
                    target = f"{upload}{'&' if '?' in upload else '?'}digest={digest_of(b'new')}"
                    held = self.close()
                    self.assertEqual(self.answer(self.waiting("PUT", target, [OCTETS], b"new"), 5.1).status, 503)
                    held.close()
                    if fresh:
                        # In another process.
                        self.build(config, self.driver)
                    answer = self.ask("PUT", target, [OCTETS], again)
                    self.assertEqual(answer.status, 201, answer)
                    self.assertEqual(self.ask("GET", f"/v2/a/blobs/{digest_of(b'new')}").body, b"new")

    def test_whoever_waits_goes_away(self) -> None:
        """What has been asked for is done all the same."""
        self.prepare()
        held = self.close()
        client = self.waiting("DELETE", "/v2/a/manifests/second")
        client.leave()
        held.close()
        self.clock.pump([0.01] * 10)
        self.assertEqual(self.ask("GET", "/v2/a/manifests/second").status, 404)


class PatienceTests(GateTests):
    """The same with another patience."""

    config = MINIMAL.replace("delete: {enabled: true}", "delete: {enabled: true}, maintenance: {garbagecollect: {wait: 4s}}")
    wait = 4.0


class PromiseTests(ApiCase):
    def age(self, *paths: layout.Path) -> None:
        for path in paths:
            self.driver._file(path).modified = time.time() - 10 * 3600

    def modified(self, path: layout.Path) -> float:
        return float(self.driver._file(path).modified)

    def test_blobs(self) -> None:
        digest = Digest(self.push_blob("a", LAYER))
        path = layout.blob_data(digest)
        conditional = [("If-None-Match", f'"{digest}"')]
        for method, headers, status, renewed in (
            ("GET", [], 200, False),
            ("GET", [("Range", "bytes=0-1")], 206, False),
            ("GET", conditional, 304, False),
            ("HEAD", [], 200, True),
            ("HEAD", conditional, 304, True),
        ):
            self.age(path)
            self.assertEqual(self.ask(method, f"/v2/a/blobs/{digest}", headers).status, status)
            self.assertEqual(self.modified(path) > time.time() - 60, renewed, (method, headers))

    def test_manifests(self) -> None:
        digest, _ = self.push_image("a", "latest")
        path = layout.blob_data(Digest(digest))
        for reference in ("latest", digest):
            for method, renewed in (("GET", False), ("HEAD", True)):
                self.age(path)
                self.assertEqual(self.ask(method, f"/v2/a/manifests/{reference}").status, 200)
                self.assertEqual(self.modified(path) > time.time() - 60, renewed, (method, reference))

    def test_what_is_collected_while_it_is_promised(self) -> None:
        digest, _ = self.push_image("a", "latest", layer=LAYER)
        for path, target in (
            (layout.blob_data(Digest.of(LAYER)), f"/v2/a/blobs/{Digest.of(LAYER)}"),
            (layout.blob_data(Digest(digest)), f"/v2/a/manifests/{digest}"),
            (layout.blob_data(Digest(digest)), "/v2/a/manifests/latest"),
        ):
            self.push_image("a", "latest", layer=LAYER)
            self.age(path)
            renew = self.driver.renew

            async def collected(wanted: layout.Path, path: layout.Path = path, renew: Any = renew) -> None:
                if wanted == path and await self.driver.exists(path):
                    await self.driver.delete(path)
                await renew(wanted)

            patched = self.patch(self.driver, "renew", collected)
            self.assertEqual(self.ask("HEAD", target).status, 404)
            patched.restore()

    def test_read_only(self) -> None:
        digest = Digest(self.push_blob("a", LAYER))
        path = layout.blob_data(digest)
        self.age(path)
        before = self.modified(path)
        readonly = MINIMAL.replace("delete: {enabled: true}", "maintenance: {readonly: {enabled: true}}")
        self.build(readonly, self.driver)
        self.assertEqual(self.ask("HEAD", f"/v2/a/blobs/{digest}").status, 200)
        self.assertEqual(self.modified(path), before)

    def test_the_grace_period_is_the_configuration_s(self) -> None:
        self.build(MINIMAL.replace("delete: {enabled: true}", "maintenance: {garbagecollect: {grace: 100h}}"))
        digest = Digest(self.push_blob("a", LAYER))
        path = layout.blob_data(digest)
        self.age(path)
        before = self.modified(path)
        self.assertEqual(self.ask("HEAD", f"/v2/a/blobs/{digest}").status, 200)
        self.assertEqual(self.modified(path), before)


def _of(content: bytes) -> dict[str, object]:
    return {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest_of(content), "size": len(content)}
