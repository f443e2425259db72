"""
What a collection takes out of one repository: manifests that nothing holds, and links to blobs that no manifest of it names.

It is moved into the trash with the gate closed, unless it has been asked for since, or what it refers to has. The links go before the blobs
that they refer to, and they are gone for good before the first blob is touched.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import partial

from regd.maintenance.closing import Closing
from regd.maintenance.graph import Graph, digest_of, raw
from regd.maintenance.reading import Found
from regd.maintenance.steps import Steps
from regd.maintenance.walking import digests_in
from regd.names import Tag
from regd.storage import layout
from regd.storage.driver import Driver
from regd.storage.layout import Path

__all__ = ["Removing"]


class Removing:
    """
    :param into: the trash.
    :param limit: what was last written at this time or later stays.
    """

    def __init__(self, driver: Driver, closing: Closing, steps: Steps, into: Path, limit: float) -> None:
        self._driver = driver
        self._closing = closing
        self._steps = steps
        self._into = into
        self._limit = limit

    async def manifests(self, found: Found, graph: Graph, dead: set[bytes]) -> list[bytes]:
        """
        Take manifests out.

        :param dead: those that nothing held when the repository was read. What turns out to be wanted is taken out of this set, with all
            that it reaches.
        :returns: those that are gone.
        """
        names = defaultdict(list)
        for name, target in found.revisions.items():
            names[target].append(name)
        history = await self._history(found, {name for digest in dead for name in names[digest]})
        removed: list[bytes] = []
        changed: set[Path] = set()
        for level in graph.levels(sorted(dead)):
            start = 0
            while start < len(level):
                # Each has its link, one below a tag that it once had, and one below its subject.
                lot = [digest for digest in level[start : start + max(1, self._closing.lot // 3)] if digest in dead]
                start += max(1, self._closing.lot // 3)
                gone = await self._lot(found, graph, lot, names, history, changed)
                removed += gone
                kept = graph.reach(set(lot) - set(gone))
                dead -= kept
                await self._steps.take(len(lot))
        await self._driver.settle(sorted(changed))
        for tag in set(found.tagged) - set(found.tags):
            # Without anything that it ever meant it is not even a memory.
            await self._driver.prune(layout.tag(found.name, Tag(tag)))
        for digest in removed:
            if (subject := graph.nodes[digest].subject) is not None:
                await self._driver.prune(layout.referrers(found.name, digest_of(subject)))
        return removed

    async def layers(self, found: Found, layers: Sequence[bytes]) -> list[bytes]:
        """
        Take links to blobs out.

        :returns: those that are gone.
        """
        gone: list[bytes] = []
        start = 0
        while start < len(layers):
            lot = layers[start : start + self._closing.lot]
            start += len(lot)
            links = {layout.layer_link(found.name, digest_of(layer)): layer for layer in lot}
            guards = [layout.blob_data(digest_of(found.target(layer))) for layer in lot]
            gone += [links[path] for path in await self._retire(list(links), guards)]
            await self._steps.take(len(lot))
        await self._driver.settle(sorted({layout.layers(found.name, digest_of(layer).algorithm) for layer in gone}))
        return gone

    async def stale(self, found: Found) -> None:
        """Take out what remembers, or refers from a subject to, manifests that are not here: a run may have been cut short."""
        known = {*found.revisions, *found.layers}
        links: list[Path] = []
        for tag in found.tagged:
            entries = digests_in(self._driver, self._steps, partial(layout.tag_index, found.name, Tag(tag)))
            links += [layout.tag_index_link(found.name, Tag(tag), digest) async for digest in entries if raw(digest) not in known]
        async for subject in digests_in(self._driver, self._steps, partial(layout.referrers_root, found.name)):
            entries = digests_in(self._driver, self._steps, partial(layout.referrers, found.name, subject))
            links += [layout.referrer_link(found.name, subject, digest) async for digest in entries if raw(digest) not in known]
        # With the gate open: what is written from now on is younger than the limit, and stays.
        for start in range(0, len(links), self._steps.lot):
            lot = links[start : start + self._steps.lot]
            await self._driver.retire(lot, self._into, self._limit)
            await self._steps.take(len(lot))

    async def _lot(
        self,
        found: Found,
        graph: Graph,
        lot: Iterable[bytes],
        names: dict[bytes, list[bytes]],
        history: dict[bytes, list[Path]],
        changed: set[Path],
    ) -> list[bytes]:
        """Manifests of one level, with what else refers to them."""
        links = {layout.revision_link(found.name, digest_of(name)): digest for digest in lot for name in names[digest]}
        others: dict[bytes, list[Path]] = {}
        for digest in lot:
            others[digest] = [path for name in names[digest] for path in history.get(name, ())]
            if (subject := graph.nodes[digest].subject) is not None:
                others[digest] += [layout.referrer_link(found.name, digest_of(subject), digest_of(name)) for name in names[digest]]

        if not links:
            return []

        async def retire() -> list[bytes]:
            guards = [layout.blob_data(digest_of(digest)) for digest in links.values()]
            taken = set(await self._driver.retire(list(links), self._into, self._limit, guards))
            gone = set(links.values()) - {digest for path, digest in links.items() if path not in taken}
            rest = [path for digest in gone for path in others[digest]]
            await self._driver.retire(rest, self._into, self._limit)
            changed.update(layout.above(path, 2) for path in (*taken, *rest))
            return sorted(gone)

        return await self._closing(retire, 3 * len(links))

    async def _retire(self, files: Sequence[Path], guards: Sequence[Path]) -> Sequence[Path]:
        async def retire() -> Sequence[Path]:
            return await self._driver.retire(files, self._into, self._limit, guards)

        return await self._closing(retire, len(files))

    async def _history(self, found: Found, wanted: set[bytes]) -> dict[bytes, list[Path]]:
        """Below which tags it is remembered that they once meant one of these manifests."""
        history: dict[bytes, list[Path]] = defaultdict(list)
        for tag in found.tagged:
            async for digest in digests_in(self._driver, self._steps, partial(layout.tag_index, found.name, Tag(tag))):
                if (name := raw(digest)) in wanted:
                    history[name].append(layout.tag_index_link(found.name, Tag(tag), digest))
        return history
