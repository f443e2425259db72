"""What is asked of a registry that answers, and what one makes of it."""

from __future__ import annotations

import json

from regd.manifest import MEDIA_TYPES
from regd.names import Digest, Tag
from regd.proxy.remote import Denied, NotThere, TagPage, Unreachable, Wrong
from regd.proxy.remote.fields import LONGEST_REST
from tests.e2e.images import noise
from tests.e2e.proxying import Exchange
from tests.proxy.remote.support import DIGEST, MANIFEST, NAME, TYPE, RemoteCase, answers, reply

LATEST = Tag("latest")


class ManifestTests(RemoteCase):
    async def test_by_tag(self) -> None:
        upstream = self.upstream(answers(MANIFEST, "200 OK", f"Content-Type: {TYPE}; charset=utf-8", f"Docker-Content-Digest: {DIGEST}"))
        found = await self.remote(upstream.url).manifest(NAME, LATEST)
        self.assertEqual((found.content, found.media_type, found.digest), (MANIFEST, TYPE, DIGEST))
        exchange = upstream.seen[0]
        self.assertEqual(exchange.line, f"GET /v2/{NAME}/manifests/latest HTTP/1.1")
        self.assertEqual(set(exchange.all("accept")[0].split(", ")), MEDIA_TYPES)
        self.assertEqual(exchange.all("host"), [f"127.0.0.1:{upstream.port}"])
        self.assertEqual((exchange.all("accept-encoding"), exchange.all("authorization")), (["identity"], []))
        self.assertTrue(exchange.all("user-agent")[0].startswith("regd/"))

    async def test_by_digest(self) -> None:
        upstream = self.upstream(answers(MANIFEST))
        remote = self.remote(upstream.url)
        for digest in (DIGEST, Digest.of(MANIFEST, "sha512")):
            found = await remote.manifest(NAME, digest)
            self.assertEqual((found.digest, found.media_type), (digest, ""))
        await self.refused(Wrong, remote.manifest(NAME, Digest.of(b"other")), "should have the digest")

    async def test_said_digest(self) -> None:
        upstream = self.upstream()
        remote = self.remote(upstream.url)
        long = Digest.of(MANIFEST, "sha512")
        for said, digest in ((DIGEST, DIGEST), (long, long), ("md5:1", DIGEST), ("", DIGEST)):
            upstream.answer = answers(MANIFEST, "200 OK", f"Docker-Content-Digest: {said}")
            self.assertEqual((await remote.manifest(NAME, LATEST)).digest, digest)
        upstream.answer = answers(MANIFEST, "200 OK", f"Docker-Content-Digest: {Digest.of(b'')}")
        await self.refused(Wrong, remote.manifest(NAME, LATEST))
        # Asked for by its digest, the content counts.
        self.assertEqual((await remote.manifest(NAME, DIGEST)).digest, DIGEST)

    async def test_head(self) -> None:
        upstream = self.upstream(answers(MANIFEST, "200 OK", f"Docker-Content-Digest: {DIGEST}"))
        remote = self.remote(upstream.url)
        other = Digest.of(b"other")
        self.assertEqual(await remote.manifest_digest(NAME, LATEST, None), DIGEST)
        self.assertEqual(await remote.manifest_digest(NAME, LATEST, other), DIGEST)
        self.assertEqual([one.all("if-none-match") for one in upstream.seen], [[], [f'"{other}"']])
        upstream.answer = answers(b"", "304 Not Modified")
        self.assertEqual(await remote.manifest_digest(NAME, LATEST, other), other)
        await self.refused(Unreachable, remote.manifest_digest(NAME, LATEST, None), "304")
        upstream.answer = answers(MANIFEST, "200 OK", f'ETag: "{DIGEST}"')
        self.assertEqual(await remote.manifest_digest(NAME, LATEST, None), DIGEST)
        for silent in (answers(MANIFEST), answers(MANIFEST, "200 OK", 'ETag: "abc"'), answers(b"", "405 Method Not Allowed")):
            upstream.answer = silent
            self.assertIsNone(await remote.manifest_digest(NAME, LATEST, other))

    async def test_statuses(self) -> None:
        upstream = self.upstream()
        remote = self.remote(upstream.url)
        for status, kind in (
            ("404 Not Found", NotThere),
            ("410 Gone", NotThere),
            ("403 Forbidden", Denied),
            ("401 Unauthorized", Denied),
            ("451 Not For You", Denied),
            ("400 Bad Request", Unreachable),
            ("204 No Content", Unreachable),
            ("206 Partial Content", Unreachable),
            ("500 Internal Server Error", Unreachable),
            ("503 Service Unavailable", Unreachable),
            ("504 Gateway Timeout", Unreachable),
        ):
            upstream.answer = answers(b"{}" if status[0] != "2" else b"", status)
            asked = (remote.manifest(NAME, LATEST), remote.blob(NAME, DIGEST), remote.blob_size(NAME, DIGEST), remote.tags(NAME, None, ""))
            for work in asked:
                error = await self.refused(kind, work, status[:3])
                if isinstance(error, Unreachable):
                    self.assertEqual(error.late, status[:3] == "504")
            self.assertEqual(remote.resting, 0)
        # All on one connection: what nobody wants of an answer is read.
        self.assertEqual(upstream.accepted, 1)

    async def test_too_large(self) -> None:
        upstream = self.upstream()
        remote = self.remote(upstream.url)
        size = 4 * 1024 * 1024
        upstream.answer = answers(bytes(size))
        self.assertEqual(len((await remote.manifest(NAME, LATEST)).content), size)
        upstream.answer = answers(bytes(size + 1))
        await self.refused(Unreachable, remote.manifest(NAME, LATEST), "larger than")

        def chunked(exchange: Exchange) -> bool:
            exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for _ in range(6):
                exchange.send(b"100000\r\n" + bytes(0x100000) + b"\r\n")
            exchange.send(b"0\r\n\r\n")
            return True

        upstream.answer = chunked
        await self.refused(Unreachable, remote.manifest(NAME, LATEST), "larger than")

    async def test_coded(self) -> None:
        remote = self.remote(self.upstream(answers(b"\x1f\x8b", "200 OK", "Content-Encoding: gzip")).url)
        await self.refused(Unreachable, remote.manifest(NAME, LATEST), "coded")
        await self.refused(Unreachable, remote.blob(NAME, DIGEST), "coded")


