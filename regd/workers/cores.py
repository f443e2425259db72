"""How many processes pay on this machine."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Final

__all__ = ["MOST_BY_DEFAULT", "quota", "usable_cores"]

#: ``http.workers`` where it is not given is never more than this.
MOST_BY_DEFAULT: Final = 4

_GROUPS: Final = Path("/sys/fs/cgroup")
_OWN_GROUP: Final = Path("/proc/self/cgroup")


def usable_cores() -> int:
    """
    The processors that this process may run on, at least 1: those that it is not kept from by ``taskset`` or ``CPUAffinity=``, and no more
    than the quota of its control group or container (``CPUQuota=``, ``docker run --cpus``) is worth, rounded up.
    """
    cores = len(os.sched_getaffinity(0))
    limits: list[float | None] = []
    try:
        own = next(line.partition("::")[2] for line in _OWN_GROUP.read_text(encoding="utf-8").splitlines() if line.startswith("0::"))
        group = _GROUPS / own.strip("/")
        limits = [_limit(level / "cpu.max") for level in (group, *group.parents) if level.is_relative_to(_GROUPS)]
    except (OSError, StopIteration):
        # Not a kernel with the second version of control groups.
        pass
    return max(1, min([cores, *(math.ceil(limit) for limit in limits if limit is not None)]))


def quota(text: str) -> float | None:
    """
    Read ``cpu.max`` (Linux, admin-guide/cgroup-v2, "CPU Interface Files"): a quota and a period, in microseconds.

    :returns: processors; ``None`` where there is no limit, or where this is something else.
    """
    allowed, _, period = text.strip().partition(" ")
    if not (allowed.isascii() and allowed.isdigit() and period.isascii() and period.isdigit()) or int(period) == 0:
        return None
    return int(allowed) / int(period)


def _limit(path: Path) -> float | None:
    try:
        return quota(path.read_text(encoding="ascii"))
    except (OSError, UnicodeDecodeError):
        return None
