"""The routes of the registry's API: a table of contents. Each handler's work is done by the module named after its noun."""

# Klein's decorators are typed for functions that take a request and nothing else, so ``app`` is Any and its decorators untyped.
# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from klein import Klein
from twisted.python.failure import Failure
from twisted.web.resource import IResource
from werkzeug.exceptions import HTTPException
from werkzeug.routing import BaseConverter

from regd.auth.users import Action
from regd.errors import RegistryError, Unsupported
from regd.names import Digest, RepositoryName
from regd.web.blobs import BlobHandlers
from regd.web.dispatch import Dispatcher
from regd.web.guard import Guard
from regd.web.limits import UploadSlots
from regd.web.lists import ListHandlers
from regd.web.manifests import ManifestHandlers
from regd.web.namespaces import Namespaces, local_name
from regd.web.request import StreamingRequest
from regd.web.response import Response
from regd.web.routes import Routes
from regd.web.tokens import TokenHandlers
from regd.web.uploads import UploadHandlers

__all__ = ["Api"]


#: Few repositories are asked for most of the time.
_parse_name = functools.lru_cache(maxsize=2048)(RepositoryName.parse)


class _NameConverter(BaseConverter):
    """A repository's name, which spans segments."""

    regex = "[^/].*?"
    part_isolating = False

    def to_python(self, value: str) -> RepositoryName:
        """
        :raises NameInvalid: which becomes the answer.
        """
        return _parse_name(value)


class _DigestConverter(BaseConverter):
    """A digest."""

    def to_python(self, value: str) -> Digest:
        """
        :raises DigestInvalid: which becomes the answer.
        """
        return Digest.parse(value)


_Handler = Callable[..., Awaitable[Response]]

#: What a read-only registry still does, for the ``Allow`` of its refusals (RFC 9110, section 15.5.6).
_READ_METHODS: Final = {"Allow": "GET, HEAD"}


