"""What comes from another registry is kept: manifests as they are, bytes that are here already linked, and when it was asked."""

from __future__ import annotations

import time

from regd.errors import BlobUnknown, ManifestInvalid, ManifestUnknown, Unavailable
from regd.maintenance.gate import Gate
from regd.manifest import OCI_IMAGE
from regd.names import Digest, Tag
from regd.storage import layout
from tests.registry.case import LAYER, OnFilesystem, OnMemory, RegistrySuite, descriptor, image_manifest, index_manifest, name
from tests.support import no_sleep

REPOSITORY = name("docker.io/library/alpine")
LATEST = Tag("latest")
IMAGE = image_manifest(LAYER)
DIGEST = Digest.of(IMAGE)


class KeepSuite(RegistrySuite):
    def setUp(self) -> None:
        super().setUp()
        # The times of files are real.
        self.now = time.time()

    async def test_what_it_refers_to_need_not_be_here(self) -> None:
        for content in (IMAGE, index_manifest(IMAGE)):
            digest = Digest.of(content)
            await self.registry.manifests.keep(REPOSITORY, content, digest)
            self.assertEqual((await self.registry.manifests.get(REPOSITORY, digest)).content, content)
        await self.refused(ManifestUnknown, self.registry.manifests.get(REPOSITORY, LATEST))
        self.assertEqual((await self.registry.catalog.page(10)).entries, (REPOSITORY,))

    async def test_by_tag(self) -> None:
        other = image_manifest(LAYER, LAYER)
        for content in (IMAGE, other, IMAGE):
            await self.registry.manifests.keep(REPOSITORY, content, Digest.of(content), LATEST)
            self.assertEqual((await self.registry.manifests.get(REPOSITORY, LATEST)).content, content)
        self.assertEqual((await self.registry.tags.page(REPOSITORY, 10)).entries, (LATEST,))
        self.assertTrue(await self.driver.exists(layout.tag_index_link(REPOSITORY, LATEST, Digest.of(other))))

    async def test_other_algorithms(self) -> None:
        digest = Digest.of(IMAGE, "sha512")
        await self.registry.manifests.keep(REPOSITORY, IMAGE, digest, LATEST)
        self.assertEqual((await self.registry.manifests.get(REPOSITORY, LATEST)).digest, digest)

    async def test_a_referrer(self) -> None:
        signature = image_manifest(LAYER, subject=descriptor(IMAGE, OCI_IMAGE))
        await self.registry.manifests.keep(REPOSITORY, signature, Digest.of(signature))
        page = await self.registry.referrers.page(REPOSITORY, DIGEST, 10)
        self.assertEqual([entry.digest for entry in page.entries], [Digest.of(signature)])

    async def test_bytes_before_the_link_to_them_and_tags_last(self) -> None:
        await self.registry.manifests.keep(REPOSITORY, IMAGE, DIGEST, LATEST)
        paths = layout.blob_data(DIGEST), layout.revision_link(REPOSITORY, DIGEST)
        tags = [layout.tag_index_link(REPOSITORY, LATEST, DIGEST), layout.tag_link(REPOSITORY, LATEST)]
        self.assertEqual(self.driver.asked("write"), [(*paths, tags)])

    async def test_the_same_again(self) -> None:
        """The tag says when it was asked for; its links are not written anew."""
        await self.registry.manifests.keep(REPOSITORY, IMAGE, DIGEST, LATEST)
        self.driver.calls.clear()
        await self.registry.manifests.keep(REPOSITORY, IMAGE, DIGEST, LATEST)
        self.assertEqual(self.driver.asked("write"), [(layout.revision_link(REPOSITORY, DIGEST), [])])
        self.assertIn((layout.tag_link(REPOSITORY, LATEST),), self.driver.asked("renew"))

    async def test_damage_is_mended(self) -> None:
        await self.registry.manifests.keep(REPOSITORY, IMAGE, DIGEST, LATEST)
        await self.driver.write((layout.blob_data(DIGEST), b"damaged"))
        self.registry = self.restarted()
        await self.refused(ManifestUnknown, self.registry.manifests.get(REPOSITORY, LATEST))
        await self.registry.manifests.keep(REPOSITORY, IMAGE, DIGEST, LATEST)
        self.assertEqual((await self.registry.manifests.get(REPOSITORY, LATEST)).content, IMAGE)

    async def test_what_cannot_be_read_is_not_kept(self) -> None:
        for content in (b"", b"{}", b"<html>", b'{"schemaVersion":1}', b'{"schemaVersion":2,"mediaType":"x/y"}'):
            await self.refused(ManifestInvalid, self.registry.manifests.keep(REPOSITORY, content, Digest.of(content), LATEST))
        self.assertEqual(self.driver.asked("write"), [])

    async def test_a_collection_that_runs_sees_what_is_wanted(self) -> None:
        await self.push(REPOSITORY, LAYER)
        child = image_manifest()
        await self.registry.manifests.keep(REPOSITORY, child, Digest.of(child))
        pushed = (await self.driver.stat(layout.blob_data(Digest.of(child)))).modified
        began = pushed
        while began <= pushed:
            # The clock of a file system ticks every few milliseconds.
            await self.driver.write((layout.collecting(), b""))
            began = (await self.driver.stat(layout.collecting())).modified
        index = index_manifest(child, subject=descriptor(IMAGE, OCI_IMAGE))
        for content, named in ((IMAGE, LAYER), (index, child)):
            path = layout.blob_data(Digest.of(named))
            self.assertLess((await self.driver.stat(path)).modified, began)
            await self.registry.manifests.keep(REPOSITORY, content, Digest.of(content), LATEST)
            self.assertGreaterEqual((await self.driver.stat(path)).modified, began)
            self.assertGreaterEqual((await self.driver.stat(layout.blob_data(Digest.of(content)))).modified, began)

    async def test_a_closed_gate(self) -> None:
        gate = Gate(self.driver, no_sleep, 0)
        registry = self.restarted(gate=gate)
        await self.push("other", LAYER)
        self.driver.calls.clear()
        async with gate.alone():
            await self.refused(Unavailable, registry.manifests.keep(REPOSITORY, IMAGE, DIGEST, LATEST))
            await self.refused(Unavailable, registry.blobs.link(REPOSITORY, Digest.of(LAYER)))
        self.assertEqual(self.driver.asked("write"), [])

    # When a tag was asked for.

    async def test_checked(self) -> None:
        manifests = self.registry.manifests
        self.assertIsNone(await manifests.checked(REPOSITORY, LATEST))
        # Nothing to renew is nothing wrong.
        await manifests.renew(REPOSITORY, LATEST)
        self.assertIsNone(await manifests.checked(REPOSITORY, LATEST))
        await manifests.keep(REPOSITORY, IMAGE, DIGEST, LATEST)
        first = await manifests.checked(REPOSITORY, LATEST)
        assert first is not None
        self.assertLess(abs(first - time.time()), 60)
        for renewing in (manifests.renew(REPOSITORY, LATEST), manifests.keep(REPOSITORY, IMAGE, DIGEST, LATEST)):
            await renewing
            later = await manifests.checked(REPOSITORY, LATEST)
            assert later is not None
            self.assertGreaterEqual(later, first)
            self.assertIn((layout.tag_link(REPOSITORY, LATEST),), self.driver.asked("renew"))
            self.driver.calls.clear()
        # What a process remembers of the link is the same as before.
        self.assertEqual((await manifests.get(REPOSITORY, LATEST)).digest, DIGEST)

    # Bytes that are here.

    async def test_link(self) -> None:
        digest = await self.push("other", LAYER)
        await self.refused(BlobUnknown, self.registry.blobs.stat(REPOSITORY, digest))
        blob = await self.registry.blobs.link(REPOSITORY, digest)
        assert blob is not None
        self.assertEqual((blob.digest, blob.size), (digest, len(LAYER)))
        self.assertEqual(await self.blob(REPOSITORY, digest), LAYER)
        self.assertIsNone(await self.registry.blobs.link(REPOSITORY, DIGEST))
        self.assertFalse(await self.driver.exists(layout.layer_link(REPOSITORY, DIGEST)))

    async def test_no_link_comes_before_its_bytes_are_durable(self) -> None:
        digest = await self.push("other", LAYER)
        self.driver.calls.clear()
        await self.registry.blobs.link(REPOSITORY, digest)
        calls = [call[0] for call in self.driver.calls]
        self.assertLess(calls.index("secure"), calls.index("write"))

    async def test_part_of_a_blob(self) -> None:
        digest = await self.push(REPOSITORY, LAYER)
        content = await self.registry.blobs.open(REPOSITORY, digest, 2, 5)
        self.assertEqual((content.size, await content.reach(2), await content.read(2, 3)), (len(LAYER), len(LAYER), LAYER[2:5]))
        content.close()
        await self.refused(BlobUnknown, self.registry.blobs.open(REPOSITORY, DIGEST, 0, 1))


class KeepInMemoryTest(KeepSuite, OnMemory):
    """In memory."""


class KeepInFilesTest(KeepSuite, OnFilesystem):
    """In files."""
