"""Blobs over HTTP: whole, in ranges, conditional, deleted."""

from __future__ import annotations

import secrets
from typing import Final

from regd.errors import RangeInvalid, Unsupported
from regd.names import Digest, RepositoryName
from regd.registry.blobs import Blobs
from regd.registry.sources import BlobSource
from regd.storage.driver import Content
from regd.web.listening import Listener
from regd.web.ranges import ByteRange, Unsatisfiable, if_range_allows, multipart, none_match, parse_range
from regd.web.request import StreamingRequest
from regd.web.response import ContentBody, Response

__all__ = ["BlobHandlers"]

_MEDIA_TYPE: Final = "application/octet-stream"

#: A blob never changes under its digest: a year, which is the most that caches take.
_CACHE_CONTROL: Final = "max-age=31536000"


class BlobHandlers:
    """
    :param source: what is read.
    :param blobs: what is deleted from.
    :param deletable: ``storage.delete.enabled``.
    :param listener: who is told of what is done.
    """

    def __init__(self, source: BlobSource, blobs: Blobs, *, deletable: bool, listener: Listener | None = None) -> None:
        self._source = source
        self._blobs = blobs
        self._deletable = deletable
        self._listener = listener

    async def get(self, request: StreamingRequest, name: RepositoryName, digest: Digest) -> Response:
        """
        :raises BlobUnknown: when this repository does not hold it.
        :raises RangeInvalid: when none of the ranges asked for is in it.
        """
        etag = f'"{digest}"'
        headers = {
            "Docker-Content-Digest": digest,
            "ETag": etag,
            "Cache-Control": _CACHE_CONTROL,
            "Accept-Ranges": "bytes",
        }
        # Who asks whether it is there goes on to push what needs it; who fetches it does not.
        look = self._source.promise if request.method == b"HEAD" else self._source.stat
        if none_match(request.getHeader("if-none-match"), etag):
            await look(name, digest)
            return Response(304, headers)
        headers["Content-Type"] = _MEDIA_TYPE
        if request.method == b"HEAD":
            blob = await look(name, digest)
            if self._listener is not None:
                self._listener.blob_pulled(request, name, digest, blob.size)
            return Response(200, headers, blob.size)
        wanted = request.getHeader("range")
        if wanted is not None and if_range_allows(request.getHeader("if-range"), etag):
            size = (await look(name, digest)).size
            ranges = _parse_range(wanted, size, digest)
            if ranges is not None:
                # What is not here yet need not be fetched for that.
                start, end = min(part.start for part in ranges), max(part.start + part.length for part in ranges)
                content = await self._source.open(name, digest, start, end)
                if self._listener is not None:
                    self._listener.blob_pulled(request, name, digest, size)
                return _ranges(ranges, size, headers, content)
        blob, found = await self._source.fetch(name, digest)
        if self._listener is not None:
            self._listener.blob_pulled(request, name, digest, blob.size)
        return Response(200, headers, found if isinstance(found, bytes) else ContentBody(found, ((b"", ByteRange(0, blob.size)),)))

    async def delete(self, request: StreamingRequest, name: RepositoryName, digest: Digest) -> Response:
        """
        :raises Unsupported: where deleting is switched off.
        :raises BlobUnknown: when this repository does not hold it.
        """
        if not self._deletable:
            raise delete_disabled()
        await self._blobs.delete(name, digest)
        if self._listener is not None:
            await self._listener.blob_deleted(request, name, digest)
        return Response(202)


def delete_disabled() -> Unsupported:
    """Deleting is switched off."""
    return Unsupported("deleting is switched off here (storage.delete.enabled)", headers={"Allow": "GET, HEAD"})


def _parse_range(wanted: str, size: int, digest: Digest) -> tuple[ByteRange, ...] | None:
    """
    As :func:`~regd.web.ranges.parse_range`.

    :raises RangeInvalid: when none of the ranges is in the blob.
    """
    try:
        return parse_range(wanted, size)
    except Unsatisfiable:
        raise RangeInvalid(
            f"the blob has {size} bytes, none of which was asked for",
            headers={"Content-Range": f"bytes */{size}", "Docker-Content-Digest": digest, "Accept-Ranges": "bytes"},
        ) from None


def _ranges(ranges: tuple[ByteRange, ...], size: int, headers: dict[str, str], content: Content) -> Response:
    if len(ranges) == 1:
        headers["Content-Range"] = ranges[0].content_range(size)
        return Response(206, headers, ContentBody(content, ((b"", ranges[0]),)))
    boundary = secrets.token_hex(16)
    parts, tail = multipart(ranges, size, _MEDIA_TYPE, boundary)
    headers["Content-Type"] = f"multipart/byteranges; boundary={boundary}"
    return Response(206, headers, ContentBody(content, parts, tail))
