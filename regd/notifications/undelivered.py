"""
Events that an endpoint could not be told of, and never will be by itself: what an operator looks at, and may send by hand.

One line of JSON for each: when it was given up, for which endpoint, why, and the event. The file has an end, too: when it is as long as it
may be, it becomes the older one, and what that was is gone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, Final

from regd.moments import rfc3339

__all__ = ["LIMIT", "Undelivered"]

#: Bytes of the newer file; the older one is no longer than that and one event.
LIMIT: Final = 16 * 1024 * 1024


class Undelivered:
    """
    Blocks, and is called in a thread, by one process at a time.

    :param path: of the newer file; the older one has ``.old`` behind it.
    """

    def __init__(self, path: str, limit: int = LIMIT) -> None:
        self._path = path
        self._limit = limit

    def add(self, endpoint: str, why: str, events: Sequence[Mapping[str, Any]], now: float) -> None:
        """
        Write events down, durably.

        :param endpoint: its name.
        :param events: as :func:`regd.notifications.events.parse` reads them. ``Any``: they are JSON.
        :param now: seconds since the epoch.
        :raises OSError: when they cannot be written.
        """
        said = {"time": rfc3339(now), "endpoint": endpoint, "reason": why}
        lines = b"".join(json.dumps({**said, "event": event}, separators=(",", ":")).encode("ascii") + b"\n" for event in events)
        # Any user of the machine might read it otherwise, and it says who does what.
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        try:
            size = os.fstat(fd).st_size
            if size and os.pread(fd, 1, size - 1) != b"\n":
                lines = b"\n" + lines
            rest = memoryview(lines)
            while rest:
                rest = rest[os.write(fd, rest) :]
            os.fsync(fd)
            full = os.fstat(fd).st_size >= self._limit
        finally:
            os.close(fd)
        if full:
            os.replace(self._path, f"{self._path}.old")
