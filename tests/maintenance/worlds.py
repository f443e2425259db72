"""A storage and its time, for tests that let a collection and changes get in each other's way."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

from regd import pace
from regd.maintenance import closing, collector, steps
from regd.maintenance.blocking import filesystem
from regd.maintenance.collector import Collector, Orders
from regd.maintenance.gate import Gate
from regd.registry.core import Registry
from regd.registry.rules import ManifestRules
from regd.storage.damage import Damage
from regd.storage.driver import Driver
from regd.storage.memory import MemoryDriver
from tests.maintenance.stepping import SteppingDriver, Task, turn

__all__ = ["Clock", "Collecting", "World", "WorldOnDisk", "process", "without_time"]

#: The clock of a file system is a little behind the system's.
TOLERANCE = 0.05


class World:
    """The storage in memory, with a clock of its own."""

    tolerance = 0.0

    def __init__(self) -> None:
        self._time = 1_700_000_000.0
        self.driver: Driver = MemoryDriver(self.now)

    def now(self) -> float:
        """
        :return: Seconds since the epoch.
        """
        return self._time

    def age(self, seconds: float) -> float:
        """
        Let time pass.

        :param seconds: How much.
        :return: By how much the times of all that is there were set back.
        """
        self._time += seconds
        return 0.0

    def close(self) -> None:
        """Give everything back."""


class WorldOnDisk:
    """A directory, over which time passes by setting the times of all files back."""

    tolerance = TOLERANCE

    def __init__(self) -> None:
        self._root = tempfile.mkdtemp(prefix="regd-model-")
        self.driver: Driver = filesystem(self._root)
        self.driver.start()

    def now(self) -> float:
        """
        :return: Seconds since the epoch.
        """
        return time.time()

    def age(self, seconds: float) -> float:
        """
        Let time pass.

        :param seconds: How much.
        :return: By how much the times of all that is there were set back.
        """
        for directory, _, names in os.walk(self._root):
            for name in names:
                path = f"{directory}/{name}"
                found = os.stat(path)
                os.utime(path, (found.st_atime, found.st_mtime - seconds))
        return seconds

    def close(self) -> None:
        """Give everything back."""
        self.driver.stop()
        shutil.rmtree(self._root)


class Clock:
    """
    A clock that is never set, and that goes on only where somebody waits.

    :ivar time: what it shows, in seconds.
    """

    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        """Others have their turn."""
        self.time += seconds
        await turn()


class Collecting:
    """
    A collection that is under way.

    :ivar driver: what its process has for a driver.
    :ivar task: its steps.
    :ivar orders: what it was asked for.
    """

    def __init__(self, world: World | WorldOnDisk, clock: Clock, orders: Orders) -> None:
        self.driver = SteppingDriver(world.driver)
        self.orders = orders
        self.damage = Told()
        # Any: it stands for the driver of its process.
        driver: Any = self.driver
        gate = Gate(driver, clock.sleep, now=clock)
        self.collector = Collector(driver, gate, self.damage, orders, Quiet(), clock.sleep, world.now)
        self.task = Task(self.collector.run())


class Told(Damage):
    """
    :ivar told: what of which file.
    """

    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []

    def report(self, path: str, what: str) -> None:
        """See :class:`~regd.storage.damage.Damage`."""
        self.told.append(f"{path}: {what}")
        super().report(path, what)


class Quiet:
    """A :class:`~regd.maintenance.collector.Witness` that looks away."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None


def process(world: World | WorldOnDisk, clock: Clock, grace: float, damage: Damage, *, stepping: bool = True) -> Registry:
    """
    :param grace: for which promises are made, in seconds.
    :param stepping: whether others get turns between what it does.
    :return: A registry that remembers nothing, as after a restart.
    """
    driver: Any = SteppingDriver(world.driver) if stepping else world.driver
    gate = Gate(driver, clock.sleep, now=clock)
    return Registry(driver, damage, ManifestRules(), world.now, clock.sleep, gate, grace)


@contextmanager
def without_time(clock: Clock) -> Iterator[None]:
    """What a collection does depends on nothing but what was done to it."""
    with ExitStack() as stack:
        for module in (closing, collector, pace, steps):
            stack.enter_context(mock.patch.object(module, "monotonic", clock))
        yield
