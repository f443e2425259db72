"""Which upstream is asked."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from regd.config import Timeouts
from regd.config.proxying import parse_upstream
from regd.proxy.balance import Balancer
from regd.proxy.upstream import PENALTY, UpstreamServer


class BalancerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock: Any = Clock()
        self.servers = [UpstreamServer(parse_upstream(f"http://u:{port}"), None, Timeouts(), self.clock) for port in (1, 2, 3)]
        self.balancer = Balancer(self.servers, None, self.clock)

    def choose(self, *tried: int) -> int | None:
        found = self.balancer.choose({self.servers[index] for index in tried})
        return None if found is None else self.servers.index(found)

    def test_turns(self) -> None:
        self.assertEqual(sorted(self.choose() or 0 for _ in range(3)), [0, 1, 2])

    def test_the_fewest_requests(self) -> None:
        for index, busy in enumerate((2, 1, 3)):
            self.servers[index].busy = busy
        self.assertEqual([self.choose() for _ in range(4)], [1] * 4)

    def test_one_that_failed_comes_last_for_a_while(self) -> None:
        self.servers[0].failed("x")
        self.servers[1].busy = self.servers[2].busy = 50
        self.assertNotIn(0, [self.choose() for _ in range(6)])
        self.assertEqual(self.choose(1, 2), 0)
        self.clock.advance(PENALTY + 1)
        self.assertEqual(self.choose(), 0)
        self.servers[0].failed("x")
        self.servers[0].succeeded()
        self.assertEqual(self.choose(), 0)

    def test_all_have_failed(self) -> None:
        for index in (1, 0, 2):
            self.servers[index].failed("x")
            self.clock.advance(1)
        # The first one that failed is the first one to be asked again.
        self.assertEqual([self.choose(), self.choose(1), self.choose(1, 0), self.choose(0, 1, 2)], [1, 0, 2, None])

    def test_unhealthy(self) -> None:
        for server in self.servers:
            server.healthy = False
        self.assertIsNone(self.choose())
        self.servers[2].healthy = True
        self.assertEqual(self.choose(), 2)

    def test_a_single_one(self) -> None:
        balancer = Balancer(self.servers[:1], None, self.clock)
        self.servers[0].failed("x")
        self.assertIs(balancer.choose(set()), self.servers[0])
        self.assertIsNone(balancer.choose({self.servers[0]}))
        self.servers[0].healthy = False
        self.assertIsNone(balancer.choose(set()))

    def tearDown(self) -> None:
        self.flushLoggedErrors()
