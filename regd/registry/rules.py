"""What a manifest has to fulfil before it is taken, and how each kind of reference in it is checked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from regd.errors import ManifestBlobUnknown, ManifestInvalid, RegistryError
from regd.manifest import FOREIGN_LAYERS, Descriptor, Manifest, Platform
from regd.names import Digest

__all__ = ["ManifestRules", "check"]

#: Whether the repository holds the blob, or the manifest, of a digest.
Holds = Callable[[Digest], Awaitable[bool]]


@dataclass(frozen=True, slots=True)
class ManifestRules:
    """
    ``validation`` of the configuration.

    :ivar url_permitted: whether a foreign layer may be at a URL.
    :ivar platforms: the children of an index that must be there: ``None`` for all, else those of these platforms.
    """

    url_permitted: Callable[[str], bool] = lambda url: False
    platforms: frozenset[Platform] | None = None


async def check(manifest: Manifest, rules: ManifestRules, holds_blob: Holds, holds_manifest: Holds) -> None:
    """
    See whether all that a manifest refers to is there. Its ``subject`` need not be (specification 1.1, "Pushing Manifests with Subject").

    :raises ManifestBlobUnknown: naming each digest that is missing.
    :raises ManifestInvalid: for a foreign layer whose URLs are not allowed.
    """
    errors: list[RegistryError] = [
        _missing("blob", blob)
        for blob in _distinct(manifest.blobs)
        if not (_foreign(blob, rules) or await holds_blob(blob.digest))
    ]
    for child in _distinct(manifest.manifests):
        if rules.platforms is not None and child.platform not in rules.platforms:
            continue
        if not await holds_manifest(child.digest):
            errors.append(_missing("manifest", child))
    if errors:
        first, *others = errors
        raise type(first)(first.message, detail=first.detail, others=others)


def _distinct(descriptors: Iterable[Descriptor]) -> Iterable[Descriptor]:
    """One descriptor for each digest: images repeat layers."""
    return {descriptor.digest: descriptor for descriptor in descriptors}.values()


def _missing(kind: str, descriptor: Descriptor) -> ManifestBlobUnknown:
    return ManifestBlobUnknown(
        f"{kind} {descriptor.digest} is not in this repository: push it before the manifest",
        detail={"digest": descriptor.digest},
    )


def _foreign(blob: Descriptor, rules: ManifestRules) -> bool:
    """Whether a layer is one that clients fetch from elsewhere, by URLs that are allowed. Without URLs it has to be here."""
    if blob.media_type not in FOREIGN_LAYERS or not blob.urls:
        return False
    for url in blob.urls:
        try:
            parts = urlsplit(url)
        except ValueError:
            raise ManifestInvalid(f"layer {blob.digest}: {url[:200]!r} is not a URL") from None
        if parts.scheme not in {"http", "https"} or not parts.netloc or parts.fragment:
            raise ManifestInvalid(f"layer {blob.digest}: {url[:200]!r} has to be http or https, without a fragment")
        if not rules.url_permitted(url):
            raise ManifestInvalid(f"layer {blob.digest}: {url[:200]!r} is not allowed by validation.manifests.urls")
    return True
