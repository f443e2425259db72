"""What was measured, as values, as a table for people and as JSON for programs."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

__all__ = ["Comparison", "Turn", "json_text", "machine", "table"]


@dataclass(frozen=True)
class Turn:
    """
    One row, measured once on one server.

    :ivar rate: amount of work a second: bytes, requests or images.
    :ivar cpu: seconds of CPU that the server spent for one unit of the work.
    :ivar cpu_seconds: seconds of CPU that the server spent on all of it.
    :ivar peak: the most memory that the server, started for this turn, held, in bytes.
    :ivar p99: in seconds, where it was measured.
    """

    rate: float
    cpu: float
    cpu_seconds: float
    peak: int
    p99: float | None


@dataclass(frozen=True)
class Comparison:
    """
    One row on one medium.

    :ivar row: the row's name.
    :ivar title: what it does.
    :ivar unit: its unit: ``B``, ``requests`` or ``images``.
    :ivar medium: ``tmpfs`` or ``disk``.
    :ivar pairs: the turns of regd and of its peer, measured one after the other.
    """

    row: str
    title: str
    unit: str
    medium: str
    pairs: Sequence[tuple[Turn, Turn]]

    def ratios(self) -> list[float]:
        """How many times as fast as its peer regd was, for each pair, the slowest first."""
        return sorted(ours.rate / theirs.rate for ours, theirs in self.pairs)

    def side(self, number: int) -> list[Turn]:
        """The turns of regd for 0, of its peer for 1."""
        return [pair[number] for pair in self.pairs]


_HEADINGS = ("row", "on", "ratio", "min..max", "regd", "peer", "", "CPU", "peer", "", "peak", "peer", "")
_RIGHT = frozenset({2, 3, 4, 5, 7, 8, 10, 11})


def table(comparisons: Sequence[Comparison]) -> str:
    """
    A table with the median of each figure. A ratio above 1 says that regd was faster than its peer in the same pair of turns; CPU is
    what one unit of the work cost the server; the peak is of the memory that the server held, the worst turn.
    """
    rows = [_HEADINGS, *map(_cells, comparisons)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    rows.insert(1, tuple("-" * width for width in widths))
    return "\n".join("  ".join(map(_aligned, row, widths, range(len(widths)))).rstrip() for row in rows)


def _aligned(cell: str, width: int, column: int) -> str:
    return cell.rjust(width) if column in _RIGHT else cell.ljust(width)


def _cells(comparison: Comparison) -> tuple[str, ...]:
    ratios = comparison.ratios()
    bulk = comparison.unit == "B"
    rate, rate_unit = (1e-6, "MB/s") if bulk else (1.0, f"{comparison.unit}/s")
    cpu, cpu_unit = (1e9, "s/GB") if bulk else (1e3, f"ms/{comparison.unit[:-1]}")
    ours, theirs = comparison.side(0), comparison.side(1)

    def each(side: Sequence[Turn], attribute: str, factor: float, digits: int) -> str:
        return f"{median(getattr(turn, attribute) for turn in side) * factor:.{digits}f}"

    return (
        comparison.row,
        comparison.medium,
        f"{median(ratios):.2f}",
        f"{ratios[0]:.2f}..{ratios[-1]:.2f}",
        each(ours, "rate", rate, 0),
        each(theirs, "rate", rate, 0),
        rate_unit,
        each(ours, "cpu", cpu, 2),
        each(theirs, "cpu", cpu, 2),
        cpu_unit,
        f"{max(turn.peak for turn in ours) / 2**20:.0f}",
        f"{max(turn.peak for turn in theirs) / 2**20:.0f}",
        "MiB",
    )


def machine() -> dict[str, object]:
    """What a reader needs to know of the machine to judge figures."""
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {
        "processor": model,
        "cpus": len(os.sched_getaffinity(0)),
        "memory_mib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load_average": os.getloadavg()[0],
    }


def json_text(versions: Mapping[str, str], settings: Mapping[str, object], comparisons: Sequence[Comparison]) -> str:
    """Everything, every turn of it, with the machine, the versions and the settings of the run."""
    document = {
        "machine": machine(),
        "versions": dict(versions),
        "settings": dict(settings),
        "rows": [{**asdict(comparison), "ratios": comparison.ratios()} for comparison in comparisons],
    }
    return json.dumps(document, indent=2)
