"""What could be read in two ways is refused by the registry itself, too, whatever the reads."""

from __future__ import annotations

from tests.web.smuggling import BROKEN_CHUNKS, EVIL, REFUSED
from tests.web.support import ApiCase

#: A registry that answers by itself does not care for whom a request is; and these are below its usual limits.
ONLY_FOR_A_PROXY = {
    *("no host", "empty host", "a host that is none"),
    *("a line too long", "a field too long", "too much in all", "too many fields"),
}


class StrictTests(ApiCase):
    def answers(self, data: bytes, size: int) -> list[int]:
        client = self.client()
        client.send(data, size)
        self.clock.advance(1)
        return [answer.status for answer in client.answers]

    def test_refused(self) -> None:
        for name, data in REFUSED.items():
            if name not in ONLY_FOR_A_PROXY:
                for size in (len(data), 1, 7):
                    with self.subTest(name, size=size):
                        self.assertEqual(self.answers(data, size), [400])

    def test_chunks(self) -> None:
        head = b"POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        for name, chunks in BROKEN_CHUNKS.items():
            for size in (1000, 1):
                with self.subTest(name, size=size):
                    # Without a digest nobody reads the body; the answer may be there before it has come, and nothing comes after it.
                    self.assertIn(self.answers(head + chunks + EVIL, size), ([400], [202]))

    def test_usual_limits(self) -> None:
        long = b"GET /v2/ HTTP/1.1\r\nHost: x\r\nA: %b\r\n\r\n"
        self.assertEqual(self.answers(long % (b"a" * 15_000), 1000), [200])
        self.assertEqual(self.answers(long % (b"a" * 17_000), 1000), [400])


class LimitsTests(ApiCase):
    config = "version: 0.1\nstorage: inmemory\nhttp: {limits: {line: 1KiB, header: 2KiB, fields: 10}}\n"

    def setUp(self) -> None:
        super().setUp()
        self.service.serving.start()

    def status(self, head: bytes) -> int:
        statuses = set()
        for size in (10_000, 100):
            client = self.client()
            client.send(head, size)
            (answer,) = client.answers
            statuses.add(answer.status)
        (status,) = statuses
        return status

    def test_limits(self) -> None:
        first = b"GET /v2/ HTTP/1.1\r\nHost: x\r\n"
        for fields, status in (
            (b"A: %b\r\n" % (b"a" * 900), 200),
            (b"A: %b\r\n" % (b"a" * 1100), 400),
            (b"A: %b\r\n" % (b"a" * 900) * 3, 400),
            (b"A: b\r\n" * 9, 200),
            (b"A: b\r\n" * 10, 400),
        ):
            self.assertEqual(self.status(first + fields + b"\r\n"), status, fields[:20])
        self.assertEqual(self.status(b"GET /%b HTTP/1.1\r\nHost: x\r\n\r\n" % (b"a" * 1100)), 400)
