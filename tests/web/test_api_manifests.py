"""Manifests over HTTP, as tables: pushed, checked, negotiated, deleted."""

from __future__ import annotations

import json

from regd.manifest import DOCKER_IMAGE, DOCKER_LIST, OCI_ARTIFACT, OCI_IMAGE, OCI_INDEX
from tests.web.support import MINIMAL, ApiCase, Row, descriptor, digest_of, index
from tests.web.wire import Answer, chunked, request_bytes

ABSENT = "sha256:" + "0" * 64
MIB = 1024 * 1024
ORIGIN = "http://registry.example:5000"
SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1+prettyjws"


class ManifestCase(ApiCase):
    def put(self, reference: str, content: bytes, media_type: str | None = OCI_IMAGE, name: str = "a") -> Answer:
        headers = [] if media_type is None else [("Content-Type", media_type)]
        return self.ask("PUT", f"/v2/{name}/manifests/{reference}", headers, content)

    def created(self, answer: Answer, digest: str) -> None:
        self.assertEqual(answer.status, 201, answer)
        self.assertEqual(answer["Location"], f"{ORIGIN}/v2/a/manifests/{digest}")
        self.assertEqual(answer["Docker-Content-Digest"], digest)
        self.assertEqual(answer["Content-Length"], "0")


class GetTests(ManifestCase):
    def test_by_tag_and_digest(self) -> None:
        digest, content = self.push_image("a", "v1", "v2")
        want = {
            "Content-Type": OCI_IMAGE,
            "Content-Length": str(len(content)),
            "Docker-Content-Digest": digest,
            "ETag": f'"{digest}"',
            "Cache-Control": None,
        }
        for reference in ("v1", "v2", digest):
            target = f"/v2/a/manifests/{reference}"
            self.table([Row("GET", target, 200, content, want), Row("HEAD", target, 200, b"", want)])
            for value in (f'"{digest}"', f'W/"{digest}"', digest, "*"):
                kept = {"ETag": f'"{digest}"', "Docker-Content-Digest": digest, "Content-Length": None}
                self.table(Row(method, target, 304, b"", kept, [("If-None-Match", value)]) for method in ("GET", "HEAD"))
            self.table([Row("GET", target, 200, content, headers=[("If-None-Match", f'"{ABSENT}"')])])

    def test_sha512(self) -> None:
        content = self.image("a")
        digest = digest_of(content, "sha512")
        self.created(self.put(digest, content), digest)
        want = {"Docker-Content-Digest": digest, "ETag": f'"{digest}"', "Content-Type": OCI_IMAGE}
        self.table([Row("GET", f"/v2/a/manifests/{digest}", 200, content, want)])

    def test_unknown(self) -> None:
        digest, _ = self.push_image("a", "v1")
        self.table(
            [
                Row("GET", "/v2/a/manifests/v2", 404, "MANIFEST_UNKNOWN"),
                Row("HEAD", "/v2/a/manifests/v2", 404),
                Row("GET", f"/v2/a/manifests/{ABSENT}", 404, "MANIFEST_UNKNOWN"),
                Row("GET", "/v2/none/manifests/v1", 404, "MANIFEST_UNKNOWN"),
                Row("GET", f"/v2/none/manifests/{digest}", 404, "MANIFEST_UNKNOWN"),
                # What is no tag cannot be there either.
                Row("GET", "/v2/a/manifests/.hidden", 404, "MANIFEST_UNKNOWN"),
                Row("GET", "/v2/a/manifests/" + "x" * 129, 404, "MANIFEST_UNKNOWN"),
                Row("GET", "/v2/a/manifests/sha256:bad", 400, "DIGEST_INVALID"),
                Row("DELETE", "/v2/a/manifests/v2", 404, "MANIFEST_UNKNOWN"),
                Row("DELETE", f"/v2/a/manifests/{ABSENT}", 404, "MANIFEST_UNKNOWN"),
                Row("DELETE", "/v2/none/manifests/v1", 404, "MANIFEST_UNKNOWN"),
            ]
        )
        self.assertEqual(self.refused(self.ask("GET", "/v2/a/manifests/v2"), 404, "MANIFEST_UNKNOWN")["detail"], {"tag": "v2"})

    def test_a_layer_is_no_manifest(self) -> None:
        self.push_image("a", "v1")
        self.table([Row("GET", f"/v2/a/manifests/{digest_of(b'layer')}", 404, "MANIFEST_UNKNOWN")])


