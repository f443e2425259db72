"""What a registry has promised to a client, and whether it keeps it after a crash."""

import hashlib
import http.client
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from tests.e2e.images import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST
from tests.e2e.rawhttp import Answer, Client, digest_of

__all__ = ["LOST", "Ledger", "Upload", "blob_file", "check_blob_files", "manifest_of"]

#: What a client sees of a daemon that dies.
LOST = (ConnectionError, http.client.HTTPException)


def blob_file(data: Path, digest: str) -> Path:
    """
    :param data: The root directory of a storage.
    :param digest: Of a blob.
    :return: The file with its bytes.
    """
    algorithm, _, encoded = digest.partition(":")
    return data / "docker/registry/v2/blobs" / algorithm / encoded[:2] / encoded / "data"


def check_blob_files(data: Path, known: set[tuple[int, int]] | None = None) -> None:
    """
    See that every file under ``blobs`` is whole.

    :param data: The root directory of a storage.
    :param known: Inodes and times of files that have been read already; new ones are added.
    :raises AssertionError: Naming one that does not have the digest that it is stored under.
    """
    known = set() if known is None else known
    for path in (data / "docker/registry/v2/blobs").glob("*/*/*/*"):
        found = path.stat()
        if (found.st_ino, found.st_mtime_ns) in known:
            continue
        if not path.name.endswith(".tmp"):
            assert path.name == "data", path
            algorithm, encoded = path.parts[-4], path.parts[-2]
            assert hashlib.new(algorithm, path.read_bytes()).hexdigest() == encoded, f"{path} is not what its name says"
        known.add((found.st_ino, found.st_mtime_ns))


def manifest_of(config: bytes, layer: bytes, subject: bytes | None = None) -> bytes:
    """
    :param config: The configuration.
    :param layer: The only layer.
    :param subject: The manifest that this one is about, if it is.
    :return: An OCI image manifest.
    """
    document: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": OCI_CONFIG, "digest": digest_of(config), "size": len(config)},
        "layers": [{"mediaType": OCI_LAYER, "digest": digest_of(layer), "size": len(layer)}],
    }
    if subject is not None:
        document["subject"] = {"mediaType": OCI_MANIFEST, "digest": digest_of(subject), "size": len(subject)}
    return json.dumps(document).encode()


@dataclass
class Upload:
    """
    :ivar content: All that is to be uploaded.
    :ivar path: Where the upload is, as the last answer had it.
    :ivar acknowledged: How many bytes the server has said that it holds.
    :ivar closing: Whether the closing request has been sent.
    """

    content: bytes
    path: str
    acknowledged: int = 0
    closing: bool = False


