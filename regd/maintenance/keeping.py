"""
What one repository keeps of what it holds, and what can be taken out of it.

Kept are all manifests, or with ``untagged`` those that a tag leads to; what was written or asked for since the limit; and all that these
refer to. Where something in the repository cannot be read, everything is kept.

What came from an upstream stays without a tag, too, and may lack parts: they are fetched again. Where that is limited,
:mod:`~regd.maintenance.evicting` decides on it, and here only what something else refers to is kept.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from regd.maintenance.graph import Graph, Node, digest_of
from regd.maintenance.reading import Found, Reader
from regd.maintenance.removing import Removing
from regd.maintenance.summary import Witness
from regd.maintenance.tally import Tally
from regd.manifest import LIMIT
from regd.names import RepositoryName
from regd.storage import layout
from regd.storage.driver import Stat

__all__ = ["Keeping", "Means"]

#: The time of a file that is not there.
_NEVER: Final = float("-inf")


@dataclass(frozen=True, slots=True)
class Means:
    """
    What the work on all repositories shares.

    :ivar limit: what was last written at this time or later is kept, with all that it refers to.
    :ivar untagged: whether manifests go that nothing holds.
    :ivar garbage: whether links go that nothing needs.
    :ivar removing: takes out what can go; ``None`` in a dry run.
    :ivar marks: the digests of all that is referred to, as their bytes; added to.
    :ivar evicting: whether what came from an upstream is decided upon later.
    :ivar cached: the repositories that have such content, each with what has to stay in it; added to.
    """

    reader: Reader
    tally: Tally
    witness: Witness | None
    limit: float
    untagged: bool
    garbage: bool
    removing: Removing | None
    marks: set[bytes]
    evicting: bool = False
    cached: dict[RepositoryName, frozenset[bytes]] = field(default_factory=dict)


class Keeping:
    """The work on one repository."""

    def __init__(self, means: Means, found: Found) -> None:
        self._means = means
        self._found = found
        #: All that manifests that are kept name.
        self._needed: set[bytes] = set()
        #: Manifests of which it is not known yet whether they are kept.
        self._graph = Graph()
        self._read: set[bytes] = set()
        #: What came from an upstream, and is not decided upon here.
        self._lent = found.cached if means.evicting else set[bytes]()

    async def run(self) -> bool:
        """
        Mark what is kept, after taking out what can go.

        :returns: whether nothing seems to be left.
        """
        found = self._found
        await self._load(self._meant((*found.revisions, *found.tags.values())))
        self._keep_lent()
        dead = await self._dead()
        old = await self._old(dead)
        if found.damaged:
            await self._keep_everything(dead)
            return False
        dead = await self._remove_manifests(dead)
        # What was saved in the last moment needs its layers.
        self._follow_links()
        old = [layer for layer in old if layer not in self._needed]
        gone = await self._remove_layers(old)
        self._means.marks.update(self._needed)
        if self._lent:
            self._means.cached[found.name] = frozenset(self._lent & self._needed)
        return not (self._read - dead or found.tags or found.layers - gone)

    def _meant(self, names: Iterable[bytes]) -> list[bytes]:
        """The manifests that these digests lead to in this repository, each once."""
        found = self._found
        return list(dict.fromkeys(found.revisions.get(name) or found.target(name) for name in names))

    # Manifests.

    async def _load(self, wanted: list[bytes]) -> None:
        """Read manifests, and those among the layers that they name: ``registry:2.1`` linked manifests there."""
        found = self._found
        while wanted:
            named: dict[bytes, None] = {}
            self._read.update(wanted)
            async for digest, node in self._means.reader.manifests(found, wanted):
                if node is not None:
                    self._add(digest, node)
                    named.update(dict.fromkeys(node.manifests()))
                elif digest in found.cached:
                    # It is fetched again when it is asked for, and needs nothing until then.
                    self._read.discard(digest)
                elif digest in self._held():
                    await self._means.reader.broken(found, layout.blob_data(digest_of(digest)), "a manifest that is missing")
                else:
                    # What a tag meant that registry:2.5 left behind when the manifest was deleted.
                    self._read.discard(digest)
            wanted = self._among_layers(named)

    def _among_layers(self, named: Iterable[bytes]) -> list[bytes]:
        """Those of these manifests that have been linked with the layers only, and not been read yet."""
        found = self._found
        targets = (found.target(name) for name in named if name in found.layers and name not in found.revisions)
        return [target for target in dict.fromkeys(targets) if target not in self._read]

    def _held(self) -> set[bytes]:
        return {*self._found.revisions.values(), *self._found.layers, *self._found.targets.values()}

    def _add(self, digest: bytes, node: Node) -> None:
        if self._means.untagged or self._lent:
            self._graph.nodes[digest] = node
        else:
            # No need to remember each.
            self._keep(digest, node)

    def _keep(self, digest: bytes, node: Node) -> None:
        self._needed.add(digest)
        self._needed.update(node.names())
        self._tell(digest, node)

    def _tell(self, digest: bytes, node: Node) -> None:
        self._means.tally.manifests += 1
        witness = self._means.witness
        if witness is not None:
            name = self._found.name
            witness.manifest(name, digest_of(digest))
            for blob in node.names():
                witness.blob(name, digest_of(blob))

    def _keep_lent(self) -> None:
        """Keep what is not an upstream's of what an upstream's manifests name, and of what they are kept as."""
        found = self._found
        self._graph.aliases = {name: target for name, target in (*found.targets.items(), *found.revisions.items()) if name != target}
        self._needed.update(target for name, target in self._graph.aliases.items() if name in self._lent)
        if not self._lent:
            return
        # An upstream's manifest that a local one leads to is as good as local.
        local = self._graph.below(digest for digest in self._graph.nodes if digest not in self._lent)
        own = self._held() - self._lent
        for digest in sorted(self._lent & self._graph.nodes.keys() - local):
            node = self._graph.nodes.pop(digest)
            # What is not here may be cached elsewhere, and goes by its use there.
            self._needed.update(own.intersection(node.names()))
            self._tell(digest, node)

    async def _dead(self) -> set[bytes]:
        """Keep the manifests that have to be; what is left."""
        graph, found = self._graph, self._found
        if not self._means.untagged:
            for digest, node in graph.nodes.items():
                self._keep(digest, node)
            return set()
        living = graph.reach([*self._meant((*found.tags.values(), *found.cached)), *self._needed])
        doubtful = [name for name, target in found.revisions.items() if target in graph.nodes and target not in living]
        links = await self._means.reader.stat(found, [layout.revision_link(found.name, digest_of(name)) for name in doubtful])
        blobs = await self._means.reader.stat(found, [layout.blob_data(digest_of(found.revisions[name])) for name in doubtful])
        fresh = (found.revisions[name] for name, link, blob in zip(doubtful, links, blobs, strict=True) if self._fresh(link, blob))
        living |= graph.reach(fresh)
        for digest, node in graph.nodes.items():
            if digest in living:
                self._keep(digest, node)
        return {found.revisions[name] for name in doubtful} - living

    def _fresh(self, *looks: Stat | None) -> bool:
        return any(look is not None and look.modified >= self._means.limit for look in looks)

    async def _remove_manifests(self, dead: set[bytes]) -> set[bytes]:
        """Those that are gone."""
        means, found = self._means, self._found
        if not dead:
            return dead
        if means.removing is None:
            removed = sorted(dead)
        else:
            wanted = set(dead)
            removed = await means.removing.manifests(found, self._graph, wanted)
            for digest in sorted(dead.difference(removed)):
                self._keep(digest, self._graph.nodes[digest])
        means.tally.manifests_removed += len(removed)
        if means.witness is not None:
            for digest in removed:
                means.witness.eligible_manifest(found.name, digest_of(digest))
        return set(removed)

    # Links to blobs.

    async def _old(self, dead: set[bytes]) -> list[bytes]:
        """
        The links to blobs that can go, now that only these manifests are left whose fate is open. None that was written since the limit, or
        whose blob was: then both stay.
        """
        found, reader = self._found, self._means.reader
        self._follow_links()
        unneeded = await reader.links(found, sorted(found.layers - self._needed - self._lent))
        if not self._means.garbage:
            self._needed.update(unneeded, (found.target(layer) for layer in unneeded))
            return []
        links = await reader.stat(found, [layout.layer_link(found.name, digest_of(layer)) for layer in unneeded])
        blobs = await reader.stat(found, [layout.blob_data(digest_of(found.target(layer))) for layer in unneeded])
        old, able = [], []
        for layer, link, blob in zip(unneeded, links, blobs, strict=True):
            if self._fresh(blob) and not self._means.evicting:
                # It need not be marked to stay. Where something is evicted, that may be younger.
                continue
            if self._fresh(link, blob):
                self._needed.update((layer, found.target(layer)))
            else:
                old.append(layer)
                if blob is not None and blob.size <= LIMIT:
                    able.append(layer)
        if not self._means.untagged:
            # These are untagged ones, which stay.
            for digest, node in await reader.manifests_among(found, able):
                self._read.add(digest)
                self._keep(digest, node)
                await self._load(self._among_layers(node.manifests()))
            self._follow_links()
        return [layer for layer in old if layer not in self._needed]

    def _follow_links(self) -> None:
        """A blob that is needed is needed where its bytes are."""
        self._needed.update([target for layer, target in self._found.targets.items() if layer in self._needed])

    async def _remove_layers(self, old: list[bytes]) -> set[bytes]:
        """Those that are gone."""
        means = self._means
        if not old:
            return set()
        gone = set(old if means.removing is None else await means.removing.layers(self._found, old))
        for layer in old:
            if layer not in gone:
                self._needed.update((layer, self._found.target(layer)))
        means.tally.links_removed += len(gone)
        return gone

    async def _keep_everything(self, dead: Iterable[bytes]) -> None:
        found, marks = self._found, self._means.marks
        for digest in sorted(dead):
            self._keep(digest, self._graph.nodes[digest])
        # For what they say.
        await self._means.reader.links(found, sorted(found.layers))
        for held in (self._needed, found.doubtful, found.layers, found.targets.values(), found.tags.values()):
            marks.update(held)
        marks.update(found.revisions, found.revisions.values())
        async for signature in self._means.reader.signatures(found):
            marks.add(signature)