class Api:
    """
    :param readonly: whether writes are refused now.
    :param namespaces: what names mean, where some repositories are those of other registries.
    :param guard: who asks who asks; nobody where everybody may do everything.
    :param slots: how many may upload at once; any number, if nobody says.
    :param absent: for each handler that reads from a repository, what answers in its place to somebody who may not know of it.
    """

    app: Any = Klein()
    app.url_map.converters.update(name=_NameConverter, digest=_DigestConverter)
    # A path with "//" in it is nobody's, rather than a redirect to somebody's.
    app.url_map.merge_slashes = False

    def __init__(
        self,
        dispatcher: Dispatcher,
        blobs: BlobHandlers,
        uploads: UploadHandlers,
        manifests: ManifestHandlers,
        lists: ListHandlers,
        tokens: TokenHandlers,
        readonly: Callable[[], bool],
        namespaces: Namespaces | None = None,
        guard: Guard | None = None,
        absent: Mapping[_Handler, _Handler] = MappingProxyType({}),
        slots: UploadSlots | None = None,
    ) -> None:
        self._dispatcher = dispatcher
        self._blobs = blobs
        self._uploads = uploads
        limited = (slots or UploadSlots(0)).limited
        self._start, self._append, self._finish = limited(uploads.start), limited(uploads.append), limited(uploads.finish)
        self._put_manifest = limited(manifests.put)
        self._manifests = manifests
        self._lists = lists
        self._tokens = tokens
        self._readonly = readonly
        self._namespaces = namespaces
        self._guard = guard
        self._absent = absent

    def resource(self) -> Routes:
        """What serves the routes."""
        return Routes(self.app)

    # The base

    @app.route("/", methods=["GET"])
    def alive(self, request: StreamingRequest) -> IResource:
        """Nothing, for load balancers: ``registry:2`` has the same."""
        return self._read(lambda: _ready(Response(200, {"Cache-Control": "no-cache"})))

    @app.route("/v2/", methods=["GET"])
    def base(self, request: StreamingRequest) -> IResource:
        """Whether this is a registry (specification 1.1, end-1)."""
        return self._read(self._ask_base, request)

    # Blobs

    @app.route("/v2/<name:name>/blobs/<digest:digest>", methods=["GET"])
    def get_blob(self, request: StreamingRequest, name: RepositoryName, digest: Digest) -> IResource:
        """The bytes of a blob, or some of them (end-2)."""
        return self._read_from(self._blobs.get, request, name, digest)

    @app.route("/v2/<name:name>/blobs/<digest:digest>", methods=["DELETE"])
    def delete_blob(self, request: StreamingRequest, name: RepositoryName, digest: Digest) -> IResource:
        """Take a blob out of a repository (end-10)."""
        return self._write_to(self._blobs.delete, request, name, digest, action="delete")

    # Uploads

    @app.route("/v2/<name:name>/blobs/uploads/", methods=["POST"], strict_slashes=False)
    def start_upload(self, request: StreamingRequest, name: RepositoryName) -> IResource:
        """Begin an upload, or have the blob at once: sent along, or mounted (end-4a, end-4b, end-11)."""
        return self._write_to(self._start, request, name)

    @app.route("/v2/<name:name>/blobs/uploads/<upload>", methods=["GET"])
    def upload_status(self, request: StreamingRequest, name: RepositoryName, upload: str) -> IResource:
        """Where an upload stands (end-13)."""
        return self._read_from(self._uploads.status, request, name, upload, action="push")

    @app.route("/v2/<name:name>/blobs/uploads/<upload>", methods=["PATCH"])
    def append_upload(self, request: StreamingRequest, name: RepositoryName, upload: str) -> IResource:
        """More of a blob (end-5)."""
        return self._write_to(self._append, request, name, upload)

    @app.route("/v2/<name:name>/blobs/uploads/<upload>", methods=["PUT"])
    def finish_upload(self, request: StreamingRequest, name: RepositoryName, upload: str) -> IResource:
        """The rest of a blob, and its digest (end-6)."""
        return self._write_to(self._finish, request, name, upload)

    @app.route("/v2/<name:name>/blobs/uploads/<upload>", methods=["DELETE"])
    def cancel_upload(self, request: StreamingRequest, name: RepositoryName, upload: str) -> IResource:
        """Give an upload up (end-14)."""
        return self._write_to(self._uploads.cancel, request, name, upload)

    # Manifests

    @app.route("/v2/<name:name>/manifests/<reference>", methods=["GET"])
    def get_manifest(self, request: StreamingRequest, name: RepositoryName, reference: str) -> IResource:
        """A manifest, by tag or digest (end-3)."""
        return self._read_from(self._manifests.get, request, name, reference)

    @app.route("/v2/<name:name>/manifests/<reference>", methods=["PUT"])
    def put_manifest(self, request: StreamingRequest, name: RepositoryName, reference: str) -> IResource:
        """Push a manifest (end-7)."""
        return self._write_to(self._put_manifest, request, name, reference)

    @app.route("/v2/<name:name>/manifests/<reference>", methods=["DELETE"])
    def delete_manifest(self, request: StreamingRequest, name: RepositoryName, reference: str) -> IResource:
        """Delete a manifest, or a tag (end-9)."""
        return self._write_to(self._manifests.delete, request, name, reference, action="delete")

    # Lists

    @app.route("/v2/_catalog", methods=["GET"])
    def list_repositories(self, request: StreamingRequest) -> IResource:
        """The repositories."""
        return self._read(self._list_repositories, request)

    @app.route("/v2/<name:name>/tags/list", methods=["GET"])
    def list_tags(self, request: StreamingRequest, name: RepositoryName) -> IResource:
        """The tags of a repository (end-8a, end-8b)."""
        return self._read_from(self._lists.tags, request, name)

    @app.route("/v2/<name:name>/referrers/<digest:digest>", methods=["GET"])
    def list_referrers(self, request: StreamingRequest, name: RepositoryName, digest: Digest) -> IResource:
        """The manifests whose subject is this one (end-12a, end-12b)."""
        return self._read_from(self._lists.referrers, request, name, digest)

    # Tokens

    @app.route("/auth/token", methods=["GET"])
    def issue_token(self, request: StreamingRequest) -> IResource:
        """A token for what somebody may do (Docker's token specification)."""
        return self._read(self._tokens.issue, request)

    @app.route("/auth/jwks", methods=["GET"])
    def show_keys(self, request: StreamingRequest) -> IResource:
        """What such tokens can be checked with by others (RFC 7517)."""
        return self._read(self._tokens.keys, request)

    # Everything else

    @app.handle_errors(HTTPException, RegistryError)
    def unroutable(self, request: StreamingRequest, failure: Failure) -> IResource:
        """No such path or method, or a name in the path that is none."""
        return self._dispatcher.unroutable(request, failure)

    def _read(self, handler: _Handler, *arguments: object) -> IResource:
        return self._dispatcher.answering(functools.partial(handler, *arguments))

    def _read_from(
        self, handler: _Handler, request: StreamingRequest, name: RepositoryName, *arguments: object, action: Action = "pull"
    ) -> IResource:
        if self._namespaces is not None or self._guard is not None:
            handler = functools.partial(self._looked_after, handler, action)
        return self._dispatcher.answering(functools.partial(handler, request, name, *arguments))

    def _write_to(
        self, handler: _Handler, request: StreamingRequest, name: RepositoryName, *arguments: object, action: Action = "push"
    ) -> IResource:
        return self._dispatcher.answering(functools.partial(self._guarded, handler, action, request, name, *arguments))

    async def _ask_base(self, request: StreamingRequest) -> Response:
        if self._guard is not None:
            await self._guard.admit_to_base(request)
        return Response(200, {"Content-Type": "application/json"}, b"{}")

    async def _list_repositories(self, request: StreamingRequest) -> Response:
        visible = None if self._guard is None else await self._guard.admit_to_catalog(request)
        return await self._lists.repositories(request, visible)

    async def _looked_after(
        self, handler: _Handler, action: Action, request: StreamingRequest, name: RepositoryName, *arguments: object
    ) -> Response:
        if self._namespaces is not None:
            name = local_name(self._namespaces, request, name)
        if self._guard is not None and not await self._guard.admit(request, name, action):
            handler = self._absent[handler]
        return await handler(request, name, *arguments)

    async def _guarded(
        self, handler: _Handler, action: Action, request: StreamingRequest, name: RepositoryName, *arguments: object
    ) -> Response:
        if self._namespaces is not None:
            name = local_name(self._namespaces, request, name)
        if self._guard is not None:
            await self._guard.admit(request, name, action)
        if self._namespaces is not None:
            self._namespaces.refuse_write(name)
        if self._readonly():
            raise Unsupported("this registry is read-only at the moment", headers=_READ_METHODS)
        return await handler(request, name, *arguments)


async def _ready(response: Response) -> Response:
    return response
