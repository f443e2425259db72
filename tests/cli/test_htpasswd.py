"""``regd htpasswd``."""

from __future__ import annotations

import io
import os
import sys
import tempfile
from pathlib import Path

import bcrypt
from twisted.trial.unittest import SynchronousTestCase

from regd.auth.htpasswd import PasswordFile
from regd.cli import main


class HtpasswdTests(SynchronousTestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.file = Path(directory.name) / "htpasswd"
        self.errors = io.StringIO()
        self.patch(sys, "stderr", self.errors)

    def run_with(self, password: str, *arguments: str) -> int:
        self.patch(sys, "stdin", io.StringIO(password))
        return main(["htpasswd", "--cost", "10", *arguments])

    def fits(self, user: str, password: str) -> bool:
        hashed = PasswordFile.parse("", "", self.file.read_bytes()).hashes.get(user)
        return hashed is not None and bcrypt.checkpw(password.encode(), hashed)

    def test_added_changed_removed(self) -> None:
        self.assertEqual(self.run_with("one\n", str(self.file), "alice"), 0)
        self.assertEqual(self.file.stat().st_mode & 0o777, 0o640)
        self.assertEqual(self.run_with("two\n", str(self.file), "bob"), 0)
        self.file.chmod(0o600)
        self.file.write_text("# people\n\n" + self.file.read_text())
        self.assertEqual(self.run_with("three\r\n", str(self.file), "alice"), 0)
        self.assertTrue(self.fits("alice", "three"))
        self.assertTrue(self.fits("bob", "two"))
        self.assertEqual(self.file.stat().st_mode & 0o777, 0o600)
        self.assertEqual(self.run_with("", "--delete", str(self.file), "alice"), 0)
        self.assertFalse(self.fits("alice", "three"))
        self.assertTrue(self.file.read_text().startswith("# people\n\nbob:"))
        self.assertEqual(os.listdir(self.file.parent), ["htpasswd"])
        self.assertIn("removed alice", self.errors.getvalue())
        self.assertNotIn("three", self.errors.getvalue())

    def test_what_is_refused(self) -> None:
        self.run_with("one\n", str(self.file), "alice")
        before = self.file.read_bytes()
        for password, arguments, word in (
            ("\n", (str(self.file), "alice"), "an empty password"),
            ("x" * 73, (str(self.file), "alice"), "bcrypt looks at 72"),
            ("x", (str(self.file), "a:b"), "cannot be the name"),
            ("x", (str(self.file), "@ci"), "cannot be the name"),
            ("x", (str(self.file), "anonymous"), "cannot be the name"),
            ("x", ("--delete", str(self.file), "bob"), "there is no user bob"),
            ("x", ("/nowhere/htpasswd", "bob"), "/nowhere"),
        ):
            self.assertEqual(self.run_with(password, *arguments), 1)
            self.assertIn(word, self.errors.getvalue())
        self.assertEqual(self.file.read_bytes(), before)
