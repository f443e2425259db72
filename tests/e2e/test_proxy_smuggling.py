"""
Bytes that two servers in a row could read in two ways: refused with 400, the connection closed, and the upstream sees nothing of them.
"""

from __future__ import annotations

import contextlib
import re
import socket
from typing import ClassVar

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.e2e.case import E2ETestCase
from tests.e2e.process import wait_until
from tests.e2e.proxying import Exchange, Proxy, Upstream, ask_raw
from tests.web.smuggling import BROKEN_CHUNKS, EVIL, REFUSED


class SmugglingTest(E2ETestCase):
    upstream: ClassVar[Upstream]
    proxy: ClassVar[Proxy]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()

        def answer(exchange: Exchange) -> bool:
            # One that says so when it sees what it should not.
            exchange.read_body()
            exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            return True

        cls.upstream = Upstream(answer)
        cls.addClassCleanup(cls.upstream.close)
        cls.proxy = Proxy(
            cls.directory / "regd",
            f'  routes: [{{path: /, upstreams: ["{cls.upstream.url}"]}}]\n',
            http="  limits: {line: 4096, header: 8KiB, fields: 50}\n",
        )
        cls.run_for_all(cls.proxy)

    def setUp(self) -> None:
        self.settle()
        self.upstream.seen.clear()

    def settle(self) -> None:
        """Wait until the upstream has seen all that it is going to see."""
        self.proxy.wait_quiet()
        wait_until(lambda: self.upstream.open == self.proxy.connections()[1], 10, "the upstream to notice that connections have ended")

    def send(self, data: bytes, size: int) -> bytes:
        """
        :param size: How much of it goes out at once.
        :return: All that comes back until the connection is closed.
        """
        with socket.create_connection(("127.0.0.1", self.proxy.port), timeout=10) as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with contextlib.suppress(ConnectionError):
                for begin in range(0, len(data), size):
                    client.sendall(data[begin : begin + size])
            found = b""
            with contextlib.suppress(ConnectionError):
                while more := client.recv(65536):
                    found += more
            return found

    def test_refused(self) -> None:
        for name, data in REFUSED.items():
            for size in (len(data), 7):
                with self.subTest(name, size=size):
                    self.upstream.seen.clear()
                    found = self.send(data, size)
                    self.assertTrue(found.startswith(b"HTTP/1.1 400 Bad Request\r\n"), found)
                    self.assertEqual(found.count(b"HTTP/1.1 "), 1)
                    self.assertIn(b"\r\nConnection: close\r\n", found)
                    self.assertEqual(self.upstream.seen, [])

    def test_chunks_that_are_none(self) -> None:
        head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        for name, chunks in BROKEN_CHUNKS.items():
            for size in (1000, 3):
                with self.subTest(name, size=size):
                    self.upstream.seen.clear()
                    found = self.send(head + chunks + EVIL, size)
                    self.assertTrue(found.startswith(b"HTTP/1.1 400 Bad Request\r\n"), found)
                    self.assertEqual(found.count(b"HTTP/1.1 "), 1)
                    self.settle()
                    self.assertLessEqual(len(self.upstream.seen), 1)
                    for exchange in self.upstream.seen:
                        self.assertEqual(exchange.line, "POST / HTTP/1.1")
                        self.assertEqual(exchange.body, b"")

    def test_what_is_let_through_stays_one_request(self) -> None:
        for request, body in (
            (b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nTrailer: z\r\n\r\n", b"abc"),
            (b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked\r\n\r\n00003\r\nabc\r\n000\r\n\r\n", b"abc"),
            (b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 0004\r\n\r\nabcd", b"abcd"),
            (b"POST /a HTTP/1.1\r\nHost: x\r\nConnection: host, content-length\r\nContent-Length: 4\r\n\r\nabcd", b"abcd"),
            (b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(EVIL) + EVIL, EVIL),
        ):
            self.upstream.seen.clear()
            self.assertTrue(ask_raw(self.proxy.port, request).endswith(b"ok"), request)
            self.assertEqual([exchange.line for exchange in self.upstream.seen], ["POST /a HTTP/1.1"])
            self.assertEqual(self.upstream.seen[0].body[: len(body)], body)

    def test_absolute_form(self) -> None:
        self.upstream.seen.clear()
        ask_raw(self.proxy.port, b"GET http://y:80/p?q=1 HTTP/1.1\r\nHost: x\r\n\r\n")
        self.assertEqual(self.upstream.seen[0].line, "GET /p?q=1 HTTP/1.1")
        self.assertEqual(self.upstream.seen[0].all("host"), ["y:80"])

    def test_methods_that_are_not_passed_on(self) -> None:
        self.upstream.seen.clear()
        self.assertTrue(ask_raw(self.proxy.port, b"TRACE / HTTP/1.1\r\nHost: x\r\n\r\n").startswith(b"HTTP/1.1 405 "))
        self.assertRegex(ask_raw(self.proxy.port, b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n"), rb"^HTTP/1.1 (400|405) ")
        self.assertEqual(self.upstream.seen, [])

    # Pieces of which requests, and what looks like them, are made.
    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.differing_executors])
    @given(
        st.lists(
            st.sampled_from([
                *[b"\r\n", b"\n", b"\r", b" ", b"\t", b":", b"0", b"5", b"hello", b"5\r\nhello\r\n", b"0\r\n\r\n", b";", b"\0", b","],
                *[b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: x\r\n"],
                *[b"Host: x\r\n", b"Connection: close\r\n", b"Connection: content-length\r\n", b"Expect: 100-continue\r\n", EVIL],
                *[b"POST / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: x\r\n", b"\r\n\r\n"],
            ]),
            max_size=12,
        ),
        st.sampled_from([1, 5, 1000]),
    )
    @example([b"Content-Length: 5\r\n", b"\r\n", b"hello", EVIL], 1000)
    def test_any_bytes(self, pieces: list[bytes], size: int) -> None:
        """
        Whatever is sent: each request that the upstream sees is one that regd has answered or broken off, in the same framing, so never
        more of them than answers and one.
        """
        self.upstream.seen.clear()
        data = b"POST /first HTTP/1.1\r\nHost: x\r\n" + b"".join(pieces)
        with socket.create_connection(("127.0.0.1", self.proxy.port), timeout=10) as client:
            with contextlib.suppress(OSError):
                for begin in range(0, len(data), size):
                    client.sendall(data[begin : begin + size])
                client.shutdown(socket.SHUT_WR)
            found = b""
            with contextlib.suppress(ConnectionError, TimeoutError):
                while more := client.recv(65536):
                    found += more
        answers = len(re.findall(rb"HTTP/1\.1 200 OK\r\n", found))
        self.settle()
        self.assertLessEqual(len(self.upstream.seen), answers + 1)
        for exchange in self.upstream.seen:
            lengths, codings = exchange.all("content-length"), exchange.all("transfer-encoding")
            self.assertLessEqual(len(lengths) + len(codings), 1, exchange.head)
            self.assertEqual(len(exchange.all("host")), 1, exchange.head)
            self.assertNotRegex(exchange.head.replace(b"\r\n", b""), rb"[\r\n\0]")
