"""Manifests and tags of an upstream: when it is asked, what is served meanwhile, and what stays."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from regd.errors import BadGateway, Denied, GatewayTimeout, ManifestUnknown, TooManyRequests
from regd.manifest import SCHEMA_1
from regd.names import Digest, Tag
from regd.proxy.cache.manifests import PATIENCE
from regd.proxy.remote import errors as remote
from regd.proxy.remote.values import RemoteManifest
from regd.storage import layout
from regd.storage.driver import Full, StorageError
from regd.storage.filesystem import FilesystemDriver
from regd.storage.threads import PoolThreads
from tests.proxy.cache.support import CACHED, STALE, TTL, CacheSuite
from tests.registry.case import CONFIG, OnFilesystem, OnMemory, image_manifest, index_manifest, name

ONE, TWO = image_manifest(b"one"), image_manifest(b"two")
DIGEST = Digest.of(ONE)

DOWN = remote.Unreachable("connection refused")
LATE = remote.Unreachable("it took too long", late=True)
LIMITED = remote.Limited("429", 17.2)
WRONG = remote.Wrong("another digest")
DENIED = remote.Denied("401")


class FreshnessSuite(CacheSuite):
    async def test_by_digest_once(self) -> None:
        self.remote.put(None, ONE)
        for _ in range(2):
            self.assertEqual(await self.pull(DIGEST), ONE)
        self.assertEqual(self.remote.methods(), [f"GET {DIGEST}"])
        self.assertTrue(await self.is_marked(DIGEST))
        # Also by another process, after a restart, however long ago that was, and with the upstream down.
        self.remote.failure, self.later = DOWN, 10 * STALE
        self.assertEqual(await self.pull(DIGEST, self.process()), ONE)
        self.assertEqual(self.remote.methods(), [])

    async def test_by_tag_at_first(self) -> None:
        self.remote.put("latest", ONE)
        self.assertEqual(await self.pull("latest"), ONE)
        self.assertEqual(self.remote.methods(), ["GET latest"])
        self.assertTrue(await self.is_marked(DIGEST))
        # Nothing is asked for what is known by now.
        self.assertEqual(await self.pull(DIGEST), ONE)
        self.assertEqual(self.remote.methods(), [])

    async def test_a_head_fetches_what_is_going_to_be_asked_for(self) -> None:
        self.remote.put("latest", ONE)
        self.assertEqual((await self.cache.promise(CACHED, Tag("latest"))).content, ONE)
        self.assertEqual(await self.pull("latest"), ONE)
        self.assertEqual((await self.cache.promise(CACHED, DIGEST)).content, ONE)
        self.assertEqual(self.remote.methods(), ["GET latest"])

    async def test_within_the_time_to_live(self) -> None:
        self.remote.put("latest", ONE)
        await self.pull("latest")
        self.remote.methods()
        self.remote.put("latest", TWO)
        await self.age("latest", TTL - 2)
        self.assertEqual(await self.pull("latest"), ONE)
        self.assertEqual(self.remote.methods(), [])
        await self.age("latest", TTL + 0.1)
        self.assertEqual(await self.pull("latest"), TWO)
        self.assertEqual(self.remote.methods(), ["HEAD latest", f"GET {Digest.of(TWO)}"])
        self.assertLess(await self.checked(), 5)
        # What it meant before is still there.
        self.assertEqual(await self.pull(DIGEST), ONE)
        self.assertEqual(self.remote.methods(), [])

    async def test_the_same_as_before(self) -> None:
        self.remote.put("latest", ONE)
        await self.pull("latest")
        await self.age("latest", TTL + 1)
        self.remote.methods()
        for _ in range(2):
            self.assertEqual(await self.pull("latest"), ONE)
        self.assertEqual(self.remote.methods(), ["HEAD latest"])
        self.assertLess(await self.checked(), 5)
        self.assertEqual(self.cache.variables(), {"hits": 1, "confirmed": 1, "fetched": 1, "stale": 0, "failed": 0, "asking": 0})

    async def test_a_restart_forgets_nothing(self) -> None:
        self.remote.put("latest", ONE)
        await self.pull("latest")
        await self.age("latest", TTL - 5)
        self.assertEqual(await self.pull("latest", self.process()), ONE)
        self.assertEqual(self.remote.methods(), ["GET latest"])

    async def test_a_clock_that_was_set_back(self) -> None:
        self.remote.put("latest", ONE)
        await self.pull("latest")
        self.remote.put("latest", TWO)
        await self.age("latest", -10 * TTL)
        self.assertEqual(await self.pull("latest"), TWO)
        self.assertLess(abs(await self.checked()), 5)

    async def test_an_upstream_that_says_no_digest(self) -> None:
        self.remote.put("latest", ONE)
        await self.pull("latest")
        await self.age("latest", TTL + 1)
        self.remote.methods()
        self.remote.silent = True
        self.assertEqual(await self.pull("latest"), ONE)
        self.assertEqual(self.remote.methods(), ["HEAD latest", "GET latest"])
        self.assertLess(await self.checked(), 5)

    async def test_a_tag_that_moves_on_while_it_is_asked_for(self) -> None:
        self.remote.put("latest", ONE)
        await self.pull("latest")
        await self.age("latest", TTL + 1)
        self.remote.put("latest", TWO)
        del self.remote.manifests[Digest.of(TWO)]
        self.assertEqual(await self.pull("latest"), TWO)
        self.assertEqual(self.remote.methods()[1:], ["HEAD latest", f"GET {Digest.of(TWO)}", "GET latest"])

    async def test_an_index_and_its_children(self) -> None:
        """In the order of a pull; nothing but what is asked for is fetched."""
        arm = image_manifest(b"arm")
        index = index_manifest(ONE, arm)
        self.remote.put("latest", index)
        self.remote.put(None, ONE)
        self.assertEqual(await self.pull("latest"), index)
        self.assertEqual(await self.pull(DIGEST), ONE)
        self.assertEqual(self.remote.methods(), ["GET latest", f"GET {DIGEST}"])
        # One that the upstream does not have either.
        await self.refused(ManifestUnknown, self.pull(Digest.of(arm)))
        self.assertEqual(await self.pull("latest"), index)

    async def test_local_repositories(self) -> None:
        local = name("team/app")
        await self.refused(ManifestUnknown, self.pull("latest", name=local))
        await self.push_image(local, "latest", b"one")
        self.assertEqual(await self.pull("latest", name=local), ONE)
        self.assertEqual((await self.cache.promise(local, Tag("latest"))).content, ONE)
        self.assertEqual(self.remote.methods(), [])
        self.assertFalse(await self.is_marked(DIGEST, local))

    async def test_sha512(self) -> None:
        digest = Digest.of(ONE, "sha512")
        self.remote.manifests[digest] = ONE
        self.patch(self.remote, "manifest", self.sha512)
        stored = await self.cache.get(CACHED, digest)
        self.assertEqual((stored.digest, stored.content), (digest, ONE))

    async def sha512(self, name: str, reference: Any) -> Any:
        return RemoteManifest(ONE, "", Digest.of(ONE, "sha512"))


class FailureSuite(CacheSuite):
    async def cached(self, age: float) -> None:
        """A tag that the upstream was asked for so long ago."""
        self.remote.put("latest", ONE)
        await self.pull("latest")
        await self.age("latest", age)
        self.remote.methods()

    async def test_what_is_not_here(self) -> None:
        for failure, kind in (
            (DOWN, BadGateway),
            (LATE, GatewayTimeout),
            (LIMITED, TooManyRequests),
            (WRONG, BadGateway),
            (DENIED, Denied),
            (remote.NotThere("404"), ManifestUnknown),
        ):
            self.remote.failure = failure
            for reference in ("latest", DIGEST):
                error = await self.refused(kind, self.pull(reference))
                if kind is not ManifestUnknown:
                    self.assertIn("https://hub.example", error.message)
                if kind is TooManyRequests:
                    self.assertEqual(error.headers, {"Retry-After": "18"})
        # None of it is remembered here.
        self.remote.failure = None
        self.remote.put("latest", ONE)
        self.assertEqual(await self.pull("latest"), ONE)

    async def test_stale(self) -> None:
        for failure in (DOWN, LATE, LIMITED, WRONG):
            self.remote.failure = None
            await self.cached(STALE - 10)
            self.remote.failure = failure
            self.assertEqual(await self.pull("latest"), ONE)
            # It is still what was last asked for then.
            self.assertGreater(await self.checked(), STALE - 11)
            self.assertEqual(self.remote.methods(), ["HEAD latest"])

    async def test_too_stale(self) -> None:
        for failure, kind in ((DOWN, BadGateway), (LATE, GatewayTimeout), (LIMITED, TooManyRequests), (WRONG, BadGateway)):
            self.remote.failure = None
            await self.cached(STALE + 1)
            self.remote.failure = failure
            await self.refused(kind, self.pull("latest"))
            # It has not gone for good.
            self.assertEqual(await self.pull(DIGEST), ONE)
        self.remote.failure = None
        self.assertEqual(await self.pull("latest"), ONE)

    async def test_one_that_rests_is_not_asked(self) -> None:
        await self.cached(TTL + 1)
        self.remote.resting = 5.0
        self.assertEqual(await self.pull("latest"), ONE)
        self.assertEqual(self.remote.methods(), [])
        await self.age("latest", STALE + 1)
        self.remote.failure = LIMITED
        await self.refused(TooManyRequests, self.pull("latest"))
        self.assertEqual(self.cache.variables()["stale"], 1)

    async def test_denied(self) -> None:
        """Also where it is here: it may have been made private."""
        await self.cached(TTL + 1)
        self.remote.failure = DENIED
        await self.refused(Denied, self.pull("latest"))

    async def test_gone(self) -> None:
        await self.cached(TTL + 1)
        self.remote.manifests.clear()
        await self.refused(ManifestUnknown, self.pull("latest"))
        self.assertFalse(await self.driver.exists(layout.tag_link(CACHED, Tag("latest"))))
        # Who knows the digest has what it is.
        self.assertEqual(await self.pull(DIGEST), ONE)
        await self.refused(ManifestUnknown, self.pull("latest"))
        self.assertEqual(self.remote.methods(), ["HEAD latest", "GET latest"])

    async def test_pushed_here_before(self) -> None:
        """When this was no cache."""
        await self.push_image(CACHED, "own", b"one")
        await self.age("own", TTL + 1)
        for _ in range(2):
            self.assertEqual(await self.pull("own"), ONE)
        self.assertEqual(self.remote.methods(), ["HEAD own"])
        self.assertFalse(await self.is_marked(DIGEST))
        await self.age("own", STALE + 1)
        self.assertEqual(await self.pull("own"), ONE)

    async def test_a_tag_whose_manifest_is_gone(self) -> None:
        await self.cached(5)
        await self.driver.delete(layout.blob_data(DIGEST))
        self.cache = self.process()
        self.assertEqual(await self.pull("latest"), ONE)
        self.assertEqual(self.remote.methods(), ["GET latest"])
        await self.driver.delete(layout.blob_data(DIGEST))
        self.cache = self.process()
        self.remote.failure = DOWN
        await self.refused(BadGateway, self.pull("latest"))
        self.remote.failure = None
        self.remote.manifests.clear()
        await self.refused(ManifestUnknown, self.pull("latest"))

    async def test_what_is_no_manifest(self) -> None:
        self.remote.put("latest", b"<html>welcome to the hotel's network</html>")
        await self.refused(BadGateway, self.pull("latest"))
        self.assertFalse(await self.driver.exists(layout.tag_link(CACHED, Tag("latest"))))
        await self.cached(TTL + 1)
        self.remote.manifests["latest"] = self.remote.manifests[DIGEST] = b"<html>welcome</html>"
        self.remote.silent = True
        self.assertEqual(await self.pull("latest"), ONE)

    async def test_a_manifest_of_the_old_kind(self) -> None:
        self.remote.put("latest", json.dumps({"schemaVersion": 1, "name": "x"}).encode())
        self.remote.media_types["latest"] = min(SCHEMA_1)
        error = await self.refused(ManifestUnknown, self.pull("latest"))
        self.assertIn("schema 1", error.message)

    async def test_a_storage_that_cannot_keep_it(self) -> None:
        """Pulls go on."""
        self.remote.put("latest", ONE)
        real = self.driver._driver.write

        async def write(*files: Any, durable: bool = True) -> None:
            raise Full("no space left")

        self.patch(self.driver._driver, "write", write)
        self.assertEqual(await self.pull("latest"), ONE)
        self.assertEqual(await self.pull(DIGEST), ONE)
        self.patch(self.driver._driver, "write", real)
        self.assertEqual(await self.pull("latest"), ONE)
        self.assertEqual(self.remote.methods(), ["GET latest", f"GET {DIGEST}", "GET latest"])

        async def renew(path: Any) -> None:
            raise StorageError("read-only")

        self.patch(self.driver._driver, "renew", renew)
        await self.age("latest", TTL + 1)
        self.assertEqual(await self.pull("latest"), ONE)


class SlowSuite(CacheSuite):
    async def slow(self, age: float = TTL + 1) -> None:
        """An upstream that does not answer, and has meanwhile another manifest than is here."""
        self.remote.put("latest", ONE)
        await self.pull("latest")
        await self.age("latest", age)
        self.remote.put("latest", TWO)
        self.remote.methods()
        self.remote.hold()

    async def test_stale_after_three_seconds(self) -> None:
        await self.slow()
        pulling = Deferred.fromCoroutine(self.pull("latest"))
        await self.begun()
        await self.wait(pulling, seconds=PATIENCE - 0.1)
        self.assertFalse(pulling.called)
        await self.wait(pulling, seconds=0.2)
        self.assertEqual(self.successResultOf(pulling), ONE)
        # Nobody else waits for what is known to take its time.
        self.assertEqual(await self.pull("latest"), ONE)
        self.assertEqual(self.remote.methods(), ["HEAD latest"])
        # The answer counts all the same.
        self.remote.answer()
        await self.settled()
        self.assertEqual(await self.pull("latest"), TWO)
        self.assertLess(await self.checked(), 5)
        self.assertEqual(self.remote.methods(), [f"GET {Digest.of(TWO)}"])
        self.assertEqual(self.cache.variables()["stale"], 2)

    async def test_a_failure_that_comes_late(self) -> None:
        await self.slow()
        pulling = Deferred.fromCoroutine(self.pull("latest"))
        await self.wait(pulling)
        self.assertEqual(self.successResultOf(pulling), ONE)
        self.remote.failure = LATE
        self.remote.answer()
        await self.settled()
        self.assertEqual(await self.pull("latest"), ONE)
        self.assertEqual(self.flushLoggedErrors(), [])

    async def test_who_has_nothing_else_waits(self) -> None:
        await self.slow(STALE + 1)
        pulling = [Deferred.fromCoroutine(self.pull(reference)) for reference in ("latest", Digest.of(TWO))]
        await self.wait(*pulling, seconds=30)
        self.assertFalse(any(one.called for one in pulling))
        self.remote.answer()
        await self.wait(*pulling)
        self.assertEqual([self.successResultOf(one) for one in pulling], [TWO, TWO])

    async def test_one_for_all_of_a_process(self) -> None:
        self.remote.put("latest", ONE)
        self.remote.hold()
        pulling = [Deferred.fromCoroutine(self.pull(reference)) for reference in ("latest", DIGEST) for _ in range(50)]
        pulling.append(Deferred.fromCoroutine(self.cache.promise(CACHED, Tag("latest"))).addCallback(lambda stored: stored.content))
        await self.wait(seconds=0.5)
        pulling[3].cancel()
        self.failureResultOf(pulling.pop(3))
        self.remote.answer()
        await self.wait(*pulling)
        self.assertEqual({self.successResultOf(one) for one in pulling}, {ONE})
        self.assertEqual(self.remote.methods(), ["GET latest", f"GET {DIGEST}"])

    async def begun(self) -> None:
        """Wait until somebody asks; no time passes."""
        while not self.cache.variables()["asking"]:
            await deferLater(reactor, 0.0005)

    async def settled(self) -> None:
        settling = Deferred.fromCoroutine(self.cache.settle())
        await self.wait(settling)
        self.successResultOf(settling)

    async def test_one_for_several_processes(self) -> None:
        caches = [self.cache, self.process(), self.process()]
        self.remote.put("latest", ONE)
        for age, expected in ((None, ["GET latest"]), (TTL + 1, ["HEAD latest"])):
            if age is not None:
                await self.age("latest", age)
            self.remote.hold()
            pulling = [Deferred.fromCoroutine(self.pull("latest", cache)) for cache in caches for _ in range(3)]
            await self.wait(seconds=0.5)
            self.remote.answer()
            await self.wait(*pulling)
            self.assertEqual({self.successResultOf(one) for one in pulling}, {ONE})
            self.assertEqual(self.remote.methods(), expected)

    async def test_who_has_waited_long_enough_asks_as_well(self) -> None:
        """A process that stands still with a turn holds up nobody for ever."""
        self.remote.put("latest", ONE)
        held = await self.driver.lock(layout.turn(f"{CACHED} latest"))
        pulling = Deferred.fromCoroutine(self.pull("latest"))
        await self.begun()
        await self.wait(pulling, seconds=59)
        self.assertFalse(pulling.called)
        await self.wait(pulling)
        self.assertLess(self.clock.seconds(), 70)
        self.assertEqual(self.successResultOf(pulling), ONE)
        held.close()

    async def test_a_turn_is_waited_for_no_longer_than_an_answer(self) -> None:
        await self.slow()
        held = await self.driver.lock(layout.turn(f"{CACHED} latest"))
        pulling = Deferred.fromCoroutine(self.pull("latest"))
        await self.begun()
        await self.wait(pulling, seconds=PATIENCE + 0.1)
        self.assertEqual(self.successResultOf(pulling), ONE)
        held.close()
        self.remote.answer()
        await self.settled()


class OldDirectorySuite(CacheSuite):
    """A data directory that was a cache before: of registry:2, which leaves no marks."""

    async def old(self) -> Digest:
        index = index_manifest(ONE, TWO)
        await self.push_image(CACHED, DIGEST, b"one")
        await self.push_image(CACHED, Digest.of(TWO), b"two")
        digest = await self.put(CACHED, "latest", index)
        # registry:2 keeps manifests whose children and blobs nobody has asked for.
        await self.driver.delete(layout.revision(CACHED, Digest.of(TWO)))
        await self.driver.delete(layout.layer(CACHED, Digest.of(b"one")))
        self.remote.put("latest", index)
        return digest

    async def test_confirmed(self) -> None:
        digest = await self.old()
        self.assertEqual(await self.pull("latest"), index_manifest(ONE, TWO))
        self.assertEqual(self.remote.methods(), [])
        self.assertFalse(await self.is_marked(digest))
        await self.age("latest", TTL + 1)
        await self.pull("latest")
        self.assertEqual(self.remote.methods(), ["HEAD latest"])
        # What is here of it can be had again.
        for marked in (digest, DIGEST, Digest.of(CONFIG)):
            self.assertTrue(await self.is_marked(marked), marked)
        for unmarked in (Digest.of(TWO), Digest.of(b"one"), Digest.of(b"two")):
            self.assertFalse(await self.is_marked(unmarked), unmarked)
        # From now on it goes with the upstream's.
        await self.age("latest", TTL + 1)
        self.remote.manifests.clear()
        await self.refused(ManifestUnknown, self.pull("latest"))

    async def test_the_upstream_is_down(self) -> None:
        await self.old()
        self.remote.failure = DOWN
        await self.age("latest", STALE - 10)
        self.assertEqual(await self.pull("latest"), index_manifest(ONE, TWO))
        self.assertEqual(await self.pull(DIGEST), ONE)


class FreshnessInMemoryTest(FreshnessSuite, OnMemory): ...


class FreshnessInFilesTest(FreshnessSuite, OnFilesystem): ...


class FailureInMemoryTest(FailureSuite, OnMemory): ...


class FailureInFilesTest(FailureSuite, OnFilesystem): ...


class SlowInMemoryTest(SlowSuite, OnMemory): ...


class SlowInFilesTest(SlowSuite, OnFilesystem): ...


class OldDirectoryInMemoryTest(OldDirectorySuite, OnMemory): ...


class OldDirectoryInFilesTest(OldDirectorySuite, OnFilesystem): ...


class SeveralDriversTest(SlowSuite, OnFilesystem):
    """As several processes have it: each with a driver of its own over one directory."""

    def process(self, registry: Any = None, driver: Any = None) -> Any:
        loop: Any = reactor
        own = FilesystemDriver(self.root, PoolThreads(loop, 2))
        own.start()
        self.addCleanup(own.stop)
        before, self.driver = self.driver, own
        try:
            return super().process(driver=own)
        finally:
            self.driver = before
