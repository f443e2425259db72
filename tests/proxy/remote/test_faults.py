"""Registries that do not behave: each has a clear end, and no connection is left over."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from regd.names import Tag
from regd.proxy.remote import Limited, Remote, RemoteError, Unreachable
from regd.web.body import BodyAborted
from tests.e2e.process import free_port
from tests.e2e.proxying import Exchange, sends, stalls
from tests.proxy.remote.support import DIGEST, MANIFEST, NAME, RemoteCase, answers, reply

LATEST = Tag("latest")


class FaultTests(RemoteCase):
    async def all_refused(self, remote: Remote, kind: type[RemoteError], *words: str) -> list[Any]:
        """Whatever it is asked for."""
        works = (
            lambda: remote.manifest_digest(NAME, LATEST, DIGEST),
            lambda: remote.manifest(NAME, LATEST),
            lambda: remote.blob_size(NAME, DIGEST),
            lambda: remote.blob(NAME, DIGEST, 5),
            lambda: remote.tags(NAME, None, ""),
            lambda: remote.referrers(NAME, DIGEST, None),
        )
        return [await self.refused(kind, work(), *words) for work in works]

    async def test_nobody_there(self) -> None:
        remote = self.remote(f"http://127.0.0.1:{free_port()}")
        await self.refused(Unreachable, remote.manifest(NAME, LATEST), "refused")
        self.assertTrue(0 < remote.resting <= 1)
        await self.all_refused(remote, Unreachable, "refused", "is not asked for another")
        await self.until(lambda: not remote.resting, "it to be asked again")
        error: Any = await self.refused(Unreachable, remote.manifest(NAME, LATEST), "refused")
        self.assertNotIn("is not asked", str(error))
        self.assertTrue(1 < remote.resting <= 2)

    async def test_a_name_that_is_none(self) -> None:
        await self.refused(Unreachable, self.remote("https://registry.invalid").manifest(NAME, LATEST), "https://registry.invalid")

    async def test_it_stalls(self) -> None:
        upstream = self.upstream(stalls(4))
        remote = self.remote(upstream.url, read=0.4)
        begun = time.monotonic()
        error: Any = await self.refused(Unreachable, remote.manifest(NAME, LATEST), "0.4 s")
        self.assertTrue(error.late)
        self.assertLess(time.monotonic() - begun, 2)
        for one in await self.all_refused(remote, Unreachable, "is not asked for another"):
            self.assertTrue(one.late)
        # It is back.
        upstream.answer = answers(MANIFEST)
        await self.until(lambda: not remote.resting, "it to be asked again")
        await remote.manifest(NAME, LATEST)
        self.assertEqual(remote.resting, 0)

    async def test_it_drips(self) -> None:
        """Something comes all the time, and never all of it."""

        def drip(begin: bytes, exchange: Exchange) -> bool:
            exchange.send(begin)
            while True:
                exchange.send(b"x")
                time.sleep(0.1)

        upstream = self.upstream()
        for begin in (b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"):
            upstream.answer = partial(drip, begin)
            begun = time.monotonic()
            error: Any = await self.refused(Unreachable, self.remote(upstream.url, read=0.5).manifest(NAME, LATEST), "0.5 s")
            self.assertTrue(error.late)
            self.assertLess(time.monotonic() - begun, 3)

    async def test_it_closes(self) -> None:
        for data in (b"", b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n"):
            remote = self.remote(self.upstream(sends(data)).url)
            for error in await self.all_refused(remote, Unreachable):
                self.assertFalse(error.late)
            self.assertEqual(remote.resting, 0)

    async def test_garbage(self) -> None:
        for data in (
            b"\x00\xff garbage\r\n\r\n",
            b"HTTP/2 200\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
            b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000,
        ):
            remote = self.remote(self.upstream(sends(data)).url)
            await self.refused(Unreachable, remote.manifest(NAME, LATEST), "is no answer")

    async def test_small_bodies_that_break_off(self) -> None:
        for data in (
            b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        ):
            remote = self.remote(self.upstream(sends(data)).url)
            await self.refused(Unreachable, remote.manifest(NAME, LATEST))
            await self.refused(Unreachable, remote.tags(NAME, None, ""))

    async def test_blobs_that_break_off(self) -> None:
        def stall(exchange: Exchange) -> bool:
            exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2000000\r\n\r\n" + bytes(1_000_000))
            time.sleep(3)
            return False

        for answer, why in (
            (sends(b"HTTP/1.1 200 OK\r\nContent-Length: 2000000\r\n\r\n" + bytes(1_000_000)), ""),
            (sends(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"), ""),
            (sends(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhellozz\r\n"), "not chunked"),
            (stall, "it said nothing for 0.4 s"),
        ):
            remote = self.remote(self.upstream(answer).url, read=0.4)
            blob = await remote.blob(NAME, DIGEST)
            with self.assertRaises(BodyAborted):
                await self.content(blob)
            self.assertIn(why, blob.why())
            self.assertEqual(remote.resting, 0)

    async def test_nobody_takes_the_body(self) -> None:
        """Somebody forgets to start it."""
        upstream = self.upstream(answers(bytes(5_000_000)))
        remote = self.remote(upstream.url)
        blob = await remote.blob(NAME, DIGEST)
        await self.sleep(0.1)
        self.assertEqual(remote.variables()["requests"], 1)
        blob.close()

    async def test_retry_after(self) -> None:
        upstream = self.upstream()
        for status, said, seconds in (
            ("429 Too Many Requests", "Retry-After: 20", 20),
            ("429 Too Many Requests", "X: y", 5),
            ("429 Too Many Requests", "Retry-After: soon", 5),
            ("503 Service Unavailable", "Retry-After: 20", 20),
            ("429 Too Many Requests", "Retry-After: Fri, 31 Dec 2999 23:59:59 GMT", 6 * 3600),
        ):
            remote = self.remote(upstream.url)
            upstream.answer = answers(b"{}", status, said)
            upstream.seen.clear()
            error: Any = await self.refused(Limited, remote.manifest(NAME, LATEST), status[:3])
            self.assertEqual(error.retry_after, seconds)
            self.assertTrue(seconds - 2 < remote.resting <= seconds)
            self.assertEqual(remote.variables()["resting"], round(remote.resting, 1))
            for one in await self.all_refused(remote, Limited, "is not asked for another"):
                self.assertTrue(seconds - 2 < one.retry_after <= seconds)
            self.assertEqual(len(upstream.seen), 1)

    async def test_retry_after_a_moment(self) -> None:
        upstream = self.upstream(answers(b"", "429 x", "Retry-After: 1"))
        remote = self.remote(upstream.url)
        await self.refused(Limited, remote.manifest(NAME, LATEST))
        upstream.answer = answers(MANIFEST)
        await self.until(lambda: not remote.resting, "it to be asked again")
        await remote.manifest(NAME, LATEST)
        upstream.answer = answers(b"", "429 x", "Retry-After: 0")
        await self.refused(Limited, remote.manifest(NAME, LATEST))
        self.assertEqual(remote.resting, 0)

    async def test_cancelled(self) -> None:
        def slow_body(exchange: Exchange) -> bool:
            exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")
            time.sleep(2)
            return False

        for answer in (stalls(2), slow_body):
            upstream = self.upstream(answer)
            remote = self.remote(upstream.url)
            asking = Deferred.fromCoroutine(remote.manifest(NAME, LATEST))
            await self.until(lambda upstream=upstream: bool(upstream.seen), "it to be asked")  # type: ignore[misc] # mypy cannot infer defaults of lambdas
            await self.sleep(0.05)
            asking.cancel()
            with self.assertRaises(CancelledError):
                await asking
            self.assertEqual(remote.variables()["requests"], 0)
            await self.until(lambda remote=remote: not remote.variables()["connections"], "the connection to be cut")  # type: ignore[misc] # as above

    async def test_an_answer_that_nobody_wants_is_large(self) -> None:
        upstream = self.upstream(answers(bytes(10_000_000), "404 Not Found"))
        remote = self.remote(upstream.url)
        with self.assertRaises(RemoteError):
            await remote.manifest(NAME, LATEST)
        await self.until(lambda: not remote.variables()["connections"], "the connection to be cut")

    async def test_more_than_it_said(self) -> None:
        upstream = self.upstream(sends(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(MANIFEST) + MANIFEST + b"more", goes_on=True))
        remote = self.remote(upstream.url)
        for _ in range(3):
            self.assertEqual((await remote.manifest(NAME, LATEST)).content, MANIFEST)
        self.assertEqual(upstream.accepted, 3)

    async def test_many_at_once(self) -> None:
        """One that answers this and that."""
        count = 0
        kinds: list[Callable[[Exchange], bool]] = [
            answers(MANIFEST),
            sends(b""),
            answers(b"", "500 x"),
            sends(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello"),
            lambda exchange: reply(exchange, b"x" * 300_000),
        ]

        def answer(exchange: Exchange) -> bool:
            nonlocal count
            count += 1
            return kinds[count % len(kinds)](exchange)

        remote = self.remote(self.upstream(answer).url)

        async def ask() -> None:
            try:
                await remote.manifest(NAME, LATEST)
            except Unreachable:
                return

        await self.both(*(ask() for _ in range(100)))

    async def test_the_log_says_why(self) -> None:
        upstream = self.upstream(answers(b"", "429 x", "Retry-After: 20"))
        await self.refused(Limited, self.remote(upstream.url).manifest(NAME, LATEST))
        url = f"http://127.0.0.1:{free_port()}"
        await self.refused(Unreachable, self.remote(url).manifest(NAME, LATEST))
        for wanted in (f"{upstream.url} is not asked for 20 s: GET {upstream.url}/v2/", f"{url} is not asked for 1 s: "):
            self.assertEqual(len([line for line in self.logged if wanted in line]), 1, wanted)
