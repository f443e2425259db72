"""A connection in memory: the transport that a server sees, what a client makes of the bytes, and nothing of a network in between."""

# Twisted's StringTransport has no types, and super() of a class of ours counts as ours.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IAddress
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

__all__ = ["Answer", "Client", "Wire", "chunked", "parse_answers", "request_bytes"]

#: What one read of a socket takes at most, in bytes; Twisted's own.
READ = 65536


class Wire(StringTransport):
    """
    A transport that behaves as a socket does: it reads only while it may, and the end of a connection arrives after it was asked for.

    :ivar write_closed: Whether the server has shut its side.
    :ivar aborted: Whether it was cut.
    """

    write_closed = False
    aborted = False
    #: Whom the client's certificate is for; empty without one.
    certified = ""

    def __init__(self, clock: Clock, peer: IAddress | None = None) -> None:
        super().__init__(peerAddress=peer or IPv4Address("TCP", "192.0.2.7", 40000), lenient=True)
        self.clock = clock
        self.protocol: Any = None
        self.inbox = bytearray()
        self._lost = False

    def write(self, data: bytes) -> None:
        if not self.write_closed and not self._lost:
            super().write(data)

    def writeSequence(self, data: Sequence[bytes]) -> None:
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        super().loseConnection()
        self.clock.callLater(0, self.end, ConnectionDone())

    def loseWriteConnection(self) -> None:
        self.write_closed = True

    def abortConnection(self) -> None:
        self.aborted = self.disconnecting = True
        self.clock.callLater(0, self.end, ConnectionAborted())

    def unregisterProducer(self) -> None:
        # That of a socket does not mind being asked twice.
        if self.producer is not None:
            super().unregisterProducer()

    def resumeProducing(self) -> None:
        super().resumeProducing()
        self.clock.callLater(0, self.deliver)

    def deliver(self, size: int = READ) -> None:
        """Hand over what has arrived, ``size`` bytes at a time, for as long as the server reads."""
        while self.inbox and self.producerState == "producing" and not self.disconnecting and not self._lost:
            data = bytes(self.inbox[:size])
            del self.inbox[:size]
            self.protocol.dataReceived(data)

    def end(self, reason: Exception) -> None:
        """The connection is gone, as the server learns of it."""
        if not self._lost:
            self._lost = self.disconnecting = self.disconnected = True
            if self.producer is not None:
                # A socket tells its producer before its protocol.
                self.producer.stopProducing()
            self.protocol.connectionLost(Failure(reason))

    @property
    def lost(self) -> bool:
        """Whether the connection is gone."""
        return self._lost


@dataclass(frozen=True)
class Answer:
    """One answer as a client reads it; the names of ``headers`` are as they were sent."""

    status: int
    reason: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def all(self, name: str) -> list[str]:
        return [value for found, value in self.headers if found.lower() == name.lower()]

    def get(self, name: str) -> str | None:
        values = self.all(name)
        assert len(values) < 2, f"{name} is there more than once: {values}"
        return values[0] if values else None

    def __getitem__(self, name: str) -> str:
        value = self.get(name)
        assert value is not None, f"no {name} in {self.headers}"
        return value


def request_bytes(
    method: str, target: str | bytes, headers: Sequence[tuple[str, str | bytes]] = (), body: bytes | None = None, version: str = "HTTP/1.1"
) -> bytes:
    """A request as it goes over the wire; ``Host`` and ``Content-Length`` are added where they are missing."""
    names = {name.lower() for name, _ in headers}
    raw_target = target if isinstance(target, bytes) else target.encode("ascii")
    lines = [b"%s %s %s" % (method.encode("latin-1"), raw_target, version.encode("ascii"))]
    if "host" not in names:
        lines.append(b"Host: registry.example:5000")
    lines += [name.encode("ascii") + b": " + (value if isinstance(value, bytes) else value.encode()) for name, value in headers]
    if body is not None and not {"content-length", "transfer-encoding"} & names:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + (body or b"")


def chunked(*chunks: bytes) -> bytes:
    """A chunked body (RFC 9112, section 7.1)."""
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks if chunk) + b"0\r\n\r\n"


