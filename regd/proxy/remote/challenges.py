"""
What an answer with 401 asks for: ``WWW-Authenticate`` (RFC 9110, sections 11.3 to 11.6.1). Pure.

The grammar has commas between challenges and between the parameters of one; which is which shows only in what follows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

__all__ = ["Challenge", "parse_challenges"]

_WORD: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_BETWEEN: Final = re.compile(r"[ \t,]*")
_SCHEME: Final = re.compile(rf"({_WORD})(?:[ \t]+|(?=,)|\Z)")
_TOKEN68: Final = re.compile(r"([A-Za-z0-9._~+/-]+=*)[ \t]*(?=,|\Z)")
#: Without quotes a value is a token; URLs are seen there, and cannot be taken for anything else.
_PARAMETER: Final = re.compile(rf'({_WORD})[ \t]*=[ \t]*(?:"([^"\\]*(?:\\.[^"\\]*)*)"|([^\s",]+))', re.DOTALL)
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Challenge:
    """
    :ivar scheme: in lower case, as the names of the parameters are.
    :ivar token68: what some schemes have instead of parameters.
    """

    scheme: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    token68: str = ""


def parse_challenges(lines: Iterable[str]) -> list[Challenge]:
    """
    Read the fields ``WWW-Authenticate`` of an answer.

    :param lines: their values.
    :returns: in order. A line is read up to where it is no list of challenges any more: what came before is as good as without the rest.
        Of a parameter that is there twice, the first counts.
    """
    return [challenge for line in lines for challenge in _parse_line(line)]


def _parse_line(line: str) -> list[Challenge]:
    found: list[Challenge] = []
    parameters: dict[str, str] | None = None
    position = 0
    while True:
        position = _end(_BETWEEN, line, position)
        if position == len(line):
            return found
        if parameters is not None and (named := _PARAMETER.match(line, position)) is not None:
            value = named[3] if named[2] is None else _ESCAPED.sub(r"\1", named[2])
            parameters.setdefault(named[1].lower(), value)
            position = named.end()
            continue
        scheme = _SCHEME.match(line, position)
        if scheme is None:
            return found
        position = scheme.end()
        alone = _TOKEN68.match(line, position)
        if alone is not None:
            found.append(Challenge(scheme[1].lower(), {}, alone[1]))
            parameters, position = None, alone.end()
        else:
            parameters = {}
            found.append(Challenge(scheme[1].lower(), parameters))


def _end(pattern: re.Pattern[str], line: str, position: int) -> int:
    found = pattern.match(line, position)
    return position if found is None else found.end()
