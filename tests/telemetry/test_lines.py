"""Lines of several processes in one stream: with real pipes, files and processes."""

from __future__ import annotations

import os
import tempfile
import threading
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from regd.telemetry.lines import Lines, make_lock

LONG = 30_000


def write_many(fd: int, lock: int | None, letters: str) -> list[int]:
    """
    Start processes that each write fifty long lines of its letter.

    :return: Their ids.
    """
    pids = []
    for letter in letters:
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                lines = Lines(fd, lock)
                for _ in range(50):
                    lines.write(letter * LONG + "\n")
                status = 0
            finally:
                os._exit(status)
        pids.append(pid)
    return pids


class LinesTests(SynchronousTestCase):
    def whole(self, data: bytes) -> None:
        lines = data.split(b"\n")
        self.assertEqual(lines.pop(), b"")
        self.assertEqual(len(lines), 200)
        for line in lines:
            self.assertTrue(len(line) == LONG and len(set(line)) == 1, line[:20])

    def wait(self, pids: list[int]) -> None:
        for pid in pids:
            self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 0)

    def test_a_pipe(self) -> None:
        reader, writer = os.pipe()
        lock = make_lock()
        self.addCleanup(os.close, lock)
        pids = write_many(writer, lock, "abcd")
        os.close(writer)
        with os.fdopen(reader, "rb") as file:
            self.whole(file.read())
        self.wait(pids)

    def test_a_file(self) -> None:
        """No lock is needed, whether it is opened for appending or not."""
        for flags in (os.O_WRONLY | os.O_CREAT, os.O_WRONLY | os.O_CREAT | os.O_APPEND):
            with tempfile.TemporaryDirectory() as directory:
                path = Path(directory) / "log"
                fd = os.open(path, flags)
                self.wait(write_many(fd, None, "abcd"))
                os.close(fd)
                self.whole(path.read_bytes())

    def test_text(self) -> None:
        with tempfile.TemporaryFile() as file:
            lines = Lines(file.fileno(), None)
            lines.write("é\udcff\n")
            lines.flush()
            file.seek(0)
            self.assertEqual(file.read(), "é\\udcff\n".encode())

    def test_a_pipe_that_nobody_reads(self) -> None:
        reader, writer = os.pipe()
        os.close(reader)
        lock = make_lock()
        lines = Lines(writer, lock)
        for _ in range(2):
            self.assertRaises(BrokenPipeError, lines.write, "x\n")
        # Whoever failed does not keep the others from it.
        other = threading.Thread(target=lambda: self.assertRaises(BrokenPipeError, lines.write, "x\n"))
        other.start()
        other.join()
        os.close(writer)
        os.close(lock)

    def test_the_lock_is_not_inherited(self) -> None:
        lock = make_lock()
        self.addCleanup(os.close, lock)
        self.assertFalse(os.get_inheritable(lock))
