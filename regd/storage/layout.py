"""
The tree on disk, and the only functions that make its paths.

It is the tree of ``registry:2``, to the letter, so that either can serve what the other wrote::

    <root>
    ├── docker/registry/v2
    │   ├── blobs/<alg>/<hex[0:2]>/<hex>/data              the bytes of a layer, configuration or manifest
    │   └── repositories/<name>
    │       ├── _layers/<alg>/<hex>/link                   this repository holds that blob
    │       ├── _manifests
    │       │   ├── revisions/<alg>/<hex>
    │       │   │   ├── link                               this repository holds that manifest
    │       │   │   └── signatures/<alg>/<hex>/link        registry:2.0's; kept, and not served here
    │       │   └── tags/<tag>
    │       │       ├── current/link                       what the tag means now
    │       │       └── index/<alg>/<hex>/link             each manifest that it ever meant
    │       ├── _uploads/<uuid>
    │       │   ├── data                                   the bytes so far
    │       │   ├── startedat                              RFC 3339, UTC, whole seconds
    │       │   ├── hashstates/<alg>/<offset>              registry:2's; neither read nor written here
    │       │   └── digests/<alg>/<offset>                 regd's: hexadecimal digest of the first <offset> bytes
    │       ├── _referrers/<alg>/<hex>/<alg>/<hex>/link    regd's: that manifest has the subject <alg>/<hex>
    │       └── _cache/<alg>/<hex>                         regd's: it came from an upstream, and was last used when this was written
    └── regd                                               regd's own files; registry:2 never looks here
        ├── gate                                           a lock that changes hold together, and a collection alone
        ├── gate.queue                                     a lock that all pass on their way to the gate
        ├── collector                                      a lock of the one collection that runs
        ├── collecting                                     when that collection began: its own time
        ├── trash/<run>/<number>/<number>                  what a collection has taken away and not yet removed
        ├── damaged/<alg>/<hex>/data                       what a scrub has moved aside
        ├── fetching/<alg>/<hex>
        │   ├── data                                       what has come of a blob that is being fetched from an upstream
        │   └── size                                       how many bytes it is going to have, and for which repository it is fetched
        ├── turns/<number>                                 locks of those who ask an upstream for something
        ├── turns/fetch.<number>                           locks of those who make or remove what is in fetching
        ├── notifications                                  events until their endpoints have been told of them
        │   ├── <number>.events                            one on each line
        │   ├── <key>.cursor                               up to where an endpoint has been told
        │   ├── journal.lock                               a lock of whoever writes one
        │   ├── sender                                     a lock of the one process that tells
        │   ├── undelivered                                those that an endpoint will not be told of, one on each line, as JSON
        │   └── undelivered.old                            the same, older
        ├── collection.json                                what became of the last collection
        ├── eviction.json                                  what became of the last eviction
        ├── purge.json                                     what became of the last purge of uploads
        ├── scrub                                          a lock of the one scrub that runs
        └── scrub.json                                     how far the last scrub came, and what it found

A link holds a digest, ``sha256:<hex>``, without a newline. ``registry:2`` passes over every name below a repository that begins with ``_``
and that it does not know, and removes an upload with all that is in its directory, so what regd adds is invisible to it.

No name from outside becomes part of a path unless it has passed the grammar of :mod:`regd.names`, so no path leaves the root and no
component begins with ``_`` or ``.``.
"""

from __future__ import annotations

import hashlib
import uuid
from itertools import takewhile
from typing import NewType

from regd.names import Digest, RepositoryName, Tag

__all__ = [
    "Path",
    "UploadId",
    "above",
    "blob",
    "blob_data",
    "blobs",
    "cached",
    "cached_root",
    "collecting",
    "collector",
    "damaged",
    "damaged_blobs",
    "fetch",
    "fetch_size",
    "fetch_turn",
    "fetches",
    "fetching",
    "gate",
    "gate_queue",
    "inside",
    "layer",
    "layer_link",
    "layers",
    "manifests",
    "notifications",
    "own",
    "referrer",
    "referrer_link",
    "referrers",
    "referrers_root",
    "report",
    "repositories",
    "repository",
    "revision",
    "revision_link",
    "revisions",
    "scrubbing",
    "signatures",
    "tag",
    "tag_index",
    "tag_index_link",
    "tag_link",
    "tags",
    "trash",
    "turn",
    "upload",
    "upload_data",
    "upload_digest",
    "upload_started",
    "uploads",
]

#: A place in the storage, relative to its root, components joined by ``/``. Made here only.
Path = NewType("Path", str)

_V2 = "docker/registry/v2"
_REPOSITORIES = f"{_V2}/repositories"

#: regd's own corner of the root, beside registry:2's tree.
_OWN = "regd"


class UploadId(str):
    """The name of an upload: a UUID, any version, in its canonical form."""

    __slots__ = ()

    @classmethod
    def new(cls) -> UploadId:
        """One that nobody can guess."""
        return cls(uuid.uuid4())

    @classmethod
    def parse(cls, text: str) -> UploadId:
        """
        :raises ValueError: when ``text`` is not a UUID in its canonical form.
        """
        if str(uuid.UUID(text)) != text:
            raise ValueError("not in canonical form")
        return cls(text)


