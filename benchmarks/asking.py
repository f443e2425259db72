"""
Small requests, over and over, on some connections: ``wrk`` where it can, and one process with epoll for what it cannot: it waits for a
body after HEAD, and copies what should be dropped. Measured against nginx, a request costs either client 7 to 8 µs of processor time.
"""

from __future__ import annotations

import os
import re
import resource
import select
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import cycle
from statistics import quantiles
from typing import Final

from benchmarks.candidates import find
from benchmarks.drivers import Work, together
from benchmarks.wire import HOST, UnexpectedReply

__all__ = ["CONNECTIONS", "ask_many", "parse_wrk", "request_head", "request_many"]

#: Connections that ask for small things at once.
CONNECTIONS: Final = 32

#: How much longer than it should a server may take for the first answers, in seconds.
_PATIENCE: Final = 30

_SECONDS: Final = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_WRK_REQUESTS: Final = re.compile(r"^\s*(\d+) requests in ([\d.]+)(us|ms|s|m|h),", re.MULTILINE)
_WRK_LATENCY: Final = re.compile(r"^\s*(50|99)%\s+([\d.]+)(us|ms|s|m|h)", re.MULTILINE)
_WRK_FAILED: Final = re.compile(r"^\s*(Non-2xx.*|Socket errors:.*)$", re.MULTILINE)


def request_many(port: int, target: str, fields: Sequence[str], seconds: float) -> Work:
    """
    Repeat one GET on :data:`CONNECTIONS` connections for some time, with ``wrk`` where it is installed.

    :param fields: header fields, as lines.
    :raises UnexpectedReply: when an answer is not 2xx, or none comes.
    """
    wrk = find("wrk")
    if wrk is None:
        return ask_many(port, [request_head(port, "GET", target, fields)], seconds)
    headers = [part for line in fields for part in ("-H", line)]
    # wrk counts in whole seconds.
    duration = f"-d{max(1, round(seconds))}s"
    command = [wrk, "-t1", f"-c{CONNECTIONS}", duration, f"--timeout={_PATIENCE}s", "--latency", *headers, f"http://{HOST}:{port}{target}"]
    before = _cpu_of_children()
    output = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=True).stdout
    return parse_wrk(output, _cpu_of_children() - before)


def _cpu_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def parse_wrk(output: str, cpu: float) -> Work:
    """
    :param output: what ``wrk --latency`` prints.
    :param cpu: seconds of CPU that it took.
    :raises UnexpectedReply: when it tells of failures, or of nothing.
    """
    failed = _WRK_FAILED.search(output)
    if failed is not None:
        raise UnexpectedReply(f"wrk: {failed[1]}")
    done = _WRK_REQUESTS.search(output)
    if done is None or not int(done[1]):
        raise UnexpectedReply(f"wrk had no answers: {output!r}")
    latencies = {match[1]: float(match[2]) * _SECONDS[match[3]] for match in _WRK_LATENCY.finditer(output)}
    return Work(int(done[1]), float(done[2]) * _SECONDS[done[3]], cpu, latencies.get("50"), latencies.get("99"))


def request_head(port: int, method: str, target: str, fields: Sequence[str]) -> bytes:
    """A request without a body, ready to be sent."""
    lines = "".join(f"{line}\r\n" for line in fields)
    return f"{method} {target} HTTP/1.1\r\nHost: {HOST}:{port}\r\n{lines}\r\n".encode()


def ask_many(port: int, requests: Sequence[bytes], seconds: float, *, connections: int = CONNECTIONS, status: int = 200) -> Work:
    """
    Send requests, one after the other on each connection, and drop the bodies of the answers, for some time. Nothing is copied of a body
    but what comes with the head.

    :param requests: are sent in their order, again and again, whichever connection is free; all HEAD or all GET.
    :param status: what all have to be answered with.
    :raises UnexpectedReply: when one is answered otherwise, or none comes.
    """
    done = together([partial(_ask, port, requests, seconds, connections, status)])
    answered, latencies = done.results[0]
    if answered < connections:
        raise UnexpectedReply(f"{answered} answers in {seconds} s")
    parts = quantiles(latencies, n=100)
    return Work(answered, done.seconds, done.cpu, parts[49], parts[98])


def _ask(port: int, requests: Sequence[bytes], seconds: float, connections: int, status: int) -> tuple[int, list[float]]:
    """One process; returns how many answers came, and the time of each."""
    supply = cycle(requests)
    expected = b"HTTP/1.1 %d " % status
    poll = select.epoll()
    opened = [_Asking(port, supply, expected, body=not requests[0].startswith(b"HEAD ")) for _ in range(connections)]
    ready: dict[int, Callable[[], float]] = {}
    latencies: list[float] = []
    end = time.monotonic() + seconds
    for asking in opened:
        ready[asking.fd] = asking.receive
        poll.register(asking.fd, select.EPOLLIN)
        asking.send()
    # Where the time is short and the machine busy, go on until there is something to tell.
    while (now := time.monotonic()) < end or (len(latencies) < connections and now < end + _PATIENCE):
        latencies += [taken for fd, _ in poll.poll(1, connections) if (taken := ready[fd]())]
    poll.close()
    for asking in opened:
        asking.socket.close()
    return len(latencies), latencies


_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_SINK: Final = bytearray(4 * 1024 * 1024)


class _Asking:
    """
    One connection with one request in flight.

    :param requests: where the next one comes from.
    :param expected: how every answer begins.
    :param body: whether answers have a body, of which the head says the length.
    """

    def __init__(self, port: int, requests: Iterator[bytes], expected: bytes, *, body: bool) -> None:
        self.socket = socket.create_connection((HOST, port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.fd = self.socket.fileno()
        self._requests = requests
        self._expected = expected
        self._body = body
        self._begun = 0.0
        self._head = b""
        self._left = 0

    def send(self) -> None:
        """Send the next request."""
        self._begun = time.monotonic()
        os.write(self.fd, next(self._requests))

    def receive(self) -> float:
        """
        Take what has arrived.

        :return: the seconds that the answer took when it is whole, and the next request is sent; else 0.
        """
        if self._left:
            self._left -= self._drop()
        elif not self._receive_head():
            return 0.0
        if self._left:
            return 0.0
        taken = time.monotonic() - self._begun
        self.send()
        return taken

    def _receive_head(self) -> bool:
        data = os.read(self.fd, 65536)
        if not data:
            raise UnexpectedReply(f"the server closed the connection after {self._head[:100]!r}")
        if self._head:
            data = self._head + data
        if not data.startswith(self._expected):
            raise UnexpectedReply(f"{data[:300]!r}")
        # Most heads are whole, and end where the data ends: that of HEAD always.
        end = len(data) - 4 if data.endswith(b"\r\n\r\n") else data.find(b"\r\n\r\n")
        self._head = b"" if end >= 0 else data
        if end >= 0 and self._body:
            length = _LENGTH.search(data, 0, end + 2)
            if length is None:
                raise UnexpectedReply(f"an answer without its length: {data[:300]!r}")
            self._left = int(length[1]) - (len(data) - end - 4)
        return end >= 0

    def _drop(self) -> int:
        # With MSG_TRUNC the bytes of a TCP socket are not copied (tcp(7)). SO_RCVLOWAT would save waking up for a few segments, but with it
        # the kernel at times tells the sender of room only when that asks, after minutes.
        count = self.socket.recv_into(_SINK, min(self._left, len(_SINK)), socket.MSG_TRUNC)
        if not count:
            raise UnexpectedReply(f"a body ended {self._left} bytes early")
        return count
