"""Keys that are not obeyed: warnings, refusals, and names that nobody knows."""

from __future__ import annotations

import json

from regd.config import ConfigError
from regd.config.foreign import FOREIGN
from regd.config.keys import OBEYED, ROOT, TABLE
from regd.config.schema import Ignored, Refused
from tests.config.support import MINIMAL, ConfigCase

#: The keys of registry:2 from 2.5 to 3.x, without the parameters of the drivers that regd does not have.
REGISTRY_KEYS = """
version loglevel log.level log.formatter log.fields log.accesslog.disabled log.reportcaller log.hooks
storage.filesystem.rootdirectory storage.filesystem.maxthreads storage.inmemory storage.s3 storage.s3aws storage.gcs storage.azure
storage.swift storage.oss storage.delete.enabled storage.redirect.disable storage.cache.blobdescriptor storage.cache.layerinfo
storage.cache.blobdescriptorsize storage.tag.concurrencylimit storage.maintenance.uploadpurging.enabled
storage.maintenance.uploadpurging.age storage.maintenance.uploadpurging.interval storage.maintenance.uploadpurging.dryrun
storage.maintenance.readonly.enabled auth.silly auth.htpasswd auth.token auth.none middleware.registry middleware.repository
middleware.storage reporting.bugsnag.apikey reporting.bugsnag.releasestage reporting.bugsnag.endpoint reporting.newrelic.licensekey
reporting.newrelic.name reporting.newrelic.verbose http.addr http.net http.prefix http.host http.secret http.relativeurls
http.draintimeout http.tls.certificate http.tls.key http.tls.clientcas http.tls.clientauth http.tls.minimumtls http.tls.ciphersuites
http.tls.letsencrypt.cachefile http.tls.letsencrypt.email http.tls.letsencrypt.hosts http.tls.letsencrypt.directoryurl http.headers
http.debug.addr http.debug.prometheus.enabled http.debug.prometheus.path http.http2.disabled http.h2c.enabled
notifications.events.includereferences notifications.endpoints redis.addr redis.addrs redis.username redis.password redis.db
redis.dialtimeout redis.readtimeout redis.writetimeout redis.pool.maxidle redis.pool.maxactive redis.pool.idletimeout redis.poolsize
redis.maxidleconns redis.connmaxidletime redis.mastername redis.sentinelusername redis.sentinelpassword redis.tls.certificate
redis.tls.key redis.tls.rootcas redis.tls.clientcas redis.tls.enabled health.storagedriver.enabled health.storagedriver.interval
health.storagedriver.threshold health.file health.http health.tcp catalog.maxentries tags.maxtags proxy.remoteurl proxy.username
proxy.password proxy.ttl proxy.exec.command proxy.exec.lifetime proxy.cachewritetimeout proxy.remotenamespace
compatibility.schema1.signingkeyfile compatibility.schema1.enabled validation.disabled validation.enabled
validation.manifests.urls.allow validation.manifests.urls.deny validation.manifests.indexes.platforms
validation.manifests.indexes.platformlist policy.repository.classes
"""


def whole(path: str, value: object) -> str:
    """
    :return: A file, on one line, with one key set and no others but those that have to be there.
    """
    keys: dict[str, object] = {"version": 0.1, "storage": {} if path.startswith("storage.filesystem.") else {"inmemory": {}}}
    level = keys
    *above, last = path.split(".")
    for name in above:
        below = level.setdefault(name, {})
        assert isinstance(below, dict)
        level = below
    level[last] = value
    return json.dumps(keys)


class TableTests(ConfigCase):
    def test_every_key_of_registry_is_known(self) -> None:
        self.assertEqual(sorted(set(REGISTRY_KEYS.split()) - {row.path for row in TABLE}), [])

    def test_every_key_has_one_row(self) -> None:
        paths = [row.path for row in TABLE]
        self.assertEqual(len(paths), len(set(paths)))

    def test_every_ignored_key_has_one_warning(self) -> None:
        """A value that asks for something makes one warning, which begins with the key and says what happens instead."""
        for row in FOREIGN:
            if not isinstance(row, Ignored) or row.path == "auth.none":
                continue
            warnings = self.load(whole(row.path, 5)).warnings
            self.assertEqual(warnings, (f"{row.path} (line 1): {row.instead}",))

    def test_every_refused_key_is_an_error(self) -> None:
        for row in FOREIGN:
            if isinstance(row, Refused):
                path = row.path.replace("*", "other")
                line = self.problem(whole(path, ["x"]))
                self.assertTrue(line.startswith(f"{path} (line "), line)
                self.assertTrue(line.endswith(f"{row.why}; allowed: {row.allowed}"), line)

    def test_every_obeyed_key_refuses_what_it_cannot_be(self) -> None:
        """No key takes a list of maps, and none loses its type."""
        for key in OBEYED:
            if key.path == "version":
                continue
            line = self.problem(whole(key.path, [{"x": "y"}]))
            self.assertTrue(line.startswith(key.path), line)

    def test_defaults_are_what_is_read(self) -> None:
        """A default that is written into the file gives the same configuration."""
        plain = self.config()
        for key in OBEYED:
            shown = key.parser.show(key.default)
            spoken = ("version", "storage", "http.debug", "http.secret", "http.http2", "proxy.remoteurl", "proxy.user", "proxy.pass")
            if key.path.startswith((*spoken, "tracing")) or shown in {"", '""'}:
                continue
            text = whole(key.path, "*").replace('"*"', f"'{shown}'" if shown.startswith(":") else shown)
            self.assertEqual(self.load(text).config, plain, key.path)


