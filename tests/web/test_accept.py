"""``Accept``: RFC 9110, section 12.5.1."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regd.web.accept import Accept

OCI = "application/vnd.oci.image.manifest.v1+json"


class AcceptTests(SynchronousTestCase):
    def test_table(self) -> None:
        for headers, allows in (
            ([], True),
            ([""], True),
            ([",,"], True),
            (["*/*"], True),
            (["text/html, */*;q=0.1"], True),
            ([OCI], True),
            ([OCI.upper()], True),
            (["text/html", OCI], True),
            ([f"text/html,{OCI};q=0.5"], True),
            ([f"{OCI}; charset=utf-8"], True),
            (["application/*"], True),
            (["text/html"], False),
            (["text/*"], False),
            (["application"], False),
            ([f"{OCI}x"], False),
            ([f"{OCI};q=0, text/html"], False),
            ([f"{OCI} ; Q = 0.000, text/html"], False),
            (["*/*;q=0, text/html"], False),
            ([f"{OCI};q=x"], True),
        ):
            self.assertEqual(Accept.parse(headers).allows(OCI), allows, headers)

    @given(st.lists(st.text(max_size=40), max_size=3))
    def test_any_text(self, headers: list[str]) -> None:
        accept = Accept.parse(headers)
        self.assertIsInstance(accept.allows(OCI), bool)
        if not any(text.strip() for header in headers for text in header.split(",")):
            self.assertTrue(accept.allows(OCI))

    @given(st.lists(st.from_regex(r"[a-z]{1,5}/[a-z]{1,5}", fullmatch=True), min_size=1, max_size=5))
    def test_each_type_that_is_named(self, types: list[str]) -> None:
        for header in ([", ".join(types)], types, [";q=0.5,".join(types)]):
            accept = Accept.parse(header)
            self.assertTrue(all(accept.allows(found) for found in types))
