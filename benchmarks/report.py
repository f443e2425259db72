"""The table for people, and what they need to know of the machine to judge it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.results import OURS, Result

__all__ = ["file_system", "machine", "machine_text", "table"]

_HEADINGS = (
    *("row", "on", "peer", "ratio", "min..max", "target", "", "regd", "peer", ""),
    *("CPU", "peer", "", "client", "peak", "peer", "all", "peer", ""),
)
_LEFT = frozenset({0, 1, 2, 6, 9, 12, 18})


def table(results: Sequence[Result]) -> str:
    """
    A table with the median of each figure. A ratio above 1 says that regd was better than its peer in the same round of turns; CPU is
    what one unit of the work cost the server, and the client of regd; the peak is of the memory that one process held, in the worst
    turn, and ``all`` that of all processes of the server together.
    """
    rows = [_HEADINGS, *(line for result in results for line in _lines(result))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    rows.insert(1, tuple("-" * width for width in widths))
    return "\n".join("  ".join(map(_aligned, row, widths, range(len(widths)))).rstrip() for row in rows)


def _aligned(cell: str, width: int, column: int) -> str:
    return cell.ljust(width) if column in _LEFT else cell.rjust(width)


def _lines(result: Result) -> Iterator[tuple[str, ...]]:
    """One line for regd alone where it has a goal of its own, or no peers; and one for each peer."""
    if not result.rounds:
        return
    if result.goal("") or not result.peers:
        yield _line(result, "")
    for peer in result.peers:
        yield _line(result, peer)


def _line(result: Result, peer: str) -> tuple[str, ...]:
    unit = result.unit
    goal = result.goal(peer)
    ratios = result.ratios(peer) if peer else None
    sides = (OURS, peer) if peer else (OURS,)

    def both(told: list[str]) -> list[str]:
        return [*told, ""][:2]

    return (
        *(result.row, result.medium, peer or "-"),
        f"{ratios.median:.2f}" if ratios else "",
        f"{ratios.least:.2f}..{ratios.most:.2f}" if ratios else "",
        goal.told(unit) if goal else "",
        ("met" if result.met(goal) else "MISSED") if goal else "",
        *both([unit.told(result.value(side).median) for side in sides]),
        unit.label,
        *both([f"{result.cpu(side) * unit.cpu_factor:.3f}" for side in sides]),
        unit.cpu_label,
        f"{result.client_cpu(OURS) * unit.cpu_factor:.3f}",
        *both([_mebibytes(result.peak(side)) for side in sides]),
        *both([_mebibytes(result.peak_total(side)) for side in sides]),
        "MiB",
    )


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:.0f}"


def machine() -> dict[str, object]:
    """The processor, its cores, the memory, and what else was to do when the run began."""
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {
        "processor": model,
        "cores": len(os.sched_getaffinity(0)),
        "memory_mib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
        "load_average": round(os.getloadavg()[0], 2),
    }


def file_system(directory: Path) -> str:
    """The type of the file system that a directory is on, by proc(5), ``/proc/self/mountinfo``; ``unknown`` if it is not there."""
    device = directory.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        before, _, behind = line.partition(" - ")
        if before.split()[2] == wanted:
            return behind.split()[0]
    return "unknown"


def machine_text(header: Mapping[str, Mapping[str, object]]) -> str:
    """
    The lines above the table.

    :param header: as in the JSON: ``machine``, ``versions`` and ``file_systems``.
    """
    found = header["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in header["versions"].items())
    media = ", ".join(f"{name}: {kind}" for name, kind in header["file_systems"].items())
    return (
        f"{found['processor']}, {found['cores']} cores, {found['memory_mib']} MiB of memory, "
        f"load {found['load_average']} at the start; {media}\n{versions}"
    )
