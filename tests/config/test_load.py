"""What is obeyed, key by key."""

from __future__ import annotations

import dataclasses
import operator
from ipaddress import ip_network

from regd.config import (
    FilesystemStorage,
    InMemoryStorage,
    NoStorage,
    Platform,
    ReverseProxy,
    TCPAddress,
    UnixAddress,
    URLRules,
)
from tests.config.support import MINIMAL, ConfigCase


class LogTests(ConfigCase):
    def test_defaults(self) -> None:
        log = self.config().log
        self.assertEqual((log.level, log.formatter, dict(log.fields), log.accesslog.disabled), ("info", "text", {}, False))

    def test_values(self) -> None:
        log = self.config(
            "log: {level: WARN, formatter: logstash, fields: {a: 0123, b: , c: yes, d: {e: [f, 1]}}, accesslog: {disabled: on}}"
        ).log
        self.assertEqual((log.level, log.formatter, log.accesslog.disabled), ("warn", "logstash", True))
        self.assertEqual(dict(log.fields), {"a": "0123", "b": "", "c": "yes", "d": "{e: [f, 1]}"})

    def test_loglevel(self) -> None:
        (warning,) = self.warnings("loglevel: debug")
        self.assertIn("loglevel (line 3): obeyed, but deprecated", warning)
        self.assertEqual(self.config("loglevel: debug").log.level, "debug")
        self.assertEqual(self.config("loglevel: debug\nlog: {level: error}").log.level, "error")

    def test_what_is_refused(self) -> None:
        self.refused("log: {level: trace}", 'log.level (line 3): found "trace", allowed: one of error, warn, info, debug')
        self.refused("log: {formatter: TEXT}", 'log.formatter (line 3): found "TEXT", allowed: one of text, json, logstash')
        access = self.config("log: {levels: {proxy: DEBUG, twisted: error}, accesslog: {formatter: json, path: /var/log/a}}").log
        self.assertEqual(dict(access.levels), {"proxy": "debug", "twisted": "error"})
        self.assertEqual((access.accesslog.formatter, access.accesslog.path), ("json", "/var/log/a"))
        self.refused("log: {levels: {cache: debug}}", "log.levels (line 3): found ")
        self.refused("log: {levels: {proxy: loud}}", "log.levels.proxy (line 3): found ")
        self.refused("log: {levels: debug}", "log.levels (line 3): found ")
        self.refused("log: {accesslog: {path: access.log}}", "log.accesslog.path (line 3): found ")
        self.refused("log: {accesslog: {formatter: xml}}", "log.accesslog.formatter (line 3): found ")
        self.refused("log: {accesslog: {disabled: 'true'}}", "log.accesslog.disabled (line 3): found ")
        self.refused("log: {fields: [a]}", "log.fields (line 3): found a list, allowed: a map, such as {service: registry}")


