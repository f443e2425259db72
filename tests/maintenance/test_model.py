"""
Pushes, deletions, mounts, promises, restarts and collections in any order, and collections in the middle of all else, against a model of
sets: after whatever happens, everything that is reachable or promised is there to the byte, and after a quiet collection nothing else is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from random import Random
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from regd.errors import BlobUnknown, ManifestBlobUnknown, ManifestUnknown, RegistryError, Unavailable
from regd.maintenance.collector import Orders, Running
from regd.manifest import OCI_IMAGE, OCI_INDEX, parse
from regd.names import ALGORITHMS, Digest, RepositoryName, Tag
from regd.registry.core import Registry
from regd.registry.uploads import Upload
from regd.storage import layout
from regd.storage.damage import Damage
from regd.storage.driver import Missing, StorageError
from regd.storage.layout import Path
from tests.maintenance.model import Held, HeldManifest, Model
from tests.maintenance.stepping import Task, alternate, finish
from tests.maintenance.worlds import Clock, Collecting, World, WorldOnDisk, process, without_time
from tests.support import FakeBody

#: Few of each, so that things meet.
REPOSITORIES = st.sampled_from([RepositoryName(text) for text in ("a", "a/b")])
TAGS = st.sampled_from([Tag(text) for text in ("latest", "1")])
CONTENTS = st.sampled_from([b"", b"1", b"two"])
ALGORITHM = st.sampled_from(["sha256", "sha256", "sha512"])
GRACES = st.sampled_from([0.0, 50.0, 100.0, 200.0])
#: Who does the next step where two could: made into a source of random numbers, so that it can be said by one number.
SEEDS = st.integers(0, 2**16)

#: How long what nothing refers to is kept, in seconds.
GRACE = 100.0


class CollectionMachine(RuleBasedStateMachine):
    """
    :ivar model: what has to be there.
    :ivar collecting: the collection that is under way, if one is.
    :ivar begun: uploads, with what was sent.
    """

    world_class: type[World | WorldOnDisk] = World

    def __init__(self) -> None:
        super().__init__()
        self.world = self.world_class()
        self.clock = Clock()
        self.stack = ExitStack()
        self.stack.enter_context(without_time(self.clock))
        self.model = Model()
        self.collecting: Collecting | None = None
        self.begun: list[tuple[Upload, bytes]] = []
        self.damage = Damage()
        self.registry, self.reader = self.process(), self.process(stepping=False)

    def teardown(self) -> None:
        if self.collecting is not None:
            self.end_collection(kill=True)
        self.world.close()
        self.stack.close()

    # Processes.

    def process(self, *, stepping: bool = True) -> Registry:
        """
        :param stepping: Whether a collection gets turns between what it does.
        :return: A registry that remembers nothing, as after a restart.
        """
        return process(self.world, self.clock, GRACE, self.damage, stepping=stepping)

    def do(self, work: Any, seed: int) -> Any:
        """
        Let a process do something, and the collection go on meanwhile.

        :return: What it returned, or the error that a client can live with.
        """
        choose = Random(seed)
        task = Task(work)
        alternate(task, lambda: self.collection(choose), choose)
        self.notice()
        try:
            return task.result()
        except RegistryError as error:
            return error

    def collection(self, choose: Random) -> Task[Any]:
        """
        :return: The collection that is under way, which may have begun a moment ago.
        """
        if self.collecting is None:
            orders = Orders(choose.choice([0.0, GRACE / 2, GRACE]), untagged=choose.random() < 0.5)
            self.collecting = Collecting(self.world, self.clock, orders)
        return self.collecting.task

    def read(self, work: Any) -> Any:
        """
        :return: What a process tells that nobody comes between.
        """
        task = Task(work)
        finish(task)
        try:
            return task.result()
        except RegistryError as error:
            return error

    def peek(self, work: Any) -> Any:
        """
        :return: What is in the storage; ``None`` for nothing.
        """
        task = Task(work)
        task.step()
        try:
            return task.result()
        except Missing:
            return None

    # What a collection may have done.

    def limit(self) -> float:
        """
        :return: What was renewed since then, the collection that is under way keeps.
        """
        assert self.collecting is not None
        found = self.peek(self.world.driver.stat(layout.collecting()))
        began = self.world.now() if found is None else found.modified
        return float(began) - self.collecting.orders.grace + self.world.tolerance

    def notice(self) -> None:
        """Doubt what the collection that is under way may have removed by now."""
        # Also where it has ended, as it may within a change: what it removed last it may have removed just now.
        if self.collecting is not None and not self.collecting.orders.dryrun:
            self.model.doubt(self.limit(), untagged=self.collecting.orders.untagged)

    def promised(self) -> float:
        """
        :return: Since when that what a client was just told of counts as promised, at least.
        """
        return self.world.now() - GRACE / 2 - self.world.tolerance

    def named(self) -> float:
        """
        :return: The same for what a manifest names that is about to be put: a collection that is under way has to see it.
        """
        seen = self.peek(self.world.driver.exists(layout.collecting())) if self.collecting is not None else False
        return max(self.promised(), self.limit()) if seen else self.promised()

    def renew(self, held: Held, when: float) -> None:
        """A client was told that something is there."""
        held.renewed = max(held.renewed, when)
        if self.collecting is None or self.collecting.orders.dryrun or held.renewed >= self.limit():
            held.sure = True

    # Time and processes.

    @rule()
    def restart(self) -> None:
        self.registry, self.reader = self.process(), self.process(stepping=False)

    @precondition(lambda self: self.collecting is None or self.world_class is World)
    @rule(seconds=st.sampled_from([0.1, GRACE / 3, GRACE * 0.6, GRACE * 3]))
    def pass_time(self, seconds: float) -> None:
        self.model.shift(self.world.age(seconds))

    # Blobs.

    @rule(repository=REPOSITORIES, content=CONTENTS, algorithm=ALGORITHM, seed=SEEDS)
    def push(self, repository: RepositoryName, content: bytes, algorithm: str, seed: int) -> None:
        upload = self.do(self.registry.uploads.start(repository, algorithm), seed)
        self.finish(upload, content, algorithm, seed)

    @rule(repository=REPOSITORIES, content=CONTENTS, seed=SEEDS)
    def begin(self, repository: RepositoryName, content: bytes, seed: int) -> None:
        upload = self.do(self.registry.uploads.start(repository), seed)
        self.begun.append((self.do(self.registry.uploads.append(upload, FakeBody(content)), seed), content))

    @precondition(lambda self: self.begun)
    @rule(data=st.data(), algorithm=ALGORITHM, seed=SEEDS)
    def finish_begun(self, data: st.DataObject, algorithm: str, seed: int) -> None:
        upload, content = self.begun.pop(data.draw(st.integers(0, len(self.begun) - 1)))
        self.finish(upload, b"", algorithm, seed, content)

    def finish(self, upload: Upload, more: bytes, algorithm: str, seed: int, sent: bytes = b"") -> None:
        digest = Digest.of(sent + more, algorithm)
        found = self.do(self.registry.uploads.finish(upload, digest, FakeBody(more) if more else None), seed + 1)
        if isinstance(found, Unavailable):
            # Another request closes it when the gate is open.
            self.begun.append((upload, sent + more))
            return
        assert found == digest, found
        # What was there already is as good as what a client found by asking.
        when = self.promised() if digest in self.model.contents else self.world.now() - self.world.tolerance
        self.hold_blob(upload.name, digest, sent + more, when)

    def hold_blob(self, name: RepositoryName, digest: Digest, content: bytes, when: float) -> None:
        self.model.contents[digest] = content
        self.renew(self.model.repositories[name].blobs.setdefault(digest, Held(when, sure=False)), when)

    @rule(repository=REPOSITORIES, source=st.none() | REPOSITORIES, content=CONTENTS, algorithm=ALGORITHM, seed=SEEDS)
    def mount(self, repository: RepositoryName, source: RepositoryName | None, content: bytes, algorithm: str, seed: int) -> None:
        digest = Digest.of(content, algorithm)
        sources = list(self.model.repositories) if source is None else [source]
        held = [found for name in sources if (found := self.model.repositories[name].blobs.get(digest)) is not None]
        blob = self.do(self.registry.mount(repository, digest, source), seed)
        if isinstance(blob, Unavailable):
            return
        assert not isinstance(blob, RegistryError), blob
        if blob is None:
            assert not any(found.sure for found in held), "what has to be there cannot be mounted"
        else:
            assert held and blob.size == len(content)
            self.hold_blob(repository, digest, content, self.promised())

    def some_blob(self) -> st.SearchStrategy[tuple[RepositoryName, Digest]]:
        return st.sampled_from(sorted((name, digest) for name, held in self.model.repositories.items() for digest in held.blobs))

    @precondition(lambda self: any(held.blobs for held in self.model.repositories.values()))
    @rule(data=st.data(), seed=SEEDS)
    def ask_for_blob(self, data: st.DataObject, seed: int) -> None:
        name, digest = data.draw(self.some_blob())
        held = self.model.repositories[name].blobs[digest]
        found = self.do(self.registry.blobs.promise(name, digest), seed)
        if isinstance(found, BlobUnknown):
            assert not held.sure, "what has to be there is not found"
            return
        assert found.size == len(self.model.contents[digest]), found
        self.renew(held, self.promised())

    @rule(repository=REPOSITORIES, content=CONTENTS, algorithm=ALGORITHM, seed=SEEDS)
    def delete_blob(self, repository: RepositoryName, content: bytes, algorithm: str, seed: int) -> None:
        digest = Digest.of(content, algorithm)
        held = self.model.repositories[repository].blobs.get(digest)
        result = self.do(self.registry.blobs.delete(repository, digest), seed)
        if not isinstance(result, Unavailable):
            assert result is None if held is not None and held.sure else isinstance(result, BlobUnknown | None), result
            self.model.repositories[repository].blobs.pop(digest, None)

    # Manifests.

    @rule(data=st.data(), repository=REPOSITORIES, tag=st.none() | TAGS, algorithm=ALGORITHM, about=st.booleans(), seed=SEEDS)
    def put_image(
        self, data: st.DataObject, repository: RepositoryName, tag: Tag | None, algorithm: str, seed: int, *, about: bool
    ) -> None:
        held = self.model.repositories[repository]
        # Of what is there, or was; or of what is pushed before.
        there = st.sampled_from(sorted(held.blobs)) if held.blobs else st.nothing()
        parts = data.draw(st.lists(there | st.tuples(CONTENTS, ALGORITHM), min_size=1, max_size=3))
        named = []
        for part in parts:
            if isinstance(part, tuple):
                self.push(repository, *part, seed)
            digest = Digest.of(*part) if isinstance(part, tuple) else part
            named.append({"mediaType": "application/octet-stream", "digest": digest, "size": 1})
        document: dict[str, Any] = {"schemaVersion": 2, "mediaType": OCI_IMAGE, "config": named[0], "layers": named[1:]}
        if about and held.manifests:
            digest = data.draw(st.sampled_from(sorted(held.manifests)))
            subject = held.manifests[digest]
            document["subject"] = {"mediaType": subject.manifest.media_type, "digest": digest, "size": len(subject.content)}
        self.put(repository, json.dumps(document).encode(), tag, algorithm, seed)

    @rule(data=st.data(), repository=REPOSITORIES, tag=st.none() | TAGS, algorithm=ALGORITHM, seed=SEEDS)
    def put_index(self, data: st.DataObject, repository: RepositoryName, tag: Tag | None, algorithm: str, seed: int) -> None:
        manifests = self.model.repositories[repository].manifests
        known = [(digest, manifests[digest]) for digest in sorted(manifests) if self.depth(manifests[digest]) < 3]
        children = data.draw(st.lists(st.sampled_from(known), max_size=2)) if known else []
        entries = [{"mediaType": held.manifest.media_type, "digest": digest, "size": len(held.content)} for digest, held in children]
        document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
        self.put(repository, json.dumps(document).encode(), tag, algorithm, seed)

    def depth(self, held: HeldManifest) -> int:
        """
        :return: How many indexes deep a manifest is, through what was deleted as well.
        """
        contents = [self.model.contents[child.digest] for child in held.manifest.manifests]
        return 1 + max((self.depth(HeldManifest(0, content=content)) for content in contents), default=-1)

    @precondition(lambda self: any(held.manifests for held in self.model.repositories.values()))
    @rule(data=st.data(), tag=TAGS, seed=SEEDS)
    def put_again(self, data: st.DataObject, tag: Tag, seed: int) -> None:
        name, digest = data.draw(self.some_manifest())
        self.put(name, self.model.repositories[name].manifests[digest].content, tag, "sha256", seed)

    def some_manifest(self) -> st.SearchStrategy[tuple[RepositoryName, Digest]]:
        return st.sampled_from(sorted((name, digest) for name, held in self.model.repositories.items() for digest in held.manifests))

    def put(self, name: RepositoryName, content: bytes, tag: Tag | None, algorithm: str, seed: int) -> None:
        digest = Digest.of(content, "sha256" if tag is not None else algorithm)
        repository = self.model.repositories[name]
        manifest = parse(content)
        blobs = [repository.blobs.get(blob.digest) for blob in manifest.blobs]
        children = [repository.manifests.get(child.digest) for child in manifest.manifests]
        parts: list[Held | None] = [*blobs, *children]
        when = self.named()
        result = self.do(self.registry.manifests.put(name, digest if tag is None else tag, content), seed)
        if isinstance(result, Unavailable):
            return
        if isinstance(result, ManifestBlobUnknown):
            assert not all(part is not None and part.sure for part in parts), "all that it names has to be there"
            return
        assert not isinstance(result, RegistryError), result
        assert result[0] == digest
        assert all(part is not None for part in parts), "it names what is not there"
        self.model.contents[digest] = content
        if digest not in repository.manifests:
            repository.manifests[digest] = HeldManifest(self.world.now(), content=content)
        if tag is not None:
            repository.tags[tag] = digest
        self.model.confirm(name, digest, when)
        repository.manifests[digest].renew(self.world.now() - self.world.tolerance)
        if manifest.subject is not None and manifest.subject.digest in repository.manifests:
            held = repository.manifests[manifest.subject.digest]
            if held.sure:
                held.renew(when)
        # Confirmed only after the collection had another look.
        self.notice()

    @precondition(lambda self: any(held.manifests for held in self.model.repositories.values()))
    @rule(data=st.data(), seed=SEEDS)
    def ask_for_manifest(self, data: st.DataObject, seed: int) -> None:
        name, digest = data.draw(self.some_manifest())
        held = self.model.repositories[name].manifests[digest]
        found = self.do(self.registry.manifests.promise(name, digest), seed)
        if isinstance(found, ManifestUnknown):
            assert not held.sure, "what has to be there is not found"
            return
        assert found.digest == digest, found
        self.renew(held, self.promised())

    @precondition(lambda self: any(held.manifests for held in self.model.repositories.values()))
    @rule(data=st.data(), seed=SEEDS)
    def delete_manifest(self, data: st.DataObject, seed: int) -> None:
        name, digest = data.draw(self.some_manifest())
        repository = self.model.repositories[name]
        result = self.do(self.registry.manifests.delete(name, digest), seed)
        if isinstance(result, Unavailable):
            return
        assert result is None if repository.manifests[digest].sure else isinstance(result, ManifestUnknown | None), result
        del repository.manifests[digest]
        repository.tags = {tag: meant for tag, meant in repository.tags.items() if meant != digest}
        self.notice()

    @rule(repository=REPOSITORIES, tag=TAGS, seed=SEEDS)
    def untag(self, repository: RepositoryName, tag: Tag, seed: int) -> None:
        known = tag in self.model.repositories[repository].tags
        result = self.do(self.registry.manifests.untag(repository, tag), seed)
        if isinstance(result, Unavailable):
            return
        assert result is None if known else isinstance(result, ManifestUnknown), result
        self.model.repositories[repository].tags.pop(tag, None)
        self.notice()

    # Collections.

    @precondition(lambda self: self.collecting is None)
    @rule(grace=GRACES, untagged=st.booleans(), count=st.integers(0, 200))
    def begin_collection(self, grace: float, count: int, *, untagged: bool) -> None:
        self.collecting = Collecting(self.world, self.clock, Orders(grace, untagged=untagged))
        self.go_on_collecting(count)

    @precondition(lambda self: self.collecting is not None)
    @rule(count=st.integers(1, 200))
    def go_on_collecting(self, count: int) -> None:
        assert self.collecting is not None
        for _ in range(count):
            if not self.collecting.task.done:
                self.collecting.task.step()
        self.notice()
        if self.collecting.task.done:
            self.end_collection()

    def end_collection(self, *, kill: bool = False) -> None:
        assert self.collecting is not None
        self.notice()
        if kill:
            self.collecting.driver.kill()
            self.collecting.task.kill()
        else:
            summary = self.collecting.task.result()
            assert summary.finished and not summary.error and not summary.skipped, summary
            assert self.collecting.damage.count == 0
        self.collecting = None

    @precondition(lambda self: self.collecting is not None)
    @rule(count=st.integers(0, 60))
    def kill_collection(self, count: int) -> None:
        self.go_on_collecting(count)
        if self.collecting is not None:
            self.end_collection(kill=True)

    @precondition(lambda self: self.collecting is not None)
    @rule(after=st.integers(1, 60))
    def fail_collection(self, after: int) -> None:
        """One call to the storage fails; the collection says so, and ends."""
        assert self.collecting is not None
        at = self.collecting.driver.calls + after

        def fail(number: int) -> None:
            if number == at:
                raise StorageError("cannot go on: Input/output error")

        self.collecting.driver.before = fail
        task = self.collecting.task
        finish(task)
        self.notice()
        assert task.error is None or isinstance(task.error, StorageError), task.error
        if task.error is None:
            summary = task.result()
            assert summary.finished == (not summary.error) and summary.skipped <= 1, summary
        self.collecting = None

    @precondition(lambda self: self.collecting is not None)
    @rule()
    def only_one_collects(self) -> None:
        assert self.collecting is not None
        # By then it has its lock.
        self.go_on_collecting(3)
        if self.collecting is not None:
            second = Collecting(self.world, self.clock, Orders(0.0))
            finish(second.task)
            assert isinstance(second.task.error, Running), second.task.error

    @precondition(lambda self: self.collecting is None)
    @rule(untagged=st.booleans())
    def collect_quietly(self, *, untagged: bool) -> None:
        """With nobody there and nothing young, what is left is what has to be there."""
        self.pass_time(GRACE * 3)
        self.resolve()
        living = self.model.living(untagged=untagged)
        self.collecting = Collecting(self.world, self.clock, Orders(GRACE, untagged=untagged))
        finish(self.collecting.task)
        self.end_collection()
        stored = {digest for algorithm in self.entries(layout.blobs()) for digest in self.digests(layout.blobs(), algorithm)}
        assert stored <= self.model.widest(living), "what nothing reaches is still there"
        for name, repository in self.model.repositories.items():
            found = {digest for algorithm in ALGORITHMS for digest in self.links(layout.revisions(name, algorithm), algorithm)}
            assert found == living[name], (name, untagged)
            links = {digest for algorithm in self.entries(layout.layers(name)) for digest in self.links(layout.layers(name), algorithm)}
            assert repository.needed(living[name]) & repository.blobs.keys() <= links <= self.model.widest({name: living[name]}), name
            repository.manifests = {digest: held for digest, held in repository.manifests.items() if digest in living[name]}
            repository.blobs = {digest: held for digest, held in repository.blobs.items() if digest in links}
        known = {*self.model.repositories, *(upload.name for upload, _ in self.begun)}
        for name in list(self.model.repositories):
            # With the ones below it.
            holds = any(self.holds(other) for other in known if f"{other}/".startswith(f"{name}/"))
            there = self.peek(self.world.driver.exists(layout.repository(name)))
            assert there == holds, f"{name} is {'still' if there else 'not'} there"
        assert not any(self.entries(layout.trash(run)) for run in self.entries(layout.trash()))
        assert not self.peek(self.world.driver.exists(layout.collecting()))

    def holds(self, name: RepositoryName) -> bool:
        """
        :return: Whether there is anything in a repository.
        """
        repository = self.model.repositories[name]
        return bool(repository.manifests or repository.blobs or any(upload.name == name for upload, _ in self.begun))

    def resolve(self) -> None:
        """Look whether what is doubted is there."""
        for name, repository in self.model.repositories.items():
            for digest, held in list(repository.blobs.items()):
                if not held.sure and self.read(self.reader.blobs.find(name, digest)) is None:
                    del repository.blobs[digest]
                held.sure = True
            for digest, manifest in list(repository.manifests.items()):
                if not manifest.sure and isinstance(self.read(self.reader.manifests.get(name, digest)), ManifestUnknown):
                    del repository.manifests[digest]
                manifest.sure = True

    def entries(self, path: Path) -> list[str]:
        return self.peek(self.world.driver.scan(path)) or []

    def digests(self, above: Path, algorithm: str) -> Iterator[Digest]:
        """
        :return: The blobs of one algorithm, by their directories.
        """
        for start in self.entries(Path(f"{above}/{algorithm}")):
            for encoded in self.entries(Path(f"{above}/{algorithm}/{start}")):
                if self.peek(self.world.driver.exists(Path(f"{above}/{algorithm}/{start}/{encoded}/data"))):
                    yield Digest(f"{algorithm}:{encoded}")

    def links(self, above: Path, algorithm: str) -> Iterator[Digest]:
        """
        :return: What is linked below a directory, by the names of the links.
        """
        at = above if above.endswith(f"/{algorithm}") else Path(f"{above}/{algorithm}")
        for encoded in self.entries(at):
            if self.peek(self.world.driver.exists(Path(f"{at}/{encoded}/link"))):
                yield Digest(f"{algorithm}:{encoded}")

    # What has to be true after each step.

    @invariant()
    def a_collection_that_has_ended_went_well(self) -> None:
        if self.collecting is not None and self.collecting.task.done:
            self.end_collection()

    @invariant()
    def what_has_to_be_there_is(self) -> None:
        for name, repository in self.model.repositories.items():
            for digest, blob in repository.blobs.items():
                opened = self.read(self.reader.blobs.open(name, digest))
                if isinstance(opened, BlobUnknown):
                    assert not blob.sure, f"{digest} of {name} is gone"
                    continue
                assert self.read(opened.read(0, 1 << 20)) == self.model.contents[digest]
                opened.close()
            for digest, manifest in repository.manifests.items():
                stored = self.read(self.reader.manifests.get(name, digest))
                if isinstance(stored, ManifestUnknown):
                    assert not manifest.sure, f"manifest {digest} of {name} is gone"
                    continue
                assert (stored.digest, stored.content) == (digest, manifest.content)
            for tag, digest in repository.tags.items():
                assert self.read(self.reader.manifests.get(name, tag)).digest == digest

    @invariant()
    def referrers_are_listed(self) -> None:
        for name, repository in self.model.repositories.items():
            for digest, held in repository.manifests.items():
                if held.subject is not None and held.sure:
                    page = self.read(self.reader.referrers.page(name, held.subject, 100))
                    assert digest in [entry.digest for entry in page.entries]

    @invariant()
    def nothing_is_damaged(self) -> None:
        assert self.damage.count == 0


class CollectionMachineOnDisk(CollectionMachine):
    """The same over files."""

    world_class = WorldOnDisk


CollectionMachine.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
CollectionMachineOnDisk.TestCase.settings = settings(max_examples=20, stateful_step_count=30, deadline=None)
CollectionTest = CollectionMachine.TestCase
CollectionOnDiskTest = CollectionMachineOnDisk.TestCase
