"""A server that runs for a while, alone or with the one it stands in front of."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.candidates import Candidate, Place, Start
from benchmarks.processes import Usage, end_session, usage_of
from benchmarks.wire import Connection, SecureConnection, UnexpectedReply
from tests.e2e.process import Program, free_port

__all__ = ["Server", "connect", "running"]

#: How long a server that has just started may take until it does nothing, in seconds.
_SETTLING: Final = 10.0

#: How long it has to do next to nothing, in seconds.
_QUIET: Final = 0.2


@dataclass(frozen=True)
class Server:
    """
    A server that runs.

    :ivar candidate: what it is.
    :ivar port: where it listens, on 127.0.0.1.
    :ivar sessions: the process ids that lead the sessions of its processes.
    """

    candidate: Candidate
    port: int
    sessions: tuple[int, ...]

    def connect(self) -> Connection:
        """A new connection to it."""
        return connect(self.port, secure=self.candidate.secure)

    def usage(self) -> Usage:
        """What all of its processes have used so far."""
        return usage_of(self.sessions)

    def settle(self) -> None:
        """
        Wait until it does nothing. The first worker answers while the others still start, and what that takes is not what a load takes.
        """
        end = time.monotonic() + _SETTLING
        before = self.usage().cpu_seconds
        while time.monotonic() < end:
            time.sleep(_QUIET)
            now = self.usage().cpu_seconds
            if now - before < _QUIET / 20:
                return
            before = now


def connect(port: int, *, secure: bool) -> Connection:
    """A new connection to a server on this machine."""
    return SecureConnection(port) if secure else Connection(port)


@contextmanager
def running(candidate: Candidate, directory: Path, data: Path, *, access_log: bool) -> Iterator[Server]:
    """
    A server for the time of a ``with`` block.

    :param directory: for its configuration and its logs.
    :param data: the root directory of its storage.
    :param access_log: whether it logs each request, to a file.
    :raises AssertionError: when it does not start, or does not end when asked to, with what it said.
    """
    directory.mkdir(parents=True, exist_ok=True)
    data.mkdir(parents=True, exist_ok=True)
    place = Place(directory, data, free_port(), access_log)
    with ExitStack() as stack:
        sessions = [stack.enter_context(_program(candidate, start, directory)) for start in candidate.prepare(place)]
        yield Server(candidate, place.port, tuple(sessions))


@contextmanager
def _program(candidate: Candidate, start: Start, directory: Path) -> Iterator[int]:
    """
    One process and what it forks, in a session of its own, from when it answers to its end.

    :return: its process id.
    """
    variables = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ} | {"HOME": "/", **start.environment}
    program = Program(start.command, directory / f"{candidate.name}.log", variables, directory)

    def answers() -> bool:
        try:
            with connect(start.port, secure=start.secure) as connection:
                return connection.request("GET", "/v2/").status in start.ready
        except (OSError, UnexpectedReply):
            return False

    program.start()
    try:
        program.wait_ready(answers)
        yield program.pid
    finally:
        try:
            program.stop()
        finally:
            end_session(program.pid)
