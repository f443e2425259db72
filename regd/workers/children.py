"""Worker processes: how they are started, watched and replaced, by Twisted's ``procmon``."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Final

from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IAddress, IReactorProcess, IReactorTime
from twisted.internet.protocol import Factory, ProcessProtocol, Protocol
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure
from twisted.runner.procmon import ProcessMonitor
from zope.interface import implementer

from regd.processes import Lines, how_it_ended
from regd.workers.channel import channel_pair
from regd.workers.control import WorkerControl

__all__ = ["ASKED_TO_END", "CHANNEL", "CONTROL", "LOCK", "RATES", "Child", "Children", "Given", "Output"]

#: The descriptors of a worker, beside the three that every program has: connections, what is said, the lock of the log, and what all know
#: of how often has been asked.
CHANNEL: Final = 3
CONTROL: Final = 4
LOCK: Final = 5
RATES: Final = 6

#: How a worker has ended that was asked to before it could see to that itself.
ASKED_TO_END: Final = "was killed by SIGTERM"

#: Where a worker's output goes: a descriptor of ours that it inherits, or who takes its lines.
Output = int | Callable[[str], None]


class Child(ProcessProtocol):
    """
    One worker process, seen from its parent.

    :param watched: procmon's protocol, which has to hear of the end.
    :param outputs: where its standard output (1) and standard error (2) go.
    :param ended: called when it has ended, with what is to be said of that.
    :ivar pid: its process id.
    :ivar channel: our end of the channel for connections; whoever uses it closes it.
    :ivar control: for talking to it.
    """

    def __init__(self, watched: Any, outputs: Mapping[int, Output], ended: Callable[[Child, str], None]) -> None:
        self.watched = watched
        self.pid = 0
        self.channel: socket.socket
        self.control = WorkerControl()
        self._ended = ended
        takers = {fd: output for fd, output in outputs.items() if not isinstance(output, int)}
        self._lines = {fd: Lines(partial(_tell, taker)) for fd, taker in takers.items()}

    def end(self) -> None:
        """Ask it to end."""
        # Any: Twisted declares no transport for protocols of processes.
        transport: Any = self.transport
        with suppress(ProcessExitedAlready):
            transport.signalProcess("TERM")

    def connectionMade(self) -> None:  # noqa: N802 - Twisted's name
        """It runs."""
        # Any: IProcessTransport has the id, and may be missing for all that mypy knows.
        transport: Any = self.transport
        self.pid = transport.pid
        self.watched.makeConnection(self.transport)

    def childDataReceived(self, childFD: int, data: bytes) -> None:  # noqa: N802, N803 - Twisted's names
        """It has written something."""
        self._lines[childFD].feed(data)

    def processEnded(self, reason: Failure) -> None:  # noqa: N802 - Twisted's name
        """It has ended, and all that it wrote is here."""
        for lines in self._lines.values():
            lines.end()
        self._ended(self, how_it_ended(reason))
        self.watched.processEnded(reason)


class Given(Factory):
    """
    Makes nothing: the one protocol is there already.
    """

    noisy = False

    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol

    def buildProtocol(self, addr: IAddress | None) -> Protocol:  # noqa: N802 - Twisted's name
        """The protocol for the one connection."""
        return self._protocol


@implementer(IReactorProcess, IReactorTime)
class _Spawner:
    """
    What procmon has for a reactor. procmon starts a process with its arguments and environment and nothing else; here it is given its
    sockets as well.

    :param make: makes the :class:`Child` for procmon's protocol.
    :param started: called with each that runs.
    """

    def __init__(
        self, reactor: Any, outputs: Mapping[int, Output], lock: int | None, rates: int | None, ended: Callable[[Child, str], None]
    ) -> None:
        self._reactor = reactor
        self._outputs = outputs
        self._shared = {number: fd for number, fd in ((LOCK, lock), (RATES, rates)) if fd is not None}
        self._ended = ended
        self.started: Callable[[Child], None] = lambda child: None

    def spawnProcess(  # type: ignore[override]  # noqa: N802 - procmon gives what is declared here, and that alone
        self,
        processProtocol: Any,  # noqa: N803 - Twisted's name
        executable: str,
        args: list[str],
        env: Mapping[str, str],
        **options: Any,
    ) -> Any:
        """
        Start a worker.

        :raises OSError: when there are no processes or descriptors to be had.
        """
        child = Child(processProtocol, self._outputs, self._ended)
        opened: list[socket.socket] = []
        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        try:
            child.channel, theirs = channel_pair()
            opened += [child.channel, theirs]
            ours, control = socket.socketpair()
            opened += [ours, control]
            descriptors: dict[int, int | str] = {0: null, CHANNEL: theirs.fileno(), CONTROL: control.fileno()}
            descriptors |= self._shared
            for fd, output in self._outputs.items():
                descriptors[fd] = output if isinstance(output, int) else "r"
            ours.setblocking(False)
            # Twisted makes a copy of the descriptor.
            talking = self._reactor.adoptStreamConnection(ours.fileno(), socket.AF_UNIX, Given(child.control))
            try:
                transport = self._reactor.spawnProcess(child, executable, args, env, childFDs=descriptors, **options)
            except BaseException:
                talking.loseConnection()
                raise
            opened.remove(child.channel)
        finally:
            os.close(null)
            for one in opened:
                one.close()
        self.started(child)
        return transport

    def callLater(self, *arguments: Any, **options: Any) -> Any:  # noqa: N802 - Twisted's name
        """See ``IReactorTime``."""
        return self._reactor.callLater(*arguments, **options)

    def seconds(self) -> float:
        """See ``IReactorTime``."""
        now: float = self._reactor.seconds()
        return now

    def getDelayedCalls(self) -> Any:  # noqa: N802 - Twisted's name
        """See ``IReactorTime``."""
        return self._reactor.getDelayedCalls()


class _Log(Logger):
    """What procmon writes to: it has one thing to say that nobody else does, in a form that cannot be formatted (Twisted 26.10)."""

    def failure(
        self,
        format: str,  # noqa: A002 - Twisted's name
        failure: Failure | None = None,
        # Any: the members of LogLevel have no type of their own.
        level: Any = LogLevel.critical,
        **kwargs: object,
    ) -> None:
        """A process could not be started."""
        self.error("a worker cannot be started: {reason}", reason="" if failure is None else failure.getErrorMessage())


class Children(ProcessMonitor):
    """
    All worker processes. One that ends is replaced: at once, or, when it lived less than a second, after a time that doubles, up to a
    minute.

    :param command: starts a worker.
    :param outputs: where the standard output (1) and standard error (2) of workers go.
    :param lock: see :func:`regd.telemetry.lines.make_lock`; ``None`` where workers share no output.
    :param rates: a descriptor that workers share, too: what :func:`regd.web.rates.make_table` has made.
    :param started: called with each worker that has been started.
    :param ended: called with each that has ended, and what is to be said of that.
    """

    maxRestartDelay = 60  # noqa: N815 - Twisted's name
    log = _Log()

    # Any: a reactor is typed as the union of what reactors may be.
    def __init__(
        self,
        reactor: Any,
        command: list[str],
        environment: Mapping[str, str],
        count: int,
        outputs: Mapping[int, Output],
        lock: int | None,
        started: Callable[[Child], None],
        ended: Callable[[Child, str], None],
        rates: int | None = None,
    ) -> None:
        # What we were started with and do not know is nobody's. Otherwise Twisted would have it closed in each worker by its number,
        # which the system refuses where that is above the limit of open files.
        for name in os.listdir("/proc/self/fd"):
            with suppress(OSError):
                if int(name) > 2:
                    os.set_inheritable(int(name), False)
        spawner = _Spawner(reactor, outputs, lock, rates, ended)
        spawner.started = started
        super().__init__(spawner)
        for number in range(1, count + 1):
            self.addProcess(f"worker {number}", command, env=dict(environment))

    def hurry(self, timeout: float) -> None:
        """
        Those that have been asked to end have less time for it than they had.

        :param timeout: in how many seconds they are killed.
        """
        for killing in self.murder.values():
            if killing.active():
                killing.reset(timeout)


def _tell(taker: Callable[[str], None], line: bytes) -> None:
    taker(line.decode("utf-8", "backslashreplace") + "\n")
