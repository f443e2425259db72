"""As much of PromQL as it takes to see what a query is about: its metrics, and the labels that it selects, sums and joins by."""

from __future__ import annotations

import re
from dataclasses import dataclass

from regd.telemetry.catalogue import CATALOGUE, Metric

__all__ = ["PARTS", "Query", "metric_of", "parse"]

#: What a histogram is asked for by.
PARTS = ("_bucket", "_sum", "_count")

_TOKEN = re.compile(
    r"""\s*(?:
    (?P<string>"(?:[^"\\]|\\.)*")
    | (?P<range>\[[^\]]*\])
    | (?P<name>[A-Za-z_:][A-Za-z0-9_:]*)
    | (?P<number>[0-9.]+(?:e[+-]?[0-9]+)?)
    | (?P<operator>=~|!~|!=|==|<=|>=|[-+*/%^(){},<>=])
    )""",
    re.VERBOSE,
)
_RANGE = re.compile(r"\[(?:[0-9]+[smhdwy]|\$__rate_interval)\]")
_FUNCTIONS = frozenset({"absent", "histogram_quantile", "increase", "rate", "time"})
_AGGREGATIONS = frozenset({"avg", "count", "max", "min", "sum"})
_GROUPINGS = frozenset({"by", "group_left", "ignoring", "on", "without"})
_OPERATORS = frozenset({"and", "or", "unless"})


@dataclass(frozen=True)
class Query:
    """
    What a query is about.

    :ivar metrics: each metric that it names, with the labels that it is selected by.
    :ivar groupings: the labels that it sums and joins by.
    """

    metrics: frozenset[tuple[str, frozenset[str]]]
    groupings: frozenset[str]


def parse(text: str) -> Query:
    """
    Read a query.

    :raises ValueError: when it has what PromQL has not, or what this knows nothing of; when brackets do not match.
    """
    tokens: list[tuple[str, str]] = []
    at = 0
    text = text.strip()
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None or found.lastgroup is None:
            raise ValueError(f"{text[at : at + 20]!r} in {text}")
        tokens.append((found.lastgroup, found[found.lastgroup]))
        at = found.end()
    _check_brackets(tokens, text)
    metrics, groupings = set(), set()
    at = 0
    while at < len(tokens):
        kind, token = tokens[at]
        follows = tokens[at + 1][1] if at + 1 < len(tokens) else ""
        at += 1
        if kind == "range" and not _RANGE.fullmatch(token):
            raise ValueError(f"{token} is no range: {text}")
        if kind != "name" or token in _OPERATORS:
            continue
        if token in _GROUPINGS:
            end = tokens.index(("operator", ")"), at)
            groupings |= {name for kind, name in tokens[at:end] if kind == "name"}
            at = end
        elif token in _FUNCTIONS | _AGGREGATIONS:
            if follows != "(" and (token in _FUNCTIONS or follows not in _GROUPINGS):
                raise ValueError(f"{token} of nothing: {text}")
        elif follows == "(":
            raise ValueError(f"no function is called {token}: {text}")
        else:
            selected: set[str] = set()
            if follows == "{":
                end = tokens.index(("operator", "}"), at)
                selected = {name for kind, name in tokens[at:end] if kind == "name"}
                at = end
            metrics.add((token, frozenset(selected)))
    return Query(frozenset(metrics), frozenset(groupings))


def metric_of(name: str) -> Metric | None:
    """What the catalogue has by this name, which is that of a part where it is a histogram."""
    for part in PARTS:
        metric = CATALOGUE.get(name.removesuffix(part))
        if name.endswith(part) and metric is not None and metric.buckets:
            return metric
    metric = CATALOGUE.get(name)
    return None if metric is None or metric.buckets else metric


def _check_brackets(tokens: list[tuple[str, str]], text: str) -> None:
    waiting = []
    for _, token in tokens:
        if token in {"(", "{"}:
            waiting.append({"(": ")", "{": "}"}[token])
        elif token in {")", "}"} and (not waiting or waiting.pop() != token):
            raise ValueError(f"{token} closes nothing: {text}")
    if waiting:
        raise ValueError(f"{waiting[-1]} is missing: {text}")
