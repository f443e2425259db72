"""``Retry-After``, ``Content-Range``, ``Link`` and ``Content-Type``."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regd.proxy.remote.fields import (
    LONGEST_REST,
    ContentRange,
    next_link,
    parse_content_range,
    parse_media_type,
    parse_retry_after,
)

NOW = datetime(2026, 5, 17, 8, 49, 37, tzinfo=UTC).timestamp()


class RetryAfterTests(SynchronousTestCase):
    def test_values(self) -> None:
        for value, wanted in (
            ("0", 0.0),
            ("120", 120.0),
            (" 7 ", 7.0),
            ("999999999", LONGEST_REST),
            ("Sun, 17 May 2026 08:50:37 GMT", 60.0),
            ("Sunday, 17-May-26 08:50:37 GMT", 60.0),
            ("Sun May 17 08:50:37 2026", 60.0),
            ("Sun, 17 May 2020 08:50:37 GMT", 0.0),
            ("Sun, 17 May 2036 08:50:37 GMT", LONGEST_REST),
            ("", None),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
            ("Sun, 99 May 2026 08:50:37 GMT", None),
            ("9" * 400, None),
        ):
            self.assertEqual(parse_retry_after(value, NOW), wanted, value)

    @given(st.integers(0, int(LONGEST_REST)))
    def test_dates(self, seconds: int) -> None:
        value = format_datetime(datetime.fromtimestamp(NOW + seconds, UTC), usegmt=True)
        self.assertEqual(parse_retry_after(value, NOW), seconds)

    @given(st.text(st.characters(max_codepoint=0xFF)) | st.text("SunMay0123456789:, +-GMT", max_size=40))
    def test_anything(self, value: str) -> None:
        found = parse_retry_after(value, NOW)
        self.assertTrue(found is None or 0 <= found <= LONGEST_REST)


class ContentRangeTests(SynchronousTestCase):
    def test_values(self) -> None:
        for value, wanted in (
            ("bytes 0-9/10", ContentRange(0, 9, 10)),
            ("Bytes 5-7/*", ContentRange(5, 7, None)),
            ("bytes 0-0/1", ContentRange(0, 0, 1)),
            ("bytes */10", None),
            ("bytes 9-0/10", None),
            ("bytes 0-10/10", None),
            ("bytes 0-9", None),
            ("bytes=0-9/10", None),
            ("bytes -1-9/10", None),
            ("pages 0-9/10", None),
            ("", None),
        ):
            self.assertEqual(parse_content_range(value), wanted, value)

    @given(st.integers(0, 10**15), st.integers(0, 10**15), st.none() | st.integers(0, 10**15))
    def test_written_and_read(self, first: int, last: int, size: int | None) -> None:
        found = parse_content_range(f"bytes {first}-{last}/{'*' if size is None else size}")
        fits = first <= last and (size is None or last < size)
        self.assertEqual(found, ContentRange(first, last, size) if fits else None)

    @given(st.text(st.sampled_from("bytes 0123456789-/*"), max_size=30))
    def test_anything(self, value: str) -> None:
        parse_content_range(value)


class LinkTests(SynchronousTestCase):
    def test_values(self) -> None:
        for values, wanted in (
            (['</v2/x/tags/list?n=2&last=b>; rel="next"'], "/v2/x/tags/list?n=2&last=b"),
            (["</a>; rel=prev, </b,c>; rel=next"], "/b,c"),
            (["</a>;rel=prev", "</b> ; title=\"x, rel=next\" ; rel = 'x', <c>; REL=\"prev Next\""], "c"),
            (['<a>; title="; rel=next"; rel=prev'], None),
            (["</a>"], None),
            (["</a>; rel=nextish"], None),
            (["rel=next"], None),
            ([], None),
            (["<>; rel=next"], ""),
        ):
            self.assertEqual(next_link(values), wanted, values)

    @given(st.lists(st.sampled_from(["<", ">", ";", ",", "rel", "=", '"', "next", " ", "\\", "a"]), max_size=30).map("".join))
    def test_anything(self, value: str) -> None:
        next_link([value])

    def test_quickly(self) -> None:
        for value in ("<" * 60_000, "<a>" + "; a" * 20_000, "<a>;a=" + '"\\' * 20_000, "<a>" * 20_000):
            next_link([value])


class MediaTypeTests(SynchronousTestCase):
    def test_values(self) -> None:
        for value, wanted in (("a/B; charset=utf-8", "a/b"), ("", ""), (" a/b ;", "a/b")):
            self.assertEqual(parse_media_type(value), wanted)
