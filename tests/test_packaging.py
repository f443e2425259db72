"""
What the package says of the project agrees with the project: version,
dependencies, the options that completion offers, the manual pages.
"""

import argparse
import re
import shutil
import subprocess
import tempfile
import tomllib
from pathlib import Path

import yaml
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from regd import __version__, cli
from regd.config import keys, load

ROOT = Path(__file__).resolve().parent.parent
DEBIAN = ROOT / "debian"


def commands() -> dict[str, set[str]]:
    """
    :return: The long options of each command of ``regd``; of none, under an empty name.
    """
    parser = cli._parser()
    (subparsers,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    found = {"": parser, **subparsers.choices}
    said = {name: [option for action in one._actions for option in action.option_strings] for name, one in found.items()}
    return {name: {option for option in options if option.startswith("--")} for name, options in said.items()}


def vendored() -> dict[str, str]:
    """
    :return: Names, in lower case, and versions in ``debian/vendor.txt``.
    """
    lines = (DEBIAN / "vendor.txt").read_text(encoding="utf-8").splitlines()
    pinned = re.compile(r"([A-Za-z0-9._-]+)==([0-9.]+) --hash=sha256:[0-9a-f]{64}")
    matches = [pinned.fullmatch(line) for line in lines if not line.startswith("#")]
    assert all(matches), lines
    return {match[1].lower().replace("_", "-"): match[2] for match in matches if match}


def numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall("[0-9]+", version)))


class PackagingTest(SynchronousTestCase):
    def test_version(self) -> None:
        newest = (DEBIAN / "changelog").read_text(encoding="utf-8").split("\n", 1)[0]
        match = re.fullmatch(r"regd \((.*)\) \S+; urgency=\w+", newest)
        assert match, newest
        # 1.0.0rc1 comes before 1.0.0, and Debian writes that with a tilde.
        self.assertEqual(match[1].replace("~", ""), __version__)

    def test_every_dependency_is_in_the_package(self) -> None:
        """From PyPI, in a version that will do; or from Debian."""
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        packages = {"pyjwt": "python3-jwt", "pyopenssl": "python3-openssl", "pyyaml": "python3-yaml"}
        packages |= {name: f"python3-{name}" for name in ("bcrypt", "cryptography")}
        control = (DEBIAN / "control").read_text(encoding="utf-8").partition("\nPackage: ")[2]
        pinned = vendored()
        for requirement in project["dependencies"]:
            match = re.fullmatch(r"([A-Za-z-]+)>=([0-9.]+)", requirement)
            assert match, requirement
            name = match[1].lower()
            if name in packages:
                self.assertIn(f"\n {packages[name]},", control)
            else:
                self.assertGreaterEqual(numbers(pinned[name]), numbers(match[2]), name)

    def test_every_module_of_debian_has_its_package(self) -> None:
        rules = (DEBIAN / "rules").read_text(encoding="utf-8")
        modules = re.findall(r"(?m)^DEBIAN_MODULES := (.*)$", rules)[0].split()
        expected = "OpenSSL _cffi_backend _yaml attr attrs bcrypt cryptography idna jwt markupsafe pyasn1 pyasn1_modules yaml"
        self.assertEqual(modules, expected.split())
        depends = re.findall(r"(?m)^ (python3-[a-z0-9-]+),$", (DEBIAN / "control").read_text(encoding="utf-8").partition("\nPackage: ")[2])
        names = ["attr", "bcrypt", "cffi-backend", "cryptography", "idna", "jwt", "markupsafe", "openssl"]
        names += ["pyasn1", "pyasn1-modules", "yaml"]
        self.assertEqual(depends, [f"python3-{name}" for name in names])

    def test_every_lintian_override_is_explained(self) -> None:
        lines = (DEBIAN / "regd.lintian-overrides").read_text(encoding="utf-8").splitlines()
        for before, line in zip(["", *lines], lines, strict=False):
            if not line.startswith("#"):
                same = before.split(" ")[:2] == line.split(" ")[:2]
                self.assertTrue(before.startswith("#") or same, f"no comment before: {line}")

    def test_completion_for_bash(self) -> None:
        if shutil.which("bash") is None:
            raise SkipTest("needs bash")
        for name, options in commands().items():
            words = ["regd", *([name] if name else []), "-"]
            self.assertEqual(complete(words), options, name)
        self.assertLessEqual(commands().keys() - {""}, complete(["regd", ""]))

    def test_completion_for_zsh(self) -> None:
        text = (ROOT / "etc/completion/_regd").read_text(encoding="utf-8")
        parts = re.split(r"(?m)^            ([a-z|-]+)\)$", text)
        branches = {name: part for names, part in zip(parts[1::2], parts[2::2], strict=True) for name in names.split("|")}
        self.assertEqual(branches.keys(), commands().keys() - {""})
        for name, options in commands().items():
            said = set(re.findall(r"--[a-z-]+", branches.get(name, parts[0])))
            self.assertEqual(said, options, name)
            if name:
                self.assertIn(f"\n    '{name}:", text)

    def test_the_image_starts_without_a_file_and_without_a_warning(self) -> None:
        loaded = load(str(ROOT / "etc/image/config.yml"), {})
        self.assertEqual(loaded.warnings, ())
        self.assertEqual(str(loaded.config.http.addr), ":5000")
        # docker stop waits for ten seconds.
        self.assertLess(loaded.config.http.draintimeout, 10)

    def test_the_compose_file_is_one_service(self) -> None:
        """As ``registry:2`` is run, but for the image, and the port that nginx had."""
        text = (ROOT / "etc/compose/docker-compose.yml").read_text(encoding="utf-8")
        service = {
            "image": "regd",
            "restart": "always",
            "volumes": ["/data/registry:/var/lib/registry", "./config/registry/:/etc/registry/"],
            "command": ["serve", "/etc/registry/config.yml"],
            "ports": ["80:5000"],
        }
        self.assertEqual(yaml.safe_load(text), {"version": "2", "services": {"registry": service}})

    def test_manual_page(self) -> None:
        text = (ROOT / "docs/man/regd.8.rst").read_text(encoding="utf-8")
        for name, options in commands().items():
            self.assertIn(f"**regd {name}**" if name else "**regd --version**", text)
            for option in options - {"--help", "--version"}:
                self.assertIn(f"**{option}**", text)

    def test_manual_page_of_the_configuration(self) -> None:
        """Each key of the tables is an entry of a list, with its default."""
        done = subprocess.run([DEBIAN / "manual", ROOT / "docs/man/regd.config.5.rst"], capture_output=True, check=True)
        page = done.stdout.decode()
        self.assertNotIn("list-table", page)
        self.assertNotIn("* - ", page)
        for key in keys.OBEYED:
            self.assertIn(f"``{key.path}``", page)
        self.assertIn("\n``http.draintimeout`` (default: ``0s``)\n   ", page)


def complete(words: list[str]) -> set[str]:
    """
    :param words: A command line, of which the last word is not complete.
    :return: What bash would offer for it.
    """
    # Of the package bash-completion, whose own function is for interactive shells.
    script = """
_init_completion() { words=("${COMP_WORDS[@]}"); cword=$COMP_CWORD; cur=${words[cword]}; prev=${words[cword-1]}; }
_filedir() { :; }
. "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
_regd
printf '%s\\n' "${COMPREPLY[@]}"
"""
    with tempfile.TemporaryDirectory() as directory:
        done = subprocess.run(
            ["bash", "-c", script, "bash", str(ROOT / "etc/completion/regd"), *words],
            cwd=directory,
            capture_output=True,
            check=True,
        )
    return set(done.stdout.decode().split())
