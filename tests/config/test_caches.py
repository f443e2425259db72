"""``proxy``: the pull-through cache, in both its forms."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from regd.config import CacheLimits, CacheUpstream, PullThrough, TCPAddress, Timeouts, Upstream, UpstreamTLS, check
from regd.config.caching import parse_remote
from tests.config.support import MINIMAL, ConfigCase

HUB = Upstream("https", TCPAddress("registry-1.docker.io", 443), "registry-1.docker.io")
URL = "remoteurl: 'https://registry-1.docker.io'"
SECRET = "hunter2"


class WholeTests(ConfigCase):
    """registry:2's form: all of the registry is the cache of one upstream."""

    def test_nothing(self) -> None:
        for text in ("", "proxy:", "proxy: {}", "proxy: {remoteurl: }", "proxy: {remoteurl: '', username: '', upstreams: []}"):
            self.assertEqual(self.config(text).proxy, PullThrough())
            self.assertEqual(self.warnings(text), ())
        self.assertIsNone(PullThrough().whole)

    def test_a_file_of_registry_2(self) -> None:
        proxy = self.config(f"proxy: {{{URL}, username: someone, password: {SECRET}, ttl: 24h}}").proxy
        (upstream,) = proxy.upstreams
        self.assertEqual(upstream, CacheUpstream("", HUB, "someone", SECRET))
        self.assertEqual((upstream.tagttl, upstream.stale, upstream.tokenhosts), (60.0, 86400.0, ()))
        self.assertEqual(upstream.timeouts, Timeouts(10.0, 60.0, 60.0))
        self.assertEqual(proxy.limits, CacheLimits(None, 86400.0, 3600.0))
        self.assertIs(proxy.whole, upstream)

    def test_environment_of_registry_2(self) -> None:
        found = self.load(
            MINIMAL,
            REGISTRY_PROXY_REMOTEURL="https://registry-1.docker.io",
            REGISTRY_PROXY_USERNAME="someone",
            REGISTRY_PROXY_PASSWORD="{0123: [",
            REGISTRY_PROXY_TTL="0",
        )
        self.assertEqual(found.config.proxy.upstreams, (CacheUpstream("", HUB, "someone", "{0123: ["),))
        self.assertIsNone(found.config.proxy.limits.maxage)
        self.assertEqual(found.warnings, ())

    def test_ages(self) -> None:
        for text, age in (
            ("", 604800.0),
            (", ttl: 0", None),
            (", ttl: 0s", None),
            (", cache: {maxage: 48h}", 172800.0),
            (", ttl: 1h, cache: {maxage: 48h}", 172800.0),
            (", cache: {maxage: none}", None),
            (", cache: {maxage: 0}", None),
            (", ttl: 1h, cache: {maxage: }", 3600.0),
        ):
            self.assertEqual(self.config(f"proxy: {{{URL}{text}}}").proxy.limits.maxage, age, text)

    def test_limits(self) -> None:
        self.assertFalse(CacheLimits().limited)
        found = self.config(f"proxy: {{{URL}, cache: {{maxsize: 50GiB, interval: 10m}}}}").proxy.limits
        self.assertEqual(found, CacheLimits(50 * 1024**3, 604800.0, 600.0))
        self.assertTrue(found.limited)
        self.assertEqual(self.config(f"proxy: {{{URL}, cache: {{maxsize: 1GB}}}}").proxy.limits.maxsize, 10**9)
        self.assertIsNone(self.config(f"proxy: {{{URL}, cache: {{maxsize: none}}}}").proxy.limits.maxsize)
        for text in ("0", "-1", "50XB", "0GiB", "all"):
            self.assertIn("none, or a size", self.refused(f"proxy: {{{URL}, cache: {{maxsize: {text}}}}}", "proxy.cache.maxsize (line 3)"))
        for text in ("-1s", "5 days"):
            self.refused(f"proxy: {{{URL}, cache: {{maxage: {text}}}}}", "proxy.cache.maxage (line 3): found ")
            self.refused(f"proxy: {{{URL}, ttl: {text}}}", "proxy.ttl (line 3): found ")
        self.refused(f"proxy: {{{URL}, cache: {{interval: 1ms}}}}", "proxy.cache.interval (line 3): found ")
        (warning,) = self.warnings(f"proxy: {{{URL}, cache: {{interval: 1s}}}}")
        self.assertIn("proxy.cache.interval (line 3): a run less than a minute", warning)

    def test_all_of_it(self) -> None:
        (upstream,) = self.config(
            f"proxy: {{{URL}, tagttl: 0s, stale: 1h, tls: {{servername: x.y, clientcertificate: /c, clientkey: /k}}, cafile: /ca,"
            " timeouts: {read: 5s}, tokenhosts: [AUTH.example.com]}"
        ).proxy.upstreams
        self.assertEqual((upstream.tagttl, upstream.stale), (0.0, 3600.0))
        self.assertEqual(upstream.tls, UpstreamTLS("/ca", "x.y", "/c", "/k"))
        self.assertEqual(upstream.timeouts, Timeouts(10.0, 5.0, 60.0))
        self.assertEqual(upstream.tokenhosts, ("auth.example.com",))

    def test_urls(self) -> None:
        for text in ("registry-1.docker.io", "ftp://x", "https://", "unix:/run/x.sock", "https://x?y", "https://x#y", "https://x:0"):
            line = self.refused(f"proxy: {{remoteurl: '{text}'}}", "proxy.remoteurl (line 3): found ")
            self.assertIn("the URL of a registry" if ":0" not in text else "host", line)
        line = self.refused("proxy: {remoteurl: 'https://x/mirror'}", "proxy.remoteurl (line 3): found ")
        self.assertIn("names below a path are written in what is pulled", line)
        self.assertEqual(self.config("proxy: {remoteurl: 'HTTPS://[::1]:5/'}").proxy.upstreams[0].remote.address, TCPAddress("::1", 5))

    def test_what_says_nothing_without_an_upstream(self) -> None:
        self.assertEqual(
            self.warnings("proxy:\n  username: u\n  tls: {cafile: /x}\n  cache: {maxsize: 1GiB}"),
            (
                "proxy.username (line 4), proxy.tls (line 5): nothing to do without proxy.remoteurl",
                "proxy.cache.maxsize (line 6): nothing to do without proxy.remoteurl or proxy.upstreams",
            ),
        )

    def test_what_does_not_go_together(self) -> None:
        for text, said in (
            (f"{URL}, username: someone", "username and password, or neither"),
            (f"{URL}, password: {SECRET}", "username and password, or neither"),
            (f"{URL}, cafile: /a, tls: {{cafile: /b}}", "and not both"),
            ("remoteurl: 'http://x', cafile: /a", "https://"),
        ):
            line = self.problem(MINIMAL + f"proxy: {{{text}}}")
            self.assertTrue(line.startswith("proxy.remoteurl (line 3): allowed is "), line)
            self.assertIn(said, line)
            self.assertNotIn(SECRET, line)
        self.refused(f"proxy: {{{URL}, upstreams: [{{prefix: a, {URL}}}]}}", "proxy.upstreams (line 3): found it beside proxy.remoteurl")
        self.refused(f"proxy: {{{URL}, tls: {{clientkey: /k}}}}", "proxy.tls (line 3): ")

    def test_each_problem_once(self) -> None:
        self.assertEqual(len(check(self.file(MINIMAL + "proxy: {tagttl: x, cache: {maxsize: y}}"), {}).lines), 3)

    def test_surroundings(self) -> None:
        line = self.problem("version: 0.1\nstorage: {inmemory: , maintenance: {readonly: {enabled: true}}}\nproxy: {" + URL + "}")
        self.assertTrue(line.startswith("proxy.remoteurl (line 3): found it beside storage.maintenance.readonly.enabled: true"), line)
        routes = "reverseproxy: {routes: [{path: /, upstreams: ['http://u']}]}"
        line = self.problem(f"version: 0.1\n{routes}\nproxy: {{upstreams: [{{prefix: a, {URL}}}]}}")
        self.assertTrue(line.startswith("proxy.upstreams (line 3): found it without storage"), line)

    def test_plain_text(self) -> None:
        known = f"username: u, password: {SECRET}"
        (warning,) = self.warnings(f"proxy: {{remoteurl: 'http://hub.example.com', {known}}}")
        self.assertIn("proxy.remoteurl (line 3): the password for http://hub.example.com goes there in plain text", warning)
        self.assertNotIn(SECRET, warning)
        for host in ("localhost", "127.0.0.1:5000", "[::1]:5000"):
            self.assertEqual(self.warnings(f"proxy: {{remoteurl: 'http://{host}', {known}}}"), ())
        self.assertEqual(self.warnings("proxy: {remoteurl: 'http://hub.example.com'}"), ())

    def test_what_is_not_obeyed(self) -> None:
        exec_, timeout = self.warnings(f"proxy: {{{URL}, exec: {{command: /bin/x, lifetime: 1h}}, cachewritetimeout: 5m}}")
        self.assertIn("no program is asked for credentials", exec_)
        self.assertIn("as long as bytes come", timeout)

    @given(st.text(max_size=40) | st.from_regex(r"https?:/{0,3}[a-z0-9.:\[\]@/?#-]{0,30}", fullmatch=True))
    def test_any_url(self, text: str) -> None:
        self.check_written_again(parse_remote, text)


