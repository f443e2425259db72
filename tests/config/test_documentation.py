"""``docs/configuration.rst`` and the table of keys say the same."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import yaml
from twisted.trial.unittest import SynchronousTestCase

from regd.config import keys, parse
from regd.config.keys import OBEYED, TABLE
from regd.config.schema import Ignored, Key

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = ROOT / "docs" / "configuration.rst"
KEY = re.compile(r"``([^`]+)``")


def rows() -> Iterator[tuple[str, list[str]]]:
    """
    :return: Each key that a table of the page lists in its first column, and the cells of its row.
    """
    for table in PAGE.read_text(encoding="utf-8").split(".. list-table::")[1:]:
        body = re.split(r"(?m)^(?=\S)", table.partition("\n")[2])[0]
        for row in re.split(r"(?m)^   \* - ", body)[1:]:
            cells = [" ".join(cell.split()) for cell in re.split(r"(?m)^     - ", row)]
            for key in KEY.findall(cells[0]):
                yield key, cells


def parts() -> set[str]:
    """
    :return: The names within the values of keys: those of ``tls`` and ``timeouts``, of a route, an upstream, a check.
    """
    return {name for row in OBEYED for inner in row.inner for name in re.findall(r"[a-z0-9]+", inner.suffix)}


def examples() -> Iterator[tuple[str, str]]:
    """
    :return: The name of each page, and each YAML of it that is, or is part of, a configuration of regd.
    """
    for page in sorted((ROOT / "docs").glob("*.rst")):
        for block in page.read_text(encoding="utf-8").split(".. code-block:: yaml\n")[1:]:
            body = re.split(r"(?m)^(?=\S)", block)[0]
            if set(yaml.safe_load(body)) <= {row.path.partition(".")[0] for row in TABLE}:
                yield page.name, textwrap.dedent(body)


class DocumentationTests(SynchronousTestCase):
    def test_every_key_is_there_once(self) -> None:
        documented = [key for key, _ in rows()]
        self.assertEqual(sorted(documented), sorted(set(documented)))
        self.assertEqual(sorted(documented), sorted(row.path for row in TABLE))

    def test_defaults(self) -> None:
        documented = dict(rows())
        for row in TABLE:
            if isinstance(row, Key):
                shown = row.parser.show(row.default).strip('"')
                default = documented[row.path][1]
                self.assertIn(default, {f"``{shown}``", shown} if shown else {"none", "required"}, row.path)

    def test_what_happens_instead(self) -> None:
        documented = dict(rows())
        for row in TABLE:
            if isinstance(row, Ignored):
                self.assertEqual(documented[row.path][1], row.instead)

    def test_every_key_says_something(self) -> None:
        for key, cells in rows():
            self.assertTrue(all(cells), key)

    def test_every_name_within_a_value_is_there(self) -> None:
        """``timeout`` of a check, ``prefix`` of an upstream: they stand in the text, and what has a paragraph of its own is one."""
        text = PAGE.read_text(encoding="utf-8")
        literals = " ".join(re.findall(r"``[^`]+``", text))
        for name in parts():
            self.assertRegex(literals, rf"\b{name}\b")
        self.assertLessEqual(set(re.findall(r"(?m)^``(\w+)``$", text)), parts())

    def test_every_key_is_obeyed(self) -> None:
        """What is declared is in the table, and somebody reads it."""
        declared = {name: key for name, key in vars(keys).items() if isinstance(key, Key)}
        self.assertLessEqual({key.path for key in declared.values()}, {row.path for row in OBEYED})
        readers = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "regd" / "config").glob("*.py") if path.name != "keys.py")
        accepted = {key.path for key in keys.ACCEPTED}
        for name, key in declared.items():
            self.assertTrue(key.path in accepted or re.search(rf"\b{name}\b", readers), f"{key.path} is read by nobody")

    def test_examples(self) -> None:
        """They are taken without a word about a key that is not known."""
        found = list(examples())
        self.assertGreater(len(found), 5)
        for page, text in found:
            lines = text if "version:" in text else f"version: 0.1\n{text}"
            # Beside routes for everything there is no storage; elsewhere it may have been left out for brevity.
            environment = {} if "routes:" in text else {"REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY": "/srv"}
            warnings = parse(lines.encode(), page, environment).warnings
            self.assertFalse([warning for warning in warnings if "no such key" in warning], text)
