"""Which worker gets which connection, and what becomes of those that nobody has taken. In memory, with a clock."""

from __future__ import annotations

from collections import deque
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from regd.workers import spread
from regd.workers.channel import Report
from regd.workers.spread import Connection, Lane, Spread


class FakeConnection:
    """
    A connection that counts how often our copy was given up.

    :ivar number: which one.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


class FakeWorker:
    """
    A worker that takes, refuses and closes when a test says so.

    :ivar room: how many packets its channel holds.
    :ivar given: what is in the channel.
    """

    def __init__(self, room: int = 1000) -> None:
        self.room = room
        self.given: deque[Any] = deque()
        self.open: list[Any] = []
        self.lane = Lane(self._send)

    def _send(self, connection: Connection) -> bool:
        if len(self.given) >= self.room:
            return False
        self.given.append(connection)
        return True


class SpreadCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.pauses: list[bool] = []
        self.spread = Spread(self.clock, self.pauses.append)
        self.made: list[FakeConnection] = []

    def workers(self, count: int, room: int = 1000) -> list[FakeWorker]:
        """
        :return: Workers that are ready.
        """
        made = [FakeWorker(room) for _ in range(count)]
        for worker in made:
            self.spread.add(worker.lane)
        return made

    def offer(self, count: int = 1) -> None:
        for _ in range(count):
            self.made.append(FakeConnection(len(self.made)))
            self.spread.offer(self.made[-1])

    def take(self, worker: FakeWorker) -> None:
        """A worker takes all that it was given."""
        taken = len(worker.given)
        worker.open += worker.given
        worker.given.clear()
        self.spread.reported(worker.lane, Report(taken=taken))

    def end(self, worker: FakeWorker, count: int) -> None:
        """Some connections of a worker end."""
        del worker.open[:count]
        self.spread.reported(worker.lane, Report(closed=count))


class SpreadTests(SpreadCase):
    def test_even(self) -> None:
        workers = self.workers(3)
        for count in range(1, 31):
            self.offer()
            loads = [worker.lane.load for worker in workers]
            self.assertEqual(sum(loads), count)
            self.assertLessEqual(max(loads) - min(loads), 1)
        self.assertEqual(self.spread.connections, 30)

    def test_two_and_four(self) -> None:
        for count in (2, 4):
            self.setUp()
            one, other = self.workers(2)
            for _ in range(count):
                self.offer()
                self.take(one)
                self.take(other)
            self.assertEqual((one.lane.open, other.lane.open), (count // 2, count // 2))

    def test_ties_go_round(self) -> None:
        """Connections that end at once do not all go to the first."""
        workers = self.workers(3)
        turns = []
        for _ in range(6):
            self.offer()
            busy = next(worker for worker in workers if worker.given)
            turns.append(workers.index(busy))
            self.take(busy)
            self.end(busy, 1)
        self.assertEqual(turns, [0, 1, 2, 0, 1, 2])

    def test_whoever_has_fewest(self) -> None:
        one, other = self.workers(2)
        self.offer(10)
        self.take(one)
        self.take(other)
        self.end(one, 5)
        self.offer(5)
        self.assertEqual((len(one.given), len(other.given)), (5, 0))

    def test_copies_are_kept_until_taken(self) -> None:
        (worker,) = self.workers(1)
        self.offer(3)
        self.assertEqual([connection.closed for connection in self.made], [0, 0, 0])
        worker.given.popleft()
        self.spread.reported(worker.lane, Report(taken=1))
        self.assertEqual([connection.closed for connection in self.made], [1, 0, 0])

    def test_nobody_is_ready(self) -> None:
        """Then nothing is accepted, and what has been is kept."""
        self.offer()
        self.assertEqual(self.pauses, [])
        (worker,) = self.workers(1)
        self.assertEqual((self.pauses, len(worker.given)), ([False], 1))
        self.spread.remove(worker.lane)
        self.assertEqual(self.pauses, [False, True])
        self.assertEqual(self.spread.connections, 1)
        (another,) = self.workers(1)
        self.assertEqual(list(another.given), self.made)
        self.assertEqual(self.made[0].closed, 0)

    def test_a_death(self) -> None:
        """What it had not taken goes to the others, oldest first."""
        one, other = self.workers(2)
        self.offer(6)
        one.open.append(one.given.popleft())
        self.spread.reported(one.lane, Report(taken=1))
        self.spread.remove(one.lane)
        self.spread.remove(one.lane)
        self.assertEqual([connection.number for connection in other.given], [1, 3, 5, 2, 4])
        self.assertEqual([connection.closed for connection in self.made], [1, 0, 0, 0, 0, 0])

    def test_a_full_channel(self) -> None:
        one, other = self.workers(2, room=2)
        self.offer(5)
        self.assertEqual((len(one.given), len(other.given), self.pauses[-1]), (2, 2, True))
        self.take(other)
        self.assertEqual((len(one.given), len(other.given), self.pauses[-1]), (2, 1, False))
        self.assertEqual(self.spread.connections, 5)

    def test_a_worker_that_is_slow_to_take(self) -> None:
        one, other = self.workers(2)
        for _ in range(3 * spread.IN_FLIGHT):
            self.offer()
            self.take(other)
            self.end(other, len(other.open))
        self.assertLessEqual(len(one.given), spread.IN_FLIGHT)
        self.offer(5 * spread.IN_FLIGHT)
        self.assertEqual((len(one.given), len(other.given)), (spread.IN_FLIGHT, spread.IN_FLIGHT))
        self.assertTrue(self.pauses[-1])

    def test_a_channel_that_fails_with_nothing_in_it(self) -> None:
        """The kernel is short of something; it is tried again later, without a report."""
        (worker,) = self.workers(1, room=0)
        self.offer()
        self.assertTrue(self.pauses[-1])
        worker.room = 1
        self.clock.advance(spread.RETRY)
        self.assertEqual((len(worker.given), self.pauses[-1]), (1, False))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_refusal(self) -> None:
        """A worker without descriptors is left alone; another one takes what it could not."""
        one, other = self.workers(2)
        self.offer(4)
        one.given.popleft()
        self.spread.reported(one.lane, Report(refused=1))
        self.assertEqual([connection.number for connection in other.given], [1, 3, 0])
        self.offer(3)
        self.assertEqual(len(one.given), 1)
        self.clock.advance(spread.RETRY)
        self.offer()
        self.assertEqual(len(one.given), 2)

    def test_a_refusal_by_all(self) -> None:
        (worker,) = self.workers(1)
        self.offer(2)
        self.take(worker)
        self.offer(1)
        for _ in range(3):
            worker.given.popleft()
            self.spread.reported(worker.lane, Report(refused=1))
            self.assertEqual((len(worker.given), self.pauses[-1]), (0, True))
            self.clock.advance(spread.RETRY)
            self.assertEqual((len(worker.given), self.pauses[-1]), (1, False))
        worker.given.popleft()
        self.spread.reported(worker.lane, Report(refused=1))
        # A connection that ends makes room at once.
        self.end(worker, 1)
        self.assertEqual((len(worker.given), self.pauses[-1], self.clock.getDelayedCalls()), (1, False, []))
        self.assertEqual(self.made[2].closed, 0)

    def test_a_death_of_one_that_rests(self) -> None:
        (worker,) = self.workers(1)
        self.offer()
        worker.given.popleft()
        self.spread.reported(worker.lane, Report(refused=1))
        self.spread.remove(worker.lane)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_nonsense(self) -> None:
        (worker,) = self.workers(1)
        self.offer(2)
        for report in (Report(taken=3), Report(refused=3), Report(taken=1, refused=2), Report(closed=1), Report(taken=1, closed=2)):
            self.assertRaises(ValueError, self.spread.reported, worker.lane, report)
        self.assertEqual((worker.lane.load, [connection.closed for connection in self.made]), (2, [0, 0]))

    def test_settling(self) -> None:
        """Who has been accepted gets to a worker, although that takes turns."""
        (worker,) = self.workers(1, room=2)
        self.offer(3)
        settled = self.spread.settle()
        self.assertNoResult(settled)
        self.take(worker)
        self.assertNoResult(settled)
        self.take(worker)
        self.successResultOf(settled)
        self.assertEqual(len(worker.open), 3)
        self.spread.close()

    def test_settling_when_a_worker_dies(self) -> None:
        one, other = self.workers(2)
        self.offer(2)
        self.take(one)
        settled = self.spread.settle()
        self.spread.remove(other.lane)
        self.assertNoResult(settled)
        self.take(one)
        self.successResultOf(settled)
        self.assertEqual(len(one.open), 2)

    def test_settling_with_nobody_to_settle(self) -> None:
        self.successResultOf(self.spread.settle())
        self.setUp()
        (worker,) = self.workers(1)
        self.offer()
        settled = self.spread.settle()
        # Nobody is left who could take it.
        self.spread.remove(worker.lane)
        self.successResultOf(settled)

    def test_the_end(self) -> None:
        (worker,) = self.workers(1, room=1)
        self.offer(2)
        self.spread.close()
        self.assertEqual(([connection.closed for connection in self.made], self.pauses[-1]), ([0, 1], True))
        self.take(worker)
        self.offer()
        self.assertEqual([connection.closed for connection in self.made], [1, 1, 1])
        self.assertEqual(len(worker.given), 0)


class AnyOrderTests(SpreadCase):
    @settings(max_examples=200, deadline=None)
    @given(st.data())
    def test_nothing_is_lost(self, data: Any) -> None:
        """In any order of events, each connection is with one worker, or waits, and our copy is there as long as it is not taken."""
        self.setUp()
        workers = self.workers(2, room=3)
        died: list[Any] = []
        for _ in range(data.draw(st.integers(0, 40))):
            step = data.draw(st.sampled_from(["offer", "offer", "take", "refuse", "end", "die", "start", "wait"]))
            worker = data.draw(st.sampled_from(workers)) if workers else None
            if step == "offer":
                self.offer()
            elif step == "start":
                workers += self.workers(1, room=data.draw(st.integers(0, 3)))
            elif step == "wait":
                self.clock.advance(spread.RETRY)
            elif worker is None:
                continue
            elif step == "take" and worker.given:
                taken = [worker.given.popleft() for _ in range(data.draw(st.integers(1, len(worker.given))))]
                worker.open += taken
                self.spread.reported(worker.lane, Report(taken=len(taken)))
            elif step == "refuse" and worker.given:
                worker.given.popleft()
                self.spread.reported(worker.lane, Report(refused=1))
            elif step == "end" and worker.open:
                self.end(worker, data.draw(st.integers(1, len(worker.open))))
            elif step == "die":
                workers.remove(worker)
                died += worker.open
                self.spread.remove(worker.lane)
            with_workers = [connection for each in workers for connection in each.given]
            self.assertEqual(len({*with_workers}), len(with_workers))
            kept = [connection for connection in self.made if not connection.closed]
            self.assertLessEqual({*with_workers}, {*kept})
            self.assertEqual(self.spread.connections, len(kept) + sum(each.lane.open for each in workers))
            self.assertTrue(all(connection.closed <= 1 for connection in self.made))
            if any(each.lane.has_room for each in workers):
                # Nobody waits who could be served.
                self.assertEqual(len(kept), len(with_workers))
