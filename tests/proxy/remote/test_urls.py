"""URLs that are to be asked, and who belongs to whom."""

from __future__ import annotations

import contextlib
from urllib.parse import urlsplit

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regd.config.proxying import parse_upstream
from regd.proxy.remote.urls import URL, BadURL, join, parse_url, same_owner

BASE = parse_url("https://registry.example:8443/v2/x/blobs/y?a=b")


class URLTests(SynchronousTestCase):
    def test_parts(self) -> None:
        for text, server, target in (
            ("https://cdn.example/a/b?sig=x#part", "https://cdn.example", "/a/b?sig=x"),
            ("HTTP://cdn.example", "http://cdn.example", "/"),
            ("http://cdn.example?x", "http://cdn.example", "/?x"),
            ("http://[::1]:80/x", "http://[::1]:80", "/x"),
        ):
            found = parse_url(text)
            self.assertEqual((str(found.server), found.target), (server, target), text)

    def test_none(self) -> None:
        for text in (
            "",
            "/x",
            "ftp://x/",
            "https://",
            "https://user:s3cret@x/",
            "https://x:99999/",
            "https://x:0/",
            "https://x /",
            "https://x/\r\nHost: y",
            "https://x\\@y/",
            "https://é.example/",
            "https:x",
            "https://x/" + "a" * 9000,
        ):
            with self.assertRaises(BadURL) as caught:
                parse_url(text)
            self.assertNotIn("s3cret", str(caught.exception))

    def test_shown_without_query(self) -> None:
        found = parse_url("https://cdn.example/a?X-Signature=s3cret")
        for shown in (str(found), repr(found), f"{found}"):
            self.assertEqual(shown, "https://cdn.example/a")

    def test_origin(self) -> None:
        self.assertEqual(parse_url("https://A.example./").origin, parse_url("https://a.example:443/x").origin)
        for other in ("http://a.example/", "https://a.example:444/", "https://b.example/"):
            self.assertNotEqual(parse_url(other).origin, parse_url("https://a.example/").origin)

    def test_join(self) -> None:
        for reference, wanted in (
            ("https://cdn.example/z?q", "https://cdn.example/z?q"),
            ("//cdn.example/z", "https://cdn.example/z"),
            ("/z?q", "https://registry.example:8443/z?q"),
            ("z", "https://registry.example:8443/v2/x/blobs/z"),
            ("?page=2", "https://registry.example:8443/v2/x/blobs/y?page=2"),
            ("../z", "https://registry.example:8443/v2/x/z"),
        ):
            self.assertEqual(join(BASE, reference).text, wanted)
        for reference in ("http://[", "mailto:x", "https://a@b/"):
            with self.assertRaises(BadURL):
                join(BASE, reference)

    def test_unix_sockets_stay(self) -> None:
        base = URL(parse_upstream("unix:/run/registry"), "/v2/")
        self.assertEqual(join(base, "/z"), URL(base.server, "/z"))

    @given(st.text(st.sampled_from("htps:/?#[]@\\.a0%é \r\n"), max_size=40))
    def test_anything(self, text: str) -> None:
        with contextlib.suppress(BadURL):
            found = join(BASE, text)
            split = urlsplit(found.text)
            self.assertEqual((split.scheme, split.netloc), (found.server.scheme, found.server.authority))
            self.assertTrue(found.target.startswith("/"))
            self.assertTrue(found.target.isascii() and found.target.isprintable() and " " not in found.target)


class OwnerTests(SynchronousTestCase):
    def test_same(self) -> None:
        for host, other in (
            ("registry-1.docker.io", "auth.docker.io"),
            ("registry.gitlab.com", "gitlab.com"),
            ("quay.io", "quay.io"),
            ("Registry.Example.", "registry.example"),
            ("a.shop.co.uk", "auth.shop.co.uk"),
            ("localhost", "localhost"),
            ("127.0.0.1", "127.0.0.1"),
            ("::1", "::1"),
        ):
            self.assertTrue(same_owner(host, other), host)
            self.assertTrue(same_owner(other, host), host)

    def test_others(self) -> None:
        for host, other in (
            ("registry.example.com", "evil.com"),
            ("registry.example.com", "example.com.evil.com"),
            ("registry.example.com", "notexample.com"),
            ("a.co.uk", "b.co.uk"),
            ("gcr.io", "x.gcr.io"),
            ("x.ghe.io", "y.ghe.io"),
            ("127.0.0.1", "127.0.0.2"),
            ("10.0.0.1", "10.1.0.1"),
            ("localhost", "other"),
            ("a..com", "b..com"),
            (".com", "a.com"),
        ):
            self.assertFalse(same_owner(host, other), host)
            self.assertFalse(same_owner(other, host), host)

    @given(st.text("ab.-1:", max_size=12), st.text("ab.-1:", max_size=12))
    def test_anything(self, host: str, other: str) -> None:
        self.assertEqual(same_owner(host, other), same_owner(other, host))
        self.assertTrue(same_owner(host, host))
