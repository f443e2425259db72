"""What ``regd check-config`` says, and the configurations that regd brings."""

from __future__ import annotations

import re
from pathlib import Path

from regd.config import FilesystemStorage, TCPAddress, check, load
from regd.config.keys import ACCEPTED, OBEYED
from regd.config.report import summary
from tests.config.support import MINIMAL, ConfigCase

SAMPLES = Path(__file__).resolve().parent.parent.parent / "etc" / "regd"


class ReportTests(ConfigCase):
    def test_problems(self) -> None:
        path = self.file(MINIMAL + "http: {addr: x}\nauth: htpasswd\n")
        report = check(path, {})
        self.assertFalse(report.ok)
        addr, auth, last = report.lines
        self.assertTrue(auth.startswith("error: auth.htpasswd (line 4): "), auth)
        self.assertTrue(addr.startswith('error: http.addr (line 3): found "x", allowed: '), addr)
        self.assertEqual(last, f"{path}: regd does not start with this configuration")

    def test_warnings_and_what_is_in_effect(self) -> None:
        path = self.file(MINIMAL + "htpp: {}\nhttp: {secret: hunter2, draintimeout: 90s}\n")
        report = check(None, {"REGISTRY_CONFIGURATION_PATH": path, "REGISTRY_LOG_LEVEL": "debug"})
        self.assertTrue(report.ok)
        self.assertEqual(report.lines[0], "warning: htpp (line 3): there is no such key; the nearest is http")
        self.assertEqual(report.lines[1], f"{path}: regd starts with this configuration. In effect:")
        for line in ("log.level: debug", "storage.inmemory: {}", "http.addr: :5000", "http.secret: set", "http.draintimeout: 1m30s"):
            self.assertIn(line, report.lines)
        self.assertNotIn("hunter2", "".join(report.lines))
        self.assertNotIn("filesystem", "".join(report.lines))

    def test_no_file(self) -> None:
        report = check("/nowhere/config.yml", {})
        self.assertEqual(
            report.lines[0],
            "error: /nowhere/config.yml: found no configuration to read (No such file or directory),"
            " allowed: the path of a file that regd may read",
        )

    def test_every_key_is_in_the_summary(self) -> None:
        shown = {line.partition(": ")[0] for line in summary(self.load("version: 0.1\nstorage: filesystem").config)}
        told_otherwise = {"loglevel", "http.net", "validation.enabled", *(key.path for key in ACCEPTED)}
        cache = {key.path for key in OBEYED if key.path.startswith("proxy.")}
        tls = {key.path for key in OBEYED if key.path.startswith("http.tls.")}
        self.assertEqual(shown, {key.path for key in OBEYED} - told_otherwise - cache - tls | {"proxy.remoteurl", "proxy.upstreams"})
        shown = {line.partition(": ")[0] for line in summary(self.config("http: {tls: {certificate: /c, key: /k}}"))}
        asked = {key for key in tls if ".letsencrypt." in key}
        self.assertEqual(shown & tls, tls - asked)
        found = self.config("http: {tls: {letsencrypt: {cachefile: /c, hosts: [a.example]}}}")
        self.assertEqual({line.partition(": ")[0] for line in summary(found)} & tls, tls)
        shown = {line.partition(": ")[0] for line in summary(self.config("proxy: {remoteurl: 'http://u'}"))}
        # The one is a part of proxy.tls, the other is proxy.cache.maxage.
        self.assertEqual(shown & cache, cache - {"proxy.cafile", "proxy.ttl", "proxy.upstreams"})


class SampleTests(ConfigCase):
    def test_every_sample_is_without_warnings(self) -> None:
        # The alerts are for Prometheus.
        names = sorted(path.name for path in SAMPLES.glob("*.yml") if path.name != "alerts.yml")
        self.assertIn("config.yml", names)
        for name in names:
            self.assertEqual(load(str(SAMPLES / name), {}).warnings, (), name)

    def test_what_ships(self) -> None:
        config = load(str(SAMPLES / "config.yml"), {}).config
        self.assertEqual(config.storage.driver, FilesystemStorage("/var/lib/regd", 100))
        # Nobody is asked for a password, so nobody else may come.
        self.assertEqual(config.http.addr, TCPAddress("127.0.0.1", 5000))

    def test_what_is_commented_out_is_right(self) -> None:
        """Keys begin right behind their comment sign, prose after a space. With all the keys, the file is one that regd starts with."""
        text = re.sub(r"(?m)^( *)#(?! \S)", r"\1", (SAMPLES / "config.yml").read_text())
        self.assertIn("\nreverseproxy:\n", text)
        self.assertEqual(self.load(text).warnings, ())
