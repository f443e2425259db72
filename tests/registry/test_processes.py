"""
Several processes on one directory, each with a registry and a driver of its own that remember what they have seen (promise P7): whichever
of them a request lands in, the answer is the same, and what is durable is durable for all.
"""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from pathlib import Path as FilePath
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from regd.errors import BlobUnknown, BlobUploadUnknown, DigestInvalid, ManifestUnknown
from regd.maintenance.gate import Gate
from regd.names import Digest, RepositoryName, Tag
from regd.registry.core import Registry
from regd.registry.rules import ManifestRules
from regd.registry.uploads import Upload, UploadRangeInvalid
from regd.storage import layout
from regd.storage.damage import Damage
from regd.storage.filesystem import FilesystemDriver
from regd.storage.threads import PoolThreads
from tests.registry.case import CONFIG, GRACE, LAYER, NOW, image_manifest, name
from tests.support import CountingDriver, FakeBody, HeldBody, no_sleep, together

REPOSITORY = name("library/alpine")

#: Enough for its digest to be stored beside the data.
MUCH = b"0123456789abcdef" * 65536


class Process:
    """What one process has."""

    def __init__(self, case: TestCase, root: str) -> None:
        # Any: mypy knows the reactor as a module.
        loop: Any = reactor
        files = FilesystemDriver(root, PoolThreads(loop, 4))
        case.addCleanup(files.stop)
        files.start()
        # Any: it answers for whatever the driver has.
        self.driver: Any = CountingDriver(files)
        self.damage = Damage()
        self.registry = Registry(self.driver, self.damage, ManifestRules(), lambda: NOW, no_sleep, Gate(self.driver, no_sleep), GRACE)
        self.uploads = self.registry.uploads

    async def push(self, repository: RepositoryName, content: bytes) -> Digest:
        upload = await self.uploads.start(repository)
        return await self.uploads.finish(upload, Digest.of(content), FakeBody(content))

    async def blob(self, repository: RepositoryName, digest: Digest) -> bytes:
        content = await self.registry.blobs.open(repository, digest)
        try:
            return await content.read(0, content.size)
        finally:
            content.close()

    async def tagged(self, tag: str) -> bytes:
        return (await self.registry.manifests.get(REPOSITORY, Tag(tag))).content


