"""regd as a cache of other registries, and a look at what it keeps and whom it talks to."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.e2e.daemon import SOURCES, Daemon, clean_environment, regd_command
from tests.e2e.process import free_port, wait_until
from tests.e2e.rawhttp import Client

__all__ = ["ANY", "Cache"]

CONFIGURATION = """\
version: 0.1
log: {{level: {level}}}
storage:
  filesystem: {{rootdirectory: {data}}}
  delete: {{enabled: true}}
http:
  addr: 127.0.0.1:{port}
  workers: {workers}
  draintimeout: 1s
  debug: {{addr: "127.0.0.1:{debug}"}}
proxy:
{proxy}
"""

#: What clients say that they take.
ANY = (
    "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, "
    "application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json"
)


class Cache(Daemon):
    """
    regd with a section ``proxy``.

    :param proxy: what stands in that section, each line indented by two spaces.
    :param workers: how many.
    :param data: the root directory of its storage, where there is one already.
    :param level: of its log.
    :param environment: further variables.
    """

    def __init__(
        self,
        directory: Path,
        proxy: str,
        *,
        workers: int = 1,
        data: Path | None = None,
        level: str = "info",
        environment: dict[str, str] | None = None,
    ) -> None:
        super().__init__(directory)
        self.data = data or directory / "data"
        self.data.mkdir(exist_ok=True)
        self.debug = free_port()
        self.configuration = directory / "config.yml"
        self._made = {"data": self.data, "port": self.port, "debug": self.debug, "workers": workers, "level": level}
        self.configure(proxy)
        self.runs(regd_command(self.configuration), SOURCES | (environment or {}))

    def configure(self, proxy: str) -> None:
        """Write the configuration anew; SIGHUP makes it count."""
        self.configuration.write_text(CONFIGURATION.format(proxy=proxy, **self._made), encoding="utf-8")

    def kill(self) -> None:
        """End all of it as a power cut would."""
        children = self.program.children()
        self.program.kill()
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        wait_until(lambda: not any(Path(f"/proc/{child}").exists() for child in children), 10, "the workers to end with it")

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """
        :param arguments: what stands between ``regd`` and the configuration.
        :return: the finished process.
        """
        return subprocess.run(
            [str(Path(sys.executable).with_name("regd")), *arguments, str(self.configuration)],
            env=clean_environment(self.directory) | SOURCES,
            capture_output=True,
            encoding="utf-8",
            check=False,
            timeout=120,
        )

    def manifest(self, name: str, reference: str, **headers: str) -> Any:
        """
        :return: the answer to a GET of a manifest.
        """
        return self.client.get(f"/v2/{name}/manifests/{reference}", Accept=ANY, **headers)

    @property
    def _tree(self) -> Path:
        return self.data / "docker" / "registry" / "v2"

    def blobs(self) -> set[str]:
        """
        :return: the digests of all blobs in the storage, manifests included.
        """
        return {f"{path.parent.parent.parent.name}:{path.parent.name}" for path in _below(self._tree, "blobs/*/*/*/data")}

    def links(self, name: str) -> set[str]:
        """
        :return: the links of a repository: to layers, to revisions and of tags, by their path in it.
        """
        root = self._tree / "repositories" / name
        return {str(path.parent.relative_to(root)) for path in _below(root, "_*/**/link")}

    def tags(self, name: str) -> set[str]:
        """
        :return: the tags that are kept.
        """
        return {path.name for path in _below(self._tree / "repositories" / name / "_manifests" / "tags", "*")}

    def fetching(self) -> dict[str, int]:
        """
        :return: how much has been kept of what is not whole yet, by digest.
        """
        found = {}
        for path in _below(self.data / "regd" / "fetching", "*/*/data"):
            with contextlib.suppress(FileNotFoundError):
                found[f"{path.parent.parent.name}:{path.parent.name}"] = path.stat().st_size
        return found

    def vars(self) -> list[dict[str, Any]]:
        """
        :return: what each worker says of its cache.
        """
        document: Any = Client(self.debug).get("/debug/vars").json()
        return [worker.get("cache", {}) for worker in document["workers"]]

    def busy(self) -> int:
        """
        :return: how many requests to upstreams are under way.
        """
        return int(sum(self._numbers("requests")))

    def connections(self) -> int:
        """
        :return: how many connections to upstreams, and to where those redirected to, are open.
        """
        return int(sum(self._numbers("connections")))

    def resting(self) -> float:
        """
        :return: for how long an upstream is not to be asked, in seconds, at most.
        """
        return max(self._numbers("resting"), default=0.0)

    def _numbers(self, key: str) -> list[float]:
        """What every upstream in every worker says under a key."""
        return [remote[key] for worker in self.vars() for remote in worker["upstreams"].values()]

    def workers_talking_to(self, port: int) -> set[int]:
        """
        :param port: of somebody on this machine.
        :return: the workers that have a connection to it, by their process ids.
        """
        return self._owners(lambda _local, remote: remote == port)

    def workers_serving(self, ports: list[int]) -> dict[int, int]:
        """
        :param ports: of clients.
        :return: by each, the process id of the worker that has its connection.
        """
        found: dict[int, int] = {}
        connections, sockets = _connections(), {pid: _sockets(pid) for pid in (self.program.pid, *self.program.children())}
        for local, remote, inode in connections:
            if local == self.port and remote in ports:
                found.update((remote, pid) for pid, held in sockets.items() if inode in held)
        return found

    def _owners(self, wanted: Callable[[int, int], bool]) -> set[int]:
        inodes = {inode for local, remote, inode in _connections() if wanted(local, remote)}
        return {pid for pid in (self.program.pid, *self.program.children()) if inodes & _sockets(pid)}


def _connections() -> list[tuple[int, int, str]]:
    """
    :return: of each established connection of this machine, by proc(5): its own port, the other's, and its inode.
    """
    found = []
    for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]:
        words = line.split()
        if words[3] == "01":
            found.append((int(words[1].partition(":")[2], 16), int(words[2].partition(":")[2], 16), words[9]))
    return found


def _sockets(pid: int) -> set[str]:
    found = set()
    for path in Path(f"/proc/{pid}/fd").iterdir():
        try:
            match = re.fullmatch(r"socket:\[(\d+)\]", str(path.readlink()))
        except FileNotFoundError:
            continue
        if match:
            found.add(match[1])
    return found


def _below(directory: Path, pattern: str) -> list[Path]:
    """
    What matches, in a directory that the daemon may be removing things from.
    """
    while True:
        with contextlib.suppress(FileNotFoundError):
            return list(directory.glob(pattern))
