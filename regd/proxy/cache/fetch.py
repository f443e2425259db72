"""How a process comes by a blob that is not here: by fetching it, or by following another process that does."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass, field
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from regd.errors import BlobUnknown, RegistryError, Unavailable, Unknown
from regd.names import Digest, RepositoryName
from regd.proxy.cache.download import Download, Pauses, Stopped
from regd.proxy.cache.growth import LOOK, Followed, Growth
from regd.proxy.cache.origins import BlobOrigin
from regd.proxy.cache.place import Place, Whole
from regd.proxy.cache.refusals import refusal
from regd.proxy.cache.uses import Uses
from regd.proxy.remote.errors import RemoteError, Wrong
from regd.registry.blobs import Blobs
from regd.storage.driver import Appender, Content, Driver, Full, HashState, Interrupted, Missing, StorageError

__all__ = ["SMALL", "Fetch", "Keeping", "Tally", "stopping"]

#: Up to so many bytes a blob is not followed: who waits for it gets it when it is whole, or a clear answer why not.
SMALL: Final = 32 * 1024

#: How often one who follows another process looks for the end, in seconds, at most: when all bytes are there, or none.
_LOOK_AT_MOST: Final = 0.05

#: When a file that another process fetches has not grown for so long, in seconds, it may be that nobody holds it any more.
_ABANDONED: Final = 0.25

#: How often a blob that is whole is committed again, a second later, when the gate is closed for longer than a change waits there
#: (:mod:`regd.maintenance.gate`).
_COMMITS: Final = 12


class _Gone(Exception):
    """What was followed has been thrown away, by who fetched it: it was wrong."""


@dataclass(slots=True)
class Tally:
    """
    What became of fetches, in this process.

    :ivar fetched: blobs that were fetched, and kept.
    :ivar followed: blobs that another process fetched, or somebody pushed, while this one waited.
    :ivar resumed: how often one was begun where an earlier one had come to.
    :ivar failed: how many came to nothing.
    :ivar received: bytes that were stored.
    :ivar hits: blobs that were here when they were asked for.
    :ivar misses: those that were not.
    """

    fetched: int = 0
    followed: int = 0
    resumed: int = 0
    failed: int = 0
    received: int = 0
    hits: int = 0
    misses: int = 0


@dataclass(frozen=True, slots=True)
class Keeping:
    """
    Where fetched blobs go.

    :ivar clock: ``Any``: a reactor is typed as the union of what reactors may be.
    """

    driver: Driver
    blobs: Blobs
    uses: Uses
    clock: Any
    tally: Tally = field(default_factory=Tally)


class Fetch:
    """
    One blob on its way into the storage, as this process sees it.

    :param name: the repository that it is wanted for, and where that comes from.
    :ivar names: the repositories whose upstreams are known to have it, the one that it is fetched for included: each of them is to hold it.
    :ivar closing: set when no new requests come: then it ends as soon as nobody here waits for it or reads it.
    """

    _log = Logger()

    def __init__(self, keeping: Keeping, digest: Digest, name: RepositoryName, origin: BlobOrigin) -> None:
        self.digest = digest
        self.name = name
        self.names = {name}
        self.closing = False
        self.growth: Growth | None = None
        self._keeping = keeping
        self._origin = origin
        self._pauses = Pauses(keeping.clock)
        self._place = Place(keeping.driver, keeping.blobs, digest, keeping.clock, self._pauses.pause)
        self._download: Download | None = None
        #: Whether the upstream of this repository is known to have the blob.
        self._confirmed = False
        self._whole = False
        self._refused: RegistryError | StorageError | None = None
        self._waiting: list[Deferred[None]] = []

    # For those who want it

    async def content(self) -> Content | None:
        """
        Wait until there is something to read, or something to say. May be cancelled.

        :returns: for the caller to close; ``None`` when the blob is in the storage, and this repository holds it.
        :raises RegistryError: when it does not come.
        :raises StorageError: when it cannot be stored.
        """
        while True:
            if self._whole:
                return None
            if self._refused is not None:
                # Each who is told gets one of their own: an exception gathers where it has been.
                raise copy.copy(self._refused)
            if self.growth is None:
                news: Deferred[None] = Deferred(self._leave)
                self._waiting.append(news)
                await news
            elif (followed := await self._first_byte(self.growth)) is not None:
                return followed

    async def _first_byte(self, growth: Growth) -> Followed | None:
        """
        Wait until the first byte is there: as long as none is, a client can be told what went wrong.

        :returns: ``None`` when it will not come this way.
        """
        followed = Followed(growth)
        try:
            await followed.reach(0)
        except Interrupted as error:
            followed.close()
            if self.growth is growth and self._refused is None:
                raise StorageError(f"what has come of {self.digest} cannot be followed: {error}") from None
            return None
        except BaseException:
            followed.close()
            raise
        return followed

    @property
    def over(self) -> bool:
        """Whether it has come to something."""
        return self._whole or self._refused is not None

    @property
    def wanted(self) -> bool:
        """Whether anybody here waits for it, or reads it."""
        return bool(self._waiting) or (self.growth is not None and self.growth.readers > 0)

    def has(self, offset: int) -> bool:
        """Whether what is at ``offset`` has come."""
        return self.growth is not None and self.growth.visible > offset

    def stop(self) -> None:
        """
        End it. What has come stays, for whoever asks next. Where the upstream has been asked and has not answered, it ends when that has
        come to something.
        """
        self._pauses.stop()
        if self._download is not None:
            self._download.stop()

    async def run(self) -> None:
        """Have the blob come. Never fails: those who wait are told."""
        try:
            await self._come()
            if self.growth is not None:
                self.growth.complete()
            await self._link_others()
            self._whole = True
        except Stopped:
            self._refused = stopping()
        except _Gone:
            # The one who fetched has said why, in the log.
            self._refused = refusal(Wrong(""), self._origin.url, BlobUnknown())
        except RemoteError as error:
            self._refused = refusal(error, self._origin.url, BlobUnknown(detail={"digest": self.digest}))
            self._say(error, self._refused)
        except (RegistryError, StorageError) as error:
            self._refused = error
            self._say(error, error)
        except Exception:  # noqa: BLE001 - a fault of regd's own must not leave clients waiting
            self._log.failure("fetching {digest} failed", digest=self.digest)
            self._refused = Unknown()
        if self.growth is not None:
            # If it is not complete.
            self.growth.fail(f"{self.digest} could not be fetched")
        self._tell()

    def _say(self, why: object, refused: Exception) -> None:
        if isinstance(refused, BlobUnknown):
            return
        self._keeping.tally.failed += 1
        self._log.warn(
            "{digest} of {name} could not be fetched from {upstream}: {why}",
            digest=self.digest,
            name=self.name,
            upstream=self._origin.url,
            why=why,
        )

    def _tell(self) -> None:
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            if not one.called:
                one.callback(None)

    def _leave(self, waiting: Deferred[None]) -> None:
        if waiting in self._waiting:
            self._waiting.remove(waiting)

    def _needed(self) -> bool:
        return self.wanted or not self.closing

    # What is to be done

    async def _come(self) -> None:
        while True:
            self._pauses.go_on()
            taken = await self._place.take()
            if isinstance(taken, Whole):
                await self._prove()
                self._keeping.tally.followed += 1
                return
            if taken is None:
                await self._watch()
            elif await self._hold(taken):
                self._keeping.tally.fetched += 1
                return

    async def _prove(self) -> None:
        """
        The blob has come, by way of somebody else: see to it that what was read here is the same.

        :raises _Gone: when it is not.
        """
        growth = self.growth
        if growth is None:
            return
        if not growth.readers:
            self._let_go(growth)
        elif not await self._place.became_blob(growth):
            raise _Gone

    async def _watch(self) -> None:
        """Follow the process that fetches, until it is time to see whether it still does."""
        clock, pause = self._pauses.clock, LOOK
        until = clock.seconds() + _ABANDONED
        while clock.seconds() < until:
            await self._pauses.pause(pause)
            pause = min(pause * 1.25, _LOOK_AT_MOST)
            if not self.wanted:
                raise Stopped
            if self.growth is not None:
                if self.growth.look() >= self.growth.size:
                    # It is about to be committed, or has been.
                    return
                if self.growth.silent < _ABANDONED:
                    until = clock.seconds() + _ABANDONED
            elif await self._place.stored():
                return
            else:
                await self._open_announced()

    async def _open_announced(self) -> None:
        """Begin to read, as soon as the one who fetches knows how much it will be."""
        announced = await self._place.announced()
        if announced is None:
            return
        if not self._confirmed and announced.name not in self.names:
            # A repository is not given what its upstream does not have, or does not give.
            await self._origin.remote.blob_size(self._origin.name, self.digest)
        self._confirmed = True
        await self._open(announced.size)

    async def _open(self, size: int) -> None:
        """Let those who wait read what has come, and what will."""
        if size > SMALL and self.growth is None:
            self.growth = await self._place.follow(size)
            self._tell()

    def _let_go(self, growth: Growth) -> None:
        """What is followed is of no use, and nobody reads it."""
        growth.fail(f"{self.digest} is fetched anew")
        self.growth = None

    async def _hold(self, appender: Appender) -> bool:
        """
        With the end of the file, which is closed afterwards.

        :returns: whether it has come; if not, what was there was wrong and is gone, and nobody has read of it.
        """
        try:
            growth = self.growth
            if growth is not None and not await self._place.is_here(growth):
                if growth.readers:
                    raise _Gone
                self._let_go(growth)
            return await self._fetch(appender)
        except (RemoteError, Stopped):
            if not appender.size:
                # Clients may ask for any number of blobs that no upstream has.
                await self._place.throw_away()
            raise
        except Full:
            # What there is room for is of no use to anybody, and others need it.
            await self._place.throw_away()
            raise
        finally:
            appender.close()

    async def _fetch(self, appender: Appender) -> bool:
        """As :meth:`_hold`."""
        begun = appender.size
        appender.hash = await self._begun(begun) if begun else hashlib.new(self.digest.algorithm)
        if begun and _digest(appender) == self.digest:
            # It was cut off when it had all of it, and had not said so.
            if not self._confirmed:
                await self._origin.remote.blob_size(self._origin.name, self.digest)
            await self._commit(appender, flushed=False)
            return True
        size = None if self.growth is None else self.growth.size
        download = self._download = Download(self._origin, self.digest, appender, size, self._pauses, self._answered, self._needed)
        try:
            await download.run()
            if _digest(appender) != self.digest:
                raise Wrong(f"what {self._origin.url} sent as {self.digest}, {appender.size} bytes, has another digest; it is thrown away")
        except Wrong as error:
            await self._place.throw_away()
            if begun and (self.growth is None or not self.growth.readers):
                # What an earlier fetch has left may have been wrong: after a power cut, say.
                self._log.warn("what had come of {digest} did not fit, and is fetched anew: {why}", digest=self.digest, why=error)
                if self.growth is not None:
                    self._let_go(self.growth)
                return False
            raise
        finally:
            self._download = None
            self._keeping.tally.received += max(0, appender.size - begun)
        await self._commit(appender, flushed=True)
        return True

    async def _begun(self, size: int) -> HashState:
        """
        :returns: the hash of what an earlier fetch has left.
        """
        self._keeping.tally.resumed += 1
        self._log.info("{digest} of {name}: going on after {size} bytes", digest=self.digest, name=self.name, size=size)
        if self.growth is None:
            await self._place.take_back()
        return await self._place.hash()

    async def _answered(self, size: int | None) -> None:
        """The upstream has begun to answer: it has the blob, and lets us have it."""
        self._confirmed = True
        if size is not None and self.growth is None:
            await self._place.announce(size, self.name)
            await self._open(size)

    async def _commit(self, appender: Appender, *, flushed: bool) -> None:
        """Make the file, whose digest is right, the blob."""
        keeping, place = self._keeping, self._place
        await keeping.uses.mark(self.name, self.digest)
        for tries_left in reversed(range(_COMMITS)):
            try:
                taken = await keeping.blobs.commit(
                    self.name, place.path, self.digest, appender.size, beside=(place.beside,), flushed=flushed
                )
            except Unavailable:
                if not tries_left:
                    raise
                await self._pauses.pause(1.0)
            except Missing:
                raise StorageError(f"{place.path} was taken away while it was fetched") from None
            else:
                break
        if not taken:
            await place.throw_away()

    async def _link_others(self) -> None:
        """Have all repositories hold it that were found to have it upstream, before they are told that it is here."""
        blobs, uses = self._keeping.blobs, self._keeping.uses
        try:
            for name in sorted(self.names):
                if await blobs.find(name, self.digest) is None:
                    await uses.mark(name, self.digest)
                    await blobs.link(name, self.digest)
        except (RegistryError, StorageError) as error:
            # The next request for it finds that out, and the reason.
            self._log.warn("{digest} is here, but not in all repositories that it is to be in: {error}", digest=self.digest, error=error)


def _digest(appender: Appender) -> Digest | None:
    """Of all that is in the file."""
    return None if appender.hash is None else Digest.from_hash(appender.hash)


def stopping() -> Unavailable:
    """What a client is told when a fetch is ended in its midst."""
    return Unavailable("this registry is about to stop, try again", headers={"Retry-After": "1"})
