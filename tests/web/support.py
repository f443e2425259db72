"""A whole registry in memory, wired by :mod:`regd.service` itself, with a clock in place of the reactor."""

from __future__ import annotations

import hashlib
import io
import json
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from twisted.internet.interfaces import IAddress
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import SynchronousTestCase

from regd.config import load
from regd.manifest import OCI_IMAGE, OCI_INDEX
from regd.service import serving
from regd.service.daemon import RegistryService, Streams
from regd.storage.driver import Driver
from regd.storage.memory import MemoryDriver
from tests.web.wire import READ, Answer, Client

__all__ = ["ApiCase", "Row", "descriptor", "digest_of", "failing", "index", "late", "path_of"]

MINIMAL = "version: 0.1\nstorage: {inmemory: {}, delete: {enabled: true}}\n"

OCTETS = ("Content-Type", "application/octet-stream")


def digest_of(content: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"


def path_of(location: str) -> str:
    """The part of a ``Location`` that goes into a request."""
    parts = urlsplit(location)
    return parts.path + (f"?{parts.query}" if parts.query else "")


class ApiCase(SynchronousTestCase):
    """
    A test case with a registry to ask. Every answer is held to what all answers have to be.

    :ivar driver: The storage.
    :ivar access: The access log.
    """

    #: The configuration.
    config = MINIMAL

    def setUp(self) -> None:
        self.clock = Clock()
        self.access = io.StringIO()
        self.build(self.config)

    def build(self, config: str, driver: Driver | None = None) -> None:
        """Have another registry from now on."""
        self.driver: Any = driver or MemoryDriver()
        self.patch(serving, "make_driver", lambda found, reactor: self.driver)
        with tempfile.NamedTemporaryFile("w", suffix=".yml", encoding="utf-8") as file:
            file.write(config)
            file.flush()
            self.service = RegistryService(load(file.name, {}), Streams(None, self.access), 1, self.clock)
        self.site: Any = self.service.serving.site

    def client(self, peer: IAddress | None = None) -> Client:
        """A new connection."""
        return Client(self.site, self.clock, peer)

    def ask(
        self,
        method: str,
        target: str | bytes,
        headers: Sequence[tuple[str, str | bytes]] = (),
        body: bytes | None = None,
        *,
        peer: IAddress | None = None,
        size: int = READ,
    ) -> Answer:
        """One request on a connection of its own."""
        client = self.client(peer)
        answer = client.ask(method, target, headers, body, size=size)
        self.check(answer, method)
        return answer

    def check(self, answer: Answer, method: str = "GET") -> None:
        """What is so of every answer."""
        self.assertEqual(answer["Docker-Distribution-Api-Version"], "registry/2.0")
        self.assertRegex(answer["X-Request-Id"], "^[A-Za-z0-9._~:/+=@-]{1,128}$")
        self.assertNotIn("html", answer.get("Content-Type") or "")
        self.assertNotIn(b"<html", answer.body.lower())
        self.assertNotIn(b"Traceback", answer.body)
        if answer.status not in {204, 304}:
            # Chunked answers are for those who do not know what they are going to say.
            self.assertIsNotNone(answer.get("Content-Length"))
        if answer.status >= 400:
            self.assertEqual(answer["Content-Type"], "application/json")
            if method != "HEAD":
                for error in json.loads(answer.body)["errors"]:
                    self.assertLessEqual(set(error), {"code", "message", "detail"})
                    self.assertTrue(error["message"])

    def refused(self, answer: Answer, status: int, code: str) -> Mapping[str, Any]:
        """
        :return: The first error of an answer that has to have this status and code.
        """
        self.assertEqual(answer.status, status, answer)
        errors = json.loads(answer.body)["errors"]
        self.assertEqual(errors[0]["code"], code, errors)
        first: Mapping[str, Any] = errors[0]
        return first

    def table(self, rows: Iterable[Row]) -> None:
        """Ask one row after the other, on one registry."""
        for row in rows:
            answer = self.ask(row.method, row.target, row.headers, row.sent)
            self.assertEqual(answer.status, row.status, (row, answer))
            for name, value in row.want.items():
                self.assertEqual(answer.get(name), value, (name, row, answer))
            if row.method == "HEAD":
                self.assertEqual(answer.body, b"")
            elif isinstance(row.body, str):
                self.assertEqual([error["code"] for error in json.loads(answer.body)["errors"]][:1], [row.body], (row, answer))
            elif row.body is not None:
                self.assertEqual(answer.body, row.body, row)

    # State to begin with

    def push_blob(self, name: str, content: bytes, algorithm: str = "sha256") -> str:
        """
        :return: Its digest.
        """
        digest = digest_of(content, algorithm)
        begun = self.ask("POST", f"/v2/{name}/blobs/uploads/?digest-algorithm={algorithm}", body=b"")
        self.assertEqual(begun.status, 202, begun)
        separator = "&" if "?" in begun["Location"] else "?"
        done = self.ask("PUT", f"{path_of(begun['Location'])}{separator}digest={digest}", [OCTETS], content)
        self.assertEqual(done.status, 201, done)
        return digest

    def image(self, name: str, layer: bytes = b"layer", **fields: object) -> bytes:
        """An image manifest whose blobs are there; ``fields`` go into it."""
        config = b"{}"
        for blob in (config, layer):
            self.push_blob(name, blob)
        return json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": OCI_IMAGE,
                "config": descriptor(config, "application/vnd.oci.image.config.v1+json"),
                "layers": [descriptor(layer, "application/vnd.oci.image.layer.v1.tar+gzip")],
                **fields,
            }
        ).encode()

    def push_manifest(self, name: str, reference: str, content: bytes, media_type: str = OCI_IMAGE) -> Answer:
        answer = self.ask("PUT", f"/v2/{name}/manifests/{reference}", [("Content-Type", media_type)], content)
        self.assertEqual(answer.status, 201, answer)
        return answer

    def push_image(self, name: str, *tags: str, layer: bytes = b"layer", **fields: object) -> tuple[str, bytes]:
        """
        :return: The digest of a tagged image, and its manifest.
        """
        content = self.image(name, layer, **fields)
        digest = digest_of(content)
        for reference in tags or (digest,):
            self.push_manifest(name, reference, content)
        return digest, content

    def begin(self, name: str) -> str:
        """
        :return: The path of a new upload.
        """
        answer = self.ask("POST", f"/v2/{name}/blobs/uploads/", body=b"")
        self.assertEqual(answer.status, 202, answer)
        return path_of(answer["Location"])


