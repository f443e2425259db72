"""A process that closes the gate of a registry's directory, as a collection does, for as long as a test likes."""

import subprocess
import sys
from pathlib import Path

from tests.e2e.daemon import SOURCES

__all__ = ["Closer"]

PROGRAM = """
import select, sys, time
from regd.maintenance.gate import Gate
from regd.storage.filesystem import FilesystemDriver
from regd.storage.threads import PoolThreads

root, closed, open_for = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])

async def sleep(seconds):
    time.sleep(seconds)

def told_to_go(seconds):
    return bool(select.select([sys.stdin], [], [], seconds)[0])

async def run():
    # Locks need neither threads nor an event loop.
    gate = Gate(FilesystemDriver(root, PoolThreads(None, 1)), sleep)
    while True:
        async with gate.alone():
            print(f"closed {gate.closings}", flush=True)
            if told_to_go(closed):
                return
        if told_to_go(open_for):
            return

try:
    run().send(None)
except StopIteration:
    pass
"""


class Closer:
    """
    Closes the gate, and comes back when it is closed.

    :param data: The root directory of the storage.
    :param closed: For how long it stays closed, in seconds.
    :param open_for: For how long it is open before it is closed again, in seconds.
    """

    def __init__(self, data: Path, closed: float = 600, open_for: float = 0) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(data), str(closed), str(open_for)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=SOURCES,
        )
        assert self._process.stdout is not None
        said = self._process.stdout.readline()
        assert said.startswith(b"closed"), said

    def open(self) -> int:
        """
        Open the gate for good. Safe to call at any time.

        :return: How often it was closed.
        """
        said, _ = self._process.communicate()
        return 1 + said.count(b"closed")

    def kill(self) -> None:
        """End the process as nothing can be ended more suddenly. Safe to call at any time."""
        self._process.kill()
        self._process.communicate()
