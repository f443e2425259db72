"""Changes at a closed gate: they wait, and are done when it opens, or are refused and leave all as it was. Nothing else is disturbed."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater
from twisted.python.failure import Failure

from regd.errors import BlobUnknown, BlobUploadUnknown, DigestInvalid, ManifestUnknown, Unavailable
from regd.maintenance.gate import Gate
from regd.names import Digest, Tag
from regd.registry.uploads import UploadRangeInvalid
from regd.storage import layout
from regd.storage.driver import Held, StorageError
from tests.registry.case import LAYER, OnFilesystem, OnMemory, RegistrySuite, image_manifest, name
from tests.support import Broken, FakeBody

REPOSITORY = name("library/alpine")
OTHER = name("other")
DIGEST = Digest.of(LAYER)
LATEST = Tag("latest")


class Outcome:
    """What becomes of a coroutine that is begun now."""

    def __init__(self, work: Any) -> None:
        self._found: list[Any] = []
        Deferred.fromCoroutine(work).addBoth(self._found.append)

    @property
    def there(self) -> bool:
        return bool(self._found)

    async def get(self) -> Any:
        """
        :return: what it returns, or the error that it raises.
        """
        for _ in range(1000):
            if self._found:
                (found,) = self._found
                return found.value if isinstance(found, Failure) else found
            await deferLater(reactor, 0.01)
        raise AssertionError("it does not come to an end")


class ClosedGateSuite(RegistrySuite):
    def setUp(self) -> None:
        super().setUp()
        self.clock = Clock()
        self.registry = self.another()

    def another(self) -> Any:
        """A registry that waits for the test's clock, as another process has it."""
        gate = Gate(self.driver, lambda seconds: deferLater(self.clock, seconds), 5.0, self.clock.seconds)
        return self.restarted(gate=gate)

    async def close(self) -> Held:
        held: Held = await self.driver.lock(layout.gate())
        return held

    async def results(self, *works: Any) -> list[Outcome]:
        """Begin, and wait until all wait at the gate."""
        begun = [Outcome(work) for work in works]

        async def waiting() -> bool:
            return len(self.clock.getDelayedCalls()) == len(begun)

        await self.until(waiting)
        return begun

    async def given(self) -> None:
        await self.push_image(REPOSITORY, "latest", LAYER)
        await self.push_image(REPOSITORY, "gone", LAYER, b"gone")
        await self.push(REPOSITORY, b"blob")

    def changes(self, upload: Any, empty: Any) -> list[tuple[str, Any, Callable[[], Any]]]:
        """What changes what is reachable: its name, the work, and whether it is done."""
        registry, blobs, manifests = self.registry, self.registry.blobs, self.registry.manifests
        gone = Digest.of(image_manifest(LAYER, b"gone"))

        async def there(look: Any) -> bool:
            try:
                return await look is not None
            except (BlobUnknown, ManifestUnknown):
                return False

        async def absent(look: Any) -> bool:
            return not await there(look)

        return [
            ("upload", registry.uploads.finish(upload, Digest.of(b"new"), None), lambda: there(blobs.find(OTHER, Digest.of(b"new")))),
            (
                "upload of what is there",
                registry.uploads.finish(empty, DIGEST, FakeBody(LAYER)),
                lambda: there(blobs.find(name("third"), DIGEST)),
            ),
            ("mount", registry.mount(OTHER, DIGEST, REPOSITORY), lambda: there(blobs.find(OTHER, DIGEST))),
            ("push", self.put(REPOSITORY, "new", image_manifest(LAYER)), lambda: there(manifests.get(REPOSITORY, Tag("new")))),
            ("delete of a blob", blobs.delete(REPOSITORY, Digest.of(b"blob")), lambda: absent(blobs.find(REPOSITORY, Digest.of(b"blob")))),
            ("delete", manifests.delete(REPOSITORY, gone), lambda: absent(manifests.get(REPOSITORY, gone))),
            ("untag", manifests.untag(REPOSITORY, LATEST), lambda: absent(manifests.get(REPOSITORY, LATEST))),
        ]

    async def begun(self) -> tuple[Any, Any]:
        uploads = self.registry.uploads
        upload = await uploads.append(await uploads.start(OTHER), FakeBody(b"new"))
        return upload, await uploads.start(name("third"))

    async def test_changes_wait_until_it_opens(self) -> None:
        await self.given()
        changes = self.changes(*await self.begun())
        held = await self.close()
        begun = await self.results(*(work for _, work, _ in changes))
        self.clock.pump([0.01] * 400)
        await deferLater(reactor, 0.1)
        for one, (what, _, done) in zip(begun, changes, strict=True):
            self.assertFalse(one.there, what)
            self.assertFalse(await done(), what)
        held.close()
        self.clock.advance(0.06)
        for one, (what, _, done) in zip(begun, changes, strict=True):
            self.assertFalse(isinstance(await one.get(), Exception), what)
            self.assertTrue(await done(), what)

    async def test_changes_are_refused_when_it_does_not_open(self) -> None:
        await self.given()
        changes = self.changes(*await self.begun())
        held = await self.close()
        begun = await self.results(*(work for _, work, _ in changes))
        self.clock.pump([0.01] * 510)
        for one, (what, _, done) in zip(begun, changes, strict=True):
            self.assertIsInstance(await one.get(), Unavailable, what)
            self.assertFalse(await done(), what)
        held.close()
        # All is as it was: the same can be done now.
        for what, work, done in self.changes(*await self.begun()):
            await work
            self.assertTrue(await done(), what)

    async def test_what_only_looks_or_appends_goes_on(self) -> None:
        digest = await self.push_image(REPOSITORY, "latest", LAYER)
        begun = await self.registry.uploads.start(REPOSITORY)
        held = await self.close()
        registry = self.registry
        self.assertEqual(await self.blob(REPOSITORY, DIGEST), LAYER)
        await registry.blobs.promise(REPOSITORY, DIGEST)
        await registry.manifests.get(REPOSITORY, LATEST)
        await registry.manifests.promise(REPOSITORY, digest)
        self.assertEqual((await registry.tags.page(REPOSITORY, 10)).entries, ("latest",))
        await registry.referrers.page(REPOSITORY, digest, 10)
        await registry.catalog.page(10)
        upload = await registry.uploads.append(begun, FakeBody(b"one"))
        upload = await registry.uploads.append(upload, FakeBody(b"two"))
        self.assertEqual((await registry.uploads.find(REPOSITORY, upload.id)).size, 6)
        await registry.uploads.cancel(await registry.uploads.start(REPOSITORY))
        # Nor does what is refused anyway have to wait.
        await self.refused(DigestInvalid, registry.uploads.finish(upload, DIGEST, None))
        self.assertIsNone(await registry.mount(OTHER, Digest.of(b"unknown"), None))
        self.assertIsNone(await registry.mount(OTHER, Digest.of(b"unknown"), REPOSITORY))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        held.close()

    # An upload that was refused at the gate.

    async def refused_at_the_gate(self, upload: Any, content: bytes, body: FakeBody | None) -> None:
        held = await self.close()
        (one,) = await self.results(self.registry.uploads.finish(upload, Digest.of(content), body))
        self.clock.pump([0.05] * 110)
        self.assertIsInstance(await one.get(), Unavailable)
        held.close()

    async def test_an_upload_that_was_refused_is_still_there(self) -> None:
        small, large = b"content", os.urandom(1_500_000)
        for content in (small, large):
            for offset in (None, 0, len(content)):
                for with_body in (True, False):
                    for another in (False, True):
                        uploads = self.registry.uploads
                        upload = await uploads.start(REPOSITORY)
                        await self.refused_at_the_gate(upload, content, FakeBody(content))
                        uploads = (self.another() if another else self.registry).uploads
                        found = await uploads.find(REPOSITORY, upload.id)
                        self.assertEqual(found.size, len(content))
                        body = FakeBody(content) if with_body else None
                        digest = await uploads.finish(found, Digest.of(content), body, offset=offset)
                        self.assertEqual(await self.blob(REPOSITORY, digest), content)
                        self.assertTrue(body is None or body.started)
                        await self.gone(upload)
                        await self.registry.blobs.delete(REPOSITORY, digest)
                        await self.driver.delete(layout.blob_data(digest))

    async def gone(self, upload: Any) -> None:
        async def is_gone() -> bool:
            return not await self.driver.exists(layout.upload(REPOSITORY, upload.id))

        await self.until(is_gone)
        await self.refused(BlobUploadUnknown, self.registry.uploads.find(REPOSITORY, upload.id))

    async def test_it_is_not_read_again(self) -> None:
        for another in (False, True):
            uploads = self.registry.uploads
            upload = await uploads.append(await uploads.start(REPOSITORY), FakeBody(b"content"))
            await self.refused_at_the_gate(upload, b"content", None)
            self.driver.calls.clear()
            registry = self.another() if another else self.registry
            await registry.uploads.finish(upload, Digest.of(b"content"), None)
            self.assertEqual(self.driver.asked("hash"), [])
            await self.driver.delete(layout.blob_data(Digest.of(b"content")))

    async def test_the_last_chunk_of_several(self) -> None:
        uploads = self.registry.uploads
        upload = await uploads.append(await uploads.start(REPOSITORY), FakeBody(b"one"))
        await self.refused_at_the_gate(upload, b"onetwo", FakeBody(b"two"))
        digest = await uploads.finish(upload, Digest.of(b"onetwo"), FakeBody(b"two"), offset=3)
        self.assertEqual(await self.blob(REPOSITORY, digest), b"onetwo")

    async def test_it_can_be_refused_again(self) -> None:
        upload = await self.registry.uploads.start(REPOSITORY)
        for body in (FakeBody(b"content"), FakeBody(b"content"), None):
            await self.refused_at_the_gate(upload, b"content", body)
        digest = await self.registry.uploads.finish(upload, Digest.of(b"content"), FakeBody(b"content"))
        self.assertEqual(await self.blob(REPOSITORY, digest), b"content")

    async def test_what_comes_again_may_break_off(self) -> None:
        uploads = self.registry.uploads
        upload = await uploads.start(REPOSITORY)
        await self.refused_at_the_gate(upload, b"content", FakeBody(b"content"))
        await self.refused(Broken, uploads.finish(upload, Digest.of(b"content"), FakeBody(b"con", Broken())))
        digest = await uploads.finish(upload, Digest.of(b"content"), FakeBody(b"content"))
        self.assertEqual(await self.blob(REPOSITORY, digest), b"content")

    async def test_a_chunk_that_is_not_the_same_again(self) -> None:
        uploads = self.registry.uploads
        upload = await uploads.start(REPOSITORY)
        await self.refused_at_the_gate(upload, b"content", FakeBody(b"content"))
        error = await self.refused(UploadRangeInvalid, uploads.finish(upload, Digest.of(b"other"), FakeBody(b"other"), offset=0))
        self.assertEqual(error.upload.size, 7)
        error = await self.refused(UploadRangeInvalid, uploads.finish(upload, Digest.of(b"other"), None, offset=0))
        self.assertEqual(error.upload.size, 7)
        # It may still be the next one.
        digest = await uploads.finish(upload, Digest.of(b"content more"), FakeBody(b" more"), offset=7)
        self.assertEqual(await self.blob(REPOSITORY, digest), b"content more")

    async def test_one_that_cannot_be_noted(self) -> None:
        upload = await self.registry.uploads.start(REPOSITORY)
        write = self.driver.write

        async def full(*files: Any, **kwargs: Any) -> None:
            if not kwargs.get("durable", True):
                raise StorageError("no room")
            await write(*files, **kwargs)

        self.patch(self.driver, "write", full)
        await self.refused_at_the_gate(upload, b"content", FakeBody(b"content"))
        digest = await self.another().uploads.finish(upload, Digest.of(b"content"), None)
        self.assertEqual(await self.blob(REPOSITORY, digest), b"content")

    async def test_one_that_is_cancelled_while_it_waits(self) -> None:
        upload = await self.registry.uploads.start(REPOSITORY)
        held = await self.close()
        (one,) = await self.results(self.registry.uploads.finish(upload, Digest.of(b"content"), FakeBody(b"content")))
        await self.registry.uploads.cancel(upload)
        self.clock.pump([0.05] * 110)
        self.assertIsInstance(await one.get(), Unavailable)
        held.close()
        self.assertFalse(await self.driver.exists(layout.upload(REPOSITORY, upload.id)))

    # What changes while one waits.

    async def test_a_tag_that_is_moved_while_its_manifest_waits_to_be_deleted(self) -> None:
        first = await self.push_image(REPOSITORY, "latest", LAYER)
        second = image_manifest(LAYER, LAYER)
        digest = await self.put(REPOSITORY, None, second)
        held = await self.close()
        (one,) = await self.results(self.registry.manifests.delete(REPOSITORY, first))
        self.assertFalse(one.there)
        await self.driver.write((layout.tag_link(REPOSITORY, LATEST), digest.encode()))
        held.close()
        self.clock.advance(0.06)
        self.assertIsNone(await one.get())
        self.assertEqual((await self.registry.manifests.get(REPOSITORY, LATEST)).content, second)
        await self.refused(ManifestUnknown, self.registry.manifests.get(REPOSITORY, first))

    async def test_a_layer_that_is_collected_while_its_manifest_waits(self) -> None:
        await self.push_image(REPOSITORY, "latest", LAYER)
        held = await self.close()
        (one,) = await self.results(self.put(REPOSITORY, "other", image_manifest(LAYER, LAYER)))
        await self.driver.delete(layout.blob_data(DIGEST))
        held.close()
        self.clock.advance(0.06)
        error = await one.get()
        self.assertEqual((error.code, error.detail), ("MANIFEST_BLOB_UNKNOWN", {"digest": DIGEST}))

    async def test_a_mount_that_is_looked_for_everywhere_passes_once(self) -> None:
        for number in range(5):
            await self.push_image(name(f"r{number}"), "latest", LAYER)
        await self.push_image(name("r4"), "more", b"wanted")
        self.driver.calls.clear()
        self.assertIsNotNone(await self.registry.mount(OTHER, Digest.of(b"wanted"), None))
        self.assertEqual(self.driver.asked("lock"), [(layout.gate_queue(),), (layout.gate(),)])


class ClosedGateInMemoryTest(ClosedGateSuite, OnMemory):
    pass


class ClosedGateInFilesTest(ClosedGateSuite, OnFilesystem):
    pass
