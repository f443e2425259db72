"""What becomes of cached content: eviction by last use, garbage collection, scrub, and the directory of a registry:2 that was a cache."""

from __future__ import annotations

import json
import socket
import time
from typing import ClassVar

from tests.e2e.caching import ANY, Cache
from tests.e2e.case import E2ETestCase
from tests.e2e.commands import blob_file
from tests.e2e.daemon import Peer, Regd, Server
from tests.e2e.images import OCI_CONFIG, OCI_MANIFEST, noise
from tests.e2e.origin import Image, Origin
from tests.e2e.process import wait_until
from tests.e2e.rawhttp import digest_of

MB = 1_000_000


class EvictionTest(E2ETestCase):
    origin: ClassVar[Origin]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.origin = Origin()
        cls.addClassCleanup(cls.origin.close)

    def cache(self, limits: str) -> Cache:
        cache = Cache(
            self.directory / self.id().rpartition(".")[2],
            f"  upstreams:\n    - {{prefix: hub.test, remoteurl: '{self.origin.url}'}}\n  cache: {limits}\n",
            workers=2,
        )
        self.addCleanup(cache.stop)
        cache.start()
        return cache

    def pull(self, cache: Cache, name: str, image: Image) -> None:
        self.assertEqual(cache.manifest(name, "1").body, image.manifest)
        for digest in (image.config, *image.layers):
            self.assertEqual(digest_of(cache.client.get(f"/v2/{name}/blobs/{digest}").body), digest)

    def test_the_least_recently_used_go(self) -> None:
        shared, mine = noise(3 * MB), noise(3 * MB)
        cache = self.cache("{maxsize: 10MB, interval: 2s}")
        client = cache.client
        # What is pushed here is not the cache's to take, whoever else has it.
        config = b'{"architecture":"amd64","os":"linux"}'
        described = [
            {"mediaType": kind, "size": len(content), "digest": client.push_blob("mine/app", content)}
            for kind, content in ((OCI_CONFIG, config), ("x/y", mine))
        ]
        manifest = json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": described[0], "layers": described[1:]}).encode()
        client.push_manifest("mine/app", "1", OCI_MANIFEST, manifest)

        images = [self.origin.put_image(f"image{number}", "1", [noise(3 * MB), shared]) for number in range(4)]
        images.append(self.origin.put_image("image4", "1", [mine]))
        for number, image in enumerate(images):
            self.pull(cache, f"hub.test/image{number}", image)
            time.sleep(1.1)

        # 15 MB, of which 3 are shared and 3 are pushed here.
        def size() -> int:
            return sum(blob_file(cache.data, digest).stat().st_size for digest in cache.blobs())

        wait_until(lambda: size() < 13.1 * MB, 30, f"something to go: {size()}")
        kept = cache.blobs()
        self.assertIn(digest_of(mine), kept)
        self.assertIn(digest_of(shared), kept)
        self.assertIn(images[3].layers[0], kept)
        self.assertNotIn(images[0].layers[0], kept)
        # Nothing of it is broken: it is fetched again.
        self.pull(cache, "hub.test/image0", images[0])
        self.assertEqual(cache.manifest("mine/app", "1").body, manifest)

    def test_what_is_old_goes_and_not_from_under_a_reader(self) -> None:
        image = self.origin.put_image("old", "1", [noise(20 * MB)])
        cache = self.cache("{maxage: 4s, interval: 1s}")
        self.pull(cache, "hub.test/old", image)
        with socket.socket() as reader:
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            reader.settimeout(20)
            reader.connect(("127.0.0.1", cache.port))
            reader.sendall(f"GET /v2/hub.test/old/blobs/{image.layers[0]} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            content = reader.recv(1000)
            wait_until(lambda: not cache.blobs(), 40, f"all to go: {cache.blobs()}")
            self.assertEqual((cache.tags("hub.test/old"), cache.links("hub.test/old")), (set(), set()))
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            while data := reader.recv(1 << 20):
                content += data
        self.assertEqual(digest_of(content.partition(b"\r\n\r\n")[2]), image.layers[0])
        self.pull(cache, "hub.test/old", image)

    def test_garbage_collection(self) -> None:
        image = self.origin.put_image("collected", "1", [noise(2 * MB)])
        cache = self.cache("{maxsize: 1GB}")
        self.pull(cache, "hub.test/collected", image)
        # A second image of which nobody has asked for the layers is nothing unusual.
        self.origin.put_image("partly", "1", [noise(1000)])
        cache.manifest("hub.test/partly", "1")
        for arguments in (("garbage-collect", "--grace", "0s"), ("garbage-collect", "-m", "--grace", "0s")):
            done = cache.command(*arguments)
            self.assertEqual(done.returncode, 0, f"{arguments}: {done.stdout}{done.stderr}")
        self.pull(cache, "hub.test/collected", image)
        self.assertEqual(self.origin.count("GET", image.layers[0]), 1, "what is cached is no garbage")

    def test_scrub(self) -> None:
        image = self.origin.put_image("scrubbed", "1", [noise(2 * MB)])
        cache = self.cache("{maxsize: 1GB}")
        self.pull(cache, "hub.test/scrubbed", image)
        self.origin.put_image("partly", "1", [noise(1000)])
        cache.manifest("hub.test/partly", "1")
        done = cache.command("scrub")
        self.assertEqual((done.returncode, "strange, and left alone: 0" in done.stdout + done.stderr), (0, True), done.stdout + done.stderr)

        damaged = blob_file(cache.data, image.layers[0])
        damaged.write_bytes(b"x" + damaged.read_bytes()[1:])
        self.assertEqual(cache.command("scrub").returncode, 1)
        cache.command("scrub", "--repair")
        self.pull(cache, "hub.test/scrubbed", image)
        self.assertEqual(self.origin.count("GET", image.layers[0]), 2, "it is fetched again")


class OldCacheTest(E2ETestCase):
    """registry:2's own form, on the file and the directory that Debian's docker-registry had as a cache."""

    def test_it_goes_on(self) -> None:
        origin = Origin()
        self.addCleanup(origin.close)
        had, other = (origin.put_image(f"library/{name}", "1", [noise(400_000)]) for name in ("had", "other"))
        peer = Peer(self.directory / "peer")
        configuration = peer.configuration.read_text(encoding="utf-8") + f"proxy:\n  remoteurl: {origin.url}\n  ttl: 168h\n"
        peer.configuration.write_text(configuration, encoding="utf-8")
        self.addCleanup(peer.stop)
        peer.start()
        self.pull(peer, "library/had", had)
        # It writes a blob to its store after it has sent it.
        wait_until(lambda: blob_file(peer.data, had.layers[0]).exists(), 10, "docker-registry to have kept it")
        time.sleep(0.5)
        peer.stop()

        # Its file, but for the port.
        regd = Regd(self.directory / "heir", peer.data)
        regd.configuration.write_text(configuration.replace(f":{peer.port}", f":{regd.port}"), encoding="utf-8")
        self.addCleanup(regd.stop)
        regd.start()
        origin.asked.clear()
        self.pull(regd, "library/had", had)
        self.assertEqual(origin.count("GET", "/blobs/"), 0, "it is here")
        self.pull(regd, "library/other", other)
        # The upstream's word counts for what it had from there.
        new = origin.put_image("library/had", "1", [noise(1000)])
        self.assertEqual(regd.client.get(f"/v2/library/had/manifests/{new.digest}").status, 200)
        answer = regd.client.request("POST", "/v2/library/mine/blobs/uploads/", b"")
        self.assertEqual((answer.status, answer.codes()), (405, ["UNSUPPORTED"]))
        catalog = regd.client.get("/v2/_catalog").json()
        self.assertEqual(catalog, {"repositories": ["library/had", "library/other"]})
        regd.stop()
        # And back: docker-registry goes on with what regd has cached.
        peer.start()
        origin.asked.clear()
        self.pull(peer, "library/other", other)
        self.assertEqual(origin.count("GET", "/blobs/"), 0)
        peer.stop()
        # With the upstream down docker-registry does not even start.
        origin.close()
        regd.start()
        self.pull(regd, "library/other", other)

    def pull(self, server: Server, name: str, image: Image) -> None:
        answer = server.client.get(f"/v2/{name}/manifests/1", Accept=ANY)
        self.assertEqual((answer.status, answer.body), (200, image.manifest))
        for digest in (image.config, *image.layers):
            self.assertEqual(digest_of(server.client.get(f"/v2/{name}/blobs/{digest}").body), digest)
