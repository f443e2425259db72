"""What each row of the table does to a server."""

from __future__ import annotations

import base64
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median, quantiles
from typing import Final

from benchmarks.asking import ask_many, request_head, request_many
from benchmarks.candidates import PASSWORD, USER
from benchmarks.data import Held, Settings, seed
from benchmarks.drivers import Work, in_processes, together
from benchmarks.images import ImagePusher
from benchmarks.payload import Payload
from benchmarks.pushing import MANIFEST_TYPE, push_payload
from benchmarks.servers import Server
from benchmarks.wire import Connection

__all__ = ["Bench", "Load"]

_MIB: Final = 1024 * 1024
_ACCEPT: Final = f"Accept: {MANIFEST_TYPE}"

#: How long small requests are repeated, in seconds.
_REPEAT: Final = 3.0

#: The blobs that pushes write, and how many clients do so.
_PUSHED: Final = 64 * _MIB
_PUSHERS: Final = 2

#: How long a cache has to put away what it has sent, in seconds.
_KEEPING: Final = 1.0


@dataclass(frozen=True)
class Bench:
    """
    A server under load.

    :ivar server: what runs.
    :ivar held: what it holds.
    :ivar settings: how much to do.
    """

    server: Server
    held: Held
    settings: Settings

    @property
    def port(self) -> int:
        """Where the server listens."""
        return self.server.port

    @property
    def seconds(self) -> float:
        """How long small requests are repeated: not so short that a server has no time to answer the first."""
        return max(0.2, _REPEAT * self.settings.scale)

    def blob(self, digest: str) -> str:
        """The path of a blob's URL."""
        return self.server.candidate.blob_path(self.held.repository, digest)

    def manifest(self, reference: str) -> str:
        """The path of a manifest's URL."""
        return f"/v2/{self.held.repository}/manifests/{reference}"


#: Does what a row does.
Load = Callable[[Bench], Work]


def _push_client(server: Server, payload: Payload, blobs: int, chunked: bool, number: int) -> float:
    with server.connect() as connection:
        for blob in range(blobs):
            push_payload(connection, "bench/push", payload, os.getpid(), number, blob, chunked=chunked)
    return float(blobs * payload.blob_size)


def push(bench: Bench, *, chunked: bool) -> Work:
    """Push blobs of 64 MiB."""
    payload = Payload(bench.settings.size(_PUSHED))
    try:
        return in_processes(_PUSHERS, partial(_push_client, bench.server, payload, bench.settings.times(5), chunked))
    finally:
        payload.close()


def _pull_client(server: Server, path: str, times: int, _number: int) -> float:
    with server.connect() as connection:
        return float(sum(connection.download(path) for _ in range(times)))


