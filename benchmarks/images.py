"""
Small images, pushed by a client that costs next to nothing: what can be known before is made before, the rest is a socket and two
searches in each answer.
"""

from __future__ import annotations

import hashlib
import os
import socket
from dataclasses import dataclass
from typing import Final

from benchmarks.pushing import MANIFEST_TYPE, Stored, manifest_bytes
from benchmarks.wire import HOST, UnexpectedReply

__all__ = ["Image", "ImagePusher"]

#: The layer of each image, in bytes.
LAYER: Final = 4096


@dataclass(frozen=True)
class Image:
    """
    One image, ready to be pushed.

    :ivar blobs: its layer and its configuration: the part of the PATCH that follows the target, and the digest.
    :ivar manifest: the request that puts its manifest under a tag.
    """

    blobs: tuple[tuple[bytes, bytes], ...]
    manifest: bytes


class ImagePusher:
    """
    Pushes images of one layer of 4 KiB, a configuration and a manifest to a repository of its own: seven requests each. All of them are
    made here, but for the targets that the answers name.

    :param port: of the registry.
    :param number: tells this client from the others of the run.
    :param count: how many images.
    """

    def __init__(self, port: int, number: int, count: int) -> None:
        self._port = port
        host = f"{HOST}:{port}"
        repository = f"bench/small{number}"
        self._base = f"http://{host}".encode()
        self._post = f"POST /v2/{repository}/blobs/uploads/ HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n".encode()
        self._put_rest = f" HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n".encode()
        self._images = [self._image(host, repository, f"{os.getpid()}/{number}/{image}", image) for image in range(count)]

    def _image(self, host: str, repository: str, identity: str, number: int) -> Image:
        layer = identity.encode().ljust(LAYER, b".")
        config = f'{{"author":"{identity}"}}'.encode()
        stored = [Stored(f"sha256:{hashlib.sha256(content).hexdigest()}", len(content)) for content in (layer, config)]
        manifest = manifest_bytes(stored[1], stored[:1])
        put = f"PUT /v2/{repository}/manifests/t{number} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {MANIFEST_TYPE}\r\n"
        blobs = []
        for blob, content in zip(stored, (layer, config), strict=True):
            fields = f"Content-Type: application/octet-stream\r\nContent-Length: {blob.size}"
            blobs.append((f" HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n\r\n".encode() + content, blob.digest.encode()))
        return Image(tuple(blobs), f"{put}Content-Length: {len(manifest)}\r\n\r\n".encode() + manifest)

    def push(self) -> float:
        """
        Push all of them on one connection.

        :return: how many there were.
        :raises UnexpectedReply: when the registry refuses one.
        """
        with socket.create_connection((HOST, self._port)) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for image in self._images:
                for patch_rest, digest in image.blobs:
                    location = self._ask(connection, self._post, b"202")
                    location = self._ask(connection, b"PATCH " + location + patch_rest, b"202")
                    joint = b"&digest=" if b"?" in location else b"?digest="
                    self._ask(connection, b"PUT " + location + joint + digest + self._put_rest, b"201")
                self._ask(connection, image.manifest, b"201")
        return float(len(self._images))

    def _ask(self, connection: socket.socket, request: bytes, status: bytes) -> bytes:
        """Send a request and return the path and query of the ``Location`` of its answer, which has no body."""
        connection.sendall(request)
        head = connection.recv(65536)
        while not head.endswith(b"\r\n\r\n"):
            more = connection.recv(65536)
            if not more:
                raise UnexpectedReply(f"the registry closed the connection after {head[:100]!r}")
            head += more
        if head[9:12] != status:
            raise UnexpectedReply(f"{head[:300]!r} instead of {status.decode()}")
        # Any case is as good as another for the name of a field, and these two are all that there are.
        begin = head.find(b"\r\nLocation: ")
        if begin < 0:
            begin = head.find(b"\r\nlocation: ")
        location = head[begin + 12 : head.find(b"\r\n", begin + 12)]
        return location.removeprefix(self._base)
