"""Listening sockets: which addresses, and what lies in their way. On real sockets of this machine."""

# The methods that a request and a site inherit from Twisted have no types.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import os
import socket
import stat
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from regd.config import TCPAddress, UnixAddress
from regd.web.factory import StreamingSite
from regd.web.leaving import turn_away
from regd.web.listen import listen, url_of
from regd.web.request import StreamingRequest
from tests.web.test_request import Resource, answer


def has_ipv6() -> bool:
    """Whether this machine has an IPv6 address of its own."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


class ListenCase(TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)
        self.peers: list[Any] = []
        resource = Resource()
        resource.on_request = self.on_request
        self.site = StreamingSite(resource, lambda request: None, reactor)

    def on_request(self, request: StreamingRequest) -> None:
        self.peers.append(request.getClientAddress())
        answer(request)

    def listen(self, address: TCPAddress | UnixAddress) -> IListeningPort:
        port = listen(reactor, address, self.site)
        self.addCleanup(port.stopListening)
        return port

    async def reach(self, family: int, address: Any) -> bool:
        """Whether a client at ``address`` gets an answer."""

        def ask() -> bool:
            with socket.socket(family) as client:
                client.settimeout(10)
                try:
                    client.connect(address)
                except OSError:
                    return False
                client.sendall(b"GET / HTTP/1.0\r\n\r\n")
                return b"".join(iter(lambda: client.recv(65536), b"")).endswith(b"\r\n\r\nok")

        return await deferToThread(ask)


class TCPTests(ListenCase):
    def port_of(self, port: IListeningPort) -> int:
        host = port.getHost()
        assert isinstance(host, IPv4Address | IPv6Address)
        return host.port

    async def test_an_address(self) -> None:
        port = self.listen(TCPAddress("127.0.0.1", 0))
        number = self.port_of(port)
        self.assertTrue(await self.reach(socket.AF_INET, ("127.0.0.1", number)))
        self.assertFalse(await self.reach(socket.AF_INET, ("127.0.0.2", number)))
        self.assertEqual(url_of(port, "/x/"), f"http://127.0.0.1:{number}/x/")

    async def test_localhost(self) -> None:
        port = self.listen(TCPAddress("localhost", 0))
        self.assertTrue(await self.reach(socket.AF_INET, ("127.0.0.1", self.port_of(port))))

    async def test_ipv6(self) -> None:
        if not has_ipv6():
            self.assertRaises(CannotListenError, self.listen, TCPAddress("::1", 0))
            return
        port = self.listen(TCPAddress("::1", 0))
        number = self.port_of(port)
        self.assertTrue(await self.reach(socket.AF_INET6, ("::1", number)))
        self.assertFalse(await self.reach(socket.AF_INET, ("127.0.0.1", number)))
        self.assertEqual(url_of(port, "/"), f"http://[::1]:{number}/")

    async def test_a_name_that_has_ipv6_only(self) -> None:
        found = [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", 0, 0, 0))]
        self.patch(socket, "getaddrinfo", lambda *arguments, **options: found)
        if not has_ipv6():
            self.assertRaises(CannotListenError, self.listen, TCPAddress("six.example", 0))
            return
        port = self.listen(TCPAddress("six.example", 0))
        self.assertTrue(await self.reach(socket.AF_INET6, ("::1", self.port_of(port))))

    async def test_all_addresses(self) -> None:
        number = self.port_of(self.listen(TCPAddress("", 0)))
        self.assertTrue(await self.reach(socket.AF_INET, ("127.0.0.1", number)))
        self.assertTrue(await self.reach(socket.AF_INET, ("127.0.0.2", number)))
        self.assertEqual(await self.reach(socket.AF_INET6, ("::1", number)), has_ipv6())

    async def test_all_addresses_without_ipv6(self) -> None:
        real = socket.socket

        def without(family: int = socket.AF_INET, *arguments: Any, **options: Any) -> socket.socket:
            if family == socket.AF_INET6:
                raise OSError(97, "Address family not supported by protocol")
            return real(family, *arguments, **options)

        self.patch(socket, "socket", without)
        number = self.port_of(self.listen(TCPAddress("", 0)))
        self.patch(socket, "socket", real)
        self.assertTrue(await self.reach(socket.AF_INET, ("127.0.0.1", number)))

    def test_one_that_is_taken(self) -> None:
        number = self.port_of(self.listen(TCPAddress("127.0.0.1", 0)))
        error = self.assertRaises(CannotListenError, self.listen, TCPAddress("127.0.0.1", number))
        self.assertIn("in use", str(error.socketError))

    def test_one_that_is_not_ours(self) -> None:
        # 192.0.2.0/24 is for documentation (RFC 5737).
        self.assertRaises(CannotListenError, self.listen, TCPAddress("192.0.2.1", 0))

    def test_an_unknown_name(self) -> None:
        self.assertRaises(CannotListenError, self.listen, TCPAddress("no-such-host.invalid", 0))

    def test_clients_that_vanish_are_noticed(self) -> None:
        listening: Any = self.listen(TCPAddress("127.0.0.1", 0))
        self.assertTrue(listening.socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))


class UnixTests(ListenCase):
    def setUp(self) -> None:
        super().setUp()
        self.path = self.directory / "regd.sock"
        self.address = UnixAddress(str(self.path))

    async def test_a_socket(self) -> None:
        port = self.listen(self.address)
        self.assertTrue(await self.reach(socket.AF_UNIX, str(self.path)))
        self.assertIsInstance(self.peers[0], UNIXAddress)
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o666)
        self.assertEqual(url_of(port, "/"), f"unix:{self.path}")
        await maybeDeferred(port.stopListening)
        self.assertFalse(self.path.exists())

    async def test_a_path_that_is_not_ascii(self) -> None:
        address = UnixAddress(str(self.directory / "é"))
        port = self.listen(address)
        self.assertTrue(await self.reach(socket.AF_UNIX, address.path))
        self.assertEqual(url_of(port, "/"), f"unix:{address.path}")

    async def test_a_stale_socket(self) -> None:
        """What a daemon left behind that was killed."""
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(self.path))
        self.assertTrue(self.path.is_socket())
        self.listen(self.address)
        self.assertTrue(await self.reach(socket.AF_UNIX, str(self.path)))

    def refused(self, address: UnixAddress) -> None:
        self.assertRaises(CannotListenError, self.listen, address)
        # Twisted starts the factory before it binds.
        self.site.doStop()

    def test_a_live_socket(self) -> None:
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(self.path))
            other.listen()
            self.refused(self.address)
            self.assertTrue(self.path.is_socket())

    def test_what_is_no_socket_is_left(self) -> None:
        self.path.write_text("precious", encoding="ascii")
        self.refused(self.address)
        self.assertEqual(self.path.read_text(encoding="ascii"), "precious")
        link = self.directory / "link"
        link.symlink_to(self.path)
        self.refused(UnixAddress(str(link)))
        self.assertTrue(link.is_symlink())

    def test_a_directory_that_is_not_there(self) -> None:
        self.refused(UnixAddress(str(self.directory / "none" / "socket")))


class EndTests(ListenCase):
    async def test_who_has_connected_is_answered(self) -> None:
        """Also who was still in the kernel's queue when the port was closed."""
        for address in (TCPAddress("127.0.0.1", 0), UnixAddress(str(self.directory / "socket"))):
            port: Any = self.listen(address)
            found = port.getHost()
            clients = [
                socket.create_connection(("127.0.0.1", found.port), 10) if isinstance(found, IPv4Address) else self.connected(found.name)
                for _ in range(5)
            ]
            for client in clients:
                self.addCleanup(client.close)
                client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            # Nothing has been accepted, because the event loop has had no turn since.
            await maybeDeferred(port.stopListening)
            for client in clients:
                answered = await deferToThread(client.recv, 1000)
                self.assertTrue(answered.startswith(b"HTTP/1.0 200 OK"), (address, answered))

    async def test_who_comes_later_is_turned_away(self) -> None:
        """Without a word: whoever gets as far as sending a request is answered."""
        port: Any = self.listen(TCPAddress("127.0.0.1", 0))
        address = ("127.0.0.1", port.getHost().port)
        early = socket.create_connection(address, 10)
        self.addCleanup(early.close)
        turn_away(port)
        with self.assertRaises(TimeoutError):
            socket.create_connection(address, 0.2)
        early.sendall(b"GET / HTTP/1.0\r\n\r\n")
        await maybeDeferred(port.stopListening)
        self.assertTrue((await deferToThread(early.recv, 1000)).startswith(b"HTTP/1.0 200 OK"))
        with self.assertRaises(ConnectionRefusedError):
            socket.create_connection(address, 10)

    def connected(self, path: bytes) -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(10)
        client.connect(path)
        return client
