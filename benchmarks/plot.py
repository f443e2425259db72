"""The ratios of a run as a picture, with the goals in it. The only module that needs matplotlib."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl

# The picture goes to a file; without this, matplotlib looks for a screen.
mpl.use("svg")

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullFormatter

__all__ = ["draw", "lines_of"]

#: Readable on white and on what GitHub calls dark, #0d1117: neither side of the picture knows the other.
_INK: Final = "#7d8590"
_GRID: Final = "#7d859040"
_GOAL: Final = "#d1495b"
_LIMIT: Final = "limit"
_LOOKS: Final = {
    "docker-registry": ("#2f81f7", "o"),
    "nginx+registry": ("#8957e5", "s"),
    "nginx": ("#2da44e", "D"),
    _LIMIT: ("#bf8700", "^"),
}
_OTHER: Final = (_INK, "o")

#: The same file from the same figures: names in it are made of this and not at random.
_SALT: Final = "regd"


@dataclass(frozen=True)
class Mark:
    """
    One peer in a line.

    :ivar peer: its name, or ``limit`` for a row that has a limit instead.
    :ivar ratio: how many times as good as it regd was: median, least, greatest.
    :ivar goal: what it was to be, or nothing.
    """

    peer: str
    ratio: tuple[float, float, float]
    goal: float | None


@dataclass(frozen=True)
class Line:
    """
    One row on one medium.

    :ivar label: what stands beside it.
    :ivar marks: one for each peer.
    """

    label: str
    marks: list[Mark] = field(default_factory=list)


def lines_of(document: dict[str, Any]) -> list[Line]:
    """
    What is to be drawn of the JSON of a run. A limit becomes a ratio too: how many times below it regd stayed, so that 1 is the limit.
    """
    lines = []
    for row in document["rows"]:
        line = Line(f"{row['row']}, {row['medium']}")
        for comparison in row["comparisons"]:
            ratio = comparison["ratio"]
            line.marks.append(Mark(comparison["peer"], (ratio["median"], ratio["least"], ratio["most"]), comparison["goal"]))
        if row["goal"] is not None and row["candidates"]:
            value = row["candidates"]["regd"]["value"]
            below = tuple(row["goal"] / max(value[name], row["goal"] / 1000) for name in ("median", "most", "least"))
            line.marks.append(Mark(_LIMIT, (below[0], below[1], below[2]), 1.0))
        if line.marks:
            lines.append(line)
    return lines


def draw(text: str, path: Path) -> None:
    """
    Write the picture.

    :param text: the JSON of a run.
    :param path: where to.
    """
    lines = lines_of(json.loads(text))
    # Text stays text, for readers and for small files.
    with mpl.rc_context({"svg.hashsalt": _SALT, "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9}):
        figure = Figure(figsize=(9, 1.4 + 0.26 * max(1, len(lines))), layout="constrained")
        axes = figure.add_subplot()
        for height, line in enumerate(lines):
            for mark in line.marks:
                _draw_mark(axes, height, mark)
        axes.set_xscale("log")
        axes.axvline(1, color=_INK, linewidth=1)
        axes.set_yticks(range(len(lines)), [line.label for line in lines])
        axes.set_ylim(len(lines) - 0.4, -0.6)
        axes.set_xlabel("times as good as the peer, or below the limit (logarithmic)", color=_INK)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.tick_params(colors=_INK, which="both")
        axes.grid(axis="x", which="both", color=_GRID, linewidth=0.6)
        axes.set_axisbelow(True)
        for spine in axes.spines.values():
            spine.set_visible(False)
        figure.legend(handles=_legend(lines), loc="outside upper center", ncols=5, frameon=False, labelcolor=_INK)
        figure.savefig(path, format="svg", transparent=True, metadata={"Date": None, "Creator": None})


def _draw_mark(axes: Any, height: int, mark: Mark) -> None:
    color, shape = _LOOKS.get(mark.peer, _OTHER)
    median, least, most = mark.ratio
    axes.plot([least, most], [height, height], color=color, linewidth=2, solid_capstyle="round", alpha=0.6)
    axes.plot([median], [height], color=color, marker=shape, markersize=6, linestyle="none")
    if mark.goal is not None:
        axes.plot([mark.goal], [height], color=_GOAL, marker="|", markersize=12, markeredgewidth=2.5, linestyle="none")


def _legend(lines: Sequence[Line]) -> list[Line2D]:
    peers = [peer for peer in _LOOKS if any(mark.peer == peer for line in lines for mark in line.marks)]
    handles = []
    for peer in peers:
        color, shape = _LOOKS[peer]
        label = "to the limit" if peer == _LIMIT else f"to {peer}"
        handles.append(Line2D([], [], color=color, marker=shape, linestyle="none", label=label))
    return [*handles, Line2D([], [], color=_GOAL, marker="|", markersize=12, markeredgewidth=2.5, linestyle="none", label="goal")]
