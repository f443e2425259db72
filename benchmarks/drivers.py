"""Clients as processes, which start at the same moment and tell how long they took and what they cost."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from typing import Final, Generic, TypeVar

from benchmarks.wire import UnexpectedReply

__all__ = ["Together", "Work", "in_processes", "together"]

T = TypeVar("T")

#: How long the slowest client may take to get ready, in seconds.
_READY: Final = 60

_context = multiprocessing.get_context("fork")


@dataclass(frozen=True)
class Work:
    """
    What was done.

    :ivar amount: how much, in the unit of the row: bytes, requests, images.
    :ivar seconds: from the start of the first client to the end of the last.
    :ivar client_cpu: seconds of CPU that the clients used meanwhile. They share the machine with the server, so this bounds what any
        server can reach.
    :ivar p50: the time in which half of the operations were done, in seconds, where the driver measures it.
    :ivar p99: the time in which 99 of 100 were done.
    :ivar value: what the row is about, where that is not the rate.
    :ivar details: more figures by name, for the JSON.
    """

    amount: float
    seconds: float
    client_cpu: float = 0.0
    p50: float | None = None
    p99: float | None = None
    value: float | None = None
    details: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Together(Generic[T]):
    """
    What clients that started together did.

    :ivar results: what each of them returned, in their order.
    :ivar seconds: from the start of the first to the end of the last.
    :ivar cpu: seconds of CPU that they used.
    """

    results: list[T]
    seconds: float
    cpu: float


@dataclass(frozen=True)
class _Report(Generic[T]):
    """What a client process tells: when it began and ended, the CPU it used, and what it returned; or what went wrong."""

    begun: float = 0.0
    ended: float = 0.0
    cpu: float = 0.0
    result: T | None = None
    failure: str = ""


def _run(client: Callable[[], T], barrier: Barrier, report: Connection[_Report[T], _Report[T]]) -> None:
    # Who ends the run by a key ends the parent, and that ends this.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        barrier.wait(_READY)
        begun, cpu = time.monotonic(), time.process_time()
        result = client()
        report.send(_Report(begun, time.monotonic(), time.process_time() - cpu, result))
    # Whatever it is, the parent tells it.
    except Exception as error:  # noqa: BLE001
        barrier.abort()
        report.send(_Report(failure=f"{type(error).__name__}: {error}"))


def together(clients: Sequence[Callable[[], T]]) -> Together[T]:
    """
    Run each client in a process of its own, all from the same moment on.

    :raises UnexpectedReply: when a server failed one of them.
    """
    barrier = _context.Barrier(len(clients))
    processes = []
    for client in clients:
        receiver, sender = _context.Pipe(duplex=False)
        # Forked, the process inherits what it needs, and nothing has to be fit for pickling but what it returns.
        process = _context.Process(target=_run, args=(client, barrier, sender), daemon=True)
        process.start()
        sender.close()
        processes.append((process, receiver))
    reports: list[_Report[T]] = []
    try:
        for process, receiver in processes:
            try:
                reports.append(receiver.recv())
            except EOFError:
                reports.append(_Report(failure="the client ended without a word"))
            process.join()
    finally:
        for process, receiver in processes:
            receiver.close()
            if process.is_alive():
                process.terminate()
    if any(report.failure for report in reports):
        # Where one fails, the others may do no more than say that it did.
        raise UnexpectedReply(max((report.failure for report in reports), key=len))
    seconds = max(report.ended for report in reports) - min(report.begun for report in reports)
    results = [report.result for report in reports if report.result is not None]
    return Together(results, seconds, sum(report.cpu for report in reports))


def in_processes(count: int, client: Callable[[int], float]) -> Work:
    """
    Run ``client`` in ``count`` processes that start together.

    :param client: called with the number of the process, from 0. Returns how much it did.
    :raises UnexpectedReply: when a server failed one of them.
    """
    done = together([partial(client, number) for number in range(count)])
    return Work(sum(done.results), done.seconds, done.cpu)
