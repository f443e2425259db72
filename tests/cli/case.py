"""What the tests of the commands share: a directory that a registry has filled, a configuration for it, and ways to run a command."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from regd.cli import main
from tests.e2e.process import need_root

__all__ = ["REGD", "ROOT", "Said", "Tree", "TreeCase"]

ROOT = Path(__file__).resolve().parent.parent.parent
REGD = [sys.executable, "-c", "import sys; from regd.cli import main; sys.exit(main())"]

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


@dataclass(frozen=True)
class Said:
    """How a command ended, and what it printed."""

    status: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


class Tree:
    """
    The data directory of a registry, written as ``registry:2`` would.

    :ivar v2: the directory of blobs and repositories.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.v2 = root / "docker" / "registry" / "v2"
        self.v2.mkdir(parents=True)

    def blob_file(self, digest: str) -> Path:
        algorithm, _, encoded = digest.partition(":")
        return self.v2 / "blobs" / algorithm / encoded[:2] / encoded / "data"

    def repository(self, name: str) -> Path:
        return self.v2 / "repositories" / name

    def layer_link(self, name: str, digest: str) -> Path:
        return self.repository(name) / "_layers" / digest.replace(":", "/") / "link"

    def revision_link(self, name: str, digest: str) -> Path:
        return self.repository(name) / "_manifests" / "revisions" / digest.replace(":", "/") / "link"

    def tag_link(self, name: str, tag: str) -> Path:
        return self.repository(name) / "_manifests" / "tags" / tag / "current" / "link"

    def blob(self, content: bytes) -> str:
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        put(self.blob_file(digest), content)
        return digest

    def image(self, name: str, tag: str, *layers: bytes) -> str:
        """
        :return: the digest of its manifest.
        """
        described = []
        for content in (json.dumps({"tag": tag, "name": name}).encode(), *layers):
            digest = self.blob(content)
            put(self.layer_link(name, digest), digest.encode())
            described.append({"mediaType": "application/octet-stream", "size": len(content), "digest": digest})
        document = {"schemaVersion": 2, "mediaType": MANIFEST, "config": described[0], "layers": described[1:]}
        manifest = self.blob(json.dumps(document).encode())
        put(self.revision_link(name, manifest), manifest.encode())
        if tag:
            link = self.tag_link(name, tag)
            put(link, manifest.encode())
            put(link.parent.parent / "index" / manifest.replace(":", "/") / "link", manifest.encode())
        return manifest

    def blobs(self) -> set[str]:
        """
        :return: the digests of all that are there.
        """
        return {f"{path.parts[-4]}:{path.parts[-2]}" for path in (self.v2 / "blobs").glob("*/*/*/data")}

    def age(self, seconds: float = 10_000) -> None:
        """Have everything be written so long ago."""
        then = time.time() - seconds
        for path in self.root.rglob("*"):
            os.utime(path, (then, then))


class TreeCase(SynchronousTestCase):
    """
    :ivar tree: a data directory with nothing in it.
    :ivar config: the path of a configuration for it.
    """

    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="regd-test-"))
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)
        self.tree = Tree(self.directory / "data")
        self.config = self.configure()

    def configure(self, maintenance: str = "{}") -> str:
        """
        :return: the path of the configuration.
        """
        path = self.directory / "config.yml"
        path.write_text(
            f"version: 0.1\nstorage:\n  filesystem: {{rootdirectory: {self.tree.root}}}\n  maintenance: {maintenance}\n", encoding="utf-8"
        )
        return str(path)

    def regd(self, *arguments: str) -> Said:
        """Run a command in this process."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = main(arguments)
        return Said(status, out.getvalue(), err.getvalue())

    def assert_refused(self, command: str, status: int) -> None:
        """What a command says of configurations that it cannot work with, and of none; it makes nothing."""
        path = self.directory / "other.yml"
        for text, why in (
            ("version: 0.1\nstorage: inmemory\n", "in the memory of the daemon"),
            ("version: 9\n", "version"),
            (f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {self.directory}/none}}}}\n", "is not there"),
            (None, ""),
        ):
            path.unlink(missing_ok=True)
            if text is not None:
                path.write_text(text, encoding="utf-8")
            said = self.regd(command, str(path))
            self.assertEqual((said.status, said.out), (status, ""))
            self.assertTrue(said.err.startswith("regd: ") and why in said.err, said.err)
        self.assertFalse((self.directory / "none").exists())

    def unread(self, *arguments: str) -> tuple[int, str]:
        """
        Run a command whose standard output nobody reads.

        :return: its exit status, and what it says on standard error.
        """
        process = self.start(*arguments)
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        # So that cleaning up finds nothing to read.
        process.stdout = None
        return process.wait(60), process.stderr.read()

    def give_away(self, user: int) -> None:
        """Have all that is there belong to somebody else, as it does where a daemon of theirs runs; only root can do that."""
        need_root()
        self.directory.chmod(0o755)
        for path in (self.tree.root, *self.tree.root.rglob("*")):
            os.chown(path, user, user)

    def assert_belongs_to(self, user: int) -> None:
        """What root made in the daemon's directory, the daemon could not remove."""
        for path in self.tree.root.rglob("*"):
            self.assertEqual(path.stat().st_uid, user, path)

    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("REGISTRY_")}
        return {**kept, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore", "TERM": "xterm"}

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Run a command in a process of its own."""
        process = subprocess.Popen(
            [*REGD, *arguments],
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        return process

    def on_a_terminal(self, *arguments: str) -> tuple[int, str]:
        """
        Run a command with its standard error on a terminal.

        :return: its status, and what the terminal was sent.
        """
        ours, theirs = os.openpty()
        process = subprocess.Popen(
            [*REGD, *arguments], env=self.environment(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=theirs
        )
        os.close(theirs)
        sent = b""
        with open(ours, "rb", buffering=0) as terminal, contextlib.suppress(OSError):
            # A terminal that nobody has open any more is an error.
            while more := terminal.read(65536):
                sent += more
        return process.wait(60), sent.decode("utf-8", "replace")


def put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
