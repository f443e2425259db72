"""Referrers: what was pushed about a manifest, by the API or under the fallback tag, filtered, page by page, gone when it is deleted."""

from __future__ import annotations

import json

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from regd import pace
from regd.maintenance.gate import Gate
from regd.manifest import OCI_ARTIFACT, OCI_IMAGE, OCI_INDEX, Descriptor, Manifest
from regd.names import Digest, Tag
from regd.registry import referrers
from regd.registry.by_digest import ByDigest
from regd.registry.core import Registry
from regd.registry.referrers import fallback_tag
from regd.registry.rules import ManifestRules
from regd.storage import layout
from regd.storage.damage import Damage
from regd.storage.layout import Path
from regd.storage.links import Links
from regd.storage.memory import MemoryDriver
from tests.registry.case import (
    CONFIG,
    GRACE,
    LAYER,
    NOW,
    OnFilesystem,
    OnMemory,
    RegistrySuite,
    descriptor,
    image_manifest,
    index_manifest,
    name,
)

REPOSITORY = name("library/alpine")
SUBJECT = image_manifest(LAYER)
SIGNATURE = "application/vnd.example.signature"
SBOM = "application/vnd.example.sbom"


def about(subject: bytes, number: int, artifact_type: str = SIGNATURE) -> bytes:
    """A manifest about another."""
    return image_manifest(artifactType=artifact_type, subject=descriptor(subject, OCI_IMAGE), annotations={"number": str(number)})


