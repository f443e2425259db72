"""What answers for a repository that somebody may not know of: a registry that has nothing, so that nobody can tell the two apart."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from twisted.internet.defer import succeed

from regd.config import Config
from regd.maintenance.gate import Gate
from regd.registry.core import Registry
from regd.service.parts import manifest_rules
from regd.storage.damage import Damage
from regd.storage.memory import MemoryDriver
from regd.web.blobs import BlobHandlers
from regd.web.lists import ListHandlers
from regd.web.manifests import ManifestHandlers
from regd.web.response import Response
from regd.web.urls import Urls

__all__ = ["absent_of", "lists_of"]

#: As the routes have it.
_Handler = Callable[..., Awaitable[Response]]


# Any: a registry, or the cache before one, which answers alike.
def lists_of(config: Config, registry: Registry, source: Any, urls: Urls) -> ListHandlers:
    """What answers with lists, as a configuration wants them."""
    catalog, tags = config.catalog.maxentries, config.tags.maxtags
    return ListHandlers(registry.catalog, source.tags, source.referrers, urls, catalog_limit=catalog, tags_limit=tags)


def absent_of(
    config: Config, blobs: BlobHandlers, manifests: ManifestHandlers, lists: ListHandlers, urls: Urls
) -> Mapping[_Handler, _Handler]:
    """For each handler that reads from a repository, the one of a registry that has nothing."""
    driver = MemoryDriver()
    # Nobody changes anything in it, so nobody waits.
    gate = Gate(driver, lambda seconds: succeed(None), 0.0, time.monotonic)
    empty = Registry(driver, Damage(), manifest_rules(config), time.time, lambda seconds: succeed(None), gate, None)
    nothing = lists_of(config, empty, empty, urls)
    return {
        blobs.get: BlobHandlers(empty.blobs, empty.blobs, deletable=False).get,
        manifests.get: ManifestHandlers(empty.manifests, empty.manifests, urls, deletable=False).get,
        lists.tags: nothing.tags,
        lists.referrers: nothing.referrers,
    }
