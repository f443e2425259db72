"""``regd scrub``, as an operator runs it."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import stat
import time

from tests.cli.case import TreeCase

LAYER = b"a layer"


class ScrubTest(TreeCase):
    def setUp(self) -> None:
        super().setUp()
        self.manifest = self.tree.image("library/alpine", "v1", LAYER)
        self.layer = self.tree.blob(LAYER)

    def spoil(self, digest: str) -> str:
        """
        :return: the path of the blob, as the output has it.
        """
        path = self.tree.blob_file(digest)
        path.write_bytes(b"something else")
        return str(path.relative_to(self.tree.root))

    def test_all_is_well(self) -> None:
        self.tree.blob(b"an orphan")
        said = self.regd("scrub", self.config)
        self.assertEqual((said.status, said.err), (0, ""))
        self.assertIn("looked at: 1 repository, 1 manifest, 5 links, 4 blobs (", said.out)
        self.assertIn("damaged: 0,", said.out)
        self.assertIn("linked by no repository: 1 blob (9 B)", said.out)
        said = self.regd("scrub", "--quiet", self.config)
        self.assertEqual((said.status, said.out, said.err), (0, "", ""))

    def test_damage(self) -> None:
        path = self.spoil(self.layer)
        for arguments in ([], ["-q"]):
            said = self.regd("scrub", *arguments, self.config)
            self.assertEqual((said.status, said.err), (1, ""))
            self.assertTrue(said.out.startswith(f"{path}: has the digest sha256:"), said.out)
            self.assertIn("; --repair moves it aside", said.lines[0])
        self.assertEqual(len(said.lines), 1)

    def test_repair(self) -> None:
        path = self.spoil(self.layer)
        link = self.tree.tag_link("library/alpine", "v1")
        link.write_bytes(b"")
        said = self.regd("scrub", "--repair", self.config)
        # The blob is missing now.
        self.assertEqual(said.status, 1)
        self.assertIn(f"{link.relative_to(self.tree.root)}: an empty link; written again, for {self.manifest}", said.lines)
        self.assertTrue(any(line.startswith(f"{path}: ") and "moved aside to regd/damaged/" in line for line in said.lines), said.out)
        self.assertIn("damaged: 2, of which mended: 1", said.lines)
        self.assertIn("pushes waited", said.out)
        self.assertEqual(link.read_bytes(), self.manifest.encode())
        said = self.regd("scrub", "-q", "--repair", self.config)
        self.assertEqual(said.status, 1)
        self.assertIn("what it links is not there", said.out)
        self.tree.blob(LAYER)
        self.assertEqual(self.regd("scrub", "-q", "--repair", self.config).status, 0)
        self.assertFalse(list((self.tree.root / "regd" / "damaged").glob("*/*")))

    def test_all_is_mended(self) -> None:
        self.tree.tag_link("library/alpine", "v1").write_bytes(b"")
        said = self.regd("scrub", "--quiet", "--repair", self.config)
        self.assertEqual((said.status, said.out), (0, ""))

    def test_names_of_files_do_no_harm(self) -> None:
        name = os.fsencode(self.tree.repository("library/alpine") / "_manifests" / "tags") + b"/a\n\x1b[31m\xff"
        os.makedirs(name)
        said = self.regd("scrub", self.config)
        self.assertEqual(said.status, 0)
        self.assertIn("/tags/a\\n\\x1b[31m\\udcff: not the name of a tag", said.lines[0])

    def test_what_cannot_be_scrubbed(self) -> None:
        self.assert_refused("scrub", 2)
        for rate in ("", "fast", "-1", "5MiB/h"):
            self.assertEqual(self.assertRaises(SystemExit, self.regd, "scrub", "--maxrate", rate, self.config).code, 2)

    def test_one_at_a_time(self) -> None:
        self.regd("scrub", self.config)
        with (self.tree.root / "regd" / "scrub").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            said = self.regd("scrub", self.config)
        self.assertEqual((said.status, said.out), (2, ""))
        self.assertRegex(said.err, rf"process {os.getpid()} \(.*\) is scrubbing this directory already")

    def test_stopped_and_gone_on_with(self) -> None:
        """As slowly as it reads, it is stopped in the middle; the next one does the rest."""
        for number in range(20):
            self.tree.image("other", f"v{number}", os.urandom(50_000))
        paths = {self.spoil(digest) for digest in sorted(self.tree.blobs())[::8]}
        slow = self.start("scrub", "--maxrate", "200k/s", self.config)
        state = self.tree.root / "regd" / "scrub.json"
        end = time.monotonic() + 30
        assert slow.stdout is not None
        first = slow.stdout.readline()
        self.assertIn(": has the digest", first)
        while time.monotonic() < end and not state.exists():
            time.sleep(0.05)
        self.assertIsNone(slow.poll())
        slow.send_signal(signal.SIGTERM)
        _, err = slow.communicate(timeout=10)
        self.assertEqual(slow.returncode, 2, err)
        self.assertIn("interrupted before the end; the next scrub goes on from there", err)
        kept = json.loads(state.read_bytes())
        self.assertEqual(kept["stage"], "blobs")
        self.assertGreater(kept["size"], 0)
        said = self.regd("scrub", self.config)
        self.assertEqual(said.status, 1)
        self.assertIn(f"going on with the scrub that began at {kept['started']}", said.err)
        # What was found before is told again.
        self.assertEqual({line.partition(": ")[0] for line in said.lines if ": has the digest" in line}, paths)
        self.assertIn(f"damaged: {len(paths)},", said.out)
        self.assertIn("21 manifests", said.out)
        self.assertNotIn("going on", self.regd("scrub", self.config).err)

    def test_a_limit_of_the_rate(self) -> None:
        self.tree.blob(os.urandom(1_000_000))
        began = time.monotonic()
        self.assertEqual(self.regd("scrub", "--maxrate", "1MB", self.config).status, 0)
        self.assertGreater(time.monotonic() - began, 0.4)

    def test_a_terminal(self) -> None:
        # Several, because what a rate is worth is only known when one has waited for it.
        for _ in range(4):
            self.tree.blob(os.urandom(100_000))
        status, sent = self.on_a_terminal("scrub", "--maxrate", "300k", self.config)
        self.assertEqual(status, 0)
        self.assertIn("blobs:", sent)
        self.assertRegex(sent, r"\d+%\|")
        self.assertRegex(sent, r"[kKM]i?B/s")
        self.assertEqual(self.on_a_terminal("scrub", "-q", self.config), (0, ""))

    def test_nobody_reads_what_it_prints(self) -> None:
        self.spoil(self.layer)
        self.assertEqual(self.unread("scrub", self.config), (1, ""))

    def test_as_root_it_is_the_daemons_user(self) -> None:
        self.give_away(12345)
        self.tree.tag_link("library/alpine", "v1").write_bytes(b"")
        process = self.start("scrub", "--repair", self.config)
        _, err = process.communicate(timeout=60)
        self.assertEqual((process.returncode, err), (0, ""))
        self.assert_belongs_to(12345)

    def test_a_tree_that_may_only_be_read(self) -> None:
        self.give_away(12345)
        for path in (self.tree.root, *self.tree.root.rglob("*")):
            path.chmod(stat.S_IMODE(path.stat().st_mode) & ~0o222)
        process = self.start("scrub", self.config)
        out, err = process.communicate(timeout=60)
        self.assertEqual((process.returncode, err), (0, ""), out)
        self.assertFalse((self.tree.root / "regd").exists())
        process = self.start("scrub", "--repair", self.config)
        out, err = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 2)
        self.assertIn("cannot be used by user 12345", err)
