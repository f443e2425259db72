"""A walk through the whole file beside the table: names that nobody knows, keys that are not obeyed, keys that must not be there."""

from __future__ import annotations

from dataclasses import dataclass, field

from regd.config.document import ListNode, MapNode, Node, Scalar, is_null
from regd.config.error import ConfigError
from regd.config.nearest import nearest
from regd.config.schema import Ignored, Key, Level, Refused, as_section
from regd.config.values import Place, boolean

__all__ = ["Survey", "survey"]


@dataclass
class Survey:
    """What the walk found.

    :ivar unknown: one warning for each name that is no key.
    :ivar errors: sections that are no maps, and keys that regd must not start with.
    """

    unknown: list[str] = field(default_factory=list)
    errors: list[ConfigError] = field(default_factory=list)
    _ignored: dict[str, list[str]] = field(default_factory=dict)

    @property
    def warnings(self) -> list[str]:
        """One line for each unknown name, and one for each answer that ignored keys share."""
        return [*self.unknown, *(f"{', '.join(keys)}: {instead}" for instead, keys in self._ignored.items())]

    def ignore(self, row: Ignored, node: Node) -> None:
        """Note that a key is given which is not obeyed."""
        self._ignored.setdefault(row.instead, []).append(f"{row.path} ({node.origin})")


def survey(tree: MapNode, root: Level) -> Survey:
    """Walk through the file.

    :param root: the table of keys.
    """
    found = Survey()
    _visit(found, root, tree, root, "", None)
    return found


def _visit(found: Survey, root: Level, node: Node, level: Level, path: str, siblings: MapNode | None) -> None:
    """Look at one value and at what is below it."""
    row = level.row
    if isinstance(row, Key):
        return
    if isinstance(row, Refused):
        if row.presence or not _is_empty(node):
            found.errors.append(ConfigError(f"{path} ({node.origin}): found, but {row.why}; allowed: {row.allowed}"))
        return
    if isinstance(row, Ignored) and not _is_harmless(row, node, siblings):
        found.ignore(row, node)
    if is_null(node):
        return
    node = as_section(node, level)
    if level.items is not None and isinstance(node, ListNode):
        for index, item in enumerate(node.items):
            _visit(found, root, item, level.items, f"{path}[{index}]", None)
    elif (level.children or level.members) and isinstance(node, MapNode):
        for name, below in node.entries.items():
            child = level.children.get(name, level.members)
            if child is None:
                found.unknown.append(_unknown(root, level, path, name, below))
            else:
                _visit(found, root, below, child, f"{path}.{name}" if path else name, node)
    elif level.children and row is None and _is_section(level):
        found.errors.append(Place(path, node).refuse(f"a map of {', '.join(level.children)}"))


def _is_section(level: Level) -> bool:
    """Say whether a level is one that the table's own keys are in, and not a part of a value that is not obeyed."""
    return "[]" not in level.path and "*" not in level.path


def _unknown(root: Level, level: Level, path: str, name: str, node: Node) -> str:
    """The warning about a name that is no key here."""
    # `secret:abc` in braces is one name; the rest of it is none of the log's business.
    word, colon, _ = name.partition(":")
    full = f"{path}.{word}" if path else word
    meant = nearest(word, level.children)
    if meant is not None:
        meant = f"{path}.{meant}" if path else meant
    else:
        meant = nearest(full, (other.path for other in root.walk() if other.path and other.path.rpartition(".")[2] != "*"))
    suggestion = f"the nearest is {meant}" if meant else f"the keys here are {', '.join(level.children)}"
    missing = "; after the colon a space is missing" if colon else ""
    return f"{full} ({node.origin}): there is no such key; {suggestion}{missing}"


def _is_empty(node: Node) -> bool:
    """Say whether a value asks for nothing."""
    if isinstance(node, Scalar):
        return is_null(node) or not node.text
    return not (node.items if isinstance(node, ListNode) else node.entries)


def _is_harmless(row: Ignored, node: Node, siblings: MapNode | None) -> bool:
    """Say whether an ignored key asks for nothing but what regd does."""
    if _is_empty(node) or ("false" in row.harmless and _is_false(node)):
        return True
    switch = siblings.entries.get(row.switch) if siblings is not None else None
    return switch is not None and _is_false(switch)


def _is_false(node: Node) -> bool:
    try:
        return not boolean().read(Place("", node))
    except ConfigError:
        return False
