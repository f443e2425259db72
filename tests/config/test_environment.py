"""``REGISTRY_*`` variables."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from regd.config import ConfigError, FilesystemStorage, InMemoryStorage, TCPAddress
from regd.config.document import MapNode, parse_document
from regd.config.environment import override
from regd.config.keys import ROOT
from tests.config.support import MINIMAL, ConfigCase

FILESYSTEM = "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: /file\n"
#: Names that are near to real ones.
PARTS = sorted(
    {part.upper() for level in ROOT.walk() for part in level.path.replace("[]", ".0").split(".")} | {"1", "99", "X", "", "EVENTCONFIG"}
)
NAMES = st.lists(st.sampled_from(PARTS) | st.text("AZaz09-_", max_size=4), min_size=1, max_size=6).map("_".join)
VALUES = st.text(max_size=30) | st.sampled_from(
    ["true", "5", "5s", "{}", "[]", "[a]", "{a: b}", "inmemory", "0123", "{a: [", "*x", "", "~"]
)


class RuleTests(ConfigCase):
    """registry:2's own rule."""

    def test_a_variable_overrides_the_file(self) -> None:
        config = self.load(FILESYSTEM, REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY="/variable").config
        self.assertEqual(config.storage.driver, FilesystemStorage("/variable", 100))

    def test_a_variable_sets_what_the_file_has_not(self) -> None:
        config = self.config(REGISTRY_HTTP_DEBUG_ADDR=":5001", REGISTRY_CATALOG_MAXENTRIES="5", REGISTRY_LOG_ACCESSLOG_DISABLED="true")
        self.assertEqual(config.http.debug.addr, TCPAddress("", 5001))
        self.assertEqual(config.catalog.maxentries, 5)
        self.assertTrue(config.log.accesslog.disabled)

    def test_whole_sections_replace_those_of_the_file(self) -> None:
        config = self.config("http: {prefix: /a/, relativeurls: true}", REGISTRY_HTTP='{"prefix": "/b/"}')
        self.assertEqual((config.http.prefix, config.http.relativeurls), ("/b/", False))

    def test_a_section_comes_before_what_is_in_it(self) -> None:
        config = self.config(REGISTRY_HTTP="{prefix: /a/, relativeurls: true}", REGISTRY_HTTP_PREFIX="/b/")
        self.assertEqual((config.http.prefix, config.http.relativeurls), ("/b/", True))

    def test_storage(self) -> None:
        for value in ("inmemory", "{inmemory: }", '{"inmemory": {}}'):
            self.assertEqual(self.load(FILESYSTEM, REGISTRY_STORAGE=value).config.storage.driver, InMemoryStorage())
        config = self.load("version: 0.1", REGISTRY_STORAGE_FILESYSTEM_MAXTHREADS="30").config
        self.assertEqual(config.storage.driver, FilesystemStorage("/var/lib/registry", 30))

    def test_below_the_short_form_of_storage(self) -> None:
        self.assertTrue(self.config(REGISTRY_STORAGE_DELETE_ENABLED="true").storage.delete.enabled)

    def test_another_driver_than_that_of_the_file(self) -> None:
        line = self.problem(FILESYSTEM, REGISTRY_STORAGE_INMEMORY="")
        self.assertIn("storage: found filesystem (line 4) and inmemory (REGISTRY_STORAGE_INMEMORY), allowed: exactly one", line)
        self.assertIn("REGISTRY_STORAGE=", line)
        line = self.problem(FILESYSTEM, REGISTRY_STORAGE_S3_BUCKET="b")
        self.assertTrue(line.startswith("storage.s3 (REGISTRY_STORAGE_S3_BUCKET): "), line)
        self.assertTrue(line.endswith("allowed: filesystem or inmemory"), line)

    def test_names_of_go_fields(self) -> None:
        for name in (
            "REGISTRY_NOTIFICATIONS_EVENTCONFIG_INCLUDEREFERENCES",
            "REGISTRY_NOTIFICATIONS_EVENTS_INCLUDEREFERENCES",
        ):
            self.assertIn(f"notifications.events.includereferences ({name})", self.warnings(**{name: "true"})[0])
        for name, path in {
            "REGISTRY_COMPATIBILITY_SCHEMA1_TRUSTKEY": "compatibility.schema1.signingkeyfile",
            "REGISTRY_LOG_HOOKS_0_MAILOPTIONS_FROM": "log.hooks",
            "REGISTRY_LOG_HOOKS_0_OPTIONS_SMTP_ADDR": "log.hooks",
        }.items():
            self.assertEqual([warning.split(" (")[0] for warning in self.warnings(**{name: "x"})], [path])

    def test_names_of_go_fields_of_checks(self) -> None:
        health = self.config(
            REGISTRY_HEALTH_FILECHECKERS_0_FILE="/down",
            REGISTRY_HEALTH_HTTPCHECKERS_0_URI="http://a/",
            REGISTRY_HEALTH_TCPCHECKERS_0_ADDR="a:1",
        ).health
        self.assertEqual((health.file[0].file, health.http[0].uri, str(health.tcp[0].addr)), ("/down", "http://a/", "a:1"))

    def test_names_that_the_operator_chooses(self) -> None:
        config = self.config("log: {fields: {Service: a}}", REGISTRY_LOG_FIELDS_SERVICE="b", REGISTRY_LOG_FIELDS_NEW="c")
        self.assertEqual(dict(config.log.fields), {"Service": "b", "new": "c"})

    def test_items_of_lists(self) -> None:
        text = "validation: {manifests: {urls: {allow: [a, b]}}}"
        prefix = "REGISTRY_VALIDATION_MANIFESTS_URLS_ALLOW_"
        config = self.config(text, **{prefix + "1": "B", prefix + "2": "c", prefix + "3": "[x-z]"})
        self.assertEqual(config.validation.manifests.urls.allow, ("a", "B", "c", "[x-z]"))

    def test_items_in_the_order_of_numbers(self) -> None:
        prefix = "REGISTRY_REVERSEPROXY_TRUSTED_"
        config = self.config(**{f"{prefix}{n}": f"10.0.0.{n}" for n in range(12)})
        self.assertEqual([str(network) for network in config.reverseproxy.trusted], [f"10.0.0.{n}/32" for n in range(12)])

    def test_an_index_behind_the_end(self) -> None:
        for index in ("1", "-1", "x", "1234567"):
            name = f"REGISTRY_REVERSEPROXY_TRUSTED_{index}"
            line = self.problem(MINIMAL, **{name: "10.0.0.1"})
            self.assertEqual(line, f'reverseproxy.trusted ({name}): found the index "{index}", allowed: 0 to 0; 0 adds an item')

    def test_parts_of_an_item(self) -> None:
        prefix = "REGISTRY_VALIDATION_MANIFESTS_INDEXES_PLATFORMLIST_0_"
        config = self.config(**{prefix + "OS": "linux", prefix + "ARCHITECTURE": "arm64"})
        (platform,) = config.validation.manifests.indexes.platformlist
        self.assertEqual((platform.os, platform.architecture), ("linux", "arm64"))

    def test_the_path_is_no_key(self) -> None:
        self.assertEqual(self.warnings(REGISTRY_CONFIGURATION_PATH="/x"), ())

    def test_the_version_is_read_from_the_file_alone(self) -> None:
        loaded = self.load(MINIMAL, REGISTRY_VERSION="2.8.3")
        self.assertEqual(loaded.config.version, "0.1")
        self.assertEqual(loaded.warnings, ("REGISTRY_VERSION: ignored; version is read from the file alone",))

    def test_an_empty_value_takes_back_what_the_file_says(self) -> None:
        self.assertEqual(self.config("http: {host: 'http://a'}", REGISTRY_HTTP_HOST="").http.host, "")
        self.assertEqual(self.config("auth: {token: {realm: r}}", REGISTRY_AUTH="").version, "0.1")


