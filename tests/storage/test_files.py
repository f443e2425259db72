"""What blocks, as far as the drivers' tests do not reach it."""

from __future__ import annotations

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