class BlobTests(RemoteCase):
    def serve(self, content: bytes) -> None:
        """One that knows ranges."""

        def answer(exchange: Exchange) -> bool:
            asked = exchange.all("range")
            if not asked:
                return reply(exchange, content)
            first, _, last = asked[0].removeprefix("bytes=").partition("-")
            begin, end = int(first), min(int(last) if last else len(content), len(content) - 1)
            if begin > end:
                return reply(exchange, b"", "416 Range Not Satisfiable")
            return reply(exchange, content[begin : end + 1], "206 Partial Content", f"Content-Range: bytes {begin}-{end}/{len(content)}")

        self.server = self.upstream(answer)
        self.client = self.remote(self.server.url)

    async def test_whole(self) -> None:
        for size in (0, 1, 100_000, 5_000_000):
            content = noise(size)
            self.serve(content)
            blob = await self.client.blob(NAME, Digest.of(content))
            self.assertEqual((blob.start, blob.size, blob.body.length), (0, size, size))
            self.assertEqual(await self.content(blob), content)
            self.assertEqual(blob.why(), "")
            self.assertEqual(self.server.seen[0].line, f"GET /v2/{NAME}/blobs/{Digest.of(content)} HTTP/1.1")
            self.assertEqual(self.server.seen[0].all("range"), [])

    async def test_ranges(self) -> None:
        content = noise(100_000)
        self.serve(content)
        for start, end in ((0, 1), (0, 100_000), (5, None), (99_999, None), (50_000, 60_000), (10, 200_000)):
            blob = await self.client.blob(NAME, DIGEST, start, end)
            self.assertEqual((blob.start, blob.size), (start, len(content)))
            self.assertEqual(await self.content(blob), content[start:end])
        self.assertEqual(self.server.seen[0].all("range"), ["bytes=0-0"])
        self.assertEqual(self.server.seen[2].all("range"), ["bytes=5-"])
        # The end of a body is told before its connection is free again, so there may be two that take turns.
        self.assertLessEqual(self.server.accepted, 2)
        # It has nothing there: all of it.
        blob = await self.client.blob(NAME, DIGEST, 100_000)
        self.assertEqual((blob.start, blob.size, await self.content(blob)), (0, len(content), content))

    async def test_ranges_ignored(self) -> None:
        upstream = self.upstream(answers(b"0123456789"))
        blob = await self.remote(upstream.url).blob(NAME, DIGEST, 5)
        self.assertEqual((blob.start, blob.size, await self.content(blob)), (0, 10, b"0123456789"))

    async def test_ranges_that_are_none(self) -> None:
        upstream = self.upstream()
        remote = self.remote(upstream.url)
        for said in ("bytes 6-9/10", "bytes 0-3/10", "bytes 5-9/7", "bytes 5-8/10", "bytes */10", "", "lines 5-9/10"):
            upstream.answer = answers(b"56789", "206 Partial Content", f"Content-Range: {said}")
            await self.refused(Unreachable, remote.blob(NAME, DIGEST, 5), "Content-Range")
        upstream.answer = answers(b"456789", "206 Partial Content", "Content-Range: bytes 4-9/*")
        blob = await remote.blob(NAME, DIGEST, 5)
        self.assertEqual((blob.start, blob.size, await self.content(blob)), (4, None, b"456789"))
        upstream.answer = answers(b"", "416 Range Not Satisfiable")
        await self.refused(Unreachable, remote.blob(NAME, DIGEST, 5), "416")

    async def test_unknown_size(self) -> None:
        def chunked(exchange: Exchange) -> bool:
            exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
            return True

        upstream = self.upstream(chunked)
        blob = await self.remote(upstream.url).blob(NAME, DIGEST)
        self.assertEqual((blob.size, await self.content(blob)), (None, b"abcde"))
        self.assertIsNone(await self.remote(upstream.url).blob_size(NAME, DIGEST))

    async def test_size(self) -> None:
        self.serve(b"0123456789")
        self.assertEqual(await self.client.blob_size(NAME, DIGEST), 10)
        self.assertEqual([one.line.split()[0] for one in self.server.seen], ["HEAD"])

    async def test_size_where_head_tells_nothing(self) -> None:
        self.serve(b"0123456789")
        serve = self.server.answer
        for refusal in (b"HTTP/1.1 405 No\r\nContent-Length: 0\r\n\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"):

            def answer(exchange: Exchange, refusal: bytes = refusal) -> bool:
                if exchange.line.startswith("HEAD"):
                    exchange.send(refusal)
                    return True
                return serve(exchange)

            self.server.answer = answer
            self.assertEqual(await self.client.blob_size(NAME, DIGEST), 10)
            self.assertEqual(self.server.seen[-1].all("range"), ["bytes=0-0"])

    async def test_closed_at_any_time(self) -> None:
        content = noise(20_000_000)
        self.serve(content)
        blob = await self.client.blob(NAME, DIGEST)
        self.assertEqual(self.client.variables()["requests"], 1)
        blob.close()
        blob.close()
        self.assertEqual(self.client.variables()["requests"], 0)
        blob = await self.client.blob(NAME, DIGEST)
        failed: list[object] = []

        class Slow:
            def write(self, data: bytes) -> None:
                blob.body.pauseProducing()

        ended = blob.body.startProducing(Slow())  # type: ignore[arg-type] # all of IConsumer that is used
        ended.addErrback(failed.append)
        await self.sleep(0.05)
        blob.close()
        await self.until(lambda: bool(failed), "the body to fail")


