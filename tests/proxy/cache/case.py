"""
What the tests of fetched blobs share: an upstream that a test plays by hand, and processes on one storage that can die.

Time is a test's to let pass. Each process has a clock of its own, so that one that has died does nothing any more.
"""

from __future__ import annotations

import inspect
import os
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IPushProducer
from twisted.internet.task import Clock, deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from regd.maintenance.gate import Gate
from regd.names import Digest, RepositoryName
from regd.proxy.cache.blobs import CachedBlobs
from regd.proxy.cache.fetch import Keeping
from regd.proxy.cache.origins import BlobOrigin, Origin
from regd.proxy.cache.uses import Uses
from regd.proxy.remote.errors import NotThere, Unreachable
from regd.proxy.remote.values import RemoteBlob
from regd.registry.core import Registry
from regd.registry.rules import ManifestRules
from regd.storage import layout
from regd.storage.damage import Damage
from regd.storage.driver import Busy, Content, Interrupted, Missing
from regd.storage.filesystem import FilesystemDriver
from regd.storage.memory import MemoryDriver
from regd.storage.threads import Inline
from regd.web.body import BodyAborted
from tests.support import FakeBody

T = TypeVar("T")

#: How far clocks go at once, in seconds.
STEP = 0.001

NAME = RepositoryName.parse("docker.io/library/alpine")
OTHER = RepositoryName.parse("docker.io/library/busybox")
LOCAL = RepositoryName.parse("mine/alpine")