class ReferrersSuite(RegistrySuite):
    async def fill(self, count: int, artifact_type: str = SIGNATURE) -> list[Digest]:
        """
        :return: the digests of so many referrers of :data:`SUBJECT`, in the order of a listing.
        """
        await self.push(REPOSITORY, CONFIG)
        return sorted([await self.put(REPOSITORY, None, about(SUBJECT, number, artifact_type)) for number in range(count)])

    async def listed(
        self, subject: Digest | None = None, limit: int = 100, artifact_type: str | None = None, last: str = ""
    ) -> list[Descriptor]:
        """All entries, page by page."""
        found: list[Descriptor] = []
        while True:
            page = await self.registry.referrers.page(REPOSITORY, subject or Digest.of(SUBJECT), limit, last, artifact_type)
            self.assertLessEqual(len(page.entries), limit)
            found += page.entries
            if not page.last:
                return found
            self.assertEqual(page.last, page.entries[-1].digest)
            last = page.last

    async def digests(
        self, subject: Digest | None = None, limit: int = 100, artifact_type: str | None = None, last: str = ""
    ) -> list[Digest]:
        return [entry.digest for entry in await self.listed(subject, limit, artifact_type, last)]

    async def test_none(self) -> None:
        self.assertEqual(await self.listed(), [])
        await self.push_image(REPOSITORY, "latest", LAYER)
        self.assertEqual(await self.listed(), [])
        self.assertEqual(await self.listed(Digest.of(b"x", "sha512")), [])

    async def test_what_is_said_of_each(self) -> None:
        await self.push(REPOSITORY, CONFIG)
        subject = descriptor(SUBJECT, OCI_IMAGE)
        image = about(SUBJECT, 1)
        plain = image_manifest(subject=subject)
        index = index_manifest(subject=subject, artifactType=SBOM)
        artifact = json.dumps({"mediaType": OCI_ARTIFACT, "artifactType": SBOM, "subject": subject}).encode()
        for content in (image, plain, index, artifact):
            await self.put(REPOSITORY, None, content)
        entries = {entry.digest: entry.to_json() for entry in await self.listed()}
        self.assertEqual(
            entries,
            {
                Digest.of(image): descriptor(image, OCI_IMAGE, artifactType=SIGNATURE, annotations={"number": "1"}),
                Digest.of(plain): descriptor(plain, OCI_IMAGE, artifactType="application/vnd.oci.image.config.v1+json"),
                Digest.of(index): descriptor(index, OCI_INDEX, artifactType=SBOM),
                Digest.of(artifact): descriptor(artifact, OCI_ARTIFACT, artifactType=SBOM),
            },
        )

    async def test_before_and_after_their_subject(self) -> None:
        expected = await self.fill(2)
        self.assertEqual(await self.digests(), expected)
        await self.push_image(REPOSITORY, "latest", LAYER)
        self.assertEqual(await self.digests(), expected)
        await self.registry.manifests.delete(REPOSITORY, Digest.of(SUBJECT))
        self.assertEqual(await self.digests(), expected)

    async def test_of_this_repository_and_this_subject(self) -> None:
        await self.fill(1)
        page = await self.registry.referrers.page(name("other"), Digest.of(SUBJECT), 10)
        self.assertEqual(page.entries, ())
        self.assertEqual(await self.listed(Digest.of(b"other")), [])

    async def test_of_every_algorithm(self) -> None:
        await self.push(REPOSITORY, CONFIG)
        subject = {**descriptor(SUBJECT, OCI_IMAGE), "digest": Digest.of(SUBJECT, "sha512")}
        content = image_manifest(subject=subject)
        for algorithm in ("sha256", "sha512"):
            await self.put(REPOSITORY, Digest.of(content, algorithm), content)
        expected = [Digest.of(content), Digest.of(content, "sha512")]
        for limit in (1, 2, 3):
            self.assertEqual(await self.digests(Digest.of(SUBJECT, "sha512"), limit), expected)
        self.assertEqual(await self.digests(), [])

    async def test_page_by_page(self) -> None:
        expected = await self.fill(7)
        for limit in (1, 2, 3, 6, 7, 8):
            self.assertEqual(await self.digests(limit=limit), expected)
        for index, last in enumerate(expected):
            self.assertEqual(await self.digests(last=last), expected[index + 1 :])
        self.assertEqual(await self.digests(last="\xff"), [])
        self.assertEqual(await self.digests(last="../.."), expected)
        page = await self.registry.referrers.page(REPOSITORY, Digest.of(SUBJECT), 7)
        self.assertEqual(page.last, "")

    async def test_of_one_type(self) -> None:
        signatures = await self.fill(3)
        sboms = await self.fill(4, SBOM)
        for limit in (1, 2, 100):
            self.assertEqual(await self.digests(limit=limit, artifact_type=SIGNATURE), signatures)
            self.assertEqual(await self.digests(limit=limit, artifact_type=SBOM), sboms)
            self.assertEqual(await self.digests(limit=limit, artifact_type="application/other"), [])
            self.assertEqual(await self.digests(limit=limit), sorted([*signatures, *sboms]))

    async def test_a_deleted_one_is_gone(self) -> None:
        expected = await self.fill(3)
        await self.registry.manifests.delete(REPOSITORY, expected[1])
        self.assertEqual(await self.digests(), [expected[0], expected[2]])
        self.assertFalse(await self.driver.exists(layout.referrer(REPOSITORY, Digest.of(SUBJECT), expected[1])))

    async def test_one_whose_bytes_were_collected_is_gone(self) -> None:
        expected = await self.fill(2)
        await self.driver.delete(layout.blob_data(expected[0]))
        self.assertEqual(await self.digests(), expected[1:])

    async def test_one_that_is_deleted_while_the_list_is_made(self) -> None:
        expected = await self.fill(3)
        real = self.registry.manifests.read

        async def read(digest: Digest) -> Manifest | None:
            found = await real(digest)
            if digest == expected[1] and found is not None:
                await self.driver.delete(layout.revision(REPOSITORY, digest))
            return found

        self.patch(self.registry.manifests, "read", read)
        found = await self.digests()
        self.assertEqual([each for each in found if each != expected[1]], [expected[0], expected[2]])

    # The fallback tag.

    def test_the_fallback_tag(self) -> None:
        """Specification 1.1, "Referrers Tag Schema"."""
        sha256, sha512 = Digest.of(SUBJECT), Digest.of(SUBJECT, "sha512")
        self.assertEqual(fallback_tag(sha256), f"sha256-{sha256.hex}")
        self.assertEqual(fallback_tag(sha512), f"sha512-{sha512.hex[:64]}")
        for digest in (sha256, sha512):
            self.assertEqual(Tag.parse(fallback_tag(digest)), fallback_tag(digest))

    async def test_what_clients_pushed_under_the_fallback_tag_is_merged_in(self) -> None:
        await self.push(REPOSITORY, CONFIG)
        contents = [about(SUBJECT, number) for number in range(4)]
        # Two that came before there was an API: they have no referrer link. One is known both ways.
        for content in contents:
            digest = await self.put(REPOSITORY, None, content)
        for content in contents[:2]:
            await self.driver.delete(layout.referrer(REPOSITORY, Digest.of(SUBJECT), Digest.of(content)))
        unrelated = about(b"other", 9)
        digest = await self.put(REPOSITORY, None, unrelated)
        self.assertEqual(await self.digests(), sorted(Digest.of(content) for content in contents[2:]))
        tag = fallback_tag(Digest.of(SUBJECT))
        await self.put(REPOSITORY, tag, index_manifest(*contents[:3], unrelated))
        expected = sorted(Digest.of(content) for content in contents)
        for limit in (1, 3, 100):
            self.assertEqual(await self.digests(limit=limit), expected)
        self.assertNotIn(digest, expected)
        # What the index lists and the repository does not hold any more.
        await self.registry.manifests.delete(REPOSITORY, Digest.of(contents[0]))
        self.assertEqual(await self.digests(), [each for each in expected if each != Digest.of(contents[0])])

    async def test_a_fallback_tag_that_is_no_index(self) -> None:
        expected = await self.fill(1)
        await self.put(REPOSITORY, fallback_tag(Digest.of(SUBJECT)), about(b"other", 1))
        self.assertEqual(await self.digests(), expected)
        await self.driver.write((layout.tag_link(REPOSITORY, fallback_tag(Digest.of(SUBJECT))), b""))
        self.assertEqual(await self.digests(), expected)

    async def test_the_fallback_tag_s_index_is_read_once(self) -> None:
        expected = await self.fill(3)
        contents = [about(SUBJECT, number) for number in range(3)]
        tag = fallback_tag(Digest.of(SUBJECT))
        await self.put(REPOSITORY, tag, index_manifest(*contents))
        read: list[Digest] = []
        real = self.registry.manifests.read

        async def count(digest: Digest) -> Manifest | None:
            read.append(digest)
            return await real(digest)

        self.patch(self.registry.manifests, "read", count)
        for _ in range(3):
            self.assertEqual(await self.digests(limit=1), expected)
        self.assertEqual(len(read), 1)
        await self.put(REPOSITORY, tag, index_manifest(*contents[:1]))
        self.assertEqual(await self.digests(), expected)
        self.assertEqual(len(read), 2)

    def test_few_fallback_tags_are_remembered(self) -> None:
        known = ByDigest(4, referrers._weight)
        digests = [Digest.of(b"%d" % number) for number in range(3)]
        known.put(digests[0], tuple(digests[:2]))
        self.assertEqual(known.get(digests[0]), tuple(digests[:2]))
        known.put(digests[1], ())
        known.put(digests[2], (digests[0],))
        self.assertEqual([known.get(digest) for digest in digests], [None, (), (digests[0],)])
        known.put(digests[0], tuple(digests * 2))
        self.assertIsNone(known.get(digests[0]))

    # What a page costs.

    async def test_a_page_reads_what_it_shows(self) -> None:
        expected = await self.fill(12)
        registry = self.restarted()
        for index in (0, 4, 8):
            last = expected[index - 1] if index else ""
            self.driver.calls.clear()
            page = await registry.referrers.page(REPOSITORY, Digest.of(SUBJECT), 3, last)
            self.assertEqual([entry.digest for entry in page.entries], expected[index : index + 3])
            # One more, to know whether there is another page.
            self.assertEqual({path for path, *_ in self.driver.asked("read") if path.endswith("/data")}, {
                layout.blob_data(digest) for digest in expected[index : index + 4]
            })  # fmt: skip
            first = last.removeprefix("sha256:")
            self.assertIn((layout.referrers(REPOSITORY, Digest.of(SUBJECT), "sha256"), first, 4), self.driver.asked("names"))

    async def test_a_page_is_not_too_long(self) -> None:
        expected = await self.fill(5)
        entries = await self.listed()
        length = len(json.dumps(entries[0].to_json()))
        for size, count in ((1, 1), (length + 1, 1), (2 * length + 1, 2), (100 * length, 5)):
            self.patch(referrers, "PAGE_BYTES", size)
            page = await self.registry.referrers.page(REPOSITORY, Digest.of(SUBJECT), 100)
            self.assertEqual(len(page.entries), count)
            self.assertEqual(await self.digests(), expected)

    async def test_looking_for_one_type_has_an_end(self) -> None:
        self.patch(referrers, "_LOOKED_AT", 2)
        signatures = await self.fill(20)
        sboms = await self.fill(2, SBOM)
        every = sorted([*signatures, *sboms])
        last, found, count = "", [], 0
        while True:
            self.driver.calls.clear()
            page = await self.registry.referrers.page(REPOSITORY, Digest.of(SUBJECT), 1, last, SBOM)
            self.assertLessEqual(len(self.driver.asked("stat")) + len(self.driver.asked("read")), 30)
            found += [entry.digest for entry in page.entries]
            count += 1
            if not page.last:
                break
            self.assertGreater(page.last, last)
            last = page.last
        self.assertEqual(found, sboms)
        self.assertLessEqual(count, len(every))
        self.assertGreater(count, 4)

    # What is in the way.

    async def test_what_is_broken_is_passed_over(self) -> None:
        expected = await self.fill(2)
        top = layout.referrers(REPOSITORY, Digest.of(SUBJECT), "sha256")
        stranger = await self.put(REPOSITORY, None, about(b"other", 1))
        for entry in ("junk", "A" * 64, Digest.of(b"not here").hex, stranger.hex, f"{expected[0].hex}.tmp"):
            await self.driver.write((Path(f"{top}/{entry}/link"), b"x"))
        layer = await self.push(REPOSITORY, LAYER)
        await self.driver.write(Links.file(layout.referrer_link(REPOSITORY, Digest.of(SUBJECT), layer), layer))
        self.assertEqual(await self.digests(), expected)
        # A link's content is not needed to list it: its name says all.
        await self.driver.write((layout.referrer_link(REPOSITORY, Digest.of(SUBJECT), expected[0]), b""))
        self.assertEqual(await self.digests(), expected)


class ReferrersInMemoryTest(ReferrersSuite, OnMemory):
    pass


class ReferrersInFilesTest(ReferrersSuite, OnFilesystem):
    pass


class PaceTest(SynchronousTestCase):
    def test_others_get_their_turn(self) -> None:
        turns = 0
        self.patch(pace, "TURN", 0)

        async def breathe(seconds: float) -> None:
            nonlocal turns
            turns += 1

        async def run() -> None:
            driver = MemoryDriver()
            registry = Registry(driver, Damage(), ManifestRules(), lambda: NOW, breathe, Gate(driver, breathe), GRACE)
            for number in range(130):
                entry = Digest.of(str(number).encode())
                await driver.write(Links.file(layout.referrer_link(REPOSITORY, Digest.of(SUBJECT), entry), entry))
            await registry.referrers.page(REPOSITORY, Digest.of(SUBJECT), 1000)

        self.successResultOf(Deferred.fromCoroutine(run()))
        self.assertEqual(turns, 130)
