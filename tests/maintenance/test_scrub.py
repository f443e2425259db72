"""Scrubbing: what is found, what is mended, where it goes on; over storage in memory and over files."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regd.errors import BlobUnknown
from regd.maintenance.gate import Gate
from regd.maintenance.scrub import Finding, Kind, Orders, Progress, Running, Scrub, Stage
from regd.maintenance.scrub.findings import KEPT
from regd.manifest import OCI_IMAGE
from regd.names import Digest, RepositoryName, Tag
from regd.pace import Sleep
from regd.storage import layout
from regd.storage.driver import Driver, Held, StorageError
from regd.storage.layout import Path
from tests.registry.case import CONFIG, LAYER, OnFilesystem, OnMemory, RegistrySuite, descriptor, image_manifest, index_manifest, name
from tests.support import no_sleep

NAME = RepositoryName("library/alpine")
TAG = Tag("v1")
OTHER = b"another layer"


class Notes:
    """A :class:`~regd.maintenance.scrub.desk.Witness` that writes down what it is told."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self.begun: Progress | None = None
        self.expected: tuple[int, int] | None = None
        self.steps = 0
        self.last = Progress()
        #: Called at each step.
        self.at_step: Callable[[], object] = lambda: None

    def begins(self, progress: Progress) -> None:
        self.begun = replace(progress, findings=list(progress.findings))

    def expects(self, blobs: int, size: int) -> None:
        self.expected = (blobs, size)

    def finding(self, finding: Finding) -> None:
        self.findings.append(finding)

    def progress(self, progress: Progress) -> None:
        self.steps += 1
        self.last = progress
        self.at_step()


