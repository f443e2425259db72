"""The list of repositories: a walk over directories that comes out sorted, page by page, without looking at more than it needs."""

from __future__ import annotations

from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from regd import pace
from regd.errors import NameInvalid
from regd.names import RepositoryName
from regd.registry.catalog import Catalog
from regd.storage import layout
from regd.storage.layout import Path
from regd.storage.memory import MemoryDriver
from tests.registry.case import LAYER, OnFilesystem, OnMemory, RegistrySuite, name
from tests.support import CountingDriver, no_sleep

#: ``-`` and ``.`` sort before ``/``, digits, ``_`` and letters after it.
COMPONENTS = st.sampled_from(["a", "a-b", "a.b", "a0", "a_b", "ab", "a--b", "b", "a-b-c", "0", "a-0", "aa"])
NAMES = st.lists(COMPONENTS, min_size=1, max_size=4).map("/".join)
#: What a client may give as ``last``: a name, nearly one, or anything.
LAST = NAMES | st.text("ab-./0_%\0\n\u00e9", max_size=12) | st.text(max_size=6)


async def grow(driver: Any, repositories: list[str], others: list[str] | None = None) -> None:
    """
    :param repositories: names that have manifests.
    :param others: names that have blobs or uploads only.
    """
    for repository in repositories:
        await driver.write((Path(f"{layout.manifests(name(repository))}/tags/t/current/link"), b""), durable=False)
    for repository in others or ():
        await driver.write((Path(f"{layout.repository(repository)}/_layers/x/link"), b""), durable=False)


async def pages(catalog: Catalog, limit: int, last: str = "") -> list[str]:
    """All entries, page by page."""
    found: list[str] = []
    while True:
        page = await catalog.page(limit, last)
        assert len(page.entries) <= limit
        found += page.entries
        if not page.last:
            return found
        # A further page is promised only when there is one.
        assert len(page.entries) == limit
        assert page.last == page.entries[-1]
        last = page.last


class CatalogSuite(RegistrySuite):
    async def test_nothing(self) -> None:
        page = await self.registry.catalog.page(100)
        self.assertEqual((page.entries, page.last), ((), ""))

    async def test_in_the_order_of_bytes(self) -> None:
        expected = ["a", "a-b", "a-b/c", "a.b", "a/b", "a/b-c", "a/b/c", "a0", "a_b", "ab", "b"]
        await grow(self.driver, expected[::-1])
        self.assertEqual(sorted(expected), expected)
        for limit in (1, 2, 3, 10, 11, 12, 1000):
            self.assertEqual(await pages(self.registry.catalog, limit), expected)

    async def test_no_entries_at_all(self) -> None:
        await grow(self.driver, ["a"])
        for limit in (0, -1):
            page = await self.registry.catalog.page(limit)
            self.assertEqual((page.entries, page.last), ((), ""))

    async def test_what_has_manifests_is_a_repository(self) -> None:
        await self.push("blobs/only", LAYER)
        await self.push_image("real/one", "latest", LAYER)
        await self.registry.uploads.start(name("upload/only"))
        self.assertEqual(await pages(self.registry.catalog, 10), ["real/one"])

    async def test_a_repository_stays_when_it_is_emptied(self) -> None:
        digest = await self.push_image("a", "latest", LAYER)
        await self.registry.manifests.delete(name("a"), digest)
        self.assertEqual(await pages(self.registry.catalog, 10), ["a"])

    async def test_a_repository_with_many_below_it(self) -> None:
        names = ["a", *(f"a/{number:03}" for number in range(50)), "b", *(f"c/{number:03}" for number in range(50))]
        await grow(self.driver, names)
        for limit in (1, 7, 100, 1000):
            self.assertEqual(await pages(self.registry.catalog, limit), names)

    async def test_what_is_in_the_way(self) -> None:
        await grow(self.driver, ["a", "b/c"])
        top = layout.repositories()
        for path in ("file", "Upper/_manifests/x", "a b/_manifests/x", "_x/_manifests/x", "a./b/_manifests/x", ".t/_manifests/x", "b/file"):
            await self.driver.write((Path(f"{top}/{path}"), b""))
        self.assertEqual(await pages(self.registry.catalog, 10), ["a", "b/c"])

    async def test_only_what_the_client_may_see(self) -> None:
        await grow(self.driver, ["a", "b", "c", "d", "e"])
        page = await self.registry.catalog.page(2, "a", lambda repository: repository != "c")
        self.assertEqual((page.entries, page.last), (("b", "d"), "d"))
        page = await self.registry.catalog.page(2, "d", lambda repository: repository != "c")
        self.assertEqual((page.entries, page.last), (("e",), ""))
        page = await self.registry.catalog.page(2, "", lambda repository: repository < "c")
        self.assertEqual((page.entries, page.last), (("a", "b"), ""))

    async def test_no_more_is_read_than_a_page_needs(self) -> None:
        await grow(self.driver, [f"{letter}/{number}" for letter in "abcdefgh" for number in range(5)])
        self.driver.calls.clear()
        page = await self.registry.catalog.page(3, "d/1")
        self.assertEqual(page.entries, ("d/2", "d/3", "d/4"))
        looked = {path for path, *_ in self.driver.asked("names")}
        # One beyond the page, to know whether there is another.
        self.assertLessEqual({path.removeprefix(layout.repositories())[:2] for path in looked}, {"", "/d", "/e"})

    async def test_last_never_leads_out_of_the_repositories(self) -> None:
        await grow(self.driver, ["a", "b/c"])
        await self.push("a", LAYER)
        for last, expected in (
            ("../", ["a", "b/c"]),
            ("../../../../../../../../../../etc/", ["a", "b/c"]),
            ("./" * 5000, ["a", "b/c"]),
            ("a/../", ["b/c"]),
            ("a/../../../blobs/", ["b/c"]),
            ("a/_layers/", ["b/c"]),
            ("a/_manifests/tags/", ["b/c"]),
            ("/", ["a", "b/c"]),
            ("//", ["a", "b/c"]),
            ("b\0/", ["b/c"]),
            ("b/\0", ["b/c"]),
            ("\0/x", ["a", "b/c"]),
            ("a\ud800/", ["b/c"]),
            ("x" * 300 + "/y", []),
            ("a" * 300 + "/y", ["b/c"]),
            ("a/" * 5000, ["b/c"]),
        ):
            self.driver.calls.clear()
            self.assertEqual(await pages(self.registry.catalog, 10, last), expected, last[:40])
            for path, *_ in self.driver.asked("names"):
                below = path.removeprefix(layout.repositories()).removeprefix("/")
                if below:
                    RepositoryName.parse(below)


