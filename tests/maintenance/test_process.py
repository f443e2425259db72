"""A chore in a process of its own, from both ends."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.task import Clock, deferLater
from twisted.logger import LogLevel
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from regd.maintenance import child as child_module
from regd.maintenance.child import Child, Observer, Turns
from regd.maintenance.chores import CutShort, Occupied, Order, begin, order
from regd.maintenance.process import PATIENCE, Here, InProcess
from regd.maintenance.purge import PurgeOrders
from regd.maintenance.service import RunFailed
from regd.names import RepositoryName
from regd.processes import LONGEST_LINE
from regd.storage import layout
from regd.storage.driver import Driver, StorageError
from regd.storage.layout import UploadId
from regd.storage.memory import MemoryDriver
from tests.support import no_sleep

PURGE = order(PurgeOrders(3600.0, dryrun=True), "/somewhere", 2.5)
APP = RepositoryName("app")


class Heard:
    """Writes down what is found."""

    def __init__(self) -> None:
        self.events: list[tuple[str, ...]] = []

    def damaged(self, path: str, what: str) -> None:
        self.events.append(("damaged", path, what))

    def say(self, level: str, text: str) -> None:
        self.events.append((level, text))


class OrderTests(SynchronousTestCase):
    def test_it_travels(self) -> None:
        line = PURGE.to_json()
        self.assertEqual(line.count(b"\n"), 1)
        self.assertEqual(Order.from_json(line), PURGE)
        self.assertEqual((PURGE.kind, PURGE.root, PURGE.patience), ("purge", "/somewhere", 2.5))

    @given(st.binary(max_size=60) | st.recursive(st.none() | st.text(), st.lists).map(lambda found: json.dumps(found).encode()))
    def test_what_is_no_order_is_refused(self, line: bytes) -> None:
        self.assertRaises(ValueError, Order.from_json, line)

    def test_what_cannot_be_done(self) -> None:
        for wrong in (Order("dance", {}), Order("purge", {}), Order("purge", {"age": 1.0, "depth": 2})):
            self.assertRaises(ValueError, begin, wrong, MemoryDriver(), Heard(), no_sleep, lambda: 0.0)


class HereTests(SynchronousTestCase):
    def test_it_is_done_here(self) -> None:
        driver = MemoryDriver(lambda: 0.0)
        upload = layout.upload_data(APP, UploadId.new())
        self.successResultOf(Deferred.fromCoroutine(driver.write((upload, b"x"))))
        here = Here(lambda: driver, no_sleep, lambda: 10_000.0)
        summary = self.successResultOf(Deferred.fromCoroutine(here.run(order(PurgeOrders(3600.0)), Heard())))
        self.assertEqual((summary["removed"], summary["finished"]), (1, True))

    def test_stop_and_failure(self) -> None:
        class Broken(MemoryDriver):
            async def scan(self, path: layout.Path) -> list[str]:
                here.stop()
                raise StorageError("gone")

        driver: Driver = Broken()
        here = Here(lambda: driver, no_sleep, lambda: 10_000.0)
        here.stop()
        failure = self.failureResultOf(Deferred.fromCoroutine(here.run(order(PurgeOrders(3600.0)), Heard())), RunFailed)
        self.assertEqual(failure.getErrorMessage(), "gone")


class FakeReactor(Clock):
    """Starts processes that are not there."""

    def __init__(self) -> None:
        super().__init__()
        self.failure: OSError | None = None
        self.signals: list[str] = []
        self.written = b""
        self.pid: int | None = 1

    def spawnProcess(self, protocol: Any, executable: str, args: Any, env: Any) -> Any:
        if self.failure is not None:
            raise self.failure
        self.child = protocol
        self.args = args
        self.environment = env
        protocol.makeConnection(self)
        return self

    def write(self, data: bytes) -> None:
        self.written += data

    def signalProcess(self, name: str) -> None:
        self.signals.append(name)


class ParentTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = FakeReactor()
        self.heard = Heard()
        self.runner = InProcess(self.reactor)

    def start(self) -> Deferred[Any]:
        return Deferred.fromCoroutine(self.runner.run(PURGE, self.heard))

    def out(self, data: bytes, fd: int = 1) -> None:
        self.reactor.child.childDataReceived(fd, data)

    def end(self, reason: Exception | None = None) -> None:
        self.reactor.child.processEnded(Failure(reason or ProcessDone(0)))

    def test_a_run(self) -> None:
        done = self.start()
        self.assertEqual(self.reactor.args, (sys.executable, "-P", "-m", "regd.maintain"))
        self.assertIn(str(Path(child_module.__file__).parents[2]), self.reactor.environment["PYTHONPATH"].split(os.pathsep))
        self.assertEqual(Order.from_json(self.reactor.written), PURGE)
        self.out(b'{"event": "damaged", "path": "a/b", "what": "no link"}\n{"event": "say", "lev')
        self.out(b'el": "warn", "text": "hm"}\n')
        self.out(b'{"event": "summary", "summary": {"removed": 3}}')
        self.assertNoResult(done)
        self.end()
        self.assertEqual(self.successResultOf(done), {"removed": 3})
        self.assertEqual(self.heard.events, [("damaged", "a/b", "no link"), ("warn", "hm")])
        self.runner.stop()
        self.assertEqual(self.reactor.signals, [])

    def test_other_outcomes(self) -> None:
        for line, reason, kind, message in (
            (b'{"event": "occupied"}\n', None, Occupied, ""),
            (b'{"event": "failed", "reason": "no room"}\n', ProcessTerminated(1), RunFailed, "no room"),
            (b"", ProcessTerminated(None, signal.SIGKILL), RunFailed, "its process was killed by SIGKILL"),
            (b"", ProcessTerminated(3), RunFailed, "its process ended with status 3"),
            (b"", None, RunFailed, "its process ended without a word"),
        ):
            done = self.start()
            self.out(line)
            self.end(reason)
            self.assertEqual(self.failureResultOf(done, kind).getErrorMessage(), message)

    def test_what_is_no_event_is_logged(self) -> None:
        done = self.start()
        self.out(b"Traceback:\n  what\xff\n", 2)
        self.out(b'no JSON\n[1]\n{"event": "say"}\n5\n{}\n')
        self.out(b"the end", 2)
        self.out(b"x" * (LONGEST_LINE + 1))
        self.end()
        self.failureResultOf(done, RunFailed)
        texts = [text for level, text in self.heard.events if level == "error"]
        self.assertEqual(texts[:7], ["Traceback:", "  what\\xff", "no JSON", "[1]", '{"event": "say"}', "5", "{}"])
        self.assertEqual((len(texts[7]), texts[8]), (LONGEST_LINE + 1, "the end"))

    @given(
        st.lists(
            st.binary(max_size=40)
            | st.fixed_dictionaries(
                {"event": st.sampled_from(["damaged", "say", "summary", "occupied", "failed", "x", 5])},
                optional={"path": st.none(), "what": st.text(), "level": st.text(), "text": st.text(), "summary": st.text()},
            ).map(lambda event: json.dumps(event).encode()),
            max_size=5,
        ).map(b"\n".join),
        st.integers(0, 100),
    )
    def test_whatever_it_writes(self, data: bytes, cut: int) -> None:
        done = self.start()
        self.out(data[:cut])
        self.out(data[cut:])
        self.end()
        outcome: list[Any] = []
        done.addBoth(outcome.append)
        self.assertEqual(len(outcome), 1)
        self.assertTrue(isinstance(outcome[0], dict) or outcome[0].check(Occupied, RunFailed))

    def test_stop(self) -> None:
        self.runner.stop()
        done = self.start()
        self.runner.stop()
        self.runner.stop()
        self.assertEqual(self.reactor.signals, ["TERM"])
        self.out(b'{"event": "summary", "summary": {}}\n')
        self.end()
        self.assertEqual((self.successResultOf(done), self.reactor.getDelayedCalls()), ({}, []))

    def test_stop_before_it_has_begun(self) -> None:
        done = self.start()
        self.runner.stop()
        self.end(ProcessTerminated(None, signal.SIGTERM))
        self.failureResultOf(done, CutShort)
        done = self.start()
        self.end(ProcessTerminated(None, signal.SIGTERM))
        self.failureResultOf(done, RunFailed)

    def test_one_that_does_not_stop(self) -> None:
        done = self.start()
        self.runner.stop()
        self.reactor.advance(PATIENCE)
        self.assertEqual(self.reactor.signals, ["TERM", "KILL"])
        self.end(ProcessTerminated(None, signal.SIGKILL))
        self.failureResultOf(done, RunFailed)

    def test_one_that_cannot_be_started(self) -> None:
        self.reactor.failure = OSError(errno.EAGAIN, "too many processes")
        failure = self.failureResultOf(self.start(), RunFailed)
        self.assertEqual(failure.getErrorMessage(), "no process can be started: too many processes")


class ChildTests(SynchronousTestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.root = directory.name
        self.output = io.BytesIO()
        self.child = Child(self.output)

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.output.getvalue().splitlines()]

    def test_a_run(self) -> None:
        self.assertEqual(self.child.do(order(PurgeOrders(3600.0), self.root).to_json()), 0)
        (summary,) = self.events()
        self.assertEqual((summary["event"], summary["summary"]["finished"]), ("summary", True))

    def test_stopped_before_it_begins(self) -> None:
        self.child.stop()
        self.assertEqual(self.child.do(order(PurgeOrders(3600.0), self.root).to_json()), 0)
        self.assertFalse(self.events()[0]["summary"]["finished"])
        self.child.stop()

    def test_no_order(self) -> None:
        self.assertEqual(self.child.do(b"dance\n"), 1)
        self.assertEqual(self.events()[0]["event"], "failed")

    def test_no_storage(self) -> None:
        Path(self.root, "file").write_text("x")
        self.assertEqual(self.child.do(order(PurgeOrders(3600.0), f"{self.root}/file").to_json()), 1)
        self.assertIn("is not a directory", self.events()[0]["reason"])

    def test_occupied(self) -> None:
        with patch.object(child_module, "begin", side_effect=Occupied):
            self.assertEqual(self.child.do(order(PurgeOrders(1.0), self.root).to_json()), 0)
        self.assertEqual(self.events(), [{"event": "occupied"}])

    def test_what_nobody_expected(self) -> None:
        with patch.object(child_module, "begin", side_effect=ZeroDivisionError("by 0")), patch("sys.stderr", io.StringIO()) as said:
            self.assertEqual(self.child.do(order(PurgeOrders(1.0), self.root).to_json()), 1)
        self.assertEqual(self.events()[0]["reason"], "ZeroDivisionError: by 0")
        self.assertIn("Traceback", said.getvalue())

    def test_what_is_found(self) -> None:
        self.child.damaged("a", "b")
        self.child.say("info", "c")
        self.assertEqual(
            self.events(), [{"event": "damaged", "path": "a", "what": "b"}, {"event": "say", "level": "info", "text": "c"}]
        )

    def test_the_log_of_the_storage(self) -> None:
        observe = Observer(self.child)
        for level, name in ((LogLevel.warn, "regd"), (LogLevel.debug, "regd"), (LogLevel.warn, "twisted"), (LogLevel.critical, "regd")):
            observe({"log_level": level, "log_namespace": name, "log_format": "hello {who}", "who": "you"})
        observe({"log_namespace": "regd.x", "log_format": "oh", "log_failure": Failure(ZeroDivisionError())})
        said = [(event["level"], event["text"]) for event in self.events()[:2]]
        self.assertEqual(said, [("warn", "hello you"), ("error", "hello you")])
        self.assertIn("ZeroDivisionError", self.events()[2]["text"])

    def test_a_parent_that_has_gone(self) -> None:
        with patch.object(self.output, "flush", side_effect=BrokenPipeError):
            self.child.say("info", "c")
        self.assertTrue(self.child._stopped)

    def test_a_parent_that_goes(self) -> None:
        with patch("time.sleep") as sleep, patch("os._exit") as ending:
            self.child.watch(io.BytesIO(b"xyz"))
        self.assertTrue(self.child._stopped)
        sleep.assert_called_once()
        ending.assert_called_once_with(1)


class TurnsTests(SynchronousTestCase):
    def test_it_rests_as_long_as_it_has_worked(self) -> None:
        worked, slept = 1.0, list[float]()
        self.patch(time, "process_time", lambda: worked)
        self.patch(time, "sleep", slept.append)
        turns = Turns()
        worked += 0.25
        self.successResultOf(Deferred.fromCoroutine(turns.sleep(0)))
        self.successResultOf(Deferred.fromCoroutine(turns.sleep(0)))
        self.successResultOf(Deferred.fromCoroutine(turns.sleep(2)))
        self.assertEqual(slept, [0.25, 2])


class RealTests(TestCase):
    """With a process that is there."""

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.root = Path(directory.name)
        self.heard = Heard()

    async def test_a_run(self) -> None:
        upload = self.root / layout.upload(APP, UploadId.new())
        upload.mkdir(parents=True)
        (upload / "startedat").write_text("2020-01-01T00:00:00Z")
        (upload / "data").write_text("12345")
        summary = await InProcess(reactor).run(order(PurgeOrders(3600.0), str(self.root)), self.heard)
        self.assertEqual((summary["removed"], summary["bytes_freed"], summary["finished"]), (1, 5, True))
        self.assertFalse(upload.exists())
        ((level, text),) = self.heard.events
        self.assertEqual(level, "debug")
        self.assertIn("was removed", text)

    async def test_stop(self) -> None:
        """An empty directory makes it wait two seconds, which SIGTERM does not cut short, but nothing is removed after it."""
        upload = self.root / layout.upload(APP, UploadId.new())
        upload.mkdir(parents=True)
        runner = InProcess(reactor)
        done = Deferred.fromCoroutine(runner.run(order(PurgeOrders(3600.0), str(self.root)), self.heard))
        await deferLater(reactor, 1.0)
        runner.stop()
        summary = await done
        self.assertFalse(summary["finished"])
        self.assertTrue(upload.exists())

    async def test_one_that_is_killed(self) -> None:
        upload = self.root / layout.upload(APP, UploadId.new())
        upload.mkdir(parents=True)
        runner = InProcess(reactor)
        done = Deferred.fromCoroutine(runner.run(order(PurgeOrders(3600.0), str(self.root)), self.heard))
        assert runner._child is not None
        runner._child._signal("KILL")
        try:
            await done
        except RunFailed as error:
            self.assertEqual(str(error), "its process was killed by SIGKILL")
        else:
            self.fail("not killed")
