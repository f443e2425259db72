"""
``python -m benchmarks.streaming``: what many streams at once cost regd in memory, and what slow clients cost everybody else.

Eight clients push a blob of 1 GiB each, at once; then eight clients pull one of them, at once. All the while one client sends a byte a
second, one reads a KiB a second, and one asks for ``/v2/`` up to fifty times a second and notes how long the answer took. The largest
process of the server may not grow by more than 64 MiB over what the largest held when they had just started.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import quantiles
from typing import Final

from benchmarks.beside import Beside, Seen
from benchmarks.candidates import REGD
from benchmarks.drivers import Work, in_processes
from benchmarks.payload import Payload
from benchmarks.processes import Usage
from benchmarks.pushing import push_bytes, push_payload
from benchmarks.servers import running
from benchmarks.wire import Connection, UnexpectedReply

__all__ = ["Phase", "measure"]

_MIB: Final = 1024 * 1024
_REPOSITORY: Final = "bench/streams"

#: What the largest process may grow by, in bytes.
LIMIT: Final = 64 * _MIB

#: What the slow reader reads: more than the sockets between it and the registry can hold, in bytes.
_SLOWLY_READ: Final = 32 * _MIB


@dataclass(frozen=True)
class Phase:
    """
    One of the loads.

    :ivar title: what it was.
    :ivar work: bytes moved, and the time it took.
    :ivar seen: what the clients beside it saw.
    :ivar peak: the most memory that a process had ever held by its end, in bytes: ``VmHWM``.
    """

    title: str
    work: Work
    seen: Seen
    peak: int

    def line(self, idle: Usage) -> str:
        """The phase in one line, its memory as growth over the idle process."""
        parts = quantiles(self.seen.latencies, n=100)
        return (
            f"{self.title:26}{self.work.amount / self.work.seconds / 1e6:6.0f} MB/s   "
            f"memory +{(self.seen.resident - idle.resident) / _MIB:.1f} MiB sampled, +{(self.peak - idle.peak) / _MIB:.1f} MiB peak   "
            f"GET /v2/ p50 {parts[49] * 1e3:.1f} ms, p99 {parts[98] * 1e3:.1f} ms"
        )


def _push(port: int, payload: Payload, number: int) -> float:
    with Connection(port) as connection:
        # Half of them as docker sends, half with their length.
        push_payload(connection, _REPOSITORY, payload, "streams", number, chunked=number % 2 == 0)
    return float(payload.blob_size)


def _pull(port: int, path: str, _number: int) -> float:
    with Connection(port) as connection:
        return float(connection.download(path))


def measure(directory: Path, streams: int, size: int) -> tuple[Usage, list[Phase], Seen]:
    """
    :param directory: for the data, ``streams`` times ``size`` bytes of it.
    :param streams: how many clients push, and pull, at once.
    :param size: of each blob, in bytes.
    :return: the process when it had just started, the phases, and the clients beside them at the end.
    :raises UnexpectedReply: when a client is not served as it should be.
    """
    payload = Payload(size)
    try:
        with running(REGD, directory, directory / "data", access_log=True) as server:
            server.settle()
            idle = server.usage()
            with Connection(server.port) as connection:
                slow = push_bytes(connection, _REPOSITORY, os.urandom(_SLOWLY_READ))
            path = f"/v2/{_REPOSITORY}/blobs/{payload.blob('streams', 0)[1]}"
            phases = []
            with Beside(server, _REPOSITORY, f"/v2/{_REPOSITORY}/blobs/{slow.digest}") as beside:
                for verb, client in (("uploads", partial(_push, server.port, payload)), ("downloads", partial(_pull, server.port, path))):
                    beside.look()
                    work = in_processes(streams, client)
                    phases.append(Phase(f"{streams} {verb} of {size // _MIB} MiB", work, beside.look(), server.usage().peak))
                return idle, phases, beside.end()
    finally:
        payload.close()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.streaming",
        description=f"Print how regd's memory grows under many streams at once; more than {LIMIT // _MIB} MiB is a failure.",
    )
    parser.add_argument("--streams", type=int, default=8, metavar="N", help="uploads, then downloads, at once (%(default)s)")
    parser.add_argument("--size", type=int, default=1024, metavar="MIB", help="of each blob, in MiB (%(default)s)")
    parser.add_argument("--directory", type=Path, default=Path("var"), metavar="DIR", help="for the data, N times as much (./%(default)s)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """
    :param arguments: the command line, or ``None`` for that of the process.
    :return: the exit status: 0, or 1 when the process grew by more than it may, or something failed.
    """
    options = _parser().parse_args(arguments)
    try:
        options.directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="regd-benchmark-", dir=options.directory) as directory:
            idle, phases, last = measure(Path(directory).resolve(), options.streams, options.size * _MIB)
    except (OSError, UnexpectedReply, AssertionError) as error:
        print(f"the benchmark failed: {error}", file=sys.stderr)
        return 1
    print(f"just started: memory {idle.resident / _MIB:.1f} MiB, peak {idle.peak / _MIB:.1f} MiB")
    for phase in phases:
        print(phase.line(idle))
    print(f"beside them: {last.sent} bytes sent at 1 a second, {last.read} bytes read at 1024 a second")
    return 0 if all(phase.peak - idle.peak < LIMIT for phase in phases) else 1


if __name__ == "__main__":
    sys.exit(main())
