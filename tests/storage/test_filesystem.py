"""
Files in a directory keep the contract, and then what only a real file system can show: the order of flushes, failing disks, other
processes, permissions, and a root directory that comes and goes.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path as FilePath
from typing import Any

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from regd.storage import listing
from regd.storage.driver import Busy, Full, Missing, StorageError
from regd.storage.filesystem import INLINE_READ, FilesystemDriver
from regd.storage.layout import Path
from regd.storage.threads import PoolThreads
from tests.storage.contract import FILE, LINK, OTHER, DriverContract
from tests.support import together

#: Root may read and write anything, so what is forbidden cannot be shown to it.
AM_ROOT = os.geteuid() == 0

#: Another process that holds the end of a file until it is told to go, or says that somebody else does.
HOLDER = """
import sys
from twisted.internet import reactor
from twisted.internet.task import deferLater
from regd.storage.driver import Busy
from regd.storage.filesystem import FilesystemDriver
from regd.storage.threads import PoolThreads

root, path = sys.argv[1:]
try:
    # It never suspends.
    FilesystemDriver(root, PoolThreads(reactor, 1)).append(path).send(None)
except StopIteration as stop:
    appender = stop.value
    print("held", flush=True)
except Busy:
    print("busy", flush=True)
sys.stdin.read()
"""


class FilesystemCase(TestCase):
    """A driver over a directory of its own."""

    def setUp(self) -> None:
        self.root = FilePath(tempfile.mkdtemp(prefix="regd-test-"))
        self.addCleanup(shutil.rmtree, self.root, ignore_errors=True)
        self.driver = self.make()
        self.driver.start()

    def make(self, *, writable: bool = True) -> FilesystemDriver:
        # Any: mypy knows the reactor as a module.
        loop: Any = reactor
        driver = FilesystemDriver(str(self.root), PoolThreads(loop, 8), writable=writable)
        self.addCleanup(driver.stop)
        return driver

    def on_disk(self, path: str) -> FilePath:
        return self.root / path

    def leftovers(self) -> list[str]:
        """Files that no method of the driver was asked to make."""
        return [str(path) for path in self.root.rglob("*.tmp") if path.parent.name != "regd"]


class FilesystemDriverTest(FilesystemCase, DriverContract):
    """The contract."""

    async def age(self, path: Path) -> float:
        os.utime(self.on_disk(path), (1_000_000, 1_000_000))
        return 1_000_000.0


class BytesOnDiskTest(FilesystemCase):
    async def test_a_path_is_a_path_below_the_root(self) -> None:
        await self.driver.write((FILE, b"x"))
        self.assertEqual(self.on_disk(FILE).read_bytes(), b"x")

    async def test_permissions_follow_the_umask(self) -> None:
        for mask, file_mode, directory_mode in ((0o022, 0o644, 0o755), (0o077, 0o600, 0o700), (0o002, 0o664, 0o775), (0, 0o666, 0o777)):
            before = os.umask(mask)
            try:
                await self.driver.write((Path(f"{mask}/d/file"), b""), (FILE, b""))
                await self.driver.create((Path(f"{mask}/c/data"), b""))
                await self.driver.adopt(Path(f"{mask}/c/data"), Path(f"{mask}/e/moved"), (Path(f"{mask}/f/link"), b""))
            finally:
                os.umask(before)
            files = [(path, file_mode) for path in (f"{mask}/d/file", f"{mask}/e/moved", f"{mask}/f/link")]
            for path, mode in (*files, *((f"{mask}{end}", directory_mode) for end in ("", "/d", "/e", "/f"))):
                self.assertEqual(stat.S_IMODE(self.on_disk(path).stat().st_mode), mode, path)

    async def test_reads_of_every_size(self) -> None:
        data = os.urandom(3 * INLINE_READ)
        await self.driver.write((FILE, data))
        content = await self.driver.open(FILE)
        for length in (1, INLINE_READ - 1, INLINE_READ, INLINE_READ + 1, 3 * INLINE_READ, 9 * INLINE_READ):
            self.assertEqual(await content.read(0, length), data[:length])
        fd = content.fileno()
        assert fd is not None
        self.assertEqual(os.pread(fd, 10, 5), data[5:15])
        content.close()

    async def test_short_reads_are_continued(self) -> None:
        await self.driver.write((FILE, b"1234567890"))
        real = os.pread
        self.patch(os, "pread", lambda fd, length, offset: real(fd, min(length, 3), offset))
        self.assertEqual(await self.driver.read(FILE, 100), b"1234567890")
        self.assertEqual(await self.driver.read(FILE, 8), b"12345678")

    async def test_a_file_that_shrinks_while_it_is_read(self) -> None:
        await self.driver.write((FILE, b"1234567890"))
        self.patch(os, "pread", lambda fd, length, offset: b"12345"[offset : offset + length])
        self.assertEqual(await self.driver.read(FILE, 100), b"12345")

    async def test_a_directory_too_large_to_list_in_passing(self) -> None:
        names = sorted(f"{number:04}-{'x' * 200}" for number in range(400))
        self.on_disk("d").mkdir()
        for name in names:
            (self.on_disk("d") / name).touch()
        self.patch(listing, "INLINE_DIRECTORY", 0)
        self.assertEqual(list(await self.driver.names(Path("d"))), names)
        (self.on_disk("d") / names[0]).unlink()
        self.assertEqual(list(await self.driver.names(Path("d"))), names[1:])

    async def test_names_that_are_not_utf_8(self) -> None:
        self.on_disk("d").mkdir()
        for name in (b"b", b"\xff", b"\xc3\xa9", b"a"):
            (self.on_disk("d") / os.fsdecode(name)).touch()
        self.assertEqual([os.fsencode(name) for name in await self.driver.names(Path("d"))], [b"a", b"b", b"\xc3\xa9", b"\xff"])

    async def test_a_name_that_is_too_long_for_the_file_system(self) -> None:
        path = Path("x" * 256)
        for work in (self.driver.stat(path), self.driver.read(path, 1), self.driver.names(path), self.driver.write((path, b""))):
            with self.assertRaises(StorageError) as raised:
                await work
            self.assertIn(path, str(raised.exception))

    async def test_descriptors_are_given_back(self) -> None:
        def count() -> int:
            return len(os.listdir("/proc/self/fd"))

        await self.driver.write((FILE, b"x" * 100_000))
        # The first writes hold on to directories.
        for _ in range(2):
            await self.driver.write((OTHER, b"y"))
        before = count()
        for _ in range(20):
            await self.driver.write((OTHER, b"y"))
            await self.driver.read(FILE, 1 << 20)
            (await self.driver.open(FILE)).close()
            appender = await self.driver.append(OTHER)
            try:
                await self.driver.append(OTHER)
            except Busy:
                appender.close()
            for path in (Path("docker"), Path("nowhere")):
                for work in (self.driver.open(path), self.driver.append(path), self.driver.hash(path, "sha256"), self.driver.names(path)):
                    with contextlib.suppress(Missing):
                        await work
        self.assertEqual(count(), before)

    async def test_an_upload_deleted_and_begun_anew_while_its_lock_is_taken(self) -> None:
        await self.driver.write((FILE, b"old"))
        flock = fcntl.flock

        def swapped(fd: int, operation: int) -> None:
            self.on_disk(FILE).unlink()
            self.on_disk(FILE).write_bytes(b"new")
            flock(fd, operation)

        self.patch(fcntl, "flock", swapped)
        with self.assertRaises(Missing):
            await self.driver.append(FILE)


class TimedTest(FilesystemCase):
    """Changes are timed, also those that fail; looks and reads are not."""

    async def test_actions(self) -> None:
        told: list[tuple[str, float]] = []
        self.driver.timed = lambda action, seconds: told.append((action, seconds))
        upload = Path("u/1/data")
        await self.driver.create((upload, b""))
        appender = await self.driver.append(upload)
        appender.write(b"x")
        await appender.flush()
        appender.close()
        await self.driver.adopt(upload, FILE, LINK)
        await self.driver.write((OTHER, b""))
        await self.driver.read(OTHER, 10)
        await self.driver.secure(OTHER)
        await self.driver.delete(OTHER)
        with contextlib.suppress(Missing):
            await self.driver.delete(OTHER)
        self.assertEqual(
            [action for action, _ in told], ["PutContent", "Flush", "Move", "PutContent", "Flush", "Delete", "Delete"]
        )
        self.assertTrue(all(0 < seconds < 10 for _, seconds in told), told)


class OtherProcessTest(FilesystemCase):
    def hold(self) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(self.root), FILE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

        def end() -> None:
            process.kill()
            process.communicate()

        self.addCleanup(end)
        return process

    async def test_the_end_of_a_file_is_held_against_other_processes(self) -> None:
        await self.driver.write((FILE, b"x"))
        process = self.hold()
        assert process.stdout is not None
        self.assertEqual(process.stdout.readline(), "held\n")
        with self.assertRaises(Busy):
            await self.driver.append(FILE)
        process.send_signal(signal.SIGKILL)
        process.wait()
        appender = await self.driver.append(FILE)
        process = self.hold()
        assert process.stdout is not None
        self.assertEqual(process.stdout.readline(), "busy\n")
        appender.close()


class Tape:
    """
    The system calls that change a directory tree, as they are made, by paths relative to it; and a way to make them fail.

    :ivar calls: what was tried: ``("fsync", "a/b")``.
    :ivar changes: those of them that did not fail.
    :ivar failing: makes a call fail: which call, on which paths, how.
    """

    def __init__(self, case: TestCase, root: FilePath) -> None:
        self.calls: list[tuple[str, ...]] = []
        self.changes: list[tuple[str, ...]] = []
        self.failing: Callable[[str, str], int | None] = lambda call, path: None
        self._root = str(root)
        for name in ("open", "write", "writev", "fsync", "rename", "mkdir", "unlink", "rmdir"):
            case.patch(os, name, self._taped(name, getattr(os, name)))

    def _relative(self, target: object) -> str | None:
        path = os.readlink(f"/proc/self/fd/{target}") if isinstance(target, int) else os.fspath(target)  # type: ignore[call-overload]  # a path
        if path == self._root:
            return ""
        return path[len(self._root) + 1 :] if path.startswith(f"{self._root}/") else None

    def _taped(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def taped(*args: Any, **kwargs: Any) -> Any:
            paths = [self._relative(arg) for arg in args[: 2 if name == "rename" else 1]]
            if None in paths:
                return call(*args, **kwargs)
            known = [_shortened(path or "") for path in paths]
            code = self.failing(name, known[0])
            self.calls.append((name, *known))
            if code is not None:
                raise OSError(code, os.strerror(code), args[0] if isinstance(args[0], str) else None)
            result = call(*args, **kwargs)
            self.changes.append((name, *known))
            return result

        return taped

    def done(self, *names: str) -> list[tuple[str, ...]]:
        """
        :return: the calls of these names that did not fail.
        """
        return [call for call in self.changes if call[0] in names]

    def of(self, *names: str) -> list[tuple[str, ...]]:
        """
        :return: the calls of these names.
        """
        return [call for call in self.calls if call[0] in names]


def _shortened(path: str) -> str:
    """A path without the part of a temporary name that differs each time."""
    return f"{path.rsplit('.', 2)[0]}.tmp" if path.endswith(".tmp") else path


class OrderTest(FilesystemCase):
    """Promise P2: what is acknowledged survives a power cut."""

    CHANGES = ("write", "fsync", "rename", "mkdir")

    @staticmethod
    def no_links(*args: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    async def known(self, *directories: str) -> None:
        """Make directories, and let the driver find out that their names are durable."""
        for name in ("made", "found"):
            await self.driver.write(*((Path(f"{directory}/{name}"), b"") for directory in directories))

    async def test_bytes_then_flush_then_name_then_directory(self) -> None:
        await self.known("d")
        tape = Tape(self, self.root)
        await self.driver.write((Path("d/f"), b"x"))
        self.assertEqual(
            tape.done(*self.CHANGES), [("write", "d/f.tmp"), ("fsync", "d/f.tmp"), ("rename", "d/f.tmp", "d/f"), ("fsync", "d")]
        )

    async def test_new_directories_are_made_durable_too(self) -> None:
        tape = Tape(self, self.root)
        await self.driver.write((Path("a/b/c/f"), b"x"))
        calls = tape.done(*self.CHANGES)
        self.assertEqual([call for call in calls if call[0] == "mkdir"], [("mkdir", "a"), ("mkdir", "a/b"), ("mkdir", "a/b/c")])
        shown = calls.index(("rename", "a/b/c/f.tmp", "a/b/c/f"))
        for directory, parent in (("a", ""), ("a/b", "a"), ("a/b/c", "a/b")):
            self.assertIn(("fsync", parent), calls[calls.index(("mkdir", directory)) : shown])
        self.assertIn(("fsync", "a/b/c/f.tmp"), calls[calls.index(("write", "a/b/c/f.tmp")) : shown])
        self.assertEqual(calls[shown + 1 :], [("fsync", "a/b/c")])

    async def test_a_directory_made_anew_is_made_durable_anew(self) -> None:
        path = Path("tags/latest/current/link")
        await self.driver.write((path, b"1"))
        for deleted in ("tags/latest", "tags/latest/current"):
            await self.driver.delete(Path(deleted))
            tape = Tape(self, self.root)
            await self.driver.write((path, b"2"))
            self.assertIn(("fsync", os.path.dirname(deleted)), tape.calls[tape.calls.index(("mkdir", deleted)) :])

    async def test_a_directory_that_was_there_is_made_durable_once(self) -> None:
        # Whoever made it may have been killed before.
        self.on_disk("a/b").mkdir(parents=True)
        tape = Tape(self, self.root)
        await self.driver.write((Path("a/b/f"), b""))
        shown = tape.calls.index(("rename", "a/b/f.tmp", "a/b/f"))
        for path in ("a/b/f.tmp", "a", ""):
            self.assertIn(("fsync", path), tape.calls[:shown])
        self.assertIn(("fsync", "a/b"), tape.calls[shown:])
        tape.calls.clear()
        await self.driver.write((Path("a/b/g"), b""))
        self.assertEqual(tape.of("fsync"), [("fsync", "a/b/g.tmp"), ("fsync", "a/b")])

    async def test_secured(self) -> None:
        self.on_disk("a/b").mkdir(parents=True)
        self.on_disk("a/b/f").write_bytes(b"x")
        tape = Tape(self, self.root)
        await self.driver.secure(Path("a/b/f"))
        self.assertEqual(set(tape.of("fsync")), {("fsync", "a/b/f"), ("fsync", "a/b"), ("fsync", "a"), ("fsync", "")})

    async def test_each_file_is_durable_before_the_next_is_visible(self) -> None:
        await self.known("a", "b")
        tape = Tape(self, self.root)
        await self.driver.write((Path("a/f"), b"1"), (Path("b/f"), b"2"), (Path("a/g"), b"3"))
        self.assertEqual(
            [call[:2] for call in tape.of("fsync", "rename")],
            [
                ("fsync", "a/f.tmp"), ("fsync", "b/f.tmp"), ("fsync", "a/g.tmp"),
                ("rename", "a/f.tmp"), ("fsync", "a"),
                ("rename", "b/f.tmp"), ("fsync", "b"),
                ("rename", "a/g.tmp"), ("fsync", "a"),
            ],
        )  # fmt: skip

    async def test_files_that_belong_together_share_their_flushes(self) -> None:
        await self.known("a", "b")
        tape = Tape(self, self.root)
        await self.driver.write((Path("a/f"), b"1"), [(Path("b/f"), b"2"), (Path("a/g"), b"3"), (Path("b/g"), b"4")])
        self.assertEqual(
            [call[:2] for call in tape.of("fsync", "rename")][4:],
            [
                ("rename", "a/f.tmp"), ("fsync", "a"),
                ("rename", "b/f.tmp"), ("rename", "a/g.tmp"), ("rename", "b/g.tmp"), ("fsync", "b"), ("fsync", "a"),
            ],
        )  # fmt: skip

    async def test_a_new_directory_is_durable_with_all_that_is_in_it(self) -> None:
        await self.known("u")
        tape = Tape(self, self.root)
        await self.driver.create((Path("u/1/a"), b"x"), (Path("u/1/b"), b""))
        self.assertEqual(tape.of("fsync")[1:], [("fsync", "u/1/b"), ("fsync", "u/1"), ("fsync", "u")])
        # A file with content is a link to one that was flushed before; without links it is written and flushed itself.
        flushed = tape.changes.index(tape.of("fsync")[0])
        self.assertLess(flushed, tape.changes.index(("mkdir", "u/1")) + 4)
        self.assertTrue(tape.of("fsync")[0][1].startswith("regd/twin"))
        self.patch(os, "link", self.no_links)
        tape.calls.clear()
        await self.driver.create((Path("u/2/a"), b"x"), (Path("u/2/b"), b""))
        self.assertEqual(tape.of("fsync"), [("fsync", "u/2/a"), ("fsync", "u/2/b"), ("fsync", "u/2"), ("fsync", "u")])
        self.assertEqual(tape.of("rename"), [])

    async def test_a_moved_file_is_durable_before_what_points_to_it(self) -> None:
        link = (Path("l/1/link"), b"x")
        moved: tuple[str, ...]
        for there, moved in ((False, ("rename", "u/1", "b/1")), (True, ("rename", "u/1/f", "b/1/f"))):
            await self.driver.write((Path("u/x"), b""), (Path("b/x"), b""), (Path("l/x"), b""))
            if there:
                await self.driver.write((Path("b/1/f"), b"damaged"))
            await self.driver.create((Path("u/1/f"), b"x"), (Path("u/1/s"), b""))
            tape = Tape(self, self.root)
            await self.driver.adopt(Path("u/1/f"), Path("b/1/f"), link, beside=(Path("u/1/s"),))
            calls = tape.done("fsync", "rename", "mkdir", "unlink", "rmdir", "write")
            # Its bytes, its new name, the end of its old one; then what points to it.
            shown = calls.index(("rename", "l/1/link.tmp", "l/1/link"))
            self.assertLess(calls.index(("fsync", "u/1/f")), calls.index(moved))
            after = calls[calls.index(moved) : shown]
            for path in ("b/1", "l/1/link.tmp", "l") if there else ("b", "u", "l/1/link.tmp", "l"):
                self.assertIn(("fsync", path), after)
            self.assertEqual(calls[shown + 1 :], [("fsync", "l/1")])
            # Known to be durable, it is not flushed again.
            await self.driver.delete(Path("b/1"))
            await self.driver.create((Path("u/1/f"), b"x"))
            tape.calls.clear()
            await self.driver.adopt(Path("u/1/f"), Path("b/1/f"), link, flushed=True)
            self.assertNotIn(("fsync", "u/1/f"), tape.calls)
            await self.driver.delete(Path("b"))
            await self.driver.delete(Path("l"))

    async def test_what_need_not_be_durable_is_not_flushed(self) -> None:
        tape = Tape(self, self.root)
        await self.driver.write((Path("a/f"), b"x"), durable=False)
        await self.driver.delete(Path("a"), durable=False)
        self.assertEqual(tape.of("fsync"), [])

    async def test_a_delete_is_durable(self) -> None:
        await self.driver.write((Path("a/current/link"), b""), (Path("a/index/link"), b""))
        tape = Tape(self, self.root)
        await self.driver.delete(Path("a"))
        self.assertEqual(tape.calls[-1], ("fsync", ""))
        # What makes a tag visible goes first.
        self.assertEqual(tape.of("unlink"), [("unlink", "a/current/link"), ("unlink", "a/index/link")])

    async def test_appended_bytes_are_flushed_once_all_are_written(self) -> None:
        await self.driver.write((FILE, b""))
        tape = Tape(self, self.root)
        appender = await self.driver.append(FILE)
        for _ in range(10):
            appender.write(b"x" * 50_000)
        await appender.flush()
        appender.close()
        self.assertEqual(tape.calls[-1], ("fsync", FILE))
        self.assertEqual(len(tape.of("fsync")), 1)


class FaultsTest(FilesystemCase):
    """A disk that fails is told with the path, leaves nothing behind, and is used again when it works again."""

    async def fails(self, work: Any, code: int, path: str) -> None:
        with self.assertRaises(StorageError) as raised:
            await work
        self.assertIs(type(raised.exception), Full if code in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG} else StorageError)
        self.assertIn(path, str(raised.exception))
        self.assertIn(os.strerror(code), str(raised.exception))

    def failing(self, tape: Tape, name: str, code: int, path: str = "") -> None:
        tape.failing = lambda call, where: code if call == name and (not path or where == path) else None

    async def test_writes(self) -> None:
        await self.driver.write((Path("d/f"), b"old"))
        tape = Tape(self, self.root)
        for name, path in (("open", "d/f.tmp"), ("write", "d/f.tmp"), ("fsync", "d/f.tmp"), ("rename", "d/f.tmp")):
            for code in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.EROFS, errno.EACCES):
                self.failing(tape, name, code, path)
                await self.fails(self.driver.write((Path("d/f"), b"new"), (Path("d/g"), b"next")), code, f"{self.root}/d/f")
                self.failing(tape, "", 0)
                self.assertEqual(self.leftovers(), [])
                self.assertEqual(await self.driver.read(Path("d/f"), 10), b"old")
                self.assertFalse(await self.driver.exists(Path("d/g")))
        await self.driver.write((Path("d/f"), b"new"))
        self.assertEqual(await self.driver.read(Path("d/f"), 10), b"new")

    async def test_a_directory_that_cannot_be_flushed_or_made(self) -> None:
        tape = Tape(self, self.root)
        for name, path, where in (("mkdir", "d", "d"), ("fsync", "", ""), ("fsync", "d", "d"), ("fsync", "d/e", "d/e")):
            for code in (errno.ENOSPC, errno.EIO):
                tape.failing = lambda call, at, name=name, path=path, code=code: code if (call, at) == (name, path) else None  # type: ignore[misc]  # bound now
                await self.fails(self.driver.write((Path("d/e/f"), b"x")), code, f"{self.root}/{where}".rstrip("/"))
                self.failing(tape, "", 0)
                self.assertEqual(self.leftovers(), [])
                if self.on_disk("d").exists():
                    await self.driver.delete(Path("d"))

    async def test_moves(self) -> None:
        await self.driver.write((Path("a/g"), b"x"), (Path("b/g"), b"old"))
        link = (Path("l/link"), b"")
        tape = Tape(self, self.root)
        for name, path in (("open", "a/g"), ("fsync", "a/g"), ("rename", "a/g"), ("rename", "a"), ("open", "l/link.tmp"), ("mkdir", "l")):
            for code in (errno.ENOSPC, errno.EIO):
                self.failing(tape, name, code, path)
                await self.fails(self.driver.adopt(Path("a/g"), Path("b/g"), link), code, str(self.root))
                self.failing(tape, "", 0)
                self.assertEqual(await self.driver.read(Path("a/g"), 10), b"x")
                self.assertEqual(await self.driver.read(Path("b/g"), 10), b"old")
                self.assertFalse(await self.driver.exists(Path("l")))
        self.assertEqual(self.leftovers(), [])

    async def test_creations(self) -> None:
        self.patch(os, "link", OrderTest.no_links)
        tape = Tape(self, self.root)
        await self.driver.write((Path("u/x"), b""))
        for name, path in (("mkdir", "u/1"), ("open", "u/1/b"), ("write", "u/1/a"), ("fsync", "u/1/a"), ("fsync", "u/1"), ("fsync", "u")):
            for code in (errno.ENOSPC, errno.EIO):
                self.failing(tape, name, code, path)
                await self.fails(self.driver.create((Path("u/1/a"), b"x"), (Path("u/1/b"), b"")), code, f"{self.root}/u")
                self.failing(tape, "", 0)
                self.assertEqual(list(await self.driver.names(Path("u"))), ["x"])
        await self.driver.create((Path("u/1/a"), b"x"), (Path("u/1/b"), b""))

    async def test_deletes(self) -> None:
        await self.driver.write((Path("d/f"), b"x"))
        tape = Tape(self, self.root)
        for name, path in (("unlink", "d/f"), ("rmdir", "d")):
            self.failing(tape, name, errno.EIO, path)
            await self.fails(self.driver.delete(Path("d")), errno.EIO, f"{self.root}/d")
        self.failing(tape, "", 0)
        await self.driver.delete(Path("d"))

    async def test_reads(self) -> None:
        await self.driver.write((FILE, b"x" * 100_000))
        content = await self.driver.open(FILE)
        tape = Tape(self, self.root)
        for code in (errno.EMFILE, errno.ENFILE, errno.EIO, errno.EACCES, errno.ELOOP):
            self.failing(tape, "open", code)
            for work in (self.driver.read(FILE, 10), self.driver.open(FILE), self.driver.append(FILE), self.driver.hash(FILE, "sha256")):
                await self.fails(work, code, FILE)
        self.failing(tape, "", 0)

        def broken(*args: object) -> bytes:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        self.patch(os, "pread", broken)
        self.patch(os, "readv", broken)
        for work in (self.driver.read(FILE, 10), content.read(0, 10), content.read(0, 100_000), self.driver.hash(FILE, "sha256")):
            await self.fails(work, errno.EIO, FILE)
        content.close()

    async def test_looks(self) -> None:
        await self.driver.write((FILE, b"x"))

        def broken(*args: object, **kwargs: object) -> os.stat_result:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        self.patch(os, "stat", broken)
        for work in (self.driver.stat(FILE), self.driver.exists(FILE), self.driver.names(FILE)):
            await self.fails(work, errno.EIO, FILE)

    async def test_appends(self) -> None:
        await self.driver.write((FILE, b""))
        tape = Tape(self, self.root)
        for name in ("writev", "fsync"):
            for code in (errno.ENOSPC, errno.EIO):
                appender = await self.driver.append(FILE, hashlib.sha256())
                size = appender.size
                self.failing(tape, name, code)
                appender.write(b"lost")
                await self.fails(appender.flush(), code, FILE)
                self.assertIsNone(appender.hash)
                # What could not be made durable is given up: the kernel has forgotten it, and would not say so again.
                self.assertEqual(appender.size, size)
                self.assertEqual((await self.driver.stat(FILE)).size, appender.size)
                # It stays failed: a flush that failed once may have lost pages that a second one would not tell of.
                self.failing(tape, "", 0)
                appender.write(b"more")
                await self.fails(appender.flush(), code, FILE)
                appender.close()
        appender = await self.driver.append(FILE)
        appender.write(b"kept")
        self.assertEqual(await appender.flush(), 4)
        appender.close()

    async def test_a_disk_that_fills_in_the_middle_of_a_chunk(self) -> None:
        await self.driver.write((FILE, b"before"))
        real = os.writev
        room = 10

        def small(fd: int, buffers: Any) -> int:
            nonlocal room
            if room == 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            written = real(fd, [b"".join(buffers)[:room]])
            room -= written
            return written

        self.patch(os, "writev", small)
        appender = await self.driver.append(FILE, hashlib.sha256(b"before"))
        for chunk in (b"12345", b"6789012345"):
            appender.write(chunk)
        await self.fails(appender.flush(), errno.ENOSPC, FILE)
        self.assertEqual((appender.size, appender.hash), (16, None))
        appender.close()
        self.assertEqual(await self.driver.read(FILE, 100), b"before1234567890")

    async def test_short_writes_are_continued(self) -> None:
        await self.driver.write((FILE, b""))
        real = os.writev
        sizes = [1, 3, 7, 50_000, 2]

        def short(fd: int, buffers: Any) -> int:
            sizes.append(sizes.pop(0))
            return real(fd, [b"".join(buffers)[: sizes[0]]])

        self.patch(os, "writev", short)
        chunks = [bytes([number % 256]) * (number % 5) for number in range(2000)]
        appender = await self.driver.append(FILE, hashlib.sha256())
        for chunk in chunks:
            appender.write(chunk)
        await appender.flush()
        assert appender.hash is not None
        self.assertEqual(appender.hash.hexdigest(), hashlib.sha256(b"".join(chunks)).hexdigest())
        appender.close()
        self.assertEqual(await self.driver.read(FILE, 1 << 20), b"".join(chunks))

    async def test_a_short_write_of_a_small_file_is_continued(self) -> None:
        real = os.write
        self.patch(os, "write", lambda fd, data: real(fd, bytes(data)[:3]))
        await self.driver.write((FILE, b"1234567890"))
        self.assertEqual(await self.driver.read(FILE, 100), b"1234567890")

    async def test_a_file_that_cannot_be_closed(self) -> None:
        await self.driver.write((FILE, b""))
        appender = await self.driver.append(FILE)
        appender.write(b"x")
        await appender.flush()
        real = os.close

        def failing(fd: int) -> None:
            real(fd)
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        self.patch(os, "close", failing)
        # All is durable, so there is nothing to tell.
        appender.close()


class RootTest(FilesystemCase):
    def refused(self, *words: str, writable: bool = True) -> None:
        error = self.assertRaises(StorageError, self.make(writable=writable).start)
        for word in (str(self.root), *words):
            self.assertIn(word, str(error))
        self.assertNotIn("\n", str(error))

    def test_it_is_made_where_it_is_missing(self) -> None:
        self.root = self.root / "deeper" / "still"
        self.make().start()
        self.assertTrue(self.root.is_dir())

    def test_it_is_not_made_for_reading(self) -> None:
        self.root = self.root / "missing"
        self.refused("is not a directory", writable=False)
        self.assertFalse(self.root.exists())

    def test_a_file_is_no_root(self) -> None:
        self.root = self.root / "file"
        self.root.write_bytes(b"")
        for writable in (True, False):
            self.refused("is not a directory", writable=writable)
        self.root = self.root / "below"
        self.refused("Not a directory")

    def test_a_root_that_cannot_be_written(self) -> None:
        tape = Tape(self, self.root)
        for code in (errno.EIO, errno.EROFS, errno.EACCES):
            tape.failing = lambda call, path, code=code: code if call in {"open", "mkdir"} and path else None  # type: ignore[misc]  # bound now
            self.refused(os.strerror(code), "user", "name another directory")
        self.assertEqual(self.leftovers(), [])
        # For reading alone it need not be written.
        self.make(writable=False).start()

    async def test_a_root_that_is_full(self) -> None:
        """Pulls need no room, so they are served; and a push works as soon as there is some."""
        await self.driver.write((FILE, b"x"))
        tape = Tape(self, self.root)
        for code in (errno.ENOSPC, errno.EDQUOT):
            tape.failing = lambda call, path, code=code: code if call in {"open", "mkdir"} and path else None  # type: ignore[misc]  # bound now
            driver = self.make()
            driver.start()
            tape.failing = lambda call, path: None
            self.assertEqual(await driver.read(FILE, 10), b"x")
            await driver.write((FILE, b"x"))

    def test_a_root_that_cannot_be_read(self) -> None:
        if AM_ROOT:
            real = os.listdir

            def forbidden(path: str) -> list[str]:
                if path == str(self.root):
                    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
                return real(path)

            self.patch(os, "listdir", forbidden)
        else:
            self.root.chmod(0)
            self.addCleanup(self.root.chmod, 0o700)
        for writable in (True, False):
            self.refused("Permission denied", writable=writable)

    async def test_reading_alone_changes_nothing(self) -> None:
        await self.driver.write((FILE, b"x"))
        before = sorted(self.root.rglob("*"))
        tape = Tape(self, self.root)
        driver = self.make(writable=False)
        driver.start()
        await driver.check()
        self.assertEqual(await driver.read(FILE, 10), b"x")
        self.assertEqual(tape.of("mkdir", "write", "rename", "unlink"), [])
        self.assertEqual(sorted(self.root.rglob("*")), before)

    async def test_a_probe_leaves_nothing_for_other_registries_to_see(self) -> None:
        await self.driver.check()
        self.assertEqual([str(path.relative_to(self.root)) for path in self.root.rglob("*")], ["regd"])

    async def test_a_root_that_vanishes_and_comes_back(self) -> None:
        await self.driver.write((FILE, b"x"))
        away = self.root.with_name(f"{self.root.name}-away")
        self.root.rename(away)
        directory = Path(os.path.dirname(FILE))
        for work in (
            # Not Missing: clients would take it for "deleted".
            self.driver.stat(FILE),
            self.driver.exists(FILE),
            self.driver.read(FILE, 10),
            self.driver.open(FILE),
            self.driver.names(directory),
            self.driver.append(FILE),
            self.driver.hash(FILE, "sha256"),
            self.driver.delete(FILE),
            self.driver.adopt(FILE, OTHER, LINK),
            self.driver.create((OTHER, b"x")),
            self.driver.write((FILE, b"y")),
            self.driver.write((FILE, b"y"), durable=False),
            self.driver.check(),
            self.make(writable=False).check(),
        ):
            with self.assertRaises(StorageError) as raised:
                await work
            self.assertIn(str(self.root), str(raised.exception))
            # What is written below the mount point of a disk that is away would be hidden when it comes back.
            self.assertFalse(self.root.exists())
        # An empty mount point looks like an empty registry, and is not.
        self.root.mkdir()
        for work in (self.driver.stat(FILE), self.driver.write((FILE, b"y")), self.driver.check()):
            with self.assertRaises(StorageError):
                await work
        self.assertEqual(list(self.root.iterdir()), [])
        self.root.rmdir()
        away.rename(self.root)
        await self.driver.check()
        self.assertEqual(await self.driver.read(FILE, 10), b"x")
        await self.driver.write((FILE, b"y"))

    async def test_a_root_that_is_new_and_full(self) -> None:
        tape = Tape(self, self.root)
        shutil.rmtree(self.root / "regd")
        tape.failing = lambda call, path: errno.ENOSPC if call in {"open", "mkdir"} and path else None
        driver = self.make()
        driver.start()
        with self.assertRaises(Full):
            await driver.check()
        tape.failing = lambda call, path: None
        await driver.check()
        await driver.write((FILE, b"x"))

    async def test_check_says_what_is_wrong(self) -> None:
        tape = Tape(self, self.root)
        for code in (errno.ENOSPC, errno.EIO, errno.EROFS):
            tape.failing = lambda call, path, code=code: code if call in {"open", "write"} and path else None  # type: ignore[misc]  # bound now
            with self.assertRaises(StorageError) as raised:
                await self.driver.check()
            self.assertIn(os.strerror(code), str(raised.exception))
        tape.failing = lambda call, path: None
        await self.driver.check()
        self.assertEqual(self.leftovers(), [])


class RacesTest(FilesystemCase):
    """Directories that others remove at the worst moment; each is forced by hand, as luck finds them too rarely."""

    async def test_the_directory_goes_between_the_bytes_and_the_name(self) -> None:
        await self.driver.write((Path("d/e/other"), b""))
        tape = Tape(self, self.root)
        removed = 0

        def remove(call: str, path: str) -> None:
            nonlocal removed
            if call == "rename" and removed < 3:
                removed += 1
                for file in self.on_disk("d/e").iterdir():
                    file.unlink()
                self.on_disk("d/e").rmdir()
                self.on_disk("d").rmdir()

        tape.failing = remove
        await self.driver.write((Path("d/e/f"), b"x"))
        self.assertEqual(removed, 3)
        self.assertEqual(self.on_disk("d/e/f").read_bytes(), b"x")
        self.assertEqual(self.leftovers(), [])

    async def test_the_directory_goes_while_it_is_made(self) -> None:
        tape = Tape(self, self.root)
        removed = 0

        def remove(call: str, path: str) -> None:
            nonlocal removed
            if call == "mkdir" and path == "d/e" and removed < 2 and self.on_disk("d").exists():
                removed += 1
                self.on_disk("d").rmdir()

        tape.failing = remove
        await self.driver.write((Path("d/e/f"), b"x"))
        self.assertEqual(removed, 2)
        self.assertEqual(self.on_disk("d/e/f").read_bytes(), b"x")

    async def test_the_directory_goes_when_all_is_done(self) -> None:
        await self.driver.write((Path("d/other"), b""))
        tape = Tape(self, self.root)

        def remove(call: str, path: str) -> None:
            if call == "open" and path == "d":
                for file in self.on_disk("d").iterdir():
                    file.unlink()
                self.on_disk("d").rmdir()

        tape.failing = remove
        # A delete that came after the write.
        await self.driver.write((Path("d/f"), b"x"))
        self.assertFalse(self.on_disk("d").exists())

    async def test_a_file_goes_while_it_is_moved(self) -> None:
        link = (Path("l/link"), b"")
        for existing in (True, False):
            await self.driver.write((Path("a/g"), b""))
            if existing:
                await self.driver.write((Path("b/g"), b"old"))
            tape = Tape(self, self.root)

            def remove(call: str, path: str) -> None:
                if call == "rename" and path == "a" and self.on_disk("a/g").exists():
                    self.on_disk("a/g").unlink()

            tape.failing = remove
            with self.assertRaises(Missing):
                await self.driver.adopt(Path("a/g"), Path("b/g"), link)
            if existing:
                self.assertEqual(self.on_disk("b/g").read_bytes(), b"old")
                await self.driver.delete(Path("b"))
            self.assertFalse(self.on_disk("b/g").exists())
            self.assertFalse(self.on_disk("l/link").exists())

    async def test_an_upload_goes_before_it_is_moved(self) -> None:
        await self.driver.write((Path("a/g"), b""))
        tape = Tape(self, self.root)

        def remove(call: str, path: str) -> None:
            if call == "rename" and path == "a" and self.on_disk("a").exists():
                shutil.rmtree(self.on_disk("a"))

        tape.failing = remove
        with self.assertRaises(Missing):
            await self.driver.adopt(Path("a/g"), Path("b/g"), (Path("l/link"), b""))
        self.assertEqual([path.name for path in self.root.rglob("*") if path.is_file()], [])

    async def test_the_place_of_a_move_goes(self) -> None:
        tape = Tape(self, self.root)
        removed: set[str] = set()

        def remove(call: str, path: str) -> None:
            if call == "rename" and path in {"a/f", "a/g"} - removed:
                removed.add(path)
                shutil.rmtree(self.on_disk("b"))

        tape.failing = remove
        # Under another name, the file moves without its directory; so it does where a file is already.
        for name in ("f", "g"):
            await self.driver.write((Path(f"a/{name}"), name.encode()), (Path("b/c/g"), b"old"))
            await self.driver.adopt(Path(f"a/{name}"), Path("b/c/g"), (Path("l/link"), b""))
            self.assertEqual(self.on_disk("b/c/g").read_bytes(), name.encode())
            self.assertFalse(self.on_disk("a").exists())
        self.assertEqual(removed, {"a/f", "a/g"})

    async def test_a_directory_above_a_new_one_goes(self) -> None:
        tape = Tape(self, self.root)
        removed = 0

        def remove(call: str, path: str) -> None:
            nonlocal removed
            if call == "open" and path == "u/1/a" and removed < 3:
                removed += 1
                shutil.rmtree(self.on_disk("u"))

        tape.failing = remove
        await self.driver.create((Path("u/1/a"), b""))
        self.assertEqual(removed, 3)
        self.assertEqual(self.on_disk("u/1/a").read_bytes(), b"")


class TwinTest(FilesystemCase):
    """Files of new directories that have the same content share an inode, and nothing else."""

    def number(self, path: str) -> int:
        return self.on_disk(path).stat().st_ino

    async def test_the_same_content_is_written_once(self) -> None:
        for path, content in (("u/1/a", b"x"), ("u/2/a", b"x"), ("u/3/a", b"y"), ("u/4/a", b"x")):
            await self.driver.create((Path(path), content))
            self.assertEqual(self.on_disk(path).read_bytes(), content)
        self.assertEqual(self.number("u/1/a"), self.number("u/2/a"))
        self.assertEqual(len({self.number(f"u/{number}/a") for number in (1, 3, 4)}), 3)
        await self.driver.delete(Path("u/1"))
        await self.driver.write((Path("u/2/a"), b"new"))
        await self.driver.create((Path("u/5/a"), b"x"))
        self.assertEqual(self.on_disk("u/5/a").read_bytes(), b"x")

    async def test_what_is_empty_may_grow(self) -> None:
        for path in ("u/1/a", "u/2/a"):
            await self.driver.create((Path(path), b""))
        self.assertNotEqual(self.number("u/1/a"), self.number("u/2/a"))

    async def test_nothing_is_left_behind(self) -> None:
        await self.driver.create((Path("u/1/a"), b"x"))
        self.driver.stop()
        self.assertEqual(list(self.on_disk("regd").iterdir()), [])
        # Nor of a process that was killed; and one that lives is not disturbed.
        living = self.make()
        living.start()
        await living.create((Path("u/2/a"), b"x"))
        self.make().start()
        self.assertEqual(list(self.on_disk("regd").iterdir()), [])
        await living.create((Path("u/3/a"), b"x"))
        await living.create((Path("u/4/a"), b"y"))
        for number, content in ((2, b"x"), (3, b"x"), (4, b"y")):
            self.assertEqual(self.on_disk(f"u/{number}/a").read_bytes(), content)


class HeldTest(FilesystemCase):
    """Directories that are held open because their names are known to be durable."""

    def held(self) -> list[str]:
        """The directories below the root that this process has open."""
        found = []
        for fd in os.listdir("/proc/self/fd"):
            with contextlib.suppress(FileNotFoundError):
                found.append(os.readlink(f"/proc/self/fd/{fd}"))
        return sorted(path[len(str(self.root)) + 1 :] for path in found if path.startswith(f"{self.root}/"))

    async def test_what_another_process_made_anew_is_made_durable_anew(self) -> None:
        other = self.make()
        other.start()
        first, second = Path("r/u/1/data"), Path("r/u/2/data")
        await self.driver.create((first, b""))
        tape = Tape(self, self.root)
        await self.driver.create((second, b""))
        self.assertEqual(tape.of("fsync")[2:], [("fsync", "r/u")])
        for gone in ("r/u", "r"):
            await other.delete(Path(gone))
            # It is killed before it flushes anything.
            await other.write((Path("r/u/x"), b""), durable=False)
            tape.calls.clear()
            await self.driver.create((second, b""))
            self.assertIn(("fsync", "r"), tape.of("fsync"))
            if gone == "r":
                self.assertIn(("fsync", ""), tape.of("fsync"))

    async def test_a_number_is_not_given_again_while_its_directory_is_held(self) -> None:
        await self.driver.create((Path("r/u/1/data"), b""))
        before = self.on_disk("r/u").stat().st_ino
        for _ in range(50):
            shutil.rmtree(self.on_disk("r"))
            self.on_disk("r/u").mkdir(parents=True)
            self.assertNotEqual(self.on_disk("r/u").stat().st_ino, before)

    async def test_what_was_deleted_for_good_is_not_missed(self) -> None:
        await self.driver.create((Path("r/u/1/data"), b""))
        shutil.rmtree(self.on_disk("r"))
        await self.driver.create((Path("r/u/1/data"), b"x"))
        self.assertEqual(self.on_disk("r/u/1/data").read_bytes(), b"x")

    async def test_only_so_many(self) -> None:
        self.patch(resource, "getrlimit", lambda what: (32, 64))
        driver = self.make()
        driver.start()
        for number in range(20):
            await driver.create((Path(f"r/{number}/u/data"), b""))
        self.assertEqual(len(self.held()), 4)
        self.assertIn("r/19", self.held())
        driver.stop()
        self.assertEqual(self.held(), [])

    async def test_let_go_of_after_a_while(self) -> None:
        self.patch(sys.modules["regd.storage.filesystem"], "HELD_FOR", 0.05)
        await self.driver.create((Path("r/u/1/data"), b""))
        self.assertEqual(self.held(), ["r", "r/u"])
        for _ in range(200):
            if not self.held():
                break
            await deferLater(reactor, 0.01)
        self.assertEqual(self.held(), [])
        # It is forgotten, too.
        tape = Tape(self, self.root)
        await self.driver.create((Path("r/u/2/data"), b""))
        self.assertIn(("fsync", ""), tape.of("fsync"))

    async def test_many_at_once(self) -> None:
        """Directories are held, dropped and deleted while others flush them."""
        self.patch(resource, "getrlimit", lambda what: (24, 24))
        driver = self.make()
        driver.start()

        async def work(number: int) -> None:
            for turn in range(15):
                await driver.create((Path(f"r/{number % 5}/{number}-{turn}/data"), b""))
                if turn % 4 == 0:
                    with contextlib.suppress(Missing):
                        await driver.delete(Path(f"r/{number % 5}"))

        await together(*(work(number) for number in range(10)))
        self.assertLessEqual(len(self.held()), 3)
        driver.stop()
        self.assertEqual(self.held(), [])
