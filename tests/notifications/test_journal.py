"""The journal: order, damage, room, and what a crash at any moment leaves."""

import errno
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import TestCase

from regd.notifications.journal import Cursor, Full, Journal

LARGE = 1 << 30


def everything(journal: Journal, cursor: Cursor | None = None) -> list[bytes]:
    """All records, or those after a cursor."""
    cursor = cursor or Cursor()
    found: list[bytes] = []
    while True:
        read = journal.read(cursor)
        if read.end == cursor:
            return found
        found += [content for content, _ in read.records]
        cursor = read.end


class Crash(BaseException):
    """The process is killed here."""


def dying(real: Callable[..., Any], calls: list[int], kill_at: int) -> Callable[..., Any]:
    """A system call before which the process is killed, if it is the one."""

    def call(*arguments: Any, **more: Any) -> Any:
        calls[0] += 1
        if calls[0] == kill_at:
            raise Crash
        return real(*arguments, **more)

    return call


class JournalTest(TestCase):
    def journal(self, limit: int = LARGE, segment: int = 200) -> Journal:
        temporary = TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        return Journal(f"{temporary.name}/notifications", limit, segment)

    def test_order(self) -> None:
        journal = self.journal()
        wanted = [b'{"n": %d}' % number for number in range(100)]
        for number in range(0, 100, 3):
            journal.append(wanted[number : number + 3])
        self.assertEqual(everything(journal), wanted)
        self.assertGreater(len(journal.segments()), 5)

    def test_cursors(self) -> None:
        """From each cursor that was handed out the rest is read, and nothing twice."""
        journal = self.journal()
        wanted = [b"%d" % number for number in range(60)]
        for one in wanted:
            journal.append([one])
        cursor, seen = Cursor(), 0
        while (read := journal.read(cursor)).records:
            for content, behind in read.records:
                self.assertEqual(content, wanted[seen])
                seen += 1
                self.assertEqual(everything(journal, behind), wanted[seen:])
            cursor = read.end
        self.assertEqual(seen, 60)

    def test_nothing(self) -> None:
        journal = self.journal()
        self.assertEqual(journal.read(Cursor()).end, Cursor())
        self.assertEqual((journal.size(), journal.newest(), journal.end()), (0, (0, 0), Cursor()))
        self.assertIsNone(journal.cursor("a"))
        journal.append([b"1"])
        journal.keep_cursor("a", Cursor(3, 4))
        self.assertEqual(journal.cursor("a"), Cursor(3, 4))
        self.assertEqual(journal.keys(), ["a"])
        journal.forget("a")
        journal.forget("a")
        self.assertEqual(journal.keys(), [])

    def test_damaged_cursor(self) -> None:
        journal = self.journal()
        journal.append([b"1"])
        for damaged in (b"", b"[]", b'{"segment": null, "offset": 1}', b"\xff"):
            Path(journal.directory, "a.cursor").write_bytes(damaged)
            self.assertEqual(journal.cursor("a"), Cursor())

    def test_cursor_of_another_journal(self) -> None:
        journal = self.journal()
        journal.append([b"1"])
        self.assertEqual(everything(journal, Cursor(57, 3)), [b"1"])

    def test_trim(self) -> None:
        """What has been read goes, and the newest never, so that no number is used twice."""
        journal = self.journal()
        for number in range(60):
            journal.append([b"%d" % number])
        newest = journal.segments()[-1]
        journal.trim(newest + 5)
        self.assertEqual(journal.segments(), [newest])
        self.assertEqual(journal.after(newest), journal.end())

    def test_full(self) -> None:
        journal = self.journal(limit=100)
        journal.append([b"x" * 60])
        with self.assertRaises(Full):
            journal.append([b"x" * 60])
        journal.append([b"y"])
        self.assertEqual(everything(journal), [b"x" * 60, b"y"])

    def test_too_long(self) -> None:
        journal = self.journal()
        with self.assertRaises(ValueError):
            journal.append([b"x" * (16 * 1024 * 1024)])
        journal.append([b"x" * 200_000, b"y"])
        self.assertEqual(everything(journal), [b"x" * 200_000, b"y"])

    def test_torn(self) -> None:
        """Wherever the last record is cut off, it is passed over, and all others are read."""
        line = b"00000000 two\n"
        for cut in range(1, len(line)):
            journal = self.journal()
            journal.append([b"one"])
            cursor = journal.end()
            journal.append([b"two"])
            path = Path(journal.directory, f"{1:012d}.events")
            path.write_bytes(path.read_bytes()[:-cut])
            self.assertEqual(everything(journal, cursor), [], f"{cut}")
            journal.append([b"three"])
            # Where its newline alone is missing, the sum tells that the record is whole.
            self.assertEqual(everything(journal, cursor), [b"two", b"three"] if cut == 1 else [b"three"], f"{cut}")
            self.assertEqual(journal.read(cursor).damaged, int(cut > 1))

    @given(st.lists(st.binary(max_size=50), max_size=8), st.integers(0, 400), st.binary(min_size=1, max_size=20))
    @settings(deadline=None, max_examples=50)
    def test_damage(self, contents: list[bytes], where: int, garbage: bytes) -> None:
        """Whatever stands in the file, reading ends, and says only what was written."""
        records = [content.hex().encode() for content in contents]
        journal = self.journal(segment=1 << 20)
        journal.append([b"first", *records])
        path = Path(journal.directory, f"{1:012d}.events")
        data = path.read_bytes()
        path.write_bytes(data[: where % len(data)] + garbage + data[where % len(data) + len(garbage) :])
        self.assertLessEqual(set(everything(journal)), {b"first", *records})
        journal.append([b"last"])
        self.assertEqual(everything(journal)[-1], b"last")

    def test_count(self) -> None:
        """How many are behind any cursor, whatever was counted before, and what was removed since."""
        journal = self.journal(segment=60)
        records = [b"%d" % number for number in range(20)]
        cursors = [Cursor()]
        for number, one in enumerate(records):
            journal.append([one])
            cursors.append(journal.read(cursors[-1]).records[0][1])
            for place in (0, number // 2, number):
                self.assertEqual(journal.count(cursors[place]), number + 1 - place)
        journal.trim(cursors[10].segment)
        self.assertEqual([journal.count(cursor) for cursor in cursors[10:]], list(range(10, -1, -1)))
        self.assertEqual(self.journal().count(Cursor()), 0)

    def test_disk_full(self) -> None:
        """Half a record stays, is passed over, and does no harm to what follows; nobody's cursor stands behind the end."""
        journal = self.journal()
        journal.append([b"one"])
        write = os.write
        calls: list[int] = []

        def half(fd: int, data: Any) -> int:
            calls.append(1)
            if len(calls) > 1:
                raise OSError(errno.ENOSPC, "full")
            return write(fd, bytes(data)[:5])

        with patch("os.write", half), self.assertRaises(OSError):
            journal.append([b"two"])
        journal.append([b"three"])
        self.assertEqual(everything(journal), [b"one", b"three"])
        self.assertEqual(journal.read(Cursor()).damaged, 1)

    def test_cursor_younger_than_segment(self) -> None:
        """As in a copy that was made while others wrote: what is written after it was put back is read."""
        journal = self.journal()
        journal.append([b"one"])
        journal.keep_cursor("key", Cursor(1, 5000))
        cursor = journal.cursor("key")
        self.assertEqual(cursor, journal.end())
        journal.append([b"two"])
        self.assertEqual([one for one, _ in journal.read(cursor or Cursor()).records], [b"two"])
        journal.keep_cursor("key", Cursor(7, 3))
        self.assertEqual(journal.cursor("key"), Cursor(7, 3))

    def test_killed_anywhere(self) -> None:
        """A writer that is killed before any of its system calls: what was acknowledged is there, in order, and others go on."""
        names = ("open", "write", "fsync", "close", "pread", "fstat", "stat", "listdir")
        for kill_at in range(60):
            journal = self.journal(segment=30)
            acknowledged: list[bytes] = []
            calls = [0]

            patches = [patch(f"os.{name}", dying(getattr(os, name), calls, kill_at)) for name in names]
            for one in patches:
                one.start()
            try:
                for number in range(4):
                    journal.append([b"%d" % number])
                    acknowledged.append(b"%d" % number)
            except Crash:
                pass
            finally:
                for one in patches:
                    one.stop()
            found = everything(journal)
            self.assertEqual(found[: len(acknowledged)], acknowledged)
            self.assertLessEqual(len(found), len(acknowledged) + 1)
            # The lock of a process that was killed is free.
            after = Journal(journal.directory, LARGE, 30)
            self.close_leaked(journal.directory)
            after.append([b"after"])
            self.assertEqual(everything(after)[-1], b"after")

    def close_leaked(self, directory: str) -> None:
        """What the kernel does for a process that is killed."""
        for name in os.listdir("/proc/self/fd"):
            try:
                target = os.readlink(f"/proc/self/fd/{name}")
            except OSError:
                continue
            if target.startswith(os.path.abspath(directory)):
                os.close(int(name))

    def test_writers_that_are_killed(self) -> None:
        """Two processes write, one of them is killed: each one's records are in its order, and what it was told is safe is there."""
        journal = self.journal(segment=2000)
        os.makedirs(journal.directory)
        program = (
            "import sys; from regd.notifications.journal import Journal\n"
            "j = Journal(sys.argv[1], 1 << 30, 2000)\n"
            "for n in range(2000):\n"
            "    j.append([b'%s %d' % (sys.argv[2].encode(), n)]); print(n, flush=True)\n"
        )
        writers = [
            subprocess.Popen([sys.executable, "-c", program, journal.directory, name], stdout=subprocess.PIPE) for name in ("a", "b")
        ]
        time.sleep(1.0)
        for writer in writers:
            writer.kill()
        told = [len((writer.communicate()[0] or b"").splitlines()) for writer in writers]
        found = everything(journal)
        for name, count in zip((b"a", b"b"), told, strict=True):
            numbers = [int(one.split()[1]) for one in found if one.startswith(name)]
            self.assertEqual(numbers, list(range(len(numbers))))
            self.assertGreaterEqual(len(numbers), count)
        journal.append([b"c 0"])
        self.assertEqual(everything(journal)[-1], b"c 0")
