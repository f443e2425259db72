"""What only a real file system shows of walks and sweeps: changes in the middle of one, files that cannot be read, a disk that is gone."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from typing import Any

from regd.storage.driver import Missing, StorageError
from regd.storage.layout import Path
from tests.storage.contract import DIRECTORY, FILE, OTHER
from tests.storage.test_filesystem import AM_ROOT, FilesystemCase

TRASH = Path("regd/trash/1")


class RetireTest(FilesystemCase):
    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        super().setUp()
        await self.driver.write((FILE, b"file"), (OTHER, b"other"))
        self.age(FILE, OTHER)

    def age(self, *paths: str) -> None:
        for path in paths:
            os.utime(self.on_disk(path), (100, 100))

    def at_the_rename(self, act: Callable[[], object]) -> None:
        """Let something happen after the first look, before the first move."""
        real = os.rename
        acts = [act]

        def rename(*args: Any, **kwargs: Any) -> None:
            while acts:
                acts.pop()()
            real(*args, **kwargs)

        self.patch(os, "rename", rename)

    def after_the_rename(self, act: Callable[[], object]) -> None:
        """Let something happen after the first move, before the second look."""
        real = os.rename
        acts = [act]

        def rename(*args: Any, **kwargs: Any) -> None:
            real(*args, **kwargs)
            while acts:
                acts.pop()()

        self.patch(os, "rename", rename)

    async def test_what_is_renewed_between_the_look_and_the_move_comes_back(self) -> None:
        self.at_the_rename(lambda: os.utime(self.on_disk(FILE)))
        self.assertEqual(await self.driver.retire([FILE, OTHER], TRASH, 200), [OTHER])
        self.assertEqual(self.on_disk(FILE).read_bytes(), b"file")
        self.assertFalse(self.on_disk(OTHER).parent.exists())

    async def test_what_a_guard_is_renewed_for_comes_back(self) -> None:
        for moment in (self.at_the_rename, self.after_the_rename):
            self.age(FILE, OTHER)
            moment(lambda: os.utime(self.on_disk(OTHER)))
            self.assertEqual(await self.driver.retire([FILE], TRASH, 200, [OTHER]), [])
            self.assertEqual(self.on_disk(FILE).read_bytes(), b"file")

    async def test_what_was_written_anew_meanwhile_stays(self) -> None:
        def write_anew() -> None:
            os.utime(next(self.on_disk(TRASH).rglob("file")))
            self.on_disk(DIRECTORY).mkdir()
            self.on_disk(FILE).write_bytes(b"new")

        self.after_the_rename(write_anew)
        await self.driver.retire([FILE], TRASH, 200)
        self.assertEqual(self.on_disk(FILE).read_bytes(), b"new")

    async def test_what_vanishes_meanwhile_is_not_taken(self) -> None:
        self.at_the_rename(lambda: shutil.rmtree(self.on_disk(DIRECTORY)))
        self.assertEqual(await self.driver.retire([FILE, OTHER], TRASH, 200), [OTHER])

    async def test_numbers_are_not_used_again(self) -> None:
        for _ in range(3):
            await self.driver.write((FILE, b"file"))
            self.age(FILE)
            self.assertEqual(await self.driver.retire([FILE], TRASH, 200), [FILE])
        self.assertEqual(len(list(self.on_disk(TRASH).rglob("file"))), 3)

    async def test_the_trash_has_many_small_directories(self) -> None:
        files = [Path(f"d/{number}/link") for number in range(120)]
        await self.driver.write(*((path, b"") for path in files), durable=False)
        self.age(*files)
        self.assertEqual(await self.driver.retire(files, TRASH, 200), files)
        self.assertEqual(sorted(len(list(shelf.iterdir())) for shelf in self.on_disk(TRASH).iterdir()), [20, 50, 50])

    async def test_what_cannot_be_moved_is_told(self) -> None:
        def fail(*_: Any, **__: Any) -> None:
            raise PermissionError(13, "Permission denied")

        self.patch(os, "rename", fail)
        with self.assertRaisesRegex(StorageError, f"cannot move .*{DIRECTORY.rpartition('/')[0]} to .*{TRASH}: Permission denied"):
            await self.driver.retire([FILE], TRASH, 200)

    async def test_what_is_staged_is_taken_by_its_name(self) -> None:
        staged = await self.driver.stage([FILE, OTHER, Path("some/where/data")], TRASH)
        self.assertEqual(self.on_disk(FILE).read_bytes(), b"file")
        self.assertIsNone(staged[2])
        self.assertEqual(await self.driver.retire([FILE, OTHER, Path("some/where/data")], TRASH, 200, staged=staged), [FILE, OTHER])
        self.assertFalse(self.on_disk(FILE).exists())
        self.assertTrue(await self.driver.prune(Path(FILE.rpartition("/")[0])))

    async def test_what_is_staged_and_fresh_stays(self) -> None:
        staged = await self.driver.stage([FILE, OTHER], TRASH)
        os.utime(self.on_disk(FILE))
        self.assertEqual(await self.driver.retire([FILE, OTHER], TRASH, 200, staged=staged), [OTHER])
        self.assertEqual(self.on_disk(FILE).read_bytes(), b"file")

    async def test_what_is_staged_and_written_anew_stays(self) -> None:
        staged = await self.driver.stage([FILE], TRASH)
        await self.driver.write((FILE, b"anew"))
        # Whatever its time says.
        self.age(FILE)
        self.assertEqual(await self.driver.retire([FILE], TRASH, 200, staged=staged), [])
        self.assertEqual(self.on_disk(FILE).read_bytes(), b"anew")

    async def test_what_is_staged_and_renewed_at_this_moment_comes_back(self) -> None:
        staged = await self.driver.stage([FILE, OTHER], TRASH)
        real = os.unlink

        def unlink(path: str, *, dir_fd: int | None = None) -> None:
            self.patch(os, "unlink", real)
            os.utime(self.on_disk(FILE))
            real(path, dir_fd=dir_fd)

        self.patch(os, "unlink", unlink)
        self.assertEqual(await self.driver.retire([FILE, OTHER], TRASH, 200, staged=staged), [OTHER])
        self.assertEqual(self.on_disk(FILE).read_bytes(), b"file")

    async def test_what_cannot_be_linked_to_is_moved(self) -> None:
        def refusing(*args: Any, **kwargs: Any) -> None:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))

        self.patch(os, "link", refusing)
        staged = await self.driver.stage([FILE], TRASH)
        self.assertEqual(list(staged), [None])
        self.assertEqual(await self.driver.retire([FILE], TRASH, 200, staged=staged), [FILE])
        self.assertFalse(self.on_disk(FILE).parent.exists())

    async def test_without_the_storage_nothing_is_made(self) -> None:
        self.on_disk("regd").rmdir()
        with self.assertRaisesRegex(StorageError, "is the disk mounted"):
            await self.driver.retire([FILE], TRASH, 200)
        self.assertFalse(self.on_disk("regd").exists())


class WalkTest(FilesystemCase):
    async def test_one_bad_file_is_told_beside_the_others(self) -> None:
        await self.driver.write((FILE, b"file"), (OTHER, b"other"))
        for name, call in (("open", self.driver.read_all([FILE, OTHER], 10)), ("stat", self.driver.stat_all([FILE, OTHER]))):
            real = getattr(os, name)

            def failing(path: str, *args: Any, real: Callable[..., Any] = real) -> Any:
                if path.endswith(FILE):
                    raise OSError(5, "Input/output error")
                return real(path, *args)

            self.patch(os, name, failing)
            bad, good = await call
            self.assertIsInstance(bad, StorageError)
            self.assertIn("Input/output error", str(bad))
            self.assertNotIsInstance(good, StorageError)

    async def test_short_reads_are_continued(self) -> None:
        await self.driver.write((FILE, b"1234567890"))
        real = os.read
        self.patch(os, "read", lambda fd, length: real(fd, min(length, 3)))
        self.assertEqual(await self.driver.read_all([FILE], 100), [b"1234567890"])
        self.assertEqual(await self.driver.read_all([FILE], 8), [b"12345678"])

    async def test_a_disk_that_is_gone_is_not_an_empty_one(self) -> None:
        await self.driver.write((FILE, b"file"))
        shutil.rmtree(self.root)
        for work in (self.driver.scan(DIRECTORY), self.driver.stat_all([FILE]), self.driver.read_all([FILE], 10)):
            with self.assertRaisesRegex(StorageError, "is the disk mounted"):
                await work

    async def test_a_directory_that_cannot_be_read(self) -> None:
        if AM_ROOT:
            return
        self.on_disk("d").mkdir(mode=0)
        with self.assertRaisesRegex(StorageError, "cannot list .*: Permission denied"):
            await self.driver.scan(Path("d"))

    async def test_prune_leaves_what_is_written_meanwhile(self) -> None:
        self.on_disk("d/e").mkdir(parents=True)
        real = os.rmdir

        def rmdir(path: str) -> None:
            if path.endswith("/d"):
                self.on_disk("d/file").touch()
            real(path)

        self.patch(os, "rmdir", rmdir)
        self.assertFalse(await self.driver.prune(Path("d")))
        self.assertTrue(self.on_disk("d/file").exists())

    async def test_prune_does_not_follow_links_of_the_file_system(self) -> None:
        self.on_disk("d").mkdir()
        self.on_disk("elsewhere").mkdir()
        self.on_disk("d/link").symlink_to(self.on_disk("elsewhere"))
        self.assertFalse(await self.driver.prune(Path("d")))
        self.assertTrue(self.on_disk("elsewhere").exists())

    async def test_what_was_there_is_missing_or_gone(self) -> None:
        with self.assertRaises(Missing):
            await self.driver.scan(DIRECTORY)
        self.assertTrue(await self.driver.prune(DIRECTORY))
