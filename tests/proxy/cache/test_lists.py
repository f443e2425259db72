"""Tags and referrers of an upstream's repositories."""

from __future__ import annotations

import json
from typing import Any

from regd.errors import BadGateway, Denied, NameUnknown, TooManyRequests
from regd.manifest import OCI_IMAGE, OCI_INDEX
from regd.names import Digest, RepositoryName
from regd.proxy.cache.lists import CachedReferrers, CachedTags, ListOrigin
from regd.proxy.cache.origins import Origin
from regd.proxy.remote import errors as remote
from tests.proxy.cache.support import CACHED, CacheSuite
from tests.registry.case import OnFilesystem, OnMemory, descriptor, image_manifest, name

ONE = image_manifest(b"one")
SUBJECT = Digest.of(ONE)

DOWN = remote.Unreachable("connection refused")
FAILURES = ((DOWN, BadGateway), (remote.Limited("429", 5.0), TooManyRequests), (remote.Wrong("x"), BadGateway))


class ListsSuite(CacheSuite):
    def setUp(self) -> None:
        super().setUp()
        self.tags = CachedTags(self.registry.tags, self.list_origin, self.driver)
        self.referrers = CachedReferrers(self.registry.referrers, self.list_origin)

    def list_origin(self, name: RepositoryName) -> ListOrigin | None:
        origin = self.origin(name)
        return None if origin is None else Origin(self.remote, origin.name, origin.url)


class TagsSuite(ListsSuite):
    async def page(self, limit: int = 100, last: str = "", of: RepositoryName = CACHED) -> tuple[tuple[str, ...], str]:
        page = await self.tags.page(of, limit, last)
        return page.entries, page.last

    async def test_those_of_the_upstream(self) -> None:
        self.remote.lists["library/alpine"] = ["1", "2", "latest"]
        self.remote.put("1", ONE)
        await self.pull("1")
        self.assertEqual(await self.page(), (("1", "2", "latest"), ""))
        self.assertEqual(await self.page(2), (("1", "2"), "2"))
        self.assertEqual(await self.page(2, "2"), (("latest",), ""))
        self.assertEqual(self.remote.asked[-1], ("TAGS", "library/alpine", 2, "2"))

    async def test_local(self) -> None:
        await self.push_image("team/app", "v1", b"one")
        self.assertEqual(await self.page(of=name("team/app")), (("v1",), ""))
        await self.refused(NameUnknown, self.page(of=name("team/none")))
        self.assertEqual(self.remote.asked, [])

    async def test_what_is_here_when_the_upstream_fails(self) -> None:
        self.remote.put("1", ONE)
        await self.pull("1")
        for failure, _ in FAILURES:
            self.remote.failure = failure
            self.assertEqual(await self.page(), (("1",), ""))

    async def test_nothing_is_here(self) -> None:
        for failure, kind in (*FAILURES, (remote.NotThere("404"), NameUnknown), (remote.Denied("401"), Denied)):
            self.remote.failure = failure
            await self.refused(kind, self.page())

    async def test_gone(self) -> None:
        self.remote.put("1", ONE)
        await self.pull("1")
        await self.refused(NameUnknown, self.page())

    async def test_pushed_here_before(self) -> None:
        await self.push_image(CACHED, "own", b"one")
        self.assertEqual(await self.page(), (("own",), ""))

    async def test_denied(self) -> None:
        await self.push_image(CACHED, "own", b"one")
        self.remote.failure = remote.Denied("403")
        await self.refused(Denied, self.page())


class ReferrersSuite(ListsSuite):
    def index(self, *entries: dict[str, Any]) -> bytes:
        return json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}).encode()

    def entry(self, content: bytes, artifact_type: str = "a/sig", **more: Any) -> dict[str, Any]:
        return descriptor(content, OCI_IMAGE, artifactType=artifact_type, **more)

    async def page(self, limit: int = 100, last: str = "", artifact_type: str | None = None, of: RepositoryName = CACHED) -> Any:
        page = await self.referrers.page(of, SUBJECT, limit, last, artifact_type)
        return [entry.to_json() for entry in page.entries], page.last

    async def test_those_of_the_upstream(self) -> None:
        entries = sorted((self.entry(b"%d" % number, annotations={"n": "x"}) for number in range(5)), key=lambda entry: entry["digest"])
        self.remote.index = self.index(*reversed(entries))
        self.assertEqual(await self.page(), (entries, ""))
        first, last = await self.page(2)
        self.assertEqual((first, last), (entries[:2], entries[1]["digest"]))
        self.assertEqual(await self.page(3, last), (entries[2:], ""))

    async def test_by_type(self) -> None:
        """Also where the upstream does not filter."""
        self.remote.index = self.index(self.entry(b"1"), self.entry(b"2", "a/bom"))
        self.assertEqual(await self.page(artifact_type="a/bom"), ([self.entry(b"2", "a/bom")], ""))
        self.assertEqual(self.remote.asked[-1], ("REFERRERS", "library/alpine", SUBJECT, "a/bom"))

    async def test_long_ones(self) -> None:
        entries = [self.entry(b"%d" % number, annotations={"n": "x" * 600_000}) for number in range(3)]
        self.remote.index = self.index(*entries)
        found, last = [], ""
        for _ in range(3):
            page, last = await self.page(last=last)
            found += page
            self.assertEqual(len(page), 1)
        self.assertEqual((last, len({entry["digest"] for entry in found})), ("", 3))

    async def test_none(self) -> None:
        self.assertEqual(await self.page(), ([], ""))
        self.remote.index = self.index()
        self.assertEqual(await self.page(), ([], ""))

    async def test_local(self) -> None:
        self.remote.failure = DOWN
        self.assertEqual(await self.page(of=name("team/app")), ([], ""))
        self.assertEqual(self.remote.asked, [])

    async def test_what_is_here_when_the_upstream_fails(self) -> None:
        signature = image_manifest(b"signature", subject=descriptor(ONE, OCI_IMAGE))
        self.remote.put("sig", signature)
        await self.pull("sig")
        for failure, _ in FAILURES:
            self.remote.failure = failure
            entries, _ = await self.page()
            self.assertEqual([entry["digest"] for entry in entries], [Digest.of(signature)])

    async def test_nobody_is_told_that_there_are_none(self) -> None:
        for failure, kind in (*FAILURES, (remote.Denied("401"), Denied)):
            self.remote.failure = failure
            await self.refused(kind, self.page())

    async def test_garbage(self) -> None:
        self.remote.index = b"<html>"
        await self.refused(BadGateway, self.page())


class TagsInMemoryTest(TagsSuite, OnMemory): ...


class TagsInFilesTest(TagsSuite, OnFilesystem): ...


class ReferrersInMemoryTest(ReferrersSuite, OnMemory): ...


class ReferrersInFilesTest(ReferrersSuite, OnFilesystem): ...
