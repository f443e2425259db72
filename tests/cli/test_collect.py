"""``regd garbage-collect``, as an operator runs it."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import time

from tests.cli.case import TreeCase
from tests.e2e.process import need_root


class CollectTest(TreeCase):
    def setUp(self) -> None:
        super().setUp()
        self.first = self.tree.image("a/first", "v1", b"one", b"shared")
        self.second = self.tree.image("a/second", "v1", b"two", b"shared")
        self.garbage = {self.tree.blob(b"garbage %d" % number) for number in range(3)}
        self.living = self.tree.blobs() - self.garbage
        self.tree.age()

    def eligible(self, out: str) -> set[str]:
        return set(re.findall(r"^blob eligible for deletion: (\S+)$", out, re.MULTILINE))

    def test_a_dry_run(self) -> None:
        before = sorted(self.tree.root.rglob("*"))
        for option in ("-d", "--dry-run"):
            said = self.regd("garbage-collect", option, self.config)
            self.assertEqual(said.status, 0, said.err)
            self.assertEqual(said.lines[:2], ["a/first", f"a/first: marking manifest {self.first} "])
            self.assertTrue(said.lines[2].startswith("a/first: marking blob sha256:"))
            self.assertIn("\n\n7 blobs marked, 3 blobs and 0 manifests eligible for deletion\n", said.out)
            self.assertEqual(self.eligible(said.out), self.garbage)
            self.assertIn("nothing was removed, as this was a dry run", said.err)
        self.assertEqual(sorted(self.tree.root.rglob("*")), before)

    def test_a_run(self) -> None:
        said = self.regd("garbage-collect", self.config)
        self.assertEqual(said.status, 0, said.err)
        self.assertEqual(self.eligible(said.out), self.garbage)
        self.assertRegex(said.err, r"^regd: 3 blobs \(27 B\) and 0 manifests removed, .* pushes waited \d+\.\d ms at most")
        self.assertEqual(self.tree.blobs(), self.living)
        self.assertIn("7 blobs marked, 0 blobs and 0 manifests", self.regd("garbage-collect", self.config).out)

    def test_quiet(self) -> None:
        for option in ("-q", "--quiet"):
            said = self.regd("garbage-collect", option, self.config)
            self.assertEqual((said.status, said.out, said.err), (0, "", ""))
        self.assertEqual(self.tree.blobs(), self.living)

    def test_untagged(self) -> None:
        manifest = self.tree.image("a/first", "", b"three", b"shared")
        self.tree.age()
        for option in ("-m", "--delete-untagged"):
            said = self.regd("garbage-collect", "-d", option, self.config)
            self.assertIn(f"manifest eligible for deletion: {manifest}", said.lines)
            self.assertIn("7 blobs marked, 6 blobs and 1 manifests eligible", said.out)
        self.assertNotIn("manifest eligible", self.regd("garbage-collect", "-d", self.config).out)
        # As the timed runs do, by the configuration.
        said = self.regd("garbage-collect", self.configure("{garbagecollect: {untagged: true}}"))
        self.assertIn(f"manifest eligible for deletion: {manifest}", said.lines)
        self.assertEqual(self.tree.blobs(), self.living)

    def test_grace(self) -> None:
        fresh = self.tree.blob(b"just pushed")
        said = self.regd("garbage-collect", "-d", self.config)
        self.assertEqual(self.eligible(said.out), self.garbage)
        self.assertIn("what was pushed or asked for in the last 1h0m0s was kept, 1 blobs (11 B) without a link among it: ", said.err)
        self.assertIn("or one with --grace 0s, if nobody is pushing", said.err)
        for arguments in (
            ["--grace", "0s", self.config],
            ["--grace", "1ns", self.config],
            [self.configure("{garbagecollect: {grace: 0s}}")],
            # Nobody pushes.
            [self.configure("{readonly: {enabled: true}}")],
        ):
            said = self.regd("garbage-collect", "-d", *arguments)
            self.assertEqual(self.eligible(said.out), self.garbage | {fresh})
        said = self.regd("garbage-collect", "-d", "--grace", "1h", self.configure("{readonly: {enabled: true}}"))
        self.assertEqual(self.eligible(said.out), self.garbage)
        for grace in ("", "1", "-1s", "soon"):
            self.assertEqual(self.assertRaises(SystemExit, self.regd, "garbage-collect", "--grace", grace, self.config).code, 2)

    def test_bad_files(self) -> None:
        link = self.tree.revision_link("a/first", self.first)
        link.write_bytes(b"")
        said = self.regd("garbage-collect", self.config)
        self.assertEqual(said.status, 0)
        path = str(link.relative_to(self.tree.root))
        self.assertRegex(said.err, rf"(?m)^regd: {re.escape(path)}: .*empty")
        self.assertIn("1 bad files were passed over", said.err)
        self.assertEqual(self.tree.blobs(), self.living)
        # They are errors.
        self.assertIn(path, self.regd("garbage-collect", "-q", self.config).err)

    def test_where_the_configuration_is(self) -> None:
        before = os.environ.get("REGISTRY_CONFIGURATION_PATH")
        os.environ["REGISTRY_CONFIGURATION_PATH"] = self.config
        self.addCleanup(os.environ.pop, "REGISTRY_CONFIGURATION_PATH", None)
        self.assertIsNone(before)
        self.assertEqual(self.eligible(self.regd("garbage-collect", "-d").out), self.garbage)
        # Variables override it.
        os.environ["REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY"] = str(self.directory)
        self.addCleanup(os.environ.pop, "REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY")
        self.assertIn("0 blobs marked, 0 blobs", self.regd("garbage-collect", "-d").out)

    def test_what_cannot_be_collected(self) -> None:
        self.assert_refused("garbage-collect", 1)

    def test_one_at_a_time(self) -> None:
        self.regd("garbage-collect", self.config)
        with (self.tree.root / "regd" / "collector").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            (self.tree.root / "regd" / "collecting").touch()
            said = self.regd("garbage-collect", self.config)
        self.assertEqual((said.status, said.out), (1, ""))
        self.assertRegex(
            said.err, rf"process {os.getpid()} \(.*\) is collecting the garbage of this directory already since 20\S+Z: wait for it"
        )

    def test_interrupted(self) -> None:
        """It ends soon and cleanly, and the next run does the rest."""
        for number, status in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
            # So slowly that it is still marking.
            process = self.start("garbage-collect", self.configure("{garbagecollect: {maxrate: 2}}"))
            end = time.monotonic() + 30
            while time.monotonic() < end and not (self.tree.root / "regd" / "collecting").exists():
                time.sleep(0.02)
            process.send_signal(number)
            _, err = process.communicate(timeout=20)
            self.assertEqual(process.returncode, status, err)
            self.assertIn("interrupted before the end; the next run finishes what this one has begun", err)
            self.assertFalse((self.tree.root / "regd" / "collecting").exists())
            self.assertFalse(json.loads((self.tree.root / "regd" / "collection.json").read_bytes())["finished"])
        self.assertEqual(self.regd("garbage-collect", self.configure()).status, 0)
        self.assertEqual(self.tree.blobs(), self.living)

    def test_interrupted_at_the_gate(self) -> None:
        """A change that takes long does not keep it from ending."""
        self.regd("garbage-collect", "-d", self.config)
        (self.tree.root / "regd").mkdir(exist_ok=True)
        with (self.tree.root / "regd" / "gate").open("w", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH)
            process = self.start("garbage-collect", self.config)
            end = time.monotonic() + 30
            while time.monotonic() < end and not (self.tree.root / "regd" / "collecting").exists():
                time.sleep(0.02)
            time.sleep(0.1)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=20)
        self.assertEqual(process.returncode, 130, err)

    def test_a_terminal(self) -> None:
        status, sent = self.on_a_terminal("garbage-collect", self.config)
        self.assertEqual(status, 0)
        self.assertIn("mark: ", sent)
        self.assertIn("3 blobs (27 B)", sent)
        self.assertEqual(self.on_a_terminal("garbage-collect", "-q", self.config), (0, ""))
        self.assertNotIn("mark: ", self.regd("garbage-collect", self.config).err)

    def test_nobody_reads_what_it_prints(self) -> None:
        status, _ = self.unread("garbage-collect", self.config)
        self.assertEqual(status, 0)
        self.assertEqual(self.tree.blobs(), self.living)

    def test_as_root_it_is_the_daemons_user(self) -> None:
        self.give_away(12345)
        process = self.start("garbage-collect", self.config)
        _, err = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 0, err)
        self.assertEqual(self.tree.blobs(), self.living)
        self.assert_belongs_to(12345)

    def test_storage_that_fails(self) -> None:
        need_root()
        self.directory.chmod(0o755)
        os.chown(self.tree.root, 12345, 12345)
        process = self.start("garbage-collect", self.config)
        _, err = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 1)
        self.assertIn("regd: ", err)
        self.assertNotIn("Traceback", err)
