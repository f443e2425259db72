"""
On whose behalf something is done: the request that is being answered, and its id.

The request is in a context variable (PEP 567). Whoever begins to answer one sets it, and sets it back before anything else happens on the
event loop. A coroutine keeps what was set when it was begun: ``Deferred.fromCoroutine`` runs all of it in a copy of the context of its
beginning, wherever the Deferred that it waits for is fired. So whatever it logs or asks of others is the request's, and nothing of another
request is. A fetch that several requests wait for is on behalf of the one that caused it. Threads, timers, and what is fired without a
coroutine are on nobody's behalf: they say nothing, and never something wrong.
"""

from __future__ import annotations

import re
import uuid
from contextvars import ContextVar
from itertools import count
from typing import Final

from twisted.internet.interfaces import IAddress
from twisted.web.http_headers import Headers

__all__ = ["ASKED", "FIELD", "INSTANCE", "LONGEST", "Asked", "current_id", "make_id", "valid_id"]

#: The header field with the id, both ways, and on to other servers.
FIELD: Final = b"X-Request-Id"

#: This process, in log lines.
INSTANCE: Final = str(uuid.uuid4())

#: The longest id that is taken from others, in characters.
LONGEST: Final = 128

#: What an id may be made of: characters that mean nothing to logs, shells, HTML, and header fields. Made by others, it is a UUID mostly, or
#: what W3C's trace context or a proxy's own grammar has.
_VALID: Final = re.compile(rb"[A-Za-z0-9._~:/+=@-]{1,%d}" % LONGEST)

# 48 random bits for a process, and a number for each of its requests: as good as random, for a thirtieth of the price of a UUID.
_PREFIX: Final = INSTANCE.replace("-", "")[:12]
_numbers = count(1)


class Asked:
    """
    What of a request is said in log lines. It holds on to no connection, because a fetch may outlive those who asked for it.

    :param id: the id of the request.
    :param peer: who is connected.
    """

    __slots__ = ("headers", "id", "method", "peer", "uri")

    def __init__(self, id: str, method: bytes, uri: bytes, peer: IAddress | None, headers: Headers) -> None:  # noqa: A002 - it is one
        self.id = id
        self.method = method
        self.uri = uri
        self.peer = peer
        self.headers = headers


#: The request on whose behalf what runs is run; ``None`` for what the daemon does by itself.
ASKED: Final[ContextVar[Asked | None]] = ContextVar("asked", default=None)


def make_id() -> str:
    """A new id, which no other process makes either."""
    return f"{_PREFIX}-{next(_numbers):x}"


def valid_id(said: bytes) -> bool:
    """Whether an id that somebody else has made may stand in logs and go on: 1 to 128 letters, digits and ``._~:/+=@-``."""
    return _VALID.fullmatch(said) is not None


def current_id() -> str:
    """The id of the request on whose behalf this is done; empty for what the daemon does by itself."""
    asked = ASKED.get()
    return "" if asked is None else asked.id