class ListTests(RemoteCase):
    async def test_tags(self) -> None:
        upstream = self.upstream(answers(json.dumps({"name": "x", "tags": ["a", "b", "", 3, "c d"]}).encode()))
        remote = self.remote(upstream.url)
        self.assertEqual(await remote.tags(NAME, None, ""), TagPage(("a", "b"), None))
        self.assertEqual(await remote.tags(NAME, 1, ""), TagPage(("a",), "a"))
        self.assertEqual(await remote.tags(NAME, 1, "a"), TagPage(("b",), None))
        await remote.tags(NAME, 10, "v1.0")
        lines = [one.line.split()[1] for one in upstream.seen]
        tail = f"/v2/{NAME}/tags/list"
        self.assertEqual(lines, [tail, f"{tail}?n=1", f"{tail}?n=1&last=a", f"{tail}?n=10&last=v1.0"])
        upstream.answer = answers(b'{"tags": ["a", "b"]}', "200 OK", f'Link: <{tail}?n=2&last=b>; rel="next"')
        self.assertEqual(await remote.tags(NAME, 2, ""), TagPage(("a", "b"), "b"))
        upstream.answer = answers(b'{"tags": null}')
        self.assertEqual(await remote.tags(NAME, None, ""), TagPage((), None))
        for garbage in (b"", b"[]", b'{"tags": 1}', b"\xff", b"[" * 100_000):
            upstream.answer = answers(garbage)
            await self.refused(Unreachable, remote.tags(NAME, None, ""))

    async def test_referrers(self) -> None:
        upstream = self.upstream(answers(MANIFEST, "200 OK", f"Content-Type: {TYPE}"))
        remote = self.remote(upstream.url)
        found = await remote.referrers(NAME, DIGEST, "application/vnd.x+json; a=b&c")
        self.assertEqual((found.content, found.media_type, found.digest), (MANIFEST, TYPE, DIGEST))
        self.assertEqual(
            upstream.seen[0].line.split()[1], f"/v2/{NAME}/referrers/{DIGEST}?artifactType=application%2Fvnd.x%2Bjson%3B%20a%3Db%26c"
        )

    async def test_pages_of_referrers(self) -> None:
        def page(exchange: Exchange) -> bool:
            number = int(exchange.line.split()[1].partition("page=")[2] or 0)
            content = json.dumps({"schemaVersion": 2, "manifests": [{"number": number}]}).encode()
            return reply(exchange, content, "200 OK", *([f'Link: <?page={number + 1}>; rel="next"'] if number < last else []))

        upstream = self.upstream(page)
        remote = self.remote(upstream.url)
        last = 3
        found = json.loads((await remote.referrers(NAME, DIGEST, None)).content)
        self.assertEqual(found["manifests"], [{"number": number} for number in range(4)])
        self.assertEqual((found["mediaType"], len(upstream.seen)), (TYPE, 4))
        last = 1000
        await self.refused(Unreachable, remote.referrers(NAME, DIGEST, None), "pages")
        upstream.answer = answers(MANIFEST, "200 OK", 'Link: <http://else.example/v2/x>; rel="next"')
        await self.refused(Unreachable, remote.referrers(NAME, DIGEST, None), "elsewhere")

    async def test_referrers_by_tag(self) -> None:
        def old(exchange: Exchange) -> bool:
            if f"/manifests/sha256-{DIGEST.hex} " not in exchange.line:
                return reply(exchange, b"404 page not found", "404 Not Found")
            return reply(exchange, MANIFEST, "200 OK", f"Content-Type: {kind}")

        remote = self.remote(self.upstream(old).url)
        kind = TYPE
        self.assertEqual((await remote.referrers(NAME, DIGEST, None)).content, MANIFEST)
        kind = "application/vnd.oci.image.manifest.v1+json"
        await self.refused(NotThere, remote.referrers(NAME, DIGEST, None))
        await self.refused(NotThere, remote.referrers(NAME, Digest.of(b"other"), None))


