"""
What who may do: ``access`` and ``groups``, decided by names alone.

Nothing here looks at what the registry holds. So what somebody is told of a repository that they may not see cannot depend on whether it is
there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from regd.auth.users import ANONYMOUS, Action, User
from regd.config.authvalues import Rule

__all__ = ["EVERYBODY", "NAMED", "Rules", "compile_pattern"]

#: Who a rule is for that is for all, with a name or without.
EVERYBODY: Final = "anonymous"

#: Who a rule is for that is for all who have a name.
NAMED: Final = "*"

#: So many decisions are remembered: a client asks the same thing of the same repository again and again.
_REMEMBERED: Final = 4096


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """
    What a pattern of repositories matches. ``*`` stands for any characters of one component, ``**``, as a component, for any number of
    components, none among them.

    :param pattern: components with ``/`` between them.
    """
    expression = ""
    for component in pattern.split("/"):
        if component == "**":
            # Each component with the slash before it; that of the first one is put before the name.
            expression += "(?:/[^/]+)*"
        else:
            expression += "/" + "[^/]*".join(map(re.escape, component.split("*")))
    return re.compile(expression)


@dataclass(frozen=True, slots=True)
class _Compiled:
    who: frozenset[str]
    patterns: tuple[re.Pattern[str], ...]
    actions: frozenset[str]


class Rules:
    """
    Decides.

    :param access: without it, whoever has a name may do everything, and nobody else anything.
    :param groups: the names of users by the name of their group.
    """

    def __init__(self, access: Sequence[Rule] | None, groups: Mapping[str, Sequence[str]]) -> None:
        self._groups: dict[str, frozenset[str]] = {}
        for group, members in groups.items():
            for member in members:
                self._groups[member] = self._groups.get(member, frozenset()) | {group}
        self._rules: tuple[_Compiled, ...] | None = None
        if access is not None:
            self._rules = tuple(
                _Compiled(frozenset(rule.who), tuple(map(compile_pattern, rule.repositories)), frozenset(rule.actions)) for rule in access
            )
        self._decide = lru_cache(_REMEMBERED)(self._look)

    def names_everybody(self) -> bool:
        """Whether somebody without a name may do anything."""
        return self._rules is not None and any(EVERYBODY in rule.who for rule in self._rules)

    @property
    def name_helps(self) -> bool:
        """Whether somebody with a name may do anything that somebody without may not."""
        return self._rules is None or any(rule.who != {EVERYBODY} for rule in self._rules)

    def allows(self, user: User, repository: str, action: Action) -> bool:
        """
        Whether a user may do this.

        :param repository: its name; not looked at for ``catalog``, which is about the registry as a whole.
        """
        return self._decide(user, repository, action)

    def _look(self, user: User, repository: str, action: Action) -> bool:
        if self._rules is None:
            return user != ANONYMOUS
        names = self._names(user)
        subject = f"/{repository}"
        return any(
            action in rule.actions
            and not names.isdisjoint(rule.who)
            and (action == "catalog" or any(pattern.fullmatch(subject) for pattern in rule.patterns))
            for rule in self._rules
        )

    def _names(self, user: User) -> frozenset[str]:
        """All that the rules may call a user."""
        if not user.name:
            return frozenset({EVERYBODY})
        groups = user.groups | self._groups.get(user.name, frozenset())
        return frozenset({EVERYBODY, NAMED, user.name, *(f"@{group}" for group in groups)})
