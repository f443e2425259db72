"""Manifests: taken when all they need is there, served to the byte, found by tag and digest in new trees and old ones, and deleted."""

from __future__ import annotations

import json
from typing import Any
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from regd.errors import DigestInvalid, ManifestBlobUnknown, ManifestInvalid, ManifestTooLarge, ManifestUnknown
from regd.manifest import DOCKER_IMAGE, DOCKER_LIST, FOREIGN_LAYERS, LIMIT, OCI_ARTIFACT, OCI_IMAGE, OCI_INDEX, Platform
from regd.names import Digest, RepositoryName, Tag
from regd.registry.by_digest import ByDigest
from regd.registry.manifests import _CACHE_OVERHEAD, StoredManifest, _weight
from regd.storage import layout
from regd.storage.layout import Path
from regd.storage.links import Links
from tests.registry.case import CONFIG, LAYER, OnFilesystem, OnMemory, RegistrySuite, descriptor, image_manifest, index_manifest, name
from tests.support import together

REPOSITORY = name("library/alpine")
LATEST = Tag("latest")


class ManifestsSuite(RegistrySuite):
    async def unknown(self, reference: str, repository: str = REPOSITORY) -> None:
        wanted = Digest(reference) if ":" in reference else Tag(reference)
        error = await self.refused(ManifestUnknown, self.registry.manifests.get(name(repository), wanted))
        self.assertEqual(error.detail, {"digest" if ":" in reference else "tag": reference})

    async def served(self, reference: str, content: bytes, media_type: str = OCI_IMAGE, repository: str = REPOSITORY) -> None:
        wanted = Digest(reference) if ":" in reference else Tag(reference)
        stored = await self.registry.manifests.get(name(repository), wanted)
        self.assertEqual((stored.content, stored.media_type), (content, media_type))
        self.assertEqual(Digest.of(content, stored.digest.algorithm), stored.digest)

    # Taken and served.

    async def test_each_kind_by_tag_and_by_digest(self) -> None:
        await self.push_image(REPOSITORY, "image", LAYER)
        image = image_manifest(LAYER)
        docker = image_manifest(LAYER, media_type=DOCKER_IMAGE)
        for kind, content in (
            (OCI_IMAGE, image),
            (DOCKER_IMAGE, docker),
            (OCI_INDEX, index_manifest(image)),
            (DOCKER_LIST, index_manifest(docker, image, media_type=DOCKER_LIST)),
            (OCI_ARTIFACT, json.dumps({"mediaType": OCI_ARTIFACT, "artifactType": "a/b", "blobs": [descriptor(LAYER)]}).encode()),
            (OCI_IMAGE, json.dumps({"schemaVersion": 2, "config": descriptor(CONFIG), "layers": []}, indent=3).encode()),
            (OCI_INDEX, b' {"schemaVersion" : 2, "manifests" : [] }\n\n'),
        ):
            digest = await self.put(REPOSITORY, "latest", content, kind)
            self.assertEqual(digest, Digest.of(content))
            for reference in ("latest", digest):
                await self.served(reference, content, kind)
            self.registry = self.restarted()
            await self.served("latest", content, kind)
            await self.unknown(digest, "other")
            await self.unknown("latest", "other")
        await self.unknown("other")
        await self.unknown(Digest.of(b"other"))
        self.assertEqual(self.damage.count, 0)

    async def test_by_digest_without_a_tag(self) -> None:
        await self.push_image(REPOSITORY, "first", LAYER)
        content = image_manifest(LAYER, LAYER)
        for algorithm in ("sha256", "sha512"):
            digest = await self.put(REPOSITORY, Digest.of(content, algorithm), content)
            self.assertEqual(digest.algorithm, algorithm)
            await self.served(digest, content)
        self.assertEqual((await self.registry.tags.page(REPOSITORY, 10)).entries, ("first",))

    async def test_by_another_digest(self) -> None:
        await self.push_image(REPOSITORY, "first", LAYER)
        content = image_manifest(LAYER, LAYER)
        for wrong in (Digest.of(b"other"), Digest.of(b"other", "sha512")):
            error = await self.refused(DigestInvalid, self.put(REPOSITORY, wrong, content))
            self.assertEqual(error.detail, {"digest": wrong, "received": Digest.of(content, wrong.algorithm)})
            await self.unknown(wrong)
        await self.unknown(Digest.of(content))

    async def test_tags_besides_the_reference(self) -> None:
        await self.push_image(REPOSITORY, "first", LAYER)
        content = image_manifest(LAYER, LAYER)
        digest = await self.put(REPOSITORY, None, content, tags=["a", "b", "a"])
        for tag in ("a", "b"):
            await self.served(tag, content)
            self.assertEqual(await self.read(layout.tag_index_link(REPOSITORY, Tag(tag), digest)), digest.encode())

    async def test_what_is_durable_before_what(self) -> None:
        """Bytes, then that the repository holds them, then what refers to them: whatever a crash leaves points to something."""
        await self.push_image(REPOSITORY, "first", LAYER)
        subject = descriptor(image_manifest(LAYER), OCI_IMAGE)
        content = image_manifest(LAYER, subject=subject)
        digest = Digest.of(content)
        self.driver.calls.clear()
        await self.put(REPOSITORY, "latest", content)
        self.assertEqual(
            self.driver.asked("write"),
            [
                (
                    layout.blob_data(digest),
                    layout.revision_link(REPOSITORY, digest),
                    [
                        layout.referrer_link(REPOSITORY, Digest(subject["digest"]), digest),
                        layout.tag_index_link(REPOSITORY, LATEST, digest),
                        layout.tag_link(REPOSITORY, LATEST),
                    ],
                )
            ],
        )

    async def test_pushed_again_it_is_not_written_again(self) -> None:
        content = image_manifest(LAYER)
        digest = await self.push_image(REPOSITORY, "latest", LAYER)
        self.driver.calls.clear()
        await self.put(REPOSITORY, "other", content)
        (written,) = self.driver.asked("write")
        self.assertNotIn(layout.blob_data(digest), written)
        await self.served("other", content)

    async def test_a_tag_moves_on_and_remembers(self) -> None:
        first = await self.push_image(REPOSITORY, "latest", LAYER)
        second = await self.push_image(REPOSITORY, "latest", LAYER, b"more")
        await self.served("latest", image_manifest(LAYER, b"more"))
        await self.served(first, image_manifest(LAYER))
        for digest in (first, second):
            self.assertTrue(await self.driver.exists(layout.tag_index_link(REPOSITORY, LATEST, digest)))

    async def test_pushes_side_by_side(self) -> None:
        for layer in (LAYER, b"1", b"2", b"3"):
            await self.push_image(REPOSITORY, "first", layer)
        contents = [image_manifest(layer) for layer in (b"1", b"2", b"3")] * 2
        await together(*(self.put(REPOSITORY, "latest", content) for content in contents))
        self.assertIn((await self.registry.manifests.get(REPOSITORY, LATEST)).content, contents)
        for content in contents:
            await self.served(Digest.of(content), content)

    # What is refused.

    async def test_too_large(self) -> None:
        for size, kind in ((LIMIT + 1, ManifestTooLarge), (LIMIT, ManifestInvalid)):
            await self.refused(kind, self.put(REPOSITORY, "latest", b" " * size))
        await self.push(REPOSITORY, CONFIG)
        content = image_manifest(annotations={"a": "b"})
        content += b" " * (LIMIT - len(content))
        await self.put(REPOSITORY, "latest", content)
        await self.served("latest", content)

    async def test_each_missing_blob_is_named_once(self) -> None:
        await self.push(REPOSITORY, LAYER)
        await self.push("elsewhere", b"two")
        error = await self.refused(ManifestBlobUnknown, self.put(REPOSITORY, "latest", image_manifest(b"one", LAYER, b"two", b"one")))
        missing = [entry["detail"]["digest"] for entry in error.envelope()["errors"]]
        self.assertEqual(missing, [Digest.of(CONFIG), Digest.of(b"one"), Digest.of(b"two")])
        for entry in error.envelope()["errors"]:
            self.assertIn(entry["detail"]["digest"], entry["message"])
        await self.unknown("latest")
        self.assertFalse(await self.driver.exists(layout.manifests(REPOSITORY)))
        self.assertIsNone(await self.registry.blobs.stored(Digest.of(image_manifest(b"one", LAYER, b"two", b"one"))))

    async def test_each_missing_child_is_named(self) -> None:
        await self.push_image(REPOSITORY, "latest", LAYER)
        await self.push_image("elsewhere", "latest", b"other")
        children = [image_manifest(LAYER), image_manifest(b"other"), image_manifest(b"none")]
        error = await self.refused(ManifestBlobUnknown, self.put(REPOSITORY, "index", index_manifest(*children)))
        missing = [entry["detail"]["digest"] for entry in error.envelope()["errors"]]
        self.assertEqual(missing, [Digest.of(children[1]), Digest.of(children[2])])

    async def test_what_has_lost_its_bytes_is_missing(self) -> None:
        digest = await self.push_image(REPOSITORY, "latest", LAYER)
        for lost, content in ((Digest.of(LAYER), image_manifest(LAYER, LAYER)), (digest, index_manifest(image_manifest(LAYER)))):
            for damaged in (b"", None):
                path = layout.blob_data(lost)
                whole = await self.read(path)
                if damaged is None:
                    await self.driver.delete(path)
                else:
                    await self.driver.write((path, damaged))
                error = await self.refused(ManifestBlobUnknown, self.put(REPOSITORY, "new", content))
                self.assertEqual(error.detail, {"digest": lost})
                await self.driver.write((path, whole))

    async def test_a_subject_need_not_be_there(self) -> None:
        await self.push_image(REPOSITORY, "latest", LAYER)
        subject = descriptor(b"not here", OCI_IMAGE)
        for content in (image_manifest(LAYER, subject=subject), index_manifest(subject=subject)):
            digest = await self.put(REPOSITORY, None, content)
            await self.served(digest, content, OCI_INDEX if b"manifests" in content else OCI_IMAGE)

    async def test_sparse_indexes(self) -> None:
        await self.push_image(REPOSITORY, "latest", LAYER)
        here, away = image_manifest(LAYER), image_manifest(b"away")

        def listing(platform_here: object, platform_away: object) -> bytes:
            children = [descriptor(here, OCI_IMAGE, platform=platform_here), descriptor(away, OCI_IMAGE, platform=platform_away)]
            return json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children}).encode()

        amd64, arm64 = {"os": "linux", "architecture": "amd64"}, {"os": "linux", "architecture": "arm64", "variant": "v8"}
        # validation.manifests.indexes.platforms: all, list, none.
        for platforms, content, taken in (
            (None, listing(amd64, arm64), False),
            ({Platform("linux", "amd64")}, listing(amd64, arm64), True),
            ({Platform("linux", "amd64")}, listing(arm64, amd64), False),
            ({Platform("linux", "amd64")}, listing(amd64, None), True),
            ({Platform("linux", "amd64"), Platform("linux", "arm64")}, listing(amd64, arm64), False),
            (frozenset(), listing(amd64, arm64), True),
        ):
            self.registry = self.restarted(platforms=None if platforms is None else frozenset(platforms))
            work = self.put(REPOSITORY, "index", content)
            if taken:
                await work
                await self.served("index", content, OCI_INDEX)
            else:
                await self.refused(ManifestBlobUnknown, work)

    async def test_foreign_layers(self) -> None:
        await self.push(REPOSITORY, CONFIG)
        self.registry = self.restarted(url_permitted=lambda url: url.startswith("https://allowed.example/"))

        def manifest(media_type: str, *urls: object) -> bytes:
            layer = descriptor(LAYER, media_type, **({"urls": list(urls)} if urls else {}))
            return json.dumps({"schemaVersion": 2, "config": descriptor(CONFIG), "layers": [layer]}).encode()

        good = "https://allowed.example/layer"
        for media_type in FOREIGN_LAYERS:
            await self.put(REPOSITORY, "latest", manifest(media_type, good))
            await self.served("latest", manifest(media_type, good))
            # Without URLs it has to be here.
            await self.refused(ManifestBlobUnknown, self.put(REPOSITORY, "latest", manifest(media_type)))
            for wrong in (
                "https://elsewhere.example/layer", "ftp://allowed.example/x", "https:///x", "allowed.example/x", "", "https://allowed.example/x#y",
                "http://[", "javascript:x", "x" * 10_000,
            ):  # fmt: skip
                for urls in ((wrong,), (good, wrong)):
                    error = await self.refused(ManifestInvalid, self.put(REPOSITORY, "latest", manifest(media_type, *urls)))
                    self.assertLess(len(error.message), 500)
        # Any other layer has to be here, wherever else it may be.
        await self.refused(ManifestBlobUnknown, self.put(REPOSITORY, "latest", manifest("application/x", good)))

    async def test_foreign_layers_are_nowhere_unless_allowed(self) -> None:
        await self.push(REPOSITORY, CONFIG)
        layer = descriptor(LAYER, next(iter(FOREIGN_LAYERS)), urls=["https://example.com/x"])
        content = json.dumps({"schemaVersion": 2, "config": descriptor(CONFIG), "layers": [layer]}).encode()
        error = await self.refused(ManifestInvalid, self.put(REPOSITORY, "latest", content))
        self.assertIn("validation.manifests.urls", error.message)

    # Old trees and damaged ones.

    async def test_links_as_registry_2_1_wrote_them(self) -> None:
        content = image_manifest(LAYER)
        digest = await self.push_image(REPOSITORY, "latest", LAYER)
        await self.move(layout.revision_link(REPOSITORY, digest), layout.layer_link(REPOSITORY, digest))
        for reference in ("latest", digest):
            await self.served(reference, content)
        await self.put(REPOSITORY, "index", index_manifest(content))
        await self.registry.manifests.delete(REPOSITORY, digest)
        await self.unknown(digest)
        await self.unknown("latest")
        await self.refused(ManifestUnknown, self.registry.manifests.delete(REPOSITORY, digest))

    async def test_a_layer_is_no_manifest(self) -> None:
        await self.push_image(REPOSITORY, "latest", LAYER)
        for blob in (LAYER, CONFIG):
            await self.unknown(Digest.of(blob))
            await self.refused(ManifestUnknown, self.registry.manifests.delete(REPOSITORY, Digest.of(blob)))
            self.assertEqual(await self.blob(REPOSITORY, Digest.of(blob)), blob)
        # It is what it should be, and so nothing to be reported.
        self.assertEqual(self.damage.count, 0)

    async def test_broken_links(self) -> None:
        content = image_manifest(LAYER)
        digest = await self.push_image(REPOSITORY, "latest", LAYER)
        other = await self.push_image(REPOSITORY, "other", LAYER, b"more")
        for link, reference in ((layout.tag_link(REPOSITORY, LATEST), "latest"), (layout.revision_link(REPOSITORY, digest), digest)):
            for garbage in (b"", b"garbage", b"sha256:" + b"0" * 63):
                await self.driver.write((link, garbage))
                await self.unknown(reference)
            await self.put(REPOSITORY, "latest", content)
            await self.served(reference, content)
        self.assertEqual(self.damage.count, 2)
        # One that would have another manifest served under this digest.
        await self.driver.write(Links.file(layout.revision_link(REPOSITORY, digest), other))
        await self.unknown(digest)

    async def test_a_tag_of_what_is_gone(self) -> None:
        digest = await self.push_image(REPOSITORY, "latest", LAYER)
        await self.driver.delete(layout.revision(REPOSITORY, digest))
        await self.unknown("latest")
        self.assertIsNone(await self.registry.manifests.resolve(REPOSITORY, LATEST))

    async def test_a_damaged_file_is_not_served_and_the_next_push_replaces_it(self) -> None:
        content = image_manifest(LAYER)
        digest = await self.push_image(REPOSITORY, "latest", LAYER)
        for count, damaged in enumerate((b"", content[:-1], content + b" ", image_manifest(b"other"), b"\0" * len(content)), start=1):
            await self.driver.write((layout.blob_data(digest), damaged))
            self.registry = self.restarted()
            await self.unknown("latest")
            self.assertEqual(self.damage.count, count)
            await self.put(REPOSITORY, "latest", content)
            await self.served("latest", content)

    async def test_a_manifest_larger_than_may_be_is_reported(self) -> None:
        await self.push(REPOSITORY, CONFIG)
        content = image_manifest() + b" " * LIMIT
        digest = await self.push(REPOSITORY, content)
        await self.move(layout.layer_link(REPOSITORY, digest), layout.revision_link(REPOSITORY, digest))
        await self.unknown(digest)
        self.assertEqual(self.damage.count, 1)

    async def test_what_an_older_registry_took_is_served(self) -> None:
        # No layer of it is here, and its digests are odd.
        content = json.dumps({"schemaVersion": 2, "mediaType": DOCKER_IMAGE, "config": {"digest": "x"}, "layers": [{}]}).encode()
        digest = await self.push(REPOSITORY, content)
        await self.driver.write(Links.file(layout.revision_link(REPOSITORY, digest), digest))
        await self.served(digest, content, DOCKER_IMAGE)
        self.assertIsNone(await self.registry.manifests.read(digest))
        self.assertEqual(self.damage.count, 1)
        await self.registry.manifests.delete(REPOSITORY, digest)

    # Remembered ones.

    async def test_what_is_remembered_is_not_read_again(self) -> None:
        content = image_manifest(LAYER)
        digest = await self.push_image(REPOSITORY, "latest", LAYER)
        await self.served("latest", content)
        self.driver.calls.clear()
        await self.served("latest", content)
        await self.served(digest, content)
        self.assertNotIn(layout.blob_data(digest), [path for path, _ in self.driver.asked("read")])

    async def test_what_was_collected_is_not_served_from_memory(self) -> None:
        digest = await self.push_image(REPOSITORY, "latest", LAYER)
        await self.served("latest", image_manifest(LAYER))
        # By another process.
        await self.driver.delete(layout.blob_data(digest))
        await self.unknown("latest")
        await self.unknown(digest)
        self.assertIsNone(await self.registry.manifests.read(digest))

    async def test_what_another_process_deleted_or_moved_is_seen(self) -> None:
        first = await self.push_image(REPOSITORY, "latest", LAYER)
        await self.served("latest", image_manifest(LAYER))
        here, self.registry = self.registry, self.restarted()
        await self.push_image(REPOSITORY, "latest", LAYER, b"more")
        there, self.registry = self.registry, here
        await self.served("latest", image_manifest(LAYER, b"more"))
        await there.manifests.delete(REPOSITORY, first)
        await self.unknown(first)

    # Deleted.

    async def test_deleted_with_its_tags(self) -> None:
        digest = await self.push_image(REPOSITORY, "a", LAYER)
        await self.put(REPOSITORY, "c", image_manifest(LAYER))
        other = await self.push_image(REPOSITORY, "b", LAYER, b"more")
        await self.push_image("elsewhere", "a", LAYER)
        # In the way: none of these is a tag.
        for path in ("file", "no tag/current/link", "without/index/x", "empty/current/link"):
            await self.driver.write((Path(f"{layout.tags(REPOSITORY)}/{path}"), b""))
        await self.registry.manifests.delete(REPOSITORY, digest)
        for reference in ("a", "c", digest):
            await self.unknown(reference)
        for reference in ("b", other):
            await self.served(reference, image_manifest(LAYER, b"more"))
        await self.served("a", image_manifest(LAYER), repository="elsewhere")
        self.assertEqual((await self.registry.tags.page(REPOSITORY, 10)).entries, ("b",))
        self.assertIsNotNone(await self.registry.blobs.stored(digest))
        await self.refused(ManifestUnknown, self.registry.manifests.delete(REPOSITORY, digest))
        await self.put(REPOSITORY, "a", image_manifest(LAYER))
        await self.served("a", image_manifest(LAYER))

    async def test_a_child_outlives_its_index(self) -> None:
        child = await self.push_image(REPOSITORY, "child", LAYER)
        digest = await self.put(REPOSITORY, "latest", index_manifest(image_manifest(LAYER)))
        await self.registry.manifests.delete(REPOSITORY, digest)
        await self.served(child, image_manifest(LAYER))

    async def test_what_has_lost_its_bytes_can_be_deleted(self) -> None:
        digest = await self.push_image(REPOSITORY, "latest", LAYER)
        await self.driver.delete(layout.blob_data(digest))
        await self.registry.manifests.delete(REPOSITORY, digest)
        self.assertEqual((await self.registry.tags.page(REPOSITORY, 10)).entries, ())

    async def test_a_sha512_manifest_is_deleted(self) -> None:
        await self.push_image(REPOSITORY, "first", LAYER)
        content = image_manifest(LAYER, LAYER)
        digest = await self.put(REPOSITORY, Digest.of(content, "sha512"), content, tags=["latest"])
        await self.registry.manifests.delete(REPOSITORY, digest)
        await self.unknown(digest)
        await self.unknown("latest")

    async def test_untagged(self) -> None:
        digest = await self.push_image(REPOSITORY, "latest", LAYER)
        await self.registry.manifests.untag(REPOSITORY, LATEST)
        await self.unknown("latest")
        await self.served(digest, image_manifest(LAYER))
        for tag in ("latest", "other"):
            error = await self.refused(ManifestUnknown, self.registry.manifests.untag(REPOSITORY, Tag(tag)))
            self.assertEqual(error.detail, {"tag": tag})
        await self.refused(ManifestUnknown, self.registry.manifests.untag(name("nowhere"), LATEST))

    async def test_a_broken_tag_can_be_deleted(self) -> None:
        await self.driver.write((layout.tag_link(REPOSITORY, LATEST), b""))
        await self.registry.manifests.untag(REPOSITORY, LATEST)
        self.assertFalse(await self.driver.exists(layout.tag(REPOSITORY, LATEST)))

    async def test_what_a_collection_takes_while_it_is_deleted_is_deleted(self) -> None:
        """Between its last tag and itself: nothing holds it any more."""
        digest = await self.push_image(REPOSITORY, "v1")
        drop_tag = self.registry.manifests._drop_tag

        async def and_the_rest(repository: RepositoryName, tag: Tag) -> bool:
            dropped = await drop_tag(repository, tag)
            await self.driver.delete(layout.revision(repository, digest))
            return dropped

        with patch.object(self.registry.manifests, "_drop_tag", and_the_rest):
            await self.registry.manifests.delete(REPOSITORY, digest)
        await self.refused(ManifestUnknown, self.registry.manifests.delete(REPOSITORY, digest))

    async def test_deletes_at_once(self) -> None:
        digest = await self.push_image(REPOSITORY, "latest", LAYER)
        results = await together(
            *(self.registry.manifests.delete(REPOSITORY, digest) for _ in range(3)),
            self.registry.manifests.untag(REPOSITORY, LATEST),
            errors=(ManifestUnknown,),
        )
        self.assertIn(None, results)
        await self.unknown(digest)
        await self.unknown("latest")

    async def test_a_push_beside_a_delete(self) -> None:
        content = image_manifest(LAYER)
        for _ in range(5):
            digest = await self.push_image(REPOSITORY, "latest", LAYER)
            await together(
                self.put(REPOSITORY, "latest", content), self.registry.manifests.delete(REPOSITORY, digest), errors=(ManifestUnknown,)
            )
        await self.put(REPOSITORY, "latest", content)
        await self.served("latest", content)


