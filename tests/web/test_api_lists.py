"""Lists over HTTP, as tables: repositories, tags, referrers, page by page."""

from __future__ import annotations

import json
import re
from itertools import chain
from typing import Any

from regd.manifest import OCI_IMAGE, OCI_INDEX
from regd.web import lists
from tests.web.support import MINIMAL, ApiCase, Row, descriptor, digest_of, index
from tests.web.wire import Answer

ABSENT = "sha256:" + "0" * 64


class ListCase(ApiCase):
    def walk(self, target: str, field: str) -> list[list[Any]]:
        """
        :return: The pages, as a client finds them that follows ``Link`` (RFC 8288).
        """
        pages = []
        while True:
            answer = self.ask("GET", target)
            self.assertEqual(answer.status, 200, answer)
            self.assertEqual(answer["Content-Length"], str(len(answer.body)))
            pages.append(json.loads(answer.body)[field])
            link = answer.get("Link")
            if link is None:
                return pages
            found = re.fullmatch(r'<(/v2/[^>]*)>; rel="next"', link)
            assert found is not None, link
            self.assertLess(len(pages), 100)
            target = found[1]


class TagsTests(ListCase):
    def setUp(self) -> None:
        super().setUp()
        self.digest, self.manifest = self.push_image("a", "v10", "V1", "v2", "latest", "_x")

    #: In the order of their bytes.
    TAGS = ["V1", "_x", "latest", "v10", "v2"]

    def test_all(self) -> None:
        body = json.dumps({"name": "a", "tags": self.TAGS}, separators=(",", ":")).encode() + b"\n"
        self.table([Row("GET", "/v2/a/tags/list", 200, body, {"Content-Type": "application/json", "Link": None})])

    def test_pages(self) -> None:
        for size in (1, 2, 4, 5, 6, 1000):
            pages = self.walk(f"/v2/a/tags/list?n={size}", "tags")
            self.assertEqual([*chain(*pages)], self.TAGS)
            self.assertTrue(all(len(page) == size for page in pages[:-1]))
        self.assertEqual(len(self.walk("/v2/a/tags/list?n=5", "tags")), 1)
        self.assertEqual(self.ask("GET", "/v2/a/tags/list?n=2")["Link"], '</v2/a/tags/list?last=_x&n=2>; rel="next"')

    def test_last(self) -> None:
        for last, tags in (
            ("latest", ["v10", "v2"]),
            ("lates", ["latest", "v10", "v2"]),
            ("v2", []),
            ("zzz", []),
            ("", self.TAGS),
            ("%ff", []),
            ("A%2FB", self.TAGS),
        ):
            self.assertEqual(self.walk(f"/v2/a/tags/list?last={last}", "tags"), [tags], last)
        self.assertEqual(self.walk("/v2/a/tags/list?n=1&last=latest", "tags"), [["v10"], ["v2"]])

    def test_none(self) -> None:
        """``n=0`` asks for nothing, and has no next page."""
        self.table([Row("GET", "/v2/a/tags/list?n=0", 200, b'{"name":"a","tags":[]}\n', {"Link": None})])

    def test_bad_numbers(self) -> None:
        self.table(
            Row("GET", f"/v2/a/tags/list?n={number}", 400, "PAGINATION_NUMBER_INVALID")
            for number in ("-1", "x", "1.5", "1e3", "%2B1", "9999999999", "%D9%A1", "%ff", "0x10")
        )

    def test_the_limit(self) -> None:
        self.build(MINIMAL + "tags: {maxtags: 2}\n", self.driver)
        for query in ("", "?n=1000", "?n=2"):
            self.assertEqual([len(page) for page in self.walk(f"/v2/a/tags/list{query}", "tags")], [2, 2, 1])

    def test_unknown(self) -> None:
        self.push_blob("blobs/only", b"x")
        self.table(
            [
                Row("GET", "/v2/none/tags/list", 404, "NAME_UNKNOWN"),
                Row("GET", "/v2/blobs/only/tags/list", 404, "NAME_UNKNOWN"),
                Row("GET", "/v2/blobs/tags/list", 404, "NAME_UNKNOWN"),
            ]
        )

    def test_no_tags(self) -> None:
        """A repository that has manifests and no tags is there."""
        digest, _ = self.push_image("untagged")
        self.push_image("emptied", "v1")
        self.assertEqual(self.ask("DELETE", "/v2/emptied/manifests/v1").status, 202)
        for name in ("untagged", "emptied"):
            self.table([Row("GET", f"/v2/{name}/tags/list", 200, b'{"name":"%s","tags":[]}\n' % name.encode())])
        self.assertEqual(self.ask("DELETE", f"/v2/untagged/manifests/{digest}").status, 202)
        self.assertEqual(self.ask("GET", "/v2/untagged/tags/list").status, 200)


