"""
One change and one collection, in every order that has two turns: the collection goes so far, then the change goes so far, then the
collection goes to its end, then the change does. Whatever was acknowledged is there to the byte, and so is what it is made of.

Chance seldom comes by these (``test_model.py`` has the rest): a collection has some sixty calls to the storage and a change a dozen, and a
mistake shows between one of the one and one of the other.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from regd.errors import RegistryError
from regd.maintenance.collector import Orders
from regd.manifest import OCI_IMAGE, OCI_INDEX
from regd.names import Digest, RepositoryName, Tag
from regd.registry.core import Registry
from regd.storage import layout
from regd.storage.damage import Damage
from tests.maintenance.stepping import Task, finish
from tests.maintenance.worlds import Clock, Collecting, World, process, without_time
from tests.registry.case import descriptor
from tests.support import FakeBody

GRACE = 100.0

#: More steps than these collections take; where one waits for the change it takes no end of them.
MOST = 150

NAME = RepositoryName("a/b")
OTHER = RepositoryName("other")
LAYER = b"a layer"

#: A step: done by a registry, to the end.
Step = Callable[[Registry], Awaitable[Any]]


@dataclass(frozen=True)
class Scene:
    """
    :ivar before: What was done before.
    :ivar age: How long ago that was, in seconds.
    :ivar orders: What is collected.
    :ivar change: What is done meanwhile.
    :ivar holds: What has to be there when that was acknowledged, and no time has passed since.
    """

    before: tuple[Step, ...]
    age: float
    orders: Orders
    change: Step
    holds: tuple[Step, ...]


@dataclass(frozen=True)
class Play:
    """
    How far both had come when each had had its turn.

    :ivar collected: Whether the collection had ended.
    :ivar changed: Whether the change had.
    :ivar collection_waited: Whether all that the collection did in its last step was to wait.
    :ivar change_waited: The same of the change.
    :ivar acknowledged: Whether the change was acknowledged, in the end.
    """

    collected: bool
    changed: bool
    collection_waited: bool
    change_waited: bool
    acknowledged: bool


def image(*layers: bytes, **more: object) -> bytes:
    """
    :return: A manifest whose configuration is the first of the layers.
    """
    named = [descriptor(layer) for layer in layers]
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_IMAGE, "config": named[0], "layers": named[1:], **more}).encode()


def index(*children: bytes) -> bytes:
    """
    :return: An index of images.
    """
    named = [descriptor(child, OCI_IMAGE) for child in children]
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": named}).encode()


def push(content: bytes, name: RepositoryName = NAME) -> Step:
    async def step(registry: Registry) -> None:
        upload = await registry.uploads.start(name)
        await registry.uploads.finish(upload, Digest.of(content), FakeBody(content))

    return step


def fetch(content: bytes, manifest: bytes = b"") -> Step:
    """
    :return: Content of an upstream, in the other repository.
    """

    async def step(registry: Registry) -> None:
        for one in filter(None, (content, manifest)):
            await registry.blobs._driver.write((layout.cached(OTHER, Digest.of(one)), b""), durable=False)
        await push(content, OTHER)(registry)
        if manifest:
            await registry.manifests.keep(OTHER, manifest, Digest.of(manifest), Tag("t"))

    return step


def put(content: bytes, tag: str = "") -> Step:
    async def step(registry: Registry) -> None:
        await registry.manifests.put(NAME, Tag(tag) if tag else Digest.of(content), content)

    return step


def untag(tag: str) -> Step:
    async def step(registry: Registry) -> None:
        await registry.manifests.untag(NAME, Tag(tag))

    return step


def mount(content: bytes) -> Step:
    async def step(registry: Registry) -> None:
        assert await registry.mount(NAME, Digest.of(content), OTHER) is not None, "not mounted, which may be"

    return step


def ask_for(content: bytes) -> Step:
    async def step(registry: Registry) -> None:
        await registry.blobs.promise(NAME, Digest.of(content))

    return step


def ask_for_manifest(content: bytes) -> Step:
    async def step(registry: Registry) -> None:
        await registry.manifests.promise(NAME, Digest.of(content))

    return step


def has(content: bytes) -> Step:
    async def step(registry: Registry) -> None:
        opened = await registry.blobs.open(NAME, Digest.of(content))
        assert await opened.read(0, 1 << 20) == content

    return step


def has_manifest(content: bytes, tag: str = "") -> Step:
    async def step(registry: Registry) -> None:
        found = await registry.manifests.get(NAME, Tag(tag) if tag else Digest.of(content))
        assert found.content == content

    return step


def lists(subject: bytes, referrer: bytes) -> Step:
    async def step(registry: Registry) -> None:
        page = await registry.referrers.page(NAME, Digest.of(subject), 10)
        assert [entry.digest for entry in page.entries] == [Digest.of(referrer)]

    return step


OLD = 3 * GRACE
AT_ONCE = Orders(0.0)
WHAT_IS_OLD = Orders(GRACE)
UNTAGGED = Orders(GRACE, untagged=True)
#: Wherever something has a mark, and has not been wanted since, it goes.
EVICT = Orders(GRACE, garbage=False, prefixes=("",), maxsize=1)

IMAGE = image(LAYER)
INDEX = index(IMAGE)
ABOUT = image(b"about", subject=descriptor(IMAGE, OCI_IMAGE))

SCENES = {
    # What was pushed a moment ago, for a collection that takes everything.
    "put": Scene((push(LAYER),), 1, AT_ONCE, put(IMAGE), (has(LAYER), has_manifest(IMAGE))),
    "put with tag": Scene((push(LAYER),), 1, AT_ONCE, put(IMAGE, "t"), (has(LAYER), has_manifest(IMAGE, "t"))),
    "put of something old": Scene((push(LAYER),), OLD, WHAT_IS_OLD, put(IMAGE), (has(LAYER), has_manifest(IMAGE))),
    "put of what is there": Scene(
        (push(LAYER), put(IMAGE, "t"), untag("t")), OLD, UNTAGGED, put(IMAGE, "n"), (has(LAYER), has_manifest(IMAGE, "n"))
    ),
    "index": Scene(
        (push(LAYER), put(IMAGE)), OLD, UNTAGGED, put(INDEX, "t"), (has(LAYER), has_manifest(IMAGE), has_manifest(INDEX, "t"))
    ),
    "index at once": Scene(
        (push(LAYER), put(IMAGE)),
        1,
        Orders(0.0, untagged=True),
        put(INDEX, "t"),
        (has(LAYER), has_manifest(IMAGE), has_manifest(INDEX, "t")),
    ),
    "index of an index": Scene(
        (push(LAYER), put(IMAGE), put(INDEX)),
        OLD,
        UNTAGGED,
        put(index(INDEX), "t"),
        (has(LAYER), has_manifest(IMAGE), has_manifest(INDEX), has_manifest(index(INDEX), "t")),
    ),
    "referrer": Scene(
        (push(LAYER), put(IMAGE, "t"), push(b"about")), OLD, UNTAGGED, put(ABOUT), (has(b"about"), lists(IMAGE, ABOUT))
    ),
    "referrer, put again": Scene(
        (push(LAYER), put(IMAGE, "t"), push(b"about"), put(ABOUT), untag("t")),
        OLD,
        UNTAGGED,
        put(ABOUT),
        (has(b"about"), has_manifest(ABOUT), lists(IMAGE, ABOUT)),
    ),
    "mount": Scene((push(LAYER, OTHER),), OLD, WHAT_IS_OLD, mount(LAYER), (has(LAYER),)),
    "head": Scene((push(LAYER),), OLD, WHAT_IS_OLD, ask_for(LAYER), (has(LAYER),)),
    "head of a manifest": Scene(
        (push(LAYER), put(IMAGE)), OLD, UNTAGGED, ask_for_manifest(IMAGE), (has(LAYER), has_manifest(IMAGE))
    ),
    "push": Scene((), OLD, WHAT_IS_OLD, push(LAYER), (has(LAYER),)),
    "push of what is there": Scene((push(LAYER, OTHER),), OLD, WHAT_IS_OLD, push(LAYER), (has(LAYER),)),
    "push of what is linked": Scene((push(LAYER),), OLD, WHAT_IS_OLD, push(LAYER), (has(LAYER),)),
    # What another repository has from an upstream, and is to lose, however young it is.
    "mount of what is cached": Scene((fetch(LAYER),), 1, EVICT, mount(LAYER), (has(LAYER),)),
    "push of what is cached": Scene((fetch(LAYER),), 1, EVICT, push(LAYER), (has(LAYER),)),
    "put of what is cached": Scene((fetch(LAYER, IMAGE), push(LAYER)), 1, EVICT, put(IMAGE, "t"), (has(LAYER), has_manifest(IMAGE, "t"))),
}


class InterleavingsTest(SynchronousTestCase):
    def do(self, registry: Registry, *steps: Step) -> None:
        for step in steps:
            task: Task[Any] = Task(step(registry))  # type: ignore[arg-type]  # each is a coroutine
            finish(task)
            task.result()

    def play(self, scene: Scene, first: int, second: int) -> Play:
        """
        :param first: How many steps the collection has before the change begins.
        :param second: How many the change has before the collection goes on.
        :return: How far they had come then.
        """
        world, clock, damage = World(), Clock(), Damage()
        with without_time(clock):
            self.do(process(world, clock, GRACE, damage, stepping=False), *scene.before)
            world.age(scene.age)
            collecting = Collecting(world, clock, scene.orders)
            change: Task[Any] = Task(scene.change(process(world, clock, GRACE, damage)))  # type: ignore[arg-type]  # as above
            waited = [False, False]
            for number, (task, count) in enumerate(((collecting.task, first), (change, second))):
                for _ in range(count):
                    before = clock.time
                    if not task.done:
                        task.step()
                    # Only waiting takes time.
                    waited[number] = clock.time > before
            ended = [collecting.task.done, change.done]
            # To its end, but where it has to wait for the change.
            for _ in range(MOST):
                if not collecting.task.done:
                    collecting.task.step()
            while not (change.done and collecting.task.done):
                for task in (change, collecting.task):
                    if not task.done:
                        task.step()
            summary = collecting.task.result()
            self.assertTrue(summary.finished, summary)
            self.assertEqual(collecting.damage.told, [])
            acknowledged = not isinstance(change.error, RegistryError | AssertionError)
            if acknowledged:
                change.result()
                self.do(process(world, clock, GRACE, damage, stepping=False), *scene.holds)
                self.assertEqual(damage.count, 0)
        return Play(ended[0], ended[1], waited[0], waited[1], acknowledged)

    def play_all(self, name: str) -> None:
        scene = SCENES[name]
        plays = []
        first = second = 0
        while True:
            try:
                play = self.play(scene, first, second)
            except Exception as error:
                raise AssertionError(f"{name}: {first} steps of the collection, {second} of the change: {error!r}") from error
            plays.append(play)
            if play.changed or play.change_waited or play.collection_waited:
                # More steps of the change would be waiting, too; and where the collection had only waited there is nothing new.
                if play.collected:
                    break
                first, second = first + 1, 0
            else:
                second += 1
        # They have to have been in each other's way, and the change not always in vain.
        self.assertGreater(len(plays), 50, name)
        self.assertGreater(sum(play.acknowledged for play in plays), 5, name)


def _add(name: str) -> None:
    def test(self: InterleavingsTest) -> None:
        self.play_all(name)

    setattr(InterleavingsTest, "test_" + name.replace(", ", "_").replace(" ", "_"), test)


for _name in SCENES:
    _add(_name)
