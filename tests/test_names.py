"""The grammar of names, with the edges that a hostile or a careless client finds."""

from __future__ import annotations

import hashlib
import re

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regd.errors import DigestInvalid, NameInvalid, TagInvalid
from regd.names import ALGORITHMS, Digest, RepositoryName, Tag, parse_reference

HEX = "0123456789abcdef"

#: The patterns of specification 1.1, "Pulling manifests", as they stand there.
SPECIFIED_NAME = re.compile(
    r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*\Z", re.ASCII
)
SPECIFIED_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}\Z", re.ASCII)

#: Text that is nearly a digest.
NEARLY_DIGEST = st.tuples(st.sampled_from(["sha256:", "sha512:", "md5:", "sha256"]), st.text(f"{HEX}A\n", max_size=130)).map("".join)

#: Text that is nearly a name.
NEARLY = st.text("ab0._-/:A%\n\0\u0663\u00e9", max_size=20)

class RepositoryNameTest(SynchronousTestCase):
    def test_names(self) -> None:
        for text in (
            "a", "0", "library/alpine", "a.b", "a_b", "a__b", "a-b", "a---b", "a/b/c/d/e/f", "a.b/c__d/e-f", "1/2/3", "localhost/x",
            "a" * 255, "/".join(["a"] * 128), f"{'a' * 127}/{'b' * 127}",
        ):  # fmt: skip
            name = RepositoryName.parse(text)
            self.assertEqual(name, text)
            self.assertIsInstance(name, RepositoryName)

    def test_what_is_no_name(self) -> None:
        for text in (
            "", "/", "a/", "/a", "a//b", ".", "..", "../a", "a/..", "a/../b", "a/./b", "A", "a/B", "a b", " a", "a ", "a\n", "\na", "a\n/b",
            "a\0b", "a\tb", "_a", "a_", "a___b", ".a", "a.", "a..b", "a._b", "a-", "-a", "a/-b", "a-_b",
            "_layers", "a/_layers", "a/b/_layers", "a/_manifests/tags", "_uploads/x", "a%2fb", "a%2e%2e", "%2e%2e", "a\\b", "a:b", "a@b",
            "\u0661", "a\u0663", "\u00e9", "\uff41", "a\u2215b", "\ud800", "a+b", "a~b", "a;b", "a?b", "a#b",
            "a" * 256, "/".join(["a"] * 129), "a" * 10**6,
        ):  # fmt: skip
            error = self.assertRaises(NameInvalid, RepositoryName.parse, text)
            self.assertLess(len(error.message), 400)
            self.assertNotIn("\n", error.message)

    def test_a_long_name_is_told_its_length(self) -> None:
        self.assertIn("255", self.assertRaises(NameInvalid, RepositoryName.parse, "a" * 256).message)

    @given(st.text() | NEARLY)
    def test_agrees_with_the_specification(self, text: str) -> None:
        try:
            RepositoryName.parse(text)
            accepted = True
        except NameInvalid:
            accepted = False
        self.assertEqual(accepted, len(text) <= 255 and SPECIFIED_NAME.match(text) is not None)
        self.assertEqual(RepositoryName.fits(text), accepted)

    @given(st.from_regex(SPECIFIED_NAME, fullmatch=True))
    def test_what_the_specification_allows_is_taken(self, text: str) -> None:
        if len(text) <= 255:
            self.assertEqual(RepositoryName.parse(text), text)


