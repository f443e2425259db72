"""Files that a configuration names, watched: they are read again when they change."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall

from regd.config.watched import NamedFile

__all__ = ["EVERY", "Following"]

#: How often is looked, in seconds. A look is one stat(2) for each file.
EVERY: Final = 5.0

_Look = tuple[int, int, int] | None


class Following:
    """
    Looks at files, and says when one is no longer what it was.

    A file that is not there is no change: many programs write a new one in the place of the old one, and some take the old one away before.

    :param changed: called with the path of a file that has changed; what it reads is to be followed anew.
    :param reactor: ``Any``: a reactor is typed as the union of what reactors may be.
    """

    def __init__(self, changed: Callable[[str], None], reactor: Any) -> None:
        self._changed = changed
        self._reactor = reactor
        self._seen: dict[str, _Look] = {}
        self._next: IDelayedCall | None = None

    def follow(self, files: Iterable[NamedFile]) -> None:
        """From now on, watch these, and no others; to be called before they are read."""
        self.stop()
        self._seen = {file.path: _look(file.path) for file in files}
        self._wait()

    def stop(self) -> None:
        """Watch nothing."""
        if self._next is not None:
            self._next.cancel()
            self._next = None
        self._seen = {}

    def _wait(self) -> None:
        if self._seen:
            self._next = self._reactor.callLater(EVERY, self._look)

    def _look(self) -> None:
        self._next = None
        for path, before in self._seen.items():
            now = _look(path)
            if now is not None and now != before:
                self._seen[path] = now
                self._wait()
                self._changed(path)
                return
        self._wait()


def _look(path: str) -> _Look:
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
