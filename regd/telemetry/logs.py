"""
The log, in the forms that ``registry:2`` has: ``text`` (logfmt), ``json`` and ``logstash``. One event is one line, whatever is in it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent
from twisted.python.failure import Failure
from zope.interface import implementer

from regd.asked import ASKED
from regd.moments import rfc3339
from regd.spans import trace_fields
from regd.telemetry.asking import request_fields
from regd.telemetry.lines import LineStream

__all__ = ["FORMATTERS", "Fields", "LineObserver"]

#: ``log.level`` by its name in the configuration.
_LEVELS: Final = {"error": LogLevel.error, "warn": LogLevel.warn, "info": LogLevel.info, "debug": LogLevel.debug}

_NAMES: Final = {
    LogLevel.critical: "fatal",
    LogLevel.error: "error",
    LogLevel.warn: "warning",
    LogLevel.info: "info",
    LogLevel.debug: "debug",
}

#: What logfmt may hold without quotes.
_PLAIN = re.compile(r"[A-Za-z0-9._/@^+:-]+")

#: What JSON leaves as it is, and what yet ends a line for some readers, steers a terminal, or is no character at all.
_UNSAFE = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff]")

#: Texts and numbers that a line has besides its message.
Fields = Mapping[str, object]

#: Time (RFC 3339), level, message, further fields, to a line without its end.
Formatter = Callable[[str, str, str, Fields], str]


def _text(time: str, level: str, message: str, fields: Fields) -> str:
    pairs = _apart({"time": time, "level": level, "msg": message}, fields)
    return " ".join(
        f"{_quoted(name, always=False)}={_quoted(_word(value), always=name in {'time', 'msg'})}" for name, value in pairs.items()
    )


def _json(time: str, level: str, message: str, fields: Fields) -> str:
    return _dumps(_apart({"level": level, "msg": message, "time": time}, fields))


def _logstash(time: str, level: str, message: str, fields: Fields) -> str:
    return _dumps(_apart({"@timestamp": time, "@version": "1", "level": level, "message": message}, fields))


def _apart(ours: Mapping[str, str], fields: Fields) -> dict[str, object]:
    """Ours, and the further fields, those that are called as one of ours with ``fields.`` before their names, as ``registry:2`` has it."""
    return {**ours, **{f"fields.{name}" if name in ours else name: value for name, value in fields.items()}}


def _dumps(value: object) -> str:
    """JSON on one line, safe to show. Nothing of its own structure is unsafe, so what is replaced is in strings."""
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(value, ensure_ascii=False))


def _word(value: object) -> str:
    return json.dumps(value) if isinstance(value, bool) else str(value)


def _quoted(value: str, *, always: bool) -> str:
    return value if not always and _PLAIN.fullmatch(value) else _dumps(value)


#: ``log.formatter`` by its name in the configuration.
FORMATTERS: Final[Mapping[str, Formatter]] = {"text": _text, "json": _json, "logstash": _logstash}


@implementer(ILogObserver)
class LineObserver:
    """
    Writes events as lines.

    :param stream: where to; each line is flushed.
    :param level: the lowest level that is written, as the configuration calls it.
    :param formatter: as the configuration calls it.
    :param fields: what each line carries besides.
    :param levels: the lowest level of parts that have one of their own: rooms of regd, and ``twisted`` for all that is not regd's.
    """

    def __init__(
        self, stream: LineStream, level: str, formatter: str, fields: Mapping[str, str], levels: Mapping[str, str] | None = None
    ) -> None:
        self._stream = stream
        self.configure(level, formatter, fields, levels)

    def configure(self, level: str, formatter: str, fields: Mapping[str, str], levels: Mapping[str, str] | None = None) -> None:
        """Write otherwise from now on; the parameters are those of the constructor."""
        self._level = _LEVELS[level]
        self._levels = {part: _LEVELS[name] for part, name in (levels or {}).items()}
        self._format = FORMATTERS[formatter]
        self._fields: dict[str, object] = dict(fields)

    def __call__(self, event: LogEvent) -> None:
        """Write one event, if its level is high enough."""
        level = _level(event)
        if level < (self._levels.get(_part(event), self._level) if self._levels else self._level):
            return
        time = rfc3339(event.get("log_time", 0.0), "microseconds")
        # What an event says in its text, it may give to programs as ``fields``.
        told = event.get("fields")
        asked = ASKED.get()
        whose = {} if asked is None else request_fields(asked)
        fields = {**self._fields, **whose, **trace_fields(), **(told if isinstance(told, Mapping) else {})}
        failure = event.get("log_failure")
        message = formatEvent(event)
        if isinstance(failure, Failure):
            fields["error"] = f"{failure.type.__name__}: {failure.getErrorMessage()}" if failure.type else failure.getErrorMessage()
            fields["traceback"] = failure.getTraceback()
            message = message or "unexpected failure"
        line = self._format(time, _NAMES[level], message, fields)
        try:
            self._stream.write(line + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            # A log that cannot be written must not stop what it tells of.
            return


def _part(event: LogEvent) -> str:
    """Whose event it is: the name of a room of regd, or ``twisted``."""
    package, _, inner = str(event.get("log_namespace", "")).partition(".")
    return inner.partition(".")[0] if package == "regd" else "twisted"


def _level(event: LogEvent) -> Any:  # of LogLevel, whose members have no type of their own
    """The level of an event. What Twisted tells of its own doings is for those who look for faults."""
    level = event.get("log_level", LogLevel.info)
    if level == LogLevel.info and not str(event.get("log_namespace", "")).startswith("regd"):
        return LogLevel.debug
    return level
