"""A file of lines that several processes append to, and that others rotate."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

__all__ = ["LineFile"]

#: How long a line waits for others that are written with it, in seconds.
_GATHER: Final = 0.1

#: How many characters of lines go to the thread at once; a piece may be one line longer.
_PIECE: Final = 64 * 1024

#: How many characters may wait for a disk, before further lines are dropped.
_MOST: Final = 4 * 1024 * 1024

#: How long the last lines may take when the process ends, in seconds.
_PATIENCE: Final = 5.0

#: What others may do with it: its group may read it.
_MODE: Final = 0o640


class LineFile:
    """
    A :class:`~regd.telemetry.lines.LineStream` over a file. Lines gather for a tenth of a second and are then written in a thread, so that
    the event loop never waits for the disk.

    Each ``write()`` is whole lines, at the end of the file as it is then (``O_APPEND``), so that lines of several processes are not torn,
    and the file may be truncated at any time (``copytruncate``). One that has been moved away is left as soon as its name is another file,
    or none, which is looked for before each ``write()``, and at :meth:`reopen`.

    Lines that cannot be written are dropped, and counted: that is said once when it begins, and once when it ends.

    :param path: an absolute path.
    :param reactor: ``Any``: a reactor is typed as the union of what reactors may be.
    :ivar path: the same.
    :ivar dropped: how many lines have been.
    """

    _log = Logger()

    def __init__(self, path: str, reactor: Any) -> None:
        self.path = path
        self.dropped = 0
        self._reactor = reactor
        # The event loop's.
        self._gathered: list[str] = []
        self._size = 0
        self._timer: IDelayedCall | None = None
        self._thread: threading.Thread | None = None
        self._failing = ""
        self._dropped_before = 0
        # Shared: pieces for the thread; an empty one only has it look at the file, and None ends it.
        self._pieces: SimpleQueue[str | None] = SimpleQueue()
        self._waiting = 0
        self._lock = threading.Lock()
        # The thread's, once it runs.
        self._fd = -1
        self._torn = False

    def open(self) -> None:
        """
        Open the file, and make it where there is none.

        :raises OSError: when that cannot be done.
        """
        self._fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, _MODE)

    def write(self, text: str, /) -> None:
        """Take whole lines."""
        if self._size + self._waiting > _MOST:
            self._drop(text.count("\n"), "the disk does not keep up")
            return
        self._gathered.append(text)
        self._size += len(text)
        if self._size >= _PIECE:
            self._hand_over()
        elif self._timer is None:
            self._timer = self._reactor.callLater(_GATHER, self._gathered_enough)

    def flush(self) -> None:
        """Lines leave by themselves, a tenth of a second after they came."""

    def reopen(self) -> None:
        """Whoever rotates files has moved this one away: what has been written until now is the last that goes there."""
        self._hand_over()
        self._put("")

    def close(self, *, wait: bool) -> None:
        """
        Write what is left, and close. May be called again.

        :param wait: until that is done, but not for long; for the end of the process.
        """
        self._hand_over()
        if self._thread is not None:
            thread, self._thread = self._thread, None
            self._pieces.put(None)
            if wait:
                thread.join(_PATIENCE)
        elif self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _gathered_enough(self) -> None:
        self._timer = None
        self._hand_over()

    def _hand_over(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._gathered:
            piece = "".join(self._gathered)
            self._gathered, self._size = [], 0
            self._put(piece)

    def _put(self, piece: str) -> None:
        if self._thread is None:
            # Not before there is something to write: a daemon may go to the background between its making and its start.
            self._thread = threading.Thread(target=self._live, name="regd-lines", daemon=True)
            self._thread.start()
        with self._lock:
            self._waiting += len(piece)
        self._pieces.put(piece)

    def _drop(self, count: int, why: str) -> None:
        """On the event loop."""
        self.dropped += count
        if not self._failing:
            self._failing = why
            self._log.error(
                "{path}: lines of the access log are lost: {why}; requests are answered all the same. Make room, or let it be written",
                path=self.path,
                why=why,
            )

    def _worked(self) -> None:
        """On the event loop: something was written again."""
        if self._failing and self._size + self._waiting < _MOST // 2:
            lost, self._dropped_before = self.dropped - self._dropped_before, self.dropped
            self._failing = ""
            self._log.warn("{path}: written again; {count} lines of the access log were lost", path=self.path, count=lost)

    # In the thread

    def _live(self) -> None:
        while (piece := self._pieces.get()) is not None:
            try:
                self._look()
                if piece:
                    self._append(piece.encode("utf-8", "backslashreplace"))
            except OSError as error:
                self._tell(self._drop, piece.count("\n"), error.strerror or str(error))
            else:
                if self._failing and piece:
                    self._tell(self._worked)
            finally:
                with self._lock:
                    self._waiting -= len(piece)
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _look(self) -> None:
        """Open the file that has the name now, if that is another one."""
        if self._fd >= 0:
            here = os.fstat(self._fd)
            try:
                there = os.stat(self.path)
            except FileNotFoundError:
                there = None
            if there is not None and (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino):
                return
            # The old one stays open until there is another: better there than nowhere.
        before = self._fd
        try:
            self.open()
        except OSError:
            if before < 0:
                raise
            return
        self._torn = False
        if before >= 0:
            os.close(before)

    def _append(self, data: bytes) -> None:
        if self._torn:
            # What a full disk has cut in two ends here.
            data = b"\n" + data
        written = os.write(self._fd, data)
        while written < len(data):
            self._torn = True
            written += os.write(self._fd, data[written:])
        self._torn = False

    def _tell(self, function: Callable[..., object], *arguments: object) -> None:
        # The event loop may have come to its end.
        with suppress(Exception):
            self._reactor.callFromThread(function, *arguments)
