"""Coroutines that mostly wait for nothing: a Deferred, which costs more than some of them, is made only of those that do."""

from __future__ import annotations

import types
from collections.abc import Coroutine, Generator
from typing import Any, TypeVar

from twisted.internet.defer import Deferred

__all__ = ["begin"]

T = TypeVar("T")


def begin(work: Coroutine[Any, Any, T]) -> T | Deferred[T]:
    """
    Run a coroutine up to the first thing that it waits for.

    :returns: its result where there was none; else what fires with the result, and cancels what is waited for when it is cancelled.
    :raises Exception: what the coroutine raises before it waits.
    """
    try:
        waiting = work.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    return Deferred.fromCoroutine(_resume(work, waiting))


@types.coroutine
def _resume(running: Coroutine[Any, Any, T], waiting: Any) -> Generator[Any, Any, T]:
    """What is left of a coroutine that has been run up to the first thing that it waits for."""
    while True:
        try:
            try:
                result = yield waiting
            except BaseException as error:  # noqa: BLE001 - it is the coroutine's
                waiting = running.throw(error)
            else:
                waiting = running.send(result)
        except StopIteration as end:
            returned: T = end.value
            return returned
