"""podman pushes to the registry and pulls from it, in both formats."""

import json
from typing import ClassVar

from tests.e2e.case import ServerTestCase, Tool
from tests.e2e.images import OCI_MANIFEST, noise, one_file_tar
from tests.e2e.process import need_root

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


class PodmanTest(ServerTestCase):
    podman: ClassVar[Tool]
    content: ClassVar[bytes]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        need_root()
        own = cls.directory / "podman"
        own.mkdir()
        cls.podman = Tool(
            own,
            *("podman", "--root", str(own / "root"), "--runroot", str(own / "run"), "--tmpdir", str(own / "tmp")),
            *("--storage-driver=vfs", "--events-backend=none", "--cgroup-manager=cgroupfs"),
        )
        cls.addClassCleanup(cls.podman.try_run, "system", "reset", "--force")
        cls.content = noise(5_000_000)

    def round_trip(self, name: str, manifest_format: str, media_type: str) -> None:
        """
        :param name: The repository.
        :param manifest_format: What ``podman push --format`` is told.
        :param media_type: What the registry then has to hold.
        """
        image = f"{self.server.host}/{name}:latest"
        self.podman.run("import", "--quiet", "-", image, stdin=one_file_tar("content", self.content))
        identity = self.podman.run("image", "inspect", "--format={{.Id}}", image)
        layers = json.loads(self.podman.run("image", "inspect", "--format={{json .RootFS.Layers}}", image))
        digest_file = self.directory / "podman" / f"{manifest_format}.digest"
        self.podman.run("push", "--tls-verify=false", f"--format={manifest_format}", f"--digestfile={digest_file}", image)
        self.podman.run("rmi", image)
        self.assertNotEqual(self.podman.try_run("image", "exists", image).returncode, 0)

        self.podman.run("pull", "--quiet", "--tls-verify=false", image)
        pulled = json.loads(self.podman.run("image", "inspect", "--format={{json .RootFS.Layers}}", image))
        self.assertEqual(pulled, layers)
        if manifest_format == "oci":
            # The configuration is changed on its way into the other format.
            self.assertEqual(self.podman.run("image", "inspect", "--format={{.Id}}", image), identity)
        answer = self.server.client.request("HEAD", f"/v2/{name}/manifests/latest", Accept=f"{OCI_MANIFEST}, {DOCKER_MANIFEST}")
        self.assertEqual(answer.headers["content-type"], media_type)
        digest = digest_file.read_text(encoding="ascii").strip()
        self.assertEqual(answer.headers["docker-content-digest"], digest)

        self.podman.run("rmi", image)
        by_digest = f"{self.server.host}/{name}@{digest}"
        self.podman.run("pull", "--quiet", "--tls-verify=false", by_digest)
        self.podman.run("rmi", by_digest)

    def test_oci(self) -> None:
        self.round_trip("podman/oci", "oci", OCI_MANIFEST)

    def test_docker(self) -> None:
        self.round_trip("podman/docker", "v2s2", DOCKER_MANIFEST)
