"""``REGISTRY_*``: environment variables that override the file.

The rule is registry:2's (its ``configuration/parser.go``). The name is split at ``_``; each part goes one level down:

- where the file has fixed names, a part is one of them, or the name of the Go field (``EVENTCONFIG`` for ``events``);
- where the operator chooses the names (``log.fields``), a part is one that is there, whatever its case, or a new one in lower case;
- in a list it is an index, and the index behind the last item adds an item.

The value is YAML, so that whole sections and lists can be given, ``REGISTRY_STORAGE='{filesystem: {rootdirectory: /x}}'``. A variable
for a level comes before those for what is below it.

Where registry:2 crashes, or says that it ignores a variable because of "non-string keys", the rule is followed all the same. regd goes
further in this: text is taken as typed and not as YAML (an address such as ``[::1]:5000`` is no list, a secret such as ``0123`` no
number), indices are in the order of numbers (``_10`` after ``_2``), and names of header fields and log fields may have several parts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from regd.config.document import ListNode, MapNode, Node, Scalar, is_null, parse_document
from regd.config.error import ConfigError
from regd.config.nearest import nearest
from regd.config.schema import Level, as_section

__all__ = ["CONFIGURATION_PATH", "PREFIX", "override"]

PREFIX = "REGISTRY_"
#: Names the file; it is no key.
CONFIGURATION_PATH = "REGISTRY_CONFIGURATION_PATH"
#: registry:2 reads the version from the file alone; images of it often set a variable of this name to their own version.
_VERSION = "REGISTRY_VERSION"
#: Every container beside a service named registry finds these.
_SERVICE_LINK = re.compile(r"REGISTRY_(?:SERVICE_HOST|SERVICE_PORT.*|PORT|PORT_[0-9]+_.*|NAME|ENV_.*)")
#: An index has no more digits than this.
_INDEX = re.compile(r"[0-9]{1,6}")


class _Unknown(Exception):
    """A part of a name that is no key."""


def override(tree: MapNode, environ: Mapping[str, str], root: Level) -> tuple[MapNode, list[str]]:
    """Apply the variables to a file.

    :param environ: all variables; only those that begin with ``REGISTRY_`` are looked at.
    :returns: the file as if it had been written so, and warnings about variables that are no keys.
    :raises ConfigError: a value that is no YAML, or an index behind the end of its list. The line names the variable.
    """
    warnings: list[str] = []
    links: list[str] = []
    for name in sorted(filter(_is_override, environ), key=_order):
        if name == _VERSION:
            warnings.append(f"{name}: ignored; version is read from the file alone")
            continue
        variable = _Variable(name, environ[name])
        try:
            changed = variable.set(tree, root, tuple(name.removeprefix(PREFIX).split("_")), "")
        except _Unknown:
            if _SERVICE_LINK.fullmatch(name):
                links.append(name)
                continue
            warnings.append(f"{name}: ignored; there is no such key{_suggestion(name, root)}")
            continue
        if isinstance(changed, MapNode):
            tree = changed
    if links:
        warnings.append(f"{', '.join(links)}: ignored; Kubernetes and Docker links set them for a service named registry")
    return tree, warnings


def _is_override(name: str) -> bool:
    return name.startswith(PREFIX) and name != CONFIGURATION_PATH


def _order(name: str) -> tuple[tuple[bool, int, str], ...]:
    """Parents before what is below them, indices in the order of numbers."""
    return tuple((bool(_INDEX.fullmatch(part)), int(part) if _INDEX.fullmatch(part) else 0, part) for part in name.split("_"))


def _suggestion(name: str, root: Level) -> str:
    """What the variable may have been meant to be."""
    known = (_name(level) for level in root.walk() if level.path and level.path != "version")
    found = nearest(name.removeprefix(PREFIX), known)
    return f"; the nearest is {PREFIX}{found}" if found else ""


def _name(level: Level) -> str:
    """The variable for a level, without the prefix. Items are written with index 0, and free names as NAME."""
    path = level.path.replace("[]", ".0").replace("*", "name")
    return path.replace(".", "_").upper()


@dataclass(frozen=True)
class _Variable:
    """One variable, on its way down."""

    name: str
    value: str

    def set(self, node: Node | None, level: Level, parts: tuple[str, ...], path: str) -> Node:
        """The node with the value set in it.

        :param node: what is there now, if anything.
        :param parts: what is left of the name.
        :param path: where the node is, for messages.
        :raises _Unknown: no key has this name.
        """
        if not parts:
            return self.parsed(level, path)
        node = None if node is None or (is_null(node) and not level.choice) else as_section(node, level)
        if level.items is not None or (level.free and isinstance(node, ListNode)):
            return self.set_item(node, level, parts, path)
        if level.children or level.members or level.free:
            return self.set_entry(node, level, parts, path)
        raise _Unknown

    def set_item(self, node: Node | None, level: Level, parts: tuple[str, ...], path: str) -> ListNode:
        """Set an item of a list, or in one."""
        if node is None:
            node = ListNode((), self.name)
        if not isinstance(node, ListNode):
            msg = f"{path} ({self.name}): found no list to set an item of, allowed: a list"
            raise ConfigError(msg)
        items = node.items
        if not _INDEX.fullmatch(parts[0]) or int(parts[0]) > len(items):
            msg = f'{path} ({self.name}): found the index "{parts[0]}", allowed: 0 to {len(items)}; {len(items)} adds an item'
            raise ConfigError(msg)
        index = int(parts[0])
        old = items[index] if index < len(items) else None
        new = self.set(old, level.items or _FREE, parts[1:], f"{path}[{index}]")
        return replace(node, items=(*items[:index], new, *items[index + 1 :]))

    def set_entry(self, node: Node | None, level: Level, parts: tuple[str, ...], path: str) -> MapNode:
        """Set an entry of a map, or in one."""
        if node is None:
            node = MapNode({}, self.name)
        if not isinstance(node, MapNode):
            msg = f"{path} ({self.name}): found no map to set a key of, allowed: a map"
            raise ConfigError(msg)
        name, rest = _entry(node, level, parts)
        below = level.children.get(name) or level.members or _FREE
        return node.with_entry(name, self.set(node.entries.get(name), below, rest, f"{path}.{name}" if path else name))

    def parsed(self, level: Level, path: str) -> Node:
        """The value, as YAML or, where a text has to be, as typed."""
        typed = Scalar(self.value, plain=False, origin=self.name)
        try:
            node, _ = parse_document(self.value, f"{path} ({self.name})", self.name)
        except ConfigError:
            if level.raw or level.lenient:
                return typed
            raise
        if not level.raw:
            return node
        # Quotes around the whole value are YAML's; an empty value or null takes back what the file says.
        return node if isinstance(node, Scalar) and (is_null(node) or not node.plain) else typed


def _entry(node: MapNode, level: Level, parts: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """The key that the first part, or the first parts, of a name mean; and the parts behind it."""
    first = parts[0].lower()
    if level.children:
        name = level.fields.get(first, first)
        if name in level.children:
            return name, parts[1:]
        if level.members is None:
            raise _Unknown
    taken = 1
    if level.joiner:
        # A header field or a log field: its name has as many parts as there are, an index at the end of the variable aside.
        taken = len(parts)
        if level.members is not None and level.members.items is not None and len(parts) > 1 and _INDEX.fullmatch(parts[-1]):
            taken -= 1
        first = level.joiner.join(parts[:taken]).lower()
    for name in node.entries:
        if _folded(name) == _folded(first):
            return name, parts[taken:]
    return first, parts[taken:]


def _folded(name: str) -> str:
    """Names that a variable cannot tell apart: it has no lower case of its own and no ``-``."""
    return name.lower().replace("-", "_")


#: What is below a place where anything may stand.
_FREE = Level("", free=True)
