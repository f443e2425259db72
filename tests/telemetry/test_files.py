"""A file of lines: whole ones, whoever rotates it, and none that holds up the event loop."""

from __future__ import annotations

import os
import re
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

from twisted.internet.task import Clock
from twisted.logger import LogLevel, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from regd.telemetry.files import LineFile


class Loop(Clock):
    """A clock that threads may tell something."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[Any] = []

    def callFromThread(self, function: Any, *arguments: Any) -> None:
        self.told.append((function, arguments))

    def run(self) -> None:
        while self.told:
            function, arguments = self.told.pop(0)
            function(*arguments)


class FileTests(SynchronousTestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)
        self.path = self.directory / "access.log"
        self.loop = Loop()
        self.events: list[Any] = []
        # Any: an observer is any callable.
        observer: Any = self.events.append
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def make(self) -> LineFile:
        made = LineFile(str(self.path), self.loop)
        made.open()
        self.addCleanup(made.close, wait=True)
        return made

    def said(self) -> list[tuple[str, int]]:
        return [(event["log_level"].name, event.get("count", 0)) for event in self.events if event["log_level"] >= LogLevel.warn]

    def until(self, condition: Any) -> None:
        end = time.monotonic() + 10
        while not condition():
            self.assertLess(time.monotonic(), end)
            time.sleep(0.002)

    def test_lines_gather(self) -> None:
        made = self.make()
        made.write("one\n")
        made.write("two\n")
        made.flush()
        self.assertEqual(self.path.read_text(), "")
        self.assertEqual(len(self.loop.getDelayedCalls()), 1)
        self.loop.advance(0.1)
        self.until(lambda: self.path.read_text() == "one\ntwo\n")
        self.assertEqual(self.loop.getDelayedCalls(), [])

    def test_many_do_not_wait(self) -> None:
        made = self.make()
        line = "x" * 999 + "\n"
        for _ in range(66):
            made.write(line)
        self.until(lambda: self.path.stat().st_size == 66_000)

    def test_the_end(self) -> None:
        made = self.make()
        made.write("last\n")
        made.close(wait=True)
        self.assertEqual(self.path.read_text(), "last\n")
        made.close(wait=True)
        unused = self.make()
        unused.close(wait=False)

    def test_moved_away(self) -> None:
        made = self.make()
        made.write("one\n")
        made.reopen()
        self.until(lambda: self.path.read_text() == "one\n")
        self.path.rename(self.directory / "old")
        made.reopen()
        self.until(self.path.exists)
        made.write("two\n")
        made.close(wait=True)
        self.assertEqual(((self.directory / "old").read_text(), self.path.read_text()), ("one\n", "two\n"))
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o640 & ~_umask())

    def test_moved_away_and_nothing_said(self) -> None:
        made = self.make()
        made.write("one\n")
        made.reopen()
        self.until(lambda: self.path.read_text() == "one\n")
        self.path.rename(self.directory / "old")
        made.write("two\n")
        made.close(wait=True)
        self.assertEqual(((self.directory / "old").read_text(), self.path.read_text()), ("one\n", "two\n"))

    def test_truncated(self) -> None:
        made = self.make()
        made.write("one\n")
        made.reopen()
        self.until(lambda: self.path.read_text() == "one\n")
        os.truncate(self.path, 0)
        made.write("two\n")
        made.close(wait=True)
        self.assertEqual(self.path.read_bytes(), b"two\n")

    def test_a_directory_that_is_gone(self) -> None:
        """The old file is better than none."""
        made = self.make()
        moved = self.directory / "moved"
        moved.mkdir()
        self.path.rename(moved / "access.log")
        gone = mock.patch.object(os, "stat", side_effect=FileNotFoundError)
        refused = mock.patch.object(made, "open", side_effect=PermissionError)
        with gone, refused:
            made.write("one\n")
            made.close(wait=True)
        self.assertEqual((moved / "access.log").read_text(), "one\n")

    def test_a_full_disk(self) -> None:
        """Said once when it begins and once when it ends; a line that was cut in two has an end."""
        made = self.make()
        real = os.write
        rooms = [3, None, None]

        def full(fd: int, data: bytes) -> int:
            room = rooms.pop(0) if rooms else len(data)
            if room is None:
                raise OSError(28, "No space left on device")
            return real(fd, data[:room])

        with mock.patch.object(os, "write", full):
            made.write("one\ntwo\n")
            made.reopen()
            self.until(lambda: self.loop.told)
            made.write("three\n")
            made.reopen()
            self.until(lambda: len(self.loop.told) == 2)
            self.loop.run()
            self.assertEqual(made.dropped, 3)
            self.assertEqual(self.said(), [("error", 0)])
            self.assertIn("No space left", self.events[-1]["why"])
            made.write("four\n")
            made.reopen()
            self.until(lambda: self.loop.told)
            self.loop.run()
        made.close(wait=True)
        self.assertEqual(self.path.read_text(), "one\nfour\n")
        self.assertEqual(self.said(), [("error", 0), ("warn", 3)])

    def test_a_disk_that_hangs(self) -> None:
        """What waits is bounded, and nobody waits for it."""
        made = self.make()
        go_on: list[None] = []

        def slow(fd: int, data: bytes) -> int:
            self.until(lambda: go_on)
            return len(data)

        line = "x" * 9999 + "\n"
        with mock.patch.object(os, "write", slow):
            for _ in range(1000):
                made.write(line)
            self.assertGreater(made.dropped, 500)
            self.assertLess(made.dropped, 600)
            self.assertEqual(self.said(), [("error", 0)])
            go_on.append(None)
            made.close(wait=True)

    def test_several_writers(self) -> None:
        """Lines of several are not torn."""
        writers = [self.make() for _ in range(4)]
        for number in range(500):
            for name, writer in enumerate(writers):
                writer.write(f"{name}-{number}-{'x' * (number * 7 % 500)}-end\n")
            if number % 50 == 0:
                for writer in writers:
                    writer.reopen()
        for writer in writers:
            writer.close(wait=True)
        found = self.path.read_text().splitlines()
        self.assertEqual(len(found), 2000)
        self.assertTrue(all(re.fullmatch(r"\d-\d+-x*-end", line) for line in found))


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
