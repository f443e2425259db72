"""Heads that are read in one go: the same requests and answers as by Twisted's parser, whatever comes, and however it is cut."""

# The methods that a request inherits from Twisted have no types.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import re
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from regd.web.factory import StreamingSite
from regd.web.fields import CommonFields
from regd.web.heads import Heads
from regd.web.request import StreamingRequest
from regd.web.response import Response, send_at_once
from tests.web.test_request import Resource, SiteCase
from tests.web.test_response import SlowWire
from tests.web.wire import Client, parse_answers, request_bytes

#: Lines of heads: what clients send, and what those send who look for two parsers that do not agree.
LINES = st.one_of(
    st.sampled_from(
        [
            b"Host: a",
            b"Host:a",
            b"host:  a \t",
            b"Accept: a/b, c/d;q=0",
            b"Accept: e",
            b"ACCEPT:",
            b"User-Agent: docker/28 (x; y)",
            b"Connection: close",
            b"Connection: keep-alive",
            b"connection: Keep-Alive",
            b"Content-Length: 0",
            b"Content-Length: 3",
            b"content-length: +3",
            b"Content-Length : 3",
            b"Content-Length: 3, 3",
            b"Transfer-Encoding: chunked",
            b"Transfer-Encoding:\tchunked",
            b"transfer-encoding: identity",
            b"Transfer_Encoding: chunked",
            b"Expect: 100-continue",
            b"Upgrade: h2c",
            b"Cookie: a=b",
            b" folded",
            b"\tTransfer-Encoding: chunked",
            b"no colon",
            b": no name",
            b"a b: c",
            b"a\x00: b",
            b"a: b\x00",
            b"a: b\rTransfer-Encoding: chunked",
            b"a: b\nTransfer-Encoding: chunked",
            b"a:\r",
            b"\xff: a",
            b"a: \xff",
            b"a:" + b"b" * 9000,
            b"X: y\r\n" * 600 + b"X: y",
        ]
    ),
    st.binary(max_size=20),
)
FIRST = st.one_of(
    st.sampled_from(
        [
            b"GET / HTTP/1.1",
            b"GET /v2/?a=b&c HTTP/1.1",
            b"HEAD /x%20y HTTP/1.1",
            b"DELETE /x HTTP/1.1",
            b"POST /x HTTP/1.1",
            b"OPTIONS * HTTP/1.1",
            b"GET http://b/c HTTP/1.1",
            b"GET / HTTP/1.0",
            b"GET / HTTP/1.2",
            b"get / HTTP/1.1",
            b"GET  / HTTP/1.1",
            b"GET /\xb0 HTTP/1.1",
            b"GET /\xff HTTP/1.1",
            b"GET /\x7f HTTP/1.1",
            b"GET / HTTP/1.1 ",
            b"GET /a\rb HTTP/1.1",
            b"GET /\n HTTP/1.1",
            b"",
            b"\r\n",
        ]
    ),
    st.binary(max_size=20),
)
ENDS = st.sampled_from(
    [b"\r\n\r\n"] * 8
    + [b"\n\n", b"\r\n", b"\r\n\r\nabc", b"\r\n\r\n3\r\nabc\r\n0\r\n\r\n", b"\r\n\r\n\r\n", b"\r\n\r\r\n"]
)
REQUESTS = st.builds(lambda first, lines, end: b"\r\n".join([first, *lines]) + end, FIRST, st.lists(LINES, max_size=5), ENDS)


class Nothing(Heads):
    """Leaves all to Twisted."""

    def take(self, data: bytes) -> None:
        return None


