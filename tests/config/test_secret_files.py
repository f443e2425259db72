"""Variables that name a file with a secret."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.config.support import MINIMAL, ConfigCase


class SecretFileTests(ConfigCase):
    def setUp(self) -> None:
        super().setUp()
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.secret = Path(directory.name) / "secret"
        self.secret.write_text("hunter2\n", encoding="utf-8")

    def test_the_content_of_the_file(self) -> None:
        loaded = self.load(MINIMAL, REGISTRY_HTTP_SECRET_FILE=str(self.secret))
        self.assertEqual((loaded.config.http.secret, loaded.warnings), ("hunter2", ()))

    def test_keys_that_end_so(self) -> None:
        checks = self.load(MINIMAL, REGISTRY_HEALTH_FILE="[{file: /maintenance}]").config.health.file
        self.assertEqual([check.file for check in checks], ["/maintenance"])
        fields = self.load(MINIMAL, REGISTRY_LOG_FIELDS_FILE="x").config.log.fields
        self.assertEqual(dict(fields), {"file": "x"})

    def test_no_such_key(self) -> None:
        (warning,) = self.load(MINIMAL, REGISTRY_HTTP_SECRTE_FILE=str(self.secret)).warnings
        self.assertIn("REGISTRY_HTTP_SECRTE: ignored; there is no such key", warning)
        self.assertNotIn("hunter2", warning)

    def test_what_is_wrong(self) -> None:
        for environ, start in (
            ({"REGISTRY_HTTP_SECRET_FILE": "/nowhere"}, "REGISTRY_HTTP_SECRET_FILE: cannot read /nowhere: No such file"),
            (
                {"REGISTRY_HTTP_SECRET_FILE": str(self.secret), "REGISTRY_HTTP_SECRET": "x"},
                "REGISTRY_HTTP_SECRET_FILE: found REGISTRY_HTTP_SECRET beside it, allowed: one of them",
            ),
        ):
            self.assertTrue(self.problem(MINIMAL, **environ).startswith(start))
        self.secret.write_bytes(b"\xff")
        line = self.problem(MINIMAL, REGISTRY_HTTP_SECRET_FILE=str(self.secret))
        self.assertTrue(line.startswith("REGISTRY_HTTP_SECRET_FILE: found bytes that are no text"), line)
