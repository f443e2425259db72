"""Listings over HTTP, page by page: repositories, tags, referrers."""

from __future__ import annotations

from collections.abc import Callable

from regd.errors import PaginationNumberInvalid
from regd.manifest import OCI_INDEX
from regd.names import Digest, RepositoryName
from regd.registry.catalog import Catalog
from regd.registry.sources import ReferrerSource, TagSource
from regd.web.arguments import argument
from regd.web.request import StreamingRequest
from regd.web.response import Response, json_response
from regd.web.urls import Urls

__all__ = ["ListHandlers"]

#: How many repositories a page has when the client does not say; ``registry:2`` has the same.
_CATALOG_DEFAULT = 100

#: How many referrers a page has. A client cannot ask for another number, so it is large enough that few ever see a second page.
_REFERRERS = 1000


class ListHandlers:
    """
    :param catalog: the repositories that are here.
    :param tags: what tags of one are read from, likewise ``referrers``.
    :param catalog_limit: ``catalog.maxentries``.
    :param tags_limit: ``tags.maxtags``.
    """

    def __init__(
        self, catalog: Catalog, tags: TagSource, referrers: ReferrerSource, urls: Urls, *, catalog_limit: int, tags_limit: int
    ) -> None:
        self._catalog = catalog
        self._tags = tags
        self._referrers = referrers
        self._urls = urls
        self._catalog_limit = catalog_limit
        self._tags_limit = tags_limit

    async def repositories(self, request: StreamingRequest, visible: Callable[[RepositoryName], bool] | None = None) -> Response:
        """
        :param visible: whether the client may see a repository; without it, all.
        :raises PaginationNumberInvalid: when ``n`` is not a number up to ``catalog.maxentries``.
        """
        limit = _number(request)
        if limit is None:
            limit = min(_CATALOG_DEFAULT, self._catalog_limit)
        elif limit > self._catalog_limit:
            raise PaginationNumberInvalid(
                f"invalid number of results requested: n may be {self._catalog_limit} at most", detail={"n": limit}
            )
        page = await self._catalog.page(limit, argument(request, "last") or "", visible)
        return self._page({"repositories": page.entries}, "v2/_catalog", page.last, limit)

    async def tags(self, request: StreamingRequest, name: RepositoryName) -> Response:
        """
        :raises PaginationNumberInvalid: when ``n`` is not a number.
        :raises NameUnknown: when there is no such repository.
        """
        limit = _number(request)
        limit = self._tags_limit if limit is None else min(limit, self._tags_limit)
        page = await self._tags.page(name, limit, argument(request, "last") or "")
        return self._page({"name": name, "tags": page.entries}, f"v2/{name}/tags/list", page.last, limit)

    async def referrers(self, request: StreamingRequest, name: RepositoryName, digest: Digest) -> Response:
        """An index of the manifests whose subject is ``digest``; empty where there are none."""
        artifact_type = argument(request, "artifactType")
        page = await self._referrers.page(name, digest, _REFERRERS, argument(request, "last") or "", artifact_type)
        document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry.to_json() for entry in page.entries]}
        headers = {"Content-Type": OCI_INDEX}
        query: dict[str, str] = {}
        if artifact_type is not None:
            headers["OCI-Filters-Applied"] = "artifactType"
            query["artifactType"] = artifact_type
        if page.last:
            headers["Link"] = self._urls.next_page(f"v2/{name}/referrers/{digest}", {"last": page.last, **query})
        return json_response(200, document, headers)

    def _page(self, document: object, path: str, last: str, limit: int) -> Response:
        headers = {"Link": self._urls.next_page(path, {"last": last, "n": str(limit)})} if last else {}
        return json_response(200, document, headers)


def _number(request: StreamingRequest) -> int | None:
    """The ``n`` of a request; ``None`` where it is absent."""
    given = argument(request, "n")
    if given is None:
        return None
    if not (given.isascii() and given.isdigit() and len(given) < 10):
        raise PaginationNumberInvalid(f"invalid number of results requested: n is {given[:32]!r}", detail={"n": given[:32]})
    return int(given)
