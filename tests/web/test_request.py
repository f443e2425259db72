"""The streaming site and channel, on an in-memory transport: when a handler runs, and what becomes of the connection."""

# The methods that a request inherits from Twisted have no types.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import gc
import json
import tracemalloc
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import IResource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from regd.web.body import BodyAborted
from regd.web.ending import ARRIVING
from regd.web.factory import StreamingSite
from regd.web.patience import Patience
from regd.web.request import DRAIN_LIMIT, LINGER, StreamingRequest
from tests.web.wire import READ, Client, chunked, request_bytes

MIB = 1024 * 1024


@implementer(IConsumer)
class Sink:
    """Takes a request's body."""

    def __init__(self) -> None:
        self.got = bytearray()

    def registerProducer(self, producer: object, streaming: bool) -> None:
        pass

    def unregisterProducer(self) -> None:
        pass

    def write(self, data: bytes) -> None:
        self.got += data


@implementer(IResource)
class Resource:
    """Shows each request to the test, and leaves the rest to it."""

    isLeaf = True

    def __init__(self) -> None:
        self.requests: list[StreamingRequest] = []
        self.on_request: Callable[[StreamingRequest], object] = lambda request: None

    def render(self, request: StreamingRequest) -> int:
        self.requests.append(request)
        self.on_request(request)
        return NOT_DONE_YET

    def getChildWithDefault(self, name: bytes, request: Any) -> IResource:
        raise KeyError(name)

    def putChild(self, path: bytes, child: IResource) -> None:
        raise TypeError(path)


def answer(request: StreamingRequest, status: int = 200, body: bytes = b"ok") -> None:
    request.setResponseCode(status)
    request.setHeader("Content-Length", str(len(body)))
    request.write(body)
    request.finish()


class SiteCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.resource = Resource()
        self.logged: list[tuple[bytes, int]] = []
        self.site = StreamingSite(self.resource, self.log, self.clock)

    def log(self, request: StreamingRequest) -> None:
        self.logged.append((request.uri, request.code))

    def client(self) -> Client:
        return Client(self.site, self.clock)

    @property
    def requests(self) -> list[StreamingRequest]:
        return self.resource.requests

    def bad(self, client: Client) -> None:
        """The client got 400, in the envelope, and the connection is closed."""
        self.assertEqual(client.statuses, [400], client.unread)
        refusal = client.answers[0]
        self.assertEqual(refusal["Content-Type"], "application/json")
        self.assertEqual(refusal["Connection"], "close")
        self.assertEqual(refusal["Docker-Distribution-Api-Version"], "registry/2.0")
        self.assertEqual(json.loads(refusal.body)["errors"][0]["code"], "BAD_REQUEST")
        self.assertTrue(client.wire.lost)
        self.assertEqual(client.unread, b"")

    def take(self, request: StreamingRequest) -> tuple[Sink, Deferred[None]]:
        sink = Sink()
        return sink, request.body.startProducing(sink)


