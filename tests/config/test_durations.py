"""Durations in Go's notation."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regd.config.durations import DurationError, format_duration, parse_duration

SECOND = 1_000_000_000


class DurationTests(SynchronousTestCase):
    def test_what_go_reads(self) -> None:
        for text, nanoseconds in {
            "0": 0,
            "+0": 0,
            "-0": 0,
            "5s": 5 * SECOND,
            "1h30m": 5400 * SECOND,
            "1h15m30.918273645s": 4530 * SECOND + 918_273_645,
            "1.5s": 1_500_000_000,
            "5.s": 5 * SECOND,
            ".5s": SECOND // 2,
            "-1.5h": -5400 * SECOND,
            "+5s": 5 * SECOND,
            "10ms": 10_000_000,
            "7us": 7_000,
            "7\u00b5s": 7_000,
            "7\u03bcs": 7_000,
            "3ns": 3,
            "0.3333333333333333333h": 1_199_999_999_999,
            "9223372036854775807ns": 2**63 - 1,
            "-9223372036854775808ns": -(2**63),
        }.items():
            self.assertEqual(parse_duration(text), nanoseconds, text)

    def test_what_go_refuses(self) -> None:
        for text in (
            "", "3", "-", "s", ".", "-.", ".s", "+.s", "1d", "1 s", " 1s", "1s ", "1S", "--1s", "1e3s", "0x1s", "1_0s", "5 minutes",
            "9223372036854775808ns", "3000000h", "1s" * 200, "9" * 5000 + "s", "\u0663s",
        ):  # fmt: skip
            self.assertRaises(DurationError, parse_duration, text)

    def test_how_go_writes_them(self) -> None:
        for nanoseconds, text in {
            0: "0s",
            1: "1ns",
            1_100: "1.1\u00b5s",
            2_200_000: "2.2ms",
            3_300_000_000: "3.3s",
            4 * 60 * SECOND + 5 * SECOND: "4m5s",
            5 * 3600 * SECOND + 6_007_000_000: "5h0m6.007s",
            168 * 3600 * SECOND: "168h0m0s",
            -SECOND: "-1s",
        }.items():
            self.assertEqual(format_duration(nanoseconds), text)

    @given(st.integers(-(2**63), 2**63 - 1))
    def test_round_trip(self, nanoseconds: int) -> None:
        self.assertEqual(parse_duration(format_duration(nanoseconds)), nanoseconds)

    @given(st.text() | st.text("0123456789.-+hmsnu\u00b5"))
    def test_any_text_is_read_or_refused(self, text: str) -> None:
        try:
            nanoseconds = parse_duration(text)
        except DurationError:
            return
        self.assertEqual(parse_duration(format_duration(nanoseconds)), nanoseconds)
