"""
"Delete Image (Hard Delete)" of the usual compose recipe, beside a running regd: both commands as they stand there, and what users of the
registry see of it. What can go is what ``docker-registry`` says on the same directory.
"""

import json

from tests.e2e.case import E2ETestCase
from tests.e2e.commands import blob_file, command, eligible, without_grace
from tests.e2e.daemon import Regd
from tests.e2e.images import OCI_INDEX, OCI_MANIFEST, noise
from tests.e2e.rawhttp import digest_of
from tests.e2e.test_compose_recipe import CONFIG, IMAGE, LAYER, MANIFEST, NAME
from tests.e2e.test_drop_in import CONFIG as OTHER_CONFIG
from tests.e2e.test_drop_in import image, index

OTHER = noise(2000, seed=2)


class HardDeleteTest(E2ETestCase):
    def setUp(self) -> None:
        self.server = Regd(self.directory / self._testMethodName)
        without_grace(self.server)
        self.addCleanup(self.server.stop)
        self.server.start()
        self.client = self.server.client

    def push(self) -> None:
        """Push the recipe's image."""
        self.client.push_blob(NAME, CONFIG)
        self.client.push_blob(NAME, LAYER)
        self.client.push_manifest(NAME, "latest", MANIFEST, IMAGE)

    def push_other(self, tag: str) -> bytes:
        """
        Push another image to another repository.

        :param tag: Its tag.
        :return: Its manifest.
        """
        for blob in (OTHER_CONFIG, OTHER):
            self.client.push_blob("other/image", blob)
        manifest = image([OTHER], OCI_MANIFEST)
        self.client.push_manifest("other/image", tag, OCI_MANIFEST, manifest)
        return manifest

    def alike(self, *arguments: str) -> set[str]:
        """
        :param arguments: Of ``garbage-collect``.
        :return: What both say that can go; they also print the same lines before, in the same order.
        """
        dry = ("garbage-collect", "--dry-run", *arguments)
        ours, theirs = (command(self.server, program, *dry) for program in ("regd", "docker-registry"))
        self.assertEqual((ours.returncode, theirs.returncode), (0, 0), ours.stderr + theirs.stderr)
        marked = [[line for line in one.stdout.splitlines() if "eligible for deletion: " not in line] for one in (ours, theirs)]
        self.assertEqual(*marked)
        self.assertEqual(eligible(ours.stdout), eligible(theirs.stdout))
        return eligible(ours.stdout)

    def test_the_recipe(self) -> None:
        self.push()
        kept = self.push_other("v1")
        self.assertEqual(self.alike(), set())
        answer = self.client.request("DELETE", f"/v2/{NAME}/manifests/{digest_of(IMAGE)}")
        self.assertEqual(answer.status, 202)

        gone = {digest_of(content) for content in (CONFIG, LAYER, IMAGE)}
        self.assertEqual(self.alike(), {f"blob eligible for deletion: {digest}" for digest in gone})
        done = command(self.server, "regd", "garbage-collect")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(eligible(done.stdout), {f"blob eligible for deletion: {digest}" for digest in gone})
        self.assertIn("3 blobs (", done.stderr)
        for digest in gone:
            self.assertFalse(blob_file(self.server.data, digest).exists())

        # The daemon knows at once, and nobody hears "layer already exists" of what is gone.
        for digest in (digest_of(CONFIG), digest_of(LAYER)):
            self.assertEqual(self.client.request("HEAD", f"/v2/{NAME}/blobs/{digest}").status, 404)
        # A repository with nothing in it is none.
        self.assertEqual(self.client.get("/v2/_catalog").json(), {"repositories": ["other/image"]})
        answer = self.client.get("/v2/other/image/manifests/v1", Accept=OCI_MANIFEST)
        self.assertEqual((answer.status, answer.body), (200, kept))
        self.push()
        self.assertEqual(self.client.get(f"/v2/{NAME}/blobs/{digest_of(LAYER)}").body, LAYER)
        self.assertEqual(self.alike(), set())

    def test_untagged(self) -> None:
        self.push()
        kept = self.push_other("v1")
        second = image([OTHER, CONFIG], OCI_MANIFEST)
        self.client.push_blob("other/image", CONFIG)
        self.client.push_manifest("other/image", "v1", OCI_MANIFEST, second)
        self.assertEqual(self.alike(), set())
        self.assertEqual(
            self.alike("-m"),
            {f"manifest eligible for deletion: {digest_of(kept)}", f"blob eligible for deletion: {digest_of(kept)}"},
        )
        done = command(self.server, "regd", "garbage-collect", "--delete-untagged")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.client.get(f"/v2/other/image/manifests/{digest_of(kept)}").status, 404)
        self.assertEqual(self.client.get("/v2/other/image/manifests/v1").body, second)

    def test_untagged_where_registry_2_is_wrong(self) -> None:
        """It removes the images of an index that has a tag, and what is attached to an image. regd keeps them."""
        child = self.push_other("tmp")
        listed = index([child, child], OCI_INDEX, OCI_MANIFEST)
        self.client.push_manifest("other/image", "list", OCI_INDEX, listed)
        about = json.loads(image([OTHER], OCI_MANIFEST)) | {
            "subject": {"mediaType": OCI_MANIFEST, "digest": digest_of(child), "size": len(child)}
        }
        referrer = json.dumps(about).encode()
        self.client.push_manifest("other/image", digest_of(referrer), OCI_MANIFEST, referrer)
        self.assertEqual(self.client.request("DELETE", "/v2/other/image/manifests/tmp").status, 202)
        theirs = command(self.server, "docker-registry", "garbage-collect", "-d", "-m")
        self.assertIn(f"manifest eligible for deletion: {digest_of(child)}", theirs.stdout)
        done = command(self.server, "regd", "garbage-collect", "-m")
        self.assertEqual((done.returncode, eligible(done.stdout)), (0, set()), done.stderr)
        for manifest in (child, listed, referrer):
            self.assertEqual(self.client.get(f"/v2/other/image/manifests/{digest_of(manifest)}").body, manifest)
        answer = self.client.get(f"/v2/other/image/referrers/{digest_of(child)}").json()
        assert isinstance(answer, dict)
        self.assertEqual([entry["digest"] for entry in answer["manifests"]], [digest_of(referrer)])

    def test_what_was_just_pushed_is_kept(self) -> None:
        """With the grace period that there is without being asked for."""
        text = self.server.configuration.read_text(encoding="utf-8")
        self.server.configuration.write_text(text.replace("grace: 0s", "enabled: true"), encoding="utf-8")
        self.client.push_blob(NAME, LAYER)
        done = command(self.server, "regd", "garbage-collect")
        self.assertEqual((done.returncode, eligible(done.stdout)), (0, set()))
        self.assertIn("what was pushed or asked for in the last 1h0m0s was kept", done.stderr)
        self.assertEqual(self.client.request("HEAD", f"/v2/{NAME}/blobs/{digest_of(LAYER)}").status, 200)
