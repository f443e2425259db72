"""The list of a repository's tags, and what old trees have among them."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from regd import pace
from regd.errors import NameUnknown
from regd.names import Digest, Tag
from regd.registry.tags import Tags
from regd.storage import layout
from regd.storage.damage import Damage
from regd.storage.layout import Path
from regd.storage.links import Links
from regd.storage.memory import MemoryDriver
from tests.registry.case import LAYER, OnFilesystem, OnMemory, RegistrySuite, name
from tests.support import CountingDriver, no_sleep

REPOSITORY = name("library/alpine")
LINK = Digest.of(b"x").encode()


async def pages(tags: Tags, limit: int, last: str = "") -> list[str]:
    """All tags, page by page."""
    found: list[str] = []
    while True:
        page = await tags.page(REPOSITORY, limit, last)
        assert len(page.entries) <= limit
        found += page.entries
        if not page.last:
            return found
        assert page.last == page.entries[-1] > last
        last = page.last


class TagsSuite(RegistrySuite):
    async def listed(self, limit: int = 100, last: str = "") -> list[str]:
        return await pages(self.registry.tags, limit, last)

    async def test_no_repository(self) -> None:
        error = await self.refused(NameUnknown, self.registry.tags.page(REPOSITORY, 10))
        self.assertEqual(error.detail, {"name": REPOSITORY})
        # Blobs alone make none.
        await self.push(REPOSITORY, LAYER)
        await self.refused(NameUnknown, self.registry.tags.page(REPOSITORY, 10))

    async def test_a_repository_without_tags(self) -> None:
        digest = await self.push_image(REPOSITORY, "latest", LAYER)
        await self.registry.manifests.untag(REPOSITORY, Tag("latest"))
        self.assertEqual(await self.listed(), [])
        await self.driver.delete(layout.tags(REPOSITORY))
        self.assertEqual(await self.listed(), [])
        self.assertIsNotNone(await self.registry.manifests.get(REPOSITORY, digest))

    async def test_in_the_order_of_bytes(self) -> None:
        expected = ["1", "10", "2", "A", "_", "a", "a-b", "a.b", "aa", "b"]
        for tag in reversed(expected):
            await self.push_image(REPOSITORY, tag, LAYER)
        for limit in (1, 3, 10, 11):
            self.assertEqual(await self.listed(limit), expected)
        self.assertEqual(await self.listed(10, "a"), expected[6:])
        # It need not be there, nor a tag at all.
        self.assertEqual(await self.listed(10, "a-"), expected[6:])
        self.assertEqual(await self.listed(10, "\x7f"), [])
        self.assertEqual(await self.listed(10, "../../.."), expected)
        self.assertEqual(await self.listed(10, "a\0"), expected[6:])

    async def test_no_entries_at_all(self) -> None:
        await self.push_image(REPOSITORY, "latest", LAYER)
        page = await self.registry.tags.page(REPOSITORY, 0)
        self.assertEqual((page.entries, page.last), ((), ""))

    async def test_no_more_links_are_read_than_a_page_needs(self) -> None:
        for number in range(20):
            await self.driver.write((layout.tag_link(REPOSITORY, Tag(f"t{number:02}")), LINK))
        self.driver.calls.clear()
        page = await self.registry.tags.page(REPOSITORY, 3, "t04")
        self.assertEqual(page.entries, ("t05", "t06", "t07"))
        self.assertEqual(len(self.driver.asked("read")), 3)

    async def test_what_is_broken_is_passed_over_and_reported(self) -> None:
        for tag in ("a", "z"):
            await self.driver.write((layout.tag_link(REPOSITORY, Tag(tag)), LINK))
        top = layout.tags(REPOSITORY)
        broken = (
            ("empty/current/link", b""),
            ("torn/current/link", b"sha256:abc"),
            ("without/index/sha256/x/link", b""),
            ("file", b""),
            ("link.0b7a1a4e-8a1c-4e4f-9c3b-2f6d5e4c3b2a.tmp", b""),
            (".hidden/current/link", LINK),
            ("no tag/current/link", LINK),
        )
        for path, content in broken:
            await self.driver.write((Path(f"{top}/{path}"), content))
        for _ in range(2):
            self.assertEqual(await self.listed(), ["a", "z"])
            self.assertEqual(self.damage.count, len(broken))

    async def test_a_tag_that_is_given_again_is_whole_again(self) -> None:
        await self.driver.write((layout.tag_link(REPOSITORY, Tag("latest")), b""))
        self.assertEqual(await self.listed(), [])
        await self.push_image(REPOSITORY, "latest", LAYER)
        self.assertEqual(await self.listed(), ["latest"])


class TagsInMemoryTest(TagsSuite, OnMemory):
    pass


class TagsInFilesTest(TagsSuite, OnFilesystem):
    async def test_names_that_are_not_utf_8(self) -> None:
        await self.driver.write((layout.tag_link(REPOSITORY, Tag("a")), LINK))
        os.makedirs(os.fsencode(f"{self.root}/{layout.tags(REPOSITORY)}/") + b"\xff\xfe/current")
        self.assertEqual(await self.listed(), ["a"])
        self.assertEqual(await self.listed(10, "a"), [])
        self.assertEqual(self.damage.count, 1)


class TagsModelTest(SynchronousTestCase):
    @given(
        st.sets(st.text("aA0._-", min_size=1, max_size=4)),
        st.sets(st.text("aA0._-", min_size=1, max_size=4)),
        st.text("aA0._-/\0\u00e9", max_size=4),
        st.integers(1, 4),
    )
    def test_every_page_is_that_of_a_sorted_list(self, whole: set[str], broken: set[str], last: str, limit: int) -> None:
        driver = MemoryDriver()
        damage = Damage()

        async def run() -> None:
            for entries, content in ((broken, b""), (whole, LINK)):
                for entry in entries:
                    await driver.write((Path(f"{layout.tags(REPOSITORY)}/{entry}/current/link"), content))
            await driver.write((Path(f"{layout.manifests(REPOSITORY)}/x"), b""))
            tags = Tags(driver, Links(driver, damage), damage, no_sleep)
            expected = sorted(entry for entry in whole if entry[0] not in ".-")
            self.assertEqual(await pages(tags, limit), expected)
            self.assertEqual(await pages(tags, limit, last), [entry for entry in expected if entry > last])
            self.assertEqual(damage.count, len((broken | whole) - set(expected)))

        self.successResultOf(Deferred.fromCoroutine(run()))

    def test_others_get_their_turn(self) -> None:
        """Whether what is looked at is a tag or not."""
        turns = 0
        self.patch(pace, "TURN", 0)

        async def breathe() -> None:
            nonlocal turns
            turns += 1

        async def run() -> None:
            driver = MemoryDriver()
            await driver.write(*((layout.tag_link(REPOSITORY, Tag(f"t{number:04}")), LINK) for number in range(300)))
            await driver.write(*((Path(f"{layout.tags(REPOSITORY)}/{number:04}.tmp"), b"") for number in range(200)))
            await driver.write(*((Path(f"{layout.tags(REPOSITORY)}/-{number:04}/x"), b"") for number in range(100)))
            await Tags(driver, Links(driver, Damage()), Damage(), breathe).page(REPOSITORY, 1000)

        self.successResultOf(Deferred.fromCoroutine(run()))
        self.assertEqual(turns, 600)

    @given(st.sets(st.text("ab", min_size=1, max_size=3)), st.lists(st.text("ab", min_size=1, max_size=3)), st.data())
    def test_what_is_there_all_the_time_is_listed_once(self, there: set[str], others: list[str], data: st.DataObject) -> None:
        """Whatever comes and goes between two pages."""
        driver = MemoryDriver()

        async def run() -> None:
            for entry in there:
                await driver.write((layout.tag_link(REPOSITORY, Tag(entry)), LINK))
            await driver.write((Path(f"{layout.tags(REPOSITORY)}/z.tmp"), b""))
            tags = Tags(driver, Links(driver, Damage()), Damage(), no_sleep)
            found: list[str] = []
            last = None
            while last != "":
                for entry in data.draw(st.lists(st.sampled_from(others), max_size=3)) if others else []:
                    path = layout.tag(REPOSITORY, Tag(entry))
                    if entry not in there and await driver.exists(path):
                        await driver.delete(path)
                    elif entry not in there:
                        await driver.write((layout.tag_link(REPOSITORY, Tag(entry)), LINK))
                page = await tags.page(REPOSITORY, data.draw(st.integers(1, 4)), last or "")
                found += page.entries
                last = page.last
            self.assertEqual(found, sorted(set(found)))
            self.assertEqual([entry for entry in found if entry in there], sorted(there))

        self.successResultOf(Deferred.fromCoroutine(run()))

    def test_a_page_asks_for_what_it_shows(self) -> None:
        driver: Any = CountingDriver(MemoryDriver())

        async def run() -> None:
            await driver.write(*((layout.tag_link(REPOSITORY, Tag(f"t{number:04}")), LINK) for number in range(500)))
            driver.calls.clear()
            page = await Tags(driver, Links(driver, Damage()), Damage(), no_sleep).page(REPOSITORY, 100, "t0250")
            self.assertEqual((page.entries[0], page.last), ("t0251", "t0350"))

        self.successResultOf(Deferred.fromCoroutine(run()))
        self.assertEqual(driver.asked("names"), [(layout.tags(REPOSITORY), "t0250", 101)])
        self.assertLessEqual(len(driver.calls), 102)
