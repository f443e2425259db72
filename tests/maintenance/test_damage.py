"""What cannot be read keeps all that its repository holds, and takes nothing else with it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from regd.names import Digest, Tag
from regd.storage import layout
from regd.storage.driver import StorageError
from regd.storage.layout import Path
from tests.maintenance.case import Acting, CollectionSuite
from tests.registry.case import CONFIG, LAYER, OnFilesystem, OnMemory, image_manifest, name

REPOSITORIES = "docker/registry/v2/repositories"
BLOBS = "docker/registry/v2/blobs"


class Failing:
    """A driver that cannot read one file, when it is asked for many."""

    def __init__(self, driver: Any, bad: Path) -> None:
        self._driver = driver
        self._bad = bad

    def __getattr__(self, method: str) -> Any:
        found = getattr(self._driver, method)
        if method not in {"read_all", "stat_all"}:
            return found

        async def failing(paths: Sequence[Path], *args: Any) -> Any:
            result = await found(paths, *args)
            return [StorageError(f"cannot read {path}") if path == self._bad else one for path, one in zip(paths, result, strict=True)]

        return failing


class Suite(CollectionSuite):
    async def damaged(self, damage: Callable[[], Awaitable[object]], *, skipped: int = 1, keeps: bool = True) -> None:
        """
        See what becomes of two repositories of which one is damaged.

        :param skipped: how many bad files there are.
        :param keeps: whether the repository keeps what nothing seems to refer to.
        """
        self.image = await self.push_image("bad", "v1", LAYER, b"2")
        self.untagged = await self.push_image("bad", "v2", LAYER, b"3")
        await self.untag("bad", "v2")
        self.alone = await self.push("bad", b"alone")
        await self.push_image("good", "v1", LAYER)
        await self.push("good", b"garbage")
        await damage()
        await self.age()
        before = [path for path in await self.files() if "/repositories/bad/" in path]
        summary = await self.collect(untagged=True, dryrun=True)
        self.assertEqual(summary.skipped, skipped)
        summary = await self.collect(untagged=True)
        self.assertEqual(summary.skipped, skipped)
        self.assertFalse(await self.there(Digest.of(b"garbage")))
        self.assertFalse(await self.linked("good", Digest.of(b"garbage")))
        await self.pull("good", "v1")
        if keeps:
            self.assertEqual([path for path in await self.files() if "/repositories/bad/" in path], before)
            self.assertTrue(await self.there(self.alone))
            self.assertTrue(await self.there(Digest.of(b"3")))
        else:
            self.assertFalse(await self.there(self.alone))
            self.assertFalse(await self.there(Digest.of(b"3")))
            self.assertFalse(await self.held("bad", self.untagged))
        self.assertEqual(self.damage.count, skipped)

    async def test_no_damage(self) -> None:
        async def nothing() -> None:
            pass

        await self.damaged(nothing, skipped=0, keeps=False)

    async def test_manifests_that_cannot_be_read(self) -> None:
        for content in (b"", b"{}", b"\xff", b"x" * 40_000, b"{" * 100_000, b"x" * (4 * 1024 * 1024 + 1)):
            self.setUp()

            async def damage(content: bytes = content) -> None:
                await self.driver.write((layout.blob_data(self.image), content))

            await self.damaged(damage)

    async def test_manifests_that_are_of_no_kind_that_is_known(self) -> None:
        for content in (b"{}", b'{"schemaVersion": 1, "fsLayers": []}', b'{"schemaVersion": 2, "mediaType": "x/y"}'):
            self.setUp()

            async def damage(content: bytes = content) -> None:
                digest = Digest.of(content)
                await self.driver.write((layout.blob_data(digest), content))
                await self.driver.write((layout.revision_link(name("bad"), digest), digest.encode()))

            await self.damaged(damage)

    async def test_signatures_of_schema_1(self) -> None:
        signature = Digest.of(b"signature")

        async def damage() -> None:
            content = b'{"schemaVersion": 1}'
            digest = Digest.of(content)
            link = Path(f"{layout.revision(name('bad'), digest)}/signatures/sha256/{signature.hex}/link")
            await self.driver.write((layout.blob_data(digest), content), (layout.blob_data(signature), b"signature"))
            await self.driver.write((layout.revision_link(name("bad"), digest), digest.encode()), (link, signature.encode()))

        await self.damaged(damage)
        self.assertTrue(await self.there(signature))

    async def test_a_manifest_that_is_missing(self) -> None:
        await self.damaged(lambda: self.driver.delete(layout.blob_data(self.image)))

    async def test_links_that_hold_no_digest(self) -> None:
        for content in (b"", b"sha256:", b"\xff\xfe", b"sha256:" + b"A" * 64, b"x" * 1000, b"sha384:" + b"a" * 96):
            for place in ("revision", "tag", "layer"):
                self.setUp()

                async def damage(content: bytes = content, place: str = place) -> None:
                    paths = {
                        "revision": layout.revision_link(name("bad"), self.untagged),
                        "tag": layout.tag_link(name("bad"), Tag("v1")),
                        "layer": layout.layer_link(name("bad"), self.alone),
                    }
                    await self.driver.write((paths[place], content))

                await self.damaged(damage)

    async def test_links_that_hold_another_digest(self) -> None:
        other = Digest.of(b"other")
        for place in ("revision", "layer"):
            self.setUp()

            async def damage(place: str = place) -> None:
                paths = {"revision": layout.revision_link(name("bad"), self.untagged), "layer": layout.layer_link(name("bad"), self.alone)}
                await self.driver.write((layout.blob_data(other), b"other"), (paths[place], other.encode()))

            await self.damaged(damage)
            self.assertTrue(await self.there(other))

    async def test_a_newline_at_the_end_of_a_link_is_no_damage(self) -> None:
        await self.damaged(
            lambda: self.driver.write((layout.revision_link(name("bad"), self.image), self.image.encode() + b"\n")), skipped=0, keeps=False
        )

    async def test_directories_that_are_missing(self) -> None:
        for path in ("_uploads", "_manifests/tags/v1/index"):
            self.setUp()

            async def damage(path: str = path) -> None:
                if await self.driver.exists(Path(f"{REPOSITORIES}/bad/{path}")):
                    await self.driver.delete(Path(f"{REPOSITORIES}/bad/{path}"))

            await self.damaged(damage, skipped=0, keeps=False)

    async def test_repositories_that_lack_a_directory(self) -> None:
        await self.push_image("a", "v1", LAYER)
        await self.push_image("b", "v1", LAYER)
        await self.push("c", b"c")
        await self.driver.delete(layout.layers(name("a")))
        await self.driver.delete(layout.manifests(name("b")))
        await self.age()
        summary = await self.collect()
        self.assertEqual((summary.skipped, summary.blobs_swept, summary.repositories_removed), (0, 1, 2))
        self.assertTrue(await self.there(Digest.of(LAYER)))

    async def test_files_where_directories_should_be(self) -> None:
        for path in ("_manifests/tags", "_manifests/revisions/sha256", "_layers/sha256", "_layers", "_manifests"):
            self.setUp()

            async def damage(path: str = path) -> None:
                await self.driver.delete(Path(f"{REPOSITORIES}/bad/{path}"))
                await self.driver.write((Path(f"{REPOSITORIES}/bad/{path}"), b"a file"))

            self.image = await self.push_image("bad", "v1", LAYER, b"2")
            await self.push("good", b"garbage")
            await damage()
            await self.age()
            before = [file for file in await self.files() if "/bad/" in file]
            summary = await self.collect(untagged=True)
            self.assertEqual((summary.skipped, summary.links_removed), (1, 1), path)
            self.assertEqual([file for file in await self.files() if "/bad/" in file], before)

    async def test_more_files_where_directories_should_be(self) -> None:
        files = [
            f"{REPOSITORIES}/good/file",
            f"{REPOSITORIES}/file",
            f"{BLOBS}/sha256/{Digest.of(b'1').hex[:2]}/{Digest.of(b'1').hex}",
            f"{BLOBS}/sha256/file",
            f"{BLOBS}/file",
            f"{REPOSITORIES}/good/_manifests/tags/README",
        ]
        await self.push_image("good", "v1", LAYER)
        await self.driver.write(*((Path(path), b"") for path in files))
        await self.age()
        before = await self.files()
        await self.collect(untagged=True)
        self.assertEqual(await self.files(), before)
        await self.pull("good", "v1")

    async def test_names_that_are_no_digests(self) -> None:
        async def damage() -> None:
            for path in (
                f"{REPOSITORIES}/bad/_layers/sha256/short/link",
                f"{REPOSITORIES}/bad/_manifests/revisions/sha256/{'A' * 64}/link",
                f"{BLOBS}/sha256/ab/{'c' * 64}/data",
                f"{BLOBS}/sha256/ab/nothing/data",
            ):
                await self.driver.write((Path(path), b"x"))

        await self.damaged(damage, skipped=4, keeps=False)
        self.assertTrue(await self.driver.exists(Path(f"{BLOBS}/sha256/ab/nothing/data")))

    async def test_algorithms_that_nobody_knows(self) -> None:
        await self.damaged(lambda: self.driver.write((Path(f"{REPOSITORIES}/bad/_layers/tarsum.v1/sha256/link"), b"x")))
        await self.driver.write((Path(f"{BLOBS}/sha384/ab/{'ab' * 48}/data"), b"x"))
        await self.age()
        await self.collect()
        self.assertTrue(await self.driver.exists(Path(f"{BLOBS}/sha384/ab/{'ab' * 48}/data")))

    async def test_leftovers_of_writes_that_did_not_finish(self) -> None:
        image = await self.push_image("a", "v1", LAYER)
        alone = Digest.of(b"alone")
        await self.driver.write(
            (Path(f"{layout.tag_link(name('a'), Tag('v1'))}.1-2.tmp"), b""),
            (Path(f"{layout.revision_link(name('a'), image)}.1-2.tmp"), b""),
            (Path(f"{layout.blob_data(image)}.1-2.tmp"), b""),
            (Path(f"{layout.blob_data(alone)}.1-2.tmp"), b""),
            (Path(f"{layout.layer_link(name('a'), alone)}.1-2.tmp"), b""),
        )
        await self.age()
        summary = await self.collect(untagged=True)
        self.assertEqual((summary.skipped, summary.blobs_swept, summary.links_removed), (0, 0, 0))
        await self.pull("a", "v1")

    async def test_names_that_no_repository_can_have(self) -> None:
        await self.push_image("a", "v1", LAYER, b"2")
        for path in await self.files(layout.repository("a")):
            await self.move(path, Path(path.replace("/a/", "/Not A Name/")))
        await self.age()
        summary = await self.collect(untagged=True)
        self.assertEqual((summary.skipped, summary.blobs_swept), (1, 0))

    async def test_files_that_cannot_be_read(self) -> None:
        """Each in turn, and the directories, too."""
        await self.push_image("a", "v1", LAYER)
        await self.push("a", b"garbage")
        await self.push("b", b"more")
        await self.age()
        files = await self.files()

        for bad in files:
            summary = await self.collect(Failing(self.driver, bad), dryrun=True)
            self.assertLessEqual(summary.skipped, 1)
            if "garbage" not in bad and summary.skipped and "/repositories/a" in bad:
                self.assertLess(summary.blobs_swept, 2, bad)

    async def test_directories_that_cannot_be_listed_end_the_run(self) -> None:
        await self.push_image("a", "v1", LAYER)
        await self.push("a", b"garbage")
        await self.age()
        before = await self.files()
        asked: list[Path] = []

        async def note(method: str, args: tuple[Any, ...]) -> None:
            if method == "scan" and "docker" in args[0]:
                asked.append(args[0])

        await self.collect(Acting(self.driver, note), dryrun=True)
        for path in dict.fromkeys(asked):
            if path.startswith(BLOBS):
                continue

            async def fail(method: str, args: tuple[Any, ...], path: Path = path) -> None:
                if method == "scan" and args[0] == path:
                    raise StorageError(f"cannot list {path}: Input/output error")

            summary = await self.collector_of(Acting(self.driver, fail)).run()
            self.assertEqual((summary.finished, summary.error, summary.blobs_swept), (False, f"cannot list {path}: Input/output error", 0))
            self.assertTrue(set(await self.files()) >= set(before) - {layout.layer_link(name("a"), Digest.of(b"garbage"))})
            self.assertTrue(await self.there(Digest.of(b"garbage")))
        self.assertEqual((await self.collect()).blobs_swept, 1)


class InMemoryTest(Suite, OnMemory):
    """In memory."""


class OnDiskTest(Suite, OnFilesystem):
    """On disk, and what is only there."""

    async def test_a_disk_that_goes_away(self) -> None:
        await self.push_image("a", "v1", LAYER)
        await self.push("a", b"garbage")
        await self.age()

        async def unmount(method: str, args: tuple[Any, ...]) -> None:
            if method == "read_all" and os.path.isdir(self.root):
                os.rename(self.root, f"{self.root}.elsewhere")

        self.addCleanup(shutil.rmtree, f"{self.root}.elsewhere", ignore_errors=True)
        collector = self.collector_of(Acting(self.driver, unmount))
        summary = await collector.run()
        self.assertFalse(summary.finished)
        self.assertIn("is the disk mounted?", summary.error)
        self.assertEqual(summary.blobs_swept, 0)
        os.rename(f"{self.root}.elsewhere", self.root)
        self.assertEqual((await self.collect()).blobs_swept, 1)

    async def test_a_loop_of_links_of_the_file_system(self) -> None:
        await self.push_image("a", "v1", LAYER)
        await self.push("a", b"garbage")
        await self.age()
        os.symlink("..", f"{self.root}/{REPOSITORIES}/a/up")
        summary = await self.collector_of().run()
        self.assertTrue(await self.there(Digest.of(image_manifest(LAYER))))
        self.assertTrue(await self.there(Digest.of(CONFIG)))
        self.assertEqual(summary.blobs_swept, 0)
        self.assertIn("symbolic links", summary.error)
