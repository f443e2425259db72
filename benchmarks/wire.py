"""
HTTP/1.1 over one raw socket, for clients that must cost less than the servers they measure: bodies go out with ``sendfile`` and what comes
back is thrown away in the kernel. Nothing here is fit for a server that is not on this machine, or that lies.
"""

from __future__ import annotations

import mmap
import os
import re
import socket
import ssl
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

from benchmarks.payload import Payload

__all__ = ["HOST", "Connection", "Reply", "SecureConnection", "UnexpectedReply"]

#: Load goes to this machine and nowhere else.
HOST: Final = "127.0.0.1"

#: A server that says nothing for so many seconds has failed.
TIMEOUT: Final = 120

#: The most that is thrown away in one call, in bytes.
_SINK: Final = 4 * 1024 * 1024

#: By another name, because connections have a property of this one.
_Socket = socket.socket

_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class UnexpectedReply(Exception):
    """A server answered something else than it should, or nothing; the message says what."""


@dataclass(frozen=True, slots=True)
class Reply:
    """
    :ivar status: the HTTP status code.
    :ivar fields: header fields by lower-case name.
    :ivar body: the body, or nothing where it was thrown away.
    """

    status: int
    fields: Mapping[str, str]
    body: bytes

    @property
    def location(self) -> str:
        """The path and query of the ``Location`` field."""
        parts = urlsplit(self.fields["location"])
        return parts.path + (f"?{parts.query}" if parts.query else "")

    def expect(self, *statuses: int) -> Reply:
        """
        :return: the reply itself.
        :raises UnexpectedReply: when its status is not one of ``statuses``.
        """
        if self.status not in statuses:
            raise UnexpectedReply(f"{self.status} instead of {statuses[0]}: {self.body[:300]!r}")
        return self


class Connection:
    """
    One keep-alive connection to a server on this machine, which opens itself when it is needed, and again when the server closed it.

    :param port: the server's port.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket: socket.socket | None = None
        self._sink = bytearray(0)
        self._received = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the connection. Safe to call at any time."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._received = b""

    @property
    def socket(self) -> socket.socket:
        """The open socket, for callers that send at their own pace."""
        if self._socket is None:
            made = socket.create_connection((HOST, self._port))
            # The kernel's time-outs: with Python's own the socket would not block, which sendfile does not expect.
            for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
                made.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", TIMEOUT, 0))
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket = self._wrapped(made)
        return self._socket

    def _wrapped(self, made: _Socket) -> _Socket:
        return made

    def head(self, method: str, target: str, fields: Mapping[str, str]) -> bytes:
        """The first part of a request, up to the empty line."""
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        return f"{method} {target} HTTP/1.1\r\nHost: {HOST}:{self._port}\r\n{lines}\r\n".encode()

    def request(self, method: str, target: str, body: bytes = b"", **fields: str) -> Reply:
        """
        Send a request whose body is in memory, and read the answer.

        :param fields: header fields, with ``_`` for ``-``.
        :raises UnexpectedReply: when the server closes the connection without an answer.
        """
        named = {name.replace("_", "-"): value for name, value in fields.items()}
        if method not in {"GET", "HEAD", "DELETE"}:
            named["Content-Length"] = str(len(body))
        self.socket.sendall(self.head(method, target, named) + body)
        return self.reply(method)

    def upload(self, method: str, target: str, payload: Payload, tail: bytes, *, chunked: bool) -> Reply:
        """
        Send a request with ``payload`` and then ``tail`` as its body.

        :param chunked: send it in chunks of 32 KiB, as docker does, instead of with its length.
        """
        how = {"Transfer-Encoding": "chunked"} if chunked else {"Content-Length": str(payload.size + len(tail))}
        self._begin(self.head(method, target, {"Content-Type": "application/octet-stream", **how}))
        if chunked:
            self._send_file(payload.chunked_fd, payload.chunked_size)
            self.socket.sendall(b"%x\r\n%s\r\n0\r\n\r\n" % (len(tail), tail))
        else:
            self._send_file(payload.fd, payload.size)
            self.socket.sendall(tail)
        return self.reply(method)

    def _begin(self, head: bytes) -> None:
        self.socket.sendall(head, socket.MSG_MORE)

    def _send_file(self, fd: int, size: int) -> None:
        offset = 0
        while offset < size:
            offset += os.sendfile(self.socket.fileno(), fd, offset, size - offset)

    def download(self, target: str) -> int:
        """
        GET a body and let the kernel drop it.

        :return: its length in bytes.
        :raises UnexpectedReply: when the status is not 200, or the body ends early.
        """
        self.socket.sendall(self.head("GET", target, {}))
        reply, length = self._reply_head()
        reply.expect(200)
        if not self._sink:
            self._sink = bytearray(_SINK)
        left = length - len(self._received)
        self._received = b""
        while left:
            count = self._drop(min(left, _SINK))
            if not count:
                raise UnexpectedReply(f"the body of {target} ended {left} bytes early")
            left -= count
        return length

    def _drop(self, most: int) -> int:
        # With MSG_TRUNC the bytes of a TCP socket are not copied (tcp(7)): the client pays next to nothing for them.
        return self.socket.recv_into(self._sink, most, socket.MSG_TRUNC)

    def reply(self, method: str) -> Reply:
        """
        Read one answer.

        :param method: that of the request: the answer to HEAD has no body.
        """
        reply, length = self._reply_head()
        if method == "HEAD" or reply.status in {204, 304}:
            return reply
        body = self._chunks() if reply.fields.get("transfer-encoding", "").lower() == "chunked" else self._take(length)
        if reply.fields.get("connection", "").lower() == "close":
            self.close()
        return Reply(reply.status, reply.fields, body)

    def _take(self, length: int) -> bytes:
        while len(self._received) < length:
            self._receive()
        taken, self._received = self._received[:length], self._received[length:]
        return taken

    def _chunks(self) -> bytes:
        """A body in the chunked coding (RFC 9112, section 7.1), as Go sends what it does not know the length of; without trailers."""
        chunks = []
        while True:
            while b"\r\n" not in self._received:
                self._receive()
            size, _, self._received = self._received.partition(b"\r\n")
            chunks.append(self._take(int(size, 16)))
            self._take(2)
            if not chunks[-1]:
                return b"".join(chunks)

    def _reply_head(self) -> tuple[Reply, int]:
        while b"\r\n\r\n" not in self._received:
            self._receive()
        head, _, self._received = self._received.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        first, *lines = head.decode("latin-1").split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        return Reply(int(first.split(" ")[1]), fields, b""), int(length[1]) if length else 0

    def _receive(self) -> None:
        data = self.socket.recv(64 * 1024)
        if not data:
            raise UnexpectedReply(f"the server closed the connection after {self._received[:100]!r}")
        self._received += data


class SecureConnection(Connection):
    """
    The same with TLS. What the client pays for it, it pays whatever the server is; the certificate is nobody's concern here.
    """

    def _wrapped(self, made: _Socket) -> _Socket:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context.wrap_socket(made)

    def _begin(self, head: bytes) -> None:
        self.socket.sendall(head)

    def _send_file(self, fd: int, size: int) -> None:
        with mmap.mmap(fd, size, prot=mmap.PROT_READ) as content, memoryview(content) as view:
            self.socket.sendall(view)

    def _drop(self, most: int) -> int:
        return self.socket.recv_into(self._sink, most)
