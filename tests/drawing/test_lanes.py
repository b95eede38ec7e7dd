"""The drawing of lanes: where the ends of intervals, windows, gaps and deletions are."""

import re
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagsync.drawing import draw_lanes
from tagsync.drawing.room import MARGINS, PIXEL
from tagsync.drawing.values import Deletion, Gap, Interval, Lane, Range
from tests.support.drawings import by_class, element_count, parse, percents, titles
from tests.support.hostile import TEXTS

START = datetime(2026, 11, 1, tzinfo=UTC)
DAY = timedelta(days=1)
SPAN = Range(START, START + 100 * DAY)
"""A hundred days, so that a day is a percent."""

DIGESTS = [f"sha256:{number:064x}" for number in range(40)]


def day(number: float) -> datetime:
    return START + number * DAY


def interval(
    digest: str | None,
    start: float,
    end: float,
    *,
    after: float | None = None,
    ended: float | None = None,
) -> Interval:
    """Return an interval from day ``start``, seen until day ``end``."""
    return Interval(
        digest,
        None if after is None else day(after),
        day(start),
        day(end),
        None if ended is None else day(ended),
    )


def draw(*lanes: Lane, span: Range = SPAN, gaps: tuple[Gap, ...] = ()) -> ET.Element:
    return parse(draw_lanes(lanes, span, gaps, prefix="p", title="History"))


def bars(drawing: ET.Element) -> list[tuple[float, float, str]]:
    """Return left end, right end and vertical place of each rectangle of an interval."""
    found = []
    for group in by_class(drawing, r"c\d+|unresolved|many"):
        if "legend" in group.get("class", "") or group.tag == "rect":
            continue
        for rect in group.iter("rect"):
            left, width = percents(rect, "x", "width")
            half = {"24": "whole", "12": "half"}.get(rect.get("height", ""))
            if half:
                upper = (float(rect.get("y", "")) - 70) % 56 == 0
                place = half if half == "whole" else ("upper" if upper else "lower")
                found.append((left, round(left + width, 3), place))
    return found


def test_the_ends_of_an_interval_are_its_moments() -> None:
    """A rectangle begins at valid_from and ends at still_at, in percent of the range."""
    lane = Lane("v1", (interval(DIGESTS[0], 10, 40, ended=40), interval(DIGESTS[1], 40, 75)))
    assert bars(draw(lane)) == [(10, 40, "whole"), (40, 75, "whole")]


def test_a_window_of_uncertainty_belongs_to_both_digests() -> None:
    """Between two listings the old digest has the upper half, and the new one the lower half."""
    lane = Lane(
        "v1",
        (interval(DIGESTS[0], 10, 40, ended=50), interval(DIGESTS[1], 50, 75, after=40)),
    )
    assert bars(draw(lane)) == [
        *((10, 40, "whole"), (40, 50, "upper")),
        *((50, 75, "whole"), (40, 50, "lower")),
    ]


def test_a_window_narrower_than_a_pixel_is_not_drawn() -> None:
    """Polls every few minutes leave windows that a drawing of months need not show."""
    lane = Lane("v1", (interval(DIGESTS[0], 10, 40, after=9.99, ended=40.01),))
    assert bars(draw(lane)) == [(10, 40, "whole")]


def test_a_window_into_the_range_is_drawn_without_its_interval() -> None:
    """An interval that was last seen before the range may have lasted into it."""
    lane = Lane("v1", (interval(DIGESTS[0], -20, -10, ended=5),))
    assert bars(draw(lane)) == [(0, 5, "upper")]


def test_an_interval_of_one_listing_begins_at_the_end_of_the_listing() -> None:
    """A listing that started before it ended leaves still_at before valid_from."""
    lane = Lane("v1", (interval(DIGESTS[0], 50, 45, after=40, ended=60),))
    assert bars(draw(lane))[1:] == [(40, 50, "lower"), (50, 60, "upper")]


def test_an_interval_that_goes_on_ends_at_the_last_listing() -> None:
    """An interval without an end is drawn until still_at, and not until the end of the range."""
    assert bars(draw(Lane("v1", (interval(DIGESTS[0], 0, 60),)))) == [(0, 60, "whole")]


