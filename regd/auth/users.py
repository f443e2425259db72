"""Who is asking, as everything behind the door knows them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["ANONYMOUS", "Action", "Grant", "User", "granted"]

#: What somebody may do: ``pull``, ``push`` and ``delete`` in a repository, ``catalog`` in the registry as a whole.
Action = Literal["pull", "push", "delete", "catalog"]


@dataclass(frozen=True, slots=True)
class Grant:
    """
    One entry of a token's ``access`` claim (Docker's token specification).

    :ivar type: ``repository`` or ``registry``.
    :ivar name: the repository, or ``catalog``.
    :ivar actions: as the token says them; ``*`` is all of them.
    """

    type: str
    name: str
    actions: frozenset[str]


@dataclass(frozen=True, slots=True)
class User:
    """
    Somebody who has said who they are, and has shown it.

    :ivar name: empty for a client that says nothing.
    :ivar groups: those that what they have shown puts them in; the configuration's own are not among them.
    :ivar grants: all that a token lets its bearer do; ``None`` where it does not say, and for who has come without one.
    """

    name: str = ""
    groups: frozenset[str] = frozenset()
    grants: tuple[Grant, ...] | None = None


def granted(user: User, kind: str, name: str, action: str) -> bool:
    """Whether what a user has shown lets them do this; where it does not say, it does."""
    if user.grants is None:
        return True
    return any(grant.type == kind and grant.name == name and not grant.actions.isdisjoint({action, "*"}) for grant in user.grants)


#: Who says nothing.
ANONYMOUS: Final = User()
