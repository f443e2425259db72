"""One at a time asks an upstream for one and the same thing, in whichever process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.logger import Logger

from regd.pace import Sleep
from regd.storage import layout
from regd.storage.driver import Busy, Driver, Held, StorageError

__all__ = ["Turns"]

#: How long one waits before one looks again, in seconds: at first, and at most. What the upstream is asked for takes some tens of
#: milliseconds most of the time.
_LOOK: Final = 0.005
_LOOK_AT_MOST: Final = 0.1


class Turns:
    """
    :param sleep: waits.
    :param seconds: the time, of the clock that ``sleep`` goes by.
    """

    _log = Logger()

    def __init__(self, driver: Driver, sleep: Sleep, seconds: Callable[[], float]) -> None:
        self._driver = driver
        self._sleep = sleep
        self._seconds = seconds
        self._told = False

    async def take(self, key: str, patience: float) -> Held | None:
        """
        Wait for one's turn. Whoever had it before may have brought what one was going to ask for.

        :param key: what one is going to ask for.
        :param patience: for how long, in seconds.
        :returns: what to close when one has asked; ``None`` where one has waited long enough, and may as well ask, too: it is not for the
            sake of the truth that only one does, but for the upstream's.
        """
        path = layout.turn(key)
        until = self._seconds() + patience
        pause = _LOOK
        while True:
            try:
                return await self._driver.lock(path)
            except Busy:
                left = until - self._seconds()
                if left <= 0:
                    return None
            except StorageError as error:
                if not self._told:
                    self._told = True
                    self._log.warn("{error}: several processes may ask an upstream for the same. This is said once.", error=error)
                return None
            await self._sleep(min(pause, left))
            pause = min(pause * 2, _LOOK_AT_MOST)
