"""
How often somebody may ask: the generic cell rate algorithm, over a table that all processes of a daemon share.

For each key the table has the moment at which all that was asked so far would have been asked at the even rate. It lies in memory that is
shared and never grows. Two processes that look at one key in the same microsecond may both let their request pass: a limit is that much
too lax, and nobody waits for a lock.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import struct
from dataclasses import dataclass
from typing import Final

__all__ = ["Rate", "RateTable", "make_table"]

#: The hash of a key, and its moment, in seconds of the system's clock that only goes on, which all processes see alike.
_SLOT: Final = struct.Struct("=Qd")

#: So many keys are told apart: a MiB.
_SLOTS: Final = 65536

#: How far from its place a key may lie.
_NEAR: Final = 8


@dataclass(frozen=True)
class Rate:
    """
    :ivar interval: from one request to the next at the even rate, in seconds.
    :ivar burst: how many may come at once.
    """

    interval: float
    burst: int


def make_table() -> int:
    """
    Memory for a table.

    :returns: a descriptor, for this process and those that it starts.
    """
    fd = os.memfd_create("regd-rates", os.MFD_CLOEXEC)
    os.truncate(fd, _SLOTS * _SLOT.size)
    return fd


class RateTable:
    """
    :param fd: of :func:`make_table`; ``None`` for a table of this process alone.
    """

    def __init__(self, fd: int | None = None) -> None:
        self._memory = mmap.mmap(-1 if fd is None else fd, _SLOTS * _SLOT.size)

    def take(self, key: str, rate: Rate, now: float) -> float:
        """
        Ask once more.

        :param now: in seconds of ``time.monotonic()``.
        :returns: 0 if that is in order; otherwise in how many seconds it will be, and then it does not count as asked.
        """
        place, digest, due = self._find(key, now)
        late = due + rate.interval - now - rate.burst * rate.interval
        # The moments are sums of fractions.
        if late > 1e-9:
            return late
        _SLOT.pack_into(self._memory, place, digest, due + rate.interval)
        return 0.0

    def line_up(self, key: str, rate: Rate, now: float) -> float:
        """
        How long whoever asks has to wait for their turn, in seconds, after what :meth:`add` has noted. Those who ask at once get turns one
        after the other.
        """
        place, digest, due = self._find(key, now)
        wait = max(0.0, due - now - rate.burst * rate.interval)
        if wait:
            _SLOT.pack_into(self._memory, place, digest, due + rate.interval)
        return wait

    def add(self, key: str, rate: Rate, now: float) -> None:
        """Note something that costs a turn."""
        place, digest, due = self._find(key, now)
        _SLOT.pack_into(self._memory, place, digest, due + rate.interval)

    def _find(self, key: str, now: float) -> tuple[int, int, float]:
        """
        The place of a key, its hash, and its moment, which is not before ``now``. Where all places near are taken, whoever has asked least
        of late is forgotten.
        """
        (digest,) = struct.unpack("=Q", hashlib.blake2b(key.encode(), digest_size=8).digest())
        oldest, place = float("inf"), 0
        for number in range(_NEAR):
            here = (digest + number) % _SLOTS * _SLOT.size
            found, due = _SLOT.unpack_from(self._memory, here)
            if found == digest:
                return here, digest, max(due, now)
            if due < oldest:
                oldest, place = due, here
        return place, digest, now
