"""Clients of plain HTTP, sent to where TLS is spoken."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from regd.web.dispatch import Dispatcher
from regd.web.factory import StreamingSite
from regd.web.redirect import Redirect
from tests.web.wire import Client


class RedirectTests(SynchronousTestCase):
    def location(self, target: str, host: str = "hub.example", *, method: str = "GET", base: str = "", port: int = 443) -> tuple[int, str]:
        clock = Clock()
        site = StreamingSite(Redirect(Dispatcher({}), lambda: base, lambda: port), lambda request: None, clock)
        answer = Client(site, clock).ask(method, target, [("Host", host)] if host else [("Host", "")])
        return answer.status, answer.get("Location") or ""

    def test_to_the_host_that_was_asked_for(self) -> None:
        for host, port, origin in (
            ("hub.example", 443, "https://hub.example"),
            ("hub.example:80", 443, "https://hub.example"),
            ("hub.example:8080", 8443, "https://hub.example:8443"),
            ("[::1]:80", 8443, "https://[::1]:8443"),
            ("[::1]", 443, "https://[::1]"),
        ):
            self.assertEqual(self.location("/v2/a/b?c=d%20e", host, port=port), (301, f"{origin}/v2/a/b?c=d%20e"))

    def test_to_what_the_operator_says(self) -> None:
        self.assertEqual(self.location("/v2/", "other.example", base="https://hub.example:1"), (301, "https://hub.example:1/v2/"))

    def test_what_changes_something_is_to_be_sent_again(self) -> None:
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            self.assertEqual(self.location("/v2/a/blobs/uploads/", method=method)[0], 308)
        self.assertEqual(self.location("/", method="HEAD")[0], 301)

    def test_other_forms_of_targets(self) -> None:
        self.assertEqual(self.location("http://hub.example/v2/"), (301, "https://hub.example/v2/"))

    def test_nobody_knows_where_to(self) -> None:
        for host in ("", "a b", "evil.example/path", "a@b", "x" * 300 + ":99999999"):
            self.assertEqual(self.location("/", host)[0], 400, host)
