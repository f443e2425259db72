r"""The grammar of regular expressions that Go reads (RE2, https://github.com/google/re2/wiki/Syntax), as a tree.

``config.yml`` has been checked by Go so far. Python's ``re`` reads most of the same texts, but not all, and some of them
with another meaning (``$`` also matches before a newline at the end, ``\d`` also matches digits of other scripts). What RE2
does not have (lookaround, backreferences, possessive repeats) is refused, as Go refuses it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

__all__ = ["Assertion", "Characters", "Choice", "Node", "PatternError", "Repeat", "Sequence", "parse"]

#: Go's limit for one counted repeat, ``x{1000}``.
_MOST_REPEATS = 1000
#: Groups within groups; the parser and the compiler call themselves once for each.
_DEEPEST = 100

Range = tuple[int, int]


class PatternError(ValueError):
    """A text that Go's ``regexp.Compile`` refuses; ``str()`` says why."""


@dataclass(frozen=True)
class Characters:
    r"""One character.

    :ivar ranges: code points, first and last included.
    :ivar categories: Unicode general categories (``Lu``) or their first letters, each with whether it is negated (``\P``).
    :ivar negated: any character but these.
    :ivar fold: upper and lower case are the same.
    """

    ranges: tuple[Range, ...]
    categories: tuple[tuple[str, bool], ...] = ()
    negated: bool = False
    fold: bool = False


@dataclass(frozen=True)
class Assertion:
    """A condition on the place between two characters, which takes none."""

    kind: Literal["begin text", "end text", "begin line", "end line", "word edge", "no word edge"]


@dataclass(frozen=True)
class Sequence:
    """One after the other; the empty sequence matches nothing at all."""

    parts: tuple[Node, ...]


@dataclass(frozen=True)
class Choice:
    """Any one of them."""

    parts: tuple[Node, ...]


@dataclass(frozen=True)
class Repeat:
    """A part, many times.

    :ivar least: at least so often.
    :ivar most: at most so often; ``None`` without an end.
    """

    part: Node
    least: int
    most: int | None


Node = Characters | Assertion | Sequence | Choice | Repeat

_DIGIT: tuple[Range, ...] = ((0x30, 0x39),)
_SPACE: tuple[Range, ...] = ((9, 10), (12, 13), (32, 32))
_WORD: tuple[Range, ...] = ((0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A))
_ANY: tuple[Range, ...] = ((0, 0x10FFFF),)
_PERL = {"d": _DIGIT, "s": _SPACE, "w": _WORD}
_POSIX: dict[str, tuple[Range, ...]] = {
    "alnum": ((0x30, 0x39), (0x41, 0x5A), (0x61, 0x7A)),
    "alpha": ((0x41, 0x5A), (0x61, 0x7A)),
    "ascii": ((0, 0x7F),),
    "blank": ((9, 9), (32, 32)),
    "cntrl": ((0, 0x1F), (0x7F, 0x7F)),
    "digit": _DIGIT,
    "graph": ((0x21, 0x7E),),
    "lower": ((0x61, 0x7A),),
    "print": ((0x20, 0x7E),),
    "punct": ((0x21, 0x2F), (0x3A, 0x40), (0x5B, 0x60), (0x7B, 0x7E)),
    "space": ((9, 13), (32, 32)),
    "upper": ((0x41, 0x5A),),
    "word": _WORD,
    "xdigit": ((0x30, 0x39), (0x41, 0x46), (0x61, 0x66)),
}
_CATEGORIES = re.compile(r"C[cfos]?|L[lmotu]?|M[cen]?|N[dlo]?|P[cdefios]?|S[ckmo]?|Z[lps]?")
_CONTROLS = {"a": 7, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11}
_COUNT = re.compile(r"\{([0-9]+)(?:(,)([0-9]*))?\}")
_FLAGS = re.compile(r"\(\?([imsU]*)(-[imsU]+)?([:)])")
_NAME = re.compile(r"\(\?P?<([A-Za-z0-9_]+)>")
_OCTAL = re.compile(r"0[0-7]{0,2}|[1-7][0-7]{1,2}")
_HEX = re.compile(r"x(?:([0-9A-Fa-f]{2})|\{([0-9A-Fa-f]{1,8})\})")
_POSIX_CLASS = re.compile(r"\[:(\^?)([^\]]*?):\]")
_PROPERTY = re.compile(r"([pP])(?:\{(\^?)([^}]*)\}|(.))", re.DOTALL)


def parse(text: str) -> Node:
    r"""Read an expression.

    :raises PatternError: what Go would refuse. Beyond that, classes of Unicode scripts (``\p{Greek}``) are refused, because
        Python's tables do not have them, and groups nested deeper than 100.
    """
    parser = _Parser(text)
    node = parser.alternatives("")
    if parser.place < len(text):
        msg = "a ) without its ("
        raise PatternError(msg)
    return node