class Seen:
    """What becomes of some bytes: the requests as a handler sees them, the answers, and the state of the connection."""

    def __init__(self, heads: Heads, late: bool) -> None:
        self.clock = Clock()
        self.requests: list[Any] = []
        self.late = late
        resource = Resource()
        resource.on_request = self.answer
        self.site = StreamingSite(resource, self.log, self.clock)
        self.client = Client(self.site, self.clock)
        self.client.channel._heads = heads
        self.waiting: list[StreamingRequest] = []

    def log(self, request: StreamingRequest) -> None:
        self.requests.append((request.uri, request.code, request.sentLength))

    def answer(self, request: StreamingRequest) -> None:
        fields = sorted((name, tuple(values)) for name, values in request.requestHeaders.getAllRawHeaders())
        self.requests.append((request.method, request.uri, request.path, request.clientproto, request.args, fields, request.body.length))
        self.requests.append((request.client, request.host, request.getClientAddress(), request.isSecure()))
        if self.late:
            self.waiting.append(request)
        else:
            self.finish(request)

    def finish(self, request: StreamingRequest) -> None:
        send_at_once(request, Response(200, {"Content-Type": "a/b"}, b"ok " + request.uri), CommonFields(clock=self.clock.seconds))

    def feed(self, data: bytes) -> None:
        wire = self.client.wire
        if wire.producerState == "producing" and not wire.disconnecting and not wire.lost:
            wire.protocol.dataReceived(data)
        while self.waiting:
            self.finish(self.waiting.pop(0))
        self.clock.advance(0.5)

    def state(self) -> tuple[object, ...]:
        channel, wire = self.client.channel, self.client.wire
        answers = wire.value()
        first = answers.find(b"Date: ")
        # Twisted's own answers have the time of day in them.
        dates = [line for line in answers[first:].split(b"\r\n") if line.startswith(b"Date: ")] if first >= 0 else []
        for date in dates:
            answers = answers.replace(date, b"Date")
        answers = re.sub(rb"X-Request-Id: [0-9a-f-]+\r\n", b"X-Request-Id: one\r\n", answers)
        return (
            self.requests,
            answers,
            (wire.lost, wire.disconnecting, wire.aborted, wire.write_closed, wire.producerState),
            (len(channel.requests), channel.persistent, channel.timeOut, channel._handlingRequest, channel.line_mode, channel._buffer),
            [call.getTime() for call in self.clock.getDelayedCalls()],
        )


