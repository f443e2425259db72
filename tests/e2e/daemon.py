"""
A registry as a process: regd under ``twistd``, or, to see that a test asks for
what users have today, Debian's ``docker-registry``. Both take the same
configuration file and the same directory.
"""

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import regd
from tests.e2e.process import Memory, Program, free_port, need
from tests.e2e.rawhttp import Client

__all__ = ["ROOT", "SECRET", "SOURCES", "Daemon", "Peer", "Regd", "Server", "clean_environment", "regd_command", "server"]

# The sources of the regd that the tests import, whichever is installed.
ROOT = Path(regd.__file__).resolve().parent.parent

# The way to them.
SOURCES = {"PYTHONPATH": str(ROOT)}

# Signs the state of uploads; the same for every server, as in a cluster.
SECRET = "asecretforthetests"

CONFIGURATION = """\
version: 0.1
log:
  level: info
  fields:
    service: registry
storage:
  cache:
    blobdescriptor: inmemory
  filesystem:
    rootdirectory: {data}
  maintenance:
    uploadpurging:
      enabled: false
    readonly:
      enabled: false
  delete:
    enabled: true
http:
  addr: 127.0.0.1:{port}
  secret: {secret}
"""


def clean_environment(home: Path) -> dict[str, str]:
    """
    :param home: The home directory for the program.
    :return: An environment without proxies, ``REGISTRY_*`` and other people's settings.
    """
    kept = ("PATH", "LANG", "LC_ALL", "TMPDIR")
    return {name: os.environ[name] for name in kept if name in os.environ} | {"HOME": str(home)}


def regd_command(configuration: Path) -> list[str]:
    """
    :param configuration: The file that it goes by.
    :return: The command line that the README gives, in the environment of the interpreter that runs the tests.
    """
    twistd = Path(sys.executable).with_name("twistd")
    return [str(twistd), "--nodaemon", "--pidfile=", "regd", "-c", str(configuration)]


class Daemon:
    """
    A program that speaks HTTP on 127.0.0.1, with its files in one directory. It
    may be stopped and started again, on the same port, any number of times.

    :param directory: It need not be there yet.
    """

    prefix = ""
    program: Program

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.port = free_port()
        self.client = Client(self.port)

    def runs(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """
        Say what is started.

        :param command: The program and its arguments.
        :param environment: Variables besides the usual ones.
        """
        self.program = Program(command, self.directory / "log", clean_environment(self.directory) | dict(environment), self.directory)

    @property
    def host(self) -> str:
        """What stands before the repository in the name of an image: ``127.0.0.1:port``."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, and come back when it answers."""
        self.program.start()
        self.program.wait_ready(self._answers)

    def _answers(self) -> bool:
        try:
            # One that asks who one is answers, too.
            return self.client.get(f"{self.prefix}/v2/").status in {200, 401}
        except OSError:
            return False

    def stop(self) -> int | None:
        """
        Ask it to end, and wait for that. Safe to call at any time.

        :return: Its exit status.
        """
        return self.program.stop(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a crash would."""
        self.program.kill()


class Server(Daemon):
    """
    A registry.

    :param directory: Its configuration, log and, by default, data go here.
    :param data: The root directory of its storage.
    :param environment: Variables besides the usual ones; ``REGISTRY_*`` ones override the configuration.
    :param prefix: What stands before ``/v2/`` in its paths.
    """

    name = ""

    def __init__(
        self,
        directory: Path,
        data: Path | None = None,
        environment: Mapping[str, str] | None = None,
        prefix: str = "",
    ) -> None:
        super().__init__(directory)
        self.data = data or directory / "data"
        self.data.mkdir(exist_ok=True)
        self.prefix = prefix
        self.configuration = directory / "config.yml"
        self.configuration.write_text(
            CONFIGURATION.format(data=self.data, port=self.port, secret=SECRET), encoding="utf-8"
        )
        self.runs(self.command(), self.settings() | dict(environment or {}))

    def command(self) -> list[str]:
        """
        :return: The command line of the server.
        """
        raise NotImplementedError

    def settings(self) -> dict[str, str]:
        """
        :return: Variables that its program needs.
        """
        return {}

    def restart(self) -> None:
        """Stop it and start it again."""
        self.stop()
        self.start()

    def memory(self) -> Memory:
        """
        :return: What its process holds.
        """
        return self.program.memory()


class Regd(Server):
    """``twistd regd``, from the environment of the interpreter that runs the tests."""

    name = "regd"

    def command(self) -> list[str]:
        """
        :return: The command line that the README gives.
        """
        return regd_command(self.configuration)

    def settings(self) -> dict[str, str]:
        """
        :return: The way to the regd that the tests import, whichever is installed.
        """
        return SOURCES


class Peer(Server):
    """Debian's ``docker-registry``: CNCF distribution 2.8."""

    name = "docker-registry"

    def command(self) -> list[str]:
        """
        :return: The command line that its image and its unit use.
        """
        need("docker-registry")
        return ["docker-registry", "serve", str(self.configuration)]

    def settings(self) -> dict[str, str]:
        """
        :return: Switches its tracing off, which newer ones have on.
        """
        return {"OTEL_TRACES_EXPORTER": "none"}


def server(directory: Path) -> Server:
    """
    The server that the clients are to be tried against: regd, or with
    ``REGD_E2E_SERVER=docker-registry`` Debian's, to tell a fault of a test from one of regd.

    :param directory: Where its files go.
    :return: The server, not yet started.
    """
    return (Peer if os.environ.get("REGD_E2E_SERVER") == Peer.name else Regd)(directory)
