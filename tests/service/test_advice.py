"""What a registry can be served by and is hardly meant so."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path

import bcrypt
from twisted.trial.unittest import SynchronousTestCase

from regd.config import load
from regd.config.watched import read_files
from regd.service.advice import advice
from tests.e2e.certificates import Authority

DAY = 86400.0


class AdviceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="regd-test-"))
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)
        self.file = self.directory / "htpasswd"
        self.file.write_bytes(b"alice:%s\n" % bcrypt.hashpw(b"x", bcrypt.gensalt(4)))
        self.file.chmod(0o640)
        self.auth = f"auth: {{htpasswd: {{realm: r, path: {self.file}}}}}\n"

    def said(self, text: str, *, addr: str = "127.0.0.1:5000", storage: str = "", later: float = 0.0) -> list[str]:
        path = self.directory / "config.yml"
        http = "" if "http:" in text else f'http: {{addr: "{addr}"}}\n'
        path.write_text(f"version: 0.1\nstorage: {{inmemory: {{}}{storage}}}\n{http}{text}", encoding="utf-8")
        config = load(str(path), {}).config
        return list(advice(config, read_files(config), time.time() + later))

    def test_nothing(self) -> None:
        self.assertEqual(self.said(""), [])
        self.assertEqual(self.said(self.auth), [])

    def test_permissions(self) -> None:
        self.file.chmod(0o644)
        (line,) = self.said(self.auth)
        self.assertTrue(line.startswith(f"auth.htpasswd.path: {self.file} can be read or changed by everybody"), line)

    def test_certificates(self) -> None:
        issued = Authority(self.directory).issue("hub.example", days=30)
        issued.keyfile.chmod(0o640)
        text = f'http: {{addr: ":443", tls: {{certificate: {issued.certfile}, key: {issued.keyfile}}}}}\n'
        self.assertEqual(self.said(text + self.auth), [])
        for later, word in ((20 * DAY, "expires soon"), (40 * DAY, "has expired"), (-40 * DAY, "is not valid yet")):
            (line,) = self.said(text, later=later)
            self.assertIn(f"http.tls.certificate: {issued.certfile} {word}", line)
        issued.keyfile.chmod(0o644)
        (line,) = self.said(text)
        self.assertTrue(line.startswith("http.tls.key: "), line)

    def test_plain_text(self) -> None:
        for addr in (":5000", "10.0.0.1:5000", "[::]:5000", "hub.example:5000"):
            (line,) = self.said(self.auth, addr=addr)
            self.assertIn("in plain text", line)
        for addr in ("127.0.0.1:5000", "[::1]:5000", "localhost:5000"):
            self.assertEqual(self.said(self.auth, addr=addr), [])
        self.assertEqual(self.said(f'{self.auth}http: {{addr: ":5000", host: "https://hub.example"}}\n'), [])
        self.assertEqual(self.said(f"{self.auth}reverseproxy: {{trusted: [10.0.0.1]}}\n", addr=":5000"), [])

    def test_rules_that_can_never_match(self) -> None:
        def rule(who: str, actions: str = "[pull]", repositories: str = '"**"') -> list[str]:
            groups = "groups: {ci: [robot], admins: [alice], none: []}\n"
            rules = f"access:\n- {{who: {who}, repositories: {repositories}, actions: {actions}}}\n"
            return self.said(self.auth + rules + groups, storage=", delete: {enabled: true}")

        for who in ("anonymous", '"*"', "alice", '"@admins"', '["@admins", alice]'):
            self.assertEqual(rule(who), [], who)
        self.assertIn("access[0]: nobody can be bob", rule("bob")[0])
        self.assertIn("access[0]: nobody is in @ci", rule('"@ci"')[0])
        self.assertIn("access[0]: nobody is in @none", rule('[alice, "@none"]')[0])

    def test_actions_that_nobody_can_do(self) -> None:
        rules = "access: [{who: anonymous, repositories: '**', actions: [pull, push, delete]}]\n"
        (line,) = self.said(rules)
        self.assertEqual(line, "access[0]: delete is allowed to nobody, because storage.delete.enabled is false")
        both = ", delete: {enabled: true}, maintenance: {readonly: {enabled: true}}"
        (line,) = self.said(rules, storage=both)
        self.assertIn("push is allowed to nobody, because storage.maintenance.readonly", line)

    def test_rules_that_add_nothing(self) -> None:
        first = "- {who: anonymous, repositories: ['**'], actions: [pull]}\n"
        for second, useless in (
            ("- {who: alice, repositories: ['team/**'], actions: [pull]}\n", True),
            ("- {who: alice, repositories: ['team/**'], actions: [pull, push]}\n", False),
        ):
            said = self.said(f"{self.auth}access:\n{first}{second}")
            self.assertEqual(said, ["access[1]: allows nothing that access[0] does not allow already"] if useless else [])
