"""
What a manifest says: bytes and a media type in, descriptors out. Pure; no I/O.

Five kinds are known: Docker image manifests (schema 2) and manifest lists, OCI image manifests and indexes (image specification 1.1), and
the OCI artifact manifest, which the specification dropped and some clients still push. A manifest is kept as the bytes it came as; what is
read here only decides what those bytes refer to.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from regd.errors import DigestInvalid, ManifestInvalid
from regd.names import Digest

__all__ = [
    "DOCKER_IMAGE",
    "DOCKER_LIST",
    "FOREIGN_LAYERS",
    "INDEXES",
    "LIMIT",
    "MEDIA_TYPES",
    "OCI_ARTIFACT",
    "OCI_IMAGE",
    "OCI_INDEX",
    "SCHEMA_1",
    "Descriptor",
    "Manifest",
    "Platform",
    "media_type_of",
    "parse",
]

#: The largest manifest that the registry takes, in bytes (distribution specification 1.1, "Pushing Manifests": at least 4 MiB).
LIMIT: Final = 4 * 1024 * 1024

DOCKER_IMAGE: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
OCI_IMAGE: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
OCI_ARTIFACT: Final = "application/vnd.oci.artifact.manifest.v1+json"

#: The media types that a manifest may have here.
MEDIA_TYPES: Final = frozenset({DOCKER_IMAGE, DOCKER_LIST, OCI_IMAGE, OCI_INDEX, OCI_ARTIFACT})

#: Those that list other manifests.
INDEXES: Final = frozenset({DOCKER_LIST, OCI_INDEX})

#: What Docker wrote before 1.10, signed and not.
SCHEMA_1: Final = frozenset(
    {"application/vnd.docker.distribution.manifest.v1+json", "application/vnd.docker.distribution.manifest.v1+prettyjws"}
)

#: Layers that clients fetch from elsewhere, so that the registry need not hold them.
FOREIGN_LAYERS: Final = frozenset(
    {
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
    }
)

#: Content types that say nothing about which kind of manifest it is.
_SILENT: Final = frozenset({"", "application/json", "application/octet-stream", "text/plain"})

_SCHEMA_1_MESSAGE: Final = (
    "Docker image manifests of schema 1 are not supported: "
    "pull the image with a current client and push it again, or convert it with 'skopeo copy --format v2s2'"
)

#: The largest size that clients can read: theirs is a signed 64-bit number.
_MOST_BYTES: Final = 2**63 - 1

#: How much of a client's value an error message repeats, in characters.
_SHOWN: Final = 80

_NO_ANNOTATIONS: Final[Mapping[str, str]] = {}


@dataclass(frozen=True, slots=True)
class Platform:
    """What a child of an index runs on."""

    os: str
    architecture: str


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A reference to content (OCI image specification 1.1, "Content Descriptors"); ``size`` is in bytes."""

    media_type: str
    digest: Digest
    size: int
    urls: tuple[str, ...] = ()
    platform: Platform | None = None
    artifact_type: str = ""
    annotations: Mapping[str, str] = field(default_factory=lambda: _NO_ANNOTATIONS)

    def to_json(self) -> dict[str, object]:
        """The form that an index lists it in, with the fields that referrers have."""
        entry: dict[str, object] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        if self.artifact_type:
            entry["artifactType"] = self.artifact_type
        if self.annotations:
            entry["annotations"] = dict(self.annotations)
        return entry


@dataclass(frozen=True, slots=True)
class Manifest:
    """
    What a manifest refers to.

    :ivar blobs: the content that must be in the repository as blobs: the configuration first, then the layers.
    :ivar manifests: the children of an index; empty for any other kind.
    :ivar subject: the manifest that this one is about; it need not exist.
    :ivar artifact_type: as a listing of referrers shows it: the field, else the media type of an image's configuration.
    """

    media_type: str
    blobs: tuple[Descriptor, ...] = ()
    manifests: tuple[Descriptor, ...] = ()
    subject: Descriptor | None = None
    artifact_type: str = ""
    annotations: Mapping[str, str] = field(default_factory=lambda: _NO_ANNOTATIONS)


def parse(content: bytes, content_type: str = "") -> Manifest:
    """
    Read a manifest as a client sent it.

    :param content_type: the media type that the client gave; parameters are ignored, empty or generic means "see inside".
    :raises ManifestInvalid: saying which field is wrong and what it has to be.
    """
    document = _load(content)
    media_type = _media_type(document, content_type.partition(";")[0].strip().lower())
    version = document.get("schemaVersion")
    if media_type != OCI_ARTIFACT and not (version == 2 and isinstance(version, int)):
        raise ManifestInvalid(f"schemaVersion: found {_shown(version)}, has to be 2")
    _check_unambiguous(document, media_type)
    blobs: tuple[Descriptor, ...] = ()
    manifests: tuple[Descriptor, ...] = ()
    artifact_type = _text(document, "artifactType", "")
    if media_type in INDEXES:
        manifests = _descriptors(document, "manifests")
    elif media_type == OCI_ARTIFACT:
        blobs = _descriptors(document, "blobs") if "blobs" in document else ()
    else:
        config = _descriptor(document.get("config"), "config")
        blobs = (config, *_descriptors(document, "layers"))
        artifact_type = artifact_type or config.media_type
    subject = document.get("subject")
    return Manifest(
        media_type=media_type,
        blobs=blobs,
        manifests=manifests,
        subject=None if subject is None else _descriptor(subject, "subject"),
        artifact_type=artifact_type,
        annotations=_annotations(document, "annotations"),
    )


