"""
What a storage backend must do, and the errors that it may raise.

A backend keeps files of bytes under paths (:mod:`regd.storage.layout`). Everything is ``async``: a backend answers at once where that is
cheap (a local ``stat``) and works off the event loop where it is not, and its callers need not know which. The contract that every backend
keeps is executable: ``tests/storage/contract.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from regd.storage.layout import Path

if TYPE_CHECKING:
    from hashlib import _Hash as HashState

__all__ = [
    "Appender",
    "Busy",
    "Content",
    "Driver",
    "File",
    "Full",
    "Growing",
    "HashState",
    "Held",
    "Interrupted",
    "Lender",
    "Missing",
    "Source",
    "Stat",
    "StorageError",
]

if not TYPE_CHECKING:
    HashState = object


class Missing(Exception):
    """There is nothing at this path."""


class Busy(Exception):
    """Somebody else is appending to this file, or has locked it."""


class StorageError(Exception):
    """
    The storage failed; trying again later may help. ``str()`` says what was tried, on which path, and what the system said, for the log.
    """


class Full(StorageError):
    """There is no room left: no space, or the quota is used up."""


class Interrupted(Exception):
    """
    The rest of this content will not come. No failure of this storage: whoever was to bring it has said in the log why it does not.
    """


#: A path, and the content that it is to have.
File = tuple[Path, bytes]


@dataclass(frozen=True, slots=True)
class Stat:
    """
    ``size`` in bytes, ``modified`` in seconds since the epoch.

    :ivar version: what can be compared and nothing else: where two are equal, the file has not changed between. ``None`` when that cannot
        be told, because the file changed a moment ago: two changes within one tick of a clock look like one.
    """

    size: int
    modified: float
    version: object = None


class Content(Protocol):
    """
    Bytes opened for reading. They stay readable, and the same, until :meth:`close`, whatever happens to the path that they were found at.
    Those of a file are all there; those that are still on their way from somewhere else come one after the other.

    :ivar size: bytes in the file when it was opened; those that are still to come included.
    """

    size: int

    def fileno(self) -> int | None:
        """A descriptor that the kernel can send from, or ``None`` where there is none."""

    async def reach(self, offset: int) -> int:
        """
        Wait until there is something to be read at ``offset``. May be cancelled, by who has no use for it any more.

        :param offset: less than ``size``, and not less than what was asked for before in the same range.
        :returns: up to where there is, more than ``offset`` and at most ``size``. Of a file, that is its size, at once.
        :raises Interrupted: when it will not come.
        """

    async def read(self, offset: int, length: int) -> bytes:
        """
        Up to ``length`` bytes from ``offset``, no further than :meth:`reach` has said; empty only at the end of the file.

        :raises StorageError: when reading fails.
        :raises Interrupted: when what is there has to come from elsewhere, and does not.
        """

    def close(self) -> None:
        """Give the file back. May be called again."""


class Growing(Protocol):
    """
    A file opened for reading while somebody, in whichever process, appends to it. It stays readable until :meth:`close`, whatever happens
    to its path.
    """

    def grown(self) -> int:
        """
        How many bytes can be read now; cheap, and on the event loop. That may become fewer only where an appender's :meth:`~Appender.flush`
        has failed: then the bytes come again, the same.

        :raises StorageError: when that cannot be told.
        """

    def fileno(self) -> int | None:
        """As :meth:`Content.fileno`."""

    async def read(self, offset: int, length: int) -> bytes:
        """
        Up to ``length`` bytes from ``offset``; empty only where the file ends now.

        :raises StorageError: when reading fails.
        """

    def close(self) -> None:
        """Give the file back. May be called again."""


class Source(Protocol):
    """Bytes that a thread of the storage may take from where they arrive, instead of being handed them by the event loop."""

    def read(self, buffer: bytearray) -> Sequence[memoryview]:
        """
        Off the event loop: wait a few milliseconds at most for more bytes.

        :param buffer: where to put them.
        :returns: what came, in order, each part in ``buffer``; nothing when the source is to be given back, because no more came, or all
            had come, or the one who lent it wants it back.
        """


@runtime_checkable
class Lender(Protocol):
    """What an ``IPushProducer`` may be besides: one whose bytes can be taken by a thread while they come fast."""

    def lend(self) -> Source | None:
        """
        On the event loop: nothing is written to the consumer any more until the source is taken back.

        :returns: ``None`` where the bytes have to come by way of the event loop, now or always.
        """

    def take_back(self, source: Source) -> None:
        """On the event loop: the thread is done with it. Must be called, also when the producer has been unregistered or has failed."""


class Appender(Protocol):
    """
    The end of a file, held by one writer at a time; provides Twisted's ``IConsumer``.

    :ivar size: bytes in the file, those in flight included.
    :ivar hash: the state of the hash that is fed each byte as it is stored, or ``None`` when none was given, or when a failed write
        left it out of step with the file.
    """

    size: int
    hash: HashState | None

    def registerProducer(self, producer: Any, streaming: bool) -> None:  # noqa: N802 - IConsumer's name
        """
        Which ``IPushProducer`` is to be paused while the storage is slower than the network, and stopped when it fails. From one that is a
        :class:`Lender` the bytes may be taken directly.
        """

    def unregisterProducer(self) -> None:  # noqa: N802 - IConsumer's name
        """No more will be written by the producer."""

    def write(self, data: bytes) -> None:
        """Take ``data`` to be stored; never blocks, never raises: a failure is told by :meth:`flush`."""

    def store(self) -> None:
        """
        Have what was written so far stored soon, for those who :meth:`~Driver.follow` the file, instead of waiting until it is worth a
        thread. Not durable by that. Never blocks, never raises, and costs nothing where nothing waits.
        """

    async def flush(self) -> int:
        """
        Wait until all that was written is stored and durable.

        :returns: the size of the file in bytes.
        :raises StorageError: when any of it could not be stored; the file ends where storing stopped.
        """

    def close(self) -> None:
        """Let the next writer in. May be called again; what was not flushed may be lost."""


class Held(Protocol):
    """A lock that has been taken."""

    def close(self) -> None:
        """Let go of it. May be called again."""


class Driver(Protocol):
    """
    A backend. Every method may raise :class:`StorageError`, and :class:`Full` where it writes; :class:`Missing` where it says so.

    :ivar name: what the configuration calls it.
    :ivar shared: whether other processes see the same files.
    """

    name: str
    shared: bool

    def start(self) -> None:
        """
        Make ready; called once, before anything else.

        :raises StorageError: when the storage cannot be used, saying what to do about it.
        """

    def stop(self) -> None:
        """Give everything back; nothing is called afterwards."""

    async def check(self) -> None:
        """
        See whether files can be read and written now (for health checks).

        :raises StorageError: when they cannot.
        """

    async def stat(self, path: Path) -> Stat:
        """
        :raises Missing: when there is no file at ``path``.
        """

    async def read(self, path: Path, limit: int) -> bytes:
        """
        The first ``limit`` bytes of a file that is expected to be small.

        :raises Missing: when there is no file at ``path``.
        """

    async def open(self, path: Path) -> Content:
        """
        :raises Missing: when there is no file at ``path``.
        """

    async def follow(self, path: Path) -> Growing:
        """
        Open a file that somebody may be appending to.

        :raises Missing: when there is no file at ``path``.
        """

    async def same(self, growing: Growing, path: Path) -> bool:
        """Whether a file that was opened by :meth:`follow` of this driver is the one that is at ``path`` now."""

    async def hash(self, path: Path, algorithm: str) -> HashState:
        """
        Read a file to its end, off the event loop.

        :raises Missing: when there is no file at ``path``.
        """

    async def names(self, path: Path, after: str = "", limit: int | None = None) -> Sequence[str]:
        """
        The names in a directory, in the order of their UTF-8 bytes: what was there all the time, and nothing that was not there at all.

        :param after: only those that come after this, which need not be a name.
        :param limit: only so many; the others cost next to nothing.
        :raises Missing: when there is no directory at ``path``.
        """

    async def scan(self, path: Path) -> list[str]:
        """
        All names in a directory, in no order: for walks over everything, which would drive what others list often out of memory.

        :raises Missing: when there is no directory at ``path``.
        """

    async def stat_all(self, paths: Sequence[Path]) -> Sequence[Stat | StorageError | None]:
        """
        Look at many files at once.

        :returns: for each path what :meth:`stat` does, without a version; ``None`` where there is no file; or what went wrong there.
        :raises StorageError: when nothing can be told of any, as when the storage is not there.
        """

    async def read_all(self, paths: Sequence[Path], limit: int) -> Sequence[bytes | StorageError | None]:
        """
        Read many files that are expected to be small.

        :returns: for each path its first ``limit`` bytes; ``None`` where there is no file; or what went wrong with this one.
        :raises StorageError: as :meth:`stat_all`.
        """

    async def exists(self, path: Path) -> bool:
        """Whether there is a file or a directory at ``path``."""

    async def write(self, *files: File | list[File], durable: bool = True) -> None:
        """
        Write files whole, in the order given; readers see the old or the new. Each is visible and durable before the next is visible; those
        of one list become visible in its order and durable together. Whatever fails, what came before it is written or not, and nothing
        that comes after it is.

        :param files: each the path and its content, or a list of such.
        :param durable: ``False`` for what may be lost in a power cut; it is still never seen half.
        """

    async def create(self, *files: File) -> None:
        """
        Write files into a directory that is not there yet, and that nobody looks for before this is done. They are durable then.

        :param files: each the path and its content; all in one directory.
        """

    async def adopt(self, source: Path, path: Path, link: File, *, beside: Sequence[Path] = (), flushed: bool = False) -> None:
        """
        Move a file, and write another once the move is durable. The directory that ``source`` is in ceases to be, with all that is in it.
        The file counts as written now, as after :meth:`renew`.

        :param path: where to; what is there is replaced.
        :param link: the path and the content of the other file.
        :param beside: files that may be where ``source`` is.
        :param flushed: whether the caller knows that ``source`` is durable, as after a flush of its appender.
        :raises Missing: when there is no file at ``source``; nothing is written then.
        """

    async def move(self, source: Path, path: Path) -> None:
        """
        Have the directory that a file is in be that of another path, with all that is in it. Not durable by itself.

        :param path: where to; its last component is that of ``source``, and nothing may be in its directory.
        :raises Missing: when there is no file at ``source``.
        """

    async def secure(self, path: Path) -> None:
        """
        Make a file durable that somebody else has written, and may not have come to that.

        :raises Missing: when there is no file at ``path``.
        """

    async def append(self, path: Path, state: HashState | None = None) -> Appender:
        """
        Hold the end of a file that is there.

        :param state: a hash of all that is in the file, to be fed what is appended.
        :raises Missing: when there is no file at ``path``.
        :raises Busy: when somebody else, in whichever process, holds it.
        """

    async def delete(self, path: Path, *, durable: bool = True) -> None:
        """
        Remove a file or a directory with all that is in it.

        :param durable: ``False`` for what may come back after a power cut.
        :raises Missing: when there is nothing at ``path``.
        """

    async def renew(self, path: Path) -> None:
        """
        Have a file count as last written now, by the clock that tells when files are written. Once this has returned, whoever moves the
        file away finds the new time on it.

        :raises Missing: when there is no file at ``path``, also when it is moved away at this very moment.
        """

    async def lock(self, path: Path, *, shared: bool = False) -> Held:
        """
        Take a lock, or learn at once that others have it: in this process or in another one that sees the same files. It is let go of by
        :meth:`Held.close`, and by the death of the process.

        :param path: its name. A file may come to be there, and has to stay: who removes it cuts the lock in two.
        :param shared: take it together with others that take it so; else alone.
        :raises Busy: when others have it in a way that excludes this one.
        """

    async def stage(self, files: Sequence[Path], into: Path) -> Sequence[object]:
        """
        Make files ready to be taken away, so that :meth:`retire` has less to do. Who has no use for that does nothing.

        :param into: as it will be given to :meth:`retire`.
        :returns: for each file what to give to :meth:`retire`.
        """

    async def retire(
        self,
        files: Sequence[Path],
        into: Path,
        before: float,
        guards: Sequence[Path | None] = (),
        staged: Sequence[object] = (),
    ) -> Sequence[Path]:
        """
        Move the directory that each file is in out of the way, with all that is in it, to a name of its own in ``into``; unless the file
        was last written at ``before`` or later, or is at this very moment. Who has a file open keeps it. Not durable by itself.

        :param into: a directory, made when it is missing.
        :param before: seconds since the epoch.
        :param guards: for each file another one that keeps it in the same way, or ``None``; one that is missing keeps nothing.
        :param staged: what :meth:`stage` has said of each file; not together with ``guards``. Of one that was made ready the directory may
            stay, without the file.
        :returns: the files that were moved; not those that are missing.
        """

    async def discard(self, files: Sequence[Path], before: float) -> Sequence[Path]:
        """
        Remove files that were last written before a time, many in one call. Not durable by itself. What is in their directories stays.

        :param before: seconds since the epoch.
        :returns: the files that were removed; not those that are missing.
        """

    async def settle(self, directories: Sequence[Path]) -> None:
        """Make durable which names are in directories. One that is missing is none."""

    async def prune(self, path: Path) -> bool:
        """
        Remove a directory that holds nothing but directories like it; never a file. In one that holds more, some of those may be gone.

        :returns: whether there is nothing at ``path`` now.
        """
