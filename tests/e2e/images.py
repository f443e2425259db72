"""
Images that a test makes by itself, without any network: contexts for ``docker
build``, and OCI image layouts (OCI image specification 1.1, "Image Layout").
"""

import gzip
import io
import json
import os
import random
import shutil
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.process import need
from tests.e2e.rawhttp import digest_of

__all__ = ["OCI_CONFIG", "OCI_INDEX", "OCI_LAYER", "OCI_MANIFEST", "Descriptor", "OciLayout", "build_context", "noise"]

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"

MIB = 1 << 20


def noise(size: int, seed: int | None = None) -> bytes:
    """
    :param size: How many bytes.
    :param seed: The same one gives the same bytes; without one they are new each time.
    :return: Bytes that do not compress.
    """
    return os.urandom(size) if seed is None else random.Random(seed).randbytes(size)


def build_context(directory: Path, layers: Sequence[int], runnable: bool = False) -> Path:
    """
    A context for ``docker build``: an image from scratch with a layer of random bytes for each size.

    :param directory: Where to make it; it must not exist.
    :param layers: The sizes in bytes; layer *n* holds the file ``/layer-n``.
    :param runnable: Whether ``/busybox``, a static program, comes as one more layer.
    :return: The directory.
    """
    directory.mkdir(parents=True)
    lines = ["FROM scratch"]
    if runnable:
        need("busybox")
        shutil.copy2(str(shutil.which("busybox")), directory / "busybox")
        lines += ["COPY busybox /busybox", 'ENTRYPOINT ["/busybox"]']
    for number, size in enumerate(layers):
        with (directory / f"layer-{number}").open("wb") as layer:
            for offset in range(0, size, MIB):
                layer.write(noise(min(MIB, size - offset)))
        lines.append(f"COPY layer-{number} /layer-{number}")
    (directory / "Dockerfile").write_text("\n".join([*lines, ""]), encoding="utf-8")
    return directory


@dataclass(frozen=True)
class Descriptor:
    """
    A reference to a blob of a layout (OCI image specification 1.1, "Content Descriptors").

    :ivar size: In bytes.
    """

    media_type: str
    digest: str
    size: int
    platform: Mapping[str, str] | None = None

    def as_json(self) -> dict[str, object]:
        """
        :return: The object that stands for it in a manifest.
        """
        document: dict[str, object] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        return document | ({"platform": self.platform} if self.platform else {})


class OciLayout:
    """
    A directory in the form that ``skopeo copy oci:DIRECTORY:TAG`` reads.

    :param directory: Where to make it; it must not exist.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._named: list[dict[str, object]] = []
        (directory / "blobs" / "sha256").mkdir(parents=True)
        (directory / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}', encoding="ascii")

    def add(self, media_type: str, content: bytes, platform: Mapping[str, str] | None = None) -> Descriptor:
        """
        :param media_type: What the content is.
        :param content: Any bytes.
        :param platform: The platform that it is for.
        :return: The descriptor of the blob that now holds the content.
        """
        digest = digest_of(content)
        (self.directory / "blobs" / "sha256" / digest.partition(":")[2]).write_bytes(content)
        return Descriptor(media_type, digest, len(content), platform)

    def add_image(self, architecture: str, layers: Sequence[bytes]) -> Descriptor:
        """
        :param architecture: As Go names it: ``amd64``.
        :param layers: The content of the file in each layer.
        :return: The descriptor of the image's manifest.
        """
        tars = [one_file_tar(f"layer-{number}", content) for number, content in enumerate(layers)]
        platform = {"os": "linux", "architecture": architecture}
        config = {**platform, "config": {}, "rootfs": {"type": "layers", "diff_ids": [digest_of(tar) for tar in tars]}}
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": self.add(OCI_CONFIG, json.dumps(config).encode()).as_json(),
            "layers": [self.add(OCI_LAYER, gzip.compress(tar, 1, mtime=0)).as_json() for tar in tars],
        }
        return self.add(OCI_MANIFEST, json.dumps(manifest).encode(), platform)

    def add_index(self, images: Sequence[Descriptor]) -> Descriptor:
        """
        :param images: What it lists.
        :return: The descriptor of an index of them.
        """
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [image.as_json() for image in images]}
        return self.add(OCI_INDEX, json.dumps(index).encode())

    def tag(self, name: str, descriptor: Descriptor) -> str:
        """
        :param name: The tag, for the part after the second colon.
        :param descriptor: What it stands for.
        :return: The name of the image for skopeo.
        """
        self._named.append(descriptor.as_json() | {"annotations": {"org.opencontainers.image.ref.name": name}})
        document = {"schemaVersion": 2, "manifests": self._named}
        (self.directory / "index.json").write_text(json.dumps(document), encoding="utf-8")
        return f"oci:{self.directory}:{name}"


def one_file_tar(name: str, content: bytes) -> bytes:
    """
    :param name: The name of the file.
    :param content: What is in it.
    :return: A tar archive of that file, the same every time.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()
