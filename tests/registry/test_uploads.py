"""Uploads: in one request or many, in order, by one writer at a time, across restarts, and none whose bytes are not what was promised."""

from __future__ import annotations

import contextlib
import errno
import os
from datetime import UTC, datetime
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from regd.errors import BlobUnknown, BlobUploadUnknown, DigestInvalid
from regd.maintenance.gate import Gate
from regd.names import Digest
from regd.registry import uploads as uploads_module
from regd.registry.core import Registry
from regd.registry.rules import ManifestRules
from regd.registry.uploads import UploadRangeInvalid
from regd.storage import layout
from regd.storage.damage import Damage
from regd.storage.driver import Full, StorageError
from regd.storage.layout import UploadId
from regd.storage.memory import MemoryDriver
from tests.registry.case import GRACE, NOW, OnFilesystem, OnMemory, RegistrySuite, name
from tests.support import Broken, CountingDriver, FakeBody, HeldBody, no_sleep, together

REPOSITORY = name("library/alpine")

#: Enough for its digest to be stored beside the data.
MUCH = b"0123456789abcdef" * 65536


class UploadsSuite(RegistrySuite):
    def setUp(self) -> None:
        super().setUp()
        self.uploads = self.registry.uploads

    def restart(self) -> None:
        """Forget all that is not in the storage."""
        self.registry = self.restarted()
        self.uploads = self.registry.uploads
        self.driver.calls.clear()

    async def gone(self, upload: uploads_module.Upload) -> None:
        """Wait until nothing of an upload is left."""

        async def removed() -> bool:
            return not await self.driver.exists(layout.upload(upload.name, upload.id))

        await self.until(removed)
        await self.refused(BlobUploadUnknown, self.uploads.find(upload.name, upload.id))

    async def test_begun(self) -> None:
        upload = await self.uploads.start(REPOSITORY)
        self.assertEqual((upload.name, upload.size, upload.started), (REPOSITORY, 0, datetime.fromtimestamp(int(NOW), UTC)))
        self.assertEqual(await self.read(layout.upload_data(REPOSITORY, upload.id)), b"")
        # registry:2 reads it with Go's RFC 3339.
        self.assertEqual(await self.read(layout.upload_started(REPOSITORY, upload.id)), b"2023-11-14T22:13:20Z")
        self.assertEqual(await self.uploads.find(REPOSITORY, upload.id), upload)
        self.restart()
        self.assertEqual(await self.uploads.find(REPOSITORY, upload.id), upload)

    async def test_in_one_go(self) -> None:
        upload = await self.uploads.start(REPOSITORY)
        digest = await self.uploads.finish(upload, Digest.of(b"content"), FakeBody([b"con", b"", b"tent"]))
        self.assertEqual(digest, Digest.of(b"content"))
        self.assertEqual(await self.blob(REPOSITORY, digest), b"content")
        self.assertEqual(await self.read(layout.layer_link(REPOSITORY, digest)), digest.encode())
        await self.gone(upload)

    async def test_in_chunks(self) -> None:
        upload = await self.uploads.start(REPOSITORY)
        for number, chunk in enumerate((b"one", b"", b"two", b"three")):
            before = upload.size
            upload = await self.uploads.append(upload, FakeBody(chunk), offset=upload.size if number % 2 else None)
            self.assertEqual(upload.size, before + len(chunk))
            self.assertEqual(await self.uploads.find(REPOSITORY, upload.id), upload)
        digest = await self.uploads.finish(upload, Digest.of(b"onetwothreefour"), FakeBody(b"four"), offset=11)
        self.assertEqual(await self.blob(REPOSITORY, digest), b"onetwothreefour")
        # All was hashed as it came.
        self.assertEqual(self.driver.asked("hash"), [])

    async def test_finished_without_a_body(self) -> None:
        upload = await self.uploads.start(REPOSITORY)
        upload = await self.uploads.append(upload, FakeBody(b"content"))
        digest = await self.uploads.finish(upload, Digest.of(b"content"), None, offset=7)
        self.assertEqual(await self.blob(REPOSITORY, digest), b"content")
        self.assertEqual(self.driver.asked("hash"), [])
        await self.gone(upload)

    async def test_the_empty_blob(self) -> None:
        for algorithm in ("sha256", "sha512"):
            upload = await self.uploads.start(REPOSITORY)
            digest = await self.uploads.finish(upload, Digest.of(b"", algorithm), None)
            self.assertEqual(await self.blob(REPOSITORY, digest), b"")
        self.assertEqual(self.damage.count, 0)

    # Out of order, and at once.

    async def test_a_chunk_that_does_not_begin_at_the_end_is_refused_and_does_no_harm(self) -> None:
        upload = await self.uploads.append(await self.uploads.start(REPOSITORY), FakeBody(b"12345"))
        for offset in (0, 4, 6, 1 << 62):
            body = FakeBody(b"x")
            for work in (
                self.uploads.append(upload, body, offset=offset),
                self.uploads.finish(upload, Digest.of(b"x"), body, offset=offset),
            ):
                error = await self.refused(UploadRangeInvalid, work)
                self.assertEqual((error.upload.id, error.upload.size), (upload.id, 5))
                self.assertIn(str(offset), error.message)
            self.assertFalse(body.started)
        upload = await self.uploads.append(upload, FakeBody(b"678"), offset=5)
        await self.uploads.finish(upload, Digest.of(b"12345678"), None)
        self.assertEqual(self.driver.asked("hash"), [])

    async def test_a_second_writer_is_refused_and_the_first_goes_on(self) -> None:
        upload = await self.uploads.start(REPOSITORY)
        body = HeldBody()
        first = Deferred.fromCoroutine(self.uploads.append(upload, body))
        body.feed(b"first")
        other = self.restarted().uploads
        for uploads in (self.uploads, other):
            second = FakeBody(b"second")
            for work in (
                uploads.append(upload, second),
                uploads.finish(upload, Digest.of(b"second"), second),
                uploads.finish(upload, Digest.of(b""), None),
            ):
                error = await self.refused(UploadRangeInvalid, work)
                self.assertEqual(error.upload.id, upload.id)
            self.assertFalse(second.started)
        body.feed(b" and last")
        body.end()
        upload = await first
        self.assertEqual(upload.size, 14)
        digest = await self.uploads.finish(upload, Digest.of(b"first and last"), None)
        self.assertEqual(await self.blob(REPOSITORY, digest), b"first and last")
        self.assertEqual(self.driver.asked("hash"), [])

    async def test_who_comes_when_the_first_is_about_to_finish_waits_for_it(self) -> None:
        """A client whose connection broke comes back before the end of what it had sent is stored."""
        upload = await self.uploads.append(await self.uploads.start(REPOSITORY), FakeBody(b"first"))
        body = HeldBody()
        first = Deferred.fromCoroutine(self.uploads.append(upload, body))
        turns = 0

        async def sleep(seconds: float) -> None:
            nonlocal turns
            turns += 1
            if turns == 3:
                body.end()
                await first

        other = self.restarted(sleep).uploads
        upload = await other.append(await other.find(REPOSITORY, upload.id), FakeBody(b" second"), offset=5)
        self.assertEqual((turns, upload.size), (3, 12))
        digest = await other.finish(upload, Digest.of(b"first second"), None)
        self.assertEqual(await self.blob(REPOSITORY, digest), b"first second")

    async def test_who_waits_is_refused_when_the_first_has_gone_on(self) -> None:
        upload = await self.uploads.start(REPOSITORY)
        body = HeldBody()
        first = Deferred.fromCoroutine(self.uploads.append(upload, body))

        async def sleep(seconds: float) -> None:
            body.feed(b"first")
            body.end()
            await first

        error = await self.refused(UploadRangeInvalid, self.restarted(sleep).uploads.append(upload, FakeBody(b"second")))
        self.assertEqual(error.upload.size, 5)

    async def test_two_that_finish_one_upload(self) -> None:
        upload = await self.uploads.append(await self.uploads.start(REPOSITORY), FakeBody(b"content"))
        digest = Digest.of(b"content")
        results = await together(
            *(self.uploads.finish(upload, digest, None) for _ in range(3)), errors=(UploadRangeInvalid, BlobUploadUnknown)
        )
        self.assertIn(digest, results)
        self.assertEqual(await self.blob(REPOSITORY, digest), b"content")

    # Broken off.

    async def test_what_arrived_before_a_body_broke_off_stays(self) -> None:
        upload = await self.uploads.start(REPOSITORY)
        await self.refused(Broken, self.uploads.append(upload, FakeBody([b"one", b"two"], Broken())))
        upload = await self.uploads.find(REPOSITORY, upload.id)
        self.assertEqual(upload.size, 6)
        await self.refused(Broken, self.uploads.finish(upload, Digest.of(b"onetwothree"), FakeBody(b"thr", Broken()), offset=6))
        upload = await self.uploads.find(REPOSITORY, upload.id)
        self.assertEqual(upload.size, 9)
        digest = await self.uploads.finish(upload, Digest.of(b"onetwothree"), FakeBody(b"ee"), offset=9)
        self.assertEqual(await self.blob(REPOSITORY, digest), b"onetwothree")
        self.assertEqual(self.driver.asked("hash"), [])

    async def test_the_writer_after_one_that_broke_off(self) -> None:
        upload = await self.uploads.start(REPOSITORY)
        body = HeldBody()
        first = Deferred.fromCoroutine(self.uploads.append(upload, body))
        body.feed(b"half")
        body.fail()
        await self.refused(Broken, first)
        upload = await self.uploads.append(upload, FakeBody(b" whole"), offset=4)
        await self.uploads.finish(upload, Digest.of(b"half whole"), None)

    # Other processes, and later ones.

    async def test_a_restart_in_between(self) -> None:
        upload = await self.uploads.append(await self.uploads.start(REPOSITORY), FakeBody(b"one"))
        self.restart()
        found = await self.uploads.find(REPOSITORY, upload.id)
        self.assertEqual(found, upload)
        upload = await self.uploads.append(found, FakeBody(b"two"), offset=3)
        self.restart()
        digest = await self.uploads.finish(upload, Digest.of(b"onetwo"), None)
        self.assertEqual(await self.blob(REPOSITORY, digest), b"onetwo")
        # Little: read once, as that is cheaper than noting it each time.
        self.assertEqual(len(self.driver.asked("hash")), 1)

    async def test_what_was_hashed_is_not_read_again_after_a_restart(self) -> None:
        upload = await self.uploads.append(await self.uploads.start(REPOSITORY), FakeBody([MUCH, b"x"]))
        digest = Digest.of(MUCH + b"x")
        path = layout.upload_digest(REPOSITORY, upload.id, "sha256", len(MUCH) + 1)
        self.assertEqual(await self.read(path), digest.hex.encode())
        self.restart()
        await self.uploads.finish(upload, digest, None)
        self.assertEqual(self.driver.asked("hash"), [])
        self.assertEqual(await self.blob(REPOSITORY, digest), MUCH + b"x")

    async def test_a_noted_digest_does_not_save_an_upload_from_the_wrong_promise(self) -> None:
        upload = await self.uploads.append(await self.uploads.start(REPOSITORY), FakeBody(MUCH))
        self.restart()
        await self.refused(DigestInvalid, self.uploads.finish(upload, Digest.of(b"other"), None))

    async def test_a_noted_digest_that_is_none(self) -> None:
        right = Digest.of(MUCH).hex.encode()
        for number, garbage in enumerate((b"", b"garbage", b"A" * 64, b"a" * 63, b"a" * 65, right + b"\n", b"\xff" * 64)):
            upload = await self.uploads.append(await self.uploads.start(REPOSITORY), FakeBody(MUCH))
            await self.driver.write((layout.upload_digest(REPOSITORY, upload.id, "sha256", len(MUCH)), garbage))
            self.restart()
            await self.uploads.finish(upload, Digest.of(MUCH), None)
            self.assertEqual(self.damage.count, number + 1)
            self.assertIn((layout.upload_data(REPOSITORY, upload.id), "sha256"), self.driver.asked("hash"))

    async def test_a_noted_digest_of_fewer_bytes_counts_for_nothing(self) -> None:
        upload = await self.uploads.append(await self.uploads.start(REPOSITORY), FakeBody(MUCH))
        # Another registry goes on with it.
        appender = await self.driver.append(layout.upload_data(REPOSITORY, upload.id))
        appender.write(b"more")
        await appender.flush()
        appender.close()
        for restart in (False, True):
            if restart:
                self.restart()
            await self.refused(UploadRangeInvalid, self.uploads.append(upload, FakeBody(b""), offset=len(MUCH)))
        await self.uploads.finish(upload, Digest.of(MUCH + b"more"), None)
        self.assertEqual(len(self.driver.asked("hash")), 1)

    async def test_processes_that_take_turns(self) -> None:
        others = [self.uploads, self.restarted().uploads, self.restarted().uploads]
        upload = await others[0].start(REPOSITORY)
        expected = b""
        for turn in range(7):
            chunk = bytes([turn]) * (1 << 20 if turn % 2 else 10)
            expected += chunk
            upload = await others[turn % 3].append(upload, FakeBody(chunk), offset=upload.size)
        digest = await others[0].finish(upload, Digest.of(expected), None)
        self.assertEqual(await self.blob(REPOSITORY, digest), expected)

    async def test_more_uploads_than_are_remembered(self) -> None:
        self.patch(uploads_module, "_REMEMBERED", 2)
        begun = [await self.uploads.append(await self.uploads.start(REPOSITORY), FakeBody(bytes([65 + n]))) for n in range(5)]
        for number, upload in enumerate(begun):
            await self.uploads.finish(upload, Digest.of(bytes([65 + number]) + b"!"), FakeBody(b"!"))
        # Those that fell out had to be read.
        self.assertEqual(len(self.driver.asked("hash")), 3)

    async def test_an_upload_that_registry_2_began(self) -> None:
        upload = UploadId.parse("6a2b1c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4d")
        directory = layout.upload(REPOSITORY, upload)
        await self.driver.write(
            (layout.upload_data(REPOSITORY, upload), b"begun "),
            (layout.upload_started(REPOSITORY, upload), b"2016-07-28T12:34:56Z"),
            (layout.Path(f"{directory}/hashstates/sha256/0"), b"\0" * 100),
            (layout.Path(f"{directory}/hashstates/sha256/6"), b"\0" * 100),
        )
        found = await self.uploads.find(REPOSITORY, upload)
        self.assertEqual((found.size, found.started), (6, datetime(2016, 7, 28, 12, 34, 56, tzinfo=UTC)))
        digest = await self.uploads.finish(found, Digest.of(b"begun elsewhere"), FakeBody(b"elsewhere"))
        self.assertEqual(await self.blob(REPOSITORY, digest), b"begun elsewhere")
        await self.gone(found)
        self.assertEqual(self.damage.count, 0)

    async def test_the_time_that_an_upload_began(self) -> None:
        upload = await self.uploads.start(REPOSITORY)
        path = layout.upload_started(REPOSITORY, upload.id)
        # It never changes, so it is read once; each of these is another process.
        for content, expected in (
            (b"2016-07-28T12:34:56Z", datetime(2016, 7, 28, 12, 34, 56, tzinfo=UTC)),
            (b"2016-07-28T12:34:56+02:00\n", datetime(2016, 7, 28, 10, 34, 56, tzinfo=UTC)),
        ):
            await self.driver.write((path, content))
            self.restart()
            self.assertEqual((await self.uploads.find(REPOSITORY, upload.id)).started, expected)
        self.assertEqual(self.damage.count, 0)
        modified = int((await self.driver.stat(layout.upload_data(REPOSITORY, upload.id))).modified)
        beyond = (b"0001-01-01T00:00:00+23:59", b"9999-12-31T23:59:59-23:59", b"0001-01-01")
        for content in (b"", b"yesterday", b"\xff" * 20, b"2" * 1000, *beyond):
            await self.driver.write((path, content))
            self.restart()
            found = await self.uploads.find(REPOSITORY, upload.id)
            self.assertEqual(int(found.started.timestamp()), modified, content)
        self.assertEqual(self.damage.count, 1)
        await self.driver.delete(path)
        self.restart()
        self.assertEqual(int((await self.uploads.find(REPOSITORY, upload.id)).started.timestamp()), modified)

    # Digests.

    async def test_another_digest_ends_the_upload(self) -> None:
        for body in (None, FakeBody(b"more")):
            upload = await self.uploads.append(await self.uploads.start(REPOSITORY), FakeBody(b"content"))
            error = await self.refused(DigestInvalid, self.uploads.finish(upload, Digest.of(b"other"), body))
            self.assertEqual(error.detail["digest"], Digest.of(b"other"))
            self.assertEqual(error.detail["received"], Digest.of(b"content" + (b"more" if body else b"")))
            await self.refused(BlobUploadUnknown, self.uploads.find(REPOSITORY, upload.id))
            self.assertFalse(await self.driver.exists(layout.upload(REPOSITORY, upload.id)))
        for content in (b"other", b"content", b"contentmore"):
            await self.refused(BlobUnknown, self.registry.blobs.stat(REPOSITORY, Digest.of(content)))
            self.assertIsNone(await self.registry.blobs.stored(Digest.of(content)))

    async def test_sha512(self) -> None:
        digest = Digest.of(b"content", "sha512")
        # Announced; in one go without announcement; and known only at the end, which means reading.
        for number, announced in enumerate(("sha512", "sha256", "sha256")):
            repository = name(f"r{number}")
            upload = await self.uploads.start(repository, announced)
            body: FakeBody | None = FakeBody(b"content")
            if number != 1:
                assert body is not None
                upload, body = await self.uploads.append(upload, body), None
            await self.uploads.finish(upload, digest, body)
            self.assertEqual(await self.blob(repository, digest), b"content")
            self.assertEqual(await self.read(layout.layer_link(repository, digest)), digest.encode())
            read = [path for path, _ in self.driver.asked("hash") if path == layout.upload_data(repository, upload.id)]
            self.assertEqual(len(read), 1 if number == 2 else 0)
        self.assertFalse(await self.driver.exists(layout.blob_data(Digest.of(b"content"))))

    async def test_an_algorithm_that_is_not_supported(self) -> None:
        for algorithm in ("md5", "", "sha256 ", "../sha256", "x" * 10_000):
            error = await self.refused(DigestInvalid, self.uploads.start(REPOSITORY, algorithm))
            self.assertLess(len(error.message), 300)
        self.assertFalse(await self.driver.exists(layout.repository(REPOSITORY)))

    # Unknown ones.

    async def test_what_is_no_upload(self) -> None:
        upload = await self.uploads.start(REPOSITORY)
        near = (UploadId.new(), upload.id.upper(), f"{upload.id}/", f"{upload.id}\n")
        for text in ("", "x", "..", "../..", "\0", "\ud800", "a" * 10_000, *near):
            await self.refused(BlobUploadUnknown, self.uploads.find(REPOSITORY, text))
        # Whoever may write to one repository has no business with the uploads of another.
        await self.refused(BlobUploadUnknown, self.uploads.find(name("other"), upload.id))

    async def test_cancelled(self) -> None:
        upload = await self.uploads.append(await self.uploads.start(REPOSITORY), FakeBody(b"x"))
        await self.uploads.cancel(upload)
        self.assertFalse(await self.driver.exists(layout.upload(REPOSITORY, upload.id)))
        body = FakeBody(b"y")
        for work in (
            self.uploads.find(REPOSITORY, upload.id),
            self.uploads.append(upload, body),
            self.uploads.finish(upload, Digest.of(b"x"), None),
            self.uploads.finish(upload, Digest.of(b"xy"), body),
            self.uploads.cancel(upload),
        ):
            await self.refused(BlobUploadUnknown, work)
        self.assertFalse(body.started)
        await self.uploads.discard(upload)

    async def test_cancelled_while_it_is_written(self) -> None:
        for finish in (False, True):
            upload = await self.uploads.start(REPOSITORY)
            body = HeldBody()
            work = self.uploads.finish(upload, Digest.of(MUCH), body) if finish else self.uploads.append(upload, body)
            writer = Deferred.fromCoroutine(work)
            body.feed(MUCH)
            await self.uploads.cancel(upload)
            body.end()
            # Accepting it would be a promise that is broken already.
            await self.refused(BlobUploadUnknown, writer)
            self.assertFalse(await self.driver.exists(layout.upload(REPOSITORY, upload.id)))
            self.assertIsNone(await self.registry.blobs.stored(Digest.of(MUCH)))

    # Failing storage.

    async def test_what_cannot_be_tidied_up_is_no_failure(self) -> None:
        async def broken(path: str, *, durable: bool = True) -> None:
            raise StorageError(f"cannot delete {path}: Input/output error")

        upload = await self.uploads.start(REPOSITORY)
        self.driver.delete = broken
        digest = await self.uploads.finish(upload, Digest.of(b"content"), FakeBody(b"content"))
        self.assertEqual(await self.blob(REPOSITORY, digest), b"content")


