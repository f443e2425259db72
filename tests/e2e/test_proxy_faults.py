"""Upstreams and clients that do not behave: each has a clear end, and no connection is left over."""

from __future__ import annotations

import socket
import ssl
import subprocess
import time
from pathlib import Path
from typing import ClassVar

from tests.e2e.case import E2ETestCase
from tests.e2e.images import noise
from tests.e2e.process import free_port, need, wait_until
from tests.e2e.proxying import Exchange, Proxy, Upstream, ask_raw, sends, simple, stalls

GET = b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n"
LARGE = 3_000_000


def status_of(answer: bytes) -> int:
    assert answer.startswith(b"HTTP/1.1 "), answer[:100]
    return int(answer[9:12])


class FaultsTest(E2ETestCase):
    upstream: ClassVar[Upstream]
    proxy: ClassVar[Proxy]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.upstream = Upstream()
        cls.addClassCleanup(cls.upstream.close)
        timeouts = "timeouts: {connect: 500ms, read: 500ms, write: 500ms}"
        cls.proxy = Proxy(
            cls.directory / "regd",
            f'  routes:\n    - {{host: down, path: /, upstreams: ["http://127.0.0.1:{free_port()}"], {timeouts}}}\n'
            f'    - {{path: /, upstreams: ["{cls.upstream.url}"], {timeouts}}}\n',
        )
        cls.run_for_all(cls.proxy)

    def setUp(self) -> None:
        self.upstream.answer = simple()
        self.upstream.seen.clear()

    def tearDown(self) -> None:
        self.proxy.wait_quiet()

    def refused(self, answer: bytes, status: int) -> None:
        """It is an error of regd's own, with the registry's envelope."""
        self.assertEqual(status_of(answer), status, answer)
        self.assertIn(b'"code":"UNAVAILABLE"', answer)

    def assert_log(self, text: str) -> None:
        wait_until(lambda: text in self.proxy.program.output(), 5, f"the log to say {text}: {self.proxy.program.tail(5)}")

    def test_nobody_there(self) -> None:
        self.refused(ask_raw(self.proxy.port, b"GET /v2/ HTTP/1.1\r\nHost: down\r\n\r\n"), 502)
        plain = ask_raw(self.proxy.port, b"GET /ui HTTP/1.1\r\nHost: down\r\n\r\n")
        self.assertEqual(status_of(plain), 502)
        self.assertIn(b"Content-Type: text/plain", plain)
        self.assert_log("onnection refused")

    def test_it_stalls(self) -> None:
        self.upstream.answer = stalls(3)
        self.refused(ask_raw(self.proxy.port, GET), 504)
        self.assert_log("it said nothing for 0.5 s")

    def test_it_stalls_amid_the_body(self) -> None:
        for size in (10, LARGE):

            def answer(exchange: Exchange, size: int = size) -> bool:
                exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (size + 10) + bytes(size))
                time.sleep(3)
                return False

            self.upstream.answer = answer
            begun = time.monotonic()
            found = ask_raw(self.proxy.port, GET, until_close=True)
            self.assertLess(time.monotonic() - begun, 2.5)
            self.assertEqual(len(found.partition(b"\r\n\r\n")[2]), size)

    def test_it_closes(self) -> None:
        for data in (b"", b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n"):
            self.upstream.answer = sends(data)
            self.refused(ask_raw(self.proxy.port, GET), 502)

    def test_it_closes_amid_the_body(self) -> None:
        large = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (LARGE + 1) + bytes(LARGE)
        for data in (
            b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
            large,
        ):
            self.upstream.answer = sends(data)
            found = ask_raw(self.proxy.port, GET, until_close=True)
            self.assertEqual(status_of(found), 200)
            self.assertNotIn(b"\r\n0\r\n", found)
            if data is large:
                self.assertEqual(len(found.partition(b"\r\n\r\n")[2]), LARGE)
        self.assert_log("broke off its answer")

    def test_more_than_it_said(self) -> None:
        two = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
        self.upstream.answer = sends(two, goes_on=True)
        with socket.create_connection(("127.0.0.1", self.proxy.port), timeout=10) as client:
            for _ in range(3):
                client.sendall(GET)
                answer = client.recv(10_000)
                self.assertTrue(answer.endswith(b"\r\n\r\nok"), answer)
        self.upstream.answer = sends(b"HTTP/1.1 204 No Content\r\n\r\nevil", goes_on=True)
        self.assertNotIn(b"evil", ask_raw(self.proxy.port, GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), until_close=True))

    def test_garbage(self) -> None:
        for data in (
            b"SSH-2.0-OpenSSH_9.2\r\n",
            b"HTTP/2.0 200 OK\r\n\r\n",
            b"HTTP/1.1 abc\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nNo colon\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nA: b\r\n folded\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nA: b\nEvil: c\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nName : b\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
            b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello",
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
            b"HTTP/1.1 100 Continue\r\n\r\n" * 30,
            b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000 + b"\r\n\r\n",
        ):
            with self.subTest(data[:60]):
                self.upstream.answer = sends(data)
                self.refused(ask_raw(self.proxy.port, GET), 502)

    def test_errors_are_passed_on(self) -> None:
        for status in (400, 401, 404, 429, 500, 502, 503, 504):
            self.upstream.answer = simple(b"its own", f"{status} X", "Retry-After: 7\r\n")
            found = ask_raw(self.proxy.port, GET)
            self.assertEqual((status_of(found), found.partition(b"\r\n\r\n")[2]), (status, b"its own"))
            self.assertIn(b"Retry-After: 7\r\n", found)

    def test_an_early_refusal(self) -> None:
        def refuse(exchange: Exchange) -> bool:
            exchange.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig")
            # As a server does: what comes is read a little, and then cut off.
            exchange.socket.recv(1000)
            return False

        self.upstream.answer = refuse
        for body in (b"x" * 100_000, b"x" * 10_000_000):
            with socket.create_connection(("127.0.0.1", self.proxy.port), timeout=10) as client:
                client.sendall(b"PUT /v2/ HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body))
                client.settimeout(0.05)
                found, sent = b"", 0
                while sent < len(body) and b"big" not in found:
                    try:
                        sent += client.send(body[sent : sent + 65536])
                        found += client.recv(10_000)
                    except TimeoutError:
                        continue
                client.settimeout(10)
                while b"big" not in found and (more := client.recv(10_000)):
                    found += more
                self.assertEqual(status_of(found), 413)
                self.assertTrue(found.endswith(b"big"))

    def test_it_takes_nothing(self) -> None:
        self.upstream.answer = stalls(4)
        body = b"x" * 30_000_000
        for head in (b"Content-Length: %d\r\n\r\n" % len(body), b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(body)):
            with socket.create_connection(("127.0.0.1", self.proxy.port), timeout=10) as client:
                client.setblocking(False)
                data = b"PUT /v2/ HTTP/1.1\r\nHost: x\r\n" + head + body
                begun, found = time.monotonic(), b""
                while not found and time.monotonic() - begun < 8:
                    try:
                        sent = client.send(data[:65536])
                        data = data[sent:]
                    except (BlockingIOError, ConnectionError):
                        time.sleep(0.01)
                    try:
                        found = client.recv(10_000)
                    except BlockingIOError:
                        continue
                self.refused(found, 504)

    def test_the_client_takes_nothing(self) -> None:
        content = noise(30_000_000)
        for framing in ("length", "chunked"):

            def answer(exchange: Exchange, framing: str = framing) -> bool:
                if framing == "length":
                    exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(content) + content)
                else:
                    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                    exchange.send(head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(content), content))
                return True

            self.upstream.answer = answer
            with socket.create_connection(("127.0.0.1", self.proxy.port), timeout=10) as client:
                client.sendall(GET)
                wait_until(lambda: self.proxy.connections()[0] == 1, 5, "the request to be passed on")
                wait_until(lambda: self.proxy.connections()[0] == 0, 8, "it to be given up")

    def test_clients_that_leave(self) -> None:
        begun: list[Exchange] = []
        content = bytes(200_000)

        def slow(exchange: Exchange) -> bool:
            begun.append(exchange)
            if exchange.line.startswith("GET /v2/body"):
                exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n" + content)
            # Until we are told that nobody waits any more.
            exchange.socket.settimeout(10)
            while exchange.socket.recv(100_000):
                pass
            return False

        self.upstream.answer = slow
        upload = b"PUT /v2/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" + content
        chunked = b"PUT /v2/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n30d40\r\n" + content + b"\r\n"
        for request in (GET, GET.replace(b"/v2/", b"/v2/body"), upload, chunked):
            begun.clear()
            with socket.create_connection(("127.0.0.1", self.proxy.port), timeout=10) as client:
                client.sendall(request)
                wait_until(lambda: bool(begun), 5, "the upstream to have it")
                time.sleep(0.1)
            wait_until(lambda: self.proxy.connections()[0] == 0, 5, f"it to be noticed: {request[:20]!r}")
        wait_until(lambda: self.upstream.open == self.proxy.connections()[1], 5, "the upstream to be left alone")

    def test_a_connection_that_was_closed_meanwhile(self) -> None:
        def once(exchange: Exchange) -> bool:
            simple()(exchange)
            return False

        self.upstream.answer = once
        for _ in range(10):
            self.assertEqual(status_of(ask_raw(self.proxy.port, GET)), 200)
            # Whether a POST that goes out in the very moment was received, nobody could know, and it is not sent again.
            time.sleep(0.03)
            self.assertEqual(status_of(ask_raw(self.proxy.port, b"POST /v2/ HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab")), 200)

    def test_pipelined(self) -> None:
        """The next request is passed on while the one before is being finished, on the same connection to the upstream."""
        post = b"POST /v2/%d HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
        get = b"GET /v2/%d HTTP/1.1\r\nHost: x\r\n\r\n"
        before = self.upstream.accepted
        for head in (post, get):
            self.upstream.seen.clear()
            with socket.create_connection(("127.0.0.1", self.proxy.port), timeout=10) as client:
                client.sendall(b"".join(head % number for number in range(50)))
                found = b""
                while found.count(b"\r\n\r\nok\n") < 50:
                    more = client.recv(65536)
                    self.assertTrue(more, found[-200:])
                    found += more
            self.assertEqual(found.count(b"HTTP/1.1 200 OK"), 50)
            numbers = [exchange.line.split()[1] for exchange in self.upstream.seen]
            self.assertEqual(numbers, [f"/v2/{number}" for number in range(50)])
        self.assertLessEqual(self.upstream.accepted - before, 2)

    def test_what_may_be_repeated_is(self) -> None:
        calls: list[str] = []

        def first_time_not(exchange: Exchange) -> bool:
            calls.append(exchange.line)
            return False if len(calls) == 2 else simple()(exchange)

        for request, wanted in (
            (GET, 200),
            (b"DELETE /v2/ HTTP/1.1\r\nHost: x\r\n\r\n", 200),
            (b"POST /v2/ HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", 502),
            (b"PUT /v2/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\na", 502),
        ):
            calls.clear()
            self.upstream.answer = first_time_not
            # The first one leaves a connection, which ends with the second one unanswered.
            self.assertEqual(status_of(ask_raw(self.proxy.port, GET)), 200)
            self.assertEqual(status_of(ask_raw(self.proxy.port, request)), wanted, request)

    def test_bodies_arrive_whole(self) -> None:
        def echo(exchange: Exchange) -> bool:
            body = exchange.read_body()
            exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            return True

        self.upstream.answer = echo
        for size in (0, 1, 1000, 65_536, 131_072, 200_000, 1_000_000, 20_000_000):
            content = noise(size)
            self.assertEqual(self.proxy.client.request("PUT", "/v2/", content).body, content, size)
            self.assertEqual(self.proxy.client.request("PUT", "/v2/", [content[:7], content[7:]] if size > 7 else content).body, content)
        with socket.create_connection(("127.0.0.1", self.proxy.port), timeout=10) as client:
            content = noise(1_000_000)
            # In pieces, with pauses, and the next request right behind.
            data = b"PUT /v2/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" + content + GET
            for begin in range(0, len(data), 150_000):
                client.sendall(data[begin : begin + 150_000])
                time.sleep(0.02)
            found = b""
            while found.count(b"HTTP/1.1 200 OK") < 2 or not found.endswith(b"\r\n\r\n"):
                found += client.recv(1 << 20)
            self.assertIn(content, found)


