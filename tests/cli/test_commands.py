"""The commands, as a person runs them: what they print, where, and how they end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from regd import __version__
from regd.cli import main
from tests.web.support import MINIMAL

ROOT = Path(__file__).resolve().parent.parent.parent
REGD = [sys.executable, "-c", "import sys; from regd.cli import main; sys.exit(main())"]
TWISTD = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()"]


class CommandCase(SynchronousTestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)

    def file(self, text: str = MINIMAL) -> str:
        path = self.directory / "config.yml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    def environment(self, **more: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("REGISTRY_")}
        return {**kept, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore", **more}

    def run_command(self, *command: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            capture_output=True,
            check=False,
            cwd=self.directory,
            encoding="utf-8",
            env=self.environment(**environ),
            stdin=subprocess.DEVNULL,
            timeout=60,
        )

    def regd(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return self.run_command(*REGD, *arguments, **environ)

    def twistd(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run_command(*TWISTD, "--nodaemon", "--pidfile=", *arguments)


class RegdTests(CommandCase):
    def test_version(self) -> None:
        for argument in ("--version", "-v"):
            done = self.regd(argument)
            self.assertEqual((done.returncode, done.stdout, done.stderr), (0, f"regd {__version__}\n", ""))

    def test_usage(self) -> None:
        for arguments in ((), ("nonsense",), ("serve", "a", "b"), ("--nonsense",)):
            done = self.regd(*arguments)
            self.assertEqual((done.returncode, done.stdout), (2, ""))
            self.assertIn("usage: ", done.stderr)
        done = self.regd("--help")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        for word in ("serve", "check-config", "twistd regd"):
            self.assertIn(word, done.stdout)

    def test_check_config(self) -> None:
        good = self.file()
        done = self.regd("check-config", good)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn("regd starts with this configuration", done.stdout)
        done = self.regd("check-config", REGISTRY_CONFIGURATION_PATH=good)
        self.assertEqual(done.returncode, 0)
        bad = self.file(MINIMAL + "http: {addr: nonsense}\n")
        done = self.regd("check-config", bad)
        self.assertEqual((done.returncode, done.stderr), (1, ""))
        self.assertIn("error: http.addr", done.stdout)
        done = self.regd("check-config", str(self.directory / "none"))
        self.assertEqual((done.returncode, done.stderr), (1, ""))

    def test_serve_with_a_bad_file(self) -> None:
        for path in (self.file("version: 9\n"), str(self.directory / "none")):
            self.one_line(self.regd("serve", path))

    def one_line(self, done: subprocess.CompletedProcess[str]) -> None:
        """It ended at once, and said why in one line."""
        self.assertEqual((done.returncode, done.stdout), (1, ""), done)
        self.assertTrue(done.stderr.startswith("regd: "), done.stderr)
        self.assertEqual(done.stderr.count("\n"), 1, done.stderr)

    def test_serve(self) -> None:
        """It serves, and ends well when it is asked to."""
        path = self.file(MINIMAL + "http: {addr: '127.0.0.1:0'}\n")
        with (self.directory / "log").open("w+", encoding="utf-8") as log:
            daemon = subprocess.Popen(
                [*REGD, "serve", path], cwd=self.directory, env=self.environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
            try:
                end = time.monotonic() + 30
                while " serves http://127.0.0.1:" not in self.text(log.name) and daemon.poll() is None and time.monotonic() < end:
                    time.sleep(0.05)
                daemon.terminate()
                status = daemon.wait(30)
            finally:
                daemon.kill()
                daemon.wait()
        text = self.text(log.name)
        self.assertIn("serves http://127.0.0.1:", text)
        self.assertIn('msg="stopped"', text)
        # twistd ends by the signal that it was asked with.
        self.assertEqual(status, -signal.SIGTERM, text)
        self.assertTrue(all(line.startswith("time=") for line in text.splitlines()), text)

    def text(self, path: str) -> str:
        return Path(path).read_text(encoding="utf-8")


class TwistdTests(CommandCase):
    def test_help(self) -> None:
        done = self.twistd("--help")
        self.assertIn("A container registry daemon", done.stdout)
        done = self.twistd("regd", "--help")
        self.assertEqual(done.returncode, 0)
        self.assertIn("--config", done.stdout)

    def test_version(self) -> None:
        done = self.twistd("regd", "--version")
        self.assertEqual((done.returncode, done.stdout), (0, f"regd {__version__}\n"))

    def test_bad_options(self) -> None:
        done = self.twistd("regd", "--nonsense")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("nonsense", done.stdout + done.stderr)

    def test_a_bad_file(self) -> None:
        for arguments in (("--config", self.file("version: 9\n")), ("-c", str(self.directory / "none"))):
            done = self.twistd("regd", *arguments)
            self.assertEqual((done.returncode, done.stdout), (1, ""), done)
            self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
            self.assertNotIn("Traceback", done.stderr)

    def test_a_start_that_fails(self) -> None:
        """One line in the log says why, and the status is not 0."""
        blocked = self.directory / "file"
        blocked.write_text("x", encoding="ascii")
        path = self.file(f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {blocked}}}}}\nhttp: {{addr: '127.0.0.1:0'}}\n")
        done = self.twistd("regd", "-c", path)
        self.assertEqual(done.returncode, 1, done)
        (line,) = [line for line in done.stderr.splitlines() if "level=error" in line]
        self.assertIn("cannot start", line)
        self.assertIn(str(blocked), line)
        self.assertNotIn("Traceback", done.stderr)


class InProcessTests(CommandCase):
    """What needs no process of its own."""

    def test_statuses(self) -> None:
        self.assertEqual(main(["check-config", self.file()]), 0)
        self.assertEqual(main(["check-config", str(self.directory / "none")]), 1)
        self.assertEqual(self.assertRaises(SystemExit, main, ["--version"]).code, 0)
        self.assertEqual(self.assertRaises(SystemExit, main, []).code, 2)
