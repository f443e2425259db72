"""The requests that make up a push, as docker sends them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.payload import Payload
from benchmarks.wire import Connection

__all__ = ["MANIFEST_TYPE", "Stored", "manifest_bytes", "push_bytes", "push_manifest", "push_payload"]

MANIFEST_TYPE: Final = "application/vnd.oci.image.manifest.v1+json"
_CONFIG_TYPE: Final = "application/vnd.oci.image.config.v1+json"
_LAYER_TYPE: Final = "application/vnd.oci.image.layer.v1.tar"


@dataclass(frozen=True, slots=True)
class Stored:
    """
    A blob that the registry has.

    :ivar digest: its digest.
    :ivar size: its size in bytes.
    """

    digest: str
    size: int

    def descriptor(self, media_type: str) -> dict[str, object]:
        """As it stands in a manifest (OCI image specification, "Content Descriptors")."""
        return {"mediaType": media_type, "digest": self.digest, "size": self.size}


def _commit(connection: Connection, location: str, digest: str) -> None:
    joint = "&" if "?" in location else "?"
    connection.request("PUT", f"{location}{joint}digest={digest}").expect(201)


def push_payload(connection: Connection, repository: str, payload: Payload, *identity: object, chunked: bool) -> Stored:
    """POST, PATCH with the whole blob, PUT; the blob is made of ``payload`` and ``identity``."""
    tail, digest = payload.blob(*identity)
    begun = connection.request("POST", f"/v2/{repository}/blobs/uploads/").expect(202)
    sent = connection.upload("PATCH", begun.location, payload, tail, chunked=chunked).expect(202)
    _commit(connection, sent.location, digest)
    return Stored(digest, payload.blob_size)


def push_bytes(connection: Connection, repository: str, content: bytes) -> Stored:
    """POST, PATCH with all of ``content``, PUT."""
    begun = connection.request("POST", f"/v2/{repository}/blobs/uploads/").expect(202)
    sent = connection.request("PATCH", begun.location, content, Content_Type="application/octet-stream").expect(202)
    stored = Stored(f"sha256:{hashlib.sha256(content).hexdigest()}", len(content))
    _commit(connection, sent.location, stored.digest)
    return stored


def manifest_bytes(config: Stored, layers: Sequence[Stored]) -> bytes:
    """The manifest of an image."""
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": config.descriptor(_CONFIG_TYPE),
        "layers": [layer.descriptor(_LAYER_TYPE) for layer in layers],
    }
    return json.dumps(document).encode()


def push_manifest(connection: Connection, repository: str, tag: str, config: Stored, layers: Sequence[Stored]) -> str:
    """
    PUT a manifest under a tag.

    :return: its digest.
    """
    content = manifest_bytes(config, layers)
    connection.request("PUT", f"/v2/{repository}/manifests/{tag}", content, Content_Type=MANIFEST_TYPE).expect(201)
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