class StorageTests(ConfigCase):
    def driver(self, text: str) -> FilesystemStorage | InMemoryStorage | NoStorage:
        return self.load(f"version: 0.1\nstorage: {text}").config.storage.driver

    def test_drivers(self) -> None:
        for text, driver in {
            "filesystem": FilesystemStorage("/var/lib/registry", 100),
            "{filesystem: }": FilesystemStorage("/var/lib/registry", 100),
            "{filesystem: {rootdirectory: ./x, maxthreads: '50'}}": FilesystemStorage("./x", 50),
            "inmemory": InMemoryStorage(),
            "{inmemory: }": InMemoryStorage(),
            "{inmemory: {}, cache: , delete: , maintenance: }": InMemoryStorage(),
        }.items():
            self.assertEqual(self.driver(text), driver, text)

    def test_few_threads(self) -> None:
        loaded = self.load("version: 0.1\nstorage: {filesystem: {maxthreads: 4}}")
        self.assertEqual(loaded.config.storage.driver, FilesystemStorage("/var/lib/registry", 25))
        self.assertEqual(
            loaded.warnings,
            ("storage.filesystem.maxthreads (line 2): 4 is too few; 25 are used, as registry:2 does",),
        )

    def test_delete_and_readonly(self) -> None:
        storage = self.config().storage
        self.assertEqual((storage.delete.enabled, storage.maintenance.readonly.enabled), (False, False))
        text = "version: 0.1\nstorage: {inmemory: , delete: {enabled: yes}, maintenance: {readonly: {enabled: y}}}"
        storage = self.load(text).config.storage
        self.assertEqual((storage.delete.enabled, storage.maintenance.readonly.enabled), (True, True))

    def test_the_cache_in_all_spellings(self) -> None:
        for text in (
            "blobdescriptor: inmemory",
            "layerinfo: inmemory",
            "blobdescriptor: inmemory, blobdescriptorsize: 0",
            "blobdescriptor: ",
        ):
            self.assertEqual(
                self.load(f"version: 0.1\nstorage: {{inmemory: , cache: {{{text}}}, redirect: {{disable: false}}}}").warnings, ()
            )
        for text, told in {
            "blobdescriptor: redis": "redis is not used",
            "layerinfo: redis": "redis is not used",
            "layerinfo: x": "not known",
        }.items():
            (warning,) = self.load(f"version: 0.1\nstorage: {{inmemory: , cache: {{{text}}}}}").warnings
            self.assertIn(told, warning)

    def test_what_is_refused(self) -> None:
        for text, start in {
            "": "storage: found no driver, allowed: one of filesystem, inmemory",
            "storage: {delete: {enabled: true}}": "storage: found no driver, allowed: one of filesystem, inmemory",
            "storage: filesytem": "storage: found no driver",
            "storage: [inmemory]": "storage (line 2): found a list, allowed: a map of filesystem, ",
            "storage: {filesystem: , inmemory: }": "storage: found filesystem (line 2) and inmemory (line 2), allowed: exactly one driver",
            "storage: s3": "storage.s3 (line 2): found, but this version does not have the driver s3; allowed: filesystem or inmemory",
            "storage: {filesystem: , gcs: }": "storage.gcs (line 2): found, but this version does not have the driver gcs; allowed: ",
            "storage: {filesystem: /x}": 'storage.filesystem (line 2): found "/x", allowed: a map of rootdirectory, maxthreads',
            "storage: {filesystem: {rootdirectory: ''}}": 'storage.filesystem.rootdirectory (line 2): found "", allowed: the path of',
            "storage: {filesystem: {rootdirectory: [/x]}}": "storage.filesystem.rootdirectory (line 2): found a list, allowed: text",
            "storage: {filesystem: {maxthreads: 1.5}}": 'storage.filesystem.maxthreads (line 2): found "1.5", allowed: a whole number',
            "storage: {inmemory: 5}": 'storage.inmemory (line 2): found "5", allowed: nothing, or a map',
            "storage: {inmemory: , delete: {enabled: 'true'}}": 'storage.delete.enabled (line 2): found "true", allowed: true or false',
            "storage: {inmemory: , maintenance: {readonly: true}}": 'storage.maintenance.readonly (line 2): found "true", allowed: a map',
            "storage: {inmemory: , redirect: {disable: 1}}": 'storage.redirect.disable (line 2): found "1", allowed: true or false',
        }.items():
            line = self.problem(f"version: 0.1\n{text}\n")
            self.assertTrue(line.startswith(start), line)
        for name in ("s3", "s3aws", "gcs", "azure", "swift", "oss"):
            self.assertIn(
                f"the driver {name}; allowed: filesystem or inmemory", self.problem(f"version: 0.1\nstorage: {{{name}: {{bucket: b}}}}")
            )