class NegotiationTests(ManifestCase):
    def accept(self, reference: str, *values: str) -> Answer:
        return self.ask("GET", f"/v2/a/manifests/{reference}", [("Accept", value) for value in values])

    def test_oci(self) -> None:
        digest, content = self.push_image("a", "v1")
        weighted = f"{DOCKER_IMAGE}, {OCI_IMAGE};q=0.1"
        for values in ((), ("*/*",), (OCI_IMAGE,), (DOCKER_IMAGE, OCI_IMAGE), (weighted,), ("application/*",), ("",)):
            self.assertEqual(self.accept("v1", *values).body, content, values)
        for values in ((DOCKER_IMAGE,), (DOCKER_IMAGE, DOCKER_LIST), ("text/html",), (f"{OCI_IMAGE};q=0, {DOCKER_IMAGE}",)):
            for reference in ("v1", digest):
                error = self.refused(self.accept(reference, *values), 404, "MANIFEST_UNKNOWN")
                self.assertEqual(error["detail"], {"mediaType": OCI_IMAGE})
                self.assertIn("Accept", error["message"])

    def test_docker_image(self) -> None:
        """As registry:2: sent as it is to whoever asks."""
        content = self.image("a", mediaType=DOCKER_IMAGE)
        self.push_manifest("a", "v1", content, DOCKER_IMAGE)
        for values in ((), (DOCKER_IMAGE,), (OCI_IMAGE,), ("text/html",)):
            answer = self.accept("v1", *values)
            self.assertEqual((answer.body, answer["Content-Type"]), (content, DOCKER_IMAGE))

    def test_a_list_for_a_client_without_lists(self) -> None:
        """By tag it gets the image for linux/amd64; by digest what it asked for, which must have that digest."""
        children = {}
        for architecture in ("arm64", "amd64"):
            children[architecture] = self.image("a", architecture.encode(), mediaType=DOCKER_IMAGE)
            self.push_manifest("a", digest_of(children[architecture]), children[architecture], DOCKER_IMAGE)
        entries = [
            descriptor(content, DOCKER_IMAGE, platform={"os": "linux", "architecture": name}) for name, content in children.items()
        ]
        content = index(*entries, mediaType=DOCKER_LIST)
        self.push_manifest("a", "v1", content, DOCKER_LIST)
        for values in ((), (DOCKER_LIST, DOCKER_IMAGE)):
            self.assertEqual(self.accept("v1", *values).body, content)
        answer = self.accept("v1", DOCKER_IMAGE)
        self.assertEqual((answer.body, answer["Docker-Content-Digest"]), (children["amd64"], digest_of(children["amd64"])))
        self.assertEqual(self.accept(digest_of(content), DOCKER_IMAGE).body, content)

    def test_an_index_for_a_client_without_indexes(self) -> None:
        _, image = self.push_image("a")
        content = index(descriptor(image, OCI_IMAGE, platform={"os": "linux", "architecture": "amd64"}))
        self.push_manifest("a", "v1", content, OCI_INDEX)
        self.assertEqual(self.accept("v1", OCI_IMAGE).body, image)
        self.refused(self.accept("v1", DOCKER_IMAGE), 404, "MANIFEST_UNKNOWN")
        self.refused(self.accept(digest_of(content), OCI_IMAGE), 404, "MANIFEST_UNKNOWN")


