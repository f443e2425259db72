"""How often somebody may ask."""

from __future__ import annotations

import os

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regd.web.rates import Rate, RateTable, make_table

TEN = Rate(0.1, 10)


class TakeTests(SynchronousTestCase):
    def test_a_burst_and_then_the_rate(self) -> None:
        table = RateTable()
        self.assertEqual([table.take("a", TEN, 50.0) for _ in range(10)], [0.0] * 10)
        self.assertAlmostEqual(table.take("a", TEN, 50.0), 0.1)
        self.assertAlmostEqual(table.take("a", TEN, 50.04), 0.06)
        self.assertEqual(table.take("a", TEN, 50.1), 0.0)
        self.assertAlmostEqual(table.take("a", TEN, 50.1), 0.1)

    def test_who_waits_may_have_all_again(self) -> None:
        table = RateTable()
        for now in (0.0, 100.0, 200.0):
            self.assertEqual([table.take("a", TEN, now) for _ in range(10)], [0.0] * 10)

    def test_others_do_not_wait(self) -> None:
        table = RateTable()
        while not table.take("a", TEN, 1.0):
            pass
        self.assertEqual(table.take("b", TEN, 1.0), 0.0)

    def test_processes_share_a_table(self) -> None:
        fd = make_table()
        self.addCleanup(os.close, fd)
        one, other = RateTable(fd), RateTable(fd)
        taken = sum(not table.take("a", TEN, 1.0) for _ in range(20) for table in (one, other))
        self.assertEqual(taken, 10)

    @given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0.0, 1.0)), max_size=200))
    def test_never_more_than_the_rate(self, asked: list[tuple[str, float]]) -> None:
        """In any stretch of time: the burst, and what the rate gives meanwhile."""
        table, now = RateTable(), 1000.0
        granted: dict[str, list[float]] = {}
        for key, pause in asked:
            now += pause
            if not table.take(key, TEN, now):
                granted.setdefault(key, []).append(now)
        for times in granted.values():
            for index, begin in enumerate(times):
                for last in range(index, len(times)):
                    self.assertLessEqual(last - index + 1, TEN.burst + (times[last] - begin) / TEN.interval + 1e-6)

    def test_more_keys_than_places(self) -> None:
        """The table does not grow, and nobody is refused who has not asked."""
        table = RateTable()
        self.assertEqual({table.take(f"address {number}", TEN, 1.0) for number in range(100_000)}, {0.0})


class LineTests(SynchronousTestCase):
    def test_failures_cost_turns(self) -> None:
        table = RateTable()
        slow = Rate(2.0, 3)
        for _ in range(3):
            self.assertEqual(table.line_up("a", slow, 10.0), 0.0)
            table.add("a", slow, 10.0)
        self.assertEqual(table.line_up("a", slow, 10.0), 0.0)
        table.add("a", slow, 10.0)
        # Those who come at once get turns one after the other.
        self.assertEqual([table.line_up("a", slow, 10.0) for _ in range(3)], [2.0, 4.0, 6.0])
        self.assertEqual(table.line_up("b", slow, 10.0), 0.0)
        self.assertEqual(table.line_up("a", slow, 60.0), 0.0)