class PanicTests(ConfigCase):
    """Variables that crash registry:2, or that it ignores."""

    def test_readonly(self) -> None:
        name = "REGISTRY_STORAGE_MAINTENANCE_READONLY_ENABLED"
        for text in (
            MINIMAL,
            FILESYSTEM,
            FILESYSTEM + "  maintenance:\n",
            FILESYSTEM + "  maintenance:\n    readonly:\n",
            FILESYSTEM + "  maintenance:\n    uploadpurging: {enabled: false}\n",
            FILESYSTEM + "  maintenance:\n    readonly: {enabled: false}\n",
        ):
            self.assertTrue(self.load(text, **{name: "true"}).config.storage.maintenance.readonly.enabled, text)

    def test_readonly_in_one(self) -> None:
        for name, value in {
            "REGISTRY_STORAGE_MAINTENANCE": "{readonly: {enabled: true}}",
            "REGISTRY_STORAGE_MAINTENANCE_READONLY": '{"enabled": true}',
        }.items():
            self.assertTrue(self.load(FILESYSTEM, **{name: value}).config.storage.maintenance.readonly.enabled)

    def test_a_key_below_no_map(self) -> None:
        line = self.problem(MINIMAL + "http: 5\n", REGISTRY_HTTP_ADDR=":5000")
        self.assertEqual(line, "http (REGISTRY_HTTP_ADDR): found no map to set a key of, allowed: a map")
        line = self.problem(MINIMAL + "reverseproxy: {trusted: 10.0.0.1}\n", REGISTRY_REVERSEPROXY_TRUSTED_0="10.0.0.1")
        self.assertIn("reverseproxy.trusted (REGISTRY_REVERSEPROXY_TRUSTED_0): found no list", line)


