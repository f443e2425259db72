"""A request's body as a stream, without a channel: who is paused when, and what is told to whom."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IConsumer, IPushProducer
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.iweb import IBodyProducer
from zope.interface import implementer
from zope.interface.verify import verifyObject

from regd.web.body import BodyAborted, BodyTooLarge, RequestBody, collect


class Source:
    """A socket, as far as a body knows it."""

    reading = True

    def pauseProducing(self) -> None:
        self.reading = False

    def resumeProducing(self) -> None:
        self.reading = True


@implementer(IConsumer)
class Consumer:
    """Keeps what it gets; ``on_write`` may do something besides."""

    def __init__(self, on_write: Callable[[bytes], object] = lambda data: None) -> None:
        self.got: list[bytes] = []
        self._on_write = on_write

    def registerProducer(self, producer: object, streaming: bool) -> None:
        pass

    def unregisterProducer(self) -> None:
        pass

    def write(self, data: bytes) -> None:
        self.got.append(data)
        self._on_write(data)


class BodyCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.source = Source()
        self.starts = 0

    def body(self, length: int | None = None) -> RequestBody:
        return RequestBody(length, self.source, self._started)

    def _started(self) -> None:
        self.starts += 1

    def lose(self, body: RequestBody) -> None:
        body.fail(Failure(ConnectionLost()))


class RequestBodyTests(BodyCase):
    def test_interfaces(self) -> None:
        body = self.body()
        self.assertTrue(verifyObject(IBodyProducer, body))
        self.assertTrue(verifyObject(IPushProducer, body))

    def test_whole(self) -> None:
        body, consumer = self.body(4), Consumer()
        done = body.startProducing(consumer)
        body.feed(b"ab")
        body.feed(b"cd")
        self.assertNoResult(done)
        body.end()
        self.assertIsNone(self.successResultOf(done))
        self.assertEqual(consumer.got, [b"ab", b"cd"])
        self.assertEqual(body.received, 4)

    def test_nothing_is_read_before_it_is_wanted(self) -> None:
        body, consumer = self.body(), Consumer()
        body.feed(b"first")
        self.assertFalse(self.source.reading)
        self.assertTrue(body.paused)
        done = body.startProducing(consumer)
        self.assertTrue(self.source.reading)
        self.assertFalse(body.paused)
        self.assertEqual(consumer.got, [b"first"])
        self.assertNoResult(done)

    def test_a_body_that_has_come_before_it_is_wanted(self) -> None:
        body, consumer = self.body(), Consumer()
        body.feed(b"all")
        body.end()
        self.successResultOf(body.startProducing(consumer))
        self.assertEqual(consumer.got, [b"all"])

    def test_an_empty_body(self) -> None:
        body, consumer = self.body(0), Consumer()
        body.end()
        self.successResultOf(body.startProducing(consumer))
        self.assertEqual((consumer.got, self.starts), ([], 0))

    def test_it_can_be_had_once(self) -> None:
        body = self.body()
        body.startProducing(Consumer())
        self.assertRaises(AssertionError, body.startProducing, Consumer())

    def test_wanting_it_is_told_once_and_first(self) -> None:
        order: list[str] = []
        body = RequestBody(None, self.source, lambda: order.append("continue"))
        body.feed(b"x")
        self.assertEqual(order, [])
        body.startProducing(Consumer(lambda data: order.append("data")))
        body.pauseProducing()
        body.resumeProducing()
        self.assertEqual(order, ["continue", "data"])

    def test_wanting_a_body_that_has_come_asks_for_nothing(self) -> None:
        body = self.body()
        body.feed(b"x")
        body.end()
        body.startProducing(Consumer())
        self.assertEqual(self.starts, 0)

    def test_paused(self) -> None:
        body, consumer = self.body(), Consumer()
        body.startProducing(consumer)
        body.pauseProducing()
        self.assertFalse(self.source.reading)
        self.assertTrue(body.paused)
        # A read that was under way.
        body.feed(b"late")
        body.feed(b"later")
        self.assertEqual(consumer.got, [])
        body.resumeProducing()
        self.assertTrue(self.source.reading)
        self.assertEqual(consumer.got, [b"late", b"later"])

    def test_data_while_paused_pauses_the_socket_again(self) -> None:
        """The channel resumes it when an earlier answer has drained; a body that nobody reads must not grow for that."""
        body = self.body()
        body.startProducing(Consumer())
        body.pauseProducing()
        self.source.resumeProducing()
        body.feed(b"x")
        self.assertFalse(self.source.reading)

    def test_data_before_it_is_wanted_pauses_the_socket_again(self) -> None:
        body = self.body()
        body.feed(b"x")
        self.source.resumeProducing()
        body.feed(b"y")
        self.assertFalse(self.source.reading)

    def test_pausing_within_a_write_keeps_the_rest(self) -> None:
        body = self.body()
        consumer = Consumer(lambda data: body.pauseProducing())
        for chunk in (b"a", b"b", b"c"):
            body.feed(chunk)
        done = body.startProducing(consumer)
        self.assertEqual(consumer.got, [b"a"])
        self.assertFalse(self.source.reading)
        body.resumeProducing()
        self.assertEqual(consumer.got, [b"a", b"b"])
        body.end()
        self.assertNoResult(done)
        body.resumeProducing()
        self.assertNoResult(done)
        body.resumeProducing()
        self.successResultOf(done)
        self.assertEqual(consumer.got, [b"a", b"b", b"c"])

    def test_pausing_and_resuming_within_a_write_keeps_the_order(self) -> None:
        body = self.body()

        def at_once(data: bytes) -> None:
            body.pauseProducing()
            body.resumeProducing()

        consumer = Consumer(at_once)
        for number in range(5):
            body.feed(b"%d" % number)
        done = body.startProducing(consumer)
        body.end()
        self.successResultOf(done)
        self.assertEqual(consumer.got, [b"0", b"1", b"2", b"3", b"4"])

    def test_the_end_while_paused(self) -> None:
        body, consumer = self.body(), Consumer()
        done = body.startProducing(consumer)
        body.pauseProducing()
        body.feed(b"x")
        body.end()
        self.assertNoResult(done)
        self.assertFalse(body.paused)
        body.resumeProducing()
        self.successResultOf(done)
        self.assertEqual(consumer.got, [b"x"])

    def test_stopped(self) -> None:
        body, consumer = self.body(), Consumer()
        done = body.startProducing(consumer)
        body.feed(b"x")
        body.stopProducing()
        self.failureResultOf(done, BodyAborted)
        # The rest is read, so that the client gets to read the answer, and dropped.
        self.assertTrue(self.source.reading)
        body.feed(b"y")
        self.assertEqual((consumer.got, body.received), ([b"x"], 2))
        body.stopProducing()
        body.end()

    def test_a_consumer_that_gave_up_cannot_pause_any_more(self) -> None:
        body = self.body()
        self.failureResultOf(self._stopped(body), BodyAborted)
        body.pauseProducing()
        self.assertTrue(self.source.reading)

    def _stopped(self, body: RequestBody) -> Deferred[None]:
        done = body.startProducing(Consumer())
        body.stopProducing()
        return done

    def test_stopping_before_the_start_is_nothing(self) -> None:
        body, consumer = self.body(), Consumer()
        body.stopProducing()
        body.startProducing(consumer)
        body.feed(b"x")
        self.assertEqual(consumer.got, [b"x"])

    def test_a_consumer_that_raises(self) -> None:
        def full(data: bytes) -> None:
            raise ZeroDivisionError

        body, consumer = self.body(), Consumer(full)
        body.feed(b"x")
        body.feed(b"y")
        done = body.startProducing(consumer)
        self.failureResultOf(done, ZeroDivisionError)
        body.feed(b"z")
        body.end()
        self.assertEqual(consumer.got, [b"x"])
        self.assertTrue(self.source.reading)

    def test_the_client_goes_away(self) -> None:
        body, consumer = self.body(10), Consumer()
        done = body.startProducing(consumer)
        body.feed(b"x")
        self.lose(body)
        error = self.failureResultOf(done, BodyAborted)
        self.assertIn("the client went away", error.getErrorMessage())
        self.assertEqual(consumer.got, [b"x"])

    def test_what_had_come_is_delivered_when_the_client_goes_away(self) -> None:
        """An upload goes on from there, however far behind its consumer was."""
        body, consumer = self.body(10), Consumer()
        done = body.startProducing(consumer)
        body.pauseProducing()
        body.feed(b"x")
        body.feed(b"y")
        self.lose(body)
        self.failureResultOf(done, BodyAborted)
        self.assertEqual(consumer.got, [b"x", b"y"])

    def test_what_had_come_is_delivered_to_one_who_starts_too_late(self) -> None:
        body, consumer = self.body(10), Consumer()
        body.feed(b"x")
        self.lose(body)
        error = self.failureResultOf(body.startProducing(consumer), BodyAborted)
        self.assertIn("the client went away", error.getErrorMessage())
        self.assertEqual((consumer.got, self.starts), ([b"x"], 0))

    def test_a_client_that_goes_away_after_the_end(self) -> None:
        body, consumer = self.body(1), Consumer()
        body.feed(b"x")
        body.end()
        self.lose(body)
        self.successResultOf(body.startProducing(consumer))
        self.assertEqual(consumer.got, [b"x"])

    def test_discarded(self) -> None:
        body = self.body()
        body.feed(b"x" * 100)
        body.discard()
        self.assertTrue(self.source.reading)
        self.assertFalse(body.paused)
        body.feed(b"y" * 100)
        self.assertTrue(self.source.reading)
        self.assertEqual(body.received, 200)
        body.end()

    @given(st.lists(st.one_of(st.binary(min_size=1, max_size=3), st.sampled_from(["start", "pause", "resume", "read"])), max_size=30))
    def test_any_order(self, steps: list[bytes | str]) -> None:
        """Whatever the order of events, the consumer gets each byte once and in order, and never while it has paused."""
        body = self.body()
        paused = False

        def check(data: bytes) -> None:
            self.assertFalse(paused)

        consumer, sent, done = Consumer(check), b"", None
        for step in steps:
            if isinstance(step, bytes):
                sent += step
                body.feed(step)
            elif step == "start" and done is None:
                done = body.startProducing(consumer)
            elif step == "pause" and done is not None:
                paused = True
                body.pauseProducing()
            elif step == "resume" and done is not None:
                paused = False
                body.resumeProducing()
            elif step == "read":
                self.source.resumeProducing()
        body.end()
        done = done or body.startProducing(consumer)
        if paused:
            self.assertNoResult(done)
            paused = False
            body.resumeProducing()
        self.successResultOf(done)
        self.assertEqual(b"".join(consumer.got), sent)


class CollectTests(BodyCase):
    def collecting(self, body: RequestBody, limit: int) -> Deferred[bytes]:
        return Deferred.fromCoroutine(collect(body, limit))

    def test_up_to_the_limit(self) -> None:
        body = self.body(4)
        done = self.collecting(body, 4)
        body.feed(b"ab")
        body.feed(b"cd")
        body.end()
        self.assertEqual(self.successResultOf(done), b"abcd")

    def test_too_large_by_its_length(self) -> None:
        """Nobody asks for the body then."""
        self.failureResultOf(self.collecting(self.body(5), 4), BodyTooLarge)
        self.assertEqual(self.starts, 0)

    def test_too_large_as_it_comes(self) -> None:
        body = self.body(None)
        done = self.collecting(body, 4)
        body.feed(b"abcd")
        self.assertNoResult(done)
        body.feed(b"e")
        self.failureResultOf(done, BodyTooLarge)

    def test_broken_off(self) -> None:
        body = self.body(5)
        done = self.collecting(body, 5)
        body.feed(b"abcd")
        self.lose(body)
        self.failureResultOf(done, BodyAborted)