class DifferentialTests(SynchronousTestCase):
    @settings(max_examples=600)
    @given(st.lists(REQUESTS, min_size=1, max_size=4), st.lists(st.integers(1, 400), max_size=6), st.booleans())
    @example([b"GET / HTTP/1.1\r\n\r\n"] * 3, [], False)
    @example([b"GET / HTTP/1.1\r\n\r\n"] * 3, [], True)
    @example([b"GET / HTTP/1.1\r\n\r\n"] * 3, [20, 19], False)
    @example([b"\r\nGET / HTTP/1.1\r\n\r\n"] * 3, [2], False)
    @example([b"GET / HTTP/1.1\r\n\r\n", b"PUT / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", b"GET / HTTP/1.1\r\n\r\n"], [], False)
    @example([b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"], [], False)
    def test_any_bytes_in_any_cutting(self, requests: list[bytes], cuts: list[int], late: bool) -> None:
        data = b"".join(requests)
        pieces = []
        for cut in cuts:
            pieces.append(data[:cut])
            data = data[cut:]
        pieces.append(data)
        ours, stock = Seen(Heads(), late), Seen(Nothing(), late)
        for piece in pieces:
            if piece:
                ours.feed(piece)
                stock.feed(piece)
                self.assertEqual(ours.state(), stock.state(), piece)

    @settings(max_examples=600)
    @given(REQUESTS)
    def test_a_head_that_is_taken_is_one(self, data: bytes) -> None:
        """Nothing is taken that says how long the request is, or that has a line which could be read in two ways."""
        found = Heads().take(data)
        if found is not None:
            method, target, fields, end = found
            head = data[:end]
            self.assertTrue(head.endswith(b"\r\n\r\n"))
            self.assertEqual(head.count(b"\r\n\r\n"), 1)
            self.assertEqual(head.count(b"\r"), head.count(b"\n"))
            self.assertTrue(head.startswith(method + b" " + target + b" HTTP/1.1\r\n"))
            self.assertFalse({b"Content-Length", b"Transfer-Encoding"} & set(fields))
            self.assertEqual(sum(map(len, fields.values())), head.count(b"\n") - 2)


class HeadsTests(SynchronousTestCase):
    def test_what_is_taken(self) -> None:
        heads = Heads()
        data = b"GET /a?b HTTP/1.1\r\nhost: x\r\nAccept: a\r\naccept:b \r\nX-etag:\r\n\r\nrest"
        fields = {b"Host": [b"x"], b"Accept": [b"a", b"b"], b"X-Etag": [b""]}
        for _ in range(2):
            self.assertEqual(heads.take(data), (b"GET", b"/a?b", fields, len(data) - 4))
        self.assertEqual(heads.take(b"GET / HTTP/1.1\r\n\r\n"), (b"GET", b"/", {}, 18))
        self.assertEqual(heads.take(data), (b"GET", b"/a?b", fields, len(data) - 4))

    def test_each_request_has_fields_of_its_own(self) -> None:
        heads = Heads()
        for _ in range(2):
            found = heads.take(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert found is not None
            self.assertEqual(found[2], {b"Host": [b"x"]})
            found[2][b"Host"] = [b"y"]

    def test_what_is_for_twisted(self) -> None:
        for data in (
            b"",
            b"GET / HTTP/1.1\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\n",
            b"GET / HTTP/1.0\r\n\r\n",
            b"GET / HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
            b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n",
            b"GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n",
            b"GET / HTTP/1.1\r\nA: b\nc: d\r\n\r\n",
            b"GET / HTTP/1.1\r\nA: " + b"b" * 8192 + b"\r\n\r\n",
            b"GET / HTTP/1.1\r\n" + b"A:\r\n" * 101 + b"\r\n",
        ):
            self.assertIsNone(Heads().take(data), data)


class PlainChannelTests(SiteCase):
    def timers(self) -> list[Any]:
        """
        :return: Those of connections; not of the one that looks at all of them.
        """
        return [call for call in self.clock.getDelayedCalls() if "Watch" not in str(call)]

    def test_a_time_out_runs_from_the_last_request(self) -> None:
        client = self.client()
        self.resource.on_request = lambda request: send_at_once(request, Response(200))
        for _ in range(3):
            client.send(request_bytes("GET", "/"))
            client.asked.append("GET")
            self.clock.advance(100)
        self.assertFalse(client.wire.lost)
        self.clock.advance(80.1)
        client.settle()
        self.assertTrue(client.wire.lost)
        self.assertEqual(self.timers(), [])

    def test_nobody_is_timed_out_while_a_request_is_handled(self) -> None:
        client = self.client()
        client.send(request_bytes("GET", "/"))
        self.assertEqual(self.timers(), [])
        self.clock.advance(1000)
        send_at_once(self.requests[0], Response(200))
        client.settle()
        self.assertEqual(client.statuses, [200])
        self.assertEqual([call.getTime() for call in self.timers()], [1180])

    def test_a_client_that_does_not_read(self) -> None:
        """It gets the next answer when it has read the last one; whichever parser reads its requests."""
        body = b"x" * 100_000
        self.resource.on_request = lambda request: send_at_once(request, Response(200, {"Content-Type": "a/b"}, body))
        for fields in ([], [("Content-Length", "0")]):
            wire = SlowWire(self.clock)
            channel: Any = self.site.buildProtocol(wire.getPeer())
            wire.protocol = channel
            channel.makeConnection(wire)
            wire.inbox += request_bytes("GET", "/", fields) * 20
            wire.deliver()
            for count in range(1, 20):
                self.assertEqual(wire.value().count(b"HTTP/1.1 200"), count)
                self.assertEqual((wire.producerState, self.timers()), ("paused", []))
                wire.drain()
                self.clock.advance(0)
            answers, rest = parse_answers(wire.value(), ["GET"] * 20)
            self.assertEqual(([answer.body for answer in answers], rest), ([body] * 20, b""))
            wire.drain()
            self.clock.advance(0)
            self.assertEqual((wire.producerState, channel.requests, len(self.timers())), ("producing", [], 1))
            wire.end(ConnectionLost())
            self.assertEqual(self.timers(), [])

    def test_a_client_that_leaves_without_reading(self) -> None:
        self.resource.on_request = lambda request: send_at_once(request, Response(200, {"Content-Type": "a/b"}, b"x" * 100_000))
        wire = SlowWire(self.clock)
        channel: Any = self.site.buildProtocol(wire.getPeer())
        wire.protocol = channel
        channel.makeConnection(wire)
        wire.inbox += request_bytes("GET", "/") * 20
        wire.deliver()
        wire.end(ConnectionLost())
        self.assertEqual(self.logged, [(b"/", 200)])
        self.assertEqual((self.clock.getDelayedCalls(), self.site.open), ([], set()))

    def test_a_handler_that_fails_outside(self) -> None:
        def fail(request: StreamingRequest) -> None:
            raise ZeroDivisionError

        self.resource.on_request = fail
        client = self.client()
        self.assertEqual([client.ask("GET", "/").status for _ in range(2)], [500, 500])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)
