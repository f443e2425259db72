"""
The quick start of the README: its commands as they stand there. Those of the package are tried in test_package.py, and here it is only
compared that they are the same.
"""

import os
import re
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

from tests.e2e.daemon import ROOT
from tests.e2e.images import noise
from tests.e2e.process import Program, free_port, need
from tests.e2e.rawhttp import Client, digest_of
from tests.e2e.test_package import answers, check_out

BY_PACKAGE = ["sudo make deb", "sudo apt install ./dist/regd_*.deb"]


def commands(heading: str) -> list[str]:
    """
    :param heading: How the paragraph before them begins.
    :return: The lines of the README that a reader types.
    """
    text = (ROOT / "README.rst").read_text(encoding="utf-8")
    match = re.search(rf"(?m)^{heading}[^:]*(?:[^\n]|\n(?!\n))*::\n\n((?:    .*\n)+)", text)
    assert match, heading
    return [line.strip() for line in match[1].splitlines()]


def environment() -> dict[str, str]:
    """
    :return: Ours, in which pip finds its index, without what would say something to Python or to regd.
    """
    return {name: value for name, value in os.environ.items() if not name.startswith(("REGISTRY_", "PYTHON", "VIRTUAL_ENV"))}


class QuickStartTest(unittest.TestCase):
    def test_by_package(self) -> None:
        self.assertEqual(commands("By package"), BY_PACKAGE)

    def test_by_pip(self) -> None:
        need("git", "tar", "sh")
        directory = Path(tempfile.mkdtemp(prefix="regd-test-"))
        self.addCleanup(shutil.rmtree, directory)
        checkout = directory / "regd"
        check_out(checkout)
        lines = commands("By pip")
        port = free_port()
        before, last = lines[:-1], lines[-1]
        # The last one becomes the process of the shell, so that what is stopped is regd and not a shell before it.
        script = "\n".join(["set -e", f"export REGISTRY_HTTP_ADDR=127.0.0.1:{port}", *before, f"exec {last}"])
        program = Program(["sh", "-c", script], directory / "log", environment(), checkout)
        self.addCleanup(program.stop)
        program.start()
        program.wait_ready(lambda: answers(port), 240)
        content = noise(100_000, seed=1)
        client = Client(port)
        self.assertEqual(client.push_blob("library/hello", content), digest_of(content))
        self.assertEqual(client.get(f"/v2/library/hello/blobs/{digest_of(content)}").body, content)
        self.assertTrue((checkout / "images/docker").is_dir())
        done = subprocess.run(
            ["environment/bin/regd", "check-config", "etc/regd/config.yml"], cwd=checkout, capture_output=True, check=False, timeout=60
        )
        self.assertEqual(done.returncode, 0, done.stderr)
