"""``docs/metrics.rst``, the dashboard and the catalogue say the same."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from regd.telemetry.catalogue import CATALOGUE
from regd.telemetry.requests import HANDLERS, OTHER

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = ROOT / "docs" / "metrics.rst"
DASHBOARD = ROOT / "etc" / "regd" / "grafana.json"

ROW = re.compile(r"(?m)^   \* - ``([a-z_]+)``\n     - (\w+)\n     - (.*)\n     - (.*)$")
#: What a histogram is asked for by.
PARTS = ("_bucket", "_sum", "_count")


def expressions(value: Any) -> Iterator[str]:
    """Every query of a dashboard. ``Any``: what is in JSON."""
    if isinstance(value, dict):
        for key, below in value.items():
            if key in {"expr", "definition"} and isinstance(below, str):
                yield below
            else:
                yield from expressions(below)
    elif isinstance(value, list):
        for below in value:
            yield from expressions(below)


def metrics_of(expression: str) -> set[tuple[str, frozenset[str]]]:
    """The metrics that a query names, each with the labels that it is selected by."""
    found = set()
    for name, selector in re.findall(r"\b((?:registry|regd|process)_[a-z_]+)(\{[^}]*\})?", re.sub(r'"[^"]*"', '""', expression)):
        found.add((name, frozenset(re.findall(r"([a-z_]+)\s*(?:=~|!~|!=|=)", selector))))
    return found


class DocumentationTests(SynchronousTestCase):
    def test_every_metric_is_there_as_it_is(self) -> None:
        documented = {name: rest for name, *rest in ROW.findall(PAGE.read_text(encoding="utf-8"))}
        expected = {
            metric.name: [metric.kind, ", ".join(f"``{label}``" for label in metric.labels) or "none", metric.text]
            for metric in CATALOGUE.values()
        }
        self.assertEqual(documented, expected)

    def test_every_handler_is_there(self) -> None:
        text = PAGE.read_text(encoding="utf-8")
        section = text[text.index("\n``handler``\n") : text.index("\n``method``, ``code``\n")]
        self.assertEqual(set(re.findall(r"``(\w+)``", section)) - {"handler"}, {*HANDLERS.values(), OTHER})

    def test_names(self) -> None:
        """As Prometheus wants them."""
        for metric in CATALOGUE.values():
            self.assertEqual(metric.name.endswith("_total"), metric.kind == "counter", metric.name)
            self.assertEqual(bool(metric.buckets), metric.kind == "histogram", metric.name)
            self.assertEqual(list(metric.buckets), sorted(metric.buckets), metric.name)
            self.assertTrue(metric.text.endswith("."), metric.name)


class DashboardTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
        self.expressions = list(expressions(self.dashboard))

    def test_it_uses_what_there_is(self) -> None:
        self.assertTrue(self.expressions)
        for expression in self.expressions:
            used = metrics_of(expression)
            self.assertTrue(used, expression)
            for name, labels in used:
                base = next((name.removesuffix(part) for part in PARTS if name.removesuffix(part) in CATALOGUE), name)
                self.assertIn(base, CATALOGUE, expression)
                self.assertEqual(base != name, CATALOGUE[base].kind == "histogram", expression)
                self.assertLessEqual(labels, {*CATALOGUE[base].labels, "instance", "job", "le"}, expression)

    def test_what_it_sums_by(self) -> None:
        for expression in self.expressions:
            labels = set().union(*(set(CATALOGUE[name].labels) for name in CATALOGUE if name in expression))
            for by in re.findall(r"by \(([^)]*)\)", expression):
                self.assertLessEqual({label.strip() for label in by.split(",")}, {*labels, "le", "instance"}, expression)

    def test_panels(self) -> None:
        panels = self.dashboard["panels"]
        self.assertEqual(len({panel["id"] for panel in panels}), len(panels))
        for panel in panels:
            self.assertTrue(panel["title"])
            self.assertTrue(panel["type"] == "row" or panel["targets"], panel["title"])