class FurtherTests(ConfigCase):
    """Where regd goes further than registry:2."""

    def test_text_as_typed(self) -> None:
        for value in ("0123", "true", "*abc", "%abc", "a: b", "{a", "[a]", "@x", "a #b", "!x", "- a", " a ", "\u00e4"):
            self.assertEqual(self.config(REGISTRY_HTTP_SECRET=value).http.secret, value)
        self.assertEqual(self.config(REGISTRY_HTTP_SECRET='"a\\tb"').http.secret, "a\tb")
        self.assertEqual(self.config(REGISTRY_HTTP_SECRET="'0x'").http.secret, "0x")
        self.assertEqual(self.config(REGISTRY_HTTP_ADDR="[::1]:5000").http.addr, TCPAddress("::1", 5000))

    def test_text_that_is_not_utf_8(self) -> None:
        for name in ("REGISTRY_HTTP_SECRET", "REGISTRY_HTTP_ADDR", "REGISTRY_LOG_FIELDS_X"):
            self.assertIn("allowed: text in UTF-8", self.problem(MINIMAL, **{name: "a\udcff"}))
        self.assertIn("not YAML", self.problem(MINIMAL, REGISTRY_HTTP="{host: a\udcff}"))

    def test_names_of_header_fields(self) -> None:
        config = self.config(
            "http: {headers: {X-Frame-Options: [DENY]}}",
            REGISTRY_HTTP_HEADERS_X_FRAME_OPTIONS_1="SAME",
            REGISTRY_HTTP_HEADERS_X_NEW="[a, b]",
            REGISTRY_HTTP_HEADERS_Y_0="c",
            **{"REGISTRY_HTTP_HEADERS_Z-Z_0": "d"},
        )
        self.assertEqual(
            dict(config.http.headers),
            {"X-Frame-Options": ("DENY", "SAME"), "x-new": ("a", "b"), "y": ("c",), "z-z": ("d",)},
        )

    def test_names_of_log_fields(self) -> None:
        config = self.config("log: {fields: {my_field: a}}", REGISTRY_LOG_FIELDS_MY_FIELD="b", REGISTRY_LOG_FIELDS_NEW_0="c")
        self.assertEqual(dict(config.log.fields), {"my_field": "b", "new_0": "c"})

    def test_lower_case(self) -> None:
        self.assertEqual(self.config(REGISTRY_http_Prefix="/a/").http.prefix, "/a/")


