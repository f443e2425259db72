"""
What can come of asking a remote registry, besides an answer. Knows nothing of HTTP.

``str()`` of each is for the operator's log: it says who was asked and what was wrong, and never a password, a token or the query of a URL,
which may be a signature.
"""

from __future__ import annotations

__all__ = ["Denied", "Limited", "NotThere", "RemoteError", "Unreachable", "Wrong"]


class RemoteError(Exception):
    """The remote registry did not give what it was asked for."""


class NotThere(RemoteError):
    """It has no such thing, and says so."""


class Denied(RemoteError):
    """It does not let us have this: credentials are missing, or not enough."""


class Limited(RemoteError):
    """
    It wants to be asked later.

    :ivar retry_after: in how many seconds; above 0.
    """

    def __init__(self, why: str, retry_after: float) -> None:
        super().__init__(why)
        self.retry_after = retry_after


class Unreachable(RemoteError):
    """
    It cannot be asked, or does not answer as a registry does: no connection, no TLS, an error of its own (5xx), garbage, redirects without
    end, a body that breaks off or is too large.

    :ivar late: whether it took too long.
    """

    def __init__(self, why: str, *, late: bool = False) -> None:
        super().__init__(why)
        self.late = late


class Wrong(RemoteError):
    """What it sent is not what its digest says."""
