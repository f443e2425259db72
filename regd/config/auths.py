"""The keys of ``auth``, ``access`` and ``groups``, and what has to fit together in them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal, Protocol, TypeVar

from regd.config.authvalues import Auth, Htpasswd, Rule
from regd.config.document import ListNode, Node, Scalar, is_null
from regd.config.error import ConfigError, shown
from regd.config.schema import Key
from regd.config.sections import file_path, section
from regd.config.values import Parser, Place, choice, from_text, list_of, mapping_of

__all__ = ["ACCESS", "GROUPS", "HTPASSWD", "Reading", "read_access", "read_auth", "read_groups"]

T = TypeVar("T")

Action = Literal["pull", "push", "delete", "catalog"]

_NAME: Final = re.compile(r"[^\s:,@*\x00-\x1f\x7f][^\s:,\x00-\x1f\x7f]*")
_COMPONENT: Final = re.compile(r"\*\*|[a-z0-9._*-]+")
_ACTIONS: Parser[Action] = choice("pull", "push", "delete", "catalog")


class Reading(Protocol):
    """A file that is being read; see :mod:`regd.config.load`."""

    errors: list[ConfigError]
    warnings: list[str]

    def node(self, path: str) -> Node | None:
        """What stands at a path."""

    def get(self, key: Key[T]) -> T:
        """The value of a key, or its default."""


def _user(found: str) -> str:
    if not _NAME.fullmatch(found):
        raise ValueError("the name of a user, without spaces, colons and commas")
    return found


def _who(found: str) -> str:
    if found == "*" or _NAME.fullmatch(found) or (found.startswith("@") and _NAME.fullmatch(found[1:])):
        return found
    raise ValueError('the name of a user, "@" and the name of a group, anonymous for everybody, or "*" for everybody with a name')


def _pattern(found: str) -> str:
    if not all(_COMPONENT.fullmatch(part) and ("**" not in part or part == "**") for part in found.split("/")):
        raise ValueError(
            'a pattern of names of repositories, such as "team/*" or "team/**": small letters, digits, ".", "_", "-" and "*" in components '
            'between slashes; "**" is a component by itself'
        )
    return found


def _realm(found: str) -> str:
    if not found or not found.isprintable() or not found.isascii():
        raise ValueError("what people are told that the password is for, in printable ASCII")
    return found


def _one_or_more(item: Parser[str], example: str) -> Parser[tuple[str, ...]]:
    """A list, or its only entry by itself."""
    several = list_of(item, example)

    def read(place: Place) -> tuple[str, ...]:
        if isinstance(place.node, Scalar) and not is_null(place.node):
            return (item.read(place),)
        found = several.read(place)
        if not found:
            raise place.refuse(f"at least one entry, such as {example}")
        return found

    return Parser(read, several.show, several.inner)


_WHO: Final = _one_or_more(from_text(_who, shown), "[alice, '@ci']")
_REPOSITORIES: Final = _one_or_more(from_text(_pattern, shown), "['team/**']")


def _rules() -> Parser[tuple[Rule, ...]]:
    # Defaults stand in for what has none: all three are required.
    return list_of(
        section(
            Rule,
            {"who": (_WHO, ()), "repositories": (_REPOSITORIES, ()), "actions": (list_of(_ACTIONS, "[pull]"), ())},
            ("who", "repositories", "actions"),
        ),
        "{who: anonymous, repositories: ['public/**'], actions: [pull]}",
    )


def _absolute(found: str) -> str:
    path = file_path(found)
    if not path.startswith("/"):
        raise ValueError("the absolute path of a file")
    return path


def _optional(parser: Parser[T]) -> Parser[T | None]:
    def show(value: T | None) -> str:
        return "" if value is None else parser.show(value)

    return Parser(parser.read, show, parser.inner)


HTPASSWD: Key[Htpasswd | None] = Key(
    "auth.htpasswd",
    _optional(section(Htpasswd, {"realm": (from_text(_realm, shown), ""), "path": (from_text(_absolute, shown), "")}, ("realm", "path"))),
    None,
)
ACCESS: Key[tuple[Rule, ...] | None] = Key("access", _optional(_rules()), None)
GROUPS: Key[Mapping[str, tuple[str, ...]]] = Key(
    "groups",
    mapping_of(list_of(from_text(_user, shown), "alice"), "ci: [robot1, robot2]", joiner="_"),
    MappingProxyType({}),
)


def read_auth(reading: Reading) -> Auth:
    """``auth``."""
    return Auth(htpasswd=reading.get(HTPASSWD))


def read_groups(reading: Reading) -> Mapping[str, tuple[str, ...]]:
    """``groups``."""
    return reading.get(GROUPS)


def read_access(reading: Reading, auth: Auth, groups: Mapping[str, tuple[str, ...]]) -> tuple[Rule, ...] | None:
    """``access``; and what in it can never come true."""
    rules = reading.get(ACCESS)
    node = reading.node(ACCESS.path)
    if rules is None and node is not None and is_null(node):
        allowed = "a list of rules; [] allows nothing to anybody"
        reading.errors.append(ConfigError(f"{ACCESS.path} ({node.origin}): found nothing, allowed: {allowed}"))
    for index, rule in enumerate(rules or ()):
        place = f"{ACCESS.path}[{index}] ({_origin(node, index)})"
        for one in rule.who:
            if one.startswith("@") and one[1:] not in groups:
                known = ", ".join(f"@{group}" for group in groups) or "none, as groups is not there"
                reading.errors.append(ConfigError(f"{place}: found the group {one}, allowed: {known}"))
            elif one != "anonymous" and auth == Auth():
                reading.warnings.append(f"{place}: nobody can be {one}, because auth says no way to log in")
    if groups and rules is None:
        reading.warnings.append(f"{GROUPS.path}: nothing to do without access, whose rules name them")
    return rules


def _origin(node: Node | None, index: int) -> str:
    if isinstance(node, ListNode) and index < len(node.items):
        return node.items[index].origin
    return "not given" if node is None else node.origin
