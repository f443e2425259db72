"""A whole file to a configuration: which file, what it may be, and everything that it may hold."""

from __future__ import annotations

import yaml
from hypothesis import given
from hypothesis import strategies as st

from regd.config import ConfigError, FilesystemStorage, default_path, load
from regd.config.keys import ROOT
from tests.config.support import MINIMAL, ConfigCase

#: The file of the image registry:2.5.0.
IMAGE = """\
version: 0.1
log:
  fields:
    service: registry
storage:
    cache:
        blobdescriptor: inmemory
    filesystem:
        rootdirectory: /var/lib/registry
http:
    addr: :5000
    headers:
        X-Content-Type-Options: [nosniff]
health:
  storagedriver:
    enabled: true
    interval: 10s
    threshold: 3
"""
#: The file of a recipe that puts nginx before registry:2.5.0.
RECIPE = """\
version: 0.1
log:
  level: debug
  fields:
    service: registry
storage:
    cache:
        layerinfo: inmemory
    filesystem:
        rootdirectory: /var/lib/registry
    maintenance:
        uploadpurging:
            enabled: false
        readonly:
            enabled: false
    delete:
        enabled: true
http:
    addr: :5000
    secret: yoursecret
"""
WORDS = sorted({part for level in ROOT.walk() for part in level.path.replace("[]", "").split(".")})
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.dates())
DOCUMENTS = st.recursive(
    SCALARS | st.sampled_from(["inmemory", "0.1", ":5000", "5s", "unix", "*"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=8), inner, max_size=5),
    max_leaves=30,
)


class FileTests(ConfigCase):
    def test_path(self) -> None:
        self.assertEqual(default_path("/a", {"REGISTRY_CONFIGURATION_PATH": "/b"}), "/a")
        self.assertEqual(default_path(None, {"REGISTRY_CONFIGURATION_PATH": "/b"}), "/b")
        self.assertEqual(default_path(None, {"REGISTRY_CONFIGURATION_PATH": ""}), "/etc/regd/config.yml")
        self.assertEqual(default_path(None, {}), "/etc/regd/config.yml")

    def test_path_from_the_environment(self) -> None:
        path = self.file(MINIMAL)
        loaded = load(None, {"REGISTRY_CONFIGURATION_PATH": path})
        self.assertEqual((loaded.path, loaded.warnings), (path, ()))

    def test_files_that_cannot_be_read(self) -> None:
        directory = self.directory
        for path, reason in {
            str(directory / "none.yml"): "No such file or directory",
            str(directory): "Is a directory",
            "a\0b": "cannot be the path",
        }.items():
            error = self.assertRaises(ConfigError, load, path, {})
            self.assertIn(reason, str(error))
            self.assertTrue(str(error).isprintable())

    def test_a_large_file(self) -> None:
        self.assertIn("more than 1048576 bytes", self.problem(MINIMAL + "#" * 1024 * 1024))
        self.load(MINIMAL + "#" * (1024 * 1024 - len(MINIMAL)))

    def test_no_keys(self) -> None:
        for text in ("- a", "a", "'~'"):
            self.assertIn("found no keys at the top", self.problem(text))

    def test_syntax(self) -> None:
        self.assertIn(": line 3, column 10: not YAML: ", self.problem("version: 0.1\nhttp:\n  addr: a: b"))
        self.assertIn('line 2: the key "version" is given twice', self.problem("version: 0.1\nversion: 0.1"))

    def test_a_second_document(self) -> None:
        (warning,) = self.load(MINIMAL + "---\nversion: 0.2\n").warnings
        self.assertIn("another YAML document", warning)

    def test_version(self) -> None:
        for text in ("0.1", "'0.1'", '"0.1"'):
            self.assertEqual(self.load(f"version: {text}\nstorage: inmemory").config.version, "0.1")
        for text, start in {
            "version: 0.2": 'version (line 1): found "0.2", allowed: 0.1; unsupported version',
            "version: 0.10": 'version (line 1): found "0.10", allowed: 0.1; unsupported version',
            "version: [0.1]": "version (line 1): found a list, allowed: text",
            "version:": "version: found nothing, allowed: 0.1",
            "log: {level: x}": "version: found nothing, allowed: 0.1",
            "": "version: found nothing, allowed: 0.1",
        }.items():
            self.assertTrue(self.problem(text).startswith(start), text)

    def test_all_problems_are_found(self) -> None:
        error = self.assertRaises(ConfigError, self.load, "version: 0.1\nhttp: {addr: x, net: y}\nlog: 5\nstorage: {s3: }")
        self.assertEqual([problem.split(" ")[0] for problem in error.problems], ["log", "storage.s3", "http.net", "http.addr"])

    def test_the_files_that_registry_brings(self) -> None:
        loaded = self.load(IMAGE)
        self.assertEqual(loaded.config.storage.driver, FilesystemStorage("/var/lib/registry", 100))
        self.assertEqual(dict(loaded.config.http.headers), {"X-Content-Type-Options": ("nosniff",)})
        self.assertEqual(dict(loaded.config.log.fields), {"service": "registry"})
        self.assertEqual((loaded.config.health.storagedriver.threshold, loaded.warnings), (3, ()))
        loaded = self.load(RECIPE)
        self.assertEqual(loaded.warnings, ())
        self.assertTrue(loaded.config.storage.delete.enabled)
        self.assertEqual((loaded.config.log.level, loaded.config.http.secret), ("debug", "yoursecret"))

    @given(DOCUMENTS)
    def test_any_document_is_obeyed_or_refused(self, document: object) -> None:
        values = {"version": 0.1, "storage": "inmemory", **document} if isinstance(document, dict) else document
        try:
            loaded = self.load(yaml.safe_dump(values, allow_unicode=True))
        except ConfigError as error:
            self.assertTrue(error.problems)
            self.assertTrue(all(problem.isprintable() for problem in error.problems))
            return
        self.assertTrue(all(warning.isprintable() for warning in loaded.warnings))

    @given(st.binary(max_size=100) | st.text(max_size=100))
    def test_any_file_is_obeyed_or_refused(self, text: bytes | str) -> None:
        self.assertRaises(ConfigError, self.load, text)
