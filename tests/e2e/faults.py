"""The test's side of :mod:`tests.e2e.faulty`: daemons that fail on demand."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from tests.e2e.daemon import Regd, clean_environment
from tests.e2e.faulty import Operation, Order, Plan
from tests.e2e.process import Program

__all__ = ["FaultyRegd", "ForkServer", "ForkedCommand", "ForkedRegd"]

ROOT = Path(__file__).resolve().parents[2]
COMMAND = (sys.executable, "-m", "tests.e2e.faulty")


class FaultyRegd(Regd):
    """
    ``twistd regd`` on a disk that fails when :meth:`arm` says so; as :class:`~tests.e2e.daemon.Regd`.

    :param under: A program, with its options, that the daemon is started by.
    """

    def __init__(
        self,
        directory: Path,
        data: Path | None = None,
        environment: Mapping[str, str] | None = None,
        under: Sequence[str] = (),
    ) -> None:
        self.plan = directory / "plan"
        self.record = directory / "record"
        self.under = under
        super().__init__(directory, data, environment)

    def arguments(self) -> list[str]:
        """
        :return: What follows the command of :mod:`tests.e2e.faulty`.
        """
        return [str(self.plan), str(self.record), "--nodaemon", "--pidfile=", "regd", "-c", str(self.configuration)]

    def command(self) -> list[str]:
        """
        :return: Its command line.
        """
        return [*self.under, *COMMAND, "run", *self.arguments()]

    def settings(self) -> dict[str, str]:
        """
        :return: The way to the sources and to the tests; one process, for the plan counts what that does.
        """
        return {"PYTHONPATH": str(ROOT), "REGISTRY_HTTP_WORKERS": "1"}

    def arm(
        self,
        action: str,
        *operations: str,
        path: str = "",
        first: int = 1,
        last: int | None = None,
        error: int = 0,
    ) -> None:
        """
        Let operations go wrong from now on; counting starts here. The parameters are those of :class:`~tests.e2e.faulty.Plan`.

        :param action: What happens.
        :param operations: To which operations; none for all that change the disk.
        :param path: A regular expression that is looked for in their paths.
        :param first: The first of them, counted from 1.
        :param last: The last of them, or ``None`` for all that follow.
        :param error: The ``errno`` of ``fail``.
        """
        plan = Plan(uuid.uuid4().hex, action, operations, path, first, last, error)
        beside = self.plan.with_suffix(".new")
        beside.write_text(plan.to_json(), encoding="utf-8")
        beside.rename(self.plan)

    def disarm(self) -> None:
        """Let nothing go wrong any more, and whatever is held go on."""
        self.plan.unlink(missing_ok=True)

    def operations(self) -> list[Operation]:
        """
        :return: What has changed the disk since the last :meth:`forget`, in order.
        """
        if not self.record.exists():
            return []
        # What stands after the last line break is being written.
        lines = self.record.read_text(encoding="utf-8").split("\n")[:-1]
        return [Operation(**json.loads(line)) for line in lines]

    def forget(self) -> None:
        """Begin the record anew."""
        if self.record.exists():
            os.truncate(self.record, 0)


class ForkServer:
    """
    Makes daemons quickly: ``python -m tests.e2e.faulty fork``.

    :param directory: Its home, and where its own output goes.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        with (directory / "fork-server.log").open("wb") as output:
            self._process = subprocess.Popen(
                [*COMMAND, "fork"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                text=True,
                env=clean_environment(directory) | {"PYTHONPATH": str(ROOT)},
                cwd=directory,
            )
        assert self._ask("") == "ready", (directory / "fork-server.log").read_text(encoding="utf-8")

    def _ask(self, line: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line)
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()

    def start(self, order: Order) -> int:
        """
        :param order: What to start.
        :return: Its process id. It is this server's child, and nobody's to wait for.
        """
        return int(self._ask(json.dumps(asdict(order)) + "\n"))

    def stop(self) -> None:
        """End it; the daemons that it made stay."""
        self._process.communicate(timeout=30)


class _Forked(Program):
    """A :class:`~tests.e2e.process.Program` that a :class:`ForkServer` starts. Its exit status is not known."""

    def __init__(self, forks: ForkServer, server: FaultyRegd, like: Program) -> None:
        super().__init__(like.command, like.log, like.environment, like.cwd)
        self._forks = forks
        self._server = server
        self._pid = 0
        self._handle: int | None = None

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._pid

    def start(self) -> None:
        """Start it."""
        assert not self.is_alive()
        self._pid = self._forks.start(Order(self._server.arguments(), self.environment, str(self.log), str(self.cwd)))
        self._handle = os.pidfd_open(self._pid)

    def _ended(self, seconds: float) -> bool:
        """Whether it has ended, or does so within that time."""
        if self._handle is not None:
            poll = select.poll()
            poll.register(self._handle, select.POLLIN)
            if not poll.poll(seconds * 1000):
                return False
            os.close(self._handle)
            self._handle = None
        return True

    def is_alive(self) -> bool:
        """
        :return: Whether it runs.
        """
        return not self._ended(0)

    def send(self, number: signal.Signals) -> None:
        """
        :param number: The signal to send.
        """
        if self.is_alive():
            assert self._handle is not None
            signal.pidfd_send_signal(self._handle, number)

    def stop(self, number: signal.Signals = signal.SIGTERM, seconds: float = 30) -> int | None:
        """
        End it and wait for its end. Safe to call at any time.

        :param number: The signal that asks it to.
        :param seconds: How long it may take.
        :return: ``None``: its exit status is not known.
        :raises AssertionError: When it had to be killed.
        """
        self.send(number)
        if not self._ended(seconds):
            self.send(signal.SIGKILL)
            self._ended(seconds)
            raise AssertionError(f"the daemon did not end {seconds} s after {number.name}:\n{self.tail()}")
        return None

    def wait_for_end(self, seconds: float = 30) -> None:
        """
        Wait for an end that it comes to by itself.

        :param seconds: How long that may take.
        :raises AssertionError: When it does not end.
        """
        if not self._ended(seconds):
            raise AssertionError(f"the daemon was to end, and did not within {seconds} s:\n{self.tail()}")


class ForkedRegd(FaultyRegd):
    """
    A :class:`FaultyRegd` that starts in a tenth of the time.

    :param forks: What makes its processes.
    """

    def __init__(self, forks: ForkServer, directory: Path, environment: Mapping[str, str] | None = None) -> None:
        super().__init__(directory, None, environment)
        self.program: _Forked = _Forked(forks, self, self.program)

    def wait_for_end(self) -> None:
        """Wait until it has died of its own."""
        self.program.wait_for_end()


class ForkedCommand:
    """
    A command of ``regd`` on the disk of a server, which fails as the server's :meth:`FaultyRegd.arm` says.

    :param forks: What makes its processes.
    :param server: Whose configuration and whose disk it has; it need not run.
    """

    def __init__(self, forks: ForkServer, server: FaultyRegd) -> None:
        self._forks = forks
        self._server = server
        self._log = server.directory / "command-log"

    def run(self, *arguments: str, seconds: float = 60) -> int | None:
        """
        Run it to its end.

        :param arguments: The command and its options; the file of the configuration follows.
        :param seconds: How long it may take.
        :return: Its exit status; ``None`` when it was killed.
        :raises TimeoutError: When it does not end; it is killed then.
        """
        self._log.write_bytes(b"")
        plan, record = str(self._server.plan), str(self._server.record)
        environment = self._server.program.environment
        order = Order([plan, record, *arguments, str(self._server.configuration)], environment, str(self._log), str(self._log.parent), True)
        # It may have ended, and its parent have taken notice, before we come to look.
        with contextlib.suppress(ProcessLookupError):
            handle = os.pidfd_open(self._forks.start(order))
            try:
                poll = select.poll()
                poll.register(handle, select.POLLIN)
                if not poll.poll(seconds * 1000):
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
                    raise TimeoutError(f"regd {' '.join(arguments)} did not end within {seconds} s:\n{self.output()}")
            finally:
                os.close(handle)
        last = self.output().rstrip().rpartition("\n")[2]
        return int(last.removeprefix("exit ")) if last.startswith("exit ") else None

    def output(self) -> str:
        """
        :return: What it wrote, and how it ended.
        """
        return self._log.read_text(encoding="utf-8")
