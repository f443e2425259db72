"""
A cache beside what ``test_model.py`` does: content that comes from an upstream into repositories of its own, is used, mounted into local
ones, and evicted by collections that come between the steps of everything else. Whatever the order, local content stays as the model has
it, no tag and no link of the cache leads to nothing, a reader keeps what it has open, and a quiet eviction leaves no more than it may.
"""

from __future__ import annotations

import json
from random import Random
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from regd.errors import Unavailable
from regd.maintenance.collector import Orders
from regd.manifest import OCI_IMAGE, OCI_INDEX
from regd.names import ALGORITHMS, Digest, RepositoryName, Tag
from regd.storage import layout
from regd.storage.driver import Content, Missing
from tests.maintenance.stepping import SteppingDriver, Task, finish
from tests.maintenance.test_model import ALGORITHM, CONTENTS, GRACE, GRACES, REPOSITORIES, SEEDS, TAGS, CollectionMachine
from tests.maintenance.worlds import Collecting, WorldOnDisk
from tests.support import FakeBody

#: The cached repositories, and what their names begin with.
PREFIX = "hub"
CACHED = [RepositoryName(f"{PREFIX}/{name}") for name in ("x", "y")]
HUB = st.sampled_from(CACHED)
SIZES = st.sampled_from([None, 1, 4, 600])
AGES = st.sampled_from([None, GRACE / 2, GRACE * 2])
DAY = 86400.0


