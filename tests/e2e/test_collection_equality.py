"""What ``regd garbage-collect`` finds beside what Debian's ``docker-registry garbage-collect`` finds, on the same directory."""

import shutil
from typing import ClassVar

from benchmarks.collection import Site, collect, eligible, peer_command
from benchmarks.trees import images
from tests.e2e.case import E2ETestCase
from tests.e2e.process import need

#: Everything is as if it were old.
AT_ONCE = {"REGISTRY_STORAGE_MAINTENANCE_GARBAGECOLLECT_GRACE": "0s"}


class CollectionEqualityTest(E2ETestCase):
    site: ClassVar[Site]
    garbage: ClassVar[frozenset[str]]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        need("docker-registry")
        cls.site = Site(cls.directory / "site")
        written = images(str(cls.site.data), 50, garbage=300)
        cls.garbage = written.garbage
        # Some of the images lose their tag.
        repositories = cls.site.data / "docker/registry/v2/repositories"
        for number, name in enumerate(written.repositories):
            shutil.rmtree(repositories / name / f"_manifests/tags/v{number % 10}")

    def compare(self, *flags: str) -> set[str]:
        """
        :param flags: Of the commands, which both know.
        :return: The blobs that both would remove.
        """
        theirs = peer_command(self.site, "--dry-run", *flags)
        ours = collect(self.site, "--dry-run", *flags, **AT_ONCE)
        found = eligible(ours)
        self.assertEqual(found, eligible(theirs))
        self.assertEqual(eligible(ours, "manifest"), eligible(theirs, "manifest"))
        return found

    def test_garbage(self) -> None:
        self.assertEqual(self.compare(), set(self.garbage))

    def test_untagged_manifests(self) -> None:
        # A manifest, its configuration and its four layers; the fifth is everybody's.
        found = self.compare("--delete-untagged")
        self.assertLess(self.garbage, found)
        self.assertEqual(len(found - self.garbage), 50 * 6)

    def test_what_is_found_is_what_goes(self) -> None:
        wanted = self.compare("--delete-untagged")
        blobs = self.site.data / "docker/registry/v2/blobs"
        before = {f"sha256:{path.name}" for path in blobs.glob("sha256/*/*")}
        collect(self.site, "--delete-untagged", "--quiet", **AT_ONCE)
        after = {f"sha256:{path.name}" for path in blobs.glob("sha256/*/*")}
        self.assertEqual(before - after, wanted)
        self.assertEqual(self.compare("--delete-untagged"), set())
        # What regd has left is whole for the other one, too.
        self.assertEqual(eligible(peer_command(self.site, "--dry-run")), set())
