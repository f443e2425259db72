"""A cache makes room by itself: what goes, what stays, and that ``docker-registry`` serves the directory afterwards."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from tests.e2e.caching import ANY, Cache
from tests.e2e.case import E2ETestCase
from tests.e2e.daemon import Peer
from tests.e2e.images import OCI_MANIFEST, noise
from tests.e2e.process import wait_until
from tests.e2e.rawhttp import Client, digest_of
from tests.e2e.test_drop_in import CONFIG, SHARED_LAYER, Content, image

OLD, NEW = noise(700_000, seed=21), noise(500_000, seed=22)
UPSTREAM = '  upstreams: [{{prefix: hub, remoteurl: "http://127.0.0.1:{port}"}}]\n'


class CacheEvictionTest(E2ETestCase):
    def setUp(self) -> None:
        directory = self.directory / self._testMethodName
        self.upstream = Peer(directory / "upstream")
        self.addCleanup(self.upstream.stop)
        self.upstream.start()
        content = Content()
        content.push_image(self.upstream.client, "old", "v1", [OLD, SHARED_LAYER], OCI_MANIFEST)
        content.push_image(self.upstream.client, "new", "v1", [NEW], OCI_MANIFEST)
        self.proxy = UPSTREAM.format(port=self.upstream.port)
        self.cache = Cache(directory / "cache", self.proxy)
        self.addCleanup(self.cache.stop)

    def pull(self, client: Client, name: str, *layers: bytes) -> None:
        answer = client.get(f"/v2/{name}/manifests/v1", Accept=ANY)
        self.assertEqual((answer.status, answer.body), (200, image(list(layers), OCI_MANIFEST)))
        for blob in (CONFIG, *layers):
            answer = client.get(f"/v2/{name}/blobs/{digest_of(blob)}")
            self.assertEqual((answer.status, digest_of(answer.body)), (200, digest_of(blob)))

    def gone(self, name: str) -> bool:
        return not (self.cache.data / "docker/registry/v2/repositories" / name).exists()

    def test_by_size(self) -> None:
        cache = self.cache
        cache.start()
        self.pull(cache.client, "hub/old", OLD, SHARED_LAYER)
        self.pull(cache.client, "hub/new", NEW)
        local = Content()
        local.push_image(cache.client, "mine/app", "v1", [SHARED_LAYER], OCI_MANIFEST)
        # Nobody has used the one for two days.
        before = time.time() - 2 * 86400
        marks = list((cache.data / "docker/registry/v2/repositories/hub/old/_cache").glob("*/*"))
        self.assertEqual(len(marks), 4)
        for mark in marks:
            os.utime(mark, (before, before))
        cache.configure(self.proxy + "  cache: {maxsize: 600kB, maxage: 24h, interval: 1s}\n")
        cache.program.send(signal.SIGHUP)
        wait_until(lambda: self.gone("hub/old"), 60, "the old image to be evicted")
        self.assertNotIn(digest_of(OLD), cache.blobs())
        self.assertIn(digest_of(SHARED_LAYER), cache.blobs())
        shown: Any = Client(cache.debug).get("/debug/vars").json()
        self.assertGreater(shown["eviction"]["runs"] + shown["eviction"]["running"], 0)
        # Both of these without their upstream.
        self.upstream.stop()
        self.pull(cache.client, "hub/new", NEW)
        self.pull(cache.client, "mine/app", SHARED_LAYER)
        cache.stop()

        theirs = Peer(cache.directory / "theirs", data=cache.data)
        self.addCleanup(theirs.stop)
        theirs.start()
        self.assertEqual(theirs.client.get("/v2/_catalog").json(), {"repositories": ["hub/new", "mine/app"]})
        self.pull(theirs.client, "hub/new", NEW)
        self.pull(theirs.client, "mine/app", SHARED_LAYER)
        self.assertEqual(theirs.client.get("/v2/hub/old/manifests/v1", Accept=ANY).status, 404)
        theirs.stop()

        # What has gone is fetched again.
        self.upstream.start()
        cache.configure(self.proxy)
        cache.start()
        self.pull(cache.client, "hub/old", OLD, SHARED_LAYER)