class TLSTest(E2ETestCase):
    """Upstreams with TLS, and with certificates that are not theirs."""

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        need("openssl")
        cls.ca = cls.make("ca", "regd test CA", None)
        cls.good = cls.make("good", "registry.internal", cls.ca, "DNS:registry.internal,IP:127.0.0.1")
        cls.other = cls.make("other", "else.example", cls.ca, "DNS:else.example")
        cls.self_signed = cls.make("self", "registry.internal", None, "DNS:registry.internal,IP:127.0.0.1")
        cls.client_certificate = cls.make("client", "regd", cls.ca)

    ca: ClassVar[Path]
    good: ClassVar[Path]
    other: ClassVar[Path]
    self_signed: ClassVar[Path]
    client_certificate: ClassVar[Path]

    @classmethod
    def make(cls, name: str, common_name: str, issuer: Path | None, names: str = "") -> Path:
        """
        :return: A certificate; its key is beside it.
        """
        path = cls.directory / f"{name}.pem"
        key = path.with_suffix(".key")
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
        command += ["-subj", f"/CN={common_name}", "-keyout", str(key), "-out", str(path)]
        if issuer is not None:
            command += ["-CA", str(issuer), "-CAkey", str(issuer.with_suffix(".key")), "-addext", "basicConstraints=critical,CA:FALSE"]
        if names:
            command += ["-addext", f"subjectAltName={names}"]
        subprocess.run(command, check=True, capture_output=True)
        return path

    def upstream(self, certificate: Path, client_ca: Path | None = None) -> Upstream:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, certificate.with_suffix(".key"))
        if client_ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(client_ca)
        upstream = Upstream(context=context)
        self.addCleanup(upstream.close)
        return upstream

    def proxy(self, name: str, upstream: Upstream, tls: str) -> Proxy:
        routes = f'  routes: [{{path: /, upstreams: ["{upstream.url}"], tls: {{{tls}}}, timeouts: {{connect: 2s}}}}]\n'
        proxy = Proxy(self.directory / name, routes)
        self.addCleanup(proxy.stop)
        proxy.start()
        return proxy

    def test_verified(self) -> None:
        upstream = self.upstream(self.good)
        content = noise(3_000_000)
        upstream.answer = simple(content)
        for name, tls in (("by-ip", f"cafile: {self.ca}"), ("by-name", f"cafile: {self.ca}, servername: registry.internal")):
            proxy = self.proxy(name, upstream, tls)
            for body in (content, [content[:1_000_000], content[1_000_000:]]):
                self.assertEqual(proxy.client.request("PUT", "/v2/x", body).body, content)
                self.assertEqual(upstream.seen[-1].body, content)
            proxy.wait_quiet()

    def test_refused(self) -> None:
        for name, certificate, tls, why in (
            ("name", self.other, f"cafile: {self.ca}", "its certificate is not for the name that was asked for"),
            ("servername", self.good, f"cafile: {self.ca}, servername: wrong.internal", "its certificate is not for the name"),
            ("chain", self.self_signed, f"cafile: {self.ca}", "certificate verify failed"),
            ("system", self.good, "servername: registry.internal", "certificate verify failed"),
        ):
            with self.subTest(name):
                upstream = self.upstream(certificate)
                proxy = self.proxy(name, upstream, tls)
                answer = proxy.client.get("/v2/")
                self.assertEqual((answer.status, answer.codes()), (502, ["UNAVAILABLE"]))
                self.assertIn(why, proxy.program.output())
                self.assertEqual(upstream.seen, [])
                proxy.wait_quiet()

    def test_client_certificate(self) -> None:
        upstream = self.upstream(self.good, client_ca=self.ca)
        certificate = f"clientcertificate: {self.client_certificate}, clientkey: {self.client_certificate.with_suffix('.key')}"
        proxy = self.proxy("client", upstream, f"cafile: {self.ca}, {certificate}")
        self.assertEqual(proxy.client.get("/v2/").status, 200)
        proxy = self.proxy("no-client", upstream, f"cafile: {self.ca}")
        self.assertEqual(proxy.client.get("/v2/").status, 502)

    def test_plain_where_tls_should_be(self) -> None:
        upstream = Upstream()
        self.addCleanup(upstream.close)
        routes = f'  routes: [{{path: /, upstreams: ["https://127.0.0.1:{upstream.port}"], timeouts: {{connect: 1s}}}}]\n'
        proxy = Proxy(self.directory / "plain", routes)
        self.addCleanup(proxy.stop)
        proxy.start()
        self.assertIn(proxy.client.get("/v2/").status, {502, 504})

    def test_files_that_are_none(self) -> None:
        upstream = self.upstream(self.good)
        routes = f'  routes: [{{path: /, upstreams: ["{upstream.url}"], tls: {{cafile: /nowhere}}}}]\n'
        proxy = Proxy(self.directory / "nowhere", routes)
        self.addCleanup(proxy.stop)
        with self.assertRaises(AssertionError):
            proxy.start()
        self.assertIn(r'reverseproxy.routes[0].tls.cafile: found \"/nowhere\", which cannot be read', proxy.program.output())
