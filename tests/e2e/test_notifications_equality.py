"""What endpoints are told is what Debian's ``docker-registry`` tells them: the same requests to both, and every field of every envelope."""

import json
import re
import time
from contextlib import suppress
from typing import Any, ClassVar

from tests.e2e.case import E2ETestCase
from tests.e2e.daemon import Peer, Regd, Server
from tests.e2e.images import OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST
from tests.e2e.process import need, wait_until
from tests.e2e.rawhttp import digest_of
from tests.e2e.receiver import Delivered, Receiver

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
OCTETS = "application/octet-stream"

CONFIG = b'{"architecture":"amd64","os":"linux"}'
LAYER = b"a layer" * 100

ACCEPT = f"{OCI_MANIFEST}, {OCI_INDEX}, {DOCKER_MANIFEST}, {DOCKER_LIST}"

#: What differs from one run to the next, and what it is replaced by.
CHANGING = (
    (re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"), "UUID"),
    (re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}(\.[0-9]{1,9})?Z"), "TIME"),
    (re.compile(r":[0-9]{4,5}\b"), ":PORT"),
)


def descriptor(media_type: str, content: bytes) -> dict[str, Any]:
    """
    :return: what stands for it in a manifest.
    """
    return {"mediaType": media_type, "size": len(content), "digest": digest_of(content)}


def image(media_type: str, config: str, layer: str) -> bytes:
    """
    :return: a manifest of one layer.
    """
    parts = {"config": descriptor(config, CONFIG), "layers": [descriptor(layer, LAYER)]}
    return json.dumps({"schemaVersion": 2, "mediaType": media_type, **parts}).encode()


def index(media_type: str, of: str, content: bytes) -> bytes:
    """
    :return: an index of one manifest.
    """
    one = {**descriptor(of, content), "platform": {"architecture": "amd64", "os": "linux"}}
    return json.dumps({"schemaVersion": 2, "mediaType": media_type, "manifests": [one]}).encode()


OCI_IMAGE = image(OCI_MANIFEST, OCI_CONFIG, OCI_LAYER)
DOCKER_IMAGE = image(DOCKER_MANIFEST, DOCKER_CONFIG, DOCKER_LAYER)


def plain(text: bytes) -> str:
    """
    An envelope as it was sent, without what differs each time.

    :return: the same, byte for byte, of two that say the same.
    """
    found = text.decode("ascii")
    # An id of a request is a UUID there, and a number of a process here.
    found = re.sub(r'("request": \{\s*"id": )"[^"]+"', r'\1"UUID"', found)
    for pattern, instead in CHANGING:
        found = pattern.sub(instead, found)
    return found


class EqualityTest(E2ETestCase):
    maxDiff = None
    servers: ClassVar[list[Server]]
    receivers: ClassVar[list[Receiver]]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        need("docker-registry")
        cls.servers, cls.receivers = [], []
        for made in (Regd, Peer):
            receiver = Receiver()
            cls.addClassCleanup(receiver.stop)
            receiver.start()
            server = made(cls.directory / made.name)
            cls.addClassCleanup(server.stop)
            endpoint = {
                "name": "hook",
                "url": receiver.url,
                "headers": {"Authorization": ["Bearer 0123"], "X-Twice": ["one", "two"]},
                "timeout": "5s",
                "threshold": 5,
                "backoff": "100ms",
                "ignoredmediatypes": ["application/x-ignored"],
                "ignore": {"mediatypes": [DOCKER_LIST], "actions": []},
            }
            notifications = {"events": {"includereferences": True}, "endpoints": [endpoint]}
            with server.configuration.open("a", encoding="utf-8") as file:
                file.write(f"notifications: {json.dumps(notifications)}\n")
            server.start()
            cls.servers.append(server)
            cls.receivers.append(receiver)

    def told(self, *requests: tuple[Any, ...], count: int) -> tuple[list[Delivered], list[Delivered]]:
        """
        Have both asked the same.

        :param requests: method, path, body and media type, the last two where there are any.
        :param count: how many events are to come of that.
        :return: what each of them tells, regd first.
        """
        found = []
        for server, receiver in zip(self.servers, self.receivers, strict=True):
            before = len(receiver.requests)
            for method, path, *more in requests:
                headers = {"Content_Type": more[1]} if len(more) > 1 else {}
                body = more[0] if more else None
                answer = server.client.request(method, f"/v2/{path}", body, Accept=ACCEPT, User_Agent="a client/1.0", **headers)
                self.assertLess(answer.status, 300, (server.name, method, path, answer))
            found.append(self.arrived(receiver, before, count))
        return found[0], found[1]

    def arrived(self, receiver: Receiver, before: int, count: int) -> list[Delivered]:
        """
        :return: so many events, and those that come although they should not.
        """
        with suppress(TimeoutError):
            wait_until(lambda: len(receiver.requests) >= before + count, 5, "events")
        time.sleep(0.1 if count else 0.5)
        return receiver.requests[before:]

    def push_blobs(self, name: str) -> None:
        """Configuration and layer, by one request and by three."""
        for server in self.servers:
            server.client.push_blob(name, CONFIG)
            location = server.client.append(server.client.begin_upload(name), LAYER)
            server.client.commit(location, digest_of(LAYER))

    def same(self, *requests: tuple[Any, ...], count: int) -> list[Delivered]:
        """
        Both tell the same when they are asked this.

        :param count: how many events.
        :return: what regd tells.
        """
        ours, theirs = self.told(*requests, count=count)
        self.assertEqual([plain(one.text) for one in ours], [plain(one.text) for one in theirs])
        self.assertEqual(len(ours), count)
        return ours

    def test_push_pull_and_delete(self) -> None:
        before = [len(receiver.requests) for receiver in self.receivers]
        self.push_blobs("a/b")
        for start, box in zip(before, self.receivers, strict=True):
            self.arrived(box, start, 2)
        digest = digest_of(LAYER)
        for media_type, content in ((OCI_MANIFEST, OCI_IMAGE), (DOCKER_MANIFEST, DOCKER_IMAGE)):
            with self.subTest(media_type):
                by_digest = f"a/b/manifests/{digest_of(content)}"
                self.same(("PUT", "a/b/manifests/latest", content, media_type), count=1)
                self.same(("PUT", by_digest, content, media_type), count=1)
                self.same(("GET", "a/b/manifests/latest"), count=1)
                self.same(("HEAD", "a/b/manifests/latest"), count=1)
                self.same(("GET", by_digest), count=1)
        self.same(("PUT", "a/b/manifests/index", index(OCI_INDEX, OCI_MANIFEST, OCI_IMAGE), OCI_INDEX), count=1)
        self.same(("GET", "a/b/manifests/index"), count=1)
        # Ignored.
        self.same(("PUT", "a/b/manifests/list", index(DOCKER_LIST, DOCKER_MANIFEST, DOCKER_IMAGE), DOCKER_LIST), count=0)
        self.same(("GET", f"a/b/blobs/{digest}"), count=1)
        self.same(("HEAD", f"a/b/blobs/{digest}"), count=1)
        self.same(("POST", f"c/d/blobs/uploads/?mount={digest}&from=a/b", b""), count=1)
        self.same(("DELETE", f"a/b/manifests/{digest_of(OCI_IMAGE)}"), count=1)
        self.same(("DELETE", f"a/b/blobs/{digest}"), count=1)

    def test_uploads(self) -> None:
        """Of both ways to push a blob."""
        before = [len(receiver.requests) for receiver in self.receivers]
        self.push_blobs("e/f")
        ours, theirs = (self.arrived(box, start, 2) for start, box in zip(before, self.receivers, strict=True))
        self.assertEqual([plain(one.text) for one in ours], [plain(one.text) for one in theirs])
        self.assertEqual(len(ours), 2)

    def test_requests(self) -> None:
        """The requests themselves, and the forms of what differs each time."""
        before = [len(receiver.requests) for receiver in self.receivers]
        self.push_blobs("g/h")
        for start, box in zip(before, self.receivers, strict=True):
            self.arrived(box, start, 2)
        ours, theirs = self.told(("GET", f"g/h/blobs/{digest_of(CONFIG)}"), count=1)
        for one in (ours[-1], theirs[-1]):
            self.assertEqual(one.path, "/hook?a=b")
            self.assertEqual(one.headers["content-type"], "application/vnd.docker.distribution.events.v1+json")
            self.assertEqual(one.headers["authorization"], "Bearer 0123")
            self.assertEqual(one.event["source"]["addr"].rpartition(":")[2], str(self.server_of(one).port))
            self.assertRegex(one.event["request"]["addr"], r"^127\.0\.0\.1:[0-9]+$")
        # Both close the connection then; only HTTP says so here.
        self.assertEqual(set(ours[-1].headers) - set(theirs[-1].headers), {"connection"})

    def server_of(self, one: Delivered) -> Server:
        """Who has told it."""
        return self.servers[0 if one in self.receivers[0].requests else 1]
