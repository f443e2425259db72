"""A registry to be cached whose manners a test decides: slow, limited, breaking off, lying, asking who is there; and it counts."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from ssl import SSLContext

from tests.e2e.images import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, Descriptor, OciLayout
from tests.e2e.proxying import Exchange, Upstream
from tests.e2e.rawhttp import digest_of

__all__ = ["Asked", "Image", "Manners", "Origin", "on", "status"]

_MANIFEST = re.compile(r"/v2/(?P<name>.+)/manifests/(?P<reference>[^/]+)")
_BLOB = re.compile(r"/v2/(?P<name>.+)/blobs/(?P<digest>[^/]+)")
_TAGS = re.compile(r"/v2/(?P<name>.+)/tags/list")
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")

# What goes out in one write, in bytes: small, so that a limited rate is smooth.
_PIECE = 64 * 1024

Answer = Callable[[Exchange], bool]


@dataclass(frozen=True)
class Manners:
    """
    How an origin answers.

    :ivar delay: before the first byte of any answer below ``/v2/``, in seconds.
    :ivar rate: of all bodies of blobs together, in bytes a second; 0 for no limit.
    :ivar end: the offset in a blob at which its body stops.
    :ivar stall: whether it then says nothing more for so many seconds, instead of closing the connection at once.
    :ivar more: added to the length of a blob that the answer speaks of.
    :ivar wrong: whether a byte of every blob is another one.
    :ivar chunked: whether blobs are sent without their length.
    :ivar deaf: whether Range is not understood.
    :ivar cdn: where blobs are, as another server's URL: the answer to GET is a redirect.
    """

    delay: float = 0.0
    rate: int = 0
    end: int | None = None
    stall: float = 0.0
    more: int = 0
    wrong: bool = False
    chunked: bool = False
    deaf: bool = False
    cdn: str = ""


@dataclass
class Asked:
    """
    A request as the origin saw it.

    :ivar path: with its query.
    :ivar fields: header fields by lower-case name; the last where one came twice.
    :ivar status: of the answer, or 0 where a test's own answer was sent.
    :ivar sent: bytes of the body that went out.
    """

    method: str
    path: str
    fields: dict[str, str]
    status: int = 0
    sent: int = 0


@dataclass(frozen=True)
class Image:
    """
    What an origin has under a tag.

    :ivar digest: of the manifest.
    :ivar layers: their digests.
    """

    digest: str
    manifest: bytes
    config: str
    layers: tuple[str, ...]


@dataclass
class Origin:
    """
    A registry with content in memory, in threads of the test.

    :ivar manners: how it answers now; a test puts others in their place.
    :ivar fault: asked first with each request: says whether the connection goes on, or ``None`` for the usual answer.
    :ivar guard: says the challenge for whoever has not shown the right credentials, or nothing.
    :ivar asked: all requests, in the order in which they came.
    """

    context: SSLContext | None = None
    manners: Manners = field(default_factory=Manners)
    fault: Callable[[Exchange], bool | None] | None = None
    guard: Callable[[Exchange], str] | None = None
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[tuple[str, str], tuple[str, bytes]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.upstream = Upstream(self._answer, self.context)
        self._lock = threading.Lock()
        self._due = 0.0

    @property
    def url(self) -> str:
        return self.upstream.url

    @property
    def port(self) -> int:
        return self.upstream.port

    def close(self) -> None:
        """End it, and every connection."""
        self.upstream.close()

    def reset(self) -> None:
        """Good manners again, and nothing counted."""
        self.manners, self.fault, self.guard = Manners(), None, None
        self.asked.clear()

    def put_blob(self, content: bytes) -> str:
        """
        :return: its digest.
        """
        digest = digest_of(content)
        self.blobs[digest] = content
        return digest

    def put_manifest(self, name: str, tag: str, media_type: str, content: bytes) -> str:
        """
        :param tag: or nothing for one that is only to be had by its digest.
        :return: its digest.
        """
        digest = digest_of(content)
        for reference in (digest, *([tag] if tag else [])):
            self.manifests[name, reference] = (media_type, content)
        return digest

    def put_image(self, name: str, tag: str, layers: Sequence[bytes]) -> Image:
        """
        :return: an image of these layers, each some bytes.
        """
        config = json.dumps({"architecture": "amd64", "os": "linux", "of": f"{name}:{tag}"}).encode()
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "config": {"mediaType": OCI_CONFIG, "size": len(config), "digest": self.put_blob(config)},
                "layers": [{"mediaType": OCI_LAYER, "size": len(layer), "digest": self.put_blob(layer)} for layer in layers],
            }
        ).encode()
        digest = self.put_manifest(name, tag, OCI_MANIFEST, manifest)
        return Image(digest, manifest, digest_of(config), tuple(digest_of(layer) for layer in layers))

    def put_layout(self, layout: OciLayout, name: str, tag: str, root: Descriptor) -> None:
        """
        Have what is in a layout.

        :param root: the manifest or index that the tag is to stand for.
        """
        for path in (layout.directory / "blobs" / "sha256").iterdir():
            content = path.read_bytes()
            self.put_blob(content)
            # A manifest is told from a layer by its look; that of a configuration has no schemaVersion.
            if content.startswith(b"{") and "mediaType" in (document := json.loads(content)):
                self.put_manifest(name, "", document["mediaType"], content)
        self.manifests[name, tag] = self.manifests[name, root.digest]

    def count(self, method: str, part: str) -> int:
        """
        :param part: of the path.
        :return: how many such requests there have been.
        """
        return sum(asked.method == method and part in asked.path for asked in list(self.asked))

    def sent(self, part: str) -> int:
        """
        :param part: of the path.
        :return: how many bytes of bodies have gone out for such paths.
        """
        return sum(asked.sent for asked in list(self.asked) if part in asked.path)

    def _answer(self, exchange: Exchange) -> bool:
        exchange.read_body()
        method, path, _ = exchange.line.split(" ")
        asked = Asked(method, path, {name.lower(): value for name, value in exchange.fields})
        self.asked.append(asked)
        if self.fault is not None and (goes_on := self.fault(exchange)) is not None:
            return goes_on
        path = path.partition("?")[0]
        if path.startswith("/v2/") and self.manners.delay:
            time.sleep(self.manners.delay)
        if self.guard is not None and (challenge := self.guard(exchange)):
            return self._error(exchange, asked, "401 Unauthorized", "UNAUTHORIZED", f"WWW-Authenticate: {challenge}\r\n")
        if path == "/v2/":
            return self._whole(exchange, asked, "application/json", b"{}")
        if match := _TAGS.fullmatch(path):
            return self._tags(exchange, asked, match["name"])
        if match := _MANIFEST.fullmatch(path):
            return self._manifest(exchange, asked, match["name"], match["reference"])
        if match := _BLOB.fullmatch(path):
            return self._blob(exchange, asked, match["digest"])
        return self._error(exchange, asked, "404 Not Found", "UNSUPPORTED")

    def _tags(self, exchange: Exchange, asked: Asked, name: str) -> bool:
        tags = sorted(tag for found, tag in self.manifests if found == name and ":" not in tag)
        if not tags:
            return self._error(exchange, asked, "404 Not Found", "NAME_UNKNOWN")
        return self._whole(exchange, asked, "application/json", json.dumps({"name": name, "tags": tags}).encode())

    def _manifest(self, exchange: Exchange, asked: Asked, name: str, reference: str) -> bool:
        found = self.manifests.get((name, reference))
        if found is None:
            return self._error(exchange, asked, "404 Not Found", "MANIFEST_UNKNOWN")
        media_type, content = found
        digest = digest_of(content)
        fields = f'Docker-Content-Digest: {digest}\r\nETag: "{digest}"\r\n'
        if digest in asked.fields.get("if-none-match", ""):
            asked.status = 304
            exchange.send(f"HTTP/1.1 304 Not Modified\r\n{fields}\r\n".encode())
            return True
        return self._whole(exchange, asked, media_type, content, fields)

    def _blob(self, exchange: Exchange, asked: Asked, digest: str) -> bool:
        manners = self.manners
        content = self.blobs.get(digest)
        if content is None:
            return self._error(exchange, asked, "404 Not Found", "BLOB_UNKNOWN")
        if manners.cdn and asked.method == "GET":
            asked.status = 307
            # As a CDN's, with a signature that is as good as a password.
            location = f"{manners.cdn}{asked.path}?X-Signature=canary-of-the-cdn"
            exchange.send(f"HTTP/1.1 307 Temporary Redirect\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode())
            return True
        start, end = 0, len(content)
        match = _RANGE.fullmatch(asked.fields.get("range", ""))
        if match and not manners.deaf:
            start, end = int(match[1]), min(end, int(match[2]) + 1 if match[2] else end)
        asked.status = 206 if match and not manners.deaf else 200
        length = end - start + manners.more
        framing = "Transfer-Encoding: chunked\r\n" if manners.chunked else f"Content-Length: {length}\r\n"
        partial = f"Content-Range: bytes {start}-{end - 1}/{len(content)}\r\n" if asked.status == 206 else ""
        said = "206 Partial Content" if partial else "200 OK"
        described = f"Content-Type: application/octet-stream\r\nDocker-Content-Digest: {digest}\r\n"
        exchange.send(f"HTTP/1.1 {said}\r\n{described}{framing}{partial}\r\n".encode())
        return asked.method == "HEAD" or self._body(exchange, asked, content, start, end)

    def _body(self, exchange: Exchange, asked: Asked, content: bytes, start: int, end: int) -> bool:
        manners = self.manners
        stop = end if manners.end is None else max(start, min(end, manners.end))
        view = memoryview(content)
        for offset in range(start, stop, _PIECE):
            piece = view[offset : min(stop, offset + _PIECE)]
            if manners.rate:
                self._wait(len(piece) / manners.rate)
            if manners.wrong and offset == start:
                piece = memoryview(bytes([piece[0] ^ 1]) + bytes(piece[1:]))
            exchange.send(b"%x\r\n%b\r\n" % (len(piece), bytes(piece)) if manners.chunked else piece)
            asked.sent += len(piece)
        if stop < end:
            time.sleep(manners.stall)
            return False
        if manners.chunked:
            exchange.send(b"0\r\n\r\n")
        return not manners.more

    def _wait(self, seconds: float) -> None:
        """Wait for the turn of so much of the common rate."""
        with self._lock:
            now = time.monotonic()
            self._due = max(self._due, now - 0.05) + seconds
            due = self._due
        if due > now:
            time.sleep(due - now)

    @staticmethod
    def _whole(exchange: Exchange, asked: Asked, media_type: str, content: bytes, fields: str = "", said: str = "200 OK") -> bool:
        asked.status = int(said[:3])
        head = f"HTTP/1.1 {said}\r\nContent-Type: {media_type}\r\nContent-Length: {len(content)}\r\n{fields}\r\n"
        body = b"" if asked.method == "HEAD" else content
        asked.sent += len(body)
        exchange.send(head.encode() + body)
        return True

    def _error(self, exchange: Exchange, asked: Asked, said: str, code: str, fields: str = "") -> bool:
        content = json.dumps({"errors": [{"code": code, "message": "the origin says so"}]}).encode()
        return self._whole(exchange, asked, "application/json", content, fields, said)


def on(part: str, answer: Answer, *, method: str = "", times: int = 1_000_000) -> Callable[[Exchange], bool | None]:
    """
    :param part: of the path of those requests that are to be answered like this.
    :param method: theirs, or nothing for any.
    :param times: how many of them at most.
    :return: a fault of an origin.
    """
    left = [times]

    def fault(exchange: Exchange) -> bool | None:
        if part not in exchange.line or (method and not exchange.line.startswith(f"{method} ")) or left[0] <= 0:
            return None
        left[0] -= 1
        return answer(exchange)

    return fault


def status(said: str, fields: str = "") -> Answer:
    """
    :param said: ``503 Service Unavailable``.
    :param fields: more lines of the head, each with its end.
    :return: what answers like this, with a page that is not JSON.
    """

    def answer(exchange: Exchange) -> bool:
        content = b"" if exchange.line.startswith("HEAD ") else b"<html>no</html>"
        exchange.send(f"HTTP/1.1 {said}\r\nContent-Type: text/html\r\nContent-Length: 15\r\n{fields}\r\n".encode() + content)
        return True

    return answer
