"""
What was read from small files, remembered for as long as they have not changed.

A file is looked at on each use, and what is remembered of it counts only while it has the version that it had before it was read, so that
changes by any process count at once (promise P7). A version is the driver's, see :class:`~regd.storage.driver.Stat`.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

from regd.storage.layout import Path

__all__ = ["Remembered"]

Value = TypeVar("Value")


class Remembered(Generic[Value]):
    """
    Values by path, those that were used last.

    :param budget: how much the values may weigh together.
    """

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._known: OrderedDict[Path, tuple[object, Value, int]] = OrderedDict()
        self._weight = 0

    def __contains__(self, path: Path) -> bool:
        return path in self._known

    def get(self, path: Path, version: object) -> Value | None:
        """What is remembered of a file that has ``version`` now."""
        entry = self._known.get(path)
        if entry is None:
            return None
        if version is None or entry[0] != version:
            self.forget(path)
            return None
        self._known.move_to_end(path)
        return entry[1]

    def put(self, path: Path, version: object, value: Value, weight: int = 1) -> None:
        """
        Remember what was read.

        :param version: that of the file before it was read; nothing is remembered of one that has none.
        :param weight: of the value, in the unit of the budget.
        """
        self.forget(path)
        if version is None or weight > self._budget:
            return
        self._known[path] = (version, value, weight)
        self._weight += weight
        while self._weight > self._budget:
            self.forget(next(iter(self._known)))

    def forget(self, path: Path) -> None:
        """Whatever was there is there no more."""
        entry = self._known.pop(path, None)
        if entry is not None:
            self._weight -= entry[2]
