"""Daemons with several workers: which process serves which connection, and connections that are served by a certain one."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from tests.e2e.case import E2ETestCase
from tests.e2e.daemon import Regd
from tests.e2e.process import wait_until
from tests.e2e.rawhttp import Answer
from tests.e2e.wire import Wire

__all__ = ["GroupTestCase", "ask", "owner"]


def owner(server: Regd, wire: Wire) -> int:
    """
    :param server: A daemon with workers.
    :param wire: A connection to it.
    :return: The process that serves it (proc(5), ``/proc/net/tcp`` and ``/proc/pid/fd``), or 0 when none does yet.
    """
    port = wire.socket.getsockname()[1]
    wanted = f"{server.port:04X} 0100007F:{port:04X}"
    for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines():
        if wanted in line:
            link = f"socket:[{line.split()[9]}]"
            for pid in server.program.children():
                try:
                    for descriptor in os.listdir(f"/proc/{pid}/fd"):
                        try:
                            if os.readlink(f"/proc/{pid}/fd/{descriptor}") == link:
                                return pid
                        except FileNotFoundError:
                            continue
                except (FileNotFoundError, PermissionError):
                    continue
    return 0


def ask(wire: Wire, method: str, target: str, body: bytes | None = None, **fields: str) -> Answer:
    """
    :param wire: A connection without a request.
    :param method: The method.
    :param target: As :class:`~tests.e2e.wire.Wire` has it.
    :param body: The body.
    :param fields: Header fields, with ``_`` for ``-``.
    :return: The answer.
    """
    headers: dict[str, object] = {name.replace("_", "-"): value for name, value in fields.items()}
    if body is not None:
        headers["Content-Length"] = len(body)
    wire.head(method, target, headers)
    wire.socket.sendall(body or b"")
    return wire.answer(method)


class GroupTestCase(E2ETestCase):
    """A test case that makes daemons with workers."""

    def make(self, workers: int = 2, environment: Mapping[str, str] | None = None) -> Regd:
        """
        :param workers: How many.
        :param environment: Overrides of the configuration.
        :return: A daemon whose workers are all ready.
        """
        variables = {"REGISTRY_HTTP_WORKERS": str(workers), **(environment or {})}
        server = Regd(self.directory / self._testMethodName, None, variables)
        self.addCleanup(server.stop)
        server.start()
        self.wait_ready(server, workers)
        return server

    def wait_ready(self, server: Regd, workers: int) -> None:
        """
        :param server: A daemon that starts.
        :param workers: How many are to be ready.
        """
        wait_until(lambda: f"with {workers} workers" in server.program.output(), 60, "the workers to be ready")

    def wire(self, server: Regd) -> Wire:
        """
        :param server: Where to.
        :return: A connection that somebody serves, closed at the end of the test.
        """
        wire = Wire(server.port)
        self.addCleanup(wire.close)
        wait_until(lambda: owner(server, wire) != 0, 10, "a worker to take a connection")
        return wire

    def wires(self, server: Regd, count: int) -> dict[int, Wire]:
        """
        :param server: Where to.
        :param count: How many workers it has.
        :return: A connection to each of its workers, by process id.
        """
        found: dict[int, Wire] = {}
        while len(found) < count:
            wire = self.wire(server)
            found.setdefault(owner(server, wire), wire)
        return found

    def set(self, server: Regd, old: str, new: str) -> None:
        """
        :param server: Its configuration file is to be changed.
        :param old: What stands in it.
        :param new: What is to stand there.
        """
        text = server.configuration.read_text(encoding="utf-8")
        self.assertIn(old, text)
        server.configuration.write_text(text.replace(old, new), encoding="utf-8")

    def wait_log(self, server: Regd, pattern: str, count: int = 1) -> None:
        """
        :param server: Whose log.
        :param pattern: A regular expression.
        :param count: How often it is to be found.
        """
        wait_until(lambda: len(re.findall(pattern, server.program.output())) >= count, 30, f"{pattern} in the log")
