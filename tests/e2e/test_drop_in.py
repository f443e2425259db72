"""
One data directory, two programs: what ``docker-registry`` has written serves in
regd, and what regd has written serves in ``docker-registry``.
"""

import json
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit

from tests.e2e.case import E2ETestCase
from tests.e2e.daemon import Peer, Server, server
from tests.e2e.images import OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST, noise
from tests.e2e.process import wait_until
from tests.e2e.rawhttp import Client, digest_of

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
ANY = f"{OCI_INDEX}, {OCI_MANIFEST}, {DOCKER_LIST}, {DOCKER_MANIFEST}"

SHARED_LAYER = noise(300_000, seed=1)
CONFIG = b'{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":[]}}'


def image(layers: list[bytes], media_type: str) -> bytes:
    """
    :param layers: The layers.
    :param media_type: Of the manifest: OCI's or Docker's.
    :return: The manifest of an image with :data:`CONFIG` and those layers.
    """
    config_type, layer_type = (OCI_CONFIG, OCI_LAYER) if media_type == OCI_MANIFEST else (DOCKER_CONFIG, DOCKER_LAYER)
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": {"mediaType": config_type, "size": len(CONFIG), "digest": digest_of(CONFIG)},
            "layers": [{"mediaType": layer_type, "size": len(layer), "digest": digest_of(layer)} for layer in layers],
        }
    ).encode()


def index(children: list[bytes], media_type: str, child_type: str) -> bytes:
    """
    :param children: Manifests.
    :param media_type: Of the index: OCI's or Docker's.
    :param child_type: Of the manifests.
    :return: An index of them.
    """
    entries = [
        {
            "mediaType": child_type,
            "size": len(child),
            "digest": digest_of(child),
            "platform": {"os": "linux", "architecture": architecture},
        }
        for child, architecture in zip(children, ("amd64", "arm64"), strict=True)
    ]
    return json.dumps({"schemaVersion": 2, "mediaType": media_type, "manifests": entries}).encode()


class Content:
    """What a test has pushed, and still expects to be there."""

    def __init__(self) -> None:
        self.tags: dict[str, dict[str, str]] = {}
        self.manifests: dict[tuple[str, str], tuple[str, bytes]] = {}
        self.blobs: dict[tuple[str, str], bytes] = {}

    def push_image(self, client: Client, name: str, tag: str, layers: list[bytes], media_type: str) -> bytes:
        """
        :param client: The server to push to.
        :param name: The repository.
        :param tag: The tag, or nothing to push by digest.
        :param layers: The layers.
        :param media_type: Of the manifest.
        :return: The manifest.
        """
        for blob in (CONFIG, *layers):
            self.blobs[name, client.push_blob(name, blob)] = blob
        manifest = image(layers, media_type)
        self.push_manifest(client, name, tag, media_type, manifest)
        return manifest

    def push_manifest(self, client: Client, name: str, tag: str, media_type: str, manifest: bytes) -> None:
        """
        :param client: The server to push to.
        :param name: The repository.
        :param tag: The tag, or nothing to push by digest.
        :param media_type: Of the manifest.
        :param manifest: The manifest.
        """
        digest = client.push_manifest(name, tag or digest_of(manifest), media_type, manifest)
        self.manifests[name, digest] = (media_type, manifest)
        tags = self.tags.setdefault(name, {})
        if tag:
            tags[tag] = digest

    def push_all(self, client: Client) -> None:
        """
        :param client: The server to push one of each kind to.
        """
        self.push_image(client, "library/one", "latest", [SHARED_LAYER, noise(1_000, seed=2)], DOCKER_MANIFEST)
        self.push_image(client, "library/one", "1.0", [SHARED_LAYER, noise(2_000, seed=3)], OCI_MANIFEST)
        # A tag that has moved: the old image stays, without a tag.
        self.push_image(client, "library/one", "1.0", [SHARED_LAYER], OCI_MANIFEST)
        for name, index_type, child_type in (("many/oci", OCI_INDEX, OCI_MANIFEST), ("many/docker", DOCKER_LIST, DOCKER_MANIFEST)):
            children = [self.push_image(client, name, "", [noise(5_000, seed=seed)], child_type) for seed in (4, 5)]
            self.push_manifest(client, name, "all", index_type, index(children, index_type, child_type))

    def check(self, test: E2ETestCase, client: Client) -> None:
        """
        :param test: To fail.
        :param client: A server that has to serve all of it, each byte as it came.
        """
        test.assertEqual(json.loads(client.get("/v2/_catalog").body), {"repositories": sorted(self.tags)})
        for name, tags in self.tags.items():
            listed = json.loads(client.get(f"/v2/{name}/tags/list").body)["tags"]
            test.assertEqual(sorted(listed or ()), sorted(tags), name)
            for tag, digest in tags.items():
                answer = client.request("HEAD", f"/v2/{name}/manifests/{tag}", Accept=ANY)
                test.assertEqual((answer.status, answer.headers.get("docker-content-digest")), (200, digest), f"{name}:{tag}")
        for (name, digest), (media_type, manifest) in self.manifests.items():
            answer = client.get(f"/v2/{name}/manifests/{digest}", Accept=ANY)
            test.assertEqual((answer.status, answer.body, answer.headers["content-type"]), (200, manifest, media_type))
        for (name, digest), blob in self.blobs.items():
            answer = client.get(f"/v2/{name}/blobs/{digest}")
            test.assertEqual((answer.status, answer.body), (200, blob))