class EvictionMachine(CollectionMachine):
    """
    :ivar opened: what readers have open, with what they have to read.
    :ivar fetched: the manifests that were fetched, with what was fetched of them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.opened: list[tuple[Content, bytes]] = []
        self.fetched: dict[Digest, bytes] = {}

    def teardown(self) -> None:
        for content, _ in self.opened:
            content.close()
        super().teardown()

    # Collections: some evict, and some do nothing else.

    def orders(self, grace: float, *, untagged: bool, garbage: bool, maxsize: int | None, maxage: float | None) -> Orders:
        return Orders(grace, untagged=untagged, garbage=garbage, prefixes=(PREFIX,), maxsize=maxsize, maxage=maxage)

    def collection(self, choose: Random) -> Task[Any]:
        if self.collecting is None:
            size, age = choose.choice([None, 1, 4, 600]), choose.choice([None, GRACE / 2])
            grace, untagged, garbage = choose.choice([0.0, GRACE / 2, GRACE]), choose.random() < 0.5, choose.random() < 0.4
            orders = self.orders(grace, untagged=untagged, garbage=garbage, maxsize=size, maxage=age)
            self.collecting = Collecting(self.world, self.clock, orders)
        return self.collecting.task

    @precondition(lambda self: self.collecting is None)
    @rule(grace=GRACES, untagged=st.booleans(), count=st.integers(0, 200))
    def begin_collection(self, grace: float, count: int, *, untagged: bool) -> None:
        self.begin_eviction(grace, count, 1, None, untagged=untagged, garbage=True)

    @precondition(lambda self: self.collecting is None)
    @rule(grace=GRACES, untagged=st.booleans(), garbage=st.booleans(), count=st.integers(0, 200), maxsize=SIZES, maxage=AGES)
    def begin_eviction(
        self, grace: float, count: int, maxsize: int | None, maxage: float | None, *, untagged: bool, garbage: bool
    ) -> None:
        orders = self.orders(grace, untagged=untagged, garbage=garbage, maxsize=maxsize, maxage=maxage)
        self.collecting = Collecting(self.world, self.clock, orders)
        self.go_on_collecting(count)

    def notice(self) -> None:
        # What is local may only go with garbage.
        if self.collecting is not None and self.collecting.orders.garbage:
            super().notice()

    # The cache.

    @rule(name=HUB, layers=st.lists(CONTENTS, min_size=1, max_size=3), brought=st.booleans(), tag=st.none() | TAGS, seed=SEEDS)
    def fetch_image(self, name: RepositoryName, layers: list[bytes], tag: Tag | None, seed: int, *, brought: bool) -> None:
        parts = [{"mediaType": "application/octet-stream", "digest": Digest.of(layer), "size": len(layer)} for layer in layers]
        document = {"schemaVersion": 2, "mediaType": OCI_IMAGE, "config": parts[0], "layers": parts[1:]}
        self.fetch(name, json.dumps(document).encode(), tag, layers if brought else [], seed)

    @precondition(lambda self: self.fetched)
    @rule(data=st.data(), name=HUB, tag=st.none() | TAGS, about=st.booleans(), seed=SEEDS)
    def fetch_index(self, data: st.DataObject, name: RepositoryName, tag: Tag | None, seed: int, *, about: bool) -> None:
        """Of images some of which may never be asked for; or an image about another one."""
        digest = data.draw(st.sampled_from(sorted(self.fetched)))
        entry = {"mediaType": OCI_IMAGE, "digest": digest, "size": len(self.fetched[digest])}
        document: dict[str, Any] = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [] if about else [entry]}
        if about:
            document["subject"] = entry
        self.fetch(name, json.dumps(document).encode(), tag, [], seed)

    def fetch(self, name: RepositoryName, manifest: bytes, tag: Tag | None, layers: list[bytes], seed: int) -> None:
        """As the cache does it: the mark, the content, what it is known by."""
        # Any: it stands for the driver of its process.
        driver: Any = SteppingDriver(self.world.driver)
        registry = self.registry

        async def fetch() -> None:
            digest = Digest.of(manifest)
            await driver.write((layout.cached(name, digest), b""), durable=False)
            await registry.manifests.keep(name, manifest, digest, tag)
            for layer in layers:
                await driver.write((layout.cached(name, Digest.of(layer)), b""), durable=False)
                if await registry.blobs.link(name, Digest.of(layer)) is None:
                    upload = await registry.uploads.start(name)
                    await registry.uploads.finish(upload, Digest.of(layer), FakeBody(layer))

        result = self.do(fetch(), seed)
        assert result is None or isinstance(result, Unavailable), result
        self.fetched[Digest.of(manifest)] = manifest

    @rule(name=HUB, content=CONTENTS)
    def use(self, name: RepositoryName, content: bytes) -> None:
        task = Task(self.world.driver.renew(layout.cached(name, Digest.of(content))))
        task.step()
        assert task.error is None or isinstance(task.error, Missing), task.error

    @rule(name=HUB, content=CONTENTS)
    def read_slowly(self, name: RepositoryName, content: bytes) -> None:
        found = self.read(self.reader.blobs.open(name, Digest.of(content)))
        if isinstance(found, tuple):
            self.opened.append((found[1], content))

    @rule(repository=REPOSITORIES, source=HUB, content=CONTENTS, seed=SEEDS)
    def mount_cached(self, repository: RepositoryName, source: RepositoryName, content: bytes, seed: int) -> None:
        when = self.named()
        found = self.do(self.registry.blobs.mount(repository, Digest.of(content), source), seed)
        if not (found is None or isinstance(found, Unavailable)):
            self.hold_blob(repository, Digest.of(content), content, when)

    @rule(repository=REPOSITORIES, source=REPOSITORIES, content=CONTENTS, algorithm=ALGORITHM, seed=SEEDS)
    def mount(self, repository: RepositoryName, source: RepositoryName | None, content: bytes, algorithm: str, seed: int) -> None:
        # Without a source it may come from a cached repository, of which the model knows nothing.
        CollectionMachine.mount(self, repository, source, content, algorithm, seed)

    @precondition(lambda self: self.fetched)
    @rule(data=st.data(), repository=REPOSITORIES, tag=TAGS, seed=SEEDS)
    def push_what_was_fetched(self, data: st.DataObject, repository: RepositoryName, tag: Tag, seed: int) -> None:
        """The image of the cache, layers and all, into a local repository."""
        content = self.fetched[data.draw(st.sampled_from(sorted(self.fetched)))]
        document = json.loads(content)
        if "config" in document and "subject" not in document:
            named = {part["digest"] for part in (document["config"], *document["layers"])}
            for layer in (b"", b"1", b"two"):
                if Digest.of(layer) in named:
                    self.push(repository, layer, "sha256", seed)
            self.put(repository, content, tag, "sha256", seed)

    # With nobody there.

    @precondition(lambda self: self.collecting is None)
    @rule(maxsize=SIZES, maxage=AGES)
    def evict_quietly(self, maxsize: int | None, maxage: float | None) -> None:
        self.pass_time(2 * DAY)
        self.finish_collection(self.orders(GRACE, untagged=False, garbage=False, maxsize=maxsize, maxage=maxage))
        if maxage is not None:
            assert not any(self.held(name) or self.marks(name) for name in CACHED), "what was not used for long is still there"
        local = self.model.widest({name: {*held.manifests, *held.blobs} for name, held in self.model.repositories.items()})
        counted = {digest for name in CACHED for digest in self.marks(name)} - local
        total = sum(self.size(digest) for digest in counted)
        assert maxsize is None or total <= maxsize, f"{total} bytes are cached, and not {maxsize}"

    @precondition(lambda self: self.collecting is None)
    @rule(untagged=st.booleans())
    def collect_quietly(self, *, untagged: bool) -> None:
        """An eviction leaves garbage as it is, and nothing that is not garbage or local."""
        self.pass_time(2 * DAY)
        self.finish_collection(self.orders(GRACE, untagged=False, garbage=True, maxsize=None, maxage=GRACE))
        self.model.doubt(self.world.now() - GRACE, untagged=False)
        CollectionMachine.collect_quietly(self, untagged=untagged)

    def finish_collection(self, orders: Orders) -> None:
        self.collecting = Collecting(self.world, self.clock, orders)
        finish(self.collecting.task)
        self.end_collection()

    def marks(self, name: RepositoryName) -> set[Digest]:
        roots = ((algorithm, layout.cached_root(name, algorithm)) for algorithm in ALGORITHMS)
        return {Digest(f"{algorithm}:{entry}") for algorithm, root in roots for entry in self.entries(root)}

    def held(self, name: RepositoryName) -> set[Digest]:
        """
        :return: What a cached repository has links to.
        """
        found = {digest for algorithm in ALGORITHMS for digest in self.links(layout.revisions(name, algorithm), algorithm)}
        return found | {digest for algorithm in ALGORITHMS for digest in self.links(layout.layers(name), algorithm)}

    def size(self, digest: Digest) -> int:
        found = self.peek(self.world.driver.stat(layout.blob_data(digest)))
        return 0 if found is None else int(found.size)

    # What has to be true after each step.

    @invariant()
    def no_tag_and_no_link_leads_to_nothing(self) -> None:
        for name in CACHED:
            for digest in self.held(name):
                assert self.peek(self.world.driver.exists(layout.blob_data(digest))), f"{digest} of {name} is linked, and not there"
            for entry in self.entries(layout.tags(name)):
                link = self.peek(self.world.driver.read(layout.tag_link(name, Tag(entry)), 100))
                assert link is not None, f"{entry} of {name} is a tag, and means nothing"
                revision = layout.revision_link(name, Digest(link.decode()))
                assert self.peek(self.world.driver.exists(revision)), f"{entry} of {name} means what is not there"

    @invariant()
    def content_of_an_upstream_has_its_mark(self) -> None:
        for name in CACHED:
            assert self.held(name) <= self.marks(name), f"{name} has content without a mark"

    @invariant()
    def readers_keep_what_they_have_open(self) -> None:
        for content, expected in self.opened:
            assert self.read(content.read(0, 1 << 20)) == expected


class EvictionMachineOnDisk(EvictionMachine):
    """The same over files."""

    world_class = WorldOnDisk


EvictionMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
EvictionMachineOnDisk.TestCase.settings = settings(max_examples=5, stateful_step_count=20, deadline=None)
EvictionTest = EvictionMachine.TestCase
EvictionOnDiskTest = EvictionMachineOnDisk.TestCase
