"""
A client that shows what is on the wire: statuses and headers as they came, and
the few requests that make up a push.
"""

import hashlib
import http.client
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

__all__ = ["Answer", "Client", "digest_of"]


def digest_of(content: bytes) -> str:
    """
    :param content: Any bytes.
    :return: Their digest as registries write it: ``sha256:<hex>``.
    """
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@dataclass(frozen=True)
class Answer:
    """
    What a server answered.

    :ivar status: The status of the response.
    :ivar headers: The fields by lower-case name; what came twice is joined by a comma.
    :ivar body: The whole body.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> object:
        """
        :return: The body, read as JSON.
        """
        return json.loads(self.body)

    def codes(self) -> list[str]:
        """
        :return: The codes of the error envelope (OCI distribution specification 1.1, "Error Codes").
        """
        document = self.json()
        assert isinstance(document, dict), document
        return [error["code"] for error in document["errors"]]


class Client:
    """
    Requests to one server, each on a connection of its own.

    :param port: The server's port on 127.0.0.1.
    """

    def __init__(self, port: int) -> None:
        self.port = port

    def request(
        self,
        method: str,
        target: str,
        body: bytes | Iterable[bytes] | None = None,
        **headers: str,
    ) -> Answer:
        """
        Send one request and read the whole answer; nothing is followed.

        :param method: The method.
        :param target: A path with its query, or an absolute URL, whose authority becomes the Host.
        :param body: Bytes, sent with their length, or pieces, sent chunked.
        :param headers: Fields, with ``_`` for ``-``.
        :return: The answer.
        """
        parts = urlsplit(target)
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        if parts.netloc:
            fields.setdefault("Host", parts.netloc)
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, fields, encode_chunked=not isinstance(body, bytes | None))
            response = connection.getresponse()
            found: dict[str, str] = {}
            for name, value in response.getheaders():
                key = name.lower()
                found[key] = f"{found[key]}, {value}" if key in found else value
            return Answer(response.status, found, response.read())
        finally:
            connection.close()

    def get(self, target: str, **headers: str) -> Answer:
        """
        :param target: As in :meth:`request`.
        :param headers: As in :meth:`request`.
        :return: The answer to a GET.
        """
        return self.request("GET", target, None, **headers)

    def begin_upload(self, name: str) -> str:
        """
        :param name: The repository.
        :return: The location of a new upload.
        """
        answer = self.request("POST", f"/v2/{name}/blobs/uploads/", b"")
        assert answer.status == 202, answer
        return answer.headers["location"]

    def append(self, location: str, chunk: bytes) -> str:
        """
        :param location: Where the upload is.
        :param chunk: The bytes that come next.
        :return: Where the upload goes on.
        """
        answer = self.request("PATCH", location, chunk, Content_Type="application/octet-stream")
        assert answer.status == 202, answer
        return answer.headers["location"]

    def commit(self, location: str, digest: str, rest: bytes = b"") -> Answer:
        """
        :param location: Where the upload is.
        :param digest: What all of it hashes to.
        :param rest: The bytes that are still missing.
        :return: The answer; 201 when the blob is there.
        """
        joint = "&" if "?" in location else "?"
        return self.request("PUT", f"{location}{joint}digest={digest}", rest, Content_Type="application/octet-stream")

    def push_blob(self, name: str, content: bytes) -> str:
        """
        :param name: The repository.
        :param content: The blob.
        :return: Its digest.
        """
        digest = digest_of(content)
        answer = self.commit(self.begin_upload(name), digest, content)
        assert answer.status == 201, answer
        return digest

    def push_manifest(self, name: str, reference: str, media_type: str, content: bytes) -> str:
        """
        :param name: The repository.
        :param reference: The tag or digest to put it under.
        :param media_type: What it is.
        :param content: The manifest.
        :return: Its digest.
        """
        answer = self.request("PUT", f"/v2/{name}/manifests/{reference}", content, Content_Type=media_type)
        assert answer.status == 201, answer
        return answer.headers["docker-content-digest"]
