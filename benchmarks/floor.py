"""
``python -m benchmarks.floor``: what this machine can do at most, whatever the server is written in. Each figure is the best of a few
short runs, for a limit is what nothing disturbs. What a row of the benchmarks reaches, divided by its floor here, says how far away it is.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks.asking import request_many
from benchmarks.candidates import NGINX, Candidate, prepare_fixed, versions
from benchmarks.drivers import together
from benchmarks.report import file_system, machine, machine_text
from benchmarks.servers import running
from benchmarks.wire import HOST, UnexpectedReply

__all__ = ["Floor", "measure"]

_MIB: Final = 1024 * 1024

#: How many runs the best is taken of.
_RUNS: Final = 3

#: Bytes that are moved, and hashed, in one run.
_BYTES: Final = 1024 * _MIB

#: What is read from a socket at a time, where it is copied, in bytes.
_READ: Final = 256 * 1024


@dataclass(frozen=True)
class Floor:
    """
    One limit.

    :ivar name: what it is called in the JSON.
    :ivar title: what was done.
    :ivar value: how much of it a second.
    :ivar unit: of the value.
    :ivar cpu: seconds of CPU for one of ``cpu_unit``, of all who took part; 0 where it was not measured.
    :ivar cpu_unit: a GB, or one operation.
    """

    name: str
    title: str
    value: float
    unit: str
    cpu: float = 0.0
    cpu_unit: str = ""

    def line(self) -> str:
        """As people read it."""
        cpu = f"{self.cpu:.3f} s/{self.cpu_unit}" if self.cpu_unit == "GB" else f"{self.cpu * 1e6:.1f} µs each" if self.cpu else ""
        return f"{self.title:74}{self.value:10.0f} {self.unit:12}{cpu:>14}"


#: What one run tells: the amount, the seconds it took, the seconds of CPU.
_Run = tuple[float, float, float]


def _best(runs: int, run: Callable[[], _Run]) -> _Run:
    return max((run() for _ in range(runs)), key=lambda done: done[0] / done[1])


def _bulk(name: str, title: str, runs: int, run: Callable[[], _Run]) -> Floor:
    amount, seconds, cpu = _best(runs, run)
    return Floor(name, title, amount / seconds / 1e6, "MB/s", cpu / amount * 1e9, "GB")


def _each(name: str, title: str, unit: str, runs: int, run: Callable[[], _Run]) -> Floor:
    amount, seconds, cpu = _best(runs, run)
    return Floor(name, title, amount / seconds, unit, cpu / amount, "operation")


def _loopback(size: int, streams: int, sink: Callable[[socket.socket, int], int]) -> _Run:
    """Send files from memory through ``streams`` connections, each end in a process of its own."""
    fd = os.memfd_create("floor")
    pairs = [_connected() for _ in range(streams)]
    try:
        os.truncate(fd, size)
        # Pages that were never written are all the same one.
        for _ in range(size // _MIB):
            os.write(fd, b"x" * _MIB)
        senders = [partial(_send, left, fd, size) for left, _ in pairs]
        sinks = [partial(sink, right, size) for _, right in pairs]
        done = together([*senders, *sinks])
    finally:
        os.close(fd)
        for pair in pairs:
            for end in pair:
                end.close()
    return float(size * streams), done.seconds, done.cpu


def _connected() -> tuple[socket.socket, socket.socket]:
    with socket.create_server((HOST, 0)) as listening:
        left = socket.create_connection(listening.getsockname())
        right, _ = listening.accept()
    return left, right


def _send(connection: socket.socket, fd: int, size: int) -> int:
    offset = 0
    while offset < size:
        offset += os.sendfile(connection.fileno(), fd, offset, size - offset)
    return offset


def _drop(connection: socket.socket, size: int) -> int:
    sink = bytearray(4 * _MIB)
    left = size
    while left:
        # With MSG_TRUNC the bytes of a TCP socket are not copied (tcp(7)).
        left -= connection.recv_into(sink, min(left, len(sink)), socket.MSG_TRUNC)
    return size


def _store(directory: Path, hashed: bool, connection: socket.socket, size: int) -> int:
    """What a push cannot do without: bytes copied from the socket, to a file, through the hash."""
    buffer = memoryview(bytearray(_READ))
    digest = hashlib.sha256()
    with tempfile.TemporaryFile(dir=directory) as file:
        left = size
        while left:
            count = connection.recv_into(buffer)
            os.write(file.fileno(), buffer[:count])
            if hashed:
                digest.update(buffer[:count])
            left -= count
    return size


def _sha256(size: int, threads: int) -> _Run:
    block = os.urandom(_MIB)

    def work() -> None:
        digest = hashlib.sha256()
        for _ in range(size // _MIB):
            digest.update(block)

    return _in_threads(work, threads, float(size))


def _in_threads(work: Callable[[], None], threads: int, amount: float) -> _Run:
    """The same work in some threads at once, each of ``amount``."""
    running_threads = [threading.Thread(target=work) for _ in range(threads)]
    begun, cpu = time.monotonic(), time.process_time()
    for thread in running_threads:
        thread.start()
    for thread in running_threads:
        thread.join()
    return amount * threads, time.monotonic() - begun, time.process_time() - cpu


def _flushes(directory: Path, count: int) -> _Run:
    """4 KiB appended and flushed, one after the other."""

    def work() -> None:
        with tempfile.TemporaryFile(dir=directory) as file:
            for _ in range(count):
                os.write(file.fileno(), b"x" * 4096)
                os.fdatasync(file.fileno())

    return _in_threads(work, 1, count)


def _commits(directory: Path, count: int, threads: int) -> _Run:
    """What makes a small file durable: write, fsync, rename, fsync of the directory; each thread in a directory of its own."""

    def work() -> None:
        with tempfile.TemporaryDirectory(dir=directory) as own:
            handle = os.open(own, os.O_RDONLY)
            for number in range(count):
                file = os.open(f"{own}/new", os.O_WRONLY | os.O_CREAT)
                os.write(file, b"x" * 4096)
                os.fsync(file)
                os.close(file)
                os.rename(f"{own}/new", f"{own}/{number}")
                os.fsync(handle)
            os.close(handle)

    return _in_threads(work, threads, count)


def _answers(directory: Path, seconds: float) -> Floor | None:
    """Wrk and nginx, which answers from memory: what the smallest request costs with a server written in C."""
    if NGINX.missing():
        return None
    fixed = Candidate("nginx-fixed", NGINX.programs, prepare_fixed)
    with running(fixed, directory / "nginx-fixed", directory / "none", access_log=True) as server:
        before = server.usage()
        work = request_many(server.port, "/v2/", [], seconds)
        cpu = server.usage().cpu_seconds - before.cpu_seconds
    title = "GET of a fixed body from nginx, 32 connections; CPU of the server"
    return Floor("nginx-fixed", title, work.amount / work.seconds, "requests/s", cpu / work.amount, "operation")


def measure(tmpfs: Path, disk: Path, scale: float = 1.0, runs: int = _RUNS) -> list[Floor]:
    """
    :param tmpfs: a directory in memory.
    :param disk: a directory on disk.
    :param scale: do so many times as much.
    :param runs: how many runs the best is taken of.
    """
    size = max(1, round(_BYTES * scale) // _MIB) * _MIB
    cores = len(os.sched_getaffinity(0))
    each = [
        _bulk("loopback-drop", "loopback, sendfile to a client that drops, 1 stream", runs, partial(_loopback, size, 1, _drop)),
        _bulk("loopback-drop-2", "the same, 2 streams", runs, partial(_loopback, size, 2, _drop)),
        _bulk("sha256", "SHA-256, 1 core", runs, partial(_sha256, size, 1)),
        _bulk("sha256-all", f"SHA-256, {cores} threads", runs, partial(_sha256, size, cores)),
    ]
    for name, directory in (("tmpfs", tmpfs), ("disk", disk)):
        write, push = partial(_store, directory, False), partial(_store, directory, True)
        flush = partial(_flushes, directory, _count(200, scale))
        each += [
            _bulk(f"receive-{name}", f"receive and write, {name}", runs, partial(_loopback, size, 1, write)),
            _bulk(f"push-{name}", f"receive, write and hash, {name}", runs, partial(_loopback, size, 1, push)),
            _bulk(f"push-2-{name}", f"the same, 2 streams, {name}", runs, partial(_loopback, size, 2, push)),
            _each(f"flush-{name}", f"append 4 KiB and fdatasync, {name}", "flushes/s", runs, flush),
        ]
        for threads in (1, 4):
            title = f"write 4 KiB, fsync, rename, fsync of the directory, {threads} at once, {name}"
            run = partial(_commits, directory, _count(100, scale), threads)
            each.append(_each(f"commit-{threads}-{name}", title, "commits/s", runs, run))
    answers = _answers(tmpfs, max(1.0, 3 * scale))
    return [*each, answers] if answers else each


def _count(count: int, scale: float) -> int:
    return max(2, round(count * scale))


def main(arguments: Sequence[str] | None = None) -> int:
    """
    :param arguments: the command line, or ``None`` for that of the process.
    :return: the exit status: 0, or 1 when something could not be measured.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.floor", description="Print what this machine can do at most.")
    parser.add_argument("--tmpfs", type=Path, default=Path("/dev/shm"), metavar="DIR", help="a directory in memory (%(default)s)")
    parser.add_argument("--disk", type=Path, default=Path("var"), metavar="DIR", help="one on disk (./%(default)s, made if need be)")
    parser.add_argument("--scale", type=float, default=1.0, metavar="X", help="do X times as much (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here, too")
    options = parser.parse_args(arguments)
    try:
        options.disk.mkdir(parents=True, exist_ok=True)
        header: dict[str, Mapping[str, object]] = {
            "machine": machine(),
            "versions": versions(),
            "file_systems": {name: file_system(getattr(options, name)) for name in ("tmpfs", "disk")},
        }
        with (
            tempfile.TemporaryDirectory(prefix="regd-floor-", dir=options.tmpfs) as tmpfs,
            tempfile.TemporaryDirectory(prefix="regd-floor-", dir=options.disk) as disk,
        ):
            floors = measure(Path(tmpfs).resolve(), Path(disk).resolve(), options.scale)
    except (OSError, UnexpectedReply, AssertionError) as error:
        print(f"the floor cannot be measured: {error}", file=sys.stderr)
        return 1
    print(machine_text(header))
    for floor in floors:
        print(floor.line())
    if options.json is not None:
        document = {**header, "scale": options.scale, "floors": [asdict(floor) for floor in floors]}
        options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