class ScrubSuite(RegistrySuite):
    if TYPE_CHECKING:
        driver: Any

    async def scrub(
        self, notes: Notes | None = None, now: Callable[[], float] = time.time, gate: Gate | None = None, **orders: Any
    ) -> tuple[Progress, list[Finding]]:
        self.notes = notes or Notes()
        self.job = Scrub(self.driver, gate or Gate(self.driver, no_sleep), self.notes, Orders(**orders), no_sleep, now)
        return await self.job.run(), self.notes.findings

    async def found(self, **orders: Any) -> Finding:
        """The one finding."""
        _, findings = await self.scrub(**orders)
        self.assertEqual(len(findings), 1, [str(one) for one in findings])
        return findings[0]

    async def well(self) -> Progress:
        progress, findings = await self.scrub()
        self.assertEqual([str(one) for one in findings], [])
        self.assertEqual((progress.stage, progress.remaining), (Stage.DONE, 0))
        return progress

    async def image(self, *layers: bytes) -> Digest:
        return await self.push_image(NAME, TAG, *(layers or (LAYER,)))

    async def spoil(self, digest: Digest, content: bytes = b"something else") -> Path:
        path = layout.blob_data(digest)
        await self.driver.write((path, content))
        return path

    # All well.

    async def test_nothing(self) -> None:
        progress = await self.well()
        self.assertEqual((progress.repositories, progress.links, progress.blobs), (0, 0, 0))

    async def test_a_tree_that_is_right(self) -> None:
        digest = await self.image()
        await self.push("other/deep/name", OTHER, "sha512")
        await self.put(NAME, "index", index_manifest(image_manifest(LAYER)))
        await self.put(NAME, None, image_manifest(LAYER, subject=descriptor(image_manifest(LAYER), OCI_IMAGE)))
        await self.put(NAME, None, image_manifest(LAYER, subject={"mediaType": OCI_IMAGE, "digest": f"sha256:{'0' * 64}", "size": 3}))
        progress = await self.well()
        self.assertEqual((progress.repositories, progress.manifests, progress.blobs), (2, 4, 7))
        # Layers, revisions, two tags with an entry each, referrers.
        self.assertEqual(progress.links, 3 + 4 + 4 + 2)
        self.assertEqual(progress.size, sum([(await self.driver.stat(layout.blob_data(one))).size for one in await self.blobs()]))
        self.assertEqual((progress.orphans, progress.damaged, progress.strange, progress.leftovers), (0, 0, 0, 0))
        self.assertEqual(await self.blob(NAME, Digest.of(LAYER)), LAYER)
        self.assertTrue(digest)

    async def blobs(self) -> list[Digest]:
        found = []
        for algorithm in await self.driver.scan(layout.blobs()):
            for prefix in await self.driver.scan(Path(f"{layout.blobs()}/{algorithm}")):
                found += [Digest(f"{algorithm}:{hex_}") for hex_ in await self.driver.scan(Path(f"{layout.blobs()}/{algorithm}/{prefix}"))]
        return found

    async def test_orphans_are_no_damage(self) -> None:
        await self.image()
        await self.driver.write((layout.blob_data(Digest.of(OTHER)), OTHER))
        progress = await self.well()
        self.assertEqual((progress.orphans, progress.orphan_bytes), (1, len(OTHER)))

    async def test_what_deletions_leave_is_counted(self) -> None:
        """registry:2 removes the link and leaves the directory."""
        await self.image()
        gone = layout.revision_link(NAME, Digest.of(b"x"))
        await self.driver.write((gone, b"x"))
        await self.driver.delete(gone)
        progress = await self.well()
        self.assertEqual(progress.empty, 1)

    async def test_links_with_a_newline(self) -> None:
        await self.image()
        digest = Digest.of(LAYER)
        await self.driver.write((layout.layer_link(NAME, digest), f"{digest}\n".encode()))
        await self.well()

    async def test_sha512_as_registry_2_has_it(self) -> None:
        """The bytes under their sha256 digest; a link under each name."""
        own, other = Digest.of(LAYER), Digest.of(LAYER, "sha512")
        await self.driver.write(
            (layout.blob_data(own), LAYER),
            (layout.layer_link(NAME, own), own.encode()),
            (layout.layer_link(NAME, other), own.encode()),
        )
        progress = await self.well()
        self.assertEqual((progress.links, progress.blobs, progress.orphans), (2, 1, 0))
        # Linked by that name only.
        await self.driver.delete(layout.layer(NAME, own))
        self.assertEqual((await self.well()).orphans, 0)
        wrong = Digest.of(OTHER, "sha512")
        await self.driver.write((layout.layer_link(NAME, wrong), own.encode()))
        finding = await self.found()
        self.assertEqual(finding.path, layout.blob_data(own))
        self.assertIn(f"is linked as {wrong}", finding.what)
        self.assertFalse((await self.found(repair=True)).mended)

    async def test_manifests_where_registry_2_1_has_them(self) -> None:
        digest = await self.image()
        await self.put(NAME, "list", index_manifest(image_manifest(LAYER)))
        await self.move(layout.revision_link(NAME, digest), layout.layer_link(NAME, digest))
        await self.well()

    # Blobs.

    async def test_a_damaged_blob(self) -> None:
        await self.image()
        path = await self.spoil(Digest.of(LAYER))
        finding = await self.found()
        self.assertEqual((finding.path, finding.kind, finding.mended), (path, Kind.DAMAGE, False))
        self.assertIn(f"has the digest {Digest.of(b'something else')}", finding.what)
        self.assertIn("--repair", finding.remedy)
        # Without being told to, it changes nothing.
        self.assertEqual(await self.read(path), b"something else")
        finding = await self.found(repair=True)
        self.assertIn("moved aside to regd/damaged/sha256/", finding.remedy)
        self.assertFalse(finding.mended)
        self.assertFalse(await self.driver.exists(path))
        self.assertEqual(await self.read(layout.damaged(Digest.of(LAYER))), b"something else")
        await self.refused(BlobUnknown, self.registry.blobs.stat(NAME, Digest.of(LAYER)))
        # It is missing now, until somebody pushes it.
        finding = await self.found(repair=True)
        self.assertEqual(finding.path, layout.layer_link(NAME, Digest.of(LAYER)))
        self.assertIn("push", finding.remedy)
        await self.push(NAME, LAYER)
        finding = await self.found()
        self.assertEqual((finding.kind, finding.path), (Kind.LEFTOVER, f"regd/damaged/sha256/{Digest.of(LAYER).hex}"))
        progress, _ = await self.scrub(repair=True)
        self.assertEqual((progress.leftovers, progress.removed), (1, 1))
        await self.well()

    async def test_damaged_again(self) -> None:
        """What was moved aside earlier gives way."""
        await self.image()
        for content in (b"once", b"twice"):
            await self.push(NAME, LAYER)
            await self.spoil(Digest.of(LAYER), content)
            await self.scrub(repair=True)
            self.assertEqual(await self.read(layout.damaged(Digest.of(LAYER))), content)

    async def test_an_empty_blob(self) -> None:
        await self.image()
        await self.spoil(Digest.of(LAYER), b"")
        _, findings = await self.scrub()
        self.assertEqual([one.path for one in findings], [layout.layer_link(NAME, Digest.of(LAYER)), layout.blob_data(Digest.of(LAYER))])
        self.assertEqual(findings[1].what, "is empty")

    async def test_the_blob_that_is_empty(self) -> None:
        await self.push_image(NAME, TAG, b"")
        await self.well()

    async def test_a_damaged_blob_that_nobody_has(self) -> None:
        digest = Digest.of(OTHER)
        await self.spoil(digest)
        finding = await self.found(repair=True)
        self.assertTrue(finding.mended)
        await self.well()

    async def test_a_damaged_sha512(self) -> None:
        digest = await self.push(NAME, OTHER, "sha512")
        path = await self.spoil(digest)
        self.assertEqual((await self.found()).path, path)

    async def test_strange_names_of_blobs(self) -> None:
        root = layout.blobs()
        await self.driver.write(
            (Path(f"{root}/md5/ab/abc/data"), b""),
            (Path(f"{root}/sha256/abc/def/data"), b""),
            (Path(f"{root}/sha256/ab/def/data"), b""),
            (Path(f"{root}/sha256/ab/{'c' * 64}/data"), b""),
            (Path(f"{layout.blob_data(Digest.of(OTHER)).rpartition('/')[0]}/note"), b""),
        )
        progress, findings = await self.scrub(repair=True)
        self.assertEqual({one.kind for one in findings}, {Kind.STRANGE})
        self.assertEqual(len(findings), 5)
        self.assertEqual((progress.strange, progress.remaining), (5, 0))
        for one in findings:
            self.assertTrue(await self.driver.exists(Path(one.path)), one)

    # Links.

    async def test_links_that_hold_nothing_right(self) -> None:
        for content, what in (
            (b"", "an empty link"),
            (b"\0\0\0", "an empty link"),
            (b"sha256:abc", "a link that holds no digest"),
            (b"\xff\xfe", "a link that holds no digest"),
            (Digest.of(CONFIG).encode(), f"a link that holds another digest, {Digest.of(CONFIG)}"),
        ):
            manifest = await self.image()
            for path, digest in (
                (layout.layer_link(NAME, Digest.of(LAYER)), Digest.of(LAYER)),
                (layout.revision_link(NAME, manifest), manifest),
                (layout.tag_index_link(NAME, TAG, manifest), manifest),
            ):
                await self.driver.write((path, content))
                finding = await self.found()
                self.assertEqual((finding.path, finding.what, finding.mended), (path, what, False))
                finding = await self.found(repair=True)
                self.assertEqual((finding.path, finding.what, finding.mended), (path, what, True))
                self.assertEqual(await self.read(path), digest.encode())
                await self.well()

    async def test_a_mended_link_is_a_promise(self) -> None:
        """A collection that has looked at the repository already must not sweep what it links now."""
        await self.image()
        await self.driver.write((layout.layer_link(NAME, Digest.of(LAYER)), b""))
        self.driver.calls.clear()
        await self.scrub(repair=True)
        calls = [call for call in self.driver.calls if call[0] in {"renew", "write", "secure"}]
        path = layout.layer_link(NAME, Digest.of(LAYER))
        self.assertEqual(calls[:3], [("renew", layout.blob_data(Digest.of(LAYER))), ("write", path), ("secure", path)])

    async def test_a_link_is_not_mended_for_a_damaged_blob(self) -> None:
        await self.image()
        await self.spoil(Digest.of(LAYER))
        path = layout.layer_link(NAME, Digest.of(LAYER))
        await self.driver.write((path, b""))
        progress, findings = await self.scrub(repair=True)
        self.assertEqual([one.path for one in findings], [path, layout.blob_data(Digest.of(LAYER))])
        self.assertIn("the blob is damaged, too", findings[0].remedy)
        self.assertEqual((progress.damaged, progress.mended), (2, 0))
        self.assertEqual(await self.read(path), b"")
        # The push that mends the one mends the other.
        await self.push(NAME, LAYER)
        await self.scrub(repair=True)
        await self.well()

    async def test_missing_blobs(self) -> None:
        manifest = await self.image()
        for digest, path in (
            (Digest.of(LAYER), layout.layer_link(NAME, Digest.of(LAYER))),
            (manifest, layout.revision_link(NAME, manifest)),
        ):
            await self.driver.delete(layout.blob_data(digest))
            for repair in (False, True):
                finding = await self.found(repair=repair)
                self.assertEqual((finding.path, finding.what, finding.mended), (path, "what it links is not there", False))
                # It stays: a push heals it.
                self.assertTrue(await self.driver.exists(path))
            await self.image()
            await self.well()

    async def test_an_empty_link_without_a_blob(self) -> None:
        await self.image()
        path = layout.layer_link(NAME, Digest.of(LAYER))
        await self.driver.write((path, b""))
        await self.driver.delete(layout.blob_data(Digest.of(LAYER)))
        self.assertIn("not there either", (await self.found()).remedy)
        finding = await self.found(repair=True)
        self.assertIn("is not there; pushing it again", finding.remedy)
        self.assertFalse(finding.mended)

    async def test_what_a_manifest_names(self) -> None:
        manifest = await self.image()
        await self.put(NAME, "second", image_manifest(LAYER, artifactType="a/b"))
        index = await self.put(NAME, "list", index_manifest(image_manifest(LAYER)))
        path = layout.layer_link(NAME, Digest.of(LAYER))
        await self.driver.delete(layout.layer(NAME, Digest.of(LAYER)))
        # Once, however many manifests name it.
        finding = await self.found(repair=True)
        self.assertEqual((finding.path, finding.kind, finding.mended), (path, Kind.DAMAGE, False))
        await self.push(NAME, LAYER)
        await self.driver.delete(layout.revision(NAME, manifest))
        _, findings = await self.scrub()
        self.assertEqual({one.path for one in findings}, {layout.revision_link(NAME, manifest), layout.tag_link(NAME, TAG)})
        self.assertIn(str(index), findings[0].what)
        # The configuration may allow it.
        self.assertEqual((await self.found(sparse=True)).path, layout.tag_link(NAME, TAG))

    async def test_foreign_layers(self) -> None:
        layer = descriptor(b"far away", "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", urls=["https://example.com/x"])
        self.registry = self.restarted(url_permitted=lambda url: True)
        await self.push(NAME, CONFIG)
        await self.put(NAME, TAG, image_manifest(layers=[layer]))
        await self.well()

    async def test_what_is_no_manifest(self) -> None:
        for content, kind in (
            (b"not JSON", Kind.DAMAGE),
            (b'{"schemaVersion": 1}', Kind.STRANGE),
            (b" " * (4 << 20) + b"{}", Kind.STRANGE),
        ):
            digest = Digest.of(content)
            link = layout.revision_link(NAME, digest)
            await self.driver.write((layout.blob_data(digest), content), (link, digest.encode()))
            finding = await self.found()
            self.assertEqual((finding.path, finding.kind), (link, kind))
            await self.driver.delete(layout.revision(NAME, digest))

    # Tags.

    async def test_a_tag_without_a_current_link(self) -> None:
        manifest = await self.image()
        path = layout.tag_link(NAME, TAG)
        for content in (None, b"", b"nonsense"):
            if content is None:
                await self.driver.delete(Path(path.rpartition("/")[0]))
            else:
                await self.driver.write((path, content))
            self.assertFalse((await self.found()).mended)
            self.assertTrue((await self.found(repair=True)).mended)
            self.assertEqual(await self.read(path), manifest.encode())
            await self.well()

    async def test_a_tag_that_has_meant_more(self) -> None:
        first = await self.image()
        await self.put(NAME, TAG, image_manifest(LAYER, artifactType="a/b"))
        path = layout.tag_link(NAME, TAG)
        await self.driver.write((path, b""))
        finding = await self.found(repair=True)
        self.assertFalse(finding.mended)
        self.assertIn("it has meant 2 manifests", finding.remedy)
        # One of them is not here any more.
        await self.driver.delete(layout.revision(NAME, first))
        self.assertTrue((await self.found(repair=True)).mended)

    async def test_a_tag_of_nothing(self) -> None:
        await self.image()
        path = layout.tag_link(NAME, TAG)
        await self.driver.delete(layout.tag(NAME, TAG))
        await self.driver.write((path, b""))
        self.assertIn("nothing tells what it meant", (await self.found(repair=True)).remedy)
        await self.driver.write((path, Digest.of(OTHER).encode()))
        finding = await self.found(repair=True)
        self.assertEqual((finding.path, finding.mended), (path, False))
        self.assertIn(f"means {Digest.of(OTHER)}, which is not in this repository", finding.what)

    async def test_entries_of_what_was_deleted(self) -> None:
        await self.image()
        gone = Digest.of(OTHER)
        path = layout.tag_index_link(NAME, TAG, gone)
        await self.driver.write((path, gone.encode()))
        await self.well()
        await self.driver.write((path, b""))
        self.assertEqual((await self.found()).kind, Kind.LEFTOVER)
        self.assertTrue((await self.found(repair=True)).mended)
        self.assertFalse(await self.driver.exists(path))
        await self.well()

    async def test_strange_names(self) -> None:
        await self.image()
        repository = layout.repository(NAME)
        strange = [
            f"{layout.tags(NAME)}/-bad/current/link",
            f"{layout.tag(NAME, TAG)}/old/link",
            f"{repository}/_other/file",
            f"{repository}/_layers/md5/x/link",
            f"{repository}/_layers/sha256/xyz/link",
            f"{layout.layer(NAME, Digest.of(LAYER))}/note",
            f"{layout.repositories()}/UPPER/_manifests/x",
        ]
        await self.driver.write(*((Path(path), b"") for path in strange))
        progress, findings = await self.scrub(repair=True)
        self.assertEqual(len(findings), len(strange), findings)
        self.assertEqual({one.kind for one in findings}, {Kind.STRANGE})
        self.assertEqual(progress.remaining, 0)
        for path in strange:
            self.assertTrue(await self.driver.exists(Path(path)))

    # Referrers.

    async def test_a_referrer_that_is_not_linked(self) -> None:
        """As after a push to registry:2."""
        subject = await self.image()
        digest = await self.put(NAME, None, image_manifest(LAYER, subject=descriptor(image_manifest(LAYER), OCI_IMAGE)))
        path = layout.referrer_link(NAME, subject, digest)
        for content in (None, b"", b"nonsense"):
            if content is None:
                await self.driver.delete(layout.referrers_root(NAME))
            else:
                await self.driver.write((path, content))
            self.assertEqual((await self.found()).path, path)
            self.assertTrue((await self.found(repair=True)).mended)
            page = await self.registry.referrers.page(NAME, subject, 10)
            self.assertEqual([one.digest for one in page.entries], [digest])
            await self.well()

    async def test_a_referrer_that_is_gone(self) -> None:
        subject = await self.image()
        digest = Digest.of(OTHER)
        path = layout.referrer_link(NAME, subject, digest)
        for content in (digest.encode(), b""):
            await self.driver.write((path, content))
            finding = await self.found()
            self.assertEqual((finding.path, finding.kind), (path, Kind.LEFTOVER))
            self.assertTrue((await self.found(repair=True)).mended)
            await self.well()

    # Leftovers.

    async def cache(self, *contents: bytes) -> None:
        """Have some content be an upstream's."""
        for content in contents:
            await self.driver.write((layout.cached(NAME, Digest.of(content)), b""), durable=False)

    async def test_what_is_cached_may_lack_parts(self) -> None:
        await self.image()
        index = index_manifest(image_manifest(LAYER), image_manifest(OTHER))
        await self.driver.write(
            (layout.blob_data(Digest.of(index)), index),
            (layout.revision_link(NAME, Digest.of(index)), Digest.of(index).encode()),
            (layout.tag_link(NAME, Tag("all")), Digest.of(index).encode()),
        )
        await self.driver.delete(layout.layer(NAME, Digest.of(LAYER)))
        _, findings = await self.scrub()
        self.assertEqual(len(findings), 2)
        # One manifest is an upstream's, the other is not, and names the same layer.
        await self.cache(index)
        finding = await self.found()
        self.assertEqual(finding.path, layout.layer_link(NAME, Digest.of(LAYER)))
        await self.cache(image_manifest(LAYER))
        await self.well()

    async def test_a_damaged_blob_of_an_upstream(self) -> None:
        await self.image()
        await self.cache(CONFIG, LAYER, image_manifest(LAYER))
        await self.driver.write((layout.blob_data(Digest.of(LAYER)), b"something else"))
        self.assertEqual((await self.found()).remedy, "--repair moves it aside, so that it is fetched again")
        progress, _ = await self.scrub(repair=True)
        self.assertEqual(progress.remaining, 0)
        self.assertFalse(await self.driver.exists(layout.blob_data(Digest.of(LAYER))))
        await self.well()

    async def test_strange_marks(self) -> None:
        await self.image()
        await self.driver.write((layout.inside(layout.cached_root(NAME, "sha256"), "x"), b""))
        self.assertEqual((await self.found()).kind, Kind.STRANGE)

    async def test_the_trash_of_a_collection_that_has_ended(self) -> None:
        await self.image()
        number = layout.trash("run", 1)
        await self.driver.write((layout.inside(number, "data"), b"left"))
        self.assertEqual((await self.found()).path, layout.trash())
        await self.driver.delete(number)
        await self.well()

    async def test_temporary_files(self) -> None:
        upload = await self.registry.uploads.start(NAME)
        await self.image()
        paths = [
            Path(f"{directory}/link.0.tmp")
            for directory in (
                layout.blob_data(Digest.of(LAYER)).rpartition("/")[0],
                layout.layer(NAME, Digest.of(LAYER)),
                layout.tag(NAME, TAG) + "/current",
                layout.upload(NAME, upload.id),
                "regd",
            )
        ]
        await self.driver.write(*((path, b"half") for path in paths))
        await self.well()
        later = time.time() + 3700
        _, findings = await self.scrub(now=lambda: later)
        self.assertEqual({one.path for one in findings}, set(paths))
        self.assertEqual({one.kind for one in findings}, {Kind.LEFTOVER})
        progress, _ = await self.scrub(now=lambda: later, repair=True)
        self.assertEqual((progress.leftovers, progress.removed, progress.remaining), (5, 5, 0))
        for path in paths:
            self.assertFalse(await self.driver.exists(path))

    async def test_what_a_collection_has_left(self) -> None:
        await self.driver.write((Path(f"{layout.trash('run', 1)}/data"), b"x"), (layout.collecting(), b""))
        running = await self.driver.lock(layout.collector())
        await self.well()
        running.close()
        _, findings = await self.scrub()
        self.assertEqual([one.path for one in findings], [layout.trash(), layout.collecting()])
        self.assertEqual({one.kind for one in findings}, {Kind.LEFTOVER})
        await self.scrub(repair=True)
        for path in (layout.trash(), layout.collecting()):
            self.assertFalse(await self.driver.exists(path))

    # What changes meanwhile.

    async def test_what_is_right_again_at_the_second_look(self) -> None:
        await self.image()
        await self.driver.delete(layout.blob_data(Digest.of(LAYER)))

        async def push(seconds: float) -> None:
            if seconds:
                await self.driver.write((layout.blob_data(Digest.of(LAYER)), LAYER))

        notes = Notes()
        await Scrub(self.driver, Gate(self.driver, no_sleep), notes, Orders(), push, time.time).run()
        self.assertEqual(notes.findings, [])

    async def test_a_push_that_mends_while_the_gate_closes(self) -> None:
        """What was damaged when it was hashed is looked at again before it is moved."""
        await self.image()
        path = await self.spoil(Digest.of(LAYER))
        progress, findings = await self.scrub(gate=LateGate(self.driver, (path, LAYER)), repair=True)
        self.assertEqual(findings, [])
        self.assertEqual(progress.damaged, 0)
        self.assertEqual(await self.blob(NAME, Digest.of(LAYER)), LAYER)

    async def test_a_blob_that_is_promised_while_the_gate_closes(self) -> None:
        """Its time is newer then, and it is still damaged."""
        await self.image()
        path = await self.spoil(Digest.of(LAYER))
        _, findings = await self.scrub(gate=LateGate(self.driver, (path, b"something else again")), repair=True)
        self.assertIn("moved aside", findings[0].remedy)
        self.assertFalse(await self.driver.exists(path))

    # Stopping, going on.

    async def test_it_goes_on_where_it_was_stopped(self) -> None:
        """At every step, and with damage before and behind it, all is found once, and each blob is read once but for the last."""
        for number in range(3):
            await self.push_image(f"repo{number}", TAG, b"layer %d" % number)
        await self.driver.write((layout.layer_link(name("repo0"), Digest.of(b"layer 0")), b""))
        for spoilt in (b"layer 1", b"layer 2"):
            await self.spoil(Digest.of(spoilt))
        await self.driver.write((layout.blob_data(Digest.of(OTHER)), OTHER))
        whole, wanted = await self.scrub()
        steps = self.notes.steps
        for stop in range(steps):
            notes = Notes()
            notes.at_step = lambda stop=stop, notes=notes: self.job.stop() if notes.steps > stop else None  # type: ignore[misc]  # defaults
            progress, _ = await self.scrub(notes)
            self.assertIsNot(progress.stage, Stage.DONE)
            self.assertTrue(progress.ended)
            before = progress.findings
            kept = Progress.from_json(await self.read(layout.report("scrub")))
            self.assertEqual(kept, progress)
            progress, findings = await self.scrub()
            assert self.notes.begun is not None
            self.assertEqual(self.notes.begun.findings, before)
            self.assertEqual([*before, *findings], wanted)
            self.assertEqual(
                replace(progress, size=0, started="", ended="", empty=0), replace(whole, size=0, started="", ended="", empty=0)
            )

    async def stopped(self) -> Progress:
        """A scrub that was stopped at its first blob."""
        notes = Notes()
        notes.at_step = lambda: self.job.stop() if notes.last.blobs else None
        progress, _ = await self.scrub(notes)
        self.assertIs(progress.stage, Stage.BLOBS)
        return progress

    async def test_beginning_anew(self) -> None:
        for number in range(3):
            await self.push_image(f"repo{number}", TAG, b"layer %d" % number)
        await self.stopped()
        for repair in (False, True):
            await self.stopped()
            await self.scrub(restart=not repair, repair=repair)
            assert self.notes.begun is not None
            self.assertEqual((self.notes.begun.repositories, self.notes.begun.repair), (0, repair))
        # The last one came to its end.
        await self.scrub()
        assert self.notes.begun is not None
        self.assertEqual(self.notes.begun.repositories, 0)

    async def test_progress_that_cannot_be_read(self) -> None:
        await self.image()
        for content in (b"", b"[]", b"{}", b'{"form": 1}', b"[" * 100_000):
            await self.driver.write((layout.report("scrub"), content))
            await self.well()

    async def test_one_at_a_time(self) -> None:
        held = await self.driver.lock(layout.scrubbing())
        await self.refused(Running, self.scrub())
        held.close()
        await self.well()

    async def test_how_much_there_is(self) -> None:
        await self.image()
        progress, _ = await self.scrub(measure=True)
        self.assertEqual(self.notes.expected, (3, progress.size))

    async def test_storage_that_fails(self) -> None:
        """A file that cannot be read is damage; when nothing can, the scrub ends."""
        await self.image()
        driver = FailingDriver(self.driver, layout.blob_data(Digest.of(LAYER)))
        notes = Notes()
        progress = await Scrub(driver, Gate(driver, no_sleep), notes, Orders(repair=True), no_sleep, time.time).run()
        self.assertEqual(progress.remaining, 1)
        self.assertIn("cannot be read", notes.findings[0].what)
        self.assertTrue(await self.driver.exists(layout.blob_data(Digest.of(LAYER))))
        driver.gone = True
        await self.refused(StorageError, Scrub(driver, Gate(driver, no_sleep), notes, Orders(), no_sleep, time.time).run())