class TagTest(SynchronousTestCase):
    def test_tags(self) -> None:
        for text in ("a", "A", "0", "_", "v1.0", "latest", "_x.y-z", "a..b", "a" * 128, "current", "index", "sha256-" + "0" * 64):
            self.assertEqual(Tag.parse(text), text)

    def test_what_is_no_tag(self) -> None:
        for text in (
            "", ".", "..", ".a", "-a", "a/b", "a\n", "\n", "a b", "a:b", "a+b", "a@b", "a%20", "\u0663", "a\u0663", "\u00e9", "\ud800",
            "a\0", "a" * 129, "a" * 10**6,
        ):  # fmt: skip
            error = self.assertRaises(TagInvalid, Tag.parse, text)
            self.assertLess(len(error.message), 400)

    @given(st.text() | NEARLY)
    def test_agrees_with_the_specification(self, text: str) -> None:
        try:
            Tag.parse(text)
            accepted = True
        except TagInvalid:
            accepted = False
        self.assertEqual(accepted, SPECIFIED_TAG.match(text) is not None)


class DigestTest(SynchronousTestCase):
    def test_parts(self) -> None:
        for algorithm, length in ALGORITHMS.items():
            digest = Digest.parse(f"{algorithm}:{'0' * length}")
            self.assertEqual((digest.algorithm, digest.hex), (algorithm, "0" * length))

    def test_of_content(self) -> None:
        self.assertEqual(Digest.of(b"abc"), "sha256:" + hashlib.sha256(b"abc").hexdigest())
        self.assertEqual(Digest.of(b"abc", "sha512"), "sha512:" + hashlib.sha512(b"abc").hexdigest())

    def test_what_is_no_digest(self) -> None:
        whole = "sha256:" + "a" * 64
        for text in (
            "", ":", "sha256", "sha256:", "sha256:" + "a" * 63, "sha256:" + "a" * 65, "sha256:" + "a" * 128, "sha512:" + "a" * 64,
            "sha256:" + "A" * 64, "SHA256:" + "a" * 64, "sha256:" + "g" * 64, "sha256:" + "\u0663" * 64, whole + "\n", "\n" + whole,
            whole + " ", " " + whole, "sha256:" + "a" * 63 + "\n", whole + "/..", "sha256:../" + "a" * 61, "sha256/" + "a" * 64,
            whole.replace(":", "%3a"), "sha256:" + "a" * 10**6, "\ud800",
        ):  # fmt: skip
            error = self.assertRaises(DigestInvalid, Digest.parse, text)
            self.assertLess(len(error.message), 400)

    def test_an_algorithm_that_is_not_supported_is_named(self) -> None:
        for text in ("md5:" + "a" * 32, "sha384:" + "a" * 96, "sha256+b64u:x", "blake3:" + "a" * 64):
            error = self.assertRaises(DigestInvalid, Digest.parse, text)
            self.assertIn(repr(text.partition(":")[0]), error.message)
            self.assertIn("sha256 and sha512", error.message)

    @given(st.binary())
    @example(b"")
    def test_round_trip(self, content: bytes) -> None:
        for algorithm in ALGORITHMS:
            digest = Digest.of(content, algorithm)
            self.assertEqual(Digest.parse(str(digest)), digest)
            self.assertEqual(Digest.from_hash(hashlib.new(algorithm, content)), digest)

    @given(st.text() | NEARLY_DIGEST)
    def test_any_text_is_read_or_refused(self, text: str) -> None:
        try:
            digest = Digest.parse(text)
        except DigestInvalid:
            return
        self.assertEqual(digest, text)
        self.assertEqual(len(bytes.fromhex(digest.hex)) * 2, ALGORITHMS[digest.algorithm])


class ReferenceTest(SynchronousTestCase):
    def test_a_colon_makes_it_a_digest(self) -> None:
        self.assertIsInstance(parse_reference("sha256:" + "0" * 64), Digest)
        self.assertIsInstance(parse_reference("sha256-" + "0" * 64), Tag)
        self.assertRaises(DigestInvalid, parse_reference, "latest:")
        self.assertRaises(TagInvalid, parse_reference, "")

    @given(st.text() | NEARLY)
    def test_any_text_is_read_or_refused(self, text: str) -> None:
        try:
            self.assertEqual(parse_reference(text), text)
        except (DigestInvalid, TagInvalid):
            return
