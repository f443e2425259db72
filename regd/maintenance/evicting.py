"""
Eviction: content that came from an upstream, and that has to go because it was not used for too long or because there is too much of it.

It goes in an order in which nothing ever points to nothing, and a run that is cut short can be finished by the next: the tags that mean a
manifest, then the links, with the gate closed; when these are gone for good the bytes, unless something else refers to them; and the marks
last, because they are what the next run goes by. What is used or wanted meanwhile stays.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from regd.errors import TagInvalid
from regd.maintenance.closing import Closing
from regd.maintenance.graph import digest_of, raw
from regd.maintenance.reading import Reader
from regd.maintenance.steps import Steps
from regd.maintenance.summary import Orders, Witness
from regd.maintenance.survey import Mark, Survey, marks_of
from regd.maintenance.tally import Tally
from regd.maintenance.walking import digests_in
from regd.names import Digest, RepositoryName, Tag
from regd.storage import layout
from regd.storage.driver import Driver, Missing, Stat
from regd.storage.layout import Path
from regd.storage.links import LIMIT, BadLink, parse_link

__all__ = ["Eviction"]

#: A mark of content that is not here may be that of a fetch which has begun; after so many seconds it is not.
_DAY: Final = 86400.0

#: A tag is a directory with several others in it: so many files cost as much.
_TAG: Final = 10

#: A repository, and the bytes of the digest of what is marked in it.
_Marked = tuple[RepositoryName, bytes]


@dataclass(slots=True, eq=False)
class _Going:
    """
    Content of one repository that is to go.

    :ivar links: what says that the repository holds it.
    :ivar manifest: whether it holds it as a manifest.
    :ivar tags: what means it.
    :ivar others: what remembers it.
    """

    name: RepositoryName
    mark: Mark
    links: list[Path] = field(default_factory=list)
    manifest: bool = False
    tags: list[Tag] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)

    @property
    def digest(self) -> Digest:
        return digest_of(self.mark.digest)

    @property
    def files(self) -> int:
        """How many files are looked at or moved for it with the gate closed."""
        return 2 + len(self.links) + _TAG * len(self.tags) + len(self.others)


class Eviction:
    """
    One run, within a collection that has begun.

    :param closing: ``None`` in a dry run.
    :param into: the trash.
    :param began: when the collection did: what was written, used or wanted since then stays.
    :param marks: the digests of all that something refers to which did not come from an upstream; what stays is added.
    :param cached: the repositories that content may go from, each with what stays in it whenever it was used.
    """

    def __init__(
        self,
        driver: Driver,
        reader: Reader,
        steps: Steps,
        closing: Closing | None,
        into: Path,
        orders: Orders,
        began: float,
        tally: Tally,
        witness: Witness | None,
        marks: set[bytes],
        cached: Mapping[RepositoryName, frozenset[bytes]],
    ) -> None:
        self._driver = driver
        self._reader = reader
        self._steps = steps
        self._closing = closing
        self._into = into
        self._began = began
        self._tally = tally
        self._witness = witness
        self._marks = marks
        self._cached = cached
        self._maxsize = orders.maxsize
        self._before = float("-inf") if orders.maxage is None else began - orders.maxage
        self._waiting: list[_Going] = []
        self._files = 0
        #: Marks whose content has gone, and those whose content may never come.
        self._gone: list[_Marked] = []
        self._bare: list[_Marked] = []
        self._changed: set[Path] = set()

    async def links(self) -> set[bytes]:
        """
        Take the links out.

        :returns: the digests whose bytes can go, because no link to them is left that is known.
        :raises StorageError: when that fails.
        :raises Stopped: when the run is to stop.
        """
        survey = Survey(self._driver, self._steps)
        for name in self._cached:
            await survey.add(name)
        local = survey.among(self._marks)
        going = survey.going(self._maxsize, self._before, local)
        for name, kept in self._cached.items():
            await self._repository(name, kept, survey, going)
        await self._flush()
        await self._driver.settle(sorted(self._changed))
        left = going - self._marks
        self._tally.blobs_cached = survey.count - len(left)
        self._tally.bytes_cached = survey.total(besides=left | local)
        return left

    async def unmark(self) -> None:
        """
        Take away the marks of what has gone. To be called when the bytes have.

        :raises StorageError: when that fails.
        :raises Stopped: when the run is to stop.
        """
        await self._unmark(self._gone, self._began)
        await self._unmark(self._bare, self._began - _DAY)
        for name in dict.fromkeys(name for name, _ in self._gone):
            await self._prune(name)

    # What goes.

    async def _repository(self, name: RepositoryName, kept: frozenset[bytes], survey: Survey, going: set[bytes]) -> None:
        found: list[_Going] = []
        async for mark in marks_of(self._driver, self._steps, name):
            # As it was when it was chosen, and not used since.
            chosen = mark.digest in going and mark.used <= survey.used(mark.digest)
            if mark.digest not in kept and mark.used < self._began and (chosen or mark.used < self._before):
                found.append(_Going(name, mark))
            else:
                self._marks.add(mark.digest)
                if not survey.size(mark.digest):
                    self._bare.append((name, mark.digest))
        await self._look_for_links(name, found)
        if found:
            await self._look_for_names(name, {one.mark.digest: one for one in found})
        for one in found:
            await self._take(one)

    async def _look_for_links(self, name: RepositoryName, found: Sequence[_Going]) -> None:
        """See how the repository holds what is to go."""
        for start in range(0, len(found), self._steps.lot):
            lot = found[start : start + self._steps.lot]
            layers = [layout.layer_link(name, one.digest) for one in lot]
            revisions = [layout.revision_link(name, one.digest) for one in lot]
            looks = await self._driver.stat_all([*layers, *revisions])
            await self._steps.take(2 * len(lot))
            for one, path, look in zip(lot, layers, looks[: len(lot)], strict=True):
                one.links += [path] if look is not None else []
            for one, path, look in zip(lot, revisions, looks[len(lot) :], strict=True):
                one.links += [path] if look is not None else []
                one.manifest = look is not None

    async def _look_for_names(self, name: RepositoryName, found: Mapping[bytes, _Going]) -> None:
        """See what means, or remembers, what is to go."""
        manifests = [digest for digest, one in found.items() if one.manifest]
        async for tag, target in self._tags(name):
            # registry:2.1 linked manifests with the layers.
            if target is not None and target in found:
                found[target].tags.append(tag)
            elif manifests:
                # A tag that means something else by now goes on to remember what it meant.
                async for digest in digests_in(self._driver, self._steps, partial(layout.tag_index, name, tag)):
                    if (one := found.get(raw(digest))) is not None:
                        one.others.append(layout.tag_index_link(name, tag, digest))
        async for manifest, subject in self._reader.subjects(manifests):
            found[manifest].others.append(layout.referrer_link(name, digest_of(subject), digest_of(manifest)))

    async def _tags(self, name: RepositoryName) -> AsyncIterator[tuple[Tag, bytes | None]]:
        """The tags of a repository with what they mean."""
        try:
            names = sorted(await self._driver.scan(layout.tags(name)))
        except Missing:
            return
        for start in range(0, len(names), self._steps.lot):
            tags = [tag for text in names[start : start + self._steps.lot] if (tag := _tag(text)) is not None]
            contents = await self._driver.read_all([layout.tag_link(name, tag) for tag in tags], LIMIT)
            await self._steps.take(len(tags))
            for tag, content in zip(tags, contents, strict=True):
                yield tag, _target(content)

    # Taking it out.

    async def _take(self, one: _Going) -> None:
        if not one.links:
            # An earlier run was cut short, and its bytes can go; or a fetch has not brought it yet, and there are none.
            self._bare.append((one.name, one.mark.digest))
        elif self._closing is None:
            self._say(one)
        else:
            self._waiting.append(one)
            self._files += one.files
            if self._files >= self._closing.lot:
                await self._flush()

    def _say(self, one: _Going) -> None:
        """Somebody may want to know what has gone."""
        if one.manifest:
            self._tally.manifests_evicted += 1
            self._tally.manifests -= 1
            if self._witness is not None:
                self._witness.eligible_manifest(one.name, one.digest)

    async def _flush(self) -> None:
        """Take out what waits for it."""
        closing, lot = self._closing, self._waiting
        if closing is None or not lot:
            return
        gone = await closing(partial(self._retire, lot), sum(one.files for one in lot))
        for one in lot:
            if one in gone:
                self._gone.append((one.name, one.mark.digest))
                self._changed.update(layout.above(path, 2) for path in (*one.links, *one.others))
                if one.tags:
                    self._changed.add(layout.tags(one.name))
                self._say(one)
            else:
                # It is used, or wanted, at this moment.
                self._marks.add(one.mark.digest)
        await self._steps.take(sum(one.files for one in lot))
        self._waiting, self._files = [], 0

    async def _retire(self, lot: Sequence[_Going]) -> set[_Going]:
        """
        With the gate closed: what is fresh stays. Of the rest what leads to it goes first.

        :returns: what is gone.
        """
        driver = self._driver
        looks: dict[_Going, list[Path]] = {}
        for one in lot:
            tags = [layout.tag_link(one.name, tag) for tag in one.tags]
            looks[one] = [layout.cached(one.name, one.digest), layout.blob_data(one.digest), *one.links, *tags]
        flat = [path for paths in looks.values() for path in paths]
        found = dict(zip(flat, await driver.stat_all(flat), strict=True))
        old = [one for one in lot if all(_old(found[path], self._began) for path in looks[one])]
        await self._drop_tags(old)
        await driver.retire([path for one in old for path in one.others], self._into, self._began)
        links = {path: one for one in old for path in one.links}
        guards = [layout.blob_data(one.digest) for one in links.values()]
        taken = set(await driver.retire(list(links), self._into, self._began, guards))
        return {one for one in old if taken.issuperset(one.links)}

    async def _drop_tags(self, lot: Sequence[_Going]) -> None:
        named = [(one, tag) for one in lot for tag in one.tags]
        if not named:
            return
        contents = await self._driver.read_all([layout.tag_link(one.name, tag) for one, tag in named], LIMIT)
        for (one, tag), content in zip(named, contents, strict=True):
            if _target(content) == one.mark.digest:
                await self._driver.delete(layout.tag(one.name, tag), durable=False)

    # Its marks.

    async def _unmark(self, lot: Sequence[_Marked], before: float) -> None:
        """Take away marks that were last written before a time, unless what they mark is there again."""
        closing = self._closing
        if closing is None:
            return
        start = 0
        while start < len(lot):
            some = [(name, digest_of(digest)) for name, digest in lot[start : start + max(1, closing.lot // 3)]]
            start += len(some)

            async def discard(some: Sequence[tuple[RepositoryName, Digest]] = some) -> None:
                layers = await self._driver.stat_all([layout.layer_link(*one) for one in some])
                revisions = await self._driver.stat_all([layout.revision_link(*one) for one in some])
                bare = [one for one, held in zip(some, zip(layers, revisions, strict=True), strict=True) if held == (None, None)]
                await self._driver.discard([layout.cached(*one) for one in bare], before)

            await closing(discard, 3 * len(some))
            await self._steps.take(len(some))

    async def _prune(self, name: RepositoryName) -> None:
        """Of a repository that nothing is left in nothing is to be left."""
        places = (layout.cached_root(name), layout.layers(name), layout.referrers_root(name), layout.uploads(name), layout.manifests(name))
        if all([await self._driver.prune(place) for place in places]):
            await self._driver.prune(layout.repository(name))
        await self._steps.take(len(places))


def _old(look: object, before: float) -> bool:
    """Whether a file is not there, or was last written before a time. One that cannot be looked at is not old."""
    return look is None or (isinstance(look, Stat) and look.modified < before)


def _target(content: object) -> bytes | None:
    """What a link holds; ``None`` where that cannot be told."""
    if not isinstance(content, bytes):
        return None
    try:
        return raw(parse_link(content))
    except BadLink:
        return None


def _tag(text: str) -> Tag | None:
    try:
        return Tag.parse(text)
    except TagInvalid:
        return None
