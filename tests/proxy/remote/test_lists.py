"""Pages of tags."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regd.proxy.remote.lists import BadList, parse_manifests, parse_tags
from regd.proxy.remote.values import TagPage

TAGS = st.lists(st.text("abcdef", min_size=1, max_size=3), unique=True, max_size=20).map(sorted)
DOCUMENTS = st.recursive(
    st.none() | st.text() | st.integers(), lambda one: st.lists(one) | st.dictionaries(st.sampled_from(["tags", "manifests", "x"]), one)
)


def pages(tags: list[str], n: int | None, *, paging: str) -> list[str]:
    """Read all pages of a registry that does what it does about pages."""
    found: list[str] = []
    last = ""
    for _ in range(len(tags) + 2):
        content, link = tags, None
        if paging != "none":
            content = [tag for tag in tags if tag > last]
            size = 3 if n is None or paging == "own" else n
            if len(content) > size:
                content = content[:size]
                query = f"?n={size}&last={content[-1]}" if paging != "token" else "?next_page=xyz"
                link = f"/v2/x/tags/list{query}"
        page = parse_tags(json.dumps({"tags": content}).encode(), link, n, last)
        found += page.tags
        if page.last is None:
            return found
        last = page.last
    raise AssertionError("it never ends")


class TagTests(SynchronousTestCase):
    @given(TAGS, st.none() | st.integers(1, 8), st.sampled_from(["none", "right", "own", "token"]))
    def test_all_pages(self, tags: list[str], n: int | None, paging: str) -> None:
        self.assertEqual(pages(tags, n, paging=paging), tags)

    def test_none_at_all(self) -> None:
        self.assertEqual(parse_tags(b'{"tags": ["a"]}', None, 0, ""), TagPage((), None))

    def test_a_link_in_a_circle(self) -> None:
        self.assertEqual(parse_tags(b'{"tags": ["a"]}', "?last=a", None, "a"), TagPage(("a",), None))
        self.assertEqual(parse_tags(b'{"tags": []}', "?last=", None, ""), TagPage((), None))

    @given(st.binary(max_size=50) | DOCUMENTS.map(lambda one: json.dumps(one).encode()), st.none() | st.text())
    def test_anything(self, content: bytes, link: str | None) -> None:
        for parse in (lambda: parse_tags(content, link, 3, "a"), lambda: parse_manifests(content)):
            try:
                parse()
            except BadList as error:
                self.assertTrue(str(error))
