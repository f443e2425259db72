"""Pushes and pulls that take a while, each in a thread, so that something can happen to the registry meanwhile."""

from __future__ import annotations

import hashlib
import http.client
import threading
import time
from dataclasses import dataclass, field

from tests.e2e.rawhttp import Answer, digest_of
from tests.e2e.wire import Wire

__all__ = ["OCTETS", "Pull", "Push", "Transfer"]

OCTETS = "application/octet-stream"

#: So much goes out, or is taken, at a time, in bytes.
PIECE = 64 * 1024


@dataclass
class Transfer:
    """
    One request, whose body moves no faster than it should.

    :ivar port: the registry's, on 127.0.0.1.
    :ivar rate: of the body, in bytes a second.
    :ivar moved: how many bytes of the body have.
    :ivar error: what ended it before its time.
    """

    port: int
    rate: int
    moved: int = 0
    error: str = ""
    _thread: threading.Thread = field(init=False)

    def start(self) -> None:
        """Begin."""
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def wait(self) -> None:
        """Wait for its end."""
        self._thread.join()

    @property
    def under_way(self) -> bool:
        """Whether it has not ended."""
        return self._thread.is_alive()

    def _run(self) -> None:
        wire = Wire(self.port, PIECE)
        try:
            self._move(wire)
        except (OSError, http.client.HTTPException) as error:
            self.error = repr(error)
        finally:
            wire.close()

    def _move(self, wire: Wire) -> None:
        raise NotImplementedError

    def _pause(self, size: int) -> None:
        time.sleep(size / self.rate)


@dataclass
class Push(Transfer):
    """
    A body that is sent.

    :ivar path: where to, with its query.
    :ivar chunked: whether it goes in chunks.
    :ivar answer: what the registry said.
    """

    method: str = "PUT"
    path: str = ""
    content: bytes = b""
    chunked: bool = False
    answer: Answer | None = None

    def _move(self, wire: Wire) -> None:
        framing: dict[str, object] = {"Transfer-Encoding": "chunked"} if self.chunked else {"Content-Length": len(self.content)}
        wire.head(self.method, self.path, {**framing, "Content-Type": OCTETS})
        for offset in range(0, len(self.content), PIECE):
            piece = self.content[offset : offset + PIECE]
            if self.chunked:
                wire.chunk(piece)
            else:
                wire.socket.sendall(piece)
            self.moved += len(piece)
            self._pause(len(piece))
        if self.chunked:
            wire.chunk(b"")
        self.answer = wire.answer(self.method)


@dataclass
class Pull(Transfer):
    """
    A blob that is read.

    :ivar path: of the blob.
    :ivar digest: of what has come.
    :ivar status: of the answer.
    """

    path: str = ""
    digest: str = digest_of(b"")
    status: int = 0

    def _move(self, wire: Wire) -> None:
        wire.head("GET", self.path)
        response = http.client.HTTPResponse(wire.socket)
        response.begin()
        self.status = response.status
        found = hashlib.sha256()
        while data := response.read(PIECE):
            found.update(data)
            self.moved += len(data)
            self.digest = f"sha256:{found.hexdigest()}"
            self._pause(len(data))
