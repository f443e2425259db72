"""Locks and times on a real file system: other processes, their death, permissions, and files that move at the wrong moment."""

from __future__ import annotations

import fcntl
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path as FilePath
from typing import Any

from regd.storage.driver import Busy, Missing, StorageError
from regd.storage.layout import Path
from tests.storage.contract import FILE, LOCK
from tests.storage.test_filesystem import AM_ROOT, FilesystemCase

#: Another process that takes a lock, says how that went, and holds it until it is told to go.
HOLDER = """
import sys
from regd.storage.driver import Busy
from regd.storage.locks import take

path, root, shared = sys.argv[1:]
try:
    lock = take(path, shared == "shared", root, root)
    print("held", flush=True)
except Busy:
    print("busy", flush=True)
sys.stdin.read()
"""


class OtherProcessesTest(FilesystemCase):
    def hold(self, *, shared: bool) -> tuple[subprocess.Popen[str], str]:
        """
        :return: the other process, and what it says of the lock.
        """
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(self.on_disk(LOCK)), str(self.root), "shared" if shared else "alone"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

        def end() -> None:
            process.kill()
            process.communicate()

        self.addCleanup(end)
        assert process.stdout is not None
        return process, process.stdout.readline().strip()

    async def busy(self, *, shared: bool) -> bool:
        try:
            (await self.driver.lock(LOCK, shared=shared)).close()
        except Busy:
            return True
        return False

    async def test_a_lock_of_a_process_that_is_killed_is_let_go_of(self) -> None:
        for theirs, ours, free in ((False, False, False), (False, True, False), (True, False, False), (True, True, True)):
            process, said = self.hold(shared=theirs)
            self.assertEqual(said, "held")
            self.assertEqual(await self.busy(shared=ours), not free)
            process.send_signal(signal.SIGKILL)
            process.wait()
            self.assertFalse(await self.busy(shared=ours))

    async def test_another_process_sees_ours(self) -> None:
        for ours, theirs, said in ((False, False, "busy"), (False, True, "busy"), (True, False, "busy"), (True, True, "held")):
            held = await self.driver.lock(LOCK, shared=ours)
            self.assertEqual(self.hold(shared=theirs)[1], said)
            held.close()

    async def test_a_program_that_is_started_meanwhile_does_not_hold_it(self) -> None:
        held = await self.driver.lock(LOCK)
        program = [sys.executable, "-c", "print(flush=True); input()"]
        process = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, close_fds=False)
        try:
            held.close()
            assert process.stdout is not None
            process.stdout.readline()
            self.assertFalse(await self.busy(shared=False))
        finally:
            process.communicate(b"\n")


