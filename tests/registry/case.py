"""
What the tests of the registry's rules share: one suite runs over the storage in memory and over files, so a suite is no test case itself.

For example::

    class ThingsSuite(RegistrySuite):
        async def test_something(self) -> None: ...

    class ThingsInMemoryTest(ThingsSuite, OnMemory): ...
    class ThingsInFilesTest(ThingsSuite, OnFilesystem): ...
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from regd.maintenance.gate import Gate
from regd.manifest import DOCKER_IMAGE, OCI_IMAGE, OCI_INDEX
from regd.names import Digest, Reference, RepositoryName, Tag, parse_reference
from regd.pace import Sleep
from regd.registry.core import Registry
from regd.registry.rules import ManifestRules
from regd.storage.damage import Damage
from regd.storage.driver import Driver
from regd.storage.filesystem import FilesystemDriver
from regd.storage.layout import Path
from regd.storage.memory import MemoryDriver
from regd.storage.threads import PoolThreads
from tests.support import CountingDriver, FakeBody, no_sleep

if TYPE_CHECKING:
    Base = TestCase
else:
    Base = object

__all__ = [
    "CONFIG",
    "GRACE",
    "LAYER",
    "OnFilesystem",
    "OnMemory",
    "RegistrySuite",
    "descriptor",
    "image_manifest",
    "index_manifest",
    "name",
]

CONFIG = b'{"architecture":"amd64","os":"linux"}'
LAYER = b"a layer"

#: When it is, for tests.
NOW = 1_700_000_000.5

#: For how long what is written counts as fresh, in seconds.
GRACE = 3600.0


def name(text: str) -> RepositoryName:
    return RepositoryName.parse(text)


def descriptor(content: bytes, media_type: str = "application/octet-stream", **more: object) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": Digest.of(content), "size": len(content), **more}


def image_manifest(*layers: bytes, config: bytes = CONFIG, media_type: str = OCI_IMAGE, **more: object) -> bytes:
    """An image of layers with this content."""
    docker = "application/vnd.docker.container.image.v1+json"
    config_type = docker if media_type == DOCKER_IMAGE else "application/vnd.oci.image.config.v1+json"
    layer_type = "application/vnd.oci.image.layer.v1.tar+gzip"
    document = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": descriptor(config, config_type),
        "layers": [descriptor(layer, layer_type) for layer in layers],
        **more,
    }
    return json.dumps(document).encode()


def index_manifest(*children: bytes, media_type: str = OCI_INDEX, child_type: str = OCI_IMAGE, **more: object) -> bytes:
    """An index of manifests with this content."""
    document = {"schemaVersion": 2, "mediaType": media_type, "manifests": [descriptor(child, child_type) for child in children], **more}
    return json.dumps(document).encode()


class OnMemory(TestCase):
    """Gives a suite its storage."""

    on_disk = False

    def make_driver(self) -> Driver:
        return MemoryDriver()


class OnFilesystem(TestCase):
    """Gives a suite its storage."""

    on_disk = True

    def make_driver(self) -> Driver:
        self.root = tempfile.mkdtemp(prefix="regd-test-")
        self.addCleanup(shutil.rmtree, self.root, ignore_errors=True)
        # Any: mypy knows the reactor as a module.
        loop: Any = reactor
        driver = FilesystemDriver(self.root, PoolThreads(loop, 4))
        self.addCleanup(driver.stop)
        driver.start()
        return driver


class RegistrySuite(Base):
    """
    :ivar driver: writes down what the registry asks of the storage.
    :ivar registry: over that storage.
    """

    if TYPE_CHECKING:
        on_disk: bool
        root: str

        def make_driver(self) -> Driver: ...

    def setUp(self) -> None:
        self.damage = Damage()
        # Any: it answers for whatever the driver has.
        self.driver: Any = CountingDriver(self.make_driver())
        self.now = NOW
        self.registry = self.restarted()

    def restarted(self, sleep: Sleep = no_sleep, gate: Gate | None = None, grace: float | None = GRACE, **rules: Any) -> Registry:
        """A registry over the same storage that remembers nothing, as after a restart, or in another process."""
        gate = gate or Gate(self.driver, sleep)
        return Registry(self.driver, self.damage, ManifestRules(**rules), lambda: self.now, sleep, gate, grace)

    async def push(self, repository: str, content: bytes, algorithm: str = "sha256") -> Digest:
        """Make ``content`` a blob of a repository."""
        uploads = self.registry.uploads
        upload = await uploads.start(name(repository), algorithm)
        return await uploads.finish(upload, Digest.of(content, algorithm), FakeBody(content))

    async def push_image(self, repository: str, reference: str, *layers: bytes, **more: Any) -> Digest:
        """Make an image with all that it needs."""
        for blob in (CONFIG, *layers):
            await self.push(repository, blob)
        return await self.put(repository, reference, image_manifest(*layers, **more))

    async def put(self, repository: str, reference: str | None, content: bytes, content_type: str = "", tags: Iterable[str] = ()) -> Digest:
        """
        :param reference: ``None`` for the content's digest.
        """
        wanted: Reference = Digest.of(content) if reference is None else parse_reference(reference)
        given = tuple(Tag.parse(tag) for tag in tags)
        digest, _ = await self.registry.manifests.put(name(repository), wanted, content, content_type, given)
        return digest

    async def blob(self, repository: str, digest: Digest) -> bytes:
        content = await self.registry.blobs.open(name(repository), digest)
        try:
            return await content.read(0, content.size)
        finally:
            content.close()

    async def read(self, path: Path) -> bytes:
        return bytes(await self.driver.read(path, 1 << 30))

    async def move(self, source: Path, path: Path) -> None:
        """Put a file where another program would have put it."""
        await self.driver.write((path, await self.read(source)))
        await self.driver.delete(source)

    async def until(self, condition: Callable[[], Any]) -> None:
        """Wait for what happens after a request is answered."""
        for _ in range(500):
            if await condition():
                return
            await deferLater(reactor, 0.01)
        self.fail("it did not happen")

    async def refused(self, kind: type[Exception], work: Any) -> Any:
        """
        :return: the error of that very kind that a coroutine raises.
        """
        try:
            result = await work
        except kind as error:
            self.assertIs(type(error), kind)
            return error
        return self.fail(f"{kind.__name__} not raised, but {result!r} returned")
