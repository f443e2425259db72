"""The log as a configuration wants it."""

from __future__ import annotations

from collections.abc import Mapping

from regd import __version__
from regd.asked import INSTANCE
from regd.config import Log
from regd.telemetry.lines import LineStream
from regd.telemetry.logs import LineObserver

__all__ = ["configure", "line_fields", "make_observer"]


def line_fields(log: Log) -> Mapping[str, str]:
    """What every line has: which process of which version wrote it, as ``registry:2`` says it, and ``log.fields``, which win."""
    return {"instance.id": INSTANCE, "version": __version__, **log.fields}


def make_observer(stream: LineStream, log: Log) -> LineObserver:
    """
    What writes the log.

    :param stream: where to.
    """
    return LineObserver(stream, log.level, log.formatter, line_fields(log), log.levels)


def configure(observer: LineObserver, log: Log) -> None:
    """Have it written otherwise from now on."""
    observer.configure(log.level, log.formatter, line_fields(log), log.levels)
