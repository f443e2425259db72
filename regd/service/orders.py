"""SIGTERM and SIGINT: the order to end, which may be given more than once."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any, Final

__all__ = ["EndingOrders"]

#: Signals that come so soon after the first one, in seconds, are the same order: a terminal and the script in it may each send theirs.
_SAME: Final = 1.0

_NUMBERS: Final = (signal.SIGTERM, signal.SIGINT)


class EndingOrders:
    """
    Stands before Twisted's own handlers of these signals.

    :param reactor: ``Any``: a reactor is typed as the union of what reactors may be.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        #: What they did before. Any: what signal.getsignal() says.
        self._before: dict[signal.Signals, Any] = {}

    def hear_once(self) -> None:
        """
        What is said twice before we have begun to stop, as by a supervisor that tells all processes of ours, reaches Twisted once. It would
        log with a traceback that it cannot stop twice.
        """
        said: list[int] = []

        def told(number: int, frame: Any) -> None:
            said.append(number)
            if len(said) == 1:
                self._before[signal.Signals(number)](number, frame)

        for number in _NUMBERS:
            before = signal.getsignal(number)
            if callable(before):
                self._before[number] = before
                signal.signal(number, told)

    def hear_again(self, now: Callable[[], None]) -> None:
        """
        From here on they say that we are to end now. Twisted would find that it cannot stop twice.

        :param now: called in the event loop.
        """
        begun = self._reactor.seconds()

        def cut_off() -> None:
            if self._reactor.seconds() - begun >= _SAME:
                now()

        for number in _NUMBERS:
            before = signal.signal(number, lambda _number, _frame: self._reactor.callFromThread(cut_off))
            self._before.setdefault(number, before)

    def forget(self) -> None:
        """Have them do what they did before all of this."""
        for number, before in self._before.items():
            signal.signal(number, before)
