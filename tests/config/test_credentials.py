"""systemd's credentials as variables."""

from __future__ import annotations

import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from regd.config import ConfigError, load
from regd.config.credentials import read_credentials

MINIMAL = "version: 0.1\nstorage: {inmemory: }\n"


class CredentialTests(SynchronousTestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name, "credentials")
        self.directory.mkdir()
        self.environ = {"CREDENTIALS_DIRECTORY": str(self.directory)}
        self.config = Path(directory.name, "config.yml")
        self.config.write_text(MINIMAL, encoding="utf-8")

    def test_none(self) -> None:
        self.assertEqual((read_credentials({}), read_credentials(self.environ)), ({}, {}))

    def test_names_and_ends_of_lines(self) -> None:
        for name, content in {
            "REGISTRY_HTTP_SECRET": b"one\n",
            "regd_REGISTRY_HTTP_HOST": b"https://two\r\n",
            "REGISTRY_LOG_FIELDS_note": b"three\n\n",
            "regd_hub.key": b"\xff\x00",
            "OTHER_REGISTRY_HTTP_ADDR": b"",
        }.items():
            (self.directory / name).write_bytes(content)
        found = {"REGISTRY_HTTP_SECRET": "one", "REGISTRY_HTTP_HOST": "https://two", "REGISTRY_LOG_FIELDS_note": "three\n"}
        self.assertEqual(read_credentials(self.environ), found)

    def test_they_come_before_the_environment(self) -> None:
        (self.directory / "REGISTRY_HTTP_SECRET").write_text("of the credential\n", encoding="utf-8")
        loaded = load(str(self.config), {**self.environ, "REGISTRY_HTTP_SECRET": "of the environment", "REGISTRY_HTTP_PREFIX": "/x/"})
        self.assertEqual((loaded.config.http.secret, loaded.config.http.prefix), ("of the credential", "/x/"))

    def test_what_cannot_be_read(self) -> None:
        with self.assertRaisesRegex(ConfigError, "CREDENTIALS_DIRECTORY: cannot read /nowhere: No such file"):
            read_credentials({"CREDENTIALS_DIRECTORY": "/nowhere"})
        (self.directory / "REGISTRY_HTTP_SECRET").write_bytes(b"sec\xffret")
        with self.assertRaisesRegex(ConfigError, "found bytes that are no text in") as caught:
            load(str(self.config), self.environ)
        self.assertNotIn("sec", str(caught.exception).replace("REGISTRY_HTTP_SECRET", ""))
