"""What a client has been told is there: kept fresh in the storage for as long as a push may take, however it was told."""

from __future__ import annotations

import json
import os
import time
from typing import Any

from regd.errors import BlobUnknown, ManifestBlobUnknown, ManifestUnknown
from regd.manifest import FOREIGN_LAYERS, OCI_IMAGE, OCI_INDEX, Platform
from regd.names import Digest, Tag
from regd.registry.promises import Promises
from regd.storage import layout
from regd.storage.driver import Missing, StorageError
from regd.storage.layout import Path
from regd.storage.links import Links
from tests.registry.case import (
    CONFIG,
    GRACE,
    LAYER,
    OnFilesystem,
    OnMemory,
    RegistrySuite,
    descriptor,
    image_manifest,
    index_manifest,
    name,
)
from tests.support import FakeBody

REPOSITORY = name("library/alpine")
DIGEST = Digest.of(LAYER)
DATA = layout.blob_data(DIGEST)
LINK = layout.layer_link(REPOSITORY, DIGEST)


class PromisesSuite(RegistrySuite):
    def setUp(self) -> None:
        super().setUp()
        self.now = time.time()

    async def age(self, *paths: Path, by: float = 10 * GRACE) -> None:
        """Have files be that old, in seconds."""
        for path in paths:
            if self.on_disk:
                os.utime(f"{self.root}/{path}", (self.now - by, self.now - by))
            else:
                self.driver._file(path).modified = self.now - by

    async def old(self, path: Path) -> bool:
        """Whether a file is older than a promise allows."""
        return bool((await self.driver.stat(path)).modified < self.now - GRACE / 2)

    # Told by a look.

    async def test_an_old_blob_is_renewed_for_whoever_relies_on_it(self) -> None:
        await self.push(REPOSITORY, LAYER)
        await self.age(DATA, LINK)
        await self.registry.blobs.stat(REPOSITORY, DIGEST)
        await self.blob(REPOSITORY, DIGEST)
        await self.registry.blobs.fetch(REPOSITORY, DIGEST)
        self.assertEqual(self.driver.asked("renew"), [])
        blob = await self.registry.blobs.promise(REPOSITORY, DIGEST)
        self.assertEqual((blob.digest, blob.size), (DIGEST, len(LAYER)))
        # The link first: a collection takes a link whose blob is old.
        self.assertEqual(self.driver.asked("renew"), [(LINK,), (DATA,)])
        self.assertFalse(await self.old(DATA))
        self.assertFalse(await self.old(LINK))
        await self.registry.blobs.promise(REPOSITORY, DIGEST)
        self.assertEqual(len(self.driver.asked("renew")), 2)

    async def test_a_promise_lasts_half_the_grace_period_at_least(self) -> None:
        await self.push(REPOSITORY, LAYER)
        for age, renewed in ((GRACE / 2 - 60, False), (GRACE / 2 + 60, True)):
            self.driver.calls.clear()
            await self.age(DATA, by=age)
            await self.registry.blobs.promise(REPOSITORY, DIGEST)
            self.assertEqual(bool(self.driver.asked("renew")), renewed)

    async def test_what_is_not_there_is_not_promised(self) -> None:
        await self.push("other", LAYER)
        await self.age(DATA)
        await self.refused(BlobUnknown, self.registry.blobs.promise(REPOSITORY, DIGEST))
        await self.refused(ManifestUnknown, self.registry.manifests.promise(REPOSITORY, DIGEST))
        self.assertEqual(self.driver.asked("renew"), [])

    async def test_a_blob_that_is_collected_between_the_look_and_the_promise(self) -> None:
        for path in (DATA, LINK):
            await self.push(REPOSITORY, LAYER)
            await self.age(DATA, LINK)
            renew = self.driver.renew

            async def collected(wanted: Path, path: Path = path, renew: Any = renew) -> None:
                if wanted == path:
                    await self.driver.delete(path)
                await renew(wanted)

            patched = self.patch(self.driver, "renew", collected)
            error = await self.refused(BlobUnknown, self.registry.blobs.promise(REPOSITORY, DIGEST))
            self.assertEqual(error.detail, {"digest": DIGEST})
            patched.restore()

    async def test_a_link_that_leads_to_another_digest(self) -> None:
        # registry:2 keeps a sha512 blob under its sha256 digest.
        await self.push(REPOSITORY, LAYER)
        sha512 = Digest.of(LAYER, "sha512")
        link = layout.layer_link(REPOSITORY, sha512)
        await self.driver.write(Links.file(link, DIGEST))
        await self.age(DATA, link)
        await self.registry.blobs.promise(REPOSITORY, sha512)
        self.assertEqual(self.driver.asked("renew"), [(link,), (DATA,)])

    async def test_manifests(self) -> None:
        content = image_manifest(LAYER)
        digest = await self.push_image(REPOSITORY, "latest", LAYER)
        data, link = layout.blob_data(digest), layout.revision_link(REPOSITORY, digest)
        for reference, renewed in ((digest, [(link,), (data,)]), (Tag("latest"), [(data,)])):
            await self.age(data, link)
            await self.registry.manifests.get(REPOSITORY, reference)
            self.assertEqual(self.driver.asked("renew"), [])
            for registry in (self.registry, self.restarted()):
                await self.age(data, link)
                stored = await registry.manifests.promise(REPOSITORY, reference)
                self.assertEqual((stored.content, stored.digest, stored.media_type), (content, digest, OCI_IMAGE))
                self.assertEqual(self.driver.asked("renew"), renewed)
                self.driver.calls.clear()
                await registry.manifests.promise(REPOSITORY, reference)
                self.assertEqual(self.driver.asked("renew"), [])

    async def test_manifests_among_layers(self) -> None:
        # As registry:2.1 wrote them.
        digest = await self.push_image(REPOSITORY, "latest", LAYER)
        link = layout.layer_link(REPOSITORY, digest)
        await self.move(layout.revision_link(REPOSITORY, digest), link)
        await self.age(layout.blob_data(digest), link)
        self.driver.calls.clear()
        await self.registry.manifests.promise(REPOSITORY, digest)
        self.assertFalse(await self.old(link))
        self.assertFalse(await self.old(layout.blob_data(digest)))

    async def test_a_manifest_that_is_collected_between_the_look_and_the_promise(self) -> None:
        digest = await self.push_image(REPOSITORY, "latest", LAYER)
        data, link = layout.blob_data(digest), layout.revision_link(REPOSITORY, digest)
        for references, path in (((digest, Tag("latest")), data), ((digest,), link)):
            for reference in references:
                await self.put(REPOSITORY, "latest", image_manifest(LAYER))
                await self.age(data, link)
                renew = self.driver.renew

                async def collected(wanted: Path, path: Path = path, renew: Any = renew) -> None:
                    if wanted == path and await self.driver.exists(path):
                        await self.driver.delete(path)
                    await renew(wanted)

                patched = self.patch(self.driver, "renew", collected)
                await self.refused(ManifestUnknown, self.registry.manifests.promise(REPOSITORY, reference))
                patched.restore()

    # Told by an upload or a mount.

    async def test_an_upload_that_lay_there_for_long(self) -> None:
        uploads = self.registry.uploads
        upload = await uploads.append(await uploads.start(REPOSITORY), FakeBody(LAYER))
        await self.age(layout.upload_data(REPOSITORY, upload.id))
        await uploads.finish(upload, DIGEST, None)
        self.assertFalse(await self.old(DATA))

    async def test_a_blob_that_is_uploaded_again(self) -> None:
        await self.push("other", LAYER)
        await self.age(DATA)
        await self.push(REPOSITORY, LAYER)
        self.assertFalse(await self.old(DATA))
        self.assertFalse(await self.old(LINK))

    async def test_a_blob_that_is_uploaded_again_and_collected_meanwhile(self) -> None:
        for asked in ("stat", "renew", "lock"):
            await self.push("other", LAYER)
            await self.age(DATA)
            uploads = self.registry.uploads
            upload = await uploads.append(await uploads.start(REPOSITORY), FakeBody(LAYER))
            hashed: list[bool] = []
            real_hash, real = self.driver.hash, getattr(self.driver, asked)

            async def noted(*args: Any, real: Any = real_hash, hashed: list[bool] = hashed) -> Any:
                hashed.append(True)
                return await real(*args)

            async def collected(path: Path, *args: Any, real: Any = real, hashed: list[bool] = hashed, **kwargs: Any) -> Any:
                if hashed and await self.driver.exists(DATA):
                    await self.driver.delete(DATA)
                return await real(path, *args, **kwargs)

            patches = [self.patch(self.driver, "hash", noted), self.patch(self.driver, asked, collected)]
            await uploads.finish(upload, DIGEST, None)
            self.assertTrue(hashed)
            for patched in patches:
                patched.restore()
            self.assertEqual(await self.blob(REPOSITORY, DIGEST), LAYER)

    async def test_a_mount(self) -> None:
        await self.push("other", LAYER)
        for age, renewed in ((0.0, False), (10 * GRACE, True)):
            await self.age(DATA, by=age)
            self.driver.calls.clear()
            self.assertIsNotNone(await self.registry.mount(REPOSITORY, DIGEST, name("other")))
            self.assertEqual(bool(self.driver.asked("renew")), renewed)
            self.assertFalse(await self.old(DATA))

    async def test_a_mount_of_what_is_collected_meanwhile(self) -> None:
        for asked in ("lock", "renew"):
            await self.push("other", LAYER)
            await self.age(DATA)
            real = getattr(self.driver, asked)

            async def collected(path: Path, *, real: Any = real, **kwargs: Any) -> Any:
                if await self.driver.exists(DATA):
                    await self.driver.delete(DATA)
                return await real(path, **kwargs)

            patched = self.patch(self.driver, asked, collected)
            self.assertIsNone(await self.registry.mount(REPOSITORY, DIGEST, name("other")))
            patched.restore()
            self.assertFalse(await self.driver.exists(LINK))

    # Named by a manifest.

    async def test_all_that_a_manifest_names_is_renewed_and_so_is_the_manifest(self) -> None:
        foreign = b"somewhere else, and here"
        child, excluded, subject = image_manifest(LAYER), image_manifest(LAYER, b"other"), image_manifest()
        await self.push(REPOSITORY, foreign)
        for content in (child, excluded, subject):
            await self.push_image(REPOSITORY, "x", LAYER, b"other")
            await self.put(REPOSITORY, None, content)
        linux = Platform("linux", "amd64")
        self.registry = self.restarted(platforms=frozenset({linux}), url_permitted=lambda url: True)
        image = image_manifest(LAYER, subject=descriptor(subject, OCI_IMAGE))
        (layer_type, *_) = FOREIGN_LAYERS
        with_foreign = image.replace(
            b'"layers": [', b'"layers": [' + _json(descriptor(foreign, layer_type, urls=["https://example.org/x"])) + b", ", 1
        )
        index = _index(
            descriptor(child, OCI_IMAGE, platform={"os": "linux", "architecture": "amd64"}),
            descriptor(excluded, OCI_IMAGE, platform={"os": "plan9", "architecture": "mips"}),
            subject=descriptor(subject, OCI_IMAGE),
        )
        for content, named in ((with_foreign, (CONFIG, LAYER, foreign, subject)), (index, (child, excluded, subject))):
            for _ in range(2):
                # The second time it is there already.
                wanted = [layout.blob_data(Digest.of(one)) for one in (*named, content)]
                await self.age(*[path for path in wanted if await self.driver.exists(path)])
                await self.put(REPOSITORY, "latest", content)
                for path in wanted:
                    self.assertFalse(await self.old(path), path)
            self.driver.calls.clear()
            await self.put(REPOSITORY, "latest", content)
            self.assertEqual(self.driver.asked("renew"), [])

    async def test_they_are_renewed_before_there_is_a_link(self) -> None:
        await self.push_image(REPOSITORY, "first", LAYER)
        await self.age(DATA, layout.blob_data(Digest.of(CONFIG)))
        self.driver.calls.clear()
        await self.put(REPOSITORY, "latest", image_manifest(LAYER, LAYER))
        calls = [call[0] for call in self.driver.calls]
        self.assertLess(max(place for place, call in enumerate(calls) if call == "renew"), calls.index("write"))
        # And within the gate.
        self.assertLess(max(place for place, call in enumerate(calls) if call == "lock"), calls.index("renew"))

    async def test_a_collection_that_runs_sees_what_is_wanted(self) -> None:
        content = image_manifest(LAYER)
        digest = await self.push_image(REPOSITORY, "latest", LAYER)
        wanted = [layout.blob_data(one) for one in (digest, DIGEST, Digest.of(CONFIG))]
        # Fresh, but a collection may have looked already at all that refers to it.
        await self.age(*wanted, by=10)
        await self.driver.write((layout.collecting(), b""))
        await self.age(layout.collecting(), by=5)
        began = (await self.driver.stat(layout.collecting())).modified
        await self.put(REPOSITORY, "latest", content)
        for path in wanted:
            self.assertGreaterEqual((await self.driver.stat(path)).modified, began)
        # Who only looks is promised it for the time of a push, and that it is.
        await self.age(*wanted, by=10)
        self.driver.calls.clear()
        await self.registry.blobs.promise(REPOSITORY, DIGEST)
        await self.registry.manifests.promise(REPOSITORY, digest)
        self.assertEqual(self.driver.asked("renew"), [])

    async def test_a_collection_that_runs_sees_what_was_uploaded_mounted_or_linked(self) -> None:
        """A sweep may take all that was not written since it began, so whatever comes to be reachable meanwhile has to be."""
        await self.push("other", LAYER)
        await self.driver.write((layout.collecting(), b""))
        await self.age(layout.collecting(), by=5)
        began = (await self.driver.stat(layout.collecting())).modified
        for change in (
            lambda: self.push(REPOSITORY, LAYER),
            lambda: self.registry.mount(REPOSITORY, DIGEST, name("other")),
            lambda: self.registry.blobs.link(REPOSITORY, DIGEST),
        ):
            await self.age(DATA, by=10)
            self.driver.calls.clear()
            await change()
            self.assertGreaterEqual((await self.driver.stat(DATA)).modified, began)
            calls = [call[0] for call in self.driver.calls]
            self.assertLess(calls.index("renew"), len(calls) - 1 - calls[::-1].index("write"))
            # Without a collection it is fresh enough.
            await self.driver.delete(layout.collecting())
            await self.age(DATA, by=10)
            self.driver.calls.clear()
            await change()
            self.assertEqual(self.driver.asked("renew"), [])
            await self.driver.write((layout.collecting(), b""))
            await self.age(layout.collecting(), by=5)

    async def test_what_is_collected_before_it_is_renewed_is_missing(self) -> None:
        child = image_manifest(LAYER)
        digest = await self.push_image(REPOSITORY, "latest", LAYER)
        renew = self.driver.renew
        lost: set[Path] = set()

        async def collected(path: Path) -> None:
            if path in lost:
                raise Missing(path)
            await renew(path)

        self.patch(self.driver, "renew", collected)
        for content, unknown in ((image_manifest(LAYER, LAYER), DIGEST), (index_manifest(child), digest)):
            lost = {layout.blob_data(unknown)}
            await self.age(DATA, layout.blob_data(digest))
            error = await self.refused(ManifestBlobUnknown, self.put(REPOSITORY, "new", content))
            self.assertEqual(error.detail, {"digest": unknown})
            await self.refused(ManifestUnknown, self.registry.manifests.get(REPOSITORY, Tag("new")))
        # Its own bytes are written anew.
        lost = {layout.blob_data(digest)}
        await self.age(*lost)
        self.driver.calls.clear()
        await self.put(REPOSITORY, "latest", child)
        self.assertFalse(await self.old(layout.blob_data(digest)))

    # Where nothing can be renewed.

    async def test_files_of_somebody_else_are_told_of_once_and_nobody_is_refused(self) -> None:
        digest = await self.push_image(REPOSITORY, "latest", LAYER)
        await self.push("other", LAYER)
        told: list[str] = []

        async def forbidden(path: Path) -> None:
            raise StorageError(f"cannot renew {path}: Operation not permitted")

        self.patch(self.driver, "renew", forbidden)

        class Log:
            def warn(self, text: str, **fields: Any) -> None:
                told.append(text.format(**fields))

        self.patch(Promises, "_log", Log())
        await self.age(DATA, LINK, layout.blob_data(digest), layout.blob_data(Digest.of(CONFIG)))
        await self.registry.blobs.promise(REPOSITORY, DIGEST)
        await self.registry.manifests.promise(REPOSITORY, digest)
        await self.registry.mount(name("third"), DIGEST, name("other"))
        await self.put(REPOSITORY, "other", image_manifest(LAYER))
        await self.push("fourth", LAYER)
        (text,) = told
        self.assertIn("Operation not permitted", text)
        self.assertIn("owner", text)

    async def test_a_registry_that_is_only_read_renews_nothing(self) -> None:
        digest = await self.push_image(REPOSITORY, "latest", LAYER)
        await self.age(DATA, LINK, layout.blob_data(digest))
        registry = self.restarted(grace=None)
        await registry.blobs.promise(REPOSITORY, DIGEST)
        await registry.manifests.promise(REPOSITORY, digest)
        await registry.manifests.promise(REPOSITORY, Tag("latest"))
        self.assertEqual(self.driver.asked("renew"), [])


def _json(document: Any) -> bytes:
    return json.dumps(document).encode()


def _index(*children: dict[str, Any], **more: Any) -> bytes:
    return _json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children, **more})


class PromisesInMemoryTest(PromisesSuite, OnMemory):
    pass


class PromisesInFilesTest(PromisesSuite, OnFilesystem):
    pass
