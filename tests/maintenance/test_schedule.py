"""When a chore is due."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from unittest.mock import patch
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regd.maintenance.schedule import LocalTime, back_off, opening

BERLIN = ZoneInfo("Europe/Berlin")


@dataclass(frozen=True)
class Part:
    """A part of the day, in minutes after midnight."""

    start: int
    end: int


def local(zone: ZoneInfo) -> LocalTime:
    """
    :return: What :func:`time.localtime` is in a zone.
    """
    return lambda seconds: datetime.fromtimestamp(seconds, zone).timetuple()


@contextmanager
def time_zone(name: str) -> Iterator[None]:
    """
    :param name: The zone that the process is in meanwhile.
    """
    try:
        with patch.dict(os.environ, {"TZ": name}):
            time.tzset()
            yield
    finally:
        time.tzset()


def at(text: str, zone: ZoneInfo = BERLIN, *, fold: int = 0) -> float:
    """
    :param text: A local time, in ISO 8601.
    :return: Seconds since the epoch.
    """
    return datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold).timestamp()


NIGHT = Part(120, 300)
OVER_MIDNIGHT = Part(23 * 60, 4 * 60)


class OpeningTests(SynchronousTestCase):
    def opens(self, text: str, window: Part, expected: str) -> None:
        self.assertEqual(opening(at(text), window, local(BERLIN)), at(expected), (text, window))

    def test_without_a_window(self) -> None:
        self.assertEqual(opening(123.456, None), 123.456)

    def test_now_and_later(self) -> None:
        self.opens("2026-01-10T02:00:00", NIGHT, "2026-01-10T02:00:00")
        self.opens("2026-01-10T04:59:59.5", NIGHT, "2026-01-10T04:59:59.5")
        self.opens("2026-01-10T05:00:00", NIGHT, "2026-01-11T02:00:00")
        self.opens("2026-01-10T01:59:59.9", NIGHT, "2026-01-10T02:00:00")
        self.opens("2026-01-31T13:17:05", NIGHT, "2026-02-01T02:00:00")

    def test_over_midnight(self) -> None:
        self.opens("2026-01-10T22:59:00", OVER_MIDNIGHT, "2026-01-10T23:00:00")
        self.opens("2026-01-10T23:59:59", OVER_MIDNIGHT, "2026-01-10T23:59:59")
        self.opens("2026-01-10T03:59:00", OVER_MIDNIGHT, "2026-01-10T03:59:00")
        self.opens("2026-01-10T04:00:00", OVER_MIDNIGHT, "2026-01-10T23:00:00")
        self.opens("2026-01-10T04:00:00", Part(1335, 0), "2026-01-10T22:15:00")

    def test_clocks_go_forward(self) -> None:
        """On 29 March 2026, 02:00 to 03:00 is not there."""
        self.opens("2026-03-28T12:00:00", NIGHT, "2026-03-29T03:00:00")
        self.opens("2026-03-28T12:00:00", Part(120, 180), "2026-03-30T02:00:00")

    def test_clocks_go_back(self) -> None:
        """On 25 October 2026, 02:00 to 03:00 is there twice."""
        hour = Part(120, 180)
        self.opens("2026-10-24T12:00:00", hour, "2026-10-25T02:00:00")
        second = at("2026-10-25T02:00:00", fold=1)
        self.assertEqual(opening(second - 1, hour, local(BERLIN)), second - 1)
        self.assertEqual(opening(second + 3600, hour, local(BERLIN)), at("2026-10-26T02:00:00"))

    def test_a_day_that_is_not_there(self) -> None:
        """Samoa had no 30 December 2011."""
        apia = ZoneInfo("Pacific/Apia")
        self.assertEqual(opening(at("2011-12-29T23:59:00", apia), NIGHT, local(apia)), at("2011-12-31T02:00:00", apia))

    def test_the_zone_of_the_process(self) -> None:
        for name in ("Europe/Berlin", "America/St_Johns", "UTC"):
            with time_zone(name):
                zone = ZoneInfo(name)
                self.assertEqual(opening(at("2026-01-10T12:00:00", zone), NIGHT), at("2026-01-11T02:00:00", zone), name)

    @given(
        st.floats(0, 4e9),
        st.integers(0, 1439),
        st.integers(0, 1439),
        st.sampled_from(["UTC", "Europe/Berlin", "Asia/Kathmandu", "Australia/Lord_Howe", "America/St_Johns"]),
    )
    def test_it_is_open_then_and_was_not_before(self, earliest: float, start: int, end: int, name: str) -> None:
        if start == end:
            return
        zone = local(ZoneInfo(name))
        window = Part(start, end)

        def is_open(moment: float) -> bool:
            found = zone(moment)
            minute = found.tm_hour * 60 + found.tm_min
            return (minute - start) % 1440 < (end - start) % 1440

        found = opening(earliest, window, zone)
        self.assertTrue(is_open(found))
        self.assertGreaterEqual(found, earliest)
        self.assertLess(found - earliest, 3 * 86400)
        if found > earliest:
            self.assertFalse(any(is_open(earliest + step * (found - earliest) / 50) for step in range(50)))


class BackOffTests(SynchronousTestCase):
    def test_it_doubles(self) -> None:
        self.assertEqual([back_off(count, 86400) for count in (1, 2, 3, 10, 11, 12, 10_000)], [60, 120, 240, 30720, 61440, 86400, 86400])

    def test_it_is_never_longer_than_the_interval(self) -> None:
        self.assertEqual(back_off(1, 2.0), 2.0)
