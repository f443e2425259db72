"""What blocks, as far as the drivers' tests do not reach it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from regd.storage import files


class InMemoryTest(SynchronousTestCase):
    def test_as_the_system_says(self) -> None:
        mounts = [line.split() for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()]
        for _, where, kind, *_ in mounts:
            # Only what nothing else is mounted over.
            if Path(where).is_dir() and [other for _, other, *_ in mounts].count(where) == 1:
                self.assertEqual(files.in_memory(where), kind in {"tmpfs", "ramfs"}, where)

    def test_the_tests_are_on_a_disk(self) -> None:
        """``tests/conftest.py`` sees to it, for flushes that are held back have to be flushes."""
        self.assertFalse(files.in_memory(tempfile.gettempdir()))


class FileSinkTest(SynchronousTestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory(prefix="regd-test-")
        self.addCleanup(directory.cleanup)
        self.path = Path(directory.name) / "data"

    def test_the_disk_is_set_to_work_early(self) -> None:
        """Each byte once, in the order in which they come, and the last ones are left to the flush."""
        path = self.path
        path.write_bytes(b"before")
        asked: list[tuple[int, int]] = []
        self.patch(os, "posix_fadvise", lambda fd, offset, length, advice: asked.append((offset, length)))
        sink = files.FileSink(str(path), os.open(path, os.O_WRONLY | os.O_APPEND))
        self.addCleanup(sink.close)
        for _ in range(7):
            sink.write([b"x" * (1 << 20), memoryview(bytes(2 << 20))])
        sink.sync()
        self.assertEqual(asked, [(6, 9 << 20), (6 + (9 << 20), 9 << 20)])
        self.assertEqual(path.stat().st_size, 6 + (21 << 20))

    def test_where_the_system_takes_no_advice(self) -> None:
        def refuse(fd: int, offset: int, length: int, advice: int) -> None:
            raise OSError

        self.patch(os, "posix_fadvise", refuse)
        sink = files.FileSink(str(self.path), os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND))
        self.addCleanup(sink.close)
        sink.write([bytes(9 << 20)])
        sink.sync()
        self.assertEqual(sink.tell(), 9 << 20)