class UpstreamsTests(ConfigCase):
    """Any number of upstreams, beside repositories that are local."""

    def test_all_of_it(self) -> None:
        proxy = self.config(
            "proxy:\n  upstreams:\n"
            f"    - {{prefix: docker.io, {URL}, tagttl: 2m, stale: 1h, username: u, password: {SECRET}, cafile: /ca}}\n"
            "    - {prefix: mirrors/quay.io, remoteurl: 'https://quay.io:8443', tls: {cafile: /x}, timeouts: {connect: 1s},"
            " tokenhosts: [t]}\n"
            "  cache: {maxsize: 50GiB, maxage: 720h}"
        ).proxy
        quay = Upstream("https", TCPAddress("quay.io", 8443), "quay.io:8443")
        self.assertEqual(
            proxy.upstreams,
            (
                CacheUpstream("docker.io", HUB, "u", SECRET, 120.0, 3600.0, UpstreamTLS("/ca")),
                CacheUpstream("mirrors/quay.io", quay, tls=UpstreamTLS("/x"), timeouts=Timeouts(1.0, 60.0, 60.0), tokenhosts=("t",)),
            ),
        )
        self.assertEqual(proxy.limits, CacheLimits(50 * 1024**3, 2592000.0))
        self.assertIsNone(proxy.whole)

    def test_no_age_of_its_own(self) -> None:
        found = self.load(MINIMAL + f"proxy: {{ttl: 1h, upstreams: [{{prefix: a, {URL}}}]}}")
        self.assertIsNone(found.config.proxy.limits.maxage)
        self.assertEqual(found.warnings, ("proxy.ttl (line 3): nothing to do without proxy.remoteurl",))

    def test_nothing_behind_a_key_is_its_default(self) -> None:
        (found,) = self.config(f"proxy: {{upstreams: [{{prefix: a, {URL}, username: , password: , tls: , tagttl: }}]}}").proxy.upstreams
        self.assertEqual(found, CacheUpstream("a", HUB))

    def test_what_is_wrong_says_where(self) -> None:
        for text, key, said in (
            ("docker.io", "", "a map with prefix and remoteurl"),
            ("{prefix: a}", "", "a map with prefix and remoteurl"),
            (f"{{{URL}}}", "", "a map with prefix and remoteurl"),
            (f"{{prefix: , {URL}}}", ".prefix", "a value"),
            (f"{{prefix: '', {URL}}}", ".prefix", "what the names of repositories begin with"),
            (f"{{prefix: A, {URL}}}", ".prefix", "what the names of repositories begin with"),
            (f"{{prefix: a/, {URL}}}", ".prefix", "without a slash at its end"),
            ("{prefix: a, remoteurl: ''}", ".remoteurl", "the URL of a registry"),
            ("{prefix: a, remoteurl: 'https://x/y'}", ".remoteurl", "names below a path"),
            (f"{{prefix: a, {URL}, username: u}}", "", "username and password, or neither"),
            (f"{{prefix: a, {URL}, username: 'a:b', password: c}}", ".username", "without colons"),
            (f"{{prefix: a, {URL}, tagttl: 60}}, {{prefix: a, {URL}}}", "", "each prefix once; a is there twice"),
            (f"{{prefix: a, {URL}, tagttl: 1}}, x", "[1]", "a map"),
            (f"{{prefix: a, {URL}, tokenhosts: ['https://x']}}", ".tokenhosts[0]", "without scheme and port"),
            (f"{{prefix: a, {URL}, ttl: 1h}}", ".ttl", "the nearest is"),
        ):
            with self.subTest(text):
                line = self.problem(MINIMAL + f"proxy: {{upstreams: [{text}]}}")
                place = f"proxy.upstreams{key}" if key.startswith("[") or "twice" in said else f"proxy.upstreams[0]{key}"
                self.assertTrue(line.startswith(f"{place} (line 3): "), line)
                self.assertIn(said, line)

    def test_environment(self) -> None:
        loaded = self.load(
            MINIMAL + f"proxy: {{upstreams: [{{prefix: a, {URL}, username: u}}]}}",
            REGISTRY_PROXY_UPSTREAMS_0_PASSWORD="0123",
            REGISTRY_PROXY_UPSTREAMS_1="{prefix: b, remoteurl: 'https://quay.io'}",
            REGISTRY_PROXY_CACHE_MAXSIZE="1GiB",
        )
        self.assertEqual([found.password for found in loaded.config.proxy.upstreams], ["0123", ""])
        self.assertEqual(loaded.config.proxy.limits.maxsize, 1024**3)
        self.assertEqual(loaded.warnings, ())


