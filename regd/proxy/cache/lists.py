"""
Lists of cached repositories: their tags, and the manifests that are about another one. What an upstream says is passed on; what is here is
told where it cannot be asked. Which repositories there are is told of this registry alone: upstreams seldom say, and have many.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Protocol, TypeAlias

from twisted.logger import Logger

from regd.errors import ManifestInvalid, NameUnknown
from regd.manifest import Descriptor, parse
from regd.names import Digest, RepositoryName, Tag
from regd.proxy.cache.origins import Origin, Origins
from regd.proxy.cache.refusals import refusal
from regd.proxy.remote.errors import Denied, NotThere, RemoteError, Wrong
from regd.proxy.remote.values import RemoteManifest, TagPage
from regd.registry.pages import Page
from regd.registry.referrers import PAGE_BYTES
from regd.registry.sources import ReferrerSource, TagSource
from regd.storage import layout
from regd.storage.driver import Driver

__all__ = ["CachedReferrers", "CachedTags", "ListOrigin", "ListRemote"]


class ListRemote(Protocol):
    """
    What :class:`regd.proxy.remote.Remote` does, as far as lists go. Every method may raise
    :class:`~regd.proxy.remote.errors.RemoteError`.
    """

    @property
    def resting(self) -> float:
        """For how many seconds it does not want to be asked; what is asked meanwhile fails at once."""

    async def tags(self, name: str, n: int | None, last: str) -> TagPage:
        """Up to ``n`` tags after ``last``."""

    async def referrers(self, name: str, digest: Digest, artifact_type: str | None) -> RemoteManifest:
        """An index of the manifests whose subject is ``digest``; it may have others than those of ``artifact_type``."""


#: For annotations: an :class:`Origin` is made by its own name.
ListOrigin: TypeAlias = Origin[ListRemote]


class CachedTags:
    """
    A :class:`~regd.registry.sources.TagSource`.

    :param local: the tags that are here.
    """

    _log = Logger()

    def __init__(self, local: TagSource, origins: Origins[ListRemote], driver: Driver) -> None:
        self._local = local
        self._origins = origins
        self._driver = driver

    async def page(self, name: RepositoryName, limit: int, last: str = "") -> Page[Tag]:
        """
        As :meth:`regd.registry.tags.Tags.page`, in the order that the upstream has.

        :raises NameUnknown: when there is no such repository, there or here.
        :raises RegistryError: when the upstream cannot be asked, and there is no such repository here.
        """
        origin = self._origins(name)
        if origin is None:
            return await self._local.page(name, limit, last)
        try:
            found = await origin.remote.tags(origin.name, limit, last)
        except Denied as error:
            raise refusal(error, origin.url, NameUnknown(detail={"name": name})) from None
        except RemoteError as error:
            if isinstance(error, NotThere) and await self._driver.exists(layout.cached_root(name)):
                # What is left of it here came from there.
                raise NameUnknown(detail={"name": name}) from None
            try:
                page = await self._local.page(name, limit, last)
            except NameUnknown as unknown:
                raise refusal(error, origin.url, unknown) from None
            self._log.info("the tags of {name} are told from what is here: {error}", name=name, error=error)
            return page
        return Page(tuple(map(Tag, found.tags)), found.last or "")


class CachedReferrers:
    """
    A :class:`~regd.registry.sources.ReferrerSource`.

    :param local: those that are here.
    """

    _log = Logger()

    def __init__(self, local: ReferrerSource, origins: Origins[ListRemote]) -> None:
        self._local = local
        self._origins = origins

    async def page(
        self, name: RepositoryName, subject: Digest, limit: int, last: str = "", artifact_type: str | None = None
    ) -> Page[Descriptor]:
        """
        As :meth:`regd.registry.referrers.Referrers.page`.

        :raises RegistryError: when the upstream cannot be asked, and there are none here: nobody is told that there are no signatures who
            might be told which there are.
        """
        origin = self._origins(name)
        if origin is None:
            return await self._local.page(name, subject, limit, last, artifact_type)
        try:
            return _page(await self._ask(origin, subject, artifact_type), limit, last, artifact_type)
        except Denied as error:
            raise refusal(error, origin.url, NameUnknown(detail={"name": name})) from None
        except RemoteError as error:
            page = await self._local.page(name, subject, limit, last, artifact_type)
            if isinstance(error, NotThere):
                # Those that were pushed here.
                return page
            if not page.entries and not last:
                raise refusal(error, origin.url, NameUnknown(detail={"name": name})) from None
            self._log.info("the referrers of {name}@{subject} are told from what is here: {error}", name=name, subject=subject, error=error)
            return page

    async def _ask(self, origin: ListOrigin, subject: Digest, artifact_type: str | None) -> tuple[Descriptor, ...]:
        """
        :raises RemoteError: when the upstream does not say.
        """
        found = await origin.remote.referrers(origin.name, subject, artifact_type)
        try:
            return parse(found.content, found.media_type).manifests
        except ManifestInvalid as error:
            raise Wrong(f"{origin.url}: its list of referrers of {origin.name}@{subject} is none: {error.message}") from None


def _page(found: Iterable[Descriptor], limit: int, last: str, artifact_type: str | None) -> Page[Descriptor]:
    """
    Part of all that there are, in the order of their digests.

    :param last: those after this digest.
    """
    wanted = {one.digest: one for one in found if one.digest > last and (artifact_type is None or one.artifact_type == artifact_type)}
    entries: list[Descriptor] = []
    size = 0
    for digest in sorted(wanted):
        size += len(json.dumps(wanted[digest].to_json()))
        if len(entries) == limit or (entries and size > PAGE_BYTES):
            return Page(tuple(entries), entries[-1].digest if entries else "")
        entries.append(wanted[digest])
    return Page(tuple(entries))
