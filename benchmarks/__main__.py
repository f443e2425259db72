"""``python -m benchmarks``: regd beside Debian's ``docker-registry``, turn by turn."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.report import Comparison, Turn, json_text, table
from benchmarks.rows import ROWS, Row, Seed, Target, seed
from benchmarks.servers import PEER, REGD, Candidate, running
from benchmarks.wire import UnexpectedReply

_DESCRIPTION = """\
Run regd beside Debian's docker-registry, each with the configuration of the
registry:2 image, and print how many times as fast regd is, row by row.

Each turn starts one server afresh, loads it for a second or two and stops it;
the servers take turns (regd, peer, regd, peer ...), so that whatever else the
machine does falls on both. Believe the ratios, not the rates. Everything
happens on 127.0.0.1, in directories that are removed at the end: about 1 GiB
on each medium.
"""


def _parser() -> argparse.ArgumentParser:
    rows = "\n".join(f"  {row.name:16} {row.title}" for row in ROWS.values())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=_DESCRIPTION,
        epilog=f"rows:\n{rows}\n\nThe memory of many streams at once is another program: python -m benchmarks.streaming",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--row", action="append", choices=list(ROWS), metavar="NAME", help="measure this row; again for more (all of them)")
    parser.add_argument(
        "--medium", action="append", choices=["tmpfs", "disk"], help="keep the data there; again for both, which is the default"
    )
    parser.add_argument("--pairs", type=_positive_int, default=3, metavar="N", help="turns of each server for each row (%(default)s)")
    parser.add_argument("--scale", type=_positive, default=1.0, metavar="X", help="do X times as much in each turn (%(default)s)")
    parser.add_argument("--tmpfs", type=Path, default=Path("/dev/shm"), metavar="DIR", help="a directory in memory (%(default)s)")
    parser.add_argument("--disk", type=Path, default=Path("var"), metavar="DIR", help="one on disk (./%(default)s, made if need be)")
    parser.add_argument("--no-access-log", action="store_true", help="switch the access logs of both off; else they go to files")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure, the machine and the versions here, too")
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


@dataclass
class _Medium:
    """
    A place for data, with what has been put there.

    :ivar name: ``tmpfs`` or ``disk``.
    :ivar directory: ours to fill.
    :ivar seeds: what the registry of each candidate holds, by its name.
    """

    name: str
    directory: Path
    seeds: dict[str, Seed]


class _Run:
    """
    :param scale: see :class:`~benchmarks.rows.Target`.
    :param access_log: see :func:`~benchmarks.servers.running`.
    """

    def __init__(self, scale: float, access_log: bool) -> None:
        self._scale = scale
        self._access_log = access_log

    def compare(self, row: Row, medium: _Medium, pairs: int) -> Comparison:
        """Measure one row on one medium."""
        turns = []
        for number in range(pairs):
            _progress(f"{row.name} on {medium.name}, pair {number + 1} of {pairs}")
            turns.append((self._turn(REGD, row, medium), self._turn(PEER, row, medium)))
        return Comparison(row.name, row.title, row.unit, medium.name, turns)

    def _turn(self, candidate: Candidate, row: Row, medium: _Medium) -> Turn:
        held = self._seeded(candidate, medium) if row.reads else None
        data = medium.directory / (f"{candidate.name}-seeded" if row.reads else f"{candidate.name}-empty")
        try:
            # What earlier turns left for the kernel to write would be written during this one.
            os.sync()
            with running(candidate, medium.directory, data, access_log=self._access_log) as server:
                before = server.usage()
                work = row.load(Target(server.port, held, self._scale))
                after = server.usage()
        finally:
            if not row.reads:
                shutil.rmtree(data, ignore_errors=True)
        spent = after.cpu_seconds - before.cpu_seconds
        return Turn(work.amount / work.seconds, spent / work.amount, spent, after.peak, work.p99)

    def _seeded(self, candidate: Candidate, medium: _Medium) -> Seed:
        if candidate.name not in medium.seeds:
            with running(candidate, medium.directory, medium.directory / f"{candidate.name}-seeded", access_log=False) as server:
                medium.seeds[candidate.name] = seed(server.port)
        return medium.seeds[candidate.name]


def _progress(text: str) -> None:
    """Tell a person who watches what goes on; a pipe gets the results and nothing else."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """
    :param arguments: the command line, or ``None`` for that of the process.
    :return: the exit status: 0, or 1 when a server or a program is missing or fails.
    """
    options = _parser().parse_args(arguments)
    for candidate in (REGD, PEER):
        if not candidate.available():
            print(f"{candidate.command[0]} is not installed", file=sys.stderr)
            return 1
    options.disk.mkdir(parents=True, exist_ok=True)
    run = _Run(options.scale, not options.no_access_log)
    comparisons = []
    try:
        for name in options.medium or ["tmpfs", "disk"]:
            with tempfile.TemporaryDirectory(prefix="regd-benchmark-", dir=getattr(options, name)) as directory:
                medium = _Medium(name, Path(directory).resolve(), {})
                comparisons += [run.compare(ROWS[row], medium, options.pairs) for row in options.row or ROWS]
    except (OSError, UnexpectedReply, AssertionError) as error:
        _progress("")
        print(f"the benchmark failed: {error}", file=sys.stderr)
        return 1
    _progress("")
    versions = {candidate.name: candidate.version() for candidate in (REGD, PEER)}
    print("\n".join(versions.values()))
    print(table(comparisons))
    if options.json is not None:
        settings = {"pairs": options.pairs, "scale": options.scale, "access_log": not options.no_access_log}
        options.json.write_text(json_text(versions, settings, comparisons) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