class UploadsInMemoryTest(UploadsSuite, OnMemory):
    pass


class UploadsInFilesTest(UploadsSuite, OnFilesystem):
    async def test_a_disk_that_is_full_for_a_while(self) -> None:
        real = os.writev
        upload = await self.uploads.append(await self.uploads.start(REPOSITORY), FakeBody(b"before "))

        def full(fd: int, buffers: Any) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        self.patch(os, "writev", full)
        body = FakeBody([b"x" * 65536] * 10)
        await self.refused(Full, self.uploads.append(upload, body))
        await self.refused(Full, self.uploads.finish(upload, Digest.of(b"before x"), FakeBody(b"x")))
        os.writev = real
        upload = await self.uploads.find(REPOSITORY, upload.id)
        self.assertEqual(upload.size, 7)
        digest = await self.uploads.finish(upload, Digest.of(b"before after"), FakeBody(b"after"), offset=7)
        self.assertEqual(await self.blob(REPOSITORY, digest), b"before after")

    async def test_a_commit_that_fails_can_be_tried_again(self) -> None:
        upload = await self.uploads.append(await self.uploads.start(REPOSITORY), FakeBody(b"content"))
        real = os.rename

        def full(source: str, destination: str) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        self.patch(os, "rename", full)
        await self.refused(Full, self.uploads.finish(upload, Digest.of(b"content"), None))
        await self.refused(BlobUnknown, self.registry.blobs.stat(REPOSITORY, Digest.of(b"content")))
        os.rename = real
        digest = await self.uploads.finish(upload, Digest.of(b"content"), None)
        self.assertEqual(await self.blob(REPOSITORY, digest), b"content")


