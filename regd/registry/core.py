"""One registry: its parts, put together over one storage."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from regd.maintenance.gate import Gate
from regd.names import Digest, RepositoryName
from regd.pace import Sleep
from regd.registry.blobs import Blob, Blobs
from regd.registry.catalog import Catalog
from regd.registry.manifests import Manifests
from regd.registry.promises import Promises
from regd.registry.referrers import Referrers
from regd.registry.rules import ManifestRules
from regd.registry.tags import Tags
from regd.registry.uploads import Uploads
from regd.storage.damage import Damage
from regd.storage.driver import Driver
from regd.storage.links import Links

__all__ = ["Registry"]


class Registry:
    """
    :param driver: the storage, started.
    :param damage: told of each broken file that is met.
    :param rules: what manifests have to fulfil.
    :param now: seconds since the epoch.
    :param sleep: waits, and with 0 gives the event loop a turn in long loops.
    :param gate: passed by changes to what is reachable.
    :param grace: for how long a collection leaves alone what nothing refers to, in seconds; ``None`` where the storage is only read.
    """

    def __init__(
        self,
        driver: Driver,
        damage: Damage,
        rules: ManifestRules,
        now: Callable[[], float],
        sleep: Sleep,
        gate: Gate,
        grace: float | None,
    ) -> None:
        breathe = partial(sleep, 0)
        links = Links(driver, damage)
        promises = Promises(driver, grace, now)
        self.blobs = Blobs(driver, links, damage, gate, promises)
        self.uploads = Uploads(driver, self.blobs, damage, now, sleep)
        self.manifests = Manifests(driver, links, self.blobs, damage, gate, promises, rules, breathe)
        self.tags = Tags(driver, links, damage, breathe)
        self.referrers = Referrers(driver, self.manifests, breathe)
        self.catalog = Catalog(driver, breathe)

    async def mount(
        self,
        name: RepositoryName,
        digest: Digest,
        source: RepositoryName | None,
        readable: Callable[[RepositoryName], bool] | None = None,
    ) -> Blob | None:
        """
        Make a blob of another repository one of ``name`` without sending it again (specification 1.1, "Mounting a blob").

        :param source: the repository that holds it; ``None`` for any that does.
        :param readable: whether the client may read a repository; without it, all.
        :returns: ``None`` when no repository that the client may read holds it.
        """
        if source is not None:
            return await self.blobs.mount(name, digest, source) if readable is None or readable(source) else None
        if await self.blobs.stored(digest) is None:
            # The usual answer, without a walk.
            return None
        async for candidate in self.catalog.candidates():
            if readable is None or readable(candidate):
                blob = await self.blobs.mount(name, digest, candidate)
                if blob is not None:
                    return blob
        return None
