"""
Promises: what a client has been told is there stays there for the time of a push, whoever collects garbage meanwhile.

A client that has heard that a blob is there (by a HEAD, a mount, the commit of an upload) does not send it, and comes back with the
manifest that names it. Until then nothing refers to the blob, so what keeps it is its age: a collection takes nothing that was written less
than the grace period before the collection began. The promise is therefore kept in the storage, where every process sees it and every
restart finds it: a file that is older than half the grace period is made to count as written now, and then lasts half a grace period at
least.

A collection looks at the times with the gate closed. Some promises are made beside the gate, so it looks at each file once more after it
has moved it, and moves back what has become fresh; and whoever renews a file looks afterwards whether it is still there. So either the one
or the other notices. For a blob that a repository holds the link is renewed first, because a collection takes links that nothing needs,
too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.logger import Logger

from regd.names import Digest
from regd.storage import layout
from regd.storage.driver import Driver, Missing, StorageError
from regd.storage.layout import Path

__all__ = ["Promises"]

_NEVER: Final = float("-inf")


class Promises:
    """
    :param grace: for how long a collection leaves alone what nothing refers to, in seconds; ``None`` where the storage is only read, by
        everybody: then nothing is promised, because nothing can be pushed.
    :param now: seconds since the epoch.
    """

    _log = Logger()

    def __init__(self, driver: Driver, grace: float | None, now: Callable[[], float]) -> None:
        self._driver = driver
        self._half = None if grace is None else grace / 2
        self._now = now
        self._told = False

    def since(self) -> float:
        """When something has to have been written, at least, for a promise to hold; in seconds since the epoch."""
        return _NEVER if self._half is None else self._now() - self._half

    async def wanted_since(self) -> float:
        """
        The same for what is about to become reachable. That has to be fresh also in the eyes of a collection that runs now: it may have
        looked already at all that refers to it.
        """
        since = self.since()
        try:
            return max(since, (await self._driver.stat(layout.collecting())).modified)
        except Missing:
            return since

    async def keep(self, digest: Digest, modified: float, since: float, *links: Path) -> bool:
        """
        See to it that content, and links to it, are not older than ``since``.

        :param modified: when the content was written.
        :returns: whether they are still there.
        """
        if modified >= since:
            return True
        try:
            for path in (*links, layout.blob_data(digest)):
                await self._renew(path)
        except Missing:
            return False
        return True

    async def _renew(self, path: Path) -> None:
        try:
            await self._driver.renew(path)
        except StorageError as error:
            # Nobody is refused for it: what is there is there, and a push that takes longer than the grace period is rare.
            if not self._told:
                self._told = True
                self._log.warn(
                    "{error}: a collection may take such a file away from a push that is under way. Make the user that regd runs as the "
                    "owner of all files below the root directory. This is said once.",
                    error=error,
                )