class DispatchTests(SiteCase):
    def test_a_handler_runs_before_the_body(self) -> None:
        client = self.client()
        client.send(request_bytes("PUT", "/x?a=b", [("Content-Length", "5")]))
        (request,) = self.requests
        self.assertEqual((request.method, request.path, request.uri), (b"PUT", b"/x", b"/x?a=b"))
        self.assertEqual(request.args, {b"a": [b"b"]})
        self.assertEqual((request.body.length, request.body.received, request.body.ended), (5, 0, False))
        self.assertIsNone(request.content)
        sink, done = self.take(request)
        client.send(b"hello")
        self.successResultOf(done)
        answer(request)
        client.settle()
        self.assertEqual((sink.got, client.statuses), (b"hello", [200]))

    def test_each_byte_by_itself(self) -> None:
        def echo(request: StreamingRequest) -> None:
            sink, done = self.take(request)
            done.addCallback(lambda _: answer(request, body=bytes(sink.got)))

        self.resource.on_request = echo
        for headers, body in (([("Content-Length", "5")], b"hello"), ([("Transfer-Encoding", "chunked")], chunked(b"he", b"llo"))):
            client = self.client()
            client.send(request_bytes("PUT", "/x", headers) + body + request_bytes("GET", "/y"), size=1)
            self.assertEqual([found.body for found in client.answers], [b"hello", b""])
            self.assertFalse(client.wire.lost)

    def test_without_a_body(self) -> None:
        for headers in ([], [("Content-Length", "0")]):
            client = self.client()
            client.send(request_bytes("GET", "/x", headers))
            request = self.requests.pop()
            self.assertEqual((request.body.length, request.body.ended), (0, True))
            _, done = self.take(request)
            self.successResultOf(done)

    def test_chunked(self) -> None:
        client = self.client()
        client.send(request_bytes("PUT", "/x", [("Transfer-Encoding", "chunked")]))
        (request,) = self.requests
        self.assertIsNone(request.body.length)
        sink, done = self.take(request)
        client.send(chunked(b"a" * 1000, b"b"))
        self.successResultOf(done)
        self.assertEqual(sink.got, b"a" * 1000 + b"b")

    def test_absolute_form(self) -> None:
        """RFC 9112, section 3.2.2."""
        client = self.client()
        for target, path, host in (
            (b"http://other.example:80/v2/?x=1", b"/v2/", b"other.example:80"),
            (b"HTTPS://other.example", b"/", b"other.example"),
            (b"http://other.example?x=1", b"", b"other.example"),
            (b"ftp://other.example/", b"ftp://other.example/", b"registry.example:5000"),
        ):
            client = self.client()
            client.send(request_bytes("GET", target))
            request = self.requests.pop()
            self.assertEqual((request.path, request.getHeader(b"host"), request.uri), (path, host, target))

    def test_parameters(self) -> None:
        for query, arguments in (
            (b"a=1&a=2&b=", {b"a": [b"1", b"2"], b"b": [b""]}),
            (b"a=%ff&b=%C3%A9", {b"a": [b"\xff"], b"b": ["é".encode()]}),
            (b"a=x+y%2Bz", {b"a": [b"x y+z"]}),
            (b"a=1;b=2", {b"a": [b"1;b=2"]}),
            (b"&&=&a", {b"": [b""], b"a": [b""]}),
            (b"a=1?b=2", {b"a": [b"1?b=2"]}),
        ):
            self.client().send(request_bytes("GET", b"/?" + query))
            self.assertEqual(self.requests.pop().args, arguments)

    def test_header_fields(self) -> None:
        self.client().send(request_bytes("GET", "/", [("X-A", b"\xff"), ("X-A", "é"), ("Accept", "a"), ("Accept", "b")]))
        (request,) = self.requests
        self.assertEqual(request.header_values("x-a"), ["�", "é"])
        self.assertEqual((request.getHeader("x-a"), request.getHeader(b"x-a")), ("é", "é".encode()))
        self.assertEqual((request.header_values("x-b"), request.getHeader("x-b")), ([], None))
        self.assertEqual(request.header_values("accept"), ["a", "b"])


