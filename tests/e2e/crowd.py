"""
Many clients that pull the same thing at once, in a process of their own: ``python -m tests.e2e.crowd PORT PATH COUNT``.

It prints a line of JSON with the ports of its connections when all have sent their requests, and one with what became of each at the end.
"""

from __future__ import annotations

import hashlib
import json
import re
import selectors
import socket
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

from tests.e2e.daemon import ROOT

__all__ = ["Crowd", "Pulled"]

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)

# Longer than any test lasts, in seconds.
_PATIENCE = 150


@dataclass(frozen=True)
class Pulled:
    """
    What one client got.

    :ivar status: of the answer; 0 where there was none.
    :ivar first: until the first byte of the body, in seconds from when the request went out.
    :ivar seconds: until the end.
    :ivar size: bytes of the body that came.
    :ivar whole: whether that was as much as was promised.
    :ivar digest: of what came.
    :ivar head: of the answer, or the error that ended it.
    """

    status: int
    first: float
    seconds: float
    size: int
    whole: bool
    digest: str
    head: str


class Crowd:
    """
    Clients that have begun to pull.

    :param port: the registry's, on 127.0.0.1.
    :param path: of what they ask for.
    :param count: how many there are.
    :ivar ports: those of the connections, theirs.
    """

    def __init__(self, port: int, path: str, count: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.e2e.crowd", str(port), path, str(count)],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        self._output = self._process.stdout
        self.ports: list[int] = json.loads(self._output.readline())

    def leave(self) -> None:
        """Have them go away, as a client does that is killed. Safe to call at any time."""
        self._process.kill()
        self._process.wait()
        self._output.close()

    def pulled(self) -> list[Pulled]:
        """
        Wait for their end.

        :return: what each got.
        """
        line = self._output.readline()
        self._process.wait()
        self._output.close()
        return [Pulled(**one) for one in json.loads(line)]


class _Client:
    """One of them; see :class:`Pulled`."""

    def __init__(self, port: int, path: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode())
        self.socket.setblocking(False)
        self._begun = time.monotonic()
        self._first = self._seconds = 0.0
        self._head, self._body = b"", False
        self._size, self._length = 0, -1
        self._hash = hashlib.sha256()
        self._error = ""

    def receive(self, buffer: bytearray) -> bool:
        """
        :return: whether more may come.
        """
        try:
            count = self.socket.recv_into(buffer)
        except BlockingIOError:
            return True
        except OSError as error:
            self._error = repr(error)
            count = 0
        self._seconds = time.monotonic() - self._begun
        data = memoryview(buffer)[:count]
        if not self._body:
            self._head += bytes(data)
            head, end, rest = self._head.partition(b"\r\n\r\n")
            if not end:
                return bool(count)
            self._head, self._body, data = head + end, True, memoryview(rest)
            length = _LENGTH.search(self._head)
            self._length = int(length[1]) if length else -1
        if data and not self._size:
            self._first = self._seconds
        self._hash.update(data)
        self._size += len(data)
        return bool(count) and self._size != self._length

    def pulled(self) -> Pulled:
        """What became of it."""
        status = int(self._head[9:12]) if self._head.startswith(b"HTTP/1.1 ") else 0
        head = self._error or self._head.decode("latin-1")
        whole = self._size == self._length
        return Pulled(status, self._first, self._seconds, self._size, whole, f"sha256:{self._hash.hexdigest()}", head)


def _tell(document: Any) -> None:
    sys.stdout.write(f"{json.dumps(document)}\n")
    sys.stdout.flush()


def main(port: int, path: str, count: int) -> None:
    """Be the crowd."""
    clients = [_Client(port, path) for _ in range(count)]
    _tell([client.socket.getsockname()[1] for client in clients])
    buffer = bytearray(1 << 18)
    end = time.monotonic() + _PATIENCE
    with selectors.DefaultSelector() as selector:
        for client in clients:
            selector.register(client.socket, selectors.EVENT_READ, client)
        while selector.get_map() and time.monotonic() < end:
            for key, _ in selector.select(1):
                if not key.data.receive(buffer):
                    selector.unregister(key.fileobj)
                    key.data.socket.close()
    _tell([asdict(client.pulled()) for client in clients])


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
