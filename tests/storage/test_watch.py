"""What the kernel tells of changes to directories."""

from __future__ import annotations

import ctypes
import os
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regd.storage import watch
from regd.storage.watch import Change, Watch

#: The number of a watch, what happened, and to what.
EVENTS = st.tuples(st.integers(-1, 2**31 - 1), st.integers(0, 2**32 - 1), st.binary(max_size=255))


class EventsTest(SynchronousTestCase):
    @given(st.lists(EVENTS, max_size=10), st.integers(0, 17))
    def test_as_the_kernel_writes_them(self, events: list[tuple[int, int, bytes]], padding: int) -> None:
        """inotify(7): a name is followed by one zero byte or more; where there is no name, there are none."""
        queued = b""
        expected = []
        for number, what, raw in events:
            name = raw.replace(b"\0", b"x")
            field = name + bytes(padding + 1) if name else b""
            queued += struct.pack("=iIII", number, what, 7, len(field)) + field
            expected.append((number, what, name))
        self.assertEqual(list(watch._events(queued)), expected)


class WatchTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.top = Path(tempfile.mkdtemp(prefix="regd-test-"))
        self.addCleanup(shutil.rmtree, self.top, ignore_errors=True)
        self.directory = self.top / "d"
        self.directory.mkdir()
        self.watch = Watch()
        self.addCleanup(self.watch.close)

    def add(self, path: Path) -> int:
        number = self.watch.add(str(path))
        assert number is not None
        return number

    def changes(self) -> list[Change]:
        found, more = self.watch.changes()
        assert found is not None
        self.assertFalse(more)
        return found

    def test_nothing_at_first(self) -> None:
        self.assertEqual(self.changes(), [])
        self.add(self.directory)
        self.assertEqual(self.changes(), [])

    def test_every_way_to_make_and_to_remove_a_name(self) -> None:
        (self.directory / "early").touch()
        number = self.add(self.directory)
        (self.directory / "directory").mkdir()
        (self.directory / "file").touch()
        (self.directory / "file").rename(self.directory / "other")
        (self.top / "from outside").touch()
        (self.top / "from outside").rename(self.directory / "in")
        (self.directory / "other").rename(self.top / "out")
        os.link(self.directory / "in", self.directory / "link")
        (self.directory / "symbolic").symlink_to("nowhere")
        (self.directory / "directory").rmdir()
        (self.directory / "early").unlink()
        expected = [
            (b"directory", True),
            (b"file", True),
            (b"file", False),
            (b"other", True),
            (b"in", True),
            (b"other", False),
            (b"link", True),
            (b"symbolic", True),
            (b"directory", False),
            (b"early", False),
        ]
        self.assertEqual(self.changes(), [Change(number, name, there) for name, there in expected])
        self.assertEqual(self.changes(), [])

    def test_what_does_not_change_names(self) -> None:
        file = self.directory / "file"
        file.touch()
        (self.directory / "below").mkdir()
        self.add(self.directory)
        file.write_bytes(b"x")
        file.chmod(0o600)
        file.read_bytes()
        (self.directory / "below" / "deeper").mkdir()
        self.assertEqual(self.changes(), [])

    def test_changes_by_others(self) -> None:
        number = self.add(self.directory)
        subprocess.run(["mkdir", str(self.directory / "x")], check=True)
        self.assertEqual(self.changes(), [Change(number, b"x", True)])

    def test_names_of_any_bytes_and_length(self) -> None:
        number = self.add(self.directory)
        names = [b"\xff\n", b" ", b"a" * 255, b"b" * 16, b"c" * 15]
        for name in names:
            (self.directory / os.fsdecode(name)).touch()
        self.assertEqual(self.changes(), [Change(number, name, True) for name in names])

    def test_many(self) -> None:
        number = self.add(self.directory)
        names = [b"%05d-%s" % (count, b"x" * (count % 200)) for count in range(1000)]
        for name in names:
            (self.directory / os.fsdecode(name)).touch()
        found: list[Change] = []
        more = True
        while more:
            some, more = self.watch.changes()
            assert some is not None
            self.assertLess(len(some), 200)
            found += some
        self.assertEqual(found, [Change(number, name, True) for name in names])

    def test_the_directory_goes_away(self) -> None:
        for gone in (self.directory.rmdir, lambda: self.directory.rename(self.top / "elsewhere")):
            self.directory.mkdir(exist_ok=True)
            number = self.add(self.directory)
            gone()
            found = self.changes()
            self.assertIn(Change(number, b"", False), found)
            self.assertEqual({change.name for change in found}, {b""})

    def test_no_longer_watched(self) -> None:
        number = self.add(self.directory)
        self.watch.remove(number)
        (self.directory / "x").touch()
        self.assertNotIn(b"x", [change.name for change in self.changes()])
        self.watch.remove(number)
        again = self.add(self.directory)
        self.assertNotEqual(again, number)

    def test_one_directory_by_two_paths(self) -> None:
        (self.top / "also").symlink_to(self.directory)
        number = self.add(self.directory)
        self.assertIsNone(self.watch.add(str(self.top / "also")))
        (self.directory / "x").touch()
        self.assertEqual(self.changes(), [Change(number, b"x", True)])

    def test_what_cannot_be_watched(self) -> None:
        (self.top / "file").touch()
        for path in ("file", "nowhere", "file/x"):
            self.assertIsNone(self.watch.add(str(self.top / path)))
        # The kernel makes that up as it is asked, and tells of no changes.
        self.assertIsNone(self.watch.add("/proc"))

    def test_too_many_changes_are_lost_and_it_goes_on(self) -> None:
        limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text(encoding="ascii"))
        if limit > 100_000:
            self.skipTest("the queue is too long to fill it here")
        self.add(self.directory)
        path = str(self.directory / "x")
        for _ in range(limit // 2 + 1):
            os.mkdir(path)
            os.rmdir(path)
        more, found = True, None
        while more:
            found, more = self.watch.changes()
        self.assertIsNone(found)
        self.assertEqual(self.changes(), [])
        number = self.add(self.directory)
        (self.directory / "y").touch()
        self.assertEqual(self.changes(), [Change(number, b"y", True)])

    def test_without_inotify(self) -> None:
        def refused(*_: object) -> int:
            ctypes.set_errno(24)
            return -1

        class Library:
            inotify_init1 = staticmethod(refused)

        for library in (Library(), object()):
            self.patch(ctypes, "CDLL", lambda *_, library=library, **__: library)
            without = Watch()
            self.assertIsNone(without.add(str(self.directory)))
            self.assertEqual(without.changes(), ([], False))
            without.close()

    def test_closed(self) -> None:
        self.add(self.directory)
        self.watch.close()
        self.watch.close()
        self.assertIsNone(self.watch.add(str(self.directory)))
        self.assertEqual(self.changes(), [])