class ContinueTests(SiteCase):
    def expecting(self, length: int = 5, version: str = "HTTP/1.1") -> Client:
        client = self.client()
        client.send(request_bytes("PUT", "/x", [("Expect", "100-continue"), ("Content-Length", str(length))], version=version))
        return client

    def test_when_the_body_is_wanted(self) -> None:
        client = self.expecting()
        self.assertEqual(client.answers, [])
        _, done = self.take(self.requests[0])
        client.settle()
        self.assertEqual(client.statuses, [100])
        client.send(b"hello")
        self.successResultOf(done)
        answer(self.requests[0], 201)
        client.settle()
        self.assertEqual((client.statuses, client.wire.lost), ([100, 201], False))

    def test_not_when_it_is_refused(self) -> None:
        """The next bytes may be the body or a request: nobody can tell, so the connection ends."""
        client = self.expecting()
        answer(self.requests[0], 413)
        client.settle()
        self.assertEqual(client.statuses, [413])
        self.assertEqual(client.answers[0]["Connection"], "close")
        self.assertTrue(client.wire.write_closed)

    def test_not_when_nobody_waits_for_it(self) -> None:
        client = self.client()
        client.send(request_bytes("PUT", "/x", [("Content-Length", "5")]))
        self.take(self.requests[0])
        client.settle()
        self.assertEqual(client.answers, [])

    def test_not_when_the_body_is_there_already(self) -> None:
        client = self.expecting()
        client.send(b"hello")
        _, done = self.take(self.requests[0])
        self.successResultOf(done)
        answer(self.requests[0])
        client.settle()
        self.assertEqual((client.statuses, client.wire.lost), ([200], False))

    def test_not_in_http_1_0(self) -> None:
        client = self.expecting(version="HTTP/1.0")
        self.take(self.requests[0])
        client.settle()
        self.assertEqual(client.answers, [])

    def test_another_request_waits_for_its_own(self) -> None:
        client = self.expecting()
        client.send(b"hello")
        answer(self.requests[0])
        client.settle()
        client.send(request_bytes("PUT", "/y", [("Content-Length", "5")]))
        self.take(self.requests[1])
        client.settle()
        self.assertEqual(client.statuses, [200])


