"""The large trees of the benchmarks: that regd finds in them what they say."""

from __future__ import annotations

from benchmarks import trees
from regd.names import Digest, RepositoryName, Tag
from tests.registry.case import OnFilesystem, RegistrySuite


class TreesTest(RegistrySuite, OnFilesystem):
    async def test_tags(self) -> None:
        name = RepositoryName.parse(trees.tags(self.root, 12))
        page = await self.registry.tags.page(name, 100)
        self.assertEqual(page.entries, tuple(f"v{number:06}" for number in range(12)))
        tagged = await self.registry.manifests.get(name, Tag("v000011"))
        manifest = await self.registry.manifests.read(tagged.digest)
        assert manifest is not None
        for blob in manifest.blobs:
            self.assertIsNotNone(await self.registry.blobs.find(name, blob.digest))
        self.assertEqual(self.damage.count, 0)

    async def test_repositories(self) -> None:
        trees.repositories(self.root, 4)
        trees.repositories(self.root, 5, per_group=2)
        page = await self.registry.catalog.page(100)
        grouped = [f"g{number // 2:04}/r{number:06}" for number in range(5)]
        self.assertEqual(page.entries, (*grouped, *(f"r{number:06}" for number in range(4))))

    async def test_referrers(self) -> None:
        repository, subject = trees.referrers(self.root, 20)
        name, digest = RepositoryName.parse(repository), Digest.parse(subject)
        page = await self.registry.referrers.page(name, digest, 100)
        self.assertEqual(len(page.entries), 20)
        page = await self.registry.referrers.page(name, digest, 100, artifact_type="application/vnd.example.tenth")
        self.assertEqual(len(page.entries), 2)
        await self.registry.manifests.get(name, page.entries[0].digest)
        self.assertEqual(self.damage.count, 0)

    async def test_images(self) -> None:
        written = trees.images(self.root, 3, per_repository=2, layers=2, garbage=5)
        self.assertEqual((written.manifests, written.blobs), (6, 1 + 6 * 4 + 5))
        for text in written.repositories:
            name = RepositoryName.parse(text)
            for tag in ("v0", "v1"):
                tagged = await self.registry.manifests.get(name, Tag(tag))
                manifest = await self.registry.manifests.read(tagged.digest)
                assert manifest is not None
                self.assertEqual(len(manifest.blobs), 4)
                for blob in manifest.blobs:
                    held = await self.registry.blobs.stat(name, blob.digest)
                    self.assertEqual(held.size, blob.size)
        for text in written.garbage:
            stored = await self.registry.blobs.stored(Digest.parse(text))
            assert stored is not None
            self.assertEqual(stored.size, 64)
        self.assertEqual(self.damage.count, 0)
