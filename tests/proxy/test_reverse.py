"""Which route a request takes."""

from __future__ import annotations

import posixpath
from urllib.parse import unquote_to_bytes

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regd.proxy.reverse import plain_path
from tests.web.support import ApiCase


class PlainPathTests(SynchronousTestCase):
    def test_as_it_is_understood(self) -> None:
        for path, plain in (
            (b"/v2/", b"/v2/"),
            (b"/v2/a%2fb", b"/v2/a/b"),
            (b"/%76%32/", b"/v2/"),
            (b"/v2/../admin", b"/admin"),
            (b"/v2/..%2fadmin", b"/admin"),
            (b"/v2/%2e%2e/admin", b"/admin"),
            (b"//v2//x/", b"/v2/x/"),
            (b"/v2/./x/.", b"/v2/x/"),
            (b"/v2/x/..", b"/v2/"),
            (b"/..", None),
            (b"/v2/../../x", None),
            (b"x:443", None),
            (b"/a..b/.c", b"/a..b/.c"),
        ):
            self.assertEqual(plain_path(path), plain, path)

    @given(st.lists(st.sampled_from([b"/", b"a", b".", b"..", b"%2e", b"%2F", b"v2", b"%"]), max_size=10).map(b"".join))
    def test_as_posix_has_it(self, path: bytes) -> None:
        found = plain_path(path)
        if found is not None:
            wanted = posixpath.normpath(b"/" + unquote_to_bytes(path).lstrip(b"/"))
            self.assertEqual(found.rstrip(b"/") or b"/", wanted)
            self.assertNotIn(b"..", found.split(b"/"))


class RoutingTests(ApiCase):
    """Where nobody is asked: what regd answers by itself."""

    config = (
        "version: 0.1\nhttp: {headers: {X-Mine: [a]}}\n"
        "reverseproxy: {routes: [{path: /v1/, status: 404}, {path: /gone, status: 410}, {path: /fine, status: 204},"
        " {path: /v2/closed/, status: 503}, {host: a.example, path: /, status: 403}, {path: /ui/, upstreams: ['http://127.0.0.1:1']}]}\n"
    )

    def setUp(self) -> None:
        super().setUp()
        self.service.serving.start()

    def status(self, target: str, host: str = "x") -> tuple[int, str | None]:
        answer = self.client().ask("GET", target, [("Host", host)])
        return answer.status, answer.get("Content-Type")

    def test_first_match(self) -> None:
        text, envelope = "text/plain; charset=utf-8", "application/json"
        for target, host, status, kind in (
            ("/v1/x", "x", 404, text),
            ("/v1", "x", 404, text),
            ("/gone/x", "x", 410, text),
            ("/fine", "x", 204, None),
            ("/v2/closed/x", "x", 503, envelope),
            ("/v2/", "x", 404, envelope),
            ("/", "A.example:8080", 403, text),
            ("/v2/", "a.example.", 403, envelope),
            ("/v1/", "a.example", 404, text),
            ("/ui", "x", 301, None),
            ("/other", "x", 404, text),
            ("/..", "x", 400, text),
        ):
            self.assertEqual(self.status(target, host), (status, kind), (target, host))

    def test_headers(self) -> None:
        answer = self.client().ask("GET", "/ui?a=b")
        self.assertEqual((answer["Location"], answer["X-Mine"]), ("/ui/?a=b", "a"))
        self.assertEqual(self.client().ask("GET", "/v2/")["Docker-Distribution-Api-Version"], "registry/2.0")
        self.assertIsNone(self.client().ask("GET", "/v1/").get("Docker-Distribution-Api-Version"))

    def test_hosts_that_are_none(self) -> None:
        for host in ("", "a b", "a/b", "u@a"):
            answer = self.client().ask("GET", "/ui/", [("Host", host)])
            self.assertEqual((answer.status, answer["Connection"]), (400, "close"))
