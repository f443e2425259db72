"""Blobs: bytes once, a link for each repository, damage mended by the next push, and mounts instead of bytes."""

from __future__ import annotations

import os

from regd.errors import BlobUnknown
from regd.names import Digest, RepositoryName
from regd.storage import layout
from regd.storage.links import Links
from tests.registry.case import LAYER, OnFilesystem, OnMemory, RegistrySuite, name
from tests.support import FakeBody, together

DIGEST = Digest.of(LAYER)
DATA = layout.blob_data(DIGEST)


class BlobsSuite(RegistrySuite):
    async def unknown(self, repository: str, digest: Digest) -> None:
        blobs = self.registry.blobs
        self.assertIsNone(await blobs.find(name(repository), digest))
        for work in (blobs.stat(name(repository), digest), blobs.open(name(repository), digest), blobs.delete(name(repository), digest)):
            error = await self.refused(BlobUnknown, work)
            self.assertEqual(error.detail, {"digest": digest})

    async def test_unknown(self) -> None:
        await self.unknown("a", DIGEST)
        self.assertIsNone(await self.registry.blobs.stored(DIGEST))

    async def test_known_to_its_repository_alone(self) -> None:
        await self.push("a", LAYER)
        blob = await self.registry.blobs.stat(name("a"), DIGEST)
        self.assertEqual((blob.digest, blob.size), (DIGEST, len(LAYER)))
        self.assertEqual(await self.blob("a", DIGEST), LAYER)
        for other in ("b", "a/b", "aa"):
            await self.unknown(other, DIGEST)

    async def test_the_bytes_come_before_the_link(self) -> None:
        await self.push("a", LAYER)
        commits = [call[1:] for call in self.driver.asked("adopt") if DATA in call]
        self.assertEqual(commits, [(DATA, layout.layer_link(name("a"), DIGEST))])

    async def test_a_blob_that_is_there_is_linked_and_not_written_again(self) -> None:
        await self.push("a", LAYER)
        path = os.path.join(self.root, DATA) if self.on_disk else ""
        before = os.stat(path) if path else None
        self.driver.calls.clear()
        await self.push("b", LAYER)
        await self.push("a", LAYER)
        self.assertEqual(self.driver.asked("adopt"), [])
        if before is not None:
            after = os.stat(path)
            self.assertEqual((after.st_ino, after.st_mtime_ns, after.st_nlink), (before.st_ino, before.st_mtime_ns, 1))
        self.assertEqual(await self.blob("b", DIGEST), LAYER)

    async def test_two_commits_of_one_blob(self) -> None:
        uploads = self.registry.uploads
        begun = [await uploads.start(name(repository)) for repository in ("a", "a", "b", "c")]
        results = await together(*(uploads.finish(upload, DIGEST, FakeBody(LAYER)) for upload in begun))
        self.assertEqual(results, [DIGEST] * 4)
        for repository in ("a", "b", "c"):
            self.assertEqual(await self.blob(repository, DIGEST), LAYER)

    async def test_a_damaged_blob_is_found_on_commit_and_replaced(self) -> None:
        for damaged in (b"", LAYER[:-1], LAYER + b"x", LAYER.replace(b"a", b"b")):
            await self.push("a", LAYER)
            await self.driver.write((DATA, damaged))
            reader = await self.registry.blobs.open(name("a"), DIGEST) if damaged else None
            count = self.damage.count
            self.driver.calls.clear()
            await self.push("b", LAYER)
            # One of another size need not be read to be known as damaged.
            self.assertEqual((DATA, "sha256") in self.driver.asked("hash"), len(damaged) == len(LAYER))
            self.assertEqual(self.damage.count, count + 1)
            for repository in ("a", "b"):
                self.assertEqual(await self.blob(repository, DIGEST), LAYER)
            if reader is not None:
                # Never edited in place: who reads the damaged one goes on reading that.
                self.assertEqual(await reader.read(0, 100), damaged)
                reader.close()
        # Healed each time, so that the next damage is told again.
        self.assertEqual(self.damage.count, 4)

    async def test_an_empty_file_that_should_not_be_is_no_blob(self) -> None:
        await self.push("a", LAYER)
        await self.driver.write((DATA, b""))
        await self.unknown("a", DIGEST)
        self.assertIsNone(await self.registry.mount(name("b"), DIGEST, name("a")))
        self.assertIsNone(await self.registry.mount(name("b"), DIGEST, None))
        self.assertEqual(self.damage.count, 1)

    async def test_the_empty_blob_is_one(self) -> None:
        for algorithm in ("sha256", "sha512"):
            digest = await self.push("a", b"", algorithm)
            self.assertEqual((await self.registry.blobs.stat(name("a"), digest)).size, 0)
        self.assertEqual(self.damage.count, 0)

    async def test_broken_links(self) -> None:
        link = layout.layer_link(name("a"), DIGEST)
        for content in (b"", b"garbage", Digest.of(b"other").encode()):
            await self.push("a", LAYER)
            await self.push("a", b"other")
            await self.driver.write((link, content))
            await self.unknown("a", DIGEST)
        self.assertEqual(self.damage.count, 1)
        # A push mends it.
        await self.push("a", LAYER)
        self.assertEqual(await self.blob("a", DIGEST), LAYER)

    async def test_a_link_without_its_bytes(self) -> None:
        await self.push("a", LAYER)
        await self.driver.delete(DATA)
        await self.unknown("a", DIGEST)
        self.assertIsNone(await self.registry.mount(name("b"), DIGEST, name("a")))
        await self.push("b", LAYER)
        self.assertEqual(await self.blob("a", DIGEST), LAYER)

    async def test_a_sha512_blob_of_registry_2(self) -> None:
        """It is kept under its sha256 digest, and both links say so."""
        sha512 = Digest.of(LAYER, "sha512")
        await self.push("a", LAYER)
        await self.driver.write(Links.file(layout.layer_link(name("a"), sha512), DIGEST))
        self.assertEqual((await self.registry.blobs.stat(name("a"), sha512)).digest, DIGEST)
        self.assertEqual(await self.blob("a", sha512), LAYER)
        await self.registry.mount(name("b"), sha512, name("a"))
        self.assertEqual(await self.blob("b", sha512), LAYER)
        self.assertEqual(await self.read(layout.layer_link(name("b"), sha512)), DIGEST.encode())
        self.assertEqual(self.damage.count, 0)

    async def test_sha512(self) -> None:
        digest = await self.push("a", LAYER, "sha512")
        self.assertEqual(await self.blob("a", digest), LAYER)
        await self.unknown("a", DIGEST)

    async def test_deleted_from_one_repository(self) -> None:
        for repository in ("a", "b"):
            await self.push(repository, LAYER)
        await self.registry.blobs.delete(name("a"), DIGEST)
        await self.unknown("a", DIGEST)
        self.assertEqual(await self.blob("b", DIGEST), LAYER)
        self.assertIsNotNone(await self.registry.blobs.stored(DIGEST))
        await self.push("a", LAYER)
        self.assertEqual(await self.blob("a", DIGEST), LAYER)

    async def test_two_deletes_at_once(self) -> None:
        await self.push("a", LAYER)
        results = await together(*(self.registry.blobs.delete(name("a"), DIGEST) for _ in range(3)), errors=(BlobUnknown,))
        self.assertIn(None, results)
        await self.unknown("a", DIGEST)


