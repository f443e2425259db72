"""
``python -m benchmarks.slow``: what clients that send the head of a request byte by byte cost those who do not.

One client asks for ``/v2/`` on eight connections, alone at first, and then beside a thousand connections that each send a byte of a header
field now and then and never come to its end. The 99th percentile of its answers may not double.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import selectors
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from multiprocessing.synchronize import Event
from pathlib import Path
from statistics import median, quantiles
from typing import Final

from benchmarks.candidates import REGD
from benchmarks.servers import Server, running
from benchmarks.wire import HOST, Connection, UnexpectedReply

__all__ = ["measure"]

#: What the ratio of the two may be.
LIMIT: Final = 2.0

_PROBES: Final = 8
_PAUSE: Final = 0.002

#: How often each slow client sends a byte, in seconds.
_EVERY: Final = 2.0

_context = multiprocessing.get_context("fork")


def _probe(server: Server, seconds: float) -> list[float]:
    latencies = []
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(Connection(server.port)) for _ in range(_PROBES)]
        for connection in connections:
            connection.request("GET", "/v2/").expect(200)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for connection in connections:
                begun = time.monotonic()
                connection.request("GET", "/v2/").expect(200)
                latencies.append(time.monotonic() - begun)
                time.sleep(_PAUSE)
    return latencies


def _send_slowly(port: int, count: int, ready: Event, end: Event) -> None:
    """Keep so many heads incomplete; one that is cut off is begun anew."""

    def begin() -> socket.socket:
        made = socket.create_connection((HOST, port))
        made.setblocking(False)
        made.sendall(b"GET /v2/ HTTP/1.1\r\nHost: a\r\nX-Slow: ")
        selector.register(made, selectors.EVENT_READ)
        return made

    with selectors.DefaultSelector() as selector:
        slow = [begin() for _ in range(count)]
        ready.set()
        at_once = max(1, count // 100)
        place = 0
        while not end.wait(_EVERY / 100):
            for index in range(place, place + at_once):
                with contextlib.suppress(OSError):
                    slow[index % count].send(b"x")
            place += at_once
            for key, _ in selector.select(0):
                gone = next(index for index, one in enumerate(slow) if one is key.fileobj)
                selector.unregister(slow[gone])
                slow[gone].close()
                slow[gone] = begin()


@contextlib.contextmanager
def _beside(server: Server, count: int) -> Iterator[None]:
    ready, end = _context.Event(), _context.Event()
    process = _context.Process(target=_send_slowly, args=(server.port, count, ready, end), daemon=True)
    process.start()
    try:
        if not ready.wait(60):
            raise UnexpectedReply("the slow clients could not connect")
        yield
    finally:
        end.set()
        process.join(10)


def measure(directory: Path, count: int, seconds: float, rounds: int) -> list[tuple[list[float], list[float]]]:
    """
    :param directory: for the data.
    :param count: how many send slowly.
    :param seconds: how long is asked, alone and beside them.
    :return: for each round the latencies alone, and those beside them, in seconds.
    :raises UnexpectedReply: when somebody is not answered as they should be.
    """
    found = []
    with running(REGD, directory, directory / "data", access_log=True) as server:
        server.settle()
        for _ in range(rounds):
            alone = _probe(server, seconds)
            with _beside(server, count):
                found.append((alone, _probe(server, seconds)))
            time.sleep(1)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """
    :param arguments: the command line, or ``None`` for that of the process.
    :return: the exit status: 0, or 1 when the answers took too long, or something failed.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.slow",
        description=f"Print what heads that come byte by byte cost others; {LIMIT:g} times as long or more is a failure.",
    )
    parser.add_argument("--clients", type=int, default=1000, metavar="N", help="that send slowly (%(default)s)")
    parser.add_argument("--seconds", type=float, default=5, metavar="X", help="of questions, alone and beside them (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="of both (%(default)s)")
    options = parser.parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory(prefix="regd-benchmark-") as directory:
            found = measure(Path(directory).resolve(), options.clients, options.seconds, options.rounds)
    except (OSError, UnexpectedReply, AssertionError) as error:
        print(f"the benchmark failed: {error}", file=sys.stderr)
        return 1
    ratios = []
    for alone, beside in found:
        parts = quantiles(alone, n=100), quantiles(beside, n=100)
        ratios.append(parts[1][98] / parts[0][98])
        print(
            f"alone p50 {parts[0][49] * 1e3:.2f} ms, p99 {parts[0][98] * 1e3:.2f} ms   beside {options.clients} slow heads "
            f"p50 {parts[1][49] * 1e3:.2f} ms, p99 {parts[1][98] * 1e3:.2f} ms   p99 x {ratios[-1]:.2f}"
        )
    print(f"p99 x {median(ratios):.2f} (at most {LIMIT:g})")
    return 0 if median(ratios) < LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
