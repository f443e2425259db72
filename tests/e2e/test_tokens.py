"""Tokens of somebody else's service, by a real docker; and those that are good for nothing."""

from __future__ import annotations

import json
from typing import ClassVar

from tests.e2e.authority import PASSWORD, SERVICE, USERNAME, TokenServer
from tests.e2e.case import E2ETestCase
from tests.e2e.daemon import Regd
from tests.e2e.engine import Engine
from tests.e2e.images import MIB, build_context


class TokensTest(E2ETestCase):
    tokens: ClassVar[TokenServer]
    server: ClassVar[Regd]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.tokens = TokenServer(cls.directory / "authority")
        cls.addClassCleanup(cls.tokens.close)
        cls.tokens.grants = {"pull", "push"}
        token = {"realm": cls.tokens.realm, "service": SERVICE, "issuer": "the test", "rootcertbundle": str(cls.tokens.bundle)}
        settings = {"REGISTRY_AUTH": json.dumps({"token": token}), "REGISTRY_HTTP_WORKERS": "2"}
        cls.server = Regd(cls.directory / "server", environment=settings)
        cls.run_for_all(cls.server)

    def test_docker(self) -> None:
        engine = Engine(self.directory / "engine")
        self.addCleanup(engine.stop)
        engine.start()
        context = build_context(self.directory / "context", (6 * MIB, MIB))
        image = f"{self.server.host}/team/tokens:latest"
        engine.run("build", "--quiet", "--tag", image, str(context))
        self.assertNotEqual(engine.try_run("push", image).returncode, 0)
        engine.run("login", "--username", USERNAME, "--password-stdin", self.server.host, stdin=PASSWORD.encode())
        engine.run("push", image)
        identity = engine.inspect(image, ".Id")
        engine.run("rmi", image)
        engine.run("pull", image)
        self.assertEqual(engine.inspect(image, ".Id"), identity)
        self.tokens.grants = {"pull"}
        other = f"{self.server.host}/team/others:latest"
        engine.run("tag", image, other)
        self.assertIn("denied", engine.try_run("push", other).stderr)
        engine.run("logout", self.server.host)
        engine.run("rmi", image)
        self.assertNotEqual(engine.try_run("pull", image).returncode, 0)
        log = self.server.program.output()
        for secret in (PASSWORD, *self.tokens.issued):
            self.assertNotIn(secret, log)
        self.assertIn(" - anybody [", log)