class CatalogTests(ListCase):
    #: In the order of their bytes.
    NAMES = ["a", "a-b", "a.b/c", "a/b", "a/b/c", "b", "z9"]

    def setUp(self) -> None:
        super().setUp()
        for name in reversed(self.NAMES):
            self.push_image(name, "v1")
        self.push_blob("no/manifest", b"x")

    def test_all(self) -> None:
        body = json.dumps({"repositories": self.NAMES}, separators=(",", ":")).encode() + b"\n"
        self.table([Row("GET", "/v2/_catalog", 200, body, {"Content-Type": "application/json", "Link": None})])

    def test_pages(self) -> None:
        for size in (1, 2, 3, 7, 100):
            self.assertEqual([*chain(*self.walk(f"/v2/_catalog?n={size}", "repositories"))], self.NAMES)
        self.assertEqual(self.ask("GET", "/v2/_catalog?n=4")["Link"], '</v2/_catalog?last=a%2Fb&n=4>; rel="next"')

    def test_last(self) -> None:
        rest = ["a/b/c", "b", "z9"]
        for last, names in (("a/b", rest), ("a%2Fb", rest), ("a/a", self.NAMES[3:]), ("zz", []), ("%ff", [])):
            self.assertEqual(self.walk(f"/v2/_catalog?last={last}", "repositories"), [names])

    def test_numbers(self) -> None:
        self.build(MINIMAL + "catalog: {maxentries: 3}\n", self.driver)
        self.table(
            [
                Row("GET", "/v2/_catalog?n=0", 200, b'{"repositories":[]}\n', {"Link": None}),
                Row("GET", "/v2/_catalog?n=4", 400, "PAGINATION_NUMBER_INVALID"),
                Row("GET", "/v2/_catalog?n=-1", 400, "PAGINATION_NUMBER_INVALID"),
                Row("GET", "/v2/_catalog?n=x", 400, "PAGINATION_NUMBER_INVALID"),
            ]
        )
        for query in ("", "?n=3", "?n="):
            self.assertEqual([len(page) for page in self.walk(f"/v2/_catalog{query}", "repositories")], [3, 3, 1])

    def test_empty(self) -> None:
        self.build(MINIMAL)
        self.table([Row("GET", "/v2/_catalog", 200, b'{"repositories":[]}\n')])


class PrefixTests(ListCase):
    def test_links_are_below_the_prefix(self) -> None:
        for name in ("a", "b"):
            self.push_image(name, "v1", "v2")
        self.build(MINIMAL + "http: {prefix: /x/}\n", self.driver)
        self.assertEqual(self.ask("GET", "/x/v2/_catalog?n=1")["Link"], '</x/v2/_catalog?last=a&n=1>; rel="next"')
        self.assertEqual(self.ask("GET", "/x/v2/a/tags/list?n=1")["Link"], '</x/v2/a/tags/list?last=v1&n=1>; rel="next"')


