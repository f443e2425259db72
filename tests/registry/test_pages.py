"""Pages of sorted names, and loops that give others their turn."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from regd.registry.pace import EVERY, paced
from regd.registry.pages import after

NAMES = st.text("a-./0\u00e9\U00010000\ud800\udcff", max_size=4) | st.text(max_size=4)


def in_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


class AfterTest(SynchronousTestCase):
    def test_after(self) -> None:
        names = ["a", "b", "d"]
        for last, expected in (("", "abd"), ("a", "bd"), ("b", "d"), ("c", "d"), ("d", ""), ("\0", "abd"), ("aa", "bd"), ("~", "")):
            self.assertEqual("".join(names[index] for index in after(names, last)), expected)

    @given(st.lists(st.text("a-./0\u00e9\U00010000", max_size=4)), NAMES)
    def test_all_that_come_later_by_their_bytes(self, names: list[str], last: str) -> None:
        listed = sorted(set(names), key=in_bytes)
        found = [listed[index] for index in after(listed, last)]
        self.assertEqual(found, [each for each in listed if not last or in_bytes(each) > in_bytes(last)])

    def test_names_that_are_not_utf_8_are_in_the_way_and_no_trouble(self) -> None:
        names = ["a", "\udcff"]
        self.assertEqual(list(after(names, "a")), [1])
        self.assertEqual(list(after(names, "\ud800")), [1])


class PaceTest(SynchronousTestCase):
    def test_a_turn_for_others_now_and_then(self) -> None:
        turns: list[int] = []
        seen: list[int] = []

        async def breathe() -> None:
            turns.append(len(seen))

        async def run() -> None:
            async for item in paced(range(3 * EVERY + 1), breathe):
                seen.append(item)  # noqa: PERF401 - the turns are what is looked at

        self.successResultOf(Deferred.fromCoroutine(run()))
        self.assertEqual(seen, list(range(3 * EVERY + 1)))
        self.assertEqual(turns, [EVERY, 2 * EVERY, 3 * EVERY])
