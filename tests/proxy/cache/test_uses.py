"""What came from an upstream, and when it was last used."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from regd.names import Digest, RepositoryName
from regd.proxy.cache import uses
from regd.proxy.cache.uses import HOUR, Uses
from regd.storage import layout
from regd.storage.driver import StorageError
from regd.storage.memory import MemoryDriver
from tests.support import CountingDriver

NAME = RepositoryName.parse("docker.io/library/alpine")
DIGEST = Digest.of(b"layer")


class UsesTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.now = 1_700_000_000.0
        self.driver: Any = CountingDriver(MemoryDriver(lambda: self.now))
        self.uses = Uses(self.driver, lambda: self.now)

    def result(self, work: Any) -> Any:
        return self.successResultOf(Deferred.fromCoroutine(work))

    def used(self) -> float:
        return float(self.result(self.driver.stat(layout.cached(NAME, DIGEST))).modified)

    def test_what_was_fetched_is_marked(self) -> None:
        self.assertFalse(self.result(self.uses.marked(NAME, DIGEST)))
        self.result(self.uses.mark(NAME, DIGEST))
        self.assertTrue(self.result(self.uses.marked(NAME, DIGEST)))
        self.assertEqual(self.used(), self.now)

    def test_a_use_is_noted_to_the_hour(self) -> None:
        began = self.now
        self.result(self.uses.mark(NAME, DIGEST))
        self.driver.calls.clear()
        for _ in range(3):
            self.now += HOUR / 3 - 1
            self.uses.note(NAME, DIGEST)
        self.assertEqual(self.driver.calls, [])
        self.assertEqual(self.used(), began)
        self.now += HOUR
        self.uses.note(NAME, DIGEST)
        self.assertEqual(self.used(), self.now)

    def test_another_process_may_have_noted_it(self) -> None:
        self.result(self.uses.mark(NAME, DIGEST))
        other = Uses(self.driver, lambda: self.now)
        self.now += HOUR / 2
        other.note(NAME, DIGEST)
        self.assertEqual(self.driver.asked("renew"), [])
        # It goes by the time that it has found, and not by when it looked.
        self.now += HOUR / 2
        other.note(NAME, DIGEST)
        self.assertEqual(self.used(), self.now)

    def test_what_was_pushed_here_gets_no_mark(self) -> None:
        self.uses.note(NAME, DIGEST)
        self.assertFalse(self.result(self.uses.marked(NAME, DIGEST)))

    def test_a_clock_that_is_set_back_does_not_stop_it(self) -> None:
        self.result(self.uses.mark(NAME, DIGEST))
        self.now -= 10 * HOUR
        self.uses.note(NAME, DIGEST)
        self.assertEqual(self.used(), self.now)

    def test_that_it_cannot_be_noted_is_said_once(self) -> None:
        self.result(self.uses.mark(NAME, DIGEST))

        async def broken(path: object) -> None:
            raise StorageError("cannot renew")

        self.driver.renew = broken
        messages = []
        self.patch(Uses, "_log", type("Log", (), {"warn": staticmethod(lambda *args, **kwargs: messages.append(kwargs["error"]))}))
        for _ in range(3):
            self.now += 2 * HOUR
            self.uses.note(NAME, DIGEST)
        self.assertEqual(len(messages), 1)

    def test_only_so_many_are_remembered(self) -> None:
        self.patch(uses, "_REMEMBERED", 10)
        for number in range(30):
            self.uses.note(NAME, Digest.of(b"%d" % number))
        self.assertEqual(len(self.uses._seen), 10)
