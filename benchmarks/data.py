"""What is in a registry when a turn begins: nothing, a few blobs and manifests, or a very large tree."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks import trees
from benchmarks.candidates import REGD
from benchmarks.payload import Payload
from benchmarks.pushing import push_bytes, push_manifest, push_payload
from benchmarks.servers import running
from benchmarks.wire import Connection

__all__ = ["EMPTY", "SEEDED", "Data", "Held", "Settings", "repositories", "seed", "tags"]

_MIB: Final = 1024 * 1024
_REPOSITORY: Final = "bench/app"

#: The blob that is asked for over and over, in bytes.
SMALL_BLOB: Final = 1024

#: The configuration of the image, in bytes.
_CONFIG: Final = b'{"architecture":"amd64","os":"linux"}'


@dataclass(frozen=True)
class Settings:
    """
    How much to do.

    :ivar scale: 1 for the usual amount of work in a turn, which takes a few seconds.
    :ivar shrink: by what to divide the sizes of blobs and of trees; 1 for those that the names of the rows speak of.
    """

    scale: float = 1.0
    shrink: int = 1

    def times(self, count: int) -> int:
        """``count`` to scale, and at least 1."""
        return max(1, round(count * self.scale))

    def size(self, size: int) -> int:
        """The size of a blob or a tree."""
        return max(1, size // self.shrink)


@dataclass(frozen=True)
class Held:
    """
    What a registry holds.

    :ivar repository: where it is.
    :ivar large: the digest of a blob of 256 MiB.
    :ivar huge: that of a blob of 1 GiB.
    :ivar huge_size: its length in bytes.
    :ivar small: that of a blob of 1 KiB.
    :ivar manifest: that of a manifest of ten layers, which has the tag ``latest``.
    :ivar entries: how many tags or repositories there are, where there are many.
    """

    repository: str = ""
    large: str = ""
    huge: str = ""
    huge_size: int = 0
    small: str = ""
    manifest: str = ""
    entries: int = 0


@dataclass(frozen=True)
class Data:
    """
    What a turn begins with.

    :ivar name: that of its directory.
    :ivar shared: whether it is made once, and all candidates read the very same files; else each turn has a directory of its own.
    :ivar fill: puts it into a directory.
    """

    name: str
    shared: bool
    fill: Callable[[Path, Settings], Held]


def _nothing(_directory: Path, _settings: Settings) -> Held:
    return Held()


def seed(port: int, settings: Settings) -> Held:
    """Push what :class:`Held` speaks of to a registry."""
    huge_size = settings.size(1024 * _MIB)
    payloads = [Payload(settings.size(256 * _MIB)), Payload(huge_size)]
    try:
        with Connection(port) as connection:
            large, huge = (push_payload(connection, _REPOSITORY, payload, "seed", chunked=False) for payload in payloads)
            layers = [push_bytes(connection, _REPOSITORY, bytes([number]) * SMALL_BLOB) for number in range(9)]
            config = push_bytes(connection, _REPOSITORY, _CONFIG)
            manifest = push_manifest(connection, _REPOSITORY, "latest", config, [large, *layers])
    finally:
        for payload in payloads:
            payload.close()
    return Held(_REPOSITORY, large.digest, huge.digest, huge_size, layers[0].digest, manifest)


def _seeded(directory: Path, settings: Settings) -> Held:
    # The tree is registry:2's, so that every candidate can serve it.
    with running(REGD, directory.with_name(f"{directory.name}-seeding"), directory, access_log=False) as server:
        return seed(server.port, settings)


def _tags(count: int, directory: Path, settings: Settings) -> Held:
    entries = settings.size(count)
    return Held(repository=trees.tags(str(directory), entries), entries=entries)


def _repositories(count: int, directory: Path, settings: Settings) -> Held:
    entries = settings.size(count)
    trees.repositories(str(directory), entries)
    return Held(entries=entries)


EMPTY: Final = Data("empty", shared=False, fill=_nothing)
SEEDED: Final = Data("seeded", shared=True, fill=_seeded)


def tags(count: int) -> Data:
    """So many tags in one repository, ``v000000`` and on."""
    return Data(f"tags-{count}", shared=True, fill=partial(_tags, count))


def repositories(count: int) -> Data:
    """So many repositories, ``r000000`` and on."""
    return Data(f"repositories-{count}", shared=True, fill=partial(_repositories, count))