class IgnoredTests(ConfigCase):
    def test_keys_that_share_an_answer_share_a_warning(self) -> None:
        (warning,) = self.warnings("redis:\n  addr: a\n  db: 5\n  pool: {maxidle: 1}\n")
        self.assertEqual(
            warning,
            "redis.addr (line 4), redis.db (line 5), redis.pool.maxidle (line 6): "
            "redis is not used; regd needs no cache that processes share",
        )

    def test_what_asks_for_nothing_is_silent(self) -> None:
        for text in (
            "health: {storagedriver: {enabled: false, interval: 10s, threshold: 3}}",
            "http: {debug: {prometheus: {enabled: false, path: /metrics}}, h2c: {enabled: false}, tls: {certificate: '', clientcas: []}}",
            "log: {hooks: [], reportcaller: false}",
            "notifications: {events: {includereferences: false}, endpoints: []}",
            "compatibility: {schema1: {enabled: false}}",
            "redis: \nproxy: {remoteurl: '', username: ''}\nmiddleware: {}\nauth: \nhealth: {}",
            "auth: none",
            "auth: {none: }",
            "auth: {none: {}}",
        ):
            self.assertEqual(self.warnings(text), (), text)

    def test_lists_of_maps(self) -> None:
        text = """
log:
  hooks:
    - {type: mail, levels: [panic], options: {smtp: {password: hunter2}}}
    - {tpye: b}
"""
        unknown, ignored = self.warnings(text)
        self.assertIn("log.hooks[1].tpye (line 7): there is no such key; the nearest is log.hooks[1].type", unknown)
        self.assertEqual(ignored, "log.hooks (line 6): no mail is sent for log lines")


class RefusedTests(ConfigCase):
    def test_auth_must_not_be_left_out_silently(self) -> None:
        for text in (
            "other",
        ):
            line = self.refused(f"auth: {text}", "auth.")
            self.assertIn("must not start open", line)
        for text in ("[htpasswd]", "[]"):
            self.refused(f"auth: {text}", "auth (line 3): found a list")

    def test_other_names_must_not_be_left_out_silently(self) -> None:
        self.refused("proxy: {remotenamespace: x}", "proxy.remotenamespace (line 3): found, but ")


class UnknownTests(ConfigCase):
    def test_the_nearest_is_named(self) -> None:
        for text, warning in {
            "htpp: {addr: x}": "htpp (line 3): there is no such key; the nearest is http",
            "HTTP: {addr: x}": "HTTP (line 3): there is no such key; the nearest is http",
            "http: {adr: x}": "http.adr (line 3): there is no such key; the nearest is http.addr",
            "http: {Addr: x}": "http.Addr (line 3): there is no such key; the nearest is http.addr",
            "storage.delete.enabled: true": "storage.delete.enabled (line 3): there is no such key; the nearest is storage.delete.enabled",
            "relativeurls: true": "relativeurls (line 3): there is no such key; the nearest is http.relativeurls",
            "delete: {enabled: true}": "delete (line 3): there is no such key; the nearest is storage.delete",
        }.items():
            self.assertEqual(self.warnings(text), (warning,))

    def test_nothing_is_near(self) -> None:
        (warning,) = self.warnings("tags: {qqqqqq: 1}")
        self.assertEqual(warning, "tags.qqqqqq (line 3): there is no such key; the keys here are maxtags")

    def test_an_unknown_driver_beside_a_known_one(self) -> None:
        (warning,) = self.load("version: 0.1\nstorage: {inmemory: , deleet: {enabled: true}}").warnings
        self.assertIn("storage.deleet (line 2): there is no such key; the nearest is storage.delete", warning)

    def test_strange_names(self) -> None:
        (warning,) = self.warnings('"a\\nb\\e": 1')
        self.assertTrue(warning.startswith("a\\nb\\x1b (line 3): "), warning)
        (warning,) = self.warnings("x" * 1000 + ": 1")
        self.assertTrue(warning.isprintable())

    def test_a_wrong_section_is_an_error(self) -> None:
        for text in ("http: 5", "http: [addr]", "log: debug", "validation: {manifests: x}", "proxy: x", "reverseproxy: [10.0.0.0/8]"):
            self.assertRaises(ConfigError, self.load, MINIMAL + text)

    def test_levels_know_their_paths(self) -> None:
        for level in ROOT.walk():
            self.assertIs(ROOT.find(level.path), level)
