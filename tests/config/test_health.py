"""``health``, ``http.debug.prometheus``: how they are read."""

from __future__ import annotations

from regd.config import FileCheck, HealthChecks, HTTPCheck, Prometheus, StorageCheck, TCPAddress, TCPCheck
from tests.config.support import ConfigCase


class HealthTests(ConfigCase):
    def test_nothing(self) -> None:
        self.assertEqual(self.config().health, HealthChecks())

    def test_that_of_the_image(self) -> None:
        found = self.config("health: {storagedriver: {enabled: true, interval: 10s, threshold: 3}}").health
        self.assertEqual(found.storagedriver, StorageCheck(enabled=True, interval=10.0, threshold=3))

    def test_all(self) -> None:
        found = self.config("""
health:
  file:
    - {file: /tmp/down, interval: 5s}
  http:
    - {uri: 'http://localhost:80/x', headers: {Authorization: [Basic x]}, statuscode: 204, timeout: 3s, interval: 20s, threshold: 2}
  tcp:
    - {addr: 'redis:6379', timeout: 3s, threshold: 4}
""").health
        self.assertEqual(found.file, (FileCheck("/tmp/down", 5.0),))
        self.assertEqual(found.http, (HTTPCheck("http://localhost:80/x", {"Authorization": ("Basic x",)}, 204, 3.0, 20.0, 2),))
        self.assertEqual(found.tcp, (TCPCheck(TCPAddress("redis", 6379), 3.0, 10.0, 4),))

    def test_what_cannot_be(self) -> None:
        for text in (
            "file: [{}]",
            "file: [{file: ''}]",
            "file: [{file: /x, interval: 1ns}]",
            "file: [{file: /x, threshold: -1}]",
            "http: [{uri: 'ftp://x'}]",
            "http: [{uri: 'http://'}]",
            "http: [{uri: 'http://user:pass@host/'}]",
            "http: [{uri: 'http://host:99999/'}]",
            "http: [{uri: 'http://host/a b'}]",
            "http: [{uri: 'http://host/', statuscode: 99}]",
            "http: [{uri: 'http://host/', statuscode: fine}]",
            "tcp: [{addr: nowhere}]",
            "tcp: [{}]",
            "storagedriver: {threshold: -1}",
        ):
            self.assertTrue(self.problem(f"version: 0.1\nstorage: {{inmemory: {{}}}}\nhealth: {{{text}}}").startswith("health."), text)

    def test_headers_are_not_shown(self) -> None:
        found = self.config("health: {http: [{uri: 'http://a', headers: {Authorization: [hunter2]}}]}")
        self.assertNotIn("hunter2", repr(found))


class PrometheusTests(ConfigCase):
    def test_the_page(self) -> None:
        found = self.config("http: {debug: {addr: ':5001', prometheus: {enabled: true, path: /my/numbers}}}").http.debug
        self.assertEqual(found.prometheus, Prometheus(enabled=True, path="/my/numbers"))
        found = self.config("http: {debug: {addr: ':5001', prometheus: {enabled: true, path: ''}}}").http.debug
        self.assertEqual(found.prometheus.path, "/metrics")

    def test_where_it_cannot_be(self) -> None:
        for path in ("metrics", "/", "/metrics/", "/a//b", "/a/../b", "/debug/vars", "/livez", "/readyz", "/a?b", "/é"):
            line = self.problem(f"version: 0.1\nstorage: {{inmemory: {{}}}}\nhttp: {{debug: {{prometheus: {{path: '{path}'}}}}}}")
            self.assertTrue(line.startswith("http.debug.prometheus.path"), line)

    def test_without_an_address(self) -> None:
        (warning,) = self.warnings("http: {debug: {prometheus: {enabled: true}}}")
        self.assertIn("nothing to do without http.debug.addr", warning)
