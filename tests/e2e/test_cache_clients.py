"""Real clients pull through the cache: docker, dockerd with ``--registry-mirror``, containerd with ``hosts.toml``, skopeo, curl."""

from __future__ import annotations

import json
import re
import subprocess
import textwrap
from pathlib import Path
from typing import ClassVar

from tests.e2e.authority import PASSWORD, USERNAME, TokenServer, with_htpasswd, with_tokens
from tests.e2e.caching import Cache
from tests.e2e.case import E2ETestCase, Tool
from tests.e2e.containers import Containerd
from tests.e2e.daemon import ROOT, Peer
from tests.e2e.engine import Engine
from tests.e2e.images import MIB, OciLayout, build_context, noise
from tests.e2e.origin import Origin
from tests.e2e.process import need
from tests.e2e.rawhttp import digest_of

CREDENTIALS = f"username: {USERNAME}, password: {PASSWORD}"


def code_of(name: str) -> str:
    """
    :param name: of a file that ``docs/caching.rst`` shows.
    :return: what the page says stands in it, with this machine in the place of the cache.
    """
    page = (ROOT / "docs" / "caching.rst").read_text(encoding="utf-8")
    match = re.search(rf"``{re.escape(name)}``[^\n]*::\n\n((?:    .*\n|\n)+)", page)
    assert match is not None, f"docs/caching.rst shows no {name}"
    return textwrap.dedent(match[1]).strip() + "\n"


class CacheClientsTest(E2ETestCase):
    """
    Two of Debian's docker-registry are the upstreams: one knows a user, one wants tokens. What they have was pushed by docker and skopeo.
    """

    engine: ClassVar[Engine]
    skopeo: ClassVar[Tool]
    cache: ClassVar[Cache]
    large: ClassVar[str]
    index: ClassVar[OciLayout]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        need("docker", "dockerd", "docker-registry", "skopeo")
        cls.engine = Engine(cls.directory / "engine")
        cls.run_for_all(cls.engine)
        cls.skopeo = Tool(cls.directory, "skopeo", "--insecure-policy")
        data = cls.fill(Peer(cls.directory / "open"))
        tokens = TokenServer(cls.directory / "tokens")
        cls.addClassCleanup(tokens.close)
        section = "  upstreams:\n"
        for prefix, peer in (
            ("users.test", with_htpasswd(cls.directory / "htpasswd", data)),
            ("tokens.test", with_tokens(cls.directory / "guarded", data, tokens)),
        ):
            cls.addClassCleanup(peer.stop)
            peer.start()
            section += f"    - {{prefix: {prefix}, remoteurl: 'http://127.0.0.1:{peer.port}', {CREDENTIALS}}}\n"
        cls.cache = Cache(cls.directory / "regd", section, workers=2)
        cls.run_for_all(cls.cache)

    @classmethod
    def fill(cls, peer: Peer) -> Path:
        """
        :return: the data of a registry that has a large image and one for two platforms.
        """
        cls.addClassCleanup(peer.stop)
        peer.start()
        image = f"{peer.host}/library/large:latest"
        context = build_context(cls.directory / "context", [90 * MIB, 70 * MIB, 40 * MIB], runnable=True)
        cls.engine.run("build", "--quiet", "--tag", image, str(context))
        cls.large = cls.engine.inspect(image, "{{.Id}}")
        cls.engine.run("push", image)
        cls.engine.run("rmi", "--force", image)
        cls.index = OciLayout(cls.directory / "layout")
        platforms = [cls.index.add_image("amd64", [noise(3_000_000), noise(1000)]), cls.index.add_image("arm64", [noise(2_000_000)])]
        source = cls.index.tag("index", cls.index.add_index(platforms))
        cls.skopeo.run("copy", "--all", "--preserve-digests", "--dest-tls-verify=false", source, f"docker://{peer.host}/library/index:1")
        peer.stop()
        return peer.data

    def pull_large(self, engine: Engine, image: str) -> None:
        engine.run("pull", image)
        self.addCleanup(engine.try_run, "rmi", "--force", image)
        self.assertEqual(engine.inspect(image, "{{.Id}}"), self.large)
        engine.run("rmi", image)

    def test_docker(self) -> None:
        """200 MB, fetched and then from the cache, of both upstreams."""
        for prefix in ("users.test", "tokens.test"):
            for _ in range(2):
                self.pull_large(self.engine, f"{self.cache.host}/{prefix}/library/large:latest")
        self.assertLess(self.cache.program.memory().peak, 120 * MIB)

    def test_docker_pushes_beside_it_and_not_into_it(self) -> None:
        context = build_context(self.directory / "small", [1000])
        cached, local = (f"{self.cache.host}/{name}:1" for name in ("users.test/library/mine", "mine/app"))
        for image in (cached, local):
            self.engine.run("build", "--quiet", "--tag", image, str(context))
            self.addCleanup(self.engine.try_run, "rmi", "--force", image)
        done = self.engine.try_run("push", cached)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("cache", done.stderr + done.stdout)
        self.engine.run("push", local)
        self.engine.run("rmi", local)
        self.engine.run("pull", local)

    def test_curl_cannot_push_into_it(self) -> None:
        need("curl")
        done = subprocess.run(
            ["curl", "-sS", "-X", "POST", "-w", "%{http_code}", f"http://{self.cache.host}/v2/users.test/library/mine/blobs/uploads/"],
            capture_output=True,
            encoding="utf-8",
            check=True,
            timeout=30,
        )
        self.assertTrue(done.stdout.endswith("405"), done.stdout)
        self.assertIn('"code":"UNSUPPORTED"', done.stdout)

    def test_skopeo_copies_all_platforms(self) -> None:
        for prefix in ("users.test", "tokens.test"):
            target = self.directory / f"all-{prefix}"
            source = f"docker://{self.cache.host}/{prefix}/library/index:1"
            self.skopeo.run("copy", "--all", "--src-tls-verify=false", source, f"dir:{target}")
            for path in (path for path in target.iterdir() if len(path.name) == 64):
                self.assertEqual(digest_of(path.read_bytes()), f"sha256:{path.name}")
            blobs = {path.name for path in (self.index.directory / "blobs" / "sha256").iterdir()}
            names = {path.name.removesuffix(".manifest.json") for path in target.iterdir()}
            root = digest_of((target / "manifest.json").read_bytes()).partition(":")[2]
            self.assertEqual(blobs - names - {root}, set())
            listed = json.loads(self.skopeo.run("list-tags", "--tls-verify=false", source.rpartition(":")[0]))
            self.assertEqual(listed["Tags"], ["1"])

    def test_skopeo_copies_one_platform(self) -> None:
        source = f"docker://{self.cache.host}/users.test/library/index:1"
        found = json.loads(self.skopeo.run("--override-arch=arm64", "inspect", "--tls-verify=false", source))
        self.assertEqual((found["Architecture"], len(found["Layers"])), ("arm64", 1))


