"""Part of a sorted listing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from regd.pace import Pace
from regd.storage.driver import Driver, Missing
from regd.storage.layout import Path

__all__ = ["Page", "names_after"]

T = TypeVar("T")

#: How many names are asked for at once at most.
_MOST: Final = 1000


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some entries of a listing, in order. ``last`` is what the next page begins after, ``""`` where there is no next page."""

    entries: tuple[T, ...]
    last: str = ""


async def names_after(driver: Driver, path: Path, last: str, expected: int, pace: Pace) -> AsyncIterator[str]:
    """
    The names in a directory that come after ``last``, asked for in lots, with turns for the event loop between them.

    :param expected: how many are probably needed; the first lot has as many.
    :raises Missing: when there is no directory at ``path``.
    """
    size = min(max(expected, 1), _MOST)
    names = await driver.names(path, last, size)
    while names:
        for name in names:
            yield name
            await pace.step()
        if len(names) < size:
            return
        try:
            names = await driver.names(path, names[-1], size)
        except Missing:
            # Removed in between.
            return
