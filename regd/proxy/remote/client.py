"""One remote registry, asked by the OCI distribution specification 1.1 for what a pull-through cache wants of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote, urlencode

from regd.config.caching import CacheUpstream
from regd.errors import DigestInvalid
from regd.manifest import INDEXES, LIMIT, MEDIA_TYPES, OCI_INDEX
from regd.names import CANONICAL, Digest, Reference, Tag
from regd.proxy.remote.access import Access, Grant, Way
from regd.proxy.remote.challenges import parse_challenges
from regd.proxy.remote.errand import Errand, Reply
from regd.proxy.remote.errors import Denied, NotThere, RemoteError, Unreachable, Wrong
from regd.proxy.remote.fields import next_link, parse_content_range, parse_media_type
from regd.proxy.remote.lists import BadList, parse_manifests, parse_tags
from regd.proxy.remote.peers import Peers
from regd.proxy.remote.tokens import Tokens
from regd.proxy.remote.urls import URL, BadURL, join
from regd.proxy.remote.values import RemoteBlob, RemoteManifest, TagPage

__all__ = ["Remote"]

#: How many pages of a list of referrers are read.
_MOST_PAGES: Final = 20

#: How often a request is sent: without credentials, with those that were at hand, and with new ones.
_ATTEMPTS: Final = 3

_MANIFESTS: Final = {"Accept": ", ".join(sorted(MEDIA_TYPES))}


class Remote:
    """
    One remote registry as this process sees it. Nothing is asked before somebody wants something.

    All that waits is a coroutine; one that is cancelled cuts its connection. Each raises what :mod:`regd.proxy.remote.errors` has:
    :class:`~regd.proxy.remote.errors.NotThere` for 404, :class:`~regd.proxy.remote.errors.Denied` for 401 and 403 and for what our
    credentials are not enough for, :class:`~regd.proxy.remote.errors.Limited` for 429, and for 503 with ``Retry-After``,
    :class:`~regd.proxy.remote.errors.Unreachable` for anything that is no answer of a registry.

    Names are those that the remote registry has. They have passed their grammar, so that they can stand in a path.

    :param reactor: ``Any``: a reactor is typed as the union of what reactors may be.
    :raises regd.proxy.dialing.CannotUseTLS: when a file for TLS cannot be used.
    """

    def __init__(self, upstream: CacheUpstream, reactor: Any) -> None:
        self.upstream = upstream
        self._peers = Peers(upstream, reactor)
        self._tokens = Tokens(upstream, self._peers, reactor)
        self._access = Access(upstream, self._tokens)
        self._errand = Errand(self._peers, upstream.timeouts.read, reactor)

    def __str__(self) -> str:
        """Its URL."""
        return str(self.upstream.remote)

    @property
    def resting(self) -> float:
        """
        For how many seconds it is not going to be asked, because it said so (``Retry-After``) or could not be reached; 0 when it may be.
        Until then, every request fails at once.
        """
        return self._peers.own.rest.left

    async def manifest_digest(self, name: str, reference: Reference, known: Digest | None) -> Digest | None:
        """
        Which manifest this is now, without fetching it.

        :param known: what it was, if anybody knows; a remote registry that looks at ``If-None-Match`` need not say it again.
        :returns: ``None`` where the remote registry does not say.
        """
        fields = dict(_MANIFESTS) if known is None else {**_MANIFESTS, "If-None-Match": f'"{known}"'}
        reply = await self._ask("HEAD", name, self._url(name, f"manifests/{reference}"), fields)
        try:
            if reply.status == 304 and known is not None:
                return known
            if reply.status in {405, 501}:
                return None
            await self._expect(reply, 200)
            return _digest(reply.field("docker-content-digest")) or _digest((reply.field("etag") or "").strip('"'))
        finally:
            reply.close()

    async def manifest(self, name: str, reference: Reference) -> RemoteManifest:
        """
        A manifest, at most 4 MiB.

        :raises Wrong: when it has another digest than it was asked for by, or than the answer says.
        """
        reply = await self._ask("GET", name, self._url(name, f"manifests/{reference}"), _MANIFESTS)
        await self._expect(reply, 200)
        media_type = parse_media_type(reply.field("content-type") or "")
        wanted = reference if isinstance(reference, Digest) else _digest(reply.field("docker-content-digest"))
        content = await reply.read(LIMIT)
        digest = Digest.of(content, CANONICAL if wanted is None else wanted.algorithm)
        if wanted is not None and digest != wanted:
            raise Wrong(f"{reply.what}: the manifest should have the digest {wanted}, and has {digest}")
        return RemoteManifest(content, media_type, digest)

    async def blob_size(self, name: str, digest: Digest) -> int | None:
        """
        How many bytes a blob has, without fetching it.

        :returns: ``None`` where the remote registry does not say.
        """
        reply = await self._ask("HEAD", name, self._url(name, f"blobs/{digest}"), {})
        try:
            # Storage that one is redirected to may take nothing but GET, which is what it was signed for.
            if reply.status not in {405, 501} and (reply.own or reply.status not in {400, 403}):
                await self._expect(reply, 200)
                said = reply.field("content-length")
                if said is not None and said.isascii() and said.isdigit() and len(said) < 19:
                    return int(said)
        finally:
            reply.close()
        # One byte of it tells.
        blob = await self.blob(name, digest, 0, 1)
        blob.close()
        return blob.size

    async def blob(self, name: str, digest: Digest, start: int = 0, end: int | None = None) -> RemoteBlob:
        """
        A blob, or part of it.

        :param start: the first byte that is wanted.
        :param end: the one after the last; ``None`` for all that follow.
        :returns: what has to be closed. More than was asked for may come.
        """
        url = self._url(name, f"blobs/{digest}")
        ranged = start > 0 or end is not None
        fields = {"Range": f"bytes={start}-{'' if end is None else end - 1}"} if ranged else {}
        reply = await self._ask("GET", name, url, fields)
        if reply.status == 416 and ranged:
            # It has nothing there, or cannot: all of it, then. Whoever wanted the rest of something sees that it is another thing.
            await reply.drain()
            ranged = False
            reply = await self._ask("GET", name, url, {})
        await self._expect(reply, 200, 206 if ranged else 200)
        try:
            return _blob(reply, start)
        except BaseException:
            reply.close()
            raise

    async def tags(self, name: str, n: int | None, last: str) -> TagPage:
        """
        The tags of a repository.

        :param n: how many at most; ``None`` for as many as the remote registry likes.
        :param last: those after this one; empty for the first ones.
        """
        query = {**({} if n is None else {"n": str(n)}), **({"last": last} if last else {})}
        target = "tags/list" + (f"?{urlencode(query)}" if query else "")
        reply = await self._ask("GET", name, self._url(name, target), {"Accept": "application/json"})
        await self._expect(reply, 200)
        link = next_link(reply.fields("link"))
        # A list may be as large as a manifest; all pages of one of referrers together, too.
        content = await reply.read(LIMIT)
        try:
            return parse_tags(content, link, n, last)
        except BadList as error:
            raise Unreachable(f"{reply.what}: {error}") from None

    async def referrers(self, name: str, digest: Digest, artifact_type: str | None) -> RemoteManifest:
        """
        An index of the manifests whose subject is ``digest``: all pages of it, at most 4 MiB. Of a remote registry without such lists, what
        clients keep instead under a tag that is made of the digest ("Referrers Tag Schema").

        :param artifact_type: only these; the remote registry may not care.
        """
        query = "" if artifact_type is None else f"?artifactType={quote(artifact_type, safe='')}"
        try:
            return await self._referrers(name, self._url(name, f"referrers/{digest}{query}"))
        except NotThere:
            found = await self.manifest(name, Tag(f"{digest.algorithm}-{digest.hex[:64]}"))
            if found.media_type not in INDEXES:
                raise
            return found

    def close(self) -> None:
        """Keep no connection for later. What is under way goes on, and what is still asked is answered."""
        self._peers.close()

    def abort(self) -> None:
        """Cut all connections; from now on, every request fails."""
        self._errand.abort()
        self._tokens.abort()
        self._peers.abort()

    def variables(self) -> dict[str, object]:
        """Numbers about it."""
        servers = [peer.server for peer in self._peers]
        return {
            "requests": sum(server.busy for server in servers) + self._tokens.asking,
            "connections": sum(len(server.connections) for server in servers),
            "idle": sum(server.idle for server in servers),
            "tokens": len(self._tokens),
            "resting": round(self.resting, 1),
        }

    def _url(self, name: str, rest: str) -> URL:
        return URL(self.upstream.remote, f"/v2/{name}/{rest}")

    async def _ask(self, method: str, name: str, url: URL, fields: Mapping[str, str]) -> Reply:
        """
        Ask, with what credentials it takes.

        :param name: the repository that this is about.
        :returns: an answer that is no redirect, and does not ask for credentials.
        :raises Denied: when it asks for others than we have.
        :raises Limited: when it wants to be asked later.
        :raises Unreachable: when there is no answer.
        """
        way: Way | None = self._access.way(name)
        for _ in range(_ATTEMPTS):
            grant: Grant | None = None if way is None else await self._access.grant(way)
            reply = await self._errand.run(method, url, fields, None if grant is None else grant.authorization)
            if reply.status != 401:
                return reply
            challenges = parse_challenges(reply.fields("www-authenticate"))
            await reply.drain()
            if not reply.own:
                raise Denied(f"{reply.what}: it answers 401, and credentials are only for {self}")
            wanted = self._access.learn(name, challenges, reply.what)
            if grant is not None and way == wanted:
                if grant.fresh:
                    break
                self._access.drop(way, grant)
            way = wanted
        raise Denied(f"{method} {url}: it answers 401 to credentials that are new")

    async def _expect(self, reply: Reply, *statuses: int) -> None:
        """
        Close an answer with any other status.

        :raises RemoteError: by what it is.
        """
        if reply.status in statuses:
            coding = (reply.field("content-encoding") or "identity").strip(" \t").lower()
            if coding == "identity":
                return
            reply.close()
            raise Unreachable(f"{reply.what}: its content is coded, as nobody asked for")
        await reply.drain()
        raise _error(reply.status, f"{reply.what}: it answers {reply.status}")

    async def _referrers(self, name: str, url: URL) -> RemoteManifest:
        manifests: list[object] = []
        left = LIMIT
        for number in range(_MOST_PAGES):
            reply = await self._ask("GET", name, url, {"Accept": OCI_INDEX})
            await self._expect(reply, 200)
            link = next_link(reply.fields("link"))
            content = await reply.read(left)
            left -= len(content)
            if not number and link is None:
                return RemoteManifest(content, parse_media_type(reply.field("content-type") or ""), Digest.of(content))
            try:
                manifests += parse_manifests(content)
                following = None if link is None else join(url, link)
            except (BadList, BadURL) as error:
                raise Unreachable(f"{reply.what}: {error}") from None
            if following is None:
                document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}
                content = json.dumps(document).encode("ascii")
                return RemoteManifest(content, OCI_INDEX, Digest.of(content))
            if not self._peers.is_own(following):
                raise Unreachable(f"{reply.what}: its next page is elsewhere, at {following}")
            url = following
        raise Unreachable(f"GET {url}: it has more than {_MOST_PAGES} pages")


def _blob(reply: Reply, start: int) -> RemoteBlob:
    """
    :raises Unreachable: when it is not what was asked for.
    """
    body = reply.answer.body
    if reply.status != 206:
        return RemoteBlob(0, body.length, body, reply.close, reply.why)
    said = reply.field("content-range") or ""
    found = parse_content_range(said)
    if found is None or not found.first <= start <= found.last or body.length not in {None, found.last - found.first + 1}:
        raise Unreachable(f"{reply.what}: it was asked for bytes from {start} on, and its Content-Range is {said[:100]!r}")
    return RemoteBlob(found.first, found.size, body, reply.close, reply.why)


def _error(status: int, why: str) -> RemoteError:
    if status in {404, 410}:
        return NotThere(why)
    if status in {401, 403, 451}:
        return Denied(why)
    return Unreachable(why, late=status in {408, 504})


def _digest(said: str | None) -> Digest | None:
    try:
        return None if said is None else Digest.parse(said.strip(" \t"))
    except DigestInvalid:
        return None