class HTTPTests(ConfigCase):
    def test_defaults(self) -> None:
        http = self.config().http
        self.assertEqual(http.addr, TCPAddress("", 5000))
        self.assertEqual((http.prefix, http.host, http.secret, http.relativeurls), ("/", "", "", False))
        self.assertEqual((dict(http.headers), http.draintimeout, http.debug.addr), ({}, 0.0, None))

    def test_empty_texts_are_defaults(self) -> None:
        http = self.config("http: {addr: '', net: '', prefix: '', host: '', secret: '', debug: {addr: ''}}").http
        self.assertEqual((http, http.secret), (self.config().http, ""))

    def test_addresses(self) -> None:
        for text, address in {
            "addr: :5000": TCPAddress("", 5000),
            "addr: '[::1]:5000'": TCPAddress("::1", 5000),
            "addr: localhost:0\n  net: tcp": TCPAddress("localhost", 0),
            "addr: /run/regd.sock\n  net: unix": UnixAddress("/run/regd.sock"),
        }.items():
            self.assertEqual(self.config(f"http:\n  {text}\n").http.addr, address)
        self.assertEqual(self.config("http:\n  debug: {addr: 'localhost:5001'}").http.debug.addr, TCPAddress("localhost", 5001))

    def test_unix_needs_a_path(self) -> None:
        self.refused("http: {net: unix}", "http.addr: found nothing, allowed: the path of a socket")
        self.refused("http: {net: unix, addr: ''}", 'http.addr (line 3): found "", allowed: the path of a socket')

    def test_hosts(self) -> None:
        for text, host in {
            "https://registry.example.com": "https://registry.example.com",
            "HTTP://a:5000/": "http://a:5000",
            "http://[::1]:5000": "http://[::1]:5000",
            "https://a/b/": "https://a/b",
        }.items():
            self.assertEqual(self.config(f"http: {{host: '{text}'}}").http.host, host)
        for text in (
            "a",
            "a:5000",
            "//a",
            "ftp://a",
            "https://",
            "https://a?b",
            "https://a/#",
            "https://a:x",
            "https://a b",
            "https://[a]",
            "https://a/b?",
        ):
            self.refused(f"http: {{host: '{text}'}}", f'http.host (line 3): found "{text}", allowed: an absolute URL')
        self.refused("http: {host: 'https://a/../b'}", 'http.host (line 3): found "https://a/../b", allowed: a path')
        self.refused('http: {host: "https://a\\tb"}', "http.host (line 3): found ")
        self.assertNotIn("hunter2", self.refused("http: {host: 'https://u:hunter2@a'}", "http.host"))

    def test_prefixes(self) -> None:
        for prefix in ("/", "/a/", "/a/b-c_d~e.f/"):
            self.assertEqual(self.config(f"http: {{prefix: {prefix}}}").http.prefix, prefix)
        for prefix in ("a", "/a", "a/", "//", "/a//b/", "/../", "/a/./", "/%41/", "/a b/", "/a?/"):
            self.refused(f"http: {{prefix: '{prefix}'}}", "http.prefix (line 3): found ")

    def test_secrets_stay_as_typed_and_hidden(self) -> None:
        for text, secret in {"12345": "12345", "0123": "0123", "'a'": "a", "yes": "yes", "1e3": "1e3"}.items():
            config = self.config(f"http: {{secret: {text}}}")
            self.assertEqual(config.http.secret, secret)
        self.assertNotIn("hunter2", repr(self.load(MINIMAL + "http: {secret: hunter2}")))
        self.assertNotIn("hunter2", self.refused("http: {secret: [hunter2]}", "http.secret (line 3): found a value that is not shown"))
        (warning,) = self.warnings("http: {secret:hunter2}")
        self.assertEqual(
            warning,
            "http.secret (line 3): there is no such key; the nearest is http.secret; after the colon a space is missing",
        )

    def test_headers(self) -> None:
        text = "http: {headers: {X-A: [b, 'c  d'], x-a: [e], Strict-Transport-Security: [max-age=1], Empty: [], Nothing: , X-E: ['']}}"
        headers = self.config(text).http.headers
        self.assertEqual(dict(headers), {"X-A": ("b", "c  d", "e"), "Strict-Transport-Security": ("max-age=1",), "X-E": ("",)})
        for text, start in {
            "{X: y}": 'http.headers.X (line 3): found "y", allowed: a list, such as [nosniff]',
            "{X: [y, [z]]}": "http.headers.X[1] (line 3): found a list, allowed: text",
            "{X: [y, ~]}": "http.headers.X[1] (line 3): found nothing, allowed: a value",
            '{X: ["a\\r\\nb"]}': 'http.headers.X[0] (line 3): found "a\\r\\nb", allowed: visible ASCII',
            '{X: ["a\\0b"]}': 'http.headers.X[0] (line 3): found "a\\x00b", allowed: visible ASCII',
            "{X: [' a']}": 'http.headers.X[0] (line 3): found " a", allowed: visible ASCII',
            '{X: ["\\u00e4"]}': "http.headers.X[0] (line 3): found ",
            "{'a b': [c]}": "http.headers (line 3): found a map, allowed: names of header fields",
            "{'': [c]}": "http.headers (line 3): found a map, allowed: names of header fields",
            '{"a\\n": [c]}': "http.headers (line 3): found a map, allowed: names of header fields",
            "{content-length: ['5']}": "http.headers (line 3): found a map, allowed: header fields other than",
            "[X]": "http.headers (line 3): found a list, allowed: a map",
        }.items():
            self.refused(f"http: {{headers: {text}}}", start)

    def test_draintimeout(self) -> None:
        for text, seconds in {"90s": 90.0, "1m30s": 90.0, "'10ms'": 0.01, "0": 0.0, "0s": 0.0, "60000000000": 60.0}.items():
            loaded = self.load(f"{MINIMAL}http: {{draintimeout: {text}}}")
            self.assertEqual((loaded.config.http.draintimeout, loaded.warnings), (seconds, ()))
        for text in ("5 minutes", "60x", "-1s", "-5", "'60'", "1.5", "[5s]", "9223372036854775808", "yes"):
            self.refused(f"http: {{draintimeout: {text}}}", "http.draintimeout (line 3): found ")

    def test_a_duration_without_a_unit(self) -> None:
        (warning,) = self.warnings("http: {draintimeout: 60}")
        self.assertIn("http.draintimeout (line 3): a number without a unit is nanoseconds, so this is 60ns; write 60s", warning)

    def test_http2(self) -> None:
        self.assertEqual(self.warnings("http: {http2: {disabled: true}}"), ())
        self.assertIn("HTTP/1.1", self.warnings("http: {http2: {disabled: false}}")[0])


