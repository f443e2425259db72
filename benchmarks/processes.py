"""
What the kernel says a server used. A server is a session of processes, or several sessions: whatever it forks belongs to it, the workers
of regd and of nginx as well as the process that started them.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["Usage", "end_session", "members", "usage_of"]

_TICKS: Final = os.sysconf("SC_CLK_TCK")

#: Field numbers of proc(5), /proc/pid/stat, counted from the state, which is the first behind the name.
_STATE: Final = 0
_SESSION: Final = 3
_REAPED_USER: Final = 13
_REAPED_SYSTEM: Final = 14


@dataclass(frozen=True)
class Usage:
    """
    What a group of processes used.

    :ivar cpu_seconds: seconds of CPU, user and system, of all processes and their threads, and of those that ended and were waited for.
    :ivar peak: the most memory that any one of them ever held, in bytes: the largest ``VmHWM`` of proc(5).
    :ivar peak_total: the sum of what each of them held at most, in bytes. What processes share counts once for each of them.
    :ivar resident: the memory that the largest of them holds now, in bytes: ``VmRSS``.
    :ivar processes: how many there are.
    """

    cpu_seconds: float
    peak: int
    peak_total: int
    resident: int
    processes: int


def _stat(pid: int) -> list[str]:
    """The fields of ``/proc/pid/stat`` from the state on; none where the process is gone."""
    try:
        # The name of the program, in parentheses, may hold anything; what counts stands behind it.
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


def members(sessions: Iterable[int]) -> list[int]:
    """
    The processes that live in some sessions.

    :param sessions: the process ids of those that lead them.
    :return: process ids, without zombies.
    """
    wanted = {str(session) for session in sessions}
    found = []
    for name in os.listdir("/proc"):
        if name.isdecimal():
            fields = _stat(int(name))
            if fields and fields[_SESSION] in wanted and fields[_STATE] != "Z":
                found.append(int(name))
    return found


def usage_of(sessions: Iterable[int]) -> Usage:
    """
    What the processes of some sessions have used so far.

    :param sessions: the process ids of those that lead them.
    """
    cpu = 0.0
    peaks, residents = [0], [0]
    pids = members(sessions)
    for pid in pids:
        with suppress(OSError):
            # The CPU clock of another process, in nanoseconds, as clock_getcpuclockid(3) makes it: an idle daemon uses less in a minute
            # than a few of the ticks that /proc/pid/stat counts.
            cpu += time.clock_gettime((~pid << 3) | 2)
            fields = _stat(pid)
            cpu += (int(fields[_REAPED_USER]) + int(fields[_REAPED_SYSTEM])) / _TICKS if fields else 0
            for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace").splitlines():
                if line.startswith("VmHWM:"):
                    peaks.append(int(line.split()[1]) * 1024)
                elif line.startswith("VmRSS:"):
                    residents.append(int(line.split()[1]) * 1024)
    return Usage(cpu, max(peaks), sum(peaks), max(residents), len(pids))


def end_session(session: int) -> None:
    """
    End whatever a server left behind when it ended. Nothing, as a rule.

    :param session: the process id that led its session.
    """
    for pid in members([session]):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
