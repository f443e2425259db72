"""Listings: right whoever changes the directory and when, and read no more often than they have to be."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from twisted.internet.defer import Deferred, execute
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from regd.storage import listing, sorted_names
from regd.storage.listing import Listings
from regd.storage.threads import Inline
from regd.storage.watch import Change, Watch

T = TypeVar("T")


def done(work: Coroutine[Any, Any, T]) -> T:
    """
    :return: what a coroutine returns that waits for nothing.
    """
    results: list[T] = []
    failures: list[Failure] = []
    Deferred.fromCoroutine(work).addCallbacks(results.append, failures.append)
    for failure in failures:
        failure.raiseException()
    return results[0]


class Unwatched(Watch):
    """As on a network file system."""

    def add(self, path: str) -> int | None:
        return None


class HeldThreads(Inline):
    """
    Threads that begin and end when the test says so.

    :ivar jobs: what is to be done, oldest first; calling it does it, and gives what tells the result.
    """

    def __init__(self) -> None:
        self.jobs: list[Callable[[], Callable[[], None]]] = []

    def run(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Deferred[Any]:
        result: Deferred[Any] = Deferred()

        def work() -> Callable[[], None]:
            outcome = execute(function, *args, **kwargs)

            def tell() -> None:
                outcome.chainDeferred(result)

            return tell

        self.jobs.append(work)
        return result

    def next(self) -> None:
        """Do the oldest job, and tell of it."""
        self.jobs.pop(0)()()


class ListingCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="regd-test-"))
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)
        self.reads = 0
        # Every directory is a large one, in lots and blocks of a few names.
        self.patch(listing, "INLINE_DIRECTORY", -1)
        self.patch(listing, "_RUN", 4)
        self.patch(sorted_names, "_BLOCK", 10)
        real = listing.read

        def read(path: str, *more: Any) -> Any:
            self.reads += 1
            return real(path, *more)

        self.patch(listing, "read", read)

    def make(self, *names: str) -> None:
        for name in names:
            (self.directory / name).mkdir()

    def listings(self, threads: Inline | None = None, watch: Watch | None = None, clock: Callable[[], float] = time.time) -> Listings:
        made = Listings(threads or Inline(), watch or Watch(), clock)
        self.addCleanup(made.close)
        return made

    def lose(self, watch: Watch) -> None:
        """Have the next look at the queue tell that there were too many changes."""
        real = watch.changes

        def changes() -> tuple[None, bool]:
            watch._begin_anew()
            self.patch(watch, "changes", real)
            return None, False

        self.patch(watch, "changes", changes)

    def listed(self, listings: Listings, after: str = "", limit: int | None = None) -> list[str]:
        return done(listings.names(str(self.directory), after, limit))


class WatchedTest(ListingCase):
    def test_read_once_and_kept_up_to_date(self) -> None:
        self.make("b", "d", "a")
        listings = self.listings()
        self.assertEqual(self.listed(listings), ["a", "b", "d"])
        self.assertEqual(self.listed(listings, "a", 1), ["b"])
        self.make("c", "e")
        (self.directory / "a").rmdir()
        self.assertEqual(self.listed(listings), ["b", "c", "d", "e"])
        (self.directory / "b").rename(self.directory / "z")
        self.assertEqual(self.listed(listings, "d"), ["e", "z"])
        self.assertEqual(self.reads, 1)

    def test_another_directory_in_its_place(self) -> None:
        self.make("a")
        listings = self.listings()
        self.assertEqual(self.listed(listings), ["a"])
        shutil.rmtree(self.directory)
        self.assertRaises(FileNotFoundError, self.listed, listings)
        self.directory.mkdir()
        self.make("b")
        self.assertEqual(self.listed(listings), ["b"])
        elsewhere = self.directory.with_suffix(".old")
        self.addCleanup(shutil.rmtree, elsewhere)
        self.directory.rename(elsewhere)
        self.directory.mkdir()
        self.assertEqual(self.listed(listings), [])
        self.make("c")
        self.assertEqual(self.listed(listings), ["c"])

    def test_a_directory_above_is_replaced(self) -> None:
        above = self.directory
        self.directory = above / "below"
        self.directory.mkdir()
        self.make("a")
        listings = self.listings()
        self.assertEqual(self.listed(listings), ["a"])
        above.rename(above.with_suffix(".old"))
        self.addCleanup(shutil.rmtree, above.with_suffix(".old"))
        self.directory.mkdir(parents=True)
        self.make("b")
        self.assertEqual(self.listed(listings), ["b"])

    def test_a_change_without_a_note_is_found_by_the_time_stamp(self) -> None:
        self.make("a")
        watch = Watch()
        listings = self.listings(watch=watch)
        self.assertEqual(self.listed(listings), ["a"])
        os.utime(self.directory, (1, 1))
        self.make("b")
        os.utime(self.directory, (2, 2))
        self.patch(watch, "changes", lambda: ([], False))
        self.assertEqual(self.listed(listings), ["a", "b"])

    def test_a_note_that_comes_just_after_the_queue_was_read(self) -> None:
        self.make("a")
        watch = Watch()
        listings = self.listings(watch=watch)
        self.assertEqual(self.listed(listings), ["a"])
        real = watch.changes
        answers: list[Any] = [([], False)]
        self.patch(watch, "changes", lambda: answers.pop() if answers else real())
        self.make("b")
        self.assertEqual(self.listed(listings), ["a", "b"])
        self.assertEqual(self.reads, 1)

    def test_lost_changes(self) -> None:
        self.make("a")
        watch = Watch()
        listings = self.listings(watch=watch)
        self.assertEqual(self.listed(listings), ["a"])
        self.make("b")
        self.lose(watch)
        self.assertEqual(self.listed(listings), ["a", "b"])
        self.assertEqual(self.listed(listings), ["a", "b"])
        self.assertEqual(self.reads, 2)

    def test_notes_come_in_parts(self) -> None:
        self.make("a")
        listings = self.listings()
        self.listed(listings)
        names = sorted(f"{number:04}" + "x" * 200 for number in range(100))
        self.make(*names)
        self.assertEqual(self.listed(listings), [*names, "a"])
        self.assertEqual(self.reads, 1)

    def test_the_least_recently_used_goes_first(self) -> None:
        self.patch(listing, "_MOST", 2)
        listings = self.listings()
        paths = []
        for name in "abc":
            self.make(name, f"{name}/x", f"{name}/y")
            paths.append(str(self.directory / name))
        a, b, c = paths
        for path in (a, b, a, c, a, c):
            self.assertEqual(done(listings.names(path)), ["x", "y"])
        self.assertEqual(self.reads, 3)
        done(listings.names(b))
        done(listings.names(c))
        self.assertEqual(self.reads, 4)

    def test_the_budget(self) -> None:
        self.patch(listing, "_BUDGET", 2000)
        listings = self.listings()
        for name in "abcdef":
            self.make(name, *(f"{name}/{number:03}" for number in range(6)))
        for path in "abcdefabcdef":
            self.assertEqual(len(done(listings.names(str(self.directory / path)))), 6)
            self.assertLessEqual(listings.size, 2000)
        self.assertGreater(listings.size, 0)
        # One that grows while it is remembered.
        self.make(*(f"f/{number:03}" for number in range(100, 200)))
        self.assertEqual(len(done(listings.names(str(self.directory / "f")))), 106)
        self.assertLessEqual(listings.size, 2000)

    def test_a_directory_beyond_the_budget(self) -> None:
        self.patch(listing, "_BUDGET", 100)
        listings = self.listings()
        names = [f"{number:03}" for number in range(50)]
        self.make(*names[::-1])
        for after, limit in (("", None), ("", 3), ("010", 7), ("048", 7), ("049", 7), ("zz", 1), ("", 0)):
            self.assertEqual(self.listed(listings, after, limit), [name for name in names if name > after][:limit])
        self.assertEqual(listings.size, 0)

    def test_forgotten_when_closed(self) -> None:
        before = len(os.listdir("/proc/self/fd"))
        listings = Listings(Inline())
        self.make("a")
        self.listed(listings)
        listings.close()
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)
        listings.close()


class UnwatchedTest(ListingCase):
    def test_remembered_once_it_has_been_left_alone(self) -> None:
        self.make("a", "b")
        os.utime(self.directory, (1000, 1000))
        now = [1000.0]
        listings = self.listings(watch=Unwatched(), clock=lambda: now[0])
        for age, reads in ((-5.0, 1), (0.0, 2), (1.9, 3), (2.0, 4), (0.0, 4)):
            now[0] = 1000.0 + age
            self.assertEqual(self.listed(listings), ["a", "b"])
            self.assertEqual(self.reads, reads, age)

    def test_read_again_when_the_time_stamp_changes(self) -> None:
        self.make("a")
        os.utime(self.directory, (1, 1))
        listings = self.listings(watch=Unwatched())
        self.assertEqual(self.listed(listings), ["a"])
        self.assertEqual(self.listed(listings), ["a"])
        self.assertEqual(self.reads, 1)
        self.make("b")
        self.assertEqual(self.listed(listings), ["a", "b"])
        self.assertEqual(self.listed(listings), ["a", "b"])
        self.assertEqual(self.reads, 3)


class SmallTest(ListingCase):
    def test_small_directories_are_read_each_time_where_one_stands(self) -> None:
        self.patch(listing, "INLINE_DIRECTORY", 1 << 20)
        self.patch(listing, "INLINE_NAMES", 3)
        self.make("c", "b", "a")
        listings = self.listings(HeldThreads())
        self.assertEqual(self.listed(listings), ["a", "b", "c"])
        self.assertEqual(self.listed(listings, "a", 1), ["b"])
        self.assertEqual((self.reads, listings.size), (0, 0))

    def test_one_that_has_more_names_than_its_size_says(self) -> None:
        self.patch(listing, "INLINE_DIRECTORY", 1 << 20)
        self.patch(listing, "INLINE_NAMES", 3)
        self.make("d", "c", "b", "a")
        self.assertEqual(self.listed(self.listings()), ["a", "b", "c", "d"])
        self.assertEqual(self.reads, 1)

    def test_names_that_are_not_utf_8(self) -> None:
        for name in (b"b", b"a-b", b"a", b"a.b", b"\xff", b"A", b"\xc3\xa9"):
            (self.directory / os.fsdecode(name)).touch()
        expected = [b"A", b"a", b"a-b", b"a.b", b"b", b"\xc3\xa9", b"\xff"]
        listings = self.listings()
        self.assertEqual([os.fsencode(name) for name in self.listed(listings)], expected)
        self.assertEqual([os.fsencode(name) for name in self.listed(listings, os.fsdecode(b"\xc3\xa9"))], [b"\xff"])
        self.assertEqual(self.listed(listings, os.fsdecode(b"\xff")), [])

    def test_what_cannot_be_read(self) -> None:
        (self.directory / "file").touch()
        for size in (-1, 1 << 20):
            self.patch(listing, "INLINE_DIRECTORY", size)
            listings = self.listings()
            self.assertRaises(FileNotFoundError, done, listings.names("/nowhere/at/all"))
            self.assertRaises(NotADirectoryError, done, listings.names(str(self.directory / "file")))


class RestsTest(ListingCase):
    def test_a_thread_that_reads_sleeps_as_long_as_it_works(self) -> None:
        clock = Clock()
        slept: list[float] = []

        def sleep(seconds: float) -> None:
            slept.append(seconds)
            clock.advance(seconds)

        self.patch(time, "perf_counter", clock.seconds)
        self.patch(time, "sleep", sleep)

        def name(entry: os.DirEntry[bytes]) -> bytes:
            clock.advance(0.0002)
            return entry.name

        self.patch(listing, "_name", name)
        self.make(*(f"{number:02}" for number in range(18)))
        self.assertEqual(len(self.listed(self.listings())), 18)
        # Four names at a time, and two at the end; merging them takes no time here.
        self.assertEqual([round(seconds, 4) for seconds in slept], [0.0008] * 4)


class MeanwhileTest(ListingCase):
    """What happens while a directory is read in a thread."""

    def ask(self, listings: Listings) -> list[Any]:
        outcome: list[Any] = []
        Deferred.fromCoroutine(listings.names(str(self.directory))).addBoth(outcome.append)
        return outcome

    def test_changes_are_in_the_answer(self) -> None:
        """Those that the reading saw, and those that it did not."""
        self.make("a", "b")
        threads = HeldThreads()
        listings = self.listings(threads)
        answer = self.ask(listings)
        self.make("before")
        (self.directory / "a").rmdir()
        tell = threads.jobs.pop()()
        self.make("after")
        (self.directory / "before").rmdir()
        tell()
        self.assertEqual(answer, [["after", "b"]])
        self.assertEqual(self.ask(listings), [["after", "b"]])
        self.assertEqual(self.reads, 1)

    def test_who_comes_later_shares_it(self) -> None:
        self.make("a")
        threads = HeldThreads()
        listings = self.listings(threads)
        first = self.ask(listings)
        tell = threads.jobs.pop()()
        self.make("b")
        second = self.ask(listings)
        self.assertEqual((first, second), ([], []))
        tell()
        self.assertEqual((first, second), ([["a", "b"]], [["a", "b"]]))
        self.assertEqual(threads.jobs, [])

    def test_without_notes_who_comes_later_has_it_read_again_once_for_all(self) -> None:
        self.make("a")
        threads = HeldThreads()
        listings = self.listings(threads, Unwatched())
        first = self.ask(listings)
        tell = threads.jobs.pop()()
        self.make("b")
        later = [self.ask(listings) for _ in range(3)]
        tell()
        self.assertEqual(first, [["a"]])
        self.assertEqual(len(threads.jobs), 1)
        threads.next()
        self.assertEqual(later, [[["a", "b"]]] * 3)
        self.assertEqual(threads.jobs, [])

    def test_a_failure_is_everybodys(self) -> None:
        threads = HeldThreads()
        listings = self.listings(threads)
        first = self.ask(listings)
        later = [self.ask(listings) for _ in range(3)]
        self.directory.rmdir()
        threads.next()
        for (failure,) in (first, *later):
            failure.trap(FileNotFoundError)
        self.assertEqual(threads.jobs, [])
        self.directory.mkdir()

    def test_a_failure_when_read_again(self) -> None:
        threads = HeldThreads()
        listings = self.listings(threads, Unwatched())
        first = self.ask(listings)
        later = [self.ask(listings) for _ in range(3)]
        threads.next()
        self.assertEqual(first, [[]])
        self.directory.rmdir()
        threads.next()
        for (failure,) in later:
            failure.trap(FileNotFoundError)
        self.directory.mkdir()

    def test_lost_notes(self) -> None:
        self.make("a")
        threads = HeldThreads()
        watch = Watch()
        listings = self.listings(threads, watch)
        answer = self.ask(listings)
        self.lose(watch)
        threads.next()
        self.assertEqual(answer, [["a"]])
        self.make("b")
        answer = self.ask(listings)
        threads.next()
        self.assertEqual(answer, [["a", "b"]])

    def test_notes_that_another_page_takes_from_the_queue(self) -> None:
        self.make("a", "other", "other/x")
        threads = HeldThreads()
        listings = self.listings(threads)
        other = Deferred.fromCoroutine(listings.names(str(self.directory / "other")))
        threads.next()
        self.assertEqual(self.successResultOf(other), ["x"])
        answer = self.ask(listings)
        tell = threads.jobs.pop()()
        self.make("b")
        self.assertEqual(done(listings.names(str(self.directory / "other"))), ["x"])
        tell()
        self.assertEqual(answer, [["a", "b", "other"]])

    def test_turns_for_the_event_loop_while_there_are_many_notes(self) -> None:
        self.make("a")
        threads = HeldThreads()
        listings = self.listings(threads)
        self.ask(listings)
        threads.next()
        names = sorted(f"{number:04}" + "x" * 200 for number in range(100))
        self.make(*names)
        first, second = self.ask(listings), self.ask(listings)
        self.assertGreaterEqual(len(threads.jobs), 2)
        # Whatever happens between two turns.
        self.make("last")
        while threads.jobs:
            threads.next()
        self.assertEqual(first, [[*names, "a", "last"]])
        self.assertEqual(second, [[*names, "a", "last"]])


NAME = st.text("abc-.", min_size=1, max_size=2).filter(lambda name: name not in {".", ".."})


class SecondWriterMachine(RuleBasedStateMachine):
    """Somebody else changes the tree in every way there is. Two processes list it, and one where changes are not noted."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="regd-test-"))
        self.directory = self.root / "d"
        self.directory.mkdir()
        self.all: list[Listings] = []

    @initialize()
    def begin(self) -> None:
        self.all = [Listings(Inline()), Listings(Inline()), Listings(Inline(), Unwatched())]

    def teardown(self) -> None:
        for listings in self.all:
            listings.close()
        shutil.rmtree(self.root, ignore_errors=True)

    @rule(name=NAME)
    def make(self, name: str) -> None:
        (self.directory / name).mkdir(exist_ok=True)

    @rule(name=NAME)
    def remove(self, name: str) -> None:
        if (self.directory / name).exists():
            (self.directory / name).rmdir()

    @rule(name=NAME, other=NAME)
    def rename(self, name: str, other: str) -> None:
        if (self.directory / name).exists():
            (self.directory / name).rename(self.directory / other)

    @rule(name=NAME)
    def move_out(self, name: str) -> None:
        if (self.directory / name).exists():
            (self.directory / name).rename(self.root / f"out-{name}")

    @rule(name=NAME)
    def move_in(self, name: str) -> None:
        if (self.root / f"out-{name}").exists():
            (self.root / f"out-{name}").rename(self.directory / name)

    @rule(keep=st.booleans())
    def replace(self, keep: bool) -> None:
        """The whole directory; another may get its inode."""
        if keep:
            shutil.copytree(self.directory, self.root / "copy")
        shutil.rmtree(self.directory)
        if keep:
            (self.root / "copy").rename(self.directory)
        else:
            self.directory.mkdir()

    @rule(seconds=st.integers(0, 3))
    def set_the_time(self, seconds: int) -> None:
        os.utime(self.directory, (seconds, seconds))

    @rule(process=st.integers(0, 1))
    def lose(self, process: int) -> None:
        self.all[process]._watch._begin_anew()
        self.all[process]._lose_all()

    @rule(process=st.integers(0, 1), after=NAME, limit=st.integers(0, 4))
    def page(self, process: int, after: str, limit: int) -> None:
        expected = [name for name in sorted(os.listdir(self.directory)) if name > after][:limit]
        assert done(self.all[process].names(str(self.directory), after, limit)) == expected

    @rule()
    def where_nothing_is_noted(self) -> None:
        # It relies on time stamps, which set_the_time() makes say nothing: from now on they are the system's again.
        os.utime(self.directory)
        assert done(self.all[2].names(str(self.directory))) == sorted(os.listdir(self.directory))

    @invariant()
    def size_is_known(self) -> None:
        for listings in self.all:
            assert listings.size == sum(known.names.size for known in listings._known.values() if known.names is not None)
            assert len(listings._watched) <= len(listings._known) <= 1


class SecondWriterTest(ListingCase):
    def test_every_page_is_that_of_the_directory(self) -> None:
        run_state_machine_as_test(SecondWriterMachine)


class ChangeTest(SynchronousTestCase):
    def test_a_note_of_what_is_not_remembered(self) -> None:
        watch = Watch()
        self.addCleanup(watch.close)
        answers: list[Any] = [([Change(99, b"x", True), Change(99, b"", False)], False)]
        self.patch(watch, "changes", answers.pop)
        listings = Listings(Inline(), watch)
        done(self.catch_up(listings))
        self.assertEqual(listings.size, 0)

    @staticmethod
    async def catch_up(listings: Listings) -> list[Any]:
        await listings._catch_up()
        return []
