"""Upstreams of a cache that misbehave: each has a clear end for the client, nothing of it is kept, and no connection is left over."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import ClassVar

from tests.e2e.authority import TokenServer
from tests.e2e.caching import Cache
from tests.e2e.case import E2ETestCase
from tests.e2e.certificates import Authority
from tests.e2e.crowd import Crowd
from tests.e2e.images import noise
from tests.e2e.origin import Image, Manners, Origin, status
from tests.e2e.process import wait_until
from tests.e2e.proxying import Exchange, sends, stalls
from tests.e2e.rawhttp import Answer, digest_of

SIZE = 3_000_000
TIMEOUTS = "timeouts: {connect: 1s, read: 1s, write: 1s}"

Fault = Callable[[Exchange], bool | None]


def redirects(exchange: Exchange) -> bool:
    """In a circle."""
    path = exchange.line.split(" ")[1]
    exchange.send(f"HTTP/1.1 307 Temporary Redirect\r\nLocation: {path}\r\nContent-Length: 0\r\n\r\n".encode())
    return True


def redirects_for_ever(exchange: Exchange) -> bool:
    """To somewhere else each time."""
    path = exchange.line.split(" ")[1]
    exchange.send(f"HTTP/1.1 302 Found\r\nLocation: {path}0\r\nContent-Length: 0\r\n\r\n".encode())
    return True


GARBAGE = (
    b"SSH-2.0-OpenSSH_9.2\r\n",
    b"HTTP/1.1 abc\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nNo colon\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000 + b"\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
    b"\x00" * 1000,
    b"",
)


class CacheFaultsTest(E2ETestCase):
    origin: ClassVar[Origin]
    cache: ClassVar[Cache]
    serial = 0

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.origin = Origin()
        cls.addClassCleanup(cls.origin.close)
        cls.cache = Cache(
            cls.directory / "regd", f"  upstreams:\n    - {{prefix: hub.test, remoteurl: '{cls.origin.url}', tagttl: 0s, {TIMEOUTS}}}\n"
        )
        cls.run_for_all(cls.cache)

    def setUp(self) -> None:
        self.origin.reset()
        self.origin.put_image("library/anchor", "1", [b"layer"])
        self.fresh()

    def fresh(self) -> None:
        """An image that has not been asked for."""
        CacheFaultsTest.serial += 1
        self.name = f"library/image{CacheFaultsTest.serial}"
        self.local = f"hub.test/{self.name}"
        self.image: Image = self.origin.put_image(self.name, "1", [noise(SIZE)])
        self.layer = self.image.layers[0]

    def tearDown(self) -> None:
        self.origin.reset()
        self.assert_quiet()

    def assert_quiet(self) -> None:
        """No request is under way, and what is open waits for the next one, on both sides."""
        wait_until(lambda: self.cache.busy() == 0, 15, f"no request to be left: {self.cache.vars()}")
        wait_until(lambda: self.origin.upstream.open == self.cache.connections(), 15, f"as many connections: {self.cache.vars()}")
        self.assertLessEqual(self.cache.connections(), 8)

    def fetched(self, manners: Manners, clients: int = 3) -> None:
        """With those manners clients get all of it, and notice nothing."""
        self.origin.manners = manners
        for pulled in Crowd(self.cache.port, f"/v2/{self.local}/blobs/{self.layer}", clients).pulled():
            self.assertEqual((pulled.status, pulled.whole, pulled.digest), (200, True, self.layer), pulled)

    def assert_nothing_kept(self) -> None:
        self.assertEqual(self.cache.blobs() & {self.image.digest, self.image.config, self.layer}, set())
        self.assertEqual(self.cache.links(self.local), set())
        self.assertEqual(self.cache.tags(self.local), set())

    def get(self, path: str) -> Answer:
        return self.cache.client.get(f"/v2/{self.local}/{path}")

    def refused(self, answer: Answer, *statuses: int) -> None:
        """It is an error of regd's own, with the registry's envelope, that says whose fault it is."""
        self.assertIn(answer.status, statuses, answer)
        self.assertTrue(answer.codes(), answer)
        self.assertNotIn(b"<html>", answer.body)

    def recovers(self) -> None:
        """As soon as the upstream does, all is well; it may have been given a moment of rest."""
        self.origin.reset()
        wait_until(lambda: self.cache.manifest(self.local, "1").body == self.image.manifest, 15, "the manifest")
        wait_until(lambda: digest_of(self.get(f"blobs/{self.layer}").body) == self.layer, 15, "the layer")

    def fails(self, fault: Fault, *statuses: int) -> None:
        """With that fault neither manifests nor blobs are to be had, and with its end they are."""
        for path in ("manifests/1", f"blobs/{self.layer}"):
            self.origin.fault = fault
            begun = time.monotonic()
            self.refused(self.get(path), *statuses)
            self.assertLess(time.monotonic() - begun, 15, path)
            self.assert_nothing_kept()
            self.rested()
        self.recovers()

    def rested(self) -> None:
        """Wait for the end of the rest that a failure has brought about, which would otherwise be longer the next time."""
        self.origin.fault = None
        wait_until(lambda: self.cache.resting() == 0, 15, "the upstream to be asked again")
        self.assertEqual(self.cache.manifest("hub.test/library/anchor", "1").status, 200)

    def test_it_says_nothing(self) -> None:
        self.fails(stalls(4), 504)

    def test_it_closes(self) -> None:
        self.fails(sends(b""), 502)

    def test_garbage(self) -> None:
        for data in GARBAGE:
            with self.subTest(data[:40]):
                self.fresh()
                self.fails(sends(data), 502)

    def test_errors(self) -> None:
        for said in ("500 Internal Server Error", "502 Bad Gateway", "503 Service Unavailable", "504 Gateway Timeout", "418 No"):
            with self.subTest(said):
                self.fresh()
                self.fails(status(said), 502, 504)

    def test_it_wants_rest(self) -> None:
        for path in ("manifests/1", f"blobs/{self.layer}"):
            self.origin.fault = status("429 Too Many Requests", "Retry-After: 2\r\n")
            answer = self.get(path)
            self.refused(answer, 429)
            self.assertEqual(answer.codes(), ["TOOMANYREQUESTS"])
            self.assertIn(answer.headers["retry-after"], {"1", "2"})
            asked = len(self.origin.asked)
            self.origin.fault = None
            # Whoever comes meanwhile is told at once, and the upstream has its rest.
            self.refused(self.get(path), 429)
            self.assertEqual(len(self.origin.asked), asked)
            self.assert_nothing_kept()
            time.sleep(2.1)
        self.recovers()

    def test_forbidden(self) -> None:
        for path in ("manifests/1", f"blobs/{self.layer}"):
            self.origin.fault = status("403 Forbidden")
            answer = self.get(path)
            self.refused(answer, 403)
            self.assertEqual(answer.codes(), ["DENIED"])
            self.assert_nothing_kept()
        self.recovers()

    def test_401_for_ever(self) -> None:
        tokens = TokenServer(self.directory / "tokens")
        self.addCleanup(tokens.close)
        tokens.anonymous = True
        challenges = (
            f'Bearer realm="{tokens.realm}",service="x",scope="repository:{self.name}:pull"',
            'Basic realm="x"',
            "Negotiate",
            'Bearer realm="not a url"',
            'Bearer service="x"',
            "",
        )
        for challenge in challenges:
            with self.subTest(challenge):
                fields = f"WWW-Authenticate: {challenge}\r\n" if challenge else ""
                for path in ("manifests/1", f"blobs/{self.layer}"):
                    self.origin.asked.clear()
                    self.origin.fault = status("401 Unauthorized", fields)
                    self.refused(self.get(path), 403, 502)
                    self.assertLessEqual(len(self.origin.asked), 3, "it does not go on asking")
                    self.assert_nothing_kept()
                self.assertLess(len(tokens.asked), 20)
        self.recovers()

    def test_a_token_server_that_misbehaves(self) -> None:
        tokens = TokenServer(self.directory / "tokens2")
        self.addCleanup(tokens.close)
        tokens.anonymous = True
        usual = tokens.upstream.answer
        large = b"HTTP/1.1 200 OK\r\nContent-Length: 9000000\r\n\r\n" + b" " * 9_000_000
        for answer in (
            stalls(4),
            sends(b""),
            sends(b"garbage\r\n\r\n"),
            sends(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]"),
            sends(b'HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n{"token": 5}'),
            sends(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnone"),
            sends(large),
            status("500 Internal Server Error"),
            redirects,
        ):
            with self.subTest(answer):
                self.origin.guard = tokens.challenge
                tokens.upstream.answer = answer
                begun = time.monotonic()
                self.refused(self.get("manifests/1"), 502, 504, 403)
                self.assertLess(time.monotonic() - begun, 12)
                self.assert_nothing_kept()
                # It is left alone for a while, and asked again.
                tokens.upstream.answer = usual
                wait_until(lambda: self.cache.manifest("hub.test/library/anchor", "1").status == 200, 15, "it to be asked again")
                # With the next answer a token is needed anew.
                tokens.issued.clear()
        self.recovers()
        wait_until(lambda: tokens.upstream.open <= 1, 15, "no connection to the token server to be left")

    def test_redirects_without_end(self) -> None:
        for fault in (redirects, redirects_for_ever):
            self.fresh()
            self.fails(fault, 502)
            self.origin.asked.clear()
            self.origin.fault = fault
            self.get("manifests/other")
            self.assertLessEqual(len(self.origin.asked), 12)

    def test_redirects_to_nowhere(self) -> None:
        for location in ("ftp://127.0.0.1/x", "http://127.0.0.1:1/x", "http://", "\\\\", "http://user:pass@127.0.0.1:1/x", "file:///etc/passwd"):
            with self.subTest(location):
                self.fresh()
                self.fails(status("307 Temporary Redirect", f"Location: {location}\r\n"), 502)
        self.fresh()
        self.fails(status("307 Temporary Redirect"), 502)

    def cut(self) -> None:
        """A pull of the layer that does not come to its end, by an error before its first byte or a cut after it."""
        (pulled,) = Crowd(self.cache.port, f"/v2/{self.local}/blobs/{self.layer}", 1).pulled()
        self.assertFalse(pulled.whole and pulled.status == 200, "nobody may take it for whole")
        self.assertIn(pulled.status, {200, 502, 504}, pulled)
        self.assertLess(pulled.seconds, 30)

    def test_it_breaks_off_and_breaks_off(self) -> None:
        """Each time at the same offset, so that asking for the rest does not help."""
        for manners in (Manners(end=0), Manners(end=1_000_000), Manners(end=1_000_000, stall=3), Manners(end=1_000_000, chunked=True)):
            with self.subTest(manners):
                self.fresh()
                self.origin.manners = manners
                self.cut()
                self.assert_nothing_kept()
                self.recovers()

    def test_what_has_come_is_kept_for_the_next_try(self) -> None:
        self.origin.manners = Manners(end=2_000_000)
        self.cut()
        self.assert_nothing_kept()
        sent = self.origin.sent(self.layer)
        self.recovers()
        self.assertLess(self.origin.sent(self.layer), SIZE, f"{sent} bytes had come before")

    def test_it_breaks_off_once(self) -> None:
        """The client does not notice."""
        for manners in (Manners(), Manners(deaf=True), Manners(chunked=True)):
            with self.subTest(manners):
                self.fresh()
                self.origin.manners = Manners(end=1_000_000, chunked=manners.chunked)
                crowd = Crowd(self.cache.port, f"/v2/{self.local}/blobs/{self.layer}", 3)
                wait_until(lambda: self.origin.count("GET", self.layer) > 0, 5, "it to be asked for")
                self.origin.manners = manners
                for pulled in crowd.pulled():
                    self.assertEqual((pulled.status, pulled.whole, pulled.digest), (200, True, self.layer), pulled)

    def test_a_wrong_length(self) -> None:
        for more in (1000, -1000):
            with self.subTest(more):
                self.fresh()
                self.origin.manners = Manners(more=more, end=SIZE + more if more < 0 else None)
                self.cut()
                self.assert_nothing_kept()
                self.recovers()

    def test_wrong_bytes(self) -> None:
        for manners in (Manners(wrong=True), Manners(wrong=True, chunked=True)):
            with self.subTest(manners):
                self.fresh()
                self.origin.manners = manners
                self.cut()
                self.assert_nothing_kept()
                self.assertNotIn(self.layer, self.cache.fetching(), "there is nothing to be had from it")
                wait_until(lambda: "igest" in self.cache.program.output(), 5, "the log to say why")
                self.recovers()

    def test_a_wrong_manifest(self) -> None:
        self.origin.manifests[self.name, self.image.digest] = (self.origin.manifests[self.name, "1"][0], b'{"schemaVersion":2}')
        self.refused(self.cache.manifest(self.local, self.image.digest), 502)
        self.assert_nothing_kept()
        self.origin.manifests[self.name, self.image.digest] = self.origin.manifests[self.name, "1"]
        self.recovers()

    def test_manifests_that_are_none(self) -> None:
        usual = self.origin.manifests[self.name, "1"]
        for content in (b"", b"not json", b"[]", b'{"schemaVersion":2,"layers":' + b" " * 6_000_000 + b"[]}"):
            with self.subTest(content[:20]):
                self.origin.manifests[self.name, "1"] = (usual[0], content)
                self.refused(self.cache.manifest(self.local, "1"), 502)
                self.assert_nothing_kept()
        self.origin.manifests[self.name, "1"] = usual
        self.recovers()

    def test_a_length_that_is_not_said(self) -> None:
        """That is no fault: clients wait for the end, and get it all."""
        self.fetched(Manners(chunked=True, rate=6_000_000))
        self.assertEqual(self.origin.count("GET", self.layer), 1)


class CacheCertificatesTest(E2ETestCase):
    def test_certificates(self) -> None:
        authority, stranger = Authority(self.directory / "ca"), Authority(self.directory / "stranger")
        good = authority.issue("localhost", "127.0.0.1")
        contexts = {
            "good": good.server(),
            "stranger": stranger.issue("localhost", "127.0.0.1").server(),
            "name": authority.issue("registry.test").server(),
            "expired": authority.issue("localhost", "127.0.0.1", days=-1).server(),
        }
        origins = {name: Origin(context) for name, context in contexts.items()}
        section = "  upstreams:\n"
        for name, origin in origins.items():
            self.addCleanup(origin.close)
            url = f"https://localhost:{origin.port}"
            section += f"    - {{prefix: {name}.test, remoteurl: '{url}', tls: {{cafile: {authority.cafile}}}, {TIMEOUTS}}}\n"
        cache = Cache(self.directory / "regd", section)
        self.addCleanup(cache.stop)
        cache.start()
        for name, origin in origins.items():
            image = origin.put_image("app", "1", [noise(200_000)])
            for path, content in (("manifests/1", image.manifest), (f"blobs/{image.layers[0]}", origin.blobs[image.layers[0]])):
                answer = cache.client.get(f"/v2/{name}.test/app/{path}")
                if name == "good":
                    self.assertEqual((answer.status, answer.body), (200, content))
                else:
                    self.assertEqual((answer.status, bool(answer.codes())), (502, True), answer)
            if name != "good":
                self.assertEqual((origin.asked, cache.links(f"{name}.test/app")), ([], set()))
        wait_until(lambda: "ertificate" in cache.program.output(), 5, "the log to say why")
        wait_until(lambda: all(origin.upstream.open == 0 for name, origin in origins.items() if name != "good"), 10, "no connection left")
