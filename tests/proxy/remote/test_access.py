"""Credentials: what is sent to whom, and to nobody else."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

from regd.names import Tag
from regd.proxy.remote import Denied, Limited, Remote, Unreachable
from regd.proxy.remote.tokens import basic
from tests.e2e.proxying import Exchange, Upstream, sends, stalls
from tests.proxy.remote.support import DIGEST, MANIFEST, NAME, RemoteCase, answers, reply

LATEST = Tag("latest")
PASSWORD = "s3cret:pass"
BASIC = basic("alice", PASSWORD)
SCOPE = f"repository:{NAME}:pull"


class BasicTests(RemoteCase):
    def guarded(self, *more: str) -> Upstream:
        def answer(exchange: Exchange) -> bool:
            if exchange.all("authorization") != [BASIC]:
                return reply(exchange, b"no", "401 Unauthorized", 'WWW-Authenticate: Basic realm="x"', *more)
            return reply(exchange, MANIFEST)

        self.canaries.append(BASIC.split()[1])
        return self.upstream(answer)

    async def test_when_asked_for(self) -> None:
        upstream = self.guarded()
        remote = self.remote(upstream.url, username="alice", password=PASSWORD)
        for _ in range(2):
            await remote.manifest(NAME, LATEST)
        # The first time nobody knows.
        self.assertEqual([one.all("authorization") for one in upstream.seen], [[], [BASIC], [BASIC]])

    async def test_never_unasked(self) -> None:
        upstream = self.upstream(answers(MANIFEST))
        await self.remote(upstream.url, username="alice", password=PASSWORD).manifest(NAME, LATEST)
        self.assertEqual(upstream.seen[0].all("authorization"), [])

    async def test_wrong(self) -> None:
        upstream = self.guarded()
        remote = self.remote(upstream.url, username="alice", password="s3cret")
        await self.refused(Denied, remote.manifest(NAME, LATEST), "401")
        self.assertEqual(len(upstream.seen), 2)

    async def test_none_configured(self) -> None:
        upstream = self.guarded()
        await self.refused(Denied, self.remote(upstream.url).manifest(NAME, LATEST), "none is configured")
        self.assertEqual(len(upstream.seen), 1)

    async def test_what_nobody_understands(self) -> None:
        for field in ("WWW-Authenticate: Negotiate", "WWW-Authenticate: Bearer", "X: y", 'WWW-Authenticate: "'):
            upstream = self.upstream(answers(b"", "401 Unauthorized", field))
            remote = self.remote(upstream.url, username="alice", password=PASSWORD)
            await self.refused(Denied, remote.manifest(NAME, LATEST), "are understood")
            self.assertEqual(len(upstream.seen), 1)


class Realm:
    """
    A registry that takes tokens, and the realm that makes them.

    :ivar tokens: What has been made, in order.
    :ivar good: Whether a token is taken.
    :ivar more: What else the realm says about each.
    """

    def __init__(self, case: RemoteCase, *, realm: str | None = None) -> None:
        self.tokens: list[str] = []
        self.more: dict[str, object] = {"expires_in": 300}
        self.good: Callable[[str], bool] = lambda token: token in self.tokens
        self.realm = case.upstream(self.make)
        self.url = realm or f"{self.realm.url}/token?kind=x"
        self.upstream = case.upstream(self.serve)

    def make(self, exchange: Exchange) -> bool:
        self.tokens.append(f"t0ken-{len(self.tokens)}")
        return reply(exchange, json.dumps({"token": self.tokens[-1], **self.more}).encode())

    def serve(self, exchange: Exchange) -> bool:
        said = exchange.all("authorization")
        if said and said[0].startswith("Bearer ") and self.good(said[0].removeprefix("Bearer ")):
            return reply(exchange, MANIFEST)
        name = exchange.line.split("/v2/")[1].partition("/manifests")[0]
        challenge = f'Bearer realm="{self.url}",service="registry.test",scope="repository:{name}:pull"'
        return reply(exchange, b"{}", "401 Unauthorized", f"WWW-Authenticate: {challenge}")

    def asked(self) -> list[dict[str, list[str]]]:
        """The queries of all requests for tokens."""
        return [parse_qs(urlsplit(one.line.split()[1]).query) for one in self.realm.seen]

    def credentials(self) -> list[list[str]]:
        """What came along with them."""
        return [one.all("authorization") for one in self.realm.seen]


class TokenTests(RemoteCase):
    async def get(self, remote: Remote, name: str = NAME) -> None:
        self.assertEqual((await remote.manifest(name, LATEST)).digest, DIGEST)

    async def test_anonymous(self) -> None:
        realm = Realm(self)
        remote = self.remote(realm.upstream.url)
        for _ in range(3):
            await self.get(remote)
        self.assertEqual(realm.asked(), [{"kind": ["x"], "service": ["registry.test"], "scope": [SCOPE], "client_id": ["regd"]}])
        self.assertEqual(realm.credentials(), [[]])
        bearer = ["Bearer t0ken-0"]
        self.assertEqual([one.all("authorization") for one in realm.upstream.seen], [[], bearer, bearer, bearer])
        # Another repository: how it goes is known, and that a token for it is needed.
        await self.get(remote, "other/x")
        self.assertEqual(realm.asked()[1]["scope"], ["repository:other/x:pull"])
        self.assertEqual(len(realm.upstream.seen), 5)
        self.assertEqual(remote.variables()["tokens"], 2)
        await self.until(lambda: not realm.realm.open, "no connection to the realm")

    async def test_a_realm_that_is_no_longer_the_one(self) -> None:
        """What a registry asked for once is not what it is held to: it has moved its realm, or asks for nothing any more."""
        old, new = Realm(self), Realm(self)
        remote = self.remote(old.upstream.url)
        await self.get(remote)
        old.realm.answer = answers(b"", "404 Not Found")
        old.good, old.url = new.tokens.__contains__, new.url
        await self.refused(Unreachable, remote.manifest("other/x", LATEST), "404")
        await self.get(remote, "other/x")
        self.assertEqual(len(new.tokens), 1)

    async def test_credentials(self) -> None:
        realm = Realm(self)
        self.canaries.append(BASIC.split()[1])
        await self.get(self.remote(realm.upstream.url, username="alice", password=PASSWORD))
        # The realm is on the same host.
        self.assertEqual(realm.credentials(), [[BASIC]])
        self.assertNotIn([BASIC], [one.all("authorization") for one in realm.upstream.seen])

    async def test_credentials_are_not_for_others(self) -> None:
        realm = Realm(self)
        realm.url = realm.url.replace("127.0.0.1", "localhost")
        remote = self.remote(realm.upstream.url, username="alice", password=PASSWORD)
        await self.get(remote)
        await self.get(remote, "other/x")
        self.assertEqual(realm.credentials(), [[], []])
        told = [line for line in self.logged if "tokenhosts" in line]
        self.assertEqual(len(told), 1)
        self.assertIn("if localhost may have them", told[0])
        for named in ("localhost", f"localhost:{realm.realm.port}"):
            await self.get(self.remote(realm.upstream.url, username="alice", password=PASSWORD, tokenhosts=(named,)))
            self.assertEqual(realm.credentials()[-1], [BASIC])

    async def test_once_for_all(self) -> None:
        realm = Realm(self)
        remote = self.remote(realm.upstream.url)
        await self.both(*(self.get(remote) for _ in range(20)))
        self.assertEqual(len(realm.tokens), 1)

    async def test_renewed(self) -> None:
        realm = Realm(self)
        remote = self.remote(realm.upstream.url)
        await self.get(remote)
        # The registry has forgotten the first one.
        realm.good = lambda token: token == "t0ken-1"
        await self.both(*(self.get(remote) for _ in range(5)))
        self.assertEqual(len(realm.tokens), 2)
        realm.more = {"expires_in": 1}
        realm.good = lambda token: token in realm.tokens[2:]
        await self.get(remote)
        self.assertEqual(len(realm.tokens), 3)
        refused = len(realm.upstream.seen)
        await self.sleep(1)
        # By its life, before anybody tries.
        await self.get(remote)
        self.assertEqual((len(realm.tokens), len(realm.upstream.seen)), (4, refused + 1))

    async def test_never_good(self) -> None:
        realm = Realm(self)
        realm.good = lambda token: False
        remote = self.remote(realm.upstream.url)
        for number in range(1, 3):
            await self.refused(Denied, remote.manifest(NAME, LATEST), "401 to credentials that are new")
            self.assertLessEqual(len(realm.upstream.seen), 3 * number)
        await self.both(*(self.refused(Denied, remote.manifest(NAME, LATEST)) for _ in range(5)))

    async def test_scopes_that_are_not_usual(self) -> None:
        realm = Realm(self)
        serve = realm.serve

        def odd(exchange: Exchange) -> bool:
            if exchange.all("authorization") and int(exchange.all("authorization")[0].rpartition("-")[2]) in good:
                return reply(exchange, MANIFEST)
            challenge = f'Bearer realm="{realm.url}",scope="repository:odd:pull registry:catalog:*"'
            return reply(exchange, b"", "401 Unauthorized", f"WWW-Authenticate: {challenge}")

        realm.upstream.answer = odd
        good = range(10)
        remote = self.remote(realm.upstream.url)
        await self.get(remote)
        await self.get(remote)
        self.assertEqual(realm.asked(), [{"kind": ["x"], "scope": ["repository:odd:pull", "registry:catalog:*"], "client_id": ["regd"]}])
        # Another repository is guessed wrong, and put right.
        good = range(2, 3)
        await self.get(remote, "other")
        scopes = [one["scope"] for one in realm.asked()[1:]]
        self.assertEqual(scopes, [["repository:other:pull"], ["repository:odd:pull", "registry:catalog:*"]])
        realm.upstream.answer = serve

    async def test_the_realm_refuses(self) -> None:
        realm = Realm(self)
        remote = self.remote(realm.upstream.url, username="alice", password=PASSWORD)
        for status, kind in (
            ("401 Unauthorized", Denied),
            ("403 Forbidden", Denied),
            ("400 Bad Request", Unreachable),
            ("404 Not Found", Unreachable),
            ("500 Internal Server Error", Unreachable),
            ("302 Found\r\nLocation: http://127.0.0.1:1/s1gnature", Unreachable),
        ):
            realm.realm.answer = answers(b"{}", status)
            await self.refused(kind, remote.manifest(NAME, LATEST), f"answers {status[:3]}")
        realm.realm.answer = answers(b"", "429 Too Many Requests", "Retry-After: 7")
        error: Any = await self.refused(Limited, remote.manifest(NAME, LATEST), "429")
        self.assertEqual(error.retry_after, 7)
        asked = len(realm.realm.seen)
        await self.refused(Limited, remote.manifest(NAME, LATEST), "429")
        self.assertEqual(len(realm.realm.seen), asked)
        self.assertEqual(remote.resting, 0)

    async def test_the_realm_talks_rubbish(self) -> None:
        for answer in (
            answers(b""),
            answers(b"s3cret"),
            answers(b'{"token": "s3cret\\r\\nX: y"}'),
            answers(b'{"token": ["s3cret"]}'),
            answers(b'{"token": "' + b"x" * 70_000 + b'"}'),
            sends(b"s3cret\r\n\r\n"),
            sends(b"HTTP/1.1 200 OK\r\ns3cret\r\n\r\n{}"),
            sends(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\ns3cret"),
            sends(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 6\r\n\r\ns3cret"),
            sends(b""),
        ):
            realm = Realm(self)
            realm.realm.answer = answer
            await self.refused(Unreachable, self.remote(realm.upstream.url).manifest(NAME, LATEST))
            await self.until(lambda realm=realm: not realm.realm.open, "no connection to the realm")  # type: ignore[misc] # mypy cannot infer defaults of lambdas

    async def test_the_realm_never_ends(self) -> None:
        def endless(exchange: Exchange) -> bool:
            exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            while True:
                exchange.send(b"1000\r\n" + bytes(0x1000) + b"\r\n")

        realm = Realm(self)
        realm.realm.answer = endless
        await self.refused(Unreachable, self.remote(realm.upstream.url).manifest(NAME, LATEST), "larger than 65536")
        await self.until(lambda: not realm.realm.open, "no connection to the realm")

    async def test_the_realm_stalls(self) -> None:
        realm = Realm(self)
        for answer in (stalls(6), sends(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{", goes_on=True)):
            realm.realm.answer = answer
            remote = self.remote(realm.upstream.url, connect=0.5, read=0.3)
            error: Any = await self.refused(Unreachable, remote.manifest(NAME, LATEST), "too long")
            self.assertTrue(error.late)
            self.assertEqual(remote.variables()["requests"], 0)
            # And it is not asked again at once.
            await self.refused(Unreachable, remote.manifest(NAME, LATEST), "is not asked for another")

    async def test_realms_that_are_none(self) -> None:
        realm = Realm(self)
        for url in ("ftp://x/", "/token", "https://u:s3cret@x/", "http://127.0.0.1:1/token"):
            realm.url = url
            await self.refused(Unreachable, self.remote(realm.upstream.url).manifest(NAME, LATEST))

    async def test_aborted_meanwhile(self) -> None:
        realm = Realm(self)
        realm.realm.answer = stalls(5)
        remote = self.remote(realm.upstream.url)

        async def abort() -> None:
            await self.until(lambda: bool(realm.realm.seen), "the realm to be asked")
            remote.abort()

        await self.both(self.refused(Unreachable, remote.manifest(NAME, LATEST), "stopping"), abort())
        self.assertEqual(remote.variables()["requests"], 0)

    async def test_bearer_rather_than_basic(self) -> None:
        realm = Realm(self)
        serve = realm.serve

        def answer(exchange: Exchange) -> bool:
            if exchange.all("authorization"):
                return serve(exchange)
            challenge = f'Basic realm="x", Bearer realm="{realm.url}"'
            return reply(exchange, b"", "401 Unauthorized", f"WWW-Authenticate: {challenge}")

        realm.upstream.answer = answer
        await self.get(self.remote(realm.upstream.url, username="alice", password=PASSWORD))
        self.assertEqual(realm.asked()[0]["scope"], [SCOPE])


class RedirectTests(RemoteCase):
    def redirecting(self, location: Callable[[], str], *, status: str = "307 Temporary Redirect") -> Upstream:
        """Wants user and password, and then sends elsewhere."""

        def answer(exchange: Exchange) -> bool:
            if exchange.all("authorization") != [BASIC]:
                return reply(exchange, b"no", "401 Unauthorized", 'WWW-Authenticate: Basic realm="x"')
            return reply(exchange, b"<a href>", status, f"Location: {location()}")

        return self.upstream(answer)

    async def test_elsewhere_without_credentials(self) -> None:
        content = b"0123456789"

        def serve(exchange: Exchange) -> bool:
            if not exchange.all("range"):
                return reply(exchange, content)
            return reply(exchange, content[5:], "206 Partial Content", "Content-Range: bytes 5-9/10")

        for status in ("301 x", "302 x", "303 x", "307 x", "308 x"):
            cdn = self.upstream(serve)
            for host in ("127.0.0.1", "localhost"):
                url = f"http://{host}:{cdn.port}/data?X-Sig=s1gnature"
                upstream = self.redirecting(lambda url=url: url, status=status)  # type: ignore[misc] # mypy cannot infer defaults of lambdas
                remote = self.remote(upstream.url, username="alice", password=PASSWORD)
                blob = await remote.blob(NAME, DIGEST, 5)
                self.assertEqual(await self.content(blob), b"56789")
                seen = cdn.seen[-1]
                self.assertEqual((seen.line, seen.all("host")), ("GET /data?X-Sig=s1gnature HTTP/1.1", [f"{host}:{cdn.port}"]))
                self.assertEqual((seen.all("authorization"), seen.all("range")), ([], ["bytes=5-"]))
                self.assertEqual(await remote.blob_size(NAME, DIGEST), 10)

    async def test_refused_elsewhere(self) -> None:
        """Storage that knows the signature of GET only."""

        def serve(exchange: Exchange) -> bool:
            if exchange.line.startswith("HEAD"):
                return reply(exchange, b"<Error>", "403 Forbidden")
            return reply(exchange, b"0", "206 Partial Content", "Content-Range: bytes 0-0/10")

        cdn = self.upstream(serve)
        upstream = self.redirecting(lambda: f"{cdn.url}/x?sig=s1gnature")
        remote = self.remote(upstream.url, username="alice", password=PASSWORD)
        self.assertEqual(await remote.blob_size(NAME, DIGEST), 10)
        for status, kind in (("403 Forbidden", Denied), ("401 Unauthorized", Denied), ("500 x", Unreachable)):
            cdn.answer = answers(b"s3cret", status, "WWW-Authenticate: Basic realm=x")
            await self.refused(kind, remote.blob(NAME, DIGEST), f"{cdn.url}/x: it answers")
        self.assertFalse([one for one in cdn.seen if one.all("authorization")])
        cdn.answer = answers(b"", "429 x", "Retry-After: 100")
        await self.refused(Limited, remote.blob(NAME, DIGEST))
        seen = len(cdn.seen)
        await self.refused(Limited, remote.blob(NAME, DIGEST))
        # It is the other server that rests.
        self.assertEqual((len(cdn.seen), remote.resting), (seen, 0))

    async def test_and_back_again(self) -> None:
        """Who has been elsewhere gets no credentials any more."""
        cdn = self.upstream(lambda exchange: reply(exchange, b"", "302 Found", f"Location: {upstream.url}/back"))

        def answer(exchange: Exchange) -> bool:
            if "/back" in exchange.line:
                return reply(exchange, b"x")
            if exchange.all("authorization") != [BASIC]:
                return reply(exchange, b"no", "401 Unauthorized", 'WWW-Authenticate: Basic realm="x"')
            return reply(exchange, b"", "302 Found", f"Location: {cdn.url}/there")

        upstream = self.upstream(answer)
        remote = self.remote(upstream.url, username="alice", password=PASSWORD)
        self.assertEqual(await self.content(await remote.blob(NAME, DIGEST)), b"x")
        self.assertEqual(upstream.seen[-1].all("authorization"), [])

    async def test_within(self) -> None:
        def answer(exchange: Exchange) -> bool:
            if exchange.all("authorization") != [BASIC]:
                return reply(exchange, b"no", "401 Unauthorized", 'WWW-Authenticate: Basic realm="x"')
            if "/storage/" in exchange.line:
                return reply(exchange, b"x")
            return reply(exchange, b"", "302 Found", "Location: /storage/x")

        upstream = self.upstream(answer)
        blob = await self.remote(upstream.url, username="alice", password=PASSWORD).blob(NAME, DIGEST)
        self.assertEqual(await self.content(blob), b"x")

    async def test_loops(self) -> None:
        upstream = self.upstream(lambda exchange: reply(exchange, b"", "302 Found", f"Location: {exchange.line.split()[1]}"))
        await self.refused(Unreachable, self.remote(upstream.url).blob(NAME, DIGEST), "more than 5 redirects")
        self.assertEqual(len(upstream.seen), 6)

    async def test_nowhere(self) -> None:
        for location in ("ftp://x/s1gnature", "http://u:s3cret@127.0.0.1/", "http://[/s1gnature", "http://x y/s1gnature", "", "http://127.0.0.1:1/?s1gnature"):
            upstream = self.upstream(answers(b"", "302 Found", *([f"Location: {location}"] if location else [])))
            await self.refused(Unreachable, self.remote(upstream.url).blob(NAME, DIGEST))

    async def test_many_servers_are_forgotten(self) -> None:
        cdns = [self.upstream(answers(b"x")) for _ in range(20)]
        turn = iter(cdns)
        upstream = self.upstream(lambda exchange: reply(exchange, b"", "302 Found", f"Location: {next(turn).url}/"))
        remote = self.remote(upstream.url)
        for _ in cdns:
            await self.content(await remote.blob(NAME, DIGEST))
        found = len(list(remote._peers))
        self.assertLessEqual(found, 1 + 20)
        for cdn in cdns:
            cdn.close()
        await self.until(lambda: remote.variables()["connections"] == 1, "their connections to end")
        turn = iter([upstream])
        upstream.answer = lambda exchange: reply(exchange, b"", "302 Found", "Location: http://127.0.0.1:1/")
        await self.refused(Unreachable, remote.blob(NAME, DIGEST), "refused")
        self.assertLessEqual(len(list(remote._peers)), 17)