def test_an_interval_is_cut_at_the_ends_of_the_range() -> None:
    """What is before or after the range is not drawn, and an interval across it fills it."""
    lane = Lane(
        "v1",
        (
            interval(DIGESTS[0], -90, -50, ended=-50),
            interval(DIGESTS[1], -50, 200, ended=200),
            interval(DIGESTS[2], 200, 300),
        ),
    )
    assert bars(draw(lane)) == [(0, 100, "whole")]


def test_an_interval_of_no_length_is_a_pixel_wide() -> None:
    """A digest that only one listing showed is visible, also at the end of the range."""
    middle, end = interval(DIGESTS[0], 50, 50, ended=50), interval(DIGESTS[0], 100, 99.9)
    ((left, right, _),) = bars(draw(Lane("v1", (middle,))))
    assert left == 50
    assert right == pytest.approx(50 + PIXEL, abs=0.001)
    ((left, right, _),) = bars(draw(Lane("v1", (end,))))
    assert right == pytest.approx(100, abs=0.002)
    assert left < right


def test_a_range_without_length_is_drawn() -> None:
    """A record of a single listing has a range from a moment to the same moment."""
    lane = Lane("v1", (interval(DIGESTS[0], 0, 0),))
    ((left, right, place),) = bars(draw(lane, span=Range(START, START)))
    assert (left, place) == (0, "whole")
    assert Range(START, START).position(day(1)) == 100
    assert right == pytest.approx(PIXEL, abs=0.001)


def test_a_range_cannot_end_before_it_starts() -> None:
    """A range whose ends are in the wrong order is refused."""
    with pytest.raises(ValueError, match="cannot end"):
        Range(day(1), day(0))


def test_neighbours_have_different_colours() -> None:
    """Two digests of a lane that follow each other never have the same class."""
    many = tuple(
        interval(digest, number, number + 1, ended=number + 1)
        for number, digest in enumerate(DIGESTS)
    )
    found = [group.get("class") for group in by_class(draw(Lane("v1", many)), r"c\d+")]
    assert len(found) == len(DIGESTS)
    assert all(one != other for one, other in pairwise(found))


def test_an_unresolved_digest_is_hollow_and_says_so() -> None:
    """An interval whose digest is not known has a class of its own, and words."""
    drawing = draw(Lane("v1", (interval(None, 10, 90),)))
    assert [group.tag for group in by_class(drawing, "unresolved")] == ["g", "g"]  # and the legend
    assert any("digest not resolved" in title for title in titles(drawing))


def test_a_gap_is_hatched_over_the_lanes() -> None:
    """A gap has a block with words below the axis, and hatching that no link is hidden by."""
    drawing = draw(
        Lane("v1", (interval(DIGESTS[0], 0, 100),)),
        gaps=(
            Gap(day(-20), day(5), watched=False),
            Gap(day(20), day(30), "the daemon was not running"),
        ),
    )
    hatched = {
        rect.get("fill"): percents(rect, "x", "width")
        for rect in drawing.iter("rect")
        if rect.get("pointer-events") == "none"
    }
    assert hatched == {"url(#p-gap)": (20, 10), "url(#p-unwatched)": (0, 5)}
    assert {pattern.get("id") for pattern in drawing.iter("pattern")} >= {"p-gap", "p-unwatched"}
    assert any("the daemon was not running" in title for title in titles(drawing))


def test_a_deletion_is_marked_with_words() -> None:
    """A deleted tag has a cross at the first listing without it, and its window in words."""
    lane = Lane("v1", (interval(DIGESTS[0], 0, 30, ended=40),), (Deletion(day(30), day(40)),))
    (mark,) = by_class(draw(lane), "deletion")
    assert [place.get("x") for place in mark.iter("svg")] == ["40%"]
    assert titles(mark) == [
        "v1: deleted after 2026-12-01 00:00:00 UTC, no later than 2026-12-11 00:00:00 UTC"
    ]


