"""One endpoint, told of one event after the other: by a clock, with answers that the test gives."""

import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from regd.config.notifying import Endpoint, Ignore, Notifications
from regd.notifications.delivery import Delivery, key_of
from regd.notifications.events import Actor, Event, Request, Source, Target, record
from regd.notifications.journal import Cursor, Journal
from regd.notifications.recorder import Recorder
from regd.notifications.telling import CannotPost, Teller
from regd.notifications.undelivered import Undelivered

T = TypeVar("T")


def at_once(function: Callable[..., T], *arguments: Any) -> Deferred[T]:
    """Instead of a thread."""
    done: Deferred[None] = succeed(None)
    return done.addCallback(lambda _: function(*arguments))


def event(identity: str, action: Any = "push", media_type: str = "x/y") -> Event:
    return Event(identity, 0, action, Target("a/b", media_type), Request("r", "", "", "PUT", ""), Actor(), Source("", ""))


class Receiver:
    """A post whose answers are given later."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Deferred[int]]] = []
        self.closed = 0

    def __call__(self, content: bytes) -> Deferred[int]:
        answer: Deferred[int] = Deferred()
        self.asked.append((json.loads(content)["events"][0]["id"], answer))
        return answer

    def close(self) -> Deferred[None]:
        self.closed += 1
        return succeed(None)

    def answer(self, status: int) -> str:
        """Answer what was asked first and is not answered."""
        identity, answer = next(one for one in self.asked if not one[1].called)
        answer.callback(status)
        return identity

    def fail(self) -> None:
        next(answer for _, answer in self.asked if not answer.called).errback(CannotPost("refused"))

    @property
    def waiting(self) -> list[str]:
        return [identity for identity, answer in self.asked if not answer.called]


class Lock:
    held = False

    def take(self) -> "Lock | None":
        if self.held:
            return None
        self.held = True
        return self

    def close(self) -> None:
        self.held = False


class Base(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        temporary = TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.directory = f"{temporary.name}/notifications"
        self.journal = Journal(self.directory, 1 << 20, 2000)
        self.journal.append([b"before"])
        self.receiver = Receiver()
        self.undelivered = Undelivered(f"{self.directory}/undelivered")

    def lost(self) -> list[str]:
        path = Path(self.directory, "undelivered")
        return [json.loads(line)["event"]["id"] for line in path.read_bytes().splitlines()] if path.exists() else []

    def put(self, *events: Event) -> None:
        self.journal.append([record(one) for one in events])


class TellerTest(Base):
    def teller(self, cursor: Cursor | None = None, **more: Any) -> Teller:
        endpoint = Endpoint("hook", "http://x/", threshold=3, backoff=2.0, **more)
        start = self.journal.end() if cursor is None else cursor
        teller = Teller(
            endpoint, "key", start, self.journal, self.undelivered, self.receiver, at_once, self.clock, self.clock.seconds
        )
        teller.start()
        return teller

    def stop(self, teller: Teller) -> None:
        self.successResultOf(Deferred.fromCoroutine(teller.stop()))

    def test_in_order(self) -> None:
        """One at a time, the next when the last one was taken."""
        teller = self.teller()
        self.put(event("1"), event("2"))
        self.assertEqual(self.receiver.waiting, [])
        teller.wake()
        self.assertEqual(self.receiver.waiting, ["1"])
        self.assertEqual(self.receiver.answer(200), "1")
        self.assertEqual(self.receiver.waiting, ["2"])
        self.receiver.answer(204)
        self.assertEqual(self.journal.cursor("key"), self.journal.end())
        self.put(event("3"))
        teller.wake()
        self.assertEqual(self.receiver.answer(202), "3")
        self.stop(teller)
        self.assertEqual(teller.variables()["delivered"], 3)
        self.assertEqual(self.receiver.closed, 1)

    def test_tried_again(self) -> None:
        """At once up to the threshold, then after the back-off, for as long as it takes; nothing overtakes."""
        teller = self.teller()
        self.put(event("1"), event("2"))
        teller.wake()
        self.receiver.answer(500)
        self.receiver.fail()
        self.assertEqual(self.receiver.waiting, ["1"])
        self.receiver.answer(301)
        self.assertEqual(self.receiver.waiting, [])
        for _ in range(30):
            self.clock.advance(1.9)
            self.assertEqual(self.receiver.waiting, [])
            self.clock.advance(0.2)
            self.receiver.answer(404)
        self.clock.advance(2)
        self.assertEqual(self.receiver.answer(200), "1")
        self.assertEqual(self.receiver.answer(200), "2")
        self.assertEqual((teller.variables()["failures"], teller.variables()["errors"]), (32, 1))
        self.assertEqual(self.lost(), [])
        self.stop(teller)

    def test_refused(self) -> None:
        """What an endpoint says is wrong with an event itself keeps the others back for a while only."""
        teller = self.teller()
        self.put(event("1"), event("2"))
        teller.wake()
        for _ in range(3):
            self.receiver.answer(413)
        self.assertEqual(self.receiver.answer(200), "2")
        self.assertEqual(self.lost(), ["1"])
        self.assertEqual(teller.variables()["undelivered"], 1)
        self.stop(teller)

    def test_ignored(self) -> None:
        teller = self.teller(ignoredmediatypes=("x/old",), ignore=Ignore(("x/new",), ("pull",)))
        self.put(event("1", "pull"), event("2", media_type="x/old"), event("3", media_type="x/new"), event("4"))
        teller.wake()
        self.assertEqual(self.receiver.answer(200), "4")
        self.assertEqual(teller.variables()["ignored"], 3)
        self.stop(teller)

    def test_stopped_and_started(self) -> None:
        """Stopped while one is being sent, the next one begins with that one."""
        teller = self.teller()
        self.put(event("1"), event("2"))
        teller.wake()
        self.receiver.answer(200)
        self.stop(teller)
        self.receiver = Receiver()
        teller = self.teller(self.journal.cursor("key"))
        self.assertEqual(self.receiver.waiting, ["2"])
        self.stop(teller)

    def test_stopped_while_backing_off(self) -> None:
        teller = self.teller()
        self.put(event("1"))
        teller.wake()
        for _ in range(3):
            self.receiver.fail()
        self.stop(teller)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_abandoned(self) -> None:
        """When the room is needed, what waits in the oldest segment is written down and passed."""
        teller = self.teller()
        self.put(*(event(f"{number}") for number in range(3)))
        teller.wake()
        teller.abandon(self.journal.segments()[-1] + 1)
        self.assertEqual(self.lost(), ["0", "1", "2"])
        self.put(event("later"))
        self.assertEqual(self.receiver.waiting, [])
        self.stop(teller)

    def test_storage_fails(self) -> None:
        """Of a storage that cannot be read, it is said so, and it is tried again."""
        teller = self.teller()
        self.put(event("1"))
        read = self.journal.read

        def broken(cursor: Cursor) -> Any:
            raise OSError("broken")

        self.journal.read = broken  # type: ignore[method-assign]  # a storage that fails
        teller.wake()
        self.journal.read = read  # type: ignore[method-assign]  # and works again
        self.clock.advance(5)
        self.assertEqual(self.receiver.answer(200), "1")
        self.stop(teller)

    def test_damaged(self) -> None:
        teller = self.teller()
        self.journal.append([b"{}", b"[]", record(event("1"))])
        teller.wake()
        self.assertEqual(self.receiver.answer(200), "1")
        self.assertEqual(teller.variables()["damaged"], 2)
        self.stop(teller)


class DeliveryTest(Base):
    def setUp(self) -> None:
        super().setUp()
        self.lock = Lock()
        self.receivers: dict[str, Receiver] = {}

    def delivery(self, *endpoints: Endpoint) -> Delivery:
        def make(endpoint: Endpoint) -> Receiver:
            return self.receivers.setdefault(endpoint.name, Receiver())

        delivery = Delivery(self.journal, self.undelivered, make, self.lock.take, at_once, self.clock, self.clock.seconds)
        delivery.configure(Notifications(endpoints))
        return delivery

    def stop(self, delivery: Delivery) -> None:
        self.successResultOf(Deferred.fromCoroutine(delivery.stop()))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_each_at_its_own_pace(self) -> None:
        delivery = self.delivery(Endpoint("a", "http://a/"), Endpoint("b", "http://b/"), Endpoint("c", "", disabled=True))
        self.put(event("1"), event("2"))
        self.clock.advance(2)
        self.receivers["a"].answer(200)
        self.receivers["a"].answer(200)
        self.assertEqual(self.receivers["b"].waiting, ["1"])
        self.assertEqual(list(self.receivers), ["a", "b"])
        self.stop(delivery)
        # Over a restart, each goes on where it was.
        self.receivers = {}
        delivery = self.delivery(Endpoint("a", "http://a/"), Endpoint("b", "http://b/"))
        self.assertEqual(self.receivers["a"].waiting, [])
        self.assertEqual(self.receivers["b"].waiting, ["1"])
        self.stop(delivery)

    def test_one_sends(self) -> None:
        """Another process takes over when the first has ended."""
        one = self.delivery(Endpoint("a", "http://a/"))
        first, self.receivers = self.receivers, {}
        two = self.delivery(Endpoint("a", "http://a/"))
        self.put(event("1"))
        self.clock.advance(2)
        self.assertEqual((first["a"].waiting, list(self.receivers)), (["1"], []))
        self.successResultOf(Deferred.fromCoroutine(one.stop()))
        self.clock.advance(2)
        self.assertEqual(self.receivers["a"].waiting, ["1"])
        self.stop(two)

    def test_another_configuration(self) -> None:
        """An endpoint that has changed goes on where it was; one that is gone is forgotten."""
        delivery = self.delivery(Endpoint("a", "http://a/"), Endpoint("b", "http://b/"))
        self.put(event("1"), event("2"))
        self.clock.advance(2)
        self.receivers["a"].answer(200)
        old, self.receivers = self.receivers["a"], {}
        delivery.configure(Notifications((Endpoint("a", "http://other/"),)))
        self.assertEqual(old.closed, 1)
        self.assertEqual(self.receivers["a"].waiting, ["2"])
        self.assertEqual(self.journal.keys(), [key_of(Endpoint("a", ""))])
        delivery.configure(Notifications())
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.stop(delivery)

    def test_counters_stay(self) -> None:
        """Over another configuration of the endpoint; and what waits is counted when somebody asks."""
        delivery = self.delivery(Endpoint("a", "http://a/"))
        self.put(event("1"), event("2"), event("3"))
        delivery.wake()
        self.receivers["a"].answer(200)
        self.receivers["a"].answer(503)
        self.receivers = {}
        delivery.configure(Notifications((Endpoint("a", "http://other/"),)))
        self.receivers["a"].fail()
        self.successResultOf(Deferred.fromCoroutine(delivery.refresh()))
        found: Any = delivery.variables()
        one = found["endpoints"]["a"]
        self.assertEqual([one[key] for key in ("delivered", "failures", "errors", "pending")], [1, 1, 1, 2])
        self.assertEqual(one["statuses"], {"200": 1, "503": 1})
        self.assertEqual(found["journal_bytes"], self.journal.size())
        self.stop(delivery)

    def test_room(self) -> None:
        """What all have been told goes; when there is too much for one that is behind, its oldest are given up, and no other's."""
        self.journal.limit = 20_000
        delivery = self.delivery(Endpoint("up", "http://a/"), Endpoint("down", "http://b/", threshold=1, backoff=0.1))
        sent = []
        for number in range(200):
            self.put(event(f"{number}"))
            self.clock.advance(2)
            sent.append(self.receivers["up"].answer(200))
            if self.receivers["down"].waiting:
                self.receivers["down"].fail()
        self.assertEqual(sent, [f"{number}" for number in range(200)])
        self.assertLess(self.journal.size(), 20_000)
        self.assertEqual(self.lost(), [f"{number}" for number in range(len(self.lost()))])
        self.assertGreater(len(self.lost()), 20)
        self.stop(delivery)


