"""
``regd scrub`` on directories with each kind of damage: what it finds, that what it has mended serves in ``docker-registry`` and in regd,
and that a push heals what it has moved aside, while the daemon runs.
"""

import shutil
from pathlib import Path

from tests.e2e.case import E2ETestCase
from tests.e2e.commands import blob_file, command
from tests.e2e.daemon import Peer, Regd
from tests.e2e.images import OCI_MANIFEST, noise
from tests.e2e.rawhttp import Client, digest_of
from tests.e2e.test_drop_in import CONFIG, DOCKER_MANIFEST, image

LAYER = noise(200_000, seed=1)
NAME = "old/tree"


class ScrubTest(E2ETestCase):
    def setUp(self) -> None:
        self.server = Regd(self.directory / self._testMethodName)
        self.addCleanup(self.server.stop)
        self.server.start()
        self.client = self.server.client
        for blob in (CONFIG, LAYER):
            self.client.push_blob(NAME, blob)
        self.manifest = image([LAYER], DOCKER_MANIFEST)
        self.digest = digest_of(self.manifest)
        for tag in ("v1", "v2"):
            self.client.push_manifest(NAME, tag, DOCKER_MANIFEST, self.manifest)
        self.repository = self.server.data / "docker" / "registry" / "v2" / "repositories" / NAME

    def scrub(self, *arguments: str) -> tuple[int, list[str]]:
        """
        :param arguments: Those that stand before the configuration.
        :return: The exit status, and the findings.
        """
        done = command(self.server, "regd", "scrub", *arguments)
        self.assertNotIn("Traceback", done.stderr)
        return done.returncode, done.stdout.partition("\nlooked at: ")[0].splitlines()

    def assert_serves(self, client: Client, *more: str) -> None:
        """
        :param client: The server to ask.
        :param more: Tags of other images.
        """
        for reference in ("v1", "v2", self.digest):
            answer = client.get(f"/v2/{NAME}/manifests/{reference}", Accept=DOCKER_MANIFEST)
            self.assertEqual((answer.status, answer.body), (200, self.manifest), reference)
        for blob in (CONFIG, LAYER):
            answer = client.get(f"/v2/{NAME}/blobs/{digest_of(blob)}")
            self.assertEqual((answer.status, answer.body), (200, blob))
        listed = client.get(f"/v2/{NAME}/tags/list").json()
        assert isinstance(listed, dict)
        self.assertEqual(sorted(listed["tags"]), sorted(("v1", "v2", *more)))

    def links(self) -> list[Path]:
        """
        :return: Every link of the repository.
        """
        return sorted(self.repository.rglob("link"))

    def test_every_link_is_mended(self) -> None:
        """Each of them empty, torn, or another's; beside a daemon that serves, and then in docker-registry."""
        links = self.links()
        self.assertEqual(len(links), 7)
        other = b"sha256:" + b"0" * 64
        for content in (b"", b"sha256:01", other):
            for link in links:
                right = link.read_bytes()
                if link.parent.name == "current" and content == other:
                    # It stands under no digest, so nothing tells that this is not what was meant.
                    continue
                link.write_bytes(content)
                status, findings = self.scrub()
                self.assertEqual(status, 1)
                self.assertEqual([line.partition(":")[0] for line in findings], [str(link.relative_to(self.server.data))])
                status, findings = self.scrub("--repair")
                self.assertEqual((status, len(findings)), (0, 1), findings)
                self.assertEqual(link.read_bytes(), right)
        self.assertEqual(self.scrub(), (0, []))
        self.assert_serves(self.client)
        self.server.stop()
        peer = Peer(self.directory / "peer", self.server.data)
        self.addCleanup(peer.stop)
        peer.start()
        self.assert_serves(peer.client)

    def test_all_links_at_once(self) -> None:
        """As after a power cut with an old registry:2."""
        for link in self.links():
            link.write_bytes(b"")
        status, findings = self.scrub("--repair")
        self.assertEqual((status, len(findings)), (0, 7), findings)
        self.assert_serves(self.client)
        self.assertEqual(self.scrub(), (0, []))

    def test_a_damaged_blob_is_healed_by_a_push(self) -> None:
        for damage in (b"", LAYER[:-1], LAYER[:1000] + b"x" + LAYER[1001:]):
            path = blob_file(self.server.data, digest_of(LAYER))
            path.write_bytes(damage)
            self.assertEqual(self.scrub()[0], 1)
            self.assertEqual(self.scrub("--repair")[0], 1)
            self.assertFalse(path.parent.exists())
            self.assertEqual((self.server.data / "regd/damaged/sha256" / path.parent.name / "data").read_bytes(), damage)
            # What a client asks before it pushes a layer.
            self.assertEqual(self.client.request("HEAD", f"/v2/{NAME}/blobs/{digest_of(LAYER)}").status, 404)
            self.client.push_blob(NAME, LAYER)
            self.assert_serves(self.client)
            self.assertEqual(self.scrub("--repair")[0], 0)
            self.assertFalse((self.server.data / "regd/damaged/sha256" / path.parent.name).exists())
            self.assertEqual(self.scrub(), (0, []))

    def test_a_damaged_manifest_is_healed_by_a_push(self) -> None:
        path = blob_file(self.server.data, self.digest)
        path.write_bytes(self.manifest[:-1])
        self.assertEqual(self.scrub("--repair")[0], 1)
        self.assertEqual(self.client.get(f"/v2/{NAME}/manifests/v1").status, 404)
        self.client.push_manifest(NAME, "v1", DOCKER_MANIFEST, self.manifest)
        self.assert_serves(self.client)

    def test_a_missing_blob_is_healed_by_a_push(self) -> None:
        shutil.rmtree(blob_file(self.server.data, digest_of(LAYER)).parent)
        status, findings = self.scrub("--repair")
        self.assertEqual((status, len(findings)), (1, 1))
        self.assertIn("what it links is not there", findings[0])
        self.client.push_blob(NAME, LAYER)
        self.assertEqual(self.scrub(), (0, []))

    def test_referrers_that_registry_2_took(self) -> None:
        """It stores them and links nothing; after a repair they are listed."""
        self.server.stop()
        peer = Peer(self.directory / "peer2", self.server.data)
        self.addCleanup(peer.stop)
        peer.start()
        about = image([LAYER], OCI_MANIFEST).replace(
            b'"layers"',
            b'"subject": {"mediaType": "%s", "digest": "%s", "size": %d}, "layers"'
            % (DOCKER_MANIFEST.encode(), self.digest.encode(), len(self.manifest)),
        )
        peer.client.push_manifest(NAME, "about", OCI_MANIFEST, about)
        peer.stop()
        self.server.start()

        def listed() -> list[str]:
            answer = self.client.get(f"/v2/{NAME}/referrers/{self.digest}").json()
            assert isinstance(answer, dict)
            return [entry["digest"] for entry in answer["manifests"]]

        self.assertEqual(listed(), [])
        self.assertEqual(self.scrub("--repair")[0], 0)
        self.assertEqual(listed(), [digest_of(about)])
        self.assert_serves(self.client, "about")

    def test_what_registry_2_writes_is_right(self) -> None:
        peer = Peer(self.directory / "peer3")
        self.addCleanup(peer.stop)
        peer.start()
        for blob in (CONFIG, LAYER):
            peer.client.push_blob(NAME, blob)
        peer.client.push_manifest(NAME, "v1", DOCKER_MANIFEST, self.manifest)
        peer.client.push_manifest(NAME, "v2", OCI_MANIFEST, image([LAYER], OCI_MANIFEST))
        peer.client.request("DELETE", f"/v2/{NAME}/manifests/{digest_of(image([LAYER], OCI_MANIFEST))}")
        peer.stop()
        done = command(peer, "regd", "scrub")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertTrue(done.stdout.startswith("\nlooked at: 1 repository, 1 manifest, "), done.stdout)
