"""
A Docker Engine of the test's own: ``dockerd`` with its own containerd, socket
and storage, which shares nothing with an engine that the machine may run.
"""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.e2e.daemon import clean_environment
from tests.e2e.process import SEARCH_PATH, Program, need, need_root, wait_until

__all__ = ["Engine", "mount_cgroups", "unmount_below"]

MOUNTS = Path("/proc/self/mounts")
CGROUPS = Path("/sys/fs/cgroup")


class Engine:
    """
    ``dockerd`` and the ``docker`` command that talks to it. It makes no network
    of its own and touches no firewall; a registry on 127.0.0.0/8 it speaks plain
    HTTP with, as every Docker Engine does.

    :param directory: For its storage, socket and log; a short path, because a
        socket's path has at most 107 bytes.
    :param settings: its ``daemon.json``, where it is to have one.
    :raises SkipTest: Where the programs or root are missing.
    """

    def __init__(self, directory: Path, settings: Mapping[str, object] | None = None) -> None:
        need("docker", "dockerd", "containerd", "runc")
        need_root()
        directory.mkdir(parents=True)
        self.directory = directory
        socket = directory / "docker.sock"
        self.environment = clean_environment(directory) | {
            "DOCKER_HOST": f"unix://{socket}",
            "DOCKER_CONFIG": str(directory / "client"),
            # The classic builder is in the engine; the other is a program of its own, and Debian does not have it.
            "DOCKER_BUILDKIT": "0",
            "PATH": SEARCH_PATH,
        }
        # The command has to fit the daemon: Debian's own goes before others on the path.
        beside = Path("/usr/bin/docker")
        self.docker = str(beside) if beside.exists() else str(shutil.which("docker"))
        given: tuple[str, ...] = ()
        if settings is not None:
            (directory / "daemon.json").write_text(json.dumps(settings), encoding="utf-8")
            given = ("--config-file", str(directory / "daemon.json"))
        self.program = Program(
            [
                str(shutil.which("dockerd", path=SEARCH_PATH)),
                *("--iptables=false", "--ip6tables=false", "--bridge=none", "--storage-driver=vfs"),
                *("--data-root", str(directory / "data"), "--exec-root", str(directory / "exec")),
                *("--pidfile", str(directory / "pid"), "-H", f"unix://{socket}"),
                *given,
            ],
            directory / "log",
            self.environment,
            directory,
        )

    def start(self) -> None:
        """Start the engine, and come back when it answers."""
        mount_cgroups()
        self.program.start()
        self.program.wait_ready(lambda: self.try_run("version").returncode == 0, seconds=60)

    def stop(self) -> None:
        """End the engine, its containerd and what they mounted. Safe to call at any time."""
        containerd = self.directory / "exec" / "containerd" / "containerd.pid"
        pid = int(containerd.read_text(encoding="ascii")) if containerd.exists() else None
        try:
            self.program.stop()
        finally:
            if pid is not None and is_containerd(pid):
                os.kill(pid, signal.SIGKILL)
                wait_until(lambda: not is_containerd(pid), 10, "containerd to end")
            unmount_below(self.directory)

    def try_run(self, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[str]:
        """
        Run one ``docker`` command.

        :param arguments: What stands after ``docker``.
        :param stdin: Its standard input.
        :return: The finished process, its output as text.
        """
        done = subprocess.run(
            [self.docker, *arguments], input=stdin, env=self.environment, capture_output=True, check=False, timeout=300
        )
        return subprocess.CompletedProcess(
            done.args, done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        )

    def run(self, *arguments: str, stdin: bytes = b"") -> str:
        """
        Run one ``docker`` command that has to succeed.

        :param arguments: As in :meth:`try_run`.
        :param stdin: As in :meth:`try_run`.
        :return: What it printed, without white space around it.
        :raises AssertionError: When it fails, with all it printed and the end of the engine's log.
        """
        done = self.try_run(*arguments, stdin=stdin)
        if done.returncode:
            raise AssertionError(
                f"docker {' '.join(arguments)} exited {done.returncode}:\n{done.stdout}{done.stderr}\n{self.program.tail(10)}"
            )
        return done.stdout.strip()

    def inspect(self, image: str, field: str) -> str:
        """
        :param image: The name or id of an image.
        :param field: A Go template of one field, such as ``{{.Id}}``.
        :return: The field.
        """
        return self.run("image", "inspect", "--format", field, image)

    def inspect_container(self, container: str, field: str) -> str:
        """
        :param container: The name or id of a container.
        :param field: As in :meth:`inspect`.
        :return: The field.
        """
        return self.run("container", "inspect", "--format", field, container)


def mount_cgroups() -> None:
    """
    Mount the control groups where nobody has: an engine does not start without them.
    A machine with an init system has them; a bare one may not.
    """
    if any(line.split()[2] in ("cgroup", "cgroup2") for line in MOUNTS.read_text(encoding="utf-8").splitlines()):
        return
    subprocess.run(["mount", "-t", "cgroup2", "cgroup2", str(CGROUPS)], check=True)


def is_containerd(pid: int) -> bool:
    """
    :param pid: A process id that may have been given to another process since.
    :return: Whether containerd has it.
    """
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip() == "containerd"
    except (FileNotFoundError, ProcessLookupError):
        return False


def unmount_below(directory: Path) -> None:
    """
    Unmount all that an engine that was killed left mounted, the deepest first.

    :param directory: Where to look; the directory itself is left.
    """
    points = [line.split()[1] for line in MOUNTS.read_text(encoding="utf-8").splitlines()]
    for point in sorted((point for point in points if Path(point).is_relative_to(directory)), reverse=True):
        subprocess.run(["umount", "--lazy", point], check=True)
