"""Connections that another process has accepted, served as those of a port of ours; on real sockets of this machine."""

# The methods that a request inherits from Twisted have no types.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import socket
import struct
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from regd.web.factory import StreamingSite
from regd.web.ports import adopt
from regd.web.request import StreamingRequest
from regd.web.transport import send_file
from tests.web.test_listen import has_ipv6
from tests.web.test_request import Resource, answer


class AdoptTests(TestCase):
    def setUp(self) -> None:
        self.requests: list[StreamingRequest] = []
        self.closed = 0
        resource = Resource()
        resource.on_request = self.on_request
        self.site = StreamingSite(resource, lambda request: None, reactor)
        self.site.on_close = self._closed

    def _closed(self) -> None:
        self.closed += 1

    def on_request(self, request: StreamingRequest) -> None:
        self.requests.append(request)
        answer(request)

    def accepted(self, family: int, address: Any) -> tuple[socket.socket, socket.socket]:
        """
        :return: A client, and its connection as another process would have accepted it.
        """
        with socket.socket(family) as listening:
            listening.bind(address)
            listening.listen()
            client = socket.socket(family)
            self.addCleanup(client.close)
            client.settimeout(10)
            client.connect(listening.getsockname())
            accepted, _ = listening.accept()
        return client, accepted

    async def serve(self, family: int, address: Any) -> tuple[StreamingRequest, Any, Any]:
        """
        :return: The request that was made over an adopted connection, and the names of its two ends.
        """
        client, accepted = self.accepted(family, address)
        ends = accepted.getsockname(), accepted.getpeername()
        adopt(accepted, self.site, reactor)
        self.assertEqual((len(self.site.open), accepted.getblocking()), (1, False))

        def ask() -> bytes:
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            return b"".join(iter(lambda: client.recv(65536), b""))

        self.assertTrue((await deferToThread(ask)).endswith(b"\r\n\r\nok"))
        while self.site.open:
            await deferLater(reactor, 0.01)
        self.assertEqual((self.closed, accepted.fileno()), (1, -1))
        return self.requests[0], *ends

    async def test_ipv4(self) -> None:
        request, host, peer = await self.serve(socket.AF_INET, ("127.0.0.1", 0))
        self.assertEqual(request.getClientAddress(), IPv4Address("TCP", *peer))
        self.assertEqual(request.getHost(), IPv4Address("TCP", *host))

    async def test_ipv6(self) -> None:
        if not has_ipv6():
            return
        request, _, peer = await self.serve(socket.AF_INET6, ("::1", 0))
        self.assertEqual(request.getClientAddress(), IPv6Address("TCP", *peer))

    async def test_unix(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        request, _, _ = await self.serve(socket.AF_UNIX, str(Path(directory.name) / "socket"))
        self.assertEqual(request.getClientAddress(), UNIXAddress(None))

    async def test_files_are_sent_by_the_kernel(self) -> None:
        sent: list[Any] = []
        with tempfile.TemporaryFile() as file:
            file.write(b"from a file")
            file.flush()

            def on_request(request: StreamingRequest) -> None:
                request.setHeader("Content-Length", "11")
                request.write(b"")
                # Any: what a Deferred makes of requests, which have no types.
                sending: Any = send_file(request.transport, file.fileno(), 0, 11)
                sent.append(sending)
                sending.addCallback(lambda _: request.finish())

            resource: Any = self.site.resource
            resource.on_request = on_request
            client, accepted = self.accepted(socket.AF_INET, ("127.0.0.1", 0))
            adopt(accepted, self.site, reactor)

            def ask() -> bytes:
                client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                return b"".join(iter(lambda: client.recv(65536), b""))

            self.assertTrue((await deferToThread(ask)).endswith(b"\r\n\r\nfrom a file"))
        self.assertEqual(len(sent), 1)
        while self.site.open:
            await deferLater(reactor, 0.01)

    async def test_one_that_has_been_reset(self) -> None:
        client, accepted = self.accepted(socket.AF_INET, ("127.0.0.1", 0))
        self.addCleanup(accepted.close)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        self.assertRaises(OSError, adopt, accepted, self.site, reactor)
        self.assertEqual((self.site.open, self.closed), (set(), 0))
