"""
The ``_state`` of upload URLs, in ``registry:2``'s form, so that an upload begun with either goes on with the other.

It is there where ``http.secret`` is configured: base64url of HMAC-SHA256 and the JSON that it signs. It ties a URL to one repository, one
upload, one user and one offset; so a client that sends a chunk again to a URL that has been used is refused, and does not double its bytes.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json

from regd.errors import BlobUploadInvalid
from regd.names import RepositoryName
from regd.registry.uploads import Upload

__all__ = ["StateSigner"]


class StateSigner:
    """
    :param secret: ``http.secret``; empty for URLs without state.
    """

    def __init__(self, secret: str) -> None:
        self._key = secret.encode()

    def sign(self, upload: Upload, user: str = "") -> str | None:
        """
        The state of an upload as it stands; ``None`` without a secret.

        :param user: whose it is; empty for nobody's in particular, which is how ``registry:2`` has all of them.
        """
        if not self._key:
            return None
        said = {"Name": upload.name, "UUID": upload.id, "Offset": upload.size, "StartedAt": upload.started_at}
        document = json.dumps({**said, "User": user} if user else said, separators=(",", ":")).encode()
        return base64.urlsafe_b64encode(self._mac(document) + document).decode("ascii")

    def offset(self, state: str | None, name: RepositoryName, upload: str, user: str = "") -> int | None:
        """
        Where the client's URL says that the upload stands, in bytes; ``None`` when it does not say.

        :raises BlobUploadInvalid: when the state was not signed here, or for another upload or user.
        """
        if state is None or not self._key:
            return None
        try:
            raw = base64.urlsafe_b64decode(state.encode("ascii"))
            mac, document = raw[: hashlib.sha256().digest_size], raw[hashlib.sha256().digest_size :]
            if not hmac.compare_digest(mac, self._mac(document)):
                raise ValueError("wrong signature")
            said = json.loads(document)
            if said["Name"] != name or said["UUID"] != upload or said.get("User", "") != user:
                raise ValueError("another upload")
            return int(said["Offset"])
        # What is wrong with it helps nobody but those who forge it.
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise BlobUploadInvalid("the _state of this URL is not valid: begin the upload again") from None

    def _mac(self, document: bytes) -> bytes:
        return hmac.digest(self._key, document, "sha256")
