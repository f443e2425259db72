"""Blobs over HTTP: whole, in ranges, conditional, deleted."""

from __future__ import annotations

import secrets
from typing import Final

from regd.errors import RangeInvalid, Unsupported
from regd.names import Digest, RepositoryName
from regd.registry.blobs import Blobs
from regd.storage.driver import Content
from regd.web.ranges import ByteRange, Unsatisfiable, if_range_allows, multipart, none_match, parse_range
from regd.web.request import StreamingRequest
from regd.web.response import ContentBody, Response

__all__ = ["BlobHandlers"]

_MEDIA_TYPE: Final = "application/octet-stream"

#: A blob never changes under its digest: a year, which is the most that caches take.
_CACHE_CONTROL: Final = "max-age=31536000"


class BlobHandlers:
    """
    :param deletable: ``storage.delete.enabled``.
    """

    def __init__(self, blobs: Blobs, *, deletable: bool) -> None:
        self._blobs = blobs
        self._deletable = deletable

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
        look = self._blobs.promise if request.method == b"HEAD" else self._blobs.stat
        if none_match(request.getHeader("if-none-match"), etag):
            await look(name, digest)
            return Response(304, headers)
        headers["Content-Type"] = _MEDIA_TYPE
        if request.method == b"HEAD":
            blob = await look(name, digest)
            return Response(200, headers, blob.size)
        blob, content = await self._blobs.fetch(name, digest)
        try:
            wanted = request.getHeader("range")
            if wanted is not None and not if_range_allows(request.getHeader("if-range"), etag):
                wanted = None
            return _ranges(parse_range(wanted, blob.size), blob.size, headers, content)
        except Unsatisfiable:
            if not isinstance(content, bytes):
                content.close()
            raise RangeInvalid(
                f"the blob has {blob.size} bytes, none of which was asked for",
                headers={"Content-Range": f"bytes */{blob.size}", "Docker-Content-Digest": digest, "Accept-Ranges": "bytes"},
            ) from None

    async def delete(self, request: StreamingRequest, name: RepositoryName, digest: Digest) -> Response:
        """
        :raises Unsupported: where deleting is switched off.
        :raises BlobUnknown: when this repository does not hold it.
        """
        if not self._deletable:
            raise delete_disabled()
        await self._blobs.delete(name, digest)
        return Response(202)


def delete_disabled() -> Unsupported:
    """Deleting is switched off."""
    return Unsupported("deleting is switched off here (storage.delete.enabled)", headers={"Allow": "GET, HEAD"})


def _ranges(ranges: tuple[ByteRange, ...] | None, size: int, headers: dict[str, str], content: Content | bytes) -> Response:
    if ranges is None:
        return Response(200, headers, _body(content, ((b"", ByteRange(0, size)),)))
    if len(ranges) == 1:
        headers["Content-Range"] = ranges[0].content_range(size)
        return Response(206, headers, _body(content, ((b"", ranges[0]),)))
    boundary = secrets.token_hex(16)
    parts, tail = multipart(ranges, size, _MEDIA_TYPE, boundary)
    headers["Content-Type"] = f"multipart/byteranges; boundary={boundary}"
    return Response(206, headers, _body(content, parts, tail))


def _body(content: Content | bytes, parts: tuple[tuple[bytes, ByteRange], ...], tail: bytes = b"") -> ContentBody | bytes:
    if not isinstance(content, bytes):
        return ContentBody(content, parts, tail)
    return b"".join([*(text + content[part.start : part.start + part.length] for text, part in parts), tail])
