"""
Uploads: a blob on its way in, over any number of requests, processes and restarts.

Everything that an upload is lies in the storage. A process remembers one thing more, the running hash of the uploads that it has appended
to, because a hash cannot be stored; it counts only while the file is exactly as long as what it has hashed. After each append the digest so
far is stored with its offset, so that the closing request, which usually adds nothing, need not read the file again in whichever process it
arrives. Where neither is at hand, as when two processes took turns or little was appended, the file is read once, by the request that
closes the upload.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer
from twisted.logger import Logger
from zope.interface import implementer

from regd.errors import BlobUploadUnknown, DigestInvalid, RangeInvalid, Unavailable
from regd.moments import rfc3339
from regd.names import ALGORITHMS, CANONICAL, Digest, RepositoryName
from regd.pace import Sleep
from regd.registry.blobs import Blobs
from regd.spans import Part
from regd.storage import layout, startedat
from regd.storage.damage import Damage
from regd.storage.driver import Appender, Busy, Driver, HashState, Missing, Stat, StorageError
from regd.storage.layout import UploadId

__all__ = ["Body", "Upload", "UploadRangeInvalid", "Uploads"]

T = TypeVar("T")

#: Of how many uploads a process remembers the hash, and the time; some 500 bytes each.
_REMEMBERED: Final = 4096

#: After so many bytes at least their digest is stored. Reading fewer again costs less than writing a file does.
_WORTH_NOTING: Final = 1024 * 1024

#: After how many seconds a request looks again whether another one has let go of an upload, and how often. A client whose connection broke
#: comes back at once, when the end of what it had sent may still be on its way to the disk.
_LOOK: Final = 0.02
_TRIES: Final = 250


class Body(Protocol):
    """
    Bytes that arrive: Twisted's ``IBodyProducer``, which is also the ``IPushProducer`` of what it feeds.

    :ivar length: how many will come, or ``None`` where nobody has said.
    """

    @property
    def length(self) -> int | None: ...  # noqa: D102 - an attribute, documented above

    def startProducing(self, consumer: Any) -> Awaitable[None]:  # noqa: N802 - IBodyProducer's name
        """Feed ``consumer``, an ``IConsumer``, all bytes; fails when they stop coming before the end."""

    def pauseProducing(self) -> None:  # noqa: N802 - IPushProducer's name
        """Feed nothing until resumed."""

    def resumeProducing(self) -> None:  # noqa: N802 - IPushProducer's name
        """Go on."""

    def stopProducing(self) -> None:  # noqa: N802 - IPushProducer's name
        """Feed nothing any more."""


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload as it stands: ``size`` is in bytes, ``started`` in UTC."""

    name: RepositoryName
    id: UploadId
    size: int
    started: datetime

    @property
    def started_at(self) -> str:
        """When it began, as ``registry:2`` writes it (RFC 3339, section 5.6)."""
        return rfc3339(self.started.timestamp())


class UploadRangeInvalid(RangeInvalid):
    """A chunk that does not begin where the upload ends, or that somebody else is appending; ``upload`` says where it stands."""

    def __init__(self, message: str, upload: Upload) -> None:
        super().__init__(message)
        self.upload = upload


