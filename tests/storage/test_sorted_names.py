"""Many names in order, compared with a sorted list."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from twisted.trial.unittest import SynchronousTestCase

from regd.storage import sorted_names
from regd.storage.sorted_names import SortedNames, in_bytes, in_text, merged

NAMES = st.binary(min_size=1, max_size=6).filter(lambda name: b"\0" not in name)
LISTS = st.lists(NAMES | st.sampled_from([b"a", b"aa", b"ab", b"b"]), max_size=40)


def taken(names: SortedNames) -> int:
    """What its blocks take, in bytes."""
    return sum(len(block) + len(first) + 120 for block, first in zip(names._blocks, names._firsts, strict=True))


class SmallBlocks(SynchronousTestCase):
    def setUp(self) -> None:
        # A block has two or three names, so that few names show what many would.
        self.patch(sorted_names, "_BLOCK", 10)


class OrderTest(SynchronousTestCase):
    @given(st.binary())
    def test_a_name_keeps_its_bytes(self, name: bytes) -> None:
        self.assertEqual(in_bytes(in_text(name)), name)

    @given(st.text())
    def test_any_text_has_a_place(self, text: str) -> None:
        found = in_bytes(text)
        if not any("\ud800" <= letter <= "\udfff" for letter in text):
            self.assertEqual(found, text.encode())


class SortedNamesTest(SmallBlocks):
    @given(LISTS, NAMES | st.just(b""), st.none() | st.integers(0, 9))
    def test_after(self, names: list[bytes], last: bytes, limit: int | None) -> None:
        expected = sorted(set(names))
        found = SortedNames.of(names)
        self.assertEqual(found.after(b""), expected)
        self.assertEqual(found.after(last, limit), [name for name in expected if name > last][:limit])

    @given(st.lists(LISTS, min_size=1, max_size=6))
    def test_merged(self, lists: list[list[bytes]]) -> None:
        rests: list[None] = []
        found = merged([SortedNames.of(names) for names in lists], lambda: rests.append(None))
        self.assertEqual(found.after(b""), sorted({name for names in lists for name in names}))
        self.assertEqual(found.size, taken(found))

    def test_what_is_merged_is_used_up(self) -> None:
        parts = [SortedNames.of([b"a", b"b"]), SortedNames.of([b"c"])]
        merged(parts, lambda: None)
        self.assertEqual([(part.after(b""), part.size) for part in parts], [([], 0)] * 2)

    def test_memory(self) -> None:
        self.patch(sorted_names, "_BLOCK", 4096)
        found = SortedNames.of(b"%08d" % number for number in range(150_000))
        self.assertLess(found.size, 1.05 * 150_000 * 9)
        digests = SortedNames.of(b"%064x" % number for number in range(100_000))
        self.assertLess(digests.size, 1.05 * 100_000 * 65)

    def test_no_step_of_a_merge_is_long(self) -> None:
        """Whatever the order in which the parts come."""
        self.patch(sorted_names, "_BLOCK", 4096)
        parts = [
            SortedNames.of(b"%06d" % (number * step % 100_003) for number in range(start, start + 4096))
            for start in range(0, 61_440, 4096)
            for step in (1, 7919)
        ]
        steps: list[int] = []
        real = SortedNames.extend

        def extend(self: SortedNames, names: list[bytes]) -> None:
            steps.append(len(names))
            real(self, names)

        self.patch(SortedNames, "extend", extend)
        whole = merged(parts, lambda: None)
        self.assertEqual(sum(steps), len(whole.after(b"")))
        self.assertLess(max(steps), 20 * 4096 // 7)


class SortedNamesMachine(RuleBasedStateMachine):
    """Changes, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.model: set[bytes] = set()
        self.names = SortedNames()

    @rule(name=NAMES)
    def add(self, name: bytes) -> None:
        self.model.add(name)
        self.names.add(name)

    @rule(name=NAMES)
    def discard(self, name: bytes) -> None:
        self.model.discard(name)
        self.names.discard(name)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def discard_one_that_is_there(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.model)))
        self.model.remove(name)
        self.names.discard(name)

    @rule(names=LISTS)
    def begin_with(self, names: list[bytes]) -> None:
        self.model = set(names)
        self.names = SortedNames.of(names)

    @rule(last=NAMES, limit=st.integers(0, 5))
    def page(self, last: bytes, limit: int) -> None:
        assert self.names.after(last, limit) == [name for name in sorted(self.model) if name > last][:limit]

    @invariant()
    def all_in_order(self) -> None:
        assert self.names.after(b"") == sorted(self.model)
        blocks, firsts = self.names._blocks, self.names._firsts
        assert firsts == [block.split(b"\0")[0] for block in blocks]
        assert all(len(block) < 2 * 10 + 7 for block in blocks)
        assert self.names.size == taken(self.names)


class MachineTest(SmallBlocks):
    def test_changes(self) -> None:
        run_state_machine_as_test(SortedNamesMachine)
