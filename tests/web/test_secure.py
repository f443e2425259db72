"""Connections that speak TLS, on real sockets of this machine, with the TLS of Python's standard library at the other end."""

# The methods that a request inherits from Twisted have no types.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import ssl
import struct
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from twisted.internet import reactor as installed
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from regd.config import TLS, KeyPair, TCPAddress
from regd.tls.acceptor import Tally, TLSAcceptor
from regd.web.factory import StreamingSite
from regd.web.listen import listen
from regd.web.request import StreamingRequest
from regd.web.transport import lend, send_file, take_back
from tests.e2e.certificates import Authority, Certificate
from tests.web.test_request import Resource, answer

# Any: a reactor is typed as the union of what reactors may be.
reactor: Any = installed

MIB = 1 << 20
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


class SecureTests(TestCase):
    directory: ClassVar[Path]
    authority: ClassVar[Authority]
    certificate: ClassVar[Certificate]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        temporary = tempfile.TemporaryDirectory()
        cls.addClassCleanup(temporary.cleanup)
        cls.directory = Path(temporary.name)
        cls.authority = Authority(cls.directory)
        cls.certificate = cls.authority.issue("localhost")

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        await deferLater(reactor, 0)
        self.requests: list[StreamingRequest] = []
        self.on_request: Callable[[StreamingRequest], object] = answer
        resource = Resource()
        resource.on_request = self._on_request
        self.site = StreamingSite(resource, lambda request: None, reactor)
        self.tally = Tally()
        pair = KeyPair(str(self.certificate.certfile), str(self.certificate.keyfile))
        files = {path: Path(path).read_bytes() for path in (pair.certificate, pair.key)}
        self.site.secure = TLSAcceptor(TLS((pair,)), files, self.tally)
        port: Any = listen(reactor, TCPAddress("127.0.0.1", 0), self.site)
        self.port = port.getHost().port
        self.addCleanup(self._end, port)
        self.context = ssl.create_default_context(cafile=str(self.authority.cafile))

    async def _end(self, port: Any) -> None:
        self.site.abort()
        await port.stopListening()
        await self.until(lambda: not self.site.open)

    def _on_request(self, request: StreamingRequest) -> None:
        self.requests.append(request)
        self.on_request(request)

    async def until(self, true: Callable[[], bool]) -> None:
        for _ in range(1000):
            if true():
                return
            await deferLater(reactor, 0.01)
        self.fail("it does not come true")

    def connect(self) -> socket.socket:
        client = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        self.addCleanup(client.close)
        return client

    def secure(self) -> ssl.SSLSocket:
        client = self.context.wrap_socket(self.connect(), server_hostname="localhost")
        self.addCleanup(client.close)
        return client

    def ask(self, said: bytes) -> bytes:
        """
        :return: All that the server says to it.
        """
        client = self.secure()
        client.sendall(said)
        return b"".join(iter(lambda: client.recv(65536), b""))

    async def test_an_answer(self) -> None:
        secure: list[bool] = []

        def note(request: StreamingRequest) -> None:
            secure.append(request.isSecure())
            answer(request)

        self.on_request = note
        said = await deferToThread(self.ask, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        self.assertTrue(said.endswith(b"\r\n\r\nok"), said)
        self.assertEqual(secure, [True])
        self.assertEqual((self.tally.complete, self.tally.failed), (1, 0))

    async def test_http_1_1_is_agreed_upon(self) -> None:
        self.context.set_alpn_protocols(["h2", "http/1.1"])
        client = await deferToThread(self.secure)
        self.assertEqual(client.selected_alpn_protocol(), "http/1.1")

    async def test_plain_http_is_told_so(self) -> None:
        client = self.connect()

        def ask() -> bytes:
            client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n" + bytes(100000))
            return b"".join(iter(lambda: client.recv(65536), b""))

        said = await deferToThread(ask)
        self.assertTrue(said.startswith(b"HTTP/1.1 400 "), said)
        self.assertIn(b"https://", said)
        client.close()
        await self.until(lambda: not self.site.open)
        self.assertEqual(self.tally.failed, 1)

    async def test_who_does_not_go_after_that_is_cut_off(self) -> None:
        client = self.connect()
        await deferToThread(client.sendall, GET)
        await self.until(lambda: not self.site.open)

    async def test_garbage(self) -> None:
        for garbage in (b"\x16\x03\x01\x00\x05hello", b"\x00" * 100, os.urandom(300)):
            client = self.connect()
            await deferToThread(client.sendall, garbage)
            with contextlib.suppress(OSError):
                # It may have been turned away already.
                client.shutdown(socket.SHUT_WR)
            await self.until(lambda: not self.site.open)
        self.assertEqual((self.tally.complete, self.tally.failed), (0, 3))
        self.assertTrue((await deferToThread(self.ask, b"GET / HTTP/1.0\r\n\r\n")).endswith(b"ok"))

    async def test_gone_in_the_handshake(self) -> None:
        client = self.connect()
        await self.until(lambda: bool(self.site.open))
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        await self.until(lambda: not self.site.open)

    async def test_byte_by_byte(self) -> None:
        """A handshake and a request that come in pieces."""
        inner, outer, client = ssl.MemoryBIO(), ssl.MemoryBIO(), self.connect()
        end = self.context.wrap_bio(inner, outer, server_hostname="localhost")

        def flush() -> None:
            for byte in outer.read():
                client.sendall(bytes([byte]))

        def turn(act: Callable[[], Any]) -> Any:
            while True:
                try:
                    done = act()
                except ssl.SSLWantReadError:
                    flush()
                    inner.write(client.recv(65536))
                else:
                    flush()
                    return done

        def ask() -> bytes:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            turn(end.do_handshake)
            turn(lambda: end.write(GET))
            said = b""
            while not said.endswith(b"ok"):
                said += turn(lambda: end.read(65536))
            return said

        self.assertTrue((await deferToThread(ask)).endswith(b"ok"))

    async def test_a_question_and_good_bye_at_once(self) -> None:
        """The answer still comes, for it was asked before."""
        client = await deferToThread(self.secure)

        def ask() -> bytes:
            client.sendall(GET)
            with contextlib.suppress(OSError):
                # It sends close_notify, and then finds that there is something else than that to be read.
                client.unwrap()
            return b""

        await deferToThread(ask)
        await self.until(lambda: not self.site.open)
        self.assertEqual(len(self.requests), 1)
        self.assertEqual(self.requests[0].code, 200)

    async def test_a_file(self) -> None:
        """Larger than all buffers, from an offset, to a client that reads in bursts; and the connection goes on after it."""
        content = os.urandom(9 * MIB + 12345)
        with tempfile.TemporaryFile() as file:
            file.write(content)
            file.flush()

            def send(request: StreamingRequest) -> None:
                request.setHeader("Content-Length", str(len(content) - 100))
                request.write(b"")
                # Any: what a Deferred makes of requests, which have no types.
                sending: Any = send_file(request.transport, file.fileno(), 100, len(content) - 100)
                sending.addCallbacks(lambda _: request.finish(), lambda failure: None)

            self.on_request = send
            client = await deferToThread(self.secure)

            def ask() -> bytes:
                client.sendall(GET)
                head = b""
                while b"\r\n\r\n" not in head:
                    head += client.recv(100)
                received = bytearray(head.partition(b"\r\n\r\n")[2])
                while len(received) < len(content) - 100:
                    if len(received) % 7 == 0:
                        time.sleep(0.01)
                    received += client.recv(50000)
                return bytes(received)

            for _ in range(2):
                self.assertEqual(hashlib.sha256(await deferToThread(ask)).digest(), hashlib.sha256(content[100:]).digest())

    async def test_a_file_that_has_become_shorter(self) -> None:
        ended: list[Any] = []
        with tempfile.TemporaryFile() as file:
            file.write(bytes(100000))
            file.flush()

            def send(request: StreamingRequest) -> None:
                request.setHeader("Content-Length", "200000")
                request.write(b"")
                sending: Any = send_file(request.transport, file.fileno(), 0, 200000)
                sending.addBoth(ended.append)

            self.on_request = send
            said = await deferToThread(self.ask, GET)
            self.assertLess(len(said), 200000)
            await self.until(lambda: bool(ended))

    async def test_much_is_written_to_a_slow_reader(self) -> None:
        content = os.urandom(3 * MIB)

        def write(request: StreamingRequest) -> None:
            request.setHeader("Content-Length", str(len(content)))
            for start in range(0, len(content), 100001):
                request.write(content[start : start + 100001])
            request.finish()

        self.on_request = write
        client = await deferToThread(self.secure)

        def ask() -> bytes:
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            time.sleep(0.3)
            return b"".join(iter(lambda: client.recv(65536), b""))

        self.assertEqual((await deferToThread(ask)).partition(b"\r\n\r\n")[2], content)

    async def test_a_thread_reads(self) -> None:
        """What a client sends while the connection is lent; what the event loop says meanwhile; and what follows, in the same record."""
        content = os.urandom(2 * MIB)
        self.on_request = lambda request: None
        client = await deferToThread(self.secure)
        await deferToThread(client.sendall, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (len(content) + 5))
        await self.until(lambda: bool(self.requests))
        transport = self.requests[0].channel.transport
        lease = lend(transport)
        assert lease is not None
        self.assertIsNone(lend(transport))
        room = bytearray(100000)
        received = bytearray()

        def read() -> None:
            while len(received) < len(content):
                count = lease.receive_into(memoryview(room)[: len(content) - len(received)])
                received.extend(room[:count])

        reading = deferToThread(read)
        sending = deferToThread(client.sendall, content + b"after")
        for _ in range(50):
            transport.write(b"x" * 1000)
            await deferLater(reactor, 0.001)
        await reading
        await sending
        self.assertEqual(bytes(received), content)
        later: list[bytes] = []
        self.requests[0].channel.dataReceived = later.append
        self.assertEqual(lease.receive_into(memoryview(room)[:1]), 1)
        take_back(transport, lease)
        transport.startReading()
        await self.until(lambda: b"".join(later) == b"fter")

        def said() -> bytes:
            found = b""
            while len(found) < 50000:
                found += client.recv(65536)
            return found

        self.assertEqual(await deferToThread(said), b"x" * 50000)

    async def test_gone_while_a_thread_reads(self) -> None:
        for reset in (False, True):
            self.requests.clear()
            self.on_request = lambda request: None
            client = await deferToThread(self.secure)
            await deferToThread(client.sendall, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n")
            await self.until(lambda: bool(self.requests))
            channel = self.requests[0].channel
            transport = channel.transport
            lease = lend(transport)
            assert lease is not None
            ended = threading.Event()

            def read(lease: Any = lease, ended: threading.Event = ended) -> int:
                total = 0
                room = memoryview(bytearray(1000))
                while not ended.is_set():
                    total += lease.receive_into(room)
                return total

            reading = deferToThread(read)
            if reset:
                transport.abortConnection()
                await deferLater(reactor, 0.02)
                self.assertNotIn(channel, self.site.open)
            else:
                client.close()
                await deferLater(reactor, 0.02)
            ended.set()
            self.assertEqual(await reading, 0)
            take_back(transport, lease)
            if not reset:
                transport.startReading()
            await self.until(lambda: not self.site.open)
