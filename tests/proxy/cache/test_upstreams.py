"""Names: where a repository comes from, and what ``ns`` says."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regd.config import CacheUpstream
from regd.config.proxying import parse_upstream
from regd.errors import NameInvalid, NameUnknown, Unsupported
from regd.names import RepositoryName
from regd.proxy.cache.upstreams import Upstreams

COMPONENT = st.from_regex(r"[a-z0-9]{1,3}([._-][a-z0-9]{1,3})?", fullmatch=True)
NAMES = st.lists(COMPONENT, min_size=1, max_size=5).map("/".join)
NAMESPACES = NAMES | st.text(max_size=20) | st.sampled_from(["a.example:5000", "0.example:5000"])


def upstream(prefix: str, url: str = "https://registry.example") -> CacheUpstream:
    return CacheUpstream(prefix, parse_upstream(url))


HUB = upstream("docker.io", "https://registry-1.docker.io")
QUAY = upstream("quay.io", "https://quay.io")
LAB = upstream("lab/tools", "http://registry.lab:5000")


class FindTests(SynchronousTestCase):
    def test_below_a_prefix(self) -> None:
        upstreams = Upstreams([HUB, QUAY, LAB])
        self.assertEqual(upstreams.find("docker.io/grafana/grafana"), (HUB, "grafana/grafana"))
        self.assertEqual(upstreams.find("quay.io/alpine"), (QUAY, "alpine"))
        self.assertEqual(upstreams.find("lab/tools/a/b/c"), (LAB, "a/b/c"))

    def test_local(self) -> None:
        upstreams = Upstreams([HUB, QUAY, LAB])
        # A prefix is no repository of its upstream, and ends with a component.
        for name in ("docker.io", "docker.iot/x", "lab", "lab/tools", "lab/toolsmith/x", "x/docker.io/y", "alpine"):
            self.assertIsNone(upstreams.find(name), name)

    def test_the_longest_prefix_wins(self) -> None:
        inner = upstream("docker.io/library", "https://mirror.example")
        for order in ([HUB, inner], [inner, HUB]):
            upstreams = Upstreams(order)
            self.assertEqual(upstreams.find("docker.io/library/alpine"), (inner, "alpine"))
            self.assertEqual(upstreams.find("docker.io/grafana/grafana"), (HUB, "grafana/grafana"))

    def test_the_library_of_docker_hub(self) -> None:
        self.assertEqual(Upstreams([HUB]).find("docker.io/alpine"), (HUB, "library/alpine"))
        whole = upstream("", "https://Registry-1.docker.io:443")
        self.assertEqual(Upstreams([whole]).find("alpine"), (whole, "library/alpine"))
        self.assertEqual(Upstreams([whole]).find("library/alpine"), (whole, "library/alpine"))

    def test_a_cache_of_one_registry(self) -> None:
        whole = upstream("")
        self.assertEqual(Upstreams([whole]).find("a"), (whole, "a"))
        self.assertEqual(Upstreams([whole]).find("a/b"), (whole, "a/b"))

    def test_none(self) -> None:
        self.assertIsNone(Upstreams([]).find("a/b"))
        self.assertFalse(Upstreams([]))

    @given(st.lists(NAMES, unique=True, max_size=4), NAMES)
    def test_as_a_list_of_components(self, prefixes: list[str], name: str) -> None:
        upstreams = Upstreams([upstream(prefix) for prefix in prefixes])
        components = name.split("/")
        below = [prefix for prefix in prefixes if components[: prefix.count("/") + 1] == prefix.split("/") and prefix != name]
        found = upstreams.find(name)
        if not below:
            self.assertIsNone(found)
            return
        assert found is not None
        self.assertEqual(found.upstream.prefix, max(below, key=len))
        self.assertEqual(f"{found.upstream.prefix}/{found.remote_name}", name)


class NamespaceTests(SynchronousTestCase):
    def local(self, name: str, namespace: str, *upstreams: CacheUpstream) -> str | None:
        return Upstreams(upstreams or (HUB, QUAY, LAB)).with_namespace(RepositoryName.parse(name), namespace)

    def test_a_prefix(self) -> None:
        self.assertEqual(self.local("library/alpine", "docker.io"), "docker.io/library/alpine")
        self.assertEqual(self.local("a/b", "quay.io"), "quay.io/a/b")
        self.assertEqual(self.local("a/b", "QUAY.io"), "quay.io/a/b")

    def test_an_authority(self) -> None:
        self.assertEqual(self.local("a/b", "registry.lab:5000"), "lab/tools/a/b")
        self.assertEqual(self.local("a/b", "quay.io:443", upstream("q", "https://quay.io")), "q/a/b")
        self.assertEqual(self.local("a/b", "quay.io", upstream("q", "https://quay.io:443")), "q/a/b")
        self.assertEqual(self.local("a/b", "[::1]:5000", upstream("six", "http://[::1]:5000")), "six/a/b")
        self.assertEqual(self.local("a/b", "[::1]", upstream("six", "https://[::1]")), "six/a/b")

    def test_the_prefix_before_the_authority(self) -> None:
        mirror = upstream("quay.io", "https://mirror.example")
        direct = upstream("direct", "https://quay.io")
        self.assertEqual(self.local("a/b", "quay.io", direct, mirror), "quay.io/a/b")

    def test_the_first_of_one_authority(self) -> None:
        self.assertEqual(self.local("a", "x.example", upstream("one", "https://x.example"), upstream("two", "https://x.example")), "one/a")

    def test_the_names_of_docker_hub(self) -> None:
        for namespace in ("docker.io", "registry-1.docker.io", "index.docker.io"):
            self.assertEqual(self.local("library/alpine", namespace), "docker.io/library/alpine")
            self.assertEqual(self.local("library/alpine", namespace, upstream("hub", "https://registry-1.docker.io")), "hub/library/alpine")
            # A cache of Docker Hub that goes by way of another one.
            self.assertEqual(self.local("a/b", namespace, upstream("docker.io", "https://mirror.example")), "docker.io/a/b")

    def test_a_part_of_a_registry(self) -> None:
        part = upstream("docker.io/library", "https://mirror.example")
        self.assertEqual(self.local("library/alpine", "docker.io", part), "docker.io/library/alpine")
        self.assertIsNone(self.local("grafana/grafana", "docker.io", part))

    def test_says_nothing(self) -> None:
        for namespace in ("", "ghcr.io", "quay.io:80", "registry.lab", "a/b", "..", "docker.io/", "\ufffd", "\u212aay.io", "x" * 5000):
            self.assertIsNone(self.local("a/b", namespace), namespace)
        self.assertIsNone(Upstreams([]).with_namespace(RepositoryName("a"), "docker.io"))

    def test_a_name_that_has_the_prefix_already(self) -> None:
        self.assertEqual(self.local("docker.io/library/alpine", "docker.io"), "docker.io/library/alpine")
        self.assertEqual(self.local("lab/tools/a", "registry.lab:5000"), "lab/tools/a")
        inner = upstream("docker.io/library", "https://mirror.example")
        self.assertEqual(self.local("docker.io/library/alpine", "docker.io", HUB, inner), "docker.io/library/alpine")
        # That of another one is a name like any.
        self.assertEqual(self.local("quay.io/x", "docker.io"), "docker.io/quay.io/x")

    def test_a_cache_of_one_registry(self) -> None:
        lab = upstream("", "http://registry.lab:5000")
        self.assertEqual(self.local("a/b", "registry.lab:5000", lab), "a/b")
        # It may be a mirror itself.
        self.assertIsNone(self.local("a/b", "quay.io", lab))
        self.assertIsNone(self.local("a/b", "", lab))

    def test_a_cache_of_docker_hub(self) -> None:
        hub = upstream("", "https://registry-1.docker.io")
        for namespace in ("docker.io", "registry-1.docker.io", "index.docker.io:443"):
            self.assertEqual(self.local("library/alpine", namespace, hub), "library/alpine")
        self.assertIsNone(self.local("library/alpine", "", hub))
        error = self.assertRaises(NameUnknown, self.local, "prometheus/prometheus", "quay.io", hub)
        self.assertIn("quay.io", str(error))

    def test_too_long(self) -> None:
        self.assertRaises(NameInvalid, self.local, "/".join(["abcd"] * 50), "docker.io")

    @given(st.lists(NAMES, unique=True, max_size=3), NAMES, NAMESPACES)
    def test_what_comes_out_is_cached(self, prefixes: list[str], name: str, namespace: str) -> None:
        upstreams = Upstreams([upstream(prefix, f"https://{prefix[0]}.example:5000") for prefix in prefixes])
        found = upstreams.with_namespace(RepositoryName(name), namespace)
        if found is not None:
            self.assertIsNotNone(upstreams.find(found))
            self.assertTrue(found == name or found.endswith(f"/{name}"))
            self.assertEqual(RepositoryName.parse(found), found)


class WriteTests(SynchronousTestCase):
    def test_below_a_prefix(self) -> None:
        error = self.assertRaises(Unsupported, Upstreams([HUB, LAB]).refuse_write, RepositoryName("docker.io/alpine"))
        self.assertEqual((error.status, error.headers), (405, {"Allow": "GET, HEAD"}))
        for said in ("https://registry-1.docker.io", "library/alpine there", "does not begin with docker.io/"):
            self.assertIn(said, error.message)

    def test_everywhere(self) -> None:
        error = self.assertRaises(Unsupported, Upstreams([upstream("")]).refuse_write, RepositoryName("a/b"))
        self.assertIn("this registry is a cache of https://registry.example", error.message)
        self.assertNotIn("or here", error.message)

    def test_local(self) -> None:
        for name in ("team/app", "docker.io", "docker.iot/x"):
            Upstreams([HUB, LAB]).refuse_write(RepositoryName(name))

    def test_no_password(self) -> None:
        secret = CacheUpstream("hub", parse_upstream("https://hub.example"), "user", "hunter2")
        error = self.assertRaises(Unsupported, Upstreams([secret]).refuse_write, RepositoryName("hub/x"))
        self.assertNotIn("hunter2", str(error.envelope()))
