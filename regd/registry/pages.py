"""Part of a sorted listing."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

__all__ = ["Page", "after"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some entries of a listing, in order. ``last`` is what the next page begins after, ``""`` where there is no next page."""

    entries: tuple[T, ...]
    last: str = ""


def after(names: Sequence[str], last: str) -> range:
    """The indices of the names that come after ``last``; ``names`` are in the order of their UTF-8 bytes."""
    return range(bisect_right(names, last.encode("utf-8", "surrogatepass"), key=_key) if last else 0, len(names))


def _key(name: str) -> bytes:
    # Names from a disk may hold bytes that are not UTF-8; they are no tags and no repositories, but they are in the way.
    return name.encode("utf-8", "surrogateescape")
