"""From a handler to an answer: what becomes of each way in which it can end."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost

from regd.errors import BlobUnknown
from regd.storage.driver import Full, StorageError
from regd.web.body import BodyAborted
from regd.web.dispatch import Dispatcher
from regd.web.ranges import ByteRange
from regd.web.request import StreamingRequest
from regd.web.response import ContentBody, Response
from tests.web.test_request import SiteCase
from tests.web.test_response import MemoryContent
from tests.web.wire import Client, request_bytes

HEADERS: dict[str, str | tuple[str, ...]] = {
    "ETag": '"x"',
    "Cache-Control": "max-age=31536000",
    "Content-Range": "bytes 0-9/10",
    "X-Tuple": ("1", "2"),
}


class DispatcherTests(SiteCase):
    def setUp(self) -> None:
        super().setUp()
        self.dispatcher = Dispatcher({"X-Configured": ("yes",)})
        self.handler: Callable[[], Awaitable[Response]] = self.never
        self.waiting: Deferred[Response] = Deferred()
        self.resource.on_request = self.dispatch

    async def never(self) -> Response:
        return await self.waiting

    def dispatch(self, request: StreamingRequest) -> None:
        # As Klein does with what an endpoint returns.
        request.render(self.dispatcher.answering(self.handler))  # type: ignore[no-untyped-call]  # Twisted's

    def ends_with(self, outcome: Response | Exception) -> None:
        async def handler() -> Response:
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        self.handler = handler

    def get(self) -> Client:
        client = self.client()
        client.send(request_bytes("GET", "/"))
        return client

    def content(self, size: int, error: Exception | None = None) -> MemoryContent:
        content = MemoryContent(b"x" * size)
        content.error = error
        self.ends_with(Response(206, HEADERS, ContentBody(content, ((b"", ByteRange(0, size)),))))
        return content

    def test_answers(self) -> None:
        self.ends_with(Response(200, {}, b"ok"))
        (answer,) = self.get().answers
        for name, value in (("Server", "regd"), ("X-Configured", "yes"), ("Docker-Distribution-Api-Version", "registry/2.0")):
            self.assertEqual(answer[name], value)

    def test_errors(self) -> None:
        for error, status, code in (
            (BlobUnknown(), 404, "BLOB_UNKNOWN"),
            (StorageError("/secret"), 503, "UNAVAILABLE"),
            (Full("/secret"), 507, "UNAVAILABLE"),
            (ZeroDivisionError("/secret"), 500, "UNKNOWN"),
        ):
            self.ends_with(error)
            client = self.get()
            (answer,) = client.answers
            self.assertEqual((answer.status, json.loads(answer.body)["errors"][0]["code"]), (status, code))
            self.assertNotIn(b"secret", answer.body)
            self.assertEqual(answer["X-Configured"], "yes")
            self.assertFalse(client.wire.lost)
        self.flushLoggedErrors(ZeroDivisionError)

    def test_content_that_cannot_be_read_before_anything_is_sent(self) -> None:
        """The error is the whole answer, and nothing that was to be said of the content is said of it."""
        for error, status in ((StorageError("/secret"), 503), (ZeroDivisionError("/secret"), 500)):
            content = self.content(10, error)
            client = self.get()
            (answer,) = client.answers
            self.assertEqual((answer.status, answer["Content-Type"], content.closed), (status, "application/json", 1))
            for name in HEADERS:
                self.assertEqual(answer.all(name), [])
            self.assertEqual((answer["X-Configured"], len(answer.all("Date"))), ("yes", 1))
            self.assertFalse(client.wire.lost)
        self.flushLoggedErrors(ZeroDivisionError)

    def test_content_that_cannot_be_read_any_more(self) -> None:
        """Nothing can be said: the connection ends before the length that was promised."""
        for error in (StorageError("x"), ZeroDivisionError()):
            content = self.content(1_000_000, error)
            client = self.get()
            self.assertEqual((client.answers, client.wire.lost, content.closed), ([], True, 1))
            self.assertIn(b"Content-Length: 1000000", client.unread)
        self.flushLoggedErrors(ZeroDivisionError)
        self.assertEqual([code for _, code in self.logged], [499, 499])

    def test_a_body_that_was_given_up(self) -> None:
        """Whatever the reason, a client that is still there is not left without an end."""
        self.ends_with(BodyAborted())
        client = self.get()
        self.assertEqual((client.answers, client.wire.lost), ([], True))

    def test_a_client_that_goes_away(self) -> None:
        """The handler runs on, and its answer is for nobody."""
        self.handler = self.never
        client = self.get()
        client.leave(ConnectionLost())
        content = MemoryContent(b"x")
        self.waiting.callback(Response(200, {}, ContentBody(content, ((b"", ByteRange(0, 1)),))))
        self.assertEqual((content.closed, [code for _, code in self.logged]), (1, [499]))

    def test_settle(self) -> None:
        """Stopping waits for the handlers that run."""
        self.successResultOf(Deferred.fromCoroutine(self.dispatcher.settle()))
        self.handler = self.never
        client = self.get()
        done = Deferred.fromCoroutine(self.dispatcher.settle())
        self.assertNoResult(done)
        client.leave(ConnectionLost())
        self.assertNoResult(done)
        self.waiting.callback(Response(200))
        self.successResultOf(done)