class InlinePool(Inline):
    """A pool whose threads are the event loop, so that everything happens when a test lets it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def crowded(self) -> bool:
        return False

    def later(self, seconds: float, function: Callable[[], object]) -> Any:
        return self._clock.callLater(seconds, function)

    def stop(self) -> None:
        """There is nothing to stop."""


@implementer(IPushProducer)
class Body:
    """
    The body of an answer that a test feeds: in pieces, to its end or not.

    :ivar given: how much of it has been fed.
    :ivar over: whether it has ended, broken off or been closed.
    """

    length: int | None = None

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.given = 0
        self.over = False
        self.closed = False
        self.paused = False
        self.consumer: IConsumer | None = None
        self._held: deque[bytes] = deque()
        self._failure: Exception | None = None
        self._done: Deferred[None] = Deferred()

    @property
    def left(self) -> int:
        return len(self.content) - self.given

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        assert self.consumer is None, "a body can be had once"
        self.consumer = consumer
        self._deliver()
        return self._done

    def feed(self, size: int) -> None:
        """So many bytes more; when they are all, it ends."""
        assert not self.over
        self._held.append(self.content[self.given : self.given + size])
        self.given = min(self.given + size, len(self.content))
        if not self.left:
            self.over = True
        self._deliver()

    def finish(self) -> None:
        self.feed(self.left)

    def fail(self) -> None:
        """It breaks off."""
        assert not self.over
        self.over = True
        self._failure = BodyAborted("the upstream went away")
        self._deliver()

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            if not self.over or self._held:
                self.over = True
                self._held.clear()
                self._failure = self._failure or BodyAborted("closed")
                self._deliver()

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        self.paused = False
        self._deliver()

    def stopProducing(self) -> None:
        if not self._done.called:
            self.over = True
            self._held.clear()
            self._done.errback(Failure(BodyAborted("its consumer gave up")))

    def _deliver(self) -> None:
        if self.consumer is None:
            return
        while self._held and not self.paused and not self._done.called:
            self.consumer.write(self._held.popleft())
        if self.over and not self._held and not self._done.called:
            if self._failure is not None:
                self._done.errback(self._failure)
            else:
                self._done.callback(None)


@dataclass
class Request:
    """
    What the upstream was asked for.

    :ivar answer: to be fired by the test where answers are held back.
    """

    method: str
    name: str
    digest: Digest
    start: int = 0
    end: int | None = None


#: Makes an answer of what is asked for: the content, and the first byte and the byte after the last one that are wanted.
Answering = Callable[[bytes, int, int | None], tuple[int, int | None, bytes]]


def in_part(content: bytes, start: int, end: int | None) -> tuple[int, int | None, bytes]:
    """206, or 200 for all of it."""
    return start, len(content), content[start:end]


def whole(content: bytes, start: int, end: int | None) -> tuple[int, int | None, bytes]:
    """200 whatever was asked for."""
    return 0, len(content), content


def chunked(content: bytes, start: int, end: int | None) -> tuple[int, int | None, bytes]:
    """200, without a length."""
    return 0, None, content


class FakeRemote:
    """
    A remote registry.

    :ivar blobs: what it has, by digest: what is right, or something else.
    :ivar asked: all requests, in order.
    :ivar bodies: those that have not been closed.
    :ivar errors: raised by the next requests, one each; ``None`` for an answer.
    :ivar answering: how it answers a GET.
    :ivar held: where not ``None``, answers wait for :meth:`release`.
    """

    def __init__(self) -> None:
        self.blobs: dict[Digest, bytes] = {}
        self.asked: list[Request] = []
        self.all: list[Body] = []
        self.errors: deque[Exception | None] = deque()
        self.answering: Answering = in_part
        self.held: list[Deferred[None]] | None = None
        self.resting = 0.0
        self.says_size = True

    @property
    def bodies(self) -> list[Body]:
        return [body for body in self.all if not body.closed]

    @property
    def body(self) -> Body:
        """The only one that is open."""
        (body,) = self.bodies
        return body

    @property
    def gets(self) -> list[Request]:
        return [request for request in self.asked if request.method == "GET"]

    @property
    def heads(self) -> list[Request]:
        return [request for request in self.asked if request.method == "HEAD"]

    def release(self) -> None:
        held, self.held = self.held, None
        for one in held or ():
            one.callback(None)

    async def blob_size(self, name: str, digest: Digest) -> int | None:
        content = await self._ask(Request("HEAD", name, digest))
        return len(content) if self.says_size else None

    async def blob(self, name: str, digest: Digest, start: int = 0, end: int | None = None) -> RemoteBlob:
        content = await self._ask(Request("GET", name, digest, start, end))
        begin, size, part = self.answering(content, start, end)
        body = Body(part)
        self.all.append(body)
        if not part:
            body.over = True
        anything: Any = body
        return RemoteBlob(begin, size, anything, body.close, lambda: "it went away")

    async def _ask(self, request: Request) -> bytes:
        self.asked.append(request)
        if self.held is not None:
            waiting: Deferred[None] = Deferred()
            self.held.append(waiting)
            await waiting
        error = self.errors.popleft() if self.errors else None
        if error is not None:
            raise error
        if request.digest not in self.blobs:
            raise NotThere("no such blob")
        return self.blobs[request.digest]


class Mortal:
    """What a process uses of the world. When it is dead, nothing that it has asked for is answered."""

    def __init__(self, used: Any, process: Life) -> None:
        self._used = used
        self._process = process

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._used, name)
        if not inspect.iscoroutinefunction(found):
            return found

        async def asked(*args: Any, **kwargs: Any) -> Any:
            await self._process.goes_on()
            result = await found(*args, **kwargs)
            if hasattr(result, "close"):
                self._process.has_open(result)
            await self._process.goes_on()
            return result

        return asked


class Life:
    """Whether a process lives, and what it has open, which the kernel closes when it dies."""

    def __init__(self) -> None:
        self.over = False
        self._open: list[Any] = []

    async def goes_on(self) -> None:
        if self.over:
            await Deferred()

    def has_open(self, thing: Any) -> None:
        self._open.append(thing)
        if self.over:
            self.end()

    def end(self) -> None:
        self.over = True
        for thing in self._open:
            thing.close()
            if hasattr(thing, "_sink"):
                # The end of a file. What the dead do after their death is not to meet others, whose descriptors may have the same numbers.
                thing.write = lambda data: None
                thing._sink.write = thing._sink.sync = lambda *args: None
        self._open.clear()


@dataclass
class Process:
    """A worker, as far as blobs go."""

    life: Life
    clock: Clock
    driver: Any
    registry: Registry
    blobs: CachedBlobs
    keeping: Keeping
    dead: bool = False


@dataclass
class Client:
    """
    One who reads a blob.

    :ivar got: what it has.
    :ivar answered: whether its answer has begun.
    :ivar cut: whether it has been cut off.
    :ivar refused: what it was told instead of the blob.
    """

    process: Process
    digest: Digest
    start: int = 0
    end: int | None = None
    got: bytearray = field(default_factory=bytearray)
    size: int | None = None
    cut: bool = False
    refused: Exception | None = None
    content: Content | None = None
    #: How much it may read; ``None`` for all there is.
    allowance: int | None = None
    left: bool = False
    running: Deferred[None] | None = None

    @property
    def done(self) -> bool:
        return self.running is not None and self.running.called and not self.running.paused


class FetchCase(SynchronousTestCase):
    """
    :ivar remote: the upstream.
    """

    on_disk = True

    def setUp(self) -> None:
        self.remote = FakeRemote()
        self.second = FakeRemote()
        self.processes: list[Process] = []
        self.clients: list[Client] = []
        self.now = 1_700_000_000.0
        self.memory = MemoryDriver(lambda: self.now)
        if self.on_disk:
            self.root = tempfile.mkdtemp(prefix="regd-test-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
            self.addCleanup(shutil.rmtree, self.root, ignore_errors=True)
        self.addCleanup(self.stop_all)
        self.process = self.start()

    def stop_all(self) -> None:
        for process in self.processes:
            if not process.dead:
                self.end(process)

    def start(self) -> Process:
        """Another process on the same storage."""
        clock = Clock()
        life = Life()
        driver: Any = Mortal(self.memory, life)
        if self.on_disk:
            driver = Mortal(FilesystemDriver(self.root, InlinePool(clock)), life)
            driver.start()

        def sleep(seconds: float = 0) -> Deferred[None]:
            return deferLater(clock, seconds)

        gate = Gate(driver, sleep, now=clock.seconds)
        registry = Registry(driver, Damage(), ManifestRules(), lambda: self.now, sleep, gate, 3600.0)
        keeping = Keeping(driver, registry.blobs, Uses(driver, lambda: self.now), clock)
        remotes = Mortal(self.remote, life), Mortal(self.second, life)
        process = Process(life, clock, driver, registry, CachedBlobs(keeping, lambda name: self.origin(name, *remotes)), keeping)
        self.processes.append(process)
        return process

    def origin(self, name: RepositoryName, first: Any, second: Any) -> BlobOrigin | None:
        if name.startswith("docker.io/"):
            return Origin(first, name.removeprefix("docker.io/"), "https://registry.example")
        if name.startswith("quay.io/"):
            return Origin(second, name.removeprefix("quay.io/"), "https://second.example")
        return None

    def end(self, process: Process) -> None:
        """As at the end of a daemon."""
        process.blobs.stop()
        if self.remote.held:
            self.remote.release()
        self.result(process.blobs.finish())
        self._disconnect(process)
        if self.on_disk:
            process.driver.stop()
        process.dead = True

    def kill(self, process: Process) -> None:
        """As by kill -9: nothing is said any more, and the kernel closes what was open."""
        process.dead = True
        process.life.end()
        self._disconnect(process)

    def _disconnect(self, process: Process) -> None:
        for client in self.clients:
            if client.process is process and client.content is not None:
                client.content.close()

    def pass_time(self, seconds: float = 0.05, step: float = STEP) -> None:
        """Let all that live have their turns."""
        for _ in range(max(1, round(seconds / step))):
            self.now += step
            for process in self.processes:
                if not process.dead:
                    process.clock.advance(step)

    def result(self, work: Coroutine[Any, Any, T] | Deferred[T]) -> T:
        """Let time pass until it is done."""
        waiting = work if isinstance(work, Deferred) else Deferred.fromCoroutine(work)
        outcome: list[Any] = []
        waiting.addBoth(outcome.append)
        for _ in range(200):
            if outcome:
                break
            self.pass_time(0.05)
        self.assertTrue(outcome, "it does not come to an end")
        if isinstance(outcome[0], Failure):
            outcome[0].raiseException()
        result: T = outcome[0]
        return result

    # The upstream

    def feed(self, size: int) -> None:
        """Let so many bytes more come from the upstream, and everybody have a turn."""
        self.remote.body.feed(size)
        self.pass_time()

    def finish(self) -> None:
        """Let the rest come from the upstream, and everybody have a turn."""
        self.remote.body.finish()
        self.pass_time()

    # Clients

    def get(
        self,
        digest: Digest,
        process: Process | None = None,
        name: RepositoryName = NAME,
        start: int = 0,
        end: int | None = None,
        allowance: int | None = None,
    ) -> Client:
        """
        A client that asks for a blob, or, with ``end``, for a part of it.

        :param allowance: how much it reads before it waits.
        """
        client = Client(process or self.process, digest, start, end, allowance=allowance)
        self.clients.append(client)
        client.running = Deferred.fromCoroutine(self._get(client, name))
        return client

    async def _get(self, client: Client, name: RepositoryName) -> None:
        blobs = client.process.blobs
        try:
            if client.end is None:
                blob, content = await blobs.fetch(name, client.digest)
                client.size = blob.size
                if isinstance(content, bytes):
                    client.got += content
                    return
                client.end = blob.size
            else:
                content = await blobs.open(name, client.digest, client.start, client.end)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what the client is told
            client.refused = error
            return
        client.content = content
        try:
            await self._read(client, content)
        except Interrupted:
            client.cut = True
        finally:
            content.close()

    async def _read(self, client: Client, content: Content) -> None:
        offset = client.start
        assert client.end is not None
        while offset < client.end:
            while client.allowance is not None and len(client.got) >= client.allowance and not client.left:
                await deferLater(client.process.clock, STEP)
            if client.left:
                return
            reached = min(await content.reach(offset), client.end)
            assert reached > offset
            descriptor = content.fileno()
            if client.allowance is not None:
                reached = min(reached, offset + max(1, client.allowance - len(client.got)))
            if descriptor is not None:
                data = os.pread(descriptor, reached - offset, offset)
            else:
                data = await content.read(offset, reached - offset)
            if not data:
                client.cut = True
                return
            client.got += data
            offset += len(data)

    def leave(self, client: Client) -> None:
        """As a client does whose connection is closed."""
        client.left = True
        if client.running is not None and not client.running.called:
            client.running.addErrback(lambda failure: None)
            client.running.cancel()

    def assert_got(self, client: Client, content: bytes) -> None:
        if client.refused is not None:
            raise client.refused
        self.assertFalse(client.cut)
        self.assertTrue(client.done)
        self.assertEqual(len(client.got), len(content))
        self.assertEqual(bytes(client.got), content)

    def assert_fetched(self, digest: Digest, content: bytes) -> None:
        """A client that asks for it now gets it, when the rest has come from the upstream."""
        client = self.get(digest)
        self.finish()
        self.assert_got(client, content)

    # The storage

    def stored(self, digest: Digest, process: Process | None = None) -> bytes | None:
        driver = (process or self.process).driver
        try:
            return bytes(self.result(driver.read(layout.blob_data(digest), 1 << 30)))
        except Missing:
            return None

    def fetched(self, digest: Digest) -> bytes | None:
        """What is there of a blob that is being fetched."""
        try:
            return bytes(self.result(self.process.driver.read(layout.fetching(digest), 1 << 30)))
        except Missing:
            return None

    def linked(self, name: RepositoryName, digest: Digest) -> bool:
        return self.result(self.process.registry.blobs.find(name, digest)) is not None

    def marked(self, name: RepositoryName, digest: Digest) -> bool:
        return bool(self.result(self.process.driver.exists(layout.cached(name, digest))))

    def push(self, name: RepositoryName, content: bytes, process: Process | None = None) -> Digest:
        """As a client does that pushes it to a local repository."""
        uploads = (process or self.process).registry.uploads

        async def pushing() -> Digest:
            return await uploads.finish(await uploads.start(name), Digest.of(content), FakeBody(content))

        return self.result(pushing())

    def is_held(self, digest: Digest) -> bool:
        """Whether somebody holds the end of what is being fetched."""

        async def try_it() -> bool:
            try:
                (await self.process.driver.append(layout.fetching(digest))).close()
            except Busy:
                return True
            except Missing:
                return False
            return False

        return self.result(try_it())

    def offer(self, size: int = 100_000, remote: FakeRemote | None = None, algorithm: str = "sha256") -> tuple[Digest, bytes]:
        """A blob that the upstream has."""
        content = os.urandom(size)
        digest = Digest.of(content, algorithm)
        (remote or self.remote).blobs[digest] = content
        return digest, content

    def assert_nothing_kept(self, digest: Digest) -> None:
        """Neither the blob nor a part of it is here, and nothing is left open."""
        self.assertIsNone(self.stored(digest))
        self.assertIsNone(self.fetched(digest))
        self.assert_nothing_open()

    def assert_nothing_open(self) -> None:
        """After all clients have gone: no connection, no timer, no lock is left."""
        self.assertEqual(self.remote.bodies, [])
        self.assertEqual(self.second.bodies, [])
        for process in self.processes:
            if not process.dead:
                self.assertEqual(process.blobs._fetches, {})
                self.assertEqual(process.blobs._running, set())
        if self.on_disk:
            mine = f"{self.root}/"
            self.assertEqual([path for path in _open_files() if path.startswith(mine) and path.endswith("/data")], [])


def _open_files() -> list[str]:
    """What this process has open."""
    found = []
    for descriptor in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            found.append(os.readlink(f"/proc/self/fd/{descriptor}"))
    return found


__all__ = [
    "LOCAL",
    "NAME",
    "OTHER",
    "Body",
    "Client",
    "FakeRemote",
    "FetchCase",
    "Process",
    "Unreachable",
    "chunked",
    "in_part",
    "whole",
]
