"""Collections of what older registries, other tools and other digest algorithms leave."""

from __future__ import annotations

import json
from typing import Any

from regd.manifest import DOCKER_IMAGE, DOCKER_LIST
from regd.names import Digest, Tag
from regd.registry.referrers import fallback_tag
from regd.storage import layout
from regd.storage.layout import Path, UploadId
from tests.maintenance.case import CollectionSuite
from tests.registry.case import CONFIG, LAYER, OnFilesystem, OnMemory, descriptor, image_manifest, index_manifest, name


class Suite(CollectionSuite):
    async def keeps(self, *references: tuple[str, str], untagged: bool = True, removed: int = 0) -> None:
        """See that nothing but so many blobs goes, and all of these can still be pulled."""
        await self.age()
        summary = await self.collect(untagged=untagged)
        self.assertEqual((summary.blobs_swept, summary.skipped), (removed, 0))
        for repository, reference in references:
            await self.pull(repository, reference)

    async def put_manifest(self, repository: str, tag: str, content: bytes) -> None:
        """Put a manifest there as another registry would, with other rules."""
        digest = Digest.of(content)
        await self.put_file(layout.blob_data(digest), content)
        await self.put_file(layout.revision_link(name(repository), digest), digest.encode())
        await self.put_file(layout.tag_link(name(repository), Tag(tag)), digest.encode())

    async def test_docker_lists(self) -> None:
        for blob in (CONFIG, LAYER):
            await self.push("a", blob)
        image = image_manifest(LAYER, media_type=DOCKER_IMAGE)
        await self.put("a", None, image)
        await self.put("a", "v1", index_manifest(image, media_type=DOCKER_LIST, child_type=DOCKER_IMAGE))
        await self.keeps(("a", "v1"))

    async def test_an_index_of_which_some_children_are_elsewhere(self) -> None:
        for blob in (CONFIG, LAYER):
            await self.push("a", blob)
        here, elsewhere = image_manifest(LAYER), image_manifest(b"elsewhere")
        await self.put("a", None, here)
        await self.put_manifest("a", "v1", index_manifest(here, elsewhere))
        await self.keeps(("a", Digest.of(here)))
        self.assertTrue(await self.held("a", Digest.of(here)))

    async def test_layers_that_are_elsewhere(self) -> None:
        await self.push("a", CONFIG)
        foreign = {**descriptor(b"x", "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"), "urls": ["https://example.com/x"]}
        document = json.loads(image_manifest(media_type=DOCKER_IMAGE))
        await self.put_manifest("a", "v1", json.dumps({**document, "layers": [foreign]}).encode())
        await self.age()
        summary = await self.collect(untagged=True)
        self.assertEqual((summary.blobs_swept, summary.skipped, summary.blobs), (0, 0, 3))

    async def test_the_tag_schema_of_referrers(self) -> None:
        image = await self.push_image("a", "v1", LAYER)
        await self.push("a", b"signature")
        about = image_manifest(b"signature")
        await self.put("a", None, about)
        await self.put("a", str(fallback_tag(image)), index_manifest(about))
        await self.keeps(("a", "v1"), ("a", str(fallback_tag(image))))

    async def test_sha512(self) -> None:
        digests = [await self.push("a", blob, "sha512") for blob in (CONFIG, LAYER, b"alone")]
        document = json.loads(image_manifest(LAYER))
        document["config"]["digest"], document["layers"][0]["digest"] = digests[:2]
        content = json.dumps(document).encode()
        await self.put("a", Digest.of(content, "sha512"), content, tags=["v1"])
        await self.keeps(("a", "v1"), removed=1)
        self.assertFalse(await self.linked("a", digests[2]))

    async def old_sha512(self, content: bytes) -> tuple[Digest, Digest]:
        """A blob as registry:2 stores it that is pushed by its sha512 digest."""
        sha256, sha512 = Digest.of(content), Digest.of(content, "sha512")
        await self.put_file(layout.blob_data(sha256), content)
        for digest in (sha256, sha512):
            await self.put_file(layout.layer_link(name("a"), digest), sha256.encode())
        return sha256, sha512

    async def test_sha512_as_registry_2_stores_it(self) -> None:
        config, layer, alone = [await self.old_sha512(blob) for blob in (CONFIG, LAYER, b"alone")]
        document = json.loads(image_manifest(LAYER))
        document["config"]["digest"], document["layers"][0]["digest"] = config[1], layer[1]
        await self.put("a", "v1", json.dumps(document).encode())
        await self.keeps(("a", "v1"), removed=1)
        self.assertEqual([await self.linked("a", digest) for digest in (*layer, *alone)], [True, True, False, False])

    async def test_manifests_by_sha512_as_registry_2_stores_them(self) -> None:
        await self.push_image("a", "v1", LAYER)
        await self.push("a", b"2")
        image = image_manifest(b"2")
        sha256, sha512 = Digest.of(image), Digest.of(image, "sha512")
        await self.put_file(layout.blob_data(sha256), image)
        await self.put_file(layout.revision_link(name("a"), sha512), sha256.encode())
        child = {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": sha512, "size": len(image)}
        index = json.dumps({"schemaVersion": 2, "manifests": [child]}).encode()
        await self.put("a", "list", index)
        await self.age()
        summary = await self.collect(untagged=True)
        self.assertEqual((summary.blobs_swept, summary.manifests_removed, summary.skipped), (0, 0, 0))
        await self.untag("a", "list")
        summary = await self.collect(untagged=True)
        self.assertEqual((summary.blobs_swept, summary.manifests_removed), (3, 2))
        self.assertFalse(await self.held("a", sha512))
        await self.pull("a", "v1")

    async def test_manifests_among_the_layers_as_registry_2_1_linked_them(self) -> None:
        tagged = await self.push_image("a", "v1", LAYER)
        untagged = await self.push_image("a", "v2", LAYER, b"2")
        child = await self.push_image("a", "v3", b"3")
        index = await self.put("a", "v4", index_manifest(image_manifest(b"3")))
        for digest in (tagged, untagged, child):
            await self.move(layout.revision_link(name("a"), digest), layout.layer_link(name("a"), digest))
            await self.driver.prune(layout.revision(name("a"), digest))
        for tag in ("v2", "v3"):
            await self.untag("a", tag)
        self.registry = self.restarted(grace=3600)
        await self.keeps(("a", "v1"), ("a", untagged), ("a", child), ("a", index), untagged=False)
        # An untagged one goes only when that is asked for.
        await self.keeps(("a", "v1"), ("a", child), ("a", index), removed=2)
        self.assertFalse(await self.linked("a", untagged))

    async def test_tags_without_a_revision(self) -> None:
        image = await self.push_image("a", "v1", LAYER)
        await self.driver.delete(layout.revision(name("a"), image))
        await self.put_file(layout.tag_link(name("a"), Tag("gone")), Digest.of(b"gone").encode())
        await self.keeps()
        self.assertTrue(await self.there(image))
        self.assertTrue(await self.there(Digest.of(LAYER)))

    async def test_what_deletes_leave_of_a_directory(self) -> None:
        image = await self.push_image("a", "v1", LAYER)
        alone = await self.push("a", b"alone")
        other = await self.push_image("a", "v2", LAYER, b"2")
        # registry:2 removes the link and leaves its directory.
        await self.driver.delete(layout.revision_link(name("a"), other))
        await self.driver.delete(layout.tag(name("a"), Tag("v2")))
        await self.driver.delete(layout.layer_link(name("a"), alone))
        await self.driver.delete(layout.blob_data(alone))
        await self.keeps(("a", image), removed=2)
        for path in (layout.revision(name("a"), other), layout.layer(name("a"), alone), layout.blob_data(alone).rpartition("/")[0]):
            self.assertFalse(await self.driver.exists(Path(path)), path)

    async def test_repositories_with_nothing_in_them(self) -> None:
        for repository in ("a", "a/b", "a/b/c", "d/e/f", "g"):
            await self.push_image(repository, "v1", LAYER)
        for repository in ("a/b", "d/e/f", "a/b/c"):
            await self.drop(repository, Digest.of(image_manifest(LAYER)))
        await self.put_file("docker/registry/v2/repositories/h/_manifests/tags/old/index/x", b"")
        await self.driver.delete(Path("docker/registry/v2/repositories/h/_manifests/tags/old/index/x"))
        await self.age()
        summary = await self.collect()
        self.assertEqual((summary.repositories, summary.repositories_removed), (6, 4))
        self.assertEqual([str(one) async for one in self.registry.catalog.candidates()], ["a", "g"])
        self.assertEqual(sorted(await self.driver.scan(layout.repositories())), ["a", "g"])
        self.assertEqual([entry for entry in await self.driver.scan(layout.repository("a")) if not entry.startswith("_")], [])
        # One that others are below.
        await self.push_image("a/b", "v1", LAYER)
        await self.drop("a", Digest.of(image_manifest(LAYER)))
        await self.age()
        self.assertEqual((await self.collect()).repositories_removed, 1)
        self.assertEqual(await self.driver.scan(layout.repository("a")), ["b"])
        await self.pull("a/b", "v1")

    async def test_uploads(self) -> None:
        await self.push_image("a", "v1", LAYER)
        going = await self.registry.uploads.start(name("b"), "sha256")
        left = layout.uploads(name("a"))
        await self.put_file(f"{left}/{UploadId.new()}/hashstates/sha256/0", b"")
        await self.driver.delete((await self.files(left))[0])
        await self.age()
        before: Any = await self.files(layout.uploads(name("b")))
        summary = await self.collect()
        self.assertEqual((summary.uploads_removed, summary.repositories_removed), (1, 0))
        self.assertEqual(await self.files(layout.uploads(name("b"))), before)
        self.assertTrue(before)
        await self.registry.uploads.cancel(going)
        await self.collect()
        self.assertFalse(await self.driver.exists(layout.repository("b")))

    async def test_tags_that_remember_what_is_gone(self) -> None:
        first = await self.push_image("a", "v1", LAYER)
        await self.push_image("a", "v2", LAYER)
        await self.push_image("a", "v1", LAYER, b"2")
        await self.untag("a", "v2")
        await self.put_file(layout.tag_index_link(name("a"), Tag("v0"), first), first.encode())
        await self.age()
        summary = await self.collect(untagged=True)
        self.assertEqual((summary.manifests_removed, summary.blobs_swept), (1, 1))
        self.assertFalse(await self.driver.exists(layout.tag_index_link(name("a"), Tag("v1"), first)))
        self.assertEqual(await self.driver.scan(layout.tags(name("a"))), ["v1"])
        await self.pull("a", "v1")

    async def test_links_to_referrers_go_with_them(self) -> None:
        image = await self.push_image("a", "v1", LAYER)
        subject = descriptor(image_manifest(LAYER), "application/vnd.oci.image.manifest.v1+json")
        elsewhere = descriptor(b"elsewhere", "application/vnd.oci.image.manifest.v1+json")
        for one in (subject, elsewhere):
            await self.put("a", None, image_manifest(LAYER, subject=one))
        await self.age()
        summary = await self.collect(untagged=True)
        self.assertEqual((summary.manifests_removed, summary.manifests), (1, 2))
        self.assertFalse(await self.driver.exists(Path(layout.referrers(name("a"), Digest.of(b"elsewhere"), "sha256"))))
        self.assertTrue(await self.driver.exists(layout.referrers(name("a"), image, "sha256")))
        self.assertEqual(len((await self.registry.referrers.page(name("a"), image, 10)).entries), 1)


class InMemoryTest(Suite, OnMemory):
    """In memory."""


class OnDiskTest(Suite, OnFilesystem):
    """On disk."""
