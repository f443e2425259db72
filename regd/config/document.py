"""YAML text to a tree that still knows how every value was written, and where.

The tree is made from the parser's events, not by a loader that makes Python values: a key that wants text gets ``0123`` as it was
typed, and a message can say the line. What a plain word means (``yes`` is a boolean) is decided where the value is used.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import yaml

from regd.config.error import ConfigError, shown

__all__ = ["ListNode", "MapNode", "Node", "Scalar", "is_null", "parse_document"]

#: Values in one document, what aliases stand for counted each time: a few lines of aliases of aliases make billions.
_MOST_VALUES = 50_000
#: Lists in lists and maps in maps. No key is deeper than 6.
_DEEPEST = 64

_TAG = "tag:yaml.org,2002:"
#: The tags whose values are read as if they were not quoted.
_RESOLVED_TAGS = frozenset(_TAG + name for name in ("bool", "int", "float", "null"))
_SCALAR_TAGS = _RESOLVED_TAGS | {_TAG + "str", "!"}
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})


@dataclass(frozen=True)
class Scalar:
    """A single value.

    :ivar text: what was typed, quotes and escapes of YAML taken away.
    :ivar plain: it stood without quotes, so that ``true`` is a boolean and ``5`` a number.
    :ivar origin: where it stands: ``line 12``, or the name of an environment variable.
    """

    text: str
    plain: bool
    origin: str
    size: int = field(default=1, compare=False)


@dataclass(frozen=True)
class ListNode:
    """A sequence."""

    items: tuple[Node, ...]
    origin: str
    size: int = field(default=1, compare=False)


@dataclass(frozen=True)
class MapNode:
    """A mapping. The keys are texts, in the order in which they stand."""

    entries: Mapping[str, Node]
    origin: str
    size: int = field(default=1, compare=False)

    def with_entry(self, name: str, node: Node) -> MapNode:
        """The same map with one entry set."""
        return replace(self, entries={**self.entries, name: node})


Node = Scalar | ListNode | MapNode


def is_null(node: Node) -> bool:
    """Say whether nothing was given: ``key:`` with nothing behind it, ``~`` or ``null``."""
    return isinstance(node, Scalar) and node.plain and node.text in _NULLS


def parse_document(data: bytes | str, source: str, origin: str = "") -> tuple[Node, bool]:
    """Read the first document of a YAML text.

    :param data: UTF-8 or UTF-16 if bytes.
    :param source: what messages call the text: a file's path, or a variable's name.
    :param origin: what every value's ``origin`` says; empty means the line.
    :returns: the tree (a null scalar if the text is empty), and whether another document follows, which nobody reads.
    :raises ConfigError: it is no YAML, or more than a configuration can be.
    """
    try:
        # The pure Python parser: its C twin is not built everywhere, and the two do not accept the same texts.
        return _Composer(yaml.parse(data, Loader=yaml.SafeLoader), source, origin).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" line {mark.line + 1}, column {mark.column + 1}:" if mark is not None else ""
        msg = f"{source}:{where} not YAML: {error.problem or error.context or 'not readable'}"
        raise ConfigError(msg) from None
    except (yaml.YAMLError, ValueError, OverflowError):
        # PyYAML lets ValueError and OverflowError of chr() and int() through for some escapes and %YAML directives.
        msg = f"{source}: not YAML: it holds characters or escapes that YAML does not allow"
        raise ConfigError(msg) from None


@dataclass
class _Open:
    """A sequence or a mapping whose end has not come yet.

    :ivar nodes: what it holds so far; a mapping's keys and values in turn, each with its line.
    """

    event: yaml.CollectionStartEvent
    nodes: list[tuple[Node, int]] = field(default_factory=list)


class _Composer:
    """Makes the tree from events, with a list of the open collections instead of functions that call themselves."""

    def __init__(self, events: Iterator[yaml.Event], source: str, origin: str) -> None:
        self.events = events
        self.source = source
        self.origin = origin
        self.anchors: dict[str, Node] = {}
        self.open: list[_Open] = []
        self.merged = 0

    def document(self) -> tuple[Node, bool]:
        """The first document, and whether there is another."""
        root: Node = Scalar("", plain=True, origin=self.origin or "line 1")
        while not isinstance(event := next(self.events), yaml.DocumentEndEvent | yaml.StreamEndEvent):
            node = self.node(event)
            if node is None:
                continue
            if not self.open:
                root = node
            else:
                self.open[-1].nodes.append((node, _line(event)))
        if isinstance(event, yaml.StreamEndEvent):
            return root, False
        try:
            return root, not isinstance(next(self.events), yaml.StreamEndEvent)
        except yaml.YAMLError:
            # What follows the first document is not read, so it does not matter what it is.
            return root, True

    def node(self, event: yaml.Event) -> Node | None:
        """The node that an event completes, if it completes one."""
        node: Node
        match event:
            case yaml.CollectionStartEvent():
                self.start(event)
                return None
            case yaml.SequenceEndEvent():
                opened = self.open.pop()
                items = tuple(node for node, _ in opened.nodes)
                node = ListNode(items, self.where(opened.event), self.size(opened.event, items))
                anchor = opened.event.anchor
            case yaml.MappingEndEvent():
                opened = self.open.pop()
                node = self.mapping(opened)
                anchor = opened.event.anchor
            case yaml.ScalarEvent():
                node = self.scalar(event)
                anchor = event.anchor
            case yaml.AliasEvent():
                if event.anchor not in self.anchors:
                    raise self.refuse(event, "an alias (*) needs an anchor (&) that ends before it")
                return self.anchors[event.anchor]
            case _:
                return None
        if anchor is not None:
            self.anchors[anchor] = node
        return node

    def start(self, event: yaml.CollectionStartEvent) -> None:
        """Begin a sequence or a mapping."""
        if len(self.open) == _DEEPEST:
            raise self.refuse(event, f"nested deeper than {_DEEPEST} levels")
        if event.tag not in {None, "!", _TAG + "seq", _TAG + "map"}:
            raise self.refuse(event, "a tag (!) that a configuration cannot have")
        # Until it ends, an anchor of this name stands for nothing; also not for what had the name before.
        if event.anchor is not None:
            self.anchors.pop(event.anchor, None)
        self.open.append(_Open(event))

    def scalar(self, event: yaml.ScalarEvent) -> Scalar:
        """A single value; ``!!int "5"`` is a number, ``!!str 5`` is not."""
        tag = event.tag
        if tag is not None and tag not in _SCALAR_TAGS:
            raise self.refuse(event, "a tag (!) that a configuration cannot have")
        return Scalar(event.value, event.style is None if tag is None else tag in _RESOLVED_TAGS, self.where(event))

    def mapping(self, opened: _Open) -> MapNode:
        """A mapping, with what ``<<`` merges into it (https://yaml.org/type/merge.html); its own keys win."""
        own: dict[str, Node] = {}
        lines: dict[str, int] = {}
        merged: dict[str, Node] = {}
        for (key, line), (value, _) in zip(opened.nodes[::2], opened.nodes[1::2], strict=True):
            if not isinstance(key, Scalar):
                msg = f"{self.source}: line {line}: a list or a map cannot be a key"
                raise ConfigError(msg)
            if key.plain and key.text == "<<":
                for source in value.items if isinstance(value, ListNode) else (value,):
                    if not isinstance(source, MapNode):
                        msg = f"{self.source}: line {line}: << merges maps and lists of maps, nothing else"
                        raise ConfigError(msg)
                    self.merged += len(source.entries)
                    if self.merged > _MOST_VALUES:
                        msg = f"{self.source}: line {line}: << merges more than {_MOST_VALUES} values"
                        raise ConfigError(msg)
                    for name, node in source.entries.items():
                        merged.setdefault(name, node)
                continue
            if key.text in own:
                msg = f"{self.source}: line {line}: the key {shown(key.text)} is given twice, first in line {lines[key.text]}"
                raise ConfigError(msg)
            own[key.text] = value
            lines[key.text] = line
        entries = {**merged, **own}
        return MapNode(entries, self.where(opened.event), self.size(opened.event, entries.values()))

    def size(self, event: yaml.Event, nodes: Iterable[Node]) -> int:
        """How many values a collection holds, those behind aliases included."""
        size = 1 + sum(node.size for node in nodes)
        if size > _MOST_VALUES:
            raise self.refuse(event, f"more than {_MOST_VALUES} values, counting what aliases stand for")
        return size

    def where(self, event: yaml.Event) -> str:
        return self.origin or f"line {_line(event)}"

    def refuse(self, event: yaml.Event, problem: str) -> ConfigError:
        return ConfigError(f"{self.source}: line {_line(event)}: {problem}")


def _line(event: yaml.Event) -> int:
    """The line on which an event begins, from 1."""
    return event.start_mark.line + 1 if event.start_mark is not None else 1
