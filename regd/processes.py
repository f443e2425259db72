"""What processes that were started say, line by line, and how they end."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Final

from twisted.internet.error import ProcessTerminated
from twisted.python.failure import Failure

__all__ = ["LONGEST_LINE", "Lines", "how_it_ended", "killed_by"]

#: Of a line that does not end so many bytes are kept.
LONGEST_LINE: Final = 1024 * 1024


class Lines:
    """
    Cuts what comes through a pipe into lines.

    :param take: given each line without its end. What is longer than :data:`LONGEST_LINE` comes in parts.
    """

    def __init__(self, take: Callable[[bytes], object]) -> None:
        self._take = take
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Something has come."""
        *lines, rest = (self._rest + data).split(b"\n")
        if len(rest) > LONGEST_LINE:
            lines, rest = [*lines, rest], b""
        self._rest = rest
        for line in lines:
            self._take(line)

    def end(self) -> None:
        """Nothing more comes: what is left is a line."""
        rest, self._rest = self._rest, b""
        if rest:
            self._take(rest)


def killed_by(reason: Failure) -> int | None:
    """The number of the signal that a process was killed by, if it was."""
    return reason.value.signal if isinstance(reason.value, ProcessTerminated) else None


def how_it_ended(reason: Failure) -> str:
    """
    How a process has ended, as ``was killed by SIGKILL``; empty for one that has ended with status 0.

    :param reason: as ``ProcessProtocol.processEnded`` is given.
    """
    number = killed_by(reason)
    if number is not None:
        return f"was killed by {signal.Signals(number).name}"
    return f"ended with status {reason.value.exitCode}" if isinstance(reason.value, ProcessTerminated) else ""
