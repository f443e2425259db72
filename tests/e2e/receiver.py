"""A webhook receiver that a test can take down, have answer as it likes, hang, and bring back on the same port."""

import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.e2e.process import free_port

__all__ = ["Delivered", "Receiver"]


@dataclass(frozen=True)
class Delivered:
    """
    One request.

    :ivar headers: By lower-case name.
    :ivar event: The one event of its envelope. ``Any``: it is JSON.
    :ivar text: The envelope as it came.
    :ivar status: What it was answered, 0 for nothing.
    :ivar when: On the clock that only goes on, in seconds.
    """

    path: str
    headers: Mapping[str, str]
    event: Mapping[str, Any]
    text: bytes
    status: int
    when: float


class Receiver:
    """
    :ivar status: What is answered; 0 for hanging until :meth:`release`, and then nothing.
    :ivar requests: All that came, in order.
    """

    def __init__(self) -> None:
        self.port = free_port()
        self.status = 200
        self.requests: list[Delivered] = []
        self._released = threading.Event()
        self._lock = threading.Lock()
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        """Where events are to be sent to."""
        return f"http://127.0.0.1:{self.port}/hook?a=b"

    @property
    def taken(self) -> list[Delivered]:
        """What was answered with 200."""
        return [one for one in list(self.requests) if one.status == 200]

    def start(self) -> None:
        """Listen."""
        receiver = self
        self._released.clear()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver.take(self)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in the base class
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Listen no more: who wants to connect is refused. Safe to call at any time."""
        self.release()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def release(self) -> None:
        """Close the connections that hang."""
        self._released.set()

    def take(self, handler: BaseHTTPRequestHandler) -> None:
        """A request has come."""
        text = handler.rfile.read(int(handler.headers["Content-Length"]))
        with self._lock:
            status = self.status
            headers = {name.lower(): value for name, value in handler.headers.items()}
            (event,) = json.loads(text)["events"]
            self.requests.append(Delivered(handler.path, headers, event, text, status, time.monotonic()))
        handler.close_connection = True
        if status == 0:
            self._released.wait(60)
            return
        handler.send_response(status)
        handler.send_header("Content-Length", "0")
        handler.end_headers()
