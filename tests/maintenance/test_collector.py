"""What a collection keeps, and what it removes."""

from __future__ import annotations

from regd.names import Digest, Tag
from regd.storage import layout
from tests.maintenance.case import CollectionSuite
from tests.registry.case import CONFIG, LAYER, OnFilesystem, OnMemory, image_manifest, index_manifest, name


class Suite(CollectionSuite):
    async def test_nothing_at_all(self) -> None:
        summary = await self.collect()
        self.assertEqual((summary.repositories, summary.blobs, summary.blobs_swept, summary.skipped), (0, 0, 0, 0))

    async def test_what_a_tag_leads_to_stays(self) -> None:
        await self.push_image("a", "v1", LAYER)
        await self.push_image("a/b", "v1", LAYER, b"another")
        before = await self.files()
        await self.age()
        for untagged in (False, True):
            summary = await self.collect(untagged=untagged)
            self.assertEqual((summary.repositories, summary.manifests, summary.blobs), (2, 2, 5))
            self.assertEqual((summary.blobs_swept, summary.links_removed, summary.skipped, summary.young), (0, 0, 0, 0))
            self.assertEqual(await self.files(), before)
        await self.pull("a", "v1")
        await self.pull("a/b", "v1")

    async def test_what_nothing_refers_to_goes(self) -> None:
        image = await self.push_image("a", "v1", LAYER)
        alone = await self.push("a", b"alone")
        await self.push_image("b", "v1", LAYER, b"only here")
        await self.drop("b", (await self.registry.manifests.get(name("b"), Tag("v1"))).digest)
        await self.age()
        summary = await self.collect()
        self.assertEqual((summary.blobs_swept, summary.links_removed, summary.repositories_removed), (3, 4, 1))
        self.assertEqual(summary.bytes_freed, sum(size for _, size in self.notes.eligible_blobs))
        self.assertFalse(await self.there(alone))
        self.assertFalse(await self.linked("a", alone))
        self.assertFalse(await self.driver.exists(layout.repository("b")))
        await self.pull("a", image)
        self.assertEqual([str(one) async for one in self.registry.catalog.candidates()], ["a"])

    async def test_grace(self) -> None:
        alone = await self.push("a", b"alone")
        summary = await self.collect()
        self.assertEqual((summary.blobs_swept, summary.young, summary.young_bytes, summary.links_removed), (0, 1, 5, 0))
        # A link that is old protects nothing, a blob that is young protects its links.
        await self.age(layout.layer_link(name("a"), alone))
        self.assertEqual((await self.collect()).links_removed, 0)
        self.assertTrue(await self.linked("a", alone))
        await self.age()
        await self.driver.write((layout.layer_link(name("a"), alone), alone.encode()))
        # The other way round, a young link keeps its blob.
        summary = await self.collect()
        self.assertEqual((summary.blobs, summary.blobs_swept, summary.links_removed), (1, 0, 0))
        await self.age()
        summary = await self.collect()
        self.assertEqual((summary.blobs_swept, summary.bytes_freed, summary.links_removed), (1, 5, 1))

    async def test_children_of_an_index(self) -> None:
        for blob in (CONFIG, LAYER, b"2"):
            await self.push("a", blob)
        children = [image_manifest(LAYER), image_manifest(b"2")]
        digests = [await self.put("a", None, child) for child in children]
        inner = index_manifest(*children)
        digests.append(await self.put("a", None, inner))
        await self.put("a", "v1", index_manifest(inner, child_type="application/vnd.oci.image.index.v1+json"))
        await self.age()
        summary = await self.collect(untagged=True)
        self.assertEqual((summary.manifests, summary.manifests_removed, summary.blobs_swept), (4, 0, 0))
        await self.pull("a", "v1")
        await self.untag("a", "v1")
        summary = await self.collect(untagged=True)
        self.assertEqual((summary.manifests, summary.manifests_removed, summary.links_removed), (0, 4, 3))
        self.assertEqual((summary.blobs_swept, summary.repositories_removed), (7, 1))
        self.assertEqual(await self.files(), [])

    async def test_subjects_and_what_is_about_them(self) -> None:
        image = image_manifest(LAYER)
        digest = await self.push_image("a", "v1", LAYER)
        subject = {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": len(image)}
        await self.push("a", b"signature")
        about = image_manifest(b"signature", subject=subject)
        await self.put("a", None, about)
        await self.age()
        self.assertEqual((await self.collect(untagged=True)).manifests_removed, 0)
        # The other way round: what is about it holds it.
        await self.put("a", "about", about)
        await self.untag("a", "v1")
        await self.age()
        self.assertEqual((await self.collect(untagged=True)).manifests_removed, 0)
        await self.untag("a", "about")
        summary = await self.collect(untagged=True)
        self.assertEqual((summary.manifests_removed, summary.blobs_swept), (2, 5))
        self.assertEqual(await self.files(), [])

    async def test_dry_run(self) -> None:
        await self.push_image("a", "v1", LAYER)
        gone = await self.push_image("b", "v1", LAYER, b"only here")
        await self.untag("b", "v1")
        await self.age()
        before, beside = await self.files(), await self.files(layout.Path("regd"))
        summary = await self.collect(dryrun=True, untagged=True)
        self.assertEqual((summary.manifests_removed, summary.blobs_swept, summary.links_removed), (1, 2, 3))
        self.assertEqual(self.notes.eligible_manifests, [("b", gone)])
        self.assertEqual({digest for digest, _ in self.notes.eligible_blobs}, {gone, Digest.of(b"only here")})
        self.assertEqual(await self.files(), before)
        self.assertEqual(await self.files(layout.Path("regd")), beside)
        self.assertEqual((await self.collect(untagged=True)).blobs_swept, 2)


class InMemoryTest(Suite, OnMemory):
    """In memory."""


class OnDiskTest(Suite, OnFilesystem):
    """On disk."""