def _split(digest: Digest) -> str:
    return digest.replace(":", "/", 1)


def _below(path: str, *components: str) -> Path:
    """``path``, or what the first components lead to from there: those up to the first that is empty."""
    return Path("/".join([path, *takewhile(bool, components)]))


def above(path: Path, levels: int = 1) -> Path:
    """The directory that something is in; or the one so many levels above it. The root's is empty."""
    return Path("/".join(path.split("/")[:-levels]))


def inside(directory: Path, *entries: str) -> Path:
    """What was found in a directory under a name that may be none of the tree's: to be told of, or removed."""
    return Path("/".join((directory, *entries)))


def blobs(algorithm: str = "", start: str = "") -> Path:
    """The directory of all blobs; of those of one digest algorithm; of those of them whose digests begin with these two digits."""
    return _below(f"{_V2}/blobs", algorithm, start)


def blob(digest: Digest) -> Path:
    """The directory that holds the bytes of a blob."""
    return Path(f"{_V2}/blobs/{digest.algorithm}/{digest.hex[:2]}/{digest.hex}")


def blob_data(digest: Digest) -> Path:
    """The bytes of a blob."""
    return Path(f"{_V2}/blobs/{digest.algorithm}/{digest.hex[:2]}/{digest.hex}/data")


def repositories() -> Path:
    """The directory of all repositories."""
    return Path(_REPOSITORIES)


def repository(name: str) -> Path:
    """The directory of one repository, or of a leading part of a repository's name."""
    return Path(f"{_REPOSITORIES}/{name}" if name else _REPOSITORIES)


def manifests(name: RepositoryName) -> Path:
    """The directory whose being there makes a repository exist."""
    return Path(f"{_REPOSITORIES}/{name}/_manifests")


def layers(name: RepositoryName, algorithm: str = "") -> Path:
    """The directory of all links to blobs; or of those to the ones of one digest algorithm."""
    return _below(f"{_REPOSITORIES}/{name}/_layers", algorithm)


def layer(name: RepositoryName, digest: Digest) -> Path:
    """The directory that holds one link to a blob."""
    return Path(f"{_REPOSITORIES}/{name}/_layers/{_split(digest)}")


def layer_link(name: RepositoryName, digest: Digest) -> Path:
    """The link to a blob."""
    return Path(f"{layer(name, digest)}/link")


def revisions(name: RepositoryName, algorithm: str = "") -> Path:
    """The directory of all links to manifests; or of those to the ones of one digest algorithm."""
    return _below(f"{_REPOSITORIES}/{name}/_manifests/revisions", algorithm)


def revision(name: RepositoryName, digest: Digest) -> Path:
    """The directory that holds one link to a manifest."""
    return Path(f"{_REPOSITORIES}/{name}/_manifests/revisions/{_split(digest)}")


def revision_link(name: RepositoryName, digest: Digest) -> Path:
    """The link to a manifest."""
    return Path(f"{revision(name, digest)}/link")


def signatures(name: RepositoryName, digest: Digest, algorithm: str = "") -> Path:
    """The directory of all links to the signatures of a manifest of schema 1; or of those to the ones of one digest algorithm."""
    return _below(f"{revision(name, digest)}/signatures", algorithm)


def tags(name: RepositoryName) -> Path:
    """The directory of all tags."""
    return Path(f"{_REPOSITORIES}/{name}/_manifests/tags")


def tag(name: RepositoryName, tag: Tag) -> Path:
    """The directory of one tag."""
    return Path(f"{_REPOSITORIES}/{name}/_manifests/tags/{tag}")


def tag_link(name: RepositoryName, tag: Tag) -> Path:
    """The link to what a tag means now."""
    return Path(f"{_REPOSITORIES}/{name}/_manifests/tags/{tag}/current/link")


def tag_index(name: RepositoryName, tag: Tag, algorithm: str = "") -> Path:
    """The directory of all manifests that a tag ever meant; or of those of one digest algorithm."""
    return _below(f"{_REPOSITORIES}/{name}/_manifests/tags/{tag}/index", algorithm)


def tag_index_link(name: RepositoryName, tag: Tag, digest: Digest) -> Path:
    """The link that remembers that a tag once meant this manifest."""
    return Path(f"{_REPOSITORIES}/{name}/_manifests/tags/{tag}/index/{_split(digest)}/link")


def uploads(name: RepositoryName) -> Path:
    """The directory of all uploads in progress."""
    return Path(f"{_REPOSITORIES}/{name}/_uploads")


def upload(name: RepositoryName, upload: UploadId) -> Path:
    """The directory of one upload."""
    return Path(f"{_REPOSITORIES}/{name}/_uploads/{upload}")


def upload_data(name: RepositoryName, upload: UploadId) -> Path:
    """The bytes of an upload."""
    return Path(f"{_REPOSITORIES}/{name}/_uploads/{upload}/data")


