"""``docs/configuration.rst`` and the table of keys say the same."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from regd.config.keys import TABLE
from regd.config.schema import Ignored, Key

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "configuration.rst"
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
