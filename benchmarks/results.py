"""What was measured, as values: turns, their ratios, and whether a goal was met; and as JSON, for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, Final

__all__ = ["OURS", "Goal", "Result", "Spread", "Turn", "Unit", "document_of", "json_text", "result_of"]

#: Whom all others are compared with.
OURS: Final = "regd"

_LEAST: Final = 1e-9


@dataclass(frozen=True)
class Unit:
    """
    How a row is told.

    :ivar label: of the value: ``MB/s``.
    :ivar factor: what a value is multiplied with to be told in it.
    :ivar cpu_label: of the processor time for one unit of the work: ``s/GB``.
    :ivar cpu_factor: the same for it.
    :ivar digits: behind the point.
    :ivar lower: whether less is better.
    """

    label: str
    factor: float
    cpu_label: str
    cpu_factor: float
    digits: int = 0
    lower: bool = False

    def told(self, value: float) -> str:
        """The value as tables have it."""
        return f"{value * self.factor:.{self.digits}f}"


@dataclass(frozen=True)
class Goal:
    """
    What a row is to reach.

    :ivar value: with a peer, how many times as good as it; without, what regd's own value is not to exceed.
    :ivar peer: the name of the peer, or nothing.
    :ivar medium: where it holds; everywhere, if it does not say.
    """

    value: float
    peer: str = ""
    medium: str = ""

    def told(self, unit: Unit) -> str:
        """As tables have it."""
        return f"{self.value:g}x" if self.peer else f"<{self.value * unit.factor:g} {unit.label}"


@dataclass(frozen=True)
class Turn:
    """
    One row, measured once on one candidate.

    :ivar value: what the row is about: a rate (bytes, requests or images a second), or seconds, or bytes.
    :ivar amount: of work that was done.
    :ivar seconds: that it took.
    :ivar cpu_seconds: seconds of CPU that all processes of the candidate spent on it.
    :ivar client_cpu_seconds: that the clients spent.
    :ivar peak: the most memory that one process of the candidate, started for this turn, held, in bytes.
    :ivar peak_total: the sum over its processes.
    :ivar processes: how many there were.
    :ivar p50: latency of half of the operations, in seconds, where it was measured.
    :ivar p99: of 99 of 100.
    :ivar details: more, by name.
    """

    value: float
    amount: float
    seconds: float
    cpu_seconds: float
    client_cpu_seconds: float
    peak: int
    peak_total: int
    processes: int
    p50: float | None = None
    p99: float | None = None
    details: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Spread:
    """
    :ivar median: the middle of some figures.
    :ivar least: the least.
    :ivar most: the greatest.
    """

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of one figure or more."""
        return cls(median(values), min(values), max(values))


@dataclass(frozen=True)
class Result:
    """
    One row on one medium.

    :ivar row: the row's name.
    :ivar title: what it does.
    :ivar medium: ``tmpfs`` or ``disk``.
    :ivar unit: how it is told.
    :ivar goals: what is to be reached here.
    :ivar rounds: the turns, by candidate; in each round every candidate had one, one after the other.
    :ivar skipped: candidates that were not measured, with the reason.
    """

    row: str
    title: str
    medium: str
    unit: Unit
    goals: Sequence[Goal]
    rounds: Sequence[Mapping[str, Turn]]
    skipped: Mapping[str, str] = field(default_factory=dict)

    @property
    def peers(self) -> list[str]:
        """Whom regd was compared with."""
        return [name for name in self.rounds[0] if name != OURS] if self.rounds else []

    def turns(self, candidate: str) -> list[Turn]:
        """All turns of one candidate."""
        return [turns[candidate] for turns in self.rounds]

    def ratios(self, peer: str) -> Spread:
        """How many times as good as its peer regd was, within each round."""
        pairs = [(turns[OURS].value, turns[peer].value) for turns in self.rounds]
        # Nothing at all is so little that it cannot be a divisor.
        pairs = [(max(ours, _LEAST), max(theirs, _LEAST)) for ours, theirs in pairs]
        return Spread.of([theirs / ours if self.unit.lower else ours / theirs for ours, theirs in pairs])

    def value(self, candidate: str) -> Spread:
        """The figures themselves."""
        return Spread.of([turn.value for turn in self.turns(candidate)])

    def cpu(self, candidate: str) -> float:
        """Seconds of CPU of the candidate for one unit of the work: a request, a byte, an image."""
        return median(turn.cpu_seconds / turn.amount for turn in self.turns(candidate))

    def client_cpu(self, candidate: str) -> float:
        """The same for the clients."""
        return median(turn.client_cpu_seconds / turn.amount for turn in self.turns(candidate))

    def peak(self, candidate: str) -> int:
        """The most memory of a process of it in any turn, in bytes."""
        return max(turn.peak for turn in self.turns(candidate))

    def peak_total(self, candidate: str) -> int:
        """The most of all its processes together in any turn, in bytes."""
        return max(turn.peak_total for turn in self.turns(candidate))

    def goal(self, peer: str) -> Goal | None:
        """
        :param peer: its name, or nothing for the goal that needs no peer.
        """
        return next((goal for goal in self.goals if goal.peer == peer), None)

    def met(self, goal: Goal) -> bool:
        """Whether regd reached a goal: the median does."""
        return self.ratios(goal.peer).median >= goal.value if goal.peer else self.value(OURS).median <= goal.value


def _comparison(result: Result, peer: str) -> dict[str, object]:
    goal = result.goal(peer)
    met = None if goal is None else result.met(goal)
    return {"peer": peer, "ratio": asdict(result.ratios(peer)), "goal": goal.value if goal else None, "met": met}


def document_of(result: Result) -> dict[str, object]:
    """One row as JSON has it: every turn, and what follows from them."""
    own = result.goal("")
    return {
        "row": result.row,
        "title": result.title,
        "medium": result.medium,
        "unit": asdict(result.unit),
        "goals": [asdict(goal) for goal in result.goals],
        "goal": own.value if own else None,
        "met": result.met(own) if own and result.rounds else None,
        "comparisons": [_comparison(result, peer) for peer in result.peers],
        "candidates": {
            name: {
                "value": asdict(result.value(name)),
                "cpu_seconds_per_unit": result.cpu(name),
                "client_cpu_seconds_per_unit": result.client_cpu(name),
                "peak_bytes_of_a_process": result.peak(name),
                "peak_bytes_of_all_processes": result.peak_total(name),
            }
            for name in (result.rounds[0] if result.rounds else ())
        },
        "rounds": [{name: asdict(turn) for name, turn in turns.items()} for turns in result.rounds],
        "skipped": dict(result.skipped),
    }


def result_of(document: Mapping[str, Any]) -> Result:
    """
    The row that :func:`document_of` made a document of.

    :raises KeyError: or :class:`TypeError`, when it did not.
    """
    return Result(
        row=document["row"],
        title=document["title"],
        medium=document["medium"],
        unit=Unit(**document["unit"]),
        goals=[Goal(**goal) for goal in document["goals"]],
        rounds=[{name: Turn(**turn) for name, turn in turns.items()} for turns in document["rounds"]],
        skipped=document["skipped"],
    )


def json_text(header: Mapping[str, object], results: Sequence[Result]) -> str:
    """
    Everything, every turn of it.

    :param header: the machine, the versions and the settings of the run.
    """
    return json.dumps({**header, "rows": [document_of(result) for result in results]}, indent=1)
