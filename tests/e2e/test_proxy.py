"""The reverse proxy beside nginx: what the upstream sees, and what the client gets."""

from __future__ import annotations

import re
import signal
import socket
import time
from typing import ClassVar
from urllib.parse import urlsplit

from tests.e2e.case import E2ETestCase, Tool
from tests.e2e.daemon import Peer, Regd
from tests.e2e.images import OciLayout, noise
from tests.e2e.peers import Nginx
from tests.e2e.process import wait_until
from tests.e2e.proxying import Exchange, Proxy, Upstream, ask_raw, sends, simple
from tests.e2e.rawhttp import digest_of

# The requests that go through both, each with what stands in its head besides Host.
REQUESTS = {
    "get": b"GET /v2/ HTTP/1.1\r\nHost: hub.example:8443\r\nUser-Agent: docker/20.10\r\nAccept: a/b\r\naccept: c/d\r\n\r\n",
    "case": b"GET /v2/a?n=5&last=%2Fx HTTP/1.1\r\nhOsT: hub.example\r\nX-lower-UPPER: 1\r\nAuthorization: Basic e\r\nCookie: a\r\n\r\n",
    "forwarded": b"GET /v2/ HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: https\r\nX-Real-IP: 1.2.3.4\r\n\r\n",
    "twice": b"GET /v2/ HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: 2.2.2.2, 3.3.3.3\r\nForwarded: a=b\r\n\r\n",
    "hop": b"GET /v2/ HTTP/1.1\r\nHost: x\r\nKeep-Alive: 5\r\nTE: trailers\r\nUpgrade: h2c\r\nConnection: keep-alive\r\nX-Y: z\r\n\r\n",
    "underscore": b"GET /v2/ HTTP/1.1\r\nHost: x\r\nX_Real_IP: 6.6.6.6\r\nX-Real-Name: y\r\n\r\n",
    "head": b"HEAD /v2/ HTTP/1.1\r\nHost: x\r\nRange: bytes=0-3\r\nIf-None-Match: \"a\"\r\n\r\n",
    "length": b"PUT /v2/b HTTP/1.1\r\nHost: x\r\nContent-Type: t/u\r\nContent-Length: 5\r\nDigest: 1\r\n\r\nhello",
    "chunked": b"PATCH /v2/b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nX-A: b\r\n\r\n5\r\nhello\r\n6;e=1\r\n world\r\n0\r\n\r\n",
    "expect": b"PUT /v2/b HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello",
    "empty": b"POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
    "delete": b"DELETE /v2/a/manifests/b HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n\r\n",
    "options": b"OPTIONS /v2/ HTTP/1.1\r\nHost: x\r\n\r\n",
    "empty value": b"GET /v2/ HTTP/1.1\r\nHost: x\r\nX-Empty:\r\nX-Spaces:   a  b \t\r\n\r\n",
}

# What regd's upstream connection and nginx's say by themselves. (nginx knows the length of chunks that come in one piece.)
OWN = {"connection", "content-length", "transfer-encoding", "x-request-id"}
# nginx puts these first, regd leaves Host where it was and adds the others at the end.
MOVED = {"host", "x-real-ip", "x-forwarded-for", "x-forwarded-proto"}


def seen(exchange: Exchange) -> object:
    fields = [(name, value) for name, value in exchange.fields if name.lower() not in OWN]
    # nginx writes the names that it sets in one spelling.
    moved = sorted((name.lower(), value) for name, value in fields if name.lower() in MOVED)
    rest = [field for field in fields if field[0].lower() not in MOVED]
    return exchange.line, moved, rest, exchange.body


def got(answer: bytes) -> object:
    head, _, body = answer.partition(b"\r\n\r\n")
    if head.startswith(b"HTTP/1.1 100 "):
        head, _, body = body.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    found = ((name.lower(), value) for name, _, value in (line.partition(": ") for line in lines))
    fields = sorted(field for field in found if field[0] not in {"server", "date", "connection", "x-request-id"})
    if ("transfer-encoding", "chunked") in fields:
        # Where one chunk ends and the next begins is nobody's business.
        body = b"".join(re.findall(rb"(?s)[0-9a-f]+\r\n(.*?)\r\n", body))
    return status, fields, body