class PutTests(ManifestCase):
    def test_types(self) -> None:
        blob = {"schemaVersion": 2, "mediaType": OCI_ARTIFACT, "blobs": [descriptor(b"layer", "text/plain")], "artifactType": "x/y"}
        for media_type, content in (
            (OCI_IMAGE, self.image("a")),
            (DOCKER_IMAGE, self.image("a", mediaType=DOCKER_IMAGE)),
            (OCI_INDEX, index()),
            (DOCKER_LIST, index(mediaType=DOCKER_LIST)),
            (OCI_ARTIFACT, json.dumps(blob).encode()),
        ):
            self.created(self.put("v1", content, media_type), digest_of(content))
            self.created(self.put(digest_of(content), content, f"{media_type}; charset=utf-8"), digest_of(content))
            self.created(self.put("v2", content, None), digest_of(content))
            for reference in ("v1", "v2", digest_of(content)):
                self.table([Row("GET", f"/v2/a/manifests/{reference}", 200, content, {"Content-Type": media_type})])

    def test_chunked(self) -> None:
        content = self.image("a")
        answer = self.ask(
            "PUT", "/v2/a/manifests/v1", [("Content-Type", OCI_IMAGE), ("Transfer-Encoding", "chunked")], chunked(content[:9], content[9:])
        )
        self.created(answer, digest_of(content))

    def test_a_tag_moves(self) -> None:
        self.push_image("a", "v1")
        digest, content = self.push_image("a", "v1", layer=b"another")
        self.table([Row("GET", "/v2/a/manifests/v1", 200, content, {"Docker-Content-Digest": digest})])

    def test_references(self) -> None:
        content = self.image("a")
        for reference, status, code in (
            (ABSENT, 400, "DIGEST_INVALID"),
            ("sha256:bad", 400, "DIGEST_INVALID"),
            ("md5:00", 400, "DIGEST_INVALID"),
            (".x", 400, "TAG_INVALID"),
            ("x" * 129, 400, "TAG_INVALID"),
            ("%C3%A9", 400, "TAG_INVALID"),
        ):
            self.refused(self.put(reference, content), status, code)
        self.created(self.put("x" * 128, content), digest_of(content))

    def test_not_a_manifest(self) -> None:
        content = self.image("a")
        document = json.loads(content)
        for wrong, media_type in (
            (b"", OCI_IMAGE),
            (b"x", OCI_IMAGE),
            (b"[]", OCI_IMAGE),
            (b"{}", None),
            (b"[" * 100_000, OCI_IMAGE),
            (b'{"schemaVersion": 2}', OCI_IMAGE),
            (content, "text/html"),
            (content, OCI_INDEX),
            (content, DOCKER_IMAGE),
            (json.dumps({**document, "schemaVersion": 3}).encode(), OCI_IMAGE),
            (json.dumps({**document, "config": None}).encode(), OCI_IMAGE),
            (json.dumps({**document, "layers": [{"digest": "x"}]}).encode(), OCI_IMAGE),
            (json.dumps({**document, "manifests": [1]}).encode(), OCI_IMAGE),
            (json.dumps({**document, "mediaType": "\ud800"}).encode(), None),
            (b"\xff" + content, OCI_IMAGE),
        ):
            self.refused(self.put("v1", wrong, media_type), 400, "MANIFEST_INVALID")
        self.table([Row("GET", "/v2/a/manifests/v1", 404, "MANIFEST_UNKNOWN")])

    def test_schema_1(self) -> None:
        for content, media_type in ((b'{"schemaVersion": 1, "name": "a"}', SCHEMA_1), (b'{"schemaVersion": 1}', None), (b"{}", SCHEMA_1)):
            error = self.refused(self.put("v1", content, media_type), 400, "MANIFEST_INVALID")
            self.assertIn("schema 1", error["message"])
            self.assertIn("skopeo", error["message"])

    def test_what_is_missing(self) -> None:
        """Each digest that is not there has an error of its own."""
        parts = [b"config", b"one", b"two", b"two"]
        config, *layers = (descriptor(part, "a/b") for part in parts)
        content = json.dumps({"schemaVersion": 2, "mediaType": OCI_IMAGE, "config": config, "layers": layers}).encode()
        self.push_blob("a", b"one")
        self.push_blob("other", b"two")
        answer = self.put("v1", content)
        self.refused(answer, 400, "MANIFEST_BLOB_UNKNOWN")
        errors = json.loads(answer.body)["errors"]
        self.assertEqual([error["detail"] for error in errors], [{"digest": digest_of(part)} for part in (b"config", b"two")])
        self.assertEqual({error["code"] for error in errors}, {"MANIFEST_BLOB_UNKNOWN"})

    def test_children_that_are_missing(self) -> None:
        image = self.image("a")
        content = index(descriptor(image, OCI_IMAGE))
        error = self.refused(self.put("v1", content, OCI_INDEX), 400, "MANIFEST_BLOB_UNKNOWN")
        self.assertEqual(error["detail"], {"digest": digest_of(image)})
        self.put(digest_of(image), image)
        self.created(self.put("v1", content, OCI_INDEX), digest_of(content))

    def test_foreign_layers(self) -> None:
        kind = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
        self.push_blob("a", b"{}")

        def with_url(url: str) -> bytes:
            layer = descriptor(b"elsewhere", kind, urls=[url])
            config = descriptor(b"{}", "a/b")
            return json.dumps({"schemaVersion": 2, "mediaType": DOCKER_IMAGE, "config": config, "layers": [layer]}).encode()

        good = with_url("https://example.com/layer")
        self.refused(self.put("v1", good, DOCKER_IMAGE), 400, "MANIFEST_INVALID")
        self.build(MINIMAL + "validation: {manifests: {urls: {allow: ['^https://example\\.com/']}}}\n", self.driver)
        self.created(self.put("v1", good, DOCKER_IMAGE), digest_of(good))
        for url in ("https://evil.com/layer", "ftp://example.com/layer", "x", "https://example.com/#x", "https://[bad/"):
            self.refused(self.put("v1", with_url(url), DOCKER_IMAGE), 400, "MANIFEST_INVALID")

    def test_subject(self) -> None:
        content = self.image("a", subject=descriptor(b"not there yet", OCI_IMAGE))
        answer = self.put("v1", content)
        self.created(answer, digest_of(content))
        self.assertEqual(answer["OCI-Subject"], digest_of(b"not there yet"))
        self.assertIsNone(self.put("v2", self.image("a")).get("OCI-Subject"))