class ManifestsInMemoryTest(ManifestsSuite, OnMemory):
    pass


class ManifestsInFilesTest(ManifestsSuite, OnFilesystem):
    pass


class CacheTest(SynchronousTestCase):
    def stored(self, size: int, seed: int) -> StoredManifest:
        content = bytes([seed]) * size
        return StoredManifest(Digest.of(content), OCI_IMAGE, content)

    def kept(self, cache: Any, *manifests: StoredManifest) -> list[bool]:
        # Without touching what is looked at.
        return [manifest.digest in cache._kept for manifest in manifests]

    def test_the_least_recently_used_goes_first(self) -> None:
        cache = ByDigest(10 + 2 * _CACHE_OVERHEAD, _weight)
        a, b, c = (self.stored(4, seed) for seed in range(3))
        cache.put(a.digest, a)
        cache.put(b.digest, b)
        self.assertIs(cache.get(a.digest), a)
        cache.put(a.digest, a)
        cache.put(c.digest, c)
        self.assertEqual(self.kept(cache, a, b, c), [True, False, True])
        self.assertIsNone(cache.get(b.digest))

    def test_one_beyond_all_bounds_leaves_an_empty_cache(self) -> None:
        cache = ByDigest(10 + _CACHE_OVERHEAD, _weight)
        a, b = self.stored(4, 0), self.stored(11, 1)
        cache.put(a.digest, a)
        cache.put(b.digest, b)
        self.assertEqual(self.kept(cache, a, b), [False, False])
        cache.put(a.digest, a)
        self.assertEqual(self.kept(cache, a), [True])
