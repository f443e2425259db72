"""Small parsers of values, and what puts them together: ``list_of(choice("a", "b"))``.

A parser knows three things: how to read a value where it stands, how it is shown, and which levels lie below it, so that an environment
variable can name a part of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Generic, NamedTuple, TypeVar

from regd.config.document import ListNode, MapNode, Node, Scalar, is_null
from regd.config.durations import DurationError, format_duration, parse_duration
from regd.config.error import ConfigError, shown
from regd.config.sizes import SizeError, parse_size

__all__ = [
    "Inner",
    "Parser",
    "Place",
    "boolean",
    "choice",
    "duration",
    "from_text",
    "integer",
    "list_of",
    "mapping_of",
    "read_part",
    "record",
    "size",
    "size_within",
    "text",
]

T = TypeVar("T")
V = TypeVar("V")

#: What yaml.v2, the reader of registry:2, takes for booleans (YAML 1.1).
_BOOLEANS = {
    **{word: True for base in ("y", "yes", "true", "on") for word in (base, base.capitalize(), base.upper())},
    **{word: False for base in ("n", "no", "false", "off") for word in (base, base.capitalize(), base.upper())},
}
_INTEGER = re.compile(r"[-+]?(?:0b[01_]+|0o[0-7_]+|0x[0-9A-Fa-f_]+|[0-9][0-9_]*)")
#: No number of a configuration is longer.
_MOST_DIGITS = 30
_MILLISECOND = 1_000_000


@dataclass(frozen=True)
class Place:
    """A value and where it stands.

    :ivar path: the key: dotted, list indices as ``[0]``.
    :ivar warnings: where a parser leaves what the operator should know.
    :ivar secret: what was found must not be shown.
    """

    path: str
    node: Node
    warnings: list[str] = field(default_factory=list)
    secret: bool = False

    def refuse(self, allowed: str, *, hide: bool = False) -> ConfigError:
        """The error that says what was found here and what is allowed."""
        found = "a value that is not shown" if self.secret or hide else _found(self.node)
        return ConfigError(f"{self.path} ({self.node.origin}): found {found}, allowed: {allowed}")

    def warn(self, problem: str) -> None:
        """Tell the operator something about this key."""
        self.warnings.append(f"{self.path} ({self.node.origin}): {problem}")

    def below(self, suffix: str, node: Node) -> Place:
        """The place of a part: ``.name`` or ``[0]``."""
        return Place(self.path + suffix, node, self.warnings, self.secret)


class Inner(NamedTuple):
    """A level at or below a value, for environment variables.

    :ivar suffix: the path from the value: empty, ``[]`` for an item of a list, ``.*`` for any name, ``.name``.
    :ivar raw: a variable's value is taken as it was typed, not as YAML.
    :ivar joiner: for a map of any names: what the parts of a variable's name are joined with, since they cannot hold ``_``.
    """

    suffix: str
    raw: bool = False
    joiner: str = ""


@dataclass(frozen=True)
class Parser(Generic[T]):
    """Reads a value.

    :ivar takes_null: also where nothing is given in a list or a map; at a key itself, that is the default.
    """

    read: Callable[[Place], T]
    show: Callable[[T], str]
    inner: tuple[Inner, ...]
    takes_null: bool = False


def text(*, secret: bool = False, takes_null: bool = False) -> Parser[str]:
    """Text exactly as typed: ``0123`` and ``yes`` are texts too."""

    def read(place: Place) -> str:
        if not isinstance(place.node, Scalar):
            raise Place(place.path, place.node, place.warnings, secret).refuse("text")
        found = "" if is_null(place.node) else place.node.text
        try:
            found.encode()
        except UnicodeEncodeError:
            # The environment of a process is bytes; those that are not UTF-8 come as surrogates.
            raise Place(place.path, place.node, place.warnings, secret).refuse("text in UTF-8") from None
        return found

    def show(value: str) -> str:
        return ("set" if value else "not set") if secret else shown(value)

    return Parser(read, show, (Inner("", raw=True),), takes_null)


def from_text(convert: Callable[[str], T], show: Callable[[T], str] = str, *, allowed: str = "") -> Parser[T]:
    """What a function makes of a text.

    :param convert: raises :exc:`ValueError`; its message says what is allowed, unless ``allowed`` does.
    """
    source = text()

    def read(place: Place) -> T:
        found = source.read(place)
        try:
            return convert(found)
        except ValueError as error:
            # A URL may hold a password.
            raise place.refuse(allowed or str(error), hide="://" in found and "@" in found) from None

    return Parser(read, show, source.inner)


def boolean() -> Parser[bool]:
    """``true`` or ``false``, and the other words of YAML 1.1. Quoted, they are text, and refused."""

    def read(place: Place) -> bool:
        node = place.node
        if isinstance(node, Scalar) and node.plain and node.text in _BOOLEANS:
            return _BOOLEANS[node.text]
        raise place.refuse("true or false, without quotes")

    return Parser(read, lambda value: "true" if value else "false", (Inner(""),))


def integer(*, minimum: int | None = None, quoted: bool = False) -> Parser[int]:
    """A whole number; also in YAML's other notations (``0x1F``, ``1_000``).

    :param quoted: a number in quotes will do.
    """
    allowed = "a whole number" if minimum is None else f"a whole number of at least {minimum}"

    def read(place: Place) -> int:
        node = place.node
        if not isinstance(node, Scalar) or not (node.plain or quoted):
            raise place.refuse(allowed)
        value = _integer(node.text)
        if value is None or (minimum is not None and value < minimum):
            raise place.refuse(allowed)
        return value

    return Parser(read, str, (Inner(""),))


def duration(*, minimum: int = 0, bare: bool = True) -> Parser[float]:
    """A duration in Go's notation; a bare number is nanoseconds, as registry:2 reads it.

    :param minimum: nanoseconds.
    :param bare: whether a bare number will do; registry:2 reads some keys as text, which has to have units.
    :returns: a parser whose values are seconds.
    """
    allowed = f"a duration with units, such as 90s, 10ms or 1h30m, of at least {format_duration(minimum)}"

    def read(place: Place) -> float:
        node = place.node
        if not isinstance(node, Scalar):
            raise place.refuse(allowed)
        nanoseconds = _integer(node.text) if node.plain else None
        without_unit = nanoseconds is not None
        if without_unit and not bare:
            raise place.refuse(allowed)
        try:
            nanoseconds = parse_duration(node.text) if nanoseconds is None else nanoseconds
        except DurationError:
            raise place.refuse(allowed) from None
        if not minimum <= nanoseconds < 2**63:
            raise place.refuse(allowed)
        if without_unit and 0 < nanoseconds < _MILLISECOND:
            place.warn(f"a number without a unit is nanoseconds, so this is {format_duration(nanoseconds)}; write {node.text}s for seconds")
        return nanoseconds / 1_000_000_000

    return Parser(read, lambda seconds: format_duration(round(seconds * 1_000_000_000)), (Inner(""),))


def size_within(minimum: int, maximum: int, allowed: str) -> Callable[[str], int]:
    """Reads a number of bytes, perhaps with a unit, as :func:`~regd.config.sizes.parse_size` does.

    :param allowed: what the :class:`ValueError` says for any other.
    """

    def read(found: str) -> int:
        try:
            value = parse_size(found)
        except SizeError:
            value = -1
        if not minimum <= value <= maximum:
            raise ValueError(allowed)
        return value

    return read


def size(minimum: int, maximum: int, example: str) -> Parser[int]:
    """A size within bounds.

    :param example: for messages.
    """
    return from_text(size_within(minimum, maximum, f"a size, such as {example}, of {minimum} to {maximum} bytes"), str)


def choice(*words: T, fold: bool = False, empty: T | None = None) -> Parser[T]:
    """One of some words.

    :param fold: upper and lower case are the same.
    :param empty: what an empty text stands for, if it may be empty.
    """
    allowed = ", ".join(str(word) for word in words)
    known = {str(word): word for word in words}
    if empty is not None:
        known[""] = empty

    def read(place: Place) -> T:
        node = place.node
        found = node.text if isinstance(node, Scalar) else None
        if found is not None and fold:
            found = found.lower()
        if found not in known:
            raise place.refuse(f"one of {allowed}")
        return known[found]

    return Parser(read, str, (Inner("", raw=True),))


def list_of(item: Parser[T], example: str, *, takes_null: bool = False) -> Parser[tuple[T, ...]]:
    """A list.

    :param example: one item, for the message.
    :param takes_null: in a collection, nothing is the empty list.
    """

    def read(place: Place) -> tuple[T, ...]:
        if takes_null and is_null(place.node):
            return ()
        if not isinstance(place.node, ListNode):
            raise place.refuse(f"a list, such as [{example}]")
        return tuple(read_part(item, place.below(f"[{index}]", node)) for index, node in enumerate(place.node.items))

    def show(values: tuple[T, ...]) -> str:
        return f"[{', '.join(item.show(value) for value in values)}]"

    return Parser(read, show, (Inner(""), *(level._replace(suffix="[]" + level.suffix) for level in item.inner)), takes_null)


def mapping_of(item: Parser[T], example: str, *, joiner: str) -> Parser[Mapping[str, T]]:
    """A map whose names the operator chooses.

    :param joiner: see :class:`Inner`.
    """

    def read(place: Place) -> Mapping[str, T]:
        if not isinstance(place.node, MapNode):
            raise place.refuse(f"a map, such as {{{example}}}")
        return MappingProxyType({name: read_part(item, place.below(f".{name}", node)) for name, node in place.node.entries.items()})

    def show(values: Mapping[str, T]) -> str:
        return f"{{{', '.join(f'{name}: {item.show(value)}' for name, value in values.items())}}}"

    own, *deeper = (level._replace(suffix=".*" + level.suffix) for level in item.inner)
    return Parser(read, show, (Inner("", joiner=joiner), own, *deeper))


def record(make: Callable[..., T], **parts: Parser[Any]) -> Parser[T]:
    """A map with fixed names, all of them required.

    :param make: called with the values by name. ``Any``: the parsers of one record have different types.
    """

    def read(place: Place) -> T:
        node = place.node
        if not isinstance(node, MapNode) or set(node.entries) != set(parts):
            raise place.refuse(f"a map with {' and '.join(parts)}, and nothing else")
        return make(**{name: read_part(part, place.below(f".{name}", node.entries[name])) for name, part in parts.items()})

    def show(value: T) -> str:
        return f"{{{', '.join(f'{name}: {part.show(getattr(value, name))}' for name, part in parts.items())}}}"

    levels = (level._replace(suffix=f".{name}{level.suffix}") for name, part in parts.items() for level in part.inner)
    return Parser(read, show, (Inner(""), *levels))


def checked(parser: Parser[T], check: Callable[[T], V], show: Callable[[V], str]) -> Parser[V]:
    """What a function makes of a value.

    :param check: raises :exc:`ValueError`, whose message says what is allowed.
    """

    def read(place: Place) -> V:
        value = parser.read(place)
        try:
            return check(value)
        except ValueError as error:
            raise place.refuse(str(error)) from None

    return Parser(read, show, parser.inner)


def read_part(parser: Parser[T], place: Place) -> T:
    """Read an item of a collection, where nothing is not allowed to stand."""
    if is_null(place.node) and not parser.takes_null:
        raise place.refuse("a value")
    return parser.read(place)


def _integer(found: str) -> int | None:
    """A whole number in YAML 1.1's notations; a leading 0 makes it octal, as in Go."""
    if len(found) > _MOST_DIGITS or not _INTEGER.fullmatch(found):
        return None
    digits = found.replace("_", "")
    if re.fullmatch(r"[-+]?0[0-9]+", digits):
        digits = digits.replace("0", "0o", 1)
    try:
        return int(digits, 0)
    except ValueError:
        return None


def _found(node: Node) -> str:
    if isinstance(node, ListNode):
        return "a list"
    if isinstance(node, MapNode):
        return "a map"
    return "nothing" if is_null(node) else shown(node.text)