class MountSuite(RegistrySuite):
    async def test_from_a_repository(self) -> None:
        await self.push("a", LAYER)
        blob = await self.registry.mount(name("b/c"), DIGEST, name("a"))
        assert blob is not None
        self.assertEqual((blob.digest, blob.size), (DIGEST, len(LAYER)))
        self.assertEqual(await self.blob("b/c", DIGEST), LAYER)
        self.assertIsNotNone(await self.registry.mount(name("a"), DIGEST, name("a")))

    async def test_from_a_repository_that_does_not_hold_it(self) -> None:
        await self.push("a", LAYER)
        self.assertIsNone(await self.registry.mount(name("b"), DIGEST, name("c")))
        self.assertIsNone(await self.registry.mount(name("b"), Digest.of(b"other"), name("a")))
        self.assertFalse(await self.driver.exists(layout.repository("b")))

    async def test_from_any(self) -> None:
        await self.push("z/deep/down", LAYER)
        await self.push("a", b"other")
        self.assertIsNotNone(await self.registry.mount(name("b"), DIGEST, None))
        self.assertEqual(await self.blob("b", DIGEST), LAYER)

    async def test_from_any_when_there_is_none_needs_no_walk(self) -> None:
        await self.push("a", b"other")
        self.driver.calls.clear()
        self.assertIsNone(await self.registry.mount(name("b"), DIGEST, None))
        self.assertEqual(self.driver.asked("names"), [])

    async def test_bytes_that_no_repository_holds_are_nobody_s(self) -> None:
        await self.push("a", LAYER)
        await self.registry.blobs.delete(name("a"), DIGEST)
        self.assertIsNone(await self.registry.mount(name("b"), DIGEST, None))

    async def test_only_from_what_the_client_may_read(self) -> None:
        asked = []

        def readable(repository: RepositoryName) -> bool:
            asked.append(repository)
            return repository.startswith("open")

        await self.push("closed", LAYER)
        self.assertIsNone(await self.registry.mount(name("b"), DIGEST, name("closed"), readable))
        self.assertIsNone(await self.registry.mount(name("b"), DIGEST, None, readable))
        self.assertIn("closed", asked)
        await self.push("open/one", LAYER)
        self.assertIsNotNone(await self.registry.mount(name("b"), DIGEST, name("open/one"), readable))
        self.assertIsNotNone(await self.registry.mount(name("c"), DIGEST, None, readable))


