"""The id of a request: in its answer, whoever answers, in the access log, and in every line of the log."""

from __future__ import annotations

import io
import json

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress
from twisted.logger import globalLogPublisher

from regd.asked import LONGEST, current_id, valid_id
from regd.storage.driver import StorageError
from regd.telemetry.logs import LineObserver
from tests.web.support import MINIMAL, ApiCase, failing, late

TRUSTED = IPv4Address("TCP", "10.1.2.3", 40000)
STRANGER = IPv4Address("TCP", "192.0.2.9", 40000)


class IdCase(ApiCase):
    config = f"{MINIMAL}reverseproxy: {{trusted: [10.0.0.0/8, 'fd00::/8']}}\nhttp: {{limits: {{header: 2048}}}}\n"

    def setUp(self) -> None:
        super().setUp()
        self.service.serving.start()

    def logged(self) -> list[tuple[str, str]]:
        """Status and id of each line of the access log."""
        return [(line.split('" ')[1].split()[0], line.split()[-1]) for line in self.access.getvalue().splitlines()]


class AnswerTests(IdCase):
    def test_of_every_answer(self) -> None:
        """Those of handlers, of the routes, of Twisted, and those to what is no request."""
        self.push_image("a/b", "v1")
        self.access.truncate(0)
        self.access.seek(0)
        found: list[tuple[str, str]] = []
        for method, target, headers in (
            ("GET", "/v2/", []),
            ("HEAD", "/v2/", []),
            ("GET", "/v2/a/b/manifests/v1", []),
            ("GET", "/v2/a/b/manifests/none", []),
            ("GET", "/nowhere", []),
            ("PATCH", "/v2/", []),
            ("OPTIONS", "*", []),
            ("GET", "/v2", []),
            ("GET", "/v2/", [("If-None-Match", "*")]),
        ):
            answer = self.client().ask(method, target, headers)
            found.append((str(answer.status), answer["X-Request-Id"]))
        two_hosts = b"GET /v2/ HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"
        for raw in (b"nonsense\r\n\r\n", two_hosts, b"\x16\x03\x01", b"GET /" + b"x" * 5000 + b"\r\n"):
            client = self.client()
            client.send(raw)
            (answer,) = client.answers
            self.assertEqual(answer.status, 400)
            found.append(("400", answer["X-Request-Id"]))
        self.assertEqual(self.logged(), found)
        self.assertEqual(len({one for _, one in found}), len(found))
        self.assertIn('"GET /v2/ HTTP/1.1" 400 ', self.access.getvalue())

    def test_a_body_that_is_wrong(self) -> None:
        """The request has begun, and the 400 is its answer: one line, with its id."""
        path = self.begin("a/b")
        self.access.truncate(0)
        self.access.seek(0)
        client = self.client()
        client.send(b"PATCH %b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n" % path.encode())
        (answer,) = client.answers
        self.assertEqual(answer.status, 400)
        client.leave()
        self.assertEqual(self.logged(), [("400", answer["X-Request-Id"])])

    def test_one_connection(self) -> None:
        client = self.client()
        found = [client.ask("GET", "/v2/")["X-Request-Id"] for _ in range(3)]
        self.assertEqual(len(set(found)), 3)
        self.assertEqual([one for _, one in self.logged()], found)

    def test_configured_headers_do_not_win(self) -> None:
        self.build(self.config.replace("limits:", "headers: {x-request-id: [mine], X-A: [b]}, limits:"))
        answer = self.ask("GET", "/v2/")
        self.assertNotIn("mine", answer.all("X-Request-Id"))
        self.assertEqual(answer["X-A"], "b")


class TrustTests(IdCase):
    def said(self, peer: IAddress, *ids: str | bytes) -> str:
        return self.ask("GET", "/v2/", [("X-Request-Id", one) for one in ids], peer=peer)["X-Request-Id"]

    def test_whom_is_believed(self) -> None:
        for peer in (TRUSTED, IPv6Address("TCP", "::ffff:10.0.0.1", 1), IPv6Address("TCP", "fd00::1", 1)):
            self.assertEqual(self.said(peer, "from-the-proxy"), "from-the-proxy")
            self.assertEqual(self.logged()[-1][1], "from-the-proxy")
        for other in (STRANGER, UNIXAddress(b"/run/x"), IPv6Address("TCP", "::1", 1)):
            self.assertNotEqual(self.said(other, "from-the-proxy"), "from-the-proxy")

    def test_what_is_taken(self) -> None:
        for said in ("", "a b", "x" * (LONGEST + 1), "a\tb", 'a"', "é"):
            self.assertNotEqual(self.said(TRUSTED, said), said)
        self.assertNotIn(self.said(TRUSTED, "one", "two"), {"one", "two"})

    @settings(deadline=None)
    @given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=140))
    def test_any_text(self, said: str) -> None:
        found = self.said(TRUSTED, said)
        self.assertEqual(found == said.strip(), valid_id(said.strip().encode()))
        self.assertTrue(valid_id(found.encode()))

    def test_configured_anew(self) -> None:
        self.build(MINIMAL)
        self.assertNotEqual(self.said(TRUSTED, "from-the-proxy"), "from-the-proxy")


class LineTests(IdCase):
    def setUp(self) -> None:
        super().setUp()
        self.lines = io.StringIO()
        observer = LineObserver(self.lines, "debug", "json", {})
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def test_lines_of_a_request(self) -> None:
        self.build(self.config, failing(lambda: StorageError("/x: Input/output error"), "open", "read", "stat"))
        digest = self.push_blob("a/b", b"x")
        self.driver.broken = True
        answer = self.client(STRANGER).ask("GET", f"/v2/a/b/blobs/{digest}", [("User-Agent", "probe/1"), ("Referer", "there")])
        self.assertEqual(answer.status, 503)
        told = [line for line in map(json.loads, self.lines.getvalue().splitlines()) if line["level"] == "error"]
        self.assertEqual(len(told), 1, told)
        self.assertEqual(told[0]["http.request.id"], answer["X-Request-Id"])
        self.assertEqual(told[0]["http.request.method"], "GET")
        self.assertEqual(told[0]["http.request.uri"], f"/v2/a/b/blobs/{digest}")
        self.assertEqual(told[0]["http.request.remoteaddr"], "192.0.2.9:40000")
        self.assertEqual(told[0]["http.request.host"], "registry.example:5000")
        self.assertEqual(told[0]["http.request.useragent"], "probe/1")
        self.assertEqual(told[0]["http.request.referer"], "there")

    def test_nothing_is_left_of_it(self) -> None:
        self.build(self.config, late(self.clock))
        self.push_blob("a/b", b"x")
        self.ask("GET", "/v2/nowhere")
        self.assertEqual(current_id(), "")


class CostTests(IdCase):
    def test_attributes_share_their_names(self) -> None:
        """
        CPython 3.11 lets the instances of a class share 30 names. One more, and it keeps a table of names for each request: 1.5 KiB, and a
        hundredth of the time of a small one. Some are left for those that only some requests have.
        """
        found: list[int] = []
        self.site._log_access = lambda request: found.append(len(vars(request)))
        self.ask("GET", "/v2/")
        self.ask("GET", "/v2/a/tags/list", [("X-Request-Id", "x")], peer=TRUSTED)
        self.ask("POST", "/v2/a/blobs/uploads/", body=b"")
        self.assertLessEqual(max(found), 28)
