"""One fetch for all processes on a machine, whichever of them dies."""

from __future__ import annotations

from regd.errors import BadGateway, BlobUnknown, Denied
from regd.names import Digest, RepositoryName
from regd.proxy.cache.place import Place
from regd.proxy.remote import errors as remote
from regd.storage import layout
from regd.storage.driver import Busy
from tests.proxy.cache.case import LOCAL, NAME, OTHER, Client, FetchCase, Process, chunked


class ProcessesTest(FetchCase):
    def test_others_follow(self) -> None:
        digest, content = self.offer()
        others = [self.start() for _ in range(3)]
        first = self.get(digest)
        followers = [self.get(digest, process) for process in others for _ in range(4)]
        self.feed(1000)
        for client in (first, *followers):
            self.assertEqual(bytes(client.got), content[:1000])
        while self.remote.bodies:
            self.remote.body.feed(33_000)
            self.pass_time(0.02)
        self.pass_time(0.1)
        for client in (first, *followers):
            self.assert_got(client, content)
        self.assertEqual(len(self.remote.asked), 1)
        self.assertEqual([process.blobs.variables()["followed_blobs"] for process in self.processes], [0, 1, 1, 1])
        self.assert_nothing_open()

    def test_others_follow_what_has_no_length_and_what_is_small(self) -> None:
        other = self.start()
        for size in (500, 100_000):
            digest, content = self.offer(size)
            self.remote.answering = chunked
            clients = [self.get(digest), self.get(digest, other)]
            self.pass_time(3, 0.01)
            self.remote.body.finish()
            self.pass_time(0.2)
            for client in clients:
                self.assert_got(client, content)
        self.assertEqual(len(self.remote.asked), 2)
        self.assert_nothing_open()

    def test_who_fetches_dies(self) -> None:
        for died_at in (0, 1, 50_000, 99_999):
            dying, other = self.start(), self.start()
            digest, content = self.offer()
            self.get(digest, dying)
            clients = [self.get(digest, other) for _ in range(3)]
            body = self.remote.body
            if died_at:
                body.feed(died_at)
            self.pass_time(0.1)
            self.kill(dying)
            self.pass_time(1, 0.01)
            self.assertEqual((self.remote.gets[-1].start, self.remote.gets[-1].end), (died_at, None))
            self.finish()
            for client in clients:
                self.assert_got(client, content)
            self.assertEqual(other.blobs.variables()["fetched_blobs"], 1)
            self.assert_nothing_open()

    def test_who_fetches_dies_when_all_of_it_has_come(self) -> None:
        digest, content = self.offer()
        dying, other = self.start(), self.start()
        self.get(digest, dying)
        client = self.get(digest, other)
        self.pass_time()
        closed = self.result(self.process.driver.lock(layout.gate()))
        self.remote.body.finish()
        self.pass_time(1, 0.01)
        self.assertEqual(bytes(client.got), content[:-1])
        # It waits at the gate.
        for fetch in dying.blobs._fetches.values():
            self.assertIsNone(fetch._download)
        self.kill(dying)
        closed.close()
        self.pass_time(2, 0.01)
        self.assert_got(client, content)
        self.assertEqual(len(self.remote.asked), 1)
        self.assertEqual(self.stored(digest), content)

    def test_several_may_take_over_and_one_does(self) -> None:
        digest, content = self.offer()
        dying = self.start()
        self.get(digest, dying)
        others = [self.start() for _ in range(4)]
        clients = [self.get(digest, process) for process in others]
        body = self.remote.body
        body.feed(1000)
        self.pass_time()
        self.kill(dying)
        self.pass_time(1, 0.01)
        self.assertEqual(len(self.remote.gets), 2)
        self.remote.body.finish()
        self.pass_time(0.2)
        for client in clients:
            self.assert_got(client, content)
        self.assertEqual(len(self.remote.gets), 2)
        self.assert_nothing_open()

    def test_all_die_one_after_the_other(self) -> None:
        digest, content = self.offer()
        last = self.get(digest, self.process)
        self.feed(1)
        processes = [self.start() for _ in range(3)]
        clients = [self.get(digest, process) for process in processes]
        self.pass_time()
        self.kill(self.process)
        for number in range(3):
            self.pass_time(1, 0.01)
            (fetching,) = [process for process in processes if not process.dead and process.blobs._fetches and self.fetches(process)]
            self.feed(10_000)
            self.assertEqual(len(self.fetched_by_anyone(digest)), 10_000 * (number + 1) + 1)
            self.kill(fetching)
        self.assertTrue(all(process.dead for process in processes))
        self.assertFalse(any(client.done for client in (*clients, last)))
        # Nothing is stuck.
        self.process = self.start()
        client = self.get(digest)
        self.assertEqual(self.remote.gets[-1].start, 30_001)
        self.finish()
        self.assert_got(client, content)

    def fetches(self, process: object) -> bool:
        return any(fetch._download is not None for fetch in process.blobs._fetches.values())  # type: ignore[attr-defined]  # one of ours

    def fetched_by_anyone(self, digest: Digest) -> bytes:
        with open(f"{self.root}/{layout.fetching(digest)}", "rb") as file:
            return file.read()

    def test_who_fetches_stops(self) -> None:
        """As when a daemon gives its workers another configuration: what it has begun goes on elsewhere."""
        digest, content = self.offer()
        stopping, other = self.start(), self.start()
        cut = self.get(digest, stopping)
        client = self.get(digest, other)
        self.feed(1000)
        self.end(stopping)
        self.assertTrue(cut.cut)
        self.pass_time(1, 0.01)
        self.assertEqual(self.remote.gets[-1].start, 1000)
        self.finish()
        self.assert_got(client, content)

    def test_an_upstream_that_is_slow_is_not_taken_for_a_death(self) -> None:
        digest, content = self.offer()
        other = self.start()
        clients = [self.get(digest), self.get(digest, other)]
        for _ in range(5):
            self.remote.body.feed(100)
            self.pass_time(5, 0.01)
        self.remote.body.finish()
        self.pass_time(0.5)
        for client in clients:
            self.assert_got(client, content)
        self.assertEqual(len(self.remote.asked), 1)

    def test_an_upstream_that_does_not_answer_for_long(self) -> None:
        digest, content = self.offer()
        self.remote.held = []
        clients = [self.get(digest), self.get(digest, self.start())]
        self.pass_time(30, 0.02)
        self.remote.release()
        self.remote.body.finish()
        self.pass_time(0.5)
        for client in clients:
            self.assert_got(client, content)
        self.assertEqual(len(self.remote.asked), 1)

    def test_each_process_has_a_clear_answer(self) -> None:
        for error, told in ((remote.NotThere("no"), BlobUnknown), (remote.Unreachable("down"), BadGateway)):
            digest, _ = self.offer()
            self.remote.errors.extend([error, error])
            self.remote.held = []
            clients = [self.get(digest), self.get(digest, self.start())]
            self.pass_time()
            self.remote.release()
            self.pass_time(1, 0.01)
            for client in clients:
                self.assertIs(type(client.refused), told)
            self.assertIsNone(self.fetched(digest))
            self.assert_nothing_open()

    def test_what_is_wrong_is_given_to_nobody_whole(self) -> None:
        digest, content = self.offer()
        self.remote.blobs[digest] = bytes(len(content))
        others = [self.start() for _ in range(2)]
        clients = [self.get(digest), *(self.get(digest, process) for process in others)]
        self.feed(50_000)
        self.remote.body.finish()
        # Somebody fetches it again at once, and it is right now.
        self.remote.blobs[digest] = content
        again = self.get(digest)
        self.pass_time(0.001)
        if self.remote.bodies:
            self.remote.body.finish()
        self.pass_time(1, 0.01)
        for client in clients:
            self.assertTrue(client.cut or client.refused is not None)
            self.assertLess(len(client.got), len(content))
        if again.refused is None and not again.cut:
            self.assert_got(again, content)
        self.assert_nothing_open()

    def sleep_over(self) -> tuple[Digest, bytes, Process, Client]:
        """
        A blob that turns out to be wrong, and is thrown away, between two looks of a process that follows.

        :return: the blob, as its upstream has it from now on, that process, which sleeps, and its client.
        """
        digest, content = self.offer()
        self.remote.blobs[digest] = bytes(len(content))
        sleeper = self.start()
        self.get(digest)
        client = self.get(digest, sleeper)
        self.feed(60_000)
        self.assertEqual(bytes(client.got), bytes(60_000))
        self.remote.body.finish()
        sleeper.dead = True
        self.pass_time()
        self.remote.blobs[digest] = content
        return digest, content, sleeper, client

    def test_it_is_fetched_anew_behind_a_followers_back(self) -> None:
        """Wrong, thrown away, fetched again and committed, all between two looks."""
        digest, content, sleeper, client = self.sleep_over()
        self.assert_fetched(digest, content)
        sleeper.dead = False
        self.pass_time(1, 0.01)
        self.assertTrue(client.cut)
        self.assertLess(len(client.got), len(content))
        self.assert_nothing_open()

    def test_it_is_being_fetched_anew_behind_a_followers_back(self) -> None:
        digest, content, sleeper, client = self.sleep_over()
        again = self.get(digest)
        self.feed(10)
        self.kill(self.process)
        sleeper.dead = False
        self.pass_time(1, 0.01)
        self.assertTrue(client.cut)
        self.assertFalse(again.done)
        self.process = sleeper
        self.assert_fetched(digest, content)

    def test_somebody_pushes_it_while_another_follows(self) -> None:
        digest, content = self.offer()
        other = self.start()
        clients = [self.get(digest), self.get(digest, other)]
        self.feed(50_000)
        self.push(LOCAL, content)
        self.remote.body.finish()
        self.pass_time(1, 0.01)
        for client in clients:
            self.assert_got(client, content)
        self.assert_nothing_open()

    def test_another_repository_follows_when_its_upstream_has_it(self) -> None:
        digest, content = self.offer()
        first = self.get(digest)
        self.feed(1000)
        other = self.start()
        client = self.get(digest, other, OTHER)
        self.pass_time()
        self.assertEqual([request.method for request in self.remote.asked], ["GET", "HEAD"])
        self.assertEqual(bytes(client.got), content[:1000])
        third = self.start()
        self.remote.errors.append(remote.Denied("no"))
        refused = self.get(digest, third, RepositoryName.parse("docker.io/library/secret"))
        self.pass_time()
        self.assertIsInstance(refused.refused, Denied)
        self.remote.body.finish()
        self.pass_time(0.2)
        for one in (first, client):
            self.assert_got(one, content)
        self.assertTrue(self.linked(NAME, digest))
        self.assertTrue(self.linked(OTHER, digest))
        self.assert_nothing_open()

    def test_one_who_follows_for_nobody_ends(self) -> None:
        digest, content = self.offer()
        other = self.start()
        first, client = self.get(digest), self.get(digest, other)
        self.feed(1000)
        self.leave(client)
        self.pass_time()
        self.assertEqual(other.blobs._fetches, {})
        self.finish()
        self.assert_got(first, content)
        self.assert_nothing_open()

    def test_turns(self) -> None:
        """Whoever makes or removes the file of a fetch does it alone, and who waits in vain says so."""
        digest, content = self.offer()
        turn = self.result(self.process.driver.lock(layout.fetch_turn(digest)))
        client = self.get(digest)
        self.pass_time(1, 0.01)
        self.assertEqual(self.remote.asked, [])
        turn.close()
        self.pass_time()
        self.finish()
        self.assert_got(client, content)
        digest, content = self.offer()
        turn = self.result(self.process.driver.lock(layout.fetch_turn(digest)))
        client = self.get(digest)
        self.pass_time(40, 0.02)
        self.assertIsNotNone(client.refused)
        turn.close()

    def test_many_processes_take_it_at_once(self) -> None:
        digest, _ = self.offer()
        taken = []
        for process in [self.start() for _ in range(5)]:

            async def pause(seconds: float) -> None:
                raise AssertionError("nobody has to wait")

            place = Place(process.driver, process.registry.blobs, digest, process.clock, pause)
            taken.append(self.result(place.take()))
        self.assertEqual(len([one for one in taken if one is not None]), 1)
        with self.assertRaises(Busy):
            self.result(self.process.driver.append(layout.fetching(digest)))
        taken[0].close()  # type: ignore[union-attr]  # the first one has it