def pull(bench: Bench, *, clients: int) -> Work:
    """Pull the blob of 256 MiB."""
    times = bench.settings.times(24 // clients)
    return in_processes(clients, partial(_pull_client, bench.server, bench.blob(bench.held.large), times))


def fetch(bench: Bench, *, clients: int) -> Work:
    """Pull a blob that the cache does not have, all at once: that of 1 GiB alone, that of 256 MiB together."""
    digest = bench.held.huge if clients == 1 else bench.held.large
    return in_processes(clients, partial(_pull_client, bench.server, bench.blob(digest), 1))


def cached(bench: Bench, load: Load, digest: str) -> Work:
    """
    What ``load`` does with a blob, once the cache has it.

    :param digest: the name of the blob among those that are held.
    """
    with Connection(bench.port) as connection:
        connection.download(bench.blob(getattr(bench.held, digest)))
    # docker-registry keeps a blob after it has sent it.
    time.sleep(_KEEPING)
    return load(bench)


def ranges(bench: Bench) -> Work:
    """Ask for a MiB of the blob of 1 GiB, anywhere in it, the same places for each server; the amount is in requests."""
    size = min(_MIB, bench.held.huge_size)
    places = random.Random(1)
    requests = []
    for _ in range(4096):
        first = places.randrange(bench.held.huge_size // size) * size
        requests.append(request_head(bench.port, "GET", bench.blob(bench.held.huge), [f"Range: bytes={first}-{first + size - 1}"]))
    return ask_many(bench.port, requests, bench.seconds, status=206)


def base(bench: Bench) -> Work:
    """GET /v2/."""
    return request_many(bench.port, "/v2/", [], bench.seconds)


def manifest_by_tag(bench: Bench) -> Work:
    """GET the manifest by its tag."""
    return request_many(bench.port, bench.manifest("latest"), [_ACCEPT], bench.seconds)


def manifest_by_digest(bench: Bench) -> Work:
    """GET the manifest by its digest."""
    return request_many(bench.port, bench.manifest(bench.held.manifest), [_ACCEPT], bench.seconds)


def manifest_head(bench: Bench) -> Work:
    """HEAD the manifest by its tag."""
    return ask_many(bench.port, [request_head(bench.port, "HEAD", bench.manifest("latest"), [_ACCEPT])], bench.seconds)


def small_blob(bench: Bench) -> Work:
    """GET the blob of 1 KiB."""
    return request_many(bench.port, bench.blob(bench.held.small), [], bench.seconds)


def small_images(bench: Bench) -> Work:
    """Push small images."""
    count = bench.settings.times(100)
    # Made before the clients are, so that nobody's clock counts it.
    pushers = [ImagePusher(bench.port, number, count) for number in range(4)]
    done = together([pusher.push for pusher in pushers])
    return Work(sum(done.results), done.seconds, done.cpu)


def manifest_by_user(bench: Bench) -> Work:
    """GET the manifest by its tag, with a name and a password, for those who want them; the others get them, too."""
    credentials = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode("ascii")
    return request_many(bench.port, bench.manifest("latest"), [_ACCEPT, f"Authorization: Basic {credentials}"], bench.seconds)


#: How many pages are asked for, and how long at most: a server that reads the whole tree for each may take seconds.
_PAGES: Final = 300
_PAGES_SECONDS: Final = 5.0


def tags_page(bench: Bench) -> Work:
    """A page of tags, anywhere in the list."""
    return _pages(bench, f"/v2/{bench.held.repository}/tags/list", "v")


def catalog_page(bench: Bench) -> Work:
    """A page of the catalog, anywhere in it."""
    return _pages(bench, "/v2/_catalog", "r")


def _pages(bench: Bench, path: str, letter: str) -> Work:
    places = random.Random(1)
    targets = [f"{path}?n=100&last={letter}{places.randrange(bench.held.entries):06}" for _ in range(bench.settings.times(_PAGES))]
    done = together([partial(_page_client, bench.port, targets, _PAGES_SECONDS)])
    (latencies,) = done.results
    # The server has just started: the first page shows what it costs to know nothing of the tree.
    middle = median(latencies)
    return Work(
        len(latencies), done.seconds, done.cpu, middle, _p99(latencies), value=middle, details={"first_page_seconds": latencies[0]}
    )


def _page_client(port: int, targets: list[str], seconds: float) -> list[float]:
    latencies = []
    end = time.monotonic() + seconds
    with Connection(port) as connection:
        for target in targets:
            begun = time.monotonic()
            connection.request("GET", target).expect(200)
            latencies.append(time.monotonic() - begun)
            if time.monotonic() > end:
                break
    return latencies


def _p99(latencies: list[float]) -> float:
    # Inclusive: of few samples, the slowest is the worst that there was.
    return quantiles(latencies, n=100, method="inclusive")[98] if len(latencies) > 1 else latencies[0]


#: How long streams go on, how many there are of each kind, and on how many connections somebody asks beside them: each connection
#: stays with one worker.
_STREAMING: Final = 5.0
_STREAMS: Final = 8
_PROBES: Final = 8


def latency_under_streams(bench: Bench) -> Work:
    """Ask for /v2/ while others push and pull; the amount is in bytes moved, the value the latency of 99 of 100 answers."""
    payload = Payload(bench.settings.size(_PUSHED))
    try:
        with Connection(bench.port) as connection:
            stored = push_payload(connection, "bench/streams", payload, "seed", chunked=False)
        path = f"/v2/bench/streams/blobs/{stored.digest}"
        seconds = _STREAMING * bench.settings.scale
        done = together(
            [
                *(partial(_push_for, bench.port, payload, number, seconds) for number in range(_STREAMS)),
                *(partial(_pull_for, bench.port, path, seconds) for _ in range(_STREAMS)),
                partial(_probe, bench.port, seconds),
            ]
        )
    finally:
        payload.close()
    pushed, pulled = (sum(part[0] for part in done.results[:_STREAMS]), sum(part[0] for part in done.results[_STREAMS:-1]))
    latencies = done.results[-1]
    slow = _p99(latencies)
    details = {
        "requests": len(latencies),
        "pushed_bytes_per_second": pushed / done.seconds,
        "pulled_bytes_per_second": pulled / done.seconds,
    }
    return Work(pushed + pulled, done.seconds, done.cpu, median(latencies), slow, value=slow, details=details)


def _push_for(port: int, payload: Payload, number: int, seconds: float) -> list[float]:
    blobs = 0
    end = time.monotonic() + seconds
    with Connection(port) as connection:
        while time.monotonic() < end:
            # Half of them as docker sends, half with their length.
            push_payload(connection, "bench/streams", payload, os.getpid(), blobs, chunked=number % 2 == 0)
            blobs += 1
    return [float(blobs * payload.blob_size)]


def _pull_for(port: int, path: str, seconds: float) -> list[float]:
    pulled = 0
    end = time.monotonic() + seconds
    with Connection(port) as connection:
        while time.monotonic() < end:
            pulled += connection.download(path)
    return [float(pulled)]


def _probe(port: int, seconds: float) -> list[float]:
    latencies: list[float] = []
    end = time.monotonic() + seconds
    connections = [Connection(port) for _ in range(_PROBES)]
    # Two rounds at least, whatever the time: the first requests open the connections.
    while time.monotonic() < end or len(latencies) < 2 * _PROBES:
        for connection in connections:
            begun = time.monotonic()
            connection.request("GET", "/v2/").expect(200)
            latencies.append(time.monotonic() - begun)
            time.sleep(0.002)
    for connection in connections:
        connection.close()
    return latencies[_PROBES:]


#: How long an idle server is watched, after it has had the time to settle, in seconds.
_IDLE: Final = 60.0
_SETTLING: Final = 2.0


def idle(bench: Bench) -> Work:
    """Nothing, after a few requests; the value is in seconds of CPU a minute."""
    with Connection(bench.port) as connection:
        for _ in range(10):
            connection.request("GET", "/v2/").expect(200)
    time.sleep(_SETTLING)
    seconds = max(2.0, _IDLE * bench.settings.scale)
    before, begun = bench.server.usage().cpu_seconds, time.monotonic()
    time.sleep(seconds)
    watched = time.monotonic() - begun
    spent = bench.server.usage().cpu_seconds - before
    return Work(watched, watched, value=spent * 60 / watched)


def everything(bench: Bench) -> Work:
    """All loads, one after the other, on one server that has begun with nothing; the value is the memory of its largest process."""
    begun = time.monotonic()
    settings = Settings(bench.settings.scale / 2, bench.settings.shrink)
    held = seed(bench.port, settings)
    seeded = Bench(bench.server, held, settings)
    steps: dict[str, Load] = {
        "push-fixed": partial(push, chunked=False),
        "push-chunked": partial(push, chunked=True),
        "pull-4": partial(pull, clients=4),
        "range-1m": ranges,
        "manifest-tag": manifest_by_tag,
        "manifest-digest": manifest_by_digest,
        "manifest-head": manifest_head,
        "blob-small": small_blob,
        "images-small": small_images,
        "latency-p99": latency_under_streams,
    }
    peaks = {}
    for name, step in steps.items():
        step(seeded)
        peaks[name] = float(bench.server.usage().peak)
    return Work(len(steps), time.monotonic() - begun, value=max(peaks.values()), details=peaks)
