"""When a server wants to be left alone, or cannot be reached, and nobody needs to find that out again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.logger import Logger

from regd.proxy.remote.errors import Limited, RemoteError, Unreachable

__all__ = ["Rest"]

#: How long a server is left alone after it could not be reached, in seconds: so long the first time, twice as long each further time,
#: up to the second number. A moment is enough that not every request waits for a time-out, and one who is back is soon asked again.
_FIRST: Final = 1.0
_LONGEST: Final = 30.0

#: After "too many requests", where the server does not say how long.
_LIMITED: Final = 5.0


class Rest:
    """
    :param whose: who is left alone, for the log.
    :param seconds: the time, in seconds.
    """

    _log = Logger()

    def __init__(self, whose: str, seconds: Callable[[], float]) -> None:
        self._whose = whose
        self._seconds = seconds
        self._until = 0.0
        self._why = ""
        self._late: bool | None = None
        self._pause = _FIRST

    @property
    def left(self) -> float:
        """How much longer it is to be left alone, in seconds; 0 when it may be asked."""
        return max(self._until - self._seconds(), 0.0)

    def check(self) -> None:
        """
        :raises Limited: when it has said that it wants to be asked later.
        :raises Unreachable: when it could not be reached a moment ago.
        """
        left = self.left
        if left:
            raise self._error(left)

    def limited(self, why: str, retry_after: float | None) -> RemoteError:
        """
        It wants to be asked later.

        :param retry_after: in how many seconds; ``None`` where it does not say.
        :returns: what to raise.
        """
        pause = _LIMITED if retry_after is None else retry_after
        self._begin(why, None, pause)
        return Limited(why, max(pause, 1.0))

    def failed(self, why: str, *, late: bool) -> RemoteError:
        """
        It could not be reached.

        :returns: what to raise.
        """
        # Those that were under way when the first one failed are no further attempts.
        if not self.left:
            self._begin(why, late, self._pause)
            self._pause = min(self._pause * 2, _LONGEST)
        return Unreachable(why, late=late)

    def succeeded(self) -> None:
        """It has answered; whatever."""
        self._pause = _FIRST
        if self._late is not None:
            self._until = 0.0

    def _begin(self, why: str, late: bool | None, pause: float) -> None:
        until = self._seconds() + pause
        if until > self._until:
            self._until, self._why, self._late = until, why, late
            self._log.warn("{whose} is not asked for {pause:g} s: {why}", whose=self._whose, pause=pause, why=why)

    def _error(self, left: float) -> RemoteError:
        if self._late is None:
            return Limited(f"{self._why}; it is not asked for another {left:.0f} s", max(left, 1.0))
        return Unreachable(f"{self._why}; it is not asked for another {left:.1f} s", late=self._late)
