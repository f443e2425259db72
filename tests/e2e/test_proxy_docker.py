"""A Docker Engine pushes and pulls through the reverse proxy, with Debian's docker-registry behind it, and with regd."""

from __future__ import annotations

from typing import ClassVar

from tests.e2e.case import E2ETestCase
from tests.e2e.daemon import Peer, Regd, Server
from tests.e2e.engine import Engine
from tests.e2e.images import MIB, build_context
from tests.e2e.proxying import Proxy


class DockerThroughProxyTest(E2ETestCase):
    engine: ClassVar[Engine]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.engine = Engine(cls.directory / "engine")
        cls.run_for_all(cls.engine)

    def there_and_back(self, server: Server, workers: int) -> None:
        self.addCleanup(server.stop)
        server.start()
        proxy = Proxy(
            self.directory / f"proxy-{server.name}",
            "  routes:\n    - {path: /v1/, status: 404}\n"
            f'    - {{path: /v2/, upstreams: ["http://127.0.0.1:{server.port}"]}}\n',
            workers=workers,
        )
        self.addCleanup(proxy.stop)
        proxy.start()
        image = f"{proxy.host}/library/large:latest"
        context = build_context(self.directory / f"context-{server.name}", [90 * MIB, 70 * MIB, 40 * MIB])
        self.engine.run("build", "--quiet", "--tag", image, str(context))
        self.addCleanup(self.engine.try_run, "rmi", "--force", image)
        identity = self.engine.inspect(image, "{{.Id}}")
        self.engine.run("push", image)
        self.engine.run("rmi", image)
        self.assertNotEqual(self.engine.try_run("image", "inspect", image).returncode, 0)
        self.engine.run("pull", image)
        self.assertEqual(self.engine.inspect(image, "{{.Id}}"), identity)
        proxy.wait_quiet()
        # Flat: what a process needs by itself, and not what it has moved.
        self.assertLess(proxy.program.memory().peak, 120 * MIB)

    def test_docker_registry(self) -> None:
        self.there_and_back(Peer(self.directory / "peer"), workers=1)

    def test_regd(self) -> None:
        self.there_and_back(Regd(self.directory / "regd"), workers=2)
