"""Listings that are remembered, and when they are not."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from regd.storage import listing
from regd.storage.listing import Listings

#: Enough names for a directory to be remembered.
MANY = tuple(f"{number:05}" for number in range(300))


def looks(inode: int = 1, modified: float = 0.0) -> os.stat_result:
    """What the system says of a directory that was changed at ``modified``."""
    times = {"st_mtime": modified, "st_mtime_ns": int(modified * 1e9)}
    return os.stat_result((0o40755, inode, 1, 2, 0, 0, 4096, 0, int(modified), 0), times)


class ListingsTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.listings = Listings(self.clock.seconds)

    def test_nothing_is_known_at_first(self) -> None:
        self.assertIsNone(self.listings.get("d", looks()))

    def test_a_large_directory_is_remembered_until_it_changes(self) -> None:
        self.listings.put("d", looks(), MANY)
        self.assertEqual(self.listings.get("d", looks()), MANY)
        self.assertIsNone(self.listings.get("other", looks()))
        self.assertIsNone(self.listings.get("d", looks(modified=0.001)))
        # And then it is forgotten, even if the clock goes back.
        self.assertIsNone(self.listings.get("d", looks()))

    def test_another_directory_in_its_place(self) -> None:
        self.listings.put("d", looks(inode=1), MANY)
        self.assertIsNone(self.listings.get("d", looks(inode=2)))

    def test_small_directories_are_not_worth_it(self) -> None:
        self.listings.put("d", looks(), MANY[:255])
        self.assertIsNone(self.listings.get("d", looks()))
        self.listings.put("d", looks(), MANY[:256])
        self.assertIsNotNone(self.listings.get("d", looks()))

    def test_a_directory_that_was_changed_a_moment_ago_may_change_again_unseen(self) -> None:
        now = self.clock.seconds()
        for age in (-5.0, 0.0, 1.9):
            self.listings.put("d", looks(modified=now - age), MANY)
            self.assertIsNone(self.listings.get("d", looks(modified=now - age)))
        self.listings.put("d", looks(modified=now - 2.0), MANY)
        self.assertEqual(self.listings.get("d", looks(modified=now - 2.0)), MANY)

    def test_what_was_remembered_is_not_kept_when_it_is_read_anew(self) -> None:
        self.listings.put("d", looks(), MANY)
        self.listings.put("d", looks(modified=999.5), (*MANY, "x"))
        self.assertIsNone(self.listings.get("d", looks()))
        self.assertIsNone(self.listings.get("d", looks(modified=999.5)))

    def test_the_least_recently_used_goes_first(self) -> None:
        names = tuple(str(number) for number in range(60_000))
        for path in ("a", "b"):
            self.listings.put(path, looks(), names)
        self.assertIsNotNone(self.listings.get("a", looks()))
        self.listings.put("c", looks(), names)
        self.assertIsNone(self.listings.get("b", looks()))
        self.assertIsNotNone(self.listings.get("a", looks()))
        self.assertIsNotNone(self.listings.get("c", looks()))

    def test_a_listing_beyond_all_bounds_is_not_remembered_and_drives_nothing_out(self) -> None:
        self.listings.put("d", looks(), MANY)
        self.listings.put("huge", looks(), ("x",) * 150_001)
        self.assertIsNone(self.listings.get("huge", looks()))
        self.assertIsNotNone(self.listings.get("d", looks()))

    def test_the_budget_is_kept_in_the_long_run(self) -> None:
        names = tuple(str(number) for number in range(50_000))
        for round_ in range(20):
            for path in ("a", "b", "c"):
                self.listings.put(path, looks(modified=round_), names)
        for path in ("a", "b", "c"):
            self.assertIsNotNone(self.listings.get(path, looks(modified=19)))


class ReadTest(SynchronousTestCase):
    def test_in_the_order_of_bytes(self) -> None:
        directory = Path(tempfile.mkdtemp(prefix="regd-test-"))
        self.addCleanup(shutil.rmtree, directory)
        for name in (b"b", b"a-b", b"a", b"a.b", b"\xff", b"A", b"\xc3\xa9"):
            (directory / os.fsdecode(name)).touch()
        self.assertEqual(
            [os.fsencode(name) for name in listing.read(str(directory))], [b"A", b"a", b"a-b", b"a.b", b"b", b"\xc3\xa9", b"\xff"]
        )

    def test_what_cannot_be_read(self) -> None:
        self.assertRaises(FileNotFoundError, listing.read, "/nowhere/at/all")
