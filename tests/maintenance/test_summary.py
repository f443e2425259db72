"""What became of a collection, written and read again."""

from __future__ import annotations

import json
from dataclasses import fields

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regd.maintenance.collector import Summary

VALUES = {
    str: st.text(),
    int: st.integers(min_value=0),
    float: st.floats(allow_nan=False, allow_infinity=False),
    bool: st.booleans(),
}

summaries = st.builds(Summary, **{field.name: VALUES[type(field.default)] for field in fields(Summary)})
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from([field.name for field in fields(Summary)]), inner),
)


class SummaryTest(SynchronousTestCase):
    @given(summaries)
    def test_there_and_back(self, summary: Summary) -> None:
        text = summary.to_json()
        self.assertEqual(Summary.from_json(text), summary)
        self.assertEqual(Summary.from_json(text.encode()), summary)
        self.assertNotIn("\n", text)

    def test_of_another_version(self) -> None:
        self.assertEqual(Summary.from_json('{"blobs": 3, "seconds": 2, "new": [1]}'), Summary(blobs=3, seconds=2.0))

    @given(anything.map(json.dumps) | st.text() | st.binary() | st.just("[" * 100_000))
    def test_anything_else_is_a_value_error(self, text: str | bytes) -> None:
        try:
            Summary.from_json(text)
        except ValueError:
            return
