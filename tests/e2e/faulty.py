"""
regd under ``twistd``, or its command, on a disk that fails when it is told to. A program of its own, and no hook in regd.

It is started in one of these ways::

    python -m tests.e2e.faulty run PLAN RECORD TWISTD-ARGUMENT...
    python -m tests.e2e.faulty command PLAN RECORD REGD-ARGUMENT...
    python -m tests.e2e.faulty fork

The modules of ``regd.storage`` and ``regd.maintenance`` see another ``os``: one that writes each operation that changes the disk to the
file RECORD, and does to some of them what the file PLAN says (:class:`Plan`). Without that file nothing fails, so a start does not count,
and a test arms it when it likes.

``fork`` imports everything once and then makes a daemon, or a process that runs a command, for each line of JSON on its standard input
(:class:`Order`), answering with its process id: a start costs a tenth of what it costs otherwise, and a test that kills at every
operation starts hundreds. The last line that a command writes to its log says how it ended: ``exit 0``.
"""

import importlib
import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, NoReturn

__all__ = ["CHANGES", "Operation", "Order", "Plan"]

#: What changes the disk, or makes a change durable. ``open`` is among them where it creates.
CHANGES: Final = frozenset({"create", "write", "writev", "fsync", "rename", "link", "mkdir", "unlink", "rmdir", "truncate", "utime"})

#: What is wrapped: the names of ``os``, what each is called here, and where the other path is, for those that have two.
_WRAPPED: Final = {
    "write": "write",
    "writev": "writev",
    "fsync": "fsync",
    "fdatasync": "fsync",
    "rename": "rename",
    "replace": "rename",
    "link": "link",
    "mkdir": "mkdir",
    "unlink": "unlink",
    "remove": "unlink",
    "rmdir": "rmdir",
    "truncate": "truncate",
    "ftruncate": "truncate",
    "utime": "utime",
    "read": "read",
    "readv": "read",
    "pread": "read",
    "stat": "stat",
    "listdir": "list",
    "scandir": "list",
}

#: So many bytes of a write go into the record: a link fits, and any blob of a test that matters does not.
_FEW: Final = 200

#: Imported before the fork; ``klein`` and ``regd.service`` are not, because they make the reactor, which cannot be shared.
_AHEAD: Final = (
    "hyperlink",
    "regd.cli.collect",
    "regd.config",
    "regd.maintenance.blocking",
    "regd.maintenance.collector",
    "regd.registry.core",
    "regd.storage.filesystem",
    "regd.telemetry.logs",
    "regd.web.blobs",
    "regd.web.lists",
    "regd.web.manifests",
    "regd.web.site",
    "regd.web.uploads",
    "twisted.internet.endpoints",
    "twisted.scripts.twistd",
    "twisted.web.static",
    "twisted.web.template",
    "werkzeug.routing",
)


@dataclass(frozen=True)
class Plan:
    """
    Which operations go wrong, and how.

    :ivar name: a plan with another name starts the count anew.
    :ivar action: ``kill`` before the operation, ``kill-after`` it, ``tear`` (write half, then kill), ``fail``, ``short`` (write half,
        and say so), ``hold`` (wait until there is another plan, or none).
    :ivar operations: by the names of :data:`CHANGES`, or ``open``, ``read``, ``stat``, ``list``; none for all that change the disk.
    :ivar path: a regular expression that is looked for in the path, or in either of two.
    :ivar first: the first of them that goes wrong, counted from 1.
    :ivar last: the last of them, or ``None`` for all that follow.
    :ivar error: the ``errno`` of ``fail``.
    """

    name: str
    action: str
    operations: tuple[str, ...] = ()
    path: str = ""
    first: int = 1
    last: int | None = None
    error: int = 0

    def to_json(self) -> str:
        """
        :return: What a file that holds this plan contains.
        """
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Plan":
        """
        :param text: As made by :meth:`to_json`.
        :return: The plan.
        """
        fields = json.loads(text)
        return cls(**fields | {"operations": tuple(fields["operations"])})

    def concerns(self, operation: "Operation") -> bool:
        """
        :param operation: What is about to be done.
        :return: Whether this plan counts it.
        """
        wanted = operation.name in (self.operations or CHANGES)
        return wanted and any(re.search(self.path, path) for path in (operation.path, operation.to))