class LateGate(Gate):
    """A gate that somebody passes for a change at the last moment, before it closes for the first time."""

    def __init__(self, driver: Driver, *changes: tuple[Path, bytes]) -> None:
        super().__init__(driver, no_sleep)
        self._storage = driver
        self._changes = list(changes)

    async def close(self, sleep: Sleep) -> tuple[Held, float]:
        while self._changes:
            await self._storage.write(self._changes.pop())
        return await super().close(sleep)


class FailingDriver:
    """A driver with one file that cannot be opened, or, when it is ``gone``, none."""

    def __init__(self, driver: Driver, path: Path) -> None:
        self._driver = driver
        self._path = path
        self.gone = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._driver, name)

    async def open(self, path: Path) -> Any:
        if path == self._path:
            raise StorageError(f"cannot open {path}: Input/output error")
        return await self._driver.open(path)

    async def check(self) -> None:
        if self.gone:
            raise StorageError("the disk is not there")


class ScrubInMemoryTest(ScrubSuite, OnMemory):
    pass


class ScrubInFilesTest(ScrubSuite, OnFilesystem):
    async def test_directories_that_are_files(self) -> None:
        await self.image()
        root = f"{self.root}/{layout.repositories()}"
        with open(f"{root}/file", "wb"):
            pass
        os.mkdir(f"{root}/nothing")
        progress = await self.well()
        self.assertEqual(progress.repositories, 1)

    async def test_names_that_are_no_text(self) -> None:
        await self.image()
        os.makedirs(os.fsencode(f"{self.root}/{layout.tags(NAME)}/") + b"\xff\n")
        finding = await self.found()
        self.assertEqual(finding.kind, Kind.STRANGE)
        self.assertEqual(Progress.from_json(await self.read(layout.report("scrub"))).findings, [finding])

    async def test_links_that_are_directories(self) -> None:
        await self.image()
        path = layout.layer_link(NAME, Digest.of(LAYER))
        await self.driver.delete(path)
        os.mkdir(f"{self.root}/{path}")
        await self.scrub(repair=True)


