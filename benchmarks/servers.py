"""The servers that are measured: how each is started, on which configuration, and what the kernel says it used."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks.wire import Connection, UnexpectedReply
from tests.e2e.process import Memory, Program, free_port

__all__ = ["PEER", "REGD", "Candidate", "Server", "Usage", "running"]

_ROOT: Final = Path(__file__).resolve().parent.parent

#: What the image of registry:2 comes with, on another port and directory. Both servers get this very file.
_CONFIGURATION: Final = """\
version: 0.1
log:
  level: info
  accesslog:
    disabled: {no_access_log}
  fields:
    service: registry
storage:
  cache:
    blobdescriptor: inmemory
  filesystem:
    rootdirectory: {data}
  delete:
    enabled: true
http:
  addr: 127.0.0.1:{port}
  secret: asecretforthebenchmark
  headers:
    X-Content-Type-Options: [nosniff]
"""


@dataclass(frozen=True)
class Candidate:
    """
    A program that can be measured.

    :ivar name: what tables call it.
    :ivar command: its command line, up to the configuration file, which comes last.
    :ivar version_command: prints its version.
    :ivar environment: variables that it needs.
    """

    name: str
    command: tuple[str, ...]
    version_command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)

    def available(self) -> bool:
        """Whether it is installed."""
        return shutil.which(self.command[0]) is not None

    def version(self) -> str:
        """What it says its version is, in one line, or why it does not say."""
        try:
            done = subprocess.run(self.version_command, capture_output=True, text=True, timeout=30, check=True, env=self.all_variables())
        except (OSError, subprocess.SubprocessError) as error:
            return f"unknown ({error})"
        return " ".join((done.stdout or done.stderr).split()) or "unknown"

    def all_variables(self) -> dict[str, str]:
        """Its whole environment: no proxies, no ``REGISTRY_*`` of the caller's."""
        return {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ} | {"HOME": "/", **self.environment}


#: Run by the interpreter that runs regd.
_VERSIONS: Final = (
    "import platform, regd, twisted;"
    "print(f'regd {regd.__version__}, Twisted {twisted.__version__}, Python {platform.python_version()}')"
)


def _regd() -> Candidate:
    twistd = str(Path(sys.executable).with_name("twistd"))
    try:
        importlib.metadata.version("regd")
        environment = {}
    except importlib.metadata.PackageNotFoundError:
        environment = {"PYTHONPATH": str(_ROOT)}
    return Candidate(
        "regd",
        (twistd, "--nodaemon", "--pidfile=", "regd", "-c"),
        (sys.executable, "-c", _VERSIONS),
        environment,
    )


REGD: Final = _regd()
PEER: Final = Candidate(
    "docker-registry", ("docker-registry", "serve"), ("docker-registry", "--version"), {"OTEL_TRACES_EXPORTER": "none"}
)


@dataclass(frozen=True)
class Usage:
    """
    What a server used.

    :ivar cpu_seconds: seconds of CPU, user and system, in all of its threads.
    :ivar peak: the most memory it ever held, in bytes: ``VmHWM`` of proc(5).
    :ivar resident: the memory it holds now, in bytes: ``VmRSS``.
    """

    cpu_seconds: float
    peak: int
    resident: int


@dataclass(frozen=True)
class Server:
    """
    A server that runs.

    :ivar candidate: what it is.
    :ivar port: where it listens, on 127.0.0.1.
    """

    candidate: Candidate
    port: int
    program: Program

    def usage(self) -> Usage:
        """What its process has used so far."""
        memory: Memory = self.program.memory()
        # The name of the program, in parentheses, may hold anything; what counts starts behind it (proc(5), /proc/pid/stat).
        fields = Path(f"/proc/{self.program.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        ticks = int(fields[11]) + int(fields[12])
        return Usage(ticks / os.sysconf("SC_CLK_TCK"), memory.peak, memory.resident)


@contextmanager
def running(candidate: Candidate, directory: Path, data: Path, *, access_log: bool) -> Iterator[Server]:
    """
    A server for the time of a ``with`` block.

    :param directory: for its configuration and its log.
    :param data: the root directory of its storage.
    :param access_log: whether it logs each request, to a file.
    :raises AssertionError: when it does not start, with what it said.
    """
    directory.mkdir(parents=True, exist_ok=True)
    data.mkdir(parents=True, exist_ok=True)
    port = free_port()
    configuration = directory / f"{candidate.name}.yml"
    configuration.write_text(
        _CONFIGURATION.format(data=data, port=port, no_access_log=str(not access_log).lower()), encoding="utf-8"
    )
    program = Program((*candidate.command, str(configuration)), directory / f"{candidate.name}.log", candidate.all_variables(), directory)

    def answers() -> bool:
        try:
            with Connection(port) as connection:
                return connection.request("GET", "/v2/").status == 200
        except (OSError, UnexpectedReply):
            return False

    program.start()
    try:
        program.wait_ready(answers)
        yield Server(candidate, port, program)
    finally:
        program.stop()
