"""A registry against a model of dictionaries: after whatever is done in whatever order, what the model holds is there, and no more."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from regd.errors import BlobUnknown, BlobUploadUnknown, DigestInvalid, ManifestBlobUnknown, ManifestUnknown, NameUnknown
from regd.maintenance.gate import Gate
from regd.manifest import OCI_IMAGE, OCI_INDEX
from regd.names import Digest, RepositoryName, Tag
from regd.registry.core import Registry
from regd.registry.rules import ManifestRules
from regd.registry.uploads import Upload, UploadRangeInvalid
from regd.storage.damage import Damage
from regd.storage.memory import MemoryDriver
from tests.registry.case import GRACE, NOW, descriptor
from tests.support import FakeBody, no_sleep

#: Few of each, so that things meet.
REPOSITORIES = st.sampled_from([RepositoryName(text) for text in ("a", "a-b", "a/b", "a.b", "b/c/d")])
TAGS = st.sampled_from([Tag(text) for text in ("latest", "1", "1.0", "sha256-x")])
CONTENTS = st.sampled_from([b"", b"1", b"two", b"three" * 1000, b"{}"])
ALGORITHMS = st.sampled_from(["sha256", "sha512"])


class RegistryMachine(RuleBasedStateMachine):
    """
    :ivar blobs: what each repository holds.
    :ivar manifests: and its manifests.
    :ivar tags: what its tags mean.
    :ivar begun: uploads, with what was sent.
    """

    def __init__(self) -> None:
        super().__init__()
        self.driver = MemoryDriver()
        self.damage = Damage()
        self.registry = self.process()
        self.blobs: defaultdict[RepositoryName, dict[Digest, bytes]] = defaultdict(dict)
        self.manifests: defaultdict[RepositoryName, dict[Digest, bytes]] = defaultdict(dict)
        self.tags: defaultdict[RepositoryName, dict[Tag, Digest]] = defaultdict(dict)
        self.begun: list[tuple[Upload, bytes]] = []
        self.stored: set[Digest] = set()
        self.known: set[RepositoryName] = set()

    def process(self) -> Registry:
        return Registry(self.driver, self.damage, ManifestRules(), lambda: NOW, no_sleep, Gate(self.driver, no_sleep), GRACE)

    def do(self, work: Any, refusal: type[Exception] | None = None) -> Any:
        """
        :param refusal: what has to be raised, if anything.
        :return: what a coroutine returns, which never waits.
        """
        results: list[Any] = []
        Deferred.fromCoroutine(work).addBoth(results.append)
        (result,) = results
        if isinstance(result, Failure):
            if refusal is None or result.type is not refusal:
                result.raiseException()
            return result.value
        assert refusal is None, f"{refusal.__name__} not raised"
        return result

    @rule()
    def restart(self) -> None:
        self.registry = self.process()

    # Blobs.

    @rule(repository=REPOSITORIES, algorithm=ALGORITHMS)
    def begin(self, repository: RepositoryName, algorithm: str) -> None:
        self.begun.append((self.do(self.registry.uploads.start(repository, algorithm)), b""))

    @precondition(lambda self: self.begun)
    @rule(data=st.data(), content=CONTENTS, wrong=st.booleans())
    def append(self, data: st.DataObject, content: bytes, *, wrong: bool) -> None:
        index = data.draw(st.integers(0, len(self.begun) - 1))
        upload, sent = self.begun[index]
        if wrong:
            error = self.do(self.registry.uploads.append(upload, FakeBody(content), offset=len(sent) + 1), UploadRangeInvalid)
            assert error.upload.size == len(sent)
            return
        upload = self.do(self.registry.uploads.append(upload, FakeBody(content), offset=len(sent)))
        self.begun[index] = (upload, sent + content)

    @precondition(lambda self: self.begun)
    @rule(data=st.data(), content=CONTENTS, algorithm=ALGORITHMS, wrong=st.booleans())
    def finish(self, data: st.DataObject, content: bytes, algorithm: str, *, wrong: bool) -> None:
        upload, sent = self.begun.pop(data.draw(st.integers(0, len(self.begun) - 1)))
        whole = sent + content
        digest = Digest.of(whole + b"?" if wrong else whole, algorithm)
        body = FakeBody(content) if content else None
        self.do(self.registry.uploads.finish(upload, digest, body), DigestInvalid if wrong else None)
        self.do(self.registry.uploads.find(upload.name, upload.id), BlobUploadUnknown)
        if not wrong:
            self.blobs[upload.name][digest] = whole
            self.stored.add(digest)

    @precondition(lambda self: self.begun)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        upload, _ = self.begun.pop(data.draw(st.integers(0, len(self.begun) - 1)))
        self.do(self.registry.uploads.cancel(upload))
        self.do(self.registry.uploads.cancel(upload), BlobUploadUnknown)

    @rule(repository=REPOSITORIES, source=st.none() | REPOSITORIES, content=CONTENTS, algorithm=ALGORITHMS)
    def mount(self, repository: RepositoryName, source: RepositoryName | None, content: bytes, algorithm: str) -> None:
        digest = Digest.of(content, algorithm)
        holders = [name for name, blobs in self.blobs.items() if digest in blobs and source in {None, name}]
        blob = self.do(self.registry.mount(repository, digest, source))
        if holders:
            assert (blob.digest, blob.size) == (digest, len(content))
            self.blobs[repository][digest] = content
        else:
            assert blob is None

    @rule(repository=REPOSITORIES, content=CONTENTS, algorithm=ALGORITHMS)
    def delete_blob(self, repository: RepositoryName, content: bytes, algorithm: str) -> None:
        digest = Digest.of(content, algorithm)
        held = self.blobs[repository].pop(digest, None)
        self.do(self.registry.blobs.delete(repository, digest), BlobUnknown if held is None else None)

    # Manifests.

    @rule(
        repository=REPOSITORIES,
        layers=st.lists(CONTENTS, max_size=2),
        tag=st.none() | TAGS,
        algorithm=ALGORITHMS,
        subject=st.none() | CONTENTS,
    )
    def put_image(self, repository: RepositoryName, layers: list[bytes], tag: Tag | None, algorithm: str, subject: bytes | None) -> None:
        config, *rest = [b"{}", *layers]
        document: dict[str, Any] = {"schemaVersion": 2, "mediaType": OCI_IMAGE, "config": descriptor(config)}
        document["layers"] = [descriptor(layer) for layer in rest]
        if subject is not None:
            document["subject"] = descriptor(subject)
        missing = any(Digest.of(blob) not in self.blobs[repository] for blob in (config, *rest))
        self.put(repository, json.dumps(document).encode(), tag, algorithm, missing=missing)

    @rule(data=st.data(), repository=REPOSITORIES, elsewhere=REPOSITORIES, tag=st.none() | TAGS, algorithm=ALGORITHMS)
    def put_index(
        self, data: st.DataObject, repository: RepositoryName, elsewhere: RepositoryName, tag: Tag | None, algorithm: str
    ) -> None:
        known = sorted(self.manifests[elsewhere].items())
        children = data.draw(st.lists(st.sampled_from(known), max_size=2)) if known else []
        entries = [{"mediaType": OCI_IMAGE, "digest": digest, "size": len(content)} for digest, content in children]
        content = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}).encode()
        missing = any(digest not in self.manifests[repository] for digest, _ in children)
        self.put(repository, content, tag, algorithm, missing=missing)

    def put(self, repository: RepositoryName, content: bytes, tag: Tag | None, algorithm: str, *, missing: bool) -> None:
        reference = Digest.of(content, algorithm) if tag is None else tag
        result = self.do(self.registry.manifests.put(repository, reference, content), ManifestBlobUnknown if missing else None)
        if missing:
            return
        digest = Digest.of(content, algorithm if tag is None else "sha256")
        assert result[0] == digest
        self.manifests[repository][digest] = content
        self.stored.add(digest)
        self.known.add(repository)
        if tag is not None:
            self.tags[repository][tag] = digest

    @precondition(lambda self: any(self.manifests.values()))
    @rule(data=st.data())
    def delete_manifest(self, data: st.DataObject) -> None:
        repository = data.draw(st.sampled_from(sorted(name for name, manifests in self.manifests.items() if manifests)))
        digest = data.draw(st.sampled_from(sorted(self.manifests[repository])))
        self.do(self.registry.manifests.delete(repository, digest))
        self.do(self.registry.manifests.delete(repository, digest), ManifestUnknown)
        del self.manifests[repository][digest]
        self.tags[repository] = {tag: meant for tag, meant in self.tags[repository].items() if meant != digest}

    @rule(repository=REPOSITORIES, tag=TAGS)
    def untag(self, repository: RepositoryName, tag: Tag) -> None:
        known = self.tags[repository].pop(tag, None)
        self.do(self.registry.manifests.untag(repository, tag), ManifestUnknown if known is None else None)

    # What has to be true after each step.

    @invariant()
    def blobs_are_as_pushed(self) -> None:
        for repository, blobs in self.blobs.items():
            for digest, expected in blobs.items():
                blob = self.do(self.registry.blobs.stat(repository, digest))
                assert (blob.digest, blob.size) == (digest, len(expected))
                content = self.do(self.registry.blobs.open(repository, digest))
                assert self.do(content.read(0, 1 << 20)) == expected
            for digest in self.stored - blobs.keys():
                assert self.do(self.registry.blobs.find(repository, digest)) is None

    @invariant()
    def manifests_are_as_pushed(self) -> None:
        for repository, manifests in self.manifests.items():
            for digest, expected in manifests.items():
                stored = self.do(self.registry.manifests.get(repository, digest))
                assert (stored.digest, stored.content) == (digest, expected)
            for tag, digest in self.tags[repository].items():
                assert self.do(self.registry.manifests.get(repository, tag)).digest == digest
            for digest in self.stored - manifests.keys() - self.blobs[repository].keys():
                self.do(self.registry.manifests.get(repository, digest), ManifestUnknown)

    @invariant()
    def lists_are_complete_and_sorted(self) -> None:
        page = self.do(self.registry.catalog.page(100))
        assert page.entries == tuple(sorted(self.known))
        for repository in self.known:
            page = self.do(self.registry.tags.page(repository, 100))
            assert page.entries == tuple(sorted(self.tags[repository]))
        for repository in self.blobs.keys() - self.known:
            self.do(self.registry.tags.page(repository, 100), NameUnknown)

    @invariant()
    def referrers_are_complete_and_sorted(self) -> None:
        for repository, manifests in self.manifests.items():
            expected: defaultdict[Digest, list[Digest]] = defaultdict(list)
            for digest, content in manifests.items():
                subject = json.loads(content).get("subject")
                if subject is not None:
                    expected[Digest(subject["digest"])].append(digest)
            for subject in {*expected, Digest.of(b"1")}:
                page = self.do(self.registry.referrers.page(repository, subject, 100))
                assert [entry.digest for entry in page.entries] == sorted(expected[subject])

    @invariant()
    def uploads_stand_where_they_were_left(self) -> None:
        for upload, sent in self.begun:
            assert self.do(self.registry.uploads.find(upload.name, upload.id)).size == len(sent)

    @invariant()
    def nothing_is_damaged(self) -> None:
        assert self.damage.count == 0


RegistryMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=40)
RegistryTest = RegistryMachine.TestCase
