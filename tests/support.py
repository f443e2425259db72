"""What the tests of several rooms share: bodies that arrive as a test says, a driver that counts, and ways to wait."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IConsumer, IPushProducer
from zope.interface import implementer

from regd.storage.driver import Driver

__all__ = ["Broken", "CountingDriver", "FakeBody", "HeldBody", "no_sleep", "together"]

T = TypeVar("T")


class Broken(Exception):
    """A body that broke off, as when a client goes away."""


@implementer(IPushProducer)
class FakeBody:
    """
    A body that is there at once, handed over in chunks; provides :class:`regd.registry.uploads.Body`.

    :param chunks: the bytes, or chunks of them.
    :param failure: raised after the last chunk, instead of ending.
    """

    def __init__(self, chunks: bytes | Iterable[bytes], failure: Exception | None = None) -> None:
        self._chunks = [chunks] if isinstance(chunks, bytes) else list(chunks)
        self._failure = failure
        self.started = False
        self.stopped = False

    @property
    def length(self) -> int | None:
        return sum(map(len, self._chunks))

    async def startProducing(self, consumer: IConsumer) -> None:
        assert not self.started, "a body can be had once"
        self.started = True
        for chunk in self._chunks:
            if self.stopped:
                raise Broken
            consumer.write(chunk)
        if self._failure is not None:
            raise self._failure

    def pauseProducing(self) -> None:
        """What is there at once cannot be held back."""

    def resumeProducing(self) -> None:
        """See :meth:`pauseProducing`."""

    def stopProducing(self) -> None:
        self.stopped = True


@implementer(IPushProducer)
class HeldBody:
    """
    A body that a test feeds and ends by hand.

    :ivar consumer: who asked for it, once somebody has.
    """

    length: int | None = None

    def __init__(self) -> None:
        self.consumer: IConsumer | None = None
        self._done: Deferred[None] = Deferred()

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        self.consumer = consumer
        return self._done

    def feed(self, data: bytes) -> None:
        assert self.consumer is not None
        self.consumer.write(data)

    def end(self) -> None:
        self._done.callback(None)

    def fail(self) -> None:
        self._done.errback(Broken())

    def pauseProducing(self) -> None:
        """A test feeds what it likes."""

    def resumeProducing(self) -> None:
        """See :meth:`pauseProducing`."""

    def stopProducing(self) -> None:
        self._done.errback(Broken())


class CountingDriver:
    """
    A driver that writes down what is asked of it.

    :ivar calls: the name of each method that was called, and the path, or the paths that were to be written, in order; those that were to
        be written together in a list.
    """

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self.calls: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._driver, name)
        if not callable(found):
            return found

        def counted(*args: Any, **kwargs: Any) -> Any:
            self.calls.append((name, *(_path_of(arg) for arg in args)))
            return found(*args, **kwargs)

        return counted

    def asked(self, name: str) -> list[tuple[Any, ...]]:
        """
        :return: the calls of one method, without its name.
        """
        return [call[1:] for call in self.calls if call[0] == name]


def _path_of(argument: Any) -> Any:
    if isinstance(argument, list):
        return [_path_of(one) for one in argument]
    return argument[0] if isinstance(argument, tuple) else argument


async def no_sleep(seconds: float = 0) -> None:
    """For tests that need no turns of the event loop, and wait for nothing."""


async def together(*work: Coroutine[Deferred[Any], Any, T] | Awaitable[T], errors: tuple[type[Exception], ...] = ()) -> list[T | Exception]:
    """
    Let several coroutines run side by side.

    :param errors: what they may raise; it stands among the results.
    """

    async def guarded(one: Awaitable[T]) -> T | Exception:
        try:
            return await one
        except errors as error:
            return error

    return await gatherResults([Deferred.fromCoroutine(guarded(one)) for one in work], consumeErrors=True)


def sorted_names(names: Iterable[str], key: Callable[[str], bytes] = str.encode) -> list[str]:
    """Names in the order that listings have: that of their bytes."""
    return sorted(names, key=key)
