"""Draw the history of tags: a lane for each tag, and in it an interval for each digest.

The window of uncertainty at a move belongs to both digests: the upper half of the lane has the
colour of the old one there, and the lower half that of the new one.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final, Literal

import msgspec

from tagsync.drawing import axis, marks, tooltips
from tagsync.drawing.elements import Node, linked, node, percent, root, to_text, visible
from tagsync.drawing.merging import Piece, clusters, most_pieces, pieces
from tagsync.drawing.palette import colours
from tagsync.drawing.room import DIGIT, PIXEL, begin, shown_from
from tagsync.drawing.tooltips import count
from tagsync.drawing.values import Deletion, Gap, Interval, Lane, Range, show_moment

_TOP: Final = axis.HEIGHT + 12
"""Pixels above the first lane: the axis, and the row of the gaps in coverage."""

_BAR_TOP: Final = 22
_BELOW: Final = 10
"""Pixels of a lane above its bar, for its name, and below it."""

_BAR: Final = 24
_LARGE_BAR: Final = 48
"""Pixels of a bar. `marks.hatching` needs a multiple of 8."""

_DIGITS: Final = 7
"""Characters of a digest that are written into an interval."""

_PADDING: Final = 8
"""Pixels between the ends of an interval and its label."""

_CROSS: Final = 8 * PIXEL
"""Least distance of two marks of deletions, in percent."""

_SECOND_AXIS: Final = 8
"""Number of lanes from which on the axis is repeated below them."""


class _Drawn(msgspec.Struct, frozen=True):
    """A lane with its pieces, and the top and height of its bar in pixels."""

    lane: Lane
    top: float
    bar: float
    pieces: list[Piece]
    classes: list[str]


class _GapBlock(msgspec.Struct, frozen=True):
    """One or more gaps that are drawn as one. The ends are in percent."""

    start: float
    end: float
    title: list[str]
    kind: Literal["gap", "unwatched"]


def draw_lanes(
    lanes: Sequence[Lane],
    span: Range,
    gaps: Sequence[Gap] = (),
    *,
    prefix: str,
    title: str,
    large: bool = False,
) -> str:
    """Return the drawing of lanes over a range.

    A lane has at most 100 pieces, and at least 30 if there are many lanes: neighbours that are too
    narrow are drawn as one, with their number. An interval that has not ended is drawn until the
    last listing that showed it.

    Only the links of names are reached with the tab key, so the page needs a table with the other
    ones. A name of more than 60 characters is shortened, and whole in its tooltip only, so it also
    belongs into the table.

    Args:
        lanes: In the order in which to draw them.
        span: The range of the axis.
        gaps: The gaps in coverage of the repository, in time order.
        prefix: Begins each id in the drawing. Different for each drawing of a page.
        title: The name of the drawing.
        large: Whether bars are twice as high, for the page of a single tag.
    """
    bar = _LARGE_BAR if large else _BAR
    pitch = _BAR_TOP + bar + _BELOW
    found = [pieces(lane.intervals, span, most_pieces(len(lanes))) for lane in lanes]
    drawn = [
        _Drawn(lane, _TOP + _BAR_TOP + index * pitch, bar, found[index], classes)
        for index, (lane, classes) in enumerate(zip(lanes, _classes(found), strict=True))
    ]
    bottom = _TOP + max(len(drawn), 1) * pitch
    below = bottom + (18 if len(drawn) > _SECOND_AXIS else 0)
    blocks = _gap_blocks(gaps, span)
    legend = marks.legend_kinds(_kinds(drawn, blocks, span))
    drawing = root(
        prefix,
        title=title,
        description=_describe(drawn, span, gaps),
        height=below + marks.legend_height(len(legend)),
        links=any(_has_links(lane) for lane in lanes),
    )
    marks.hatching(drawing, prefix, top=_TOP + _BAR_TOP, bar=bar, pitch=pitch)
    axis.draw_axis(drawing, span, bottom=bottom - 6)
    if below > bottom:
        repeated = node(drawing, "g", class_="axis", aria_hidden="true")
        axis.draw_labels(repeated, axis.ticks(span), y=bottom + 8)
    for one in drawn:
        _draw_lane(drawing, one, span, prefix)
    if not drawn:
        node(drawing, "text", "No tags in this range", x=0, y=_TOP + 20, class_="note")
    _draw_gaps(drawing, blocks, prefix, bottom=bottom)
    _draw_labels(drawing, drawn, [(block.start, block.end) for block in blocks], span)
    for one in drawn:
        _draw_deletions(drawing, one, span)
    marks.draw_legend(drawing, legend, prefix, y=below, fills_at=_TOP + _BAR_TOP)
    return to_text(drawing)


def _classes(lanes: Sequence[Sequence[Piece]]) -> list[list[str]]:
    """Return the class of each piece of each lane."""
    digests = [
        [piece.intervals[0].digest for piece in lane if len(piece.intervals) == 1] for lane in lanes
    ]
    chosen = colours([[each for each in lane if each is not None] for lane in digests])
    return [
        [_class_of(piece, palette) for piece in lane]
        for lane, palette in zip(lanes, map(iter, chosen), strict=True)
    ]


def _class_of(piece: Piece, palette: Iterator[int]) -> str:
    """Return the class of a piece. One with a digest takes the next colour of its lane."""
    if len(piece.intervals) > 1:
        return "many"
    return "unresolved" if piece.intervals[0].digest is None else f"c{next(palette)}"


def _draw_lane(drawing: Node, drawn: _Drawn, span: Range, prefix: str) -> None:
    group = node(drawing, "g", class_="lane")
    marks.draw_name(group, drawn.lane.name, drawn.lane.href, y=drawn.top - 7)
    middle = drawn.top + drawn.bar / 2
    node(group, "line", class_="track", x1=0, x2="100%", y1=middle, y2=middle)
    for piece, class_ in zip(drawn.pieces, drawn.classes, strict=True):
        if len(piece.intervals) > 1:
            _draw_many(group, drawn, piece, prefix)
        else:
            _draw_interval(group, drawn, piece.intervals[0], class_, span)


def _draw_interval(
    group: Node, drawn: _Drawn, interval: Interval, class_: str, span: Range
) -> None:
    title = tooltips.of_interval(drawn.lane.name, interval)
    made = linked(group, interval.href, title=title, class_=class_)
    start, end = span.position(interval.valid_from), span.position(interval.known_to)
    before, after = _windows(interval, span)
    half = drawn.bar / 2
    if span.overlaps(interval.valid_from, interval.known_to):
        _rectangle(made, start, end, drawn.top, drawn.bar)
    if before < start:
        _rectangle(made, before, start, drawn.top + half, half, "window")
    if end < after:
        _rectangle(made, end, after, drawn.top, half, "window")


def _windows(interval: Interval, span: Range) -> tuple[float, float]:
    """Return where the windows of uncertainty begin and end, if they are a pixel wide."""
    start, end = span.position(interval.valid_from), span.position(interval.known_to)
    before = start if interval.not_before is None else span.position(interval.not_before)
    after = span.position(interval.possible_to)
    return before if start - before >= PIXEL else start, after if after - end >= PIXEL else end


def _draw_many(group: Node, drawn: _Drawn, piece: Piece, prefix: str) -> None:
    lane = drawn.lane
    first, last = piece.intervals[0].valid_from, piece.intervals[-1].possible_to
    deletions = bisect_right(lane.deletions, last, key=_observed_at)
    deletions -= bisect_left(lane.deletions, first, key=_observed_at)
    title = tooltips.of_many(lane.name, piece, deletions)
    made = linked(group, None, title=title, class_="many")
    _rectangle(made, piece.start, piece.end, drawn.top, drawn.bar, fill=f"url(#{prefix}-many)")


def _rectangle(
    parent: Node,
    start: float,
    end: float,
    top: float,
    height: float,
    class_: str | None = None,
    **attributes: str,
) -> None:
    """Draw a rectangle that is at least a pixel wide on a page of 1,280 pixels."""
    width = max(end - start, PIXEL)
    left = percent(min(start, 100 - width))
    wide = percent(width)
    node(parent, "rect", class_=class_, x=left, y=top, width=wide, height=height, **attributes)


def _draw_gaps(drawing: Node, blocks: Sequence[_GapBlock], prefix: str, *, bottom: float) -> None:
    """Draw each gap as a block below the axis, and as hatching over the lanes."""
    group = node(drawing, "g", class_="gaps")
    for block in blocks:
        made = linked(group, None, title=block.title)
        _rectangle(made, block.start, block.end, axis.HEIGHT, 6, f"{block.kind}-mark")
        # Without pointer events: the links and tooltips below the hatching stay reachable.
        _rectangle(
            *(group, block.start, block.end, _TOP, bottom - _TOP),
            fill=f"url(#{prefix}-{block.kind})",
            pointer_events="none",
        )


def _gap_blocks(gaps: Sequence[Gap], span: Range) -> list[_GapBlock]:
    """Return at most 200 blocks. Gaps that are too close to each other become one."""
    blocks = []
    for watched in (False, True):
        found = [
            gap for gap in gaps if gap.watched is watched and span.overlaps(gap.start, gap.end)
        ]
        ends = [(span.position(gap.start), span.position(gap.end)) for gap in found]
        for group in clusters(ends, PIXEL):
            start, end = ends[group[0]][0], max(ends[index][1] for index in group)
            title = tooltips.of_gaps([found[index] for index in group])
            blocks.append(_GapBlock(start, end, title, "gap" if watched else "unwatched"))
    return blocks


def _draw_labels(
    drawing: Node, drawn: Sequence[_Drawn], hatched: Sequence[tuple[float, float]], span: Range
) -> None:
    """Write the beginning of its digest into each interval that has room for it."""
    # Hidden from screen readers: the tooltips have the whole digests.
    group = node(drawing, "g", class_="digits", aria_hidden="true", pointer_events="none")
    for one in drawn:
        y = one.top + one.bar / 2 + 4
        for piece, class_ in zip(one.pieces, one.classes, strict=True):
            start, end = _widest_part(*_known_ends(piece, span), hatched)
            label = _label(piece)
            shown = shown_from(end - start, len(label) * DIGIT + 2 * _PADDING)
            if shown:
                classes = f"on-{class_} {shown}"
                node(group, "text", label, x=percent(start), dx=_PADDING, y=y, class_=classes)


def _known_ends(piece: Piece, span: Range) -> tuple[float, float]:
    """Return the ends of the part of a piece between its windows of uncertainty, in percent."""
    if len(piece.intervals) > 1:
        return piece.start, piece.end
    interval = piece.intervals[0]
    return span.position(interval.valid_from), span.position(interval.known_to)


def _widest_part(
    start: float, end: float, hatched: Sequence[tuple[float, float]]
) -> tuple[float, float]:
    """Return the widest part of a piece that is not hatched, so that its label is legible."""
    parts, reached = [], start
    for left, right in sorted(hatched):
        if left < end and right > reached:
            parts.append((reached, left))
            reached = right
    return max([*parts, (reached, end)], key=lambda part: part[1] - part[0])


def _label(piece: Piece) -> str:
    if len(piece.intervals) > 1:
        return f"{piece.moves:,} moves"
    digest = piece.intervals[0].digest
    # Seven characters of the digest as it is shown: an escaped character is longer.
    return "unresolved" if digest is None else begin(visible(digest.rpartition(":")[2]), _DIGITS)


def _draw_deletions(drawing: Node, drawn: _Drawn, span: Range) -> None:
    """Draw a cross at each deletion, except within pieces of several intervals."""
    many = [piece for piece in drawn.pieces if len(piece.intervals) > 1]
    starts = [piece.start for piece in many]
    found = []
    for deletion in _deletions_in(drawn.lane, span):
        at = span.position(deletion.observed_at)
        before = bisect_right(starts, at)
        if before == 0 or at > many[before - 1].end:
            found.append((deletion, at))
    for group in clusters([(at, at) for _, at in found], _CROSS):
        members = [found[index][0] for index in group]
        href = members[0].href if len(members) == 1 else None
        title = tooltips.of_deletions(drawn.lane.name, members)
        made = linked(drawing, href, title=title, class_="deletion")
        marks.draw_cross(made, percent(found[group[0]][1]), drawn.top + drawn.bar / 2)


def _deletions_in(lane: Lane, span: Range) -> tuple[Deletion, ...]:
    """Return the deletions of a lane that are in the range."""
    first = bisect_left(lane.deletions, span.start, key=_observed_at)
    return lane.deletions[first : bisect_right(lane.deletions, span.end, key=_observed_at)]


def _observed_at(deletion: Deletion) -> datetime:
    return deletion.observed_at


def _kinds(drawn: Sequence[_Drawn], blocks: Sequence[_GapBlock], span: Range) -> set[str]:
    """Return the kinds of marks that occur, for the legend."""
    kinds = {class_ for one in drawn for class_ in one.classes} | {block.kind for block in blocks}
    single = (piece for one in drawn for piece in one.pieces if len(piece.intervals) == 1)
    if any(_windows(piece.intervals[0], span) != _known_ends(piece, span) for piece in single):
        kinds.add("window")
    if any(_deletions_in(one.lane, span) for one in drawn):
        kinds.add("deletion")
    return kinds


def _has_links(lane: Lane) -> bool:
    parts: list[Lane | Interval | Deletion] = [lane, *lane.intervals, *lane.deletions]
    return any(part.href is not None for part in parts)


def _describe(drawn: Sequence[_Drawn], span: Range, gaps: Sequence[Gap]) -> str:
    moves = sum(piece.moves for one in drawn for piece in one.pieces)
    deletions = sum(len(_deletions_in(one.lane, span)) for one in drawn)
    holes = sum(gap.watched and span.overlaps(gap.start, gap.end) for gap in gaps)
    return (
        f"{count(len(drawn), 'tag')} from {show_moment(span.start)} to"
        f" {show_moment(span.end)}: {count(moves, 'move')},"
        f" {count(deletions, 'deletion')}, {count(holes, 'gap')} in coverage."
    )
