"""
The names of Twisted that are not public and that regd leans on, each with what it is needed for.

When a new Twisted breaks one of these tests, the tests of :mod:`tests.web.test_request` may still pass by luck: read what the name was
needed for, look at what the new Twisted does, and change ``regd/web/request.py`` or ``regd/web/transport.py``, then the test.
"""

# Twisted has no types for most of this.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import inspect
from typing import Any

from twisted.internet import tcp, unix
from twisted.internet.abstract import FileDescriptor
from twisted.internet.address import IPv4Address
from twisted.internet.base import BaseConnector
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.protocols.basic import LineReceiver
from twisted.trial.unittest import SynchronousTestCase
from twisted.web import http, server
from twisted.web.http_headers import Headers
from twisted.web.resource import Resource

from regd.web.factory import StreamingSite
from regd.web.request import StreamingChannel, StreamingRequest


class Recorder(http.HTTPChannel):
    """Stock, but for telling what is called when."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Any] = []

    def allHeadersReceived(self) -> None:
        channel: Any = self
        self.calls.append(("headers", channel._command, channel._path, channel._version, self.length))
        super().allHeadersReceived()

    def allContentReceived(self) -> None:
        self.calls.append("content")
        super().allContentReceived()

    def rawDataReceived(self, data: bytes) -> None:
        self.calls.append(("raw", data))
        super().rawDataReceived(data)

    def requestDone(self, request: Any) -> None:
        self.calls.append(("done", request.uri))
        super().requestDone(request)

    def headerReceived(self, line: bytes) -> bool:
        self.calls.append(("header", bytes(line)))
        return bool(super().headerReceived(line))

    def lineLengthExceeded(self, line: bytes) -> None:
        self.calls.append("too long")

    def timeoutConnection(self) -> None:
        self.calls.append("timeout")

    def _send100Continue(self) -> None:
        self.calls.append("continue")

    def _respondToBadRequestAndDisconnect(self) -> None:
        self.calls.append("bad")


class Page(Resource):
    isLeaf = True

    def render(self, request: Any) -> bytes:
        return b"page"


class StockCase(SynchronousTestCase):
    """Twisted's own channel, request and site."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.site = server.Site(Page(), timeout=60, reactor=self.clock)
        self.site.protocol = Recorder  # type: ignore[assignment]  # declared as the wrapper that knows HTTP/2
        self.site.log = lambda request: None  # type: ignore[method-assign]  # it would write to a file
        self.channel: Any = self.site.buildProtocol(IPv4Address("TCP", "192.0.2.1", 1))
        self.transport = StringTransport(lenient=True)
        self.channel.makeConnection(self.transport)

    def send(self, data: bytes) -> list[Any]:
        self.channel.dataReceived(data)
        return list(self.channel.calls)


