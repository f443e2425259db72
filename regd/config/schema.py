"""What a key is: its path, how it is read, what regd does with it; and the tree of levels that a table of keys makes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from regd.config.document import MapNode, Node, Scalar, is_null
from regd.config.values import Inner, Parser

__all__ = ["Ignored", "Key", "Level", "Refused", "Row", "as_section", "build"]

T = TypeVar("T")

_SEGMENT = re.compile(r"\.?([^.\[\]]+)|(\[\])")


@dataclass(frozen=True)
class Key(Generic[T]):
    """A key that regd obeys.

    :ivar path: dotted, as in messages and in the documentation.
    :ivar default: what it is when it is not given, or given without a value.
    """

    path: str
    parser: Parser[T]
    default: T

    @property
    def inner(self) -> tuple[Inner, ...]:
        """The levels at and below the value."""
        return self.parser.inner


@dataclass(frozen=True)
class Ignored:
    """A key of registry:2 that regd knows and does not obey; giving it is worth one warning.

    :ivar instead: what happens instead; keys with the same text share a warning.
    :ivar harmless: values that ask for what regd does anyway; nothing is said about them.
    :ivar switch: a key beside it that, when it is false, makes this one harmless.
    :ivar inner: levels below; below ``free`` anything may stand.
    """

    path: str
    instead: str
    harmless: tuple[str, ...] = ()
    switch: str = ""
    inner: tuple[Inner, ...] = (Inner(""),)
    free: bool = False


@dataclass(frozen=True)
class Refused:
    """A key of registry:2 that regd must not start with, because doing without it would do harm.

    :ivar why: what this version does not have.
    :ivar allowed: what may stand here instead.
    :ivar presence: the name alone chooses something, also without a value.
    """

    path: str
    why: str
    allowed: str
    presence: bool = False
    free: bool = True

    @property
    def inner(self) -> tuple[Inner, ...]:
        """The level of the value; what is below is never read."""
        return (Inner(""),)


#: ``Any``: rows of many types stand in one table.
Row = Key[Any] | Ignored | Refused


@dataclass
class Level:
    """One place in the file.

    :ivar path: its pattern: ``notifications.endpoints[].url``, ``http.headers.*``.
    :ivar children: the levels with fixed names.
    :ivar fields: for environment variables, the names of registry:2's Go fields in lower case, where they are not those of the file.
    :ivar members: the level of any other name.
    :ivar items: the level of a list's items.
    :ivar row: what is done with the value here, if that is decided at this level.
    :ivar raw: see :class:`~regd.config.values.Inner`, as for ``joiner``.
    :ivar lenient: the value is not obeyed, so a variable for it that is no YAML is no reason not to start.
    :ivar free: anything may stand below.
    :ivar choice: the section may be given as the name of one of its children.
    """

    path: str
    children: dict[str, Level] = field(default_factory=dict)
    fields: dict[str, str] = field(default_factory=dict)
    members: Level | None = None
    items: Level | None = None
    row: Row | None = None
    raw: bool = False
    joiner: str = ""
    lenient: bool = False
    free: bool = False
    choice: bool = False

    def below(self, part: str) -> Level:
        """The level of one part of a path, made if it is not there."""
        if part == "[]":
            self.items = self.items or Level(f"{self.path}[]")
            return self.items
        path = f"{self.path}.{part}" if self.path else part
        if part == "*":
            self.members = self.members or Level(path)
            return self.members
        return self.children.setdefault(part, Level(path))

    def find(self, path: str) -> Level:
        """The level of a path, made if it is not there."""
        level = self
        for match in _SEGMENT.finditer(path):
            level = level.below(match[1] or match[2])
        return level

    def walk(self) -> Iterator[Level]:
        """The level itself and all below it."""
        yield self
        for level in (*self.children.values(), self.members, self.items):
            if level is not None:
                yield from level.walk()


def build(rows: Iterable[Row], fields: dict[str, str], choices: Iterable[str]) -> Level:
    """Make the tree of levels.

    :param fields: by path, the name of the Go field, where it differs from the last part of the path.
    :param choices: the sections that may be given as the name of one of their children: ``storage: inmemory``.
    """
    root = Level("")
    for row in rows:
        for inner in row.inner:
            level = root.find(row.path + inner.suffix)
            level.raw = inner.raw
            level.joiner = inner.joiner
            level.lenient = not isinstance(row, Key)
        level = root.find(row.path)
        level.row = row
        level.free = not isinstance(row, Key) and row.free
    for path, name in fields.items():
        above, _, tag = path.rpartition(".")
        root.find(above).fields[name.lower()] = tag
    for path in choices:
        root.find(path).choice = True
    return root


def as_section(node: Node, level: Level) -> Node:
    """The map that a node stands for, if it is one of the short forms; else the node as it is."""
    if is_null(node):
        return MapNode({}, node.origin)
    if level.choice and isinstance(node, Scalar):
        return MapNode({node.text: Scalar("", plain=True, origin=node.origin)}, node.origin)
    return node
