"""Clients that go on beside a load: a slow sender, a slow reader, one that waits for answers; and the eye on the server's memory."""

from __future__ import annotations

import multiprocessing
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from typing import Final, Self

from benchmarks.servers import Server
from benchmarks.wire import HOST, Connection, UnexpectedReply

__all__ = ["Beside", "Seen"]

#: Seconds between two requests of the client that waits for answers.
_OFTEN: Final = 0.02

#: Seconds between two samples of the memory: each looks at every process of the machine, which takes milliseconds.
_SAMPLING: Final = 0.2

#: How long the clients may take to come to their end, in seconds.
_ENDING: Final = 30

_context = multiprocessing.get_context("fork")


@dataclass(frozen=True)
class Seen:
    """
    What was seen since the last look.

    :ivar latencies: of ``GET /v2/``, in seconds.
    :ivar resident: the most memory that the largest process of the server held in any sample, in bytes.
    :ivar sent: bytes that the slow sender has sent, since it began.
    :ivar read: bytes that the slow reader has read, since it began.
    :ivar failure: what went wrong, or nothing.
    """

    latencies: tuple[float, ...]
    resident: int
    sent: int
    read: int
    failure: str


class Beside:
    """
    The clients, in a process of their own, for the time of a ``with`` block.

    :param server: the registry.
    :param repository: where the slow sender pushes to.
    :param path: that of a blob for the slow reader, larger than what buffers hold.
    """

    def __init__(self, server: Server, repository: str, path: str) -> None:
        self._ours, theirs = _context.Pipe()
        self._process = _context.Process(target=_Clients(server, repository, path).run, args=(theirs,), daemon=True)

    def __enter__(self) -> Self:
        self._process.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.is_alive():
            self.end()

    def look(self) -> Seen:
        """
        What has been seen since the last look.

        :raises UnexpectedReply: when one of the clients failed.
        """
        return self._ask(end=False)

    def end(self) -> Seen:
        """
        Let the clients come to their end: the slow sender finishes its request and looks at the answer.

        :raises UnexpectedReply: when one of the clients failed.
        """
        try:
            return self._ask(end=True)
        finally:
            self._process.join(_ENDING)

    def _ask(self, *, end: bool) -> Seen:
        self._ours.send(end)
        if not self._ours.poll(_ENDING):
            raise UnexpectedReply("the clients beside the load hang")
        seen: Seen = self._ours.recv()
        if seen.failure:
            raise UnexpectedReply(f"a client beside the load failed: {seen.failure}")
        return seen


class _Clients:
    """The clients, each in a thread; see :class:`Beside`."""

    def __init__(self, server: Server, repository: str, path: str) -> None:
        self._server = server
        self._repository = repository
        self._path = path
        self._stop = threading.Event()
        self._failure = ""
        self._latencies: list[float] = []
        self._resident = 0
        self._sent = 0
        self._read = 0

    def run(self, pipe: Pipe[Seen, bool]) -> None:
        """Go on until told to end, and answer each look."""
        threads = [
            threading.Thread(target=self._guarded, args=(client,), daemon=True)
            for client in (self._send_slowly, self._read_slowly, self._wait_for_answers, self._watch_memory)
        ]
        for thread in threads:
            thread.start()
        while not self._stop.is_set():
            if pipe.recv():
                self._stop.set()
                for thread in threads:
                    thread.join(_ENDING)
            latencies, self._latencies = self._latencies, []
            resident, self._resident = self._resident, 0
            pipe.send(Seen(tuple(latencies), resident, self._sent, self._read, self._failure))

    def _guarded(self, client: Callable[[], None]) -> None:
        try:
            client()
        # Whatever goes wrong in a thread is told at the next look.
        except Exception as error:  # noqa: BLE001
            self._failure = f"{type(error).__name__}: {error}"

    def _send_slowly(self) -> None:
        """One byte a second, in one chunked request that ends properly."""
        with Connection(self._server.port) as connection:
            location = connection.request("POST", f"/v2/{self._repository}/blobs/uploads/").expect(202).location
            fields = {"Transfer-Encoding": "chunked", "Content-Type": "application/octet-stream"}
            connection.socket.sendall(connection.head("PATCH", location, fields))
            while not self._sent or not self._stop.wait(1):
                connection.socket.sendall(b"1\r\nx\r\n")
                self._sent += 1
            connection.socket.sendall(b"0\r\n\r\n")
            reply = connection.reply("PATCH").expect(202)
            if reply.fields["range"] != f"0-{self._sent - 1}":
                raise UnexpectedReply(f"{self._sent} bytes were sent, and {reply.fields['range']} arrived")

    def _read_slowly(self) -> None:
        """1 KiB a second."""
        with socket.socket() as connection:
            # Before connecting, so that the window is small from the start.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect((HOST, self._server.port))
            connection.sendall(f"GET {self._path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
            while not self._stop.wait(1):
                data = connection.recv(1024, socket.MSG_WAITALL)
                if len(data) < 1024:
                    raise UnexpectedReply("the slow download ended early")
                self._read += len(data)

    def _wait_for_answers(self) -> None:
        with Connection(self._server.port) as connection:
            while not self._stop.wait(_OFTEN):
                begun = time.monotonic()
                connection.request("GET", "/v2/").expect(200)
                self._latencies.append(time.monotonic() - begun)

    def _watch_memory(self) -> None:
        while not self._stop.wait(_SAMPLING):
            self._resident = max(self._resident, self._server.usage().resident)