class Uploads:
    """
    The uploads of all repositories.

    :param now: seconds since the epoch.
    :param sleep: waits for so many seconds.
    """

    _log = Logger()

    def __init__(self, driver: Driver, blobs: Blobs, damage: Damage, now: Callable[[], float], sleep: Sleep) -> None:
        self._driver = driver
        self._blobs = blobs
        self._damage = damage
        self._now = now
        self._sleep = sleep
        self._hashes: OrderedDict[UploadId, tuple[int, HashState]] = OrderedDict()
        #: When uploads began, which never changes.
        self._times: OrderedDict[UploadId, datetime] = OrderedDict()

    async def start(self, name: RepositoryName, algorithm: str = CANONICAL) -> Upload:
        """
        Begin an upload.

        :param algorithm: of the digest that it is likely to be closed with.
        :raises DigestInvalid: when the algorithm is not supported.
        """
        if algorithm not in ALGORITHMS:
            raise DigestInvalid(f"digest algorithm {algorithm[:32]!r} is not supported, only {' and '.join(ALGORITHMS)}")
        upload = UploadId.new()
        started = datetime.fromtimestamp(int(self._now()), UTC)
        begun = Upload(name, upload, 0, started)
        await self._driver.create(
            (layout.upload_started(name, upload), begun.started_at.encode()),
            (layout.upload_data(name, upload), b""),
        )
        _keep(self._hashes, upload, (0, hashlib.new(algorithm)))
        _keep(self._times, upload, started)
        return begun

    async def find(self, name: RepositoryName, upload: str) -> Upload:
        """
        :param upload: the upload's name, as the client gave it.
        :raises BlobUploadUnknown: when there is no such upload.
        """
        try:
            parsed = UploadId.parse(upload)
            found = await self._driver.stat(layout.upload_data(name, parsed))
        except (ValueError, Missing):
            raise BlobUploadUnknown(detail={"uuid": upload[:64]}) from None
        return Upload(name, parsed, found.size, await self._started(name, parsed, found))

    async def append(self, upload: Upload, body: Body, *, offset: int | None = None) -> Upload:
        """
        Append ``body``. When it breaks off, what had arrived stays, and the client may go on from there.

        :param offset: where the client says that ``body`` begins, if it says so.
        :returns: the upload as it stands when everything is durable.
        :raises UploadRangeInvalid: when that is not where the upload ends, or somebody else is appending to it.
        :raises BlobUploadUnknown: when the upload is gone.
        """
        appender = await self._hold(upload)
        try:
            _begins(upload, appender, offset)
            self._recall(upload, appender)
            return await self._receive(upload, appender, body)
        finally:
            appender.close()

    async def finish(self, upload: Upload, digest: Digest, body: Body | None, *, offset: int | None = None) -> Digest:
        """
        Append ``body``, if there is one, and make the upload the blob ``digest`` of its repository.

        :returns: the digest that the blob is stored under.
        :raises DigestInvalid: when the content has another digest; the upload is gone then.
        :raises UploadRangeInvalid: as :meth:`append`.
        :raises BlobUploadUnknown: when the upload is gone.
        :raises Unavailable: when the gate stays closed. All that has arrived is kept, and the same call, with the same body or without,
            finishes the upload later.
        """
        appender = await self._hold(upload)
        try:
            repeated = (body is not None or offset is not None) and await self._complete(upload, appender, digest)
            if repeated and body is not None:
                # All of it has arrived before, and the client was told to come again.
                await body.startProducing(_Nowhere())
                body = None
            elif not repeated:
                _begins(upload, appender, offset)
            # What this process remembers the hash of, it has flushed; of what another one appended, it cannot know.
            flushed = self._recall(upload, appender) or body is not None
            if body is not None:
                if appender.size == 0 and appender.hash is not None and appender.hash.name != digest.algorithm:
                    appender.hash = hashlib.new(digest.algorithm)
                upload = await self._receive(upload, appender, body)
            found = await self._digest(upload, appender, digest.algorithm)
            if found != digest and appender.hash is None:
                # A stored digest may be damaged; nothing is refused on its word alone.
                found = Digest.from_hash(await self._driver.hash(layout.upload_data(upload.name, upload.id), digest.algorithm))
            if found != digest:
                await self.cancel(upload)
                raise DigestInvalid(
                    f"provided digest did not match uploaded content: the {appender.size} bytes received have {found}",
                    detail={"digest": digest, "received": found},
                )
            source = layout.upload_data(upload.name, upload.id)
            beside = (layout.upload_started(upload.name, upload.id),)
            try:
                taken = await self._blobs.commit(upload.name, source, digest, appender.size, beside=beside, flushed=flushed)
            except Unavailable:
                # So that nobody has to read it again who is asked for the same.
                await self._store(upload, digest.algorithm, appender.size, digest.hex)
                raise
        except Missing:
            raise BlobUploadUnknown(detail={"uuid": upload.id}) from None
        finally:
            appender.close()
        if taken:
            self._forget(upload)
        else:
            # Nobody needs to wait for the tidying up; it never fails.
            Deferred.fromCoroutine(self.discard(upload))
        return digest

    async def cancel(self, upload: Upload) -> None:
        """
        Drop an upload and what has arrived of it.

        :raises BlobUploadUnknown: when it is gone already.
        """
        self._forget(upload)
        try:
            await self._driver.delete(layout.upload(upload.name, upload.id), durable=False)
        except Missing:
            raise BlobUploadUnknown(detail={"uuid": upload.id}) from None

    async def discard(self, upload: Upload) -> None:
        """Drop an upload that nobody will ask for any more. Never fails: what cannot be removed now is left to the purge."""
        try:
            await self.cancel(upload)
        except BlobUploadUnknown:
            pass
        except StorageError as error:
            self._log.warn("the directory of upload {upload} is left behind: {error}", upload=upload.id, error=error)

    def _forget(self, upload: Upload) -> None:
        self._hashes.pop(upload.id, None)
        self._times.pop(upload.id, None)

    async def _hold(self, upload: Upload) -> Appender:
        """Become the one who appends to an upload, after whoever is about to finish."""
        try:
            return await self._wait_for(upload)
        except Missing:
            raise BlobUploadUnknown(detail={"uuid": upload.id}) from None
        except Busy:
            raise UploadRangeInvalid("another request is writing to this upload", await self.find(upload.name, upload.id)) from None

    def _recall(self, upload: Upload, appender: Appender) -> bool:
        """
        Give an appender the running hash of what is there, as far as it is known.

        :returns: whether this process remembered it.
        """
        # Out of the memory until the file is as long again as what has been hashed.
        known = self._hashes.pop(upload.id, None)
        if known is not None and known[0] == appender.size:
            appender.hash = known[1]
            return True
        if appender.size == 0:
            appender.hash = hashlib.new(CANONICAL)
        return False

    async def _complete(self, upload: Upload, appender: Appender, digest: Digest) -> bool:
        """Whether what has arrived is known to have the digest that it is to have."""
        if appender.size == 0:
            return False
        known = self._hashes.get(upload.id)
        if known is not None and known[0] == appender.size and known[1].name == digest.algorithm:
            return Digest.from_hash(known[1]) == digest
        return await self._noted(upload, appender, digest.algorithm) == digest

    async def _wait_for(self, upload: Upload) -> Appender:
        path = layout.upload_data(upload.name, upload.id)
        try:
            return await self._driver.append(path)
        except Busy:
            pass
        for _ in range(_TRIES):
            await self._sleep(_LOOK)
            try:
                appender = await self._driver.append(path)
            except Busy:
                continue
            if appender.size == upload.size:
                return appender
            # What was added meanwhile is not what this client knew of, whether it says where its own part begins or not.
            appender.close()
            break
        raise Busy(path)

    async def _receive(self, upload: Upload, appender: Appender, body: Body) -> Upload:
        before = appender.size
        appender.registerProducer(body, True)
        try:
            await body.startProducing(appender)
        finally:
            appender.unregisterProducer()
            # Also when the body broke off: what arrived is kept. An error of the storage is then what the client hears.
            with Part("upload.flush"):
                size = await appender.flush()
                await self._note(upload, appender, before)
        if not await self._driver.exists(layout.upload_data(upload.name, upload.id)):
            # Cancelled meanwhile: the bytes went to a file that no longer has a name.
            raise BlobUploadUnknown(detail={"uuid": upload.id})
        return Upload(upload.name, upload.id, size, upload.started)

    async def _note(self, upload: Upload, appender: Appender, before: int) -> None:
        """Remember the running hash, and store the digest so far for whichever process closes the upload."""
        if appender.hash is None:
            return
        _keep(self._hashes, upload.id, (appender.size, appender.hash))
        if appender.size - before >= _WORTH_NOTING:
            await self._store(upload, appender.hash.name, appender.size, appender.hash.hexdigest())

    async def _store(self, upload: Upload, algorithm: str, size: int, found: str) -> None:
        """Store the digest of the first ``size`` bytes. It only saves work, so that it cannot be stored is no failure."""
        if not await self._driver.exists(layout.upload_data(upload.name, upload.id)):
            return
        # It is checked for its form when it is read, so it need not be durable.
        try:
            await self._driver.write((layout.upload_digest(upload.name, upload.id, algorithm, size), found.encode()), durable=False)
        except StorageError as error:
            self._log.warn("upload {upload} has to be read again when it is closed: {error}", upload=upload.id, error=error)

    async def _digest(self, upload: Upload, appender: Appender, algorithm: str) -> Digest:
        """The digest of all that has arrived, by the cheapest way there is."""
        if appender.hash is not None and appender.hash.name == algorithm:
            return Digest.from_hash(appender.hash)
        noted = await self._noted(upload, appender, algorithm)
        if noted is not None:
            return noted
        with Part("upload.hash"):
            return Digest.from_hash(await self._driver.hash(layout.upload_data(upload.name, upload.id), algorithm))

    async def _noted(self, upload: Upload, appender: Appender, algorithm: str) -> Digest | None:
        """The digest of all that has arrived, if it has been stored."""
        path = layout.upload_digest(upload.name, upload.id, algorithm, appender.size)
        try:
            stored = await self._driver.read(path, ALGORITHMS[algorithm] + 1)
            return Digest.parse(f"{algorithm}:{stored.decode('ascii', 'replace')}")
        except Missing:
            return None
        except DigestInvalid:
            self._damage.report(path, "not a digest; the upload is read again")
            return None

    async def _started(self, name: RepositoryName, upload: UploadId, data: Stat) -> datetime:
        known = self._times.get(upload)
        if known is None:
            known = await self._read_time(name, upload, data)
            _keep(self._times, upload, known)
        return known

    async def _read_time(self, name: RepositoryName, upload: UploadId, data: Stat) -> datetime:
        path = layout.upload_started(name, upload)
        try:
            return startedat.parse_time(await self._driver.read(path, startedat.LIMIT))
        except Missing:
            pass
        except ValueError:
            self._damage.report(path, "not a time; that of the last write is taken")
        return datetime.fromtimestamp(int(data.modified), UTC)


@implementer(IConsumer)
class _Nowhere:
    """Where bytes go that are there already."""

    def registerProducer(self, producer: object, streaming: bool) -> None:  # noqa: N802 - IConsumer's name
        """It is never full."""

    def unregisterProducer(self) -> None:  # noqa: N802 - IConsumer's name
        """See :meth:`registerProducer`."""

    def write(self, data: bytes) -> None:
        """Forget them."""


def _begins(upload: Upload, appender: Appender, offset: int | None) -> None:
    """
    :param offset: where a chunk begins, if the client says so.
    :raises UploadRangeInvalid: when that is not where the upload ends.
    """
    if offset is not None and offset != appender.size:
        here = Upload(upload.name, upload.id, appender.size, upload.started)
        raise UploadRangeInvalid(f"the chunk begins at {offset}, but the upload ends at {appender.size}", here)


def _keep(known: OrderedDict[UploadId, T], upload: UploadId, value: T) -> None:
    """Remember something of an upload, and forget the one that has not been heard of for longest."""
    known[upload] = value
    known.move_to_end(upload)
    if len(known) > _REMEMBERED:
        known.popitem(last=False)
