"""A client of remote registries, on real sockets, and registries whose answers a test writes."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer
from twisted.internet.task import deferLater
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from regd.config import Timeouts
from regd.config.caching import CacheUpstream
from regd.config.proxying import parse_upstream
from regd.names import Digest
from regd.proxy.remote import Remote, RemoteBlob, RemoteError
from tests.e2e.proxying import Exchange, Upstream

__all__ = ["DIGEST", "MANIFEST", "NAME", "RemoteCase", "answers", "by_path", "reply"]

NAME = "library/alpine"
MANIFEST = b'{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []}'
DIGEST = Digest.of(MANIFEST)
TYPE = "application/vnd.oci.image.index.v1+json"

T = TypeVar("T")


def reply(exchange: Exchange, content: bytes = b"", status: str = "200 OK", *fields: str) -> bool:
    """Answer one request, also one with HEAD."""
    exchange.read_body()
    head = "".join(f"{field}\r\n" for field in (f"HTTP/1.1 {status}", f"Content-Length: {len(content)}", *fields))
    exchange.send(head.encode("latin-1") + b"\r\n" + (b"" if exchange.line.startswith("HEAD ") else content))
    return True


def answers(content: bytes = b"", status: str = "200 OK", *fields: str) -> Callable[[Exchange], bool]:
    """
    :return: What answers every request so.
    """
    return lambda exchange: reply(exchange, content, status, *fields)


def by_path(**found: Callable[[Exchange], bool]) -> Callable[[Exchange], bool]:
    """
    :return: What answers by the first of these words that is in the path; 404 else.
    """

    def answer(exchange: Exchange) -> bool:
        path = exchange.line.split()[1]
        return next((one for word, one in found.items() if word in path), answers(b"", "404 Not Found"))(exchange)

    return answer


@implementer(IConsumer)
class Sink:
    """Keeps what it gets."""

    def __init__(self) -> None:
        self.content = bytearray()

    def registerProducer(self, producer: object, streaming: bool) -> None:
        """It is never behind."""

    def unregisterProducer(self) -> None:
        """See :meth:`registerProducer`."""

    def write(self, data: bytes) -> None:
        self.content += data


class RemoteCase(TestCase):
    """
    At the end of each test no connection may have a request, and every one that is left waits for one; and no canary may have been logged.

    :ivar canaries: What may stand in no log.
    """

    def setUp(self) -> None:
        self.logged: list[str] = []
        self.canaries: list[str] = ["s3cret", "t0ken", "s1gnature"]
        self.remotes: list[Remote] = []
        observer: Any = self._log
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def _log(self, event: LogEvent) -> None:
        self.logged.append(formatEvent(event) + str(event.get("log_failure", "")) + repr(event))

    def tearDown(self) -> Deferred[None]:  # type: ignore[override] # trial waits for it
        return Deferred.fromCoroutine(self._end())

    async def _end(self) -> None:
        for remote in self.remotes:
            await self.until(partial(is_quiet, remote), "no connection to be left")
            remote.abort()
            await self.until(partial(is_gone, remote), "all connections to be cut")
        for line in self.logged:
            for canary in self.canaries:
                self.assertNotIn(canary, line)

    async def until(self, condition: Callable[[], bool], what: str, seconds: float = 8) -> None:
        """Wait for something, with the event loop running."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                self.fail(f"waited for {what}")
            await self.sleep(0.01)

    async def sleep(self, seconds: float) -> None:
        await deferLater(reactor, seconds, lambda: None)

    def upstream(self, answer: Callable[[Exchange], bool] | None = None, **more: Any) -> Upstream:
        """A server that answers so."""
        made = Upstream(answer or answers(), **more)
        self.addCleanup(made.close)
        return made

    def remote(self, url: str, *, connect: float = 2, read: float = 5, **more: Any) -> Remote:
        """
        A client of one.

        :param more: What else a :class:`CacheUpstream` has.
        """
        timeouts = Timeouts(connect=connect, read=read, write=5)
        made = Remote(CacheUpstream("", parse_upstream(url), timeouts=timeouts, **more), reactor)
        self.remotes.append(made)
        return made

    async def refused(self, kind: type[RemoteError], work: Coroutine[Any, Any, object], *words: str) -> Any:
        """
        :return: The error that this raises, which has these words in it, and no canary.
        """
        try:
            found = await work
        except RemoteError as error:
            self.assertIs(type(error), kind, error)
            for word in words:
                self.assertIn(word, str(error))
            for canary in self.canaries:
                self.assertNotIn(canary, f"{error} {error!r}")
            return error
        return self.fail(f"it answered {found!r}")

    async def content(self, blob: RemoteBlob) -> bytes:
        """All of a blob."""
        sink = Sink()
        try:
            await blob.body.startProducing(sink)
        finally:
            blob.close()
        return bytes(sink.content)

    async def both(self, *work: Coroutine[Deferred[Any], Any, T]) -> list[T]:
        """Side by side."""
        running = [Deferred.fromCoroutine(one) for one in work]
        return [await one for one in running]


def is_quiet(remote: Remote) -> bool:
    """Whether nothing is under way."""
    found = remote.variables()
    return not found["requests"] and found["connections"] == found["idle"]


def is_gone(remote: Remote) -> bool:
    """Whether nothing is left."""
    return not remote.variables()["connections"]