class BesideNginxTest(E2ETestCase):
    upstream: ClassVar[Upstream]
    nginx: ClassVar[Nginx]
    proxy: ClassVar[Proxy]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.upstream = Upstream()
        cls.addClassCleanup(cls.upstream.close)
        cls.nginx = Nginx(cls.directory / "nginx", cls.upstream.port)
        cls.run_for_all(cls.nginx)
        routes = f'  routes:\n    - {{path: /v1/, status: 404}}\n    - {{path: /v2/, upstreams: ["{cls.upstream.url}"]}}\n'
        cls.proxy = Proxy(cls.directory / "regd", routes)
        cls.run_for_all(cls.proxy)

    def both(self, request: bytes) -> tuple[bytes, bytes]:
        """
        :return: The answers of nginx and of regd, after the upstream has seen the same from both.
        """
        self.upstream.seen.clear()
        first = ask_raw(self.nginx.port, request)
        second = ask_raw(self.proxy.port, request)
        wait_until(lambda: len(self.upstream.seen) >= 2, 10, "the upstream to see both")
        nginx, regd = self.upstream.seen
        self.assertEqual(seen(regd), seen(nginx))
        return first, second

    def test_the_upstream_sees_the_same(self) -> None:
        self.upstream.answer = simple()
        for name, request in REQUESTS.items():
            if name == "expect":
                continue
            with self.subTest(name):
                nginx, regd = self.both(request)
                self.assertEqual(got(regd), got(nginx))

    def test_order_case_and_duplicates_are_kept(self) -> None:
        self.upstream.answer = simple()
        self.upstream.seen.clear()
        ask_raw(self.proxy.port, b"GET /v2/ HTTP/1.1\r\nb-B: 1\r\nHOST: x:1\r\na: 2\r\nb-b: 3\r\nA: 4\r\n\r\n")
        *fields, (last, _) = self.upstream.seen[0].fields
        self.assertEqual(
            fields,
            [
                *[("b-B", "1"), ("HOST", "x:1"), ("a", "2"), ("b-b", "3"), ("A", "4")],
                *[("X-Real-IP", "127.0.0.1"), ("X-Forwarded-For", "127.0.0.1"), ("X-Forwarded-Proto", "http")],
            ],
        )
        self.assertEqual(last, "X-Request-Id")

    def test_expect(self) -> None:
        self.upstream.answer = simple()
        for port in (self.nginx.port, self.proxy.port):
            with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
                head, body = REQUESTS["expect"][:-5], REQUESTS["expect"][-5:]
                connection.sendall(head)
                self.assertEqual(connection.recv(100), b"HTTP/1.1 100 Continue\r\n\r\n")
                connection.sendall(body)
                self.assertTrue(connection.recv(1000).startswith(b"HTTP/1.1 200 OK\r\n"))
            self.assertEqual(self.upstream.seen[-1].body, b"hello")
            self.assertEqual(self.upstream.seen[-1].all("expect"), [])

    def test_answers_are_the_same(self) -> None:
        head = b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n"
        answers = {
            "plain": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-B: 1\r\nx-a: 2\r\nX-B: 3\r\nDocker-Upload-UUID: x\r\n\r\nok",
            "none": b"HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n",
            "not modified": b'HTTP/1.1 304 Not Modified\r\nETag: "x"\r\n\r\n',
            "partial": b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-1/9\r\nContent-Length: 2\r\n\r\nab",
            "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n",
            "trailers": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 9\r\n\r\n",
            "until close": b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabcdef",
            "unauthorized": b'HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer realm="r"\r\nContent-Length: 0\r\n\r\n',
            "server error": b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 3\r\nRetry-After: 9\r\n\r\nbad",
            "odd": b"HTTP/1.1 499 Whatever You Like\r\nContent-Length: 0\r\n\r\n",
            "keep-alive": b"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=9\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n",
            "provisional": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx",
        }
        for name, data in answers.items():
            with self.subTest(name):
                self.upstream.answer = sends(data)
                nginx, regd = self.both(head)
                self.assertEqual(got(regd), got(nginx))

    def test_1_0_and_head(self) -> None:
        self.upstream.answer = sends(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
        for port in (self.nginx.port, self.proxy.port):
            answer = ask_raw(port, b"GET /v2/ HTTP/1.0\r\nHost: x\r\n\r\n", until_close=True)
            self.assertTrue(answer.endswith(b"\r\n\r\nabc"), answer)
            self.assertNotIn(b"chunked", answer)
        self.upstream.answer = simple(b"0123456789")
        for port in (self.nginx.port, self.proxy.port):
            answer = ask_raw(port, b"HEAD /v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", until_close=True)
            self.assertIn(b"Content-Length: 10\r\n", answer)
            self.assertTrue(answer.endswith(b"\r\n\r\n"), answer)

    def test_v1_and_unknown(self) -> None:
        for port in (self.nginx.port, self.proxy.port):
            for path in (b"/v1/_ping", b"/", b"/v2/../v1/x", b"/v3/"):
                self.assertTrue(ask_raw(port, b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path).startswith(b"HTTP/1.1 404 "), path)
            self.assertTrue(ask_raw(port, b"GET /v2 HTTP/1.1\r\nHost: x\r\n\r\n").startswith(b"HTTP/1.1 301 "))
        refused = self.proxy.client.get("/v1/_ping")
        self.assertEqual((refused.headers["content-type"], refused.body), ("text/plain; charset=utf-8", b"Not Found\n"))


class RegistriesBehindTest(E2ETestCase):
    """Images through the proxy, to Debian's docker-registry and to regd."""

    def proxied(self, server: Peer | Regd, workers: int = 1) -> Proxy:
        self.addCleanup(server.stop)
        server.start()
        proxy = Proxy(
            self.directory / f"proxy-{server.directory.name}",
            f'  routes: [{{path: /v2/, upstreams: ["http://127.0.0.1:{server.port}"]}}]\n',
            workers=workers,
        )
        self.addCleanup(proxy.stop)
        proxy.start()
        return proxy

    def there_and_back(self, proxy: Proxy, name: str) -> None:
        skopeo = Tool(self.directory, "skopeo", "--insecure-policy")
        layout = OciLayout(self.directory / f"layout-{name}")
        image = layout.tag("image", layout.add_image("amd64", [noise(30_000_000), noise(3_000)]))
        remote = f"docker://{proxy.host}/library/app:1"
        pulled = self.directory / f"pulled-{name}"
        skopeo.run("copy", "--dest-tls-verify=false", image, remote)
        skopeo.run("copy", "--src-tls-verify=false", remote, f"dir:{pulled}")
        blobs = [blob for blob in pulled.iterdir() if len(blob.name) == 64]
        self.assertEqual(len(blobs), 3)
        for blob in blobs:
            self.assertEqual(digest_of(blob.read_bytes()), f"sha256:{blob.name}")
        proxy.wait_quiet()

    def test_docker_registry(self) -> None:
        self.there_and_back(self.proxied(Peer(self.directory / "peer")), "peer")

    def test_regd(self) -> None:
        self.there_and_back(self.proxied(Regd(self.directory / "regd")), "regd")

    def test_with_two_workers(self) -> None:
        self.there_and_back(self.proxied(Regd(self.directory / "regd-2"), workers=2), "regd-2")

    def test_uploads_in_every_way(self) -> None:
        proxy = self.proxied(Peer(self.directory / "peer-2"))
        content = noise(5_000_000)
        location = proxy.client.begin_upload("a/b")
        # docker-registry makes it of Host and X-Forwarded-Proto.
        self.assertEqual(urlsplit(location).netloc, proxy.host)
        location = proxy.client.append(location, content[:1_000_000])
        answer = proxy.client.request("PATCH", location, [content[1_000_000:1_500_000], content[1_500_000:3_000_000]])
        self.assertEqual(answer.status, 202)
        self.assertEqual(proxy.client.commit(answer.headers["location"], digest_of(content), content[3_000_000:]).status, 201)
        blob = f"/v2/a/b/blobs/{digest_of(content)}"
        self.assertEqual(proxy.client.get(blob).body, content)
        part = proxy.client.get(blob, Range="bytes=1000000-2999999")
        self.assertEqual((part.status, part.body), (206, content[1_000_000:3_000_000]))
        self.assertEqual(proxy.client.request("HEAD", blob).headers["content-length"], "5000000")


class OwnStorageTest(E2ETestCase):
    def test_own_first(self) -> None:
        upstream = Upstream(simple(b"from upstream"))
        self.addCleanup(upstream.close)
        proxy = Proxy(
            self.directory / "regd",
            f'  routes:\n    - {{host: hub.example, path: /, upstreams: ["{upstream.url}"]}}\n'
            f'    - {{path: /ui/, upstreams: ["{upstream.url}"]}}\n',
            storage="storage: inmemory",
        )
        self.addCleanup(proxy.stop)
        proxy.start()
        digest = proxy.client.push_blob("a/b", b"own")
        self.assertEqual(proxy.client.get(f"/v2/a/b/blobs/{digest}").body, b"own")
        self.assertEqual(proxy.client.get("/ui/x").body, b"from upstream")
        self.assertEqual(proxy.client.get("/v2/", Host="HUB.example:80").body, b"from upstream")
        self.assertEqual(proxy.client.get("/v2/").body, b"{}")
        self.assertEqual(proxy.client.get("/other").codes(), ["NOT_FOUND"])


class RunningTest(E2ETestCase):
    """What happens beside single requests: unix sockets, the configuration read again, the end."""

    def proxy(self, name: str, reverseproxy: str) -> Proxy:
        proxy = Proxy(self.directory / name, reverseproxy)
        self.addCleanup(proxy.stop)
        proxy.start()
        return proxy

    def upstream(self, path: str | None = None) -> Upstream:
        upstream = Upstream(path=path)
        self.addCleanup(upstream.close)
        return upstream

    def test_unix_socket(self) -> None:
        upstream = self.upstream(path=str(self.directory / "up.sock"))
        content = noise(2_000_000)
        upstream.answer = simple(content)
        proxy = self.proxy("unix", f'  routes: [{{path: /, upstreams: ["{upstream.url}"]}}]\n')
        self.assertEqual(proxy.client.request("PUT", "/x", content).body, content)
        self.assertEqual(upstream.seen[0].body, content)

    def test_connections_are_kept(self) -> None:
        upstream = self.upstream()
        proxy = self.proxy("kept", f'  routes: [{{path: /, upstreams: ["{upstream.url}"]}}]\n')
        for _ in range(20):
            self.assertEqual(proxy.client.get("/").status, 200)
        self.assertEqual(upstream.accepted, 1)

    def test_locations_are_made_right(self) -> None:
        upstream = self.upstream()
        proxy = self.proxy("location", f'  trusted: [127.0.0.1]\n  routes: [{{path: /, upstreams: ["{upstream.url}"]}}]\n')
        upstream.answer = simple(b"", "202 Accepted", f"Location: http://127.0.0.1:{upstream.port}/v2/a?x=1\r\n")
        answer = proxy.client.get("/", Host="hub.example")
        self.assertEqual(answer.headers["location"], "http://hub.example/v2/a?x=1")
        answer = proxy.client.get("/", Host="hub.example", X_Forwarded_Proto="https")
        self.assertEqual(answer.headers["location"], "https://hub.example/v2/a?x=1")
        self.assertEqual(upstream.seen[-1].all("x-forwarded-proto"), ["https"])
        upstream.answer = simple(b"", "307 x", "Location: https://cdn.example/blob\r\n")
        self.assertEqual(proxy.client.get("/").headers["location"], "https://cdn.example/blob")

    def test_behind_another_proxy(self) -> None:
        """Who is trusted says who the client is, in whichever field; nobody else does."""
        upstream = self.upstream()
        routes = f'  routes: [{{path: /, upstreams: ["{upstream.url}"]}}]\n'
        believes = self.proxy("believes", f"  trusted: [127.0.0.1, 10.0.0.0/8]\n{routes}")
        believes_nobody = self.proxy("nobody", routes)
        peer = "127.0.0.1"
        for fields, client, chain, scheme in (
            ({}, peer, peer, "http"),
            ({"X_Forwarded_For": "6.6.6.6, 203.0.113.5, 10.1.1.1"}, "203.0.113.5", f"6.6.6.6, 203.0.113.5, 10.1.1.1, {peer}", "http"),
            ({"X_Forwarded_For": "203.0.113.5", "Forwarded": "for=6.6.6.6"}, "203.0.113.5", f"203.0.113.5, {peer}", "http"),
            ({"Forwarded": "for=6.6.6.6, for=203.0.113.5;proto=http, for=10.1.1.1"}, "203.0.113.5", peer, "http"),
            ({"Forwarded": 'for="[2001:db8::1]:4711";proto=https'}, "2001:db8::1", peer, "https"),
            ({"Forwarded": "for=_hidden;proto=https"}, peer, peer, "https"),
            ({"X_Real_IP": "203.0.113.5", "X_Forwarded_Proto": "https"}, "203.0.113.5", peer, "https"),
        ):
            with self.subTest(fields):
                for proxy, real, proto in ((believes, client, scheme), (believes_nobody, peer, "http")):
                    proxy.client.get("/", **fields)
                    seen = upstream.seen[-1]
                    names = ("x-real-ip", "x-forwarded-for", "x-forwarded-proto")
                    self.assertEqual([seen.all(name) for name in names], [[real], [chain], [proto]])

    def test_sighup_and_drain(self) -> None:
        old, new = self.upstream(), self.upstream()
        begun = []

        def slow(exchange: Exchange) -> bool:
            begun.append(exchange)
            time.sleep(1.5)
            return simple(b"late")(exchange)

        old.answer, new.answer = slow, slow
        proxy = self.proxy("hup", f'  routes: [{{path: /, upstreams: ["{old.url}"]}}]\n')
        first = socket.create_connection(("127.0.0.1", proxy.port))
        self.addCleanup(first.close)
        first.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_until(lambda: len(begun) == 1, 10, "the first request")
        proxy.configure(f'  routes: [{{path: /, upstreams: ["{new.url}"]}}]\n')
        proxy.program.send(signal.SIGHUP)
        wait_until(lambda: "was read again" in proxy.program.output(), 10, "the configuration to be read")
        second = socket.create_connection(("127.0.0.1", proxy.port))
        self.addCleanup(second.close)
        second.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_until(lambda: len(begun) == 2, 10, "the second request")
        self.assertEqual((len(old.seen), len(new.seen)), (1, 1))
        proxy.program.send(signal.SIGTERM)
        for connection in (first, second):
            connection.settimeout(20)
            self.assertIn(b"late", connection.recv(1000))
        proxy.stop()

    def test_least_connections_and_another_one(self) -> None:
        upstreams = [self.upstream(), self.upstream()]
        urls = ", ".join(f'"{one.url}"' for one in upstreams)
        proxy = self.proxy("two", f"  routes: [{{path: /, upstreams: [{urls}]}}]\n")
        held = []

        def hold(exchange: Exchange) -> bool:
            held.append(exchange)
            wait_until(lambda: len(held) >= 4, 20, "all of them")
            return simple()(exchange)

        for one in upstreams:
            one.answer = hold
        sockets = [socket.create_connection(("127.0.0.1", proxy.port)) for _ in range(4)]
        for one_socket in sockets:
            self.addCleanup(one_socket.close)
            one_socket.settimeout(20)
            one_socket.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        for one_socket in sockets:
            self.assertIn(b" 200 OK", one_socket.recv(1000))
        self.assertEqual([len(one.seen) for one in upstreams], [2, 2])
        upstreams[0].close()
        for _ in range(6):
            self.assertEqual(proxy.client.get("/").status, 200)
            self.assertEqual(proxy.client.request("POST", "/", b"x").status, 200)

    def test_health(self) -> None:
        upstream = self.upstream()
        proxy = self.proxy(
            "health",
            f'  routes: [{{path: /v2/, upstreams: ["{upstream.url}"], healthcheck: {{path: /v2/, interval: 100ms, threshold: 2}}}}]\n',
        )
        self.assertEqual(proxy.client.get("/v2/").status, 200)
        upstream.answer = simple(b"", "500 x")
        wait_until(lambda: proxy.client.get("/v2/").status == 503, 10, "the upstream to be unhealthy")
        answer = proxy.client.get("/v2/")
        self.assertEqual((answer.codes(), answer.headers["retry-after"]), (["UNAVAILABLE"], "5"))
        upstream.answer = simple(b"", "401 x")
        wait_until(lambda: proxy.client.get("/v2/").status == 401, 10, "the upstream to be healthy again")
