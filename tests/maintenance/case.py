"""
What tests of collections share: a registry, in memory and on disk, whose files can be made old, a witness that writes down what it is told,
and a driver that does something at a chosen moment.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any

from regd.maintenance.collector import Collector, Orders, Summary
from regd.maintenance.gate import Gate
from regd.manifest import parse
from regd.names import Digest, Tag, parse_reference
from regd.storage import layout
from regd.storage.driver import Missing
from regd.storage.layout import Path
from tests.registry.case import RegistrySuite, name
from tests.support import no_sleep

__all__ = ["GRACE", "Acting", "CollectionSuite", "Notes"]

#: What is registry:2's, and ours beside it.
TREE = Path("docker")

#: The grace period of collections in tests, in seconds.
GRACE = 3600.0


class Notes:
    """A :class:`~regd.maintenance.collector.Witness` that writes down what it is told."""

    def __init__(self) -> None:
        self.repositories: list[str] = []
        self.manifests: list[tuple[str, Digest]] = []
        self.blobs: list[tuple[str, Digest]] = []
        self.eligible_manifests: list[tuple[str, Digest]] = []
        self.eligible_blobs: list[tuple[Digest, int]] = []
        self.stages: dict[str, list[tuple[int, int | None]]] = defaultdict(list)

    def repository(self, name: str) -> None:
        self.repositories.append(name)

    def manifest(self, name: str, digest: Digest) -> None:
        self.manifests.append((name, digest))

    def blob(self, name: str, digest: Digest) -> None:
        self.blobs.append((name, digest))

    def eligible_manifest(self, name: str, digest: Digest) -> None:
        self.eligible_manifests.append((name, digest))

    def eligible_blob(self, digest: Digest, size: int) -> None:
        self.eligible_blobs.append((digest, size))

    def progress(self, stage: str, done: int, total: int | None) -> None:
        self.stages[stage].append((done, total))


class Acting:
    """
    A driver that does something before, or after, a chosen call.

    :param act: given the name of each method that is called, and its arguments, before the call; with ``after`` after it.
    """

    def __init__(self, driver: Any, act: Callable[[str, tuple[Any, ...]], Awaitable[object]], *, after: bool = False) -> None:
        self._driver = driver
        self._act = act
        self._after = after

    def __getattr__(self, method: str) -> Any:
        found = getattr(self._driver, method)
        if not callable(found):
            return found

        async def acting(*args: Any, **kwargs: Any) -> Any:
            if not self._after:
                await self._act(method, args)
            try:
                return await found(*args, **kwargs)
            finally:
                if self._after:
                    await self._act(method, args)

        return acting


class CollectionSuite(RegistrySuite):
    """
    :ivar notes: of the last collection.
    :ivar collector: of the last collection.
    """

    def setUp(self) -> None:
        super().setUp()
        # Its files are as old as they are, so it has to know how late it is.
        self.now = time.time()
        self.registry = self.restarted(grace=GRACE)

    def collector_of(self, driver: Any = None, sleep: Any = no_sleep, **orders: Any) -> Collector:
        self.notes = Notes()
        driver = driver or self.driver
        orders = {"grace": GRACE, **orders}
        self.gate = Gate(driver, sleep)
        self.collector = Collector(driver, self.gate, self.damage, Orders(**orders), self.notes, sleep, time.time)
        return self.collector

    async def collect(self, driver: Any = None, **orders: Any) -> Summary:
        """A collection that has to come to its end."""
        summary = await self.collector_of(driver, **orders).run()
        self.assertEqual((summary.error, summary.finished), ("", True))
        if not summary.dryrun:
            self.assertFalse(await self.driver.exists(layout.collecting()))
            self.assertEqual(await self.files(layout.trash()), [])
        return summary

    async def files(self, below: Path = TREE) -> list[Path]:
        """All files, in order."""
        found = []
        try:
            names = await self.driver.scan(below)
        except Missing:
            return []
        for entry in sorted(names):
            path = Path(f"{below}/{entry}")
            found += [path] if await self.is_file(path) else await self.files(path)
        return found

    async def is_file(self, path: Path) -> bool:
        try:
            await self.driver.stat(path)
        except Missing:
            return False
        return True

    async def age(self, *paths: Path, seconds: float = 2 * GRACE) -> None:
        """Make files, or all of them, so much older than they can be and stay."""
        then = time.time() - seconds
        for path in paths or await self.files():
            if self.on_disk:
                os.utime(f"{self.root}/{path}", (then, then))
            else:
                self.driver._driver._find(path).modified = then

    async def there(self, digest: Digest) -> bool:
        """Whether the bytes of a blob are in the storage."""
        return bool(await self.driver.exists(layout.blob_data(digest)))

    async def linked(self, repository: str, digest: Digest) -> bool:
        return bool(await self.driver.exists(layout.layer_link(name(repository), digest)))

    async def held(self, repository: str, digest: Digest) -> bool:
        return bool(await self.driver.exists(layout.revision_link(name(repository), digest)))

    async def put_file(self, path: str, content: bytes = b"") -> Path:
        """Write a file as another program would have; old."""
        await self.driver.write((Path(path), content))
        await self.age(Path(path))
        return Path(path)

    async def untag(self, repository: str, tag: str) -> None:
        await self.registry.manifests.untag(name(repository), Tag(tag))

    async def drop(self, repository: str, digest: Digest) -> None:
        await self.registry.manifests.delete(name(repository), digest)

    async def pull(self, repository: str, reference: str) -> None:
        """See that a manifest can be had, and all that it names, to the byte."""
        stored = await self.registry.manifests.get(name(repository), parse_reference(reference))
        self.assertEqual(Digest.of(stored.content, stored.digest.algorithm), stored.digest)
        manifest = parse(stored.content)
        for blob in manifest.blobs:
            content = await self.blob(repository, blob.digest)
            self.assertEqual(Digest.of(content, blob.digest.algorithm), blob.digest)
        for child in manifest.manifests:
            await self.pull(repository, child.digest)
