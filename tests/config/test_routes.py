"""``reverseproxy.routes`` and ``http.limits``."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from regd.config import HealthCheck, Limits, NoStorage, Route, TCPAddress, Timeouts, UnixAddress, Upstream, UpstreamTLS
from regd.config.proxying import parse_upstream
from tests.config.support import ConfigCase

ONLY = "version: 0.1\n"
UP = "upstreams: ['http://u:1']"


class RoutesTests(ConfigCase):
    def routes(self, text: str) -> tuple[Route, ...]:
        return self.load(f"{ONLY}reverseproxy: {{routes: [{text}]}}").config.reverseproxy.routes

    def wrong(self, text: str, key: str) -> str:
        line = self.problem(f"{ONLY}reverseproxy: {{routes: [{text}]}}")
        self.assertTrue(line.startswith(f"reverseproxy.routes[0]{key} (line 2): "), line)
        return line

    def test_all_of_it(self) -> None:
        found = self.routes(
            "{path: /v1/, status: 404},"
            " {path: /v2/, upstreams: ['http://127.0.0.1:5001', 'unix:/run/x.sock'], healthcheck: {path: /v2/, interval: 5s, threshold: 2},"
            "  timeouts: {connect: 1s, read: 2s, write: 3s}},"
            " {host: HUB.example.com, path: /, upstreams: ['https://10.0.0.9'],"
            "  tls: {cafile: /ca, servername: x.y, clientcertificate: /c, clientkey: /k}}"
        )
        self.assertEqual(
            found,
            (
                Route("/v1/", status=404),
                Route(
                    "/v2/",
                    upstreams=(
                        Upstream("http", TCPAddress("127.0.0.1", 5001), "127.0.0.1:5001"),
                        Upstream("http", UnixAddress("/run/x.sock"), "localhost"),
                    ),
                    healthcheck=HealthCheck("/v2/", 5.0, 2),
                    timeouts=Timeouts(1.0, 2.0, 3.0),
                ),
                Route(
                    "/",
                    host="hub.example.com",
                    upstreams=(Upstream("https", TCPAddress("10.0.0.9", 443), "10.0.0.9"),),
                    tls=UpstreamTLS("/ca", "x.y", "/c", "/k"),
                ),
            ),
        )

    def test_defaults(self) -> None:
        (found,) = self.routes(f"{{path: /, {UP}, healthcheck: {{path: /v2/}}}}")
        self.assertEqual(found.timeouts, Timeouts(10.0, 900.0, 60.0))
        self.assertEqual(found.healthcheck, HealthCheck("/v2/", 10.0, 3))

    def test_what_is_wrong_says_where(self) -> None:
        for text, key, said in (
            ("/v2/", "", "a map with path"),
            (f"{{{UP}}}", "", "a map with path"),
            ("{path: /}", "", "either status or upstreams"),
            (f"{{path: /, status: 404, {UP}}}", "", "either status or upstreams"),
            ("{path: /, upstreams: []}", "", "either status or upstreams"),
            (f"{{path: v2, {UP}}}", ".path", "beginning with /"),
            (f"{{path: /a/../b, {UP}}}", ".path", "without percent signs, //, . and .."),
            (f"{{path: /%61, {UP}}}", ".path", "without percent signs"),
            (f"{{path: /, host: 'http://x', {UP}}}", ".host", "without scheme and port"),
            (f"{{path: /, host: 'x:80', {UP}}}", ".host", "without scheme and port"),
            ("{path: /, status: 302}", ".status", "200, 204, or a status from 400 to 599"),
            ("{path: /, status: yes}", ".status", "200, 204"),
            ("{path: /, upstreams: ['ftp://x']}", ".upstreams[0]", "http://host[:port]"),
            ("{path: /, upstreams: ['http://u:p@x']}", ".upstreams[0]", "without user"),
            ("{path: /, upstreams: ['http://x/v2/']}", ".upstreams[0]", "path"),
            ("{path: /, upstreams: ['http://x:0']}", ".upstreams[0]", "http://host[:port]"),
            ("{path: /, upstreams: ['unix:run/x.sock']}", ".upstreams[0]", "unix:/path/of/socket"),
            ("{path: /, upstreams: ['http://m\u00fcnchen']}", ".upstreams[0]", "xn--"),
            ("{path: /, upstreams: ['http://u', 'http://u']}", "", "each upstream once"),
            (f"{{path: /, {UP}, upstream: x}}", ".upstream", ""),
            (f"{{path: /, {UP}, tls: {{cafile: /x}}}}", "", "an upstream with https://"),
            ("{path: /, upstreams: ['https://x'], tls: {clientkey: /x}}", ".tls", "clientcertificate and clientkey, or neither"),
            ("{path: /, upstreams: ['https://x'], tls: {cafile: ''}}", ".tls.cafile", "the path of a file"),
            (f"{{path: /, {UP}, healthcheck: {{}}}}", ".healthcheck", "a map with path"),
            (f"{{path: /, {UP}, healthcheck: {{path: /, interval: 1ms}}}}", ".healthcheck.interval", "of at least 100ms"),
            (f"{{path: /, {UP}, healthcheck: {{path: /, threshold: 0}}}}", ".healthcheck.threshold", "at least 1"),
            (f"{{path: /, {UP}, timeouts: {{read: 5}}}}", ".timeouts.read", "of at least 10ms"),
            ("{path: /, status: 404, timeouts: {read: 5s}}", "", "upstreams beside timeouts"),
        ):
            with self.subTest(text):
                self.assertIn(said, self.wrong(text, key))

    def test_passwords_are_not_shown(self) -> None:
        self.assertNotIn("secret", self.wrong("{path: /, upstreams: ['http://user:secret@x']}", ".upstreams[0]"))

    def test_environment(self) -> None:
        text = f"{ONLY}reverseproxy: {{routes: [{{path: /, {UP}}}]}}"
        loaded = self.load(text, REGISTRY_REVERSEPROXY_ROUTES_0_UPSTREAMS_0="http://v:2", REGISTRY_REVERSEPROXY_ROUTES_0_TIMEOUTS_READ="5s")
        (route,) = loaded.config.reverseproxy.routes
        self.assertEqual((str(route.upstreams[0]), route.timeouts.read), ("http://v:2", 5.0))
        self.assertEqual(loaded.warnings, ())

    def test_storage(self) -> None:
        text = f"reverseproxy: {{routes: [{{path: /, {UP}}}]}}\n"
        self.assertEqual(self.load(ONLY + text).config.storage.driver, NoStorage())
        self.assertFalse(self.load(ONLY + text).config.storage.maintenance.uploadpurging.enabled)
        self.assertNotEqual(self.config(text).storage.driver, NoStorage())
        # Without routes there is nothing to do without storage.
        self.assertIn("found no driver", self.problem(f"{ONLY}reverseproxy: {{routes: []}}"))
        dead = f"{{path: /v2/mirror/, {UP}}}"
        line = self.problem(f"version: 0.1\nstorage: inmemory\nreverseproxy: {{routes: [{dead}]}}")
        self.assertTrue(line.startswith("reverseproxy.routes[0].path"), line)
        self.assertIn("or a host beside it", line)
        self.config(f"reverseproxy: {{routes: [{{path: /v2/, host: x, {UP}}}]}}")
        # The registry's own paths are below its prefix.
        self.config(f"http: {{prefix: /r/}}\nreverseproxy: {{routes: [{dead}]}}")

    @given(st.text(max_size=40) | st.from_regex(r"(https?|unix):/{0,3}[a-z0-9.:\[\]@/-]{0,30}", fullmatch=True))
    def test_any_upstream(self, text: str) -> None:
        self.check_written_again(parse_upstream, text)


class LimitsTests(ConfigCase):
    def test_sizes(self) -> None:
        self.assertEqual(self.config().http.limits, Limits(16384, 16384, 500))
        found = self.config("http: {limits: {line: 8KiB, header: 32k, fields: 20}}").http.limits
        self.assertEqual(found, Limits(8192, 32768, 20))
        for text in ("line: 1", "header: 1MiB", "fields: 5", "line: 8XB", "line: -1"):
            key = text.partition(":")[0]
            self.refused(f"http: {{limits: {{{text}}}}}", f"http.limits.{key} (line 3): found ")

