"""``auth.silly`` of registry:2: whoever says anything is believed. For trying things out."""

from __future__ import annotations

from collections.abc import Sequence

from regd.auth.tokens import bearer
from regd.auth.users import Grant, User

__all__ = ["Believer"]


class Believer:
    """
    Believes everything.

    :param realm: what the challenge names, as ``service``.
    """

    #: Any.
    scheme = ""
    lasting = True

    def __init__(self, realm: str, service: str) -> None:
        self._realm = realm
        self._service = service

    def check(self, credentials: str) -> User:
        """See :class:`~regd.auth.authenticator.Authenticator`."""
        return User("silly")

    def challenge(self, base: str, wanted: Sequence[Grant], problem: str) -> str:
        """See :class:`~regd.auth.authenticator.Authenticator`."""
        return bearer(self._realm, self._service, wanted, "")
