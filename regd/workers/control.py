"""
What the parent and a worker say to each other: Twisted's AMP over a pair of sockets.

Whatever all processes need to know and the storage does not tell them (metrics, notifications) has its place here: a command, a responder
at the end that is asked, and a method of :class:`~regd.workers.group.Group` for the parent.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.protocol import connectionDone
from twisted.protocols.amp import AMP, Boolean, Command, String, Unicode
from twisted.python.failure import Failure

__all__ = ["CannotServe", "Configure", "ParentControl", "Variables", "WorkerControl"]

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


class Variables(Command):
    """To a worker: its numbers, as JSON."""

    response = [(b"variables", String())]


class WorkerControl(AMP):
    """
    The parent's end.
    """

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

    async def variables(self) -> dict[str, Any]:
        """The worker's numbers."""
        answer = await self._ask(Variables)
        found: dict[str, Any] = json.loads(answer["variables"])
        return found

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

    def variables(self) -> dict[str, object]:
        """See :class:`Variables`."""


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

    @Configure.responder
    def _configure(self, path: str, part: bytes, last: bool) -> dict[str, object]:
        self._parts.append(part)
        if last:
            source, self._parts = b"".join(self._parts), []
            self._asked.configure(path, source)
        return {}

    @Variables.responder
    def _variables(self) -> dict[str, object]:
        return {"variables": json.dumps(self._asked.variables()).encode()}

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: N802 - Twisted's name
        """The parent has gone, or is about to."""
        super().connectionLost(reason)
        self._parent_gone()
