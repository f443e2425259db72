"""What commands print: lines to whoever reads them, and progress to a terminal."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final, TextIO

__all__ = ["Bar", "Interrupted", "Printer", "one_line", "say", "stopped_by_signals"]

#: Lines are written when there are so many of them.
_TOGETHER: Final = 1000


class Bar:
    """
    Progress on standard error, where that is a terminal; nothing anywhere else.

    :param wanted: whether anybody wants to see it.
    """

    def __init__(self, *, wanted: bool = True) -> None:
        self.shown = wanted and sys.stderr.isatty()
        #: Of tqdm, which is not imported where there is no terminal.
        self._bar: Any = None
        self._stage = ""

    def update(self, stage: str, done: int, total: int | None = None, *, unit: str = "", begun: int = 0) -> None:
        """
        How far it is.

        :param stage: what is done; another one than before begins another line.
        :param unit: what is counted; ``B`` for bytes.
        :param begun: what had been done before this run.
        """
        if not self.shown:
            return
        if self._bar is None or stage != self._stage:
            self._begin(stage, total, unit, begun)
        if total is not None:
            self._bar.total = total
        # Draws itself a few times a second, however often it is told.
        self._bar.update(done - self._bar.n)

    def _begin(self, stage: str, total: int | None, unit: str, begun: int) -> None:
        # Not at the top: only a terminal needs it.
        from tqdm import tqdm  # noqa: PLC0415 - see above

        self.close()
        # Otherwise it starts a thread, to see whether a bar has hung.
        tqdm.monitor_interval = 0
        in_bytes = unit == "B"
        # Some, such as serial lines, do not know how large they are, and tqdm would draw nothing.
        known = os.get_terminal_size(sys.stderr.fileno()).columns > 0
        self._stage = stage
        self._bar = tqdm(
            desc=stage,
            total=total,
            initial=begun,
            unit=unit if in_bytes else f" {unit}",
            unit_scale=in_bytes,
            unit_divisor=1024,
            file=sys.stderr,
            dynamic_ncols=known,
            ncols=None if known else 80,
            nrows=None if known else 24,
            leave=False,
        )

    def clear(self) -> None:
        """Make room for lines; it is drawn again at the next update."""
        if self._bar is not None:
            self._bar.clear()

    def close(self) -> None:
        """Take it away. Safe to call at any time."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class Printer:
    """
    Prints lines to standard output, many at a time. Where nobody reads them any more, the work goes on without.

    :param bar: has to make room on the same terminal.
    """

    def __init__(self, bar: Bar) -> None:
        self._bar = bar
        self._lines: list[str] = []
        self._broken = False

    def line(self, text: str) -> None:
        """Print a line, soon."""
        self._lines.append(text)
        if len(self._lines) >= _TOGETHER:
            self.flush()

    def flush(self) -> None:
        """Print what is waiting."""
        if not self._lines:
            return
        text = "\n".join(self._lines) + "\n"
        self._lines.clear()
        if self._broken:
            return
        self._bar.clear()
        try:
            sys.stdout.write(text)
            sys.stdout.flush()
        except BrokenPipeError:
            self._broken = True
            # Python would complain of it again when it closes the file at the end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Interrupted:
    """
    Which signal has asked to stop.

    :ivar by: its number; 0 for none.
    """

    def __init__(self) -> None:
        self.by = 0

    @property
    def status(self) -> int:
        """The exit status of a program that was ended by it, as shells say it."""
        return 128 + self.by


@contextmanager
def stopped_by_signals(stop: Callable[[], object]) -> Iterator[Interrupted]:
    """For as long as a ``with`` block: SIGINT and SIGTERM ask to stop; a second one ends the process at once, which is safe, too."""
    interrupted = Interrupted()

    def asked(number: int, _frame: FrameType | None) -> None:
        interrupted.by = number
        signal.signal(number, signal.SIG_DFL)
        stop()

    before = {number: signal.signal(number, asked) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def one_line(text: str) -> str:
    """A line as it can be printed, whatever names of files are in it."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def say(text: str, stream: TextIO | None = None) -> None:
    """Tell the operator something on standard error."""
    print(f"regd: {one_line(text)}", file=stream or sys.stderr, flush=True)