class EarlyAnswerTests(SiteCase):
    """Answers that are complete before the body is."""

    def setUp(self) -> None:
        super().setUp()
        self.resource.on_request = lambda request: answer(request, 404 if request.method == b"PUT" else 200)

    def test_a_small_rest_is_read_and_the_connection_goes_on(self) -> None:
        for size in (1, 7, READ):
            client = self.client()
            client.asked += ["PUT", "GET"]
            client.send(request_bytes("PUT", "/x", body=b"x" * 100) + request_bytes("GET", "/y"), size)
            self.assertEqual(client.statuses, [404, 200])
            self.assertIsNone(client.answers[0].get("Connection"))
            self.assertFalse(client.wire.lost)

    def test_a_rest_at_the_limit(self) -> None:
        client = self.client()
        client.send(request_bytes("PUT", "/x", body=b"x" * DRAIN_LIMIT) + request_bytes("GET", "/y"))
        self.assertEqual((client.statuses, client.wire.lost), ([404, 200], False))

    def test_the_next_request_waits_for_the_rest(self) -> None:
        client = self.client()
        client.send(request_bytes("PUT", "/x", [("Content-Length", "10")]) + b"12345")
        self.assertEqual((client.statuses, len(self.requests)), ([404], 1))
        client.send(b"67890" + request_bytes("GET", "/y"))
        self.assertEqual(client.statuses, [404, 200])

    def test_a_large_rest_closes_the_connection(self) -> None:
        client = self.client()
        client.send(request_bytes("PUT", "/x", [("Content-Length", str(DRAIN_LIMIT + 1))]))
        self.assertEqual(client.statuses, [404])
        self.assertEqual(client.answers[0]["Connection"], "close")
        # Our side is shut, theirs is read, so that the answer is not lost with a reset.
        self.assertEqual((client.wire.write_closed, client.wire.disconnecting, client.wire.producerState), (True, False, "producing"))
        client.send(b"x" * (DRAIN_LIMIT + 1) + request_bytes("GET", "/y"))
        self.assertEqual((client.statuses, len(self.requests)), ([404], 1))
        self.assertTrue(client.wire.lost)
        self.assertFalse(client.wire.aborted)

    def test_a_rest_of_unknown_length_closes_the_connection(self) -> None:
        client = self.client()
        client.send(request_bytes("PUT", "/x", [("Transfer-Encoding", "chunked")]) + b"5\r\nhello\r\n")
        self.assertEqual(client.answers[0]["Connection"], "close")
        client.send(b"0\r\n\r\n")
        self.assertTrue(client.wire.lost)

    def test_one_who_goes_on_sending_is_cut(self) -> None:
        client = self.client()
        client.send(request_bytes("PUT", "/x", [("Content-Length", str(64 * MIB))]))
        for _ in range(8):
            client.send(b"x" * (MIB // 4))
        self.assertTrue(client.wire.aborted)
        self.assertTrue(client.wire.lost)

    def test_one_who_does_nothing_is_cut_after_a_while(self) -> None:
        client = self.client()
        client.send(request_bytes("PUT", "/x", [("Content-Length", str(64 * MIB))]))
        self.clock.advance(LINGER - 0.1)
        self.assertFalse(client.wire.aborted)
        self.clock.advance(0.1)
        client.settle()
        self.assertTrue(client.wire.lost)

    def test_one_who_closes_in_time(self) -> None:
        client = self.client()
        client.send(request_bytes("PUT", "/x", [("Content-Length", str(64 * MIB))]))
        client.leave()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        # The request was answered; that its client has gone is no news.
        self.assertEqual(self.logged, [(b"/x", 404)])

    def test_a_rest_that_is_no_body_is_no_reason_for_a_second_answer(self) -> None:
        client = self.client()
        client.send(request_bytes("PUT", "/x", [("Transfer-Encoding", "chunked")]) + b"nonsense\r\n")
        self.assertEqual((client.statuses, client.unread), ([404], b""))
        self.assertTrue(client.wire.lost)

    def test_a_rest_that_is_no_body_does_not_get_into_the_answer(self) -> None:
        """What is written now would come out in the middle of a file that the kernel sends."""

        def begin(request: StreamingRequest) -> None:
            request.setHeader("Content-Length", "10")
            request.write(b"12345")

        self.resource.on_request = begin
        client = self.client()
        client.send(request_bytes("GET", "/x", [("Transfer-Encoding", "chunked")]))
        client.send(b"nonsense\r\n")
        self.assertTrue(client.unread.endswith(b"\r\n\r\n12345"), client.unread)
        self.assertTrue(client.wire.lost)
        self.assertEqual(self.logged, [(b"/x", 499)])

    def test_an_answer_while_the_body_is_read(self) -> None:
        self.resource.on_request = self.take
        client = self.client()
        client.send(request_bytes("PUT", "/x", [("Content-Length", "10")]) + b"12345")
        answer(self.requests[0], 507)
        client.settle()
        self.assertEqual(client.statuses, [507])
        client.send(b"67890")
        client.send(request_bytes("GET", "/y"))
        self.assertEqual((len(self.requests), client.wire.lost), (2, False))

    def test_a_paused_body_is_read_out_after_the_answer(self) -> None:
        self.resource.on_request = lambda request: None
        client = self.client()
        client.send(request_bytes("PUT", "/x", body=b"x" * (4 * READ)) + request_bytes("GET", "/y"))
        self.assertEqual(client.wire.producerState, "paused")
        answer(self.requests[0], 401)
        client.settle()
        self.assertEqual((client.statuses, len(self.requests)), ([401], 2))


class ConnectionTests(SiteCase):
    def setUp(self) -> None:
        super().setUp()
        self.resource.on_request = self.echo

    def echo(self, request: StreamingRequest) -> None:
        sink, done = self.take(request)
        done.addCallbacks(lambda _: answer(request, body=request.uri + bytes(sink.got)), lambda reason: reason.trap(BodyAborted))

    def test_pipelining(self) -> None:
        everything = b"".join(
            [
                request_bytes("PUT", "/1", body=b"one"),
                request_bytes("GET", "/2"),
                request_bytes("PUT", "/3", [("Transfer-Encoding", "chunked")]) + chunked(b"thr", b"ee"),
                request_bytes("PUT", "/4", [("Expect", "100-continue")], body=b"four"),
                request_bytes("GET", "/5"),
            ]
        )
        for size in (1, 10, READ):
            client = self.client()
            client.send(everything, size)
            bodies = [found.body for found in client.answers if found.status == 200]
            self.assertEqual(bodies, [b"/1one", b"/2", b"/3three", b"/4four", b"/5"])

    def test_pipelined_requests_wait_for_the_answer(self) -> None:
        self.resource.on_request = lambda request: None
        client = self.client()
        client.send(request_bytes("GET", "/1") + request_bytes("PUT", "/2", body=b"two"))
        self.assertEqual(len(self.requests), 1)
        answer(self.requests[0])
        client.settle()
        self.assertEqual(len(self.requests), 2)

    def test_http_1_0(self) -> None:
        client = self.client()
        client.send(request_bytes("PUT", "/1", body=b"one", version="HTTP/1.0"))
        self.assertEqual(([found.body for found in client.answers], client.wire.lost), ([b"/1one"], True))

    def test_connection_close(self) -> None:
        client = self.client()
        client.send(request_bytes("GET", "/1", [("Connection", "close")]) + request_bytes("GET", "/2"))
        self.assertEqual(([found.body for found in client.answers], client.wire.lost), ([b"/1"], True))
        self.assertEqual(client.answers[0]["Connection"], "close")

    def test_truncated(self) -> None:
        for headers, part in (([("Content-Length", "10")], b"12345"), ([("Transfer-Encoding", "chunked")], b"5\r\n12345\r\n")):
            self.logged.clear()
            self.resource.on_request = lambda request: None
            client = self.client()
            client.send(request_bytes("PUT", "/x", headers) + part)
            request = self.requests.pop()
            sink, done = self.take(request)
            client.leave()
            self.failureResultOf(done, BodyAborted)
            self.assertEqual((sink.got, request.client_gone, client.answers), (b"12345", True, []))
            self.assertEqual(self.logged, [(b"/x", 499)])

    def test_499_is_logged_once(self) -> None:
        self.resource.on_request = lambda request: None
        client = self.client()
        client.send(request_bytes("GET", "/x"))
        client.leave()
        (request,) = self.requests
        # A handler runs on, and finds out.
        request.write(b"whatever")
        self.assertRaises(RuntimeError, request.finish)
        self.assertEqual(self.logged, [(b"/x", 499)])

    def test_nothing_is_logged_of_one_who_asked_nothing(self) -> None:
        for data in (b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: a\r\n"):
            client = self.client()
            client.send(data)
            client.leave()
        self.assertEqual((self.logged, self.requests), ([], []))

    def test_an_answer_is_logged_once(self) -> None:
        client = self.client()
        client.send(request_bytes("GET", "/x"))
        client.leave()
        self.assertEqual(self.logged, [(b"/x", 200)])


class BadRequestTests(SiteCase):
    def test_no_request(self) -> None:
        for data in (
            b"nonsense\r\n\r\n",
            b"GET /\r\n\r\n",
            b"GET  HTTP/1.1\r\n\r\n",
            b"GET / HTTP/3.9 \r\n\r\n",
            b"GET / SPDY/1\r\n\r\n",
            b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
            b"GET / HTTP/1.1\r\nbad name: x\r\n\r\n",
            b"GET / HTTP/1.1\r\nX: a\x00b\r\n\r\n",
            b"PUT / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
            b"PUT / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
            b"PUT / HTTP/1.1\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
            b"PUT / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
            b"PUT / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            b"PUT / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
            b"GET /" + b"x" * 20000 + b" HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1\r\nX: " + b"x" * 20000 + b"\r\n\r\n",
            b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 600 + b"\r\n",
        ):
            for size in (1, READ):
                client = self.client()
                client.send(data, size)
                self.bad(client)
        self.assertEqual(self.requests, [])

    def test_tls(self) -> None:
        """Clients such as docker try TLS first: they are told at once, and do not wait for their time-out."""
        client = self.client()
        client.send(b"\x16\x03\x01")
        self.bad(client)

    def test_nothing_is_read_after_it(self) -> None:
        """TLS goes on delivering what had come, on a connection that is being closed."""
        client = self.client()
        client.channel.dataReceived(b"nonsense\r\n\r\n")
        client.channel.dataReceived(b"nonsense\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n")
        client.settle()
        self.bad(client)
        self.assertEqual(self.requests, [])

    def test_malformed_chunks(self) -> None:
        for body in (b"x\r\n", b"-1\r\n", b"5\r\nhelloXX", b"5 5\r\nhello\r\n", b"5" * 2000, b"0\r\n" + b"x" * 70000):
            for size in (100, READ):
                client = self.client()
                client.send(request_bytes("PUT", "/x", [("Transfer-Encoding", "chunked")]))
                _, done = self.take(self.requests.pop())
                client.send(body, size)
                self.bad(client)
                self.failureResultOf(done, BodyAborted)

    def test_after_a_good_request(self) -> None:
        self.resource.on_request = answer
        client = self.client()
        client.send(request_bytes("GET", "/x") + b"nonsense\r\n\r\n")
        self.assertEqual((client.statuses, client.wire.lost), ([200, 400], True))

    def test_a_fault_outside_of_the_handlers(self) -> None:
        def fail(request: StreamingRequest) -> None:
            raise ZeroDivisionError("secret")

        self.resource.on_request = fail
        client = self.client()
        refusal = client.ask("GET", "/x")
        self.assertEqual((refusal.status, refusal["Content-Type"]), (500, "application/json"))
        self.assertEqual(json.loads(refusal.body), {"errors": [{"code": "UNKNOWN", "message": "unknown error"}]})
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertFalse(client.wire.lost)

    def test_a_fault_in_the_middle_of_an_answer(self) -> None:
        def fail(request: StreamingRequest) -> None:
            request.setHeader("Content-Length", "100")
            request.write(b"part")
            raise ZeroDivisionError

        self.resource.on_request = fail
        client = self.client()
        client.send(request_bytes("GET", "/x"))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertTrue(client.unread.endswith(b"\r\n\r\npart"))
        self.assertTrue(client.wire.lost)
        self.assertEqual(self.logged, [(b"/x", 499)])

    def test_asterisk(self) -> None:
        """RFC 9110, section 9.3.7."""
        found = self.client().ask("OPTIONS", "*")
        self.assertEqual((found.status, found["Content-Length"], found["Docker-Distribution-Api-Version"]), (200, "0", "registry/2.0"))
        self.client().send(request_bytes("GET", "*"))
        self.assertEqual(self.requests[0].path, b"/*")


class TimeoutTests(SiteCase):
    def advance(self, client: Client, seconds: float) -> None:
        self.clock.advance(seconds)
        client.settle()

    def test_idle(self) -> None:
        client = self.client()
        self.advance(client, Patience().idle - 1)
        self.assertFalse(client.wire.lost)
        self.advance(client, 1)
        self.assertTrue(client.wire.lost)

    def test_idle_within_a_request(self) -> None:
        """Also one that has not got so far as to have a body."""
        for data in (b"G", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nX"):
            client = self.client()
            client.send(data)
            self.advance(client, Patience().idle)
            self.assertTrue(client.wire.lost)

    def test_idle_after_an_early_answer(self) -> None:
        self.resource.on_request = answer
        client = self.client()
        client.send(request_bytes("PUT", "/x", [("Content-Length", "10")]) + b"x")
        self.advance(client, Patience().read)
        self.assertTrue(client.wire.lost)

    def test_idle_after_a_request(self) -> None:
        self.resource.on_request = answer
        client = self.client()
        self.advance(client, Patience().idle - 1)
        client.send(request_bytes("PUT", "/x", body=b"x"))
        self.advance(client, Patience().idle - 1)
        self.assertFalse(client.wire.lost)
        self.advance(client, 1)
        self.assertTrue(client.wire.lost)

    def test_a_handler_may_take_its_time(self) -> None:
        client = self.client()
        client.send(request_bytes("PUT", "/x", body=b"x"))
        self.advance(client, 10 * Patience().read)
        self.assertFalse(client.wire.lost)
        answer(self.requests[0])
        client.settle()
        self.assertEqual(client.statuses, [200])

    def test_a_body_that_stops(self) -> None:
        client = self.client()
        client.send(request_bytes("PUT", "/x", [("Content-Length", "10")]))
        _, done = self.take(self.requests[0])
        self.advance(client, Patience().read - 1)
        client.send(b"x")
        self.advance(client, Patience().read - 1)
        self.assertFalse(client.wire.lost)
        self.advance(client, 1)
        self.assertTrue(client.wire.lost)
        self.failureResultOf(done, BodyAborted)
        self.assertEqual(self.logged, [(b"/x", 499)])

    def test_a_slow_body_is_not_cut(self) -> None:
        client = self.client()
        client.send(request_bytes("PUT", "/x", [("Content-Length", "10")]))
        _, done = self.take(self.requests[0])
        for _ in range(10):
            self.advance(client, Patience().read / 2)
            client.send(b"x")
        self.successResultOf(done)

    def test_a_paused_body_is_our_own_doing(self) -> None:
        client = self.client()
        client.send(request_bytes("PUT", "/x", [("Content-Length", "10")]) + b"x")
        # First nobody wants it, then its consumer is behind.
        self.advance(client, 3 * Patience().read)
        self.assertFalse(client.wire.lost)
        _, done = self.take(self.requests[0])
        self.requests[0].body.pauseProducing()
        self.advance(client, 3 * Patience().read)
        self.assertFalse(client.wire.lost)
        self.requests[0].body.resumeProducing()
        self.advance(client, Patience().read)
        self.assertTrue(client.wire.lost)
        self.failureResultOf(done, BodyAborted)

    def test_a_client_that_does_not_let_go(self) -> None:
        """A time-out closes; where the close does not come through, the connection is cut."""
        client = self.client()
        self.patch(client.wire, "end", lambda reason: None)
        self.advance(client, Patience().idle)
        self.assertFalse(client.wire.aborted)
        self.advance(client, LINGER)
        self.assertTrue(client.wire.aborted)


class DrainTests(SiteCase):
    def test_nobody_there(self) -> None:
        self.successResultOf(self.site.drain())

    def test_idle_connections_close_at_once(self) -> None:
        client = self.client()
        client.send(request_bytes("GET", "/x"))
        answer(self.requests[0])
        done = self.site.drain()
        client.settle()
        self.successResultOf(done)
        self.assertTrue(client.wire.lost)

    def test_a_request_that_nobody_has_read_yet(self) -> None:
        """What came before the order to stop, and is still in the socket, is answered as the last on its connection."""
        for head in (b"", request_bytes("GET", "/x")):
            with self.subTest(before=head):
                self.requests.clear()
                client = self.client()
                client.send(head)
                if head:
                    answer(self.requests[0])
                client.wire.inbox += request_bytes("GET", "/y")
                done = self.site.drain()
                client.wire.deliver()
                client.settle()
                self.assertNoResult(done)
                answer(self.requests[-1])
                client.settle()
                self.assertEqual((self.requests[-1].uri, client.answers[-1]["Connection"]), (b"/y", "close"))
                self.successResultOf(done)

    def test_who_has_just_connected_is_about_to_ask(self) -> None:
        for sent, begun in ((b"", False), (b"GET /x HT", False), (b"GET /x HTTP/1.1\r\nHost: a\r\n", True)):
            with self.subTest(sent=sent):
                client, late = self.client(), self.client()
                client.send(sent)
                done = self.site.drain()
                self.clock.advance(ARRIVING - 0.5)
                self.assertFalse(client.wire.lost)
                late.send(request_bytes("GET", "/late"))
                self.clock.advance(0.5)
                client.settle()
                # Who has begun to ask has as long as others who do.
                self.assertEqual(client.wire.lost, not begun)
                self.assertNoResult(done)
                answer(self.requests[-1])
                late.settle()
                self.assertEqual(late.answers[0]["Connection"], "close")
                client.leave()
                self.successResultOf(done)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_request_is_finished_first(self) -> None:
        client = self.client()
        client.send(request_bytes("GET", "/x") + request_bytes("GET", "/y"))
        done = self.site.drain()
        client.settle()
        self.assertNoResult(done)
        answer(self.requests[0])
        client.settle()
        self.assertEqual((client.statuses, len(self.requests)), ([200], 1))
        self.assertEqual(client.answers[0]["Connection"], "close")
        self.successResultOf(done)

    def test_an_upload_is_finished_first(self) -> None:
        client = self.client()
        client.send(request_bytes("PUT", "/x", [("Content-Length", "2")]))
        _, body = self.take(self.requests[0])
        done = self.site.drain()
        client.send(b"xy")
        self.successResultOf(body)
        answer(self.requests[0], 201)
        client.settle()
        self.assertEqual(client.statuses, [201])
        self.successResultOf(done)

    def test_a_request_that_is_on_its_way(self) -> None:
        client = self.client()
        client.send(b"GET /x HTTP/1.1\r\n")
        done = self.site.drain()
        client.settle()
        client.send(b"Host: a\r\n\r\n")
        answer(self.requests[0])
        client.settle()
        self.assertEqual(client.answers[0]["Connection"], "close")
        self.successResultOf(done)

    def test_a_new_connection(self) -> None:
        """One that was accepted in the same moment takes a request, and is waited for."""
        other = self.client()
        other.send(request_bytes("GET", "/x"))
        done = self.site.drain()
        answer(self.requests[0])
        other.settle()
        self.successResultOf(done)

    def test_abort(self) -> None:
        client = self.client()
        client.send(request_bytes("GET", "/x"))
        done = self.site.drain()
        self.site.abort()
        client.settle()
        self.assertTrue(client.wire.aborted)
        self.successResultOf(done)
        self.assertEqual(self.logged, [(b"/x", 499)])


class MemoryTests(SiteCase):
    """Promise P1: a connection in flight costs less than 256 KiB, however much is sent."""

    UPLOAD = 32 * MIB

    def held(self, client: Client, step: int) -> int:
        """What sending 32 MiB costs, in bytes, without what waits in the "kernel"."""
        gc.collect()
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        most = 0
        for _ in range(self.UPLOAD // step):
            client.wire.inbox += bytes(step)
            client.wire.deliver()
            client.settle()
            waiting = len(client.wire.inbox)
            most = max(most, tracemalloc.get_traced_memory()[0] - before - waiting)
            del client.wire.inbox[:]
        tracemalloc.stop()
        return most

    def test_an_upload_that_nobody_wants_yet(self) -> None:
        client = self.client()
        client.send(request_bytes("PUT", "/x", [("Content-Length", str(self.UPLOAD))]))
        self.assertLess(self.held(client, MIB), 256 * 1024)

    def test_an_upload_whose_consumer_is_behind(self) -> None:
        client = self.client()
        client.send(request_bytes("PUT", "/x", [("Content-Length", str(self.UPLOAD))]))
        self.take(self.requests[0])
        self.requests[0].body.pauseProducing()
        self.assertLess(self.held(client, MIB), 256 * 1024)

    def test_an_upload_behind_a_request_that_takes_long(self) -> None:
        client = self.client()
        client.send(request_bytes("GET", "/y") + request_bytes("PUT", "/x", [("Content-Length", str(self.UPLOAD))]))
        self.assertLess(self.held(client, MIB), 256 * 1024)

    def test_an_upload_while_an_earlier_answer_drains(self) -> None:
        client = self.client()
        client.send(request_bytes("GET", "/y"))
        answer(self.requests[0])
        client.channel.pauseProducing()
        client.wire.producerState = "producing"
        client.send(request_bytes("PUT", "/x", [("Content-Length", str(self.UPLOAD))]))
        self.take(self.requests[1])
        self.requests[1].body.pauseProducing()
        for _ in range(16):
            # The transport has room again and again, as it has for each part of a long answer.
            client.channel.resumeProducing()
            client.send(b"x" * MIB)
        self.assertLess(sum(map(len, self.requests[1].body._held)), 17 * READ)

    def test_a_discarded_upload(self) -> None:
        self.resource.on_request = lambda request: answer(request, 404)
        client = self.client()
        client.send(request_bytes("PUT", "/x", [("Content-Length", str(DRAIN_LIMIT))]))
        client.send(b"x" * (DRAIN_LIMIT - 1))
        self.assertEqual(sum(map(len, self.requests[0].body._held)), 0)