def descriptor(content: bytes, media_type: str, **fields: object) -> dict[str, object]:
    return {"mediaType": media_type, "digest": digest_of(content), "size": len(content), **fields}


def index(*children: dict[str, object], **fields: object) -> bytes:
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": list(children), **fields}).encode()


def late(clock: Clock) -> MemoryDriver:
    """A driver in memory that answers in a later turn of the event loop, as one does that works in threads."""

    class Late(MemoryDriver):
        pass

    def delay(name: str) -> Any:
        real = getattr(MemoryDriver, name)

        async def call(self: Any, *arguments: Any, **options: Any) -> Any:
            await deferLater(clock, 0)
            return await real(self, *arguments, **options)

        return call

    for method in ("stat", "read", "open", "hash", "names", "exists", "write", "create", "adopt", "append", "delete"):
        setattr(Late, method, delay(method))
    return Late()


def failing(error: Callable[[], Exception], *methods: str) -> MemoryDriver:
    """A driver in memory of which some methods fail, from the time that ``broken`` is set."""

    class Failing(MemoryDriver):
        broken = False

    def fail(name: str) -> Any:
        real = getattr(MemoryDriver, name)

        async def call(self: Any, *arguments: Any, **options: Any) -> Any:
            if self.broken:
                raise error()
            return await real(self, *arguments, **options)

        return call

    for method in methods:
        setattr(Failing, method, fail(method))
    return Failing()


@dataclass(frozen=True)
class Row:
    """
    One line of a table: what is sent, and what comes back.

    :ivar want: Header fields of the answer by name; ``None`` for one that must not be there.
    :ivar body: That of the answer: its bytes, or the code of an error.
    :ivar headers: Those that are sent.
    :ivar sent: The body that is sent.
    """

    method: str
    target: str | bytes
    status: int
    body: bytes | str | None = None
    want: Mapping[str, str | None] = field(default_factory=dict)
    headers: Sequence[tuple[str, str | bytes]] = ()
    sent: bytes | None = None
