"""What has to make room in a cache, and what never does."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from typing import Any

from regd.maintenance import fetches
from regd.maintenance.steps import Steps
from regd.maintenance.summary import Orders, Summary
from regd.maintenance.survey import Survey, is_below, repositories
from regd.names import Digest, Tag
from regd.storage import layout
from regd.storage.driver import Missing, StorageError
from regd.storage.layout import Path
from tests.maintenance.case import GRACE, Acting, CollectionSuite
from tests.registry.case import CONFIG, LAYER, OnFilesystem, OnMemory, image_manifest, index_manifest, name
from tests.support import no_sleep

HOUR = 3600.0
DAY = 86400.0


class EvictionSuite(CollectionSuite):
    """Repositories below ``hub`` are cached, all others local."""

    async def cache(self, repository: str, *layers: bytes, tag: str | None = "v1", config: bytes = CONFIG) -> Digest:
        """Put an image into a repository as if it had been fetched."""
        for blob in (config, *layers):
            await self.mark(repository, await self.push(repository, blob))
        return await self.mark(repository, await self.put(repository, tag, image_manifest(*layers, config=config)))

    async def mark(self, repository: str, digest: Digest) -> Digest:
        await self.driver.write((layout.cached(name(repository), digest), b""), durable=False)
        return digest

    async def used(self, ago: float, repository: str, *contents: Digest | bytes) -> None:
        """Have content that was last used so many seconds ago; with none named, all of the repository."""
        marks = [layout.cached(name(repository), one if isinstance(one, Digest) else Digest.of(one)) for one in contents]
        await self.age(*(marks or await self.files(layout.cached_root(name(repository)))), seconds=ago)

    async def evict(self, driver: Any = None, **orders: Any) -> Summary:
        """An eviction that has to come to its end, of what is below ``hub``."""
        return await self.collect(driver, **{"garbage": False, "prefixes": ("hub",), **orders})

    async def marked(self, repository: str) -> set[Digest]:
        paths = await self.files(layout.cached_root(name(repository)))
        return {Digest(":".join(path.rsplit("/", 2)[-2:])) for path in paths}

    async def consistent(self) -> None:
        """No tag means nothing, and no link leads to nothing."""
        for path in await self.files():
            if path.endswith("/link") and "/index/" not in path:
                digest = Digest((await self.driver.read(path, 200)).decode())
                self.assertTrue(await self.there(digest), path)
                if "/current/" in path:
                    repository = path.partition("repositories/")[2].partition("/_manifests/")[0]
                    self.assertTrue(await self.held(repository, digest), path)


class Suite(EvictionSuite):
    async def test_nothing_has_to_go(self) -> None:
        await self.cache("hub/a", LAYER)
        await self.age()
        before = await self.files()
        for limits in ({}, {"maxsize": 10**6}, {"maxage": 3 * GRACE}):
            summary = await self.evict(**limits)
            self.assertEqual((summary.blobs_evicted, summary.blobs_cached, summary.milliseconds_closed), (0, 3, 0))
            self.assertGreater(summary.bytes_cached, len(CONFIG + LAYER))
        self.assertEqual(await self.files(), before)

    async def test_what_was_not_used_for_longest_goes_first(self) -> None:
        old = await self.cache("hub/old", b"1" * 1000)
        new = await self.cache("hub/new", b"2" * 1000, config=b"{}")
        await self.age()
        await self.used(9 * HOUR, "hub/old")
        await self.used(5 * HOUR, "hub/new")
        room = 1000 + len(b"{}") + len(image_manifest(b"2" * 1000, config=b"{}"))
        summary = await self.evict(maxsize=room)
        self.assertEqual((summary.blobs_evicted, summary.manifests_evicted, summary.blobs_cached), (3, 1, 3))
        self.assertGreater(summary.bytes_evicted, 1000)
        self.assertEqual(summary.bytes_cached, room)
        self.assertFalse(await self.there(old))
        await self.pull("hub/new", "v1")
        self.assertEqual(await self.held("hub/new", new), True)
        # Nothing is left of the other, so it is in no list.
        self.assertFalse(await self.driver.exists(layout.repository("hub/old")))
        self.assertEqual([str(one) async for one in self.registry.catalog.candidates()], ["hub", "hub/new"])

    async def test_it_is_enough_when_it_fits(self) -> None:
        """One blob of an image may go, and the rest stays."""
        await self.cache("hub/a", b"1" * 1000, b"2" * 1000)
        await self.age()
        await self.used(9 * HOUR, "hub/a", b"1" * 1000)
        summary = await self.evict(maxsize=2000)
        self.assertEqual((summary.blobs_evicted, summary.bytes_evicted, summary.manifests_evicted), (1, 1000, 0))
        self.assertFalse(await self.linked("hub/a", Digest.of(b"1" * 1000)))
        stored = await self.registry.manifests.get(name("hub/a"), Tag("v1"))
        self.assertTrue(await self.linked("hub/a", Digest.of(b"2" * 1000)))
        self.assertEqual(len(await self.marked("hub/a")), 3)
        self.assertIn(stored.digest, await self.marked("hub/a"))
        # Nor does a collection of garbage find that strange.
        self.assertEqual((await self.collect(prefixes=("hub",))).skipped, 0)

    async def test_age(self) -> None:
        old = await self.cache("hub/a", b"old", tag="old")
        await self.cache("hub/a", b"new", tag="new", config=b"{}")
        await self.age()
        await self.used(9 * HOUR, "hub/a", old, b"old", CONFIG)
        summary = await self.evict(maxage=8 * HOUR)
        self.assertEqual((summary.blobs_evicted, summary.manifests_evicted), (3, 1))
        self.assertEqual(await self.registry.manifests.resolve(name("hub/a"), Tag("old")), None)
        await self.pull("hub/a", "new")
        await self.consistent()

    async def test_fresh_bytes_go_too(self) -> None:
        """The grace period is for what nothing refers to: what is cached can be had again."""
        await self.cache("hub/a", LAYER)
        await self.used(1, "hub/a")
        summary = await self.evict(maxsize=1)
        self.assertEqual((summary.blobs_evicted, summary.bytes_cached), (3, 0))
        self.assertEqual(await self.files(), [])

    async def test_what_is_used_meanwhile_stays(self) -> None:
        await self.cache("hub/a", LAYER)
        await self.age()
        renewed: list[None] = []

        async def use(method: str, args: tuple[Any, ...]) -> None:
            # Just before the gate is closed for it.
            if method == "scan" and args[0] == layout.tags(name("hub/a")) and not renewed:
                renewed.append(await self.driver.renew(layout.cached(name("hub/a"), Digest.of(LAYER))))

        summary = await self.evict(Acting(self.driver, use), maxsize=1)
        self.assertEqual(len(renewed), 1)
        self.assertEqual(summary.blobs_evicted, 2)
        self.assertTrue(await self.linked("hub/a", Digest.of(LAYER)))
        self.assertTrue(await self.there(Digest.of(LAYER)))
        self.assertEqual(await self.marked("hub/a"), {Digest.of(LAYER)})

    async def test_a_reader_keeps_what_it_has_open(self) -> None:
        await self.cache("hub/a", b"x" * 100_000)
        await self.age()
        _, content = await self.registry.blobs.fetch(name("hub/a"), Digest.of(b"x" * 100_000))
        assert not isinstance(content, bytes)
        await self.evict(maxsize=1)
        self.assertFalse(await self.there(Digest.of(b"x" * 100_000)))
        self.assertEqual(await content.read(0, 200_000), b"x" * 100_000)
        content.close()

    # What is local.

    async def test_what_is_local_stays(self) -> None:
        """A local image with the layers of a cached one, and one that was pushed below the prefix before that was one."""
        await self.cache("hub/a", LAYER, b"other")
        await self.push_image("mine", "v1", LAYER)
        pushed = await self.push_image("hub/b", "v1", b"pushed")
        await self.age()
        await self.used(99 * HOUR, "hub/a")
        summary = await self.evict(maxsize=1, maxage=HOUR)
        self.assertEqual((summary.blobs_evicted, summary.manifests_evicted, summary.blobs_cached), (2, 1, 2))
        await self.pull("mine", "v1")
        await self.pull("hub/b", "v1")
        self.assertFalse(await self.driver.exists(layout.repository("hub/a")))
        self.assertTrue(await self.held("hub/b", pushed))

    async def test_what_local_content_refers_to_does_not_count(self) -> None:
        await self.cache("hub/a", b"1" * 1000)
        await self.push_image("mine", "v1", b"1" * 1000)
        await self.age()
        summary = await self.evict(maxsize=1000)
        self.assertEqual(summary.blobs_evicted, 0)
        self.assertLess(summary.bytes_cached, 1000)
        # By age it goes out of the cache, and stays where it is needed.
        await self.used(9 * HOUR, "hub/a")
        summary = await self.evict(maxage=8 * HOUR)
        self.assertEqual((summary.blobs_evicted, summary.manifests_evicted), (0, 1))
        self.assertEqual(await self.marked("hub/a"), set())
        await self.pull("mine", "v1")

    async def test_a_link_is_enough(self) -> None:
        """Of a push that is under way there is no manifest yet, and its layers may be as old as they like."""
        await self.cache("hub/a", LAYER)
        await self.age()
        await self.registry.blobs.mount(name("mine"), Digest.of(LAYER), name("hub/a"))
        await self.age(*(path for path in await self.files() if "/mine/" not in path))
        await self.evict(maxsize=1)
        self.assertEqual(await self.blob("mine", Digest.of(LAYER)), LAYER)
        # Also where both are old, as nobody has asked for garbage to be collected.
        await self.cache("hub/a", LAYER)
        await self.age()
        await self.evict(maxsize=1)
        self.assertEqual(await self.blob("mine", Digest.of(LAYER)), LAYER)
        summary = await self.evict(maxsize=1, garbage=True)
        self.assertFalse(await self.there(Digest.of(LAYER)))
        self.assertEqual(summary.links_removed, 1)

    async def test_a_local_index_of_cached_images(self) -> None:
        """Below the prefix, from before it was one."""
        await self.cache("hub/a", LAYER, tag=None)
        await self.put("hub/a", "mine", index_manifest(image_manifest(LAYER)))
        await self.age()
        await self.used(99 * HOUR, "hub/a")
        self.assertEqual((await self.evict(maxsize=1, maxage=HOUR)).blobs_evicted, 0)
        await self.pull("hub/a", "mine")

    async def test_a_cached_manifest_with_a_pushed_layer(self) -> None:
        """It was there before, and has no mark: it stays until a collection finds that nothing needs it."""
        await self.push("hub/a", LAYER)
        manifest = image_manifest(LAYER)
        await self.mark("hub/a", await self.push("hub/a", CONFIG))
        await self.mark("hub/a", await self.put("hub/a", "v1", manifest))
        await self.age()
        # All of it is needed as long as the manifest is there.
        summary = await self.evict(maxsize=10**6, maxage=9 * HOUR, garbage=True)
        self.assertEqual((summary.blobs_evicted, summary.links_removed, summary.blobs_swept), (0, 0, 0))
        summary = await self.evict(maxsize=1)
        self.assertEqual(summary.blobs_evicted, 2)
        self.assertTrue(await self.linked("hub/a", Digest.of(LAYER)))
        summary = await self.evict(maxsize=1, garbage=True)
        self.assertEqual((summary.links_removed, summary.blobs_swept, summary.blobs_evicted), (1, 1, 0))
        self.assertEqual(await self.files(), [])

    async def test_other_prefixes(self) -> None:
        """Marks of what is not cached any more mean nothing."""
        await self.cache("gone/a", LAYER)
        await self.cache("hub", b"a repository of the name of a prefix", config=b"{}")
        await self.age()
        before = await self.files()
        self.assertEqual((await self.evict(maxsize=1, maxage=HOUR)).blobs_cached, 0)
        self.assertEqual((await self.evict(maxsize=1, maxage=HOUR, garbage=True)).blobs_evicted, 0)
        self.assertEqual(await self.files(), before)
        self.assertEqual((await self.evict(maxsize=1, prefixes=("",))).blobs_evicted, 6)
        self.assertEqual(await self.files(), [])

    # Names.

    async def test_tags_and_what_remembers(self) -> None:
        first = await self.cache("hub/a", b"1", tag="v1")
        await self.put("hub/a", "latest", image_manifest(b"1"))
        second = await self.cache("hub/a", b"2", tag="latest", config=b"{}")
        about = await self.mark("hub/a", await self.put("hub/a", None, image_manifest(subject={**json.loads(index_manifest(
            image_manifest(b"2", config=b"{}")))["manifests"][0]})))  # fmt: skip
        await self.age()
        await self.used(9 * HOUR, "hub/a", first, about)
        summary = await self.evict(maxage=8 * HOUR)
        self.assertEqual(summary.manifests_evicted, 2)
        self.assertEqual([str(tag) for tag in (await self.registry.tags.page(name("hub/a"), 9)).entries], ["latest"])
        memories = [path for path in await self.files() if "/index/" in path or "/_referrers/" in path]
        self.assertEqual(memories, [layout.tag_index_link(name("hub/a"), Tag("latest"), second)])
        await self.pull("hub/a", "latest")
        await self.consistent()

    async def test_a_tag_that_was_asked_about_keeps_its_manifest(self) -> None:
        digest = await self.cache("hub/a", LAYER)
        await self.age()

        async def ask(method: str, args: tuple[Any, ...]) -> None:
            if method == "scan" and args[0] == layout.tags(name("hub/a")):
                await self.driver.renew(layout.tag_link(name("hub/a"), Tag("v1")))

        self.assertEqual((await self.evict(Acting(self.driver, ask), maxsize=1)).manifests_evicted, 0)
        self.assertEqual(await self.registry.manifests.resolve(name("hub/a"), Tag("v1")), digest)

    async def test_manifests_among_the_layers(self) -> None:
        """As registry:2.1 linked them."""
        digest = await self.cache("hub/a", LAYER)
        await self.driver.write((layout.layer_link(name("hub/a"), digest), digest.encode()))
        await self.driver.delete(layout.revision(name("hub/a"), digest))
        await self.age()
        await self.evict(maxsize=1)
        self.assertEqual(await self.files(), [])

    # Runs that are cut short, and what is broken.

    async def test_any_cut_is_mended_by_the_next(self) -> None:
        """Wherever a run ends, nothing points to nothing, and the next one leaves what one that was not cut short would have."""
        number = 0
        while True:
            await self.cache("hub/a", LAYER, b"2")
            await self.cache("hub/b", LAYER, tag="latest")
            await self.push_image("mine", "v1", b"2")
            await self.age()
            number += 1
            calls = 0

            async def cut(method: str, args: tuple[Any, ...], last: int = number) -> None:
                nonlocal calls
                calls += 1
                if calls == last:
                    raise StorageError("cut")
                if calls > last and method != "scan":
                    raise StorageError("dead")

            summary = await self.collector_of(Acting(self.driver, cut), garbage=False, prefixes=("hub",), maxage=HOUR).run()
            await self.consistent()
            await self.pull("mine", "v1")
            await self.evict(maxage=HOUR)
            # Of a mark without content it is not known why, so it stays for a day.
            self.assertEqual({path for path in await self.files() if "/hub/" in path and "/_cache/" not in path}, set(), number)
            self.assertFalse(await self.there(Digest.of(LAYER)))
            await self.pull("mine", "v1")
            if summary.finished:
                break
        self.assertGreater(number, 30)

    async def test_marks_of_nothing(self) -> None:
        """The content of one may be on its way: it goes after a day."""
        digest = await self.mark("hub/a", Digest.of(LAYER))
        await self.cache("hub/b", b"x")
        await self.age()
        await self.used(23 * HOUR, "hub/a")
        await self.evict(maxsize=1)
        self.assertEqual(await self.marked("hub/a"), {digest})
        await self.cache("hub/b", b"x")
        await self.age()
        await self.used(25 * HOUR, "hub/a")
        await self.evict(maxsize=1)
        self.assertEqual(await self.marked("hub/a"), set())

    async def test_missing_bytes(self) -> None:
        """A scrub has moved a damaged manifest aside: no harm to the rest of its repository."""
        digest = await self.cache("hub/a", LAYER)
        await self.cache("hub/a", b"2", tag="v2", config=b"{}")
        await self.age()
        await self.driver.delete(layout.blob(digest))
        summary = await self.evict(maxage=HOUR)
        self.assertEqual((summary.skipped, summary.blobs_evicted), (0, 5))
        self.assertEqual(await self.files(), [])

    async def test_a_damaged_repository_keeps_everything(self) -> None:
        await self.cache("hub/a", LAYER)
        await self.cache("hub/b", b"b", config=b"{}")
        await self.put_file(layout.tag_link(name("hub/a"), Tag("bad")))
        await self.age()
        await self.used(99 * HOUR, "hub/a")
        summary = await self.evict(maxsize=1, maxage=HOUR)
        self.assertEqual((summary.skipped, summary.blobs_evicted), (1, 3))
        await self.pull("hub/a", "v1")

    async def test_strange_marks(self) -> None:
        await self.cache("hub/a", LAYER)
        await self.put_file(f"{layout.cached_root(name('hub/a'), 'sha256')}/nothing")
        await self.put_file(f"{layout.cached_root(name('hub/a'))}/sha256x/nothing")
        await self.put_file(f"{layout.cached_root(name('hub/a'), 'sha256')}/{'0' * 64}/directory")
        await self.age()
        summary = await self.evict(maxsize=1)
        self.assertEqual(summary.blobs_evicted, 0)
        self.assertEqual(summary.skipped, 2)

    # Collections of garbage.

    async def test_a_collection_evicts_too(self) -> None:
        await self.cache("hub/a", b"1" * 1000)
        await self.push("mine", b"alone")
        await self.age()
        summary = await self.collect(prefixes=("hub",), maxsize=1)
        self.assertEqual((summary.blobs_evicted, summary.blobs_swept), (3, 1))
        self.assertEqual(await self.files(), [])

    async def test_an_eviction_leaves_garbage(self) -> None:
        await self.cache("hub/a", LAYER)
        alone = await self.push("mine", b"alone")
        await self.age()
        before = [path for path in await self.files() if "/mine/" in path or alone.hex in path]
        summary = await self.evict(maxsize=1)
        self.assertEqual((summary.blobs_evicted, summary.blobs_swept, summary.links_removed), (3, 0, 0))
        self.assertEqual(await self.files(), sorted(before))

    async def test_untagged(self) -> None:
        """What came from an upstream goes by its use, and not by its tags."""
        await self.cache("hub/a", LAYER, tag=None)
        await self.push("mine", CONFIG)
        await self.put("mine", None, image_manifest())
        await self.age()
        for limits in ({}, {"maxage": 9 * HOUR}):
            summary = await self.collect(prefixes=("hub",), untagged=True, **limits)
            self.assertEqual(len(await self.marked("hub/a")), 3)
        self.assertEqual(summary.manifests, 1)
        self.assertFalse(await self.driver.exists(layout.repository("mine")))

    async def test_a_dry_run_changes_nothing(self) -> None:
        old = await self.cache("hub/a", b"1" * 1000)
        await self.cache("hub/b", b"2" * 1000, config=b"{}")
        await self.push("mine", b"alone")
        await self.age()
        await self.used(9 * HOUR, "hub/a")
        before = await self.files(Path("docker"))
        summary = await self.collect(prefixes=("hub",), maxsize=1500, dryrun=True)
        self.assertEqual((summary.blobs_evicted, summary.manifests_evicted, summary.blobs_swept), (2, 1, 1))
        self.assertEqual(self.notes.eligible_manifests, [("hub/a", old)])
        self.assertEqual(len(self.notes.eligible_blobs), 3)
        self.assertLessEqual(summary.bytes_cached, 1500)
        self.assertEqual(await self.files(Path("docker")), before)
        self.assertEqual((await self.collect(prefixes=("hub",), maxsize=1500)).blobs_evicted, 2)

    async def test_what_became_of_it(self) -> None:
        await self.cache("hub/a", LAYER)
        await self.evict(maxsize=10**6)
        stored = Summary.from_json(await self.driver.read(layout.report("eviction"), 10_000))
        self.assertEqual((stored.blobs_cached, stored.finished), (3, True))
        with self.assertRaises(Missing):
            await self.driver.read(layout.report("collection"), 10_000)

    # Fetches.

    async def test_abandoned_fetches(self) -> None:
        old, new, held, turn, only = (Digest.of(content) for content in (b"old", b"new", b"held", b"turn", b"only"))
        for digest in (old, new, held, turn):
            await self.driver.write((layout.fetching(digest), b"some"), (layout.fetch_size(digest), b"9\nhub/a"))
        await self.driver.write((layout.fetch_size(only), b"9\nhub/a"))
        everything = await self.files(layout.fetches())
        await self.age(*(path for path in everything if new.hex not in path), seconds=DAY + HOUR)
        appender = await self.driver.append(layout.fetching(held))
        lock = await self.driver.lock(layout.fetch_turn(turn))
        summary = await self.evict()
        self.assertEqual(summary.fetches_removed, 2)
        left = {path.split("/")[3] for path in await self.files(layout.fetches())}
        self.assertEqual(left, {new.hex, held.hex, turn.hex})
        appender.close()
        lock.close()
        self.assertEqual((await self.collect()).fetches_removed, 2)
        self.assertEqual(await fetches.remove_abandoned(self.driver, Steps(0, no_sleep), time.time() + 2 * DAY), 1)
        self.assertEqual(await self.files(layout.fetches()), [])

    # The survey.

    async def survey(self, prefixes: Iterable[str]) -> tuple[list[str], Survey]:
        steps = Steps(0, no_sleep)
        names = [found async for found in repositories(self.driver, steps, prefixes)]
        survey = Survey(self.driver, steps)
        for found in names:
            await survey.add(found)
        return [str(found) for found in names], survey

    async def test_survey(self) -> None:
        for repository in ("hub/a", "hub/a/b", "other/x", "hubble"):
            await self.cache(repository, b"1" * 100)
        await self.push("hub/local", LAYER)
        names, survey = await self.survey(("hub", "hub/a", "nowhere"))
        self.assertEqual((names, survey.count), (["hub/a", "hub/a/b"], 3))
        names, survey = await self.survey(("",))
        self.assertEqual(sorted(names), ["hub/a", "hub/a/b", "hubble", "other/x"])
        self.assertEqual(survey.total(), 100 + len(CONFIG) + len(image_manifest(b"1" * 100)))
        names, survey = await self.survey(())
        self.assertEqual((names, survey.count, survey.oldest()), ([], 0, float("inf")))

    async def test_prefixes(self) -> None:
        self.assertTrue(is_below("a/b", ["a"]))
        self.assertTrue(is_below("a", [""]))
        self.assertFalse(is_below("a", ["a"]))
        self.assertFalse(is_below("ab/c", ["a"]))
        self.assertFalse(Orders(0.0, maxsize=1).evicting)
        self.assertFalse(Orders(0.0, prefixes=("",)).evicting)


class InMemoryTest(Suite, OnMemory):
    pass


class InFilesTest(Suite, OnFilesystem):
    pass