def media_type_of(content: bytes) -> str:
    """
    The media type of a stored manifest, which its file does not say; reads no more than that needs, so that what an older registry
    accepted is still served.

    :raises ManifestInvalid: when this is not a manifest that can be served.
    """
    return _media_type(_load(content), "")


def _load(content: bytes) -> dict[str, object]:
    try:
        # Decoded here: given bytes, the parser guesses among UTF-16 and others that no other reader of JSON takes (RFC 8259, section 8.1).
        document = json.loads(content.decode("utf-8"))
    # RecursionError: a few kilobytes of "[" nest deeper than the parser goes. ValueError covers bad UTF-8 and bad numbers too.
    except (ValueError, RecursionError) as error:
        raise ManifestInvalid(f"not JSON: {error}"[:200]) from None
    if not isinstance(document, dict):
        raise ManifestInvalid("a manifest is a JSON object")
    return document


def _media_type(document: dict[str, object], given: str) -> str:
    """The one media type that the document, its shape and its sender agree on."""
    inside = _text(document, "mediaType", "")
    if document.get("schemaVersion") == 1 or given in SCHEMA_1 or inside in SCHEMA_1:
        raise ManifestInvalid(_SCHEMA_1_MESSAGE)
    if given in _SILENT:
        given = ""
    if given and inside and given != inside:
        raise ManifestInvalid(f"mediaType: found {_shown(inside)}, but the Content-Type is {_shown(given)}")
    media_type = given or inside or _shape(document)
    if media_type not in MEDIA_TYPES:
        raise ManifestInvalid(f"media type {_shown(media_type)} is not one of {', '.join(sorted(MEDIA_TYPES))}")
    # Whoever pulls has no Content-Type of the push to go by, only what is inside.
    if not inside and media_type != _shape(document):
        raise ManifestInvalid(f"mediaType: is missing, and without it nobody can tell that this is {media_type}")
    return media_type


def _shape(document: dict[str, object]) -> str:
    """OCI manifests need not name their media type; their fields tell."""
    if isinstance(document.get("manifests"), list):
        return OCI_INDEX
    if isinstance(document.get("config"), dict) and isinstance(document.get("layers", ""), list | None):
        return OCI_IMAGE
    if "manifests" in document and document["manifests"] is None:
        return OCI_INDEX
    raise ManifestInvalid("neither an image manifest (config, layers) nor an index (manifests), and no mediaType says what it is")


def _check_unambiguous(document: dict[str, object], media_type: str) -> None:
    """One content must not be two things to two readers (CVE-2021-41190)."""
    foreign = ("config", "layers") if media_type in INDEXES else ("manifests",)
    for name in foreign:
        if document.get(name):
            raise ManifestInvalid(f"{name}: must not be there, as the media type is {media_type}")


def _descriptors(document: dict[str, object], name: str) -> tuple[Descriptor, ...]:
    entries = document.get(name)
    if entries is None and (name in document or name == "manifests"):
        # Go writes an empty slice as null.
        return ()
    if not isinstance(entries, list):
        raise ManifestInvalid(f"{name}: has to be a list")
    return tuple(_descriptor(entry, f"{name}[{index}]") for index, entry in enumerate(entries))


def _descriptor(entry: object, where: str) -> Descriptor:
    if not isinstance(entry, dict):
        raise ManifestInvalid(f"{where}: has to be a descriptor, an object with mediaType, digest and size")
    size = entry.get("size")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= _MOST_BYTES:
        raise ManifestInvalid(f"{where}.size: has to be a number of bytes")
    digest = entry.get("digest")
    try:
        parsed = Digest.parse(digest if isinstance(digest, str) else "")
    except DigestInvalid as error:
        raise ManifestInvalid(f"{where}.digest: {error.message}") from None
    urls = entry.get("urls") or []
    if not isinstance(urls, list) or not all(isinstance(url, str) for url in urls):
        raise ManifestInvalid(f"{where}.urls: has to be a list of URLs")
    return Descriptor(
        media_type=_text(entry, "mediaType", "", where),
        digest=parsed,
        size=size,
        urls=tuple(urls),
        platform=_platform(entry.get("platform")),
        artifact_type=_text(entry, "artifactType", "", where),
        annotations=_annotations(entry, "annotations", where),
    )


def _platform(value: object) -> Platform | None:
    if not isinstance(value, dict):
        return None
    system, architecture = value.get("os"), value.get("architecture")
    return Platform(system if isinstance(system, str) else "", architecture if isinstance(architecture, str) else "")


def _annotations(document: dict[str, object], name: str, where: str = "") -> Mapping[str, str]:
    value = document.get(name)
    if value is None:
        return _NO_ANNOTATIONS
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise ManifestInvalid(f"{where + '.' if where else ''}{name}: has to be an object of strings")
    return value


def _shown(value: object) -> str:
    """A value as a message repeats it: shortened, and lists and objects by kind only, since they may nest deeper than ``repr`` goes."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _text(document: dict[str, object], name: str, default: str, where: str = "") -> str:
    value = document.get(name)
    if value is None:
        return default
    if not isinstance(value, str):
        raise ManifestInvalid(f"{where + '.' if where else ''}{name}: has to be a string")
    return value