class LockFilesTest(FilesystemCase):
    async def test_it_is_a_file_below_the_root(self) -> None:
        (await self.driver.lock(LOCK)).close()
        self.assertTrue(self.on_disk(LOCK).is_file())
        (await self.driver.lock(Path("elsewhere/lock"), shared=True)).close()
        self.assertEqual(self.on_disk("elsewhere/lock").read_bytes(), b"")

    async def test_permissions_follow_the_umask(self) -> None:
        before = os.umask(0o027)
        try:
            (await self.driver.lock(LOCK)).close()
        finally:
            os.umask(before)
        self.assertEqual(stat.S_IMODE(self.on_disk(LOCK).stat().st_mode), 0o640)

    async def test_one_that_may_only_be_read(self) -> None:
        # As when an operator's command, run as root, was the first to make it.
        (await self.driver.lock(LOCK)).close()
        real = os.open

        def read_only(path: Any, flags: int, *more: Any, **named: Any) -> int:
            if flags & (os.O_RDWR | os.O_WRONLY):
                raise PermissionError(13, "Permission denied", path)
            return real(path, flags, *more, **named)

        self.patch(os, "open", read_only)
        for shared in (False, True):
            held = await self.driver.lock(LOCK, shared=shared)
            with self.assertRaises(Busy):
                await self.driver.lock(LOCK)
            held.close()

    async def test_one_that_may_not_even_be_read(self) -> None:
        (await self.driver.lock(LOCK)).close()

        def refuse(path: Any, *more: Any, **named: Any) -> int:
            raise PermissionError(13, "Permission denied", path)

        self.patch(os, "open", refuse)
        for shared in (False, True):
            with self.assertRaises(StorageError) as raised:
                await self.driver.lock(LOCK, shared=shared)
            self.assertIn(str(self.on_disk(LOCK)), str(raised.exception))

    async def test_a_directory_in_its_place(self) -> None:
        self.on_disk(LOCK).mkdir()
        with self.assertRaises(StorageError):
            await self.driver.lock(LOCK)

    async def test_a_storage_that_is_not_there(self) -> None:
        FilePath(self.root).rename(f"{self.root}.away")
        self.addCleanup(os.rename, f"{self.root}.away", self.root)
        with self.assertRaises(StorageError):
            await self.driver.lock(LOCK)

    async def test_its_directory_is_removed_while_it_is_made(self) -> None:
        path = Path("made/lock")
        real = os.open
        times = iter([True, True])

        def removed(where: Any, flags: int, *more: Any, **named: Any) -> int:
            if str(where).endswith("made/lock") and not flags & os.O_CREAT and next(times, False):
                raise FileNotFoundError(2, "No such file or directory", where)
            return real(where, flags, *more, **named)

        self.patch(os, "open", removed)
        (await self.driver.lock(path)).close()

    async def test_locks_that_the_file_system_does_not_know(self) -> None:
        def none(fd: int, operation: int) -> None:
            raise OSError(37, "No locks available")

        self.patch(fcntl, "flock", none)
        before = len(os.listdir("/proc/self/fd"))
        with self.assertRaises(StorageError) as raised:
            await self.driver.lock(LOCK)
        self.assertIn("No locks available", str(raised.exception))
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)

    async def test_descriptors_are_given_back(self) -> None:
        (await self.driver.lock(LOCK)).close()
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(20):
            held = await self.driver.lock(LOCK)
            with self.assertRaises(Busy):
                await self.driver.lock(LOCK)
            held.close()
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)


class RenewTest(FilesystemCase):
    async def test_a_file_that_is_moved_away_as_it_is_renewed(self) -> None:
        await self.driver.write((FILE, b"x"))
        real = os.utime

        def moved(path: Any, *more: Any) -> None:
            # Found under its name, moved away and looked at, then renewed.
            away = f"{path}.away"
            os.rename(path, away)
            real(away, *more)

        self.patch(os, "utime", moved)
        with self.assertRaises(Missing):
            await self.driver.renew(FILE)

    async def test_a_file_that_is_somebody_else_s(self) -> None:
        await self.driver.write((FILE, b"x"))

        def refuse(path: Any, *more: Any) -> None:
            raise PermissionError(1, "Operation not permitted", path)

        self.patch(os, "utime", refuse)
        with self.assertRaises(StorageError) as raised:
            await self.driver.renew(FILE)
        self.assertIn(str(self.on_disk(FILE)), str(raised.exception))

    async def test_a_file_that_may_be_written_but_is_not_ours(self) -> None:
        if not AM_ROOT:
            self.skipTest("it takes root to give a file away")
        await self.driver.write((FILE, b"x"))
        os.utime(self.on_disk(FILE), (1, 1))
        os.chown(self.on_disk(FILE), 12345, 12345)
        self.on_disk(FILE).chmod(0o666)
        for directory in (self.root, *self.on_disk(FILE).parents):
            if str(directory).startswith(str(self.root)):
                directory.chmod(0o777)
        child = os.fork()
        if not child:
            os.setuid(54321)
            os.utime(self.on_disk(FILE))
            os._exit(0)
        self.assertEqual(os.waitpid(child, 0)[1], 0)
        self.assertGreater(self.on_disk(FILE).stat().st_mtime, 1)
