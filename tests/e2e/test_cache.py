"""regd as a cache of two registries, with repositories of its own beside them: what clients see, and what the upstream is asked."""

from __future__ import annotations

import json
import time
from typing import Any, ClassVar

from tests.e2e.caching import ANY, Cache
from tests.e2e.case import E2ETestCase
from tests.e2e.images import OCI_CONFIG, OCI_INDEX, OCI_MANIFEST, OciLayout, noise
from tests.e2e.origin import Image, Manners, Origin, on, status
from tests.e2e.process import wait_until
from tests.e2e.rawhttp import Answer, digest_of

TTL = 1.5


class CacheTest(E2ETestCase):
    hub: ClassVar[Origin]
    deep: ClassVar[Origin]
    cache: ClassVar[Cache]
    serial = 0

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.hub, cls.deep = Origin(), Origin()
        cls.addClassCleanup(cls.hub.close)
        cls.addClassCleanup(cls.deep.close)
        cls.cache = Cache(
            cls.directory / "regd",
            f"  upstreams:\n    - {{prefix: hub.test, remoteurl: '{cls.hub.url}', tagttl: {TTL}s, stale: 24h}}\n"
            f"    - {{prefix: hub.test/deep, remoteurl: '{cls.deep.url}'}}\n",
            workers=2,
        )
        cls.run_for_all(cls.cache)

    def setUp(self) -> None:
        self.hub.reset()
        self.deep.reset()
        CacheTest.serial += 1
        # Each test has a repository of its own, and layers of its own.
        self.name = f"library/image{CacheTest.serial}"
        self.local = f"hub.test/{self.name}"

    def image(self, tag: str = "1", *sizes: int) -> Image:
        return self.hub.put_image(self.name, tag, [noise(size) for size in sizes or (200_000, 1000)])

    def get(self, path: str, **headers: str) -> Answer:
        return self.cache.client.get(f"/v2/{self.local}/{path}", **headers)

    def assert_error(self, answer: Answer, status: int, code: str) -> None:
        self.assertEqual((answer.status, answer.codes()), (status, [code]), answer)

    def test_a_pull_and_another(self) -> None:
        image = self.image()
        for turn in range(3):
            by_tag = self.cache.manifest(self.local, "1")
            self.assertEqual((by_tag.status, by_tag.body), (200, image.manifest))
            self.assertEqual(by_tag.headers["docker-content-digest"], image.digest)
            self.assertEqual(by_tag.headers["content-type"], OCI_MANIFEST)
            self.assertEqual(self.cache.manifest(self.local, image.digest).body, image.manifest)
            for digest in (image.config, *image.layers):
                blob = self.get(f"blobs/{digest}")
                self.assertEqual((blob.status, digest_of(blob.body)), (200, digest))
                self.assertEqual(blob.headers["docker-content-digest"], digest)
                self.assertEqual(int(blob.headers["content-length"]), len(blob.body))
                self.assertEqual(self.hub.count("GET", digest), 1, f"turn {turn}")
        self.assertEqual(self.hub.count("GET", "/manifests/"), 1)
        self.assertEqual(self.cache.tags(self.local), {"1"})
        self.assertFalse(self.cache.fetching())

    def test_head_costs_no_download(self) -> None:
        image = self.image("1", 3_000_000)
        (layer,) = image.layers
        for _ in range(3):
            answer = self.cache.client.request("HEAD", f"/v2/{self.local}/blobs/{layer}")
            self.assertEqual((answer.status, answer.headers["content-length"]), (200, "3000000"))
            self.assertEqual(answer.headers["docker-content-digest"], layer)
        self.assertEqual((self.hub.count("GET", layer), self.hub.sent(layer)), (0, 0))
        self.assertNotIn(layer, self.cache.blobs())
        manifest = self.cache.client.request("HEAD", f"/v2/{self.local}/manifests/1", Accept=ANY)
        self.assertEqual((manifest.status, manifest.headers["docker-content-digest"]), (200, image.digest))
        self.assertEqual(int(manifest.headers["content-length"]), len(image.manifest))
        self.assertEqual(self.hub.sent("/blobs/"), 0)
        missing = self.cache.client.request("HEAD", f"/v2/{self.local}/blobs/{digest_of(b'nowhere')}")
        self.assertEqual(missing.status, 404)

    def test_a_range_costs_no_more_than_itself(self) -> None:
        image = self.image("1", 5_000_000)
        (layer,) = image.layers
        content = self.hub.blobs[layer]
        for given, start, end in (
            ("bytes=0-99", 0, 100),
            ("bytes=1000000-1000999", 1_000_000, 1_001_000),
            ("bytes=-500", 4_999_500, 5_000_000),
            ("bytes=4999000-", 4_999_000, 5_000_000),
        ):
            answer = self.get(f"blobs/{layer}", Range=given)
            self.assertEqual((answer.status, answer.body), (206, content[start:end]), given)
            self.assertEqual(answer.headers["content-range"], f"bytes {start}-{end - 1}/5000000")
        beyond = self.get(f"blobs/{layer}", Range="bytes=5000000-")
        self.assertEqual((beyond.status, beyond.headers["content-range"]), (416, "bytes */5000000"))
        self.assertEqual(self.hub.sent(layer), 100 + 1000 + 500 + 1000)
        self.assertNotIn(layer, self.cache.blobs())
        # Once it is here, nothing more is asked for.
        self.assertEqual(self.get(f"blobs/{layer}").body, content)
        asked = len(self.hub.asked)
        self.assertEqual(self.get(f"blobs/{layer}", Range="bytes=7-8").body, content[7:9])
        self.assertEqual(len(self.hub.asked), asked)

    def test_a_range_of_an_upstream_that_does_not_know_ranges(self) -> None:
        (layer,) = self.image("1", 300_000).layers
        self.hub.manners = Manners(deaf=True)
        answer = self.get(f"blobs/{layer}", Range="bytes=100-199")
        self.assertEqual((answer.status, answer.body), (206, self.hub.blobs[layer][100:200]))

    def test_a_tag_is_asked_for_again_after_its_time(self) -> None:
        image = self.image()
        self.assertEqual(self.cache.manifest(self.local, "1").status, 200)
        self.hub.asked.clear()
        self.cache.manifest(self.local, "1")
        self.assertEqual(self.hub.asked, [], "within its time nobody asks")
        time.sleep(TTL + 0.1)
        self.assertEqual(self.cache.manifest(self.local, "1").body, image.manifest)
        (asked,) = self.hub.asked
        self.assertEqual((asked.method, asked.fields.get("if-none-match")), ("HEAD", f'"{image.digest}"'))
        self.assertEqual(asked.sent, 0)

    def test_a_tag_moves(self) -> None:
        old = self.image()
        self.assertEqual(self.cache.manifest(self.local, "1").headers["docker-content-digest"], old.digest)
        new = self.image()
        self.assertEqual(self.cache.manifest(self.local, "1").headers["docker-content-digest"], old.digest)
        time.sleep(TTL + 0.1)
        self.assertEqual(self.cache.manifest(self.local, "1").headers["docker-content-digest"], new.digest)
        # Whoever has begun to pull the old one can go on.
        self.assertEqual(self.cache.manifest(self.local, old.digest).status, 200)

    def test_a_tag_goes(self) -> None:
        image = self.image()
        self.assertEqual(self.cache.manifest(self.local, "1").status, 200)
        del self.hub.manifests[self.name, "1"]
        time.sleep(TTL + 0.1)
        self.assert_error(self.cache.manifest(self.local, "1"), 404, "MANIFEST_UNKNOWN")
        self.assertEqual(self.cache.tags(self.local), set())
        self.assertEqual(self.cache.manifest(self.local, image.digest).status, 200)

    def test_a_tag_of_an_upstream_that_wants_rest(self) -> None:
        image = self.image()
        self.cache.manifest(self.local, "1")
        self.hub.asked.clear()
        self.hub.fault = on("/manifests/", status("429 Too Many Requests", "Retry-After: 4\r\n"))
        time.sleep(TTL + 0.1)
        for _ in range(10):
            self.assertEqual(self.cache.manifest(self.local, "1").body, image.manifest)
        # Each worker may have had to hear it.
        self.assertLessEqual(len(self.hub.asked), 2, "it said when to come back")
        fresh = self.cache.manifest(self.local, "other")
        self.assertIn((fresh.status, fresh.codes()), [(429, ["TOOMANYREQUESTS"])], fresh)
        self.assertLessEqual(int(fresh.headers["retry-after"]), 4)
        self.hub.fault = None
        time.sleep(4)
        self.assertEqual(self.cache.manifest(self.local, "1").body, image.manifest)
        new = self.image()
        time.sleep(TTL + 0.1)
        self.assertEqual(self.cache.manifest(self.local, "1").headers["docker-content-digest"], new.digest)

    def test_a_tag_of_an_upstream_that_is_slow(self) -> None:
        image = self.image()
        self.cache.manifest(self.local, "1")
        time.sleep(TTL + 0.1)
        self.hub.manners = Manners(delay=8)
        begun = time.monotonic()
        self.assertEqual(self.cache.manifest(self.local, "1").body, image.manifest)
        self.assertLess(time.monotonic() - begun, 4.5)

    def test_writing_below_a_prefix(self) -> None:
        image = self.image()
        self.cache.manifest(self.local, "1")
        self.get(f"blobs/{image.config}")
        for method, path in (
            ("POST", "blobs/uploads/"),
            ("POST", f"blobs/uploads/?mount={image.config}&from=x/y"),
            ("PATCH", "blobs/uploads/0f5fd9ad-6ec8-4a2c-8d2c-6ee0d0b1a3b1"),
            ("PUT", "manifests/1"),
            ("PUT", f"manifests/{image.digest}"),
            ("DELETE", "manifests/1"),
            ("DELETE", f"manifests/{image.digest}"),
            ("DELETE", f"blobs/{image.config}"),
        ):
            answer = self.cache.client.request(method, f"/v2/{self.local}/{path}", b"{}", Content_Type=OCI_MANIFEST)
            self.assert_error(answer, 405, "UNSUPPORTED")
            self.assertEqual(answer.headers["allow"].replace(" ", "").split(","), ["GET", "HEAD"], path)
            self.assertIn(self.hub.url, answer.body.decode(), "it says what it is a cache of")
        self.assertEqual(self.cache.manifest(self.local, "1").status, 200)
        self.assertFalse([asked for asked in self.hub.asked if asked.method not in {"GET", "HEAD"}])

    def test_local_repositories_beside_it(self) -> None:
        client = self.cache.client
        layer, config = noise(1000), b'{"architecture":"amd64","os":"linux"}'
        for name in ("mine/app", "hub.testing/app", "hub"):
            described = [
                {"mediaType": "x/y", "size": len(content), "digest": client.push_blob(name, content)} for content in (config, layer)
            ]
            manifest = json.dumps(
                {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": described[0] | {"mediaType": OCI_CONFIG}, "layers": described[1:]}
            ).encode()
            client.push_manifest(name, "1", OCI_MANIFEST, manifest)
            self.assertEqual(self.cache.manifest(name, "1").body, manifest)
        self.assertEqual((self.hub.asked, self.deep.asked), ([], []))
        # What is here, and nobody has there, is not there.
        self.assert_error(self.get(f"blobs/{digest_of(layer)}"), 404, "BLOB_UNKNOWN")
        self.image()
        self.cache.manifest(self.local, "1")
        catalog: Any = client.get("/v2/_catalog").json()
        self.assertLessEqual({"mine/app", "hub.testing/app", "hub", self.local}, set(catalog["repositories"]))

    def test_bytes_that_are_here_already(self) -> None:
        content = noise(400_000)
        self.cache.client.push_blob("mine/app", content)
        image = self.hub.put_image(self.name, "1", [content])
        self.assertEqual(self.get(f"blobs/{image.layers[0]}").body, content)
        self.assertEqual((self.hub.count("GET", image.layers[0]), self.hub.sent(image.layers[0])), (0, 0))
        self.assertEqual(self.hub.count("HEAD", image.layers[0]), 1)

    def test_two_upstreams_the_longest_prefix_wins(self) -> None:
        image, other = self.image(), self.deep.put_image("app", "1", [noise(1000)])
        self.hub.put_image("deep/app", "1", [noise(10)])
        self.hub.put_image("deeper/app", "1", [noise(10)])
        self.assertEqual(self.cache.manifest(self.local, "1").headers["docker-content-digest"], image.digest)
        self.assertEqual(self.cache.manifest("hub.test/deep/app", "1").headers["docker-content-digest"], other.digest)
        self.assertEqual(self.hub.count("GET", "deep/app"), 0)
        # Whole components of a name count.
        self.assertEqual(self.cache.manifest("hub.test/deeper/app", "1").status, 200)
        self.assertEqual(self.hub.count("GET", "deeper/app"), 1)
        self.assertEqual(self.cache.client.get(f"/v2/hub.test/deep/app/blobs/{other.layers[0]}").status, 200)

    def test_ns_as_containerd_asks(self) -> None:
        image = self.image()
        answer = self.cache.manifest(self.name, "1?ns=hub.test")
        self.assertEqual((answer.status, answer.headers["docker-content-digest"]), (200, image.digest))
        self.assertEqual(answer.headers["oci-namespace"], "hub.test")
        blob = self.cache.client.get(f"/v2/{self.name}/blobs/{image.layers[0]}?ns=hub.test")
        self.assertEqual((digest_of(blob.body), blob.headers["oci-namespace"]), (image.layers[0], "hub.test"))
        # By the upstream's own address, too.
        authority = self.hub.url.removeprefix("http://")
        self.assertEqual(self.cache.manifest(self.name, f"1?ns={authority}").headers["oci-namespace"], authority)
        self.assertEqual(self.cache.tags(self.local), {"1"}, "it is kept under the name with the prefix")
        # One that is nobody's says nothing: the name is local.
        unknown = self.cache.manifest(self.name, "1?ns=elsewhere.test")
        self.assertEqual(unknown.status, 404)
        self.assertNotIn("oci-namespace", unknown.headers)

    def test_lists(self) -> None:
        for tag in ("b", "a", "c"):
            self.image(tag)
        listed: Any = self.get("tags/list").json()
        self.assertEqual(listed, {"name": self.local, "tags": ["a", "b", "c"]})
        self.cache.manifest(self.local, "b")
        self.hub.fault = on("", status("503 Service Unavailable"))
        # Where the upstream has no answer, what is here.
        self.assertEqual(self.get("tags/list").json(), {"name": self.local, "tags": ["b"]})

    def test_an_index(self) -> None:
        layout = OciLayout(self.directory / "index")
        root = layout.add_index([layout.add_image("amd64", [noise(2000)]), layout.add_image("arm64", [noise(2000)])])
        self.hub.put_layout(layout, self.name, "1", root)
        answer = self.cache.manifest(self.local, "1")
        self.assertEqual((answer.status, answer.headers["content-type"]), (200, OCI_INDEX))
        # A platform that nobody asks for is not fetched.
        amd64, arm64 = (entry["digest"] for entry in json.loads(answer.body)["manifests"])
        self.assertEqual(self.cache.manifest(self.local, amd64).status, 200)
        self.assertEqual(self.hub.count("GET", arm64), 0)

    def test_what_is_nowhere(self) -> None:
        self.image()
        self.assert_error(self.cache.manifest(self.local, "none"), 404, "MANIFEST_UNKNOWN")
        self.assert_error(self.cache.manifest(self.local, digest_of(b"none")), 404, "MANIFEST_UNKNOWN")
        self.assert_error(self.get(f"blobs/{digest_of(b'none')}"), 404, "BLOB_UNKNOWN")
        self.assertEqual(self.cache.manifest("hub.test/no/such", "1").status, 404)
        self.assertEqual((self.cache.tags(self.local), self.cache.tags("hub.test/no/such")), (set(), set()))

    def test_conditions(self) -> None:
        image = self.image()
        first = self.cache.manifest(self.local, "1")
        again = self.cache.manifest(self.local, "1", If_None_Match=first.headers["etag"])
        self.assertEqual((again.status, again.body), (304, b""))
        blob = self.get(f"blobs/{image.layers[0]}")
        self.assertEqual(self.get(f"blobs/{image.layers[0]}", If_None_Match=blob.headers["etag"]).status, 304)


class DownTest(E2ETestCase):
    """The upstream is not there when regd starts, and comes later."""

    def test_it_serves_what_it_has(self) -> None:
        origin = Origin()
        self.addCleanup(origin.close)
        image = origin.put_image("library/app", "1", [noise(300_000)])
        layer = image.layers[0]
        timeouts = "timeouts: {connect: 1s, read: 1s}"
        section = f"  upstreams:\n    - {{prefix: hub.test, remoteurl: '{origin.url}', tagttl: 500ms, stale: STALE, {timeouts}}}\n"
        cache = Cache(self.directory / "regd", section.replace("STALE", "24h"), workers=2)
        self.addCleanup(cache.stop)
        cache.start()
        name = "hub.test/library/app"
        cache.manifest(name, "1")
        self.assertEqual(cache.client.get(f"/v2/{name}/blobs/{layer}").status, 200)
        cache.stop()
        origin.close()

        cache.start()
        time.sleep(0.6)
        for reference in ("1", image.digest):
            begun = time.monotonic()
            self.assertEqual(cache.manifest(name, reference).body, image.manifest)
            self.assertLess(time.monotonic() - begun, 3)
        self.assertEqual(digest_of(cache.client.get(f"/v2/{name}/blobs/{layer}").body), layer)
        self.assertEqual(cache.client.get(f"/v2/{name}/tags/list").json(), {"name": name, "tags": ["1"]})
        for path in (f"blobs/{image.config}", "manifests/2", f"manifests/{digest_of(b'other')}"):
            answer = cache.client.get(f"/v2/{name}/{path}", Accept=ANY)
            self.assertEqual(answer.status, 502, answer)
            self.assertTrue(answer.codes())
        wait_until(lambda: "onnection" in cache.program.output(), 5, "the log to say why")
        # What is pushed here does not need it.
        self.assertTrue(cache.client.push_blob("mine/app", b"content"))

        # Beyond its time a tag is not served; a digest is.
        cache.stop()
        cache.configure(section.replace("STALE", "1s"))
        time.sleep(1)
        cache.start()
        self.assertEqual(cache.manifest(name, "1").status, 502)
        self.assertEqual(cache.manifest(name, image.digest).status, 200)
