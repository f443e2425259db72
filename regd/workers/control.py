"""
What the parent and a worker say to each other: Twisted's AMP over a pair of sockets.

Whatever all processes need to know and the storage does not tell them (metrics, notifications) has its place here: a command, a responder
at the end that is asked, and a method of :class:`~regd.workers.group.Group` for the parent.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.protocol import connectionDone
from twisted.protocols.amp import AMP, Boolean, Command, Integer, String, Unicode
from twisted.python.failure import Failure

__all__ = [
    "CannotServe",
    "Configure",
    "CutOff",
    "Measure",
    "ParentControl",
    "Ping",
    "Recorded",
    "Refuse",
    "Reopen",
    "Variables",
    "WorkerControl",
]

#: AMP's values have 65,535 bytes at most; a configuration may be longer.
_PART = 60_000


class CannotServe(Exception):
    """The worker cannot do what the configuration says; the reason is for the operator."""


class Configure(Command):
    """
    To a worker: part of the text of a configuration. The answer to the last part means that it is in effect; the first configuration makes
    the worker serve.
    """

    arguments = [(b"path", Unicode()), (b"part", String()), (b"last", Boolean())]
    errors = {CannotServe: b"CANNOT_SERVE"}


class Refuse(Command):
    """To a worker: answer every request with 503, and tell clients this reason; where it is empty, answer as usual."""

    arguments = [(b"reason", Unicode())]


class Reopen(Command):
    """To a worker: the files that lines are written to have been moved away."""


class Variables(Command):
    """To a worker: its numbers, as JSON."""

    response = [(b"variables", String())]


class Measure(Command):
    """To a worker: part of its samples (:mod:`regd.telemetry.samples`), as JSON. Asked for the first part, it takes them anew."""

    arguments = [(b"start", Integer())]
    response = [(b"part", String()), (b"last", Boolean())]


class CutOff(Command):
    """
    To a worker: end, and let no request finish. Not a second SIGTERM, because systemd and a shell may send one to each process, besides the
    parent's.
    """


class Ping(Command):
    """To a worker: nothing is wanted but the answer, which says that its event loop turns."""


class Recorded(Command):
    """To the parent: there is something new in the journal of events. Where it is lost with the worker, the parent finds it by itself."""

    requiresAnswer = False  # noqa: N815 - Twisted's name


class WorkerControl(AMP):
    """
    The parent's end.

    :ivar on_recorded: called when the worker has put something into the journal of events.
    """

    def __init__(self) -> None:
        super().__init__()
        self.on_recorded: Callable[[], None] = lambda: None
        # Who asks for the first part while another one has not got the last would mix two.
        self._measuring = DeferredLock()

    async def configure(self, path: str, source: bytes) -> None:
        """
        Put a configuration into effect.

        :raises CannotServe: when the worker cannot.
        """
        # All parts leave here before anything else can be sent.
        answers = [
            self._ask(Configure, path=path, part=source[start : start + _PART], last=start + _PART >= len(source))
            for start in range(0, len(source) or 1, _PART)
        ]
        for answer in answers:
            await answer

    async def refuse(self, reason: str) -> None:
        """
        See :class:`Refuse`.

        :param reason: some thousand characters at most.
        """
        await self._ask(Refuse, reason=reason)

    async def reopen(self) -> None:
        """See :class:`Reopen`."""
        await self._ask(Reopen)

    async def variables(self) -> dict[str, Any]:
        """The worker's numbers."""
        answer = await self._ask(Variables)
        found: dict[str, Any] = json.loads(answer["variables"])
        return found

    async def samples(self) -> bytes:
        """The worker's samples."""
        await self._measuring.acquire()
        try:
            parts: list[bytes] = []
            last = False
            while not last:
                answer = await self._ask(Measure, start=sum(map(len, parts)))
                parts.append(answer["part"])
                last = answer["last"]
            return b"".join(parts)
        finally:
            self._measuring.release()

    async def cut_off(self) -> None:
        """Have the worker end now."""
        await self._ask(CutOff)

    async def ping(self) -> None:
        """Wait until the worker has time for us."""
        await self._ask(Ping)

    @Recorded.responder
    def _recorded(self) -> dict[str, object]:
        self.on_recorded()
        return {}

    def _ask(self, command: type[Command], **arguments: object) -> Deferred[Any]:
        asked: Deferred[Any] = self.callRemote(command, **arguments)
        return asked


class Asked(Protocol):
    """Who answers in the worker."""

    def configure(self, path: str, source: bytes) -> None:
        """
        See :class:`Configure`.

        :raises CannotServe: when it cannot be done.
        """

    def refuse(self, reason: str) -> None:
        """See :class:`Refuse`. May come before the first configuration."""

    def reopen(self) -> None:
        """See :class:`Reopen`. May come before the first configuration."""

    def variables(self) -> dict[str, object]:
        """See :class:`Variables`."""

    def samples(self) -> bytes:
        """See :class:`Measure`."""

    def cut_off(self) -> None:
        """See :class:`CutOff`."""


class ParentControl(AMP):
    """
    The worker's end.

    :param asked: answers.
    :param parent_gone: called when the parent has gone.
    """

    def __init__(self, asked: Asked, parent_gone: Callable[[], None]) -> None:
        super().__init__()
        self._asked = asked
        self._parent_gone = parent_gone
        self._parts: list[bytes] = []
        self._samples = b""

    def recorded(self) -> None:
        """See :class:`Recorded`."""
        failed: Deferred[Any] | None = self.callRemote(Recorded)
        if failed is not None:
            # The parent is gone, and so are we, soon.
            failed.addErrback(lambda _: None)

    @Configure.responder
    def _configure(self, path: str, part: bytes, last: bool) -> dict[str, object]:
        self._parts.append(part)
        if last:
            source, self._parts = b"".join(self._parts), []
            self._asked.configure(path, source)
        return {}

    @Refuse.responder
    def _refuse(self, reason: str) -> dict[str, object]:
        self._asked.refuse(reason)
        return {}

    @Reopen.responder
    def _reopen(self) -> dict[str, object]:
        self._asked.reopen()
        return {}

    @Variables.responder
    def _variables(self) -> dict[str, object]:
        return {"variables": json.dumps(self._asked.variables()).encode()}

    @Measure.responder
    def _measure(self, start: int) -> dict[str, object]:
        if not start:
            self._samples = self._asked.samples()
        end = start + _PART
        return {"part": self._samples[start:end], "last": end >= len(self._samples)}

    @CutOff.responder
    def _cut_off(self) -> dict[str, object]:
        self._asked.cut_off()
        return {}

    @Ping.responder
    def _ping(self) -> dict[str, object]:
        return {}

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: N802 - Twisted's name
        """The parent has gone, or is about to."""
        super().connectionLost(reason)
        self._parent_gone()
