"""The time axis: its ticks are at round times, and its labels have room on every page."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagsync.drawing.axis import draw_axis, ticks
from tagsync.drawing.room import MARGINS, PAGES
from tagsync.drawing.values import Range

END = datetime(2026, 11, 26, 12, 38, tzinfo=UTC)

LABEL = 44
"""Pixels of the longest label, ``26 Nov``, in the usual fonts."""


def span(length: timedelta, end: datetime = END) -> Range:
    return Range(end - length, end)


def labels(length: timedelta) -> list[str]:
    return [tick.label for tick in ticks(span(length))]


@pytest.mark.parametrize(
    ("length", "first", "last", "count"),
    [
        (timedelta(minutes=7), "12:31", "12:38", 8),
        (timedelta(hours=1), "11:40", "12:35", 12),
        (timedelta(days=1), "14:00", "12:00", 12),
        (timedelta(days=7), "20 Nov", "26 Nov", 7),
        (timedelta(days=30), "2 Nov", "23 Nov", 4),
        (timedelta(days=365), "Dec", "Nov", 12),
        (timedelta(days=3652), "2017", "2026", 10),
        (timedelta(days=365 * 300), "1750", "2000", 6),
    ],
)
def test_ticks_are_at_round_times(length: timedelta, first: str, last: str, count: int) -> None:
    """The step fits the range: minutes, hours, days, weeks, months or years."""
    found = labels(length)
    assert (found[0], found[-1], len(found)) == (first, last, count)


def test_a_larger_unit_is_named_where_it_begins() -> None:
    """Midnight has the date as its label, and January the year."""
    assert "26 Nov" in labels(timedelta(days=1))
    assert "2026" in labels(timedelta(days=365))


def test_weeks_begin_on_mondays() -> None:
    """A step of a week has its ticks on Mondays."""
    assert {tick.at.weekday() for tick in ticks(span(timedelta(days=60)))} == {0}


def test_times_of_other_zones_are_shown_in_utc() -> None:
    """The ticks do not depend on the time zone of the range's datetimes."""
    zone = datetime.strptime("+0530", "%z").tzinfo
    other = span(timedelta(days=1), END.astimezone(zone))
    assert ticks(other) == ticks(span(timedelta(days=1)))
    new_year = datetime(2027, 1, 1, 0, 30, tzinfo=UTC)
    western = new_year.astimezone(datetime.strptime("-0500", "%z").tzinfo)
    assert ticks(span(timedelta(days=3652), western))[-1].at == new_year.replace(minute=0)


@given(
    seconds=st.integers(1, 10 * 366 * 86_400),
    end=st.datetimes(datetime(1990, 1, 1), datetime(2200, 1, 1)),  # noqa: DTZ001  made aware below
)
def test_labels_never_overlap(seconds: int, end: datetime) -> None:
    """On every width of page the labels that it shows have room between them and at the ends."""
    found = ticks(span(timedelta(seconds=seconds), end.replace(tzinfo=UTC)))
    assert len(found) <= 13
    assert all(0 <= tick.position <= 100 for tick in found)
    for page in PAGES:
        shown = [
            tick.position * (page - MARGINS) / 100
            for tick in found
            if tick.shown and int(tick.shown.removeprefix("from-")) <= page
        ]
        assert all(b - a >= LABEL for a, b in pairwise(shown))
        assert all(LABEL / 2 - 3 <= at <= page - MARGINS - LABEL / 2 + 3 for at in shown)


@pytest.mark.parametrize("days", [1, 7, 30, 90, 365, 3650])
def test_a_narrow_page_has_labels(days: int) -> None:
    """The ranges that the pages offer have at least two labels on a page of 360 pixels."""
    found = [tick for tick in ticks(span(timedelta(days=days))) if tick.shown == "from-360"]
    assert len(found) >= 2


def test_the_ends_are_written_out() -> None:
    """The axis has the exact ends of its range, with year and time zone."""
    parent = ET.Element("svg")
    draw_axis(parent, span(timedelta(days=1)), bottom=100)
    texts = [text.text for text in parent.iter("text")]
    assert texts[:2] == ["2026-11-25 12:38", "2026-11-26 12:38 UTC"]
