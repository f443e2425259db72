"""``python -m benchmarks``: regd beside what it replaces, turn by turn."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.candidates import CANDIDATES, REGD, regd_with, versions
from benchmarks.data import Settings
from benchmarks.report import file_system, machine
from benchmarks.results import Result
from benchmarks.rows import ROWS
from benchmarks.run import Medium, Run, progress
from benchmarks.show import tell

_ROOT = Path(__file__).resolve().parent.parent
_MEDIA = ("tmpfs", "disk")

_DESCRIPTION = """\
Run regd beside what it replaces: Debian's docker-registry, the same behind
nginx, and nginx that serves files. Print how many times as fast regd is, row by
row.

Each turn starts one server afresh, loads it for a few seconds and stops it; the
servers take turns (regd, peer, regd, peer ...), so that whatever else the
machine does falls on all. Believe the ratios, not the rates. Everything happens
on 127.0.0.1, in directories that are removed at the end: up to 6 GiB on each
medium. A run of all rows on both media takes about an hour, and writes
docs/performance.json and docs/performance.svg.
"""


def _parser() -> argparse.ArgumentParser:
    rows = "\n".join(f"  {row.name:16} {row.title}" for row in ROWS.values())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=_DESCRIPTION,
        epilog=f"rows:\n{rows}\n\nOther programs: python -m benchmarks.floor (what the machine can do at most), benchmarks.streaming (the "
        "memory of\nmany streams at once), benchmarks.show (the table and the plot of JSON files)",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--row", action="append", choices=list(ROWS), metavar="NAME", help="measure this row; again for more (all of them)")
    parser.add_argument("--medium", action="append", choices=_MEDIA, help="keep the data there; again for both, which is the default")
    peers = [name for name in CANDIDATES if name != REGD.name]
    parser.add_argument("--peer", action="append", choices=peers, help="compare with this one; again for more (all that a row knows)")
    parser.add_argument("--pairs", type=_positive_int, metavar="N", help="turns of each server for each row (5)")
    parser.add_argument("--scale", type=_positive, metavar="X", help="do X times as much in each turn (1)")
    parser.add_argument("--quick", action="store_true", help="one turn each, little work, small blobs and trees, in memory: does it work?")
    parser.add_argument("--tmpfs", type=Path, default=Path("/dev/shm"), metavar="DIR", help="a directory in memory (%(default)s)")
    parser.add_argument("--disk", type=Path, default=Path("var"), metavar="DIR", help="one on disk (./%(default)s, made if need be)")
    parser.add_argument("--no-access-log", action="store_true", help="switch the access logs of all off; else they go to files")
    parser.add_argument("--set", action="append", type=_variable, default=[], metavar="REGISTRY_X=Y", help="change a setting of regd alone")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure, the machine and the versions here")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the ratios here, as SVG; needs matplotlib")
    return parser


def _positive_int(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value <= 100:
        raise ValueError
    return value


def _variable(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator or not name.startswith("REGISTRY_"):
        raise ValueError
    return name, value


def _settings(options: argparse.Namespace) -> None:
    """Fill in what was not said: ``--quick`` changes what that means."""
    quick = options.quick
    options.pairs = options.pairs or (1 if quick else 5)
    options.scale = options.scale or (0.05 if quick else 1.0)
    options.shrink = 16 if quick else 1
    whole = not (quick or options.row or options.medium or options.peer)
    options.medium = options.medium or (["tmpfs"] if quick else list(_MEDIA))
    if whole:
        options.json = options.json or _ROOT / "docs" / "performance.json"
        options.plot = options.plot or _ROOT / "docs" / "performance.svg"
    options.row = options.row or list(ROWS)


def _measure(options: argparse.Namespace, results: list[Result]) -> list[str]:
    """Fill ``results``, so that what has been measured is not lost when somebody ends it; returns what failed."""
    regd = regd_with(dict(options.set)) if options.set else REGD
    run = Run({**CANDIDATES, REGD.name: regd}, Settings(options.scale, options.shrink), not options.no_access_log, options.peer)
    failures = []
    for name in options.medium:
        with tempfile.TemporaryDirectory(prefix="regd-benchmark-", dir=getattr(options, name)) as directory:
            medium = Medium(name, Path(directory).resolve())
            # Grouped by what they begin with, for a large tree is removed when the next is made.
            for row in (ROWS[row] for row in options.row):
                if name in row.media or len(options.medium) == 1:
                    result, failure = run.compare(row, medium, min(options.pairs, row.pairs))
                    results.append(result)
                    failures += [failure] if failure else []
    return failures


def main(arguments: Sequence[str] | None = None) -> int:
    """
    :param arguments: the command line, or ``None`` for that of the process.
    :return: the exit status: 0, or 1 when a row could not be measured.
    """
    options = _parser().parse_args(arguments)
    _settings(options)
    options.disk.mkdir(parents=True, exist_ok=True)
    header: dict[str, Mapping[str, object]] = {
        "machine": machine(),
        "versions": versions(),
        "file_systems": {name: file_system(getattr(options, name)) for name in options.medium},
        "settings": {
            "pairs": options.pairs,
            "scale": options.scale,
            "shrink": options.shrink,
            "access_log": not options.no_access_log,
            "set": dict(options.set),
        },
    }
    results: list[Result] = []
    # Servers are stopped whichever way the run is ended.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        failures = _measure(options, results)
    except KeyboardInterrupt:
        failures = ["ended before all rows were measured"]
    finally:
        signal.signal(signal.SIGTERM, before)
    progress("")
    tell(header, [result for result in results if result.rounds], options.json, options.plot)
    for failure in failures:
        print(f"the benchmark failed: {failure}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
