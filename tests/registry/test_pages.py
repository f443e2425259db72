"""Names in lots, and loops that give others their turn."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from regd import pace
from regd.pace import TURN, Pace
from regd.registry.pages import names_after
from regd.storage.driver import Missing
from regd.storage.layout import Path
from regd.storage.memory import MemoryDriver
from regd.storage.sorted_names import in_bytes
from tests.support import CountingDriver, no_sleep, sorted_names

NAMES = st.text("a-.0\u00e9\U00010000", min_size=1, max_size=4)
DIRECTORY = Path("d")


class NamesAfterTest(SynchronousTestCase):
    @given(st.sets(NAMES, min_size=1), NAMES | st.text("a/\ud800\udcff", max_size=3), st.integers(-1, 6))
    def test_all_that_come_later_by_their_bytes(self, names: set[str], last: str, expected: int) -> None:
        driver = CountingDriver(MemoryDriver())

        async def run() -> list[str]:
            for name in names:
                await driver.write((Path(f"d/{name}"), b""))
            return [name async for name in names_after(driver, DIRECTORY, last, expected, Pace(no_sleep))]

        found = self.successResultOf(Deferred.fromCoroutine(run()))
        self.assertEqual(found, [name for name in sorted_names(names) if name.encode() > in_bytes(last)])
        self.assertEqual({limit for _, _, limit in driver.asked("names")}, {max(expected, 1)})

    def test_a_directory_that_goes_away_between_two_lots(self) -> None:
        async def run() -> list[str]:
            driver = MemoryDriver()
            await driver.write(*((Path(f"d/{number}"), b"") for number in range(9)))
            found = []
            async for name in names_after(driver, DIRECTORY, "", 3, Pace(no_sleep)):
                found.append(name)
                if len(found) == 2:
                    await driver.delete(DIRECTORY)
            return found

        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(run())), ["0", "1", "2"])

    def test_a_directory_that_is_not_there(self) -> None:
        async def run() -> None:
            async for name in names_after(MemoryDriver(), DIRECTORY, "", 3, Pace(no_sleep)):
                self.fail(name)

        self.failureResultOf(Deferred.fromCoroutine(run()), Missing)


class PaceTest(SynchronousTestCase):
    def test_a_turn_for_others_when_it_is_time(self) -> None:
        clock = Clock()
        self.patch(pace, "monotonic", clock.seconds)
        turns: list[int] = []
        seen: list[int] = []

        async def breathe() -> None:
            turns.append(len(seen))
            # However long the others take.
            clock.advance(1)

        async def run() -> None:
            steps = Pace(breathe)
            for item in range(10):
                seen.append(item)
                clock.advance(TURN * 0.4)
                await steps.step()

        self.successResultOf(Deferred.fromCoroutine(run()))
        self.assertEqual(seen, list(range(10)))
        self.assertEqual(turns, [3, 6, 9])