class BlobsInMemoryTest(BlobsSuite, OnMemory):
    pass


class BlobsInFilesTest(BlobsSuite, OnFilesystem):
    pass


class MountInMemoryTest(MountSuite, OnMemory):
    pass


class MountInFilesTest(MountSuite, OnFilesystem):
    pass


class FetchSuite(RegistrySuite):
    async def test_small_and_large(self) -> None:
        """Small ones as bytes, large ones as files; of the same content either way."""
        for size in (0, 1, 16 * 1024, 16 * 1024 + 1):
            content = b"x" * size
            digest = await self.push("a", content)
            for _ in range(2):
                blob, found = await self.registry.blobs.fetch(name("a"), digest)
                self.assertEqual((blob.digest, blob.size), (digest, size))
                if size <= 16 * 1024:
                    self.assertEqual(found, content)
                else:
                    assert not isinstance(found, bytes)
                    self.assertEqual(await found.read(0, size), content)
                    found.close()

    async def test_a_file_that_changes(self) -> None:
        """What is in memory is what is on the disk: damage is not hidden, and mending it counts at once."""
        digest = await self.push("a", b"content")
        path = layout.blob_data(digest)
        for content in (b"content", b"damaged", b"content"):
            await self.driver.write((path, content))
            for _ in range(2):
                self.assertEqual((await self.registry.blobs.fetch(name("a"), digest))[1], content)
        await self.driver.delete(path)
        with self.assertRaises(BlobUnknown):
            await self.registry.blobs.fetch(name("a"), digest)

    async def test_taken_out_of_a_repository(self) -> None:
        digest = await self.push("a", b"content")
        await self.registry.blobs.fetch(name("a"), digest)
        await self.registry.blobs.delete(name("a"), digest)
        with self.assertRaises(BlobUnknown):
            await self.registry.blobs.fetch(name("a"), digest)


class FetchInMemoryTest(FetchSuite, OnMemory):
    """In memory, where a file always has a version."""


class FetchInFilesTest(FetchSuite, OnFilesystem):
    """In files, which have none at first."""