class CacheOfAFleetTest(E2ETestCase):
    """As ``docs/caching.rst`` says: its files, with the addresses of this machine."""

    origin: ClassVar[Origin]
    large: ClassVar[OciLayout]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.origin = Origin()
        cls.addClassCleanup(cls.origin.close)
        cls.large = OciLayout(cls.directory / "layout")
        sizes = (60 * MIB, 40 * MIB, 100 * MIB)
        images = [cls.large.add_image("amd64", [noise(size) for size in sizes]), cls.large.add_image("arm64", [noise(1000)])]
        cls.origin.put_layout(cls.large, "library/large", "1", cls.large.add_index(images))

    def setUp(self) -> None:
        self.origin.asked.clear()

    def test_containerd(self) -> None:
        containerd = Containerd(self.directory / "ct")
        self.addCleanup(containerd.stop)
        containerd.start()
        cache = Cache(self.directory / "prefixes", self.section("config.yml"), workers=2)
        self.addCleanup(cache.stop)
        cache.start()
        hosts = code_of("/etc/containerd/certs.d/docker.io/hosts.toml").replace("http://cache.example.com:5000", f"http://{cache.host}")
        self.assertIn(cache.host, hosts)
        # Past the cache there is nothing: what is pulled has come through it.
        containerd.write_hosts("docker.io", hosts.replace("https://registry-1.docker.io", "http://127.0.0.1:1"))
        for _ in range(2):
            containerd.pull("docker.io/library/large:1")
            self.assertIn("docker.io/library/large:1", containerd.run("images", "ls", "--quiet"))
            containerd.run("images", "rm", "--sync", "docker.io/library/large:1")
        self.assertEqual(cache.tags("docker.io/library/large"), {"1"})
        self.assert_fetched_once()

    def section(self, name: str) -> str:
        """The section ``proxy`` of a file of the page, with the origin for Docker Hub."""
        text = code_of(name).partition("proxy:\n")[2]
        text = re.sub(r"remoteurl: https://registry-1\.docker\.io", f"remoteurl: '{self.origin.url}'", text)
        self.assertIn(self.origin.url, text)
        return re.sub(r"(?m)^\s*(username|password):.*\n", "", text)

    def assert_fetched_once(self) -> None:
        digests = {asked.path.partition("?")[0] for asked in self.origin.asked if asked.method == "GET" and "/blobs/" in asked.path}
        self.assertEqual(len(digests), 4)
        self.assertEqual(self.origin.count("GET", "/blobs/"), 4)

    def test_skopeo(self) -> None:
        """By the mirrors of ``registries.conf``, as podman, buildah and CRI-O have them."""
        cache = Cache(self.directory / "skopeo", self.section("config.yml"))
        self.addCleanup(cache.stop)
        cache.start()
        registries = self.directory / "registries.conf"
        conf = code_of("/etc/containers/registries.conf.d/cache.conf").replace("cache.example.com:5000", cache.host)
        registries.write_text(conf, encoding="utf-8")
        skopeo = Tool(self.directory / "tool", "skopeo", "--insecure-policy", "--registries-conf", str(registries))
        target = self.directory / "copied"
        skopeo.run("--override-arch=amd64", "copy", "docker://docker.io/library/large:1", f"dir:{target}")
        for path in (path for path in target.iterdir() if len(path.name) == 64):
            self.assertEqual(digest_of(path.read_bytes()), f"sha256:{path.name}")
        self.assertEqual(cache.tags("docker.io/library/large"), {"1"})
        self.assert_fetched_once()

    def test_dockerd(self) -> None:
        cache = Cache(self.directory / "mirror", self.section("mirror.yml"), workers=2)
        self.addCleanup(cache.stop)
        cache.start()
        settings = json.loads(code_of("/etc/docker/daemon.json").replace("http://cache.example.com:5000", f"http://{cache.host}"))
        self.assertIn(f"http://{cache.host}", settings["registry-mirrors"])
        engine = Engine(self.directory / "engine", settings)
        self.addCleanup(engine.stop)
        engine.start()
        for _ in range(2):
            # Nothing before it in its name: this is what would come from Docker Hub.
            engine.run("pull", "large:1")
            engine.run("rmi", "large:1")
        self.assertEqual(cache.tags("library/large"), {"1"})
        self.assert_fetched_once()
