"""regd as a reverse proxy, and upstreams that a test writes the answers of, byte by byte."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.e2e.daemon import SOURCES, Daemon, regd_command
from tests.e2e.process import free_port, wait_until
from tests.e2e.rawhttp import Client

__all__ = ["Exchange", "Proxy", "Upstream", "ask_raw", "sends", "simple", "stalls"]

CONFIGURATION = """\
version: 0.1
log: {{level: info}}
{storage}
http:
  addr: {address}
  workers: {workers}
  draintimeout: 20s
  debug: {{addr: "127.0.0.1:{debug}"}}
{http}
reverseproxy:
{reverseproxy}
"""


class Proxy(Daemon):
    """
    regd that passes requests on.

    :param reverseproxy: what stands in that section, each line indented by two spaces.
    :param http: further lines of the section ``http``, likewise.
    :param storage: the section ``storage``, if there is to be one.
    :param environment: further variables.
    """

    def __init__(
        self,
        directory: Path,
        reverseproxy: str,
        *,
        http: str = "",
        storage: str = "",
        workers: int = 1,
        environment: dict[str, str] | None = None,
    ) -> None:
        super().__init__(directory)
        self.debug = free_port()
        self.configuration = directory / "config.yml"
        self._made = {"storage": storage, "workers": workers, "http": http, "debug": self.debug, "address": f"127.0.0.1:{self.port}"}
        self.configure(reverseproxy)
        self.runs(regd_command(self.configuration), SOURCES | (environment or {}))

    def configure(self, reverseproxy: str) -> None:
        """Write the configuration anew; SIGHUP makes it count."""
        self.configuration.write_text(CONFIGURATION.format(reverseproxy=reverseproxy, **self._made), encoding="utf-8")

    def _answers(self) -> bool:
        """Whatever it answers."""
        return " serves http" in self.program.output()

    def upstreams(self) -> dict[str, dict[str, int]]:
        """
        :return: The numbers of each upstream, those of all workers together.
        """
        document: Any = Client(self.debug).get("/debug/vars").json()
        found: dict[str, dict[str, int]] = {}
        for worker in document["workers"]:
            for name, numbers in worker.get("upstreams", {}).items():
                total = found.setdefault(name, dict.fromkeys(numbers, 0))
                for key, value in numbers.items():
                    total[key] += value
        return found

    def connections(self) -> tuple[int, int]:
        """
        :return: How many connections to upstreams have a request, and how many are open, in all.
        """
        found = self.upstreams().values()
        return sum(numbers["requests"] for numbers in found), sum(numbers["connections"] for numbers in found)

    def wait_quiet(self) -> None:
        """Wait until no upstream has a request, and every connection that is left waits for one."""

        def quiet() -> bool:
            return all(not numbers["requests"] and numbers["connections"] == numbers["idle"] for numbers in self.upstreams().values())

        wait_until(quiet, 10, f"no connection to be left: {self.upstreams()}")


@dataclass
class Exchange:
    """
    One request as an upstream sees it.

    :ivar head: All of it, the empty line included.
    :ivar rest: What came along with it of the body.
    """

    socket: socket.socket
    head: bytes
    rest: bytes
    body: bytes = b""

    @property
    def line(self) -> str:
        return self.head.partition(b"\r\n")[0].decode("latin-1")

    @property
    def fields(self) -> list[tuple[str, str]]:
        lines = self.head.decode("latin-1").split("\r\n")[1:-2]
        return [(name, value.strip(" \t")) for name, _, value in (line.partition(":") for line in lines)]

    def all(self, name: str) -> list[str]:
        return [value for found, value in self.fields if found.lower() == name.lower()]

    def read_body(self) -> bytes:
        """The body, by its length or its chunks; decoded."""
        if self.all("transfer-encoding"):
            content = b""
            while True:
                size = int(self._line(), 16)
                content += self._take(size)
                assert self._take(2) == b"\r\n"
                if not size:
                    self.body = content
                    return content
        self.body = self._take(int((self.all("content-length") or ["0"])[0]))
        return self.body

    def send(self, data: bytes | memoryview) -> None:
        self.socket.sendall(data)

    def _line(self) -> bytes:
        while b"\r\n" not in self.rest:
            self._more()
        line, _, self.rest = self.rest.partition(b"\r\n")
        return line

    def _take(self, size: int) -> bytes:
        while len(self.rest) < size:
            self._more()
        data, self.rest = self.rest[:size], self.rest[size:]
        return data

    def _more(self) -> None:
        data = self.socket.recv(1 << 20)
        if not data:
            raise ConnectionError("the body ended early")
        self.rest += data


def simple(content: bytes = b"ok\n", status: str = "200 OK", fields: str = "") -> Callable[[Exchange], bool]:
    """
    :return: What answers every request like this, after its body.
    """

    def answer(exchange: Exchange) -> bool:
        exchange.read_body()
        head = f"HTTP/1.1 {status}\r\nContent-Length: {len(content)}\r\n{fields}\r\n".encode("latin-1")
        exchange.send(head + (b"" if exchange.line.startswith("HEAD ") else content))
        return True

    return answer


@dataclass
class Upstream:
    """
    A server whose answers a test writes.

    :ivar answer: Called with each request, in a thread of its connection; says whether the connection goes on.
    :ivar seen: The requests, in the order in which they came.
    :ivar open: How many connections are open.
    :ivar accepted: How many there have been.
    """

    answer: Callable[[Exchange], bool] = field(default_factory=simple)
    context: ssl.SSLContext | None = None
    path: str | None = None
    seen: list[Exchange] = field(default_factory=list)
    open: int = 0
    accepted: int = 0

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._listening = socket.socket(socket.AF_UNIX if self.path else socket.AF_INET)
        self._listening.bind(self.path or ("127.0.0.1", 0))
        self._listening.listen(128)
        self.port = 0 if self.path else self._listening.getsockname()[1]
        self._sockets: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"{'https' if self.context else 'http'}://127.0.0.1:{self.port}"

    def close(self) -> None:
        """End it, and every connection."""
        # Whoever waits in accept() wakes up by this alone.
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for one in list(self._sockets):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                accepted, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(accepted,), daemon=True).start()

    def _serve(self, accepted: socket.socket) -> None:
        with self._lock:
            self.open += 1
            self.accepted += 1
        try:
            # Whatever becomes of a connection is the test's to see on the other side.
            with contextlib.suppress(OSError, ValueError):
                accepted.settimeout(60)
                if self.context is not None:
                    accepted = self.context.wrap_socket(accepted, server_side=True)
                self._sockets.add(accepted)
                self._talk(accepted)
        finally:
            self._sockets.discard(accepted)
            accepted.close()
            with self._lock:
                self.open -= 1

    def _talk(self, accepted: socket.socket) -> None:
        rest = b""
        while True:
            while b"\r\n\r\n" not in rest:
                data = accepted.recv(65536)
                if not data:
                    return
                rest += data
            head, _, rest = rest.partition(b"\r\n\r\n")
            exchange = Exchange(accepted, head + b"\r\n\r\n", rest)
            with self._lock:
                self.seen.append(exchange)
            if not self.answer(exchange):
                return
            rest = exchange.rest


def sends(data: bytes, *, goes_on: bool = False) -> Callable[[Exchange], bool]:
    """
    :return: What sends these bytes as soon as it has a head, and closes, or goes on.
    """

    def answer(exchange: Exchange) -> bool:
        exchange.send(data)
        return goes_on

    return answer


def stalls(seconds: float) -> Callable[[Exchange], bool]:
    """
    :return: What says nothing, and then closes.
    """

    def answer(exchange: Exchange) -> bool:
        time.sleep(seconds)
        return False

    return answer


def ask_raw(port: int, data: bytes, *, until_close: bool = False, seconds: float = 20) -> bytes:
    """
    Send bytes and read what comes back.

    :param until_close: Read until the connection ends; else until the head and a body of its Content-Length, or all chunks, are there.
    """
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(data)
        found = b""
        while until_close or not _whole(found, bodiless=data.startswith(b"HEAD ")):
            try:
                more = connection.recv(1 << 20)
            except ConnectionResetError:
                break
            if not more:
                break
            found += more
        return found


def _whole(found: bytes, *, bodiless: bool) -> bool:
    head, end, body = found.partition(b"\r\n\r\n")
    if not end or bodiless:
        return bool(end)
    length = re.search(rb"(?im)^content-length: *(\d+)", head)
    if length is not None:
        return len(body) >= int(length[1])
    return body.endswith(b"0\r\n\r\n") if b"chunked" in head.lower() else True
