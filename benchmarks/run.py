"""The turns: each starts a server afresh, loads it and stops it, and the servers take them one after the other."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.candidates import REGD, Candidate
from benchmarks.data import Data, Held, Settings
from benchmarks.loads import Bench
from benchmarks.results import Result, Turn
from benchmarks.rows import Row
from benchmarks.servers import running
from benchmarks.wire import UnexpectedReply

__all__ = ["Medium", "Run", "progress"]


@dataclass
class Medium:
    """
    A place for data, with what has been put there.

    :ivar name: ``tmpfs`` or ``disk``.
    :ivar directory: ours to fill.
    :ivar held: what lies there for all candidates to read, by the name of the :class:`~benchmarks.data.Data`.
    """

    name: str
    directory: Path
    held: dict[str, Held] = field(default_factory=dict)

    def fill(self, data: Data, settings: Settings) -> tuple[Path, Held]:
        """
        :return: the root directory of a registry that holds ``data``, and what that is.
        """
        directory = self.directory / data.name
        if data.name not in self.held:
            # Large trees are needed by one row each, and take a million inodes together.
            for name in [name for name, held in self.held.items() if held.entries]:
                shutil.rmtree(self.directory / name)
                del self.held[name]
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir()
            held = data.fill(directory, settings)
            if not data.shared:
                return directory, held
            self.held[data.name] = held
        return directory, self.held[data.name]


class Run:
    """
    :param candidates: by name.
    :param settings: how much to do.
    :param access_log: whether servers log each request, to files.
    :param peers: whom to compare with, at most; ``None`` for all that a row knows.
    """

    def __init__(
        self, candidates: Mapping[str, Candidate], settings: Settings, access_log: bool, peers: Collection[str] | None = None
    ) -> None:
        self._candidates = candidates
        self._settings = settings
        self._access_log = access_log
        self._peers = peers

    def compare(self, row: Row, medium: Medium, pairs: int) -> tuple[Result, str]:
        """
        Measure one row on one medium.

        :return: as many whole rounds as could be measured, and what went wrong, or nothing.
        """
        names = [REGD.name, *(peer for peer in row.peers if self._peers is None or peer in self._peers)]
        who = {name: self._candidates[row.subject if name == REGD.name else name] for name in names}
        skipped = {name: f"not installed: {', '.join(missing)}" for name in names if (missing := who[name].missing())}
        goals = [goal for goal in row.goals if goal.medium in {"", medium.name}]
        rounds: list[Mapping[str, Turn]] = []
        result = Result(row.name, row.title, medium.name, row.unit, goals, rounds, skipped)
        for number in range(pairs):
            turns = {}
            for name in names:
                if name not in skipped:
                    progress(f"{row.name} on {medium.name}, round {number + 1} of {pairs}: {name}")
                    try:
                        turns[name] = self._turn(who[name], row, medium)
                    except (OSError, UnexpectedReply, AssertionError, subprocess.SubprocessError) as error:
                        return result, f"{row.name} on {medium.name}, {name}: {error}"
            rounds.append(turns)
        return result, ""

    def _turn(self, candidate: Candidate, row: Row, medium: Medium) -> Turn:
        data, held = medium.fill(row.data, self._settings)
        try:
            # What earlier turns left for the kernel to write would be written during this one.
            os.sync()
            with running(candidate, medium.directory / candidate.name, data, access_log=self._access_log) as server:
                server.settle()
                before = server.usage()
                work = row.load(Bench(server, held, self._settings))
                after = server.usage()
        finally:
            if not row.data.shared:
                shutil.rmtree(data, ignore_errors=True)
        return Turn(
            value=work.amount / work.seconds if work.value is None else work.value,
            amount=work.amount,
            seconds=work.seconds,
            cpu_seconds=after.cpu_seconds - before.cpu_seconds,
            client_cpu_seconds=work.client_cpu,
            peak=after.peak,
            peak_total=after.peak_total,
            processes=after.processes,
            p50=work.p50,
            p99=work.p99,
            details=work.details,
        )


def progress(text: str) -> None:
    """Tell a person who watches what goes on; a pipe gets the results and nothing else."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
