r"""Regular expressions with Go's meaning, whose time grows with the text and with nothing else.

The texts come from manifests that clients push. With a matcher that tries one way after the other, as Python's does, the example in
registry:2's own documentation, ``^https?://([^/]+\.)*example\.com/``, takes years for a URL of sixty dots. Go's matcher, and
this one, follows all ways at once (R. Cox, "Regular Expression Matching Can Be Simple And Fast"), and remembers the steps.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field
from functools import lru_cache

from regd.config.pattern_syntax import Assertion, Characters, Choice, Node, PatternError, Repeat, Sequence, parse

__all__ = ["Pattern", "PatternError"]

#: Steps of a compiled expression; counted repeats multiply them.
_LARGEST = 10_000
#: Remembered transitions; when there are more, all are forgotten.
_MEMORY = 20_000


@dataclass(frozen=True)
class _Take:
    """Takes one character and goes on with the next step."""

    characters: Characters


@dataclass(frozen=True)
class _Check:
    """Goes on with the next step where the assertion holds."""

    assertion: Assertion


@dataclass(frozen=True)
class _Jump:
    """Goes on at every one of these steps."""

    targets: tuple[int, ...]


@dataclass(frozen=True)
class _Match:
    """The expression has matched."""


_Step = _Take | _Check | _Jump | _Match
#: Where the matcher may be: steps, and the character before this place (``None`` at the beginning).
_State = tuple[frozenset[int], str | None]


@dataclass(frozen=True)
class Pattern:
    """A compiled expression; make one with :meth:`parse`."""

    text: str
    _program: tuple[_Step, ...] = field(repr=False, compare=False)
    #: What a character leads to from a state; ``None`` is a match.
    _known: dict[tuple[_State, str], _State | None] = field(repr=False, compare=False, default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """Compile an expression in Go's syntax.

        :raises PatternError: it is none, or counted repeats make it too large.
        """
        program: list[_Step] = []
        _compile(parse(text), program)
        program.append(_Match())
        return cls(text, tuple(program))

    def search(self, text: str) -> bool:
        """Say whether the expression matches anywhere in the text."""
        state: _State = (frozenset({0}), None)
        known = self._known
        for char in text:
            try:
                following = known[state, char]
            except KeyError:
                following = self._follow(state, char)
                if len(known) >= _MEMORY:
                    known.clear()
                known[state, char] = following
            if following is None:
                return True
            state = following
        return self._reached(state, None) is None

    def _follow(self, state: _State, char: str) -> _State | None:
        """Take one character; ``None`` if the expression has matched before it."""
        reached = self._reached(state, char)
        if reached is None:
            return None
        taken = {step + 1 for step, take in reached if _takes(take.characters, char)}
        # Step 0 is always there: a match may begin at any place.
        return frozenset({0, *taken}), _kind(char)

    def _reached(self, state: _State, following: str | None) -> list[tuple[int, _Take]] | None:
        """Every step that takes a character and that can be reached without taking one; ``None`` if the end can be."""
        steps, before = state
        pending = list(steps)
        seen = set(pending)
        takes: list[tuple[int, _Take]] = []
        while pending:
            place = pending.pop()
            step = self._program[place]
            targets: tuple[int, ...] = ()
            match step:
                case _Match():
                    return None
                case _Take():
                    takes.append((place, step))
                case _Jump():
                    targets = step.targets
                case _Check() if _holds(step.assertion, before, following):
                    targets = (place + 1,)
            pending.extend(target for target in targets if target not in seen)
            seen.update(targets)
        return takes


def _compile(node: Node, program: list[_Step]) -> None:
    """Add the steps of a node to the program; they end where the next step is added."""
    if len(program) > _LARGEST:
        msg = f"the expression is larger than {_LARGEST} steps; its counted repeats multiply"
        raise PatternError(msg)
    match node:
        case Characters():
            program.append(_Take(node))
        case Assertion():
            program.append(_Check(node))
        case Sequence():
            for part in node.parts:
                _compile(part, program)
        case Choice():
            _compile_choice(node, program)
        case Repeat():
            _compile_repeat(node, program)


def _compile_choice(node: Choice, program: list[_Step]) -> None:
    """A jump to each branch; each branch ends with a jump behind the last."""
    fork = len(program)
    program.append(_Match())  # Replaced below, when the places of the branches are known.
    starts: list[int] = []
    ends: list[int] = []
    for part in node.parts:
        starts.append(len(program))
        _compile(part, program)
        ends.append(len(program))
        program.append(_Match())  # As above.
    program[fork] = _Jump(tuple(starts))
    for end in ends:
        program[end] = _Jump((len(program),))


def _compile_repeat(node: Repeat, program: list[_Step]) -> None:
    """The part as often as it has to be there; then optional ones, or a loop."""
    for _ in range(node.least):
        size = len(program)
        _compile(node.part, program)
        if len(program) == size:
            # An empty part stays empty however often it is repeated; ((){1000}){1000} would take its time all the same.
            break
    if node.most is None:
        loop = len(program)
        program.append(_Match())  # Replaced below.
        _compile(node.part, program)
        program.append(_Jump((loop,)))
        program[loop] = _Jump((loop + 1, len(program)))
        return
    for _ in range(node.most - node.least):
        option = len(program)
        program.append(_Match())  # Replaced below.
        _compile(node.part, program)
        # Optional parts are one behind the other, not nested: what one leaves out the next may take, which matches the same texts.
        program[option] = _Jump((option + 1, len(program)))


@lru_cache(maxsize=4096)
def _takes(characters: Characters, char: str) -> bool:
    """Say whether a character is one of these."""
    variants = {char}
    if characters.fold:
        variants |= {char.lower(), char.upper(), char.lower().upper(), char.upper().lower()}
    inside = any(_listed(characters, variant) for variant in variants if len(variant) == 1)
    return inside != characters.negated


def _listed(characters: Characters, char: str) -> bool:
    point = ord(char)
    if any(low <= point <= high for low, high in characters.ranges):
        return True
    category = unicodedata.category(char)
    return any(category.startswith(name) != negated for name, negated in characters.categories)


def _kind(char: str) -> str:
    """All that an assertion wants to know of the character before: fewer states have to be remembered."""
    if char == "\n":
        return char
    return "w" if _is_word(char) else " "


def _is_word(char: str | None) -> bool:
    return char is not None and char.isascii() and (char.isalnum() or char == "_")


def _holds(assertion: Assertion, before: str | None, following: str | None) -> bool:
    """Say whether an assertion holds between two characters; ``None`` is the beginning or the end of the text."""
    match assertion.kind:
        case "begin text":
            return before is None
        case "end text":
            return following is None
        case "begin line":
            return before is None or before == "\n"
        case "end line":
            return following is None or following == "\n"
        case "word edge":
            return _is_word(before) != _is_word(following)
        case "no word edge":
            return _is_word(before) == _is_word(following)
