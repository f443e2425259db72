"""Names of other registries' repositories in paths: translated, and not pushed to."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from regd.errors import NameUnknown, Unsupported
from regd.names import RepositoryName
from regd.service import serving
from regd.web.api import Api
from tests.web.support import ApiCase, digest_of


class OneOther:
    """A :class:`~regd.web.namespaces.Namespaces`: what is below ``other.example`` is another registry's."""

    def with_namespace(self, name: RepositoryName, namespace: str) -> RepositoryName | None:
        if namespace == "nobody.example":
            raise NameUnknown
        return RepositoryName.parse(f"other.example/{name}") if namespace.startswith("other.example") else None

    def refuse_write(self, name: RepositoryName) -> None:
        if name.startswith("other.example/"):
            raise Unsupported("push elsewhere", headers={"Allow": "GET, HEAD"})


class NamespacesTest(ApiCase):
    def setUp(self) -> None:
        self.namespaces: OneOther | None = None

        def api(*arguments: Any) -> Api:
            made = Api(*arguments)
            # In place of those that are configured, which are none.
            made._namespaces = self.namespaces
            return made

        self.patch(serving, "Api", api)
        super().setUp()
        manifest = self.image("other.example/a")
        self.put(manifest)
        self.namespaces = OneOther()
        self.build(self.config, self.driver)

    def put(self, manifest: bytes) -> None:
        self.digest = digest_of(manifest)
        done = self.ask("PUT", "/v2/other.example/a/manifests/v1", [("Content-Type", json.loads(manifest)["mediaType"])], manifest)
        self.assertEqual(done.status, 201, done)

    def readings(self, name: str) -> list[str]:
        layer = digest_of(b"layer")
        return [
            f"/v2/{name}/manifests/v1",
            f"/v2/{name}/manifests/{self.digest}",
            f"/v2/{name}/blobs/{layer}",
            f"/v2/{name}/tags/list",
            f"/v2/{name}/referrers/{self.digest}",
        ]

    def test_reading_by_either_name(self) -> None:
        for own, theirs in zip(self.readings("other.example/a"), self.readings("a"), strict=True):
            wanted = self.ask("GET", own)
            self.assertEqual((wanted.status, wanted.get("OCI-Namespace")), (200, None), own)
            for method in ("GET", "HEAD"):
                answer = self.ask(method, f"{theirs}?ns=other.example")
                self.assertEqual((answer.status, answer["OCI-Namespace"]), (200, "other.example"), theirs)
                if method == "GET":
                    self.assertEqual(answer.body, wanted.body)

    def test_what_says_nothing_here(self) -> None:
        for namespace in ("", "elsewhere.example", "%00", "%0d%0aX:%20y", "%ff"):
            answer = self.ask("GET", f"/v2/other.example/a/manifests/v1?ns={namespace}")
            self.assertEqual((answer.status, answer.get("OCI-Namespace"), answer.get("X")), (200, None, None))
            self.refused(self.ask("GET", f"/v2/a/manifests/v1?ns={namespace}"), 404, "MANIFEST_UNKNOWN")

    def test_what_does_not_belong_into_a_header_is_not_sent_back(self) -> None:
        answer = self.ask("GET", "/v2/a/manifests/v1?ns=other.example%0d%0aX:%20y")
        self.assertEqual((answer.status, answer.get("OCI-Namespace"), answer.get("X")), (200, None, None))

    def test_refusals_say_so_as_well(self) -> None:
        answer = self.ask("GET", "/v2/b/manifests/v1?ns=other.example")
        self.refused(answer, 404, "MANIFEST_UNKNOWN")
        self.assertEqual(answer["OCI-Namespace"], "other.example")
        self.refused(self.ask("GET", "/v2/b/manifests/v1?ns=nobody.example"), 404, "NAME_UNKNOWN")

    def writings(self, name: str) -> list[tuple[str, str]]:
        upload = "0b7a1a4e-8a1c-4e4f-9c3b-2f6d5e4c3b2a"
        return [
            ("POST", f"/v2/{name}/blobs/uploads/"),
            ("POST", f"/v2/{name}/blobs/uploads/?mount={digest_of(b'layer')}&from=other.example/a"),
            ("PATCH", f"/v2/{name}/blobs/uploads/{upload}"),
            ("PUT", f"/v2/{name}/blobs/uploads/{upload}?digest={digest_of(b'x')}"),
            ("DELETE", f"/v2/{name}/blobs/uploads/{upload}"),
            ("DELETE", f"/v2/{name}/blobs/{digest_of(b'layer')}"),
            ("PUT", f"/v2/{name}/manifests/v1"),
            ("DELETE", f"/v2/{name}/manifests/v1"),
            ("DELETE", f"/v2/{name}/manifests/{self.digest}"),
        ]

    def test_nothing_is_written_there(self) -> None:
        before = self.ask("GET", "/v2/other.example/a/tags/list").body
        with_ns: Callable[[str], str] = lambda target: f"{target}{'&' if '?' in target else '?'}ns=other.example"  # noqa: E731 - short
        for method, target in [*self.writings("other.example/a"), *((one, with_ns(other)) for one, other in self.writings("a"))]:
            answer = self.ask(method, target, body=b"x")
            self.refused(answer, 405, "UNSUPPORTED")
            self.assertEqual(answer["Allow"], "GET, HEAD")
        self.assertEqual(self.ask("GET", "/v2/other.example/a/tags/list").body, before)

    def test_others_are_pushed_to(self) -> None:
        self.push_blob("local/a", b"mine")
        mounted = self.ask("POST", f"/v2/local/a/blobs/uploads/?mount={digest_of(b'layer')}&from=other.example/a", body=b"")
        self.assertEqual(mounted.status, 201)
