"""What is done at times of its own, wherever that happens: orders that can be sent to another process, and what comes back."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from regd.maintenance.collector import Collector, Orders, Running
from regd.maintenance.gate import Gate
from regd.maintenance.purge import Purge, PurgeOrders, Say
from regd.names import Digest
from regd.pace import Sleep
from regd.storage.damage import Damage
from regd.storage.driver import Driver

__all__ = ["CutShort", "Listener", "Occupied", "Order", "Summary", "Work", "begin", "order"]


class Occupied(Exception):
    """Somebody else does the same on this directory."""


class CutShort(Exception):
    """The run was asked to end, and did before it could say what became of it. The next one goes on."""


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

    :ivar kind: ``collection`` or ``purge``.
    :ivar details: the values of its own orders (:class:`~regd.maintenance.collector.Orders` or
        :class:`~regd.maintenance.purge.PurgeOrders`), by name.
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
        except (TypeError, RecursionError) as error:
            raise ValueError(str(error)) from None


def order(details: Orders | PurgeOrders, root: str = "", patience: float = 5.0) -> Order:
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
        if order.kind == "collection":
            return _Collection(driver, damage, Orders(**order.details), order.patience, listener.say, sleep, now)
        if order.kind == "purge":
            return Purge(driver, damage, PurgeOrders(**order.details), listener.say, sleep, now)
    except TypeError as error:
        raise ValueError(str(error)) from None
    raise ValueError(f"there is nothing to be done that is called {order.kind!r}")


_KINDS: Mapping[type, str] = {Orders: "collection", PurgeOrders: "purge"}


class _Collection:
    """
    A collection as :class:`Work`.

    :param patience: how long a change waits at the gate, in seconds.
    """

    def __init__(
        self, driver: Driver, damage: Damage, orders: Orders, patience: float, say: Say, sleep: Sleep, now: Callable[[], float]
    ) -> None:
        witness = _Told(say) if orders.dryrun else None
        self._collector = Collector(driver, Gate(driver, sleep, patience), damage, orders, witness, sleep, now)

    async def run(self) -> Summary:
        """See :class:`Work`."""
        try:
            return await self._collector.run()
        except Running:
            raise Occupied from None

    def stop(self) -> None:
        """See :class:`Work`."""
        self._collector.stop()


class _Told:
    """A :class:`~regd.maintenance.collector.Witness` of a dry run, who tells the log what would be removed, and nothing else."""

    def __init__(self, say: Say) -> None:
        self._say = partial(say, "info")

    def repository(self, name: str) -> None:
        """See :class:`~regd.maintenance.collector.Witness`."""

    def manifest(self, name: str, digest: Digest) -> None:
        """See :class:`~regd.maintenance.collector.Witness`."""

    def blob(self, name: str, digest: Digest) -> None:
        """See :class:`~regd.maintenance.collector.Witness`."""

    def eligible_manifest(self, name: str, digest: Digest) -> None:
        """See :class:`~regd.maintenance.collector.Witness`."""
        self._say(f"dry run: manifest {digest} of {name} would be removed")

    def eligible_blob(self, digest: Digest, size: int) -> None:
        """See :class:`~regd.maintenance.collector.Witness`."""
        self._say(f"dry run: blob {digest} of {size} bytes would be removed")

    def progress(self, stage: str, done: int, total: int | None) -> None:
        """See :class:`~regd.maintenance.collector.Witness`."""


class _Heard(Damage):
    """Passes on what is found, which is somebody else's to log and to count."""

    def __init__(self, listener: Listener) -> None:
        super().__init__()
        self._listener = listener

    def report(self, path: str, what: str) -> None:
        """See :class:`~regd.storage.damage.Damage`."""
        self.count += 1
        self._listener.damaged(path, what)
