"""Uploads over HTTP: begun, continued, finished, cancelled; blobs mounted."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

from regd.errors import DigestInvalid, NameInvalid, RangeInvalid, SizeInvalid
from regd.names import CANONICAL, Digest, RepositoryName
from regd.registry.core import Registry
from regd.registry.uploads import Upload, UploadRangeInvalid
from regd.web.arguments import argument
from regd.web.guard import Guard
from regd.web.listening import Listener
from regd.web.ranges import parse_content_range
from regd.web.request import StreamingRequest
from regd.web.response import Response
from regd.web.state import StateSigner
from regd.web.urls import Urls

__all__ = ["UploadHandlers"]

T = TypeVar("T")


class UploadHandlers:
    """
    Answers requests about uploads.

    :param listener: who is told of what is done.
    :param guard: who says what may be mounted from where; where there is nobody, everything may.
    """

    def __init__(
        self, registry: Registry, urls: Urls, signer: StateSigner, listener: Listener | None = None, guard: Guard | None = None
    ) -> None:
        self._registry = registry
        self._uploads = registry.uploads
        self._urls = urls
        self._signer = signer
        self._listener = listener
        self._guard = guard

    async def start(self, request: StreamingRequest, name: RepositoryName) -> Response:
        """
        ``mount`` links a blob that is there already; ``digest`` with a body makes the blob of this one request; else an upload begins.

        :raises DigestInvalid: when ``digest`` is not one, or the body has another.
        """
        mount = argument(request, "mount")
        if mount is not None:
            mounted = await self._mount(request, name, mount)
            if mounted is not None:
                return mounted
        wanted = argument(request, "digest")
        digest = None if wanted is None else Digest.parse(wanted)
        # registry:2 ignores a digest here, so some of its clients give one and send the content later. Nothing, too, has a digest.
        if digest is not None and (request.body.length != 0 or digest == Digest.of(b"", digest.algorithm)):
            upload = await self._uploads.start(name, digest.algorithm)
            try:
                stored = await self._uploads.finish(upload, digest, request.body)
            except DigestInvalid:
                raise
            except BaseException:
                # Nobody knows of this upload, so nobody can go on with it.
                await self._uploads.discard(upload)
                raise
            return await self._pushed(request, name, stored)
        upload = await self._uploads.start(name, argument(request, "digest-algorithm") or CANONICAL)
        return self._accepted(request, upload, 202)

    async def status(self, request: StreamingRequest, name: RepositoryName, upload: str) -> Response:
        """
        :raises BlobUploadUnknown: when there is no such upload.
        """
        return self._accepted(request, await self._uploads.find(name, upload), 204)

    async def append(self, request: StreamingRequest, name: RepositoryName, upload: str) -> Response:
        """
        :raises BlobUploadUnknown: when there is no such upload.
        :raises RangeInvalid: with where it stands, when the chunk does not begin there.
        """
        found = await self._uploads.find(name, upload)
        offset = self._offset(request, found)
        return self._accepted(request, await self._in_order(request, self._uploads.append(found, request.body, offset=offset)), 202)

    async def finish(self, request: StreamingRequest, name: RepositoryName, upload: str) -> Response:
        """
        :raises BlobUploadUnknown: when there is no such upload.
        :raises DigestInvalid: without a digest, or when the content has another.
        :raises RangeInvalid: with where it stands, when the chunk does not begin there.
        """
        found = await self._uploads.find(name, upload)
        wanted = argument(request, "digest")
        if wanted is None:
            raise DigestInvalid("the 'digest' parameter is missing: it says what the uploaded content has to be")
        digest = Digest.parse(wanted)
        offset = self._offset(request, found)
        body = None if request.body.length == 0 else request.body
        return await self._pushed(request, name, await self._in_order(request, self._uploads.finish(found, digest, body, offset=offset)))

    async def cancel(self, request: StreamingRequest, name: RepositoryName, upload: str) -> Response:
        """
        :raises BlobUploadUnknown: when there is no such upload.
        """
        found = await self._uploads.find(name, upload)
        await self._uploads.cancel(found)
        return Response(204, {"Docker-Upload-UUID": found.id})

    async def _mount(self, request: StreamingRequest, name: RepositoryName, mount: str) -> Response | None:
        """What cannot be mounted is uploaded (specification 1.1, "Mounting a blob from another repository")."""
        source = argument(request, "from")
        try:
            digest, from_name = Digest.parse(mount), None if source is None else RepositoryName.parse(source)
        except (DigestInvalid, NameInvalid):
            return None
        if self._guard is not None and (from_name is None or not await self._guard.may_pull(request, from_name)):
            # Who names no source would be given a blob of anybody's, and whether there is one is nobody's business.
            return None
        blob = await self._registry.mount(name, digest, from_name)
        if blob is None:
            return None
        if self._listener is not None:
            await self._listener.blob_mounted(request, name, digest, blob.size, from_name)
        return self._created(request, name, digest)

    async def _pushed(self, request: StreamingRequest, name: RepositoryName, digest: Digest) -> Response:
        if self._listener is not None and self._listener.wants("push"):
            # It may be deleted at once by somebody else, which does not make the push a failure.
            blob = await self._registry.blobs.find(name, digest)
            await self._listener.blob_pushed(request, name, digest, 0 if blob is None else blob.size)
        return self._created(request, name, digest)

    def _offset(self, request: StreamingRequest, upload: Upload) -> int | None:
        """Where the client says that its chunk begins: in ``Content-Range``, else in the URL that it was given."""
        stated = self._signer.offset(argument(request, "_state"), upload.name, upload.id, request.user_name)
        header = request.getHeader("content-range")
        if header is None:
            return stated
        span = parse_content_range(header)
        if span is None:
            raise RangeInvalid(f"Content-Range has to be <first>-<last>, not {header[:80]!r}", headers=self._standing(request, upload))
        length = request.body.length
        if length is not None and length != span[1] - span[0] + 1:
            raise SizeInvalid(f"Content-Range speaks of {span[1] - span[0] + 1} bytes, Content-Length of {length}")
        return span[0]

    async def _in_order(self, request: StreamingRequest, change: Awaitable[T]) -> T:
        """A chunk out of order is told where the upload stands, so that the client can go on from there."""
        try:
            return await change
        except UploadRangeInvalid as error:
            raise RangeInvalid(error.message, headers=self._standing(request, error.upload)) from None

    def _standing(self, request: StreamingRequest, upload: Upload) -> dict[str, str]:
        return {
            "Location": self._urls.upload(request, upload.name, upload.id, self._signer.sign(upload, request.user_name)),
            # registry:2 says 0-0 of an empty upload too, and clients know it.
            "Range": f"0-{max(upload.size - 1, 0)}",
            "Docker-Upload-UUID": upload.id,
        }

    def _accepted(self, request: StreamingRequest, upload: Upload, status: int) -> Response:
        return Response(status, self._standing(request, upload))

    def _created(self, request: StreamingRequest, name: RepositoryName, digest: Digest) -> Response:
        return Response(201, {"Location": self._urls.blob(request, name, digest), "Docker-Content-Digest": digest})
