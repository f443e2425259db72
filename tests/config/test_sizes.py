"""Sizes: what is one, and that it is read as it was meant."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regd.config.sizes import SizeError, format_size, parse_size

UNITS = {"": 1, "B": 1, "k": 2**10, "K": 2**10, "kB": 10**3, "KB": 10**3, "KiB": 2**10, "M": 2**20, "MB": 10**6, "MiB": 2**20}
UNITS |= {"G": 2**30, "GB": 10**9, "GiB": 2**30, "T": 2**40, "TB": 10**12, "TiB": 2**40}


class SizesTest(SynchronousTestCase):
    def test_examples(self) -> None:
        for text, size in {"0": 0, "4096": 4096, "64k": 65536, "50MiB": 50 << 20, "50 MiB": 50 << 20, "1.5GB": 1_500_000_000}.items():
            self.assertEqual(parse_size(text), size)

    def test_what_is_none(self) -> None:
        for text in (
            "", " ", "k", "-1", "+1", "1,5M", "1.M", ".5M", "1m", "1Mi", "1iB", "1 k B", "1e3", "0x10", "\u0661", "1\n", "9" * 19,
            "9000000T",
        ):  # fmt: skip
            self.assertRaises(SizeError, parse_size, text)

    @given(st.integers(0, 10**6), st.none() | st.integers(0, 999), st.sampled_from(sorted(UNITS)))
    def test_numbers_with_units(self, whole: int, part: int | None, unit: str) -> None:
        text = f"{whole}{'' if part is None else f'.{part:03}'}{unit}"
        self.assertEqual(parse_size(text), (whole * 1000 + (part or 0)) * UNITS[unit] // 1000)

    @given(st.text() | st.text("0123456789.kKMGTiB ", max_size=12))
    def test_any_text_is_read_or_refused(self, text: str) -> None:
        try:
            size = parse_size(text)
        except SizeError as error:
            self.assertIn("50MiB", str(error))
        else:
            self.assertTrue(0 <= size < 2**63)

    @given(st.integers(0, 2**63 - 1))
    def test_what_is_shown_is_what_was_meant(self, size: int) -> None:
        text = format_size(size)
        self.assertLessEqual(len(text), 10)
        if "P" not in text and "E" not in text:
            self.assertLess(abs(parse_size(text) - size), max(1, size * 0.06))

    def test_where_one_unit_ends(self) -> None:
        examples = {0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", (1 << 20) - 1: "1.0 MiB", 1 << 30: "1.0 GiB", 1 << 61: "2.0 EiB"}
        for size, text in examples.items():
            self.assertEqual(format_size(size), text)
