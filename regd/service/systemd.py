"""
What systemd and its like say to a daemon by its environment, and what it says to them: sd_listen_fds(3), sd_watchdog_enabled(3) and
sd_notify(3).

Without these variables nothing here does anything.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from twisted.internet.interfaces import IDelayedCall
from twisted.python.systemd import ListenFDs

__all__ = ["DEBUG", "BadSocket", "Manager", "Passed", "first_environment"]

#: ``FileDescriptorName=`` of the socket for ``/debug``; all others serve the registry.
DEBUG: Final = "debug"

#: How long a state may wait for room in the manager's queue, in seconds. It has room for some hundred.
_PATIENCE: Final = 1.0

_FAMILIES: Final = frozenset({socket.AF_INET, socket.AF_INET6, socket.AF_UNIX})


class BadSocket(ValueError):
    """What was passed is not what a registry can listen on; ``str()`` says what it is."""


class _Clock(Protocol):
    def callLater(self, delay: float, callable: Callable[[], object]) -> IDelayedCall: ...  # noqa: N802, A002 - Twisted's names


@dataclass(frozen=True)
class Passed:
    """
    Listening sockets that were passed to us.

    :ivar serving: those that the registry is to answer on; empty where it is to listen on ``http.addr``.
    :ivar debug: the one for ``/debug``, in place of ``http.debug.addr``.
    """

    serving: tuple[socket.socket, ...] = ()
    debug: socket.socket | None = None


@dataclass
class Manager:
    """
    Who has started us, and wants to know how we are.

    :ivar address: where to say it; ``None`` for nobody who wants to know.
    :ivar watchdog: how often to say that we are alive, in seconds; ``None`` for never.
    :ivar descriptors: the number and the name of each socket that was passed.
    """

    address: bytes | None = None
    watchdog: float | None = None
    descriptors: tuple[tuple[int, str], ...] = ()
    _ready: bool = field(default=False, init=False)
    _stopping: bool = field(default=False, init=False)
    _reloading: int = field(default=0, init=False)

    @classmethod
    def from_environment(cls, environ: MutableMapping[str, str], first: Mapping[str, str] | None = None) -> Manager:
        """
        Read what was said to this process, and remove it: what we start is not spoken to.

        :param environ: the variables of the process.
        :param first: those that it was started with, see :func:`first_environment`.
        """
        names = environ.pop("LISTEN_FDNAMES", "")
        given = {name: value for name, value in {**(first or {}), **environ}.items() if name in ("LISTEN_PID", "LISTEN_FDS")}
        # Twisted wants a name for each; whoever passes sockets without names (systemd before 227, other managers) gets them named.
        count = int(given.get("LISTEN_FDS", "0")) if given.get("LISTEN_FDS", "").isdecimal() else 0
        named = names.split(":") if names else ["unknown"] * count
        descriptors = ListenFDs.fromEnvironment({**given, "LISTEN_FDNAMES": ":".join(named)}).inheritedDescriptors()
        for name in given:
            environ.pop(name, None)
        address = _address(environ.pop("NOTIFY_SOCKET", ""))
        interval, pid = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
        # Half of it is what sd_watchdog_enabled(3) recommends. Twice as often, because one turn may pass until a worker is found to hang.
        ours = interval.isdecimal() and int(interval) > 0 and pid in ("", str(os.getpid()))
        watchdog = int(interval) / 1_000_000 / 4 if ours else None
        return cls(address, watchdog, tuple(zip(descriptors, named, strict=True)) if descriptors else ())

    def take_sockets(self) -> Passed:
        """
        The sockets that were passed; they are ours from now on. The second time there are none.

        :raises BadSocket: when one is not a listening stream socket, or there are two for ``/debug``.
        """
        descriptors, self.descriptors = self.descriptors, ()
        serving: list[socket.socket] = []
        debug: list[socket.socket] = []
        for fd, name in descriptors:
            (debug if name == DEBUG else serving).append(_socket(fd, name))
        if len(debug) > 1:
            raise BadSocket(f"{len(debug)} sockets are named {DEBUG}, and one is all that is of use")
        return Passed(tuple(serving), debug[0] if debug else None)

    def ready(self, status: str) -> None:
        """We serve."""
        self._ready = True
        if not self._stopping:
            self._say("READY=1", f"STATUS={_line(status)}")

    def reloading(self) -> None:
        """The configuration is being read again. Each such call is followed by one of :meth:`reloaded`, whatever becomes of it."""
        self._reloading += 1
        if self._ready and not self._stopping:
            # Both in one message: systemd compares the time with that of its signal (sd_notify(3), RELOADING=1).
            self._say("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def reloaded(self, status: str) -> None:
        """It has been read again. When several signals came, the last one tells."""
        self._reloading -= 1
        if self._ready and not self._reloading:
            self.ready(status)

    def stopping(self, status: str, seconds: float) -> None:
        """
        We are about to end.

        :param seconds: how long that may take; the manager does not kill us before, whatever it was told.
        """
        self._stopping = True
        self._say("STOPPING=1", f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}", f"STATUS={_line(status)}")

    def start_watchdog(self, clock: _Clock, well: Callable[[], bool] = lambda: True) -> None:
        """
        From now on say regularly that the event loop turns.

        :param well: asked each time whether there is nothing else that hangs; where there is, nothing is said.
        """
        if self.watchdog is not None and self.address is not None:
            if well():
                # What waits in the queue says the same.
                self._say("WATCHDOG=1", patience=0)
            clock.callLater(self.watchdog, lambda: self.start_watchdog(clock, well))

    def _say(self, *lines: str, patience: float = _PATIENCE) -> None:
        if self.address is None:
            return
        # Nothing that could go wrong here is worth a registry that does not serve. The manager notices what it does not hear.
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sending:
            sending.settimeout(patience)
            sending.sendto("\n".join(lines).encode(), self.address)


def first_environment() -> dict[str, str]:
    """
    What the process was started with, whatever has become of it: Twisted takes ``LISTEN_FDS`` out of it for its endpoints, as soon as a
    plugin for ``twistd`` imports them.
    """
    try:
        content = Path("/proc/self/environ").read_bytes()
    except OSError:
        return {}
    return dict(entry.split("=", 1) for entry in os.fsdecode(content).split("\0") if "=" in entry)


def _address(text: str) -> bytes | None:
    """Where to say things: a path, or with ``@`` an abstract name. Nothing else is spoken on one machine."""
    if text.startswith("@"):
        return b"\0" + os.fsencode(text[1:])
    return os.fsencode(text) if text.startswith("/") else None


def _line(text: str) -> str:
    """What may stand behind ``STATUS=``."""
    return " ".join(text.split())


def _socket(fd: int, name: str) -> socket.socket:
    """
    :raises BadSocket: when it is not one that clients can connect to.
    """
    try:
        passed = socket.socket(fileno=fd)
    except OSError as error:
        raise BadSocket(f"descriptor {fd} ({name}) is no socket: {error.strerror}") from None
    # Any: an enumeration where Python knows the number.
    family: Any = passed.family
    listening = passed.type == socket.SOCK_STREAM and passed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if family not in _FAMILIES or not listening:
        passed.close()
        raise BadSocket(f"descriptor {fd} ({name}) is no socket that clients connect to: ListenStream= and Accept=no make one")
    passed.setblocking(False)
    passed.set_inheritable(False)
    return passed
