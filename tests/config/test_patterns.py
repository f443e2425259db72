"""Regular expressions in Go's syntax."""

from __future__ import annotations

import re
import time

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regd.config.patterns import Pattern, PatternError

#: Expressions that Go and Python both read, with the same meaning under ``re.ASCII``.
SHARED = st.recursive(
    st.sampled_from(["a", "b", ".", "^", r"\d", r"\W", "[ab]", "[^a]", r"[\w-]", r"\b", r"\.", "", r"\A", "[b-d]"]),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map("|".join),
        st.tuples(inner.map("(?:{})".format), st.sampled_from(["*", "+", "?", "{2}", "{1,3}", "{0}", "{1,}", "*?", "+?", "??"])).map(
            "".join
        ),
        inner.map("({})".format),
        inner.map("(?i:{})".format),
        inner.map("(?s:{})".format),
    ),
    max_leaves=12,
)


class PatternTests(SynchronousTestCase):
    def test_what_matches(self) -> None:
        for expression, text in (
            ("", ""),
            ("b", "abc"),
            ("^a.c$", "abc"),
            (r"^https?://([^/]+\.)*example\.com/", "https://a.b.example.com/x"),
            ("a{2,3}b", "xaaab"),
            ("a{,2}", "a{,2}"),
            ("x{", "x{"),
            ("]", "]"),
            ("[]a]", "]"),
            ("[^]a]", "b"),
            ("[a-]", "-"),
            (r"[\d-z]", "-"),
            ("[[:alpha:]_]", "_"),
            ("[[:^digit:]]", "x"),
            (r"[^\D]", "5"),
            (r"\Qa.b*\E+", "a.b**"),
            (r"\Qa.b", "a.b"),
            (r"\x41\x{1F600}\101\n", "A\U0001f600A\n"),
            (r"\pL\p{Lu}\PN\p{^Lu}\P{^Nd}", "aAxx5"),
            (r"[\pL]+", "\u00e4"),
            (r"\p{Any}", "x"),
            ("(?i)K", "\u212a"),
            ("(?i)stra(?-i)SSE", "STRASSE"),
            ("(?i:a)b", "Ab"),
            ("(?s)a.b", "a\nb"),
            ("(?m)^b$", "a\nb\nc"),
            ("(?U)a+", "aa"),
            ("(?P<x>a)(?<y>b)", "ab"),
            (r"\bb\b", "a b"),
            (r"\Bb", "ab"),
            (r"\Ab\z", "b"),
            ("a||b", "b"),
            ("(|a)*b", "aab"),
            ("(^)*a", "ba"),
            (r"\_\-", "_-"),
            ("(?)a", "a"),
            ("^ba(?i)*$", "baa"),
            (r"^ba\Q\E*$", "baa"),
            ("(?P<x>a)(?P<x>b)", "ab"),
        ):
            self.assertTrue(Pattern.parse(expression).search(text), (expression, text))

    def test_what_does_not(self) -> None:
        for expression, text in (
            ("^$", "a"),
            ("a$", "a\n"),
            (".", "\n"),
            (r"\d", "\u0665"),
            (r"\w", "\u00e4"),
            (r"\s", "\v"),
            ("(?i)[^k]", "K"),
            ("[^ab]", "ab"),
            ("a{3}", "aa"),
            (r"\bb", "ab"),
            (r"\p{Lu}", "a"),
            ("(?i:a)b", "AB"),
            ("a(?:)b", "a:b"),
        ):
            self.assertFalse(Pattern.parse(expression).search(text), (expression, text))

    def test_what_go_refuses(self) -> None:
        for expression in (
            "(?=a)", "(?!a)", "(?<=a)", "(?<!a)", r"\1", "(?P=x)", "(?P<x-y>a)", "(?>a)", "(?(1)a)", "(?#a)", "a++",
            "a**", "a{2}{3}", "*a", "a|*", "(*)", "(?i)*", "a{1001}", "a{3,2}", "a{99999}", "(", ")", "(?", "(?x)a", "(?-)a", "[a", "[",
            "[]", "[z-a]", "[[:foo:]]", "[a\\", "\\", r"\Z", r"\C", r"\x{110000}", r"\x4", r"\u0041", r"\8", r"\p{Foo}",
            r"\p", "(" * 200 + ")" * 200, "((a{100}){100}){100}",
        ):  # fmt: skip
            self.assertRaises(PatternError, Pattern.parse, expression)

    def test_scripts_are_refused_although_go_knows_them(self) -> None:
        error = self.assertRaises(PatternError, Pattern.parse, r"\p{Greek}")
        self.assertIn("Greek", str(error))

    def test_repeats_of_nothing_take_no_time(self) -> None:
        self.assertTrue(Pattern.parse("((((){1000}){1000}){1000}){1000}").search(""))

    def test_time_is_linear(self) -> None:
        """The example of registry:2's documentation, on a text that keeps a backtracking matcher busy for years."""
        pattern = Pattern.parse(r"^https?://([^/]+\.)*example\.com/")
        before = time.process_time()
        self.assertFalse(pattern.search("http://" + "a." * 50_000 + "!"))
        self.assertLess(time.process_time() - before, 5)

    def test_memory_is_bounded(self) -> None:
        """Texts of ever new characters do not make the matcher remember ever more."""
        pattern = Pattern.parse("x.*y")
        self.assertFalse(pattern.search("x" + "".join(map(chr, range(0x4E00, 0x4E00 + 20_900)))))
        self.assertTrue(pattern.search("x" + "".join(map(chr, range(0x10000, 0x10000 + 25_000))) + "y"))

    @given(SHARED, st.text("ab.\n1", max_size=8))
    def test_as_python_where_the_syntax_is_shared(self, expression: str, text: str) -> None:
        try:
            pattern = Pattern.parse(expression)
        except PatternError:
            # Repeats of repeats, which Python merely warns about.
            return
        self.assertEqual(pattern.search(text), re.search(expression, text, re.ASCII) is not None)

    @given(st.text() | st.text(r"ab()[]{}|*+?^$.\,-:=!<>0129PpQExdDimsU"), st.text(max_size=20))
    def test_any_text_is_read_or_refused(self, expression: str, text: str) -> None:
        try:
            pattern = Pattern.parse(expression)
        except PatternError as error:
            self.assertTrue(str(error))
            return
        pattern.search(text)
