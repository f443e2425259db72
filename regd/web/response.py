"""Answers as values, and how they reach the client: headers, then bytes from memory or from a file, as fast as the client reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from regd.errors import RegistryError
from regd.storage.driver import Content, Interrupted
from regd.web.at_once import begin
from regd.web.fields import CommonFields
from regd.web.ranges import ByteRange
from regd.web.request import StreamingRequest
from regd.web.transport import hold, send_file

__all__ = ["ContentBody", "Response", "error_response", "json_response", "send", "send_at_once", "send_rest"]

#: Content up to this size is read and sent with the headers, in one packet often, instead of by the kernel.
_SMALL: Final = 32 * 1024

#: How much is read at once where the kernel cannot send by itself, in bytes.
_CHUNK: Final = 64 * 1024

#: RFC 9110, section 8.6: no Content-Length with 204, and with 304 only that of the 200 which it stands for.
_NO_LENGTH: Final = frozenset({204, 304})

_NO_HEADERS: Final[Mapping[str, str]] = {}


@dataclass(frozen=True, slots=True)
class ContentBody:
    """
    Parts of a stored file. Whoever sends it closes ``content``.

    :ivar parts: each a text to send first, which is empty but for multipart answers, and the bytes to send after it.
    :ivar tail: what follows the last part.
    """

    content: Content
    parts: tuple[tuple[bytes, ByteRange], ...]
    tail: bytes = b""

    @property
    def length(self) -> int:
        """Bytes of the whole body."""
        return sum(len(text) + part.length for text, part in self.parts) + len(self.tail)


@dataclass(frozen=True, slots=True)
class Response:
    """
    :ivar status: the HTTP status code.
    :ivar headers: fields besides those that every answer has, a tuple for one that is repeated; ``Content-Length`` is made from the body.
    :ivar body: what to send; an ``int`` is the length of a body that HEAD speaks of and that is not sent.
    """

    status: int
    headers: Mapping[str, str | tuple[str, ...]] = field(default_factory=lambda: _NO_HEADERS)
    body: bytes | int | ContentBody = b""

    @property
    def length(self) -> int:
        """Bytes of the body."""
        if isinstance(self.body, int):
            return self.body
        return len(self.body) if isinstance(self.body, bytes) else self.body.length

    def close(self) -> None:
        """Give back what an answer that is not sent holds."""
        if isinstance(self.body, ContentBody):
            self.body.content.close()


def json_response(status: int, document: object, headers: Mapping[str, str] = _NO_HEADERS) -> Response:
    """An answer in JSON, ending in a newline, as those of ``registry:2`` do."""
    body = json.dumps(document, separators=(",", ":")).encode("ascii") + b"\n"
    return Response(status, {"Content-Type": "application/json", **headers}, body)


def error_response(error: RegistryError) -> Response:
    """The one place where an error becomes an answer."""
    return json_response(error.status, error.envelope(), error.headers)


_COMMON: Final = CommonFields()


def send_at_once(request: StreamingRequest, response: Response, common: CommonFields = _COMMON) -> bool:
    """
    Send an answer whose body is at hand, head and body in one piece, and finish the request; also one that nobody is there to be sent to.

    :param common: the fields that every answer has.
    :returns: whether that was all. Where it was not, the head is prepared, and :func:`send_rest` has to be called.
    """
    if request.client_gone:
        response.close()
        return True
    body = response.body
    length = None if response.status in _NO_LENGTH else response.length
    request.prepare(
        response.status,
        lambda: common.head(request.clientproto, response.status, request.responseHeaders.getAllRawHeaders(), response.headers, length),
    )
    if isinstance(body, ContentBody):
        if request.method != b"HEAD":
            return False
        response.close()
    request.write(body if isinstance(body, bytes) else b"")
    request.finish()
    return True


async def send_rest(request: StreamingRequest, response: Response) -> None:
    """
    Send the body that :func:`send_at_once` could not, and finish the request. A client that goes away meanwhile ends it early, and quietly.
    """
    assert isinstance(response.body, ContentBody)
    try:
        if await _send_content(request, response.body) and not request.client_gone:
            request.finish()
    finally:
        response.close()


async def send(request: StreamingRequest, response: Response, common: CommonFields = _COMMON) -> None:
    """Send an answer to its end, and finish the request, as :func:`send_at_once` and :func:`send_rest` do."""
    if not send_at_once(request, response, common):
        await send_rest(request, response)


async def _send_content(request: StreamingRequest, body: ContentBody) -> bool:
    """Whether all of it was sent; where not, the connection is lost, or about to be."""
    try:
        for text, part in body.parts:
            if not await _send_part(request, body.content, text, part):
                return False
    except Interrupted:
        return _cut_short(request)
    if body.tail:
        request.write(body.tail)
    return True


async def _send_part(request: StreamingRequest, content: Content, text: bytes, part: ByteRange) -> bool:
    """As :func:`_send_content`, a text and the range that follows it."""
    end = part.start + part.length
    # Before the text, which may be the head of the answer: of a file all is there, and the two go in one packet.
    there = await _reach(request, content, part.start) if part.length else end
    if request.client_gone:
        return False
    if part.length <= _SMALL and there >= end:
        return await _send_small(request, content, text, part)
    if content.fileno() is not None:
        hold(request.channel.transport)
    request.write(text)
    return await _send_range(request, content, part.start, end, there)


async def _send_small(request: StreamingRequest, content: Content, text: bytes, part: ByteRange) -> bool:
    """As :func:`_send_part`, in one piece."""
    data = await _whole(content, part)
    if request.client_gone or len(data) < part.length:
        return _cut_short(request)
    request.write(text + data)
    return True


async def _reach(request: StreamingRequest, content: Content, offset: int) -> int:
    """
    As :meth:`~regd.storage.driver.Content.reach`, for as long as the client is there: for one that has left, nothing is kept waiting, and
    nothing open at an upstream. Then what is returned means nothing.
    """
    reached = begin(content.reach(offset))
    if isinstance(reached, int):
        return reached
    request.on_lost = reached.cancel
    try:
        return await reached
    except CancelledError:
        if request.client_gone:
            return offset
        raise
    finally:
        request.on_lost = _nothing


def _nothing() -> None:
    """What there is to do when a client leaves that nothing waits for."""


async def _whole(content: Content, part: ByteRange) -> bytes:
    """All bytes of a small range; fewer where the file ends before it does. A backend may hand out less at once than it is asked for."""
    data = await content.read(part.start, part.length)
    while len(data) < part.length and (more := await content.read(part.start + len(data), part.length - len(data))):
        data += more
    return data


async def _send_range(request: StreamingRequest, content: Content, offset: int, end: int, there: int) -> bool:
    """
    As :func:`_send_content`, the bytes from ``offset`` to ``end``.

    :param there: up to where they have come; the others are sent as they come.
    """
    fd = content.fileno()
    while True:
        length = min(there, end) - offset
        sending = None if fd is None else send_file(request.channel.transport, fd, offset, length)
        if sending is None:
            return await _copy_range(request, content, offset, end, there)
        try:
            await sending
        except Exception:  # noqa: BLE001 - however the connection was lost, there is nobody to tell but the access log
            return False
        request.sentLength += length
        offset += length
        if offset == end:
            return True
        there = await _reach(request, content, offset)
        if request.client_gone:
            return False


async def _copy_range(request: StreamingRequest, content: Content, offset: int, end: int, there: int) -> bool:
    """As :func:`_send_range`, by way of this process."""
    pacer = _Pacer()
    request.registerProducer(pacer, True)
    try:
        while offset < end:
            if not await pacer.ready():
                return False
            if offset == there:
                there = await _reach(request, content, offset)
                if request.client_gone:
                    return False
            data = await content.read(offset, min(end - offset, there - offset, _CHUNK))
            if request.client_gone or not data:
                return _cut_short(request)
            request.write(data)
            offset += len(data)
        return True
    finally:
        if not request.client_gone:
            request.unregisterProducer()


def _cut_short(request: StreamingRequest) -> bool:
    """A file is shorter than it was: end the connection before the promised length, so that the client notices."""
    if not request.client_gone:
        request.channel.transport.abortConnection()
    return False


@implementer(IPushProducer)
class _Pacer:
    """Tells a loop that writes when it may write on."""

    def __init__(self) -> None:
        self._stopped = False
        self._waiting: Deferred[None] | None = None
        self._paused = False

    async def ready(self) -> bool:
        """Wait until there is room; ``False`` when there will be none any more."""
        while self._paused and not self._stopped:
            self._waiting = Deferred()
            await self._waiting
        return not self._stopped

    def pauseProducing(self) -> None:  # noqa: N802 - IPushProducer's name
        """The client reads more slowly than we write."""
        self._paused = True

    def resumeProducing(self) -> None:  # noqa: N802 - IPushProducer's name
        """There is room again."""
        self._paused = False
        self._wake()

    def stopProducing(self) -> None:  # noqa: N802 - IPushProducer's name
        """The client is gone."""
        self._stopped = True
        self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)
