"""
Klein's routes, matched at the price of one regular expression.

Klein is where routes are declared, and it answers all that is out of the ordinary: no such path, no such method, a redirect, a path with
percent signs or that is not ASCII, a name in it that is none. What is left, which is nearly everything that clients ask for, is matched
here by an expression that is made of the same routes when the daemon starts, and handed to the same endpoint with the same arguments.
``tests/web/test_routes.py`` asks both about any path.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from twisted.web.resource import IResource
from werkzeug.exceptions import HTTPException
from werkzeug.routing import Rule

from regd.errors import RegistryError
from regd.web.leaf import Leaf
from regd.web.request import StreamingRequest

__all__ = ["Routes"]

#: How werkzeug names the groups of a rule's variables.
_GROUP: Final = re.compile(r"\(\?P<__werkzeug_\d+>")


@dataclass(frozen=True, slots=True)
class _Target:
    """
    :ivar endpoint: what Klein calls it.
    :ivar converters: for each variable its name, the number of its group, and what makes a value of it.
    """

    endpoint: str
    converters: tuple[tuple[str, int, Any], ...]


# Any: Klein's class is typed for functions that take a request and nothing else.
class Routes(Leaf):
    """
    :param app: the routes, bound to the object whose methods they are.
    :raises ValueError: for a route of a form that is not compiled.
    """

    def __init__(self, app: Any) -> None:
        self._app = app
        self._klein: IResource = app.resource()
        self._fixed: dict[tuple[bytes, str], _Target] = {}
        self._patterns: dict[bytes, tuple[re.Pattern[str], Mapping[int, _Target]]] = {}
        app.url_map.update()
        by_method: dict[bytes, list[Rule]] = {}
        for rule in app.url_map.iter_rules():
            for method in rule.methods or ():
                by_method.setdefault(method.encode("ascii"), []).append(rule)
        for method, rules in by_method.items():
            self._compile(method, rules)

    def render(self, request: StreamingRequest) -> object:
        """Answer a request the long way; its path is in ``postpath``."""
        return self._klein.render(request)

    def find(self, method: bytes, path: str) -> tuple[str, dict[str, Any]] | None:
        """
        What Klein would call.

        :param path: from its first slash on, ASCII, and without percent signs.
        :returns: the endpoint and its arguments; ``None`` where Klein has to say.
        """
        target = self._fixed.get((method, path))
        if target is not None:
            return target.endpoint, {}
        compiled = self._patterns.get(method)
        found = compiled[0].match(path) if compiled is not None else None
        if compiled is None or found is None or found.lastindex is None:
            return None
        target = compiled[1][found.lastindex]
        try:
            return target.endpoint, {name: convert(found[group]) for name, group, convert in target.converters}
        except (RegistryError, HTTPException, ValueError):
            # Klein makes an answer of it.
            return None

    def answer(self, request: StreamingRequest, path: str) -> IResource | None:
        """What answers a request, if :meth:`find` finds it."""
        found = self.find(request.method, path)
        if found is None:
            return None
        request.route = found[0]
        resource: IResource = self._app.execute_endpoint(found[0], request, **found[1])
        return resource

    def _compile(self, method: bytes, rules: Sequence[Rule]) -> None:
        """
        Werkzeug tries the rules in the order of their weights, each by an expression that begins with the name and ends with the path. As
        one expression they share that beginning, which is where the time goes.
        """
        tails: dict[str, list[tuple[Any, Rule, str]]] = {}
        for rule in rules:
            # The first part is the host, which nobody looks at; the last may be a slash that need not be there.
            fixed, variable = _parts(rule)
            if variable is None:
                self._fixed[method, "/".join(fixed)] = _Target(rule.endpoint, ())
                continue
            head, group, tail = _GROUP.sub("(", variable.content.removesuffix(r"\Z")).partition(")")
            tails.setdefault("/".join([*map(re.escape, fixed), head + group]), []).append((variable.weight, rule, tail))
        expression, count, targets = [], 0, {}
        for head, behind in tails.items():
            first = count = count + 1
            alternatives = []
            for _, rule, tail in sorted(behind, key=lambda entry: entry[0]):
                converters = []
                for number, (name, converter) in enumerate(rule._converters.items()):
                    converters.append((name, count + number if number else first, converter.to_python))
                # A group of its own at the end tells which one it was.
                count += re.compile(tail).groups + 1
                targets[count] = _Target(rule.endpoint, tuple(converters))
                alternatives.append(f"{tail}()")
            expression.append(f"{head}(?:{'|'.join(alternatives)})")
        if expression:
            self._patterns[method] = re.compile(f"(?:{'|'.join(expression)})" + r"\Z"), targets


def _parts(rule: Rule) -> tuple[list[str], Any]:
    """The fixed parts that a rule begins with, and the part that has all its variables, if it has any."""
    fixed = []
    for number, part in enumerate(rule._parts[1:], 1):
        if part.static:
            fixed.append(part.content)
            continue
        rest = rule._parts[number + 1 :]
        if not part.final or any(not more.static or more.content for more in rest) or (part.suffixed and rule.strict_slashes):
            raise ValueError(f"{rule.rule}: variables have to come in one piece at the end of a route")
        return fixed, part
    return fixed, None
