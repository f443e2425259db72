"""What the end-to-end test cases share: a directory, a server, and tools that leave nothing behind."""

import subprocess
import tempfile
import unittest
from pathlib import Path
from typing import ClassVar, Protocol

from tests.e2e.daemon import Server, clean_environment, server
from tests.e2e.process import SEARCH_PATH, need

__all__ = ["E2ETestCase", "ServerTestCase", "Tool"]

ACCEPT_ANYTHING = '{"default": [{"type": "insecureAcceptAnything"}]}'


class Tool:
    """
    A command line program with a home of its own.

    :param directory: Its home, and where it may keep things.
    :param command: The program with the options that stand before any command.
    :raises SkipTest: Where it is not installed.
    """

    def __init__(self, directory: Path, *command: str) -> None:
        need(command[0])
        self.command = command
        self.environment = clean_environment(directory) | {"PATH": SEARCH_PATH, "XDG_RUNTIME_DIR": str(directory)}
        policy = directory / ".config" / "containers" / "policy.json"
        if not policy.exists():
            policy.parent.mkdir(parents=True)
            policy.write_text(ACCEPT_ANYTHING, encoding="ascii")

    def try_run(self, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """
        :param arguments: What stands after the program and its first options.
        :param stdin: Its standard input.
        :return: The finished process.
        """
        return subprocess.run(
            [*self.command, *arguments], input=stdin, env=self.environment, capture_output=True, check=False, timeout=120
        )

    def run(self, *arguments: str, stdin: bytes = b"") -> bytes:
        """
        Run it; it has to succeed.

        :param arguments: As in :meth:`try_run`.
        :param stdin: As in :meth:`try_run`.
        :return: What it printed.
        :raises AssertionError: When it fails, with what it said.
        """
        done = self.try_run(*arguments, stdin=stdin)
        if done.returncode:
            raise AssertionError(f"{' '.join(self.command)} {' '.join(arguments)}: {done.stderr.decode(errors='replace')}")
        return done.stdout


class _Startable(Protocol):
    def start(self) -> None:
        """Come back when it can be used."""

    def stop(self) -> object:
        """Safe to call at any time."""


class E2ETestCase(unittest.TestCase):
    """A test case with a directory of its own, removed at the end."""

    directory: ClassVar[Path]
    longMessage = True

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        # A short name: the sockets of an engine are below it.
        directory = tempfile.TemporaryDirectory(prefix="regd-")
        cls.addClassCleanup(directory.cleanup)
        cls.directory = Path(directory.name)

    @classmethod
    def run_for_all(cls, daemon: _Startable) -> None:
        """
        :param daemon: Is started, and stopped when all tests of the class are through, or it could not be started.
        """
        cls.addClassCleanup(daemon.stop)
        daemon.start()


class ServerTestCase(E2ETestCase):
    """A test case with one server that all its tests talk to."""

    server: ClassVar[Server]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.server = server(cls.directory / "server")
        cls.run_for_all(cls.server)