def test_digits_are_written_where_they_have_room() -> None:
    """The label has the class of the narrowest page on which it fits into its interval."""
    widths = (30.0, 15.0, 9.0, 6.0, 3.0)
    starts = [sum(widths[:index]) for index in range(len(widths))]
    lane = Lane(
        "v1",
        tuple(
            interval(DIGESTS[n], start, start + width, ended=start + width)
            for n, (start, width) in enumerate(zip(starts, widths, strict=True))
        ),
    )
    labels = [text for text in draw(lane).iter("text") if "on-c" in text.get("class", "")]
    shown = [text.get("class", "").split()[1] for text in labels]
    assert shown == ["from-360", "from-600", "from-900", "from-1200"]
    assert [text.text for text in labels] == ["0000000"] * 4
    for text, width in zip(labels, widths, strict=False):
        page = int(text.get("class", "").rpartition("-")[2])
        assert width / 100 * (page - MARGINS) > 7 * 7.3


def test_wide_characters_need_twice_the_room() -> None:
    """Seven cells of whatever a registry calls a digest are written into an interval."""
    drawing = draw(Lane("v1", (interval("x:" + "名" * 9, 0, 50),)))
    (label,) = (text for text in drawing.iter("text") if "on-c" in text.get("class", ""))
    assert label.text == "名" * 3


def test_a_label_is_not_written_over_hatching() -> None:
    """In an interval with a gap, the digits are in the widest part that is not hatched."""
    drawing = draw(Lane("v1", (interval(DIGESTS[0], 0, 100),)), gaps=(Gap(day(10), day(60)),))
    (label,) = (text for text in drawing.iter("text") if "on-c" in text.get("class", ""))
    assert label.get("x") == "60%"


@pytest.mark.parametrize("count", [400, 10_000])
def test_a_lane_with_many_moves_stays_small(count: int) -> None:
    """Intervals that are too narrow are merged, with their number, and none of them is lost."""
    step = 100 / count
    lane = Lane(
        "nightly",
        tuple(
            interval(DIGESTS[n % 40], n * step, (n + 1) * step, ended=(n + 1) * step)
            for n in range(count)
        ),
        tuple(Deletion(None, day(n * step)) for n in range(count)),
    )
    drawing = draw(
        lane, gaps=tuple(Gap(day(n * step), day((n + 0.5) * step)) for n in range(count))
    )
    assert element_count(drawing) < 1500
    described = drawing.findtext("desc") or ""
    assert f"{count - 1:,} moves, {count:,} deletions, {count:,} gaps" in described
    merged = [title for title in titles(drawing) if "too short to draw" in title]
    single = len([group for group in by_class(drawing, r"c\d+") if group.tag == "g"])
    counts = [
        int(re.findall(r"in ([\d,]+) interval", title)[0].replace(",", "")) for title in merged
    ]
    assert sum(counts) + single == count
    assert len(by_class(drawing, "deletion")) <= single


def lane_of_links() -> Lane:
    one = Interval(DIGESTS[0], None, day(0), day(50), None, "image?digest=1")
    return Lane("v1", (one,), (Deletion(None, day(60), "change?id=1"),), "tag?tag=v1")


def test_links_make_the_drawing_a_group() -> None:
    """An image must not contain links, so a drawing with links is a group with a name.

    The tab key reaches the links of names only.
    """
    with_link = Lane("v1", (interval(DIGESTS[0], 0, 50),), href="tag?tag=v1")
    assert draw(Lane("v1")).get("role") == "img"
    assert [link.get("tabindex") for link in draw(lane_of_links()).iter("a")] == [None, "-1", "-1"]
    drawing = draw(with_link)
    assert drawing.get("role") == "group"
    ids = {element.get("id"): element.text for element in drawing}
    assert ids[drawing.get("aria-labelledby", "")] == "History"
    assert (ids[drawing.get("aria-describedby", "")] or "").startswith("1 tag from 2026-11-01")
    (link,) = drawing.iter("a")
    assert link.get("href") == "tag?tag=v1"
    assert link.get("tabindex") is None


