"""
Maintenance in a process of its own, where nobody else waits: everything happens where it stands, and no event loop runs.

The same coroutines run in the daemon, over storage in memory, and in a command. Here the storage does its work at once
(:class:`BlockingThreads` in place of a pool), so a coroutine never has anything to wait for, and :func:`run` runs it to its end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from regd.storage.filesystem import FilesystemDriver
from regd.storage.threads import Inline

__all__ = ["BlockingThreads", "filesystem", "run", "sleep"]

T = TypeVar("T")


class _Never:
    """A :class:`~regd.storage.threads.Call` that does not come."""

    def cancel(self) -> None:
        """See :class:`~regd.storage.threads.Call`."""


class BlockingThreads(Inline):
    """A :class:`~regd.storage.threads.Pool` without threads."""

    def stop(self) -> None:
        """See :class:`~regd.storage.threads.Pool`."""

    def later(self, seconds: float, function: Callable[[], object]) -> _Never:
        """See :class:`~regd.storage.threads.Pool`. Nobody would call it; what the storage holds open it gives back at its end."""
        return _Never()

    def crowded(self) -> bool:
        """See :class:`~regd.storage.threads.Streams`."""
        return False


def filesystem(root: str, *, writable: bool = True) -> FilesystemDriver:
    """
    A driver whose methods never wait.

    :param root: ``storage.filesystem.rootdirectory``.
    :param writable: whether anything is to be changed there.
    """
    return FilesystemDriver(root, BlockingThreads(), writable=writable, watched=False)


async def sleep(seconds: float) -> None:
    """A :data:`~regd.pace.Sleep` that stops the whole process."""
    if seconds > 0:
        time.sleep(seconds)


def run(work: Coroutine[Any, Any, T]) -> T:
    """
    Run a coroutine that has nothing to wait for to its end.

    :returns: what it returns.
    :raises RuntimeError: when it waits for an event loop, which would never come to it.
    """
    try:
        work.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    work.close()
    raise RuntimeError("waits for an event loop, and there is none")
