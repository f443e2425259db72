"""Links, and what old trees hold in their place."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from regd.names import Digest
from regd.storage.damage import Damage
from regd.storage.driver import StorageError
from regd.storage.layout import Path
from regd.storage.links import Links
from regd.storage.memory import MemoryDriver

PATH = Path("a/link")
SHA256 = Digest.of(b"x")
SHA512 = Digest.of(b"x", "sha512")


class LinksTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.driver = MemoryDriver()
        self.damage = Damage()
        self.links = Links(self.driver, self.damage)

    def read(self, content: bytes | None) -> Digest | None:
        if content is not None:
            self.successResultOf(Deferred.fromCoroutine(self.driver.write((PATH, content))))
        return self.successResultOf(Deferred.fromCoroutine(self.links.read(PATH)))

    def test_round_trip(self) -> None:
        for digest in (SHA256, SHA512):
            path, content = Links.file(PATH, digest)
            self.assertEqual(path, PATH)
            # registry:2 fails on anything more, a newline too.
            self.assertEqual(content, str(digest).encode())
            self.assertEqual(self.read(content), digest)

    def test_white_space_around_it(self) -> None:
        for content in (f"{SHA256}\n", f" {SHA256}\r\n"):
            self.assertEqual(self.read(content.encode()), SHA256)
        self.assertEqual(self.damage.count, 0)

    def test_no_link(self) -> None:
        self.assertIsNone(self.read(None))
        self.assertEqual(self.damage.count, 0)

    def test_what_is_no_link_is_reported_once_and_passed_over(self) -> None:
        for content in (
            b"", b"\n", b"\0" * 71, str(SHA256)[:-1].encode(), str(SHA256).encode() + b"0", b"latest", b"\xff" * 71,
            str(SHA256).upper().encode(), b"md5:" + b"a" * 32, b"x" * 100_000, str(SHA256).encode() * 2,
        ):  # fmt: skip
            self.assertIsNone(self.read(content), content[:80])
            self.assertEqual(self.damage.count, 1)

    def test_a_directory_in_its_place(self) -> None:
        self.successResultOf(Deferred.fromCoroutine(self.driver.write((Path(f"{PATH}/x"), b""))))
        self.assertIsNone(self.read(None))

    def test_failing_storage_is_no_missing_link(self) -> None:
        async def failing(path: Path, limit: int) -> bytes:
            raise StorageError("broken")

        self.patch(self.driver, "read", failing)
        self.failureResultOf(Deferred.fromCoroutine(self.links.read(PATH)), StorageError)

    def test_a_link_under_a_digest_holds_that_digest(self) -> None:
        async def read(content: str, expected: Digest) -> Digest | None:
            await self.driver.write((PATH, content.encode()))
            return await self.links.read(PATH, expected)

        other = Digest.of(b"y")
        for content, expected, found in (
            (SHA256, SHA256, SHA256),
            # registry:2 keeps what is pushed under a sha512 digest under its sha256 digest, and the sha512 link says so.
            (SHA256, SHA512, SHA256),
            (other, SHA256, None),
        ):
            self.assertEqual(self.successResultOf(Deferred.fromCoroutine(read(content, expected))), found)
        self.assertEqual(self.damage.count, 1)

    @given(st.binary(max_size=300))
    def test_any_content_is_a_digest_or_nothing(self, content: bytes) -> None:
        found = self.read(content)
        if found is not None:
            self.assertEqual(content.strip().decode(), found)


class DamageTest(SynchronousTestCase):
    def test_each_path_is_told_once(self) -> None:
        damage = Damage()
        for _ in range(3):
            damage.report("a", "is broken")
            damage.report("b", "is broken")
        self.assertEqual(damage.count, 2)

    def test_what_was_mended_is_told_again_when_it_breaks_again(self) -> None:
        damage = Damage()
        damage.healed("a")
        damage.report("a", "is broken")
        damage.healed("a")
        damage.report("a", "is broken again")
        self.assertEqual(damage.count, 2)
