"""Ids of requests: what is one, and on whose behalf something is done."""

from __future__ import annotations

import re
import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from regd.asked import ASKED, LONGEST, Asked, current_id, make_id, valid_id
from regd.web.at_once import begin


def asked(request_id: str) -> Asked:
    return Asked(request_id, b"GET", b"/v2/", None, Headers())


class IdTests(SynchronousTestCase):
    def test_made(self) -> None:
        made = [make_id() for _ in range(1000)]
        self.assertEqual(len(set(made)), 1000)
        for one in made:
            self.assertTrue(valid_id(one.encode()))
            self.assertLess(len(one), 24)

    def test_another_process_makes_others(self) -> None:
        program = "from regd.asked import make_id; print(make_id())"
        found = {subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout for _ in range(2)}
        self.assertEqual(len(found | {make_id()}), 3)

    def test_said_by_others(self) -> None:
        traced = b"Root=1-67891233-abcdef012345678912345678"
        for said in (b"a", b"8c7e1a06-2b0f-4d1e-9f0a-9a3c1f0c7a11", traced, b"x" * LONGEST, b"a/b+c=:@~_."):
            self.assertTrue(valid_id(said), said)
        unsafe = (b"a b", b"a\n", b"a\r\nX: y", b'a"', b"a;b", b"<a>", b"\xc3\xa9", b"a,b", b"a\\", b"${x}", b"%0a")
        for said in (b"", b"x" * (LONGEST + 1), *unsafe):
            self.assertFalse(valid_id(said), said)

    @given(st.binary(max_size=200))
    def test_any_bytes(self, said: bytes) -> None:
        """What is taken is one word wherever it is written, and as it was."""
        if valid_id(said):
            text = said.decode("ascii")
            self.assertTrue(0 < len(text) <= LONGEST)
            self.assertIsNone(re.search(r"[^\x21-\x7e]|[\"'\\<>&;|$`,%{}()\[\]*?!#^]", text))


class BehalfTests(SynchronousTestCase):
    """Coroutines of several requests, woken in any order, each on behalf of its own."""

    def test_coroutines_keep_it(self) -> None:
        gates: list[Deferred[None]] = [Deferred() for _ in range(4)]
        found: dict[str, list[str]] = {}

        async def deeper() -> None:
            found.setdefault(current_id(), []).append("deeper")

        async def work(name: str, first: Deferred[None], second: Deferred[None]) -> None:
            found.setdefault(current_id(), []).append(name)
            await first
            found[current_id()].append(name)
            await second
            await Deferred.fromCoroutine(deeper())

        running = []
        for name, pair in (("a", gates[:2]), ("b", gates[2:])):
            before = ASKED.set(asked(name))
            try:
                running.append(begin(work(name, *pair)))
            finally:
                ASKED.reset(before)
            self.assertEqual(current_id(), "")
        before = ASKED.set(asked("c"))
        for index in (2, 0, 1, 3):
            # Fired on behalf of another one.
            gates[index].callback(None)
            self.assertEqual(current_id(), "c")
        ASKED.reset(before)
        for one in running:
            assert isinstance(one, Deferred)
            self.successResultOf(one)
        self.assertEqual(found, {"a": ["a", "a", "deeper"], "b": ["b", "b", "deeper"]})

    def test_nobody(self) -> None:
        self.assertEqual(current_id(), "")
