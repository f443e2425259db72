"""
The project itself: one version, a plugin that twistd finds once installed, and
files that hold on any machine.
"""

import importlib.metadata
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

import regd

ROOT = Path(__file__).resolve().parent.parent

# What prints, from outside the project, where twistd looks and what it finds.
FIND_PLUGIN = """
import sys
import twisted.plugins
from twisted.application.service import IServiceMaker
from twisted.plugin import getPlugins
print(*twisted.plugins.__path__)
print(*(maker.module for maker in getPlugins(IServiceMaker) if maker.tapname == "regd"))
"""


def run(*command: str, cwd: str, path: str = "") -> subprocess.CompletedProcess[str]:
    """
    :param command: The program and its arguments.
    :param cwd: The directory to run it in.
    :param path: ``PYTHONPATH`` for it.
    :return: The finished process, with its output as text; its status is 0.
    """
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": path, "HOME": cwd}
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    if done.returncode:
        raise AssertionError(f"{command} exited {done.returncode}:\n{done.stdout}{done.stderr}")
    return done


class VersionTest(SynchronousTestCase):
    def test_version_has_one_source(self) -> None:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
        self.assertIn("version", project["project"]["dynamic"])
        self.assertNotIn("version", project["project"])
        self.assertEqual(project["tool"]["hatch"]["version"]["path"], "regd/__init__.py")
        self.assertRegex(regd.__version__, r"^\d+\.\d+\.\d+([ab]|rc|\.dev)?\d*$")


class WheelTest(SynchronousTestCase):
    """``pip install .`` installs what this wheel holds."""

    def test_twistd_finds_the_installed_plugin(self) -> None:
        directory = tempfile.mkdtemp(prefix="regd-wheel-")
        self.addCleanup(shutil.rmtree, directory)
        run(
            *(sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"),
            *("--no-deps", "--no-build-isolation", "--wheel-dir", directory, str(ROOT)),
            cwd=directory,
        )
        (wheel,) = Path(directory).glob("*.whl")
        self.assertTrue(wheel.name.startswith(f"regd-{regd.__version__}-"), wheel.name)
        site = Path(directory, "site")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)
            names = set(archive.namelist())
        self.assertIn("twisted/plugins/regd_plugin.py", names)
        self.assertNotIn("twisted/__init__.py", names)
        self.assertNotIn("twisted/plugins/__init__.py", names)
        self.assertIn("regd/py.typed", names)
        self.assertFalse([name for name in names if name.startswith("tests/")])

        looked_in, found = run(
            sys.executable, "-c", FIND_PLUGIN, cwd=directory, path=str(site)
        ).stdout.splitlines()
        self.assertIn(f"{site}/twisted/plugins", looked_in.split())
        self.assertEqual(found, "regd.service")

    def test_twistd_knows_the_command_where_regd_is_installed(self) -> None:
        try:
            importlib.metadata.version("regd")
        except importlib.metadata.PackageNotFoundError:
            raise SkipTest("regd is not installed for this interpreter; make test installs it") from None
        twistd = Path(sys.executable).with_name("twistd")
        listed = run(str(twistd), "--help", cwd="/").stdout
        self.assertRegex(listed, r"(?m)^\s+regd\s+A container registry daemon\.$")


class ContinuousIntegrationTest(SynchronousTestCase):
    """What CI skips, nobody tests: ``tests/conftest.py`` fails it."""

    def run_a_skip(self, ci: str) -> int:
        """
        :param ci: The variable CI.
        :return: The exit status of pytest on one test that skips.
        """
        directory = tempfile.mkdtemp(prefix="regd-skip-")
        self.addCleanup(shutil.rmtree, directory)
        Path(directory, "test_skip.py").write_text(
            "import unittest\n\nclass Skips(unittest.TestCase):\n    def test(self):\n        self.skipTest('no')\n", encoding="utf-8"
        )
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "tests.conftest", directory],
            cwd=directory,
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "CI": ci},
            capture_output=True,
            check=False,
            timeout=120,
        )
        return done.returncode

    def test_a_skip_fails_in_ci(self) -> None:
        self.assertEqual(self.run_a_skip("true"), 1)

    def test_a_skip_passes_elsewhere(self) -> None:
        self.assertEqual(self.run_a_skip(""), 0)


class PortableTest(SynchronousTestCase):
    """Nothing that is kept knows the machine that it was written on."""

    # Homes, mounts and work trees. The paths that every Debian machine has
    # (/usr, /etc, /var, /run, /tmp, /proc) are fine.
    machine_path = re.compile(r"(?<![\w.$}~-])/(?:home|root|Users|mnt|work)/\w")

    def tracked(self) -> list[Path]:
        """
        :return: The files that git knows; the test does not apply to an unpacked sdist.
        """
        if not (ROOT / ".git").exists():
            return []
        listed = run("git", "-c", f"safe.directory={ROOT}", "ls-files", "-z", cwd=str(ROOT)).stdout
        return [ROOT / name for name in listed.split("\0") if name]

    def test_no_path_of_a_machine(self) -> None:
        found = []
        for path in self.tracked():
            if not path.is_file():
                continue
            for number, line in enumerate(path.read_bytes().splitlines(), 1):
                if match := self.machine_path.search(line.decode("utf-8", "replace")):
                    found.append(f"{path.relative_to(ROOT)}:{number}: {match[0]}")
        self.assertEqual(found, [])

    def test_shebangs_are_executable(self) -> None:
        for path in self.tracked():
            if path.is_file() and path.read_bytes().startswith(b"#!"):
                self.assertTrue(path.stat().st_mode & 0o111, f"{path.name} has #! and no x")
