"""
The errors of the distribution protocol, one class for each code.

A rule that is broken is raised here as what the specification calls it; :mod:`regd.web` renders it once, as the JSON envelope of the
OCI distribution specification 1.1, section "Error Codes". Statuses are those of CNCF distribution where the specification names none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

__all__ = [
    "BadGateway",
    "BadRequest",
    "BlobUnknown",
    "BlobUploadInvalid",
    "BlobUploadUnknown",
    "Denied",
    "DigestInvalid",
    "GatewayTimeout",
    "ManifestBlobUnknown",
    "ManifestInvalid",
    "ManifestTooLarge",
    "ManifestUnknown",
    "NameInvalid",
    "NameUnknown",
    "NotFound",
    "OutOfSpace",
    "PaginationNumberInvalid",
    "RangeInvalid",
    "RegistryError",
    "SizeInvalid",
    "TagInvalid",
    "TooManyRequests",
    "TooManyTags",
    "Unauthorized",
    "Unavailable",
    "Unknown",
    "Unsupported",
]


class RegistryError(Exception):
    """
    What a client is told when a request cannot be done.

    :ivar code: the specification's error code, in capitals.
    :ivar status: the HTTP status of the answer.
    :ivar message: one sentence for a person; never a path of the storage, never a traceback.
    :ivar detail: what a program may use: anything that JSON can say, or ``None`` to leave the field out.
    :ivar headers: fields that the answer carries besides the common ones.
    :ivar others: further errors of the same request; the envelope lists this one first, and its status decides.
    """

    code: ClassVar[str] = "UNKNOWN"
    status: ClassVar[int] = 500
    default_message: ClassVar[str] = "unknown error"

    def __init__(
        self,
        message: str | None = None,
        *,
        detail: object = None,
        headers: Mapping[str, str] | None = None,
        others: Sequence[RegistryError] = (),
    ) -> None:
        self.message = message or self.default_message
        super().__init__(self.message)
        self.detail = detail
        self.headers: Mapping[str, str] = headers or {}
        self.others = tuple(others)

    def envelope(self) -> dict[str, object]:
        """The body of the answer: ``{"errors": [{"code", "message", "detail"?}, ...]}``."""
        return {"errors": [error._entry() for error in (self, *self.others)]}

    def _entry(self) -> dict[str, object]:
        entry: dict[str, object] = {"code": self.code, "message": self.message}
        if self.detail is not None:
            entry["detail"] = self.detail
        return entry


class BadRequest(RegistryError):
    """What came is not a request that HTTP knows."""

    code, status, default_message = "BAD_REQUEST", 400, "this is not a valid HTTP request"


class BlobUnknown(RegistryError):
    """No such blob in this repository."""

    code, status, default_message = "BLOB_UNKNOWN", 404, "blob unknown to registry"


class BlobUploadInvalid(RegistryError):
    """The upload cannot go on as the client asks."""

    code, status, default_message = "BLOB_UPLOAD_INVALID", 404, "blob upload invalid"


class BlobUploadUnknown(RegistryError):
    """No such upload: never begun, finished, cancelled or purged."""

    code, status, default_message = "BLOB_UPLOAD_UNKNOWN", 404, "blob upload unknown to registry"


class Denied(RegistryError):
    """The client is known and may not do this."""

    code, status, default_message = "DENIED", 403, "requested access to the resource is denied"


class DigestInvalid(RegistryError):
    """A digest that is malformed, of an algorithm that is not supported, or not that of the content."""

    code, status, default_message = "DIGEST_INVALID", 400, "provided digest did not match uploaded content"


class ManifestBlobUnknown(RegistryError):
    """A manifest names a blob or manifest that this repository does not hold."""

    code, status, default_message = "MANIFEST_BLOB_UNKNOWN", 400, "blob unknown to registry"


class ManifestInvalid(RegistryError):
    """A manifest that is not one."""

    code, status, default_message = "MANIFEST_INVALID", 400, "manifest invalid"


class ManifestTooLarge(ManifestInvalid):
    """A manifest above the limit (specification 1.1, "Pushing Manifests": 413)."""

    status, default_message = 413, "manifest too large"


class ManifestUnknown(RegistryError):
    """No such manifest or tag in this repository."""

    code, status, default_message = "MANIFEST_UNKNOWN", 404, "manifest unknown"


class NameInvalid(RegistryError):
    """Not a repository name."""

    code, status, default_message = "NAME_INVALID", 400, "invalid repository name"


class NameUnknown(RegistryError):
    """No such repository."""

    code, status, default_message = "NAME_UNKNOWN", 404, "repository name not known to registry"


class NotFound(RegistryError):
    """A path that is no part of the API."""

    code, status, default_message = "NOT_FOUND", 404, "no such endpoint"


class PaginationNumberInvalid(RegistryError):
    """The ``n`` of a listing is not a number that can be served."""

    code, status, default_message = "PAGINATION_NUMBER_INVALID", 400, "invalid number of results requested"


class RangeInvalid(RegistryError):
    """The chunk does not start where the upload ends, or somebody else is writing it."""

    code, status, default_message = "RANGE_INVALID", 416, "invalid content range"


class SizeInvalid(RegistryError):
    """``Content-Range`` and ``Content-Length`` contradict each other."""

    code, status, default_message = "SIZE_INVALID", 400, "provided length did not match content length"


class TagInvalid(RegistryError):
    """Not a tag."""

    code, status, default_message = "TAG_INVALID", 400, "manifest tag did not match URI"


class TooManyRequests(RegistryError):
    """To be asked later: by this registry, or by the upstream that it is a cache of; ``Retry-After`` says when."""

    code, status, default_message = "TOOMANYREQUESTS", 429, "too many requests"


class TooManyTags(RegistryError):
    """More ``tag`` parameters than one request may carry."""

    code, status, default_message = "TAG_INVALID", 414, "too many tags in one request"


class Unsupported(RegistryError):
    """The operation does not exist here, or is switched off."""

    code, status, default_message = "UNSUPPORTED", 405, "The operation is unsupported."


class Unauthorized(RegistryError):
    """Somebody might do this who says, and shows, who they are; ``WWW-Authenticate`` says how."""

    code, status, default_message = "UNAUTHORIZED", 401, "authentication required"


class Unavailable(RegistryError):
    """The storage cannot do this now; trying again may help."""

    code, status, default_message = "UNAVAILABLE", 503, "service unavailable"


class BadGateway(Unavailable):
    """The upstream that the request was passed on to cannot be asked, or did not answer as it should."""

    status, default_message = 502, "the registry behind this one cannot be asked at the moment"


class GatewayTimeout(Unavailable):
    """The upstream that the request was passed on to took too long."""

    status, default_message = 504, "the registry behind this one took too long"


class OutOfSpace(Unavailable):
    """The storage is full (RFC 4918, section 11.5: 507)."""

    status, default_message = 507, "no space left in the storage of the registry"


class Unknown(RegistryError):
    """A fault of the registry itself; the log has the rest."""
