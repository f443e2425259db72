"""Upstreams that ask who is there, and CDNs that must not be told: credentials go where they belong, and into no log."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any, ClassVar

from tests.e2e.authority import BASIC, PASSWORD, USERNAME, TokenServer, with_htpasswd, with_tokens
from tests.e2e.caching import Cache
from tests.e2e.case import E2ETestCase
from tests.e2e.crowd import Crowd
from tests.e2e.daemon import Peer
from tests.e2e.images import OCI_CONFIG, OCI_MANIFEST, noise
from tests.e2e.origin import Image, Manners, Origin
from tests.e2e.process import wait_until
from tests.e2e.rawhttp import Client, digest_of

CREDENTIALS = f"username: {USERNAME}, password: {PASSWORD}"


def basic_guard(exchange: Any) -> str:
    return "" if exchange.all("authorization") == [BASIC] else 'Basic realm="somewhere"'


class CacheAuthTest(E2ETestCase):
    """At the log's level debug, where all is said that ever is."""

    tokens: ClassVar[TokenServer]
    image: ClassVar[bytes]
    layer: ClassVar[str]
    data: ClassVar[Path]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.tokens = TokenServer(cls.directory / "tokens")
        cls.addClassCleanup(cls.tokens.close)
        # What is pushed to a registry that asks nobody is served by one that does.
        peer = Peer(cls.directory / "open")
        cls.addClassCleanup(peer.stop)
        peer.start()
        cls.data = peer.data
        cls.image, cls.layer = push_image(peer.client)
        peer.stop()

    def setUp(self) -> None:
        self.tokens.asked.clear()
        self.tokens.lifetime, self.tokens.anonymous = 300, False

    def cache(self, url: str, more: str = CREDENTIALS, workers: int = 1) -> Cache:
        directory = self.directory / self.id().rpartition(".")[2]
        while directory.exists():
            directory = directory.with_name(f"{directory.name}+")
        cache = Cache(
            directory,
            f"  upstreams:\n    - {{prefix: hub.test, remoteurl: '{url}', timeouts: {{connect: 2s, read: 2s}}, {more}}}\n",
            workers=workers,
            level="debug",
        )
        self.addCleanup(cache.stop)
        cache.start()
        self.addCleanup(self.assert_silent, cache)
        return cache

    def assert_silent(self, cache: Cache) -> None:
        """Nothing that regd says has a secret in it."""
        output = cache.program.output()
        if cache.program.is_alive():
            output += str(cache.client.get("/v2/")) + str(Client(cache.debug).get("/debug/vars"))
        done = cache.command("check-config")
        output += done.stdout + done.stderr
        encoded = BASIC.removeprefix("Basic ")
        for secret in (PASSWORD, USERNAME, encoded, encoded.rstrip("="), base64.b64encode(PASSWORD.encode()).decode(), "canary-of-the-cdn"):
            self.assertNotIn(secret, output)
        for token in self.tokens.issued:
            self.assertNotIn(token, output)
            self.assertNotIn(token.rpartition(".")[2], output)

    def assert_served(self, cache: Cache) -> None:
        """An image, with its layer."""
        answer = cache.manifest("hub.test/library/app", "1")
        self.assertEqual((answer.status, answer.body), (200, self.image), answer)
        blob = cache.client.get(f"/v2/hub.test/library/app/blobs/{self.layer}")
        self.assertEqual((blob.status, digest_of(blob.body)), (200, self.layer))

    def assert_denied(self, cache: Cache) -> None:
        for path in ("manifests/1", f"blobs/{self.layer}"):
            answer = cache.client.get(f"/v2/hub.test/library/app/{path}")
            self.assertEqual((answer.status, answer.codes()), (403, ["DENIED"]), answer)
            self.assertIn("127.0.0.1", answer.body.decode(), "it says whose no it is")
            self.assertNotIn("www-authenticate", answer.headers, "the client can do nothing about it")
        self.assertEqual(cache.blobs(), set())

    def test_docker_registry_with_htpasswd(self) -> None:
        peer = with_htpasswd(self.directory / "htpasswd", self.data)
        self.addCleanup(peer.stop)
        peer.start()
        url = f"http://127.0.0.1:{peer.port}"
        self.assert_served(self.cache(url))
        self.assert_denied(self.cache(url, f"username: {USERNAME}, password: wrong"))
        self.assert_denied(self.cache(url, ""))

    def test_docker_registry_with_tokens(self) -> None:
        peer = with_tokens(self.directory / "token-registry", self.data, self.tokens)
        self.addCleanup(peer.stop)
        peer.start()
        url = f"http://127.0.0.1:{peer.port}"
        self.assert_served(self.cache(url))
        self.assertEqual({authorization for _, authorization in self.tokens.asked}, {BASIC})
        self.assertEqual(len(self.tokens.asked), 1, "a token is good for a repository until it expires")
        self.assert_denied(self.cache(url, ""))
        self.assert_denied(self.cache(url, f"username: {USERNAME}, password: wrong"))
        self.tokens.anonymous = True
        self.assert_served(self.cache(url, ""))

    def origin(self) -> tuple[Origin, Image]:
        origin = Origin()
        self.addCleanup(origin.close)
        return origin, origin.put_image("library/app", "1", [noise(100_000) for _ in range(20)])

    def test_one_token_for_all(self) -> None:
        origin, image = self.origin()
        origin.guard = self.tokens.challenge
        cache = self.cache(origin.url)
        crowds = [Crowd(cache.port, f"/v2/hub.test/library/app/blobs/{layer}", 2) for layer in image.layers]
        for layer, crowd in zip(image.layers, crowds, strict=True):
            self.assertEqual({(one.status, one.digest) for one in crowd.pulled()}, {(200, layer)})
        self.assertEqual(len(self.tokens.asked), 1)

    def test_a_token_that_has_expired(self) -> None:
        origin, image = self.origin()
        origin.guard = self.tokens.challenge
        cache = self.cache(origin.url)
        first, second, third = image.layers[:3]
        self.assertEqual(cache.client.get(f"/v2/hub.test/library/app/blobs/{first}").status, 200)
        # The upstream has forgotten it before its time.
        self.tokens.issued.clear()
        self.assertEqual(cache.client.get(f"/v2/hub.test/library/app/blobs/{second}").status, 200)
        self.assertEqual(cache.client.get(f"/v2/hub.test/library/app/blobs/{third}").status, 200)
        self.assertEqual(len(self.tokens.asked), 2)

    def test_a_realm_of_somebody_else(self) -> None:
        origin, image = self.origin()
        realm = self.tokens.realm.replace("127.0.0.1", "localhost")
        origin.guard = lambda exchange: self.tokens.challenge(exchange).replace(self.tokens.realm, realm)
        self.tokens.anonymous = True
        cache = self.cache(origin.url)
        self.assertEqual(cache.manifest("hub.test/library/app", "1").body, image.manifest)
        self.assertEqual([authorization for _, authorization in self.tokens.asked], [""], "credentials do not go there")
        wait_until(lambda: "tokenhosts" in cache.program.output(), 5, "the log to say what to do")
        self.tokens.asked.clear()
        told = self.cache(origin.url, f"{CREDENTIALS}, tokenhosts: [localhost]")
        self.assertEqual(told.manifest("hub.test/library/app", "1").body, image.manifest)
        self.assertEqual([authorization for _, authorization in self.tokens.asked], [BASIC])

    def test_a_cdn_is_told_nothing(self) -> None:
        origin, image = self.origin()
        cdn = Origin()
        self.addCleanup(cdn.close)
        cdn.blobs = origin.blobs
        for guard in (basic_guard, self.tokens.challenge):
            origin.guard = guard
            origin.manners = Manners(cdn=cdn.url)
            cdn.asked.clear()
            cache = self.cache(origin.url)
            for layer in image.layers[:3]:
                blob = cache.client.get(f"/v2/hub.test/library/app/blobs/{layer}")
                self.assertEqual((blob.status, digest_of(blob.body)), (200, layer))
            part = cache.client.get(f"/v2/hub.test/library/app/blobs/{image.layers[3]}", Range="bytes=5-9")
            self.assertEqual((part.status, part.body), (206, origin.blobs[image.layers[3]][5:10]))
            self.assertEqual(len(cdn.asked), 4)
            for asked in cdn.asked:
                self.assertNotIn("authorization", asked.fields)
                self.assertIn("X-Signature=canary-of-the-cdn", asked.path)
            self.assertTrue(all("authorization" in asked.fields for asked in origin.asked if asked.status != 401))

    def test_what_a_client_says_of_itself_goes_nowhere(self) -> None:
        origin, image = self.origin()
        cache = self.cache(origin.url, "")
        cache.client.get("/v2/hub.test/library/app/manifests/1", Authorization="Basic Y2xpZW50OmNhbmFyeQ==", Cookie="canary=1")
        cache.client.get(f"/v2/hub.test/library/app/blobs/{image.layers[0]}", Authorization="Basic Y2xpZW50OmNhbmFyeQ==")
        for asked in origin.asked:
            self.assertFalse({"authorization", "cookie", "x-forwarded-for"} & set(asked.fields), asked)


def push_image(client: Client) -> tuple[bytes, str]:
    """
    :return: a manifest with the tag 1 in ``library/app``, and its layer.
    """
    contents = {OCI_CONFIG: b'{"architecture":"amd64","os":"linux"}', "application/vnd.oci.image.layer.v1.tar+gzip": noise(500_000)}
    config, layer = (
        {"mediaType": kind, "size": len(content), "digest": client.push_blob("library/app", content)} for kind, content in contents.items()
    )
    manifest = json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [layer]}).encode()
    client.push_manifest("library/app", "1", OCI_MANIFEST, manifest)
    return manifest, str(layer["digest"])
