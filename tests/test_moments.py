"""Moments as they are written."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regd.moments import rfc3339


class MomentsTest(SynchronousTestCase):
    def test_how_moments_are_written(self) -> None:
        self.assertEqual(rfc3339(0.9), "1970-01-01T00:00:00Z")
        self.assertEqual(rfc3339(1136214245.25), "2006-01-02T15:04:05Z")
        self.assertEqual(rfc3339(1136214245.25, "microseconds"), "2006-01-02T15:04:05.250000Z")
        self.assertEqual(rfc3339(1136214245, "microseconds"), "2006-01-02T15:04:05.000000Z")
        # Before the year 1000 it has four digits, too.
        self.assertEqual(rfc3339(-62135596800), "0001-01-01T00:00:00Z")

    @given(st.datetimes(timezones=st.just(UTC)))
    def test_what_is_written_is_read(self, moment: datetime) -> None:
        whole = moment.replace(microsecond=0)
        self.assertEqual(datetime.fromisoformat(rfc3339(whole.timestamp())), whole)
