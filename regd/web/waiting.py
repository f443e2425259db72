"""A channel that is looked at now and then, for clients that keep it waiting; see :mod:`regd.web.patience`."""

from __future__ import annotations

from typing import Any

from twisted.logger import Logger

from regd.asked import make_id
from regd.errors import RegistryError
from regd.web.ending import EndingChannel
from regd.web.patience import Patience

__all__ = ["WaitingChannel"]


class _TooSlow(RegistryError):
    """The head of a request has not come to its end."""

    code, status, default_message = "UNSUPPORTED", 408, "the head of the request did not come in time"


class WaitingChannel(EndingChannel):
    """One connection."""

    _log = Logger()

    #: Since when the head of a request has been incomplete, as far as anybody has looked.
    head_since: float | None = None
    #: What has still to be sent, and since when that is the same.
    _stuck: tuple[object, float] | None = None

    def look(self, now: float, patience: Patience) -> None:
        """See whether the client has kept us waiting for too long."""
        if not self._waits_for_head():
            self.head_since = None
        elif self.head_since is None:
            self.head_since = now
        elif now - self.head_since >= patience.header:
            self._give_up()
            return
        backlog = getattr(self.transport, "backlog", None)
        if backlog is None:
            self._stuck = None
        elif self._stuck is None or self._stuck[0] != backlog:
            self._stuck = backlog, now
        elif now - self._stuck[1] >= patience.write:
            self._log.info("{peer} takes nothing of its answer, and is cut off", peer=_host(self.transport.getPeer()))
            self.transport.abortConnection()

    def _waits_for_head(self) -> bool:
        if getattr(self.transport, "shaking", False):
            return True
        begun = self._HTTPChannel__first_line != 1 or bool(self._buffer)
        return begun and bool(self.line_mode) and not self._handlingRequest and not self._refused

    def _give_up(self) -> None:
        if getattr(self.transport, "shaking", False):
            self.transport.abortConnection()
        else:
            self.refuse(_TooSlow(), make_id())


# Any: an address of whatever kind.
def _host(address: Any) -> str:
    return getattr(address, "host", "a client")