@pytest.mark.parametrize("href", ["javascript:alert(1)", "https://example.com/", "//example.com/"])
def test_a_link_to_another_place_is_refused(href: str) -> None:
    """A drawing links only to pages beside it."""
    with pytest.raises(ValueError, match="not relative"):
        draw(Lane("v1", href=href))


def test_no_lanes_are_said_in_words() -> None:
    """A drawing without lanes has its axis, and a sentence instead of them."""
    drawing = draw()
    assert "No tags in this range" in [text.text for text in drawing.iter("text")]
    assert (drawing.findtext("desc") or "").startswith("0 tags")


def test_a_name_cannot_add_a_line_to_a_tooltip() -> None:
    """A line break in a name is made visible, so that it cannot forge another statement."""
    lane = Lane("v1\nv2: deleted", (interval(DIGESTS[0], 0, 50),), (Deletion(None, day(60)),))
    for title in titles(draw(lane, gaps=(Gap(day(70), day(80), "x\ny"),))):
        assert not re.search("^(v2|y)", title, flags=re.MULTILINE)


def test_a_large_drawing_has_higher_bars() -> None:
    """The page of a single tag shows its lane twice as high, at the same places."""
    lane = Lane("v1", (interval(DIGESTS[0], 10, 40),))
    drawing = parse(draw_lanes([lane], SPAN, prefix="p", title="t", large=True))
    (group,) = by_class(drawing, r"c\d+")
    (bar,) = group.iter("rect")
    assert (bar.get("height"), percents(bar, "x", "width")) == ("48", (10, 30))


@given(name=TEXTS, digest=TEXTS, words=TEXTS)
def test_hostile_texts_stay_texts(name: str, digest: str, words: str) -> None:
    """No text of a registry adds an element or a character that XML forbids."""
    one = Interval(digest, None, day(0), day(50), None, "image?x=1", words)
    lane = Lane(name, (one,), (Deletion(None, day(60), None, words),), "tag?x=1")
    gap = Gap(day(70), day(80), words)
    harmless = draw_lanes(
        [Lane("v1", (interval(DIGESTS[0], 0, 50),), (Deletion(None, day(60)),), "tag?x=1")],
        SPAN,
        [Gap(day(70), day(80))],
        prefix="p",
        title="History",
    )
    text = draw_lanes([lane], SPAN, [gap], prefix="p", title=name)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202e\u2028\ufffe\uffff]", text)
    tags = {element.tag for element in parse(text).iter()}
    assert tags <= {element.tag for element in parse(harmless).iter()} | {"a"}
    assert "style=" not in re.sub("<title.*?</title>", "", text, flags=re.DOTALL)


def test_a_long_name_is_shortened_only_in_sight() -> None:
    """A name that is too long keeps its beginning and end, and is whole in the tooltip."""
    name = "a" * 70 + "-end"
    drawing = draw(Lane(name))
    (group,) = by_class(drawing, "name")
    assert titles(group) == [name]
    shown = {text.get("class"): text.text or "" for text in group.iter("text")}
    assert {class_: len(text) for class_, text in shown.items()} == {
        "from-600": 60,
        "below-600": 38,
    }
    assert all("…" in text and text.endswith("-end") for text in shown.values())


@given(
    moments=st.lists(st.integers(-50, 150), min_size=1, max_size=12, unique=True).map(sorted),
    window=st.sampled_from([0, 0.5, 5]),
)
def test_every_rectangle_is_within_the_drawing(moments: list[int], window: float) -> None:
    """Nothing is drawn beyond the ends, and the same values give the same bytes."""
    lane = Lane(
        "v1",
        tuple(
            interval(DIGESTS[n], start, end - window, after=start - window, ended=end)
            for n, (start, end) in enumerate(pairwise(moments))
        ),
    )
    for left, right, _ in bars(draw(lane)):
        assert 0 <= left <= right <= 100.001
    assert draw_lanes([lane], SPAN, prefix="p", title="t") == draw_lanes(
        [lane], SPAN, prefix="p", title="t"
    )
