"""Values of ``log`` that need more than the usual parsers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from regd.config.values import Parser, checked, choice, mapping_of

__all__ = ["LEVELS", "PARTS", "LogLevel", "log_file", "log_levels"]

LogLevel = Literal["error", "warn", "info", "debug"]

LEVELS: Final[Parser[LogLevel]] = choice("error", "warn", "info", "debug", fold=True)

#: What has a level of its own: the rooms of ``docs/architecture.rst`` that log, and Twisted.
PARTS: Final = ("maintenance", "notifications", "proxy", "registry", "service", "storage", "telemetry", "tls", "twisted", "web", "workers")


def log_levels() -> Parser[Mapping[str, LogLevel]]:
    """``log.levels``: the level of each part that has one of its own."""
    found = mapping_of(LEVELS, "proxy: debug", joiner="_")
    return checked(found, _known, found.show)


def _known(found: Mapping[str, LogLevel]) -> Mapping[str, LogLevel]:
    unknown = sorted(set(found) - set(PARTS))
    if unknown:
        raise ValueError(f"levels of these parts: {', '.join(PARTS)}; there is no {', '.join(unknown)}")
    return found


def log_file(found: str) -> str:
    """``log.accesslog.path``: an absolute path, or nothing."""
    if found and (not found.startswith("/") or found.endswith("/") or "\0" in found):
        raise ValueError("the absolute path of a file, such as /var/log/regd/access.log, or nothing for standard output")
    return found
