"""Which manifests hold one another, beside a naive answer to the same question."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regd.maintenance.graph import Graph, Node, digest_of, raw, raw_name
from regd.names import Digest

DIGESTS = [bytes([number]) * 32 for number in range(8)] + [bytes([number]) * 64 for number in range(2)]

digests = st.sampled_from(DIGESTS)
nodes = st.builds(
    Node,
    blobs=st.just(()),
    children=st.lists(digests, max_size=3).map(tuple),
    subject=st.none() | digests,
)
aliases = st.dictionaries(st.sampled_from(DIGESTS[8:]), st.sampled_from(DIGESTS[:8]))


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    graph = Graph()
    graph.nodes = draw(st.dictionaries(digests, nodes))
    graph.aliases = {name: target for name, target in draw(aliases).items() if name not in graph.nodes}
    return graph


def naive(graph: Graph, roots: set[bytes]) -> set[bytes]:
    """What lives, found by asking of each manifest whether it has to, until no more is found."""

    def means(name: bytes) -> bytes:
        return graph.aliases.get(name, name)

    living = {means(root) for root in roots} & graph.nodes.keys()
    while True:
        more = set(living)
        for digest, node in graph.nodes.items():
            child = any(digest in map(means, graph.nodes[one].children) for one in living)
            subject = any(graph.nodes[one].subject is not None and means(graph.nodes[one].subject or b"") == digest for one in living)
            about = node.subject is not None and means(node.subject) in living
            if child or subject or about:
                more.add(digest)
        if more == living:
            return living
        living = more


class ReachTest(SynchronousTestCase):
    @given(graphs(), st.sets(digests))
    def test_like_the_naive_answer(self, graph: Graph, roots: set[bytes]) -> None:
        self.assertEqual(graph.reach(roots), naive(graph, roots))

    @given(graphs(), st.sets(digests))
    def test_removal_leaves_nothing_that_has_lost_its_children(self, graph: Graph, roots: set[bytes]) -> None:
        dead = graph.nodes.keys() - graph.reach(roots)
        levels = list(graph.levels(sorted(dead)))
        self.assertEqual(sorted(digest for level in levels for digest in level), sorted(dead))
        gone: set[bytes] = set()
        for number, level in enumerate(levels):
            gone |= set(level)
            cyclic = number == len(levels) - 1
            for digest in dead - gone:
                node = graph.nodes[digest]
                lost = {graph.aliases.get(child, child) for child in node.children} & gone
                # Digests are no circles but in this test: an index that is about its own child is the most that there can be.
                self.assertTrue(not lost or cyclic or self.circle(graph, digest), (number, digest))

    def circle(self, graph: Graph, digest: bytes) -> bool:
        return digest in naive_holders(graph, digest)

    def test_an_index_goes_before_its_children_and_a_subject_before_what_is_about_it(self) -> None:
        index, child, about, alone = DIGESTS[:4]
        graph = Graph()
        graph.nodes = {about: Node(subject=child), child: Node(), index: Node(children=(child,)), alone: Node()}
        self.assertEqual([sorted(level) for level in graph.levels([about, child, index, alone])], [[index, alone], [child], [about]])

    def test_an_index_that_is_about_its_own_child_goes_with_it(self) -> None:
        index, child = DIGESTS[:2]
        graph = Graph()
        graph.nodes = {index: Node(children=(child,), subject=child), child: Node()}
        self.assertEqual([sorted(level) for level in graph.levels([index, child])], [[index, child]])


def naive_holders(graph: Graph, digest: bytes) -> set[bytes]:
    """All that has to be removed before a manifest, and so on."""
    found: set[bytes] = set()
    waiting = [digest]
    while waiting:
        one = waiting.pop()
        for other, node in graph.nodes.items():
            subject = graph.nodes[one].subject
            holds = one in {graph.aliases.get(child, child) for child in node.children}
            if (holds or (subject is not None and graph.aliases.get(subject, subject) == other)) and other not in found:
                found.add(other)
                waiting.append(other)
    return found


class DigestTest(SynchronousTestCase):
    @given(st.binary(), st.sampled_from(["sha256", "sha512"]))
    def test_there_and_back(self, content: bytes, algorithm: str) -> None:
        digest = Digest.of(content, algorithm)
        self.assertEqual(digest_of(raw(digest)), digest)
        self.assertEqual(raw_name(algorithm, digest.hex), raw(digest))

    def test_names_that_are_no_digests(self) -> None:
        digest = Digest.of(b"")
        cut = (digest.hex[:-1], f"{digest.hex}a", f" {digest.hex[1:]}", f"{digest.hex}.tmp")
        names = ("", "ab", digest.hex.upper(), *cut, "g" * 64, "\u0661" * 64)
        for name in names:
            self.assertIsNone(raw_name("sha256", name), name)
        self.assertIsNone(raw_name("sha512", digest.hex))
        self.assertIsNone(raw_name("md5", digest.hex))
