"""Draw a time axis: its ends, and ticks at round times, all in UTC."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Final

import msgspec

from tagsync.drawing.elements import Node, node, percent
from tagsync.drawing.room import MARGINS, PAGES
from tagsync.drawing.values import Range, show_minute

HEIGHT: Final = 36.0
"""Pixels from the top of an axis to the lower end of its labels."""

MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
"""The months as labels, in English at every locale."""

_TICKS: Final = 12
"""Maximum number of ticks, about one per 100 pixels of the widest page."""

_LABEL: Final = 52
"""Pixels that a label and the space beside it need."""

_BEGINNING: Final = datetime(1, 1, 1, tzinfo=UTC)
"""A Monday at midnight, from which steps of a fixed length are counted."""

_MINUTE: Final = 60
_HOUR: Final = 60 * _MINUTE
_DAY: Final = 24 * _HOUR
_MONTH: Final = 30.6 * _DAY

_SECONDS: Final = (
    *(_MINUTE * count for count in (1, 2, 5, 10, 15, 30)),
    *(_HOUR * count for count in (1, 2, 3, 6, 12)),
    *(_DAY * count for count in (1, 2, 7, 14)),
)
"""The steps of a fixed length, in seconds."""

_IN_MONTHS: Final = (1, 2, 3, 6, *(12 * count for count in (1, 2, 5, 10, 20, 50, 100, 1000)))
"""The steps that follow the calendar, in months."""


class Tick(msgspec.Struct, frozen=True):
    """A round time on an axis.

    Attributes:
        at: The time.
        position: Percent of the width.
        label: Short: the ends of the axis have the whole date.
        shown: The class of its label (`tagsync.drawing.room`). None if it has no room for it.
    """

    at: datetime
    position: float
    label: str
    shown: str | None


def ticks(span: Range) -> list[Tick]:
    """Return the at most 13 ticks of a range. Their labels do not overlap on any page."""
    times = list(_times(span))
    positions = [span.position(at) for _, at, _ in times]
    spacing = min((b - a for a, b in pairwise(positions)), default=100.0)
    return [
        Tick(at, position, label, _shown(index, position, spacing))
        for (index, at, label), position in zip(times, positions, strict=True)
    ]


def draw_axis(parent: Node, span: Range, *, bottom: float) -> None:
    """Draw an axis at the top of a drawing.

    Args:
        parent: The drawing.
        span: The range of the drawing.
        bottom: Where the hairlines of the ticks end, in pixels.
    """
    axis = node(parent, "g", class_="axis", aria_hidden="true")
    node(axis, "text", show_minute(span.start), x="0", y=12, class_="end")
    node(axis, "text", f"{show_minute(span.end)} UTC", x="100%", y=12, text_anchor="end")
    found = ticks(span)
    for tick in found:
        x = percent(tick.position)
        node(axis, "line", x1=x, x2=x, y1=HEIGHT, y2=bottom)
    draw_labels(axis, found, y=HEIGHT - 5)


def draw_labels(parent: Node, found: list[Tick], *, y: float) -> None:
    """Draw the labels of ticks, with their base line at ``y`` pixels."""
    for tick in found:
        if tick.shown:
            x = percent(tick.position)
            node(parent, "text", tick.label, x=x, y=y, text_anchor="middle", class_=tick.shown)


def label_room(index: int, position: float, spacing: float, pixels: float) -> str | None:
    """Return the class of one of several equally spaced labels, or None if it lacks room.

    On a narrow page every second, fourth, eighth … label is shown.

    Args:
        index: Number of the label. Multiples of powers of two stay longest.
        position: The middle of the label, in percent.
        spacing: The least distance of two labels, in percent.
        pixels: The width of a label with the space beside it.
    """
    for page in PAGES:
        width = (page - MARGINS) / 100
        stride = 1
        while stride * spacing * width < pixels:
            stride *= 2
        beside = min(position, 100 - position) * width
        if index % stride == 0 and beside >= pixels / 2 - 6:
            return f"from-{page}"
    return None


def _shown(index: int, position: float, spacing: float) -> str | None:
    return label_room(index, position, spacing, _LABEL)


def _times(span: Range) -> Iterator[tuple[int, datetime, str]]:
    """Yield number, time and label of each tick."""
    start = span.start.astimezone(UTC)
    end = start + span.length
    length = span.length.total_seconds()
    for seconds in _SECONDS:
        if length / seconds <= _TICKS:
            yield from _fixed(start, end, seconds)
            return
    months = next(
        (count for count in _IN_MONTHS if length / (count * _MONTH) <= _TICKS), _IN_MONTHS[-1]
    )
    yield from _calendar(start, end, months)


def _fixed(start: datetime, end: datetime, seconds: int) -> Iterator[tuple[int, datetime, str]]:
    step = timedelta(seconds=seconds)
    first = -((_BEGINNING - start) // step)  # rounded up
    last = (end - _BEGINNING) // step
    for index in range(first, last + 1):
        at = _BEGINNING + index * step
        midnight = not (at.hour or at.minute)
        yield index, at, f"{at.day} {MONTHS[at.month - 1]}" if midnight else f"{at:%H:%M}"


def _calendar(start: datetime, end: datetime, months: int) -> Iterator[tuple[int, datetime, str]]:
    first, last = ((at.year * 12 + at.month - 1) // months for at in (start, end))
    for index in range(first, last + 1):
        year, month = divmod(index * months, 12)
        at = datetime(max(year, 1), month + 1, 1, tzinfo=UTC)
        if start <= at <= end:
            yield index, at, str(year) if month == 0 else MONTHS[month]
