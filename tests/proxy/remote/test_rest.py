"""When a server is left alone."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from regd.proxy.remote.errors import Limited, Unreachable
from regd.proxy.remote.rest import Rest


class RestTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.rest = Rest("http://registry.test", self.clock.seconds)

    def test_nothing_wrong(self) -> None:
        self.rest.check()
        self.assertEqual(self.rest.left, 0)

    def test_limited(self) -> None:
        error = self.rest.limited("it answers 429", 30.0)
        self.assertIsInstance(error, Limited)
        self.assertEqual((str(error), error.retry_after if isinstance(error, Limited) else 0), ("it answers 429", 30.0))
        self.clock.advance(10)
        again = self.assertRaises(Limited, self.rest.check)
        self.assertEqual(again.retry_after, 20.0)
        self.assertIn("it answers 429", str(again))
        # Another answer, that was on its way, changes nothing.
        self.rest.succeeded()
        self.assertEqual(self.rest.left, 20.0)
        self.rest.limited("it answers 429", 5.0)
        self.assertEqual(self.rest.left, 20.0)
        self.clock.advance(20)
        self.rest.check()

    def test_limited_for_no_time(self) -> None:
        error = self.rest.limited("it answers 429", 0.0)
        assert isinstance(error, Limited)
        self.assertEqual((error.retry_after, self.rest.left), (1.0, 0.0))
        self.rest.limited("it answers 429", None)
        self.assertEqual(self.rest.left, 5.0)

    def test_failed(self) -> None:
        pauses = []
        for _ in range(8):
            self.assertIsInstance(self.rest.failed("nobody is there", late=True), Unreachable)
            pauses.append(self.rest.left)
            # What was under way beside it is no further attempt.
            self.rest.failed("nobody is there", late=False)
            self.assertEqual(self.rest.left, pauses[-1])
            error = self.assertRaises(Unreachable, self.rest.check)
            self.assertTrue(error.late)
            self.clock.advance(self.rest.left)
            self.rest.check()
        self.assertEqual(pauses, [1, 2, 4, 8, 16, 30, 30, 30])
        self.rest.failed("nobody is there", late=False)
        self.rest.succeeded()
        self.rest.check()
        self.rest.failed("nobody is there", late=False)
        self.assertEqual(self.rest.left, 1)
