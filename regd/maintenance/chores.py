"""What is done at times of its own, wherever that happens: orders that can be sent to another process, and what comes back."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from regd.maintenance.purge import Purge, PurgeOrders
from regd.pace import Sleep
from regd.storage.damage import Damage
from regd.storage.driver import Driver

__all__ = ["Listener", "Occupied", "Order", "Summary", "Work", "begin", "order"]


class Occupied(Exception):
    """Somebody else does the same on this directory."""


class Listener(Protocol):
    """Who hears of what is found."""

    def damaged(self, path: str, what: str) -> None:
        """See :meth:`regd.storage.damage.Damage.report`."""

    def say(self, level: str, text: str) -> None:
        """For the log; ``level`` as the configuration calls it."""


class Summary(Protocol):
    """What became of it."""

    def to_json(self) -> str:
        """One object, on one line."""


class Work(Protocol):
    """One run."""

    async def run(self) -> Summary:
        """
        Do it.

        :raises StorageError: when that is not possible.
        """

    def stop(self) -> None:
        """End soon. From any thread."""


@dataclass(frozen=True)
class Order:
    """
    What is to be done.

    :ivar kind: ``purge``.
    :ivar details: the values of its own orders (:class:`~regd.maintenance.purge.PurgeOrders`), by name.
    :ivar root: the directory of the storage; empty where the storage is at hand.
    :ivar patience: how long a change waits at the gate, in seconds.
    """

    kind: str
    details: Mapping[str, Any]
    root: str = ""
    patience: float = 5.0

    def to_json(self) -> bytes:
        """On one line, its end included."""
        return json.dumps(dataclasses.asdict(self)).encode() + b"\n"

    @classmethod
    def from_json(cls, line: bytes) -> Order:
        """
        :raises ValueError: when it is no order.
        """
        try:
            return cls(**json.loads(line))
        except TypeError as error:
            raise ValueError(str(error)) from None


def order(details: PurgeOrders, root: str = "", patience: float = 5.0) -> Order:
    """The order that has these details."""
    return Order(_KINDS[type(details)], dataclasses.asdict(details), root, patience)


def begin(order: Order, driver: Driver, listener: Listener, sleep: Sleep, now: Callable[[], float]) -> Work:
    """
    Make ready for a run.

    :param now: seconds since the epoch.
    :raises ValueError: when there is no such work, or its details are others.
    """
    damage = _Heard(listener)
    try:
        if order.kind == "purge":
            return Purge(driver, damage, PurgeOrders(**order.details), listener.say, sleep, now)
    except TypeError as error:
        raise ValueError(str(error)) from None
    raise ValueError(f"there is nothing to be done that is called {order.kind!r}")


_KINDS: Mapping[type, str] = {PurgeOrders: "purge"}


class _Heard(Damage):
    """Passes on what is found, which is somebody else's to log and to count."""

    def __init__(self, listener: Listener) -> None:
        super().__init__()
        self._listener = listener

    def report(self, path: str, what: str) -> None:
        """See :class:`~regd.storage.damage.Damage`."""
        self.count += 1
        self._listener.damaged(path, what)
