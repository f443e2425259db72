"""Clients as processes, which start at the same moment and tell how long they took; and ``wrk``, where it is installed."""

from __future__ import annotations

import multiprocessing
import os
import re
import select
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from typing import Final

from benchmarks.wire import HOST, UnexpectedReply

__all__ = ["Work", "in_processes", "request_many"]

#: How long the slowest client may take to get ready, in seconds.
_READY: Final = 60

#: Connections that ask for small things at once.
CONNECTIONS: Final = 32

_context = multiprocessing.get_context("fork")


@dataclass(frozen=True)
class Work:
    """
    What was done.

    :ivar amount: how much, in the unit of the row: bytes, requests, images.
    :ivar seconds: from the start of the first client to the end of the last.
    :ivar p99: the time in which 99 of 100 operations were done, in seconds, where the driver measures it.
    """

    amount: float
    seconds: float
    p99: float | None = None


#: What a client process tells: when it began and ended, and how much it did; or what went wrong.
_Report = tuple[float, float, float] | str


def _run(client: Callable[[int], float], number: int, barrier: Barrier, report: Connection[_Report, _Report]) -> None:
    try:
        barrier.wait(_READY)
        begun = time.monotonic()
        amount = client(number)
        report.send((begun, time.monotonic(), amount))
    # Whatever it is, the parent tells it.
    except Exception as error:  # noqa: BLE001
        barrier.abort()
        report.send(f"{type(error).__name__}: {error}")


def in_processes(count: int, client: Callable[[int], float]) -> Work:
    """
    Run ``client`` in ``count`` processes that start together.

    :param client: called with the number of the process, from 0. Returns how much it did.
    :raises UnexpectedReply: when a server failed one of them.
    """
    barrier = _context.Barrier(count)
    processes = []
    for number in range(count):
        receiver, sender = _context.Pipe(duplex=False)
        # Forked, the process inherits what it needs, and nothing has to be fit for pickling.
        process = _context.Process(target=_run, args=(client, number, barrier, sender), daemon=True)
        process.start()
        sender.close()
        processes.append((process, receiver))
    reports: list[_Report] = []
    for process, receiver in processes:
        try:
            reports.append(receiver.recv())
        except EOFError:
            reports.append("the client ended without a word")
        process.join()
    failures = [report for report in reports if isinstance(report, str)]
    if failures:
        # Where one fails, the others may do no more than say that it did.
        raise UnexpectedReply(max(failures, key=len))
    begun, ended, amounts = zip(*(report for report in reports if not isinstance(report, str)), strict=True)
    return Work(sum(amounts), max(ended) - min(begun))


def request_many(port: int, method: str, target: str, fields: Sequence[str], seconds: float) -> Work:
    """
    Repeat one request on :data:`CONNECTIONS` connections for some time. ``wrk`` does it where it is installed; but not HEAD, for whose
    answers it would wait for a body.

    :param fields: header fields, as lines.
    """
    wrk = shutil.which("wrk")
    if wrk is not None and method == "GET":
        return _wrk(wrk, port, target, fields, seconds)
    return in_processes(1, partial(_repeat, port, method, target, tuple(fields), seconds))


_WRK_REQUESTS: Final = re.compile(r"^\s*(\d+) requests in ([\d.]+)(us|ms|s|m),", re.MULTILINE)
_WRK_P99: Final = re.compile(r"^\s*99%\s+([\d.]+)(us|ms|s|m)", re.MULTILINE)
_WRK_FAILED: Final = re.compile(r"^\s*(Non-2xx.*|Socket errors:.*)$", re.MULTILINE)
_SECONDS: Final = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}


def _wrk(program: str, port: int, target: str, fields: Sequence[str], seconds: float) -> Work:
    headers = [part for line in fields for part in ("-H", line)]
    command = [program, "-t1", f"-c{CONNECTIONS}", f"-d{max(1, round(seconds))}s", "--latency", *headers, f"http://{HOST}:{port}{target}"]
    output = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=True).stdout
    done, slowest, failed = _WRK_REQUESTS.search(output), _WRK_P99.search(output), _WRK_FAILED.search(output)
    if failed is not None:
        raise UnexpectedReply(f"wrk: {failed[1]}")
    if done is None:
        raise UnexpectedReply(f"wrk said nothing to the point: {output!r}")
    return Work(int(done[1]), float(done[2]) * _SECONDS[done[3]], float(slowest[1]) * _SECONDS[slowest[2]] if slowest else None)


_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


def _repeat(port: int, method: str, target: str, fields: Sequence[str], seconds: float, _number: int) -> float:
    """One process, many connections, one request in flight on each; returns how many were answered."""
    lines = "".join(f"{line}\r\n" for line in fields)
    request = f"{method} {target} HTTP/1.1\r\nHost: {HOST}:{port}\r\n{lines}\r\n".encode()
    poll = select.epoll()
    sockets = {}
    received: dict[int, bytes] = {}
    for _ in range(CONNECTIONS):
        connection = socket.create_connection((HOST, port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sockets[connection.fileno()] = connection
        poll.register(connection.fileno(), select.EPOLLIN)
        connection.sendall(request)
    answered = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for fd, _ in poll.poll(1):
            data = received.pop(fd, b"") + os.read(fd, 65536)
            if not _complete(data, method):
                received[fd] = data
                continue
            answered += 1
            os.write(fd, request)
    poll.close()
    for connection in sockets.values():
        connection.close()
    return answered


def _complete(data: bytes, method: str) -> bool:
    """
    Whether an answer is whole.

    :raises UnexpectedReply: when it is not a 200.
    """
    if not data.startswith(b"HTTP/1.1 200"):
        raise UnexpectedReply(f"{data[:100]!r}")
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return False
    if method == "HEAD":
        return True
    length = _LENGTH.search(data, 0, end)
    return length is not None and len(data) >= end + 4 + int(length[1])
