"""Long loops on the event loop, cut so that others get their turn (promise P4)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Final, TypeVar

__all__ = ["EVERY", "Breathe", "paced"]

T = TypeVar("T")

#: Gives the event loop a turn.
Breathe = Callable[[], Awaitable[object]]

#: How many small steps are taken between turns: some 15 µs each, so about a millisecond.
EVERY: Final = 64


async def paced(items: Iterable[T], breathe: Breathe) -> AsyncIterator[T]:
    """``items``, with a turn for the event loop after every :data:`EVERY` of them."""
    for count, item in enumerate(items, start=1):
        yield item
        if count % EVERY == 0:
            await breathe()
