"""
What one client of a soak does: it pushes, pulls, mounts, tags, untags and deletes in repositories of its own, remembers what has to be
there, and says of each answer whether it may be so while garbage is collected.
"""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from benchmarks.wire import Connection, Reply, UnexpectedReply

__all__ = ["Client", "Image", "Tally", "pull"]

_IMAGE: Final = "application/vnd.oci.image.manifest.v1+json"
_INDEX: Final = "application/vnd.oci.image.index.v1+json"
_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
_LAYER: Final = "application/vnd.oci.image.layer.v1.tar"

#: Layers that all clients push again and again, so that what one drops another is about to use.
_SHARED: Final = 24

#: The tags of each repository: few, so that they are overwritten.
_TAGS: Final = 4

#: A push that is told that something is missing, or that the registry is closed, is tried again from its beginning, so often at most.
_TRIES: Final = 25

#: What a client does about a 503, in seconds. ``Retry-After`` asks for more; a soak wants to be in the way.
_PAUSE: Final = 0.02

#: The codes that may be the answer where what was about to be used has been collected.
_COLLECTED: Final = frozenset({"BLOB_UNKNOWN", "MANIFEST_BLOB_UNKNOWN"})

#: So many failures are told; then a client gives up.
_MOST: Final = 10


@dataclass(frozen=True)
class Image:
    """
    What a tag means, or what refers to something that has a tag.

    :ivar content: the manifest, to the byte.
    :ivar blobs: the digests of its configuration and layers.
    :ivar children: of an index.
    """

    content: bytes
    media_type: str
    blobs: tuple[str, ...] = ()
    children: tuple[Image, ...] = ()

    @property
    def digest(self) -> str:
        """Of the manifest."""
        return digest_of(self.content)

    def reach(self) -> frozenset[str]:
        """The digests of everything that this is made of."""
        return frozenset({self.digest, *self.blobs}).union(*(child.reach() for child in self.children))


@dataclass
class Tally:
    """
    What a client did and saw.

    :ivar counts: of what was done, by name; ``again: ...`` counts what a push was told before it was tried again.
    :ivar failures: what must not have been answered.
    :ivar live: what each of its tags means at the end, by repository and tag; what refers to one of them, by its digest.
    :ivar slowest: the longest that one try of a push took, in seconds.
    :ivar most_tries: that any push took.
    """

    counts: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    live: dict[tuple[str, str], Image] = field(default_factory=dict)
    slowest: float = 0.0
    most_tries: int = 0


class _Again(Exception):
    """A clean error: the push may be tried again."""


class _Enough(Exception):
    """Too many failures."""