class _Parser:
    """A recursive descent over the text; one method for each rule of the grammar."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.place = 0
        self.depth = 0

    def alternatives(self, flags: str) -> Node:
        """``a|b|c``, up to the end or a closing parenthesis. Flags set inside hold up to there as well."""
        self.depth += 1
        if self.depth > _DEEPEST:
            msg = f"groups are nested deeper than {_DEEPEST}"
            raise PatternError(msg)
        branches: list[Node] = []
        parts: list[Node] = []
        repeatable = False
        while self.place < len(self.text) and self.text[self.place] != ")":
            char = self.text[self.place]
            if char == "|":
                self.place += 1
                branches.append(Sequence(tuple(parts)))
                parts = []
                repeatable = False
            elif (bounds := self.repeat()) is not None:
                if not repeatable:
                    msg = "a repeat has nothing to repeat, or follows another repeat"
                    raise PatternError(msg)
                parts[-1] = Repeat(parts[-1], *bounds)
                repeatable = False
            elif (changed := self.flags(flags)) is not None:
                # As in Go, a repeat after it repeats what stands before it.
                flags = changed
            elif self.text.startswith("\\Q", self.place):
                quoted, _, _ = self.text[self.place + 2 :].partition("\\E")
                parts.extend(_character(ord(char), flags) for char in quoted)
                self.place += 2 + len(quoted) + 2
                repeatable = repeatable or bool(quoted)
            else:
                parts.append(self.single(flags))
                repeatable = True
        self.place = min(self.place, len(self.text))
        self.depth -= 1
        branches.append(Sequence(tuple(parts)))
        return branches[0] if len(branches) == 1 else Choice(tuple(branches))

    def repeat(self) -> tuple[int, int | None] | None:
        """``*``, ``+``, ``?``, ``{n}``, ``{n,}``, ``{n,m}``, each also with ``?`` after it, which changes nothing for us."""
        bounds: tuple[int, int | None]
        match self.text[self.place]:
            case "*":
                bounds, length = (0, None), 1
            case "+":
                bounds, length = (1, None), 1
            case "?":
                bounds, length = (0, 1), 1
            case "{":
                count = _COUNT.match(self.text, self.place)
                if count is None:
                    return None
                bounds, length = _counts(count), len(count[0])
            case _:
                return None
        self.place += length
        if self.text.startswith("?", self.place):
            self.place += 1
        return bounds

    def flags(self, flags: str) -> str | None:
        """``(?i)``, ``(?s-m)``: flags for the rest of the group."""
        found = _FLAGS.match(self.text, self.place)
        if found is None or found[3] == ":":
            return None
        self.place = found.end()
        return _changed(flags, found)

    def single(self, flags: str) -> Node:
        """One character, class, assertion or group."""
        char = self.text[self.place]
        match char:
            case "(":
                return self.group(flags)
            case "[":
                return self.bracket(flags)
            case "\\":
                self.place += 1
                return self.escape(flags)
        self.place += 1
        match char:
            case ".":
                return Characters(_ANY if "s" in flags else ((0, 9), (11, 0x10FFFF)))
            case "^":
                return Assertion("begin line" if "m" in flags else "begin text")
            case "$":
                return Assertion("end line" if "m" in flags else "end text")
        return _character(ord(char), flags)

    def group(self, flags: str) -> Node:
        """``(x)``, ``(?:x)``, ``(?i:x)``, ``(?P<name>x)``, ``(?<name>x)``."""
        if self.text.startswith("(?", self.place):
            if scoped := _FLAGS.match(self.text, self.place):
                flags = _changed(flags, scoped)
                self.place = scoped.end()
            elif named := _NAME.match(self.text, self.place):
                self.place = named.end()
            else:
                msg = f"{self.text[self.place : self.place + 4]!r} is not in Go's syntax (it has no lookaround, conditions or comments)"
                raise PatternError(msg)
        else:
            self.place += 1
        node = self.alternatives(flags)
        if self.place >= len(self.text):
            msg = "a ( without its )"
            raise PatternError(msg)
        self.place += 1
        return node

    def escape(self, flags: str) -> Node:
        """What a backslash begins, outside of brackets; the place is behind it."""
        kinds: dict[str, Assertion] = {
            "A": Assertion("begin text"),
            "z": Assertion("end text"),
            "b": Assertion("word edge"),
            "B": Assertion("no word edge"),
        }
        following = self.text[self.place : self.place + 1]
        if following in kinds:
            self.place += 1
            return kinds[following]
        if (members := self.shorthand()) is not None:
            return Characters(members.ranges, members.categories, members.negated, "i" in flags)
        return _character(self.escaped_character(), flags)

    def shorthand(self) -> Characters | None:
        r"""``\d \D \s \S \w \W \pN \p{Lu} \P{^Lu}``, the place being behind the backslash."""
        following = self.text[self.place : self.place + 1]
        if following and following in "dDsSwW":
            self.place += 1
            return Characters(_PERL[following.lower()], negated=following.isupper())
        found = _PROPERTY.match(self.text, self.place)
        if found is None:
            return None
        self.place = found.end()
        name = found[4] or found[3]
        negated = (found[1] == "P") != bool(found[2])
        if name == "Any":
            return Characters(_ANY, negated=negated)
        if not _CATEGORIES.fullmatch(name):
            msg = f"the Unicode class {name!r} is not known (general categories are, such as L or Lu; scripts are not)"
            raise PatternError(msg)
        return Characters((), ((name, negated),))

    def escaped_character(self) -> int:
        r"""The code point of ``\n``, ``\x41``, ``\x{10FFFF}``, ``\101`` or ``\.``, the place being behind the backslash."""
        if octal := _OCTAL.match(self.text, self.place):
            self.place = octal.end()
            return int(octal[0], 8)
        if hexadecimal := _HEX.match(self.text, self.place):
            self.place = hexadecimal.end()
            point = int(hexadecimal[1] or hexadecimal[2], 16)
            if point <= 0x10FFFF:
                return point
        following = self.text[self.place : self.place + 1]
        self.place += 1
        if following in _CONTROLS:
            return _CONTROLS[following]
        if following.isascii() and following and not following.isalnum():
            return ord(following)
        msg = f"\\{following} is not in Go's syntax" if following else "a backslash at the end"
        raise PatternError(msg)

    def bracket(self, flags: str) -> Characters:
        r"""``[a-z_\d[:alpha:]]``; the place is at the opening bracket."""
        self.place += 1
        negated = self.text.startswith("^", self.place)
        self.place += negated
        ranges: list[Range] = []
        categories: list[tuple[str, bool]] = []
        first = True
        while first or not self.text.startswith("]", self.place):
            if self.place >= len(self.text):
                msg = "a [ without its ]"
                raise PatternError(msg)
            first = False
            members = self.class_in_bracket()
            if members is not None:
                ranges.extend(_inverse(members.ranges) if members.negated else members.ranges)
                categories.extend(members.categories)
                continue
            low = high = self.bracket_character()
            if self.text.startswith("-", self.place) and not self.text.startswith("-]", self.place):
                self.place += 1
                high = self.bracket_character()
                if high < low:
                    msg = "a range in [] runs backwards"
                    raise PatternError(msg)
            ranges.append((low, high))
        self.place += 1
        return Characters(tuple(ranges), tuple(categories), negated, "i" in flags)

    def class_in_bracket(self) -> Characters | None:
        """A whole class that stands inside brackets."""
        if found := _POSIX_CLASS.match(self.text, self.place):
            if found[2] not in _POSIX:
                msg = f"[:{found[2]}:] is not one of Go's classes"
                raise PatternError(msg)
            self.place = found.end()
            return Characters(_POSIX[found[2]], negated=bool(found[1]))
        if not self.text.startswith("\\", self.place):
            return None
        self.place += 1
        members = self.shorthand()
        if members is None:
            self.place -= 1
        return members

    def bracket_character(self) -> int:
        """One character inside brackets."""
        char = self.text[self.place : self.place + 1]
        self.place += 1
        if char == "\\":
            return self.escaped_character()
        if not char:
            msg = "a [ without its ]"
            raise PatternError(msg)
        return ord(char)


def _character(point: int, flags: str) -> Characters:
    return Characters(((point, point),), fold="i" in flags)


def _counts(found: re.Match[str]) -> tuple[int, int | None]:
    """The numbers of ``{n}``, ``{n,}`` and ``{n,m}``."""
    # Four digits say enough, and int() of a long text is slow.
    if len(found[1]) > 4 or len(found[3] or "") > 4:
        msg = f"a repeat count is above {_MOST_REPEATS}"
        raise PatternError(msg)
    least = int(found[1])
    most = least if not found[2] else int(found[3]) if found[3] else None
    if max(least, most or 0) > _MOST_REPEATS or (most is not None and most < least):
        msg = f"repeat counts have to be in order and at most {_MOST_REPEATS}"
        raise PatternError(msg)
    return least, most


def _changed(flags: str, found: re.Match[str]) -> str:
    """The flags after ``(?on-off)``."""
    off = found[2] or ""
    return "".join(sorted(set(flags + found[1]) - set(off)))


def _inverse(ranges: tuple[Range, ...]) -> tuple[Range, ...]:
    """All other code points; the ranges are in order."""
    gaps: list[Range] = []
    start = 0
    for low, high in ranges:
        if start < low:
            gaps.append((start, low - 1))
        start = high + 1
    return (*gaps, (start, 0x10FFFF)) if start <= 0x10FFFF else tuple(gaps)
