"""
Where a blob lies while it is fetched, and whose it is to fetch it.

What has come is in ``regd/fetching/<alg>/<hex>/data``. Whoever holds the end of that file fetches; the kernel lets go of it when a
process dies. All others, in this process and in others, read the file as it grows (:mod:`regd.proxy.cache.growth`). There is nobody to be
asked and nothing to be told: what a process has to know of another one's fetch it sees in the storage::

    the blob is at its place              it has come, and its digest is right
    the file can be held                  who fetched has died, or has given up: go on where the file ends
    the file is held                      somebody fetches; follow it
    the file is not there                 nobody does: make it

The file is made, and taken away when it is wrong, by who has the digest's turn, a lock that is held for no longer than that takes. Beside
it stands how long the blob is going to be and for which repository it is fetched, as soon as the upstream has answered, and no earlier.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple

from regd.errors import Unavailable
from regd.names import Digest, RepositoryName
from regd.proxy.cache.growth import Growth
from regd.registry.blobs import Blobs
from regd.storage import layout
from regd.storage.driver import Appender, Busy, Driver, Growing, HashState, Missing

__all__ = ["WHOLE", "Announced", "Place", "Whole"]

#: How long to wait for a digest's turn, in seconds, and how often to look. Who has it needs milliseconds.
_TURN_LOOK: Final = 0.002
_TURN_PATIENCE: Final = 30.0

#: What a process reads at once of a file that it has to hash by itself, in bytes.
_BLOCK: Final = 256 * 1024

#: What is read of an announcement, in bytes, and how long a size may be, in digits.
_LIMIT: Final = 1024
_MOST_DIGITS: Final = 18


class Whole:
    """The blob is in the storage."""


WHOLE: Final = Whole()


class Announced(NamedTuple):
    """
    :ivar size: bytes that the blob is going to have.
    :ivar name: the repository that it is fetched for.
    """

    size: int
    name: str


class Place:
    """
    The place of one blob.

    :param clock: ``Any``: a reactor is typed as the union of what reactors may be.
    :param pause: waits for so many seconds; what it raises ends what waits.
    """

    def __init__(self, driver: Driver, blobs: Blobs, digest: Digest, clock: Any, pause: Callable[[float], Awaitable[None]]) -> None:
        self.path = layout.fetching(digest)
        self.beside = layout.fetch_size(digest)
        self._driver = driver
        self._blobs = blobs
        self._digest = digest
        self._clock = clock
        self._pause = pause

    async def take(self) -> Appender | Whole | None:
        """
        Become the one who fetches, unless there is one, or no need.

        :returns: the end of the file; ``None`` when somebody else has it; :data:`WHOLE` when the blob is in the storage.
        :raises Unavailable: when somebody else has the turn for very much longer than that takes.
        """
        async with self._turn():
            try:
                appender = await self._driver.append(self.path)
            except Busy:
                return None
            except Missing:
                if await self.stored():
                    return WHOLE
                await self._driver.write((self.path, b""), durable=False)
                appender = await self._driver.append(self.path)
            try:
                # Only now: until a moment ago somebody else may have had it, and made it the blob.
                if not await self.stored():
                    return appender
                await self._remove()
            except BaseException:
                appender.close()
                raise
            appender.close()
            return WHOLE

    async def throw_away(self) -> None:
        """For who holds the end of the file: what has come is wrong, or nothing has."""
        async with self._turn():
            await self._remove()

    async def stored(self) -> bool:
        """Whether the blob is in the storage."""
        return await self._blobs.stored(self._digest) is not None

    async def announce(self, size: int, name: RepositoryName) -> None:
        """For who holds the end of the file: say what is going to come."""
        await self._driver.write((self.beside, f"{size}\n{name}".encode("ascii")), durable=False)

    async def announced(self) -> Announced | None:
        """What the one who fetches has said; ``None`` as long as that is nothing."""
        try:
            content = await self._driver.read(self.beside, _LIMIT)
        except Missing:
            return None
        digits, _, name = content.decode("ascii", "replace").partition("\n")
        if not digits.isascii() or not digits.isdigit() or len(digits) > _MOST_DIGITS:
            # Edited by somebody: who follows waits for the end, then.
            return None
        return Announced(int(digits), name)

    async def take_back(self) -> None:
        """What is announced speaks for an upstream that has answered, and of those who will fetch it now none has."""
        await self._delete(self.beside)

    async def hash(self) -> HashState:
        """Of all that is in the file, for who holds its end."""
        return await self._driver.hash(self.path, self._digest.algorithm)

    async def follow(self, size: int) -> Growth | None:
        """
        :returns: ``None`` when the file is not there any more.
        """
        try:
            growing = await self._driver.follow(self.path)
        except Missing:
            return None
        growth = Growth(growing, size, self._clock)
        growth.look()
        return growth

    async def is_here(self, growth: Growth) -> bool:
        """Whether a file that is followed is still the one that is being fetched."""
        return await self._driver.same(growth.growing, self.path)

    async def became_blob(self, growth: Growth) -> bool:
        """
        Whether a file that is followed is the blob now, or as good: somebody may have pushed the blob meanwhile. Then it is read, because
        all that is known of the file is that it is not the blob's.
        """
        if await self._driver.same(growth.growing, layout.blob_data(self._digest)):
            return True
        return growth.look() == growth.size and await _digest(growth.growing, growth.size, self._digest.algorithm) == self._digest

    async def _remove(self) -> None:
        """With the turn, and the end of the file."""
        await self._delete(layout.fetch(self._digest))

    async def _delete(self, path: layout.Path) -> None:
        try:
            await self._driver.delete(path, durable=False)
        except Missing:
            return

    def _turn(self) -> _Turn:
        return _Turn(self._driver, layout.fetch_turn(self._digest), self._clock, self._pause)


class _Turn:
    """For an ``async with`` block that makes or removes the file of a fetch; short."""

    def __init__(self, driver: Driver, path: layout.Path, clock: Any, pause: Callable[[float], Awaitable[None]]) -> None:
        self._driver = driver
        self._path = path
        self._clock = clock
        self._pause = pause
        self._close: Callable[[], None] = lambda: None

    async def __aenter__(self) -> None:
        until = self._clock.seconds() + _TURN_PATIENCE
        while True:
            try:
                self._close = (await self._driver.lock(self._path)).close
            except Busy:
                if self._clock.seconds() >= until:
                    raise Unavailable(f"another process has been at it for {_TURN_PATIENCE:g} s, try again") from None
                await self._pause(_TURN_LOOK)
            else:
                return

    async def __aexit__(self, *error: object) -> None:
        self._close()


async def _digest(growing: Growing, size: int, algorithm: str) -> Digest:
    """Of a file that is at no path any more."""
    state = hashlib.new(algorithm)
    offset = 0
    while offset < size and (block := await growing.read(offset, min(_BLOCK, size - offset))):
        state.update(block)
        offset += len(block)
    return Digest.from_hash(state)
