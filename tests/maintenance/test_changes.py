"""
Changes made while a collection runs, through a real registry, at every moment: what they make reachable, or have promised, is there
afterwards.

The moments are before, and after, each call of the storage that the collection makes.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

from regd.errors import BlobUnknown, ManifestBlobUnknown, ManifestUnknown, RegistryError, Unavailable
from regd.maintenance.gate import Gate
from regd.manifest import OCI_IMAGE, OCI_INDEX
from regd.names import Digest, Tag
from regd.storage import layout
from regd.storage.driver import Busy
from tests.maintenance.case import GRACE, Acting, CollectionSuite
from tests.registry.case import CONFIG, LAYER, OnFilesystem, OnMemory, descriptor, image_manifest, index_manifest, name

#: What a collection has looked at, and would remove.
OLD = b"old"


class Suite(CollectionSuite):
    """
    :ivar step: of how many moments one is taken.
    """

    step = 2

    async def prepare(self) -> None:
        """A repository with an image, an untagged image, an untagged index of two images, a blob of its own; another one; all old."""
        await self.push_image("a", "v1", LAYER)
        for blob in (OLD, b"3", b"4", b"alone"):
            await self.push("a", blob)
        for manifest in (image_manifest(OLD), image_manifest(b"3"), image_manifest(b"4")):
            await self.put("a", None, manifest)
        await self.put("a", None, index_manifest(image_manifest(b"3"), image_manifest(b"4")))
        await self.push_image("z", "v1", LAYER)
        await self.age()
        # A registry whose changes give up at once where the gate is closed: they could be made again later.
        gate = Gate(self.driver, self.impatient, 0)
        self.registry = self.restarted(gate=gate, grace=GRACE)

    async def impatient(self, seconds: float) -> None:
        raise Unavailable("closed")

    async def at_every_moment(self, change: Callable[[], Awaitable[object]], check: Callable[[], Awaitable[object]]) -> None:
        """
        Run collections, each with the change at another moment.

        :param change: may be refused cleanly; that it was not is what has to hold.
        :param check: what holds if it was not.
        """
        made = 0
        for after in (False, True):
            for moment in itertools.count(0, self.step):
                self.setUp()
                await self.prepare()
                calls, accepted = itertools.count(), False

                async def act(method: str, args: tuple[Any, ...], moment: int = moment, calls: itertools.count[int] = calls) -> None:
                    nonlocal accepted
                    if next(calls) == moment:
                        try:
                            await change()
                        except (RegistryError, Busy) as error:
                            self.assertIsInstance(error, BlobUnknown | ManifestBlobUnknown | ManifestUnknown | Unavailable)
                        else:
                            accepted = True

                summary = await self.collector_of(Acting(self.driver, act, after=after), untagged=True).run()
                self.assertEqual((summary.finished, summary.error, summary.skipped), (True, "", 0), moment)
                await self.pull("a", "v1")
                await self.pull("z", "v1")
                if accepted:
                    made += 1
                    await check()
                    # And the next one leaves it alone, too.
                    await self.collect(untagged=True)
                    await check()
                if next(calls) <= moment:
                    break
        self.assertGreater(made, 20 // self.step)

    async def test_a_push_that_names_what_nothing_refers_to(self) -> None:
        await self.at_every_moment(
            lambda: self.put("a", "new", image_manifest(b"alone", OLD)),
            lambda: self.pull("a", "new"),
        )

    async def test_a_tag_for_an_untagged_manifest(self) -> None:
        await self.at_every_moment(
            lambda: self.put("a", "new", image_manifest(OLD)),
            lambda: self.pull("a", "new"),
        )

    async def test_a_tag_for_an_untagged_index(self) -> None:
        await self.at_every_moment(
            lambda: self.put("a", "new", index_manifest(image_manifest(b"3"), image_manifest(b"4"))),
            lambda: self.pull("a", "new"),
        )

    async def test_an_index_of_an_untagged_index(self) -> None:
        inner = index_manifest(image_manifest(b"3"), image_manifest(b"4"))
        await self.at_every_moment(
            lambda: self.put("a", "new", index_manifest(inner, child_type=OCI_INDEX)),
            lambda: self.pull("a", "new"),
        )

    async def test_what_is_about_an_untagged_manifest(self) -> None:
        subject = descriptor(image_manifest(OLD), OCI_IMAGE)

        async def change() -> None:
            if not await self.held("a", Digest.of(image_manifest(OLD))):
                raise ManifestUnknown
            await self.put("a", "about", image_manifest(LAYER, subject=subject))

        async def check() -> None:
            await self.pull("a", "about")
            await self.pull("a", Digest.of(image_manifest(OLD)))

        await self.at_every_moment(change, check)

    async def test_a_mount(self) -> None:
        async def change() -> None:
            if await self.registry.mount(name("b"), Digest.of(b"alone"), name("a")) is None:
                raise BlobUnknown

        async def check() -> None:
            self.assertEqual(await self.blob("b", Digest.of(b"alone")), b"alone")

        await self.at_every_moment(change, check)

    async def test_a_promise_of_a_blob(self) -> None:
        async def check() -> None:
            self.assertEqual(await self.blob("a", Digest.of(b"alone")), b"alone")

        await self.at_every_moment(lambda: self.registry.blobs.promise(name("a"), Digest.of(b"alone")), check)

    async def test_a_promise_of_a_manifest(self) -> None:
        index = Digest.of(index_manifest(image_manifest(b"3"), image_manifest(b"4")))
        await self.at_every_moment(lambda: self.registry.manifests.promise(name("a"), index), lambda: self.pull("a", index))

    async def test_a_push_of_what_is_about_to_go(self) -> None:
        async def check() -> None:
            self.assertEqual(await self.blob("a", Digest.of(b"alone")), b"alone")

        await self.at_every_moment(lambda: self.push("a", b"alone"), check)

    async def test_a_whole_push(self) -> None:
        async def change() -> None:
            for blob in (CONFIG, OLD, b"new"):
                await self.push("b", blob)
            await self.put("b", "new", image_manifest(OLD, b"new"))

        await self.at_every_moment(change, lambda: self.pull("b", "new"))

    async def test_a_delete(self) -> None:
        async def check() -> None:
            with self.assertRaises(ManifestUnknown):
                await self.pull("a", Digest.of(image_manifest(b"3")))
            with contextlib.suppress(ManifestUnknown):
                # Whether it was there at all was the collection's to decide.
                await self.pull("a", Digest.of(image_manifest(OLD)))

        await self.at_every_moment(lambda: self.drop("a", Digest.of(image_manifest(b"3"))), check)

    async def test_a_tag_that_goes(self) -> None:
        async def change() -> None:
            if await self.driver.exists(layout.tag_link(name("z"), Tag("v2"))):
                await self.untag("z", "v2")
            else:
                await self.put("z", "v2", image_manifest(LAYER))

        await self.at_every_moment(change, lambda: self.pull("z", "v1"))


class InMemoryTest(Suite, OnMemory):
    """In memory."""


class OnDiskTest(Suite, OnFilesystem):
    """On disk, where it takes longer."""

    step = 9
