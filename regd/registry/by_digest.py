"""What was made of content that is known by its digest, remembered up to a weight: it cannot change, so it cannot be out of date."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from regd.names import Digest

__all__ = ["ByDigest"]

Value = TypeVar("Value")


class ByDigest(Generic[Value]):
    """
    Values by digest, the most recently used first. Whether the content is still there, whoever asks has to see to.

    :param budget: how much they may weigh together.
    :param weigh: what one weighs, in the unit of the budget; more than 0.
    """

    def __init__(self, budget: int, weigh: Callable[[Value], int]) -> None:
        self._budget = budget
        self._weigh = weigh
        self._kept: OrderedDict[Digest, Value] = OrderedDict()
        self._weight = 0

    def get(self, digest: Digest) -> Value | None:
        """What is remembered."""
        found = self._kept.get(digest)
        if found is not None:
            self._kept.move_to_end(digest)
        return found

    def put(self, digest: Digest, value: Value) -> None:
        """Remember what was made."""
        if digest in self._kept:
            return
        self._kept[digest] = value
        self._weight += self._weigh(value)
        while self._weight > self._budget:
            _, dropped = self._kept.popitem(last=False)
            self._weight -= self._weigh(dropped)