TEXTS = st.text(max_size=20)
NUMBERS = st.integers(min_value=0, max_value=2**70)
FINDINGS = st.builds(Finding, TEXTS, TEXTS, TEXTS, st.sampled_from(Kind), st.booleans())
COUNTS = {one.name: NUMBERS for one in fields(Progress) if one.type == "int"}
PROGRESSES = st.builds(
    Progress, TEXTS, TEXTS, st.booleans(), st.sampled_from(Stage), TEXTS, findings=st.lists(FINDINGS, max_size=5), **COUNTS
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)


class ProgressTest(SynchronousTestCase):
    @given(PROGRESSES)
    def test_there_and_back(self, progress: Progress) -> None:
        self.assertEqual(Progress.from_json(progress.to_json()), progress)

    @given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
    def test_anything_else_is_refused(self, content: bytes) -> None:
        self.assertRaises(ValueError, Progress.from_json, content)

    @given(PROGRESSES, st.sampled_from(["started", "stage", "blobs", "findings", "repair", "form", "more"]), JSON)
    def test_fields_of_another_kind(self, progress: Progress, field: str, value: Any) -> None:
        document = json.loads(progress.to_json()) | {field: value}
        try:
            read = Progress.from_json(json.dumps(document).encode())
        except ValueError:
            return
        self.assertEqual(json.loads(read.to_json()), document)

    def test_more_than_is_kept(self) -> None:
        progress = Progress()
        for number in range(KEPT + 10):
            progress.add(Finding(str(number), "", ""))
        self.assertEqual((len(progress.findings), progress.damaged), (KEPT, KEPT + 10))


