"""Manifests over HTTP: negotiated, conditional, pushed, deleted."""

from __future__ import annotations

from regd.errors import ManifestTooLarge, ManifestUnknown, TagInvalid, TooManyTags, Unsupported
from regd.manifest import INDEXES, LIMIT, OCI_IMAGE, OCI_INDEX
from regd.names import Digest, Reference, RepositoryName, Tag, parse_reference
from regd.registry.manifests import Manifests, StoredManifest
from regd.registry.sources import ManifestSource
from regd.web.accept import Accept
from regd.web.arguments import arguments
from regd.web.blobs import delete_disabled
from regd.web.body import BodyTooLarge, collect
from regd.web.listening import Listener
from regd.web.ranges import none_match
from regd.web.request import StreamingRequest
from regd.web.response import Response
from regd.web.urls import Urls

__all__ = ["ManifestHandlers"]

#: How many ``tag`` parameters one push may carry. The specification asks for ten at least.
MOST_TAGS = 100


class ManifestHandlers:
    """
    :param source: what is read.
    :param manifests: what is pushed to, and deleted from.
    :param deletable: ``storage.delete.enabled``.
    :param listener: who is told of what is done.
    """

    def __init__(
        self, source: ManifestSource, manifests: Manifests, urls: Urls, *, deletable: bool, listener: Listener | None = None
    ) -> None:
        self._source = source
        self._manifests = manifests
        self._urls = urls
        self._deletable = deletable
        self._listener = listener

    async def get(self, request: StreamingRequest, name: RepositoryName, reference: str) -> Response:
        """
        :raises ManifestUnknown: when this repository does not hold it, or holds it in a form only that the client does not take.
        """
        wanted = _existing(reference)
        # Who asks whether it is there goes on to push what needs it; who fetches it does not.
        look = self._source.promise if request.method == b"HEAD" else self._source.get
        stored = await look(name, wanted)
        accept = Accept.of(*request.header_values("accept"))
        if not accept.allows(stored.media_type):
            stored = await self._alternative(name, wanted, stored, accept)
        headers = {"Docker-Content-Digest": stored.digest, "ETag": f'"{stored.digest}"'}
        if none_match(request.getHeader("if-none-match"), headers["ETag"]):
            return Response(304, headers)
        if self._listener is not None:
            self._listener.manifest_pulled(request, name, stored, wanted if isinstance(wanted, Tag) else None)
        return Response(200, {"Content-Type": stored.media_type, **headers}, stored.content)

    async def put(self, request: StreamingRequest, name: RepositoryName, reference: str) -> Response:
        """
        :raises ManifestTooLarge: before the body is read, where its length is known.
        :raises ManifestInvalid: when it is not a manifest.
        :raises ManifestBlobUnknown: when it refers to what is not there.
        :raises DigestInvalid: when ``reference`` is a digest and not this content's.
        """
        wanted = parse_reference(reference)
        tags = _tags(request, wanted)
        try:
            content = await collect(request.body, LIMIT)
        except BodyTooLarge:
            raise ManifestTooLarge(f"manifest too large: it may have {LIMIT} bytes") from None
        digest, manifest = await self._manifests.put(name, wanted, content, request.getHeader("content-type") or "", tags)
        if self._listener is not None:
            given = (wanted,) if isinstance(wanted, Tag) else tags
            await self._listener.manifest_pushed(request, name, digest, manifest, len(content), given)
        location = self._urls.manifest(request, name, digest)
        headers: dict[str, str | tuple[str, ...]] = {"Location": location, "Docker-Content-Digest": digest}
        if manifest.subject is not None:
            headers["OCI-Subject"] = manifest.subject.digest
        if tags:
            headers["OCI-Tag"] = tags
        return Response(201, headers)

    async def delete(self, request: StreamingRequest, name: RepositoryName, reference: str) -> Response:
        """
        :raises Unsupported: where deleting is switched off.
        :raises ManifestUnknown: when this repository does not hold it.
        """
        if not self._deletable:
            raise delete_disabled()
        wanted = _existing(reference)
        if isinstance(wanted, Tag):
            await self._manifests.untag(name, wanted)
            if self._listener is not None:
                await self._listener.tag_deleted(request, name, wanted)
        else:
            await self._manifests.delete(name, wanted)
            if self._listener is not None:
                await self._listener.manifest_deleted(request, name, wanted)
        return Response(202)

    async def _alternative(
        self, name: RepositoryName, wanted: Reference, stored: StoredManifest, accept: Accept
    ) -> StoredManifest:
        """
        What ``registry:2`` sends to a client that does not take what is stored: of an index that was asked for by tag, the image
        for linux/amd64; a Docker image as it is; nothing in place of an OCI manifest.
        """
        if stored.media_type in INDEXES and isinstance(wanted, Tag):
            index = await self._source.read(stored.digest)
            for child in index.manifests if index is not None else ():
                if child.platform is not None and (child.platform.os, child.platform.architecture) == ("linux", "amd64"):
                    found = await self._source.get(name, child.digest)
                    if accept.allows(found.media_type):
                        return found
        if stored.media_type in {OCI_IMAGE, OCI_INDEX}:
            raise ManifestUnknown(
                f"the manifest is of type {stored.media_type}, which the Accept of this request does not list",
                detail={"mediaType": stored.media_type},
            )
        return stored


def _existing(reference: str) -> Reference:
    """
    What a reference asks for that has to be there.

    :raises ManifestUnknown: for what is no tag, since there can be no manifest under it; the specification's conformance tests ask so.
    """
    try:
        return parse_reference(reference)
    except TagInvalid as error:
        raise ManifestUnknown(f"manifest unknown: {error.message}", detail=error.detail) from None


def _tags(request: StreamingRequest, reference: Reference) -> tuple[Tag, ...]:
    given = arguments(request, "tag")
    if not given:
        return ()
    if not isinstance(reference, Digest):
        raise Unsupported("'tag' parameters go with a push by digest, not by tag", headers={"Allow": "GET, HEAD, PUT, DELETE"})
    if len(given) > MOST_TAGS:
        raise TooManyTags(f"one push may carry {MOST_TAGS} tags, this one has {len(given)}")
    return tuple(dict.fromkeys(Tag.parse(tag) for tag in given))
