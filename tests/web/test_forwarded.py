"""``Forwarded`` (RFC 7239) and ``X-Forwarded-*``."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regd.web.forwarded import HEADERS, Forwarded, forwarded_for, parse_forwarded, valid_host


class ForwardedTests(SynchronousTestCase):
    def test_forwarded(self) -> None:
        """The examples of RFC 7239, section 4, and what comes near them."""
        for header, scheme, host in (
            ('for="_gazonk"', "", ""),
            ('For="[2001:db8:cafe::17]:4711"', "", ""),
            ("for=192.0.2.60;proto=http;by=203.0.113.43", "http", ""),
            ("for=192.0.2.43, for=198.51.100.17", "", ""),
            ("proto=https;host=hub.example", "https", "hub.example"),
            ("Proto=HTTPS ; Host=hub.example:8443", "https", "hub.example:8443"),
            ('proto="https";host="hub.example:8443"', "https", "hub.example:8443"),
            ('host="[2001:db8::1]:443"', "", "[2001:db8::1]:443"),
            ('host="h\\ub.example"', "", "hub.example"),
            ('for="a,b;proto=http";proto=https', "https", ""),
            ("proto=https, proto=http;host=inner", "https", ""),
            ("for=x, proto=https", "", ""),
            ("proto=https;proto=http", "https", ""),
            ("proto=gopher;host=a/b", "", ""),
            ("host=user@hub.example", "", ""),
            ('host="hub.example', "", ""),
            (";;;", "", ""),
            ("proto", "", ""),
        ):
            self.assertEqual(parse_forwarded({"Forwarded": header}), Forwarded(scheme, host), header)

    def test_who_asked_whom(self) -> None:
        for header, chain in (
            ("", [""]),
            ("for=192.0.2.60;proto=http;by=203.0.113.43", ["192.0.2.60"]),
            ("for=192.0.2.43, For=198.51.100.17", ["192.0.2.43", "198.51.100.17"]),
            ('for="[2001:db8:cafe::17]:4711";proto=https,for="_gazonk"', ["[2001:db8:cafe::17]:4711", "_gazonk"]),
            ("proto=https, for=unknown", ["", "unknown"]),
            ('for="a, for=b"', ["a, for=b"]),
            # What comes behind something else is not known to be anything.
            ("for=a b, for=c", ["a"]),
        ):
            self.assertEqual(forwarded_for(header), chain, header)

    def test_x_forwarded(self) -> None:
        for proto, host, expected in (
            ("https", "hub.example", Forwarded("https", "hub.example")),
            ("HTTPS", "hub.example:8443", Forwarded("https", "hub.example:8443")),
            ("https, http", "hub.example, inner", Forwarded("https", "hub.example")),
            (" https ", " hub.example ", Forwarded("https", "hub.example")),
            ("ftp", "a b", Forwarded()),
            ("", "", Forwarded()),
        ):
            self.assertEqual(parse_forwarded({"X-Forwarded-Proto": proto, "X-Forwarded-Host": host}), expected)

    def test_forwarded_wins_where_it_says_something(self) -> None:
        other = {"X-Forwarded-Proto": "http", "X-Forwarded-Host": "other"}
        self.assertEqual(parse_forwarded({"Forwarded": "proto=https", **other}), Forwarded("https", "other"))
        self.assertEqual(parse_forwarded({"Forwarded": "host=hub.example", **other}), Forwarded("http", "hub.example"))

    def test_nobody_says_anything(self) -> None:
        self.assertEqual(parse_forwarded({}), Forwarded())

    @given(st.dictionaries(st.sampled_from(HEADERS), st.text(max_size=60)))
    def test_any_text(self, headers: dict[str, str]) -> None:
        found = parse_forwarded(headers)
        self.assertIn(found.scheme, {"", "http", "https"})
        self.assertTrue(not found.host or valid_host(found.host))

    @given(st.text(alphabet='for=host;proto,"\\ ahttps', max_size=60))
    def test_nearly_right(self, header: str) -> None:
        self.assertIn(parse_forwarded({"Forwarded": header}).scheme, {"", "http", "https"})

    def test_a_long_header_costs_little(self) -> None:
        """Nothing in it makes the expression go back and forth."""
        for header in ('a="' + "\\a" * 8000, "a=b;" * 4000, '"' * 16000, "a =" * 5000, " " * 16000):
            parse_forwarded({"Forwarded": header})
            forwarded_for(header)


class HostTests(SynchronousTestCase):
    def test_valid(self) -> None:
        for host in ("a", "a.example", "A-b_c.example:1", "127.0.0.1:5000", "[::1]", "[::1]:5000", "xn--bcher-kva.example", "a.", "%41"):
            self.assertTrue(valid_host(host), host)
        for host in ("", ":5000", "a:", "a:x", "a:123456", "a b", "a/b", "a?b", "a#b", "u@h", "[::1", "::1", "é", "a\n", "a,b", "[x]"):
            self.assertFalse(valid_host(host), host)
