"""``Range``, ``If-None-Match``, ``If-Range`` and ``Content-Range``: RFC 9110, sections 13 and 14."""

from __future__ import annotations

import re

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regd.web.ranges import ByteRange, Unsatisfiable, if_range_allows, multipart, none_match, parse_content_range, parse_range

ETAG = '"sha256:00"'

NUMBERS = st.one_of(st.integers(0, 30), st.integers(0, 10**25))
SPECIFICATIONS = st.one_of(
    st.tuples(NUMBERS, NUMBERS).map(lambda pair: f"{pair[0]}-{pair[1]}"),
    NUMBERS.map(lambda first: f"{first}-"),
    NUMBERS.map(lambda last: f"-{last}"),
    st.sampled_from(["", "-", " ", "1", "a-b", "1-2-3", "+1-2", "\u0661-\u0662", "1 - 2"]),
)
HEADERS = st.one_of(
    st.tuples(st.sampled_from(["bytes=", "Bytes =", "bytes", "items=", ""]), st.lists(SPECIFICATIONS, max_size=20)).map(
        lambda pair: pair[0] + ",".join(pair[1])
    ),
    st.text(max_size=30),
)


def model(header: str, size: int) -> list[set[int]] | None:
    """
    The same, as simply as it can be said: the bytes of each range, as sets of offsets.

    :return: ``None`` where the header is to be ignored.
    """
    unit, _, given_text = header.partition("=")
    if unit.strip().lower() != "bytes":
        return None
    ranges = []
    for part in given_text.split(","):
        text = part.strip(" \t")
        if not text:
            continue
        found = re.fullmatch(r"([0-9]+)-([0-9]*)|-([0-9]+)", text)
        if found is None:
            return None
        if found[3] is not None:
            ranges.append(set(range(max(size - int(found[3]), 0), size)))
        elif found[2] and int(found[2]) < int(found[1]):
            return None
        else:
            last = min(int(found[2]), size - 1) if found[2] else size - 1
            ranges.append(set(range(int(found[1]), last + 1)) if int(found[1]) < size else set())
    return ranges or None


class RangeTests(SynchronousTestCase):
    def test_examples(self) -> None:
        """Those of RFC 9110, section 14.1.2, of 10000 bytes."""
        for header, ranges in (
            ("bytes=0-499", [(0, 500)]),
            ("bytes=500-999", [(500, 500)]),
            ("bytes=-500", [(9500, 500)]),
            ("bytes=9500-", [(9500, 500)]),
            ("bytes=0-0,-1", [(0, 1), (9999, 1)]),
            ("bytes= 0-999, 4500-5499, -1000", [(0, 1000), (4500, 1000), (9000, 1000)]),
            ("bytes=500-600,601-999", [(500, 101), (601, 399)]),
            ("bytes=500-700,601-999", [(500, 201), (601, 399)]),
        ):
            self.assertEqual(parse_range(header, 10000), tuple(ByteRange(*pair) for pair in ranges), header)

    def test_content_range(self) -> None:
        self.assertEqual(ByteRange(0, 500).content_range(1234), "bytes 0-499/1234")
        self.assertEqual(ByteRange(734, 500).content_range(1234), "bytes 734-1233/1234")

    def test_no_header(self) -> None:
        self.assertIsNone(parse_range(None, 10))

    @given(HEADERS, st.integers(0, 40))
    @example("bytes=0-", 0)
    @example("bytes=-0", 5)
    @example("bytes=0-,0-", 5)
    def test_against_the_model(self, header: str, size: int) -> None:
        expected = model(header, size)
        try:
            found = parse_range(header, size)
        except Unsatisfiable:
            assert expected is not None
            self.assertFalse(any(expected))
            return
        if found is None:
            # Ignored: it is wrong, or so large that the whole is the better answer.
            longest = max((len(digits) for digits in re.findall(r"\d+", header)), default=0)
            total = sum(map(len, expected or []))
            self.assertTrue(expected is None or len(expected) > 16 or longest > 19 or total > size, header)
            return
        assert expected is not None
        self.assertEqual([set(range(part.start, part.start + part.length)) for part in found], [part for part in expected if part])
        for part in found:
            self.assertTrue(0 <= part.start < part.start + part.length <= size)


class MultipartTests(SynchronousTestCase):
    def test_example(self) -> None:
        """RFC 9110, section 15.3.7.2."""
        parts, tail = multipart((ByteRange(500, 500), ByteRange(7000, 1000)), 8000, "application/pdf", "THIS")
        self.assertEqual(
            parts,
            (
                (b"--THIS\r\nContent-Type: application/pdf\r\nContent-Range: bytes 500-999/8000\r\n\r\n", ByteRange(500, 500)),
                (b"\r\n--THIS\r\nContent-Type: application/pdf\r\nContent-Range: bytes 7000-7999/8000\r\n\r\n", ByteRange(7000, 1000)),
            ),
        )
        self.assertEqual(tail, b"\r\n--THIS--\r\n")


class ConditionTests(SynchronousTestCase):
    def test_none_match(self) -> None:
        for header, matches in (
            (None, False),
            ("", False),
            ("*", True),
            (" * ", True),
            (ETAG, True),
            (f"W/{ETAG}", True),
            ("sha256:00", True),
            (f'"xyzzy", {ETAG}', True),
            (f'W/"r2d2xxxx",W/{ETAG},"c3piozzzz"', True),
            ('"xyzzy", "r2d2xxxx"', False),
            ('"sha256:0"', False),
            ("sha256:0", False),
            (ETAG[:-1], False),
            ('"a, sha256:00, b"', False),
        ):
            self.assertEqual(none_match(header, ETAG), matches, header)

    def test_if_range(self) -> None:
        date = "Sat, 29 Oct 1994 19:43:31 GMT"
        for header, allows in ((None, True), (ETAG, True), (f" {ETAG} ", True), (f"W/{ETAG}", False), (date, False)):
            self.assertEqual(if_range_allows(header, ETAG), allows, header)

    @given(st.text(max_size=50))
    def test_any_text(self, header: str) -> None:
        none_match(header, ETAG)
        if_range_allows(header, ETAG)


class UploadRangeTests(SynchronousTestCase):
    def test_forms(self) -> None:
        for header, span in (
            ("0-0", (0, 0)),
            ("5-9", (5, 9)),
            (" 5-9 ", (5, 9)),
            ("bytes 5-9/10", (5, 9)),
            ("bytes 5-9/*", (5, 9)),
            ("bytes=5-9", (5, 9)),
            ("9-5", None),
            ("5-", None),
            ("-5", None),
            ("5", None),
            ("bytes */10", None),
            ("bytes5-9", None),
            ("5-9/", None),
            ("\u0665-\u0669", None),
            ("0-" + "9" * 20, None),
            ("", None),
        ):
            self.assertEqual(parse_content_range(header), span, header)

    @given(st.one_of(st.text(max_size=30), st.tuples(NUMBERS, NUMBERS).map(lambda pair: f"{pair[0]}-{pair[1]}")))
    def test_any_text(self, header: str) -> None:
        found = parse_content_range(header)
        if found is not None:
            self.assertTrue(0 <= found[0] <= found[1] < 10**19)
