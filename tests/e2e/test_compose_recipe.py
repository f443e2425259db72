"""
Every command that the usual compose recipe of ``registry:2`` and nginx gives to
its readers, typed as it stands there, answered alike by regd and by
``docker-registry`` on the same image.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import ClassVar

from tests.e2e.case import E2ETestCase, Tool
from tests.e2e.daemon import Peer, Server, server
from tests.e2e.images import noise
from tests.e2e.rawhttp import digest_of

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
NAME = "library/hello-world"

# The one that the recipe shows: a configuration and one layer.
CONFIG = json.dumps({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": []}}).encode()
LAYER = noise(974, seed=1)
IMAGE = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {
            "mediaType": "application/vnd.docker.container.image.v1+json",
            "size": len(CONFIG),
            "digest": digest_of(CONFIG),
        },
        "layers": [
            {"mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "size": len(LAYER), "digest": digest_of(LAYER)}
        ],
    },
    indent=3,
).encode()

# What may differ between two servers that give the same answer: the time, the
# name of the program, and whether it says that the connection stays open,
# which HTTP/1.1 means anyway (RFC 9112, section 9.3).
INCIDENTAL = frozenset({"date", "server", "connection", "x-request-id"})

# JSON has no parameter charset (RFC 8259, section 11). registry:2 sends one all
# the same, registry:3 does not, and no client looks at it.
SAME = {"application/json; charset=utf-8": "application/json"}


@dataclass(frozen=True)
class Said:
    """
    What curl printed.

    :ivar status: The status line, when it was asked for headers.
    :ivar headers: The fields, sorted, without the incidental ones.
    :ivar body: The rest.
    """

    status: str
    headers: tuple[tuple[str, str], ...]
    body: bytes


class ComposeRecipeTest(E2ETestCase):
    curl: ClassVar[Tool]
    servers: ClassVar[tuple[Server, Server]]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.curl = Tool(cls.directory, "curl", "-s")

    def setUp(self) -> None:
        directory = self.directory / self._testMethodName
        ours, theirs = server(directory / "ours"), Peer(directory / "theirs")
        for one in (ours, theirs):
            self.addCleanup(one.stop)
            one.start()
        type(self).servers = (ours, theirs)

    def push(self) -> None:
        """Put the image into both servers."""
        for one in self.servers:
            one.client.push_blob(NAME, CONFIG)
            one.client.push_blob(NAME, LAYER)
            one.client.push_manifest(NAME, "latest", MANIFEST, IMAGE)

    def both(self, path: str, *options: str) -> tuple[Said, Said]:
        """
        :param path: Of the URL.
        :param options: Of curl.
        :return: What regd and what ``docker-registry`` answered; the status and the headers are seen too.
        """
        ours, theirs = (read(self.curl.run("-i", *options, f"http://{one.host}{path}")) for one in self.servers)
        return ours, theirs

    def assert_alike(self, path: str, *options: str) -> Said:
        """
        :param path: Of the URL.
        :param options: Of curl.
        :return: What both answered.
        """
        ours, theirs = self.both(path, *options)
        self.assertEqual(ours, theirs, f"curl {' '.join(options)} {path}")
        return ours

    def test_catalog(self) -> None:
        self.assertEqual(self.assert_alike("/v2/_catalog").body, b'{"repositories":[]}\n')
        self.push()
        self.assertEqual(self.assert_alike("/v2/_catalog").body, b'{"repositories":["library/hello-world"]}\n')

    def test_tags(self) -> None:
        self.push()
        said = self.assert_alike(f"/v2/{NAME}/tags/list", "-X", "GET")
        self.assertEqual(said.body, b'{"name":"library/hello-world","tags":["latest"]}\n')

    def test_manifest(self) -> None:
        self.push()
        said = self.assert_alike(f"/v2/{NAME}/manifests/latest", "-H", f"Accept: {MANIFEST}", "-X", "GET")
        self.assertEqual((said.status, said.body), ("HTTP/1.1 200 OK", IMAGE))
        headers = dict(said.headers)
        self.assertEqual(headers["content-type"], MANIFEST)
        self.assertEqual(headers["docker-content-digest"], digest_of(IMAGE))
        self.assertEqual(headers["etag"], f'"{digest_of(IMAGE)}"')
        self.assertEqual(headers["docker-distribution-api-version"], "registry/2.0")

    def test_blob(self) -> None:
        self.push()
        path = f"/v2/{NAME}/blobs/{digest_of(LAYER)}"
        for number, one in enumerate(self.servers):
            written = self.directory / f"hello-world-{number}.blob"
            self.curl.run("-X", "GET", f"http://{one.host}{path}", "-o", str(written))
            self.assertEqual(hashlib.sha256(written.read_bytes()).hexdigest(), digest_of(LAYER).partition(":")[2])
        self.assertEqual(self.assert_alike(path, "-X", "GET").body, LAYER)

    def test_soft_delete(self) -> None:
        self.push()
        manifest = f"/v2/{NAME}/manifests/{digest_of(IMAGE)}"
        said = self.assert_alike(manifest, "-k", "-X", "DELETE")
        self.assertEqual((said.status, said.body), ("HTTP/1.1 202 Accepted", b""))

        # The one difference that is meant: the specification has an array, and
        # clients that loop over it fall over registry:2's null.
        ours, theirs = self.both(f"/v2/{NAME}/tags/list", "-X", "GET")
        self.assertEqual((ours.status, theirs.status), ("HTTP/1.1 200 OK", "HTTP/1.1 200 OK"))
        if self.servers[0].name == "regd":
            self.assertEqual(ours.body, b'{"name":"library/hello-world","tags":[]}\n')
        self.assertEqual(theirs.body, b'{"name":"library/hello-world","tags":null}\n')

        # The image is gone; its layers and the name of its repository stay.
        self.assertEqual(self.assert_alike(f"/v2/{NAME}/blobs/{digest_of(LAYER)}").body, LAYER)
        self.assert_alike("/v2/_catalog")

    def test_what_is_not_there(self) -> None:
        self.push()
        absent = f"sha256:{'0' * 64}"
        for path, status in {
            f"/v2/{NAME}/manifests/{absent}": 404,
            f"/v2/{NAME}/manifests/other": 404,
            f"/v2/{NAME}/blobs/{absent}": 404,
            "/v2/no/such/tags/list": 404,
        }.items():
            ours, theirs = self.both(path, "-H", f"Accept: {MANIFEST}")
            self.assertEqual(ours.status, theirs.status)
            self.assertIn(f" {status} ", ours.status)
            self.assertEqual(codes(ours), codes(theirs))
        # A digest other than the image's, as a reader gets it who leaves Accept out with an old registry.
        ours, theirs = self.both(f"/v2/{NAME}/manifests/{absent}", "-X", "DELETE")
        self.assertEqual((ours.status, codes(ours)), (theirs.status, codes(theirs)))
        self.assertIn(" 404 ", ours.status)


def codes(said: Said) -> list[str]:
    """
    :param said: An answer that is an error. Its message and detail are for people, and differ.
    :return: The codes in it.
    """
    return [error["code"] for error in json.loads(said.body)["errors"]]


def read(printed: bytes) -> Said:
    """
    :param printed: What ``curl -i`` printed.
    :return: Its parts.
    """
    head, _, body = printed.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    fields = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    headers = [(name, SAME.get(value, value)) for name, value in fields]
    return Said(status, tuple(sorted(field for field in headers if field[0] not in INCIDENTAL)), body)
