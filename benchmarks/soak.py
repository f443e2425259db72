"""``python -m benchmarks.soak``: clients that never rest beside collections that never rest, and what must not happen meanwhile."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks.drivers import together
from benchmarks.skopeo import SkopeoClient
from benchmarks.soaking import Client, Tally, pull
from benchmarks.wire import Connection, UnexpectedReply
from tests.e2e.daemon import Regd
from tests.e2e.process import wait_until

__all__ = ["Collections", "Soak", "main", "soak"]

#: How many processes serve, and how many clients ask.
_WORKERS: Final = 2
_CLIENTS: Final = 3

_DESCRIPTION = """\
Let clients push, pull, mount, tag, untag and delete in a registry of two
workers without a pause, while garbage is collected back to back: by the timed
service of the daemon, and by 'regd garbage-collect --delete-untagged' beside
it. Count failed pulls, pushes that end in anything but success or an error
after which the next try succeeds, and blobs that are missing, or left over, at
the end. All three have to be 0.
"""


@dataclass
class Collections:
    """
    What the collections did, by the reports that they left.

    :ivar counts: ``timed`` and ``commands`` are how many there were; ``busy`` how often a command found another one running.
    :ivar longest: the longest that changes were kept waiting at a time, in milliseconds.
    :ivar slowest: the longest that a command took, one that found another collection included, in seconds.
    :ivar failures: what went wrong.
    """

    counts: Counter[str] = field(default_factory=Counter)
    longest: float = 0.0
    slowest: float = 0.0
    failures: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Soak:
    """
    What came of a soak.

    :ivar grace: the grace period, in seconds.
    :ivar counts: what the clients did.
    :ivar collections: what was done beside them.
    :ivar failures: everything that must not have happened.
    :ivar slowest: the longest that one try of a push took, in seconds.
    :ivar most_tries: that any push took.
    :ivar images: how many had to be there at the end.
    """

    grace: float
    seconds: float
    counts: Mapping[str, int]
    collections: Collections
    failures: Sequence[str]
    slowest: float
    most_tries: int
    images: int

    def lines(self) -> list[str]:
        """What a person wants to know."""
        done = ", ".join(f"{count} {name}" for name, count in sorted(self.counts.items()))
        beside = ", ".join(f"{count} {name}" for name, count in sorted(self.collections.counts.items()))
        return [
            f"grace {self.grace:g} s, {self.seconds:.0f} s: {done}",
            f"collections: {beside}; closed for {self.collections.longest:.1f} ms at most, a command took {self.collections.slowest:.1f} s",
            f"the slowest try of a push took {self.slowest:.3f} s, one push took {self.most_tries} tries",
            f"{self.images} images whole at the end; {len(self.failures)} failures",
            *(f"FAILED: {failure}" for failure in self.failures),
        ]


def soak(directory: Path, grace: float, seconds: float, *, skopeo: bool = True) -> Soak:
    """
    Soak a registry of its own.

    :param directory: for its files; empty.
    :param grace: of the collections and of the promises, in seconds.
    :param skopeo: whether one client more is ``skopeo``.
    """
    server = Regd(directory, None, _environment(grace))
    server.start()
    try:
        wait_until(lambda: f"with {_WORKERS} workers" in server.program.output(), 60, "the workers to be ready")
        begun = time.monotonic()
        tallies, collections = _soak(server, grace, seconds, skopeo=skopeo)
        seconds = time.monotonic() - begun
        failures = [*collections.failures, *(failure for tally in tallies for failure in tally.failures)]
        images = sum(len(tally.live) for tally in tallies)
        failures += _missing(server, tallies)
        failures += _left_over(server, tallies)
        failures += [f"in the log: {line}" for line in server.program.output().splitlines() if "Traceback" in line]
    finally:
        server.stop()
    counts = sum((tally.counts for tally in tallies), Counter[str]())
    slowest, tries = max(tally.slowest for tally in tallies), max(tally.most_tries for tally in tallies)
    return Soak(grace, seconds, counts, collections, failures, slowest, tries, images)


def _environment(grace: float) -> dict[str, str]:
    section = "REGISTRY_STORAGE_MAINTENANCE_GARBAGECOLLECT"
    return {
        "REGISTRY_HTTP_WORKERS": str(_WORKERS),
        f"{section}_ENABLED": "true",
        f"{section}_INTERVAL": "1s",
        f"{section}_GRACE": f"{grace}s",
    }


def _soak(server: Regd, grace: float, seconds: float, *, skopeo: bool) -> tuple[list[Tally], Collections]:
    collections, enough, begun = Collections(), threading.Event(), multiprocessing.Event()
    runs: list[Callable[[float], Tally]] = [Client(server.port, number, _CLIENTS, grace / 2).run for number in range(_CLIENTS)]
    if skopeo:
        runs.append(SkopeoClient(server.port, server.directory / "skopeo").run)

    def started(run: Callable[[float], Tally]) -> Tally:
        begun.set()
        return run(seconds)

    def collect() -> None:
        # Once all clients are forked: one that is forked while a program is started holds the pipe open that tells when it has.
        begun.wait(60)
        _collect(server, collections, enough)

    clients = [partial(started, run) for run in runs]
    threads = [threading.Thread(target=collect), threading.Thread(target=_watch, args=(server, collections, enough))]
    for thread in threads:
        thread.start()
    try:
        return together(clients).results, collections
    finally:
        enough.set()
        for thread in threads:
            thread.join()


def _command(server: Regd, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("regd")), "garbage-collect", *arguments, str(server.configuration)]
    return subprocess.run(command, env=server.program.environment, capture_output=True, text=True, timeout=60, check=False)


def _collect(server: Regd, collections: Collections, enough: threading.Event) -> None:
    """Run the command, again and again."""
    while not enough.is_set():
        begun = time.monotonic()
        try:
            done = _command(server, "--quiet", "--delete-untagged")
        except subprocess.TimeoutExpired as error:
            collections.failures.append(f"the command did not end: {error}")
            return
        collections.slowest = max(collections.slowest, time.monotonic() - begun)
        if done.returncode == 0:
            collections.counts["commands"] += 1
        elif _BUSY in done.stderr:
            collections.counts["busy"] += 1
            enough.wait(0.05)
        else:
            collections.failures.append(f"the command ended with {done.returncode}: {done.stderr[-500:]}")
            return


#: What the command says when another collection runs.
_BUSY: Final = "is collecting the garbage of this directory already"


def _watch(server: Regd, collections: Collections, enough: threading.Event) -> None:
    """Look at what collections report when they end."""
    seen = ""
    while not enough.wait(0.01):
        try:
            report = json.loads((server.data / "regd/collection.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue
        if report["started"] != seen:
            seen = report["started"]
            collections.counts["reports seen"] += 1
            collections.counts["blobs swept"] += report["blobs_swept"]
            collections.longest = max(collections.longest, report["longest_closed_milliseconds"])
            if report["skipped"] or report["error"]:
                collections.failures.append(f"a collection reported {report}")


def _missing(server: Regd, tallies: Sequence[Tally]) -> list[str]:
    """Pull everything."""
    failures = []
    with Connection(server.port) as connection:
        for tally in tallies:
            for (repository, reference), image in tally.live.items():
                try:
                    pull(connection, repository, reference, image)
                except UnexpectedReply as error:
                    failures.append(f"missing at the end: {error}")
    return failures


def _left_over(server: Regd, tallies: Sequence[Tally]) -> list[str]:
    """With nobody there, a last collection removes everything but what has to be there."""
    end = time.monotonic() + 60
    while (done := _command(server, "--delete-untagged", "--quiet", "--grace", "0s")).returncode and time.monotonic() < end:
        # The timed service runs.
        time.sleep(0.1)
    if done.returncode:
        return [f"the last collection ended with {done.returncode}: {done.stderr[-500:]}"]
    wanted = {digest for tally in tallies for image in tally.live.values() for digest in image.reach()}
    found = {f"{path.parts[-4]}:{path.parts[-2]}" for path in (server.data / "docker/registry/v2/blobs").glob("*/*/*/data")}
    failures = [f"lost by the last collection: {digest}" for digest in wanted - found]
    failures += [f"left over: {digest}" for digest in found - wanted]
    repositories = {repository for tally in tallies for repository, _ in tally.live}
    with Connection(server.port) as connection:
        listed = json.loads(connection.request("GET", "/v2/_catalog?n=1000").expect(200).body)["repositories"]
    failures += [f"the catalog lists {name}" for name in {*listed} ^ repositories]
    failures += [f"left in the trash: {path}" for path in (server.data / "regd/trash").glob("*/*")]
    return failures + _missing(server, tallies)


def main(arguments: Sequence[str] | None = None) -> int:
    """
    :param arguments: the command line, or ``None`` for that of the process.
    :return: the exit status: 1 when something happened that must not.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=_DESCRIPTION)
    parser.add_argument("--minutes", type=float, default=10, metavar="N", help="in all: half of it for each grace period (%(default)s)")
    parser.add_argument("--grace", type=float, action="append", metavar="SECONDS", help="another grace period; again for more (0 and 1)")
    parser.add_argument("--directory", type=Path, metavar="DIR", help="where to keep the data meanwhile (a temporary one)")
    options = parser.parse_args(arguments)
    periods = options.grace or [0.0, 1.0]
    failed = False
    for grace in periods:
        with tempfile.TemporaryDirectory(prefix="regd-soak-", dir=options.directory) as directory:
            found = soak(Path(directory) / "server", grace, options.minutes * 60 / len(periods))
        print("\n".join(found.lines()), flush=True)
        failed = failed or bool(found.failures)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
