"""
Promise P1 through the proxy: memory that does not grow with bodies, and little with connections. ``REGD_PROXY_GIB=10`` makes the bodies
10 GiB instead of one.
"""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import threading
import time
from typing import ClassVar

from tests.e2e.case import E2ETestCase
from tests.e2e.process import need, wait_until
from tests.e2e.proxying import Exchange, Proxy, Upstream

MIB = 1 << 20
SIZE = int(float(os.environ.get("REGD_PROXY_GIB", "1")) * 1024) * MIB
PIECE = bytes(MIB)
CONNECTIONS = 60


def large(exchange: Exchange) -> bool:
    """Swallows a body, or sends one, of the size that the path says."""
    size = int(exchange.line.split()[1].rpartition("/")[2])
    if exchange.line.startswith("GET "):
        chunked = "/chunked/" in exchange.line
        framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % size
        exchange.send(b"HTTP/1.1 200 OK\r\n%b\r\n\r\n" % framing)
        for _ in range(size // MIB):
            exchange.send(b"%x\r\n%b\r\n" % (MIB, PIECE) if chunked else PIECE)
        if chunked:
            exchange.send(b"0\r\n\r\n")
        return True
    left, room = size - len(exchange.rest), bytearray(MIB)
    if exchange.all("transfer-encoding"):
        end = exchange.rest[-5:]
        while end != b"0\r\n\r\n":
            count = exchange.socket.recv_into(room)
            if not count:
                return False
            end = (end + bytes(room[:count][-5:]))[-5:]
    else:
        while left > 0:
            count = exchange.socket.recv_into(room)
            if not count:
                return False
            left -= count
    exchange.rest = b""
    exchange.send(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
    return True


class MemoryTest(E2ETestCase):
    upstream: ClassVar[Upstream]
    secure: ClassVar[Upstream]
    proxy: ClassVar[Proxy]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        need("openssl")
        certificate, key = cls.directory / "cert.pem", cls.directory / "key.pem"
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
        command += ["-subj", "/CN=x", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
        subprocess.run(command, check=True, capture_output=True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        cls.upstream, cls.secure = Upstream(large), Upstream(large, context)
        cls.addClassCleanup(cls.upstream.close)
        cls.addClassCleanup(cls.secure.close)
        cls.proxy = Proxy(
            cls.directory / "regd",
            f'  routes:\n    - {{host: secure, path: /, upstreams: ["{cls.secure.url}"], tls: {{cafile: {certificate}}}}}\n'
            f'    - {{path: /, upstreams: ["{cls.upstream.url}"]}}\n',
        )
        cls.run_for_all(cls.proxy)
        # What the first requests of each kind need for good.
        for host in (b"x", b"secure"):
            cls.get(host, b"/length/", 4 * MIB)
            cls.get(host, b"/chunked/", 4 * MIB)
            cls.put(host, 4 * MIB, chunked=False)
            cls.put(host, 4 * MIB, chunked=True)

    @classmethod
    def connect(cls) -> socket.socket:
        return socket.create_connection(("127.0.0.1", cls.proxy.port), timeout=60)

    @classmethod
    def get(cls, host: bytes, path: bytes, size: int) -> None:
        room, count = bytearray(MIB), 0
        with cls.connect() as client:
            client.sendall(b"GET %b%d HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n\r\n" % (path, size, host))
            while more := client.recv_into(room):
                count += more
        assert count > size, count

    @classmethod
    def put(cls, host: bytes, size: int, *, chunked: bool) -> None:
        framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % size
        with cls.connect() as client:
            client.sendall(b"PUT /%d HTTP/1.1\r\nHost: %b\r\n%b\r\n\r\n" % (size, host, framing))
            for _ in range(size // MIB):
                client.sendall(b"%x\r\n%b\r\n" % (MIB, PIECE) if chunked else PIECE)
            if chunked:
                client.sendall(b"0\r\n\r\n")
            assert client.recv(1000).startswith(b"HTTP/1.1 201 ")

    def grown(self, before: int) -> int:
        return self.proxy.program.memory().peak - before

    def test_large_bodies(self) -> None:
        before = self.proxy.program.memory().peak
        for path in (b"/length/", b"/chunked/"):
            self.get(b"x", path, SIZE)
            self.assertLess(self.grown(before), 2 * MIB, path)
        for chunked in (False, True):
            self.put(b"x", SIZE, chunked=chunked)
            self.assertLess(self.grown(before), 2 * MIB)
        self.get(b"secure", b"/length/", SIZE // 4)
        self.put(b"secure", SIZE // 4, chunked=True)
        self.assertLess(self.grown(before), 3 * MIB)
        self.proxy.wait_quiet()

    def test_many_clients_that_do_not_read(self) -> None:
        for host, path in ((b"x", b"/length/"), (b"x", b"/chunked/"), (b"secure", b"/length/")):
            before = self.proxy.program.memory().resident
            clients = []
            for _ in range(CONNECTIONS):
                client = self.connect()
                self.addCleanup(client.close)
                client.sendall(b"GET %b%d HTTP/1.1\r\nHost: %b\r\n\r\n" % (path, 64 * MIB, host))
                clients.append(client)
            wait_until(lambda: self.proxy.connections()[0] == CONNECTIONS, 20, "all of them to be passed on")
            time.sleep(1)
            self.assertLess(self.proxy.program.memory().resident - before, CONNECTIONS * 256 * 1024, (host, path))
            for client in clients:
                client.close()
            self.proxy.wait_quiet()

    def test_many_uploads_that_nobody_takes(self) -> None:
        release = threading.Event()

        def hold(exchange: Exchange) -> bool:
            release.wait(30)
            return False

        self.upstream.answer, self.secure.answer = hold, hold
        self.addCleanup(setattr, self.upstream, "answer", large)
        self.addCleanup(setattr, self.secure, "answer", large)
        self.addCleanup(release.set)
        for host in (b"x", b"secure"):
            before = self.proxy.program.memory().resident
            clients = []
            for _ in range(CONNECTIONS):
                client = self.connect()
                self.addCleanup(client.close)
                client.sendall(b"PUT /1 HTTP/1.1\r\nHost: %b\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % (host, 64 * MIB))
                client.setblocking(False)
                clients.append(client)
            end = time.monotonic() + 3
            while time.monotonic() < end:
                for client in clients:
                    try:
                        client.send(PIECE)
                    except BlockingIOError:
                        continue
                time.sleep(0.02)
            self.assertLess(self.proxy.program.memory().resident - before, CONNECTIONS * 256 * 1024, host)
            for client in clients:
                client.close()
        release.set()
        self.proxy.wait_quiet()