class LifeTests(RemoteCase):
    async def test_connections_are_kept(self) -> None:
        upstream = self.upstream(answers(MANIFEST))
        remote = self.remote(upstream.url)
        for _ in range(3):
            await remote.manifest(NAME, LATEST)
        self.assertEqual(upstream.accepted, 1)
        self.assertEqual(remote.variables(), {"requests": 0, "connections": 1, "idle": 1, "tokens": 0, "resting": 0.0})
        await self.both(*(remote.manifest(NAME, LATEST) for _ in range(5)))
        self.assertEqual(remote.variables()["requests"], 0)
        self.assertLessEqual(upstream.accepted, 5)

    async def test_closed_connections_are_no_fault(self) -> None:
        def once(exchange: Exchange) -> bool:
            return len(upstream.seen) % 2 == 1 and reply(exchange, MANIFEST)

        upstream = self.upstream(once)
        remote = self.remote(upstream.url)
        for _ in range(4):
            # Every second request finds a connection that ends without an answer, and is sent again.
            await remote.manifest(NAME, LATEST)

    async def test_close(self) -> None:
        upstream = self.upstream(answers(b"x" * 3_000_000))
        remote = self.remote(upstream.url)
        blob = await remote.blob(NAME, DIGEST)
        remote.close()
        self.assertEqual(len(await self.content(blob)), 3_000_000)
        await self.until(lambda: not remote.variables()["connections"], "the connection to be closed")
        self.assertEqual(await remote.blob_size(NAME, DIGEST), 3_000_000)
        await self.until(lambda: not upstream.open, "the connection to be closed")

    async def test_abort(self) -> None:
        upstream = self.upstream(answers(b"x" * 30_000_000))
        remote = self.remote(upstream.url)
        blob = await remote.blob(NAME, DIGEST)
        remote.abort()
        with self.assertRaises(Exception):  # noqa: B017 - BodyAborted is the one, and nothing hangs is the point
            await self.content(blob)
        await self.refused(Unreachable, remote.blob(NAME, DIGEST), "stopping")

    def test_rest_is_bounded(self) -> None:
        self.assertLess(LONGEST_REST, 86400)

    async def test_names(self) -> None:
        remote = self.remote("http://127.0.0.1:1", username="s3cret", password="s3cret")
        self.assertEqual(str(remote), "http://127.0.0.1:1")
        self.assertNotIn("s3cret", repr(remote) + repr(remote.upstream) + repr(vars(remote)))
