"""Draw coverage: a row of blocks for each registry or repository.

The height of a block's fill is the share that complete listings cover, so that it is not said by
colour alone. A block without any coverage is hatched, and one from before the first listing is
empty.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Final, Literal

import msgspec

from tagsync.drawing import axis, marks
from tagsync.drawing.elements import Node, linked, node, percent, root, to_text, visible
from tagsync.drawing.room import shorten
from tagsync.drawing.tooltips import count, with_words
from tagsync.drawing.values import Block, Range, Strip, show_minute, show_moment

State = Literal["covered", "partly", "gap", "unwatched"]
"""The coverage of a block, in one word."""

_STATES: Final[dict[State, str]] = {
    "covered": "covered",
    "partly": "partly covered",
    "gap": "gap in coverage",
    "unwatched": "not watched yet",
}
"""The words of each state, in the order of the legend."""

_MOST: Final = 200
"""Maximum number of blocks of a row. The caller chooses how long a block is."""

_LEAST: Final = 0.15
"""Least part of a block's height that is filled, or left free, if it is covered in part."""


_NOTE: Final = 12
"""Maximum number of characters of a note."""


class _Layout(msgspec.Struct, frozen=True):
    """The pixels of a row: of its name, of its bar, and from one row to the next."""

    name: float
    bar: float
    pitch: float


_STRIPS: Final = _Layout(name=13, bar=16, pitch=40)
_HEAT_MAP: Final = _Layout(name=13, bar=16, pitch=42)


def draw_strips(strips: Sequence[Strip], span: Range, *, prefix: str, title: str) -> str:
    """Return the drawing of a few strips, one for each registry.

    Args:
        strips: In the order in which to draw them. Their blocks divide the range equally.
        span: The range of the axis.
        prefix: Begins each id in the drawing. Different for each drawing of a page.
        title: The name of the drawing.

    Raises:
        ValueError: If a strip has more than 200 blocks.
    """
    return _draw(strips, span, _STRIPS, prefix=prefix, title=title)


def draw_heat_map(strips: Sequence[Strip], span: Range, *, prefix: str, title: str) -> str:
    """Return the drawing of many strips, one for each repository, closer to each other.

    The arguments and errors are those of `draw_strips`.
    """
    return _draw(strips, span, _HEAT_MAP, prefix=prefix, title=title)


def state_of(block: Block) -> State:
    """Return the coverage of a block in one word. Only a whole one is ``covered``."""
    if block.share is None:
        return "unwatched"
    if block.share <= 0:
        return "gap"
    return "covered" if block.share >= 1 else "partly"


def _draw(strips: Sequence[Strip], span: Range, layout: _Layout, *, prefix: str, title: str) -> str:
    top = axis.HEIGHT + 6
    bottom = top + max(len(strips), 1) * layout.pitch
    found = {state_of(block) for strip in strips for block in strip.blocks}
    legend = [state for state in _STATES if state in found]
    drawing = root(
        prefix,
        title=title,
        description=_describe(strips, span),
        height=bottom + marks.legend_height(len(legend)),
        links=any(strip.href is not None for strip in strips),
    )
    bar_top = layout.pitch - layout.bar - (6 if layout is _STRIPS else 8)
    marks.block_hatching(drawing, prefix)
    axis.draw_axis(drawing, span, bottom=bottom - 6)
    for index, strip in enumerate(strips):
        row = node(drawing, "g", class_="strip")
        y = top + index * layout.pitch
        marks.draw_name(row, strip.name, strip.href, y=y + layout.name)
        if strip.note:
            note = shorten(visible(strip.note), _NOTE)
            where = {"x": "100%", "text_anchor": "end", "class_": "note from-600"}
            node(row, "text", note, y=y + layout.name, **where)
        _draw_blocks(row, strip, span, y + bar_top, layout.bar, prefix)
    if not strips:
        node(drawing, "text", "Nothing was polled yet", x=0, y=top + 20, class_="note")
    marks.draw_legend(drawing, legend, prefix, y=bottom, fills_at=0)
    return to_text(drawing)


def _draw_blocks(
    row: Node, strip: Strip, span: Range, top: float, height: float, prefix: str
) -> None:
    """Draw the blocks of a strip. Neighbours that say the same are drawn as one."""
    number = len(strip.blocks)
    if number > _MOST:
        raise ValueError(f"a strip of {number} blocks, instead of at most {_MOST}")
    for first, end in _runs(strip.blocks):
        block = strip.blocks[first]
        made = linked(row, None, title=_block_title(strip, span, first, end))
        place = {"x": percent(100 * first / number), "width": percent(100 * (end - first) / number)}
        state = state_of(block)
        if state in {"gap", "unwatched"}:
            fill = f"url(#{prefix}-{state})"
            node(made, "rect", y=top, height=height, fill=fill, **place)
            continue
        filled = height
        if state == "partly" and block.share is not None:
            filled *= min(max(block.share, _LEAST), 1 - _LEAST)
            node(made, "rect", y=top, height=height, class_="uncovered", **place)
        node(made, "rect", y=top + height - filled, height=filled, class_=state, **place)


def _runs(blocks: Sequence[Block]) -> list[tuple[int, int]]:
    """Return where each run of equal blocks begins and ends."""
    starts = [i for i, block in enumerate(blocks) if i == 0 or block != blocks[i - 1]]
    return list(pairwise([*starts, len(blocks)]))


def _block_title(strip: Strip, span: Range, first: int, end: int) -> list[str]:
    number = len(strip.blocks)
    start, stop = (span.start + span.length * at / number for at in (first, end))
    block = strip.blocks[first]
    words = _STATES[state_of(block)]
    if state_of(block) == "partly" and block.share is not None:
        # Rounded down, so that a gap never shows as 100 %.
        words = f"{int(100 * block.share) or 'less than 1'} % covered"
    text = f"{strip.name}: {words}, {show_minute(start)} to {show_minute(stop)} UTC"
    return with_words([text], block.words)


def _describe(strips: Sequence[Strip], span: Range) -> str:
    complete = sum(
        all(state_of(block) in {"covered", "unwatched"} for block in strip.blocks)
        for strip in strips
    )
    return (
        f"Coverage from {show_moment(span.start)} to {show_moment(span.end)}:"
        f" {count(len(strips), 'row')}, {complete:,} of them without a gap."
    )
