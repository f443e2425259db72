"""
What every storage backend keeps to: the executable form of :class:`regd.storage.driver.Driver`'s documentation.

A backend's tests inherit from :class:`DriverContract` and say how to make one.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from twisted.internet import reactor as twisted_reactor
from twisted.internet.task import deferLater

from regd.storage.driver import Busy, Driver, Growing, Missing, StorageError
from regd.storage.layout import Path
from regd.storage.sorted_names import in_bytes
from tests.support import together

if TYPE_CHECKING:
    from twisted.trial.unittest import TestCase as Base
else:
    # Not a test case by itself: it would be collected, and there is nothing here that it could test.
    Base = object

__all__ = ["DriverContract"]

# Any: mypy knows the reactor as a module.
reactor: Any = twisted_reactor

#: Where tests put a file unless they are about paths.
FILE = Path("docker/registry/v2/some/file")
OTHER = Path("docker/registry/v2/other/place/file")
DIRECTORY = Path("docker/registry/v2/some")

#: A lock.
LOCK = Path("regd/lock")

#: What is written after a file has been moved.
LINK = (Path("docker/registry/v2/a/link"), b"link")


class DriverContract(Base):
    """
    The tests. ``setUp`` of the inheriting class sets ``driver``, started, with nothing in it.
    """

    if TYPE_CHECKING:

        @property
        def driver(self) -> Driver: ...

    async def refused(self, kind: type[Exception], *work: object) -> None:
        """See that each coroutine raises ``kind`` and nothing that is derived from it."""
        for one in work:
            try:
                await one  # type: ignore[misc]  # any of the driver's coroutines
            except kind as error:
                self.assertIs(type(error), kind)
            else:
                self.fail(f"{one} did not raise {kind.__name__}")

    async def a_moment(self) -> None:
        """Let what other threads do be done."""
        await deferLater(reactor, 0.001)

    async def exactly(self, growing: Growing, offset: int, length: int) -> bytes:
        """So many bytes, or up to the end: one read may bring fewer."""
        data = await growing.read(offset, length)
        while len(data) < length and (more := await growing.read(offset + len(data), length - len(data))):
            data += more
        return data

    async def content(self, path: Path) -> bytes:
        return await self.driver.read(path, 1 << 30)

    async def below(self, path: Path) -> AsyncIterator[Path]:
        """All files in a directory, however deep."""
        for name in await self.driver.scan(path):
            entry = Path(f"{path}/{name}")
            try:
                async for file in self.below(entry):
                    yield file
            except Missing:
                yield entry

    # Looking.

    async def test_nothing_is_there_at_first(self) -> None:
        driver = self.driver
        await self.refused(
            Missing,
            driver.stat(FILE),
            driver.read(FILE, 10),
            driver.open(FILE),
            driver.follow(FILE),
            driver.hash(FILE, "sha256"),
            driver.names(DIRECTORY),
            driver.append(FILE),
            driver.delete(FILE),
            driver.delete(DIRECTORY),
            driver.adopt(FILE, OTHER, LINK),
        )
        self.assertFalse(await driver.exists(OTHER))
        self.assertFalse(await driver.exists(LINK[0]))
        self.assertFalse(await driver.exists(FILE))
        self.assertFalse(await driver.exists(DIRECTORY))

    async def test_a_directory_is_not_a_file(self) -> None:
        driver = self.driver
        await driver.write((FILE, b"x"))
        await self.refused(
            Missing,
            driver.stat(DIRECTORY),
            driver.read(DIRECTORY, 10),
            driver.open(DIRECTORY),
            driver.follow(DIRECTORY),
            driver.hash(DIRECTORY, "sha256"),
            driver.append(DIRECTORY),
        )
        self.assertTrue(await driver.exists(DIRECTORY))

    async def test_a_file_is_not_a_directory(self) -> None:
        driver = self.driver
        await driver.write((FILE, b"x"))
        inside = Path(f"{FILE}/inside")
        await self.refused(
            Missing,
            driver.names(FILE),
            driver.stat(inside),
            driver.read(inside, 10),
            driver.open(inside),
            driver.follow(inside),
            driver.hash(inside, "sha256"),
            driver.append(inside),
            driver.names(inside),
            driver.delete(inside),
        )
        self.assertFalse(await driver.exists(inside))

    async def test_stat(self) -> None:
        await self.driver.write((FILE, b"12345"))
        found = await self.driver.stat(FILE)
        self.assertEqual(found.size, 5)
        self.assertGreater(found.modified, 0)

    async def test_read_up_to_a_limit(self) -> None:
        await self.driver.write((FILE, b"12345"))
        for limit, expected in ((0, b""), (1, b"1"), (5, b"12345"), (6, b"12345"), (1 << 40, b"12345")):
            self.assertEqual(await self.driver.read(FILE, limit), expected)

    async def test_open(self) -> None:
        await self.driver.write((FILE, b"12345"))
        content = await self.driver.open(FILE)
        self.assertEqual(content.size, 5)
        self.assertEqual([await content.reach(offset) for offset in (0, 4)], [5, 5])
        for offset, length, expected in ((0, 5, b"12345"), (1, 2, b"23"), (4, 100, b"5"), (5, 1, b""), (100, 1, b""), (2, 0, b"")):
            self.assertEqual(await content.read(offset, length), expected)
        content.close()
        content.close()

    async def test_what_is_open_stays_as_it_was(self) -> None:
        driver = self.driver
        await driver.write((FILE, b"old"))
        replaced = await driver.open(FILE)
        await driver.write((FILE, b"newer"))
        deleted = await driver.open(FILE)
        await driver.delete(DIRECTORY)
        self.assertEqual((replaced.size, await replaced.read(0, 100)), (3, b"old"))
        self.assertEqual((deleted.size, await deleted.read(0, 100)), (5, b"newer"))
        replaced.close()
        deleted.close()

    async def test_empty_files(self) -> None:
        driver = self.driver
        await driver.write((FILE, b""))
        self.assertEqual((await driver.stat(FILE)).size, 0)
        self.assertEqual(await driver.read(FILE, 10), b"")
        self.assertEqual((await driver.hash(FILE, "sha256")).hexdigest(), hashlib.sha256().hexdigest())
        content = await driver.open(FILE)
        self.assertEqual((content.size, await content.read(0, 10)), (0, b""))
        content.close()

    async def test_large_content(self) -> None:
        driver = self.driver
        data = os.urandom(3 * 1024 * 1024 + 7)
        await driver.write((FILE, data))
        self.assertEqual(await self.content(FILE), data)
        content = await driver.open(FILE)
        self.assertEqual(await content.read(1024 * 1024, 2 * 1024 * 1024), data[1024 * 1024 : 3 * 1024 * 1024])
        content.close()
        for algorithm in ("sha256", "sha512"):
            state = await driver.hash(FILE, algorithm)
            self.assertEqual((state.name, state.hexdigest()), (algorithm, hashlib.new(algorithm, data).hexdigest()))

    async def test_a_computed_hash_goes_on(self) -> None:
        await self.driver.write((FILE, b"one"))
        state = await self.driver.hash(FILE, "sha256")
        state.update(b"two")
        self.assertEqual(state.hexdigest(), hashlib.sha256(b"onetwo").hexdigest())

    async def test_names_are_in_the_order_of_their_bytes(self) -> None:
        expected = ["-", "0", "A", "Z", "_b", "a", "a-b", "a.b", "a0", "aa", "b", "\u00e9", "\uffe0", "\U00010000"]
        await self.driver.write(*((Path(f"{DIRECTORY}/{name}"), b"") for name in reversed(expected)))
        self.assertEqual(list(await self.driver.names(DIRECTORY)), expected)

    async def test_some_of_the_names(self) -> None:
        names = ["-", "A", "a", "a-b", "a.b", "aa", "b", "\u00e9", "\U00010000"]
        await self.driver.write(*((Path(f"d/{name}"), b"") for name in names))
        for after in ("", *names, "\0", "B", "a/b", "a-", "zz", "\u00e8", "\ud800", "\udcff", "\U0010ffff", "../d"):
            later = [name for name in names if name.encode() > in_bytes(after)]
            self.assertEqual(list(await self.driver.names(Path("d"), after)), later, after)
            for limit in (0, 1, 2, len(later), len(later) + 1, 10_000):
                self.assertEqual(list(await self.driver.names(Path("d"), after, limit)), later[:limit], (after, limit))
        await self.refused(Missing, self.driver.names(Path("nowhere"), "a", 1), self.driver.names(Path("d/a"), "a", 1))

    async def test_some_of_the_names_of_a_large_directory(self) -> None:
        names = [f"{number:05}-{'x' * 40}" for number in range(1500)]
        await self.driver.write(*((Path(f"d/{name}"), b"") for name in names[::-1]), durable=False)
        for first, limit in ((0, 100), (700, 100), (1450, 100), (10, 1), (0, 2000)):
            after = names[first - 1] if first else ""
            for _ in range(2):
                self.assertEqual(list(await self.driver.names(Path("d"), after, limit)), names[first : first + limit])
        await self.driver.delete(Path(f"d/{names[700]}"))
        await self.driver.write((Path(f"d/{names[700]}y"), b""))
        self.assertEqual(list(await self.driver.names(Path("d"), names[699], 2)), [f"{names[700]}y", names[701]])
        await self.driver.delete(Path("d"))
        await self.refused(Missing, self.driver.names(Path("d"), names[699], 2))
        await self.driver.write((Path("d/z"), b""))
        self.assertEqual(list(await self.driver.names(Path("d"), names[699], 2)), ["z"])

    async def test_names_of_files_and_directories(self) -> None:
        await self.driver.write((Path("d/file"), b""), (Path("d/below/file"), b""))
        self.assertEqual(list(await self.driver.names(Path("d"))), ["below", "file"])
        await self.driver.delete(Path("d/file"))
        await self.driver.delete(Path("d/below"))
        self.assertEqual(list(await self.driver.names(Path("d"))), [])

    async def test_names_of_a_large_directory_follow_each_change(self) -> None:
        names = [f"{number:04}" for number in range(600)]
        await self.driver.write(*((Path(f"d/{name}"), b"") for name in names), durable=False)
        self.assertEqual(list(await self.driver.names(Path("d"))), names)
        await self.driver.write((Path("d/0000x"), b""))
        self.assertEqual(list(await self.driver.names(Path("d"))), [names[0], "0000x", *names[1:]])
        await self.driver.delete(Path("d/0000x"))
        self.assertEqual(list(await self.driver.names(Path("d"))), names)

    # Writing.

    async def test_write_replaces(self) -> None:
        for data in (b"first and long", b"second", b""):
            await self.driver.write((FILE, data))
            self.assertEqual(await self.content(FILE), data)
        self.assertEqual(list(await self.driver.names(DIRECTORY)), ["file"])

    async def test_write_what_need_not_be_durable(self) -> None:
        await self.driver.write((FILE, b"x"), durable=False)
        self.assertEqual(await self.content(FILE), b"x")

    async def test_write_nothing(self) -> None:
        await self.driver.write()

    async def test_write_in_the_order_given(self) -> None:
        await self.driver.write((FILE, b"1"), (OTHER, b"2"), (FILE, b"3"))
        self.assertEqual((await self.content(FILE), await self.content(OTHER)), (b"3", b"2"))

    async def test_what_comes_after_a_failure_is_not_written(self) -> None:
        await self.driver.write((FILE, b"x"))
        last = Path("last")
        await self.refused(StorageError, self.driver.write((OTHER, b"1"), (DIRECTORY, b"2"), (last, b"3")))
        self.assertFalse(await self.driver.exists(last))
        self.assertEqual(list(await self.driver.names(DIRECTORY)), ["file"])

    async def test_write_together(self) -> None:
        await self.driver.write((FILE, b"1"), [(OTHER, b"2"), (Path("a/b"), b"3")], [], [(FILE, b"4")])
        self.assertEqual((await self.content(FILE), await self.content(OTHER), await self.content(Path("a/b"))), (b"4", b"2", b"3"))

    async def test_write_many(self) -> None:
        files = [(Path(f"d/{number}/f"), str(number).encode()) for number in range(80)]
        await self.driver.write(files)
        for path, content in files:
            self.assertEqual(await self.content(path), content)

    async def test_write_below_a_file_fails_and_changes_nothing(self) -> None:
        await self.driver.write((FILE, b"x"), (OTHER, b"y"))
        for inside in (Path(f"{FILE}/inside"), Path(f"{FILE}/deep/inside")):
            await self.refused(StorageError, self.driver.write((inside, b"z")))
        self.assertEqual((await self.content(FILE), await self.content(OTHER)), (b"x", b"y"))

    async def test_write_over_a_directory_fails_and_changes_nothing(self) -> None:
        await self.driver.write((FILE, b"x"), (OTHER, b"y"))
        await self.refused(StorageError, self.driver.write((DIRECTORY, b"z")))
        self.assertEqual((await self.content(FILE), await self.content(OTHER)), (b"x", b"y"))
        self.assertEqual(list(await self.driver.names(Path("docker/registry/v2"))), ["other", "some"])

    async def test_create(self) -> None:
        driver = self.driver
        other = Path(f"{DIRECTORY}/other")
        await driver.create((FILE, b"x"), (other, b""))
        self.assertEqual((await self.content(FILE), await self.content(other)), (b"x", b""))
        self.assertEqual(list(await driver.names(DIRECTORY)), ["file", "other"])
        # What is there already is nobody's alone.
        await self.refused(StorageError, driver.create((FILE, b"y")), driver.create((Path(f"{DIRECTORY}/new"), b"")))
        self.assertEqual(await self.content(FILE), b"x")
        await self.refused(StorageError, driver.create((Path(f"{FILE}/below/file"), b"")))

    async def test_adopt(self) -> None:
        driver = self.driver
        beside = Path(f"{DIRECTORY}/beside")
        for flushed in (False, True):
            await driver.create((FILE, b"x"), (beside, b"y"))
            await driver.adopt(FILE, OTHER, LINK, beside=(beside, Path(f"{DIRECTORY}/nothing")), flushed=flushed)
            self.assertEqual((await self.content(OTHER), await self.content(LINK[0])), (b"x", b"link"))
            self.assertEqual(list(await driver.names(Path("docker/registry/v2/other/place"))), ["file"])
            self.assertFalse(await driver.exists(DIRECTORY))
            await driver.delete(Path("docker"))

    async def test_adopt_takes_all_that_is_beside(self) -> None:
        await self.driver.create((FILE, b"x"))
        await self.driver.write((Path(f"{DIRECTORY}/digests/sha256/5"), b""), (Path(f"{DIRECTORY}/hashstates/sha256/5"), b""))
        await self.driver.adopt(FILE, OTHER, LINK)
        self.assertFalse(await self.driver.exists(DIRECTORY))
        self.assertEqual(list(await self.driver.names(Path("docker/registry/v2/other/place"))), ["file"])

    async def test_adopt_replaces(self) -> None:
        driver = self.driver
        await driver.write((FILE, b"new"), (OTHER, b"old"), (LINK[0], b"old"))
        await driver.adopt(FILE, OTHER, LINK)
        self.assertEqual((await self.content(OTHER), await self.content(LINK[0])), (b"new", b"link"))
        self.assertFalse(await driver.exists(DIRECTORY))

    async def test_adopt_what_ends_in_the_wrong_place(self) -> None:
        driver = self.driver
        await driver.write((FILE, b"x"), (Path("a/file"), b""))
        await self.refused(
            StorageError,
            driver.adopt(FILE, Path("a/file/data"), LINK),
            driver.adopt(FILE, Path("a/file/below/data"), LINK),
            driver.adopt(FILE, OTHER, (Path("a/file/link"), b"")),
        )
        self.assertEqual(await self.content(FILE), b"x")
        self.assertFalse(await driver.exists(LINK[0]))

    async def test_a_listing_does_not_show_what_has_been_adopted(self) -> None:
        driver = self.driver
        await driver.create((FILE, b"x"))
        above = Path(DIRECTORY.rpartition("/")[0])
        self.assertEqual(list(await driver.names(above)), ["some"])
        await driver.adopt(FILE, OTHER, LINK)
        self.assertEqual(list(await driver.names(above)), ["a", "other"])

    async def test_one_of_several_adopts(self) -> None:
        driver = self.driver
        for _ in range(10):
            await driver.create((FILE, b"x"))
            results = await together(
                driver.adopt(FILE, OTHER, LINK), driver.delete(DIRECTORY), driver.adopt(FILE, OTHER, LINK), errors=(Missing,)
            )
            done = [result for result in (results[0], results[2]) if result is None]
            self.assertLessEqual(len(done), 1)
            self.assertEqual(await driver.exists(OTHER), bool(done))
            self.assertEqual(await driver.exists(LINK[0]), bool(done))
            self.assertFalse(await driver.exists(DIRECTORY))
            if done:
                await driver.delete(OTHER)
                await driver.delete(LINK[0])

    async def test_components_of_255_bytes(self) -> None:
        path = Path("/".join(["c" * 255] * 3) + "/link")
        await self.driver.write((path, b"x"))
        self.assertEqual(await self.content(path), b"x")

    async def test_writers_of_one_path_do_not_mix(self) -> None:
        contents = [bytes([65 + number]) * 20_000 for number in range(12)]
        await together(*(self.driver.write((FILE, data)) for data in contents))
        self.assertIn(await self.content(FILE), contents)
        self.assertEqual(list(await self.driver.names(DIRECTORY)), ["file"])

    async def test_readers_see_the_old_or_the_new(self) -> None:
        contents = [b"a" * 30_000, b"b" * 50_000]
        await self.driver.write((FILE, contents[0]))

        async def write() -> None:
            for number in range(10):
                await self.driver.write((FILE, contents[number % 2]), durable=False)

        async def read() -> None:
            for _ in range(10):
                self.assertIn(await self.content(FILE), contents)

        await together(write(), read(), read(), write())

    async def test_a_delete_beside_a_write_harms_neither(self) -> None:
        top = Path("docker/top")
        path = Path(f"{top}/deep/down/file")
        beside = Path(f"{top}/deep/beside")
        for _ in range(40):
            results = await together(
                self.driver.write((path, b"1"), durable=False),
                self.driver.delete(top),
                self.driver.write((beside, b"2"), durable=False),
                self.driver.delete(top),
                errors=(Missing,),
            )
            self.assertIsNone(results[0])
            self.assertIsNone(results[2])
        await self.driver.write((path, b"3"))
        self.assertEqual(await self.content(path), b"3")
        self.assertEqual(list(await self.driver.names(Path(f"{top}/deep/down"))), ["file"])

    async def test_secure(self) -> None:
        await self.driver.write((FILE, b"x"), durable=False)
        await self.driver.secure(FILE)
        self.assertEqual(await self.content(FILE), b"x")
        await self.refused(Missing, self.driver.secure(OTHER), self.driver.secure(Path(f"{FILE}/inside")), self.driver.secure(Path("a/b")))

    async def test_move(self) -> None:
        driver = self.driver
        there = Path("regd/damaged/sha256/ab/file")
        await driver.write((FILE, b"content"), (Path(f"{DIRECTORY}/beside"), b"too"))
        content = await driver.open(FILE)
        await driver.move(FILE, there)
        self.assertEqual(await self.content(there), b"content")
        self.assertEqual(await self.content(Path("regd/damaged/sha256/ab/beside")), b"too")
        # Who has it open can read on.
        self.assertEqual(await content.read(0, 100), b"content")
        content.close()
        self.assertFalse(await driver.exists(DIRECTORY))
        await self.refused(Missing, driver.move(FILE, OTHER), driver.move(DIRECTORY, OTHER))
        # The old place can be taken again, and what is there does not drive out what was moved.
        await driver.write((FILE, b"another"))
        await self.refused(StorageError, driver.move(FILE, there))
        self.assertEqual((await self.content(FILE), await self.content(there)), (b"another", b"content"))

    # Times.

    async def age(self, path: Path) -> float:
        """
        Have a file be written long ago.

        :return: when that was.
        """
        raise NotImplementedError

    async def test_renew(self) -> None:
        driver = self.driver
        await driver.write((OTHER, b"the time that it is now"), (FILE, b"x"))
        now = (await driver.stat(OTHER)).modified
        old = await self.age(FILE)
        self.assertEqual((await driver.stat(FILE)).modified, old)
        version = (await driver.stat(FILE)).version
        await driver.renew(FILE)
        found = await driver.stat(FILE)
        self.assertGreaterEqual(found.modified, now)
        self.assertEqual(found.size, 1)
        # Who remembers something of the file has to look again.
        self.assertTrue(version is None or found.version != version)
        self.assertEqual(await self.content(FILE), b"x")
        await self.refused(Missing, driver.renew(Path("nowhere")), driver.renew(Path(f"{FILE}/inside")), driver.renew(Path("a/b")))

    async def test_what_is_adopted_counts_as_written_then(self) -> None:
        driver = self.driver
        for flushed in (False, True):
            await driver.write((LINK[0], b"the time that it is now"))
            now = (await driver.stat(LINK[0])).modified
            await driver.create((FILE, b"x"))
            await self.age(FILE)
            await driver.adopt(FILE, OTHER, LINK, flushed=flushed)
            self.assertGreaterEqual((await driver.stat(OTHER)).modified, now)

    # Locks.

    async def test_a_lock_is_held_alone(self) -> None:
        lock = self.driver.lock
        held = await lock(LOCK)
        await self.refused(Busy, lock(LOCK), lock(LOCK, shared=True))
        other = await lock(OTHER)
        held.close()
        held.close()
        again = await lock(LOCK)
        # Closing again must not open the door to others.
        held.close()
        await self.refused(Busy, lock(LOCK), lock(LOCK, shared=True), lock(OTHER))
        again.close()
        other.close()
        (await lock(LOCK, shared=True)).close()

    async def test_a_lock_is_held_together(self) -> None:
        lock = self.driver.lock
        first = await lock(LOCK, shared=True)
        second = await lock(LOCK, shared=True)
        await self.refused(Busy, lock(LOCK))
        first.close()
        first.close()
        await self.refused(Busy, lock(LOCK))
        third = await lock(LOCK, shared=True)
        second.close()
        await self.refused(Busy, lock(LOCK))
        third.close()
        (await lock(LOCK)).close()

    async def test_a_lock_that_was_refused_leaves_nothing_behind(self) -> None:
        lock = self.driver.lock
        held = await lock(LOCK, shared=True)
        for _ in range(20):
            await self.refused(Busy, lock(LOCK))
        held.close()
        (await lock(LOCK)).close()

    async def test_a_lock_below_directories_that_are_not_there_yet(self) -> None:
        path = Path("not/there/yet/lock")
        held = await self.driver.lock(path, shared=True)
        await self.refused(Busy, self.driver.lock(path))
        held.close()

    # Names that begin alike.

    async def test_paths_that_are_the_beginning_of_others(self) -> None:
        paths = [Path(path) for path in ("r/a/_x/f", "r/a/b/_x/f", "r/a-b/_x/f", "r/a.b/_x/f", "r/ab/_x/f", "r/a/b/c/_x/f")]
        await self.driver.write(*((path, path.encode()) for path in paths))
        for path in paths:
            self.assertEqual(await self.content(path), path.encode())
        await self.driver.delete(Path("r/a/_x"))
        self.assertEqual([path for path in paths if await self.driver.exists(path)], paths[1:])
        await self.driver.delete(Path("r/a"))
        self.assertEqual([path for path in paths if await self.driver.exists(path)], paths[2:5])

    # Deleting.

    async def test_delete(self) -> None:
        driver = self.driver
        await driver.write((FILE, b"x"), (OTHER, b"y"))
        await driver.delete(FILE)
        self.assertFalse(await driver.exists(FILE))
        self.assertTrue(await driver.exists(DIRECTORY))
        await self.refused(Missing, driver.delete(FILE))
        await driver.write((FILE, b"again"))
        await driver.delete(Path("docker"), durable=False)
        self.assertFalse(await driver.exists(Path("docker")))
        await self.refused(Missing, driver.delete(Path("docker")), driver.read(OTHER, 10))

    async def test_deletes_of_one_thing(self) -> None:
        await self.driver.write(*((Path(f"d/{number}/file"), b"") for number in range(20)), durable=False)
        results = await together(*(self.driver.delete(Path("d")) for _ in range(4)), errors=(Missing,))
        self.assertIn(None, results)
        self.assertFalse(await self.driver.exists(Path("d")))

    # Appending.

    async def test_append(self) -> None:
        driver = self.driver
        await driver.write((FILE, b""))
        appender = await driver.append(FILE)
        self.assertEqual(appender.size, 0)
        for chunk in (b"one", b"", b"two"):
            appender.write(chunk)
        self.assertEqual(appender.size, 6)
        self.assertEqual(await appender.flush(), 6)
        self.assertEqual(await self.content(FILE), b"onetwo")
        appender.write(b"three")
        self.assertEqual(await appender.flush(), 11)
        self.assertEqual(await appender.flush(), 11)
        appender.close()
        self.assertEqual(await self.content(FILE), b"onetwothree")

    async def test_append_goes_on_at_the_end(self) -> None:
        for before, chunk in ((b"", b"one"), (b"one", b"two"), (b"onetwo", b"")):
            if not before:
                await self.driver.write((FILE, before))
            appender = await self.driver.append(FILE)
            self.assertEqual(appender.size, len(before))
            appender.write(chunk)
            self.assertEqual(await appender.flush(), len(before + chunk))
            appender.close()
            self.assertEqual(await self.content(FILE), before + chunk)

    async def test_one_appender_at_a_time(self) -> None:
        driver = self.driver
        await driver.write((FILE, b""), (OTHER, b""))
        first = await driver.append(FILE)
        await self.refused(Busy, driver.append(FILE), driver.append(FILE))
        other = await driver.append(OTHER)
        other.close()
        first.close()
        first.close()
        second = await driver.append(FILE)
        await self.refused(Busy, driver.append(FILE))
        # Closing again must not open the door to others.
        first.close()
        await self.refused(Busy, driver.append(FILE))
        second.close()

    async def test_append_feeds_the_hash(self) -> None:
        await self.driver.write((FILE, b"before"))
        appender = await self.driver.append(FILE, hashlib.sha256(b"before"))
        data = os.urandom(1_000_000)
        for start in range(0, len(data), 30_000):
            appender.write(data[start : start + 30_000])
        self.assertEqual(await appender.flush(), 6 + len(data))
        assert appender.hash is not None
        self.assertEqual(appender.hash.hexdigest(), hashlib.sha256(b"before" + data).hexdigest())
        appender.close()
        self.assertEqual(await self.content(FILE), b"before" + data)

    async def test_append_without_a_hash(self) -> None:
        await self.driver.write((FILE, b""))
        appender = await self.driver.append(FILE)
        appender.write(b"x")
        await appender.flush()
        self.assertIsNone(appender.hash)
        appender.close()

    async def test_what_is_open_does_not_grow(self) -> None:
        await self.driver.write((FILE, b"one"))
        content = await self.driver.open(FILE)
        appender = await self.driver.append(FILE)
        appender.write(b"two")
        await appender.flush()
        appender.close()
        self.assertEqual((content.size, await content.reach(0)), (3, 3))
        content.close()

    async def test_what_is_followed_grows(self) -> None:
        await self.driver.write((FILE, b"one"))
        growing = await self.driver.follow(FILE)
        self.assertEqual((growing.grown(), await growing.read(0, 100)), (3, b"one"))
        appender = await self.driver.append(FILE)
        for chunk in (b"two", b"", os.urandom(300_000)):
            appender.write(chunk)
            await appender.flush()
        appender.close()
        whole = await self.content(FILE)
        self.assertEqual(growing.grown(), len(whole))
        self.assertEqual(len(whole), 300_006)
        for offset, length in ((0, 3), (0, 6), (2, 3), (6, 0), (4, 300_000), (len(whole) - 1, 10), (len(whole), 10), (len(whole) + 9, 10)):
            self.assertEqual(await self.exactly(growing, offset, length), whole[offset : offset + length])
        descriptor = growing.fileno()
        if descriptor is not None:
            self.assertEqual(os.pread(descriptor, 1 << 20, 1), whole[1:])
        growing.close()
        growing.close()

    async def test_what_is_followed_goes_on_under_another_name(self) -> None:
        """As the file of a blob does that has come whole, and is committed."""
        driver = self.driver
        await driver.write((FILE, b"one"))
        growing = await driver.follow(FILE)
        appender = await driver.append(FILE)
        await driver.adopt(FILE, OTHER, LINK)
        appender.write(b"two")
        await appender.flush()
        appender.close()
        self.assertEqual((growing.grown(), await growing.read(0, 100)), (6, b"onetwo"))
        await driver.delete(OTHER)
        # What comes to be at the path afterwards is another file.
        await driver.write((FILE, b"longer than the one before"))
        self.assertEqual((growing.grown(), await growing.read(3, 100)), (6, b"two"))
        growing.close()

    async def test_what_is_followed_is_known_again(self) -> None:
        driver = self.driver
        await driver.write((FILE, b"one"))
        growing = await driver.follow(FILE)
        self.assertTrue(await driver.same(growing, FILE))
        self.assertFalse(await driver.same(growing, OTHER))
        await driver.adopt(FILE, OTHER, LINK)
        self.assertFalse(await driver.same(growing, FILE))
        self.assertTrue(await driver.same(growing, OTHER))
        # The same bytes in another file are not the same.
        await driver.write((FILE, b"one"))
        self.assertFalse(await driver.same(growing, FILE))
        await driver.write((OTHER, b"one"))
        self.assertFalse(await driver.same(growing, OTHER))
        growing.close()

    async def test_what_is_written_can_be_stored_soon(self) -> None:
        driver = self.driver
        await driver.write((FILE, b""))
        appender = await driver.append(FILE, hashlib.sha256())
        growing = await driver.follow(FILE)
        appender.store()
        self.assertEqual(growing.grown(), 0)
        expected = b""
        for chunk in (b"a few", b"more", b"z" * 100_000):
            appender.write(chunk)
            appender.store()
            appender.store()
            expected += chunk
            while growing.grown() < len(expected):
                await self.a_moment()
            self.assertEqual(await self.exactly(growing, 0, len(expected)), expected)
        # Nothing is lost of what comes with it, or after it.
        appender.write(b"before")
        appender.store()
        appender.write(b"after")
        self.assertEqual(await appender.flush(), len(expected) + 11)
        self.assertEqual(await self.content(FILE), expected + b"beforeafter")
        assert appender.hash is not None
        self.assertEqual(appender.hash.hexdigest(), hashlib.sha256(expected + b"beforeafter").hexdigest())
        appender.close()
        appender.store()
        growing.close()

    async def test_a_file_may_be_moved_or_deleted_while_its_end_is_held(self) -> None:
        driver = self.driver
        await driver.write((FILE, b""))
        appender = await driver.append(FILE)
        appender.write(b"x")
        await appender.flush()
        await driver.adopt(FILE, OTHER, LINK)
        self.assertEqual(await self.content(OTHER), b"x")
        await self.refused(Missing, driver.append(FILE))
        await driver.delete(OTHER)
        appender.close()
        await driver.write((FILE, b"new"))
        again = await driver.append(FILE)
        self.assertEqual(again.size, 3)
        again.close()

    async def test_check(self) -> None:
        await self.driver.check()
        await self.driver.check()

    # Walks over everything.

    async def test_scan(self) -> None:
        driver = self.driver
        await driver.write((Path("d/b"), b""), (Path("d/a/file"), b""), (Path("d/\u00e9"), b""))
        self.assertEqual(sorted(await driver.scan(Path("d"))), ["a", "b", "\u00e9"])
        await driver.delete(Path("d/b"))
        self.assertEqual(sorted(await driver.scan(Path("d"))), ["a", "\u00e9"])
        await self.refused(Missing, driver.scan(Path("nowhere")), driver.scan(Path("d/a/file")), driver.scan(Path("d/a/file/x")))

    async def test_look_at_many(self) -> None:
        driver = self.driver
        await driver.write((FILE, b"12345"), (OTHER, b""))
        paths = [FILE, Path("nowhere"), OTHER, DIRECTORY, Path(f"{FILE}/below")]
        found = await driver.stat_all(paths)
        self.assertEqual([None if one is None else getattr(one, "size", one) for one in found], [5, None, 0, None, None])
        first = found[0]
        assert not isinstance(first, StorageError) and first is not None
        self.assertEqual(first.modified, (await driver.stat(FILE)).modified)
        self.assertEqual(list(await driver.read_all(paths, 100)), [b"12345", None, b"", None, None])
        self.assertEqual(list(await driver.read_all(paths, 3)), [b"123", None, b"", None, None])
        self.assertEqual((list(await driver.stat_all([])), list(await driver.read_all([], 1))), ([], []))

    async def test_retire(self) -> None:
        driver = self.driver
        files = [Path(f"blobs/{number}/data") for number in range(3)]
        await driver.write(*((path, path.encode()) for path in files), (Path("blobs/1/data.tmp"), b"rest"))
        later = (await driver.stat(files[-1])).modified + 1
        held = await driver.open(files[0])
        self.assertEqual(list(await driver.retire(files[:1], Path("trash/1"), later)), files[:1])
        taken = await driver.retire([Path("blobs/9/data"), *files], Path("trash/1"), later)
        self.assertEqual(list(taken), files[1:])
        self.assertEqual(await driver.scan(Path("blobs")), [])
        self.assertEqual(await held.read(0, 100), files[0].encode())
        held.close()
        # All that was beside it is with it.
        self.assertEqual(sorted([path.rpartition("/")[2] async for path in self.below(Path("trash/1"))]), ["data"] * 3 + ["data.tmp"])
        self.assertEqual(list(await driver.retire([], Path("trash/2"), later)), [])

    async def test_what_is_staged_is_retired(self) -> None:
        driver = self.driver
        files = [Path(f"blobs/{number}/data") for number in range(3)]
        await driver.write(*((path, path.encode()) for path in files))
        later = (await driver.stat(files[-1])).modified + 1
        staged = await driver.stage([*files, Path("blobs/9/data")], Path("trash/1"))
        self.assertEqual(len(staged), 4)
        # Nothing has happened yet.
        self.assertEqual([await self.content(path) for path in files], [path.encode() for path in files])
        self.assertEqual(list(await driver.retire(files[:1], Path("trash/1"), 0, staged=staged[:1])), [])
        self.assertEqual(list(await driver.retire(files[:2], Path("trash/1"), later, staged=staged[:2])), files[:2])
        self.assertFalse(await driver.exists(files[0]))
        self.assertTrue(await driver.prune(Path("blobs/0")))
        self.assertTrue(await driver.prune(Path("blobs/1")))
        self.assertEqual(await driver.scan(Path("blobs")), ["2"])
        self.assertEqual(await self.content(files[2]), files[2].encode())

    async def test_what_is_fresh_is_not_retired(self) -> None:
        driver = self.driver
        await driver.write((FILE, b"x"))
        modified = (await driver.stat(FILE)).modified
        # Clocks tick: what was written in the tick at which a collection began may have been written after it began.
        for before in (modified, modified - 1, 0):
            self.assertEqual(list(await driver.retire([FILE], Path("trash"), before)), [])
        self.assertEqual(await self.content(FILE), b"x")

    async def test_guards_keep_what_they_guard(self) -> None:
        driver = self.driver
        links = [Path(f"links/{number}/link") for number in range(3)]
        await driver.write(*((path, b"") for path in links), (FILE, b""))
        before = (await driver.stat(FILE)).modified
        while (await driver.stat(FILE)).modified == before:
            await driver.write((FILE, b""))
        limit = (await driver.stat(FILE)).modified
        self.assertEqual(list(await driver.retire(links, Path("trash"), limit, [FILE, None, Path("nowhere")])), links[1:])
        self.assertEqual(await driver.scan(Path("links")), ["0"])

    async def test_settle(self) -> None:
        await self.driver.write((FILE, b""))
        await self.driver.settle([DIRECTORY, Path("nowhere"), FILE, DIRECTORY])
        await self.driver.settle([])

    async def test_discard(self) -> None:
        driver = self.driver
        old, other, new = Path("a/b/old"), Path("a/b/other"), Path("a/b/new")
        await driver.write((old, b""), (other, b"x"), (new, b""))
        times = [(await driver.stat(path)).modified for path in (old, other, new)]
        self.assertEqual(await driver.discard([old, other, new], min(times)), [])
        missing = [Path("a/nowhere"), Path("nowhere/at/all"), Path("a/b"), Path("a/b/new/below")]
        self.assertEqual(await driver.discard([*missing, old, other], max(times) + 1), [old, other])
        self.assertEqual(list(await driver.names(Path("a/b"))), ["new"])
        self.assertEqual(await driver.discard([], max(times) + 1), [])

    async def test_prune(self) -> None:
        driver = self.driver
        await driver.write((Path("a/b/c/file"), b""), (Path("a/b/d/file"), b""), (Path("e/file"), b""))
        self.assertFalse(await driver.prune(Path("a")))
        await driver.delete(Path("a/b/c/file"))
        self.assertFalse(await driver.prune(Path("a")))
        self.assertEqual(await self.content(Path("a/b/d/file")), b"")
        await driver.delete(Path("a/b/d/file"))
        self.assertTrue(await driver.prune(Path("a")))
        self.assertFalse(await driver.exists(Path("a")))
        self.assertTrue(await driver.prune(Path("a")))
        self.assertTrue(await driver.prune(Path("nowhere/at/all")))
        self.assertFalse(await driver.prune(Path("e/file")))
        self.assertFalse(await driver.prune(Path("e")))
        self.assertEqual(await self.content(Path("e/file")), b"")
