"""The daemon ends, and another one starts, while docker, skopeo and the clients of a cache are in the middle of something."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

from tests.e2e.caching import Cache
from tests.e2e.case import E2ETestCase, Tool
from tests.e2e.commands import command
from tests.e2e.crowd import Crowd
from tests.e2e.daemon import Regd
from tests.e2e.engine import Engine
from tests.e2e.images import MIB, OciLayout, build_context, noise
from tests.e2e.origin import Manners, Origin
from tests.e2e.process import wait_until


class RestartCase(E2ETestCase):
    def daemon(self, timeout: str) -> Regd:
        """
        :param timeout: ``http.draintimeout``.
        :return: A daemon with two workers, that runs.
        """
        variables = {"REGISTRY_HTTP_WORKERS": "2", "REGISTRY_HTTP_DRAINTIMEOUT": timeout}
        server = Regd(self.directory / f"{self._testMethodName}-{timeout}", None, variables)
        self.addCleanup(server.stop)
        server.start()
        return server

    def is_pushing(self, data: Path) -> bool:
        """
        :param data: The root directory of a storage.
        :return: Whether a layer is being sent, some of it having come.
        """
        for path in data.rglob("_uploads/*/data"):
            try:
                if path.stat().st_size > MIB:
                    return True
            except FileNotFoundError:
                continue
        return False

    def restart_during(self, server: Regd, command_line: list[str], environment: dict[str, str], *, again: bool = False) -> None:
        """
        :param server: The registry.
        :param command_line: Of a client that pushes.
        :param environment: Its environment.
        :param again: Whether it may give up; it is then run once more.
        """
        push = subprocess.Popen(command_line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        wait_until(lambda: self.is_pushing(server.data), 60, "a layer to be under way")
        self.assertIn(server.stop(), (0, -signal.SIGTERM))
        time.sleep(1)
        server.start()
        said, _ = push.communicate(timeout=120)
        if again and push.returncode:
            subprocess.run(command_line, env=environment, check=True, capture_output=True, timeout=120)
        else:
            self.assertEqual(push.returncode, 0, said)
        scrub = command(server, "regd", "scrub")
        self.assertEqual(scrub.returncode, 0, scrub.stdout + scrub.stderr)


class DockerTest(RestartCase):
    def test_a_push(self) -> None:
        engine = Engine(self.directory / "engine")
        self.addCleanup(engine.stop)
        engine.start()
        for timeout in ("20s", "0s"):
            with self.subTest(timeout):
                server = self.daemon(timeout)
                image = f"{server.host}/some/app:{timeout}"
                engine.run("build", "--quiet", "--tag", image, str(build_context(self.directory / timeout, [40 * MIB] * 3)))
                identity = engine.inspect(image, "{{.Id}}")
                self.restart_during(server, [engine.docker, "push", image], engine.environment)
                engine.run("rmi", image)
                engine.run("pull", image)
                self.assertEqual(engine.inspect(image, "{{.Id}}"), identity)
                engine.run("rmi", image)


class SkopeoTest(RestartCase):
    def test_a_push(self) -> None:
        skopeo = Tool(self.directory, "skopeo", "--insecure-policy")
        layout = OciLayout(self.directory / "layout")
        image = layout.tag("image", layout.add_image("amd64", [noise(40 * MIB) for _ in range(3)]))
        for timeout in ("20s", "0s"):
            with self.subTest(timeout):
                server = self.daemon(timeout)
                arguments = ("copy", "--retry-times=5", "--dest-tls-verify=false", image, f"docker://{server.host}/some/app:1")
                # A connection that is cut while it sends is nothing that skopeo tries again: "use of closed network connection".
                self.restart_during(server, [*skopeo.command, *arguments], skopeo.environment, again=timeout == "0s")
                pulled = self.directory / f"pulled-{timeout}"
                skopeo.run("copy", "--src-tls-verify=false", f"docker://{server.host}/some/app:1", f"dir:{pulled}")


class CacheTest(E2ETestCase):
    """A layer that nobody has here yet comes from an upstream while the daemon is told to end."""

    SIZE = 12 * MIB

    def begin(self, workers: int, timeout: str) -> Crowd:
        """
        :return: Four clients that pull the layer, of which some has come.
        """
        self.origin = Origin()
        self.addCleanup(self.origin.close)
        self.origin.manners = Manners(rate=4 * MIB)
        self.digest = self.origin.put_blob(noise(self.SIZE))
        self.path = f"/v2/hub.test/library/app/blobs/{self.digest}"
        self.cache = Cache(
            self.directory / f"{self._testMethodName}-{workers}",
            f"  upstreams: [{{prefix: hub.test, remoteurl: '{self.origin.url}'}}]\n",
            workers=workers,
            environment={"REGISTRY_HTTP_DRAINTIMEOUT": timeout},
        )
        self.addCleanup(self.cache.stop)
        self.cache.start()
        crowd = Crowd(self.cache.port, self.path, 4)
        self.addCleanup(crowd.leave)
        wait_until(lambda: self.cache.fetching().get(self.digest, 0) > 2 * MIB, 20, "some of it to have come")
        return crowd

    def test_clients_get_all_of_it(self) -> None:
        for workers in (1, 2):
            with self.subTest(workers=workers):
                crowd = self.begin(workers, "30s")
                self.cache.program.send(signal.SIGTERM)
                for pulled in crowd.pulled():
                    self.assertEqual((pulled.status, pulled.whole, pulled.digest), (200, True, self.digest), pulled)
                wait_until(lambda: not self.cache.program.is_alive(), 5, "it to end")
                self.assertFalse("Traceback" in self.cache.program.output(), self.cache.program.tail())
                # It is kept.
                self.origin.close()
                self.cache.start()
                (pulled,) = Crowd(self.cache.port, self.path, 1).pulled()
                self.assertEqual((pulled.status, pulled.digest), (200, self.digest))

    def test_the_time_is_over(self) -> None:
        for workers in (1, 2):
            with self.subTest(workers=workers):
                crowd = self.begin(workers, "500ms")
                begun = time.monotonic()
                self.cache.stop()
                self.assertLess(time.monotonic() - begun, 5)
                self.assertEqual([pulled.whole for pulled in crowd.pulled()], [False] * 4)
                had = self.cache.fetching()[self.digest]
                self.assertGreater(had, 2 * MIB)
                self.origin.asked.clear()
                self.origin.manners = Manners()
                self.cache.start()
                (pulled,) = Crowd(self.cache.port, self.path, 1).pulled()
                self.assertEqual((pulled.status, pulled.digest), (200, self.digest))
                self.assertEqual(self.origin.sent(self.digest), self.SIZE - had)