class ProcessesTest(TestCase):
    def setUp(self) -> None:
        self.root = tempfile.mkdtemp(prefix="regd-test-")
        self.addCleanup(shutil.rmtree, self.root, ignore_errors=True)
        self.processes = [Process(self, self.root) for _ in range(3)]

    async def test_an_upload_that_changes_hands(self) -> None:
        for begins, appends, again, ends in itertools.product(self.processes[:2], repeat=4):
            content = os.urandom(3000)
            upload = await begins.uploads.start(REPOSITORY)
            upload = await appends.uploads.append(await appends.uploads.find(REPOSITORY, upload.id), FakeBody(content[:1000]), offset=0)
            upload = await again.uploads.append(await again.uploads.find(REPOSITORY, upload.id), FakeBody(content[1000:]), offset=1000)
            digest = await ends.uploads.finish(await ends.uploads.find(REPOSITORY, upload.id), Digest.of(content), None)
            for process in self.processes:
                self.assertEqual(await process.blob(REPOSITORY, digest), content)
                with self.assertRaises(BlobUploadUnknown):
                    await process.uploads.find(REPOSITORY, upload.id)

    async def test_a_hash_that_another_process_has_left_behind(self) -> None:
        first, second, _ = self.processes
        upload = await first.uploads.append(await first.uploads.start(REPOSITORY), FakeBody(b"one"))
        upload = await second.uploads.append(upload, FakeBody(b"two"))
        # Each knows a hash of less than there is now, or of what another has continued.
        upload = await first.uploads.append(upload, FakeBody(b"three"))
        upload = await second.uploads.append(upload, FakeBody(b"four"))
        with self.assertRaises(DigestInvalid):
            await first.uploads.finish(upload, Digest.of(b"one"), None)
        upload = await first.uploads.append(await first.uploads.start(REPOSITORY), FakeBody(b"one"))
        await second.uploads.append(upload, FakeBody(b"two"))
        digest = await first.uploads.finish(upload, Digest.of(b"onetwothree"), FakeBody(b"three"))
        self.assertEqual(await second.blob(REPOSITORY, digest), b"onetwothree")

    async def test_what_another_process_appended_is_made_durable_before_it_is_a_blob(self) -> None:
        first, second, _ = self.processes
        for ends, flushed in ((first, True), (second, False)):
            upload = await first.uploads.append(await first.uploads.start(REPOSITORY), FakeBody(os.urandom(100)))
            path = layout.upload_data(REPOSITORY, upload.id)
            content = FilePath(self.root, path).read_bytes()
            synced: list[str] = []
            real = os.fsync

            def fsync(fd: int, synced: list[str] = synced, real: Any = real) -> None:
                synced.append(os.readlink(f"/proc/self/fd/{fd}"))
                real(fd)

            patched = self.patch(os, "fsync", fsync)
            await ends.uploads.finish(upload, Digest.of(content), None)
            patched.restore()
            self.assertEqual(f"{self.root}/{path}" in synced, not flushed)
            # Of that many bytes one knows a hash; and others have been appended since, by somebody who was killed before the flush.
            upload = await first.uploads.append(await first.uploads.start(REPOSITORY), FakeBody(b"one"))
            path = layout.upload_data(REPOSITORY, upload.id)
            with FilePath(self.root, path).open("ab") as file:
                file.write(os.urandom(5))
            content = FilePath(self.root, path).read_bytes()
            synced.clear()
            patched = self.patch(os, "fsync", fsync)
            await ends.uploads.finish(upload, Digest.of(content), None)
            patched.restore()
            self.assertIn(f"{self.root}/{path}", synced)

    async def test_a_stored_digest_spares_the_reading(self) -> None:
        first, second, third = self.processes
        upload = await first.uploads.append(await second.uploads.start(REPOSITORY), FakeBody(MUCH))
        await third.uploads.finish(upload, Digest.of(MUCH), None)
        self.assertEqual(third.driver.asked("hash"), [])
        self.assertEqual(await second.blob(REPOSITORY, Digest.of(MUCH)), MUCH)
        blob = FilePath(self.root, layout.blob_data(Digest.of(MUCH)))
        self.assertEqual(os.listdir(blob.parent), ["data"])

    async def test_one_writer_at_a_time(self) -> None:
        first, second, _ = self.processes
        upload = await first.uploads.start(REPOSITORY)
        body = HeldBody()
        appending = Deferred.fromCoroutine(first.uploads.append(upload, body))
        body.feed(b"one")
        with self.assertRaises(UploadRangeInvalid):
            await second.uploads.append(upload, FakeBody(b"two"))
        with self.assertRaises(UploadRangeInvalid):
            await second.uploads.finish(upload, Digest.of(b"one"), None)
        body.end()
        await appending
        await second.uploads.finish(upload, Digest.of(b"one"), None)

    async def test_closed_by_several_at_once(self) -> None:
        for _ in range(5):
            content = os.urandom(100)
            upload = await self.processes[0].uploads.append(await self.processes[0].uploads.start(REPOSITORY), FakeBody(content))
            digest = Digest.of(content)
            refusals = (UploadRangeInvalid, BlobUploadUnknown)
            results = await together(*(process.uploads.finish(upload, digest, None) for process in self.processes), errors=refusals)
            self.assertIn(digest, results)
            self.assertEqual(await self.processes[1].blob(REPOSITORY, digest), content)

    async def test_one_blob_pushed_through_all(self) -> None:
        repositories = [name(f"r{number}") for number in range(6)]
        for _ in range(5):
            content = os.urandom(100)
            await together(*(self.processes[number % 3].push(repository, content) for number, repository in enumerate(repositories)))
            for process in self.processes:
                for repository in repositories:
                    self.assertEqual(await process.blob(repository, Digest.of(content)), content)

    async def test_cancelled_by_another(self) -> None:
        first, second, _ = self.processes
        upload = await first.uploads.append(await first.uploads.start(REPOSITORY), FakeBody(b"one"))
        await second.uploads.cancel(upload)
        for work in (first.uploads.append(upload, FakeBody(b"two")), first.uploads.finish(upload, Digest.of(b"one"), None)):
            with self.assertRaises(BlobUploadUnknown):
                await work
        known: list[Upload] = []
        with self.assertRaises(BlobUploadUnknown):
            known.append(await first.uploads.find(REPOSITORY, upload.id))

    async def test_deletes_are_seen_by_all(self) -> None:
        first, second, third = self.processes
        for blob in (CONFIG, LAYER):
            await first.push(REPOSITORY, blob)
        manifest = image_manifest(LAYER)
        for turn in range(3):
            digest, _ = await first.registry.manifests.put(REPOSITORY, Tag("latest"), manifest)
            for process in self.processes:
                self.assertEqual(await process.tagged("latest"), manifest)
                self.assertEqual((await process.registry.manifests.get(REPOSITORY, digest)).content, manifest)
            if turn % 2:
                await second.registry.manifests.untag(REPOSITORY, Tag("latest"))
            else:
                await second.registry.manifests.delete(REPOSITORY, digest)
            for process in self.processes:
                with self.assertRaises(ManifestUnknown):
                    await process.tagged("latest")
        await third.registry.blobs.delete(REPOSITORY, Digest.of(LAYER))
        for process in self.processes:
            with self.assertRaises(BlobUnknown):
                await process.registry.blobs.stat(REPOSITORY, Digest.of(LAYER))

    async def test_damage_is_mended_for_all(self) -> None:
        first, second, third = self.processes
        digest = await first.push(REPOSITORY, LAYER)
        FilePath(self.root, layout.blob_data(digest)).write_bytes(b"")
        for process in (first, second):
            self.assertIsNone(await process.registry.blobs.find(REPOSITORY, digest))
            self.assertEqual(process.damage.count, 1)
        await third.push(REPOSITORY, LAYER)
        for process in self.processes:
            self.assertEqual(await process.blob(REPOSITORY, digest), LAYER)
