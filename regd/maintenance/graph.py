"""
Which manifests of a repository hold one another. Pure; no I/O.

A digest is here the bytes that its hexadecimal digits stand for: a third of the memory, and the length tells the algorithm. A million of
them in a set take some 100 MiB.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from regd.manifest import Manifest
from regd.names import ALGORITHMS, Digest

__all__ = ["Graph", "Node", "digest_of", "raw", "raw_name"]

#: The algorithm of a digest of so many bytes.
_ALGORITHM: Final = {length // 2: algorithm for algorithm, length in ALGORITHMS.items()}


def raw(digest: Digest) -> bytes:
    """The bytes of a digest."""
    return bytes.fromhex(digest.hex)


def digest_of(raw: bytes) -> Digest:
    """The digest of these bytes."""
    return Digest(f"{_ALGORITHM[len(raw)]}:{raw.hex()}")


def raw_name(algorithm: str, name: str) -> bytes | None:
    """What a directory of this name below one of an algorithm stands for; ``None`` when it is no digest."""
    try:
        found = bytes.fromhex(name)
    except ValueError:
        return None
    # It takes capitals and white space, too.
    return found if _ALGORITHM.get(len(found)) == algorithm and found.hex() == name else None


@dataclass(frozen=True, slots=True)
class Node:
    """
    What a manifest names: configuration and layers, the children of an index, and the manifest that it is about.
    """

    blobs: tuple[bytes, ...] = ()
    children: tuple[bytes, ...] = ()
    subject: bytes | None = None

    @classmethod
    def of(cls, manifest: Manifest) -> Node:
        """What this manifest names."""
        return cls(
            tuple(raw(blob.digest) for blob in manifest.blobs),
            tuple(raw(child.digest) for child in manifest.manifests),
            None if manifest.subject is None else raw(manifest.subject.digest),
        )

    def manifests(self) -> tuple[bytes, ...]:
        """The manifests that it names."""
        return self.children if self.subject is None else (*self.children, self.subject)

    def names(self) -> tuple[bytes, ...]:
        """All that it names."""
        return self.blobs + self.manifests()


class Graph:
    """
    The manifests of one repository.

    :ivar nodes: each under the digest of its bytes.
    :ivar aliases: other digests that they are known by here. ``registry:2`` keeps what is pushed by a sha512 digest under its sha256 one.
    """

    def __init__(self) -> None:
        self.nodes: dict[bytes, Node] = {}
        self.aliases: dict[bytes, bytes] = {}

    def named(self, node: Node) -> Iterator[bytes]:
        """The manifests of this repository that a manifest names."""
        for name in node.manifests():
            found = self.aliases.get(name, name)
            if found in self.nodes:
                yield found

    def reach(self, roots: Iterable[bytes]) -> set[bytes]:
        """
        All manifests that live when ``roots`` do: with an index its children, with a manifest its subject, and with a subject all that is
        about it.

        :param roots: digests; those of no manifest here are passed over.
        """
        about = self._about()
        living: set[bytes] = set()
        waiting = [self.aliases.get(root, root) for root in roots]
        while waiting:
            digest = waiting.pop()
            node = self.nodes.get(digest)
            if node is None or digest in living:
                continue
            living.add(digest)
            waiting += self.named(node)
            waiting += about.get(digest, ())
        return living

    def below(self, roots: Iterable[bytes]) -> set[bytes]:
        """These manifests, and all that they name: children and subjects to any depth, and not what is about them."""
        found: set[bytes] = set()
        waiting = list(roots)
        while waiting:
            digest = waiting.pop()
            if digest not in found:
                found.add(digest)
                waiting += self.named(self.nodes[digest])
        return found

    def levels(self, dead: Collection[bytes]) -> Iterator[list[bytes]]:
        """
        The order in which manifests can be removed: an index before its children, a subject before what is about it. Whenever that is cut
        short, or one of them turns out to be wanted, whatever is left has all of its children, and what is about it.

        :param dead: which; all that hold one of them are among them.
        """
        about = self._about()
        held = dict.fromkeys(dead, 0)
        for digest in dead:
            for one in self._held_by(digest, about):
                if one in held:
                    held[one] += 1
        level = [digest for digest, holders in held.items() if not holders]
        while held:
            if not level:
                # An index that is about one of its own children.
                level = list(held)
            yield level
            for digest in level:
                del held[digest]
            later = []
            for digest in level:
                for one in self._held_by(digest, about):
                    if one in held:
                        held[one] -= 1
                        if not held[one]:
                            later.append(one)
            level = later

    def _about(self) -> dict[bytes, list[bytes]]:
        about = defaultdict(list)
        for digest, node in self.nodes.items():
            if node.subject is not None:
                about[self.aliases.get(node.subject, node.subject)].append(digest)
        return about

    def _held_by(self, digest: bytes, about: dict[bytes, list[bytes]]) -> set[bytes]:
        node = self.nodes[digest]
        return {self.aliases.get(child, child) for child in node.children} | set(about.get(digest, ())) - {digest}
