"""What processes say, and how they end."""

from __future__ import annotations

import signal

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from regd.processes import LONGEST_LINE, Lines, how_it_ended, killed_by


class LinesTest(SynchronousTestCase):
    @given(st.lists(st.binary(max_size=5).map(lambda data: data.replace(b"x", b"\n"))))
    def test_however_it_comes(self, parts: list[bytes]) -> None:
        taken: list[bytes] = []
        lines = Lines(taken.append)
        for part in parts:
            lines.feed(part)
        whole = b"".join(parts)
        self.assertEqual(taken, whole.split(b"\n")[:-1])
        lines.end()
        self.assertEqual(taken, whole.removesuffix(b"\n").split(b"\n") if whole else [])
        lines.end()
        self.assertEqual(taken, whole.removesuffix(b"\n").split(b"\n") if whole else [])

    def test_a_line_that_does_not_end(self) -> None:
        taken: list[bytes] = []
        lines = Lines(taken.append)
        for _ in range(3):
            lines.feed(b"x" * LONGEST_LINE)
        self.assertEqual([len(line) for line in taken], [2 * LONGEST_LINE])
        lines.end()
        self.assertEqual([len(line) for line in taken], [2 * LONGEST_LINE, LONGEST_LINE])


class EndTest(SynchronousTestCase):
    def test_how_processes_end(self) -> None:
        for error, number, how in (
            (ProcessDone(0), None, ""),
            (ProcessTerminated(exitCode=3), None, "ended with status 3"),
            (ProcessTerminated(signal=signal.SIGKILL), signal.SIGKILL, "was killed by SIGKILL"),
        ):
            reason = Failure(error)
            self.assertEqual((killed_by(reason), how_it_ended(reason)), (number, how))