class Ledger:
    """
    One client's doings in one repository: each method is a request, and notes what may be so once it is sent, and what has to be so once
    it is answered.

    :param client: The server.
    :param data: The root directory of its storage.
    :param name: The repository.
    """

    def __init__(self, client: Client, data: Path, name: str) -> None:
        self.name = name
        self._client = client
        self._data = data
        self.uploads: list[Upload] = []
        self.blobs: dict[str, bytes] = {}
        #: Each manifest, and whether the repository has to hold it: ``None`` for either.
        self.manifests: dict[str, tuple[bytes, bool | None]] = {}
        #: What each tag may mean; ``None`` for nothing.
        self.tags: dict[str, set[str | None]] = {}
        #: Called after each answer.
        self.answered: Callable[[], None] = lambda: None

    def _send(self, method: str, path: str, body: bytes | None, *expected: int, **headers: str) -> Answer:
        answer = self._client.request(method, path, body, **headers)
        assert answer.status in expected, (method, path, answer)
        return answer

    def _path(self, location: str) -> str:
        parts = urlsplit(location)
        return f"{parts.path}?{parts.query}" if parts.query else parts.path

    def begin(self, content: bytes) -> Upload:
        """
        :param content: A blob.
        :return: A new upload for it.
        """
        answer = self._send("POST", f"/v2/{self.name}/blobs/uploads/", b"", 202)
        upload = Upload(content, self._path(answer.headers["location"]))
        self.uploads.append(upload)
        self.answered()
        return upload

    def append(self, upload: Upload, size: int) -> None:
        """
        :param upload: Not closed yet.
        :param size: How many more of its bytes to send.
        """
        chunk = upload.content[upload.acknowledged :][:size]
        answer = self._send("PATCH", upload.path, chunk, 202, Content_Type="application/octet-stream")
        upload.acknowledged += len(chunk)
        assert answer.headers["range"] == f"0-{upload.acknowledged - 1}", answer
        upload.path = self._path(answer.headers["location"])
        self.answered()

    def close(self, upload: Upload) -> None:
        """
        :param upload: To be sent the rest, and closed.
        """
        digest = digest_of(upload.content)
        upload.closing = True
        joint = "&" if "?" in upload.path else "?"
        rest = upload.content[upload.acknowledged :]
        self._send("PUT", f"{upload.path}{joint}digest={digest}", rest, 201)
        self.uploads.remove(upload)
        self.blobs[digest] = upload.content
        self.answered()

    def cancel(self, upload: Upload) -> None:
        """
        :param upload: To be given up. A client that asks again, not knowing whether it was heard, may find that it was.
        """
        upload.closing = True
        self._send("DELETE", upload.path, None, 204, 404)
        self.uploads.remove(upload)
        assert self._client.get(upload.path).status == 404
        self.answered()

    def push(self, content: bytes) -> None:
        """
        :param content: A blob, sent in one request.
        """
        digest = digest_of(content)
        self._send("POST", f"/v2/{self.name}/blobs/uploads/?digest={digest}", content, 201)
        self.blobs[digest] = content
        self.answered()

    def mount(self, content: bytes, source: str) -> None:
        """
        :param content: A blob.
        :param source: A repository that holds it.
        """
        digest = digest_of(content)
        self._send("POST", f"/v2/{self.name}/blobs/uploads/?mount={digest}&from={source}", b"", 201)
        self.blobs[digest] = content
        self.answered()

    def put(self, tag: str, manifest: bytes) -> None:
        """
        :param tag: The tag to give it.
        :param manifest: A manifest.
        """
        digest = digest_of(manifest)
        self.manifests.setdefault(digest, (manifest, None))
        self.tags.setdefault(tag, {None}).add(digest)
        self._send("PUT", f"/v2/{self.name}/manifests/{tag}", manifest, 201, Content_Type=OCI_MANIFEST)
        self.manifests[digest] = (manifest, True)
        self.tags[tag] = {digest}
        self.answered()

    def untag(self, tag: str) -> None:
        """
        :param tag: To be deleted.
        """
        expected = (202, 404) if None in self.tags[tag] else (202,)
        self.tags[tag].add(None)
        self._send("DELETE", f"/v2/{self.name}/manifests/{tag}", None, *expected)
        self.tags[tag] = {None}
        self.answered()

    def delete(self, manifest: bytes) -> None:
        """
        :param manifest: To be deleted with all its tags.
        """
        digest = digest_of(manifest)
        expected = (202,) if self.manifests[digest][1] else (202, 404)
        self.manifests[digest] = (manifest, None)
        for meanings in self.tags.values():
            if digest in meanings:
                meanings.add(None)
        self._send("DELETE", f"/v2/{self.name}/manifests/{digest}", None, *expected)
        self.manifests[digest] = (manifest, False)
        for meanings in self.tags.values():
            meanings.discard(digest)
        self.answered()

    def resume(self) -> None:
        """
        Go on with every upload where the server says that it stands, and finish it.

        :raises AssertionError: When the server has lost what it had acknowledged.
        """
        for upload in list(self.uploads):
            status = self._client.get(upload.path)
            if status.status == 404:
                # Cut off between becoming a blob and being linked: what was acknowledged is there, under its final name. Or cancelled.
                assert upload.closing, f"an acknowledged upload is gone: {status}"
                self.uploads.remove(upload)
                continue
            assert status.status == 204, status
            held = int(status.headers["range"].partition("-")[2])
            # "0-0" also stands for nothing.
            held = held + 1 if held else 0
            assert upload.acknowledged <= held <= len(upload.content), (upload.acknowledged, status)
            upload.acknowledged = held
            upload.path = self._path(status.headers["location"])
            self.append(upload, max(1, (len(upload.content) - held) // 2))
            self.close(upload)

    def check(self) -> None:
        """
        :raises AssertionError: When the server does not keep what it promised, or serves what is not whole.
        """
        for digest, content in self.blobs.items():
            answer = self._client.get(f"/v2/{self.name}/blobs/{digest}")
            assert (answer.status, answer.body) == (200, content), (digest, answer)
        for digest, (manifest, wanted) in self.manifests.items():
            answer = self._client.get(f"/v2/{self.name}/manifests/{digest}", Accept=OCI_MANIFEST)
            assert answer.status in (200, 404), answer
            assert wanted is None or wanted == (answer.status == 200), (digest, wanted, answer)
            assert answer.status == 404 or answer.body == manifest, answer
        self._check_tags()
        self._check_referrers()
        self._check_links()

    def _check_tags(self) -> None:
        for tag, meanings in self.tags.items():
            answer = self._client.get(f"/v2/{self.name}/manifests/{tag}", Accept=OCI_MANIFEST)
            meant = answer.headers["docker-content-digest"] if answer.status == 200 else None
            assert meant in meanings, (tag, meanings, answer)
            assert meant is None or digest_of(answer.body) == meant, answer
        answer = self._client.get(f"/v2/{self.name}/tags/list")
        document = answer.json()
        assert isinstance(document, dict), answer
        listed = document.get("tags", [])
        assert all(len(self.tags[tag] - {None}) for tag in listed), (listed, self.tags)
        assert all(tag in listed for tag, meanings in self.tags.items() if None not in meanings), (listed, self.tags)
        for tag in listed:
            assert self._client.request("HEAD", f"/v2/{self.name}/manifests/{tag}", Accept=OCI_MANIFEST).status == 200, tag

    def _check_referrers(self) -> None:
        for digest, (manifest, wanted) in self.manifests.items():
            subject = json.loads(manifest).get("subject")
            if subject is None:
                continue
            document = self._client.get(f"/v2/{self.name}/referrers/{subject['digest']}").json()
            assert isinstance(document, dict), document
            listed = [entry["digest"] for entry in document["manifests"]]
            assert wanted is None or wanted == (digest in listed), (wanted, digest, listed)
            for referrer in listed:
                assert self._client.get(f"/v2/{self.name}/manifests/{referrer}", Accept=OCI_MANIFEST).status == 200, referrer

    def _check_links(self) -> None:
        """A link that is there points to something that is whole: it is written after what it points to."""
        for link in (self._data / "docker/registry/v2/repositories" / self.name).rglob("link"):
            digest = link.read_text(encoding="ascii")
            path = blob_file(self._data, digest)
            assert path.is_file(), f"{link} points to {path}, which is not there"
