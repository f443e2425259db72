"""
What a registry has to hold, worked out naively from what its clients were told: sets and dictionaries, and no storage.

Time is that of the storage, in seconds. A collection *doubts* what it may remove: what is neither reachable nor promised. What is doubted
may be there or not; what is not doubted has to be there, and after a collection that nobody disturbs, nothing else.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from regd.manifest import Manifest, parse
from regd.names import Digest, RepositoryName, Tag

__all__ = ["Content", "Held", "HeldManifest", "Model", "Repository"]

Content = bytes


@dataclass
class Held:
    """
    :ivar renewed: since when it has been promised, at least.
    :ivar sure: whether it has to be there.
    """

    renewed: float
    sure: bool = True

    def renew(self, when: float) -> None:
        """A client was told that it is there."""
        self.renewed, self.sure = max(self.renewed, when), True


@dataclass
class HeldManifest(Held):
    """
    :ivar content: its bytes.
    :ivar manifest: what they say.
    """

    content: Content = b""
    manifest: Manifest = field(init=False)

    def __post_init__(self) -> None:
        self.manifest = parse(self.content)

    @property
    def subject(self) -> Digest | None:
        """What it is about."""
        return None if self.manifest.subject is None else self.manifest.subject.digest


@dataclass
class Repository:
    """
    :ivar blobs: by digest.
    :ivar manifests: by digest.
    :ivar tags: what they mean.
    """

    blobs: dict[Digest, Held] = field(default_factory=dict)
    manifests: dict[Digest, HeldManifest] = field(default_factory=dict)
    tags: dict[Tag, Digest] = field(default_factory=dict)

    def closure(self, roots: Iterable[Digest], *, sure: bool = False) -> set[Digest]:
        """
        The manifests that live because of some: children of an index, and subjects and what refers to them.

        :param sure: pass over those that may be gone.
        """
        here = {digest: held for digest, held in self.manifests.items() if held.sure or not sure}
        found: set[Digest] = set()
        waiting = [digest for digest in roots if digest in here]
        while waiting:
            digest = waiting.pop()
            if digest in found:
                continue
            found.add(digest)
            held = here[digest]
            waiting += [child.digest for child in held.manifest.manifests if child.digest in here]
            waiting += [other for other, that in here.items() if other == held.subject or that.subject == digest]
        return found

    def needed(self, manifests: Iterable[Digest]) -> set[Digest]:
        """The blobs that some manifests name."""
        return {blob.digest for digest in manifests for blob in self.manifests[digest].manifest.blobs}


class Model:
    """
    :ivar repositories: by name; made when they are asked for.
    :ivar contents: everything that was ever pushed, by digest.
    """

    def __init__(self) -> None:
        self.repositories: defaultdict[RepositoryName, Repository] = defaultdict(Repository)
        self.contents: dict[Digest, Content] = {}

    def shift(self, seconds: float) -> None:
        """The storage's times were all set back."""
        for repository in self.repositories.values():
            for held in (*repository.blobs.values(), *repository.manifests.values()):
                held.renewed -= seconds

    def doubt(self, limit: float, *, untagged: bool) -> None:
        """
        A collection is about to remove what was last promised before ``limit``, or may have done so.

        :param untagged: manifests, too, that nothing holds.
        """
        for repository in self.repositories.values():
            if untagged:
                young = {digest for digest, held in repository.manifests.items() if held.sure and held.renewed >= limit}
                living = repository.closure({*repository.tags.values(), *young}, sure=True)
                for digest in repository.manifests.keys() - living:
                    repository.manifests[digest].sure = False
            needed = repository.needed(digest for digest, held in repository.manifests.items() if held.sure)
            for digest, blob in repository.blobs.items():
                if digest not in needed and blob.renewed < limit:
                    blob.sure = False

    def confirm(self, name: RepositoryName, digest: Digest, when: float) -> None:
        """A manifest was put, and so is there with all that it is made of; what it names was renewed at ``when`` at least."""
        repository = self.repositories[name]
        held = repository.manifests[digest]
        held.renew(when)
        for blob in held.manifest.blobs:
            repository.blobs[blob.digest].renew(when)
        below = [child.digest for child in held.manifest.manifests]
        for child in below:
            repository.manifests[child].renew(when)
        # What these are made of was not named, and is there because they are; but for what its client has deleted.
        for found in repository.closure(below):
            if self._below(repository, below, found):
                repository.manifests[found].sure = True
                for blob in repository.manifests[found].manifest.blobs:
                    if blob.digest in repository.blobs:
                        repository.blobs[blob.digest].sure = True

    @staticmethod
    def _below(repository: Repository, roots: list[Digest], wanted: Digest) -> bool:
        """Whether a manifest is reached by going down from some."""
        waiting, seen = list(roots), set[Digest]()
        while waiting:
            digest = waiting.pop()
            if digest == wanted:
                return True
            if digest not in seen and digest in repository.manifests:
                seen.add(digest)
                waiting += [child.digest for child in repository.manifests[digest].manifest.manifests]
        return False

    def living(self, *, untagged: bool) -> dict[RepositoryName, set[Digest]]:
        """What a collection keeps of the manifests that are there, when nothing is young."""
        return {
            name: repository.closure(repository.tags.values()) if untagged else set(repository.manifests)
            for name, repository in self.repositories.items()
        }

    def widest(self, living: dict[RepositoryName, set[Digest]]) -> set[Digest]:
        """Everything that anybody could say is reached by some manifests, through what was deleted as well."""
        found: set[Digest] = set()
        waiting = [digest for manifests in living.values() for digest in manifests]
        while waiting:
            digest = waiting.pop()
            if digest in found:
                continue
            found.add(digest)
            content = self.contents.get(digest)
            if content is not None and content.startswith(b'{"schemaVersion"'):
                manifest = parse(content)
                subject = [] if manifest.subject is None else [manifest.subject.digest]
                waiting += [*(part.digest for part in (*manifest.blobs, *manifest.manifests)), *subject]
        return found
