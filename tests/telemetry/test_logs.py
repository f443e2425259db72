"""The log: one line for each event, whatever is in it."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

import regd
from regd.config.logs import PARTS
from regd.telemetry.logs import FORMATTERS, LineObserver

EVENT = {"log_time": 1795428000.25, "log_namespace": "regd.test", "log_level": LogLevel.info, "log_format": "hello {who}", "who": "world"}
WHEN = "2026-11-23T10:00:00.250000Z"


class LineCase(SynchronousTestCase):
    def lines(
        self, event: dict[str, Any], formatter: str = "text", fields: dict[str, str] | None = None, *, level: str = "info"
    ) -> list[str]:
        stream = io.StringIO()
        LineObserver(stream, level, formatter, fields or {})(event)
        return stream.getvalue().splitlines()

    def line(self, event: dict[str, Any], formatter: str = "text", fields: dict[str, str] | None = None) -> str:
        (found,) = self.lines(event, formatter, fields)
        return found

    def failure(self) -> Failure:
        try:
            raise ValueError('bad\n"value"')
        except ValueError:
            return Failure()


class FormatTests(LineCase):
    def test_text(self) -> None:
        self.assertEqual(self.line(EVENT), f'time="{WHEN}" level=info msg="hello world"')
        self.assertEqual(
            self.line(EVENT, "text", {"service": "registry", "environment": "pro duction", "empty": ""}),
            f'time="{WHEN}" level=info msg="hello world" service=registry environment="pro duction" empty=""',
        )

    def test_json(self) -> None:
        self.assertEqual(
            json.loads(self.line(EVENT, "json", {"service": "registry"})),
            {"level": "info", "msg": "hello world", "time": WHEN, "service": "registry"},
        )

    def test_logstash(self) -> None:
        self.assertEqual(
            json.loads(self.line(EVENT, "logstash", {"service": "registry"})),
            {"@timestamp": WHEN, "@version": "1", "level": "info", "message": "hello world", "service": "registry"},
        )

    def test_what_an_event_gives_to_programs(self) -> None:
        event = {**EVENT, "fields": {"removed": 3, "seconds": 0.5, "dryrun": True, "error": "a b", "msg": 1}}
        self.assertEqual(
            self.line(event, "text", {"service": "registry"}),
            f'time="{WHEN}" level=info msg="hello world" service=registry removed=3 seconds=0.5 dryrun=true error="a b" fields.msg=1',
        )
        found = json.loads(self.line(event, "json"))
        self.assertEqual([found[name] for name in ("removed", "seconds", "dryrun", "fields.msg")], [3, 0.5, True, 1])
        self.assertEqual(self.line({**EVENT, "fields": 5}), self.line(EVENT))

    def test_failures(self) -> None:
        event = {**EVENT, "log_level": LogLevel.critical, "log_failure": self.failure()}
        for formatter in FORMATTERS:
            line = self.line(event, formatter)
            self.assertIn("hello world", line)
            self.assertIn("ValueError: bad\\n", line)
            self.assertIn("Traceback", line)
            self.assertIn("fatal", line)
        found = json.loads(self.line(event, "json"))
        self.assertEqual(found["error"], 'ValueError: bad\n"value"')

    def test_a_failure_without_a_message(self) -> None:
        self.assertIn('msg="unexpected failure"', self.line({**EVENT, "log_format": "", "log_failure": self.failure()}))

    def test_fields_that_are_called_as_ours(self) -> None:
        """A line says when, how bad and what, whatever the configuration adds."""
        self.assertIn("fields.level=x", self.line(EVENT, "text", {"level": "x"}))
        clash = dict.fromkeys(("time", "level", "msg", "message", "@timestamp", "@version", "error", "traceback"), "x")
        self.assertTrue(self.line(EVENT, "text", clash).startswith(f'time="{WHEN}" level=info msg="hello world"'))
        self.assertEqual(json.loads(self.line(EVENT, "json", clash))["msg"], "hello world")
        self.assertEqual(json.loads(self.line(EVENT, "logstash", clash))["message"], "hello world")

    def test_one_line_whatever_is_in_it(self) -> None:
        breaks = "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"
        for formatter in FORMATTERS:
            for text in (f"a{breaks}level=error", "a\x1b[31mred", "a\x9b31mred", "a\x7fb", '"', "\\", "\ud800", "é", "\x00"):
                line = self.line({**EVENT, "who": text}, formatter, {"field": text, text: "x"})
                self.assertIsNone(re.search("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]", line), repr(line))
        for formatter, message in (("json", "msg"), ("logstash", "message")):
            found = json.loads(self.line({**EVENT, "who": f"a{breaks}\x9b\ud800é"}, formatter))
            self.assertEqual(found[message], f"hello a{breaks}\x9b\ud800é")

    @given(st.text(), st.text(), st.sampled_from(sorted(FORMATTERS)))
    def test_any_text(self, text: str, field: str, formatter: str) -> None:
        line = self.line({**EVENT, "who": text}, formatter, {"field": field})
        line.encode("utf-8")
        if formatter != "text":
            self.assertEqual(json.loads(line)["field"], field)


class LevelTests(LineCase):
    def test_levels(self) -> None:
        names = {"debug": "debug", "info": "info", "warn": "warning", "error": "error", "critical": "fatal"}
        order = ["debug", "info", "warn", "error", "critical"]
        for threshold in order[:-1]:
            for level in order:
                lines = self.lines({**EVENT, "log_level": LogLevel.lookupByName(level)}, level=threshold)
                self.assertEqual(len(lines), order.index(level) >= order.index(threshold), (threshold, level))
                if lines:
                    self.assertIn(f" level={names[level]} ", lines[0])

    def test_what_twisted_tells_of_itself(self) -> None:
        """It is for those who look for faults; its warnings and errors are for everybody."""
        event = {**EVENT, "log_namespace": "twisted.internet"}
        self.assertEqual(self.lines(event), [])
        self.assertIn("level=debug", self.lines(event, level="debug")[0])
        self.assertIn("level=warning", self.lines({**event, "log_level": LogLevel.warn})[0])

    def test_without_a_level(self) -> None:
        self.assertIn("level=info", self.line({"log_namespace": "regd", "log_format": "x"}))


class PartTests(LineCase):
    """``log.levels``: parts that have a level of their own."""

    def shown(self, levels: dict[str, str]) -> list[str]:
        stream = io.StringIO()
        observer = LineObserver(stream, "info", "text", {}, levels)
        for namespace in ("regd.proxy.cache.fetch.Fetch", "regd.storage.damage.Damage", "regd.web", "regd", "twisted.web.http", "treq", ""):
            for level in (LogLevel.debug, LogLevel.info, LogLevel.warn):
                observer({**EVENT, "log_namespace": namespace, "log_level": level, "who": f"{namespace}:{level.name}"})
        return re.findall(r'hello ([^"]*)"', stream.getvalue())

    def test_parts(self) -> None:
        usual = self.shown({})
        self.assertEqual(self.shown({"proxy": "debug"}), ["regd.proxy.cache.fetch.Fetch:debug", *usual])
        self.assertEqual(self.shown({"storage": "warn"}), [line for line in usual if line != "regd.storage.damage.Damage:info"])
        others = {f"{name}:{level}" for name in ("twisted.web.http", "treq", "") for level in ("debug", "info")}
        self.assertEqual(set(self.shown({"twisted": "debug"})) - set(usual), others)
        self.assertEqual([line for line in self.shown({"twisted": "error"}) if line.startswith("twisted")], [])

    def test_changed_while_it_runs(self) -> None:
        stream = io.StringIO()
        observer = LineObserver(stream, "info", "text", {})
        event = {**EVENT, "log_namespace": "regd.proxy.x", "log_level": LogLevel.debug}
        observer(event)
        observer.configure("info", "text", {}, {"proxy": "debug"})
        observer(event)
        observer.configure("info", "text", {}, {})
        observer(event)
        self.assertEqual(len(stream.getvalue().splitlines()), 1)

    def test_every_room_that_logs_is_a_part(self) -> None:
        package = Path(regd.__file__).parent
        logging = {path.relative_to(package).parts[0] for path in package.rglob("*.py") if "Logger()" in path.read_text(encoding="utf-8")}
        self.assertEqual({room.removesuffix(".py") for room in logging} | {"twisted"}, set(PARTS))


class ObserverTests(LineCase):
    def test_events_of_a_logger(self) -> None:
        stream = io.StringIO()
        log = Logger("regd.test", observer=LineObserver(stream, "info", "text", {}))
        log.info("one {x}", x=1)
        log.debug("two")
        log.warn("three")
        try:
            raise ZeroDivisionError
        except ZeroDivisionError:
            log.failure("four")
        lines = stream.getvalue().splitlines()
        self.assertEqual([re.findall(r'msg="(\w+ ?1?)"', line) for line in lines], [["one 1"], ["three"], ["four"]])
        self.assertIn("ZeroDivisionError", lines[2])

    def test_events_that_cannot_be_formatted(self) -> None:
        self.assertIn("UNABLE TO FORMAT", self.line({**EVENT, "log_format": "{missing.attribute}"}).upper())

    def test_a_stream_that_fails(self) -> None:
        """A log that cannot be written must not stop what it tells of."""

        class Full(io.StringIO):
            def write(self, text: str) -> int:
                raise OSError(28, "No space left on device")

        LineObserver(Full(), "info", "text", {})(dict(EVENT))
        closed = io.StringIO()
        closed.close()
        LineObserver(closed, "info", "text", {})(dict(EVENT))

    def test_each_line_is_flushed(self) -> None:
        raw = io.BytesIO()
        stream = io.TextIOWrapper(io.BufferedWriter(raw), "utf-8")
        LineObserver(stream, "info", "text", {})(dict(EVENT))
        self.assertTrue(raw.getvalue().endswith(b"\n"))
