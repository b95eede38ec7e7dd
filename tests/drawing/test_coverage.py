"""The drawings of coverage: blocks have their place, and a share is said by height and words."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given

from tagsync.drawing import draw_heat_map, draw_strips
from tagsync.drawing.coverage import state_of
from tagsync.drawing.values import Block, Range, Strip
from tests.support.drawings import by_class, parse, percents, titles
from tests.support.hostile import TEXTS

START = datetime(2026, 11, 1, tzinfo=UTC)
SPAN = Range(START, START + timedelta(days=10))
BLOCKS = (Block(None), Block(1.0), Block(1.0), Block(0.5, "3 polls failed"), Block(0.0))


@pytest.mark.parametrize("draw", [draw_strips, draw_heat_map])
def test_blocks_divide_the_range(draw: Callable[..., str]) -> None:
    """Each run of equal blocks is as wide as its part of the range, and names its times."""
    text = draw([Strip("swr", BLOCKS, "registry?x", "90 %")], SPAN, prefix="p", title="t")
    drawing = parse(text)
    (row,) = by_class(drawing, "strip")
    groups = row.findall("g")
    places = [percents(group.findall("rect")[0], "x", "width") for group in groups]
    assert places == [(0, 20), (20, 40), (60, 20), (80, 20)]
    assert [title.partition(",")[0] for title in titles(row)[1:]] == [
        *("swr: not watched yet", "swr: covered", "swr: 50 % covered", "swr: gap in coverage")
    ]
    assert titles(row)[3].endswith("2026-11-07 00:00 to 2026-11-09 00:00 UTC\n3 polls failed")
    assert "90 %" in [text.text for text in row.iter("text")]


def test_a_share_is_a_height() -> None:
    """Half a share fills half of the block. The least gap is visible, and never 100 %."""
    shares = (0.5, 0.0001, 0.9999)
    strip = Strip("swr", tuple(map(Block, shares)))
    drawing = parse(draw_strips([strip], SPAN, prefix="p", title="t"))
    legend = {id(part) for group in by_class(drawing, "legend") for part in group.iter()}
    filled = [rect for rect in by_class(drawing, "partly") if id(rect) not in legend]
    heights = [float(rect.get("height", "")) for rect in filled]
    assert heights == [8, pytest.approx(2.4), pytest.approx(13.6)]
    assert [title.partition(",")[0] for title in titles(drawing)[2:]] == [
        *("swr: 50 % covered", "swr: less than 1 % covered", "swr: 99 % covered")
    ]


@pytest.mark.parametrize(
    ("share", "state"),
    [(None, "unwatched"), (0, "gap"), (0.0001, "partly"), (0.9999, "partly"), (1, "covered")],
)
def test_only_a_whole_block_is_covered(share: float | None, state: str) -> None:
    """The smallest gap makes a block partly covered, and the smallest share is no gap."""
    assert state_of(Block(share)) == state


def test_the_description_counts_rows_without_a_gap() -> None:
    """The text alternative says how many rows have no gap."""
    strips = [Strip("a", BLOCKS), Strip("b", (Block(None), Block(1.0)))]
    description = parse(draw_heat_map(strips, SPAN, prefix="p", title="t")).findtext("desc") or ""
    assert description.endswith("2 rows, 1 of them without a gap.")


def test_nothing_to_draw_is_said_in_words() -> None:
    """A drawing without strips, and a strip without blocks, are drawn."""
    drawing = parse(draw_strips([], SPAN, prefix="p", title="t"))
    assert "Nothing was polled yet" in [text.text for text in drawing.iter("text")]
    assert by_class(parse(draw_strips([Strip("a", ())], SPAN, prefix="p", title="t")), "strip")


def test_too_many_blocks_are_refused() -> None:
    """The size of a drawing is bounded, so the caller has to choose longer slices."""
    blocks = tuple(Block(index / 500) for index in range(201))
    with pytest.raises(ValueError, match="at most 200"):
        draw_strips([Strip("a", blocks)], SPAN, prefix="p", title="t")


@given(name=TEXTS, words=TEXTS, note=TEXTS)
def test_hostile_texts_stay_texts(name: str, words: str, note: str) -> None:
    """Names and words of a registry are well-formed XML in the drawing."""
    strip = Strip(name, (Block(0.5, words),), "r?x", note)
    drawing = parse(draw_heat_map([strip], SPAN, prefix="p", title=name))
    assert not by_class(drawing, "script")
    assert "script" not in {element.tag for element in drawing.iter()}
