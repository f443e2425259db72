"""A registry that asks who one is: passwords in a file, rules, and clients that log in."""

import base64
import json
import os
from pathlib import Path
from typing import ClassVar

import bcrypt

from tests.e2e.case import E2ETestCase
from tests.e2e.daemon import Regd
from tests.e2e.engine import Engine
from tests.e2e.images import MIB, build_context
from tests.e2e.process import wait_until
from tests.e2e.wire import Wire

RULES = [
    {"who": "anonymous", "repositories": "public/**", "actions": ["pull"]},
    {"who": "ci", "repositories": ["public/**", "team/**"], "actions": ["pull", "push"]},
]


def entry(name: str, password: str) -> str:
    """
    :param name: A user.
    :param password: Their password.
    :return: A line of a file of passwords.
    """
    return f"{name}:{bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()}\n"


class PasswordsTest(E2ETestCase):
    server: ClassVar[Regd]
    file: ClassVar[Path]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.file = cls.directory / "htpasswd"
        cls.file.write_text("# people\n" + entry("ci", "hunter2"), encoding="ascii")
        (cls.directory / "server").mkdir()
        settings = {
            "REGISTRY_AUTH": json.dumps({"htpasswd": {"realm": "the team", "path": str(cls.file)}}),
            "REGISTRY_ACCESS": json.dumps(RULES),
            "REGISTRY_HTTP_WORKERS": "2",
        }
        cls.server = Regd(cls.directory / "server", environment=settings)
        cls.run_for_all(cls.server)

    def status(self, target: str, login: str = "") -> int:
        """
        :param target: What is asked for, on a connection of its own.
        :param login: A name and a password, with a colon.
        :return: The status of the answer.
        """
        wire = Wire(self.server.port)
        try:
            fields = {"Authorization": "Basic " + base64.b64encode(login.encode()).decode()} if login else {}
            wire.head("GET", target, fields)
            return wire.answer("GET").status
        finally:
            wire.close()

    def test_docker(self) -> None:
        engine = Engine(self.directory / "engine")
        self.addCleanup(engine.stop)
        engine.start()
        context = build_context(self.directory / "context", (MIB,))
        image, other = f"{self.server.host}/public/one:latest", f"{self.server.host}/elsewhere/one:latest"
        for name in (image, other):
            engine.run("build", "--quiet", "--tag", name, str(context))
        self.assertIn("denied: requested access", engine.try_run("push", image).stderr)
        wrong = engine.try_run("login", "--username", "ci", "--password-stdin", self.server.host, stdin=b"guess")
        self.assertIn("unauthorized", wrong.stderr)
        self.assertIn("Login Succeeded", engine.run("login", "--username", "ci", "--password-stdin", self.server.host, stdin=b"hunter2"))
        engine.run("push", image)
        engine.run("rmi", image)
        engine.run("pull", image)
        self.assertIn("denied: requested access", engine.try_run("push", other).stderr)
        engine.run("logout", self.server.host)
        # What everybody may have, docker gets without a password; and no more than that.
        engine.run("rmi", image)
        engine.run("pull", image)
        self.assertIn("denied: requested access", engine.try_run("push", image).stderr)
        self.assertNotEqual(engine.try_run("pull", other.replace("elsewhere", "team")).returncode, 0)
        self.assertEqual(self.status("/v2/public/one/manifests/latest"), 200)
        log = self.server.program.output()
        self.assertIn("the password of 'ci' is wrong", log)
        self.assertIn(' - ci [', log)
        for secret in ("hunter2", "guess", base64.b64encode(b"ci:hunter2").decode(), "$2b$"):
            self.assertNotIn(secret, log)

    def test_the_file_is_replaced(self) -> None:
        self.assertEqual([self.status("/v2/", "ci:hunter2"), self.status("/v2/", "new:one")], [200, 401])
        before = self.file.read_bytes()
        self.write("ci:not a hash\n")
        wait_until(lambda: "line 1 has no bcrypt hash" in self.server.program.output(), 20, "a refusal")
        self.assertEqual(self.status("/v2/", "ci:hunter2"), 200)
        self.write(before.decode() + entry("new", "one"))
        for _ in range(4):
            wait_until(lambda: self.status("/v2/", "new:one") == 200, 20, "the new file")
        self.assertEqual([self.status("/v2/", "ci:hunter2"), self.status("/v2/_catalog", "new:one")], [200, 403])

    def write(self, content: str) -> None:
        """
        :param content: Of the file of passwords from now on.
        """
        other = self.file.with_suffix(".new")
        other.write_text(content, encoding="ascii")
        os.replace(other, self.file)
