"""Answers before the end of a body, on real sockets: the client gets to read them, and cannot stay for ever."""

# The methods that a request inherits from Twisted have no types.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import socket
import time
from typing import Any

from twisted.internet import reactor
from twisted.internet.address import IPv4Address
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from regd.config import TCPAddress
from regd.web import request as request_module
from regd.web.factory import StreamingSite
from regd.web.listen import listen
from regd.web.request import StreamingRequest
from tests.web.test_request import Resource, answer
from tests.web.wire import Answer, parse_answers

MIB = 1024 * 1024


class LingerTests(TestCase):
    def setUp(self) -> None:
        resource = Resource()
        resource.on_request = self.on_request
        self.logged: list[int] = []
        self.site: Any = StreamingSite(resource, lambda request: self.logged.append(request.code), reactor)
        port = listen(reactor, TCPAddress("127.0.0.1", 0), self.site)
        self.addCleanup(self.end, port)
        host = port.getHost()
        assert isinstance(host, IPv4Address)
        self.address = (host.host, host.port)

    async def end(self, port: Any) -> None:
        await port.stopListening()
        self.site.abort()
        await self.closed()

    async def closed(self) -> None:
        """Wait until no connection is left."""
        for _ in range(1000):
            if not self.site.open:
                return
            await deferLater(reactor, 0.01)
        self.fail("a connection stays open")

    def on_request(self, request: StreamingRequest) -> None:
        answer(request, 413 if request.method == b"PUT" else 200)

    def connect(self) -> socket.socket:
        client = socket.create_connection(self.address, timeout=20)
        self.addCleanup(client.close)
        return client

    def read_all(self, client: socket.socket) -> list[Answer]:
        """Read until the server has closed its side."""
        data = b""
        while received := client.recv(65536):
            data += received
        answers, rest = parse_answers(data, [])
        assert not rest, rest
        return answers

    async def test_a_client_that_reads_when_it_is_told(self) -> None:
        def push() -> list[Answer]:
            client = self.connect()
            client.sendall(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (64 * MIB) + b"x" * (MIB // 2))
            answers = self.read_all(client)
            client.close()
            return answers

        answers = await deferToThread(push)
        self.assertEqual([(found.status, found.get("Connection")) for found in answers], [(413, "close")])
        await self.closed()
        self.assertEqual(self.logged, [413])

    async def test_a_client_that_reads_after_it_has_sent_all(self) -> None:
        """As those do that are written without care; up to the limit their connection even goes on."""

        def push() -> list[Answer]:
            client = self.connect()
            client.sendall(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % MIB + b"x" * MIB)
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            return self.read_all(client)

        answers = await deferToThread(push)
        self.assertEqual([found.status for found in answers], [413, 200])

    async def test_a_client_that_does_not_stop(self) -> None:
        def push() -> int:
            client = self.connect()
            sent = 0
            client.sendall(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (1024 * MIB))
            try:
                while sent < 256 * MIB:
                    client.sendall(b"x" * MIB)
                    sent += MIB
            except ConnectionError:
                pass
            return sent

        # What the kernel's buffers take is more than the limit, but not without end.
        self.assertLess(await deferToThread(push), 64 * MIB)
        await self.closed()

    async def test_a_client_that_does_nothing(self) -> None:
        self.patch(request_module, "LINGER", 0.2)

        def push() -> float:
            client = self.connect()
            begun = time.monotonic()
            client.sendall(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (64 * MIB))
            self.read_all(client)
            # Our side is not closed, and nothing more is sent.
            while self.site.open and time.monotonic() - begun < 10:
                time.sleep(0.02)
            return time.monotonic() - begun

        waited = await deferToThread(push)
        self.assertTrue(0.1 < waited < 5, waited)