class CatalogInMemoryTest(CatalogSuite, OnMemory):
    pass


class CatalogInFilesTest(CatalogSuite, OnFilesystem):
    pass


class CatalogModelTest(SynchronousTestCase):
    @given(st.lists(NAMES, max_size=12), st.lists(NAMES, max_size=4), LAST, st.integers(1, 5))
    @example(["a", "a-b", "a/b", "a.b"], [], "a-b", 1)
    @example(["a/b", "a-b/c", "a"], ["a-b"], "a/", 2)
    def test_every_page_is_that_of_a_sorted_list(self, repositories: list[str], others: list[str], last: str, limit: int) -> None:
        driver: Any = CountingDriver(MemoryDriver())

        async def run() -> None:
            await grow(driver, repositories, others)
            catalog = Catalog(driver, no_sleep)
            expected = sorted(set(repositories))
            later = [each for each in expected if each > last]
            self.assertEqual(await pages(catalog, limit), expected)
            self.assertEqual(await pages(catalog, limit, last), later)
            page = await catalog.page(limit, last)
            self.assertEqual((page.entries, bool(page.last)), (tuple(later[:limit]), len(later) > limit))
            directories = {"/".join(each.split("/")[:end]) for each in (*repositories, *others) for end in range(1, each.count("/") + 2)}
            self.assertEqual([each async for each in catalog.candidates()], sorted(directories))

        self.successResultOf(Deferred.fromCoroutine(run()))

    @given(LAST)
    def test_any_last_is_taken(self, last: str) -> None:
        driver: Any = CountingDriver(MemoryDriver())

        async def run() -> None:
            await grow(driver, ["a", "a/b"])
            await pages(Catalog(driver, no_sleep), 10, last)
            for path, *_ in driver.asked("names"):
                below = path.removeprefix(layout.repositories()).removeprefix("/")
                try:
                    RepositoryName.parse(below or "a")
                except NameInvalid:
                    self.fail(f"{path!r} was looked into")

        self.successResultOf(Deferred.fromCoroutine(run()))

    def test_others_get_their_turn(self) -> None:
        """Whether what is looked at is a repository or not."""
        turns = 0
        self.patch(pace, "TURN", 0)

        async def breathe() -> None:
            nonlocal turns
            turns += 1

        async def run() -> None:
            driver = MemoryDriver()
            await grow(driver, [f"r{number}" for number in range(100)], [f"blobs-{number}" for number in range(200)])
            top = layout.repositories()
            await driver.write(*((Path(f"{top}/{entry}-{number}/x"), b"") for number in range(100) for entry in ("UPPER", "_x", "a-")))
            await Catalog(driver, breathe).page(1000)

        self.successResultOf(Deferred.fromCoroutine(run()))
        self.assertGreaterEqual(turns, 600)

    @given(st.sets(NAMES, max_size=12), st.lists(NAMES, max_size=8), st.data())
    def test_what_is_there_all_the_time_is_listed_once(self, there: set[str], others: list[str], data: st.DataObject) -> None:
        """Whatever comes and goes between two pages."""
        driver = MemoryDriver()

        async def run() -> None:
            await grow(driver, sorted(there))
            catalog = Catalog(driver, no_sleep)
            found: list[str] = []
            last = None
            while last != "":
                for other in data.draw(st.lists(st.sampled_from(others), max_size=3)) if others else []:
                    if other not in there and await driver.exists(layout.manifests(name(other))):
                        await driver.delete(layout.manifests(name(other)))
                    elif other not in there:
                        await grow(driver, [other])
                page = await catalog.page(data.draw(st.integers(1, 4)), last or "")
                found += page.entries
                last = page.last
            self.assertEqual(found, sorted(set(found)))
            self.assertEqual([entry for entry in found if entry in there], sorted(there))

        self.successResultOf(Deferred.fromCoroutine(run()))

    def test_a_page_looks_once_at_what_it_shows(self) -> None:
        driver: Any = CountingDriver(MemoryDriver())

        async def run() -> None:
            await grow(driver, [f"r{number:04}" for number in range(500)])
            driver.calls.clear()
            page = await Catalog(driver, no_sleep).page(100, "r0250")
            self.assertEqual((page.entries[0], page.last), ("r0251", "r0350"))

        self.successResultOf(Deferred.fromCoroutine(run()))
        # One for each, one for the list, and one for each beginning of "r0250" that might be a repository with others below it.
        self.assertLessEqual(len(driver.calls), 101 + 1 + 5)