def digest_of(content: bytes) -> str:
    """``sha256:<hex>``."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def pull(connection: Connection, repository: str, reference: str, image: Image) -> int:
    """
    Pull an image whole and compare every byte.

    :return: how many bytes it has.
    :raises UnexpectedReply: saying what is missing or different.
    """
    found = connection.request("GET", f"/v2/{repository}/manifests/{reference}", Accept=image.media_type)
    if found.status != 200 or found.body != image.content:
        raise UnexpectedReply(f"manifest {repository}:{reference}: {found.status} {found.body[:200]!r}, not {image.digest}")
    size = len(found.body)
    for digest in image.blobs:
        blob = connection.request("GET", f"/v2/{repository}/blobs/{digest}")
        if blob.status != 200 or digest_of(blob.body) != digest:
            raise UnexpectedReply(f"blob {digest} of {repository}:{reference}: {blob.status} {blob.body[:200]!r}")
        size += len(blob.body)
    return size + sum(pull(connection, repository, child.digest, child) for child in image.children)


def shared_layer(number: int) -> bytes:
    """One of the layers that everybody pushes: of 200 bytes to 100 KiB."""
    source = random.Random(number)
    return source.randbytes(source.choice([200, 4_000, 30_000, 100_000]))


class Client:
    """
    One client.

    :param port: of the registry.
    :param number: tells it from the others: its repositories are ``soak<number>/...``.
    :param others: how many clients there are.
    :param kept: how long what a client was told of stays, in seconds: half the grace period. A push that takes less may be told to
        come back later, and nothing else.
    """

    def __init__(self, port: int, number: int, others: int, kept: float) -> None:
        self._connection = Connection(port)
        self._random = random.Random(number)
        self._number = number
        self._others = others
        self._kept = kept
        self._made = 0
        self._contents = {digest_of(layer): layer for layer in map(shared_layer, range(_SHARED))}
        self.tally = Tally()

    def run(self, seconds: float) -> Tally:
        """
        Do this and that for some time.

        :return: what was seen.
        """
        end = time.monotonic() + seconds
        doings: Sequence[tuple[int, Callable[[str], None]]] = (
            *((8, self._push), (3, self._push_index), (3, self._push_referrer), (8, self._pull)),
            *((3, self._untag), (3, self._delete), (1, self._empty), (2, self._listed), (2, self._promise)),
        )
        weights, functions = zip(*doings, strict=True)
        try:
            while time.monotonic() < end:
                (doing,) = self._random.choices(functions, weights)
                # The last of them comes and goes.
                doing(f"soak{self._number}/{self._random.choice(['one', 'two', 'two/deep', 'passing'])}")
        except _Enough:
            pass
        except UnexpectedReply as error:
            self.tally.failures.append(f"client {self._number}: {error}")
        self._connection.close()
        return self.tally

    # What it does.

    def _push(self, repository: str) -> None:
        tag = f"t{self._random.randrange(_TAGS)}"
        self._complete(repository, tag, self._image())

    def _push_index(self, repository: str) -> None:
        children = (self._image(), self._image())
        document = {"schemaVersion": 2, "mediaType": _INDEX, "manifests": [_descriptor(child.content, _IMAGE) for child in children]}
        index = Image(json.dumps(document).encode(), _INDEX, children=children)
        self._complete(repository, f"t{self._random.randrange(_TAGS)}", index)

    def _push_referrer(self, repository: str) -> None:
        tags = self._tags(repository)
        if tags:
            subject = self.tally.live[repository, self._random.choice(tags)]
            referrer = self._image(subject)
            self._complete(repository, referrer.digest, referrer)

    def _pull(self, repository: str) -> None:
        names = [reference for name, reference in self.tally.live if name == repository]
        if names:
            reference = self._random.choice(names)
            try:
                pull(self._connection, repository, reference, self.tally.live[repository, reference])
            except UnexpectedReply as error:
                self._fail(f"pull: {error}")
            self.tally.counts["pulls"] += 1

    def _untag(self, repository: str) -> None:
        tags = self._tags(repository)
        if tags:
            tag = self._random.choice(tags)
            self._insist("DELETE", f"/v2/{repository}/manifests/{tag}")
            self._forget(repository, lambda reference, _: reference == tag)
            self.tally.counts["tags deleted"] += 1

    def _delete(self, repository: str) -> None:
        tags = self._tags(repository)
        if tags:
            digest = self.tally.live[repository, self._random.choice(tags)].digest
            self._insist("DELETE", f"/v2/{repository}/manifests/{digest}")
            self._forget(repository, lambda _, image: image.digest == digest)
            self.tally.counts["manifests deleted"] += 1

    def _empty(self, repository: str) -> None:
        if repository.endswith("passing"):
            for digest in {image.digest for (name, _), image in self.tally.live.items() if name == repository}:
                self._insist("DELETE", f"/v2/{repository}/manifests/{digest}")
            self._forget(repository, lambda *_: True)
            self.tally.counts["repositories emptied"] += 1

    def _listed(self, repository: str) -> None:
        """Tags are listed, and so is what refers to what they mean."""
        tags = self._tags(repository)
        if not tags:
            return
        listed = json.loads(self._connection.request("GET", f"/v2/{repository}/tags/list").expect(200).body)["tags"]
        if not set(tags) <= set(listed):
            self._fail(f"{repository} has the tags {tags}, and lists {listed}")
        for (name, reference), image in list(self.tally.live.items()):
            subject = json.loads(image.content).get("subject")
            if name == repository and subject is not None:
                answer = self._connection.request("GET", f"/v2/{repository}/referrers/{subject['digest']}").expect(200)
                if reference not in {entry["digest"] for entry in json.loads(answer.body)["manifests"]}:
                    self._fail(f"{reference} refers to {subject['digest']} of {repository} and is not listed")
        self.tally.counts["lists"] += 1

    def _promise(self, repository: str) -> None:
        """What HEAD says is there stays for a while."""
        digest = digest_of(shared_layer(self._random.randrange(_SHARED)))
        begun = time.monotonic()
        if self._connection.request("HEAD", f"/v2/{repository}/blobs/{digest}").status != 200:
            return
        time.sleep(self._kept * self._random.random() * 0.8)
        blob = self._connection.request("GET", f"/v2/{repository}/blobs/{digest}")
        if blob.status != 200 and time.monotonic() - begun < self._kept:
            self._fail(f"HEAD promised {digest} of {repository}, and GET said {blob.status} {blob.body[:200]!r}")
        self.tally.counts["promises"] += 1

    # What a push is made of.

    def _complete(self, repository: str, reference: str, image: Image) -> None:
        """Push, again and again where that may be necessary."""
        for number in range(1, _TRIES + 1):
            begun = time.monotonic()
            self.tally.most_tries = max(self.tally.most_tries, number)
            try:
                self._attempt(repository, reference, image, begun)
            except _Again:
                continue
            finally:
                self.tally.slowest = max(self.tally.slowest, time.monotonic() - begun)
            # What it takes the place of is no longer tagged, nor is what refers to that.
            if reference in self._tags(repository):
                self._forget(repository, lambda found, _: found == reference)
            self.tally.live[repository, reference] = image
            self.tally.counts["pushes"] += 1
            return
        self._fail(f"a push to {repository} did not succeed in {_TRIES} tries")

    def _attempt(self, repository: str, reference: str, image: Image, begun: float) -> None:
        for child in image.children:
            self._attempt(repository, child.digest, child, begun)
        for digest in image.blobs:
            self._blob(repository, digest, begun)
        fields = {"Content_Type": image.media_type}
        self._ask(begun, (201,), "PUT", f"/v2/{repository}/manifests/{reference}", image.content, **fields)

    def _blob(self, repository: str, digest: str, begun: float) -> None:
        """As docker does: ask, else mount, else send."""
        if self._connection.request("HEAD", f"/v2/{repository}/blobs/{digest}").expect(200, 404).status == 200:
            self.tally.counts["blobs there"] += 1
            return
        source = f"soak{self._random.randrange(self._others)}/{self._random.choice(['one', 'two'])}"
        mount = f"?mount={digest}&from={source}" if self._random.random() < 0.5 else ""
        begun_upload = self._ask(begun, (201, 202), "POST", f"/v2/{repository}/blobs/uploads/{mount}")
        if begun_upload.status == 201:
            self.tally.counts["blobs mounted"] += 1
            return
        content = self._contents[digest]
        sent = self._ask(begun, (202,), "PATCH", begun_upload.location, content, Content_Type="application/octet-stream")
        joint = "&" if "?" in sent.location else "?"
        self._ask(begun, (201,), "PUT", f"{sent.location}{joint}digest={digest}")
        self.tally.counts["blobs sent"] += 1

    def _ask(self, begun: float, expected: tuple[int, ...], method: str, target: str, body: bytes = b"", **fields: str) -> Reply:
        """
        One request of a push.

        :raises _Again: for an answer that a client can live with.
        """
        reply = self._connection.request(method, target, body, **fields)
        if reply.status in expected:
            return reply
        codes = _codes(reply)
        if reply.status == 503 and "retry-after" in reply.fields and codes == ["UNAVAILABLE"]:
            self.tally.counts["again: closed"] += 1
            time.sleep(_PAUSE)
            raise _Again
        if reply.status in {400, 404} and codes and set(codes) <= _COLLECTED:
            if time.monotonic() - begun < self._kept:
                self._fail(f"{method} {target}: {codes} {time.monotonic() - begun:.3f} s after the push began")
            self.tally.counts["again: collected"] += 1
            raise _Again
        self._fail(f"{method} {target}: {reply.status} {reply.body[:300]!r}")
        raise _Again

    def _insist(self, method: str, target: str) -> None:
        """A deletion of what is there: closed for a moment is the only excuse."""
        for _ in range(_TRIES):
            reply = self._connection.request(method, target)
            if reply.status == 202:
                return
            if reply.status != 503 or "retry-after" not in reply.fields:
                break
            self.tally.counts["again: closed"] += 1
            time.sleep(_PAUSE)
        self._fail(f"{method} {target}: {reply.status} {reply.body[:300]!r}")

    # What it knows.

    def _image(self, subject: Image | None = None) -> Image:
        """A new image, of layers of which some are everybody's."""
        self._made += 1
        own = f"{self._number}/{self._made}"
        config = json.dumps({"architecture": "amd64", "os": "linux", "author": own}).encode()
        layers = [shared_layer(number) for number in self._random.sample(range(_SHARED), self._random.randint(1, 3))]
        if self._random.random() < 0.3:
            layers.append(own.encode() * 500)
        document: dict[str, object] = {"schemaVersion": 2, "mediaType": _IMAGE, "config": _descriptor(config, _CONFIG)}
        document["layers"] = [_descriptor(layer, _LAYER) for layer in layers]
        if subject is not None:
            document["subject"] = _descriptor(subject.content, subject.media_type)
        blobs = {digest_of(content): content for content in (config, *layers)}
        self._contents |= blobs
        return Image(json.dumps(document).encode(), _IMAGE, tuple(blobs))

    def _tags(self, repository: str) -> list[str]:
        return [reference for name, reference in self.tally.live if name == repository and ":" not in reference]

    def _forget(self, repository: str, gone: Callable[[str, Image], bool]) -> None:
        """Some are gone; so is, sooner or later, what refers to one that nobody has a tag for."""
        live = self.tally.live
        for key in [key for key, image in live.items() if key[0] == repository and gone(key[1], image)]:
            del live[key]
        while True:
            here = {image.digest for (name, _), image in live.items() if name == repository}
            loose = [
                key
                for key, image in live.items()
                if key[0] == repository and ":" in key[1] and json.loads(image.content)["subject"]["digest"] not in here
            ]
            if not loose:
                return
            for key in loose:
                del live[key]

    def _fail(self, message: str) -> None:
        self.tally.failures.append(f"client {self._number}: {message}")
        if len(self.tally.failures) >= _MOST:
            raise _Enough


def _codes(reply: Reply) -> list[str]:
    try:
        return [error["code"] for error in json.loads(reply.body)["errors"]]
    except (ValueError, KeyError, TypeError):
        return []


def _descriptor(content: bytes, media_type: str) -> dict[str, object]:
    return {"mediaType": media_type, "digest": digest_of(content), "size": len(content)}
