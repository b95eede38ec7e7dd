"""The drawing of changes per day: heights are counts, and no kind is said by colour alone."""

from datetime import date, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tagsync.drawing import draw_bars
from tagsync.drawing.bars import KINDS, heights, scale_end
from tagsync.drawing.values import Day
from tests.support.drawings import by_class, parse, percents, titles

FIRST = date(2026, 11, 1)
COUNTS = st.integers(0, 10**7)


def test_a_day_is_a_stack_of_its_changes() -> None:
    """The parts of a bar stand upon each other, and are as high as their counts on the scale."""
    days = [Day(FIRST, moved=40, added=20, updated=10, deleted=10), Day(FIRST + timedelta(days=1))]
    drawing = parse(draw_bars(days, prefix="p", title="t"))
    first, second = by_class(drawing, "day")
    parts = {
        kind: tuple(float(rect.get(name, "")) for name in ("y", "height"))
        for kind in KINDS
        for rect in by_class(first, kind)
    }
    assert parts == {
        "moved": (66, 48),
        "added": (42, 24),
        "updated": (30, 12),
        "deleted": (18, 12),
    }
    assert percents(by_class(first, "moved")[0], "x", "width") == (7, 36)
    assert titles(first) == ["2026-11-01: 40 moved, 20 added, 10 updated, 10 deleted"]
    assert titles(second) == ["2026-11-02: no changes"]
    assert [text.text for text in drawing.iter("text")][:2] == ["40", "80"]


def test_the_kinds_differ_without_colour() -> None:
    """Of two kinds that touch each other, one has a pattern."""
    drawing = parse(draw_bars([Day(FIRST, 1, 1, 1, 1)], prefix="p", title="t"))
    (day,) = by_class(drawing, "day")
    fills = [rect.get("fill") for rect in day.iter("rect")][1:]
    assert fills == [None, None, "url(#p-added)", None, None, "url(#p-deleted)"]


@given(COUNTS, COUNTS, COUNTS, COUNTS)
@example(1597, 1, 1, 1)
def test_a_bar_is_within_the_plot(moved: int, added: int, updated: int, deleted: int) -> None:
    """Each kind that occurs is visible, and the bar ends within the scale."""
    day = Day(FIRST, moved, added, updated, deleted)
    found = heights(day, scale_end(day.total))
    assert [kind for kind, _ in found] == [kind for kind in KINDS if getattr(day, kind)]
    assert all(height >= 1.88 for _, height in found)
    assert sum(height for _, height in found) <= 96.001


@given(st.integers(0, 10**12))
def test_a_scale_is_round_and_close(highest: int) -> None:
    """The end of a scale has two digits at most, and is less than twice the highest value."""
    end = scale_end(highest)
    assert end >= highest
    assert end % 2 == 0
    assert len(str(end).rstrip("0")) <= 2
    assert end <= max(2 * highest, 2)


def test_no_days_are_drawn() -> None:
    """A record without any change has an empty drawing, and a day without one is in it."""
    assert parse(draw_bars([], prefix="p", title="t")).findtext("desc") == "No days."
    description = parse(draw_bars([Day(FIRST)], prefix="p", title="t")).findtext("desc") or ""
    assert "0 moved, 0 added, 0 updated, 0 deleted" in description


def test_days_are_links_if_they_have_pages() -> None:
    """The link of a day is reached with the tab key, because no table may be beside it."""
    drawing = parse(draw_bars([Day(FIRST, href="changes?day=1")], prefix="p", title="t"))
    (link,) = drawing.iter("a")
    assert (link.get("href"), link.get("tabindex")) == ("changes?day=1", None)
    assert drawing.get("role") == "group"


def test_too_many_days_are_refused() -> None:
    """The size of a drawing is bounded."""
    days = [Day(FIRST + timedelta(days=index)) for index in range(401)]
    with pytest.raises(ValueError, match="at most 400"):
        draw_bars(days, prefix="p", title="t")
