"""Which of several addresses of an upstream is connected to, on real sockets of the loopback network."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol
from twisted.trial.unittest import TestCase

from regd.config.proxying import parse_upstream
from regd.proxy import dialing
from regd.proxy.dialing import CannotConnect, Dialer


class Connected(Protocol):
    """A connection to an upstream."""


class AddressesTest(TestCase):
    def setUp(self) -> None:
        self.patch(dialing, "_LEAST", 0.05)
        self.good = self.listening("127.0.0.2", 0)
        self.port = self.good.getsockname()[1]

    def listening(self, host: str, port: int) -> socket.socket:
        server = socket.create_server((host, port))
        self.addCleanup(server.close)
        return server

    def swallow(self, host: str) -> None:
        """Have an address answer nobody: the queue of its socket is full, and nobody takes from it."""
        server = socket.socket()
        self.addCleanup(server.close)
        server.bind((host, self.port))
        server.listen(0)
        for _ in range(3):
            client = socket.socket()
            self.addCleanup(client.close)
            client.setblocking(False)
            client.connect_ex((host, self.port))

    async def dial(self, hosts: list[str], timeout: float) -> str:
        """
        :return: the address that was connected to.
        """
        # Any: mypy knows the reactor as a module.
        loop: Any = reactor
        dialer = Dialer(parse_upstream(f"http://upstream.example:{self.port}"), None, loop)

        async def addresses(timeout: float) -> list[str]:
            return hosts

        self.patch(dialer, "_addresses", addresses)
        protocol = Connected()
        await dialer.dial(protocol, timeout)
        transport: Any = protocol.transport
        found: str = transport.getPeer().host
        gone: Deferred[None] = Deferred()
        protocol.connectionLost = lambda reason=None: gone.callback(None)  # type: ignore[method-assign]  # to wait for it
        transport.abortConnection()
        await gone
        return found

    async def test_one_that_refuses(self) -> None:
        self.assertEqual(await self.dial(["127.0.0.3", "127.0.0.2"], 5), "127.0.0.2")

    async def test_one_that_answers_nobody(self) -> None:
        self.swallow("127.0.0.4")
        began = reactor.seconds()
        self.assertEqual(await self.dial(["127.0.0.4", "127.0.0.2"], 1), "127.0.0.2")
        self.assertLess(reactor.seconds() - began, 0.9)

    async def test_none_of_them(self) -> None:
        self.swallow("127.0.0.4")
        self.swallow("127.0.0.5")
        with self.assertRaises(CannotConnect) as caught:
            await self.dial(["127.0.0.3", "127.0.0.4", "127.0.0.5"], 0.3)
        self.assertTrue(caught.exception.late)
        with self.assertRaises(CannotConnect) as caught:
            await self.dial([], 0.3)
        self.assertIn("nobody knows an address", str(caught.exception))
