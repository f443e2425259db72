"""skopeo copies to the registry, from it, between repositories, and deletes."""

import json
from pathlib import Path
from typing import ClassVar

from tests.e2e.case import ServerTestCase, Tool
from tests.e2e.images import OCI_INDEX, OCI_MANIFEST, OciLayout, noise
from tests.e2e.rawhttp import digest_of

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
ANY = f"{OCI_INDEX}, {OCI_MANIFEST}, {DOCKER_LIST}, {DOCKER_MANIFEST}"


class SkopeoTest(ServerTestCase):
    skopeo: ClassVar[Tool]
    image: ClassVar[str]
    index: ClassVar[str]
    layout: ClassVar[OciLayout]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.skopeo = Tool(cls.directory, "skopeo", "--insecure-policy")
        cls.layout = OciLayout(cls.directory / "layout")
        amd64 = cls.layout.add_image("amd64", [noise(3_000_000), noise(1_000), b""])
        arm64 = cls.layout.add_image("arm64", [noise(2_000_000)])
        cls.image = cls.layout.tag("image", amd64)
        cls.index = cls.layout.tag("index", cls.layout.add_index([amd64, arm64]))

    def remote(self, name: str) -> str:
        """
        :param name: ``repository:tag`` or ``repository@digest``.
        :return: The name of the image for skopeo.
        """
        return f"docker://{self.server.host}/{name}"

    def push(self, source: str, name: str, *options: str) -> None:
        """
        :param source: An image on this machine.
        :param name: As in :meth:`remote`.
        :param options: For ``skopeo copy``.
        """
        self.skopeo.run("copy", "--dest-tls-verify=false", *options, source, self.remote(name))

    def pull(self, name: str, *options: str) -> Path:
        """
        :param name: As in :meth:`remote`.
        :param options: For ``skopeo copy``.
        :return: A directory with the manifest and the blobs as they came.
        """
        directory = self.directory / "pulled" / self.id().rpartition(".")[2] / name.translate(str.maketrans("/:@", "---"))
        directory.parent.mkdir(parents=True, exist_ok=True)
        self.skopeo.run("copy", "--src-tls-verify=false", *options, self.remote(name), f"dir:{directory}")
        return directory

    def assert_whole(self, directory: Path) -> None:
        """
        :param directory: What :meth:`pull` made; every blob in it has to be what its name says.
        """
        blobs = [path for path in directory.iterdir() if len(path.name) == 64]
        self.assertTrue(blobs)
        for blob in blobs:
            self.assertEqual(digest_of(blob.read_bytes()), f"sha256:{blob.name}")

    def test_an_oci_image(self) -> None:
        self.push(self.image, "oci/image:1.0", "--preserve-digests")
        pulled = self.pull("oci/image:1.0")
        self.assert_whole(pulled)
        manifest = (pulled / "manifest.json").read_bytes()
        self.assertEqual(json.loads(manifest)["mediaType"], OCI_MANIFEST)
        answer = self.server.client.get("/v2/oci/image/manifests/1.0", Accept=OCI_MANIFEST)
        self.assertEqual((answer.body, answer.headers["content-type"]), (manifest, OCI_MANIFEST))

    def test_the_same_image_in_docker_format(self) -> None:
        self.push(self.image, "docker/image:1.0", "--format=v2s2")
        pulled = self.pull("docker/image:1.0")
        self.assert_whole(pulled)
        self.assertEqual(json.loads((pulled / "manifest.json").read_bytes())["mediaType"], DOCKER_MANIFEST)
        answer = self.server.client.get("/v2/docker/image/manifests/1.0", Accept=DOCKER_MANIFEST)
        self.assertEqual(answer.headers["content-type"], DOCKER_MANIFEST)

    def test_an_index_with_all_its_platforms(self) -> None:
        self.push(self.index, "oci/index:1.0", "--all", "--preserve-digests")
        pulled = self.pull("oci/index:1.0", "--all")
        self.assert_whole(pulled)
        index = json.loads((pulled / "manifest.json").read_bytes())
        self.assertEqual(index["mediaType"], OCI_INDEX)
        self.assertEqual([entry["platform"]["architecture"] for entry in index["manifests"]], ["amd64", "arm64"])
        for entry in index["manifests"]:
            child = self.pull(f"oci/index@{entry['digest']}")
            self.assertEqual(digest_of((child / "manifest.json").read_bytes()), entry["digest"])

    def test_an_index_in_docker_format(self) -> None:
        self.push(self.index, "docker/list:1.0", "--all", "--format=v2s2")
        raw = json.loads(self.skopeo.run("inspect", "--raw", "--tls-verify=false", self.remote("docker/list:1.0")))
        self.assertEqual(raw["mediaType"], DOCKER_LIST)
        self.assertEqual({entry["mediaType"] for entry in raw["manifests"]}, {DOCKER_MANIFEST})
        self.assert_whole(self.pull("docker/list:1.0", "--all"))

    def test_one_platform_of_an_index(self) -> None:
        self.push(self.index, "oci/platforms:1.0", "--all")
        arm64 = json.loads(
            self.skopeo.run("--override-arch=arm64", "inspect", "--tls-verify=false", self.remote("oci/platforms:1.0"))
        )
        self.assertEqual((arm64["Architecture"], len(arm64["Layers"])), ("arm64", 1))

    def test_from_one_repository_to_another(self) -> None:
        self.push(self.index, "source/index:1.0", "--all")
        self.skopeo.run(
            *("copy", "--all", "--src-tls-verify=false", "--dest-tls-verify=false"),
            self.remote("source/index:1.0"),
            self.remote("a/much/deeper/target:2.0"),
        )
        source, target = (
            self.server.client.get(f"/v2/{where}", Accept=ANY).headers["docker-content-digest"]
            for where in ("source/index/manifests/1.0", "a/much/deeper/target/manifests/2.0")
        )
        self.assertEqual(source, target)

    def test_tags(self) -> None:
        for tag in ("b", "a", "A_1.0-x"):
            self.push(self.image, f"some/tags:{tag}")
        listed = json.loads(self.skopeo.run("list-tags", "--tls-verify=false", self.remote("some/tags")))
        self.assertEqual(sorted(listed["Tags"]), ["A_1.0-x", "a", "b"])

    def test_a_digest_that_is_pushed_is_the_digest_that_is_pulled(self) -> None:
        written = self.directory / "digest"
        self.push(self.image, "some/digest:1", f"--digestfile={written}")
        digest = written.read_text(encoding="ascii").strip()
        self.assertEqual(digest_of((self.pull(f"some/digest@{digest}") / "manifest.json").read_bytes()), digest)

    def test_delete(self) -> None:
        self.push(self.image, "to/delete:1")
        self.push(self.image, "to/keep:1")
        self.skopeo.run("delete", "--tls-verify=false", self.remote("to/delete:1"))
        self.assertEqual(self.server.client.get("/v2/to/delete/manifests/1", Accept=ANY).status, 404)
        # The layers are shared, and stay.
        self.assert_whole(self.pull("to/keep:1"))
        done = self.skopeo.try_run("delete", "--tls-verify=false", self.remote("to/delete:1"))
        self.assertNotEqual(done.returncode, 0)
        # And it can be pushed again.
        self.push(self.image, "to/delete:1")
        self.assert_whole(self.pull("to/delete:1"))
