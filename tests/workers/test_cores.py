"""How many processes pay: affinity and the quotas of control groups."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regd.workers import cores
from regd.workers.cores import quota, usable_cores


class CoresTests(SynchronousTestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.groups = Path(directory.name) / "groups"
        self.own = self.groups / "one" / "two"
        self.own.mkdir(parents=True)
        self.own_group = Path(directory.name) / "cgroup"
        self.own_group.write_text("1:name=systemd:/x\n0::/one/two\n", encoding="utf-8")
        self.patch(cores, "_GROUPS", self.groups)
        self.patch(cores, "_OWN_GROUP", self.own_group)
        self.patch(os, "sched_getaffinity", lambda pid: set(range(8)))

    def test_affinity(self) -> None:
        self.assertEqual(usable_cores(), 8)
        self.own_group.unlink()
        self.assertEqual(usable_cores(), 8)

    def test_quotas(self) -> None:
        for own, above, expected in (
            ("max 100000", "max 100000", 8),
            ("300000 100000", "max 100000", 3),
            ("max 100000", "150000 100000", 2),
            ("50000 100000", "800000 100000", 1),
            ("1600000 100000", "nonsense", 8),
        ):
            (self.own / "cpu.max").write_text(own + "\n", encoding="ascii")
            (self.own.parent / "cpu.max").write_text(above + "\n", encoding="ascii")
            self.assertEqual(usable_cores(), expected, (own, above))

    def test_this_machine(self) -> None:
        self.assertGreaterEqual(usable_cores(), 1)

    @given(st.text() | st.from_regex(r"[0-9a-z]{1,9} [0-9]{1,9}\n", fullmatch=True))
    def test_any_text(self, text: str) -> None:
        found = quota(text)
        self.assertTrue(found is None or found >= 0)
