"""Where blocking work runs: off the event loop, with results and failures brought back to it, and an end that waits for what runs."""

from __future__ import annotations

import operator
import os
import threading
import time
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import SynchronousTestCase, TestCase

from regd.storage.threads import Inline, PoolThreads


class PoolThreadsTest(TestCase):
    def make(self, size: int) -> PoolThreads:
        # Any: mypy knows the reactor as a module.
        loop: Any = reactor
        threads = PoolThreads(loop, size)
        self.addCleanup(threads.stop)
        return threads

    async def test_nice_threads(self) -> None:
        loop: Any = reactor
        threads = PoolThreads(loop, 1, niceness=3)
        self.addCleanup(threads.stop)
        here = os.getpriority(os.PRIO_PROCESS, 0)
        there = await threads.run(lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        self.assertEqual(there, min(here + 3, 19))
        self.assertEqual(os.getpriority(os.PRIO_PROCESS, 0), here)

    async def test_results_and_failures_come_back_to_the_event_loop(self) -> None:
        threads = self.make(2)
        here = threading.get_ident()

        def work(first: int, *, second: int) -> tuple[int, int]:
            return first + second, threading.get_ident()

        total, there = await threads.run(work, 1, second=2)
        self.assertEqual(total, 3)
        self.assertNotEqual(there, here)
        self.assertEqual(threading.get_ident(), here)
        for kind in (ValueError, KeyboardInterrupt, SystemExit):

            def fail(kind: type[BaseException] = kind) -> None:
                raise kind("reason")

            with self.assertRaises(kind):
                await threads.run(fail)
        self.assertIsNone(await threads.run(lambda: None))

    async def test_news_on_the_way(self) -> None:
        threads = self.make(1)
        heard: Deferred[int] = Deferred()
        await threads.run(lambda: threads.tell(lambda: heard.callback(threading.get_ident())))
        self.assertEqual(await heard, threading.get_ident())

    async def test_side_by_side_up_to_its_size(self) -> None:
        size = 3
        threads = self.make(size)
        meet = threading.Barrier(size, timeout=10)
        running = 0
        most = 0
        lock = threading.Lock()

        def work() -> None:
            nonlocal running, most
            with lock:
                running += 1
                most = max(most, running)
            # Passed only when as many as there may be are here at once.
            meet.wait()
            with lock:
                running -= 1

        await gatherResults([threads.run(work) for _ in range(4 * size)])
        self.assertEqual(most, size)

    async def test_much_work_at_once(self) -> None:
        threads = self.make(4)
        done = await gatherResults([threads.run(operator.mul, number, 2) for number in range(2000)])
        self.assertEqual(done, [number * 2 for number in range(2000)])

    def test_the_end_waits_for_what_runs_and_for_what_waits(self) -> None:
        threads = self.make(1)
        done: list[int] = []

        def work(number: int) -> None:
            time.sleep(0.02)
            done.append(number)

        for number in range(3):
            threads.run(work, number)
        threads.stop()
        self.assertEqual(done, [0, 1, 2])
        threads.stop()
        self.assertRaises(RuntimeError, threads.run, work, 4)

    def test_an_end_without_a_beginning(self) -> None:
        self.make(1).stop()


class InlineTest(SynchronousTestCase):
    def test_at_once(self) -> None:
        threads = Inline()
        self.assertEqual(self.successResultOf(threads.run(max, 1, 2)), 2)
        self.failureResultOf(threads.run(int, "x"), ValueError)
        told: list[int] = []
        threads.tell(lambda: told.append(1))
        self.assertEqual(told, [1])
