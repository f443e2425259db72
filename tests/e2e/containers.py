"""containerd with a place of its own, and ``ctr``, which pulls through a ``hosts.toml`` as Kubernetes' nodes do."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.e2e.daemon import clean_environment
from tests.e2e.engine import mount_cgroups, unmount_below
from tests.e2e.process import SEARCH_PATH, Program, need, need_root

__all__ = ["Containerd"]

# Only what pulling needs: without the plugin for Kubernetes it touches no network of the machine.
CONFIGURATION = """\
version = 2
root = "{directory}/root"
state = "{directory}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]
[grpc]
  address = "{directory}/containerd.sock"
[ttrpc]
  address = "{directory}/containerd.ttrpc"
"""


class Containerd:
    """
    containerd and the ``ctr`` that talks to it.

    :param directory: for all that is its own; a short path, because of its sockets.
    :raises SkipTest: where the programs or root are missing.
    """

    def __init__(self, directory: Path) -> None:
        need("containerd", "ctr")
        need_root()
        directory.mkdir(parents=True)
        self.directory = directory
        self.hosts = directory / "certs.d"
        self._environment = clean_environment(directory) | {"PATH": SEARCH_PATH}
        configuration = directory / "config.toml"
        configuration.write_text(CONFIGURATION.format(directory=directory), encoding="utf-8")
        self.program = Program(["containerd", "--config", str(configuration)], directory / "log", self._environment, directory)

    def start(self) -> None:
        """Start it, and come back when it answers."""
        mount_cgroups()
        self.program.start()
        self.program.wait_ready(lambda: self.try_run("version").returncode == 0, seconds=60)

    def stop(self) -> None:
        """End it, and unmount what it mounted. Safe to call at any time."""
        try:
            self.program.stop()
        finally:
            unmount_below(self.directory)

    def write_hosts(self, registry: str, content: str) -> None:
        """
        :param registry: whose images it is about: ``docker.io``.
        :param content: of its ``hosts.toml``.
        """
        path = self.hosts / registry / "hosts.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")

    def try_run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """
        :param arguments: what stands after ``ctr``.
        :return: the finished process.
        """
        return subprocess.run(
            ["ctr", "--address", str(self.directory / "containerd.sock"), *arguments],
            env=self._environment,
            capture_output=True,
            encoding="utf-8",
            check=False,
            timeout=120,
        )

    def run(self, *arguments: str) -> str:
        """
        Run a command that has to succeed.

        :return: what it printed.
        """
        done = self.try_run(*arguments)
        if done.returncode:
            raise AssertionError(f"ctr {' '.join(arguments)}:\n{done.stdout}{done.stderr}\n{self.program.tail(5)}")
        return done.stdout

    def pull(self, image: str) -> str:
        """
        :param image: as ``docker.io/library/alpine:3``.
        :return: what it printed.
        """
        # The native snapshotter copies, and so works on any file system.
        return self.run("images", "pull", "--snapshotter", "native", "--hosts-dir", str(self.hosts), image)
