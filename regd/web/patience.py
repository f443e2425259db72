"""
Clients that keep a connection and do nothing with it: heads that never end, answers that nobody takes.

A timer for each connection would cost each request something. One look at all of them, every few seconds, costs the same however many
requests there are; so these two may last a look longer than they are allowed to. What else there is to wait for, the channel does itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall

__all__ = ["Patience", "Watch"]

#: How often is looked at most and at least, in seconds.
_OFTEN: Final = 1.0
_SELDOM: Final = 15.0


@dataclass(frozen=True)
class Patience:
    """
    How long clients may take, in seconds.

    :ivar header: for a TLS handshake, and for the head of a request.
    :ivar idle: for a connection on which nothing is asked.
    :ivar read: for a body of which nothing comes.
    :ivar write: for an answer of which nothing is taken.
    """

    header: float = 60.0
    idle: float = 180.0
    read: float = 900.0
    write: float = 900.0


class Watch:
    """
    Looks at connections while there are any.

    :param channels: those that are open. Any: of :mod:`regd.web.request`, which imports this module.
    :param patience: says how long they may take.
    :param reactor: ``Any``: a reactor is typed as the union of what reactors may be.
    """

    def __init__(self, channels: Callable[[], Iterable[Any]], patience: Callable[[], Patience], reactor: Any) -> None:
        self._channels = channels
        self._patience = patience
        self._reactor = reactor
        self._next: IDelayedCall | None = None

    def begin(self) -> None:
        """There is a connection."""
        if self._next is None:
            patience = self._patience()
            every = min(max(min(patience.header, patience.write) / 4, _OFTEN), _SELDOM)
            self._next = self._reactor.callLater(every, self._look)

    def stop(self) -> None:
        """There is none any more."""
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _look(self) -> None:
        self._next = None
        patience, now = self._patience(), self._reactor.seconds()
        channels = list(self._channels())
        for channel in channels:
            channel.look(now, patience)
        if channels:
            self.begin()