class RecorderTest(Base):
    def test_batches(self) -> None:
        """What comes while a batch is written is the next one; each is told when its own is durable."""
        runs: list[tuple[list[bytes], Deferred[None]]] = []

        def later(function: Any, records: Any) -> Deferred[None]:
            done: Deferred[None] = Deferred()
            runs.append((list(records), done))
            return done.addCallback(lambda _: function(records))

        config = Notifications((Endpoint("a", "http://a/"),))
        recorder = Recorder(self.journal, config, later)
        took = [recorder.take(event(f"{number}")) for number in range(3)]
        self.assertEqual([len(records) for records, _ in runs], [1])
        settled = Deferred.fromCoroutine(recorder.settle())
        self.assertNoResult(took[0])
        runs[0][1].callback(None)
        self.successResultOf(took[0])
        self.assertNoResult(took[1])
        self.assertEqual([len(records) for records, _ in runs], [1, 2])
        runs[1][1].callback(None)
        self.successResultOf(took[1])
        self.successResultOf(took[2])
        self.successResultOf(settled)
        self.assertEqual(recorder.variables(), {"recorded": 3, "dropped": 0, "failed": 0, "events": {"a": 3}})
        self.successResultOf(Deferred.fromCoroutine(recorder.settle()))

    def test_full(self) -> None:
        """Nobody waits for what cannot be written, and it is counted."""
        self.journal.limit = 1000
        recorder = Recorder(self.journal, Notifications(), at_once)
        for number in range(10):
            self.successResultOf(recorder.take(event(f"{number}")))
        self.assertGreater(recorder.dropped, 0)
        self.assertEqual(recorder.recorded + recorder.dropped, 10)

    def test_broken(self) -> None:
        def broken(function: Any, records: Any) -> Deferred[None]:
            return fail(OSError("broken"))

        recorder = Recorder(self.journal, Notifications(), broken)
        self.successResultOf(recorder.take(event("1")))
        self.assertEqual(recorder.failed, 1)


class UndeliveredTest(Base):
    def test_bounded(self) -> None:
        undelivered = Undelivered(f"{self.directory}/u", limit=300)
        for number in range(20):
            undelivered.add("hook", "why", [{"id": f"{number}"}], 0)
        sizes = [path.stat().st_size for path in Path(self.directory).glob("u*")]
        self.assertTrue(all(size < 450 for size in sizes))
        self.assertEqual(
            json.loads(Path(f"{self.directory}/u.old").read_bytes().splitlines()[0])["endpoint"], "hook"
        )
