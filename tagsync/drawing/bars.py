"""Draw the changes per day as stacked bars, with the same order of the kinds in each bar."""

from collections.abc import Sequence
from typing import Final, get_args

from tagsync.drawing import axis, marks
from tagsync.drawing.elements import Node, linked, node, percent, root, to_text
from tagsync.drawing.tooltips import count
from tagsync.drawing.values import Day, Kind

KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
"""The kinds of changes, from the lowest part of a bar to its top."""

_PATTERNS: Final[tuple[Kind, ...]] = ("added", "deleted")
"""The kinds that have a pattern, so that no two neighbours differ in colour alone."""

_MOST: Final = 400
"""Maximum number of days."""

_TOP: Final = 18
_HEIGHT: Final = 96
"""Pixels above the plot, where the highest label is, and of the plot."""

_BOTTOM: Final = _TOP + _HEIGHT

_LEAST: Final = 2.0
"""Least height of a part of a bar, in pixels, so that a single change is visible."""

_ENDS: Final = (2, 4, 6, 8, 10, 12, 16)
"""The ends of scales, which are multiplied with powers of ten."""

_LABEL: Final = 52
"""Pixels that a label of a day and the space beside it need."""

_FILLED: Final = 0.72
"""The part of a day's width that its bar fills."""


def draw_bars(days: Sequence[Day], *, prefix: str, title: str) -> str:
    """Return the drawing of the changes per day.

    Args:
        days: Consecutive days in time order, those without changes included.
        prefix: Begins each id in the drawing. Different for each drawing of a page.
        title: The name of the drawing.

    Raises:
        ValueError: If there are more than 400 days.
    """
    if len(days) > _MOST:
        raise ValueError(f"a drawing of {len(days)} days, instead of at most {_MOST}")
    drawing = root(
        prefix,
        title=title,
        description=_describe(days),
        height=_BOTTOM + 24 + marks.legend_height(len(KINDS)),
        links=any(day.href is not None for day in days),
    )
    _define_patterns(drawing, prefix)
    highest = scale_end(max((day.total for day in days), default=0))
    _draw_scale(drawing, highest)
    for index, day in enumerate(days):
        _draw_day(drawing, day, index, len(days), highest, prefix)
    _draw_values(drawing, highest)
    _draw_days(drawing, days)
    _draw_legend(drawing, days, prefix)
    return to_text(drawing)


def scale_end(highest: int) -> int:
    """Return the end of a scale for values up to ``highest``. Its half is a whole number, too."""
    power = 1
    while True:
        for step in _ENDS:
            if step * power >= highest:
                return step * power
        power *= 10


def _draw_scale(drawing: Node, highest: int) -> None:
    scale = node(drawing, "g", class_="axis", aria_hidden="true")
    for value in (0, highest // 2, highest):
        y = _height_of(value, highest)
        node(scale, "line", x1=0, x2="100%", y1=y, y2=y)


def _draw_values(drawing: Node, highest: int) -> None:
    """Draw the values of the scale, over the bars."""
    values = node(drawing, "g", class_="axis values", aria_hidden="true")
    for value in (highest // 2, highest):
        node(values, "text", f"{value:,}", x=0, y=_height_of(value, highest) - 4)


def _height_of(value: int, highest: int) -> float:
    return _BOTTOM - _HEIGHT * value / highest


def _draw_day(drawing: Node, day: Day, index: int, days: int, highest: int, prefix: str) -> None:
    made = linked(drawing, day.href, title=[_day_title(day)], class_="day", stop=True)
    width = 100 / days
    left, wide = percent((index + (1 - _FILLED) / 2) * width), percent(_FILLED * width)
    # The whole column shows the tooltip, also above a low bar.
    column = {"x": percent(index * width), "width": percent(width)}
    node(made, "rect", y=_TOP, height=_HEIGHT, fill="none", pointer_events="all", **column)
    y = float(_BOTTOM)
    for kind, height in heights(day, highest):
        y -= height
        for fill in _fills(kind, prefix):
            node(made, "rect", x=left, y=y, width=wide, height=height, **fill)


def heights(day: Day, highest: int) -> list[tuple[Kind, float]]:
    """Return the heights of the parts of a bar in pixels, the lowest part first.

    Small parts have a least height. The bar stays within the plot all the same.
    """
    counts = [(kind, getattr(day, kind)) for kind in KINDS]
    found = [(kind, max(_HEIGHT * value / highest, _LEAST)) for kind, value in counts if value > 0]
    excess = max(sum(height for _, height in found) / _HEIGHT, 1)
    return [(kind, height / excess) for kind, height in found]


def _draw_days(drawing: Node, days: Sequence[Day]) -> None:
    labels = node(drawing, "g", class_="axis", aria_hidden="true")
    spacing = 100 / max(len(days), 1)
    for index, day in enumerate(days):
        position = (index + 0.5) * spacing
        # Counted from the newest day, whose label therefore stays longest.
        shown = axis.label_room(len(days) - 2 - index, position, spacing, _LABEL)
        if shown:
            text = f"{day.day.day} {axis.MONTHS[day.day.month - 1]}"
            where = {"x": percent(position), "text_anchor": "middle", "class_": shown}
            node(labels, "text", text, y=_BOTTOM + 17, **where)


def _define_patterns(drawing: Node, prefix: str) -> None:
    """Define what tells the kinds apart without colour: lines and dots."""
    definitions = node(drawing, "defs")
    for kind in _PATTERNS:
        name = f"{prefix}-{kind}"
        pattern = node(
            definitions, "pattern", id=name, patternUnits="userSpaceOnUse", width=6, height=6
        )
        if kind == "added":
            node(pattern, "circle", cx=3, cy=3, r=1, class_="bar-dot")
        else:
            node(pattern, "path", d="M-1,7L7,-1M-1,1L1,-1M5,7L7,5", class_="bar-line")


def _fills(kind: Kind, prefix: str) -> list[dict[str, str]]:
    """Return the attributes of the rectangles that are drawn upon each other for a kind."""
    fills: list[dict[str, str]] = [{"class_": kind}]
    if kind in _PATTERNS:
        fills.append({"fill": f"url(#{prefix}-{kind})"})
    return fills


def _draw_legend(drawing: Node, days: Sequence[Day], prefix: str) -> None:
    legend = node(drawing, "g", class_="legend")
    for index, kind in enumerate(KINDS):
        left, top = marks.legend_place(index, _BOTTOM + 24)
        for fill in _fills(kind, prefix):
            node(legend, "rect", x=left, y=top, width=16, height=12, **fill)
        total = sum(getattr(day, kind) for day in days)
        node(legend, "text", f"{total:,} {kind}", x=left + 24, y=top + 10)


def _day_title(day: Day) -> str:
    counts = [f"{getattr(day, kind):,} {kind}" for kind in KINDS if getattr(day, kind)]
    return f"{day.day.isoformat()}: {', '.join(counts) or 'no changes'}"


def _describe(days: Sequence[Day]) -> str:
    if not days:
        return "No days."
    totals = ", ".join(f"{sum(getattr(day, kind) for day in days):,} {kind}" for kind in KINDS)
    busiest = max(days, key=lambda day: day.total)
    return (
        f"Changes of {count(len(days), 'day')} from {days[0].day} to {days[-1].day}:"
        f" {totals}. The most on a day were {busiest.total:,}, on {busiest.day}."
    )
