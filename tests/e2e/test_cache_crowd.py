"""One fetch for the whole machine: many clients at once, clients that leave, workers and daemons that die in the middle of it."""

from __future__ import annotations

import os
import signal
import socket
import statistics
import sys
import time
from typing import ClassVar

from tests.e2e.caching import Cache
from tests.e2e.case import E2ETestCase
from tests.e2e.crowd import Crowd
from tests.e2e.images import MIB, noise
from tests.e2e.origin import Manners, Origin
from tests.e2e.process import wait_until
from tests.e2e.rawhttp import digest_of

MB = 1_000_000
# What comes twice, at most, when a fetch is taken up again: what was in sockets and had not been written.
SLACK = 6 * MB


class CrowdTest(E2ETestCase):
    origin: ClassVar[Origin]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.origin = Origin()
        cls.addClassCleanup(cls.origin.close)

    def setUp(self) -> None:
        self.origin.reset()
        test = self.id().rpartition(".")[2]
        self.cache = Cache(
            self.directory / test,
            f"  upstreams:\n    - {{prefix: hub.test, remoteurl: '{self.origin.url}', timeouts: {{connect: 2s, read: 5s}}}}\n",
            workers=2,
        )
        self.addCleanup(self.cache.stop)
        self.start()

    def start(self) -> None:
        """Until both workers are there: one alone would get all the clients."""
        self.cache.start()
        wait_until(lambda: len(self.cache.vars()) == 2, 20, "both workers")

    def blob(self, size: int) -> None:
        self.content = noise(size)
        self.digest = self.origin.put_blob(self.content)
        self.path = f"/v2/hub.test/library/app/blobs/{self.digest}"

    def crowd(self, count: int, *, port: int = 0) -> Crowd:
        crowd = Crowd(port or self.cache.port, self.path, count)
        self.addCleanup(crowd.leave)
        return crowd

    def has_come(self) -> int:
        """Bytes that have been kept of what is being fetched."""
        return self.cache.fetching().get(self.digest, 0)

    def assert_kept(self) -> None:
        """It is a blob, and nothing is asked for again."""
        link = f"_layers/sha256/{self.digest.partition(':')[2]}"
        wait_until(lambda: link in self.cache.links("hub.test/library/app"), 20, "the blob to be kept")
        asked = len(self.origin.asked)
        self.assertEqual(digest_of(self.cache.client.get(self.path).body), self.digest)
        self.assertEqual(len(self.origin.asked), asked)
        self.assertEqual(self.cache.fetching(), {})

    def assert_whole(self, crowd: Crowd) -> None:
        for pulled in crowd.pulled():
            self.assertEqual((pulled.status, pulled.whole, pulled.digest), (200, True, self.digest), pulled)

    def test_fifty_clients(self) -> None:
        # What the upstream itself needs until its first byte, seen from here.
        self.blob(1000)
        self.origin.manners = Manners(delay=0.3, rate=20 * MB)
        own = self.crowd(1, port=self.origin.port).pulled()[0].first
        self.blob(100 * MB)
        before = self.cache.program.memory()

        crowd = self.crowd(50)
        pulled = crowd.pulled()
        first = [one.first for one in pulled]
        after = self.cache.program.memory()
        sys.stdout.write(
            f"\n50 clients, 100 MB at 20 MB/s: first byte of the upstream {own * 1e3:.0f} ms; through two workers "
            f"median {statistics.median(first) * 1e3:.0f} ms, last {max(first) * 1e3:.0f} ms ({max(first) / own:.2f} x); "
            f"all done after {max(one.seconds for one in pulled):.1f} s; memory of the larger worker {before.peak / MIB:.0f} MiB, then "
            f"{after.peak / MIB:.0f} MiB\n"
        )
        self.assertEqual({(one.status, one.whole, one.digest) for one in pulled}, {(200, True, self.digest)})
        self.assertEqual(self.origin.count("GET", self.digest), 1)
        self.assertEqual(self.origin.sent(self.digest), 100 * MB)
        self.assertLess(max(first), 1.5 * own)
        # 256 KiB for each connection in flight, if all of them are in one worker, and the fetch.
        self.assertLess(after.peak - before.peak, 50 * MIB // 4 + 16 * MIB)
        self.assert_kept()

    def test_memory_does_not_grow_with_a_blob(self) -> None:
        peaks = []
        for size in (4 * MB, 400 * MB):
            for _ in range(3):
                self.blob(size)
                self.assert_whole(self.crowd(4))
                self.assertEqual(self.origin.count("GET", self.digest), 1)
                del self.origin.blobs[self.digest]
            peaks.append(self.cache.program.memory().peak)
        small, large = peaks
        sys.stdout.write(f"\nmemory of the larger worker after blobs of 4 MB {small / MIB:.1f} MiB, after 400 MB {large / MIB:.1f} MiB\n")
        self.assertLess(large - small, 12 * MIB)

    def test_clients_that_leave(self) -> None:
        """Without any left the fetch goes on, at the upstream's speed."""
        self.blob(30 * MB)
        self.origin.manners = Manners(rate=10 * MB)
        crowd = self.crowd(5)
        wait_until(lambda: self.has_come() > 2 * MB, 10, "some of it")
        crowd.leave()
        self.assert_kept()
        self.assertEqual((self.origin.count("GET", self.digest), self.origin.sent(self.digest)), (1, 30 * MB))

    def test_a_client_that_reads_slowly(self) -> None:
        """It reads from the disk what came long ago, and nobody waits for it."""
        self.blob(40 * MB)
        self.origin.manners = Manners(rate=20 * MB)
        with socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.settimeout(20)
            slow.connect(("127.0.0.1", self.cache.port))
            slow.sendall(f"GET {self.path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            begun = time.monotonic()
            slow.recv(100)
            self.assert_whole(self.crowd(3))
            self.assertLess(time.monotonic() - begun, 6, "as long as the upstream takes, which is 2 s, and not as long as the slow one")
            self.assert_kept()
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            received = 100
            while received < 40 * MB:
                data = slow.recv(1 << 20)
                self.assertTrue(data, f"it ended after {received} bytes")
                received += len(data)
        self.assertEqual(self.origin.count("GET", self.digest), 1)

    def test_several_blobs_at_once(self) -> None:
        self.origin.manners = Manners(rate=40 * MB)
        crowds = []
        for _ in range(5):
            self.blob(5 * MB)
            crowds.append((self.digest, self.crowd(4)))
        for digest, crowd in crowds:
            self.assertEqual({(one.status, one.digest) for one in crowd.pulled()}, {(200, digest)})
            self.assertEqual(self.origin.count("GET", digest), 1)

    def test_the_same_blob_in_two_repositories(self) -> None:
        """One fetch; the other repository's upstream is asked whether it has it there."""
        self.blob(10 * MB)
        self.origin.manners = Manners(rate=5 * MB)
        first = self.crowd(3)
        self.path = self.path.replace("/app/", "/other/")
        self.assert_whole(self.crowd(3))
        self.assert_whole(first)
        self.assertEqual(self.origin.count("GET", self.digest), 1)
        for name in ("app", "other"):
            self.assertIn(f"_layers/sha256/{self.digest.partition(':')[2]}", self.cache.links(f"hub.test/library/{name}"))

    def begin_at_both_workers(self) -> tuple[Crowd, int, dict[int, int]]:
        """
        :return: clients that both workers have some of, in the middle of a fetch; the worker that fetches; and the workers by the ports of
            those clients.
        """
        self.blob(40 * MB)
        self.origin.manners = Manners(rate=8 * MB)
        for _ in range(5):
            crowd = self.crowd(16)
            wait_until(lambda: self.cache.workers_serving(crowd.ports).keys() == set(crowd.ports), 5, "them to be served")  # noqa: B023 - at once
            workers = self.cache.workers_serving(crowd.ports)
            if len(set(workers.values())) == 2:
                break
            # The kernel gives connections to whoever is first, and may give all to one.
            crowd.leave()
        wait_until(lambda: self.has_come() > 8 * MB, 15, "some of it")
        (fetcher,) = self.cache.workers_talking_to(self.origin.port)
        return crowd, fetcher, workers

    def test_the_worker_that_fetches_dies(self) -> None:
        crowd, fetcher, workers = self.begin_at_both_workers()
        os.kill(fetcher, signal.SIGKILL)
        died = time.monotonic()
        for port, pulled in zip(crowd.ports, crowd.pulled(), strict=True):
            if workers[port] == fetcher:
                self.assertFalse(pulled.whole)
            else:
                self.assertEqual((pulled.status, pulled.whole, pulled.digest), (200, True, self.digest), pulled)
        sys.stdout.write(f"\nthe others were done {time.monotonic() - died:.1f} s after the worker that fetched had died\n")
        gets = [asked for asked in self.origin.asked if asked.method == "GET" and self.digest in asked.path]
        self.assertEqual(len(gets), 2)
        self.assertRegex(gets[1].fields.get("range", ""), r"^bytes=\d{7,}-")
        self.assertLess(self.origin.sent(self.digest), 40 * MB + SLACK)
        self.assert_kept()

    def test_the_other_worker_dies(self) -> None:
        crowd, fetcher, workers = self.begin_at_both_workers()
        (other,) = set(workers.values()) - {fetcher}
        os.kill(other, signal.SIGKILL)
        for port, pulled in zip(crowd.ports, crowd.pulled(), strict=True):
            self.assertEqual(pulled.whole, workers[port] == fetcher, pulled)
        self.assertEqual(self.origin.count("GET", self.digest), 1)
        self.assert_kept()

    def taken_up_again(self) -> None:
        """Whoever asks after a start gets what has come before, and the rest."""
        had = self.has_come()
        self.assertGreater(had, 5 * MB)
        self.origin.asked.clear()
        self.start()
        self.assert_whole(self.crowd(4))
        (asked,) = [asked for asked in self.origin.asked if asked.method == "GET"]
        self.assertRegex(asked.fields.get("range", ""), r"^bytes=\d{7,}-")
        self.assertLessEqual(self.origin.sent(self.digest), 40 * MB - had + SLACK)
        self.assert_kept()

    def test_a_restart_in_the_middle(self) -> None:
        crowd, _, _ = self.begin_at_both_workers()
        self.cache.stop()
        crowd.leave()
        self.taken_up_again()

    def test_a_crash_in_the_middle(self) -> None:
        crowd, _, _ = self.begin_at_both_workers()
        self.cache.kill()
        crowd.leave()
        self.taken_up_again()

    def test_new_settings_in_the_middle(self) -> None:
        """SIGHUP cuts nobody off."""
        crowd, _, _ = self.begin_at_both_workers()
        self.cache.program.send(signal.SIGHUP)
        self.assert_whole(crowd)
        self.assertLess(self.origin.sent(self.digest), 40 * MB + SLACK)
        self.assert_kept()

    def test_manifests_are_asked_for_once(self) -> None:
        image = self.origin.put_image("library/app", "1", [b"layer"])
        self.origin.manners = Manners(delay=0.5)
        self.path = "/v2/hub.test/library/app/manifests/1"
        for pulled in self.crowd(40).pulled():
            self.assertEqual((pulled.status, pulled.digest), (200, image.digest))
        self.assertEqual(self.origin.count("GET", "/manifests/"), 1)
        self.assertLessEqual(self.origin.count("HEAD", "/manifests/"), 1)
