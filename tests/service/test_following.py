"""Files that are watched."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from regd.config.watched import NamedFile, pack, unpack
from regd.service.following import EVERY, Following


class FollowingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.path.write_bytes(b"a")
        self.clock = Clock()
        self.changed: list[str] = []
        self.following = Following(self.changed.append, self.clock)
        self.following.follow([NamedFile("key", str(self.path))])

    def replace(self, content: bytes) -> None:
        other = self.path.with_suffix(".new")
        other.write_bytes(content)
        os.replace(other, self.path)

    def test_a_change_is_told_once(self) -> None:
        self.clock.advance(EVERY)
        self.assertEqual(self.changed, [])
        self.replace(b"b")
        for _ in range(3):
            self.clock.advance(EVERY)
        self.assertEqual(self.changed, [str(self.path)])

    def test_one_that_is_away_for_a_while(self) -> None:
        self.path.unlink()
        self.clock.advance(EVERY)
        self.assertEqual(self.changed, [])
        self.path.write_bytes(b"new")
        self.clock.advance(EVERY)
        self.assertEqual(self.changed, [str(self.path)])

    def test_stopped(self) -> None:
        self.following.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_nothing_to_watch(self) -> None:
        self.following.follow([])
        self.assertEqual(self.clock.getDelayedCalls(), [])


class PackTests(SynchronousTestCase):
    def test_what_is_packed_is_unpacked(self) -> None:
        self.assertEqual(unpack(pack(b"a: \xff", {"/x": b"\0\xff", "/y": b""})), (b"a: \xff", {"/x": b"\0\xff", "/y": b""}))
