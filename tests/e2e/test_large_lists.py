"""
Lists of a large registry while it changes: regd's processes and ``docker-registry`` on one directory, each showing what any of them wrote.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator

from benchmarks import trees
from tests.e2e.case import E2ETestCase
from tests.e2e.daemon import Peer, Regd
from tests.e2e.images import OCI_CONFIG, OCI_MANIFEST
from tests.e2e.rawhttp import Client, digest_of

#: More names than are read where one stands.
COUNT = 2000
TAGS = [f"v{number:06}" for number in range(COUNT)]
REPOSITORIES = [f"r{number:06}" for number in range(COUNT)]
CONFIG = b"{}"
MANIFEST = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": OCI_CONFIG, "size": len(CONFIG), "digest": digest_of(CONFIG)},
        "layers": [],
    }
).encode()


class LargeListsTest(E2ETestCase):
    def setUp(self) -> None:
        directory = self.directory / self._testMethodName
        self.ours = Regd(directory / "ours", environment={"REGISTRY_HTTP_WORKERS": "3"})
        self.theirs = Peer(directory / "theirs", data=self.ours.data)

    def start(self, make: Callable[[str, int], object]) -> None:
        """Make a tree, and let both serve it."""
        make(str(self.ours.data), COUNT)
        for one in (self.ours, self.theirs):
            self.addCleanup(one.stop)
            one.start()

    def push(self, client: Client, name: str, tag: str) -> None:
        client.push_blob(name, CONFIG)
        client.push_manifest(name, tag, OCI_MANIFEST, MANIFEST)

    def page(self, path: str, field: str, last: str, size: int = 10) -> list[str]:
        """
        :return: A page of regd's, by a connection of its own, so that now the one and now the other process answers.
        """
        found: list[str] = json.loads(self.ours.client.get(f"{path}?n={size}&last={last}").body)[field]
        return found

    def pages(self, path: str, field: str, size: int) -> Iterator[list[str]]:
        """
        :return: All pages, one after the other.
        """
        last = ""
        while page := self.page(path, field, last, size):
            yield page
            last = page[-1]

    def test_tags(self) -> None:
        self.start(trees.tags)
        path = f"/v2/{trees.REPOSITORY}/tags/list"
        # So that every process remembers it.
        for _ in range(12):
            self.assertEqual(self.page(path, "tags", "v001499"), TAGS[1500:1510])
        for number in range(8):
            tag = f"v001500-{number}"
            self.push((self.theirs if number % 2 else self.ours).client, trees.REPOSITORY, tag)
            for _ in range(4):
                self.assertEqual(self.page(path, "tags", f"v001500-{number - 1}" if number else "v001500", 2), [tag, TAGS[1501]])
        for number in range(0, 8, 2):
            self.assertEqual(self.ours.client.request("DELETE", f"/v2/{trees.REPOSITORY}/manifests/v001500-{number}").status, 202)
            for _ in range(4):
                self.assertNotIn(f"v001500-{number}", self.page(path, "tags", "v001500", 20))
        # What an administrator does by hand.
        tags = self.ours.data / "docker/registry/v2/repositories" / trees.REPOSITORY / "_manifests/tags"
        for number in range(1, 8, 2):
            shutil.rmtree(tags / f"v001500-{number}")
            for _ in range(4):
                self.assertNotIn(f"v001500-{number}", self.page(path, "tags", "v001500", 20))

    def test_tags_while_others_come_and_go(self) -> None:
        self.start(trees.tags)
        path = f"/v2/{trees.REPOSITORY}/tags/list"
        found: list[str] = []
        kept: list[str] = []
        for number, page in enumerate(self.pages(path, "tags", 150)):
            found += page
            # Somewhere in what is yet to come.
            tag = f"v{number * 150 + 200:06}-x"
            self.push((self.theirs if number % 2 else self.ours).client, trees.REPOSITORY, tag)
            if number % 3 == 0:
                self.assertEqual(self.ours.client.request("DELETE", f"/v2/{trees.REPOSITORY}/manifests/{tag}").status, 202)
            else:
                kept.append(tag)
        self.assertEqual(found, sorted([*TAGS, *kept]))

    def test_repositories(self) -> None:
        self.start(trees.repositories)
        for _ in range(12):
            self.assertEqual(self.page("/v2/_catalog", "repositories", "r001499"), REPOSITORIES[1500:1510])
        for number in range(6):
            name = f"r001500-{number}"
            self.push((self.theirs if number % 2 else self.ours).client, name, "latest")
            last = f"r001500-{number - 1}" if number else "r001500"
            for _ in range(4):
                self.assertEqual(self.page("/v2/_catalog", "repositories", last, 2), [name, REPOSITORIES[1501]])
        expected = sorted([*REPOSITORIES, *(f"r001500-{number}" for number in range(6))])
        self.assertEqual([name for page in self.pages("/v2/_catalog", "repositories", 700) for name in page], expected)
