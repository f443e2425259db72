"""
Whatever happens, a client gets the right bytes or a visibly cut answer, nothing wrong ever is a blob, and nothing stays stuck.

What happens: clients come and leave, the upstream sends, breaks off, has something else, or is away, processes die and start, blobs are
pushed and evicted, and time passes.
"""

from __future__ import annotations

import os
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from regd.errors import RegistryError
from regd.names import Digest
from regd.proxy.remote.errors import Limited, NotThere, Unreachable
from regd.storage import layout
from regd.storage.driver import Missing, StorageError
from tests.proxy.cache.case import LOCAL, NAME, OTHER, Client, FetchCase, Process, chunked, in_part, whole

CONTENT = bytes(range(256)) * 400
SMALL = bytes(range(256)) * 4
CONTENTS = {Digest.of(CONTENT): CONTENT, Digest.of(SMALL, "sha512"): SMALL}
DIGESTS = st.sampled_from([*CONTENTS, next(iter(CONTENTS))])

ERRORS = st.sampled_from(
    [Unreachable("down"), Unreachable("slow", late=True), Limited("later", 2.0), Limited("later", 99.0), NotThere("no")]
)


class World(FetchCase):
    """A test case for its tools."""

    __test__ = False

    def runTest(self) -> None:
        """There is none: hypothesis says what happens."""


