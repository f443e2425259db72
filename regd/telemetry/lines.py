"""
Lines of several processes in one stream, none torn.

A line is one ``write()``. To a file that is enough: the kernel lets one finish before it begins another (the processes share the
description of the file, and so its position). To a pipe, a socket or a terminal it is enough for 4096 bytes (pipe(7), ``PIPE_BUF``), and
a request may make a line that is longer; its end, torn off, would be a line that a client wrote. So there a lock is held besides.
"""

from __future__ import annotations

import fcntl
import os
import stat
from typing import Protocol

__all__ = ["LineStream", "Lines", "make_lock"]


class LineStream(Protocol):
    """Where lines go; every text file is one."""

    def write(self, text: str, /) -> object:
        """Take a line, its end included."""

    def flush(self) -> None:
        """Let it out."""


class Lines:
    """
    A :class:`LineStream` over a descriptor that other processes write to as well.

    :param fd: stays open, and the caller's.
    :param lock: a file that all writers have open, see :func:`make_lock`; ``None`` where nobody else writes.
    """

    def __init__(self, fd: int, lock: int | None) -> None:
        self._fd = fd
        self._lock = None if stat.S_ISREG(os.fstat(fd).st_mode) else lock

    def write(self, text: str, /) -> None:
        """
        Write whole lines.

        :raises OSError: when it cannot be done.
        """
        data = text.encode("utf-8", "backslashreplace")
        if self._lock is None:
            self._write(data)
            return
        # A record lock belongs to the process, so sharing the descriptor does no harm; it ends with the process.
        fcntl.lockf(self._lock, fcntl.LOCK_EX)
        try:
            self._write(data)
        finally:
            fcntl.lockf(self._lock, fcntl.LOCK_UN)

    def flush(self) -> None:
        """Everything has been written."""

    def _write(self, data: bytes) -> None:
        written = os.write(self._fd, data)
        # A signal, or a disk that is full for a moment, may cut it short.
        while written < len(data):
            written += os.write(self._fd, data[written:])


def make_lock() -> int:
    """A file in memory for :class:`Lines` to lock; the descriptor is inherited by nobody who is not given it."""
    return os.memfd_create("regd-log", os.MFD_CLOEXEC)