class TagsOnPushTests(ManifestCase):
    def test_tags(self) -> None:
        content = self.image("a")
        digest = digest_of(content)
        answer = self.put(f"{digest}?tag=one&tag=two&tag=one", content)
        self.created(answer, digest)
        self.assertEqual(answer.all("OCI-Tag"), ["one", "two"])
        self.table(Row("GET", f"/v2/a/manifests/{tag}", 200, content) for tag in ("one", "two"))
        self.assertEqual(self.put(digest, content).all("OCI-Tag"), [])

    def test_refused(self) -> None:
        content = self.image("a")
        digest = digest_of(content)
        many = "&".join(f"tag=t{number}" for number in range(101))
        for reference, status, code in (
            ("v1?tag=v2", 405, "UNSUPPORTED"),
            (f"{digest}?tag=.bad", 400, "TAG_INVALID"),
            (f"{digest}?tag=", 400, "TAG_INVALID"),
            (f"{digest}?tag=%ff", 400, "TAG_INVALID"),
            (f"{digest}?{many}", 414, "TAG_INVALID"),
        ):
            self.refused(self.put(reference, content), status, code)
        self.table([Row("GET", f"/v2/a/manifests/{digest}", 404, "MANIFEST_UNKNOWN")])

    def test_as_many_as_are_allowed(self) -> None:
        content = self.image("a")
        tags = [f"t{number}" for number in range(100)]
        answer = self.put(f"{digest_of(content)}?" + "&".join(f"tag={tag}" for tag in tags), content)
        self.assertEqual(answer.all("OCI-Tag"), tags)


class SizeTests(ManifestCase):
    """4 MiB, and 413 above (specification 1.1, "Pushing Manifests")."""

    def padded(self, size: int) -> bytes:
        content = self.image("a")
        return content + b" " * (size - len(content))

    def test_at_the_limit(self) -> None:
        content = self.padded(4 * MIB)
        self.created(self.put("v1", content), digest_of(content))
        self.table([Row("GET", "/v2/a/manifests/v1", 200, content)])

    def test_above_it(self) -> None:
        self.refused(self.put("v1", self.padded(4 * MIB + 1)), 413, "MANIFEST_INVALID")

    def test_before_the_body(self) -> None:
        client = self.client()
        client.send(request_bytes("PUT", "/v2/a/manifests/v1", [("Content-Length", str(4 * MIB + 1)), ("Expect", "100-continue")]))
        self.assertEqual(client.statuses, [413])
        self.assertEqual(client.answers[0]["Connection"], "close")

    def test_as_it_comes(self) -> None:
        client = self.client()
        client.send(request_bytes("PUT", "/v2/a/manifests/v1", [("Transfer-Encoding", "chunked")]))
        chunk = b"%x\r\n%s\r\n" % (MIB, b" " * MIB)
        for _ in range(4):
            client.send(chunk)
            self.assertEqual(client.statuses, [])
        client.send(chunk)
        self.assertEqual(client.statuses, [413])
        self.refused(client.answers[0], 413, "MANIFEST_INVALID")


class DeleteTests(ManifestCase):
    def test_a_tag(self) -> None:
        digest, content = self.push_image("a", "v1", "v2")
        self.table(
            [
                Row("DELETE", "/v2/a/manifests/v1", 202, b"", {"Content-Length": "0"}),
                Row("GET", "/v2/a/manifests/v1", 404, "MANIFEST_UNKNOWN"),
                Row("GET", "/v2/a/manifests/v2", 200, content),
                Row("GET", f"/v2/a/manifests/{digest}", 200, content),
                Row("DELETE", "/v2/a/manifests/v1", 404, "MANIFEST_UNKNOWN"),
            ]
        )

    def test_a_digest(self) -> None:
        """Every tag that means it goes too, and no other."""
        digest, content = self.push_image("a", "v1", "v2")
        _, other = self.push_image("a", "v3", layer=b"other")
        self.push_image("b", "v1")
        self.table(
            [
                Row("DELETE", f"/v2/a/manifests/{digest}", 202, b""),
                Row("GET", f"/v2/a/manifests/{digest}", 404, "MANIFEST_UNKNOWN"),
                Row("GET", "/v2/a/manifests/v1", 404, "MANIFEST_UNKNOWN"),
                Row("GET", "/v2/a/manifests/v2", 404, "MANIFEST_UNKNOWN"),
                Row("GET", "/v2/a/manifests/v3", 200, other),
                Row("GET", "/v2/b/manifests/v1", 200, content),
                Row("DELETE", f"/v2/a/manifests/{digest}", 404, "MANIFEST_UNKNOWN"),
                Row("GET", "/v2/a/tags/list", 200, b'{"name":"a","tags":["v3"]}\n'),
            ]
        )
