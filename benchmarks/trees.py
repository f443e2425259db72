"""
Large registries written straight to disk, for the rows about listings and for garbage collections.

Every function writes below a ``storage.filesystem.rootdirectory`` that no server uses yet. What it writes is what ``registry:2`` and regd
would have written, as far as listings and pulls need it: every link is valid, and all of them lead to one manifest. Left out is what only
deletion looks at, the links of a tag's history, because a hundred thousand entries cost a file system enough as it is. Names are made in a
shuffled order, as pushes would make them: some file systems list a directory in the order of its making. What :func:`images` writes is
whole: each image is another one, and nothing is left out.

In memory a hundred thousand tags take 3 s and 300,000 inodes, as many repositories 9 s and 700,000.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

__all__ = ["REPOSITORY", "Written", "images", "referrers", "repositories", "tags"]

#: The repository that :func:`tags` and :func:`referrers` fill.
REPOSITORY: Final = "large/repository"

_V2: Final = "docker/registry/v2"
_OCI_IMAGE: Final = "application/vnd.oci.image.manifest.v1+json"
_DOCKER_IMAGE: Final = "application/vnd.docker.distribution.manifest.v2+json"
_DOCKER_CONFIG: Final = "application/vnd.docker.container.image.v1+json"
_DOCKER_LAYER: Final = "application/vnd.docker.image.rootfs.diff.tar.gzip"
_CONFIG: Final = b"{}"


@dataclass(frozen=True)
class Written:
    """
    What :func:`images` wrote.

    :ivar repositories: the names of the repositories.
    :ivar manifests: how many manifests, each with a tag of its own.
    :ivar blobs: how many blobs in all, manifests and garbage included.
    :ivar garbage: the digests of those that nothing refers to.
    """

    repositories: tuple[str, ...]
    manifests: int
    blobs: int
    garbage: frozenset[str]


def images(root: str, count: int, per_repository: int = 10, layers: int = 4, garbage: int = 0, size: int = 64) -> Written:
    """
    So many repositories, ``team00/app0000``, ``team01/app0001``, ..., of tagged Docker images: what a garbage collection walks over. Each
    image has its own layers and configuration, and one layer that all images share.

    :param root: the root directory; made where it is missing.
    :param per_repository: images in each repository, tagged ``v0``, ``v1``, ...
    :param layers: layers of its own that each image has.
    :param garbage: blobs that nothing refers to.
    :param size: of each layer and each piece of garbage, in bytes.
    """
    # The same tree each time.
    source = random.Random(count)
    shared = _blob(root, source.randbytes(size))
    blobs, names = 1, []
    for number in range(count):
        name = f"team{number % 50:02}/app{number:04}"
        names.append(name)
        repository = f"{root}/{_V2}/repositories/{name}"
        _link(f"{repository}/_layers", shared)
        for image in range(per_repository):
            config = json.dumps({"architecture": "amd64", "os": "linux", "number": source.random()}).encode()
            held = [_blob(root, content) for content in (config, *(source.randbytes(size) for _ in range(layers)))]
            for digest in held:
                _link(f"{repository}/_layers", digest)
            manifest = _blob(root, _image((held[0], len(config)), [(digest, size) for digest in (shared, *held[1:])]))
            _link(f"{repository}/_manifests/revisions", manifest)
            tag = f"{repository}/_manifests/tags/v{image}"
            _link(f"{tag}/index", manifest)
            _write(f"{tag}/current/link", manifest.encode())
            blobs += len(held) + 1
    unwanted = frozenset(_blob(root, source.randbytes(size)) for _ in range(garbage))
    return Written(tuple(names), count * per_repository, blobs + len(unwanted), unwanted)


def _image(config: tuple[str, int], layers: list[tuple[str, int]]) -> bytes:
    """The manifest of a Docker image; each part by its digest and its size in bytes."""
    document = {
        "schemaVersion": 2,
        "mediaType": _DOCKER_IMAGE,
        "config": {"mediaType": _DOCKER_CONFIG, "size": config[1], "digest": config[0]},
        "layers": [{"mediaType": _DOCKER_LAYER, "size": size, "digest": digest} for digest, size in layers],
    }
    return json.dumps(document).encode()


def _link(directory: str, digest: str) -> None:
    _write(f"{directory}/{_split(digest)}/link", digest.encode())


def tags(root: str, count: int) -> str:
    """
    One repository with tags ``v000000``, ``v000001``, ...

    :param root: the root directory; made where it is missing.
    :returns: the name of the repository.
    """
    manifest = _shared(root)
    repository = f"{root}/{_V2}/repositories/{REPOSITORY}"
    link = manifest.encode()
    _write(f"{repository}/_manifests/revisions/{_split(manifest)}/link", link)
    _write(f"{repository}/_layers/{_split(_digest(_CONFIG))}/link", _digest(_CONFIG).encode())
    for number in _shuffled(count):
        directory = f"{repository}/_manifests/tags/v{number:06}/current"
        os.makedirs(directory)
        _put(f"{directory}/link", link)
    return REPOSITORY


def repositories(root: str, count: int, per_group: int = 0) -> None:
    """
    So many repositories with one manifest each, ``r000000``, ``r000001``, ...; or ``g0000/r000000`` and so on.

    :param root: the root directory; made where it is missing.
    :param per_group: how many repositories have the first component of their name in common; 0 for names of one component.
    """
    manifest = _shared(root)
    link = manifest.encode()
    top = f"{root}/{_V2}/repositories"
    for number in _shuffled(count):
        group = f"g{number // per_group:04}/" if per_group else ""
        repository = f"{top}/{group}r{number:06}"
        os.makedirs(f"{repository}/_layers")
        _write(f"{repository}/_manifests/revisions/{_split(manifest)}/link", link)


def referrers(root: str, count: int) -> tuple[str, str]:
    """
    One image with so many referrers, each a manifest of its own, every tenth of the type ``application/vnd.example.tenth``.

    :param root: the root directory; made where it is missing.
    :returns: the name of the repository, and the digest of the image.
    """
    subject = _shared(root)
    repository = f"{root}/{_V2}/repositories/{REPOSITORY}"
    _write(f"{repository}/_manifests/revisions/{_split(subject)}/link", subject.encode())
    for number in range(count):
        digest = _blob(root, _manifest(subject, number))
        link = digest.encode()
        _write(f"{repository}/_manifests/revisions/{_split(digest)}/link", link)
        _write(f"{repository}/_referrers/{_split(subject)}/{_split(digest)}/link", link)
    return REPOSITORY, subject


def _shuffled(count: int) -> Iterator[int]:
    numbers = list(range(count))
    # The same tree each time.
    random.Random(count).shuffle(numbers)
    yield from numbers


def _manifest(subject: str | None = None, number: int = 0) -> bytes:
    document: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": _OCI_IMAGE,
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": _digest(_CONFIG), "size": len(_CONFIG)},
        "layers": [],
    }
    if subject is not None:
        document["subject"] = {"mediaType": _OCI_IMAGE, "digest": subject, "size": len(_manifest())}
        document["artifactType"] = f"application/vnd.example.{'other' if number % 10 else 'tenth'}"
        document["annotations"] = {"org.opencontainers.image.created": "2024-01-01T00:00:00Z", "number": str(number)}
    return json.dumps(document).encode()


def _shared(root: str) -> str:
    """Write the manifest that every link leads to, and its configuration; the manifest's digest."""
    _blob(root, _CONFIG)
    return _blob(root, _manifest())


def _blob(root: str, content: bytes) -> str:
    digest = _digest(content)
    algorithm, _, encoded = digest.partition(":")
    _write(f"{root}/{_V2}/blobs/{algorithm}/{encoded[:2]}/{encoded}/data", content)
    return digest


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _split(digest: str) -> str:
    return digest.replace(":", "/")


def _write(path: str, content: bytes) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    _put(path, content)


def _put(path: str, content: bytes) -> None:
    # A third of the time of open(): there are hundreds of thousands of them.
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    try:
        os.write(fd, content)
    finally:
        os.close(fd)
