"""The keys of ``auth``, ``access`` and ``groups``, and what has to fit together in them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, Literal, Protocol, TypeVar

from regd.config.authvalues import Auth, Htpasswd, Issuer, Rule, Silly, TokenAuth
from regd.config.document import ListNode, Node, Scalar, is_null
from regd.config.error import ConfigError, shown
from regd.config.schema import Key
from regd.config.sections import file_path, section
from regd.config.values import Parser, Place, boolean, choice, duration, from_text, list_of, mapping_of

__all__ = ["ACCESS", "GROUPS", "HTPASSWD", "ISSUER", "SILLY", "TOKEN", "Reading", "read_access", "read_auth", "read_groups"]

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
#: What tokens may be signed with: not by a secret that two know.
_ALGORITHMS: Final = ("EdDSA", "RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512")
_SECOND: Final = 1_000_000_000


def _printable(found: str) -> str:
    if not found.isprintable() or not found.isascii():
        raise ValueError("printable ASCII")
    return found


def _url_path(found: str) -> str:
    if not found.startswith("/") or not found.isprintable() or not found.isascii() or " " in found:
        raise ValueError("the path of a URL, such as /auth/token")
    return found


def _token(**values: Any) -> TokenAuth:
    made = TokenAuth(**values)
    if not made.rootcertbundle and not made.jwks:
        raise ValueError("rootcertbundle or jwks, or both: without keys no token can be checked")
    if not made.realm and not made.autoredirect:
        raise ValueError("realm, the URL that tokens are to be had from; or autoredirect: true")
    if not made.service or not made.issuer:
        raise ValueError("service and issuer, neither of them empty")
    return made


_FILE: Final = (from_text(lambda found: _absolute(found) if found else "", shown), "")
_PLAIN: Final = from_text(_printable, shown)
SILLY: Key[Silly | None] = Key(
    "auth.silly",
    _optional(section(Silly, {"realm": (_PLAIN, ""), "service": (_PLAIN, "")}, ("realm", "service"))),
    None,
)
TOKEN: Key[TokenAuth | None] = Key(
    "auth.token",
    _optional(
        section(
            _token,
            {
                "realm": (_PLAIN, ""),
                "service": (_PLAIN, ""),
                "issuer": (_PLAIN, ""),
                "rootcertbundle": _FILE,
                "jwks": _FILE,
                "signingalgorithms": (list_of(choice(*_ALGORITHMS), "[ES256]"), _ALGORITHMS),
                "autoredirect": (boolean(), False),
                "autoredirectpath": (from_text(_url_path, shown), "/auth/token"),
                "leeway": (duration(), 60.0),
                "groups": (_PLAIN, "groups"),
            },
            ("service", "issuer"),
        )
    ),
    None,
)
ISSUER: Key[Issuer | None] = Key(
    "auth.issuer",
    _optional(section(Issuer, {"key": (from_text(_absolute, shown), ""), "lifetime": (duration(minimum=60 * _SECOND), 300.0)}, ("key",))),
    None,
)
ACCESS: Key[tuple[Rule, ...] | None] = Key("access", _optional(_rules()), None)
GROUPS: Key[Mapping[str, tuple[str, ...]]] = Key(
    "groups",
    mapping_of(list_of(from_text(_user, shown), "alice"), "ci: [robot1, robot2]", joiner="_"),
    MappingProxyType({}),
)


def read_auth(reading: Reading) -> Auth:
    """``auth``, and what does not go together in it."""
    found = Auth(reading.get(HTPASSWD), reading.get(TOKEN), reading.get(SILLY), reading.get(ISSUER))
    if found.silly is not None and found != Auth(silly=found.silly):
        reading.errors.append(ConfigError("auth.silly: found other ways to log in beside it, allowed: this one alone"))
    if found.issuer is not None and found.htpasswd is None:
        reading.errors.append(ConfigError("auth.issuer: found no auth.htpasswd beside it, allowed: both: tokens are given for passwords"))
    if found.issuer is not None and found.token is not None:
        reading.errors.append(ConfigError("auth.issuer: found auth.token beside it, allowed: one of them: a challenge names one service"))
    return found


def read_groups(reading: Reading) -> Mapping[str, tuple[str, ...]]:
    """``groups``."""
    return reading.get(GROUPS)


def read_access(reading: Reading, auth: Auth, groups: Mapping[str, tuple[str, ...]], *, certified: bool) -> tuple[Rule, ...] | None:
    """
    ``access``; and what in it can never come true.

    :param certified: whether clients may show certificates that say who they are.
    """
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
            elif one != "anonymous" and auth == Auth() and not certified:
                reading.warnings.append(f"{place}: nobody can be {one}, because auth says no way to log in")
    if groups and rules is None:
        reading.warnings.append(f"{GROUPS.path}: nothing to do without access, whose rules name them")
    return rules


def _origin(node: Node | None, index: int) -> str:
    if isinstance(node, ListNode) and index < len(node.items):
        return node.items[index].origin
    return "not given" if node is None else node.origin