class ReferrersTests(ListCase):
    def setUp(self) -> None:
        super().setUp()
        self.subject, self.content = self.push_image("a", "v1")
        self.about = descriptor(self.content, OCI_IMAGE)

    def refer(self, layer: bytes, **fields: object) -> dict[str, object]:
        """Push a referrer; the entry that lists it."""
        digest, content = self.push_image("a", layer=layer, subject=self.about, **fields)
        entry = {"mediaType": OCI_IMAGE, "digest": digest, "size": len(content)}
        entry["artifactType"] = fields.get("artifactType", "application/vnd.oci.image.config.v1+json")
        if "annotations" in fields:
            entry["annotations"] = fields["annotations"]
        return entry

    def listed(self, answer: Answer) -> list[dict[str, object]]:
        self.assertEqual((answer.status, answer["Content-Type"]), (200, OCI_INDEX))
        document = json.loads(answer.body)
        self.assertEqual((document["schemaVersion"], document["mediaType"]), (2, OCI_INDEX))
        found: list[dict[str, object]] = document["manifests"]
        return found

    def referrers(self, query: str = "") -> list[dict[str, object]]:
        return self.listed(self.ask("GET", f"/v2/a/referrers/{self.subject}{query}"))

    def test_none(self) -> None:
        self.assertEqual(self.referrers(), [])
        for name, digest in (("a", ABSENT), ("none", ABSENT), ("a", "sha512:" + "0" * 128)):
            self.assertEqual(self.listed(self.ask("GET", f"/v2/{name}/referrers/{digest}")), [])

    def test_some(self) -> None:
        entries = [self.refer(b"1"), self.refer(b"2", artifactType="x/y+z", annotations={"k": "é"})]
        key = str
        self.assertEqual(sorted(self.referrers(), key=key), sorted(entries, key=key))
        # They are about an image of this repository.
        self.assertEqual(self.listed(self.ask("GET", f"/v2/b/referrers/{self.subject}")), [])

    def test_filter(self) -> None:
        self.refer(b"1")
        entry = self.refer(b"2", artifactType="x/y+z")
        for query, entries in (("x/y%2Bz", [entry]), ("none", []), ("%ff", [])):
            answer = self.ask("GET", f"/v2/a/referrers/{self.subject}?artifactType={query}")
            self.assertEqual(answer["OCI-Filters-Applied"], "artifactType")
            self.assertEqual(self.listed(answer), entries)
        answer = self.ask("GET", f"/v2/a/referrers/{self.subject}")
        self.assertIsNone(answer.get("OCI-Filters-Applied"))

    def test_deleted(self) -> None:
        digest = self.refer(b"1")["digest"]
        self.assertEqual(self.ask("DELETE", f"/v2/a/manifests/{digest}").status, 202)
        self.assertEqual(self.referrers(), [])

    def test_before_the_subject(self) -> None:
        late = self.image("a", b"late")
        digest, _ = self.push_image("a", layer=b"early", subject=descriptor(late, OCI_IMAGE))
        found = self.listed(self.ask("GET", f"/v2/a/referrers/{digest_of(late)}"))
        self.assertEqual([entry["digest"] for entry in found], [digest])

    def test_fallback_tag(self) -> None:
        """What clients of registries without this API wrote under a tag is merged in (specification 1.1, "Referrers Tag Schema")."""
        one = self.refer(b"1")
        content = index({"mediaType": OCI_IMAGE, "digest": one["digest"], "size": one["size"]})
        self.push_manifest("a", self.subject.replace(":", "-"), content, OCI_INDEX)
        self.assertEqual(self.referrers(), [one])

    def test_pages(self) -> None:
        self.patch(lists, "_REFERRERS", 2)
        entries = [self.refer(b"%d" % number, artifactType="x/y") for number in range(5)]
        pages = self.walk(f"/v2/a/referrers/{self.subject}?artifactType=x/y", "manifests")
        self.assertEqual([len(page) for page in pages], [2, 2, 1])
        self.assertEqual({entry["digest"] for entry in [*chain(*pages)]}, {entry["digest"] for entry in entries})

    def test_texts_that_are_no_unicode(self) -> None:
        """JSON can say half of a surrogate pair, and so can a manifest; a listing repeats it."""
        entry = self.refer(b"1", annotations={"k": "\ud800"})
        self.assertEqual(self.referrers(), [entry])