class SecretsTests(ConfigCase):
    """Neither part of the credentials is shown, whatever is right or wrong."""

    WHOLE = f"proxy: {{{URL}, username: someone, password: {SECRET}}}"
    LISTED = f"proxy: {{upstreams: [{{prefix: a, {URL}, username: someone, password: {SECRET}}}]}}"

    def test_what_is_in_effect(self) -> None:
        for text, shown in (
            (self.WHOLE, "proxy.password: set"),
            (self.LISTED, "proxy.upstreams: [{prefix: a, remoteurl: https://registry-1.docker.io, username: set, password: set}]"),
        ):
            loaded = self.load(MINIMAL + text)
            report = check(loaded.path, {})
            self.assertTrue(report.ok)
            self.assertIn(shown, report.lines)
            self.assertNotIn("proxy.ttl", "".join(report.lines))
            for said in ("\n".join(report.lines), repr(loaded), str(loaded.config.proxy), repr(loaded.config.proxy.upstreams)):
                self.assertNotIn(SECRET, said)
                self.assertNotIn("someone", said)

    def test_errors(self) -> None:
        for text in (
            f"proxy: {{{URL}, username: u, password: [{SECRET}]}}",
            f"proxy: {{{URL}, username: u, password: {{a: {SECRET}}}}}",
            f'proxy: {{{URL}, username: u, password: "{SECRET}\\n"}}',
            f"proxy: {{{URL}, username: '{SECRET}:x', password: p}}",
            f"proxy: {{remoteurl: 'https://u:{SECRET}@x'}}",
            f"proxy: {{upstreams: [{{prefix: a, {URL}, password: {SECRET}}}]}}",
            f"proxy: {{upstreams: [{{prefix: a, {URL}, password:{SECRET}}}]}}",
            f"proxy: {{upstreams: [{{prefix: a, {URL}, username: u, password: [{SECRET}]}}]}}",
            f"proxy: {{upstreams: [{{prefix: a, {URL}, username: u, password: '{SECRET}', x: y}}]}}",
        ):
            with self.subTest(text):
                report = check(self.file(MINIMAL + text), {})
                self.assertFalse(report.ok, report.lines)
                self.assertNotIn(SECRET, "\n".join(report.lines))

    def test_warnings(self) -> None:
        for text in (f"proxy: {{password:{SECRET}}}", f"proxy: {{password: {SECRET}}}"):
            (warning,) = self.warnings(text)
            self.assertNotIn(SECRET, warning)