class RestTests(ConfigCase):
    def test_booleans_of_yaml_1_1(self) -> None:
        for words, value in (("y Y yes Yes YES true True TRUE on On ON", True), ("n N no No NO false False FALSE off Off OFF", False)):
            for word in words.split():
                self.assertEqual(self.config(f"http: {{relativeurls: {word}}}").http.relativeurls, value)
        for word in ("'yes'", '"true"', "1", "tRUE", "enabled", "[true]"):
            self.refused(f"http: {{relativeurls: {word}}}", "http.relativeurls (line 3): found ")

    def test_page_sizes(self) -> None:
        config = self.config()
        self.assertEqual((config.catalog.maxentries, config.tags.maxtags), (1000, 1000))
        for text, size in {"5": 5, "0": 1000, "-1": 1000, "0x10": 16, "010": 8, "1_000": 1000}.items():
            self.assertEqual(self.config(f"catalog: {{maxentries: {text}}}").catalog.maxentries, size)
        self.assertEqual(self.config("tags: {maxtags: 0}").tags.maxtags, 1000)
        self.refused("tags: {maxtags: -1}", 'tags.maxtags (line 3): found "-1", allowed: a whole number of at least 0')
        for text in ("many", "1.5", "'5'", "08", "9" * 40):
            self.refused(f"catalog: {{maxentries: {text}}}", "catalog.maxentries (line 3): found ")

    def test_validation(self) -> None:
        validation = self.config().validation
        self.assertFalse(validation.disabled)
        self.assertEqual(validation.manifests.urls, URLRules((), ()))
        self.assertEqual((validation.manifests.indexes.platforms, validation.manifests.indexes.platformlist), ("all", ()))
        text = "validation: {manifests: {indexes: {platforms: List, platformlist: [{os: linux, architecture: amd64}]}}}"
        indexes = self.config(text).validation.manifests.indexes
        self.assertEqual((indexes.platforms, indexes.platformlist), ("list", (Platform("linux", "amd64"),)))
        self.assertTrue(self.config("validation: {disabled: true}").validation.disabled)

    def test_validation_enabled(self) -> None:
        self.assertFalse(self.config("validation: {enabled: true, disabled: true}").validation.disabled)
        self.assertFalse(self.config("validation: {enabled: false}").validation.disabled)
        self.assertIn("deprecated", self.warnings("validation: {enabled: false}")[0])

    def test_validation_that_is_refused(self) -> None:
        start = "validation.manifests."
        self.refused("validation: {manifests: {urls: {allow: x}}}", start + 'urls.allow (line 3): found "x", allowed: a list')
        line = self.refused("validation: {manifests: {urls: {deny: [x, '(?=y)']}}}", start + 'urls.deny[1] (line 3): found "(?=y)"')
        self.assertIn("allowed: a regular expression in Go's syntax", line)
        self.refused("validation: {manifests: {indexes: {platforms: some}}}", start + "indexes.platforms (line 3): found ")
        self.refused("validation: {manifests: {indexes: {platformlist: [{os: x}]}}}", start + "indexes.platformlist[0] (line 3): found ")

    def test_url_rules(self) -> None:
        self.assertFalse(URLRules((), ()).permits("https://a/"))
        self.assertTrue(URLRules(("^https://a/", "b"), ()).permits("https://a/x"))
        self.assertFalse(URLRules(("^https://a/",), ()).permits("http://a/x"))
        self.assertTrue(URLRules((), ("^http:",)).permits("https://a/x"))
        self.assertFalse(URLRules((), ("^http:",)).permits("http://a/x"))
        self.assertFalse(URLRules(("a",), ("b",)).permits("ab"))

    def test_trusted_proxies(self) -> None:
        self.assertEqual(self.config().reverseproxy.trusted, ())
        proxies = self.config("reverseproxy: {trusted: [10.0.0.0/8, 127.0.0.1, '::1', 'fd00::/8']}").reverseproxy
        self.assertEqual(proxies.trusted, tuple(map(ip_network, ("10.0.0.0/8", "127.0.0.1/32", "::1/128", "fd00::/8"))))
        for peer, trusted in {
            "10.1.2.3": True,
            "127.0.0.1": True,
            "127.0.0.2": False,
            "::1": True,
            "::ffff:10.1.2.3": True,
            "::ffff:11.1.2.3": False,
            "fd00::1%eth0": True,
            "localhost": False,
            "": False,
        }.items():
            self.assertEqual(proxies.trusts(peer), trusted, peer)
        self.assertFalse(ReverseProxy().trusts("127.0.0.1"))
        for text in ("10.0.0.1/8", "localhost", "10.0.0.0/33", "''"):
            self.refused(f"reverseproxy: {{trusted: [{text}]}}", "reverseproxy.trusted[0] (line 3): found ")

    def test_the_tree_is_frozen(self) -> None:
        config = self.config()
        self.assertRaises(dataclasses.FrozenInstanceError, setattr, config.http, "prefix", "/a/")
        for headers in (config.http.headers, config.log.fields):
            self.assertRaises(TypeError, operator.setitem, headers, "a", "b")
