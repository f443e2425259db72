"""The access log: Apache's combined format, one line for each request, and nothing in it that could forge another."""

from __future__ import annotations

import io
import json
import re
import time
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from regd.telemetry.access import AccessLog, _duration, combined, form_of

WHEN = 1795428000.9
LINE = re.compile(r'\S+ - - \[[^]]+\] "((?:[^"\\]|\\.)*)" \d{3} \d+ "((?:[^"\\]|\\.)*)" "((?:[^"\\]|\\.)*)" 0f-1')


class Logged:
    """What of a request is logged."""

    method, uri, clientproto = b"GET", b"/v2/", b"HTTP/1.1"
    code, sentLength = 200, 2
    id = "0f-1"
    began = 0.0
    user_name = ""

    def __init__(self, peer: IAddress | None = None, **headers: bytes) -> None:
        self._peer = peer or IPv4Address("TCP", "192.0.2.7", 1)
        self.requestHeaders = Headers()
        for name, value in headers.items():
            self.requestHeaders.addRawHeader(name.replace("_", "-").encode(), value)

    def getClientAddress(self) -> IAddress:
        return self._peer


def line(logged: Logged) -> str:
    return combined(logged, WHEN)


class CombinedTests(SynchronousTestCase):
    def test_line(self) -> None:
        self.assertEqual(line(Logged()), '192.0.2.7 - - [23/Nov/2026:10:00:00 +0000] "GET /v2/ HTTP/1.1" 200 2 "-" "-" 0f-1')
        self.assertTrue(line(Logged(referer=b"there", user_agent=b"docker/28")).endswith(' "there" "docker/28" 0f-1'))

    def test_the_time_moves(self) -> None:
        logged = Logged()
        for when, text in ((WHEN, "10:00:00"), (WHEN + 0.1, "10:00:01"), (WHEN + 3600, "11:00:00"), (WHEN, "10:00:00")):
            self.assertIn(f"[23/Nov/2026:{text} +0000]", combined(logged, when))

    def test_peers(self) -> None:
        for peer, text in (
            (IPv4Address("TCP", "127.0.0.1", 1), "127.0.0.1"),
            (IPv6Address("TCP", "::1", 1), "::1"),
            (IPv6Address("TCP", "::ffff:192.0.2.1", 1), "192.0.2.1"),
            (UNIXAddress(b"/run/x"), "-"),
            (UNIXAddress(None), "-"),
        ):
            self.assertTrue(line(Logged(peer)).startswith(f"{text} - - ["))

    def test_escapes(self) -> None:
        for raw, text in (
            (b'"', '\\"'),
            (b"\\", "\\\\"),
            (b"a\tb", "a\\x09b"),
            (b"\x1b[31m", "\\x1b[31m"),
            (b"\x7f", "\\x7f"),
            ("é".encode(), "é"),
            (b"\xff", "\\\\xff"),
            ("\x85\x9b\u2028".encode(), "\\x85\\x9b\\u2028"),
        ):
            self.assertTrue(line(Logged(user_agent=raw)).endswith(f' "{text}" 0f-1'), line(Logged(user_agent=raw)))

    @given(st.binary(), st.binary(), st.binary())
    def test_any_bytes(self, uri: bytes, referer: bytes, agent: bytes) -> None:
        logged = Logged(referer=referer.translate(None, b"\r\n\x00"), user_agent=agent.translate(None, b"\r\n\x00"))
        logged.uri = uri
        found = line(logged)
        self.assertIsNotNone(LINE.fullmatch(found), found)
        self.assertEqual(len(found.splitlines()), 1)
        found.encode("utf-8")


class FormTests(SynchronousTestCase):
    """The forms of the log, with the names of ``registry:2``."""

    def test_json(self) -> None:
        logged = Logged(host=b"registry.example", user_agent=b"docker/28")
        logged.began = time.perf_counter() - 0.25
        found = json.loads(form_of("json", {"service": "registry"})(logged, WHEN))
        self.assertRegex(found.pop("http.response.duration"), r"^2[5-9]\d(\.\d+)?ms$")
        self.assertAlmostEqual(found.pop("http.response.seconds"), 0.25, 1)
        self.assertEqual(
            found,
            {
                "level": "info",
                "msg": "response completed",
                "time": "2026-11-23T10:00:00.900000Z",
                "service": "registry",
                "http.request.id": "0f-1",
                "http.request.method": "GET",
                "http.request.uri": "/v2/",
                "http.request.remoteaddr": "192.0.2.7:1",
                "http.request.host": "registry.example",
                "http.request.useragent": "docker/28",
                "http.response.status": 200,
                "http.response.written": 2,
            },
        )

    def test_errors(self) -> None:
        logged = Logged()
        logged.code = 404
        found = json.loads(form_of("logstash", {})(logged, WHEN))
        self.assertEqual((found["level"], found["message"], found["@version"]), ("error", "response completed with error", "1"))

    def test_combined_has_no_further_fields(self) -> None:
        self.assertEqual(form_of("combined", {"service": "x"})(Logged(), WHEN), line(Logged()))

    def test_durations(self) -> None:
        for seconds, text in ((0.00049577, "495.77µs"), (0.001679306, "1.67931ms"), (1.5, "1.5s"), (90.0, "90s"), (0.0, "0µs")):
            self.assertEqual(_duration(seconds), text)

    @given(st.binary(), st.binary(), st.sampled_from(["text", "json", "logstash"]))
    def test_any_bytes(self, uri: bytes, agent: bytes, name: str) -> None:
        logged = Logged(user_agent=agent.translate(None, b"\r\n\x00"))
        logged.uri = uri
        found = form_of(name, {})(logged, WHEN)
        self.assertEqual(len(found.splitlines()), 1)
        found.encode("utf-8")
        if name != "text":
            json.loads(found)


class AccessLogTests(SynchronousTestCase):
    def test_each_line_is_flushed(self) -> None:
        flushed = []

        class Stream(io.StringIO):
            def flush(self) -> None:
                flushed.append(self.getvalue())

        log = AccessLog(Stream(), clock=lambda: WHEN)
        log(Logged())
        log(Logged())
        self.assertEqual([text.count("\n") for text in flushed], [1, 2])

    def test_a_stream_that_fails(self) -> None:
        closed: Any = io.StringIO()
        closed.close()
        AccessLog(closed)(Logged())