class DropInTest(E2ETestCase):
    """Both servers are set up for one directory; only one runs at a time."""

    data: ClassVar[Path]

    def setUp(self) -> None:
        directory = self.directory / self._testMethodName
        self.ours = server(directory / "ours")
        self.theirs = Peer(directory / "theirs", data=self.ours.data)
        self.addCleanup(self.ours.stop)
        self.addCleanup(self.theirs.stop)

    def there_and_back(self, first: Server, second: Server) -> None:
        """
        :param first: Writes the directory, and has it again at the end.
        :param second: Has it in between, serves it, and changes it.
        """
        content = Content()
        first.start()
        content.push_all(first.client)
        content.check(self, first.client)
        first.stop()

        second.start()
        content.check(self, second.client)
        content.push_image(second.client, "library/two", "latest", [SHARED_LAYER, noise(100, seed=6)], OCI_MANIFEST)
        content.push_image(second.client, "library/one", "latest", [noise(100, seed=7)], OCI_MANIFEST)
        gone = content.tags["library/one"].pop("1.0")
        self.assertEqual(second.client.request("DELETE", f"/v2/library/one/manifests/{gone}").status, 202)
        del content.manifests["library/one", gone]
        content.check(self, second.client)
        second.stop()

        first.start()
        content.check(self, first.client)
        self.assertEqual(first.client.get(f"/v2/library/one/manifests/{gone}", Accept=ANY).status, 404)

    def test_written_by_docker_registry(self) -> None:
        self.there_and_back(self.theirs, self.ours)

    def test_written_by_regd(self) -> None:
        self.there_and_back(self.ours, self.theirs)

    def test_the_trees_are_the_same(self) -> None:
        theirs = Peer(self.directory / "theirs-alone")
        self.addCleanup(theirs.stop)
        for one in (self.ours, theirs):
            one.start()
            Content().push_all(one.client)
            one.stop()
        self.assertEqual(tree(self.ours.data), tree(theirs.data))

    def continue_upload(self, first: Server, second: Server) -> None:
        """
        :param first: Where an upload is begun.
        :param second: Where it is finished, with the location that the first gave.
        """
        content = noise(200_000, seed=8)
        first.start()
        location = first.client.append(first.client.begin_upload("some/upload"), content[:50_000])
        location = first.client.append(location, content[50_000:120_000])
        first.stop()

        second.start()
        parts = urlsplit(location)
        location = f"{parts.path}?{parts.query}"
        status = second.client.get(location)
        self.assertEqual((status.status, status.headers["range"]), (204, "0-119999"))
        location = second.client.append(status.headers["location"], content[120_000:150_000])
        self.assertEqual(second.client.commit(location, digest_of(content), content[150_000:]).status, 201)
        self.assertEqual(second.client.get(f"/v2/some/upload/blobs/{digest_of(content)}").body, content)
        # The answer does not wait for the tidying up.
        wait_until(lambda: not list(second.data.rglob("_uploads/*")), 10, "the upload's directory to go")

    def test_an_upload_begun_in_docker_registry(self) -> None:
        self.continue_upload(self.theirs, self.ours)

    def test_an_upload_begun_in_regd(self) -> None:
        self.continue_upload(self.ours, self.theirs)


def tree(data: Path) -> dict[str, bytes]:
    """
    :param data: The root directory of a storage.
    :return: The files that ``registry:2`` knows, by path, with their content.
    """
    root = data / "docker" / "registry" / "v2"
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}