class FetchMachine(RuleBasedStateMachine):
    on_disk = True

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.world.on_disk = self.on_disk
        self.world.setUp()
        self.world.remote.blobs.update(CONTENTS)
        self.peaceful = True
        self.processes = 0

    @initialize(others=st.integers(0, 2))
    def begin(self, others: int) -> None:
        for _ in range(others):
            self.world.start()

    @property
    def clients(self) -> list[Client]:
        return self.world.clients

    @property
    def alive(self) -> list[Process]:
        return [process for process in self.world.processes if not process.dead]

    @rule(
        digest=DIGESTS,
        number=st.integers(0, 5),
        name=st.sampled_from([NAME, NAME, NAME, OTHER]),
        allowance=st.sampled_from([None, None, 0, 1000, 60_000]),
        part=st.sampled_from([None, None, None, (0, 10), (500, 1000), (0, 1024)]),
    )
    def come(self, digest: Digest, number: int, name: Any, allowance: int | None, part: tuple[int, int] | None) -> None:
        process = self.alive[number % len(self.alive)]
        start, end = part or (0, None)
        self.world.get(digest, process, name, start, end, allowance)

    @precondition(lambda self: self.clients)
    @rule(number=st.integers(0, 20), more=st.sampled_from([None, 500, 50_000]))
    def read_on(self, number: int, more: int | None) -> None:
        client = self.clients[number % len(self.clients)]
        if client.allowance is not None:
            client.allowance = None if more is None else client.allowance + more

    @precondition(lambda self: self.clients)
    @rule(number=st.integers(0, 20))
    def leave(self, number: int) -> None:
        client = self.clients[number % len(self.clients)]
        if not client.process.dead:
            self.world.leave(client)

    @precondition(lambda self: any(not body.over for body in self.world.remote.bodies))
    @rule(number=st.integers(0, 9), size=st.sampled_from([1, 700, 40_000, 1 << 20]))
    def send(self, number: int, size: int) -> None:
        bodies = [body for body in self.world.remote.bodies if not body.over]
        bodies[number % len(bodies)].feed(size)

    @precondition(lambda self: any(not body.over for body in self.world.remote.bodies))
    @rule(number=st.integers(0, 9))
    def break_off(self, number: int) -> None:
        self.peaceful = False
        bodies = [body for body in self.world.remote.bodies if not body.over]
        bodies[number % len(bodies)].fail()

    @rule(digest=DIGESTS, what=st.sampled_from(["right", "right", "wrong", "shorter", "longer", "gone"]))
    def change(self, digest: Digest, what: str) -> None:
        content = CONTENTS[digest]
        self.peaceful = self.peaceful and what == "right"
        self.world.remote.blobs[digest] = {
            "right": content,
            "wrong": content[:300] + b"?" + content[301:],
            "shorter": content[:-100],
            "longer": content + b"more",
            "gone": b"",
        }[what]
        if what == "gone":
            del self.world.remote.blobs[digest]

    @rule(error=ERRORS)
    def be_away(self, error: Exception) -> None:
        self.peaceful = False
        self.world.remote.errors.append(error)

    @rule(how=st.sampled_from([in_part, whole, chunked]))
    def answer(self, how: Any) -> None:
        self.world.remote.answering = how

    @rule(slow=st.booleans())
    def think(self, slow: bool) -> None:
        if slow and self.world.remote.held is None:
            self.world.remote.held = []
        elif not slow:
            self.world.remote.release()

    @rule(number=st.integers(0, 5))
    def die(self, number: int) -> None:
        if len(self.alive) > 1:
            self.peaceful = False
            process = self.alive[number % len(self.alive)]
            self.world.kill(process)
            self.world.process = self.alive[0]

    @rule(number=st.integers(0, 5))
    def stop(self, number: int) -> None:
        if len(self.alive) > 1:
            self.peaceful = False
            self.world.end(self.alive[number % len(self.alive)])
            self.world.process = self.alive[0]

    @precondition(lambda self: len(self.world.processes) < 6)
    @rule()
    def start(self) -> None:
        self.world.start()

    @rule(digest=DIGESTS)
    def push(self, digest: Digest) -> None:
        self.peaceful = False
        self.world.push(LOCAL, CONTENTS[digest])

    @rule(digest=DIGESTS)
    def evict(self, digest: Digest) -> None:
        self.peaceful = False
        try:
            self.world.result(self.world.process.driver.delete(layout.blob_data(digest)))
        except Missing:
            return

    @rule(seconds=st.sampled_from([0.001, 0.01, 0.1, 0.3, 1.0, 5.0, 20.0]))
    def wait(self, seconds: float) -> None:
        self.world.pass_time(seconds, max(0.001, seconds / 200))

    @invariant()
    def nothing_wrong_is_a_blob(self) -> None:
        for digest, content in CONTENTS.items():
            found = self.world.stored(digest)
            assert found is None or found == content

    @invariant()
    def nobody_has_a_wrong_blob_whole(self) -> None:
        for client in self.clients:
            content = CONTENTS[client.digest]
            if client.start == 0 and len(client.got) == len(content) and (client.end is None or client.end == len(content)):
                assert bytes(client.got) == content

    @invariant()
    def while_nothing_fails_nothing_is_fetched_twice(self) -> None:
        if self.peaceful:
            for digest in CONTENTS:
                gets = [request for request in self.world.remote.gets if request.digest == digest and request.end is None]
                assert len(gets) <= 1
            assert not any(client.cut or client.refused is not None for client in self.clients if not client.left)

    def teardown(self) -> None:
        world = self.world
        try:
            self._all_comes_to_an_end()
            self._and_works()
        finally:
            world.doCleanups()

    def _all_comes_to_an_end(self) -> None:
        """The upstream gets well, and then everybody has an answer."""
        world = self.world
        world.remote.blobs.update(CONTENTS)
        world.remote.errors.clear()
        world.remote.answering = in_part
        world.remote.release()
        for client in self.clients:
            client.allowance = None
        for _ in range(40):
            for body in world.remote.bodies:
                if not body.over:
                    body.finish()
            world.pass_time(1.0, 0.02)
        for client in self.clients:
            if client.process.dead or client.left:
                continue
            assert client.done, "a client is stuck"
            if client.refused is not None:
                assert isinstance(client.refused, RegistryError | StorageError), repr(client.refused)
            elif not client.cut:
                content = CONTENTS[client.digest]
                assert len(client.got) == (len(content) if client.end is None else client.end - client.start)
        self.nothing_wrong_is_a_blob()
        self.nobody_has_a_wrong_blob_whole()

    def _and_works(self) -> None:
        """No connection, no lock and no file is left open, and whoever asks next gets it."""
        world = self.world
        world.assert_nothing_open()
        for digest, content in CONTENTS.items():
            assert not world.is_held(digest)
            client = world.get(digest)
            for _ in range(5):
                world.pass_time(0.5, 0.02)
                for body in world.remote.bodies:
                    if not body.over:
                        body.finish()
            world.assert_got(client, content)


class MemoryMachine(FetchMachine):
    on_disk = False


SETTINGS = settings(
    max_examples=int(os.environ.get("REGD_FETCH_EXAMPLES", "30")),
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)

FetchModelTest = FetchMachine.TestCase
FetchModelTest.settings = SETTINGS
MemoryModelTest = MemoryMachine.TestCase
MemoryModelTest.settings = SETTINGS
