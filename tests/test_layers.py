"""
The house of ``docs/architecture.rst``: which module may import which, what the
lower rooms must not know, and how long a module may be.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "regd"

# Each room with the rooms it may import. A room is a module or a package
# directly under regd/; within a package everything may import everything.
MAY_IMPORT: dict[str, frozenset[str]] = {
    "__init__": frozenset(),
    "errors": frozenset(),
    "pace": frozenset(),
    "moments": frozenset(),
    "processes": frozenset(),
    "asked": frozenset(),
    "spans": frozenset(),
    "names": frozenset({"errors"}),
    "manifest": frozenset({"names", "errors"}),
    "config": frozenset({"names", "errors"}),
    "storage": frozenset({"names", "errors"}),
    # The rules, users and keys are the configuration's values.
    "auth": frozenset({"config", "names", "errors"}),
    # Its certificates and modes are the configuration's values, and its files are read with it.
    "tls": frozenset({"config", "errors"}),
    "maintenance": frozenset({"storage", "manifest", "names", "errors", "pace", "moments", "processes", "spans"}),
    "registry": frozenset({"maintenance", "storage", "manifest", "names", "errors", "pace", "moments", "spans"}),
    "telemetry": frozenset({"config", "storage", "moments", "spans", "asked"}),
    "web": frozenset({"auth", "registry", "storage", "manifest", "names", "errors", "telemetry", "spans", "asked"}),
    # Its routes, upstreams and time-outs are the configuration's values; what it does not do itself, the channel of web does.
    # Its cache keeps what it fetches by the registry's rules, and in its storage.
    "proxy": frozenset({"config", "web", "registry", "storage", "manifest", "names", "errors", "pace", "spans", "asked"}),
    "workers": frozenset({"web", "telemetry", "processes"}),
    # What happened is told by the handlers of requests, in their terms; whom to tell is the configuration's.
    "notifications": frozenset({"config", "web", "registry", "manifest", "names", "errors", "moments"}),
    "service": frozenset(
        {
            *("auth", "tls", "workers", "proxy", "notifications"),
            *("web", "telemetry", "registry", "maintenance", "storage", "config", "manifest", "names", "errors"),
            "moments",
            "asked",
        }
    ),
    "worker": frozenset({"service"}),
    # A program without an event loop: it needs neither the service nor HTTP, and takes a third of their memory without.
    "maintain": frozenset({"maintenance"}),
    "cli": frozenset({"auth", "tls", "service", "maintenance", "storage", "config", "names", "moments"}),
}

# Where a room may see only one module of another: the seam between them.
ONLY_THROUGH: dict[tuple[str, str], frozenset[str]] = {
    ("web", "storage"): frozenset({"regd.storage.driver"}),
    ("registry", "maintenance"): frozenset({"regd.maintenance.gate"}),
}

# Rooms of pure functions: values in, values out, no Twisted at all.
PURE = frozenset({"errors", "names", "manifest", "pace", "moments", "spans"})

# Rooms that must not know HTTP.
WITHOUT_HTTP = PURE | {"auth", "tls", "config", "storage", "maintenance", "registry"}
HTTP_PACKAGES = ("twisted.web", "klein", "treq")

LONGEST = 450
# Modules that may be longer, each with its reason.
MAY_BE_LONGER: dict[str, str] = {}


def module_name(path: Path) -> str:
    """
    :param path: A file below ``regd/``.
    :return: The dotted name that it is imported by.
    """
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(name: str) -> str:
    """
    :param name: A dotted module name that starts with ``regd``.
    :return: The room it stands in: ``storage`` for ``regd.storage.layout``.
    """
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def imports_of(path: Path) -> Iterator[str]:
    """
    Every module that a file imports, wherever in the file the import stands.

    :param path: A Python file below ``regd/``.
    :return: Dotted names; for ``from a import b`` both ``a`` and ``a.b``, where
        ``a.b`` is a module of regd.
    """
    package = module_name(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    for node in ast.walk(ast.parse(path.read_bytes(), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            modules = [f"{source}.{alias.name}" for alias in node.names]
            found = [name for name in modules if is_module(name)]
            yield from found
            if len(found) < len(modules):
                yield source


def is_module(name: str) -> bool:
    """
    :param name: A dotted name.
    :return: Whether it is a module or package of regd.
    """
    if name.partition(".")[0] != "regd":
        return False
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or path.is_dir()


class LayersTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.modules = sorted(PACKAGE.rglob("*.py"))
        self.assertTrue(self.modules)

    def test_every_module_stands_in_a_room(self) -> None:
        for path in self.modules:
            self.assertIn(
                room_of(module_name(path)),
                MAY_IMPORT,
                f"{path.relative_to(ROOT)}: add its room and what it may import to MAY_IMPORT",
            )

    def test_imports_point_down(self) -> None:
        wrong = []
        for path in self.modules:
            room = room_of(module_name(path))
            for name in imports_of(path):
                if name.partition(".")[0] != "regd":
                    continue
                other = room_of(name)
                if other in (room, "__init__"):
                    continue
                seam = ONLY_THROUGH.get((room, other), frozenset({name}))
                if other not in MAY_IMPORT[room] or name not in seam:
                    wrong.append(f"{path.relative_to(ROOT)} imports {name}")
        self.assertEqual(wrong, [])

    def test_the_table_has_no_circle(self) -> None:
        below: dict[str, frozenset[str]] = {}
        while len(below) < len(MAY_IMPORT):
            ready = {
                room: rooms
                for room, rooms in MAY_IMPORT.items()
                if room not in below and rooms <= below.keys()
            }
            self.assertTrue(ready, f"a circle among {sorted(MAY_IMPORT.keys() - below.keys())}")
            below.update(ready)

    def test_lower_rooms_do_not_know_http(self) -> None:
        wrong = []
        for path in self.modules:
            room = room_of(module_name(path))
            forbidden = HTTP_PACKAGES if room in WITHOUT_HTTP else ()
            if room in PURE:
                forbidden = (*forbidden, "twisted", "zope")
            wrong += [
                f"{path.relative_to(ROOT)} imports {name}"
                for name in imports_of(path)
                if any(name == banned or name.startswith(f"{banned}.") for banned in forbidden)
            ]
        self.assertEqual(wrong, [])

    def test_modules_are_short(self) -> None:
        for path in self.modules:
            name = str(path.relative_to(ROOT))
            lines = len(path.read_text(encoding="utf-8").splitlines())
            if name not in MAY_BE_LONGER:
                self.assertLessEqual(
                    lines, LONGEST, f"{name} has {lines} lines: split it by what it is about"
                )