class ChannelTests(StockCase):
    def test_the_request_line_is_kept_on_the_channel(self) -> None:
        """``_command``, ``_path``, ``_version``: with them a request is begun when its headers are in."""
        calls = self.send(b"PUT /x?y HTTP/1.1\r\nContent-Length: 4\r\n\r\n")
        self.assertEqual(calls[-1], ("headers", b"PUT", b"/x?y", b"HTTP/1.1", 4))

    def test_they_are_gone_when_the_body_has_ended(self) -> None:
        """So ``allContentReceived`` must not be asked for them afterwards."""
        self.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        for name in ("_command", "_path", "_version"):
            self.assertFalse(hasattr(self.channel, name))

    def test_the_order_of_calls(self) -> None:
        """``allHeadersReceived``, ``rawDataReceived``, ``allContentReceived``, ``requestDone``: regd overrides each."""
        calls = self.send(b"PUT /x HTTP/1.1\r\nContent-Length: 2\r\n\r\nab")
        self.assertEqual(
            calls,
            [("header", b"Content-Length: 2"), ("headers", b"PUT", b"/x", b"HTTP/1.1", 2), ("raw", b"ab"), "content", ("done", b"/x")],
        )

    def test_a_chunked_body_has_no_length(self) -> None:
        """``length`` is ``None`` then, not 0: regd tells the two apart."""
        calls = self.send(b"PUT /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
        self.assertEqual(calls[-1][-1], None)

    def test_how_a_body_is_decoded(self) -> None:
        """
        ``_maybeChooseTransferDecoder`` puts a ``_ChunkedTransferDecoder`` into ``_transferDecoder``, which is given to
        ``dataReceived``, and tells ``_finishRequestBody`` of the end and what came after it. regd puts its own decoder there.
        """
        self.channel.requests.append(http.Request(self.channel, False))
        self.assertIs(self.channel._maybeChooseTransferDecoder(b"Transfer-Encoding", b"chunked"), True)
        decoder = self.channel._transferDecoder
        self.assertIs(type(decoder), http._ChunkedTransferDecoder)
        self.assertEqual(decoder.finishCallback, self.channel._finishRequestBody)
        got: list[tuple[str, bytes]] = []
        decoder = http._ChunkedTransferDecoder(lambda data: got.append(("data", data)), lambda rest: got.append(("end", rest)))
        decoder.dataReceived(b"2\r\nab\r\n0\r\n\r\nrest")
        self.assertEqual(got, [("data", b"ab"), ("end", b"rest")])

    def test_chunks_that_are_none(self) -> None:
        """``_MalformedChunkedDataError``: what the channel catches."""
        decoder = http._ChunkedTransferDecoder(lambda data: None, lambda rest: None)
        self.assertRaises(http._MalformedChunkedDataError, decoder.dataReceived, b"x\r\n")

    def test_other_fields_choose_no_decoder(self) -> None:
        """The method is asked for each header field, its name in the form that ``headerReceived`` gives it."""
        self.channel.requests.append(http.Request(self.channel, False))
        for name in (b"Host", b"transfer-encoding"):
            self.assertIs(self.channel._maybeChooseTransferDecoder(name, b"chunked"), True)
            self.assertIsNone(self.channel._transferDecoder)

    def test_the_body_is_given_to_the_last_request(self) -> None:
        """``requests[-1]``: the one that is being received."""
        self.send(b"PUT /x HTTP/1.1\r\nContent-Length: 2\r\n\r\n")
        self.assertEqual(len(self.channel.requests), 1)
        self.assertIsInstance(self.channel.requests[-1], http.Request)

    def test_continue(self) -> None:
        """``_send100Continue``: stock says it before anybody wants the body; regd calls it when somebody does."""
        self.assertEqual(self.send(b"PUT / HTTP/1.1\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n")[-1], "continue")
        transport = StringTransport()
        channel: Any = http.HTTPChannel()
        channel.transport = transport
        channel._send100Continue()
        self.assertEqual(transport.value(), b"HTTP/1.1 100 Continue\r\n\r\n")

    def test_bad_requests(self) -> None:
        """``_respondToBadRequestAndDisconnect``: all that is not HTTP ends there; regd answers in the envelope."""
        for data in (
            b"nonsense\r\n",
            b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
            b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
            b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
        ):
            self.setUp()
            self.assertIn("bad", self.send(data))

    def test_header_received_says_whether_it_was_one(self) -> None:
        self.channel.requests.append(http.Request(self.channel, False))
        self.assertIs(self.channel.headerReceived(b"A: b"), True)
        self.assertIs(self.channel.headerReceived(b"nonsense"), False)

    def test_long_numbers_raise(self) -> None:
        """``headerReceived`` raises ``ValueError`` then. Once it does not, regd's override is not needed any more."""
        self.channel.requests.append(http.Request(self.channel, False))
        self.assertRaises(ValueError, self.channel.headerReceived, b"Content-Length: " + b"9" * 5000)

    def test_long_lines(self) -> None:
        """``lineLengthExceeded``: of ``LineReceiver``, where stock closes without a word."""
        self.assertIn("too long", self.send(b"GET /" + b"x" * 20000))
        self.assertIs(http.HTTPChannel.lineLengthExceeded, LineReceiver.lineLengthExceeded)

    def test_time_outs(self) -> None:
        """``setTimeout``, ``timeOut``, ``timeoutConnection``, ``abortTimeout`` and ``callLater``: of ``TimeoutMixin`` and the channel."""
        self.assertEqual(self.channel.timeOut, 60)
        self.clock.advance(60)
        self.assertEqual(self.channel.calls, ["timeout"])
        self.assertIsNotNone(http.HTTPChannel.abortTimeout)
        self.assertIs(self.channel.callLater.__self__, self.clock)

    def test_no_time_out_while_a_request_is_handled(self) -> None:
        """It is off from ``allContentReceived`` to ``requestDone``, and what it was set to before is set again then."""
        self.patch(Page, "render", lambda page, request: server.NOT_DONE_YET)
        self.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.channel.requests[0].finish()
        (call,) = self.clock.getDelayedCalls()
        self.assertEqual(call.getTime(), 60)

    def test_a_request_that_is_done_leaves(self) -> None:
        """``requestDone`` removes it; so regd calls it only once the body has ended."""
        self.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        self.assertEqual(self.channel.requests, [])

    def test_persistence(self) -> None:
        """``checkPersistence`` and ``persistent``: whether the connection goes on is settled with the headers."""
        self.send(b"GET / HTTP/1.0\r\n\r\n")
        self.assertFalse(self.channel.persistent)
        self.assertEqual(list(inspect.signature(http.HTTPChannel.checkPersistence).parameters), ["self", "request", "version"])

    def test_the_channel_resumes_its_transport(self) -> None:
        """``resumeProducing``, when an answer has drained, also while a body is received: a body pauses it again."""
        self.send(b"PUT / HTTP/1.1\r\nContent-Length: 10\r\n\r\n")
        self.transport.pauseProducing()
        self.channel.resumeProducing()
        self.assertEqual(self.transport.producerState, "producing")


class RequestTests(StockCase):
    def test_signatures(self) -> None:
        """What the channel calls on a request; regd's has the same."""
        for name, parameters in (
            ("gotLength", ["length"]),
            ("handleContentChunk", ["data"]),
            ("requestReceived", ["command", "path", "version"]),
            ("connectionLost", ["reason"]),
            ("processingFailed", ["reason"]),
            ("write", ["data"]),
            ("getHeader", ["key"]),
            ("process", []),
            ("finish", []),
        ):
            for kind in (server.Request, StreamingRequest):
                self.assertEqual(list(inspect.signature(getattr(kind, name)).parameters), ["self", *parameters], f"{kind}.{name}")

    def test_disconnected(self) -> None:
        """``_disconnected``: whether the client has gone; ``client_gone`` is made of it."""
        self.patch(Page, "render", lambda page, request: server.NOT_DONE_YET)
        self.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        request: Any = self.channel.requests[0]
        self.assertIs(bool(request._disconnected), False)
        self.channel.connectionLost(None)
        self.assertIs(bool(request._disconnected), True)
        # It knows its channel no longer, and writing is no error.
        self.assertIsNone(request.channel)
        request.write(b"x")

    def test_what_process_leaves_undone(self) -> None:
        """``process`` sets ``site``, ``prepath`` and ``postpath``, needs ``path``, and calls ``render``; regd's ``begin`` does the rest."""
        source = inspect.getsource(server.Request.process)
        for name in ("self.site = self.channel.site", "self.path", "self.render(", "self.processingFailed(", "getResourceFor"):
            self.assertIn(name, source)
        received = inspect.getsource(http.Request.requestReceived)
        for name in ("self.method", "self.uri", "self.clientproto", "self.path", "self.args", "self.process()"):
            self.assertIn(name, received)

    def test_the_first_write(self) -> None:
        """``startedWriting`` is false until the headers go out, and ``finished`` until the end: regd decides by them."""
        self.patch(Page, "render", lambda page, request: server.NOT_DONE_YET)
        self.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        request: Any = self.channel.requests[0]
        self.assertEqual((bool(request.startedWriting), bool(request.finished)), (False, False))
        request.write(b"")
        self.assertEqual((bool(request.startedWriting), bool(request.finished)), (True, False))
        request.finish()
        self.assertTrue(request.finished)

    def test_str_header_values_are_decoded_strictly(self) -> None:
        """The reason why regd overrides ``getHeader``."""
        request: Any = http.Request(self.channel, False)
        request.requestHeaders.addRawHeader(b"A", b"\xff")
        self.assertRaises(UnicodeDecodeError, request.getHeader, "A")


class PlainTests(StockCase):
    """What :mod:`regd.web.plain`, :mod:`regd.web.heads` and :mod:`regd.web.prepared` do in the place of Twisted."""

    def test_between_two_requests(self) -> None:
        """``_HTTPChannel__first_line`` is 1 there, 2 after an empty line that was let pass, and 0 within a head; ``line_mode`` is on."""
        self.patch(Page, "render", lambda page, request: server.NOT_DONE_YET)
        for data, first in ((b"", 1), (b"\r\n", 2), (b"GET / HTTP/1.1\r\n", 0), (b"Host: a\r\n", 0)):
            if data:
                self.send(data)
            self.assertEqual((self.channel._HTTPChannel__first_line, bool(self.channel.line_mode)), (first, True))
        self.send(b"\r\n")
        self.assertEqual((self.channel._HTTPChannel__first_line, self.channel.line_mode, self.channel._handlingRequest), (1, 0, True))
        self.channel.requests[0].finish()
        self.assertEqual((self.channel._HTTPChannel__first_line, self.channel.line_mode, self.channel._handlingRequest), (1, 1, False))

    def test_buffers_of_the_line_receiver(self) -> None:
        """``_buffer`` holds the beginning of a line; ``_busyReceiving`` says that one is being handled."""
        self.send(b"GET")
        self.assertEqual((self.channel._buffer, self.channel._busyReceiving), (b"GET", False))
        self.patch(Page, "render", lambda page, request: self.channel.calls.append(self.channel._busyReceiving) or b"")
        self.assertIn(True, self.send(b" / HTTP/1.1\r\n\r\n"))

    def test_what_all_content_received_does(self) -> None:
        """``_savedTimeOut``, ``_handlingRequest`` and raw mode: regd does the same for a request that is not answered at once."""
        source = inspect.getsource(http.HTTPChannel.allContentReceived)
        for name in ("if self.timeOut:", "self._savedTimeOut = self.setTimeout(None)", "self._handlingRequest = True", "self.setRawMode()"):
            self.assertIn(name, source)

    def test_what_a_request_begins_with(self) -> None:
        """That of regd does not call the base classes'."""
        stock: Any = server.Request(self.channel, False)
        ours: Any = StreamingRequest(self.channel)
        stocks, own = ({name: type(value) for name, value in vars(request).items()} for request in (stock, ours))
        # These stand with the class.
        for name in ("queued", "_parsePOSTFormSubmission", "received_cookies", "cookies"):
            self.assertFalse(getattr(ours, name))
            del stocks[name]
        self.assertEqual(stocks, own)

    def test_fields(self) -> None:
        """``Headers._rawHeaders``: lists of values by names in Twisted's form."""
        headers: Any = Headers()
        headers.addRawHeader(b"x-etag", b"a")
        headers.addRawHeader(b"X-ETAG", b"b")
        self.assertEqual(headers._rawHeaders, {b"X-Etag": [b"a", b"b"]})

    def test_what_process_and_finish_do(self) -> None:
        """``process`` of regd renders the site's resource; its ``write`` takes the place of that which makes the head."""
        self.assertIn("_handleStar()", inspect.getsource(server.Request.process))
        source = inspect.getsource(http.Request.finish)
        for name in ("if not self.startedWriting:", "if self.chunked:", "self.channel.factory.log(self)", "self.finished = 1", "_cleanup"):
            self.assertIn(name, source)
        source = inspect.getsource(http.Request.write)
        for name in ("self.startedWriting = 1", "NO_BODY_CODES", 'b"HEAD"', "self.sentLength + len(data)", "self.channel.write(data)"):
            self.assertIn(name, source)


class SiteTests(SynchronousTestCase):
    def test_the_channel_is_ours(self) -> None:
        """No wrapper around it, which would speak HTTP/2 after ALPN."""
        site = StreamingSite(Page(), lambda request: None, Clock())
        channel: Any = site.buildProtocol(IPv4Address("TCP", "192.0.2.1", 1))
        self.assertIs(type(channel), StreamingChannel)
        self.assertIs(channel.requestFactory, StreamingRequest)
        self.assertIs(channel.site, site)
        self.assertEqual(site.acceptableProtocols(), [b"http/1.1"])
        self.assertEqual(channel.timeOut, site.timeOut)

    def test_nothing_ticks_while_it_listens(self) -> None:
        """Stock's ``startFactory`` notes the time each second, for a log that regd does not use."""
        for make, calls in (
            (lambda clock: server.Site(Page(), reactor=clock), 1),
            (lambda clock: StreamingSite(Page(), lambda request: None, clock), 0),
        ):
            clock = Clock()
            site = make(clock)
            site.doStart()
            self.assertEqual(len(clock.getDelayedCalls()), calls)
            site.doStop()
            self.assertEqual(clock.getDelayedCalls(), [])

    def test_finish_logs_by_the_factory(self) -> None:
        self.assertIn("self.channel.factory.log(self)", inspect.getsource(http.Request.finish))


class TransportTests(SynchronousTestCase):
    """What :mod:`regd.web.transport` needs of Twisted's sockets."""

    def test_where_connections_are_made(self) -> None:
        """``Port.transport`` is the class of what is accepted."""
        self.assertIs(tcp.Port.transport, tcp.Server)
        self.assertIs(unix.Port.transport, unix.Server)

    def test_connections_without_a_port(self) -> None:
        """``adopt`` makes a transport that no port has accepted, as ``_fromConnectedSocket`` does, and without a second descriptor."""
        for kind in (tcp.Server, unix.Server):
            self.assertEqual(
                list(inspect.signature(kind).parameters), ["sock", "protocol", "client", "server", "sessionno", "reactor"]
            )
            self.assertIn("None", inspect.getsource(kind._fromConnectedSocket))
        for name in ("if self.server is not None", "self.startReading()", "self.connected = 1"):
            self.assertIn(name, inspect.getsource(tcp.Server.__init__))

    def test_ports(self) -> None:
        """What :mod:`regd.workers.listening` needs of a port: ``socket``, ``factory``, ``connected``; ``doRead`` it does itself."""
        source = inspect.getsource(tcp.Port)
        for name in ("self.socket = skt", "self.factory.buildProtocol(", "self.connected = True", "self.factory.doStop()", "def doRead("):
            self.assertIn(name, source)

    def test_ports_of_sockets_that_were_passed(self) -> None:
        """``listen_on`` makes ports as ``adoptStreamPort`` does, and keeps one of Unix from treating the file as its own."""
        expected = ["reactor", "fd", "addressFamily", "factory"]
        self.assertEqual(list(inspect.signature(tcp.Port._fromListeningDescriptor).parameters), expected)
        self.assertEqual(list(inspect.signature(unix.Port._fromListeningDescriptor).parameters), ["reactor", "fd", "factory"])
        self.assertIn("if self._shouldShutdown:", inspect.getsource(tcp._SocketCloser._closeSocket))
        for part in (unix.Port.startListening, unix.Port.connectionLost):
            self.assertIn("if _inFilesystemNamespace(self._bindPath):", inspect.getsource(part))

    def test_buffers(self) -> None:
        """``dataBuffer`` and ``_tempDataBuffer``: what has been written and not sent; a file goes after it."""
        descriptor: Any = FileDescriptor(Clock())  # type: ignore[arg-type]  # it is asked for no descriptors here
        descriptor.connected = True
        self.patch(descriptor, "startWriting", lambda: None)
        self.patch(descriptor, "stopWriting", lambda: None)
        self.assertEqual((descriptor.dataBuffer, descriptor._tempDataBuffer), (b"", []))
        descriptor.write(b"abc")
        self.assertEqual(descriptor._tempDataBuffer, [b"abc"])
        self.patch(descriptor, "writeSomeData", lambda data: 1)
        descriptor.doWrite()
        self.assertTrue(descriptor.dataBuffer)
        self.assertEqual(descriptor._tempDataBuffer, [])

    def test_what_a_producer_waits_for(self) -> None:
        """``_isSendBufferFull``: asked after each write; a producer is paused when it says so."""
        descriptor: Any = FileDescriptor(Clock())  # type: ignore[arg-type]  # it is asked for no descriptors here
        descriptor.connected = True
        self.patch(descriptor, "startWriting", lambda: None)
        self.patch(descriptor, "_isSendBufferFull", lambda: True)
        paused: list[object] = []

        class Producer:
            def pauseProducing(self) -> None:
                paused.append(self)

        descriptor.producer, descriptor.streamingProducer = Producer(), True
        descriptor.write(b"abc")
        self.assertEqual(len(paused), 1)

    def test_what_connectors_make(self) -> None:
        """``_makeTransport``: the connectors of ``regd/proxy/dialing.py`` make transports of their own there, with these arguments."""
        for kind, call in (
            (tcp.Connector, "return Client(self.host, self.port, self.bindAddress, self, self.reactor)"),
            (unix.Connector, "return Client(self.address, self, self.reactor, self.checkPID)"),
        ):
            self.assertIn(call, inspect.getsource(kind._makeTransport))
        self.assertIn("self.transport: Client | None = self._makeTransport()", inspect.getsource(BaseConnector.connect))

    def test_state(self) -> None:
        """Among them what forbids writing past the buffers: ``_writeDisconnecting``, ``_aborting``."""
        for name in ("disconnected", "disconnecting", "_writeDisconnecting"):
            self.assertFalse(getattr(FileDescriptor, name))
        for kind in (tcp.Server, unix.Server):
            self.assertFalse(kind._aborting)

    def test_what_is_counted(self) -> None:
        """``_tempDataLen``: what is put into ``_tempDataBuffer`` is added there."""
        descriptor: Any = FileDescriptor(Clock())  # type: ignore[arg-type]  # it is asked for no descriptors here
        descriptor.connected = True
        self.patch(descriptor, "startWriting", lambda: None)
        descriptor.write(b"abc")
        self.assertEqual(descriptor._tempDataLen, 3)

    def test_methods(self) -> None:
        for name in ("doWrite", "startWriting", "stopWriting", "connectionLost", "loseWriteConnection"):
            self.assertTrue(callable(getattr(tcp.Server, name)))