class UnknownTests(ConfigCase):
    def test_the_nearest_is_named(self) -> None:
        for name, nearest in {
            "REGISTRY_HTTP_ADRR": "REGISTRY_HTTP_ADDR",
            "REGISTRY_STORAGE_FILESYSTEM_ROOTDIR": "REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY",
            "REGISTRY_STORAGE_DELETE_ENABLE": "REGISTRY_STORAGE_DELETE_ENABLED",
            "REGISTRY_LOGS_LEVEL": "REGISTRY_LOG_LEVEL",
        }.items():
            self.assertEqual(self.warnings(**{name: "x"}), (f"{name}: ignored; there is no such key; the nearest is {nearest}",))

    def test_nothing_is_near(self) -> None:
        self.assertEqual(self.warnings(REGISTRY_QQ="x"), ("REGISTRY_QQ: ignored; there is no such key",))
        self.assertEqual(self.warnings(REGISTRY_="x"), ("REGISTRY_: ignored; there is no such key",))
        self.assertEqual(self.warnings(REGISTRY="x", REGISTRYHTTP_ADDR="x"), ())

    def test_variables_of_a_service_named_registry(self) -> None:
        (warning,) = self.warnings(
            REGISTRY_PORT="tcp://10.0.0.1:5000",
            REGISTRY_PORT_5000_TCP_ADDR="10.0.0.1",
            REGISTRY_SERVICE_HOST="10.0.0.1",
            REGISTRY_SERVICE_PORT_HTTP="5000",
        )
        self.assertIn("Kubernetes", warning)

    def test_values_are_not_told(self) -> None:
        environ = {"REGISTRY_HTTP_SECRETS": "hunter2", "REGISTRY_REDIS_PASSWORD": "*hunter2", "REGISTRY_PROXY_PASSWORD": "hunter2"}
        self.assertNotIn("hunter2", "".join(self.warnings(**environ)))


class ErrorTests(ConfigCase):
    def test_the_variable_and_the_key_are_named(self) -> None:
        for name, value, start in (
            ("REGISTRY_HTTP_ADDR", ":http", 'http.addr (REGISTRY_HTTP_ADDR): found ":http", allowed: '),
            ("REGISTRY_HTTP_RELATIVEURLS", "maybe", 'http.relativeurls (REGISTRY_HTTP_RELATIVEURLS): found "maybe", allowed: true'),
            ("REGISTRY_HTTP", "{relativeurls: 5}", 'http.relativeurls (REGISTRY_HTTP): found "5", allowed: true'),
            ("REGISTRY_HTTP", "{a", "http (REGISTRY_HTTP): line 1, column 3: not YAML: "),
            ("REGISTRY_HTTP_DRAINTIMEOUT", "{", "http.draintimeout (REGISTRY_HTTP_DRAINTIMEOUT): line 1, column 2: not YAML"),
            ("REGISTRY_AUTH", "htpasswd", "auth.htpasswd (REGISTRY_AUTH): found a map, allowed: a map with realm and path"),
            ("REGISTRY_AUTH_HTPASSWD_REALM", "r", "auth.htpasswd (REGISTRY_AUTH_HTPASSWD_REALM): found"),
            ("REGISTRY_AUTH_TOKEN_REALM", "r", "auth.token (REGISTRY_AUTH_TOKEN_REALM): found a map, allowed: "),
            ("REGISTRY_HTTP_TLS_CLIENTAUTH", "/c", 'http.tls.clientauth (REGISTRY_HTTP_TLS_CLIENTAUTH): found "/c", allowed: one of '),
            (
                "REGISTRY_HTTP_TLS_LETSENCRYPT_HOSTS_0",
                "h",
                "http.tls.letsencrypt.cachefile: found nothing beside the rest of letsencrypt",
            ),
            ("REGISTRY_PROXY_REMOTEURL", "*x", 'proxy.remoteurl (REGISTRY_PROXY_REMOTEURL): found "*x", allowed: the URL of a registry'),
        ):
            line = self.problem(MINIMAL, **{name: value})
            self.assertTrue(line.startswith(start), line)

    @given(st.dictionaries(NAMES.map("REGISTRY_{}".format), VALUES, max_size=4), st.sampled_from([MINIMAL, FILESYSTEM, "http: 5", "[]"]))
    def test_any_variables_are_applied_or_refused(self, environ: Mapping[str, str], text: str) -> None:
        tree, _ = parse_document(text, "FILE")
        try:
            override(tree if isinstance(tree, MapNode) else MapNode({}, ""), environ, ROOT)
        except ConfigError as error:
            self.assertTrue(any(name in str(error) for name in environ), error)

    @given(st.dictionaries(NAMES.map("REGISTRY_{}".format), VALUES, max_size=4))
    def test_any_variables_are_obeyed_or_refused(self, environ: Mapping[str, str]) -> None:
        try:
            loaded = self.load(MINIMAL, **environ)
        except ConfigError as error:
            self.assertTrue(all(problem.isprintable() for problem in error.problems))
            return
        self.assertFalse([warning for warning in loaded.warnings if not warning.isprintable()])
