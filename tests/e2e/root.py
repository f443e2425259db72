"""
A Debian of the test's own: a root directory as debootstrap makes it, in which
programs run by chroot, or systemd by systemd-nspawn. What is mounted there is
mounted in a mount namespace of each program, and gone with it.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.e2e.process import need, need_root

__all__ = ["Root"]

MIRROR = os.environ.get("REGD_E2E_MIRROR", "http://deb.debian.org/debian")

# What a program in the root is started by: mounts, and what is behind them gone with the namespaces.
ENTER = """
set -e
cd "$1"
mount --bind . .
cd "$1"
mount -t proc proc proc
mount --rbind /sys sys
mount --rbind /dev dev
shift
exec chroot . "$@"
"""

# The machine's own settings for package indexes; without them a chroot may not reach one.
OF_THE_MACHINE = ("/etc/resolv.conf", "/etc/hosts", "/etc/ssl/certs/ca-certificates.crt", "/etc/pip.conf")


class Root:
    """
    :param directory: Its ``/``.
    :raises SkipTest: Where programs or root are missing.
    """

    def __init__(self, directory: Path) -> None:
        need("debootstrap", "unshare", "chroot")
        need_root()
        self.directory = directory

    def make(self, suite: str) -> None:
        """
        :param suite: Debian's name for a release.
        """
        command = ["debootstrap", "--variant=minbase", "--include=ca-certificates", suite, str(self.directory), MIRROR]
        checked(subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, timeout=1200))
        security = MIRROR.removesuffix("/") + "-security"
        sources = [f"deb {MIRROR} {suite} main", f"deb {MIRROR} {suite}-updates main", f"deb {security} {suite}-security main"]
        (self.directory / "etc/apt/sources.list").write_text("\n".join([*sources, ""]), encoding="ascii")
        for path in map(Path, OF_THE_MACHINE):
            if path.exists():
                copy = self.directory / path.relative_to("/")
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, copy)
        self.run("apt-get", "-qq", "update")

    def copy(self, directory: Path) -> "Root":
        """
        :param directory: Where to make it.
        :return: Another one that is the same.
        """
        checked(subprocess.run(["cp", "--archive", "--reflink=auto", str(self.directory), str(directory)], check=False, timeout=600))
        return Root(directory)

    def install(self, *packages: str) -> None:
        """
        :param packages: Names, or paths of packages in it.
        """
        self.run("apt-get", "-qq", "install", "--yes", "--no-install-recommends", *packages)

    def command(self, *command: str) -> list[str]:
        """
        :param command: A program in it.
        :return: What starts it from outside; the process becomes the program.
        """
        return ["unshare", "--mount", "--propagation=private", "sh", "-c", ENTER, "sh", str(self.directory), *command]

    def run(self, *command: str, cwd: str = "/") -> str:
        """
        :param command: A program in it, which has to succeed.
        :param cwd: The directory it starts in.
        :return: What it printed.
        """
        started = self.command("sh", "-c", 'cd "$1" && shift && exec "$@"', "sh", cwd, *command)
        done = subprocess.run(
            started,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            timeout=1200,
        )
        return checked(done)

    def boot(self, seconds: int) -> str:
        """
        Let systemd run it until it powers off.

        :param seconds: How long that may take.
        :return: What was on its console.
        """
        need("systemd-nspawn")
        # Nothing of it is told to a systemd that runs the machine, and nothing of it outlives this.
        command = ["systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--private-network", f"--directory={self.directory}"]
        apart = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "timeout", "--signal=KILL", str(seconds)]
        done = subprocess.run(
            [*apart, *command, "--boot"],
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        return done.stdout.decode(errors="replace")


def environment() -> dict[str, str]:
    """
    :return: The environment of a program in a root.
    """
    settings = ("PIP_INDEX_URL", "PIP_DEFAULT_TIMEOUT", "http_proxy", "https_proxy")
    return {name: os.environ[name] for name in settings if name in os.environ} | {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "DEBIAN_FRONTEND": "noninteractive",
        "PIP_CERT": OF_THE_MACHINE[2],
    }


def checked(done: "subprocess.CompletedProcess[bytes]") -> str:
    """
    :param done: A program that has ended.
    :return: What it printed.
    :raises AssertionError: When it failed.
    """
    said = (done.stdout or b"").decode(errors="replace")
    if done.returncode:
        raise AssertionError(f"{shown(done.args)} exited {done.returncode}:\n{said[-8000:]}")
    return said


def shown(command: Sequence[str]) -> str:
    """
    :param command: A command line.
    :return: It without the script that enters a root.
    """
    return " ".join(part for part in command if part != ENTER)


if __name__ == "__main__":
    # python -m tests.e2e.root SUITE DIRECTORY: one to look at things in.
    Root(Path(sys.argv[2])).make(sys.argv[1])