def upload_started(name: RepositoryName, upload: UploadId) -> Path:
    """When an upload began."""
    return Path(f"{_REPOSITORIES}/{name}/_uploads/{upload}/startedat")


def upload_digest(name: RepositoryName, upload: UploadId, algorithm: str, offset: int) -> Path:
    """The digest of the first ``offset`` bytes of an upload."""
    return Path(f"{_REPOSITORIES}/{name}/_uploads/{upload}/digests/{algorithm}/{offset}")


def referrers_root(name: RepositoryName, algorithm: str = "") -> Path:
    """The directory of all referrers of a repository; or of those whose subjects have digests of one algorithm."""
    return _below(f"{_REPOSITORIES}/{name}/_referrers", algorithm)


def referrers(name: RepositoryName, subject: Digest, algorithm: str = "") -> Path:
    """The directory of all referrers of one manifest; or of those whose own digests are of one algorithm."""
    return _below(f"{_REPOSITORIES}/{name}/_referrers/{_split(subject)}", algorithm)


def referrer(name: RepositoryName, subject: Digest, digest: Digest) -> Path:
    """The directory that holds one link to a referrer."""
    return Path(f"{_REPOSITORIES}/{name}/_referrers/{_split(subject)}/{_split(digest)}")


def referrer_link(name: RepositoryName, subject: Digest, digest: Digest) -> Path:
    """The link to a referrer."""
    return Path(f"{referrer(name, subject, digest)}/link")


def own() -> Path:
    """The directory of regd's own files."""
    return Path(_OWN)


def gate() -> Path:
    """The lock that changes hold together, and a collection alone."""
    return Path(f"{_OWN}/gate")


def gate_queue() -> Path:
    """The lock that is passed on the way to the gate."""
    return Path(f"{_OWN}/gate.queue")


def collector() -> Path:
    """The lock of the one collection that runs."""
    return Path(f"{_OWN}/collector")


def collecting() -> Path:
    """A file that was last written when the collection began that runs; nothing where none runs."""
    return Path(f"{_OWN}/collecting")


def scrubbing() -> Path:
    """The lock of the one scrub that runs."""
    return Path(f"{_OWN}/scrub")


def trash(run: str = "", number: int | None = None) -> Path:
    """The directory of what collections have taken away; of what one has; of one thing that one has."""
    return _below(f"{_OWN}/trash", run, "" if number is None else str(number))


def damaged_blobs(algorithm: str = "") -> Path:
    """The directory of all blobs that were moved aside; or of those of one digest algorithm."""
    return _below(f"{_OWN}/damaged", algorithm)


def fetches(algorithm: str = "") -> Path:
    """The directory of all blobs that are being fetched; or of those of one digest algorithm."""
    return _below(f"{_OWN}/fetching", algorithm)


def fetch(digest: Digest) -> Path:
    """The directory of a blob that is being fetched."""
    return Path(f"{_OWN}/fetching/{_split(digest)}")


def fetch_turn(digest: Digest) -> Path:
    """
    The lock of whoever makes or removes what is in :func:`fetch`, held for no longer than that takes. Others share it at times. None of
    those of :func:`turn`, which are held for as long as an upstream takes to answer.
    """
    return Path(f"{_OWN}/turns/fetch.{digest.hex[:2]}")


def fetching(digest: Digest) -> Path:
    """The bytes of a blob, so far, that is being fetched from an upstream. Whoever fetches holds the file's end."""
    return Path(f"{_OWN}/fetching/{_split(digest)}/data")


def fetch_size(digest: Digest) -> Path:
    """
    How many bytes a blob is going to have that is being fetched, in decimal digits, and, after a newline, for which repository it is. There
    as soon as the upstream has answered.
    """
    return Path(f"{_OWN}/fetching/{_split(digest)}/size")


def turn(key: str) -> Path:
    """
    The lock of those who ask an upstream for one and the same thing. Others share it at times: there are 4096 of them, because the file of
    a lock is never removed.

    :param key: what is asked for.
    """
    return Path(f"{_OWN}/turns/{hashlib.sha256(key.encode()).hexdigest()[:3]}")


def cached(name: RepositoryName, digest: Digest) -> Path:
    """An empty file: this blob or manifest of this repository came from an upstream. It was last used when the file was written."""
    return Path(f"{_REPOSITORIES}/{name}/_cache/{_split(digest)}")


def cached_root(name: RepositoryName, algorithm: str = "") -> Path:
    """The directory of what came from an upstream; or of that of one digest algorithm."""
    return _below(f"{_REPOSITORIES}/{name}/_cache", algorithm)


def notifications(name: str = "") -> Path:
    """The directory of the events that endpoints are to be told of; or one of the files in it that have fixed names."""
    return _below(f"{_OWN}/notifications", name)


def damaged(digest: Digest) -> Path:
    """The bytes of a blob that do not have its digest, moved aside."""
    return Path(f"{_OWN}/damaged/{_split(digest)}/data")


def report(run: str) -> Path:
    """What became of the last run: ``collection``, ``eviction``, ``purge`` or ``scrub``. JSON."""
    return Path(f"{_OWN}/{run}.json")
