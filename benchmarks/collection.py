"""``python -m benchmarks.collection``: what a garbage collection costs, and what those feel of it who pull and push meanwhile."""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from itertools import cycle
from pathlib import Path
from statistics import median, quantiles
from typing import Final

from benchmarks.candidates import find, versions
from benchmarks.drivers import together
from benchmarks.pushing import Stored, push_bytes, push_manifest
from benchmarks.report import file_system, machine, machine_text
from benchmarks.trees import Written, images
from benchmarks.wire import Connection
from tests.e2e.daemon import Regd, clean_environment
from tests.e2e.process import wait_until

__all__ = ["Figure", "Run", "Site", "collect", "eligible", "main", "peer_command"]

#: What follows these words in a line is what would be removed, whoever says so.
_ELIGIBLE: Final = {"blob": "blob eligible for deletion: ", "manifest": "manifest eligible for deletion: "}

_GRACE: Final = "REGISTRY_STORAGE_MAINTENANCE_GARBAGECOLLECT_GRACE"

#: The largest of what is pulled, in bytes.
_LAYER: Final = 1024 * 1024

#: Clients that pull, and how long each waits between two pulls, in seconds.
_PULLING: Final = 2
_REST: Final = 0.01

_DESCRIPTION = """\
Collect garbage beside Debian's docker-registry, turn by turn, over a tree of 500
repositories with 10 images of 4 layers each and 3,000 blobs of garbage. Do both
find the same? How long does it take, as a ratio of the two in the same round?
For how long are changes kept waiting when 3,000 blobs are swept? How much memory
does it take, and how does that grow with the tree? How much longer do pulls take
while a daemon collects back to back?
"""


@dataclass(frozen=True)
class Run:
    """
    One command that has ended.

    :ivar output: all that it printed.
    :ivar seconds: from its start to its end.
    :ivar cpu: seconds of CPU.
    :ivar peak: the most memory that it held, in bytes.
    """

    output: str
    seconds: float
    cpu: float
    peak: int


@dataclass(frozen=True)
class Figure:
    """
    One line of the table.

    :ivar goal: at most; ``None`` where there is none.
    """

    name: str
    medium: str
    value: float
    unit: str
    goal: float | None = None
    details: str = ""

    def line(self) -> str:
        """The line."""
        goal = "" if self.goal is None else f"<= {self.goal:g}  {'met' if self.value <= self.goal else 'MISSED'}"
        return f"{self.name:46} {self.medium:6} {self.value:10.3f} {self.unit:5} {goal:16} {self.details}".rstrip()


