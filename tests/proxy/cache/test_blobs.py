"""Blobs that are not here: fetched once, given out as they come, kept when they are right."""

from __future__ import annotations

import os

from twisted.internet.defer import Deferred

from regd.errors import BadGateway, BlobUnknown, Denied, GatewayTimeout, TooManyRequests, Unavailable
from regd.names import Digest, RepositoryName
from regd.proxy.cache.download import _TRIES
from regd.proxy.remote import errors as remote
from regd.storage import layout
from regd.storage.driver import Full, StorageError
from tests.proxy.cache.case import LOCAL, NAME, OTHER, FetchCase, chunked, in_part, whole


class FetchTest(FetchCase):
    def test_the_first_bytes_go_out_while_the_rest_is_to_come(self) -> None:
        digest, content = self.offer()
        client = self.get(digest)
        self.feed(1000)
        self.assertEqual(bytes(client.got), content[:1000])
        self.assertEqual(client.size, len(content))
        self.feed(50_000)
        self.assertEqual(bytes(client.got), content[:51_000])
        self.assertIsNone(self.stored(digest))
        self.finish()
        self.assert_got(client, content)
        self.assertEqual(self.stored(digest), content)
        self.assertTrue(self.linked(NAME, digest))
        self.assertTrue(self.marked(NAME, digest))
        self.assertIsNone(self.fetched(digest))
        self.assert_nothing_open()
        self.assertEqual([(request.method, request.start, request.end) for request in self.remote.asked], [("GET", 0, None)])

    def test_what_is_here_is_not_asked_for(self) -> None:
        digest, content = self.offer()
        for size in (100, 100_000):
            digest, content = self.offer(size)
            first = self.get(digest)
            self.finish()
            self.assert_got(first, content)
            self.remote.asked.clear()
            self.assert_got(self.get(digest), content)
            self.assert_got(self.get(digest, self.start()), content)
            self.assert_got(self.get(digest, start=10, end=20), content[10:20])
            self.assertEqual(self.result(self.process.blobs.stat(NAME, digest)).size, size)
            self.assertEqual(self.remote.asked, [])

    def test_many_clients_make_one_fetch(self) -> None:
        digest, content = self.offer(300_000)
        fast = [self.get(digest) for _ in range(10)]
        slow = [self.get(digest, allowance=1000 * number) for number in range(10)]
        while self.remote.bodies:
            self.feed(70_000)
        late = self.get(digest)
        for client in (*fast, late):
            self.assert_got(client, content)
        # Those that read slowly held up nobody.
        for number, client in enumerate(slow):
            self.assertEqual(bytes(client.got), content[: max(1000 * number, 0)])
            client.allowance = None
        self.pass_time()
        for client in slow:
            self.assert_got(client, content)
        self.assertEqual(len(self.remote.asked), 1)
        self.assert_nothing_open()

    def test_who_comes_in_the_midst_gets_all_of_it(self) -> None:
        digest, content = self.offer()
        clients = [self.get(digest)]
        while self.remote.bodies:
            self.remote.body.feed(9_999)
            self.pass_time(0.01)
            clients.append(self.get(digest))
        self.pass_time()
        for client in clients:
            self.assert_got(client, content)
        self.assertEqual(len(self.remote.asked), 1)

    def test_a_client_that_leaves_stops_nothing(self) -> None:
        digest, content = self.offer()
        clients = [self.get(digest) for _ in range(3)]
        self.feed(10_000)
        for client in clients:
            self.leave(client)
        self.pass_time()
        self.assertFalse(self.remote.body.closed)
        self.finish()
        self.assertEqual(self.stored(digest), content)
        self.assert_nothing_open()

    def test_clients_that_leave_before_the_first_byte(self) -> None:
        digest, content = self.offer()
        self.remote.held = []
        clients = [self.get(digest), self.get(digest)]
        self.leave(clients[0])
        self.remote.release()
        self.leave(clients[1])
        self.finish()
        self.assertEqual(self.stored(digest), content)
        self.assert_nothing_open()

    def test_the_last_byte_waits_until_all_is_found_right(self) -> None:
        digest, content = self.offer()
        self.remote.blobs[digest] = content[:-1] + bytes([content[-1] ^ 1])
        clients = [self.get(digest) for _ in range(3)]
        self.feed(len(content) - 1)
        self.finish()
        for client in clients:
            self.assertTrue(client.cut)
            self.assertLess(len(client.got), len(content))
        self.assert_nothing_kept(digest)
        # It is not remembered against anybody.
        self.remote.blobs[digest] = content
        self.assert_fetched(digest, content)

    def test_a_small_blob_is_given_out_when_it_is_whole(self) -> None:
        for size in (0, 1, 2000, 32 * 1024):
            digest, content = self.offer(size)
            clients = [self.get(digest) for _ in range(3)]
            if size:
                self.feed(size // 2)
                self.assertFalse(clients[0].done)
                self.remote.body.finish()
            self.pass_time()
            for client in clients:
                self.assert_got(client, content)
        self.assertEqual(len(self.remote.asked), 4)
        self.assert_nothing_open()

    def test_a_small_blob_that_is_wrong_is_a_clear_answer(self) -> None:
        digest, _content = self.offer(1000)
        self.remote.blobs[digest] = bytes(1000)
        clients = [self.get(digest) for _ in range(3)]
        self.finish()
        for client in clients:
            self.assertIsInstance(client.refused, BadGateway)
        self.assert_nothing_kept(digest)

    def test_a_blob_of_unknown_length_is_given_out_when_it_is_whole(self) -> None:
        digest, content = self.offer()
        self.remote.answering = chunked
        clients = [self.get(digest), self.get(digest)]
        self.feed(50_000)
        self.assertFalse(clients[0].done)
        self.finish()
        for client in clients:
            self.assert_got(client, content)
        self.assertEqual(len(self.remote.asked), 1)
        self.assert_nothing_open()

    def test_both_algorithms(self) -> None:
        digest, content = self.offer(algorithm="sha512")
        self.assert_fetched(digest, content)
        self.assertEqual(self.stored(digest), content)

    def test_what_the_upstream_says_is_what_the_client_is_told(self) -> None:
        for error, told in (
            (remote.NotThere("no"), BlobUnknown),
            (remote.Denied("no"), Denied),
            (remote.Limited("later", 7.0), TooManyRequests),
            (remote.Unreachable("gone"), BadGateway),
            (remote.Unreachable("slow", late=True), GatewayTimeout),
            (remote.Wrong("other"), BadGateway),
        ):
            digest, _ = self.offer()
            self.remote.held = []
            self.remote.errors.append(error)
            clients = [self.get(digest) for _ in range(3)]
            asked = len(self.remote.asked)
            self.remote.release()
            self.pass_time()
            for client in clients:
                self.assertIs(type(client.refused), told)
            self.assertEqual(len(self.remote.asked), asked)
            self.assertIsNone(self.fetched(digest))
            self.assert_nothing_open()
        self.assertEqual(self.process.blobs.variables()["failed_fetches"], 5)

    def test_head_costs_no_download(self) -> None:
        digest, content = self.offer()
        for look in (self.process.blobs.stat, self.process.blobs.promise):
            self.assertEqual(self.result(look(NAME, digest)).size, len(content))
        self.assertEqual(self.remote.gets, [])
        self.assertIsNone(self.stored(digest))
        with self.assertRaises(BlobUnknown):
            self.result(self.process.blobs.stat(NAME, Digest.of(b"nothing")))

    def test_heads_at_once_are_one(self) -> None:
        digest, content = self.offer()
        self.remote.held = []
        looks = [self.process.blobs.stat(NAME, digest) for _ in range(5)]
        running = [Deferred.fromCoroutine(look) for look in looks]
        self.remote.release()
        self.assertEqual([self.successResultOf(one).size for one in running], [len(content)] * 5)
        self.assertEqual(len(self.remote.asked), 1)

    def test_head_of_what_is_being_fetched(self) -> None:
        digest, content = self.offer()
        client = self.get(digest)
        self.remote.body.feed(1)
        self.assertEqual(self.result(self.process.blobs.stat(NAME, digest)).size, len(content))
        self.assertEqual(len(self.remote.asked), 1)
        self.finish()
        self.assert_got(client, content)

    def test_head_where_the_upstream_does_not_say_how_long(self) -> None:
        digest, content = self.offer()
        self.remote.says_size = False
        self.remote.answering = chunked
        looking = Deferred.fromCoroutine(self.process.blobs.stat(NAME, digest))
        self.pass_time()
        self.finish()
        self.assertEqual(self.successResultOf(looking).size, len(content))

    def test_local_repositories_are_left_alone(self) -> None:
        digest = self.push(LOCAL, b"local" * 20_000)
        self.assert_got(self.get(digest, name=LOCAL), b"local" * 20_000)
        self.assert_got(self.get(digest, name=LOCAL, start=5, end=15), b"local" * 2)
        self.assertEqual(self.result(self.process.blobs.stat(LOCAL, digest)).size, 100_000)
        self.assertEqual(self.result(self.process.blobs.promise(LOCAL, digest)).size, 100_000)
        other, _ = self.offer()
        for work in (self.process.blobs.stat, self.process.blobs.promise, self.process.blobs.fetch):
            with self.assertRaises(BlobUnknown):
                self.result(work(LOCAL, other))
        self.assertIsInstance(self.get(other, name=LOCAL, start=1, end=2).refused, BlobUnknown)
        self.assertEqual(self.remote.asked, [])

    def test_bytes_that_others_hold_are_given_only_where_the_upstream_has_them(self) -> None:
        content = os.urandom(100_000)
        digest = self.push(LOCAL, content)
        client = self.get(digest)
        self.assertIsInstance(client.refused, BlobUnknown)
        self.assertFalse(self.linked(NAME, digest))
        self.remote.blobs[digest] = content
        self.remote.asked.clear()
        self.assert_got(self.get(digest), content)
        self.assertEqual([request.method for request in self.remote.asked], ["HEAD"])
        self.assertTrue(self.linked(NAME, digest))
        self.assertTrue(self.marked(NAME, digest))
        self.remote.errors.append(remote.Denied("no"))
        self.assertIsInstance(self.get(digest, name=OTHER).refused, Denied)

    def test_a_fetch_is_joined_by_other_repositories_whose_upstream_has_it(self) -> None:
        digest, content = self.offer()
        first = self.get(digest)
        self.feed(1000)
        second = self.get(digest, name=OTHER)
        self.remote.errors.append(remote.Denied("no"))
        third = self.get(digest, name=RepositoryName.parse("docker.io/library/secret"))
        self.assertIsInstance(third.refused, Denied)
        self.finish()
        for client in (first, second):
            self.assert_got(client, content)
        self.assertEqual(len(self.remote.gets), 1)
        self.assertTrue(self.linked(OTHER, digest))
        self.assertTrue(self.marked(OTHER, digest))
        self.assertFalse(self.linked(RepositoryName.parse("docker.io/library/secret"), digest))

    def test_another_upstream_that_has_it_is_asked_when_the_first_does_not_give_it(self) -> None:
        digest, content = self.offer(remote=self.second)
        self.remote.blobs[digest] = content
        self.remote.held = []
        self.remote.errors.append(remote.Denied("no"))
        first = self.get(digest)
        second = self.get(digest, name=RepositoryName.parse("quay.io/alpine"))
        self.pass_time()
        self.remote.release()
        self.pass_time()
        self.assertIsInstance(first.refused, Denied)
        self.second.body.finish()
        self.pass_time()
        self.assert_got(second, content)

    def test_a_blob_that_is_evicted_is_fetched_again(self) -> None:
        digest, content = self.offer()
        for number in range(2):
            self.assert_fetched(digest, content)
            self.result(self.process.driver.delete(layout.blob_data(digest)))
            self.assertEqual(len(self.remote.asked), number + 1)

    def test_who_reads_keeps_reading_when_it_is_evicted(self) -> None:
        digest, content = self.offer()
        client = self.get(digest, allowance=1000)
        self.finish()
        self.result(self.process.driver.delete(layout.blob_data(digest)))
        client.allowance = None
        self.pass_time()
        self.assert_got(client, content)
        self.assert_nothing_open()

    # What an upstream may do

    def test_it_breaks_off_anywhere_and_goes_on_from_there(self) -> None:
        digest, content = self.offer(40_000)
        for offset in (0, 1, 2, 100, 19_999, 32_767, 32_768, 39_998, 39_999):
            for answering in (None, whole):
                self.remote.asked.clear()
                client = self.get(digest)
                body = self.remote.body
                if offset:
                    body.feed(offset)
                if answering is not None:
                    self.remote.answering = answering
                body.fail()
                self.pass_time(0.5)
                self.assertEqual([(request.start, request.end) for request in self.remote.gets], [(0, None), (offset, None)])
                self.assertFalse(client.done)
                self.finish()
                self.assert_got(client, content)
                self.assert_nothing_open()
                self.assertEqual(self.stored(digest), content)
                self.result(self.process.driver.delete(layout.blob_data(digest)))
                self.remote.answering = in_part

    def test_it_ends_early_without_saying_so(self) -> None:
        digest, content = self.offer()
        self.remote.answering = lambda content, start, end: (start, len(content), content[start : start + 40_000])
        client = self.get(digest)
        for _ in range(3):
            self.remote.body.finish()
            self.pass_time(0.5)
        self.assert_got(client, content)
        self.assertEqual([request.start for request in self.remote.gets], [0, 40_000, 80_000])

    def test_it_breaks_off_too_often(self) -> None:
        digest, content = self.offer()
        clients = [self.get(digest), self.get(digest)]
        self.remote.body.feed(30_000)
        for number in range(_TRIES):
            self.assertEqual(len(self.remote.gets), number + 1)
            self.remote.body.fail()
            self.pass_time(10, 0.05)
        for client in clients:
            self.assertTrue(client.cut)
            self.assertEqual(bytes(client.got), content[:30_000])
        # What has come stays for the next one, in whichever process.
        self.assertEqual(self.fetched(digest), content[:30_000])
        self.assertFalse(self.is_held(digest))
        self.assert_nothing_open()
        again = self.get(digest, self.start())
        self.assertEqual(self.remote.gets[-1].start, 30_000)
        self.finish()
        self.assert_got(again, content)

    def test_it_breaks_off_before_the_first_byte_too_often(self) -> None:
        digest, _ = self.offer()
        client = self.get(digest)
        for _ in range(_TRIES):
            self.remote.body.fail()
            self.pass_time(10, 0.05)
        self.assertIsInstance(client.refused, BadGateway)
        self.assertIsNone(self.fetched(digest))
        self.assert_nothing_open()

    def test_it_wants_to_be_left_alone_for_a_moment(self) -> None:
        digest, content = self.offer()
        client = self.get(digest)
        self.remote.errors.append(remote.Limited("later", 5.0))
        self.remote.body.feed(1000)
        self.remote.body.fail()
        self.pass_time(1, 0.05)
        self.assertEqual(len(self.remote.gets), 2)
        self.pass_time(4, 0.05)
        self.assertEqual(len(self.remote.gets), 2)
        self.pass_time(1, 0.05)
        self.finish()
        self.assert_got(client, content)

    def test_it_wants_to_be_left_alone_for_long(self) -> None:
        digest, content = self.offer()
        client = self.get(digest)
        self.remote.errors.append(remote.Limited("later", 600.0))
        self.remote.body.feed(1000)
        self.remote.body.fail()
        self.pass_time(1, 0.05)
        self.assertTrue(client.cut)
        self.assertEqual(self.fetched(digest), content[:1000])
        self.assert_nothing_open()

    def test_it_has_another_blob_when_it_is_asked_for_the_rest(self) -> None:
        digest, content = self.offer()
        for other in (content + b"x", content[:-1], content[:500]):
            client = self.get(digest)
            self.remote.body.feed(1000)
            self.remote.blobs[digest] = other
            self.remote.body.fail()
            self.pass_time(1, 0.05)
            self.assertTrue(client.cut)
            self.assert_nothing_kept(digest)
            self.remote.blobs[digest] = content

    def test_it_sends_another_part_than_it_was_asked_for(self) -> None:
        digest, content = self.offer()
        client = self.get(digest)
        self.remote.body.feed(1000)
        self.remote.answering = lambda content, start, end: (start - 10, len(content), content[start - 10 :])
        self.remote.body.fail()
        self.pass_time(1, 0.05)
        self.finish()
        self.assert_got(client, content)

        digest, content = self.offer()
        self.remote.answering = lambda content, start, end: (start + 10, len(content), content[start + 10 :])
        client = self.get(digest)
        self.pass_time()
        self.assertIsInstance(client.refused, BadGateway)
        self.assert_nothing_open()

    def test_it_sends_more_than_it_said(self) -> None:
        digest, content = self.offer()
        self.remote.answering = lambda content, start, end: (start, len(content), content[start:] + bytes(1 << 20))
        client = self.get(digest)
        self.feed(len(content) + 60_000)
        self.assertTrue(client.cut)
        self.assert_nothing_kept(digest)

    # What the storage may do

    def test_the_disk_is_full(self) -> None:
        digest, content = self.offer()
        client = self.get(digest)
        self.feed(1000)
        (fetch,) = self.process.blobs._fetches.values()
        assert fetch._download is not None

        def full(chunks: object) -> None:
            raise Full("no space left")

        fetch._download._appender._sink.write = full  # type: ignore[attr-defined]  # how a disk fails
        self.feed(60_000)
        self.assertTrue(client.cut)
        self.assertIsNone(self.fetched(digest))
        self.assert_nothing_open()
        self.assert_fetched(digest, content)

    def test_the_disk_fails_before_anything_is_there(self) -> None:
        digest, content = self.offer()
        driver = self.process.driver
        real = driver.append

        async def broken(*args: object, **kwargs: object) -> object:
            raise StorageError("cannot open")

        driver.append = broken
        self.assertIsInstance(self.get(digest).refused, StorageError)
        driver.append = real
        self.assert_nothing_open()
        self.assert_fetched(digest, content)

    def test_what_is_fetched_is_taken_away(self) -> None:
        digest, _content = self.offer()
        client = self.get(digest)
        self.feed(1000)
        self.result(self.process.driver.delete(layout.fetch(digest)))
        self.finish()
        self.assertTrue(client.cut)
        self.assertIsNone(self.stored(digest))
        self.assert_nothing_open()

    def test_somebody_pushes_it_meanwhile(self) -> None:
        digest, content = self.offer()
        client = self.get(digest)
        self.feed(1000)
        self.push(LOCAL, content)
        self.finish()
        self.assert_got(client, content)
        self.assertTrue(self.linked(NAME, digest))
        self.assertIsNone(self.fetched(digest))
        self.assert_nothing_open()

    def test_changes_have_to_wait_longer_than_a_change_waits(self) -> None:
        digest, content = self.offer()
        client = self.get(digest)
        closed = self.result(self.process.driver.lock(layout.gate()))
        self.remote.body.finish()
        self.pass_time(12, 0.05)
        self.assertFalse(client.done)
        closed.close()
        self.pass_time(2, 0.05)
        self.assert_got(client, content)

    # What is left of an earlier fetch

    def leave_behind(self, digest: Digest, content: bytes, announced: bytes | None = None) -> None:
        self.result(self.process.driver.write((layout.fetching(digest), content)))
        if announced is not None:
            self.result(self.process.driver.write((layout.fetch_size(digest), announced)))

    def test_an_earlier_fetch_is_gone_on_with(self) -> None:
        for announced in (None, b"100000\ndocker.io/library/alpine", b"rubbish", b"100001\nother"):
            digest, content = self.offer()
            self.leave_behind(digest, content[:33_333], announced)
            self.remote.held = []
            client = self.get(digest)
            self.assertEqual(self.remote.gets[-1].start, 33_333)
            # Whoever follows in another process waits for the upstream as well.
            other = self.get(digest, self.start())
            self.pass_time()
            self.assertEqual(client.got + other.got, b"")
            self.remote.release()
            self.finish()
            self.assert_got(client, content)
        self.assertEqual(self.process.blobs.variables()["resumed_fetches"], 4)

    def test_what_an_earlier_fetch_has_left_is_wrong(self) -> None:
        for size in (10, 99_999, 100_000, 100_001, 200_000):
            digest, content = self.offer()
            self.leave_behind(digest, bytes(size))
            self.remote.answering = whole
            client = self.get(digest)
            if self.remote.body.left:
                self.remote.body.finish()
            self.pass_time()
            if self.remote.bodies:
                self.finish()
            if client.cut:
                # It was read from the start, as far as it was there; the next one gets it.
                self.assertIsNone(self.fetched(digest))
                client = self.get(digest)
                self.finish()
            self.assert_got(client, content)
            self.assertEqual(self.stored(digest), content)

    def test_an_earlier_fetch_had_all_of_it(self) -> None:
        digest, content = self.offer()
        self.leave_behind(digest, content)
        client = self.get(digest)
        self.pass_time()
        self.assert_got(client, content)
        # Whether this repository's upstream has it is all that is asked.
        self.assertEqual([request.method for request in self.remote.asked], ["HEAD"])

    def test_the_upstream_is_down_when_an_earlier_fetch_is_gone_on_with(self) -> None:
        digest, content = self.offer()
        self.leave_behind(digest, content[:33_333])
        self.remote.errors.append(remote.Unreachable("down"))
        self.assertIsInstance(self.get(digest).refused, BadGateway)
        self.assertEqual(self.fetched(digest), content[:33_333])

    # The end

    def test_stopping_keeps_what_has_come(self) -> None:
        digest, content = self.offer()
        client = self.get(digest)
        self.feed(1000)
        self.process.blobs.stop()
        self.result(self.process.blobs.finish())
        self.pass_time()
        self.assertTrue(client.cut)
        self.assertEqual(self.fetched(digest), content[:1000])
        self.assertFalse(self.is_held(digest))
        self.assert_nothing_open()

    def test_stopping_before_the_upstream_has_answered(self) -> None:
        digest, _ = self.offer()
        self.remote.held = []
        client = self.get(digest)
        self.process.blobs.stop()
        self.remote.release()
        self.result(self.process.blobs.finish())
        self.assertIsInstance(client.refused, Unavailable)
        self.assertIsNone(self.fetched(digest))
        self.assert_nothing_open()

    def test_after_stopping_nothing_is_begun(self) -> None:
        digest, content = self.offer()
        clients = [self.get(digest), self.get(digest, name=OTHER)]
        self.process.blobs.stop()
        self.result(self.process.blobs.finish())
        for client in clients:
            self.assertIsInstance(client.refused, Unavailable)
        self.assertIsInstance(self.get(digest).refused, Unavailable)
        self.assertEqual(len(self.remote.gets), 1)
        self.assert_nothing_open()
        here = self.push(LOCAL, content)
        self.assert_got(self.get(here), content)

    def test_closing_lets_those_finish_who_wait(self) -> None:
        digest, content = self.offer()
        other, _ = self.offer()
        client, left = self.get(digest), self.get(other)
        for body in self.remote.bodies:
            body.feed(1000)
        self.pass_time()
        self.leave(left)
        self.process.blobs.close()
        self.pass_time()
        # Nobody waits for the other one.
        self.remote.body.finish()
        self.result(self.process.blobs.finish())
        self.assert_got(client, content)
        self.assertIsNone(self.stored(other))
        self.assert_nothing_open()

    # Parts

    def test_a_part_is_passed_on_and_not_kept(self) -> None:
        digest, content = self.offer()
        client = self.get(digest, start=50_000, end=60_000)
        self.assertEqual([(request.method, request.start, request.end) for request in self.remote.asked][-1], ("GET", 50_000, 60_000))
        self.remote.body.feed(1000)
        self.assertEqual(bytes(client.got), content[50_000:51_000])
        self.finish()
        self.assert_got(client, content[50_000:60_000])
        self.assert_nothing_kept(digest)

    def test_a_part_is_one_question_and_one_answer(self) -> None:
        digest, content = self.offer()
        for _ in range(2):
            self.remote.asked.clear()
            self.assertEqual(self.result(self.process.blobs.stat(NAME, digest)).size, len(content))
            client = self.get(digest, start=50_000, end=60_000)
            self.assertEqual([request.method for request in self.remote.asked], ["HEAD", "GET"])
            self.finish()
            self.assert_got(client, content[50_000:60_000])
        # One that was said to be longer than it is, or is said to be another now, is not given out.
        self.assertIsInstance(self.get(digest, start=99_000, end=100_001).refused, BadGateway)
        self.result(self.process.blobs.stat(NAME, digest))
        self.remote.blobs[digest] = content[:-1]
        self.assertIsInstance(self.get(digest, start=50_000, end=60_000).refused, BadGateway)
        self.assert_nothing_open()

    def test_a_part_is_read_from_a_fetch_that_has_come_so_far(self) -> None:
        digest, content = self.offer()
        client = self.get(digest)
        self.feed(60_000)
        part = self.get(digest, start=50_000, end=70_000)
        self.assertEqual(bytes(part.got), content[50_000:60_000])
        later = self.get(digest, start=80_000, end=90_000)
        self.assertEqual(len(self.remote.gets), 2)
        for body in self.remote.bodies:
            body.finish()
        self.pass_time()
        self.assert_got(client, content)
        self.assert_got(part, content[50_000:70_000])
        self.assert_got(later, content[80_000:90_000])
        self.assert_nothing_open()

    def test_a_part_that_is_all_of_it_is_kept(self) -> None:
        digest, content = self.offer()
        client = self.get(digest, start=0, end=len(content))
        self.finish()
        self.assert_got(client, content)
        self.assertEqual(self.stored(digest), content)

    def test_an_upstream_that_knows_no_parts(self) -> None:
        digest, content = self.offer(200_000)
        self.remote.answering = whole
        client = self.get(digest, start=150_000, end=160_000)
        self.pass_time()
        self.finish()
        self.assert_got(client, content[150_000:160_000])
        self.assertEqual(self.stored(digest), content)
        self.assert_nothing_open()

    def test_a_part_breaks_off(self) -> None:
        digest, content = self.offer()
        client = self.get(digest, start=50_000, end=60_000)
        self.remote.body.feed(1000)
        self.remote.body.fail()
        self.pass_time()
        self.assertEqual((self.remote.gets[-1].start, self.remote.gets[-1].end), (51_000, 60_000))
        self.finish()
        self.assert_got(client, content[50_000:60_000])
        client = self.get(digest, start=50_000, end=60_000)
        self.remote.body.feed(1000)
        self.remote.errors.extend([remote.Unreachable("gone")] * 5)
        self.remote.body.fail()
        self.pass_time()
        self.assertTrue(client.cut)
        self.assert_nothing_open()

    def test_a_part_that_the_upstream_does_not_give(self) -> None:
        digest, _ = self.offer()
        self.remote.errors.extend([None, remote.Denied("no")])
        self.assertIsInstance(self.get(digest, start=5, end=10).refused, Denied)
        self.remote.errors.append(remote.Unreachable("slow", late=True))
        self.assertIsInstance(self.get(digest, start=5, end=10).refused, GatewayTimeout)

    def test_a_client_that_leaves_in_the_midst_of_a_part(self) -> None:
        digest, _ = self.offer()
        client = self.get(digest, start=50_000, end=60_000)
        self.remote.body.feed(1000)
        self.leave(client)
        self.pass_time()
        self.assert_nothing_open()


class FetchInMemoryTest(FetchTest):
    """With the storage in memory."""

    on_disk = False