class AnyOrderTest(SynchronousTestCase):
    @settings(max_examples=50)
    @given(
        st.lists(st.tuples(st.sampled_from(["append", "break", "restart", "wrong offset"]), st.binary(), st.integers(0, 3)), max_size=12),
        st.sampled_from(["sha256", "sha512"]),
        st.sampled_from(["sha256", "sha512"]),
    )
    def test_whatever_happens_the_blob_is_what_was_sent(self, steps: list[tuple[str, bytes, int]], announced: str, algorithm: str) -> None:
        driver: Any = CountingDriver(MemoryDriver())

        def process() -> Registry:
            return Registry(driver, Damage(), ManifestRules(), lambda: NOW, no_sleep, Gate(driver, no_sleep), GRACE)

        async def run() -> None:
            registry = process()
            upload = await registry.uploads.start(REPOSITORY, announced)
            expected = b""
            for what, data, more in steps:
                if what == "restart":
                    registry = process()
                elif what == "wrong offset":
                    try:
                        await registry.uploads.append(upload, FakeBody(data), offset=len(expected) + 1 + more)
                    except UploadRangeInvalid as error:
                        upload = error.upload
                else:
                    body = FakeBody([data, b"z" * more], Broken() if what == "break" else None)
                    with contextlib.suppress(Broken):
                        await registry.uploads.append(upload, body)
                    expected += data + b"z" * more
                upload = await registry.uploads.find(REPOSITORY, upload.id)
                self.assertEqual(upload.size, len(expected))
            digest = await registry.uploads.finish(upload, Digest.of(expected, algorithm), None)
            content = await registry.blobs.open(REPOSITORY, digest)
            self.assertEqual(await content.read(0, 1 << 20), expected)

        self.successResultOf(Deferred.fromCoroutine(run()))