@dataclass(frozen=True)
class Operation:
    """
    One line of the record.

    :ivar name: one of :data:`CHANGES`.
    :ivar path: what it was done to; that of the descriptor where it was done to one.
    :ivar to: the new path of a ``rename``.
    :ivar size: how many bytes a ``write`` had to store.
    :ivar text: these bytes, when they are few: what a link says.
    :ivar outcome: ``done``, ``failed``, or ``held`` for one that waits, and comes again when it is done.
    """

    name: str
    path: str
    to: str = ""
    size: int = 0
    text: str = ""
    outcome: str = "done"


@dataclass(frozen=True)
class Order:
    """
    A process that the fork server is to make.

    :ivar arguments: those of ``run`` or ``command``.
    :ivar environment: variables besides those of the fork server.
    :ivar log: the file for its output.
    :ivar cwd: the directory that it starts in.
    :ivar command: whether it runs ``regd`` and not ``twistd``.
    """

    arguments: Sequence[str]
    environment: dict[str, str]
    log: str
    cwd: str
    command: bool = False


class _Fault:
    """
    Records operations and lets some of them go wrong.

    :param plan: Where the plan is, if there is one.
    :param record: The file that operations are appended to.
    """

    def __init__(self, plan: Path, record: Path) -> None:
        self._file = plan
        self._record = os.open(record, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        self._lock = threading.Lock()
        self._plan: Plan | None = None
        self._seen: tuple[int, int] | None = None
        self._known: Plan | None = None
        self._count = 0

    def __call__(self, operation: Operation, act: Callable[[], Any], half: Callable[[], Any] | None = None) -> Any:
        """
        Do an operation, or what the plan says instead.

        :param operation: What it is.
        :param act: Does it.
        :param half: Does half of it, where that can be.
        :return: Its result.
        """
        with self._lock:
            plan = self._due(operation)
        if plan is not None and plan.action == "hold":
            self._note(operation, "held")
            while self._read() == plan:
                time.sleep(0.005)
            plan = None
        try:
            result = act() if plan is None else self._disturb(plan, operation, act, half)
        except OSError:
            self._note(operation, "failed")
            raise
        self._note(operation, "done")
        return result

    def _disturb(self, plan: Plan, operation: Operation, act: Callable[[], Any], half: Callable[[], Any] | None) -> Any:
        if plan.action == "fail":
            raise OSError(plan.error, os.strerror(plan.error), operation.path)
        if plan.action == "kill-after":
            act()
        elif plan.action in {"short", "tear"}:
            assert half is not None, f"{operation.name} has no half"
            written = half()
            if plan.action == "short":
                return written
        else:
            assert plan.action == "kill", plan.action
        return _die()

    def _note(self, operation: Operation, outcome: str) -> None:
        if operation.name in CHANGES:
            os.write(self._record, json.dumps(asdict(replace(operation, outcome=outcome))).encode() + b"\n")

    def _due(self, operation: Operation) -> Plan | None:
        """The plan, when it means this operation to go wrong."""
        before = self._plan
        self._plan = plan = self._read()
        if plan is None or before is None or plan.name != before.name:
            self._count = 0
        if plan is None or not plan.concerns(operation):
            return None
        self._count += 1
        return plan if plan.first <= self._count and (plan.last is None or self._count <= plan.last) else None

    def _read(self) -> Plan | None:
        try:
            found = os.stat(self._file)
            now = (found.st_ino, found.st_mtime_ns)
            if now != self._seen:
                self._known = Plan.from_json(self._file.read_text(encoding="utf-8"))
                self._seen = now
        except FileNotFoundError:
            return None
        return self._known


def _die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    while True:
        time.sleep(1)


class _FaultyOs:
    """
    What a module has for ``os``: the real one but for the operations that change files.

    :param fault: Does them.
    """

    def __init__(self, fault: _Fault) -> None:
        self._fault = fault

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in _WRAPPED:
            return real
        operation = _WRAPPED[name]

        def wrapped(target: Any, *arguments: Any, **keywords: Any) -> Any:
            other = os.fspath(arguments[0]) if operation in {"rename", "link"} else ""
            half, size, text = None, 0, ""
            if operation in {"write", "writev"}:
                data = bytes(arguments[0]) if operation == "write" else b"".join(arguments[0])
                size, text = len(data), data.decode("latin-1") if len(data) <= _FEW else ""

                def half() -> int:
                    return os.write(target, data[: max(size // 2, 1)])

            path = _below(target, keywords.get("dir_fd", keywords.get("src_dir_fd")))
            other = _below(other, keywords.get("dst_dir_fd")) if other else ""
            what = Operation(operation, path, other, size, text)
            return self._fault(what, lambda: real(target, *arguments, **keywords), half)

        return wrapped

    def open(self, path: Any, flags: int, *arguments: Any, **keywords: Any) -> int:
        """As ``os.open``."""
        what = Operation("create" if flags & os.O_CREAT else "open", os.fspath(path))
        return int(self._fault(what, lambda: os.open(path, flags, *arguments, **keywords)))


def _below(target: Any, directory: int | None) -> str:
    """The path of what may be given relative to a descriptor."""
    return _path(target) if directory is None else os.path.join(_path(directory), _path(target))


def _path(target: Any) -> str:
    return os.readlink(f"/proc/self/fd/{target}") if isinstance(target, int) else str(os.fspath(target))


def _break(plan: str, record: str, *imported: str) -> None:
    """
    Let the storage see a disk that fails.

    :param plan: The file of the plan.
    :param record: That of the record.
    :param imported: Modules to import first: one that is imported later sees the real disk.
    """
    for name in imported:
        importlib.import_module(name)
    faulty = _FaultyOs(_Fault(Path(plan), Path(record)))
    rooms = ("regd.storage.", "regd.maintenance.")
    wrapped = [module for name, module in sys.modules.items() if name.startswith(rooms) and hasattr(module, "os")]
    assert wrapped, "nothing in regd.storage uses os, so nothing can fail"
    for module in wrapped:
        vars(module)["os"] = faulty


def _command(arguments: Sequence[str]) -> int:
    """
    Be the command.

    :param arguments: The file of the plan, that of the record, and the arguments of ``regd``.
    :return: Its exit status.
    """
    plan, record, *rest = arguments
    _break(plan, record, "regd.cli.collect", "regd.maintenance.blocking", "regd.maintenance.collector")
    status: int | None = importlib.import_module("regd.cli").main(rest)
    return status or 0


def _run(arguments: Sequence[str]) -> None:
    """
    Be the daemon.

    :param arguments: The file of the plan, that of the record, and the arguments of ``twistd``.
    """
    plan, record, *rest = arguments
    _break(plan, record, "regd.service")
    sys.argv = ["twistd", *rest]
    twistd = importlib.import_module("twisted.scripts.twistd")
    twistd.run()


def _serve_forks() -> None:
    """Fork a daemon for each line of standard input, until that ends."""
    for name in _AHEAD:
        importlib.import_module(name)
    plugin = importlib.import_module("twisted.plugin")
    # Finding the plugins is most of what twistd itself does at its start; they are remembered.
    list(plugin.getPlugins(importlib.import_module("twisted.application.service").IServiceMaker))
    assert "twisted.internet.reactor" not in sys.modules, "a reactor that is made before the fork would be shared"
    # Nobody asks for their exit status: the kernel may forget them.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    print("ready", flush=True)  # noqa: T201 - the answer that the test waits for
    for line in sys.stdin:
        order = Order(**json.loads(line))
        pid = os.fork()
        if pid == 0:
            _be_forked(order)
        print(pid, flush=True)  # noqa: T201 - as above


def _be_forked(order: Order) -> NoReturn:
    status = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        output = os.open(order.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.chdir(order.cwd)
        os.environ.update(order.environment)
        if order.command:
            status = _command(order.arguments)
        else:
            _run(order.arguments)
            status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        if order.command:
            print(f"exit {status}")  # noqa: T201 - the line that the test looks for
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    if sys.argv[1] == "fork":
        _serve_forks()
    elif sys.argv[1] == "command":
        sys.exit(_command(sys.argv[2:]))
    else:
        assert sys.argv[1] == "run", sys.argv
        _run(sys.argv[2:])
