"""What was found broken on disk: said once, counted, and passed over (promise P3)."""

from __future__ import annotations

from typing import Final

from twisted.logger import Logger

__all__ = ["Damage"]

#: How many paths are remembered as said; beyond, what is found is only counted.
_REMEMBERED: Final = 10_000


class Damage:
    """
    Takes reports of files that are not what they should be.

    :ivar count: how many different paths were reported.
    """

    _log = Logger()

    def __init__(self) -> None:
        self.count = 0
        self._said: set[str] = set()

    def report(self, path: str, what: str) -> None:
        """Log that the file at ``path`` is damaged: ``what`` says how, and what is done about it. Each path is logged once."""
        if path in self._said:
            return
        self.count += 1
        if len(self._said) < _REMEMBERED:
            self._said.add(path)
            self._log.warn("damaged file {path}: {what}", path=path, what=what)

    def healed(self, path: str) -> None:
        """A whole file has taken the place of the one at ``path``, if it was damaged."""
        if path in self._said:
            self._said.discard(path)
            self._log.info("damaged file {path} was replaced by a whole one", path=path)
