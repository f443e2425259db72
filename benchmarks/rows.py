"""The rows of the table: what each one asks of a server."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from benchmarks.drivers import Work, in_processes, request_many
from benchmarks.payload import Payload
from benchmarks.pushing import MANIFEST_TYPE, Stored, push_bytes, push_manifest, push_payload
from benchmarks.wire import Connection

__all__ = ["ROWS", "Row", "Seed", "Target", "seed"]

_MIB: Final = 1024 * 1024
_REPOSITORY: Final = "bench/app"
_SMALL_BLOB: Final = 4096

#: The blob that pulls read.
_PULLED: Final = 256 * _MIB
#: The blobs that pushes write, and how many clients do so.
_PUSHED: Final = 64 * _MIB
_PUSHERS: Final = 2


@dataclass(frozen=True)
class Seed:
    """
    What a registry holds before reads are measured.

    :ivar large: the path of a blob of 256 MiB.
    :ivar small: the path of a blob of 4 KiB.
    :ivar by_tag: the path of a manifest of ten layers, by its tag.
    :ivar by_digest: the same by its digest.
    """

    large: str
    small: str
    by_tag: str
    by_digest: str


def seed(port: int) -> Seed:
    """Push what :class:`Seed` speaks of."""
    payload = Payload(_PULLED)
    try:
        with Connection(port) as connection:
            large = push_payload(connection, _REPOSITORY, payload, "seed", chunked=False)
            layers = [push_bytes(connection, _REPOSITORY, bytes([number]) * _SMALL_BLOB) for number in range(9)]
            config = push_bytes(connection, _REPOSITORY, b'{"architecture":"amd64","os":"linux"}')
            digest = push_manifest(connection, _REPOSITORY, "latest", config, [large, *layers])
    finally:
        payload.close()
    blobs, manifests = f"/v2/{_REPOSITORY}/blobs", f"/v2/{_REPOSITORY}/manifests"
    return Seed(f"{blobs}/{large.digest}", f"{blobs}/{layers[0].digest}", f"{manifests}/latest", f"{manifests}/{digest}")


@dataclass(frozen=True)
class Target:
    """
    A server under load.

    :ivar port: its port.
    :ivar seed: what it holds; for rows that write, nothing, and this is ``None``.
    :ivar scale: how much to do: 1 for the usual amount, which takes a second or two.
    """

    port: int
    seed: Seed | None
    scale: float

    def times(self, count: int) -> int:
        """``count`` to scale, and at least 1."""
        return max(1, round(count * self.scale))

    @property
    def held(self) -> Seed:
        """What it holds."""
        assert self.seed is not None, "this row reads, so the server has to be seeded"
        return self.seed


@dataclass(frozen=True)
class Row:
    """
    :ivar name: what to call it on the command line.
    :ivar title: what the table calls it.
    :ivar unit: of the amount in :class:`~benchmarks.drivers.Work`: ``B``, ``requests`` or ``images``.
    :ivar reads: whether it needs a registry that holds the :class:`Seed`; else it gets an empty one.
    :ivar load: does it.
    """

    name: str
    title: str
    unit: str
    reads: bool
    load: Callable[[Target], Work]


def _push_client(port: int, payload: Payload, blobs: int, chunked: bool, number: int) -> float:
    with Connection(port) as connection:
        for blob in range(blobs):
            push_payload(connection, "bench/push", payload, os.getpid(), number, blob, chunked=chunked)
    return float(blobs * payload.blob_size)


def _push(target: Target, *, chunked: bool) -> Work:
    payload = Payload(_PUSHED)
    try:
        return in_processes(_PUSHERS, partial(_push_client, target.port, payload, target.times(5), chunked))
    finally:
        payload.close()


def _pull_client(port: int, path: str, times: int, _number: int) -> float:
    with Connection(port) as connection:
        return float(sum(connection.download(path) for _ in range(times)))


def _pull(target: Target, *, clients: int) -> Work:
    return in_processes(clients, partial(_pull_client, target.port, target.held.large, target.times(12 // clients)))


#: How long small requests are repeated, in seconds.
_REPEAT: Final = 3.0


def _manifest_by_tag(target: Target) -> Work:
    return request_many(target.port, "GET", target.held.by_tag, [f"Accept: {MANIFEST_TYPE}"], _REPEAT * target.scale)


def _manifest_by_digest(target: Target) -> Work:
    return request_many(target.port, "GET", target.held.by_digest, [f"Accept: {MANIFEST_TYPE}"], _REPEAT * target.scale)


def _manifest_head(target: Target) -> Work:
    return request_many(target.port, "HEAD", target.held.by_tag, [f"Accept: {MANIFEST_TYPE}"], _REPEAT * target.scale)


def _blob_small(target: Target) -> Work:
    return request_many(target.port, "GET", target.held.small, [], _REPEAT * target.scale)


def _image_client(port: int, images: int, number: int) -> float:
    repository = f"bench/small{number}"
    with Connection(port) as connection:
        for image in range(images):
            layer = push_bytes(connection, repository, f"{os.getpid()}/{number}/{image}".encode().ljust(_SMALL_BLOB, b"."))
            config: Stored = push_bytes(connection, repository, f'{{"author":"{os.getpid()}/{number}/{image}"}}'.encode())
            push_manifest(connection, repository, f"t{image}", config, [layer])
    return float(images)


def _small_images(target: Target) -> Work:
    return in_processes(4, partial(_image_client, target.port, target.times(60)))


#: In the order of the table.
ROWS: Final = {
    row.name: row
    for row in (
        Row("push-fixed", "push 64 MiB blobs, Content-Length, 2 clients", "B", False, partial(_push, chunked=False)),
        Row("push-chunked", "push 64 MiB blobs, chunked, 2 clients", "B", False, partial(_push, chunked=True)),
        Row("pull-1", "pull a 256 MiB blob, 1 client", "B", True, partial(_pull, clients=1)),
        Row("pull-2", "pull a 256 MiB blob, 2 clients", "B", True, partial(_pull, clients=2)),
        Row("pull-4", "pull a 256 MiB blob, 4 clients", "B", True, partial(_pull, clients=4)),
        Row("manifest-tag", "GET a manifest by tag", "requests", True, _manifest_by_tag),
        Row("manifest-digest", "GET a manifest by digest", "requests", True, _manifest_by_digest),
        Row("manifest-head", "HEAD a manifest by tag", "requests", True, _manifest_head),
        Row("blob-small", "GET a 4 KiB blob", "requests", True, _blob_small),
        Row("images-small", "push images of two small blobs, 4 clients", "images", False, _small_images),
    )
}
