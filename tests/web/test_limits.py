"""What one client, or all of them, may have: requests, tries at passwords, connections, uploads, time."""

from __future__ import annotations

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from regd.config.watched import TOKEN_SECRET
from regd.errors import TooManyRequests
from regd.service import admission
from regd.web import door as doors
from regd.web.factory import StreamingSite
from regd.web.forwarded import network_of
from regd.web.limits import UploadSlots
from regd.web.patience import Patience
from regd.web.rates import Rate
from regd.web.response import Response
from tests.web.support import ApiCase
from tests.web.test_access import CONFIG, PATH, RULES, SECRET, Now, login, passwords
from tests.web.test_request import Resource, answer
from tests.web.wire import Client, request_bytes

OPEN = "version: 0.1\nstorage: {inmemory: {}}\n"


class NetworkTests(SynchronousTestCase):
    def test_whom_an_address_stands_for(self) -> None:
        for address, network in (
            ("192.0.2.1", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
            ("2001:db8:1:2::9", "2001:db8:1:2::"),
            ("fe80::1%eth0", "fe80::"),
            ("", ""),
            ("somebody", "somebody"),
        ):
            self.assertEqual(network_of(address), network)


class RateCase(ApiCase):
    config = OPEN

    def setUp(self) -> None:
        super().setUp()
        self.service.serving.start({PATH: passwords("alice", "bob"), TOKEN_SECRET: SECRET})
        self.addCleanup(lambda: Deferred.fromCoroutine(self.service.serving.close()))

    def asked(self, times: int, *fields: tuple[str, str], peer: str = "192.0.2.7") -> list[int]:
        found = []
        for _ in range(times):
            reply = self.client(IPv4Address("TCP", peer, 1)).ask("GET", "/v2/", fields)
            found.append(reply.status)
            if reply.status == 429:
                self.assertEqual(reply.codes if hasattr(reply, "codes") else "TOOMANYREQUESTS", "TOOMANYREQUESTS")
                self.assertIn(b"TOOMANYREQUESTS", reply.body)
                self.assertGreaterEqual(int(reply["Retry-After"]), 1)
        return found


class AddressTests(RateCase):
    config = OPEN + "ratelimit: {address: {requests: 3, per: 1h}}\nreverseproxy: {trusted: [192.0.2.99]}\n"

    def test_each_address_by_itself(self) -> None:
        self.assertEqual(self.asked(5), [200, 200, 200, 429, 429])
        self.assertEqual(self.asked(2, peer="192.0.2.8"), [200, 200])

    def test_by_a_proxy(self) -> None:
        for client in ("198.51.100.1", "198.51.100.2"):
            self.assertEqual(self.asked(4, ("X-Forwarded-For", client), peer="192.0.2.99"), [200, 200, 200, 429])

    def test_what_strangers_say_counts_for_nothing(self) -> None:
        said = [self.asked(1, ("X-Forwarded-For", f"198.51.100.{number}"))[0] for number in range(5)]
        self.assertEqual(said, [200, 200, 200, 429, 429])


class UserTests(RateCase):
    config = CONFIG + RULES + "ratelimit: {user: {requests: 3, per: 1h}}\n"

    def setUp(self) -> None:
        self.patch(admission, "PoolThreads", lambda reactor, size: Now())
        super().setUp()

    def test_each_user_from_wherever(self) -> None:
        alice = login("alice")
        found = [self.asked(1, *alice, peer=f"192.0.2.{number}")[0] for number in range(5)]
        self.assertEqual(found, [200, 200, 200, 429, 429])
        self.assertEqual(self.asked(2, *login("bob")), [200, 200])
        # Who has no name is nobody in particular.
        self.assertEqual(self.asked(5), [401] * 5)


class DoorTests(RateCase):
    config = CONFIG + RULES

    def setUp(self) -> None:
        self.patch(admission, "PoolThreads", lambda reactor, size: Now())
        self.patch(doors, "_FAILURES", Rate(2.0, 3))
        super().setUp()

    def test_one_password_after_the_other(self) -> None:
        # alice is known before somebody else at her address begins to guess.
        self.assertEqual(self.asked(1, *login("alice")), [200])
        self.assertEqual(self.asked(4, *login("alice", "guess")), [401] * 4)
        client = self.client(IPv4Address("TCP", "192.0.2.7", 1))
        client.asked.append("GET")
        client.send(request_bytes("GET", "/v2/", login("alice", "another")))
        self.assertEqual(client.answers, [])
        self.clock.advance(1.9)
        client.settle()
        self.assertEqual(client.answers, [])
        self.clock.advance(0.2)
        client.settle()
        self.assertEqual(client.statuses, [401])
        # Others are let in at once, elsewhere.
        self.assertEqual(self.asked(1, *login("bob"), peer="192.0.2.8"), [200])
        self.assertEqual(self.service.serving._admission.failures, 5)

    def test_the_queue_is_not_endless(self) -> None:
        self.asked(4, *login("alice", "guess"))
        waiting = []
        for _ in range(10):
            client = self.client(IPv4Address("TCP", "192.0.2.7", 1))
            client.asked.append("GET")
            client.send(request_bytes("GET", "/v2/", login("alice", "guess")))
            waiting.append(client)
        refused = [client for client in waiting if client.statuses == [429]]
        self.assertTrue(3 <= len(refused) <= 7, len(refused))


class CrowdTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        resource = Resource()
        resource.on_request = answer
        self.site = StreamingSite(resource, lambda request: None, self.clock)

    def test_connections(self) -> None:
        self.site.most = 2
        first, _ = (Client(self.site, self.clock) for _ in range(2))
        self.assertIsNone(self.site.buildProtocol(IPv4Address("TCP", "192.0.2.1", 1)))
        self.assertEqual(self.site.turned_away, 1)
        first.leave()
        self.assertEqual(Client(self.site, self.clock).ask("GET", "/").status, 200)

    def test_of_one(self) -> None:
        self.site.most_of_one = 1
        self.site.trusts = lambda peer: peer == "192.0.2.99"
        one = Client(self.site, self.clock, IPv6Address("TCP", "2001:db8::1", 1))
        self.assertIsNone(self.site.buildProtocol(IPv6Address("TCP", "2001:db8::2", 1)))
        Client(self.site, self.clock, IPv4Address("TCP", "192.0.2.1", 1))
        for _ in range(3):
            Client(self.site, self.clock, IPv4Address("TCP", "192.0.2.99", 1))
        one.leave()
        Client(self.site, self.clock, IPv6Address("TCP", "2001:db8::2", 1))
        self.assertEqual(self.site.turned_away, 1)


class PatienceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.logged: list[int] = []
        resource = Resource()
        resource.on_request = answer
        self.site = StreamingSite(resource, lambda request: self.logged.append(request.code), self.clock)
        self.site.wait_for(Patience(header=20.0, idle=100.0, write=40.0))

    def advance(self, client: Client, seconds: float) -> None:
        for _ in range(int(seconds)):
            self.clock.advance(1)
            client.settle()

    def test_a_head_byte_by_byte(self) -> None:
        client = Client(self.site, self.clock)
        client.asked.append("GET")
        for byte in b"GET /v2/ HTTP/1.1\r\nHost: a\r\nX: ":
            client.send(bytes([byte]))
            self.advance(client, 1)
        self.assertEqual(client.statuses, [408])
        self.assertTrue(client.wire.disconnecting)
        self.assertEqual(self.logged, [408])

    def test_heads_that_end(self) -> None:
        """However often, each by itself has its time."""
        client = Client(self.site, self.clock)
        for _ in range(10):
            client.asked.append("GET")
            for part in (b"GET / HTT", b"P/1.1\r\nHost:", b" a\r\n\r\n"):
                self.advance(client, 6)
                client.send(part)
        self.assertEqual(client.statuses, [200] * 10)

    def test_nothing_is_asked(self) -> None:
        client = Client(self.site, self.clock)
        client.ask("GET", "/")
        self.advance(client, 99)
        self.assertFalse(client.wire.disconnecting)
        self.advance(client, 2)
        self.assertTrue(client.wire.disconnecting)

    def test_a_client_that_takes_nothing(self) -> None:
        client = Client(self.site, self.clock)
        client.wire.backlog = 5  # type: ignore[attr-defined]  # as a socket's transport has it
        self.site.timeOut = None
        client.channel.setTimeout(None)
        self.advance(client, 39)
        self.assertFalse(client.wire.aborted)
        client.wire.backlog = 4  # type: ignore[attr-defined]  # as above
        self.advance(client, 39)
        self.assertFalse(client.wire.aborted)
        self.advance(client, 20)
        self.assertTrue(client.wire.aborted)

    def test_the_watch_ends_with_the_last_connection(self) -> None:
        client = Client(self.site, self.clock)
        client.leave()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class SlotTests(SynchronousTestCase):
    def test_as_many_as_there_are(self) -> None:
        waiting: list[Deferred[Response]] = []

        async def handler(number: int) -> Response:
            waiting.append(Deferred())
            return await waiting[-1]

        limited = UploadSlots(2).limited(handler)
        running: list[Deferred[Response]] = [Deferred.fromCoroutine(limited(number)) for number in range(2)]  # type: ignore[arg-type]  # it is a coroutine
        self.failureResultOf(Deferred.fromCoroutine(limited(2)), TooManyRequests)  # type: ignore[arg-type]  # as above
        waiting[0].callback(Response(201))
        self.assertEqual(self.successResultOf(running[0]).status, 201)
        Deferred.fromCoroutine(limited(3))  # type: ignore[arg-type]  # as above
        self.assertEqual(len(waiting), 3)

    def test_no_limit(self) -> None:
        async def handler() -> Response:
            return Response(200)

        self.assertIs(UploadSlots(0).limited(handler), handler)
