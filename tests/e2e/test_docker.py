"""A Docker Engine pushes to the registry and pulls from it."""

import json
import re
from typing import ClassVar

from tests.e2e.case import ServerTestCase
from tests.e2e.engine import Engine
from tests.e2e.images import MIB, build_context
from tests.e2e.rawhttp import digest_of

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
PUSHED = re.compile(r"(?m)^(?P<tag>\S+): digest: (?P<digest>sha256:[0-9a-f]{64}) size: (?P<size>\d+)$")


class DockerTest(ServerTestCase):
    engine: ClassVar[Engine]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.engine = Engine(cls.directory / "engine")
        cls.run_for_all(cls.engine)

    def image(self, name: str, *layers: int, runnable: bool = False) -> str:
        """
        :param name: The repository; it has to be the test's own.
        :param layers: The sizes of the layers, in bytes.
        :param runnable: Whether ``docker run`` can run it.
        :return: The name of an image that the engine has now.
        """
        context = build_context(self.directory / "contexts" / name.replace("/", "-"), layers, runnable)
        image = f"{self.server.host}/{name}:latest"
        self.engine.run("build", "--quiet", "--tag", image, str(context))
        self.addCleanup(self.engine.try_run, "rmi", "--force", image)
        return image

    def push(self, image: str) -> str:
        """
        :param image: The name of an image.
        :return: The digest that the registry and the engine agreed on.
        """
        said = PUSHED.search(self.engine.run("push", image))
        assert said is not None, image
        return said["digest"]

    def test_200_mb_there_and_back(self) -> None:
        image = self.image("library/large", 80 * MIB, 60 * MIB, 40 * MIB, 20 * MIB, runnable=True)
        files = ["/layer-0", "/layer-1", "/layer-2", "/layer-3"]
        hash_files = ("run", "--rm", "--network=none", image, "sha256sum", *files)
        sums = self.engine.run(*hash_files)
        self.assertEqual(len(sums.splitlines()), 4)
        identity = self.engine.inspect(image, "{{.Id}}")
        digest = self.push(image)

        self.engine.run("rmi", image)
        self.assertNotEqual(self.engine.try_run("image", "inspect", image).returncode, 0)
        self.engine.run("pull", image)

        self.assertEqual(self.engine.inspect(image, "{{.Id}}"), identity)
        name = image.rpartition(":")[0]
        self.assertEqual(json.loads(self.engine.inspect(image, "{{json .RepoDigests}}")), [f"{name}@{digest}"])
        self.assertEqual(self.engine.run(*hash_files), sums)

        answer = self.server.client.get("/v2/library/large/manifests/latest", Accept=DOCKER_MANIFEST)
        self.assertEqual(answer.headers["docker-content-digest"], digest)
        self.assertEqual(digest_of(answer.body), digest)
        # What the engine calls the id of an image is the digest of its configuration.
        manifest = json.loads(answer.body)
        self.assertEqual(manifest["config"]["digest"], identity)
        self.assertGreater(sum(layer["size"] for layer in manifest["layers"]), 200 * MIB)

    def test_a_second_push_uploads_nothing(self) -> None:
        image = self.image("builds/app", MIB, 2 * MIB)
        first = self.engine.run("push", image)
        self.assertEqual(first.count(": Pushed"), 2, first)
        second = self.engine.run("push", image)
        self.assertEqual(second.count(": Layer already exists"), 2, second)
        self.assertEqual(PUSHED.findall(second), PUSHED.findall(first))

    def test_another_repository_mounts(self) -> None:
        image = self.image("team/one", MIB, 2 * MIB)
        self.push(image)
        other = f"{self.server.host}/team/two:v2"
        self.engine.run("tag", image, other)
        self.addCleanup(self.engine.try_run, "rmi", other)
        said = self.engine.run("push", other)
        self.assertEqual(said.count(": Mounted from team/one"), 2, said)

    def test_a_rebuild_sends_only_what_changed(self) -> None:
        image = self.image("builds/changing", MIB, 2 * MIB)
        self.push(image)
        context = self.directory / "contexts" / "builds-changing"
        (context / "layer-1").write_bytes(b"changed")
        self.engine.run("build", "--quiet", "--tag", image, str(context))
        said = self.engine.run("push", image)
        self.assertEqual((said.count(": Layer already exists"), said.count(": Pushed")), (1, 1), said)

    def test_pull_by_digest(self) -> None:
        image = self.image("library/bydigest", MIB)
        identity = self.engine.inspect(image, "{{.Id}}")
        name = image.rpartition(":")[0]
        by_digest = f"{name}@{self.push(image)}"
        self.engine.run("rmi", image)
        self.engine.run("pull", by_digest)
        self.addCleanup(self.engine.try_run, "rmi", by_digest)
        self.assertEqual(self.engine.inspect(by_digest, "{{.Id}}"), identity)

    def test_pull_of_what_is_not_there_says_so(self) -> None:
        done = self.engine.try_run("pull", f"{self.server.host}/no/such:tag")
        self.assertNotEqual(done.returncode, 0)
        self.assertRegex(done.stderr, "manifest unknown|not found")

    def test_a_tag_moves(self) -> None:
        image = self.image("library/moving", MIB)
        old = self.push(image)
        context = self.directory / "contexts" / "library-moving"
        (context / "layer-0").write_bytes(b"new")
        self.engine.run("build", "--quiet", "--tag", image, str(context))
        new = self.push(image)
        self.assertNotEqual(new, old)
        identity = self.engine.inspect(image, "{{.Id}}")
        self.engine.run("rmi", image)
        self.engine.run("pull", image)
        self.assertEqual(self.engine.inspect(image, "{{.Id}}"), identity)
        for digest in (old, new):
            self.assertEqual(self.server.client.get(f"/v2/library/moving/manifests/{digest}", Accept=DOCKER_MANIFEST).status, 200)
