"""``docs/metrics.rst``, the dashboard, the alerts and the catalogue say the same."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regd.telemetry.catalogue import CATALOGUE
from regd.telemetry.requests import HANDLERS, OTHER
from tests.telemetry.promql import Query, metric_of, parse

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = ROOT / "docs" / "metrics.rst"
DASHBOARD = ROOT / "etc" / "regd" / "grafana.json"
ALERTS = ROOT / "etc" / "regd" / "alerts.yml"
OPERATIONS = ROOT / "docs" / "operations.rst"

ROW = re.compile(r"(?m)^   \* - ``([a-z_]+)``\n     - (\w+)\n     - (.*)\n     - (.*)$")
#: The labels that Prometheus adds.
SCRAPED = frozenset({"instance", "job"})


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


def check(case: SynchronousTestCase, text: str) -> Query:
    """See that a query asks for what there is, by labels that there are."""
    query = parse(text)
    case.assertTrue(query.metrics, text)
    labels: set[str] = set()
    for name, selected in query.metrics:
        if name == "up":
            # Prometheus makes it itself, for each target.
            case.assertLessEqual(selected, SCRAPED, text)
            continue
        metric = metric_of(name)
        assert metric is not None, f"{name} is no metric: {text}"
        case.assertLessEqual(selected, {*metric.labels, *SCRAPED}, text)
        labels |= {*metric.labels, *({"le"} if name.endswith("_bucket") else set())}
    case.assertLessEqual(query.groupings, labels | SCRAPED, text)
    return query


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
        """As Prometheus wants them, but for a gauge of ``registry:2``."""
        for metric in CATALOGUE.values():
            counts = metric.name.endswith("_total") and metric.name != "registry_notifications_pending_total"
            self.assertEqual(counts, metric.kind == "counter", metric.name)
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
            # What fills the list of instances is a function of Grafana's.
            check(self, re.sub(r"^label_values\((\w+), instance\)$", r"\1", expression))

    def test_panels(self) -> None:
        panels = self.dashboard["panels"]
        self.assertEqual(len({panel["id"] for panel in panels}), len(panels))
        for panel in panels:
            self.assertTrue(panel["title"])
            self.assertTrue(panel["type"] == "row" or panel["targets"], panel["title"])


class AlertTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.document: Any = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))
        self.rules: list[dict[str, Any]] = [rule for group in self.document["groups"] for rule in group["rules"]]

    def test_shape(self) -> None:
        """That of https://prometheus.io/docs/prometheus/latest/configuration/alerting_rules/."""
        self.assertEqual(set(self.document), {"groups"})
        for group in self.document["groups"]:
            self.assertEqual(set(group), {"name", "rules"})
        for rule in self.rules:
            self.assertLessEqual({"alert", "expr", "labels", "annotations"}, set(rule))
            self.assertLessEqual(set(rule), {"alert", "expr", "for", "labels", "annotations"})
            self.assertRegex(rule["alert"], "^Regd([A-Z][a-z]+)+$")
            self.assertRegex(rule.get("for", "0m"), "^[0-9]+[smhd]$")
            self.assertIn(rule["labels"]["severity"], {"critical", "warning"})
            self.assertEqual(set(rule["labels"]), {"severity"})
            self.assertEqual(set(rule["annotations"]), {"summary", "description"})
            self.assertTrue(all(rule["annotations"].values()), rule)
        names = [rule["alert"] for rule in self.rules]
        self.assertEqual((len(names), len(set(names))), (11, 11))

    def test_they_use_what_there_is(self) -> None:
        for rule in self.rules:
            query = check(self, rule["expr"])
            # What a text tells of has to be left after summing up.
            left = set(query.groupings) or set(SCRAPED).union(*(metric_of(name).labels for name, _ in query.metrics if metric_of(name)))  # type: ignore[union-attr]  # looked at
            self.assertLessEqual(set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"]))), left, rule["alert"])

    def test_each_compares(self) -> None:
        """An expression that is always there would be an alert that never ends."""
        for rule in self.rules:
            self.assertRegex(rule["expr"], r"(>|<|==) [0-9.]+", rule["alert"])

    def test_each_is_explained(self) -> None:
        text = OPERATIONS.read_text(encoding="utf-8")
        section = text[text.index("\nMonitoring\n") :]
        explained = re.findall(r"(?m)^``(Regd\w+)``$", section)
        self.assertEqual(explained, [rule["alert"] for rule in self.rules])


class QueryTests(SynchronousTestCase):
    """What these tests read queries by."""

    def test_a_query(self) -> None:
        found = parse('max by (le, a) (rate(x_bucket{b="{c}", d=~"e"}[5m])) / on (f) g > 1')
        self.assertEqual(found.metrics, {("x_bucket", frozenset({"b", "d"})), ("g", frozenset())})
        self.assertEqual(found.groupings, {"le", "a", "f"})

    def test_what_is_none(self) -> None:
        for text in ("sum(x", "x}", "x)", "sum x", "rates(x[5m])", "rate(x[5])", "rate", "x & y", 'x{a="b}'):
            self.assertRaises(ValueError, parse, text)

    def test_metrics_by_their_parts(self) -> None:
        self.assertIsNone(metric_of("registry_http_request_duration_seconds"))
        self.assertIsNone(metric_of("regd_workers_count"))
        self.assertIsNone(metric_of("regd_nothing"))
        self.assertIsNotNone(metric_of("registry_http_request_duration_seconds_sum"))
        self.assertIsNotNone(metric_of("regd_workers"))

    @given(st.text(st.sampled_from(list('ab_ {}()[]",=~<>/5m')) | st.characters()))
    def test_any_text(self, text: str) -> None:
        with contextlib.suppress(ValueError):
            parse(text)
