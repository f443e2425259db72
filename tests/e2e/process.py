"""
A program that a test starts, watches and stops: its output in a file, its
memory as the kernel counts it, its end by signal.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest import SkipTest

__all__ = ["Memory", "Program", "free_port", "need", "need_root", "wait_until"]

# Debian keeps daemons where the path of a user may not lead.
SEARCH_PATH = f"{os.environ.get('PATH', '/usr/bin:/bin')}:/usr/local/sbin:/usr/sbin:/sbin"


@dataclass(frozen=True)
class Memory:
    """
    What a process holds in memory (proc(5), ``/proc/pid/status``), in bytes.

    :ivar peak: The most it ever held: ``VmHWM``.
    :ivar resident: What it holds now: ``VmRSS``.
    """

    peak: int
    resident: int


def need(*programs: str) -> None:
    """
    Skip the test where a program is missing.

    :param programs: Names to look for on the path and in the ``sbin`` directories.
    :raises SkipTest: Naming what is missing.
    """
    if missing := [program for program in programs if shutil.which(program, path=SEARCH_PATH) is None]:
        raise SkipTest(f"not installed: {', '.join(missing)}")


def need_root() -> None:
    """
    Skip the test where it does not run as root.

    :raises SkipTest: For any other user.
    """
    if os.geteuid() != 0:
        raise SkipTest("needs root")


def free_port() -> int:
    """
    :return: A TCP port of 127.0.0.1 that nobody listened on a moment ago.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """
    Ask until the answer is yes.

    :param condition: What to ask, many times a second.
    :param seconds: How long to go on.
    :param what: What is being waited for, for the message.
    :raises TimeoutError: When the time is over.
    """
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds} s for {what}")
        time.sleep(0.02)


class Program:
    """
    A child process. Its standard output and error go to a file that later starts append to.

    :param command: The program and its arguments.
    :param log: The file for its output.
    :param environment: All of its environment.
    :param cwd: The directory it starts in.
    :ivar passed: Descriptors that it inherits, beside the three that every program has.
    """

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str], cwd: Path) -> None:
        self.command = list(command)
        self.log = log
        self.environment = dict(environment)
        self.cwd = cwd
        self.passed: tuple[int, ...] = ()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Its process id; it has to have been started."""
        assert self._process is not None, f"{self.command[0]} was not started"
        return self._process.pid

    def start(self) -> None:
        """Start it, in a process group of its own so that a Ctrl-C of the test run does not reach it."""
        assert not self.is_alive(), f"{self.command[0]} runs already"
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self.environment,
                cwd=self.cwd,
                start_new_session=True,
                pass_fds=self.passed,
            )

    def wait_ready(self, ready: Callable[[], bool], seconds: float = 30) -> None:
        """
        Wait until it does its work.

        :param ready: Whether it does.
        :param seconds: How long to wait.
        :raises AssertionError: When it ended, with the end of its output.
        :raises TimeoutError: When the time is over, with the end of its output.
        """

        def ready_or_dead() -> bool:
            return not self.is_alive() or ready()

        try:
            wait_until(ready_or_dead, seconds, f"{self.command[0]} to be ready")
        except TimeoutError as error:
            raise TimeoutError(f"{error}; its output ends with:\n{self.tail()}") from None
        if not self.is_alive():
            raise AssertionError(f"{' '.join(self.command)} ended at once; its output ends with:\n{self.tail()}")

    def is_alive(self) -> bool:
        """
        :return: Whether it runs.
        """
        return self._process is not None and self._process.poll() is None

    def send(self, number: signal.Signals) -> None:
        """
        :param number: The signal to send; a process that has ended gets none.
        """
        if self._process is not None:
            self._process.send_signal(number)

    def kill(self) -> None:
        """End it as a crash would: SIGKILL."""
        self.stop(signal.SIGKILL)

    def stop(self, number: signal.Signals = signal.SIGTERM, seconds: float = 30) -> int | None:
        """
        End it and wait for its end. Safe to call at any time.

        :param number: The signal that asks it to.
        :param seconds: How long it may take before it is killed.
        :return: Its exit status, negative for a signal, or ``None`` when it never ran.
        :raises AssertionError: When it had to be killed.
        """
        if self._process is None:
            return None
        self.send(number)
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise AssertionError(f"{self.command[0]} did not end {seconds} s after {number.name}:\n{self.tail()}") from None

    def output(self) -> str:
        """
        :return: All that it has written, in all its lives.
        """
        with contextlib.suppress(FileNotFoundError):
            return self.log.read_text(encoding="utf-8", errors="replace")
        return ""

    def tail(self, lines: int = 40) -> str:
        """
        :param lines: How many.
        :return: The last lines that it has written.
        """
        return "\n".join(self.output().splitlines()[-lines:])

    def children(self) -> list[int]:
        """
        :return: The processes that it has started and that have not ended, by their ids.
        """
        return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text(encoding="ascii").split()]

    def ticks(self) -> int:
        """
        :return: The processor time that it and its children have taken so far, in ticks of 10 ms.
        """
        pids = (self.pid, *self.children())
        fields = [Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split() for pid in pids]
        return sum(int(field[11]) + int(field[12]) for field in fields)

    def memory(self) -> Memory:
        """
        :return: What the largest of its processes, itself and its children, holds now, and the most that any of them ever held.
        """
        peaks, residents = [0], [0]
        for pid in (self.pid, *self.children()):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
                    key, _, value = line.partition(":")
                    if key in ("VmHWM", "VmRSS"):
                        (peaks if key == "VmHWM" else residents).append(int(value.split()[0]) * 1024)
        return Memory(peak=max(peaks), resident=max(residents))
