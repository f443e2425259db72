"""
What came from an upstream, and when it was last used.

Both is one empty file for each blob or manifest of a repository, ``_cache/<alg>/<hex>``: that it is there says that the content can be had
again, and its time is that of the last use, to the hour. So every process sees it, a restart forgets nothing, and eviction
(:mod:`regd.maintenance`) need not ask anybody.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from regd.names import Digest, RepositoryName
from regd.storage import layout
from regd.storage.driver import Driver, Missing, StorageError

__all__ = ["HOUR", "Uses"]

#: How old the time of the last use may be, in seconds, before it is renewed.
HOUR: Final = 3600.0

#: Of how many blobs and manifests a process remembers when it last looked; some 400 bytes each.
_REMEMBERED: Final = 4096


class Uses:
    """
    :param now: seconds since the epoch.
    """

    _log = Logger()

    def __init__(self, driver: Driver, now: Callable[[], float]) -> None:
        self._driver = driver
        self._now = now
        #: When each was last seen to have been used, in seconds since the epoch.
        self._seen: OrderedDict[tuple[RepositoryName, Digest], float] = OrderedDict()
        self._told = False

    async def mark(self, name: RepositoryName, digest: Digest) -> None:
        """
        Note that this content of a repository is its upstream's, and is used now. Called before the content is there, so that no crash
        leaves content without its mark; a mark without content does no harm.

        :raises StorageError: when it cannot be noted.
        """
        await self._driver.write((layout.cached(name, digest), b""), durable=False)
        self._remember((name, digest), self._now())

    async def marked(self, name: RepositoryName, digest: Digest) -> bool:
        """Whether this content came from an upstream."""
        return await self._driver.exists(layout.cached(name, digest))

    def note(self, name: RepositoryName, digest: Digest) -> None:
        """It is used now. Waits for nothing, and that it cannot be written down is no failure."""
        key = (name, digest)
        now = self._now()
        # A clock that was set back counts as an hour that has passed.
        if 0 <= now - self._seen.get(key, -HOUR) < HOUR:
            return
        self._remember(key, now)
        Deferred.fromCoroutine(self._renew(name, digest, now))

    async def _renew(self, name: RepositoryName, digest: Digest, now: float) -> None:
        path = layout.cached(name, digest)
        try:
            used = (await self._driver.stat(path)).modified
            if 0 <= now - used < HOUR:
                self._remember((name, digest), used)
            else:
                await self._driver.renew(path)
        except Missing:
            # It was pushed here, or is being evicted.
            return
        except StorageError as error:
            if not self._told:
                self._told = True
                self._log.warn("{error}: its last use is not noted, so it may be evicted early. This is said once.", error=error)

    def _remember(self, key: tuple[RepositoryName, Digest], when: float) -> None:
        self._seen[key] = when
        self._seen.move_to_end(key)
        if len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
