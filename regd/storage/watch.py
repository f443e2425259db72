"""
What the kernel tells of changes to directories: inotify(7), by whichever process on this machine they are made.

The kernel queues an event before the change's system call returns. Who reads the queue therefore knows of every change that anybody has
been told of, and of the order of the changes to one name.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["Change", "Watch", "looks_are_true"]

# From <sys/inotify.h>.
_MOVED_FROM: Final = 0x40
_MOVED_TO: Final = 0x80
_CREATE: Final = 0x100
_DELETE: Final = 0x200
_DELETE_SELF: Final = 0x400
_MOVE_SELF: Final = 0x800
_OVERFLOW: Final = 0x4000
_ONLY_DIRECTORIES: Final = 0x0100_0000
_MUST_BE_NEW: Final = 0x1000_0000

_WANTED: Final = (
    _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE | _DELETE_SELF | _MOVE_SELF | _ONLY_DIRECTORIES
    # Two paths may lead to one directory; the kernel would give both the same number.
    | _MUST_BE_NEW
)  # fmt: skip

#: One event: the number of the watch, what happened, a cookie, and the length of the name that follows.
_EVENT: Final = struct.Struct("=iIII")

#: How much of the queue is read at once, in bytes: a hundred events or more, which take a millisecond or two to act on.
_AT_ONCE: Final = 4096

#: The longest event; a read that leaves less room than this may have left events in the queue.
_LONGEST: Final = _EVENT.size + 256

#: The file systems of this machine, of whose changes the kernel knows all; numbers from <linux/magic.h>, and ZFS's own. Elsewhere, as on
#: NFS, others may make changes that it is not told of.
_LOCAL: Final = frozenset(
    {
        0x0000_EF53,  # ext2, ext3, ext4
        0x5846_5342,  # XFS
        0x9123_683E,  # Btrfs
        0x0102_1994,  # tmpfs
        0x8584_58F6,  # ramfs
        0x2FC1_2FC1,  # ZFS
        0xF2F5_2010,  # F2FS
        0xCA45_1A4E,  # bcachefs
    }
)

#: One that others cannot change either, but that tells of less.
_OVERLAY: Final = 0x794C_7630


def looks_are_true(path: str) -> bool:
    """
    Whether ``stat`` on the file system of ``path`` says how a file is, and not how it was a while ago, as that of NFS may, to which only
    opening a file is reason to ask the server. Where nobody knows, it is not.
    """
    # f_type is the first field of struct statfs, which has 120 bytes.
    described = ctypes.create_string_buffer(512)
    if ctypes.CDLL(None).statfs(ctypes.c_char_p(os.fsencode(path)), described) != 0:
        return False
    return ctypes.c_long.from_buffer(described).value & 0xFFFF_FFFF in _LOCAL | {_OVERLAY}


@dataclass(frozen=True, slots=True)
class Change:
    """
    Something that happened in a directory.

    :ivar watch: the number that :meth:`Watch.add` gave.
    :ivar name: what it happened to; empty when the watch has ended, or the directory is not where it was.
    :ivar there: whether there is something of that name now.
    """

    watch: int
    name: bytes
    there: bool


class Watch:
    """
    Directories that are watched.

    It needs no attention of the event loop: the queue is read when somebody wants to know. One that nobody reads fills up to a limit of the
    kernel's, 16,384 changes, and costs the process no memory; then everything that was watched is lost.
    """

    def __init__(self) -> None:
        self._libc: Any = None
        #: Opened when there is something to watch.
        self._fd = -1
        self._closed = False

    def add(self, path: str) -> int | None:
        """
        Watch a directory from now on.

        :returns: a number, never used again; ``None`` when it cannot be watched, or changes might be missed.
        """
        if not self._open():
            return None
        encoded = os.fsencode(path)
        # f_type is the first field of struct statfs, which has 120 bytes.
        described = ctypes.create_string_buffer(512)
        try:
            self._call(self._libc.statfs, ctypes.c_char_p(encoded), described)
            if ctypes.c_long.from_buffer(described).value & 0xFFFF_FFFF not in _LOCAL:
                return None
            return self._call(self._libc.inotify_add_watch, self._fd, ctypes.c_char_p(encoded), ctypes.c_uint32(_WANTED))
        except OSError:
            return None

    def remove(self, watch: int) -> None:
        """Watch no longer. What is in the queue comes nevertheless."""
        # The kernel may have ended it already.
        with suppress(OSError):
            self._call(self._libc.inotify_rm_watch, self._fd, watch)

    def changes(self) -> tuple[list[Change] | None, bool]:
        """
        What has happened, in order, up to a hundred changes or so.

        :returns: the changes, or ``None`` when some are lost: then nothing is watched any more; and whether there may be more to come.
        """
        if self._fd < 0:
            return [], False
        try:
            queued = os.read(self._fd, _AT_ONCE)
        except BlockingIOError:
            return [], False
        changes = []
        for watch, what, name in _events(queued):
            if what & _OVERFLOW:
                self._begin_anew()
                return None, False
            if not what & (_MOVED_FROM | _MOVED_TO | _CREATE | _DELETE):
                name = b""  # noqa: PLW2901 - whatever it is of, that is all that is to be known
            changes.append(Change(watch, name, bool(what & (_MOVED_TO | _CREATE))))
        return changes, len(queued) > _AT_ONCE - _LONGEST

    def close(self) -> None:
        """Watch nothing any more. May be called again."""
        self._begin_anew()
        self._closed = True

    def _begin_anew(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def _open(self) -> bool:
        """Whether there is something to watch with. Not where there is no inotify, or no more of it for this user at the moment."""
        if self._fd < 0 and not self._closed:
            with suppress(OSError, AttributeError):
                self._libc = self._libc or ctypes.CDLL(None, use_errno=True)
                self._fd = self._call(self._libc.inotify_init1, os.O_CLOEXEC | os.O_NONBLOCK)
        return self._fd >= 0

    @staticmethod
    def _call(function: Callable[..., int], *arguments: object) -> int:
        result = function(*arguments)
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return result


def _events(queued: bytes) -> Iterator[tuple[int, int, bytes]]:
    """The number of the watch, what happened, and the name, of each event in what was read from the queue."""
    at = 0
    while at < len(queued):
        watch, what, _, length = _EVENT.unpack_from(queued, at)
        at += _EVENT.size + length
        yield watch, what, queued[at - length : at].rstrip(b"\0")