class Site:
    """
    A storage, and the configuration that leads to it.

    :param directory: for both; made here.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        # Never started: what matters is its configuration.
        server = Regd(directory)
        self.directory = directory
        self.data = server.data
        self.configuration = server.configuration
        self.environment = dict(server.program.environment)

    def report(self) -> dict[str, float]:
        """What the last collection reported."""
        found: dict[str, float] = json.loads((self.data / "regd/collection.json").read_text(encoding="utf-8"))
        return found


def collect(site: Site, *arguments: str, **settings: str) -> Run:
    """
    ``regd garbage-collect``.

    :param settings: variables.
    """
    command = [str(Path(sys.executable).with_name("regd")), "garbage-collect", *arguments, str(site.configuration)]
    return _run(command, {**site.environment, **settings}, site.directory)


def peer_command(site: Site, *arguments: str) -> Run:
    """``docker-registry garbage-collect``; :func:`find` tells whether it is installed."""
    program = find("docker-registry") or "docker-registry"
    command = [program, "garbage-collect", *arguments, str(site.configuration)]
    environment = {**clean_environment(site.directory), "OTEL_TRACES_EXPORTER": "none"}
    return _run(command, environment, site.directory)


def eligible(run: Run, kind: str = "blob") -> set[str]:
    """
    What a dry run would remove.

    :param kind: ``blob`` or ``manifest``.
    """
    words = _ELIGIBLE[kind]
    return {line.partition(words)[2].split()[-1] for line in run.output.splitlines() if words in line}


def _run(command: Sequence[str], environment: Mapping[str, str], directory: Path) -> Run:
    output, errors = directory / "output", directory / "errors"
    begun = time.monotonic()
    with output.open("wb") as out, errors.open("wb") as err:
        process = subprocess.Popen(command, stdout=out, stderr=err, stdin=subprocess.DEVNULL, env=environment, cwd=directory)
        _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - begun
    # It has been waited for above, for the sake of what it used.
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise AssertionError(f"{' '.join(command)} ended with {process.returncode}: {errors.read_text(errors='replace')[-500:]}")
    return Run(output.read_text(encoding="utf-8"), seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


def _beside(site: Site, medium: str, written: Written, pairs: int) -> Iterator[Figure]:
    """What both find, and how long it takes them, in turns."""
    ours, theirs = [], []
    for _ in range(pairs):
        theirs.append(peer_command(site, "--dry-run"))
        ours.append(collect(site, "--dry-run", **{_GRACE: "0s"}))
    found, expected = eligible(ours[-1]), eligible(theirs[-1])
    if found != expected or found != written.garbage:
        raise AssertionError(f"regd finds {len(found)} blobs, docker-registry {len(expected)}, and {len(written.garbage)} are garbage")
    yield Figure("blobs found by both", medium, len(found), "", None, "the same, and exactly the garbage")
    for name, attribute in (("wall time beside docker-registry", "seconds"), ("CPU beside docker-registry", "cpu")):
        ratios = [getattr(our, attribute) / getattr(their, attribute) for our, their in zip(ours, theirs, strict=True)]
        sides = [median(getattr(run, attribute) for run in runs) for runs in (ours, theirs)]
        details = f"{min(ratios):.2f}..{max(ratios):.2f} of {pairs}; {sides[0]:.2f} s beside {sides[1]:.2f} s"
        yield Figure(name, medium, median(ratios), "", 1.0 if attribute == "seconds" else None, details)
    yield Figure("peak memory of a dry run", medium, max(run.peak for run in ours) / 2**20, "MiB", 150)


def _sweep(site: Site, medium: str, count: int, rounds: int) -> Iterator[Figure]:
    """For how long changes wait when garbage goes."""
    source = random.Random(0)
    closed: list[float] = []
    longest: list[float] = []
    seconds: list[float] = []
    for _ in range(rounds):
        # The first time there is what the tree was made with; then as much again.
        _new_garbage(site, source, 0 if not closed else count)
        # What has just been made is still to be written, and garbage is seldom that new.
        os.sync()
        time.sleep(0.05)
        run = collect(site, "--quiet", **{_GRACE: "0s"})
        report = site.report()
        if report["blobs_swept"] < count:
            raise AssertionError(f"{report['blobs_swept']} blobs were swept, and not {count}")
        closed.append(report["milliseconds_closed"])
        longest.append(report["longest_closed_milliseconds"])
        seconds.append(run.seconds)
    told = f"{min(closed):.1f}..{max(closed):.1f} of {rounds}; {median(longest):.1f} ms at a time, {max(longest):.1f} at most"
    yield Figure(f"closed, in all, for {count} swept", medium, median(closed), "ms", 50, told)
    yield Figure(f"a collection that sweeps {count}", medium, median(seconds), "s")


def _new_garbage(site: Site, source: random.Random, count: int) -> None:
    for _ in range(count):
        encoded = f"{source.getrandbits(256):064x}"
        path = site.data / "docker/registry/v2/blobs/sha256" / encoded[:2] / encoded
        path.mkdir(parents=True)
        # Whether it has its digest is no matter here: nobody reads it.
        (path / "data").write_bytes(b"garbage")


def _pulls(directory: Path, medium: str, data: Path, rounds: int, seconds: float) -> Iterator[Figure]:
    """How long pulls take while a daemon collects, beside one that does not."""
    times: dict[bool, list[float]] = {False: [], True: []}
    p50: dict[bool, list[float]] = {False: [], True: []}
    runs = 0
    for number in range(rounds):
        for marking in (False, True):
            with _daemon(directory / f"{number}-{marking}", data, marking=marking) as server:
                before = _started(data)
                layer = _push(server.port)
                # The first round of everything is colder than what follows.
                for warm in (0.5, seconds):
                    done = together([partial(_pull_for, server.port, layer, client, warm) for client in range(_PULLING)])
                latencies = sorted(latency for one in done.results for latency in one)
                parts = quantiles(latencies, n=100)
                times[marking].append(parts[98])
                p50[marking].append(parts[49])
                if marking:
                    runs += _started(data) != before
    if not runs:
        raise AssertionError("nothing was collected meanwhile")
    ratios = [busy / idle for idle, busy in zip(times[False], times[True], strict=True)]
    sides = f"{median(times[True]) * 1000:.1f} ms beside {median(times[False]) * 1000:.1f} ms"
    sides += f", half of them {median(p50[True]) * 1000:.1f} beside {median(p50[False]) * 1000:.1f}"
    details = f"{min(ratios):.2f}..{max(ratios):.2f} of {rounds}; {sides}"
    yield Figure("p99 of pulls while marking, beside idle", medium, median(ratios), "", 2, details)


def _started(data: Path) -> str:
    try:
        return str(json.loads((data / "regd/collection.json").read_text(encoding="utf-8"))["started"])
    except FileNotFoundError:
        return ""


@contextmanager
def _daemon(directory: Path, data: Path, *, marking: bool) -> Iterator[Regd]:
    section = "REGISTRY_STORAGE_MAINTENANCE_GARBAGECOLLECT"
    environment = {"REGISTRY_HTTP_WORKERS": "2", f"{section}_ENABLED": str(marking).lower(), f"{section}_INTERVAL": "1s"}
    server = Regd(directory, data, environment)
    server.start()
    try:
        wait_until(lambda: "with 2 workers" in server.program.output(), 60, "the workers to be ready")
        yield server
    finally:
        server.stop()


def _push(port: int) -> Stored:
    layer = random.Random(1).randbytes(_LAYER)
    with Connection(port) as connection:
        config = push_bytes(connection, "pulled/image", b"{}")
        stored = push_bytes(connection, "pulled/image", layer)
        push_manifest(connection, "pulled/image", "latest", config, [stored])
    return stored


def _pull_for(port: int, layer: Stored, client: int, seconds: float) -> list[float]:
    """Pull an image with one large layer, again and again, and others of the tree between."""
    end = time.monotonic() + seconds
    others = cycle(range(client, 50, _PULLING))
    found = []
    with Connection(port) as connection:
        while time.monotonic() < end:
            other = next(others)
            begun = time.monotonic()
            connection.request("GET", "/v2/pulled/image/manifests/latest").expect(200)
            connection.download(f"/v2/pulled/image/blobs/{layer.digest}")
            connection.request("GET", f"/v2/team{other:02}/app{other:04}/manifests/v1").expect(200)
            found.append(time.monotonic() - begun)
            time.sleep(_REST)
    return found


def _measure(options: argparse.Namespace, medium: str, directory: Path) -> Iterator[Figure]:
    site = Site(directory / "small")
    written = images(str(site.data), options.repositories, garbage=options.garbage)
    if find("docker-registry") is not None:
        yield from _beside(site, medium, written, options.pairs)
    yield from _pulls(directory / "pulls", medium, site.data, max(3, options.pairs // 2), options.seconds)
    # After the pulls, whose collections have seen the garbage as young.
    yield from _sweep(site, medium, options.garbage, options.pairs)
    shutil.rmtree(site.directory)
    if options.large and medium == "tmpfs":
        site = Site(directory / "large")
        written = images(str(site.data), options.large, garbage=options.garbage)
        run = collect(site, "--dry-run", "--quiet", **{_GRACE: "0s"})
        name = f"peak memory of a dry run, {written.blobs:,} blobs"
        yield Figure(name, medium, run.peak / 2**20, "MiB", 150, f"{run.seconds:.1f} s")
        run = collect(site, "--quiet", **{_GRACE: "0s"})
        yield Figure(name.replace("dry run", "collection"), medium, run.peak / 2**20, "MiB", 150, f"{run.seconds:.1f} s")
        shutil.rmtree(site.directory)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.collection", description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--medium", action="append", choices=("tmpfs", "disk"), help="keep the data there; again for both, the default")
    parser.add_argument("--pairs", type=int, default=5, metavar="N", help="turns of each (%(default)s)")
    parser.add_argument("--repositories", type=int, default=500, metavar="N", help="in the tree (%(default)s)")
    parser.add_argument("--garbage", type=int, default=3000, metavar="N", help="blobs that nothing refers to (%(default)s)")
    parser.add_argument("--large", type=int, default=5500, metavar="N", help="repositories of the tree for memory, or 0 (%(default)s)")
    parser.add_argument("--seconds", type=float, default=10, metavar="X", help="of pulls in each turn (%(default)s)")
    parser.add_argument("--tmpfs", type=Path, default=Path("/dev/shm"), metavar="DIR", help="a directory in memory (%(default)s)")
    parser.add_argument("--disk", type=Path, default=Path("var"), metavar="DIR", help="one on disk (./%(default)s, made if need be)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure, the machine and the versions here")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """
    :param arguments: the command line, or ``None`` for that of the process.
    :return: the exit status: 1 when a goal is missed.
    """
    options = _parser().parse_args(arguments)
    options.disk.mkdir(parents=True, exist_ok=True)
    media = options.medium or ["tmpfs", "disk"]
    header: dict[str, Mapping[str, object]] = {
        "machine": machine(),
        "versions": versions(),
        "file_systems": {name: file_system(getattr(options, name)) for name in media},
    }
    print(machine_text(header), flush=True)
    figures = []
    for medium in media:
        with tempfile.TemporaryDirectory(prefix="regd-collection-", dir=getattr(options, medium)) as directory:
            for figure in _measure(options, medium, Path(directory).resolve()):
                print(figure.line(), flush=True)
                figures.append(figure)
    if options.json is not None:
        text = json.dumps({**header, "figures": [asdict(figure) for figure in figures]}, indent=1)
        options.json.write_text(text + "\n", encoding="utf-8")
    return int(any(figure.goal is not None and figure.value > figure.goal for figure in figures))


if __name__ == "__main__":
    sys.exit(main())