def parse_answers(data: bytes, methods: Sequence[str]) -> tuple[list[Answer], bytes]:
    """
    What a strict client reads.

    :param methods: Those of the requests that were sent: the answer to HEAD has no body.
    :return: The complete answers, interim ones among them, and the bytes that are left.
    """
    answers: list[Answer] = []
    asked = list(methods)
    while b"\r\n\r\n" in data:
        head, rest = data.split(b"\r\n\r\n", 1)
        first, *lines = head.decode("latin-1").split("\r\n")
        version, status, reason = first.split(" ", 2)
        assert version in {"HTTP/1.1", "HTTP/1.0"}, first
        headers = []
        for line in lines:
            name, colon, value = line.partition(": ")
            assert colon, f"not a header: {line!r}"
            headers.append((name, value))
        answer = Answer(int(status), reason, tuple(headers), b"")
        if answer.status >= 200:
            method = asked.pop(0) if asked else "GET"
            body, rest = _body(answer, method, rest)
            if body is None:
                break
            answer = Answer(answer.status, reason, answer.headers, body)
        answers.append(answer)
        data = rest
    return answers, data


def _body(answer: Answer, method: str, data: bytes) -> tuple[bytes | None, bytes]:
    if method == "HEAD" or answer.status in {204, 304}:
        assert answer.get("Transfer-Encoding") is None
        return b"", data
    if answer.get("Transfer-Encoding") == "chunked":
        return _chunks(data)
    length = int(answer["Content-Length"])
    return (data[:length], data[length:]) if len(data) >= length else (None, data)


def _chunks(data: bytes) -> tuple[bytes | None, bytes]:
    body = b""
    while b"\r\n" in data:
        size, data = data.split(b"\r\n", 1)
        length = int(size, 16)
        if len(data) < length + 2:
            break
        body, data = body + data[:length], data[length + 2 :]
        if not length:
            return body, data
    return None, data


class Client:
    """
    One connection to a site, seen from the client's end.

    :param site: The factory of the channel.
    :param clock: The reactor that the site was given.
    """

    def __init__(self, site: Any, clock: Clock, peer: IAddress | None = None) -> None:
        self.clock = clock
        self.wire = Wire(clock, peer)
        self.channel = site.buildProtocol(self.wire.getPeer())
        self.wire.protocol = self.channel
        self.channel.makeConnection(self.wire)
        self.asked: list[str] = []
        self.answers: list[Answer] = []
        self._unread = b""

    def send(self, data: bytes, size: int = READ) -> None:
        """
        Send bytes; the server gets them ``size`` at a time, as far as it reads.
        """
        self.wire.inbox += data
        self.wire.deliver(size)
        self.settle()

    def settle(self) -> None:
        """Let everything happen that needs no time."""
        for _ in range(1000):
            due = [call for call in self.clock.getDelayedCalls() if call.getTime() <= self.clock.seconds()]
            if not due:
                break
            self.clock.advance(0)
        self._unread += self.wire.value()
        self.wire.clear()
        found, self._unread = parse_answers(self._unread, self.asked)
        self.answers += found
        del self.asked[: sum(answer.status >= 200 for answer in found)]

    def ask(
        self,
        method: str,
        target: str | bytes,
        headers: Sequence[tuple[str, str | bytes]] = (),
        body: bytes | None = None,
        *,
        version: str = "HTTP/1.1",
        size: int = READ,
    ) -> Answer:
        """Send a request, and read its answer, which has to be there at once and to be all that came."""
        self.asked.append(method)
        before = len(self.answers)
        self.send(request_bytes(method, target, headers, body, version), size)
        final = [answer for answer in self.answers[before:] if answer.status >= 200]
        assert len(final) == 1, f"{method} {target!r} got {final}, and {self._unread!r} besides"
        assert self._unread == b"", f"{method} {target!r}: left over: {self._unread!r}"
        return final[0]

    @property
    def unread(self) -> bytes:
        """What has come that is not a whole answer."""
        return self._unread

    @property
    def statuses(self) -> list[int]:
        """Those of all answers so far."""
        return [answer.status for answer in self.answers]

    def leave(self, reason: Exception | None = None) -> None:
        """Go away."""
        self.wire.end(reason or ConnectionLost())
        self.settle()
