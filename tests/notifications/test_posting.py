"""One envelope over HTTP, byte by byte, over a wire in memory."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone, ConnectionRefusedError  # noqa: A004 - it is not Python's
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from regd.config.notifying import Endpoint
from regd.notifications.posting import Poster
from regd.notifications.telling import CannotPost

URL = "http://10.0.0.1:8080/hook?a=b#there"


class PosterTests(SynchronousTestCase):
    def setUp(self) -> None:
        # Any: what MemoryReactorClock offers depends on the version of Twisted.
        self.reactor: Any = MemoryReactorClock()
        self.transport = StringTransport()

    def post(self, url: str = URL, **more: Any) -> Deferred[int]:
        """Send one envelope to who has been connected to."""
        endpoint = Endpoint("hook", url, timeout=2.0, **more)
        return Poster(endpoint, self.reactor)(b'{"events": []}')

    def connect(self) -> Any:
        """Take the connection. ``Any``: a protocol of Twisted's client."""
        host, port, factory, *_ = self.reactor.tcpClients.pop(0)
        self.where = (host, port)
        protocol = factory.buildProtocol(None)
        protocol.makeConnection(self.transport)
        return protocol

    def request(self) -> tuple[str, dict[str, list[str]], bytes]:
        """What has been sent: the first line, the fields and the body."""
        head, _, body = self.transport.value().partition(b"\r\n\r\n")
        first, *lines = head.decode("ascii").split("\r\n")
        fields: dict[str, list[str]] = {}
        for line in lines:
            name, _, value = line.partition(": ")
            fields.setdefault(name.lower(), []).append(value)
        return first, fields, body

    def test_request(self) -> None:
        done = self.post(headers=MappingProxyType({"X-Twice": ("one", "two"), "Authorization": ("Bearer 0123",)}))
        peer = self.connect()
        first, fields, body = self.request()
        self.assertEqual(self.where, ("127.0.0.1", 8080))
        self.assertEqual(first, "POST /hook?a=b HTTP/1.1")
        self.assertEqual(fields["content-type"], ["application/vnd.docker.distribution.events.v1+json"])
        self.assertEqual((fields["x-twice"], fields["authorization"]), (["one", "two"], ["Bearer 0123"]))
        self.assertEqual((fields["host"], fields["user-agent"], fields["content-length"]), (["10.0.0.1:8080"], ["regd"], ["14"]))
        self.assertEqual(body, b'{"events": []}')
        self.assertNoResult(done)
        peer.dataReceived(b"HTTP/1.1 204 No Content\r\n\r\n")
        self.assertEqual(self.successResultOf(done), 204)
        # The time-out is gone with it.
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_user_and_password(self) -> None:
        """As Basic authentication, and not in what is asked for."""
        self.post("http://me:p%40ss@10.0.0.1/")
        self.connect()
        first, fields, _ = self.request()
        self.assertEqual((first, fields["host"]), ("POST / HTTP/1.1", ["10.0.0.1"]))
        self.assertEqual(fields["authorization"], ["Basic bWU6cEBzcw=="])

    def test_no_redirect_is_followed(self) -> None:
        done = self.post()
        self.connect().dataReceived(b"HTTP/1.1 307 Over There\r\nLocation: http://10.0.0.2/\r\nContent-Length: 0\r\n\r\n")
        self.assertEqual(self.successResultOf(done), 307)
        self.assertEqual(self.reactor.tcpClients, [])

    def test_status_counts_whatever_the_body(self) -> None:
        """One that is too long, or is cut off, is of no interest."""
        done = self.post()
        peer = self.connect()
        peer.dataReceived(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n" + bytes(1000))
        self.assertNoResult(done)
        peer.dataReceived(bytes(100_000))
        peer.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.successResultOf(done), 200)

    def test_refused(self) -> None:
        done = self.post()
        _, _, factory, *_ = self.reactor.tcpClients.pop(0)
        factory.clientConnectionFailed(None, Failure(ConnectionRefusedError()))
        self.reactor.advance(0.5)
        self.assertIn("ConnectionRefusedError", str(self.failureResultOf(done, CannotPost).value))

    def test_closed_without_an_answer(self) -> None:
        done = self.post()
        self.connect().connectionLost(Failure(ConnectionDone()))
        self.failureResultOf(done, CannotPost)

    def test_no_answer_in_time(self) -> None:
        """Neither a head nor a body may take longer."""
        for answer in (b"", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfou"):
            self.setUp()
            done = self.post()
            self.connect().dataReceived(answer)
            self.reactor.advance(1.9)
            self.assertNoResult(done)
            self.reactor.advance(0.2)
            self.assertEqual(str(self.failureResultOf(done, CannotPost).value), "no answer within 2.0 s")
            self.assertTrue(self.transport.disconnecting or self.transport.disconnected)

    def test_no_connection_in_time(self) -> None:
        done = self.post()
        self.reactor.advance(2.1)
        self.assertEqual(str(self.failureResultOf(done, CannotPost).value), "no answer within 2.0 s")

    def test_cancelled(self) -> None:
        """By whoever stops to tell: that is no failure of the endpoint."""
        done = self.post()
        self.connect()
        done.cancel()
        self.failureResultOf(done, CancelledError)

    def test_secrets_are_not_told(self) -> None:
        done = self.post("http://me:secret@10.0.0.1/path-of-secret")
        self.connect().dataReceived(b"what is this?\r\n\r\n")
        self.assertNotIn("secret", str(self.failureResultOf(done, CannotPost).value))
